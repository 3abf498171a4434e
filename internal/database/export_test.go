package database

import (
	"context"
	"database/sql"
	"errors"
	"unsafe"
)

// LastVersion is that of the newest schema.
func LastVersion() int { all := migrations(); return all[len(all)-1].version }

// OpenAt opens a database as the gatehouse of a version of the schema left it; a broken migration comes last if one is given.
func OpenAt(ctx context.Context, o Options, version int, broken string) (*DB, error) {
	open := openSQLite
	if o.URL.Len() > 0 {
		open = openPostgres
	}
	d, err := open(ctx, o)
	if err != nil {
		return nil, err
	}
	all := migrations()[:version]
	if broken != "" {
		all = append(all, migration{version + 1, broken})
	}
	if len(all) == 0 {
		return d, nil
	}
	if err := d.migrate(ctx, all); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// SQL is the connection itself.
func (d *DB) SQL() *sql.DB { return d.sql }

// FollowFrom is Follow from what a test hands in.
func (k *Keys) FollowFrom(ctx context.Context, s source) error { return k.follow(ctx, s) }

// EntrySize is what a key takes in the table, in bytes, beside its slots.
const EntrySize = unsafe.Sizeof(entry{})
