package upstream

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-io/gatehouse/internal/ir"
)

func withTraffic(t *ir.Traffic) *Cluster {
	c := NewSet(Rules{}).Acquire("Service/shop/web/80")
	c.Configure(NewSettings(&ir.Cluster{Traffic: t}, nil, ""))
	return c
}

func hashed(load int) *ir.Traffic {
	return &ir.Traffic{Balancer: &ir.Balancer{Algorithm: ir.ConsistentHash, Hash: &ir.Hash{By: ir.HashAddress, Load: load}}}
}

func keyed(i int) Choice { return Choice{Hash: HashText(0, fmt.Sprint("client ", i))} }

func many(n byte) (rs []Resolved) {
	for i := range n {
		rs = append(rs, Resolved{Addr: at(i + 1), Ready: true})
	}
	return rs
}

// TestConsistentHash: each endpoint has about its share; one that comes or goes moves about its own share and nothing else.
func TestConsistentHash(t *testing.T) {
	c := withTraffic(hashed(0))
	const clients, n = 20000, 10
	c.SetEndpoints(many(n))
	before := make([]*Endpoint, clients)
	share := map[string]int{}
	for i := range clients {
		before[i] = c.Pick(keyed(i))
		share[before[i].Text]++
		if again := c.Pick(keyed(i)); again != before[i] {
			t.Fatalf("client %d: %s, then %s", i, before[i].Text, again.Text)
		}
	}
	for e, got := range share {
		if got < clients/n*7/10 || got > clients/n*13/10 {
			t.Errorf("%s has %d of %d clients, want about %d", e, got, clients, clients/n)
		}
	}
	gone := before[0]
	var rest []Resolved
	for _, r := range many(n) {
		if r.Addr != gone.Addr {
			rest = append(rest, r)
		}
	}
	c.SetEndpoints(rest)
	for i := range clients {
		if now := c.Pick(keyed(i)); now != before[i] && before[i] != gone {
			t.Fatalf("client %d moved from %s to %s though %s left", i, before[i].Text, now.Text, gone.Text)
		}
	}
	other := withTraffic(hashed(0)) // another process
	other.SetEndpoints(many(n))
	for i := range 100 {
		if a, b := other.Pick(keyed(i)), before[i]; a.Addr != b.Addr {
			t.Fatalf("client %d: %s here, %s there", i, b.Text, a.Text)
		}
	}
}

// TestConsistentHashBoundedLoad: with all requests of one client, no endpoint gets more than the bound.
func TestConsistentHashBoundedLoad(t *testing.T) {
	c := withTraffic(hashed(125))
	c.SetEndpoints(many(10))
	for range 1000 {
		c.Pick(keyed(7)).Begin()
	}
	for _, e := range c.Endpoints() {
		if e.Active() > 126 {
			t.Errorf("%s has %d of 1000 requests, want at most 125 and one", e.Text, e.Active())
		}
	}
}

func TestConsistentHashAvoids(t *testing.T) {
	c := withTraffic(hashed(0))
	c.SetEndpoints(many(2))
	q := keyed(1)
	first := c.Pick(q)
	if q.Avoid = first; c.Pick(q) == first {
		t.Error("the endpoint to avoid was picked while there is another")
	}
}

// TestSlowStart: an endpoint that joins others begins with a tenth and ends with its full share; those of the beginning are warm.
func TestSlowStart(t *testing.T) {
	c := withTraffic(&ir.Traffic{Balancer: &ir.Balancer{SlowStart: ir.Duration(10 * time.Second)}})
	c.SetEndpoints(many(3))
	share := func(e *Endpoint, age time.Duration) float64 {
		n := 0
		joined := e.joined.Load()
		for range 4000 {
			if c.Pick(Choice{Now: time.Unix(0, joined).Add(age)}) == e {
				n++
			}
		}
		return float64(n) / 1000
	}
	if first := c.Endpoints()[0]; first.joined.Load() != 0 {
		t.Error("the first endpoints have nothing to warm up for")
	}
	c.SetEndpoints(many(4))
	young := c.Endpoints()[3]
	for _, x := range []struct {
		age         time.Duration
		least, most float64 // of a full share
	}{{0, 0.05, 0.3}, {5 * time.Second, 0.35, 0.85}, {10 * time.Second, 0.99, 1.01}} {
		if got := share(young, x.age); got < x.least || got > x.most {
			t.Errorf("after %v it has %.2f of its share, want %.2f to %.2f", x.age, got, x.least, x.most)
		}
	}
	if young.joined.Load() != 0 {
		t.Error("it is not warm after its time")
	}
}

