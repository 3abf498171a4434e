package limiter

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// state is everything that a limiter holds of some keys.
func state(l *Limiter, now time.Time, keys ...Key) []entry {
	var all []entry
	for _, k := range keys {
		for g := range 3 {
			e := l.shards[k.shard()].find(k.sub(g))
			if e == nil {
				e = &entry{key: k.sub(g)}
			}
			c := *e
			c.shape = 0
			for i := range c.at { // a full bucket is a full bucket, however long it is
				t := c.point(i).from(l.nanos(now))
				c.set(i, t)
			}
			if c.count == 0 {
				c.end = 0
			}
			all = append(all, c)
		}
	}
	return all
}

func differ(a, b []entry) string { return cmp.Diff(a, b, cmp.AllowUnexported(entry{})) }

func someLimit(t *rapid.T) *Limit {
	lim := &Limit{Concurrency: rapid.Int64Range(0, 3).Draw(t, "concurrency")}
	for range rapid.IntRange(0, 5).Draw(t, "rates") {
		r := rates(t)
		r.Burst = max(r.Burst, 1)
		lim.Rates = append(lim.Rates, r)
	}
	if rapid.Bool().Draw(t, "with quota") {
		lim.Quota = &Quota{Limit: rapid.Int64Range(1, 8).Draw(t, "quota"), Window: Year}
	}
	return lim
}

// TestAllOrNothing: a refused batch changes nothing, an allowed one everything, and Refund and Release undo exactly that.
func TestAllOrNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := New(Options{})
		defer l.Close()
		keys := []Key{{1}, {2}, {1, 1}, {65}} // the last one lies in the shard of the first
		limits := []*Limit{someLimit(t), someLimit(t), someLimit(t), someLimit(t)}
		now := l.base
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, 1e8).Draw(t, "wait")))
			var asks []Ask
			for range rapid.IntRange(1, 5).Draw(t, "asks") {
				i := rapid.IntRange(0, 3).Draw(t, "key")
				asks = append(asks, Ask{Limit: limits[i], Key: keys[i], Cost: rapid.Int64Range(0, 3).Draw(t, "cost"), Peek: rapid.IntRange(0, 4).Draw(t, "peek") == 0})
			}
			out := make([]Answer, len(asks))
			before := state(l, now, keys...)
			allowed := l.Decide(now, asks, out)
			after := state(l, now, keys...)
			all := true
			for _, o := range out {
				all = all && o.Allowed
				if o.Remaining < 0 || o.RetryAfter < 0 || o.Reset < 0 || o.Degraded {
					t.Fatalf("%+v", o)
				}
			}
			if all != allowed {
				t.Fatalf("Decide = %v, the answers say %v", allowed, all)
			}
			if d := differ(before, after); !allowed && d != "" {
				t.Fatalf("a refused batch was counted:\n%s", d)
			}
			if allowed && rapid.Bool().Draw(t, "undo") {
				for _, a := range asks {
					if !a.Peek {
						l.Refund(now, a)
						l.Release(a)
					}
				}
				if d := differ(before, state(l, now, keys...)); d != "" {
					t.Fatalf("refund and release left a difference:\n%s", d)
				}
			}
		}
	})
}

func TestSameKeyTwice(t *testing.T) {
	l := New(Options{})
	defer l.Close()
	lim := &Limit{Rates: []Rate{{Limit: 3, Period: time.Hour}}, Concurrency: 3}
	asks, out := []Ask{{Limit: lim, Cost: 2}, {Limit: lim, Cost: 2}}, make([]Answer, 2)
	if l.Decide(l.base, asks, out) {
		t.Errorf("2+2 passed a limit of 3: %+v", out)
	}
	asks[1].Cost = 1
	if !l.Decide(l.base, asks, out) || out[1].Remaining != 0 {
		t.Errorf("2+1 did not pass a limit of 3: %+v", out)
	}
	if l.Decide(l.base, []Ask{{Limit: lim}, {Limit: lim}}, out) || out[1].Rate != ByConcurrency {
		t.Errorf("four at once passed a concurrency of 3: %+v", out)
	}
}

func TestConcurrency(t *testing.T) {
	l := New(Options{})
	defer l.Close()
	a := Ask{Limit: &Limit{Concurrency: 10}, Key: key("c"), Cost: 1}
	var under, most atomic.Int64
	var g sync.WaitGroup
	for range 50 {
		g.Go(func() {
			out := make([]Answer, 1)
			for range 500 {
				if l.Decide(time.Now(), []Ask{a}, out) {
					n := under.Add(1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
					}
					under.Add(-1)
					l.Release(a)
				}
			}
		})
	}
	g.Wait()
	if m := most.Load(); m > 10 {
		t.Errorf("%d under way at once, want at most 10", m)
	}
	out := make([]Answer, 1)
	for i := range 10 {
		if !l.Decide(time.Now(), []Ask{a}, out) || out[0].Remaining != int64(9-i) || out[0].Rate != ByConcurrency {
			t.Errorf("place %d: %+v", i, out[0])
		}
	}
	if l.Decide(time.Now(), []Ask{a}, out) || out[0].Rate != ByConcurrency || out[0].RetryAfter != time.Second {
		t.Errorf("place 11: %+v", out[0])
	}
}

