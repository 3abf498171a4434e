package kube

import (
	"context"
	"fmt"
	"maps"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/util/workqueue"

	"github.com/gatehouse-io/gatehouse/internal/objects"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// fetchers is how many bodies are asked for at once.
const fetchers = 4

// bodies fetches the Secrets that something needs, by name, and again whenever one of them changes. Until the new body is there the
// old one stands.
type bodies struct {
	s     *source
	mu    sync.Mutex
	meta  map[objects.Key]*objects.Secret // every Secret that there is, without its body
	have  map[objects.Key]*objects.Secret // those whose body was fetched, as it was handed on
	busy  map[objects.Key]bool            // being fetched or waiting for it
	queue workqueue.TypedInterface[objects.Key]
}

func newBodies(s *source) bodies {
	return bodies{s: s, meta: map[objects.Key]*objects.Secret{}, have: map[objects.Key]*objects.Secret{}, busy: map[objects.Key]bool{},
		queue: workqueue.NewTyped[objects.Key]()}
}

// Fetch asks for the bodies of Secrets that are known by metadata. It does not block; each body, or why it cannot be had, comes as a
// change. What is being fetched already is not asked for twice.
func (c *Cluster) Fetch(keys []objects.Key) {
	b := &c.source.bodies
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range keys {
		b.want(k)
	}
}

// want has k fetched; b.mu is held.
func (b *bodies) want(k objects.Key) {
	if k.Kind != "Secret" || b.busy[k] || b.meta[k] == nil {
		return
	}
	b.busy[k] = true
	b.queue.Add(k)
}

// seen takes the metadata of a Secret that the watch brought. One whose body is known is handed on when the new body is there.
func (b *bodies) seen(k objects.Key, s *objects.Secret) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.meta[k]
	b.meta[k] = s
	if b.have[k] != nil && old != nil && old.UID == s.UID {
		b.want(k)
		return
	}
	delete(b.have, k)
	b.s.put(k, s)
}

func (b *bodies) gone(k objects.Key) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.meta, k)
	delete(b.have, k)
	b.s.put(k, nil)
}

// run fetches until ctx ends.
func (b *bodies) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for range fetchers {
		wg.Go(func() {
			for {
				k, ended := b.queue.Get()
				if ended {
					return
				}
				b.fetch(ctx, k)
				b.queue.Done(k)
			}
		})
	}
	<-ctx.Done()
	b.queue.ShutDown()
}

// fetch gets one body and hands it on. It tries again until it has an answer.
func (b *bodies) fetch(ctx context.Context, k objects.Key) {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		b.mu.Lock()
		meta := b.meta[k]
		b.mu.Unlock()
		if meta == nil || ctx.Err() != nil {
			b.done(k, nil)
			return
		}
		s, err := b.get(ctx, k)
		switch {
		case err == nil:
			b.done(k, s)
			return
		case apierrors.IsNotFound(err): // the watch will say so
			b.done(k, nil)
			return
		case apierrors.IsForbidden(err):
			b.done(k, &objects.Secret{ObjectMeta: meta.ObjectMeta, Problem: "may not be read: give the ServiceAccount the right to get it"})
			return
		}
		b.s.c.o.Log.Warn("a Secret cannot be fetched; it is tried again", "secret", k.String(), "err", err)
		wait(ctx, pause)
	}
}

func (b *bodies) get(ctx context.Context, k objects.Key) (*objects.Secret, error) {
	client, err := b.s.c.client(schema.GroupVersion{Version: "v1"})
	if err != nil {
		return nil, err
	}
	var in corev1.Secret
	if err := client.Get().Namespace(k.Namespace).Resource("secrets").Name(k.Name).Do(ctx).Into(&in); err != nil {
		return nil, fmt.Errorf("getting %s: %w", k, err)
	}
	slim(&in.ObjectMeta)
	out := &objects.Secret{ObjectMeta: in.ObjectMeta, Material: secret.Material{Type: string(in.Type), Data: make(map[string]secret.Value, len(in.Data))}}
	for name, v := range in.Data {
		out.Material.Data[name] = secret.New(v)
	}
	return out, nil
}

// done hands a body on, nil for none. One that is older than what the watch has seen is fetched again.
func (b *bodies) done(k objects.Key, s *objects.Secret) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.busy, k)
	meta := b.meta[k]
	if s == nil || meta == nil || meta.UID != s.UID {
		return
	}
	stale := older(s, meta)
	if old := b.have[k]; old != nil && old.Problem == "" && s.Problem == "" && maps.EqualFunc(old.Material.Data, s.Material.Data, secret.Value.Equal) &&
		old.Material.Type == s.Material.Type {
		s.Material = old.Material // only the metadata changed: nobody who uses the body need look again
	}
	b.have[k] = s
	if stale {
		b.want(k)
	}
	b.s.put(k, s)
}
