package limiter

import (
	"encoding/binary"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestAllocDecide holds the hot path to zero, in steady state.
func TestAllocDecide(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	l := New(Options{})
	defer l.Close()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip(err)
	}
	minute := &Limit{Rates: []Rate{{Limit: 1000, Period: time.Minute}, {Limit: 1 << 40, Period: time.Hour}, {Limit: 7, Period: time.Millisecond}}}
	month := &Limit{Quota: &Quota{Limit: 1 << 40, Window: Month, Zone: berlin}, Concurrency: 10}
	seed := SeedOf("shop/limits", "per-client")
	now := time.Now()
	client := []byte("198.51.100.7")
	asks, out := make([]Ask, 2), make([]Answer, 2)
	if n := testing.AllocsPerRun(5000, func() {
		asks[0] = Ask{Limit: minute, Key: KeyOf(seed, client), Cost: 1}
		asks[1] = Ask{Limit: month, Key: KeyOf(seed, client, []byte("x")), Cost: 1}
		if l.Decide(now, asks, out) {
			l.Release(asks[1])
			l.Charge(now, asks[0])
			l.Refund(now, asks[0])
		}
		now = now.Add(10 * time.Microsecond)
	}); n != 0 {
		t.Errorf("a decision makes %v allocations, want 0", n)
	}
	// A shared limit and one of the ledger note what is to be told; here nobody does, as their goroutines would allocate too.
	l.store, l.ledger = newStore(Options{}), newLedgerKeeper(Options{})
	l.once.Do(func() { l.begun.Store(true) })
	shared := &Limit{Rates: minute.Rates, Quota: month.Quota, Shared: true}
	reports, turn := make([]report, 0, 10), 0
	if n := testing.AllocsPerRun(5000, func() {
		asks[0] = Ask{Limit: shared, Key: KeyOf(seed, client, []byte("y")), Cost: 1}
		asks[1] = Ask{Limit: month, Key: KeyOf(seed, client, []byte("x")), Cost: 1}
		if l.Decide(now, asks, out) {
			l.Release(asks[1])
		}
		reports = l.collect(reports[:0], &turn, now.Nanosecond()%2 == 0, 1<<63-1, 10)
		now = now.Add(10 * time.Microsecond)
	}); n != 0 {
		t.Errorf("a decision by a shared limit makes %v allocations, want 0", n)
	}
	l.store, l.ledger = nil, nil
	long := []byte(strings.Repeat("x", 5000))
	if n := testing.AllocsPerRun(100, func() { KeyOf(seed, long, client) }); n != 0 {
		t.Errorf("KeyOf makes %v allocations, want 0", n)
	}
}

// TestAllocMemory measures a full table: a million keys.
func TestAllocMemory(t *testing.T) {
	if raceEnabled || testing.Short() {
		t.Skip("the race detector allocates")
	}
	const keys = 1_000_000
	l := New(Options{MaxKeys: 2 * keys})
	defer l.Close()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	a, out := []Ask{{Limit: &Limit{Rates: []Rate{{Limit: 10, Period: time.Hour}}}, Cost: 1}}, make([]Answer, 1)
	var b [8]byte
	for i := range keys {
		binary.LittleEndian.PutUint64(b[:], uint64(i))
		a[0].Key = KeyOf(Seed{}, b[:])
		l.Decide(l.base, a, out)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	per := float64(after.HeapAlloc-before.HeapAlloc) / keys
	t.Logf("%.1f bytes a key", per)
	if n := l.Stats().Keys; n != keys {
		t.Errorf("%d keys, want %d", n, keys)
	}
	if per > 96 {
		t.Errorf("%.1f bytes a key, want at most 96", per)
	}
}

func BenchmarkKeyOf(b *testing.B) {
	seed, client := SeedOf("shop/limits", "per-client"), []byte("198.51.100.7")
	b.ReportAllocs()
	for range b.N {
		KeyOf(seed, client)
	}
}

// cpu is what the process used, in ns: on a machine that others use too, this says more than the time that passed.
func cpu() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkDecide asks for 1024 clients in turn.
func BenchmarkDecide(b *testing.B) {
	one := []Rate{{Limit: 1_000_000_000, Period: time.Second}}
	quota := &Quota{Limit: 1 << 40, Window: Month}
	for _, c := range []struct {
		name   string
		limits []Limit
	}{
		{"rate", []Limit{{Rates: one}}},
		{"rates-2", []Limit{{Rates: []Rate{one[0], {Limit: 1 << 31, Period: time.Hour}}}}},
		{"quota", []Limit{{Quota: quota}}},
		{"three-limits", []Limit{{Rates: one}, {Rates: one, Quota: quota}, {Rates: one}}},
	} {
		keys := make([][1024]Key, len(c.limits))
		for i := range keys {
			for j := range keys[i] {
				keys[i][j] = KeyOf(SeedOf(c.name), []byte{byte(i), byte(j), byte(j >> 8)})
			}
		}
		b.Run(c.name, func(b *testing.B) {
			l := New(Options{})
			defer l.Close()
			var first atomic.Int64
			b.ReportAllocs()
			before := cpu()
			defer func() { b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op") }()
			b.RunParallel(func(pb *testing.PB) {
				asks, out := make([]Ask, len(c.limits)), make([]Answer, len(c.limits))
				now := time.Now()
				for n := first.Add(500); pb.Next(); n++ {
					for i := range asks {
						asks[i] = Ask{Limit: &c.limits[i], Key: keys[i][n%1024], Cost: 1}
					}
					if !l.Decide(now, asks, out) {
						b.Fatalf("refused: %+v", out)
					}
				}
			})
		})
	}
}
