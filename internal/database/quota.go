package database

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"
)

// QuotaDelta is what is added to the counter of a key in a window of time.
type QuotaDelta struct {
	Key     [16]byte
	Start   time.Time // of the window; in microseconds
	Expires time.Time // when the counter is needed no more; the last one written counts
	N       int64     // may be negative
}

// Quota is a counter.
type Quota struct {
	Key            [16]byte
	Start, Expires time.Time
	Count          int64
}

const (
	// purgeEvery is how often expired counters are removed, by who adds to others.
	purgeEvery = time.Minute
	// purgeAfter keeps them a little longer, so that removing does not meet adding under clocks that differ.
	purgeAfter = time.Minute
	// purgeMax bounds how many are removed at once.
	purgeMax = 10000
)

// counter names a row.
type counter struct {
	key   [16]byte
	start int64
}

// AddQuota adds all deltas, in one transaction, and returns the counters as they are then, in the order of the deltas: what all processes
// added. When it fails nothing was added, unless the connection was lost while committing: then it may have been.
func (d *DB) AddQuota(ctx context.Context, deltas []QuotaDelta) ([]Quota, error) {
	if len(deltas) == 0 {
		return nil, nil
	}
	values := merge(deltas)
	b := bulk{
		head: `INSERT INTO quota_counters (key, window_start, count, expires_at) VALUES`, width: 4,
		tail: `ON CONFLICT (key, window_start) DO UPDATE SET count = quota_counters.count + excluded.count, expires_at = excluded.expires_at
			RETURNING key, window_start, count, expires_at`,
	}
	totals := make(map[counter]Quota, len(deltas))
	err := d.update(ctx, func(tx *sql.Tx) error {
		return b.run(ctx, tx, values, func(rows *sql.Rows) error {
			q, err := scanQuota(rows)
			totals[counter{q.Key, micros(q.Start)}] = q
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("adding to quota counters: %w", err)
	}
	out := make([]Quota, len(deltas))
	for i, q := range deltas {
		out[i] = totals[counter{q.Key, micros(q.Start)}]
	}
	d.purge(ctx)
	return out, nil
}

// merge makes one row of the deltas of each counter, since a statement may meet a row once only, and sorts them.
func merge(deltas []QuotaDelta) (values []any) {
	at := make(map[counter]int, len(deltas))
	rows := make([]QuotaDelta, 0, len(deltas))
	for _, q := range deltas {
		c := counter{q.Key, micros(q.Start)}
		if i, ok := at[c]; ok {
			rows[i].N += q.N
			rows[i].Expires = q.Expires
			continue
		}
		at[c] = len(rows)
		rows = append(rows, q)
	}
	slices.SortFunc(rows, func(a, b QuotaDelta) int { return cmp.Or(bytes.Compare(a.Key[:], b.Key[:]), a.Start.Compare(b.Start)) })
	values = make([]any, 0, 4*len(rows))
	for _, q := range rows {
		values = append(values, q.Key[:], micros(q.Start), q.N, micros(q.Expires))
	}
	return values
}

func scanQuota(rows *sql.Rows) (q Quota, err error) {
	var key []byte
	var start, expires int64
	if err := rows.Scan(&key, &start, &q.Count, &expires); err != nil {
		return q, err
	}
	if copy(q.Key[:], key) != len(q.Key) || len(key) != len(q.Key) {
		return q, fmt.Errorf("the key of a quota counter has %d bytes, not 16: the database was changed by hand", len(key))
	}
	q.Start, q.Expires = fromMicros(start), fromMicros(expires)
	return q, nil
}

// purge removes some counters that have expired, once in a while. What it cannot remove now it removes another time, so that it failed
// is nobody's concern.
func (d *DB) purge(ctx context.Context) {
	at := now()
	last := d.purged.Load()
	if micros(at)-last < purgeEvery.Microseconds() || !d.purged.CompareAndSwap(last, micros(at)) {
		return
	}
	if n, err := d.removeExpired(ctx, at.Add(-purgeAfter)); err == nil && n == purgeMax {
		d.purged.Store(last) // there are more: who adds next goes on
	}
}

func (d *DB) removeExpired(ctx context.Context, before time.Time) (n int64, err error) {
	err = d.update(ctx, func(tx *sql.Tx) error {
		r, err := tx.ExecContext(ctx, fmt.Sprintf(`DELETE FROM quota_counters WHERE (key, window_start) IN
			(SELECT key, window_start FROM quota_counters WHERE expires_at < $1 LIMIT %d)`, purgeMax), micros(before))
		if err != nil {
			return err
		}
		n, err = r.RowsAffected()
		return err
	})
	return n, err
}

// LoadQuotas yields the counters that have not expired. After an error it ends.
func (d *DB) LoadQuotas(ctx context.Context) iter.Seq2[Quota, error] {
	return func(yield func(Quota, error) bool) {
		rows, err := d.sql.QueryContext(ctx, `SELECT key, window_start, count, expires_at FROM quota_counters WHERE expires_at > $1`, micros(now()))
		if err != nil {
			yield(Quota{}, fmt.Errorf("loading quota counters: %w", err))
			return
		}
		defer rows.Close()
		for rows.Next() {
			var q Quota
			if q, err = scanQuota(rows); err != nil {
				break
			}
			if !yield(q, nil) {
				return
			}
		}
		if err = errors.Join(err, rows.Err(), rows.Close()); err != nil {
			yield(Quota{}, fmt.Errorf("loading quota counters: %w", err))
		}
	}
}