func TestZones(t *testing.T) {
	hint := func(n byte, zones ...string) Resolved { return Resolved{Addr: at(n), Ready: true, ForZones: zones} }
	for _, x := range []struct {
		name, zone string
		rs         []Resolved
		want       []string
	}{
		{"our zone", "a", []Resolved{hint(1, "a"), hint(2, "b"), hint(3, "a", "b")}, []string{"192.0.2.1:80", "192.0.2.3:80"}},
		{"zone not known", "", []Resolved{hint(1, "a"), hint(2, "b")}, []string{"192.0.2.1:80", "192.0.2.2:80"}},
		{"nothing for our zone", "c", []Resolved{hint(1, "a"), hint(2, "b")}, []string{"192.0.2.1:80", "192.0.2.2:80"}},
		{"one without a hint", "a", []Resolved{hint(1, "a"), hint(2)}, []string{"192.0.2.1:80", "192.0.2.2:80"}},
	} {
		c := NewSet(Rules{Zone: x.zone}).Acquire("c")
		c.SetEndpoints(x.rs)
		if d := cmp.Diff(x.want, texts(c.Endpoints())); d != "" {
			t.Errorf("%s:\n%s", x.name, d)
		}
	}
}

// TestEjection: so many failures in a row take an endpoint out, longer each time; at most a share of the endpoints is out, and
// one that works in between stays.
func TestEjection(t *testing.T) {
	c := withTraffic(&ir.Traffic{Passive: &ir.Passive{Failures: 3, Codes: []int{503}, EjectFor: ir.Duration(10 * time.Second), MaxOut: 50}})
	c.SetEndpoints(many(4))
	es := c.Endpoints()
	now := time.Unix(1000, 0)
	out := func(after time.Duration) (n int) {
		seen := map[*Endpoint]bool{}
		for range 40 {
			seen[c.Pick(Choice{Now: now.Add(after)})] = true
		}
		return len(es) - len(seen)
	}
	es[0].Failed(now)
	es[0].Answered(503, now)
	es[0].Answered(500, now) // does not count
	es[0].Failed(now)
	es[0].Failed(now)
	if n := out(0); n != 0 {
		t.Errorf("%d out, though it worked in between", n)
	}
	es[0].Failed(now)
	if n := out(0); n != 1 {
		t.Errorf("%d out after three failures, want 1", n)
	}
	if n := out(9 * time.Second); n != 1 {
		t.Errorf("%d out after 9s, want 1", n)
	}
	if n := out(10 * time.Second); n != 0 {
		t.Errorf("%d out after 10s, want 0", n)
	}
	now = now.Add(11 * time.Second)
	for range 3 {
		es[0].Failed(now)
	}
	if n := out(15 * time.Second); n != 1 {
		t.Errorf("the second time it is out for %d of 20s, want longer than 15s", n)
	}
	for _, e := range es[1:] {
		for range 3 {
			e.Failed(now)
		}
	}
	if n := out(0); n != 2 {
		t.Errorf("%d of 4 out, want 2: half of them", n)
	}
}

// TestEjectionNeverEmpties: of one endpoint none is left out, whatever the percentage.
func TestEjectionNeverEmpties(t *testing.T) {
	c := withTraffic(&ir.Traffic{Passive: &ir.Passive{Failures: 1, EjectFor: ir.Duration(10 * time.Second), MaxOut: 100}})
	c.SetEndpoints(many(2))
	now := time.Unix(1000, 0)
	for _, e := range c.Endpoints() {
		e.Failed(now)
	}
	if c.Pick(Choice{Now: now}) == nil {
		t.Error("no endpoint is left; all must be used when none is healthy")
	}
}

