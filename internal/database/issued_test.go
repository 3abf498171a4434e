package database_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/gatehouse-io/gatehouse/internal/database"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

var ignore = cmp.Options{cmpopts.IgnoreUnexported(database.Key{})}

func create(t testing.TB, d *database.DB, n database.NewKey) (secret.Issued, database.Key) {
	t.Helper()
	if n.Env == "" {
		n.Env = "live"
	}
	if n.Application == "" {
		n.Application = "shop/app"
	}
	issued, k, err := d.CreateKey(context.Background(), n)
	if err != nil {
		t.Fatal(err)
	}
	return issued, k
}

func find(t testing.TB, d *database.DB, id string) database.Key {
	t.Helper()
	k, err := d.FindKey(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func ids(keys []database.Key) (out []string) {
	for _, k := range keys {
		out = append(out, k.ID)
	}
	return out
}

func TestCreate(t *testing.T) {
	everywhere(t, func(t *testing.T, o database.Options) {
		d := open(t, o)
		ends := time.Now().Add(90 * 24 * time.Hour)
		issued, k := create(t, d, database.NewKey{Env: "test", Application: "shop/mobile.app", Scopes: []string{"a:read", "b", "a:read"}, ExpiresAt: ends, Note: "für Ä, it's \"x\""})
		if k.Hash != secret.HashOf(issued.Reveal()) || k.ID != issued.ID() || k.Prefix != issued.Prefix() || k.LastFour != issued.LastFour() {
			t.Errorf("%+v is not of %s", k, issued.Reveal())
		}
		want := database.Key{
			ID: k.ID, Env: "test", Hash: k.Hash, Prefix: "gh_test_" + k.ID, LastFour: k.LastFour, Application: "shop/mobile.app",
			Scopes: []string{"a:read", "b"}, CreatedAt: k.CreatedAt, ExpiresAt: ends.UTC().Truncate(time.Microsecond), Note: "für Ä, it's \"x\"",
		}
		if d := cmp.Diff(want, k, ignore); d != "" {
			t.Errorf("created (-want +got):\n%s", d)
		}
		if diff := cmp.Diff(k, find(t, d, k.ID), ignore); diff != "" {
			t.Errorf("stored (-created +stored):\n%s", diff)
		}
		if age := time.Since(k.CreatedAt); age < 0 || age > time.Minute {
			t.Errorf("created %s ago", age)
		}
	})
}

func TestCreateRefuses(t *testing.T) {
	d := open(t, database.Options{Data: t.TempDir()})
	good := database.NewKey{Env: "live", Application: "shop/app"}
	for want, change := range map[string]func(*database.NewKey){
		"such as live":           func(n *database.NewKey) { n.Env = "Live" },
		"NAMESPACE/NAME":         func(n *database.NewKey) { n.Application = "shop" },
		`"shop/"`:                func(n *database.NewKey) { n.Application = "shop/" },
		`"shop/a/b"`:             func(n *database.NewKey) { n.Application = "shop/a/b" },
		`"Shop/a"`:               func(n *database.NewKey) { n.Application = "Shop/a" },
		`scope "a b"`:            func(n *database.NewKey) { n.Scopes = []string{"x", "a b"} },
		`scope ""`:               func(n *database.NewKey) { n.Scopes = []string{""} },
		"the scopes have":        func(n *database.NewKey) { n.Scopes = []string{strings.Repeat("x", 5000)} },
		"one line":               func(n *database.NewKey) { n.Note = "a\nb" },
		"at most 1024":           func(n *database.NewKey) { n.Note = strings.Repeat("x", 1025) },
		"the note":               func(n *database.NewKey) { n.Note = "\xff" },
		"expire before it is ma": func(n *database.NewKey) { n.ExpiresAt = time.Now().Add(-time.Second) },
	} {
		n := good
		change(&n)
		_, _, err := d.CreateKey(t.Context(), n)
		var invalid *database.InvalidError
		if !errors.As(err, &invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %s", err, want)
		}
	}
	if keys, err := d.ListKeys(t.Context(), database.Filter{}); err != nil || len(keys) != 0 {
		t.Errorf("refused, yet stored: %v, %v", keys, err)
	}
}

// No file of the database holds what would open a door.
func TestOnlyTheHashIsStored(t *testing.T) {
	dir := t.TempDir()
	d := open(t, database.Options{Data: dir})
	issued, k := create(t, d, database.NewKey{})
	_, hidden, _ := strings.Cut(string(issued.Reveal()), k.ID+"_")
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	seen := false
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		seen = seen || strings.Contains(string(b), k.ID)
		if strings.Contains(string(b), hidden) || strings.Contains(string(b), hidden[:32]) {
			t.Errorf("%s holds the key", f)
		}
		if s, _ := os.Stat(f); s.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", f, s.Mode())
		}
	}
	if !seen {
		t.Error("no file holds the id: the test looks at the wrong ones")
	}
}

