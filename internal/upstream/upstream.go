// Package upstream decides where a request goes: clusters, their endpoints, balancers and the book-keeping of
// connection pools. It is live state: a cluster is found by its key, outlives every snapshot that names it and goes
// when none names it any more. The package never dials and never reads or writes a connection: drive does.
package upstream

import (
	"cmp"
	"crypto/tls"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// Defaults of DESIGN.md.
const (
	DefaultConnect   = 2 * time.Second
	DefaultFirstByte = 60 * time.Second
	DefaultIdle      = 4 * time.Second // unless the backend names a Keep-Alive timeout
	maxIdle          = 1024            // connections kept per endpoint
)

// Settings are what a cluster's configuration says. They are swapped whole; the endpoints stay.
type Settings struct {
	Config    *ir.Cluster
	TLS       *tls.Config // nil: cleartext
	Problem   string      // why the cluster cannot be used ("CA bundle ... is missing"): its requests are answered 503
	Connect   time.Duration
	FirstByte time.Duration // 0: none
	least     bool
}

// NewSettings takes the defaults for what c leaves open. c may be nil.
func NewSettings(c *ir.Cluster, t *tls.Config, problem string) *Settings {
	s := &Settings{Config: c, TLS: t, Problem: problem, Connect: DefaultConnect, FirstByte: DefaultFirstByte}
	if c != nil {
		if c.Connect != nil {
			s.Connect = time.Duration(*c.Connect)
		}
		if c.First != nil {
			s.FirstByte = time.Duration(*c.First)
		}
		s.least = c.Balancer == ir.LeastRequest
	}
	return s
}

// Set is all clusters of a process, by key.
type Set struct {
	mu       sync.Mutex
	clusters map[string]*Cluster
	allow    func(netip.Addr) bool
}

// NewSet returns an empty set. allow says which resolved addresses may be dialled; nil allows all.
func NewSet(allow func(netip.Addr) bool) *Set {
	if allow == nil {
		allow = func(netip.Addr) bool { return true }
	}
	return &Set{clusters: map[string]*Cluster{}, allow: allow}
}

// Allowed reports whether an address may be dialled. It is asked after resolution, at every dial.
func (s *Set) Allowed(a netip.Addr) bool { return s.allow(a.Unmap()) }

// Acquire returns the cluster of a key, made if it is new, and counts one more user.
func (s *Set) Acquire(key string) *Cluster {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clusters[key]
	if c == nil {
		c = &Cluster{Key: key, set: s}
		c.settings.Store(NewSettings(nil, nil, ""))
		c.list.Store(&list{})
		s.clusters[key] = c
	}
	c.refs++
	return c
}

// Release gives a cluster back; after its last user it is forgotten and its idle connections are closed.
func (s *Set) Release(c *Cluster) {
	s.mu.Lock()
	c.refs--
	gone := c.refs == 0
	if gone {
		delete(s.clusters, c.Key)
	}
	s.mu.Unlock()
	if gone {
		c.SetEndpoints(nil)
	}
}

// All returns the clusters, by key.
func (s *Set) All() []*Cluster {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*Cluster, 0, len(s.clusters))
	for _, c := range s.clusters {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *Cluster) int { return cmp.Compare(a.Key, b.Key) })
	return out
}

// Sweep closes the connections that have idled past their time. The edge calls it about once a second.
func (s *Set) Sweep(now time.Time) {
	for _, c := range s.All() {
		for _, e := range c.list.Load().all {
			e.sweep(now)
		}
	}
}

// CloseIdle closes every connection that is not in use. The edge calls it at its end.
func (s *Set) CloseIdle() {
	for _, c := range s.All() {
		for _, e := range c.list.Load().all {
			e.closeIdle()
		}
	}
}

// Cluster is a set of endpoints that answer alike.
type Cluster struct {
	Key      string
	set      *Set
	refs     int // under set.mu
	settings atomic.Pointer[Settings]
	mu       sync.Mutex // for writers of list
	list     atomic.Pointer[list]
	next     atomic.Uint64
}

type list struct {
	ready []*Endpoint // that take new requests: ready ones, else those that still serve while they terminate
	all   []*Endpoint
}

