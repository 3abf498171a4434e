// Package upstream decides where a request goes: clusters, their endpoints, balancers and the book-keeping of
// connection pools. It is live state: a cluster is found by its key, outlives every snapshot that names it and goes
// when none names it any more. The package never dials and never reads or writes a connection: drive does.
package upstream

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of DESIGN.md.
const (
	DefaultConnect   = 2 * time.Second
	DefaultFirstByte = 60 * time.Second
	DefaultIdle      = 4 * time.Second // unless the backend names a Keep-Alive timeout
	maxIdle          = 1024            // connections kept per endpoint
)

// Set is all clusters of a process, by key.
type Set struct {
	mu       sync.Mutex
	clusters map[string]*Cluster
	rules    Rules
	except   atomic.Pointer[func(netip.Addr) bool]
}

// Rules are what holds for all clusters of a process.
type Rules struct {
	// Allow says at which addresses backends may lie; nil: at all. Except opens exceptions.
	Allow func(netip.Addr) bool
	// Own reports whether an address is one of the edge's own sockets: there no request may go, or it would come back; nil: none is.
	Own func(netip.AddrPort) bool
	// Zone is the topology zone of this process, "" if it is not known: endpoints whose hints name it are preferred.
	Zone string
}

// NewSet returns an empty set.
func NewSet(r Rules) *Set { return &Set{clusters: map[string]*Cluster{}, rules: r} }

// Except swaps the exceptions to Rules.Allow that some listener makes. Which listener may use which is for who picks to ask: see
// Endpoint.Restricted.
func (s *Set) Except(allow func(netip.Addr) bool) { s.except.Store(&allow) }

// Allowed reports whether an address may be dialled. It is asked after resolution, at every dial.
func (s *Set) Allowed(a netip.AddrPort) bool {
	if s.restricted(a.Addr()) {
		if f := s.except.Load(); f == nil || !(*f)(a.Addr().Unmap()) {
			return false
		}
	}
	return s.rules.Own == nil || !s.rules.Own(a)
}

// AllowedToAll is Allowed without the exceptions: for what is asked on behalf of no listener in particular.
func (s *Set) AllowedToAll(a netip.AddrPort) bool {
	return !s.restricted(a.Addr()) && (s.rules.Own == nil || !s.rules.Own(a))
}

func (s *Set) restricted(a netip.Addr) bool { return s.rules.Allow != nil && !s.rules.Allow(a.Unmap()) }

// Acquire returns the cluster of a key, made if it is new, and counts one more user.
func (s *Set) Acquire(key string) *Cluster {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.clusters[key]
	if c == nil {
		c = &Cluster{Key: key, set: s}
		c.settings.Store(NewSettings(nil, nil, ""))
		c.list.Store(&list{})
		c.next.Store(rand.Uint64N(1 << 32)) // many processes with few requests each do not all begin with one endpoint
		c.budget.now.start = time.Now()
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
