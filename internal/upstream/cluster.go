package upstream

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Cluster is a set of endpoints that answer alike.
type Cluster struct {
	Key      string
	set      *Set
	refs     int // under set.mu
	settings atomic.Pointer[Settings]

	mu       sync.Mutex // for writers of list, and the budget
	list     atomic.Pointer[list]
	departed uint64 // requests that endpoints had which have left
	budget   budget

	next     atomic.Uint64
	conns    atomic.Int64 // connections that are open or being made
	spare    atomic.Int64 // of these, idle ones, where there is a bound
	turn     atomic.Uint32
	requests atomic.Int64 // exchanges that Enter counted
}

// list is the endpoints as they are now: immutable but for what is made on demand.
type list struct {
	base   []*Endpoint // that take new requests: ready ones, else those that still serve while they terminate; by weight
	usable []*Endpoint // those of base that are healthy; all of them if none is
	all    []*Endpoint
	// recheck is when an ejection ends, Unix nanoseconds; 0: none is on.
	recheck int64

	ring   func() []point
	tokens func() map[uint64]*Endpoint
}

func newList(all []*Endpoint) *list {
	l := &list{all: all}
	l.ring = sync.OnceValue(func() []point { return ringOf(l.base) })
	l.tokens = sync.OnceValue(func() map[uint64]*Endpoint {
		m := make(map[uint64]*Endpoint, len(l.base))
		for _, e := range l.base {
			m[e.Token()] = e
		}
		return m
	})
	return l
}

// Settings returns what holds now.
func (c *Cluster) Settings() *Settings { return c.settings.Load() }

// Configure swaps the settings. Connections made under others are not reused if TLS changed.
func (c *Cluster) Configure(s *Settings) {
	old := c.settings.Swap(s)
	// Where a bound is new, idle connections were not counted as such.
	if old.TLS != s.TLS || old.breaker.MaxConnections == 0 && s.breaker.MaxConnections > 0 {
		for _, e := range c.list.Load().all {
			e.closeIdle()
		}
	}
	if old.Active != nil && s.Active == nil { // nobody would bring back what checks took out
		for _, e := range c.list.Load().all {
			e.unhealthy.Store(false)
		}
		c.refresh(time.Now())
	}
}

// Resolved is one address of an endpoint, after name resolution.
type Resolved struct {
	Addr     netip.AddrPort
	Name     string // the DNS name it came from, "" for an address
	Zone     string
	ForZones []string
	Ready    bool
	Serving  bool
	Weight   uint32
}

// SetEndpoints swaps the endpoints. One that stays (same address) keeps its pool, its counters and its health; the idle
// connections of one that left are closed, those in use end with their exchange.
func (c *Cluster) SetEndpoints(rs []Resolved) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.list.Load()
	old := map[netip.AddrPort]*Endpoint{}
	for _, e := range before.all {
		old[e.Addr] = e
	}
	l := newList(nil)
	seen := map[netip.AddrPort]bool{}
	weights := map[netip.AddrPort]uint32{}
	var ready, serving []Resolved
	for _, r := range bestFirst(rs) {
		if seen[r.Addr] {
			continue
		}
		seen[r.Addr] = true
		e := old[r.Addr]
		if e == nil {
			e = &Endpoint{Addr: r.Addr, Text: r.Addr.String(), Restricted: c.set.restricted(r.Addr.Addr()), cluster: c}
		}
		delete(old, r.Addr)
		e.left.Store(false)
		if len(before.base) > 0 && r.Ready && !e.ready { // it joins others: see Settings.slowStart
			e.joined.Store(now.UnixNano())
		}
		e.ready = r.Ready
		l.all = append(l.all, e)
		if r.Weight > 1 {
			weights[r.Addr] = min(r.Weight, 100)
		}
		switch {
		case r.Ready:
			ready = append(ready, r)
		case r.Serving:
			serving = append(serving, r)
		}
	}
	if len(ready) == 0 {
		ready = serving
	}
	l.choose(c.set.near(ready), weights)
	l.filter(now)
	c.list.Store(l)
	for _, e := range old {
		e.left.Store(true)
		c.departed += e.total.Load()
		e.closeIdle()
	}
}