func TestStrictestIsReported(t *testing.T) {
	l := New(Options{})
	defer l.Close()
	lim := &Limit{Rates: []Rate{{Limit: 10, Period: time.Second}, {Limit: 4, Period: time.Minute}, {Limit: 100, Period: time.Hour}},
		Quota: &Quota{Limit: 3, Window: Year}}
	out := make([]Answer, 1)
	ask := []Ask{{Limit: lim, Cost: 1}}
	l.Decide(l.base, ask, out)
	if out[0].Rate != ByQuota || out[0].Remaining != 2 {
		t.Errorf("%+v, want the quota with 2 left", out[0])
	}
	wide := *lim
	wide.Quota = &Quota{Limit: 300, Window: Year}
	for range 3 {
		l.Decide(l.base, []Ask{{Limit: &wide, Cost: 1}}, out)
	}
	if out[0].Rate != 1 || out[0].Remaining != 0 || !out[0].Allowed {
		t.Errorf("%+v, want rate 1 with none left", out[0])
	}
	l.Decide(l.base, []Ask{{Limit: &wide, Cost: 1}}, out)
	if want := (Answer{Rate: 1, RetryAfter: 15 * time.Second, Reset: time.Minute}); out[0] != want {
		t.Errorf("%+v, want %+v", out[0], want)
	}
	if got := l.Stats().Refusals; got != (Refusals{Rate: 1}) {
		t.Errorf("refusals %+v, want one of a rate", got)
	}
}

// TestLimitChanges: what was counted survives a new limit under the same key, but nobody waits longer than for an empty bucket of it.
func TestLimitChanges(t *testing.T) {
	l := New(Options{})
	defer l.Close()
	old := &Limit{Rates: []Rate{{Limit: 10, Period: time.Hour}, {Limit: 10, Period: 24 * time.Hour}}, Quota: &Quota{Limit: 100, Window: Month}}
	out := make([]Answer, 1)
	for range 10 {
		l.Decide(l.base, []Ask{{Limit: old, Cost: 1}}, out)
	}
	for _, tt := range []struct {
		name string
		lim  *Limit
		want Answer
	}{
		{"tighter", &Limit{Rates: []Rate{{Limit: 5, Period: time.Hour}}, Quota: old.Quota}, Answer{Rate: 0, RetryAfter: 12 * time.Minute, Reset: time.Hour}},
		{"faster", &Limit{Rates: []Rate{{Limit: 10, Period: time.Second}}, Quota: old.Quota},
			Answer{Rate: 0, RetryAfter: 100 * time.Millisecond, Reset: time.Second}},
		{"quota alone", &Limit{Quota: &Quota{Limit: 11, Window: Month}}, Answer{Allowed: true, Rate: ByQuota, Remaining: 0}},
		{"another window", &Limit{Quota: &Quota{Limit: 11, Window: Year}}, Answer{Allowed: true, Rate: ByQuota, Remaining: 10}},
	} {
		if tt.lim.Quota != nil && tt.lim.Quota.Window == Year && l.base.UTC().Month() == time.December {
			continue // the year ends with the month
		}
		l.Decide(l.base, []Ask{{Limit: tt.lim, Cost: 1}}, out)
		if out[0].Rate == ByQuota {
			out[0].Reset = 0
		}
		if out[0] != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, out[0], tt.want)
		}
	}
}

func TestOneProcessOverTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Options{})
		defer l.Close()
		lim := &Limit{Rates: []Rate{{Limit: 100, Period: time.Second}, {Limit: 4000, Period: time.Minute}}}
		var passed [2]atomic.Int64
		start := time.Now()
		var g sync.WaitGroup
		for i := range 8 {
			g.Go(func() {
				out := make([]Answer, 1)
				for time.Since(start) < 3*time.Minute {
					if l.Decide(time.Now(), []Ask{{Limit: lim, Key: Key{byte(i % 2)}, Cost: 1}}, out) {
						passed[i%2].Add(1)
					}
					time.Sleep(time.Duration(i+1) * time.Millisecond)
				}
			})
		}
		g.Wait()
		const want = 4000 + 3*4000 // one bucket, and three minutes of refill
		for i := range passed {
			if n := passed[i].Load(); n < want*99/100 || n > want {
				t.Errorf("key %d: %d passed, want %d", i, n, want)
			}
		}
	})
}

