package route

import (
	"math"
	"strings"

	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// host is the compiled form of one virtual host: a trie of path segments whose nodes name the routes that end there.
type host[V any] struct {
	trie    trie[V]
	ir      *ir.Host
	entries []entry[V] // by place in ir.Routes, which is the match order
}

// entry is one route. Those that end at the same node in the same way form a chain in match order.
type entry[V any] struct {
	route *ir.Route
	value V
	cond  *conditions // nil: only the path decides
	next  int32       // -1: end
	// faulty is set if the route cannot be matched as written: then it is in no chain.
	faulty bool
}

// compileHost makes the compiled form of h. Routes that cannot be matched as written are left out of the trie.
func compileHost[V any](seed hasher, h *ir.Host, attach func(*ir.Host, *ir.Route) V) (*host[V], []Fault) {
	c := &host[V]{ir: h, entries: make([]entry[V], len(h.Routes))}
	var faults []Fault
	if p := checkHostname(h); p != "" {
		faults = append(faults, Fault{Host: h, Path: "hostname", Message: p})
	}
	for i := range h.Routes {
		faults = append(faults, c.compile(i, attach)...)
	}
	c.lay(seed)
	return c, faults
}

// compile fills entry i.
func (c *host[V]) compile(i int, attach func(*ir.Host, *ir.Route) V) (faults []Fault) {
	e, r := &c.entries[i], c.ir.Routes[i]
	e.route, e.value, e.next = r, attach(c.ir, r), -1
	e.cond, faults = compileConditions(c.ir, r)
	e.faulty = len(faults) > 0
	return faults
}

// lay makes the trie of entries that are compiled.
func (c *host[V]) lay(seed hasher) {
	s := newSketch(seed, len(c.entries))
	for i := len(c.entries) - 1; i >= 0; i-- { // backwards: each goes to the head of its chain
		if c.entries[i].next = -1; !c.entries[i].faulty {
			c.insert(s, int32(i), &c.entries[i].route.Match.Path)
		}
	}
	c.trie = layTrie(s, keyOf(c.ir), c.entries)
}

// insert puts entry i where its path leads.
func (c *host[V]) insert(s *sketch, i int32, p *ir.PathMatch) {
	var head *int32
	switch p.Kind {
	case ir.PathRegex:
		head = &s.nodes[0].exact
	case ir.PathExact:
		head = &s.node(p.Value).exact
	default:
		head = &s.node(prefixOf(p)).prefix
	}
	c.entries[i].next = *head
	*head = i
}

// prefixOf is the path whose elements a prefix match asks for: without the one slash at its end that does not count.
func prefixOf(p *ir.PathMatch) string { return strings.TrimSuffix(p.Value, "/") }

// none is behind every entry.
const none = math.MaxInt32

// match returns the first route in order that matches, nil if none does. nodes are those of the host's trie: as long as no
// route on the way has conditions, nothing else of the host is read.
func (c *host[V]) match(seed hasher, nodes []node[V], q *Query) (route *ir.Route, value V) {
	best := int32(none)
	if at, whole := c.trie.deepest(seed, nodes, q.Path); at >= 0 {
		n := &nodes[at]
		if whole && n.exact >= 0 {
			if n.plain == plainExact {
				best, route, value = n.exact, n.route, n.value
			} else {
				best = c.first(n.exact, best, q)
			}
		}
		for {
			if n.plain == plainPrefix && n.prefix < best {
				best, route, value = n.prefix, n.route, n.value
			} else if i := c.first(n.prefix, best, q); i < best {
				best, route = i, nil
			}
			if at == 0 {
				break
			}
			at = n.parent
			n = &nodes[at]
		}
	}
	for i := nodes[0].exact; i >= 0 && i < best; i = c.entries[i].next {
		if e := &c.entries[i]; e.cond.path.Match(q.Path) && e.cond.hold(q) {
			best, route = i, nil
		}
	}
	if route == nil && best < none {
		e := &c.entries[best]
		route, value = e.route, e.value
	}
	return route, value
}

// first returns the first entry of a chain that comes before best and whose conditions hold, else best.
func (c *host[V]) first(i, best int32, q *Query) int32 {
	if i < 0 {
		return best
	}
	for ; i >= 0 && i < best; i = c.entries[i].next {
		if e := &c.entries[i]; e.cond == nil || e.cond.hold(q) {
			return i
		}
	}
	return best
}