// Settings returns what holds now.
func (c *Cluster) Settings() *Settings { return c.settings.Load() }

// Configure swaps the settings. Connections made under others are not reused if TLS changed.
func (c *Cluster) Configure(s *Settings) {
	old := c.settings.Swap(s)
	if old.TLS != s.TLS {
		for _, e := range c.list.Load().all {
			e.closeIdle()
		}
	}
}

// Resolved is one address of an endpoint, after name resolution.
type Resolved struct {
	Addr    netip.AddrPort
	Name    string // the DNS name it came from, "" for an address
	Zone    string
	Ready   bool
	Serving bool
	Weight  uint32
}

// SetEndpoints swaps the endpoints. One that stays (same address) keeps its pool and its counters; the idle connections
// of one that left are closed, those in use end with their exchange.
func (c *Cluster) SetEndpoints(rs []Resolved) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := map[netip.AddrPort]*Endpoint{}
	for _, e := range c.list.Load().all {
		old[e.Addr] = e
	}
	l := &list{}
	weighted := false
	seen := map[netip.AddrPort]bool{}
	var serving []*Endpoint
	for _, r := range bestFirst(rs) {
		if seen[r.Addr] {
			continue
		}
		seen[r.Addr] = true
		e := old[r.Addr]
		if e == nil {
			e = &Endpoint{Addr: r.Addr, Text: r.Addr.String(), cluster: c}
		}
		delete(old, r.Addr)
		e.left.Store(false)
		l.all = append(l.all, e)
		switch {
		case r.Ready:
			l.ready = append(l.ready, e)
		case r.Serving:
			serving = append(serving, e)
		}
		if r.Weight > 1 {
			weighted = true
		}
	}
	if len(l.ready) == 0 {
		l.ready = serving
	}
	if weighted {
		l.expand(rs)
	}
	c.list.Store(l)
	for _, e := range old {
		e.left.Store(true)
		e.closeIdle()
	}
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

// expand repeats endpoints by weight in the ready list, so that picking stays one index.
func (l *list) expand(rs []Resolved) {
	w := map[netip.AddrPort]uint32{}
	for _, r := range rs {
		w[r.Addr] = min(max(r.Weight, 1), 100)
	}
	var out []*Endpoint
	for round := uint32(0); ; round++ {
		added := false
		for _, e := range l.ready {
			if round < w[e.Addr] {
				out = append(out, e)
				added = true
			}
		}
		if !added {
			break
		}
	}
	l.ready = out
}

// Endpoints returns the endpoints that take new requests, for explain and metrics.
func (c *Cluster) Endpoints() []*Endpoint { return c.list.Load().ready }

// Pick chooses an endpoint: by turns, or of two random ones that with fewer requests. It leaves out avoid unless there is no
// other. nil: no endpoint takes requests.
func (c *Cluster) Pick(avoid *Endpoint) *Endpoint {
	l := c.list.Load()
	n := uint64(len(l.ready))
	switch n {
	case 0:
		return nil
	case 1:
		return l.ready[0]
	}
	if c.settings.Load().least {
		return pickLeast(l.ready, avoid)
	}
	for range n {
		e := l.ready[(c.next.Add(1)-1)%n]
		if e != avoid {
			return e
		}
	}
	return avoid
}

// pickLeast is the power of two choices (Mitzenmacher, 2001).
func pickLeast(es []*Endpoint, avoid *Endpoint) *Endpoint {
	n := uint64(len(es))
	r := rand.Uint64()
	i := (r & 0xffffffff) % n
	j := (r >> 32) % (n - 1)
	if j >= i {
		j++
	}
	a, b := es[i], es[j]
	if a == avoid && b == avoid { // one endpoint twice, by its weight
		return firstOther(es, i, avoid)
	}
	if a == avoid {
		return b
	}
	if b != avoid && b.active.Load() < a.active.Load() {
		return b
	}
	return a
}

// firstOther returns the first endpoint from i on, around the end, that is not avoid; avoid if there is no other.
func firstOther(es []*Endpoint, i uint64, avoid *Endpoint) *Endpoint {
	n := uint64(len(es))
	for k := range n {
		if e := es[(i+k)%n]; e != avoid {
			return e
		}
	}
	return avoid
}
