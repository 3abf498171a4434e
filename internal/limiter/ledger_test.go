package limiter

import (
	"context"
	"errors"
	"iter"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// book is a Ledger in memory, for several limiters.
type book struct {
	mu     sync.Mutex
	totals map[Key]map[int64]Total
	fail   error
	adds   int
	loads  int
}

func (b *book) Load(context.Context) iter.Seq2[Total, error] {
	return func(yield func(Total, error) bool) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.loads++
		if b.fail != nil {
			yield(Total{}, b.fail)
			return
		}
		for _, windows := range b.totals {
			for _, t := range windows {
				if !yield(t, nil) {
					return
				}
			}
		}
	}
}

func (b *book) Add(_ context.Context, deltas []Delta) ([]Total, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.adds++
	if b.fail != nil {
		return nil, b.fail
	}
	var out []Total
	for _, d := range deltas {
		if b.totals == nil {
			b.totals = map[Key]map[int64]Total{}
		}
		if b.totals[d.Key] == nil {
			b.totals[d.Key] = map[int64]Total{}
		}
		t := b.totals[d.Key][d.Start.Unix()]
		t.Key, t.Start, t.Expires, t.Count = d.Key, d.Start, d.Expires, t.Count+d.N
		b.totals[d.Key][d.Start.Unix()] = t
		out = append(out, Total{Key: t.Key, Start: t.Start, Count: t.Count})
	}
	return out, nil
}

func (b *book) setFail(err error) {
	b.mu.Lock()
	b.fail = err
	b.mu.Unlock()
}

// of is the sum of all windows of a key.
func (b *book) of(k Key) (n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.totals[k] {
		n += t.Count
	}
	return n
}

func monthly(limit int64) Ask {
	return Ask{Limit: &Limit{Quota: &Quota{Limit: limit, Window: Month}}, Key: key("monthly"), Cost: 1}
}

func take(l *Limiter, a Ask, n int) (passed int, last Answer) {
	out := make([]Answer, 1)
	for range n {
		if l.Decide(time.Now(), []Ask{a}, out) {
			passed++
		}
	}
	return passed, out[0]
}

func TestLedgerSurvivesRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, a := &book{}, monthly(10)
		first := New(Options{Ledger: b})
		first.Durable()
		synctest.Wait()
		take(first, a, 4)
		time.Sleep(time.Second)
		if n := b.of(a.Key); n != 4 {
			t.Errorf("a second later the ledger has %d, want 4", n)
		}
		take(first, a, 2)
		first.Close()
		if n := b.of(a.Key); n != 6 {
			t.Errorf("after Close the ledger has %d, want 6", n)
		}
		second := New(Options{Ledger: b})
		second.Durable()
		defer second.Close()
		synctest.Wait()
		p := a
		p.Peek = true
		if _, last := take(second, p, 1); last.Remaining != 3 {
			t.Errorf("after a restart a peek says %+v, want 3 left after it", last)
		}
		if passed, _ := take(second, a, 10); passed != 4 {
			t.Errorf("%d passed after a restart, want 4", passed)
		}
	})
}

// TestLedgerLoadsLate: what is used before the ledger could be read is added to what it has.
func TestLedgerLoadsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, a := &book{}, monthly(10)
		first := New(Options{Ledger: b})
		first.Durable()
		synctest.Wait()
		take(first, a, 5)
		first.Close()
		b.setFail(errors.New("no database"))
		l := New(Options{Ledger: b})
		l.Durable()
		defer l.Close()
		synctest.Wait()
		if got := l.Stats().LedgerError; got != "no database" {
			t.Errorf("LedgerError = %q", got)
		}
		take(l, a, 3)
		b.setFail(nil)
		time.Sleep(1100 * time.Millisecond)
		if passed, _ := take(l, a, 10); passed != 2 {
			t.Errorf("%d more passed, want 2", passed)
		}
		time.Sleep(time.Second)
		if n := b.of(a.Key); n != 10 {
			t.Errorf("the ledger has %d, want 10", n)
		}
		if got := l.Stats().LedgerError; got != "" {
			t.Errorf("LedgerError = %q", got)
		}
	})
}

func TestLedgerFailingFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, a := &book{}, monthly(1000)
		l := New(Options{Ledger: b})
		l.Durable()
		defer l.Close()
		synctest.Wait()
		take(l, a, 10)
		b.setFail(errors.New("disk full"))
		time.Sleep(3 * time.Second)
		take(l, a, 10)
		time.Sleep(3 * time.Second)
		if b.of(a.Key) != 0 || b.adds < 5 || l.Stats().LedgerError != "disk full" {
			t.Errorf("%d counted in %d tries, %q", b.of(a.Key), b.adds, l.Stats().LedgerError)
		}
		b.setFail(nil)
		time.Sleep(time.Second)
		if n := b.of(a.Key); n != 20 {
			t.Errorf("the ledger has %d, want 20", n)
		}
	})
}

func TestLedgerConverges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, a := &book{}, monthly(30)
		one, two := New(Options{Ledger: b}), New(Options{Ledger: b})
		one.Durable()
		two.Durable()
		defer one.Close()
		defer two.Close()
		synctest.Wait()
		passed := 0
		for range 100 {
			for _, l := range []*Limiter{one, two} {
				n, _ := take(l, a, 1)
				passed += n
			}
			time.Sleep(time.Second)
		}
		if passed < 30 || passed > 31 {
			t.Errorf("%d passed two processes, want 30", passed)
		}
		if n := b.of(a.Key); n != int64(passed) {
			t.Errorf("the ledger has %d, want %d", n, passed)
		}
	})
}

// TestLedgerWindowEnds: what was counted just before a window ended is told as of that window.
func TestLedgerWindowEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // it is midnight
		b := &book{}
		a := Ask{Limit: &Limit{Quota: &Quota{Limit: 5, Window: Minute}}, Key: key("minute"), Cost: 1}
		l := New(Options{Ledger: b, FlushEvery: time.Second})
		l.Durable()
		defer l.Close()
		time.Sleep(59*time.Second + 900*time.Millisecond)
		take(l, a, 9)
		time.Sleep(200 * time.Millisecond)
		if passed, _ := take(l, a, 3); passed != 3 {
			t.Errorf("%d passed in a new minute, want 3", passed)
		}
		time.Sleep(2 * time.Second)
		if _, last := take(l, a, 1); last.Remaining != 1 {
			t.Errorf("%+v, want 1 left", last)
		}
		var counts []int64
		b.mu.Lock()
		for _, start := range []int64{0, 60} {
			counts = append(counts, b.totals[a.Key][l.base.Unix()+start].Count)
		}
		b.mu.Unlock()
		if counts[0] != 5 || counts[1] != 3 {
			t.Errorf("the windows have %v, want 5 and 3", counts)
		}
	})
}

// Nothing is read or written before there is a quota.
func TestLedgerUntouched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &book{}
		l := New(Options{Ledger: b})
		time.Sleep(time.Minute)
		l.Close()
		if b.loads+b.adds > 0 {
			t.Errorf("read %d times, written %d times", b.loads, b.adds)
		}
	})
}

// TestLedgerOpensLate: a ledger that opens a moment after it is first asked is read before Durable returns, and one that does not open holds
// nobody up for long; what is counted meanwhile is told at the end.
func TestLedgerOpensLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, a := &book{}, monthly(10)
		before := New(Options{Ledger: b})
		before.Durable()
		take(before, a, 7)
		before.Close()
		b.setFail(errors.New("not open yet"))
		time.AfterFunc(200*time.Millisecond, func() { b.setFail(nil) })
		l, began := New(Options{Ledger: b}), time.Now()
		l.Durable()
		if took := time.Since(began); took < 200*time.Millisecond || took > 600*time.Millisecond {
			t.Errorf("Durable took %v", took)
		}
		if passed, _ := take(l, a, 10); passed != 3 {
			t.Errorf("%d passed, want 3", passed)
		}
		l.Durable()
		l.Close()

		b.setFail(errors.New("no database"))
		l, began = New(Options{Ledger: b}), time.Now()
		l.Durable()
		if took := time.Since(began); took != time.Second {
			t.Errorf("without a ledger Durable took %v, want 1s", took)
		}
		take(l, a, 2)
		b.setFail(nil) // and it ends before the next try
		l.Close()
		if n := b.of(a.Key); n != 12 {
			t.Errorf("after Close the ledger has %d, want 12", n)
		}
		l = New(Options{Ledger: b})
		l.Close()
		l.Durable() // is not held up by what is closed
	})
}
