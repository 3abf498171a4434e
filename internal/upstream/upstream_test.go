package upstream

import (
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// kept is a connection that says when it was closed.
type kept struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func (k *kept) Close() error { k.once.Do(func() { close(k.closed) }); return nil }

func (k *kept) gone() bool {
	select {
	case <-k.closed:
		return true
	default:
		return false
	}
}

func dial(c *Cluster, e *Endpoint) (*Conn, *kept) {
	k := &kept{closed: make(chan struct{})}
	return NewConn(e, c.Settings(), nil, k), k
}

func at(n byte) netip.AddrPort { return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, n}), 80) }

func ready(ns ...byte) []Resolved {
	var rs []Resolved
	for _, n := range ns {
		rs = append(rs, Resolved{Addr: at(n), Ready: true, Serving: true})
	}
	return rs
}

func texts(es []*Endpoint) []string {
	var out []string
	for _, e := range es {
		out = append(out, e.Text)
	}
	slices.Sort(out)
	return out
}

func TestSetEndpointsKeepsWhatStays(t *testing.T) {
	s := NewSet(Rules{})
	c := s.Acquire("c")
	c.SetEndpoints(ready(1, 2))
	stays, leaves := c.Endpoints()[0], c.Endpoints()[1]
	now := time.Unix(1000, 0)
	a, ka := dial(c, stays)
	b, kb := dial(c, leaves)
	inUse, ku := dial(c, leaves)
	stays.Put(a, now)
	leaves.Put(b, now)
	stays.Begin()
	c.SetEndpoints(ready(3, 1))
	if got := c.Endpoints()[1]; got != stays || got.Idle() != 1 || got.Active() != 1 || ka.gone() {
		t.Errorf("the endpoint that stayed: same %v, %d idle, %d active, closed %v; want its pool and its counters", got == stays,
			got.Idle(), got.Active(), ka.gone())
	}
	if !kb.gone() {
		t.Error("an idle connection of an endpoint that left is open")
	}
	if ku.gone() {
		t.Error("a connection in use was closed with its endpoint")
	}
	if leaves.Put(inUse, now); !ku.gone() || leaves.Idle() != 0 {
		t.Error("a connection was put back to an endpoint that has left")
	}
	c.SetEndpoints(ready(1, 2, 3))
	for _, e := range c.Endpoints() {
		if e == leaves {
			t.Error("an endpoint that came back is the one that left")
		}
	}
}

func TestReadyElseServing(t *testing.T) {
	c := NewSet(Rules{}).Acquire("c")
	for _, x := range []struct {
		name string
		rs   []Resolved
		want []string
	}{
		{"none", nil, nil},
		{"ready goes first", []Resolved{{Addr: at(1), Serving: true}, {Addr: at(2), Ready: true, Serving: true}, {Addr: at(3)}}, []string{"192.0.2.2:80"}},
		{"all terminate", []Resolved{{Addr: at(1), Serving: true}, {Addr: at(2)}, {Addr: at(3), Serving: true}}, []string{"192.0.2.1:80", "192.0.2.3:80"}},
		{"neither", []Resolved{{Addr: at(1)}}, nil},
		{"named twice", []Resolved{{Addr: at(1), Ready: true}, {Addr: at(1), Ready: true}}, []string{"192.0.2.1:80"}},
		{"named twice, ready once", []Resolved{{Addr: at(1), Serving: true}, {Addr: at(1), Ready: true}}, []string{"192.0.2.1:80"}},
	} {
		c.SetEndpoints(x.rs)
		if d := cmp.Diff(x.want, texts(c.Endpoints())); d != "" {
			t.Errorf("%s:\n%s", x.name, d)
		}
		if e := c.Pick(Choice{}); (e != nil) != (x.want != nil) {
			t.Errorf("%s: Pick = %v", x.name, e)
		}
	}
}

