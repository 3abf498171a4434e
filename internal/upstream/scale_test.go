package upstream

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// crowd is n ready endpoints, the first at a number.
func crowd(from, n int) []Resolved {
	rs := make([]Resolved, n)
	for i := range rs {
		k := from + i
		rs[i] = Resolved{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(k >> 16), byte(k >> 8), byte(k)}), 80), Ready: true, Serving: true}
	}
	return rs
}

func crowded(tb testing.TB, n int, t *ir.Traffic) *Cluster {
	tb.Helper()
	c := NewSet(Rules{}).Acquire("c")
	c.Configure(NewSettings(&ir.Cluster{Traffic: t}, nil, ""))
	c.SetEndpoints(crowd(0, n))
	return c
}

var (
	bounded = &ir.Traffic{Balancer: &ir.Balancer{Algorithm: ir.ConsistentHash, Hash: &ir.Hash{Load: 125}}}
	sticky  = &ir.Traffic{Affinity: &ir.Affinity{}}
)

// BenchmarkFailed is a failing request in an outage: as many endpoints are out as may be, and each further failure is refused.
func BenchmarkFailed(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("endpoints=%d", n), func(b *testing.B) {
			c := crowded(b, n, nil)
			now := time.Now()
			for _, e := range c.All() {
				for range 5 {
					e.Failed(now)
				}
			}
			all := c.All()
			i := 0
			for b.Loop() {
				e := all[n/2+i%(n/2)]
				i++
				e.Tried()
				e.Failed(now)
				c.MayRetry(now)
			}
		})
	}
}

// BenchmarkEjected is a request that fails and has its endpoint ejected, with the choice of another and the ends of ejections.
func BenchmarkEjected(b *testing.B) {
	c := crowded(b, 10_000, &ir.Traffic{Passive: &ir.Passive{Failures: 1, EjectFor: ir.Duration(time.Second), MaxOut: 50}})
	now := time.Now()
	for b.Loop() {
		now = now.Add(time.Millisecond)
		c.Pick(Choice{Now: now}).Failed(now)
	}
}

// BenchmarkSetEndpoints is an event that replaces one endpoint.
func BenchmarkSetEndpoints(b *testing.B) {
	for name, t := range map[string]*ir.Traffic{"plain": nil, "hash": bounded, "affinity": sticky} {
		b.Run(name, func(b *testing.B) {
			c := crowded(b, 10_000, t)
			rs := [2][]Resolved{crowd(0, 10_000), crowd(0, 10_000)}
			rs[1][5000] = crowd(20_000, 1)[0]
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				i++
				c.SetEndpoints(rs[i%2])
			}
		})
	}
}

// BenchmarkPickAfterChange is the first request after an event, which may have to make what it picks by.
func BenchmarkPickAfterChange(b *testing.B) {
	for name, t := range map[string]*ir.Traffic{"hash": bounded, "affinity": sticky} {
		b.Run(name, func(b *testing.B) {
			c := crowded(b, 10_000, t)
			token := c.All()[0].Token()
			c.ByToken(token, time.Now())
			rs := [2][]Resolved{crowd(0, 10_000), crowd(1, 10_000)}
			i := 0
			for b.Loop() {
				i++
				b.StopTimer()
				c.SetEndpoints(rs[i%2])
				b.StartTimer()
				if t == sticky {
					c.ByToken(token, time.Time{})
				} else {
					c.Pick(Choice{Hash: uint64(i)<<40 | 1})
				}
			}
		})
	}
}

// BenchmarkPickBounded is a consistent hash with bounded load.
func BenchmarkPickBounded(b *testing.B) {
	c := crowded(b, 10_000, bounded)
	c.Pick(Choice{Hash: 1})
	i := uint64(0)
	for b.Loop() {
		i += 0x9e3779b97f4a7c15
		e := c.Pick(Choice{Hash: i | 1})
		e.Begin()
		e.End()
	}
}

