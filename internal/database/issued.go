package database

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// Key is what is kept of an issued key; the key itself is not. Times are UTC in microseconds; a zero time is "never".
type Key struct {
	ID, Env          string
	Hash             [32]byte // secret.HashOf the key
	Prefix, LastFour string   // "gh_live_<id>" and the last characters: what people tell keys apart by
	Application      string   // namespace/name
	Scopes           []string
	CreatedAt        time.Time
	ExpiresAt        time.Time // from then on it does not work
	RevokedAt        time.Time
	RotatedFrom      string // id of the key that this one took the place of
	LastUsed         time.Time
	Note             string

	changed int64 // the change counter when the row was last written; LastUsed does not count
}

// State is whether a key works.
type State uint8

// Any is every state, in a Filter; the others are those that a key can be in.
const (
	Any State = iota
	Active
	Expired
	Revoked
)

func (s State) String() string {
	return [...]string{"any", "active", "expired", "revoked"}[s&3]
}

// State says whether k works at a time.
func (k *Key) State(at time.Time) State {
	switch {
	case !k.RevokedAt.IsZero():
		return Revoked
	case !k.ExpiresAt.IsZero() && !at.Before(k.ExpiresAt):
		return Expired
	}
	return Active
}

// NewKey says what a key is issued for.
type NewKey struct {
	Env         string // "live"; secret.CheckEnv
	Application string // namespace/name
	Scopes      []string
	ExpiresAt   time.Time // zero: never
	Note        string
}

const (
	maxName   = 253  // of one part of an application's name, as Kubernetes has it
	maxScopes = 4096 // bytes of all scopes of a key
	maxNote   = 1024 // bytes
)

// Check says what is wrong with n.
func (n NewKey) Check() error {
	if err := secret.CheckEnv(n.Env); err != nil {
		return &InvalidError{err.Error()}
	}
	if err := CheckApplication(n.Application); err != nil {
		return err
	}
	total := 0
	for _, s := range n.Scopes {
		total += len(s) + 1
		if !scope(s) {
			return &InvalidError{fmt.Sprintf("scope %q: write printable ASCII without space, quote and backslash, such as orders:read", s)}
		}
	}
	if total > maxScopes {
		return &InvalidError{fmt.Sprintf("the scopes have %d bytes, at most %d", total, maxScopes)}
	}
	if len(n.Note) > maxNote || !utf8.ValidString(n.Note) || strings.ContainsFunc(n.Note, unicode.IsControl) {
		return &InvalidError{fmt.Sprintf("the note: write one line of at most %d bytes", maxNote)}
	}
	if !n.ExpiresAt.IsZero() && !n.ExpiresAt.After(time.Now()) {
		return &InvalidError{"the key would expire before it is made"}
	}
	return nil
}

// CheckApplication says what is wrong with an application's name.
func CheckApplication(s string) error {
	namespace, name, ok := strings.Cut(s, "/")
	if !ok || !objectName(namespace) || !objectName(name) {
		return &InvalidError{fmt.Sprintf("application %q: write NAMESPACE/NAME, such as shop/mobile-app", s)}
	}
	return nil
}