func TestActiveChecks(t *testing.T) {
	c := withTraffic(&ir.Traffic{Active: &ir.Active{Path: "/", Healthy: 2, Unhealthy: 3}})
	c.SetEndpoints(many(2))
	e, now := c.All()[0], time.Unix(1000, 0)
	for i, x := range []struct {
		ok     bool
		usable int
	}{{false, 2}, {false, 2}, {true, 2}, {false, 2}, {false, 2}, {false, 1}, {true, 1}, {false, 1}, {true, 1}, {true, 2}} {
		e.Checked(x.ok, now)
		if got := len(c.Endpoints()); got != x.usable {
			t.Errorf("check %d (%v): %d endpoints usable, want %d", i, x.ok, got, x.usable)
		}
	}
	for range 3 {
		e.Checked(false, now)
	}
	c.Configure(NewSettings(nil, nil, "")) // no checks any more: nobody would bring it back
	if got := len(c.Endpoints()); got != 2 {
		t.Errorf("%d endpoints usable after the checks were taken away, want 2", got)
	}
}

func TestTokens(t *testing.T) {
	c := withTraffic(nil)
	c.SetEndpoints(many(5))
	now := time.Unix(1000, 0)
	third := c.Endpoints()[2]
	token := third.Token()
	if e := c.ByToken(token, now); e != third {
		t.Errorf("ByToken = %v, want the endpoint whose token it is", e)
	}
	c.SetEndpoints(many(9))
	if e := c.ByToken(token, now); e != third {
		t.Error("the token is lost when other endpoints come")
	}
	c.SetEndpoints(many(2))
	if e := c.ByToken(token, now); e != nil {
		t.Errorf("ByToken of an endpoint that left = %s, want nil", e.Text)
	}
	if other := NewSet(Rules{}).Acquire("Service/shop/other/80"); other.ByToken(token, now) != nil {
		t.Error("the token works for another cluster")
	}
}

// TestRetryBudget: a cluster that fails gets a share more at most, but never less than the lowest rate.
func TestRetryBudget(t *testing.T) {
	c := withTraffic(&ir.Traffic{Budget: &ir.Budget{Percent: 20, Interval: ir.Duration(10 * time.Second), MinCount: 3, MinInterval: ir.Duration(time.Second)}})
	c.SetEndpoints(many(2))
	start := time.Now()
	retries := 0
	for i := range 10_000 { // 1000 requests a second for 10 s, all of which fail
		now := start.Add(time.Duration(i) * time.Millisecond)
		c.Pick(Choice{Now: now}).Tried()
		if c.MayRetry(now) {
			retries++
			c.Pick(Choice{Now: now}).Tried()
		}
	}
	if retries < 1500 || retries > 2300 {
		t.Errorf("%d tries for 10,000 requests, want about 20%%", retries)
	}
	early := withTraffic(&ir.Traffic{Budget: &ir.Budget{Percent: 20, Interval: ir.Duration(10 * time.Second), MinCount: 3, MinInterval: ir.Duration(time.Second)}})
	early.SetEndpoints(many(1))
	n := 0
	for range 1000 { // asked for before any of them is counted at its endpoint
		if early.MayRetry(start) {
			n++
		}
	}
	if n != 3 {
		t.Errorf("%d tries without a request, want the lowest rate of 3", n)
	}
	quiet := withTraffic(&ir.Traffic{Budget: &ir.Budget{Percent: 0, Interval: ir.Duration(10 * time.Second), MinCount: 3, MinInterval: ir.Duration(time.Second)}})
	quiet.SetEndpoints(many(1))
	for second := range 3 {
		n := 0
		for range 10 {
			if quiet.MayRetry(start.Add(time.Duration(second) * time.Second)) {
				n++
			}
		}
		if n != 3 {
			t.Errorf("second %d: %d tries, want 3", second, n)
		}
	}
}

func TestBreaker(t *testing.T) {
	c := withTraffic(&ir.Traffic{Breaker: &ir.Breaker{MaxConnections: 2, MaxRequests: 2}})
	c.SetEndpoints(many(1))
	for i, want := range []bool{true, true, false} {
		if ok, counted := c.Enter(); ok != want || counted != want {
			t.Errorf("request %d: let through %v, counted %v; want %v", i, ok, counted, want)
		}
		if ok := c.Reserve(); ok != want {
			t.Errorf("connection %d: let through %v, want %v", i, ok, want)
		}
	}
	c.Leave()
	if ok, _ := c.Enter(); !ok {
		t.Error("no request is let through after one has ended")
	}
	n, _ := dial(c, c.Endpoints()[0]) // takes the place of one that Reserve counted
	n.Close()
	n.Close()
	if got := c.Connections(); got != 1 {
		t.Errorf("%d connections after one of two was closed, twice", got)
	}
}

