package database

import (
	"cmp"
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

//go:embed migrations/*.sql
var files embed.FS

// migration brings a schema from the version before it to its own. Once released it never changes.
type migration struct {
	version int
	text    string
}

// migrations are all of them in order; their names begin with the version.
func migrations() []migration {
	names, err := fs.Glob(files, "migrations/*.sql")
	if err != nil {
		panic(err) // the pattern is a constant
	}
	out := make([]migration, 0, len(names))
	for _, name := range names {
		number, _, _ := strings.Cut(strings.TrimPrefix(name, "migrations/"), "_")
		version, err := strconv.Atoi(number)
		if err != nil {
			panic(err) // a test reads the names
		}
		text, err := files.ReadFile(name)
		if err != nil {
			panic(err) // it is in the binary
		}
		out = append(out, migration{version, string(text)})
	}
	slices.SortFunc(out, func(a, b migration) int { return cmp.Compare(a.version, b.version) })
	return out
}

// migrate brings the schema to the last of all, in one transaction: a process that dies on the way leaves the old version, and of two
// that start together one waits for the other.
func (d *DB) migrate(ctx context.Context, all []migration) error {
	err := d.update(ctx, func(tx *sql.Tx) error {
		if err := d.dialect.lock(ctx, tx); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL PRIMARY KEY, migrated_at BIGINT NOT NULL)`); err != nil {
			return err
		}
		var have int
		if err := tx.QueryRowContext(ctx, `SELECT COALESCE(MAX(version), 0) FROM schema_version`).Scan(&have); err != nil {
			return err
		}
		last := all[len(all)-1].version
		if have > last {
			return &InvalidError{fmt.Sprintf("the database has schema version %d and this gatehouse knows versions up to %d: "+
				"run the gatehouse that wrote it or a newer one", have, last)}
		}
		for _, m := range all {
			if m.version <= have {
				continue
			}
			if _, err := tx.ExecContext(ctx, d.dialect.ddl(m.text)); err != nil {
				return fmt.Errorf("to version %d: %w", m.version, err)
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO schema_version (version, migrated_at) VALUES ($1, $2)`, m.version, micros(now())); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("migrating the database: %w", err)
	}
	return nil
}
