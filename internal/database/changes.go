package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"time"
)

// Batch is some keys that changed, in the order of their changes.
type Batch struct {
	Keys    []Key
	Counter int64 // the change counter that Keys reach: where a later Changes goes on
	// Current: nothing is known to have changed beyond this batch. Such a batch comes at least each half second while the database
	// answers, with or without keys.
	Current bool
	// Reset: the database is not the one that it was, its counter went back (it was restored, or a replica took over that had not seen
	// the last changes). Forget what is known; all keys follow.
	Reset bool
}

const (
	pageSize   = 5000
	firstWait  = 100 * time.Millisecond
	longWait   = 5 * time.Second
	readWithin = 15 * time.Second // for a page of keys
	lookWithin = 2 * time.Second  // for anything small: an answer that takes longer is none
)

// errStopped ends an iteration that nobody wants to go on with.
var errStopped = errors.New("stopped")

// Changes yields the keys that were created, rotated or revoked since a counter, by whatever process, and goes on with what changes next,
// until ctx ends. Since 0 yields all keys that are not revoked first. A change is yielded within half a second, at once with PostgreSQL.
// While the database is away it yields errors, with growing pauses of 100 ms to 5 s, and then goes on where it was.
func (d *DB) Changes(ctx context.Context, since int64) iter.Seq2[Batch, error] {
	return func(yield func(Batch, error) bool) {
		wait := firstWait
		for ctx.Err() == nil {
			err := d.follow(ctx, &since, func(b Batch) bool {
				wait = firstWait
				return yield(b, nil)
			})
			if errors.Is(err, errStopped) || ctx.Err() != nil {
				return
			}
			if !yield(Batch{}, fmt.Errorf("following the keys: %w", err)) || !sleep(ctx, wait) {
				return
			}
			wait = min(2*wait, longWait)
		}
	}
}

// follow is Changes over one connection. That everything is read over the connection that listens is what notices that it is dead.
func (d *DB) follow(ctx context.Context, since *int64, yield func(Batch) bool) error {
	c, err := d.sql.Conn(ctx)
	if err != nil {
		return err
	}
	defer d.dialect.release(c)
	if err := within(ctx, lookWithin, func(ctx context.Context) error { return d.dialect.listen(ctx, c) }); err != nil {
		return err
	}
	for {
		if err := d.read(ctx, c, since, yield); err != nil {
			return err
		}
		if err := d.dialect.await(ctx, c); err != nil {
			return err
		}
	}
}

// read yields what changed since a counter and moves it on.
func (d *DB) read(ctx context.Context, c *sql.Conn, since *int64, yield func(Batch) bool) error {
	var n int64
	err := within(ctx, lookWithin, func(ctx context.Context) error {
		return c.QueryRowContext(ctx, `SELECT n FROM counters WHERE name = 'keys'`).Scan(&n)
	})
	if err != nil {
		return err
	}
	reset := n < *since
	if reset {
		*since = 0
	} else if n == *since {
		if !yield(Batch{Counter: n, Current: true}) {
			return errStopped
		}
		return nil
	}
	text := selectKeys + ` WHERE k.changed > $1`
	if *since == 0 {
		text += ` AND k.revoked_at = 0`
	}
	text += fmt.Sprintf(` ORDER BY k.changed LIMIT %d`, pageSize)
	for {
		b := Batch{Counter: *since, Reset: reset}
		err := within(ctx, readWithin, func(ctx context.Context) (err error) {
			b.Keys, err = query(ctx, c, text, *since)
			return err
		})
		if err != nil {
			return err
		}
		if len(b.Keys) > 0 {
			b.Counter = b.Keys[len(b.Keys)-1].changed
		}
		if len(b.Keys) < pageSize {
			// Rows up to n that did not come are of revoked keys, which nobody has to hear of.
			b.Counter, b.Current = max(b.Counter, n), true
		}
		*since, reset = b.Counter, false
		if !yield(b) {
			return errStopped
		}
		if b.Current {
			return nil
		}
	}
}

func within(ctx context.Context, t time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, t)
	defer cancel()
	return f(ctx)
}