func TestRotate(t *testing.T) {
	everywhere(t, func(t *testing.T, o database.Options) {
		d := open(t, o)
		ctx := t.Context()
		_, old := create(t, d, database.NewKey{Env: "test", Scopes: []string{"a"}, Note: "n", ExpiresAt: time.Now().Add(48 * time.Hour)})
		issued, k, err := d.RotateKey(ctx, old.ID, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		want := old
		want.ID, want.Hash, want.Prefix, want.LastFour, want.RotatedFrom = k.ID, issued.Hash(), issued.Prefix(), issued.LastFour(), old.ID
		want.CreatedAt, want.ExpiresAt = k.CreatedAt, k.CreatedAt.Add(old.ExpiresAt.Sub(old.CreatedAt))
		if diff := cmp.Diff(want, find(t, d, k.ID), ignore); diff != "" || k.ID == old.ID {
			t.Errorf("the new key (-want +got):\n%s", diff)
		}
		want = old
		want.ExpiresAt = k.CreatedAt.Add(time.Hour)
		if diff := cmp.Diff(want, find(t, d, old.ID), ignore); diff != "" {
			t.Errorf("the old key (-want +got):\n%s", diff)
		}

		// A grace beyond its end does not let the old one live longer, and without grace it ends at once.
		if _, _, err := d.RotateKey(ctx, old.ID, 1000*time.Hour); err != nil {
			t.Fatal(err)
		}
		if got := find(t, d, old.ID).ExpiresAt; !got.Equal(want.ExpiresAt) {
			t.Errorf("the old key expires at %s, want %s as before", got, want.ExpiresAt)
		}
		if _, _, err := d.RotateKey(ctx, k.ID, 0); err != nil {
			t.Fatal(err)
		}
		if got := find(t, d, k.ID); got.State(time.Now()) != database.Revoked {
			t.Errorf("rotated without grace: %+v", got)
		}
		_, _, err = d.RotateKey(ctx, k.ID, time.Hour)
		if err == nil || !strings.Contains(err.Error(), "is revoked and cannot be rotated: create a new one") {
			t.Errorf("rotating a revoked key: %v", err)
		}
		if _, _, err := d.RotateKey(ctx, "none", 0); !errors.Is(err, database.ErrNotFound) {
			t.Errorf("rotating a key that is not there: %v", err)
		}
		if _, _, err := d.RotateKey(ctx, old.ID, -1); err == nil {
			t.Error("a negative grace is taken")
		}
	})
}

func TestRevoke(t *testing.T) {
	everywhere(t, func(t *testing.T, o database.Options) {
		d := open(t, o)
		ctx := t.Context()
		_, a := create(t, d, database.NewKey{})
		_, b := create(t, d, database.NewKey{})
		if err := d.RevokeKey(ctx, a.ID, "none", b.ID); !errors.Is(err, database.ErrNotFound) {
			t.Errorf("revoking one that is not there: %v", err)
		}
		if k := find(t, d, a.ID); k.State(time.Now()) != database.Active {
			t.Errorf("half of a failed revocation happened: %+v", k)
		}
		if err := d.RevokeKey(ctx, a.ID, b.ID); err != nil {
			t.Fatal(err)
		}
		first := find(t, d, a.ID)
		if err := d.RevokeKey(ctx, a.ID); err != nil {
			t.Errorf("revoking once more: %v", err)
		}
		if diff := cmp.Diff(first, find(t, d, a.ID), ignore); diff != "" || first.State(time.Now()) != database.Revoked {
			t.Errorf("revoking once more changed it:\n%s", diff)
		}
	})
}

func TestList(t *testing.T) {
	everywhere(t, func(t *testing.T, o database.Options) {
		d := open(t, o)
		ctx := t.Context()
		var all []string
		for i := range 7 {
			_, k := create(t, d, database.NewKey{Env: []string{"live", "test"}[i%2], Application: fmt.Sprintf("shop/app%d", i%3)})
			all = append(all, k.ID)
		}
		_, short := create(t, d, database.NewKey{ExpiresAt: time.Now().Add(30 * time.Millisecond)})
		if err := d.RevokeKey(ctx, all[1]); err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Second, "a key expires", func() bool { return short.State(time.Now()) == database.Expired })
		for name, c := range map[string]struct {
			f    database.Filter
			want []string
		}{
			"all":         {database.Filter{}, append(all[:7:7], short.ID)},
			"application": {database.Filter{Application: "shop/app1"}, []string{all[1], all[4]}},
			"env":         {database.Filter{Env: "test"}, []string{all[1], all[3], all[5]}},
			"active":      {database.Filter{State: database.Active}, []string{all[0], all[2], all[3], all[4], all[5], all[6]}},
			"expired":     {database.Filter{State: database.Expired}, []string{short.ID}},
			"revoked":     {database.Filter{State: database.Revoked}, []string{all[1]}},
			"together":    {database.Filter{Application: "shop/app1", State: database.Active, Env: "live"}, []string{all[4]}},
			"none":        {database.Filter{Application: "shop/none"}, nil},
			"after none":  {database.Filter{After: "none"}, nil},
		} {
			got, err := d.ListKeys(ctx, c.f)
			if diff := cmp.Diff(c.want, ids(got)); diff != "" || err != nil {
				t.Errorf("%s: %v (-want +got)\n%s", name, err, diff)
			}
		}
		var paged []string
		for f := (database.Filter{Limit: 3}); ; f.After = paged[len(paged)-1] {
			page, err := d.ListKeys(ctx, f)
			if err != nil {
				t.Fatal(err)
			}
			paged = append(paged, ids(page)...)
			if len(page) < 3 {
				break
			}
		}
		if diff := cmp.Diff(append(all[:7:7], short.ID), paged); diff != "" {
			t.Errorf("in pages (-want +got)\n%s", diff)
		}
	})
}

