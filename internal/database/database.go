// Package database keeps what must outlive a process: the keys that Gatehouse issued and the counters of quotas, in SQLite under
// a folder or in PostgreSQL for several replicas. It promises that what a method returned without an error survives kill -9, that
// a change of keys is seen by every process within a second, and that a lookup of a key in memory takes no lock and allocates nothing. It
// never stores a key itself, only its SHA-256; never logs; and never forgets known keys because the database is away.
package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// Options say where the database is: exactly one of Data and URL.
type Options struct {
	Data     string       // folder of an SQLite database, gatehouse.db; made if it is not there
	URL      secret.Value // postgres://USER:PASSWORD@HOST:PORT/NAME?sslmode=verify-full
	Existing bool         // with Data: the database must be there already
}

// Check says what is wrong with o before anything is opened.
func (o Options) Check() error {
	switch {
	case o.Data == "" && o.URL.Len() == 0:
		return &InvalidError{"no database is named: write --data DIR, or --database URL for PostgreSQL"}
	case o.Data != "" && o.URL.Len() > 0:
		return &InvalidError{"both a folder and a URL are named: write --data DIR or --database URL"}
	case o.URL.Len() > 0:
		_, err := parseURL(o.URL)
		return err
	}
	return nil
}

// InvalidError is a fault in what the caller gave, that who wrote it can mend.
type InvalidError struct{ Msg string }

func (e *InvalidError) Error() string { return e.Msg }

// ErrNotFound is wrapped by errors about a key that is not there.
var ErrNotFound = errors.New("not found")

// DB is an open database. Its methods may be called from several goroutines; each is one transaction.
type DB struct {
	sql     *sql.DB
	dialect dialect
	purged  atomic.Int64 // when expired counters were last removed, microseconds
}

// dialect is where SQLite and PostgreSQL differ beyond the SQL that both read.
type dialect interface {
	// ddl translates the text of a migration.
	ddl(text string) string
	// lock makes the transaction the only one that migrates, in any process, until it ends.
	lock(ctx context.Context, tx *sql.Tx) error
	// notify wakes those who wait in other processes, once the transaction is committed.
	notify(ctx context.Context, tx *sql.Tx) error
	// listen begins to note changes on c; what is read afterwards and what await tells have no gap between them.
	listen(ctx context.Context, c *sql.Conn) error
	// await returns nil when something may have changed, after half a second at the latest; an error means that c is lost.
	await(ctx context.Context, c *sql.Conn) error
	// release gives back a connection that listened.
	release(c *sql.Conn)
	// again says whether a failed transaction is worth doing once more: it lost against another.
	again(err error) bool
	// close ends what lies under sql.DB.
	close()
}

// Open opens the database and brings its schema up to date. A database of a newer version is refused.
func Open(ctx context.Context, o Options) (*DB, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	open := openSQLite
	if o.URL.Len() > 0 {
		open = openPostgres
	}
	d, err := open(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := d.migrate(ctx, migrations()); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// Close ends all connections.
func (d *DB) Close() error {
	err := d.sql.Close()
	d.dialect.close()
	if err != nil {
		return fmt.Errorf("closing the database: %w", err)
	}
	return nil
}

// tries bounds how often a transaction is done again because it lost against another.
const tries = 5

// update runs f in a transaction that writes. f may run again, from the start, when the transaction lost against another.
func (d *DB) update(ctx context.Context, f func(*sql.Tx) error) error {
	var err error
	for try := range tries {
		if try > 0 {
			if !sleep(ctx, time.Duration(try)*20*time.Millisecond) {
				return err
			}
		}
		if err = d.once(ctx, f); err == nil || !d.dialect.again(err) {
			return err
		}
	}
	return err
}

func (d *DB) once(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := d.sql.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, rollback(tx))
	}
	return tx.Commit()
}

// rollback ends a transaction of which nothing is kept. That it has ended already is no fault.
func rollback(tx *sql.Tx) error {
	if err := tx.Rollback(); err != nil && !errors.Is(err, sql.ErrTxDone) {
		return fmt.Errorf("rolling back: %w", err)
	}
	return nil
}

// sleep waits for t and says whether ctx still goes on.
func sleep(ctx context.Context, t time.Duration) bool {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return ctx.Err() == nil
	}
}

// bulk is an INSERT of many rows. It is sent in chunks of a few fixed sizes, so that few statements are prepared, with the rows in the
// order given: transactions that touch the same rows in the same order do not block each other for ever.
type bulk struct {
	head  string // INSERT INTO ... VALUES
	width int    // values of a row
	tail  string // ON CONFLICT ... RETURNING ...
}

func (b bulk) run(ctx context.Context, tx *sql.Tx, values []any, row func(*sql.Rows) error) error {
	for len(values) > 0 {
		n := chunk(len(values)/b.width) * b.width
		if err := b.send(ctx, tx, values[:n], row); err != nil {
			return err
		}
		values = values[n:]
	}
	return nil
}

func (b bulk) send(ctx context.Context, tx *sql.Tx, values []any, row func(*sql.Rows) error) error {
	rows, err := tx.QueryContext(ctx, b.text(len(values)/b.width), values...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// chunk is the largest size of a statement that n rows fill.
func chunk(n int) int {
	for _, c := range []int{512, 64, 8} {
		if n >= c {
			return c
		}
	}
	return 1
}

// text is the statement for n rows. Both dialects number parameters as $1.
func (b bulk) text(n int) string {
	var s strings.Builder
	s.WriteString(b.head)
	for i := range n * b.width {
		switch {
		case i == 0:
			s.WriteString(" (")
		case i%b.width == 0:
			s.WriteString("), (")
		default:
			s.WriteString(", ")
		}
		s.WriteByte('$')
		s.WriteString(strconv.Itoa(i + 1))
	}
	s.WriteString(") ")
	s.WriteString(b.tail)
	return s.String()
}

// micros is how a time is stored: microseconds since 1970, 0 for the zero time.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}

// now is the time as it can be stored.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// sorted returns the keys of m in order.
func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