// objectName is the form that Kubernetes gives most names: lower-case letters, digits, - and ., not at the ends (RFC 1123).
func objectName(s string) bool {
	if s == "" || len(s) > maxName || strings.Trim(s, "-.") != s {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c-'a' >= 26 && c-'0' >= 10 && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// scope is scope-token of RFC 6749 section 3.3.
func scope(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return s != ""
}

// CreateKey issues a key. The Issued is the only copy of its text.
func (d *DB) CreateKey(ctx context.Context, n NewKey) (secret.Issued, Key, error) {
	if err := n.Check(); err != nil {
		return secret.Issued{}, Key{}, err
	}
	issued, k, err := n.issue("", now())
	if err != nil {
		return secret.Issued{}, Key{}, err
	}
	if err := d.update(ctx, func(tx *sql.Tx) error { return d.insert(ctx, tx, &k) }); err != nil {
		return secret.Issued{}, Key{}, fmt.Errorf("storing the key: %w", err)
	}
	return issued, k, nil
}

func (n NewKey) issue(from string, at time.Time) (secret.Issued, Key, error) {
	issued, err := secret.NewIssued(n.Env, rand.Reader)
	if err != nil {
		return secret.Issued{}, Key{}, err
	}
	var scopes []string
	for _, s := range n.Scopes {
		if !slices.Contains(scopes, s) {
			scopes = append(scopes, s)
		}
	}
	return issued, Key{
		ID: issued.ID(), Env: n.Env, Hash: issued.Hash(), Prefix: issued.Prefix(), LastFour: issued.LastFour(),
		Application: n.Application, Scopes: scopes, Note: n.Note, RotatedFrom: from,
		CreatedAt: at, ExpiresAt: fromMicros(micros(n.ExpiresAt)),
	}, nil
}

// insert writes a new row.
func (d *DB) insert(ctx context.Context, tx *sql.Tx, k *Key) error {
	var err error
	if k.changed, err = d.bump(ctx, tx); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO issued_keys (id, env, hash, prefix, last_four, application, scopes, created_at,
		expires_at, revoked_at, rotated_from, note, changed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`,
		k.ID, k.Env, k.Hash[:], k.Prefix, k.LastFour, k.Application, strings.Join(k.Scopes, " "), micros(k.CreatedAt),
		micros(k.ExpiresAt), micros(k.RevokedAt), k.RotatedFrom, k.Note, k.changed)
	return err
}

// bump raises the change counter and wakes those who wait. The row stays locked until the transaction ends, so counters become visible in
// their order: who has seen n has seen everything up to n.
func (d *DB) bump(ctx context.Context, tx *sql.Tx) (n int64, err error) {
	if err := tx.QueryRowContext(ctx, `UPDATE counters SET n = n + 1 WHERE name = 'keys' RETURNING n`).Scan(&n); err != nil {
		return 0, err
	}
	return n, d.dialect.notify(ctx, tx)
}

// RotateKey issues a key in the place of another, with its environment, application, scopes, note and length of life. The other one keeps
// working for grace, or until it expires if that is earlier; with grace 0 it is revoked. One that works no more cannot be rotated.
func (d *DB) RotateKey(ctx context.Context, id string, grace time.Duration) (secret.Issued, Key, error) {
	if grace < 0 {
		return secret.Issued{}, Key{}, &InvalidError{fmt.Sprintf("grace %s: write 0s or more", grace)}
	}
	var issued secret.Issued
	var k Key
	err := d.update(ctx, func(tx *sql.Tx) error {
		// The counter is the lock of all changes of keys: it comes first.
		counter, err := d.bump(ctx, tx)
		if err != nil {
			return err
		}
		old, err := find(ctx, tx, id)
		if err != nil {
			return err
		}
		at := now()
		if s := old.State(at); s != Active {
			return &InvalidError{fmt.Sprintf("key %s is %s and cannot be rotated: create a new one", id, s)}
		}
		next := NewKey{Env: old.Env, Application: old.Application, Scopes: old.Scopes, Note: old.Note}
		if !old.ExpiresAt.IsZero() {
			next.ExpiresAt = at.Add(old.ExpiresAt.Sub(old.CreatedAt))
		}
		if issued, k, err = next.issue(id, at); err != nil {
			return err
		}
		if end := at.Add(grace); grace == 0 {
			old.RevokedAt = at
		} else if old.ExpiresAt.IsZero() || end.Before(old.ExpiresAt) {
			old.ExpiresAt = end
		}
		if err := finish(ctx, tx, &old, counter); err != nil {
			return err
		}
		return d.insert(ctx, tx, &k)
	})
	if err != nil {
		return secret.Issued{}, Key{}, fmt.Errorf("rotating: %w", err)
	}
	return issued, k, nil
}

// finish writes when a key ends to work.
func finish(ctx context.Context, tx *sql.Tx, k *Key, counter int64) error {
	k.changed = counter
	_, err := tx.ExecContext(ctx, `UPDATE issued_keys SET expires_at = $1, revoked_at = $2, changed = $3 WHERE id = $4`,
		micros(k.ExpiresAt), micros(k.RevokedAt), counter, k.ID)
	return err
}

// RevokeKey ends keys at once: all of them or, when one is not there, none. One that is revoked already stays as it is.
func (d *DB) RevokeKey(ctx context.Context, ids ...string) error {
	err := d.update(ctx, func(tx *sql.Tx) error {
		for _, id := range ids {
			counter, err := d.bump(ctx, tx)
			if err != nil {
				return err
			}
			k, err := find(ctx, tx, id)
			if err != nil {
				return err
			}
			if !k.RevokedAt.IsZero() {
				continue
			}
			k.RevokedAt = now()
			if err := finish(ctx, tx, &k, counter); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("revoking: %w", err)
	}
	return nil
}

// TouchKeys notes when keys were last used; an earlier time than the one noted changes nothing. It does not count as a change of the keys.
func (d *DB) TouchKeys(ctx context.Context, used map[string]time.Time) error {
	if len(used) == 0 {
		return nil
	}
	values := make([]any, 0, 2*len(used))
	for _, id := range sorted(used) {
		values = append(values, id, micros(used[id]))
	}
	b := bulk{
		head: `INSERT INTO key_uses (id, last_used) VALUES`, width: 2,
		tail: `ON CONFLICT (id) DO UPDATE SET last_used = excluded.last_used WHERE key_uses.last_used < excluded.last_used`,
	}
	if err := d.update(ctx, func(tx *sql.Tx) error { return b.run(ctx, tx, values, nil) }); err != nil {
		return fmt.Errorf("noting the last use of keys: %w", err)
	}
	return nil
}

// Filter chooses keys; its zero value chooses all. They come in the order in which they were made.
type Filter struct {
	Application, Env string // "": every one
	State            State
	After            string // id of the last key of the page before
	Limit            int    // 0: 1000
}

const defaultLimit = 1000

// ListKeys returns a page of keys; one shorter than the limit is the last.
func (d *DB) ListKeys(ctx context.Context, f Filter) ([]Key, error) {
	text := selectKeys + ` WHERE 1 = 1`
	var args []any
	where := func(cond string, v any) {
		args = append(args, v)
		text += ` AND ` + strings.ReplaceAll(cond, "?", fmt.Sprintf("$%d", len(args)))
	}
	if f.Application != "" {
		where(`k.application = ?`, f.Application)
	}
	if f.Env != "" {
		where(`k.env = ?`, f.Env)
	}
	if f.After != "" {
		where(`(k.created_at, k.id) > (SELECT created_at, id FROM issued_keys WHERE id = ?)`, f.After)
	}
	switch f.State {
	case Active:
		where(`k.revoked_at = 0 AND (k.expires_at = 0 OR k.expires_at > ?)`, micros(now()))
	case Expired:
		where(`k.revoked_at = 0 AND k.expires_at <> 0 AND k.expires_at <= ?`, micros(now()))
	case Revoked:
		text += ` AND k.revoked_at <> 0`
	}
	if f.Limit <= 0 {
		f.Limit = defaultLimit
	}
	args = append(args, f.Limit)
	keys, err := query(ctx, d.sql, text+fmt.Sprintf(` ORDER BY k.created_at, k.id LIMIT $%d`, len(args)), args...)
	if err != nil {
		return nil, fmt.Errorf("listing keys: %w", err)
	}
	return keys, nil
}

// FindKey returns one key by its id; the error wraps ErrNotFound if there is none.
func (d *DB) FindKey(ctx context.Context, id string) (Key, error) { return find(ctx, d.sql, id) }

// querier is sql.DB, sql.Conn or sql.Tx.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

const selectKeys = `SELECT k.id, k.env, k.hash, k.prefix, k.last_four, k.application, k.scopes, k.created_at, k.expires_at, k.revoked_at,
	k.rotated_from, k.note, k.changed, COALESCE(u.last_used, 0) FROM issued_keys k LEFT JOIN key_uses u ON u.id = k.id`

func find(ctx context.Context, q querier, id string) (Key, error) {
	keys, err := query(ctx, q, selectKeys+` WHERE k.id = $1`, id)
	if err != nil {
		return Key{}, err
	}
	if len(keys) == 0 {
		return Key{}, fmt.Errorf("key %q: %w; gatehouse key list shows those that there are", id, ErrNotFound)
	}
	return keys[0], nil
}

// query reads rows of selectKeys.
func query(ctx context.Context, q querier, text string, args ...any) (keys []Key, err error) {
	rows, err := q.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var hash sql.RawBytes
	for rows.Next() {
		var k Key
		var scopes string
		var created, expires, revoked, used int64
		if err := rows.Scan(&k.ID, &k.Env, &hash, &k.Prefix, &k.LastFour, &k.Application, &scopes, &created, &expires, &revoked,
			&k.RotatedFrom, &k.Note, &k.changed, &used); err != nil {
			return nil, err
		}
		if copy(k.Hash[:], hash) != len(k.Hash) {
			return nil, fmt.Errorf("key %s: its hash has %d bytes, not 32: the database was changed by hand", k.ID, len(hash))
		}
		if scopes != "" {
			k.Scopes = strings.Split(scopes, " ")
		}
		k.CreatedAt, k.ExpiresAt, k.RevokedAt, k.LastUsed = fromMicros(created), fromMicros(expires), fromMicros(revoked), fromMicros(used)
		keys = append(keys, k)
	}
	return keys, rows.Err()
}
