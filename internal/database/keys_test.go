package database_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gatehouse-io/gatehouse/internal/database"
)

// fake is a database that a test plays: it sends batches and errors, and keeps what is written of uses.
type fake struct {
	events chan any // database.Batch or error
	mu     sync.Mutex
	used   map[string]time.Time
	writes int
	fault  error
}

func newFake() *fake { return &fake{events: make(chan any), used: map[string]time.Time{}} }

func (f *fake) Changes(ctx context.Context, since int64) iter.Seq2[database.Batch, error] {
	return func(yield func(database.Batch, error) bool) {
		for {
			select {
			case <-ctx.Done():
				return
			case e := <-f.events:
				b, _ := e.(database.Batch)
				err, _ := e.(error)
				if !yield(b, err) {
					return
				}
			}
		}
	}
}

func (f *fake) TouchKeys(_ context.Context, used map[string]time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writes++
	if f.fault != nil {
		return f.fault
	}
	for id, at := range used {
		f.used[id] = at
	}
	return nil
}

// begin has the writes that follow end with a fault, and forgets those before.
func (f *fake) begin(fault error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault, f.used = fault, map[string]time.Time{}
}

// made is a key that nobody issued.
func made(n int) database.Key {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(n))
	return database.Key{
		ID: fmt.Sprintf("%012d", n), Env: "live", Hash: sha256.Sum256(b[:]), Application: fmt.Sprintf("ns%d/app%d", n%100, n%1000),
		Scopes: [][]string{nil, {"orders:read"}, {"orders:read", "orders:write"}}[n%3],
	}
}

func revoked(k database.Key) database.Key { k.RevokedAt = time.Unix(1, 0); return k }

// follow runs Follow in a bubble of synctest until the test ends it.
func follow(k *database.Keys, f *fake) (end func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- k.FollowFrom(ctx, f) }()
	return func() error { cancel(); return <-done }
}

func known(k *database.Keys, n int) bool {
	hash := made(n).Hash
	_, ok := k.Lookup(&hash, time.Now())
	return ok
}

func isReady(k *database.Keys) bool {
	select {
	case <-k.Ready():
		return true
	default:
		return false
	}
}

func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, f := database.NewKeys(), newFake()
		end := follow(k, f)
		want := func(what string, ready bool, first, second bool) {
			t.Helper()
			synctest.Wait()
			if isReady(k) != ready || known(k, 1) != first || known(k, 2) != second {
				t.Errorf("%s: ready %v, keys %v %v; want %v, %v %v", what, isReady(k), known(k, 1), known(k, 2), ready, first, second)
			}
		}
		want("at first", false, false, false)
		f.events <- database.Batch{Keys: []database.Key{made(1)}}
		want("half loaded", false, false, false)
		f.events <- errors.New("away")
		f.events <- database.Batch{Keys: []database.Key{made(2)}, Current: true}
		want("loaded", true, true, true)
		f.events <- database.Batch{Keys: []database.Key{revoked(made(1))}, Current: true}
		want("one revoked", true, false, true)
		expired := made(2)
		expired.ExpiresAt = time.Now().Add(time.Minute)
		f.events <- database.Batch{Keys: []database.Key{expired}, Current: true}
		want("one will expire", true, false, true)
		time.Sleep(time.Minute - time.Nanosecond)
		want("it nearly does", true, false, true)
		time.Sleep(time.Nanosecond)
		want("it does", true, false, false)

		// A database that went back to a state before: what is known serves until all is read anew.
		f.events <- database.Batch{Keys: []database.Key{made(1), made(2)}, Current: true}
		f.events <- database.Batch{Reset: true, Keys: []database.Key{made(3)}}
		want("reading anew", true, true, true)
		f.events <- database.Batch{Keys: []database.Key{made(1)}, Current: true}
		want("read anew", true, true, false)
		if k.Len() != 2 {
			t.Errorf("%d keys, want 2", k.Len())
		}
		if err := end(); err != nil {
			t.Error(err)
		}
	})
}

func TestStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, f := database.NewKeys(), newFake()
		end := follow(k, f)
		time.Sleep(3 * time.Second)
		if got := k.Stale(); got != 3*time.Second {
			t.Errorf("before the first answer: stale for %s", got)
		}
		for range 10 {
			f.events <- database.Batch{Current: true}
			time.Sleep(500 * time.Millisecond)
			if got := k.Stale(); got != 0 || k.Err() != nil {
				t.Errorf("while it answers: stale for %s, %v", got, k.Err())
			}
		}
		f.events <- errors.New("away")
		time.Sleep(9500 * time.Millisecond)
		if got := k.Stale(); got != 10*time.Second || fmt.Sprint(k.Err()) != "away" {
			t.Errorf("while it is away: stale for %s, %v", got, k.Err())
		}
		f.events <- database.Batch{Current: true}
		synctest.Wait()
		if got := k.Stale(); got != 0 || k.Err() != nil {
			t.Errorf("when it is back: stale for %s, %v", got, k.Err())
		}
		if err := end(); err != nil {
			t.Error(err)
		}
	})
}

func TestUsesAreWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, f := database.NewKeys(), newFake()
		end := follow(k, f)
		var all []database.Key
		for n := range 100 {
			all = append(all, made(n))
		}
		f.events <- database.Batch{Keys: all, Current: true}
		synctest.Wait()
		known(k, 1)
		time.Sleep(time.Second)
		at := time.Now()
		known(k, 1)
		known(k, 2)
		want := func(what string, writes int, ids ...string) {
			t.Helper()
			synctest.Wait()
			used := map[string]time.Time{}
			for _, id := range ids {
				used[id] = at.UTC()
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if d := cmp.Diff(used, f.used); d != "" || f.writes != writes {
				t.Errorf("%s: %d writes, want %d (-want +got)\n%s", what, f.writes, writes, d)
			}
		}
		time.Sleep(9*time.Second - time.Nanosecond)
		want("before ten seconds", 0)
		time.Sleep(time.Nanosecond)
		want("after ten seconds", 1, "000000000001", "000000000002")
		time.Sleep(30 * time.Second)
		want("nothing new", 1, "000000000001", "000000000002")

		// What cannot be written is written later, and what stands at the end is written then.
		f.begin(errors.New("full"))
		known(k, 3)
		at = time.Now()
		time.Sleep(20 * time.Second)
		want("full", 3)
		if fmt.Sprint(k.Err()) != "full" {
			t.Errorf("error %v", k.Err())
		}
		f.begin(nil)
		time.Sleep(10 * time.Second)
		want("no longer full", 4, "000000000003")
		if k.Err() != nil {
			t.Errorf("error %v", k.Err())
		}
		f.begin(nil)
		at = time.Now().Truncate(time.Second)
		known(k, 4)
		if err := end(); err != nil {
			t.Error(err)
		}
		want("at the end", 5, "000000000004")
	})
}

// The table does what a map does, whatever is put in and taken out.
func TestTableIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k, f := database.NewKeys(), newFake()
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- k.FollowFrom(ctx, f) }()
		model := map[int]database.Key{}
		for range rapid.IntRange(1, 12).Draw(t, "batches") {
			var b database.Batch
			lo := rapid.IntRange(0, 6000).Draw(t, "from")
			hi := lo + rapid.IntRange(1, 3000).Draw(t, "number")
			kind := rapid.IntRange(0, 3).Draw(t, "kind")
			for n := lo; n < hi; n++ {
				key := made(n)
				switch kind {
				case 0:
					key = revoked(key)
					delete(model, n)
				case 1:
					key.Scopes = []string{"changed"}
					model[n] = key
				case 2:
					key.ExpiresAt = time.Now().Add(time.Hour).UTC()
					model[n] = key
				default:
					model[n] = key
				}
				b.Keys = append(b.Keys, key)
			}
			b.Current = true
			f.events <- b
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if k.Len() != len(model) {
			t.Fatalf("%d keys, want %d", k.Len(), len(model))
		}
		now := time.Now()
		for n := range 9000 {
			hash := made(n).Hash
			want, there := model[n]
			e, ok := k.Lookup(&hash, now)
			if ok != there || ok && (e.ID != want.ID || e.Application != want.Application || e.Env != want.Env || !slices.Equal(e.Scopes, want.Scopes)) {
				t.Fatalf("key %d: %+v, %v; want %+v, %v", n, e, ok, want, there)
			}
			later, laterOK := k.Lookup(&hash, now.Add(2*time.Hour))
			if laterOK != (there && want.ExpiresAt.IsZero()) {
				t.Fatalf("key %d in two hours: %+v, %v", n, later, laterOK)
			}
		}
	})
}

