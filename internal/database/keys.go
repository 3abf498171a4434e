package database

import (
	"context"
	"errors"
	"iter"
	"sync"
	"sync/atomic"
	"time"
)

// Entry is what a lookup tells of a key. Scopes must not be changed.
type Entry struct {
	ID, Application, Env string
	Scopes               []string
}

// Keys is the table of all keys that are not revoked, in memory, by their SHA-256. Lookups take no lock and allocate nothing; they note
// that the key was used, which Follow writes to the database every ten seconds.
type Keys struct {
	table atomic.Pointer[table]
	ready chan struct{}
	born  time.Time
	fresh atomic.Int64 // nanoseconds after born: when the database last confirmed that nothing is missing

	mu      sync.Mutex
	behind  error                // why changes do not arrive
	unnoted error                // why uses could not be written
	unsent  map[string]time.Time // those uses
}

// source is what Follow needs of DB.
type source interface {
	Changes(ctx context.Context, since int64) iter.Seq2[Batch, error]
	TouchKeys(ctx context.Context, used map[string]time.Time) error
}

const (
	flushEvery  = 10 * time.Second
	flushPiece  = 2000 // keys of a transaction: it must not keep a revocation waiting
	flushWithin = 5 * time.Second
	// freshWithin is how old the last confirmation may be without anything being wrong: they come each half second.
	freshWithin = time.Second
)

// NewKeys returns an empty table.
func NewKeys() *Keys {
	k := &Keys{ready: make(chan struct{}), born: time.Now()}
	k.table.Store(new(table))
	return k
}

// Lookup returns the key with a hash, if there is one that is neither revoked nor expired at a time. Before Ready there is none.
func (k *Keys) Lookup(hash *[32]byte, at time.Time) (Entry, bool) {
	t := k.table.Load()
	v, _, i, e := t.find(hash)
	if e == nil {
		return Entry{}, false
	}
	if ends := e.expires.Load(); ends != 0 && at.UnixMicro() >= ends {
		return Entry{}, false
	}
	// Once a second a key, whoever uses it: a line of the cache that all cores write would be slow.
	if s := uint32(at.Unix()); e.used.Load() != s {
		e.used.Store(s)
		v.touched[i/64].Or(1 << (i % 64))
	}
	what := t.kinds.at(e.kind)
	return Entry{ID: e.text(), Application: *t.names.at(e.name), Env: what.env, Scopes: what.scopes}, true
}

// Ready is closed when all keys are there.
func (k *Keys) Ready() <-chan struct{} { return k.ready }

// Len is how many keys there are, with those that have expired since they were read.
func (k *Keys) Len() int { return int(k.table.Load().live.Load()) }

// Stale is 0 while the database answers, and otherwise for how long it has not: as long a revocation may be missing. Before Ready it is the
// time since NewKeys.
func (k *Keys) Stale() time.Duration {
	d := time.Since(k.born) - time.Duration(k.fresh.Load())
	if d <= freshWithin && k.fresh.Load() != 0 {
		return 0
	}
	return d
}

// Err is why the keys could not be followed or their uses not be written, nil while they can.
func (k *Keys) Err() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return errors.Join(k.behind, k.unnoted)
}

// set stores an error in one of the fields that mu guards.
func (k *Keys) set(field *error, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	*field = err
}

// Follow loads all keys and then follows their changes until ctx ends; it writes what is noted of their uses each ten seconds and at the
// end. While the database is away the keys that are known stay, and Stale rises. It returns the error of the last write, if it failed.
// One Follow runs at a time.
func (k *Keys) Follow(ctx context.Context, db *DB) error { return k.follow(ctx, db) }

func (k *Keys) follow(ctx context.Context, db source) error {
	var wg sync.WaitGroup
	wg.Go(func() {
		for sleep(ctx, flushEvery) {
			if err := k.flush(ctx, db); ctx.Err() == nil {
				k.set(&k.unnoted, err)
			}
		}
	})
	next := new(table)
	for b, err := range db.Changes(ctx, 0) {
		if err != nil {
			k.set(&k.behind, err)
			continue
		}
		if b.Reset {
			next = new(table)
		}
		k.apply(next, &b)
	}
	wg.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushWithin)
	defer cancel()
	return k.flush(last, db)
}

// apply brings a batch into t, which becomes the table of lookups once it is complete: until then the one before it serves.
func (k *Keys) apply(t *table, b *Batch) {
	at := time.Now()
	for i := range b.Keys {
		if key := &b.Keys[i]; key.State(at) == Active {
			t.put(key)
		} else {
			t.remove(&key.Hash)
		}
	}
	if !b.Current {
		return
	}
	k.table.Store(t)
	k.fresh.Store(int64(time.Since(k.born)))
	select {
	case <-k.ready:
	default:
		close(k.ready)
	}
	k.set(&k.behind, nil)
}

// flush writes what is noted of uses. What could not be written is kept for the next time.
func (k *Keys) flush(ctx context.Context, db source) error {
	k.mu.Lock()
	unsent := k.unsent
	k.unsent = nil
	k.mu.Unlock()
	keep := func(used map[string]time.Time, err error) error {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.unsent = used
		return err
	}
	send := func(used map[string]time.Time) error {
		ctx, cancel := context.WithTimeout(ctx, flushWithin)
		defer cancel()
		return db.TouchKeys(ctx, used)
	}
	if len(unsent) > 0 {
		if err := send(unsent); err != nil {
			return keep(unsent, err)
		}
	}
	var err error
	k.table.Load().collect(flushPiece, func(used map[string]time.Time) bool {
		if e := send(used); e != nil {
			err = errors.Join(err, keep(used, e))
			return false
		}
		return true
	})
	return err
}