func TestTouch(t *testing.T) {
	everywhere(t, func(t *testing.T, o database.Options) {
		d := open(t, o)
		_, a := create(t, d, database.NewKey{})
		_, b := create(t, d, database.NewKey{})
		at := time.Unix(1800000000, 0).UTC()
		many := map[string]time.Time{a.ID: at}
		for i := range 700 { // of all sizes of statements
			many[fmt.Sprintf("gone-%d", i)] = at
		}
		for _, used := range []map[string]time.Time{many, {a.ID: at.Add(-time.Hour), b.ID: at}, nil} {
			if err := d.TouchKeys(t.Context(), used); err != nil {
				t.Fatal(err)
			}
		}
		if got := find(t, d, a.ID).LastUsed; !got.Equal(at) {
			t.Errorf("last used %s, want %s: an earlier time counts not", got, at)
		}
		if got := find(t, d, b.ID).LastUsed; !got.Equal(at) {
			t.Errorf("last used %s, want %s", got, at)
		}
	})
}

// Many who write at once all succeed: none is told that the database is locked, and no deadlock ends one.
func TestWritersTogether(t *testing.T) {
	everywhere(t, func(t *testing.T, o database.Options) {
		dbs := []*database.DB{open(t, o), open(t, o)} // as two replicas
		_, k := create(t, dbs[0], database.NewKey{})
		ctx := t.Context()
		var wg sync.WaitGroup
		for i := range 8 {
			d := dbs[i%2]
			wg.Go(func() {
				for n := range 10 {
					_, made, err := d.CreateKey(ctx, database.NewKey{Env: "live", Application: "shop/app"})
					if err == nil {
						err = errors.Join(err, d.RevokeKey(ctx, made.ID), d.TouchKeys(ctx, map[string]time.Time{made.ID: time.Now(), k.ID: time.Now()}))
					}
					_, _, rotated := d.RotateKey(ctx, k.ID, time.Hour)
					_, added := d.AddQuota(ctx, []database.QuotaDelta{delta(byte(n), 1), delta(byte(9-n), 1)})
					if err := errors.Join(err, rotated, added); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		keys, err := dbs[1].ListKeys(ctx, database.Filter{})
		if err != nil || len(keys) != 1+2*80 {
			t.Errorf("%d keys, %v; want 161", len(keys), err)
		}
		total := int64(0)
		for _, n := range load(t, dbs[0]) {
			total += n
		}
		if total != 2*80 {
			t.Errorf("counted %d, want 160", total)
		}
	})
}
