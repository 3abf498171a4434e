package database_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-io/gatehouse/internal/database"
)

// window is the start of the one that tests count in.
func window() time.Time { return time.Now().UTC().Truncate(24 * time.Hour) }

func delta(key byte, n int64) database.QuotaDelta {
	return database.QuotaDelta{Key: [16]byte{key}, Start: window(), Expires: window().Add(48 * time.Hour), N: n}
}

// load reads all counters of the window of tests, by their first byte.
func load(t testing.TB, d *database.DB) map[byte]int64 {
	t.Helper()
	out := map[byte]int64{}
	for q, err := range d.LoadQuotas(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		out[q.Key[0]] = q.Count
	}
	return out
}

func counts(quotas []database.Quota) (out []int64) {
	for _, q := range quotas {
		out = append(out, q.Count)
	}
	return out
}

func TestQuota(t *testing.T) {
	everywhere(t, func(t *testing.T, o database.Options) {
		a, b := open(t, o), open(t, o)
		for i, c := range []struct {
			d      *database.DB
			deltas []database.QuotaDelta
			want   []int64
		}{
			{a, nil, nil},
			{a, []database.QuotaDelta{delta(2, 5), delta(1, 1)}, []int64{5, 1}},
			{b, []database.QuotaDelta{delta(1, 10), delta(3, 1), delta(1, 1)}, []int64{12, 1, 12}}, // the same counter twice
			{a, []database.QuotaDelta{delta(1, -2), delta(2, 0)}, []int64{10, 5}},
		} {
			got, err := c.d.AddQuota(t.Context(), c.deltas)
			if diff := cmp.Diff(c.want, counts(got)); diff != "" || err != nil {
				t.Errorf("%d: %v (-want +got)\n%s", i, err, diff)
			}
			for j, q := range got {
				if q.Key != c.deltas[j].Key || !q.Start.Equal(c.deltas[j].Start) || !q.Expires.Equal(c.deltas[j].Expires) {
					t.Errorf("%d: counter %+v for %+v", i, q, c.deltas[j])
				}
			}
		}
		if diff := cmp.Diff(map[byte]int64{1: 10, 2: 5, 3: 1}, load(t, b)); diff != "" {
			t.Errorf("loaded (-want +got)\n%s", diff)
		}
	})
}

func TestQuotaWindowsAreApart(t *testing.T) {
	everywhere(t, func(t *testing.T, o database.Options) {
		d := open(t, o)
		next := delta(1, 7)
		next.Start = next.Start.Add(24 * time.Hour)
		got, err := d.AddQuota(t.Context(), []database.QuotaDelta{next, delta(1, 3)})
		if diff := cmp.Diff([]int64{7, 3}, counts(got)); diff != "" || err != nil {
			t.Errorf("%v (-want +got)\n%s", err, diff)
		}
	})
}

// More deltas than a statement takes.
func TestManyQuotas(t *testing.T) {
	everywhere(t, func(t *testing.T, o database.Options) {
		d := open(t, o)
		var deltas []database.QuotaDelta
		for i := range 1234 {
			q := delta(byte(i), int64(i))
			q.Key[1] = byte(i >> 8)
			deltas = append(deltas, q)
		}
		for range 2 {
			if _, err := d.AddQuota(t.Context(), deltas); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		got, err := d.AddQuota(t.Context(), deltas)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("adding to 1234 counters takes %s", time.Since(start))
		for i, q := range got {
			if q.Count != 3*int64(i) {
				t.Fatalf("counter %d is %d, want %d", i, q.Count, 3*i)
			}
		}
	})
}

func TestExpiredQuotasGo(t *testing.T) {
	everywhere(t, func(t *testing.T, o database.Options) {
		d := open(t, o)
		old := delta(1, 5)
		old.Expires = time.Now().Add(-time.Hour)
		if _, err := d.AddQuota(t.Context(), []database.QuotaDelta{old, delta(2, 1)}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[byte]int64{2: 1}, load(t, d)); diff != "" {
			t.Errorf("loaded (-want +got)\n%s", diff)
		}
		// The first addition of a process removed it: it begins anew.
		got, err := d.AddQuota(t.Context(), []database.QuotaDelta{old})
		if fmt.Sprint(counts(got)) != "[5]" || err != nil {
			t.Errorf("the expired counter is %v, %v; want 5", counts(got), err)
		}
	})
}

func TestLoadQuotasEndsEarly(t *testing.T) {
	everywhere(t, func(t *testing.T, o database.Options) {
		d := open(t, o)
		if _, err := d.AddQuota(t.Context(), []database.QuotaDelta{delta(1, 1), delta(2, 1), delta(3, 1)}); err != nil {
			t.Fatal(err)
		}
		for range 10 { // more often than there are connections
			for _, err := range d.LoadQuotas(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				break
			}
		}
	})
}
