package database_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-io/gatehouse/internal/database"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// A database of each version before comes to the newest, and what it holds stays.
func TestMigrateFromEach(t *testing.T) {
	for from := range database.LastVersion() + 1 {
		t.Run(fmt.Sprint(from), func(t *testing.T) {
			everywhere(t, func(t *testing.T, o database.Options) {
				old, err := database.OpenAt(t.Context(), o, from, "")
				if err != nil {
					t.Fatal(err)
				}
				if from >= 1 { // a row as version 1 has it, which no later code may need to write otherwise
					_, err := old.SQL().Exec(`INSERT INTO issued_keys (id, env, hash, prefix, last_four, application, scopes, created_at, expires_at,
						revoked_at, rotated_from, note, changed) VALUES ('0123456789ab', 'live', $1, 'gh_live_0123456789ab', 'wxyz', 'shop/app', 'a b',
						1800000000000000, 0, 0, '', 'n', 1)`, make([]byte, 32))
					if err != nil {
						t.Fatal(err)
					}
					if _, err := old.SQL().Exec(`UPDATE counters SET n = 1`); err != nil {
						t.Fatal(err)
					}
				}
				if err := old.Close(); err != nil {
					t.Fatal(err)
				}
				d := open(t, o)
				_, k := create(t, d, database.NewKey{})
				keys, err := d.ListKeys(t.Context(), database.Filter{})
				if err != nil {
					t.Fatal(err)
				}
				var want []string
				if from >= 1 {
					want = []string{"0123456789ab"}
					if got := find(t, d, "0123456789ab"); !got.CreatedAt.Equal(time.Unix(1800000000, 0)) || len(got.Scopes) != 2 {
						t.Errorf("the old key is %+v", got)
					}
				}
				if diff := cmp.Diff(append([]string{k.ID}, want...), ids(keys)); diff != "" {
					t.Errorf("keys (-want +got)\n%s", diff)
				}
				if _, err := d.AddQuota(t.Context(), []database.QuotaDelta{delta(1, 1)}); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	everywhere(t, func(t *testing.T, o database.Options) {
		d := open(t, o)
		if _, err := d.SQL().Exec(`INSERT INTO schema_version (version, migrated_at) VALUES (99, 0)`); err != nil {
			t.Fatal(err)
		}
		_, err := database.Open(t.Context(), o)
		want := fmt.Sprintf("schema version 99 and this gatehouse knows versions up to %d: run the gatehouse that wrote it", database.LastVersion())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	})
}

func TestBrokenMigrationLeavesTheOldVersion(t *testing.T) {
	everywhere(t, func(t *testing.T, o database.Options) {
		_, err := database.OpenAt(t.Context(), o, 1, "CREATE TABLE half (x BIGINT); CREATE TABLE counters (x BIGINT)")
		if err == nil || !strings.Contains(err.Error(), "to version 2") {
			t.Fatalf("error %v", err)
		}
		d, err := database.OpenAt(t.Context(), o, 0, "")
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		for _, table := range []string{"half", "schema_version"} {
			if _, err := d.SQL().Exec("SELECT * FROM " + table); err == nil {
				t.Errorf("table %s was left by a transaction that failed", table)
			}
		}
	})
}

// Replicas that start together with an empty database do not trip over each other.
func TestOpenTogether(t *testing.T) {
	everywhere(t, func(t *testing.T, o database.Options) {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				d, err := database.Open(t.Context(), o)
				if err != nil {
					t.Error(err)
					return
				}
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

func TestOptions(t *testing.T) {
	url := func(s string) secret.Value { return secret.New([]byte(s)) }
	for name, c := range map[string]struct {
		o    database.Options
		want string
	}{
		"neither":         {database.Options{}, "write --data DIR, or --database URL"},
		"both":            {database.Options{Data: "x", URL: url("postgres://h/d")}, "both a folder and a URL"},
		"scheme":          {database.Options{URL: url("mysql://u:hunter2@h/d")}, "neither postgres:// nor"},
		"no scheme":       {database.Options{URL: url("host=h password=hunter2")}, "neither postgres:// nor"},
		"bad escape":      {database.Options{URL: url("postgres://u:hunter2%zz@h/d")}, "%40 for @"},
		"bad port":        {database.Options{URL: url("postgres://u:hunter2@h:port/d")}, "%40 for @"},
		"slash":           {database.Options{URL: url("postgres://u:hunter2/x@h/d")}, "%40 for @"},
		"bad option":      {database.Options{URL: url("postgres://u:hunter2@h/d?sslmode=perhaps")}, "sslmode is invalid"},
		"bad number":      {database.Options{URL: url("postgres://u:hunter2@h/d?pool_max_conns=many")}, "pool_max_conns"},
		"password option": {database.Options{URL: url("postgres://u@h/d?password=hunter2&sslmode=perhaps")}, "sslmode is invalid"},
	} {
		var invalid *database.InvalidError
		err := c.o.Check()
		if !errors.As(err, &invalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error shows the password: %v", name, err)
		}
		if _, opened := database.Open(t.Context(), c.o); opened == nil {
			t.Errorf("%s: it was opened", name)
		}
	}
}

func TestDataFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "a b%20c?d#e")
	if _, err := database.Open(t.Context(), database.Options{Data: dir, Existing: true}); err == nil || !strings.Contains(err.Error(), "holds no database") {
		t.Errorf("Existing: %v", err)
	}
	if _, err := os.Stat(filepath.Dir(dir)); err == nil {
		t.Error("a folder was made where the database had to be there")
	}
	d := open(t, database.Options{Data: dir})
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "busy_timeout": "5000"} {
		var got string
		if err := d.SQL().QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s = %s, %v; want %s", pragma, got, err, want)
		}
	}
	if s, err := os.Stat(filepath.Join(dir, "gatehouse.db")); err != nil || s.Size() == 0 {
		t.Errorf("the file is elsewhere: %v", err)
	}
	open(t, database.Options{Data: dir, Existing: true})
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := database.Open(t.Context(), database.Options{Data: file}); err == nil {
		t.Error("a file is taken as a folder")
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(file), "gatehouse.db"), []byte(strings.Repeat("not a database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := database.Open(t.Context(), database.Options{Data: filepath.Dir(file)}); err == nil || !strings.Contains(err.Error(), "not a database") {
		t.Errorf("with another kind of file: %v", err)
	}
}