// Readers find each key that is not being changed, while others come and go under them.
func TestReadersAndAWriter(t *testing.T) {
	k, f := database.NewKeys(), newFake()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- k.FollowFrom(ctx, f) }()
	var steady []database.Key
	for n := range 1000 {
		steady = append(steady, made(n))
	}
	f.events <- database.Batch{Keys: steady, Current: true}
	<-k.Ready()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for i := range steady {
					if e, ok := k.Lookup(&steady[i].Hash, time.Now()); !ok || e.ID != steady[i].ID || e.Application != steady[i].Application {
						t.Errorf("key %s: %+v, %v", steady[i].ID, e, ok)
						return
					}
				}
			}
		})
	}
	for range 5 {
		var more, less database.Batch
		for n := 1000; n < 9000; n++ {
			more.Keys = append(more.Keys, made(n))
			less.Keys = append(less.Keys, revoked(made(n)))
		}
		more.Current, less.Current = true, true
		f.events <- more
		f.events <- less
	}
	close(stop)
	wg.Wait()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// million returns a table of so many keys.
func million(t testing.TB, size int) *database.Keys {
	k, f := database.NewKeys(), newFake()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- k.FollowFrom(ctx, f) }()
	for n := 0; n < size; n += 5000 {
		b := database.Batch{Current: n+5000 >= size}
		for i := range 5000 {
			b.Keys = append(b.Keys, made(n+i))
		}
		f.events <- b
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return k
}

// TestAllocForAMillionKeys holds the table to 150 MiB, and a lookup in it, of a key out of the cache, to 300 ns: ten times that, so that the
// test does not fail because the machine is busy with other work. The race detector changes both.
func TestAllocForAMillionKeys(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("a million keys take seconds, and minutes under the race detector")
	}
	const size = 1_000_000
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	if database.EntrySize != 64 {
		t.Errorf("an entry has %d bytes, not a line of the cache", database.EntrySize)
	}
	before := heap()
	k := million(t, size)
	used := heap() - before
	if k.Len() != size || used > 150<<20 {
		t.Errorf("%d keys take %d MiB, want at most 150", k.Len(), used>>20)
	}
	hashes := make([][32]byte, 100_000)
	for i := range hashes {
		hashes[i] = made(rand.IntN(size)).Hash
	}
	now := time.Now()
	start := time.Now()
	for i := range hashes {
		if _, ok := k.Lookup(&hashes[i], now); !ok {
			t.Fatal("a key is not found")
		}
	}
	per := time.Since(start) / time.Duration(len(hashes))
	if per > 3*time.Microsecond {
		t.Errorf("a lookup takes %s", per)
	}
	t.Logf("%d keys: %.1f MiB, a lookup of a key out of the cache %s", size, float64(used)/(1<<20), per)
	runtime.KeepAlive(k)
}

func TestLookupAllocations(t *testing.T) {
	k := million(t, 5000)
	there, absent, at := made(7).Hash, made(5001).Hash, time.Now()
	if n := testing.AllocsPerRun(1000, func() {
		at = at.Add(time.Second)
		e, ok := k.Lookup(&there, at)
		if _, wrong := k.Lookup(&absent, at); !ok || wrong || e.ID != "000000000007" {
			t.Error("the table is wrong")
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkLookup(b *testing.B) {
	const size = 1_000_000
	k := million(b, size)
	hashes := make([][32]byte, 1<<18)
	for i := range hashes {
		hashes[i] = made(rand.IntN(size)).Hash
	}
	at := time.Now()
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			k.Lookup(&hashes[i&(1<<18-1)], at)
			i++
		}
	})
	b.Run("absent", func(b *testing.B) {
		for i := range hashes {
			hashes[i][9] ^= 1
		}
		i := 0
		for b.Loop() {
			k.Lookup(&hashes[i&(1<<18-1)], at)
			i++
		}
		for i := range hashes {
			hashes[i][9] ^= 1
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(p *testing.PB) {
			i := rand.IntN(1 << 18)
			for p.Next() {
				k.Lookup(&hashes[i&(1<<18-1)], at)
				i++
			}
		})
	})
}

// BenchmarkPut is what a key costs the writer, while the table grows.
func BenchmarkPut(b *testing.B) {
	k, f := database.NewKeys(), newFake()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- k.FollowFrom(ctx, f) }()
	n := 0
	for b.Loop() {
		batch := database.Batch{Current: true}
		for range 1000 {
			batch.Keys = append(batch.Keys, made(n))
			n++
		}
		f.events <- batch
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/key")
	cancel()
	<-done
}
