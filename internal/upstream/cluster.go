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

	build  sync.Mutex // one builds endpoints and indexes at a time; taken before mu
	byAddr map[netip.AddrPort]*Endpoint
	round  uint64 // of SetEndpoints

	mu     sync.Mutex // for writers of list, endpoints' health and the budget
	list   atomic.Pointer[list]
	outs   int // endpoints of list.base that are out
	budget budget
	counts atomic.Pointer[[]*counts]

	recheck atomic.Int64 // when the next ejection ends, Unix nanoseconds; 0: none is on
	due     atomic.Bool  // a large cluster's usable endpoints are about to be listed anew
	sticky  atomic.Bool  // endpoints are looked up by token

	next     atomic.Uint64
	conns    atomic.Int64 // connections that are open or being made
	spare    atomic.Int64 // of these, idle ones, where there is a bound
	turn     atomic.Uint32
	requests atomic.Int64 // exchanges that Enter counted
}

// list is the endpoints as they are now. It is immutable.
type list struct {
	base     []*Endpoint // that take new requests: ready ones, else those that still serve while they terminate; by weight
	usable   []*Endpoint // those of base that are healthy; all of them if none is
	all      []*Endpoint
	distinct int  // how many endpoints base has, each counted once
	hopeless bool // none of base is healthy

	ring   []point              // nil if no hash is asked for
	tokens map[uint64]*Endpoint // nil if nobody asked for one
}

// large is from how many endpoints on their choice is made anew aside of the requests: see Cluster.later.
const large = 512

// counts are running totals of some of a cluster's endpoints, of those that left too. They spread over cache lines, and to sum them up
// does not take longer the more endpoints there are.
type counts struct {
	tries  atomic.Uint64
	active atomic.Int64 // exchanges under way
	_      [48]byte
}

// maxCounts is how many a cluster has at most.
const maxCounts = 16

// Settings returns what holds now.
func (c *Cluster) Settings() *Settings { return c.settings.Load() }

// Configure swaps the settings. Connections made under others are not reused if TLS changed.
func (c *Cluster) Configure(s *Settings) {
	c.build.Lock()
	defer c.build.Unlock()
	l := c.list.Load()
	ring, tokens := c.index(l, l.base, s)
	c.mu.Lock()
	n := *c.list.Load()
	n.ring, n.tokens = ring, tokens
	c.list.Store(&n)
	c.mu.Unlock()
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

// member is an endpoint and what was resolved of it.
type member struct {
	*Endpoint
	of *Resolved
}

// SetEndpoints swaps the endpoints. One that stays (same address) keeps its pool, its counters and its health; the idle
// connections of one that left are closed, those in use end with their exchange.
func (c *Cluster) SetEndpoints(rs []Resolved) {
	now := time.Now()
	c.build.Lock()
	defer c.build.Unlock()
	c.round++
	before := c.list.Load()
	l := &list{all: make([]*Endpoint, 0, len(rs))}
	if c.byAddr == nil {
		c.byAddr = make(map[netip.AddrPort]*Endpoint, len(rs))
	}
	rs = bestFirst(rs)
	ready, serving := make([]member, 0, len(rs)), []member(nil)
	for i := range rs {
		r := &rs[i]
		e := c.byAddr[r.Addr]
		switch {
		case e == nil:
			e = &Endpoint{Addr: r.Addr, Text: r.Addr.String(), Restricted: c.set.restricted(r.Addr.Addr()), cluster: c, counts: c.countsOf(len(c.byAddr))}
			c.byAddr[r.Addr] = e
		case e.round == c.round:
			continue
		}
		e.round = c.round
		if len(before.base) > 0 && r.Ready && !e.ready { // it joins others: see Settings.slowStart
			e.joined.Store(now.UnixNano())
		}
		e.ready = r.Ready
		l.all = append(l.all, e)
		switch {
		case r.Ready:
			ready = append(ready, member{e, r})
		case r.Serving:
			serving = append(serving, member{e, r})
		}
	}
	if len(ready) == 0 {
		ready = serving
	}
	ready = c.set.near(ready)
	l.choose(ready)
	l.distinct = len(ready)
	l.ring, l.tokens = c.index(before, l.base, c.settings.Load())
	c.mu.Lock()
	for _, e := range before.base {
		e.chosen = false
	}
	for _, e := range l.base {
		e.chosen = true
	}
	c.store(l, now)
	var gone []*Endpoint
	for _, e := range before.all {
		if e.round != c.round {
			e.left.Store(true)
			delete(c.byAddr, e.Addr)
			gone = append(gone, e)
		}
	}
	c.mu.Unlock()
	for _, e := range gone {
		e.closeIdle()
	}
}

// countsOf returns the running totals in which the n-th endpoint is counted.
func (c *Cluster) countsOf(n int) *counts {
	var all []*counts
	if p := c.counts.Load(); p != nil {
		all = *p
	}
	if n %= maxCounts; n < len(all) {
		return all[n]
	}
	more := append(slices.Clone(all), &counts{})
	c.counts.Store(&more)
	return more[len(more)-1]
}

// tries is how many tries the cluster has had.
func (c *Cluster) tries() (n uint64) {
	if p := c.counts.Load(); p != nil {
		for _, k := range *p {
			n += k.tries.Load()
		}
	}
	return n
}

// active is how many exchanges are under way.
func (c *Cluster) active() (n int64) {
	if p := c.counts.Load(); p != nil {
		for _, k := range *p {
			n += k.active.Load()
		}
	}
	return n
}

// near leaves the endpoints that are meant for this process's zone (topology-aware routing): if each endpoint has a hint and
// one at least names the zone; else all, as kube-proxy does.
func (s *Set) near(ms []member) []member {
	if s.rules.Zone == "" {
		return ms
	}
	var out []member
	for _, m := range ms {
		if len(m.of.ForZones) == 0 {
			return ms
		}
		if slices.Contains(m.of.ForZones, s.rules.Zone) {
			out = append(out, m)
		}
	}
	if len(out) == 0 {
		return ms
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

// maxWeight bounds an endpoint's weight.
const maxWeight = 100

// choose fills base, repeating endpoints by weight, so that picking stays one index.
func (l *list) choose(ms []member) {
	l.base = make([]*Endpoint, 0, len(ms))
	for round := uint32(0); ; round++ {
		more := false
		for _, m := range ms {
			weight := max(min(m.of.Weight, maxWeight), 1)
			if round < weight {
				l.base = append(l.base, m.Endpoint)
			}
			more = more || round+1 < weight
		}
		if !more {
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