// TestTableForgets: entries go when they hold nothing, by the sweep alone, and their memory too.
func TestTableForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Options{})
		defer l.Close()
		out := make([]Answer, 1)
		a := Ask{Limit: &Limit{Rates: []Rate{{Limit: 10, Period: time.Second}}}, Cost: 1}
		for i := range 100_000 {
			binary.LittleEndian.PutUint64(a.Key[:], uint64(i)*0x9e3779b97f4a7c15)
			l.Decide(time.Now(), []Ask{a}, out)
		}
		long := Ask{Limit: &Limit{Quota: &Quota{Limit: 10, Window: Year}}, Key: Key{1, 2, 3}, Cost: 1}
		busy := Ask{Limit: &Limit{Concurrency: 2}, Key: Key{4, 5, 6}, Cost: 1}
		l.Decide(time.Now(), []Ask{long}, out)
		l.Decide(time.Now(), []Ask{busy}, out)
		time.Sleep(2*sweepEvery + time.Second)
		synctest.Wait()
		if n := l.Stats().Keys; n != 2 {
			t.Errorf("%d keys left, want the quota and the request under way", n)
		}
		chunks := 0
		for i := range l.shards {
			chunks += len(l.shards[i].chunks)
		}
		if chunks > 2*shardCount {
			t.Errorf("%d chunks left, want at most %d", chunks, 2*shardCount)
		}
		if l.Decide(time.Now(), []Ask{long}, out); out[0].Remaining != 8 {
			t.Errorf("the quota has %d left, want 8", out[0].Remaining)
		}
		l.Release(busy)
	})
}

// TestFullTable: a flood of keys refuses nobody and drives out neither quotas nor those who are refused.
func TestFullTable(t *testing.T) {
	l := New(Options{MaxKeys: 64 * 64})
	defer l.Close()
	out := make([]Answer, 1)
	var keep []Ask
	for i := range 64 {
		keep = append(keep, Ask{Limit: &Limit{Quota: &Quota{Limit: 1, Window: Year}}, Key: Key{byte(i), 255, 1}, Cost: 1},
			Ask{Limit: &Limit{Rates: []Rate{{Limit: 1, Period: time.Hour}}}, Key: Key{byte(i), 255, 2}, Cost: 1},
			Ask{Limit: &Limit{Concurrency: 1}, Key: Key{byte(i), 255, 3}, Cost: 1})
	}
	for _, a := range keep {
		l.Decide(l.base, []Ask{a}, out)
	}
	a := Ask{Limit: &Limit{Rates: []Rate{{Limit: 10, Period: time.Minute}}}, Cost: 1}
	for i := range 100_000 {
		binary.LittleEndian.PutUint64(a.Key[:], uint64(i)*0x9e3779b97f4a7c15)
		if !l.Decide(l.base, []Ask{a}, out) {
			t.Fatalf("key %d was refused: %+v", i, out[0])
		}
	}
	for _, a := range keep {
		if l.Decide(l.base, []Ask{a}, out) {
			t.Errorf("%v was driven out", a.Key)
		}
	}
	if s := l.Stats(); s.Keys > 64*64 || s.Evicted < 90_000 {
		t.Errorf("%+v, want at most %d keys and the rest evicted", s, 64*64)
	}
}

// TestTableAgainstMap does random things to a shard with few distinct hashes and compares with a map.
func TestTableAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := shard{limit: 1 << 20}
		model := map[Key]int64{}
		for n := range rapid.IntRange(1, 300).Draw(t, "steps") {
			k := Key{4: byte(rapid.IntRange(0, 40).Draw(t, "hash")), 9: byte(rapid.IntRange(0, 3).Draw(t, "key"))}
			if rapid.IntRange(0, 2).Draw(t, "what") == 0 {
				for pos := range s.n {
					if s.at(pos).key == k {
						s.remove(pos)
						delete(model, k)
						break
					}
				}
			} else {
				e, _ := s.touch(k, 1, instant{})
				e.at[0], model[k] = int64(n)+1, int64(n)+1
			}
			if s.n != len(model) {
				t.Fatalf("%d entries, want %d", s.n, len(model))
			}
		}
		for k, v := range model {
			if e := s.find(k); e == nil || e.at[0] != v {
				t.Fatalf("%v: %+v, want %d", k, e, v)
			}
		}
	})
}

// TestPlaceBesideRate: of two asks under one key, the one that takes no place takes none.
func TestPlaceBesideRate(t *testing.T) {
	l := New(Options{})
	defer l.Close()
	rate, place := &Limit{Rates: []Rate{{Limit: 9, Period: time.Hour}}}, &Limit{Concurrency: 1}
	asks := []Ask{{Limit: rate, Key: Key{1}, Cost: 1}, {Limit: place, Key: Key{1}, Cost: 1}}
	out := make([]Answer, 2)
	for i, want := range []bool{true, false} {
		if got := l.Decide(time.Now(), asks, out); got != want {
			t.Errorf("batch %d passes: %v, want %v", i, got, want)
		}
	}
	l.Release(asks[1])
	if !l.Decide(time.Now(), asks, out) || out[0].Remaining != 7 {
		t.Errorf("after Release: %+v", out)
	}
}
