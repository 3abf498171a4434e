package database_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/database"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// child is what a process does until it is killed: it creates keys and counts, and tells of each once it is told that it is stored.
func child(where string) {
	o := database.Options{Data: where}
	if strings.HasPrefix(where, "postgres://") {
		o = database.Options{URL: secret.New([]byte(where))}
	}
	ctx := context.Background()
	d, err := database.Open(ctx, o)
	for err == nil {
		var k database.Key
		var total []database.Quota
		if _, k, err = d.CreateKey(ctx, database.NewKey{Env: "live", Application: "shop/app"}); err != nil {
			break
		}
		if total, err = d.AddQuota(ctx, []database.QuotaDelta{delta(1, 1)}); err != nil {
			break
		}
		fmt.Println(k.ID, total[0].Count)
	}
	fmt.Println("error:", err)
	os.Exit(1)
}

// What a process was told is stored survives its kill -9, whenever that comes.
func TestKilled(t *testing.T) {
	everywhere(t, func(t *testing.T, o database.Options) {
		where := o.Data
		if where == "" {
			where = string(o.URL.Reveal())
		}
		told := map[string]bool{}
		var counted int64
		for round := range 3 {
			c := exec.Command(os.Args[0])
			c.Env = append(os.Environ(), asChild+"="+where)
			out, err := c.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			for n := 0; lines.Scan(); n++ {
				var id string
				if _, err := fmt.Sscan(lines.Text(), &id, &counted); err != nil {
					t.Fatalf("the child says %q", lines.Text())
				}
				told[id] = true
				if n == 20+7*round {
					_ = c.Process.Kill()
				}
			}
			_ = c.Wait()
		}
		d := open(t, o)
		keys, err := d.ListKeys(t.Context(), database.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		have := map[string]bool{}
		for _, k := range keys {
			have[k.ID] = true
		}
		for id := range told {
			if !have[id] {
				t.Errorf("key %s was lost", id)
			}
		}
		// Of the killed process's last round one may be stored that it could not tell of any more.
		if got := load(t, d)[1]; got < counted || got > counted+1 {
			t.Errorf("counted %d, told %d", got, counted)
		}
		if len(told) < 60 {
			t.Errorf("only %d keys were made", len(told))
		}
		// Nothing is locked behind the dead.
		start := time.Now()
		create(t, d, database.NewKey{})
		if took := time.Since(start); took > time.Second {
			t.Errorf("creating a key afterwards took %s", took)
		}
	})
}