// near leaves the endpoints that are meant for this process's zone (topology-aware routing): if each endpoint has a hint and
// one at least names the zone; else all, as kube-proxy does.
func (s *Set) near(rs []Resolved) []Resolved {
	if s.rules.Zone == "" {
		return rs
	}
	var out []Resolved
	for _, r := range rs {
		if len(r.ForZones) == 0 {
			return rs
		}
		if slices.Contains(r.ForZones, s.rules.Zone) {
			out = append(out, r)
		}
	}
	if len(out) == 0 {
		return rs
	}
	return out
}

// bestFirst puts ready entries before the others, in their order otherwise: an address that is named twice, as while an
// endpoint moves from one EndpointSlice to another, counts as the better of the two.
func bestFirst(rs []Resolved) []Resolved {
	rank := func(r Resolved) int {
		switch {
		case r.Ready:
			return 0
		case r.Serving:
			return 1
		}
		return 2
	}
	if slices.IsSortedFunc(rs, func(a, b Resolved) int { return cmp.Compare(rank(a), rank(b)) }) {
		return rs
	}
	rs = slices.Clone(rs)
	slices.SortStableFunc(rs, func(a, b Resolved) int { return cmp.Compare(rank(a), rank(b)) })
	return rs
}

// choose fills base, repeating endpoints by weight, so that picking stays one index.
func (l *list) choose(rs []Resolved, weights map[netip.AddrPort]uint32) {
	byAddr := make(map[netip.AddrPort]*Endpoint, len(l.all))
	for _, e := range l.all {
		byAddr[e.Addr] = e
	}
	for round := uint32(0); ; round++ {
		added := false
		for _, r := range rs {
			if round < max(weights[r.Addr], 1) {
				l.base = append(l.base, byAddr[r.Addr])
				added = true
			}
		}
		if !added || len(weights) == 0 {
			return
		}
	}
}

// Endpoints returns the endpoints that take new requests, for explain and metrics.
func (c *Cluster) Endpoints() []*Endpoint { return c.list.Load().usable }

// All returns every endpoint, also those that take no requests now.
func (c *Cluster) All() []*Endpoint { return c.list.Load().all }

// Reserve counts a connection that is about to be made; false: the circuit breaker has none left. An idle one, of whichever endpoint, is
// closed for it: the bound is on what is in use. A connection that was made is uncounted by its Close, one that could not be made
// by Unreserve.
func (c *Cluster) Reserve() bool {
	for !c.tryReserve() {
		if !c.giveWay() {
			return c.tryReserve() // what was idle a moment ago may be gone, and with it its place
		}
	}
	return true
}

// tryReserve never counts more than there may be, not for a moment either: somebody else would find no room then.
func (c *Cluster) tryReserve() bool {
	most := int64(c.settings.Load().breaker.MaxConnections)
	if most == 0 {
		c.conns.Add(1)
		return true
	}
	for {
		n := c.conns.Load()
		if n >= most {
			return false
		}
		if c.conns.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// giveWay closes an idle connection, the oldest of the first endpoint that has one, if there is any. It begins at another endpoint each time.
func (c *Cluster) giveWay() bool {
	if c.spare.Load() <= 0 {
		return false
	}
	all := c.list.Load().all
	first := int(c.turn.Add(1))
	for i := range all {
		if all[(first+i)%len(all)].giveWay() {
			return true
		}
	}
	return false
}

// Unreserve takes Reserve back.
func (c *Cluster) Unreserve() { c.conns.Add(-1) }

// Connections is how many connections are open or being made.
func (c *Cluster) Connections() int64 { return c.conns.Load() }

// Out is how many endpoints are left out because they failed.
func (c *Cluster) Out() (n int64) {
	for _, e := range c.list.Load().all {
		if e.until.Load() != 0 || e.unhealthy.Load() {
			n++
		}
	}
	return n
}

// Enter counts an exchange on the cluster. ok is false if the circuit breaker lets no more through; counted says that Leave is due.
// Without a bound nothing is counted: one number that every request writes would cost all of them.
func (c *Cluster) Enter() (ok, counted bool) {
	most := c.settings.Load().breaker.MaxRequests
	if most == 0 {
		return true, false
	}
	if c.requests.Add(1) > int64(most) {
		c.requests.Add(-1)
		return false, false
	}
	return true, true
}

// Leave uncounts an exchange that Enter counted.
func (c *Cluster) Leave() { c.requests.Add(-1) }