func TestRoundRobinIsEven(t *testing.T) {
	c := NewSet(Rules{}).Acquire("c")
	c.SetEndpoints(ready(1, 2, 3))
	got := map[string]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for range 1000 {
				e := c.Pick(Choice{})
				mu.Lock()
				got[e.Text]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if d := cmp.Diff(map[string]int{"192.0.2.1:80": 1000, "192.0.2.2:80": 1000, "192.0.2.3:80": 1000}, got); d != "" {
		t.Error(d)
	}
}

func TestWeights(t *testing.T) {
	c := NewSet(Rules{}).Acquire("c")
	rs := ready(1, 2, 3)
	rs[0].Weight, rs[1].Weight = 3, 1 // the third has none, which is 1
	c.SetEndpoints(rs)
	got := map[string]int{}
	for range 500 {
		got[c.Pick(Choice{}).Text]++
	}
	if d := cmp.Diff(map[string]int{"192.0.2.1:80": 300, "192.0.2.2:80": 100, "192.0.2.3:80": 100}, got); d != "" {
		t.Error(d)
	}
}

func TestPickAvoids(t *testing.T) {
	for _, balancer := range []string{ir.RoundRobin, ir.LeastRequest} {
		for _, weight := range []uint32{1, 50} {
			c := NewSet(Rules{}).Acquire("c")
			c.Configure(NewSettings(&ir.Cluster{Traffic: &ir.Traffic{Balancer: &ir.Balancer{Algorithm: balancer}}}, nil, ""))
			rs := ready(1, 2)
			rs[0].Weight = weight
			c.SetEndpoints(rs)
			avoid := c.Endpoints()[0]
			for range 200 {
				if e := c.Pick(Choice{Avoid: avoid}); e == avoid {
					t.Errorf("%s, weight %d: Pick returned the endpoint to avoid while there is another", balancer, weight)
					break
				}
			}
			c.SetEndpoints(ready(1))
			if c.Pick(Choice{Avoid: avoid}) != avoid {
				t.Errorf("%s: Pick(the only one) returned another", balancer)
			}
		}
	}
}

func TestLeastRequestPrefersTheLessBusy(t *testing.T) {
	c := NewSet(Rules{}).Acquire("c")
	c.Configure(NewSettings(&ir.Cluster{Traffic: &ir.Traffic{Balancer: &ir.Balancer{Algorithm: ir.LeastRequest}}}, nil, ""))
	c.SetEndpoints(ready(1, 2))
	busy := c.Endpoints()[0]
	busy.Begin()
	for range 200 { // of two, both choices are always looked at
		if c.Pick(Choice{}) == busy {
			t.Fatal("the busier of two was picked")
		}
	}
	busy.End()
	c.SetEndpoints(ready(1, 2, 3, 4))
	for range 4000 { // nothing ends: the counts must stay close to each other
		c.Pick(Choice{}).Begin()
	}
	for _, e := range c.Endpoints() {
		if n := e.Active(); n < 950 || n > 1050 {
			t.Errorf("%s has %d of 4000 requests, want about 1000", e.Text, n)
		}
	}
}

func TestTakeNewestAndExpiry(t *testing.T) {
	c := NewSet(Rules{}).Acquire("c")
	c.SetEndpoints(ready(1))
	e := c.Endpoints()[0]
	start := time.Unix(1000, 0)
	if e.Take(start) != nil {
		t.Error("Take of an empty pool returned something")
	}
	old, ko := dial(c, e)
	e.Put(old, start)
	young, _ := dial(c, e)
	e.Put(young, start.Add(time.Second))
	if got := e.Take(start.Add(2 * time.Second)); got != young || !got.Reused {
		t.Error("Take did not return the newest, marked as reused")
	}
	if e.Take(start.Add(DefaultIdle)) != nil || !ko.gone() {
		t.Error("a connection is used after it has expired, or not closed")
	}
}

func TestKeepAliveLessASecond(t *testing.T) {
	c := NewSet(Rules{}).Acquire("c")
	c.SetEndpoints(ready(1))
	e := c.Endpoints()[0]
	now := time.Unix(1000, 0)
	for _, x := range []struct{ said, idle time.Duration }{ // idle 0: not kept
		{0, DefaultIdle}, {time.Second, 0}, {2 * time.Second, time.Second}, {100 * time.Second, 99 * time.Second},
	} {
		n, k := dial(c, e)
		n.KeepAlive = x.said
		e.Put(n, now)
		if kept := e.Idle() == 1; kept != (x.idle > 0) || kept == k.gone() {
			t.Errorf("Keep-Alive %v: kept %v, closed %v", x.said, kept, k.gone())
		}
		if x.idle == 0 {
			continue
		}
		if e.sweep(now.Add(x.idle - 1)); e.Idle() != 1 || k.gone() {
			t.Errorf("Keep-Alive %v: swept before %v", x.said, x.idle)
		}
		if e.sweep(now.Add(x.idle)); e.Idle() != 0 || !k.gone() {
			t.Errorf("Keep-Alive %v: not swept at %v", x.said, x.idle)
		}
	}
}

func TestPoolIsBounded(t *testing.T) {
	c := NewSet(Rules{}).Acquire("c")
	c.SetEndpoints(ready(1))
	e := c.Endpoints()[0]
	var last *kept
	for range maxIdle + 1 {
		var n *Conn
		n, last = dial(c, e)
		e.Put(n, time.Unix(1000, 0))
	}
	if e.Idle() != maxIdle || !last.gone() {
		t.Errorf("%d connections kept, last closed %v; want %d and the last closed", e.Idle(), last.gone(), maxIdle)
	}
}

func TestConfigureClosesWhenTLSChanges(t *testing.T) {
	c := NewSet(Rules{}).Acquire("c")
	c.SetEndpoints(ready(1))
	e := c.Endpoints()[0]
	now := time.Unix(1000, 0)
	idle, ki := dial(c, e)
	inUse, ku := dial(c, e)
	e.Put(idle, now)
	c.Configure(NewSettings(nil, nil, ""))
	if ki.gone() {
		t.Error("a change of other settings closed a connection")
	}
	c.Configure(NewSettings(nil, &tls.Config{MinVersion: tls.VersionTLS12}, ""))
	if !ki.gone() {
		t.Error("a clear-text connection stays in the pool of a cluster that is now TLS")
	}
	e.Put(inUse, now)
	if e.Take(now) != nil || !ku.gone() {
		t.Error("a clear-text connection was taken for a cluster that is now TLS")
	}
}

func TestReleaseCloses(t *testing.T) {
	s := NewSet(Rules{})
	c := s.Acquire("c")
	if s.Acquire("c") != c {
		t.Fatal("Acquire made a second cluster for one key")
	}
	c.SetEndpoints(ready(1))
	e := c.Endpoints()[0]
	n, k := dial(c, e)
	e.Put(n, time.Unix(1000, 0))
	if s.Release(c); k.gone() || len(s.All()) != 1 {
		t.Error("released before its last user")
	}
	if s.Release(c); !k.gone() || len(s.All()) != 0 || len(c.Endpoints()) != 0 {
		t.Error("a cluster without users keeps connections, endpoints or its place in the set")
	}
}

func TestSetCloseIdle(t *testing.T) {
	s := NewSet(Rules{})
	c := s.Acquire("c")
	c.SetEndpoints(ready(1, 2))
	var ks []*kept
	for _, e := range c.Endpoints() {
		n, k := dial(c, e)
		e.Put(n, time.Unix(1000, 0))
		ks = append(ks, k)
	}
	s.CloseIdle()
	for _, k := range ks {
		if !k.gone() {
			t.Error("an idle connection is open after CloseIdle")
		}
	}
}

// TestConcurrency is for the race detector; besides, no connection may be lost: each ends closed or in a pool.
func TestConcurrency(t *testing.T) {
	s := NewSet(Rules{})
	c := s.Acquire("c")
	c.SetEndpoints(ready(1, 2))
	var mu sync.Mutex
	var all []*kept
	stop := make(chan struct{})
	var users, writer sync.WaitGroup
	for range 4 {
		users.Go(func() {
			for range 2000 {
				e := c.Pick(Choice{})
				e.Begin()
				n := e.Take(time.Now())
				if n == nil {
					var k *kept
					n, k = dial(c, e)
					mu.Lock()
					all = append(all, k)
					mu.Unlock()
				}
				e.End()
				e.Put(n, time.Now())
			}
		})
	}
	writer.Go(func() {
		for i := byte(0); ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			c.SetEndpoints(ready(1, 2+i%3))
			s.Sweep(time.Now())
			d := s.Acquire("d")
			s.Release(d)
		}
	})
	users.Wait()
	close(stop)
	writer.Wait()
	s.Release(c)
	for _, k := range all {
		if !k.gone() {
			t.Fatal("a connection was lost: neither in a pool nor closed")
		}
	}
}
