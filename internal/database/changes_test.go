package database_test

import (
	"context"
	"errors"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-io/gatehouse/internal/database"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// keep follows a database until the test ends.
func keep(t testing.TB, d *database.DB) *database.Keys {
	t.Helper()
	k := database.NewKeys()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- k.Follow(ctx, d) }()
	t.Cleanup(func() { cancel(); <-done })
	select {
	case <-k.Ready():
	case <-time.After(10 * time.Second):
		t.Fatal("the keys are not ready after 10 s:", k.Err())
	}
	return k
}

func works(k *database.Keys, issued secret.Issued) bool {
	hash := issued.Hash()
	e, ok := k.Lookup(&hash, time.Now())
	return ok && e.ID == issued.ID()
}

// A change that one process makes is known in the others within a second.
func TestChangesArrive(t *testing.T) {
	everywhere(t, func(t *testing.T, o database.Options) {
		cli, replica := open(t, o), open(t, o)
		before, _ := create(t, cli, database.NewKey{Scopes: []string{"a"}})
		dead, d := create(t, cli, database.NewKey{})
		if err := cli.RevokeKey(t.Context(), d.ID); err != nil {
			t.Fatal(err)
		}
		k := keep(t, replica)
		if !works(k, before) || works(k, dead) {
			t.Fatalf("at first: %v, %v", works(k, before), works(k, dead))
		}
		var slowest time.Duration
		within := func(what string, f func() bool) {
			t.Helper()
			start := time.Now()
			eventually(t, time.Second, what, f)
			slowest = max(slowest, time.Since(start))
		}
		for range 5 {
			issued, made := create(t, cli, database.NewKey{})
			within("a key is known", func() bool { return works(k, issued) })
			next, _, err := cli.RotateKey(t.Context(), made.ID, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			within("the next key is known", func() bool { return works(k, next) })
			if !works(k, issued) {
				t.Error("a rotated key stopped working before its grace was over")
			}
			if err := cli.RevokeKey(t.Context(), made.ID, next.ID()); err != nil {
				t.Fatal(err)
			}
			within("revocations are known", func() bool { return !works(k, issued) && !works(k, next) })
		}
		if k.Stale() != 0 || k.Err() != nil {
			t.Errorf("stale for %s, %v", k.Stale(), k.Err())
		}
		t.Logf("the slowest change took %s", slowest)
	})
}

// Writers in several processes make changes at once, and nobody misses one.
func TestNoChangeIsMissed(t *testing.T) {
	everywhere(t, func(t *testing.T, o database.Options) {
		dbs := []*database.DB{open(t, o), open(t, o), open(t, o)}
		k := keep(t, open(t, o))
		var mu sync.Mutex
		var alive, dead []secret.Issued
		var wg sync.WaitGroup
		for _, d := range dbs {
			wg.Go(func() {
				for i := range 20 {
					issued, key, err := d.CreateKey(context.Background(), database.NewKey{Env: "live", Application: "shop/app"})
					if err == nil && i%2 == 0 {
						err = d.RevokeKey(context.Background(), key.ID)
					}
					if err != nil {
						t.Error(err)
					}
					mu.Lock()
					if i%2 == 0 {
						dead = append(dead, issued)
					} else {
						alive = append(alive, issued)
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		eventually(t, time.Second, "all changes are known", func() bool {
			for _, i := range alive {
				if !works(k, i) {
					return false
				}
			}
			for _, i := range dead {
				if works(k, i) {
					return false
				}
			}
			return k.Len() == len(alive)
		})
	})
}

func TestChangesSince(t *testing.T) {
	everywhere(t, func(t *testing.T, o database.Options) {
		d := open(t, o)
		_, a := create(t, d, database.NewKey{})
		_, b := create(t, d, database.NewKey{})
		if err := d.RevokeKey(t.Context(), a.ID); err != nil {
			t.Fatal(err)
		}
		for since, want := range map[int64][]string{0: {b.ID}, 1: {b.ID, a.ID}, 2: {a.ID}, 3: nil, 9: {b.ID}} {
			for batch, err := range d.Changes(t.Context(), since) {
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, ids(batch.Keys)); diff != "" || !batch.Current || batch.Counter != 3 || batch.Reset != (since == 9) {
					t.Errorf("since %d: %+v (-want +got)\n%s", since, batch, diff)
				}
				break
			}
		}
	})
}

// More keys than a page, changed while they are read: each comes, and none after a newer state of itself.
func TestChangesInPages(t *testing.T) {
	d := open(t, database.Options{Data: t.TempDir()})
	const size = 10500
	tx, err := d.SQL().Begin()
	if err != nil {
		t.Fatal(err)
	}
	for n := range size {
		k := made(n)
		if _, err := tx.Exec(`INSERT INTO issued_keys VALUES ($1, 'live', $2, '', '', 'shop/app', '', 1, 0, 0, '', '', $3)`, k.ID, k.Hash[:], n+1); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tx.Exec(`UPDATE counters SET n = $1`, size); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	first := made(0)
	seen, batches := map[string]bool{}, 0
	for b, err := range d.Changes(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		if batches++; batches == 1 {
			if err := d.RevokeKey(t.Context(), first.ID, made(size-1).ID); err != nil {
				t.Fatal(err)
			}
		}
		for _, k := range b.Keys {
			seen[k.ID] = k.State(time.Now()) == database.Active
		}
		if active, there := seen[first.ID]; there && !active && b.Current {
			break
		}
	}
	if len(seen) != size || seen[first.ID] || !seen[made(1).ID] || seen[made(size-1).ID] {
		t.Errorf("%d keys in %d batches; first %v, last %v", len(seen), batches, seen[first.ID], seen[made(size-1).ID])
	}
}

// PostgreSQL ends and comes back: known keys go on to work, Stale tells of it, and what changed meanwhile arrives.
func TestPostgresGoesAway(t *testing.T) {
	p := &postgres{}
	t.Cleanup(func() {
		p.stop(syscall.SIGQUIT)
		if p.dir != "" {
			os.RemoveAll(p.dir)
		}
	})
	o := p.empty(t)
	d := open(t, o)
	issued, made := create(t, d, database.NewKey{})
	k := keep(t, d)

	// A connection that somebody cuts is replaced.
	if err := p.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gatehouse'"); err != nil {
		t.Fatal(err)
	}
	second, _ := create(t, open(t, o), database.NewKey{})
	eventually(t, time.Second, "a key is known after the connection was cut", func() bool { return works(k, second) })

	p.stop(syscall.SIGQUIT)
	eventually(t, 10*time.Second, "it is noticed", func() bool { return k.Stale() > time.Second && k.Err() != nil })
	if !works(k, issued) {
		t.Error("a key was forgotten because the database is away")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, _, err := d.CreateKey(ctx, database.NewKey{Env: "live", Application: "shop/app"}); err == nil {
		t.Error("a key was stored nowhere")
	}
	p.need(t)
	if err := open(t, o).RevokeKey(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, 15*time.Second, "what changed meanwhile is known", func() bool { return !works(k, issued) && k.Stale() == 0 && k.Err() == nil })
	if !works(k, second) {
		t.Error("the other key is gone")
	}
}

// A database that is restored to an older state: keys that it does not have stop working.
func TestRestored(t *testing.T) {
	everywhere(t, func(t *testing.T, o database.Options) {
		d := open(t, o)
		kept, _ := create(t, d, database.NewKey{})
		lost, l := create(t, d, database.NewKey{})
		k := keep(t, d)
		if _, err := d.SQL().Exec(`DELETE FROM issued_keys WHERE id = $1`, l.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := d.SQL().Exec(`UPDATE counters SET n = 1`); err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Second, "the lost key works no more", func() bool { return !works(k, lost) })
		if !works(k, kept) {
			t.Error("the other key works no more")
		}
	})
}

func TestUsesReachTheDatabase(t *testing.T) {
	everywhere(t, func(t *testing.T, o database.Options) {
		d := open(t, o)
		issued, made := create(t, d, database.NewKey{})
		k := database.NewKeys()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- k.Follow(ctx, d) }()
		<-k.Ready()
		if !works(k, issued) {
			t.Fatal("the key does not work")
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if age := time.Since(find(t, d, made.ID).LastUsed); age < 0 || age > 5*time.Second {
			t.Errorf("last used %s ago", age)
		}
	})
}

func TestLazy(t *testing.T) {
	everywhere(t, func(t *testing.T, o database.Options) {
		idle := database.NewLazy(o)
		if idle.Stale() != 0 || idle.Err() != nil || idle.Close() != nil {
			t.Error("a database that nobody wants has faults")
		}
		idle.Keys()
		if err := idle.Close(); err != nil {
			t.Error("closing again:", err)
		}

		d := open(t, o)
		issued, made := create(t, d, database.NewKey{})
		l := database.NewLazy(o)
		ledger := l.Ledger()
		eventually(t, 5*time.Second, "counting works", func() bool {
			q, err := ledger.AddQuota(t.Context(), []database.QuotaDelta{delta(1, 1)})
			if err != nil && !errors.Is(err, database.ErrNotOpen) {
				t.Fatal(err)
			}
			return err == nil && q[0].Count == 1
		})
		for q, err := range ledger.LoadQuotas(t.Context()) {
			if err != nil || q.Count != 1 {
				t.Errorf("loaded %+v, %v", q, err)
			}
		}
		k := l.Keys()
		<-k.Ready()
		if !works(k, issued) || l.Keys() != k || l.Stale() != 0 || l.Err() != nil {
			t.Errorf("works %v, stale %s, %v", works(k, issued), l.Stale(), l.Err())
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if find(t, d, made.ID).LastUsed.IsZero() {
			t.Error("Close did not write the use of a key")
		}
	})
}

// A database that cannot be opened now is opened when it can.
func TestLazyTriesAgain(t *testing.T) {
	dir := t.TempDir() + "/data"
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l := database.NewLazy(database.Options{Data: dir})
	k, ledger := l.Keys(), l.Ledger()
	eventually(t, 5*time.Second, "it tells why", func() bool { return l.Err() != nil && l.Stale() > 0 })
	if _, err := ledger.AddQuota(t.Context(), []database.QuotaDelta{delta(1, 1)}); !errors.Is(err, database.ErrNotOpen) {
		t.Errorf("AddQuota: %v", err)
	}
	for _, err := range ledger.LoadQuotas(t.Context()) {
		if !errors.Is(err, database.ErrNotOpen) {
			t.Errorf("LoadQuotas: %v", err)
		}
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	select {
	case <-k.Ready():
	case <-time.After(10 * time.Second):
		t.Error("it was not opened:", l.Err())
	}
	if err := l.Err(); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