// TestAFailureInAnOutageScansNothing: with as many endpoints out as may be, each further failure costs the same whatever their number.
// A scan of them all needs memory for it.
func TestAFailureInAnOutageScansNothing(t *testing.T) {
	c := crowded(t, 10_000, nil)
	now := time.Now()
	for _, e := range c.All() {
		for range 5 {
			e.Failed(now)
		}
	}
	if got := c.Out(); got != 5000 {
		t.Fatalf("%d endpoints are out, want half", got)
	}
	for _, e := range c.All()[5000:] {
		if e.out.Load() {
			t.Fatal("an endpoint is out beyond the bound")
		}
	}
	e := c.All()[9999]
	if n := testing.AllocsPerRun(100, func() { e.Tried(); e.Failed(now); c.MayRetry(now) }); n != 0 {
		t.Errorf("a failure makes %v allocations, want 0", n)
	}
	if c.outs != 5000 || c.tries() == 0 {
		t.Errorf("%d counted as out, %d tries", c.outs, c.tries())
	}
}

// TestLargeClusterSkipsAtOnce: an endpoint among many that is ejected gets no request from then on, though it is listed for a little
// longer; it comes back when its time is over, and if none is healthy all are used.
func TestLargeClusterSkipsAtOnce(t *testing.T) {
	for _, balancer := range []*ir.Balancer{nil, {Algorithm: ir.LeastRequest}, bounded.Balancer} {
		synctest.Test(t, func(t *testing.T) {
			c := crowded(t, 1000, &ir.Traffic{Balancer: balancer, Passive: &ir.Passive{Failures: 1, EjectFor: ir.Duration(10 * time.Second), MaxOut: 50},
				Active: &ir.Active{Interval: ir.Duration(time.Second), Timeout: ir.Duration(time.Second), Healthy: 1, Unhealthy: 1}})
			used := func(e *Endpoint) (n int) {
				for i := range 20_000 {
					if c.Pick(Choice{Now: time.Now(), Hash: HashText(1, fmt.Sprint(i))}) == e {
						n++
					}
				}
				return n
			}
			e := c.All()[400]
			if used(e) == 0 {
				t.Fatal("the endpoint gets no request")
			}
			e.Failed(time.Now())
			if n := used(e); n != 0 || c.ByToken(e.Token(), time.Now()) != nil {
				t.Errorf("an endpoint that was just ejected got %d requests", n)
			}
			time.Sleep(2 * settling)
			synctest.Wait()
			if n := len(c.Endpoints()); n != 999 {
				t.Errorf("%d endpoints listed, want 999", n)
			}
			time.Sleep(10 * time.Second)
			used(e) // finds that the ejection is over
			time.Sleep(2 * settling)
			synctest.Wait()
			if n := used(e); n == 0 {
				t.Error("an endpoint whose ejection is over gets no request")
			}
			for _, e := range c.All() {
				e.Checked(false, time.Now())
			}
			if c.Pick(Choice{Now: time.Now(), Hash: 1}) == nil || c.Out() != 1000 {
				t.Error("no endpoint is used though none is better than another")
			}
			e.Checked(true, time.Now())
			time.Sleep(2 * settling)
			synctest.Wait()
			if n := used(e); n != 20_000 {
				t.Errorf("the only healthy endpoint got %d of 20000 requests", n)
			}
		})
	}
}

