package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

const (
	fileName = "gatehouse.db"
	// busyWait is how long a writer waits for another process that writes. Ours write for milliseconds.
	busyWait = 5 * time.Second
	// pollEvery is how often SQLite is asked for changes: it cannot tell, and the command line writes from another process.
	pollEvery = 200 * time.Millisecond
)

type liteDialect struct{}

func openSQLite(ctx context.Context, o Options) (*DB, error) {
	path, err := prepare(o)
	if err != nil {
		return nil, err
	}
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(path), RawQuery: url.Values{
		"_busy_timeout": {fmt.Sprint(busyWait.Milliseconds())},
		"_journal_mode": {"WAL"},
		// FULL: a commit is on the disk when it returns, so that no key is lost; NORMAL would lose the last ones with the power.
		"_synchronous": {"FULL"},
		// A transaction that writes takes its lock at once and waits for it; one that reads first and then writes could only fail.
		"_txlock":    {"immediate"},
		"_defensive": {"1"},
		"_dqs":       {"0"},
		"_error_rc":  {"1"},
	}.Encode()}
	connector, err := sqlite.NewConnector(u.String())
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	d := &DB{sql: sql.OpenDB(connector), dialect: liteDialect{}}
	// One listens, one writes, others read.
	d.sql.SetMaxOpenConns(4)
	d.sql.SetMaxIdleConns(4)
	// Turning a new file to WAL does not wait for another process that does the same, whatever the busy timeout says.
	for wait := time.Millisecond; wait < time.Second; wait *= 2 {
		err = d.sql.PingContext(ctx)
		if !d.dialect.again(err) || !sleep(ctx, wait) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening %s: %w", path, err), d.Close())
	}
	return d, nil
}

// prepare makes the folder and an empty file that others cannot read; the files that SQLite puts beside it get the same mode.
func prepare(o Options) (path string, err error) {
	dir, err := filepath.Abs(o.Data)
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, fileName)
	if o.Existing {
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("%s holds no database: write the folder that gatehouse run has as --data; "+
				"gatehouse key create makes a new one", o.Data)
		}
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("making the folder of the database: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", fmt.Errorf("opening the database: %w", err)
	}
	return path, f.Close()
}

func (liteDialect) ddl(text string) string                        { return text }
func (liteDialect) lock(context.Context, *sql.Tx) error           { return nil } // _txlock does
func (liteDialect) notify(context.Context, *sql.Tx) error         { return nil }
func (liteDialect) listen(ctx context.Context, c *sql.Conn) error { return c.PingContext(ctx) }
func (liteDialect) release(c *sql.Conn)                           { _ = c.Close() }
func (liteDialect) close()                                        {}

// await waits and lets the caller read the counter: that costs some 10 microseconds.
func (liteDialect) await(ctx context.Context, _ *sql.Conn) error {
	if !sleep(ctx, pollEvery) {
		return ctx.Err()
	}
	return nil
}

func (liteDialect) again(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_BUSY
}
