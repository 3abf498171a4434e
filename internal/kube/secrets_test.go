package kube

import (
	"context"
	"testing"
	"testing/synctest"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gatehouse-io/gatehouse/internal/objects"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

func meta(rv string) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "tls", UID: "u", ResourceVersion: rv}}
}

// next is the Secret that is fetched next.
func next(b *bodies) objects.Key {
	k, _ := b.queue.Get()
	b.queue.Done(k)
	return k
}

// TestBodyStaysUntilTheNextIsThere: a Secret that changes is never without a body once it had one, and an older body never replaces a
// newer.
func TestBodyStaysUntilTheNextIsThere(t *testing.T) {
	w, store := testWatch("Secret"), objects.NewStore()
	b := &w.s.bodies
	key := objects.Key{Kind: "Secret", Namespace: "shop", Name: "tls"}
	look := func() (string, objects.Presence) {
		if c, _, ok := w.s.take(); ok {
			store.Apply(c)
		}
		s, p := objects.Get[*objects.Secret](store.View(nil), "shop", "tls")
		if p != objects.Present {
			return "", p
		}
		return string(s.Material.Data["k"].Reveal()), p
	}
	body := func(rv, value string) *objects.Secret {
		s := &objects.Secret{ObjectMeta: meta(rv).ObjectMeta, Material: secret.Material{Data: map[string]secret.Value{"k": secret.New([]byte(value))}}}
		return s
	}
	if err := w.Replace([]any{meta("1")}, "1"); err != nil {
		t.Fatal(err)
	}
	if _, p := look(); p != objects.Pending {
		t.Fatalf("presence = %v, want pending", p)
	}
	w.s.c.Fetch([]objects.Key{key})
	w.s.c.Fetch([]objects.Key{key})
	if got := next(b); got != key {
		t.Fatalf("asked for %v", got)
	}
	b.done(key, body("1", "one"))
	if got, p := look(); got != "one" || p != objects.Present {
		t.Errorf("body = %q, %v", got, p)
	}
	if err := w.Update(meta("2")); err != nil {
		t.Fatal(err)
	}
	if got, _ := look(); got != "one" {
		t.Errorf("body = %q while the new one is fetched", got)
	}
	if got := next(b); got != key {
		t.Fatalf("asked for %v", got)
	}
	b.done(key, body("1", "one")) // an answer from a cache that is behind
	if got := next(b); got != key {
		t.Fatalf("a stale body was not asked for again: %v", got)
	}
	b.done(key, body("2", "two"))
	if got, _ := look(); got != "two" {
		t.Errorf("body = %q, want two", got)
	}
	if err := w.Delete(meta("3")); err != nil {
		t.Fatal(err)
	}
	b.done(key, body("2", "two"))
	if _, p := look(); p != objects.Absent {
		t.Errorf("presence = %v after its end", p)
	}
}

// TestNothingIsLeftBehindWhenWatchingEnds: what is asked for after the end waits nowhere.
func TestNothingIsLeftBehindWhenWatchingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // it fails if a goroutine is left
		w := testWatch("Secret")
		if err := w.Replace([]any{meta("1")}, "1"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		w.s.bodies.run(ctx)
		w.s.c.Fetch([]objects.Key{{Kind: "Secret", Namespace: "shop", Name: "tls"}})
	})
}