// TestIndexesFollowTheEndpoints holds ring and tokens, after any history of endpoints, weights and settings, against those made at once.
func TestIndexesFollowTheEndpoints(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := NewSet(Rules{}).Acquire("c")
		for range rapid.IntRange(1, 8).Draw(t, "changes") {
			s := &ir.Traffic{}
			if rapid.Bool().Draw(t, "hash") {
				s.Balancer = bounded.Balancer
			}
			if rapid.Bool().Draw(t, "affinity") {
				s.Affinity = &ir.Affinity{}
			}
			configure := func() { c.Configure(NewSettings(&ir.Cluster{Traffic: s}, nil, "")) }
			first := rapid.Bool().Draw(t, "settings first")
			if first {
				configure()
			}
			var rs []Resolved
			for _, k := range rapid.SliceOfN(rapid.IntRange(0, 12), 0, 12).Draw(t, "endpoints") {
				r := crowd(k, 1)[0]
				r.Ready = rapid.IntRange(0, 4).Draw(t, "ready") > 0
				r.Weight = uint32(rapid.IntRange(0, 3).Draw(t, "weight"))
				rs = append(rs, r)
			}
			c.SetEndpoints(rs)
			if !first {
				configure()
			}
			l := c.list.Load()
			for _, e := range l.all {
				if (c.byAddr[e.Addr]) != e {
					t.Fatal("an endpoint is not found by its address")
				}
			}
			if len(c.byAddr) != len(l.all) {
				t.Fatalf("%d addresses known, %d endpoints", len(c.byAddr), len(l.all))
			}
			if s.Balancer != nil && !slices.Equal(l.ring, ringOf(nil, nil, l.base)) || s.Balancer == nil && l.ring != nil {
				t.Fatalf("a ring of %d places is not that of %d endpoints", len(l.ring), len(l.base))
			}
			if s.Affinity != nil && !maps.Equal(l.tokens, tokensOf(nil, nil, l.base)) {
				t.Fatalf("%d tokens are not those of %d endpoints", len(l.tokens), len(l.base))
			}
			for _, e := range l.base {
				if c.ByToken(e.Token(), time.Now()) != e {
					t.Fatal("an endpoint is not found by its token")
				}
			}
		}
	})
}

// TestUseWhileEndpointsChange is for the race detector: requests, failures and checks while endpoints come and go.
func TestUseWhileEndpointsChange(t *testing.T) {
	c := crowded(t, 600, bounded)
	var wg sync.WaitGroup
	for k := range 4 {
		wg.Go(func() {
			for i := range 2000 {
				now := time.Now()
				e := c.Pick(Choice{Now: now, Hash: uint64(i*7919 + k)})
				if e == nil {
					continue
				}
				e.Tried()
				e.Begin()
				if i%3 == 0 {
					e.Failed(now)
					c.MayRetry(now)
				}
				c.ByToken(uint64(i), now)
				e.End()
			}
		})
	}
	for i := range 40 {
		c.SetEndpoints(crowd(i, 400+i*10))
		c.Configure(NewSettings(&ir.Cluster{Traffic: []*ir.Traffic{bounded, sticky, nil}[i%3]}, nil, ""))
	}
	wg.Wait()
	if n := c.active(); n != 0 {
		t.Errorf("%d exchanges counted after all ended", n)
	}
}

// TestDeclinedRequestsSpread: what an endpoint declines while it warms up goes to all others alike.
func TestDeclinedRequestsSpread(t *testing.T) {
	c := crowded(t, 10, &ir.Traffic{Balancer: &ir.Balancer{Algorithm: ir.RoundRobin, SlowStart: ir.Duration(time.Hour)}})
	now := time.Now()
	cold := c.All()[3]
	cold.joined.Store(now.UnixNano())
	got := map[*Endpoint]int{}
	const n = 20_000
	for range n {
		got[c.Pick(Choice{Now: now})]++
	}
	for i, e := range c.All() {
		if e != cold && (got[e] < n/10 || got[e] > n/10*12/10) {
			t.Errorf("endpoint %d beside a cold one got %d of %d, want a ninth of what it declined and its own tenth", i, got[e], n)
		}
	}
}

// TestClustersBeginAnywhere: many processes with a request each do not all send it to the first endpoint.
func TestClustersBeginAnywhere(t *testing.T) {
	first := map[string]int{}
	for range 200 {
		first[crowded(t, 10, nil).Pick(Choice{}).Text]++
	}
	if len(first) < 8 {
		t.Errorf("200 clusters begin at %d of 10 endpoints", len(first))
	}
}
