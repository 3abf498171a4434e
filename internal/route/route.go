// Package route is the match table: which route of which virtual host of which listener a request belongs to. A table
// is immutable, a lookup allocates nothing, and its answer is always that of a linear scan in the order in which the
// IR lists the routes. Building keeps the compiled form of every host that did not change. The package does no I/O and
// knows nothing of what happens to a request once it has its route.
package route

import (
	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// Table is the match table of all listeners. V is what the builder attaches to a route.
type Table[V any] struct {
	seed      hasher
	listeners []*ir.Listener
	hosts     []*ir.Host
	plan      *plan
	sites     []*Site[V]           // by plan.sites
	faults    map[*ir.Host][]Fault // of the hosts that have some
	twice     bool                 // some hostname stands twice: the next build starts from scratch
}

// plan says where each listener of a table lies. Tables with the same listeners share it.
type plan struct {
	sites  map[siteKey]int32
	names  []*names
	place  map[string]place // by listener key
	faults []Fault
}

type siteKey struct {
	group string
	port  uint16
}

type place struct{ site, listener int32 }

// Fault is something in the IR that cannot be matched as written. Route is nil for a fault of the whole host, Host is nil
// for one of a listener. Path is relative to the Route ("match.path.value"), the Host or the Listener.
type Fault struct {
	Listener *ir.Listener
	Host     *ir.Host
	Route    *ir.Route
	Path     string
	Message  string
}

// Site is what one group serves on one port. Listeners isolate each other's hostnames there (GEP-3567): the listener with
// the most specific hostname takes the request, and only its routes count. A nil Site has no listener and matches nothing.
type Site[V any] struct {
	seed      hasher
	names     *names
	listeners []*listener[V] // by names
}

type listener[V any] struct {
	ir    *ir.Listener
	hosts *index[V]
}

// Site returns what the group serves on the port, nil if it has no listener there.
func (t *Table[V]) Site(group string, port uint16) *Site[V] {
	if t == nil || t.plan == nil {
		return nil
	}
	i, ok := t.plan.sites[siteKey{group, port}]
	if !ok {
		return nil
	}
	return t.sites[i]
}

// Header is the part of a header section that matching reads; *exchange.Header is one.
type Header interface {
	// Joined appends to dst the values of all fields named name, joined by ", " (Cookie: "; "), and reports whether there was one.
	Joined(dst []byte, name string) ([]byte, bool)
}

// Query is the part of a request that decides its route. Keep one and fill it again for the next request: it holds the
// room in which field values are joined and decoded, so that matching does not allocate. It is for one goroutine.
type Query struct {
	Host     []byte // lower case, without port
	Path     []byte // canonical
	Method   []byte
	RawQuery []byte // without "?"
	Header   Header // nil: none

	room   []byte
	joined string // name of the header field whose value lies in room, for this Match only
	found  bool   // that field was there
}

// Result is where a request belongs. Route is nil if nothing matched; Listener and Host then tell how far it got: Host is
// the most specific virtual host of its name.
type Result[V any] struct {
	Listener *ir.Listener
	Host     *ir.Host
	Route    *ir.Route
	Value    V
}

// Match finds the route of a request: the listener by hostname, its virtual hosts from the most to the least specific
// (exact, "*." from the longest suffix, any), and in each the first route in order that matches.
func (s *Site[V]) Match(q *Query) Result[V] {
	var r Result[V]
	l := s.find(q.Host)
	if l == nil {
		return r
	}
	r.Listener = l.ir
	q.joined = ""
	c := cursor{name: q.Host}
	for h := l.hosts.next(s.seed, &c); h != nil; h = l.hosts.next(s.seed, &c) {
		if r.Route, r.Value = h.host.match(s.seed, h.nodes, q); r.Route != nil {
			r.Host = h.ir
			return r
		}
		if r.Host == nil {
			r.Host = h.ir
		}
	}
	return r
}

// Listener returns the listener that a hostname (lower case, without port; for TLS the server name) belongs to, nil if
// none takes it.
func (s *Site[V]) Listener(host []byte) *ir.Listener {
	if l := s.find(host); l != nil {
		return l.ir
	}
	return nil
}

// Handshake returns the listener that a TLS handshake for a server name (lower case, empty for none) is made for, nil if none is:
// that of the name; without one that of any name, or the only one there is. cert chooses by the same rule.
func (s *Site[V]) Handshake(name []byte) *ir.Listener {
	if s != nil && len(name) == 0 && len(s.listeners) == 1 {
		return s.listeners[0].ir
	}
	return s.Listener(name)
}

func (s *Site[V]) find(host []byte) *listener[V] {
	if s == nil {
		return nil
	}
	if n := s.names.find(host); n >= 0 {
		return s.listeners[n]
	}
	return nil
}

// Listeners returns the listeners of the site, in the order of their keys.
func (s *Site[V]) Listeners() []*ir.Listener {
	if s == nil {
		return nil
	}
	out := make([]*ir.Listener, len(s.listeners))
	for i, l := range s.listeners {
		out[i] = l.ir
	}
	return out
}
