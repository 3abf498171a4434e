package database_test

import (
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/database"
)

// BenchmarkLook is what a process pays five times a second to hear of changes in SQLite, and what a PRAGMA would cost in its place.
func BenchmarkLook(b *testing.B) {
	d := open(b, database.Options{Data: b.TempDir()})
	create(b, d, database.NewKey{})
	c, err := d.SQL().Conn(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	for name, text := range map[string]string{"counter": `SELECT n FROM counters WHERE name = 'keys'`, "data_version": `PRAGMA data_version`} {
		b.Run(name, func(b *testing.B) {
			var n int64
			for b.Loop() {
				if err := c.QueryRowContext(b.Context(), text).Scan(&n); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
