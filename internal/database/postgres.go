package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/gatehouse-io/gatehouse/internal/secret"
)

const (
	// channel is where changes of keys are told.
	channel = "gatehouse_keys"
	// migrating is the number of the advisory lock; any number that no other program of the same database takes.
	migrating = 0x6761746568 // "gateh"
	// lookEvery is how often the counter is read though nobody told of a change: so a connection that died in silence is noticed, and
	// a pooler that drops notifications delays a change by no more.
	lookEvery = 500 * time.Millisecond
	// connectWait bounds connecting to one address, unless the URL says connect_timeout.
	connectWait = 5 * time.Second
)

type postgresDialect struct{ pool *pgxpool.Pool }

// parseURL reads a URL. Its errors never show what may be the password.
func parseURL(v secret.Value) (*pgxpool.Config, error) {
	text := strings.TrimSpace(string(v.Reveal()))
	u, err := url.Parse(text)
	if err != nil {
		return nil, &InvalidError{"the URL of the database cannot be read: write postgres://USER:PASSWORD@HOST:PORT/NAME, " +
			"with %40 for @, %2F for / and so on in the password"}
	}
	if u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return nil, &InvalidError{"the URL of the database begins with neither postgres:// nor postgresql://; for SQLite write --data DIR"}
	}
	cfg, err := pgxpool.ParseConfig(text)
	if err != nil {
		msg := err.Error()
		if password, ok := u.User.Password(); ok && password != "" && strings.Contains(msg, password) {
			msg = "it cannot be parsed"
		}
		return nil, &InvalidError{"the URL of the database: " + msg}
	}
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = connectWait
	}
	if cfg.ConnConfig.RuntimeParams["application_name"] == "" {
		cfg.ConnConfig.RuntimeParams["application_name"] = "gatehouse"
	}
	return cfg, nil
}

func openPostgres(ctx context.Context, o Options) (*DB, error) {
	cfg, err := parseURL(o.URL)
	if err != nil {
		return nil, err
	}
	// Open is called again until it succeeds, and its context may end before the pool does.
	pool, err := pgxpool.NewWithConfig(context.WithoutCancel(ctx), cfg)
	if err != nil {
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	d := &DB{sql: stdlib.OpenDBFromPool(pool), dialect: postgresDialect{pool}}
	if err := pool.Ping(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the database: %w", err), d.Close())
	}
	return d, nil
}

func (postgresDialect) ddl(text string) string { return strings.ReplaceAll(text, " BLOB ", " BYTEA ") }

func (postgresDialect) lock(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(migrating))
	return err
}

func (postgresDialect) notify(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `SELECT pg_notify('`+channel+`', '')`)
	return err
}

func (postgresDialect) listen(ctx context.Context, c *sql.Conn) error {
	_, err := c.ExecContext(ctx, `LISTEN `+channel)
	return err
}

func (postgresDialect) await(ctx context.Context, c *sql.Conn) error {
	return raw(c, func(conn *pgx.Conn) error {
		wait, cancel := context.WithTimeout(ctx, lookEvery)
		defer cancel()
		_, err := conn.WaitForNotification(wait)
		if err != nil {
			if wait.Err() != nil && ctx.Err() == nil && !conn.IsClosed() {
				return nil // nobody told of anything
			}
			return err
		}
		// Those that came with it tell the same; with a context that has ended only what is there already is returned.
		cancel()
		for err == nil {
			_, err = conn.WaitForNotification(wait)
		}
		return nil
	})
}

// release closes the connection for good: one that listens must not go back to the pool, where nobody takes its notifications.
func (postgresDialect) release(c *sql.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = raw(c, func(conn *pgx.Conn) error { return conn.Close(ctx) })
	_ = c.Close()
}

func raw(c *sql.Conn, f func(*pgx.Conn) error) error {
	return c.Raw(func(driver any) error {
		s, ok := driver.(*stdlib.Conn)
		if !ok {
			return fmt.Errorf("a connection of type %T", driver)
		}
		return f(s.Conn())
	})
}

// again holds for what PostgreSQL ends because of others: deadlock_detected, serialization_failure.
func (postgresDialect) again(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && (e.Code == "40P01" || e.Code == "40001")
}

func (d postgresDialect) close() { d.pool.Close() }