// TestStatusOfNoClassIsHealthy: a status above 599 counts as the 500 that it is treated as (RFC 9110 section 15).
func TestStatusOfNoClassIsHealthy(t *testing.T) {
	for _, x := range []struct {
		codes  []int
		status int
		fails  bool
	}{{[]int{500}, 600, true}, {[]int{500}, 999, true}, {[]int{500}, 599, false}, {[]int{503}, 600, false}, {[]int{500}, 500, true}} {
		c := withTraffic(&ir.Traffic{Passive: &ir.Passive{Failures: 1, Codes: x.codes, EjectFor: ir.Duration(10 * time.Second), MaxOut: 50}})
		if got := c.Settings().counts(x.status); got != x.fails {
			t.Errorf("with codes %v, %d counts as a failure: %v, want %v", x.codes, x.status, got, x.fails)
		}
	}
}

// TestIdleGivesWay: the bound counts idle connections, and closes the oldest of them, at whichever endpoint, where one is needed.
func TestIdleGivesWay(t *testing.T) {
	c := withTraffic(&ir.Traffic{Breaker: &ir.Breaker{MaxConnections: 2}})
	c.SetEndpoints(many(3))
	now := time.Now()
	var wires []*kept
	for _, e := range c.All()[:2] {
		if !c.Reserve() {
			t.Fatal("no room for the first two")
		}
		n, k := dial(c, e)
		wires = append(wires, k)
		e.Put(n, now)
	}
	want := func(when string, conns int64, idle ...int) {
		t.Helper()
		sum := 0
		for i, e := range c.All() {
			if e.Idle() != idle[i] {
				t.Errorf("%s: endpoint %d has %d idle connections, want %d", when, i, e.Idle(), idle[i])
			}
			sum += idle[i]
		}
		if c.Connections() != conns || c.spare.Load() != int64(sum) {
			t.Errorf("%s: %d connections, %d spare, want %d, %d", when, c.Connections(), c.spare.Load(), conns, sum)
		}
	}
	want("two idle", 2, 1, 1, 0)
	for range 2 {
		if !c.Reserve() {
			t.Error("an idle connection did not give way")
		}
	}
	want("two in use", 2, 0, 0, 0)
	for i, k := range wires {
		select {
		case <-k.closed:
		default:
			t.Errorf("connection %d is open", i)
		}
	}
	if c.Reserve() {
		t.Error("a connection in use gave way")
	}
	e := c.All()[2]
	n, _ := dial(c, e)
	e.Put(n, now)
	want("one idle again", 2, 0, 0, 1)
	n = e.TakeExempt(now) // for a check
	want("and then a check's", 1, 0, 0, 0)
	e.Put(n, now)
	want("kept, for there is room", 2, 0, 0, 1)
	n = e.TakeExempt(now)
	if !c.Reserve() {
		t.Error("a check's connection took part in the bound")
	}
	e.Put(n, now)
	want("the check's is closed, for there is none", 2, 0, 0, 0)
}

// TestGiveWayUnderLoad: whatever happens at the same time, no count is lost and the bound holds.
func TestGiveWayUnderLoad(t *testing.T) {
	const most = 4
	c := withTraffic(&ir.Traffic{Breaker: &ir.Breaker{MaxConnections: most}})
	c.SetEndpoints(many(5))
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				e := c.All()[(g+i)%5]
				now := time.Now()
				n := e.Take(now)
				if n == nil {
					if !c.Reserve() {
						continue
					}
					n, _ = dial(c, e)
				}
				switch i % 4 {
				case 0:
					n.Close()
				case 1:
					e.Put(n, now)
					if n = e.TakeExempt(now); n == nil {
						continue
					}
					fallthrough
				default:
					e.Put(n, now)
				}
			}
		})
	}
	wg.Wait()
	idle := 0
	for _, e := range c.All() {
		idle += e.Idle()
	}
	if c.Connections() != int64(idle) || c.spare.Load() != int64(idle) || idle > most {
		t.Errorf("%d connections, %d spare, %d idle; want the same, %d at most", c.Connections(), c.spare.Load(), idle, most)
	}
}
