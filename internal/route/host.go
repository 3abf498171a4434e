package route

import (
	"bytes"
	"hash/maphash"
	"math/bits"
	"strings"

	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// host is the compiled form of one virtual host: a trie of path segments whose nodes name the routes that end there. The
// trie's edges lie in one hash table of the host (parent and segment to child), so that a host of ten routes is
// small and one of a hundred thousand is as fast.
type host[V any] struct {
	ir      *ir.Host
	kind    pattern
	name    string     // what index looks up
	entries []entry[V] // by place in ir.Routes, which is the match order
	nodes   []node     // nodes[0] is the root: the empty path
	slots   []int32    // node, 0: free; a power of two long, at most half full
	regex   int32      // first route with a regular expression for its path, chained by entry.next; -1: none
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

type node struct {
	text          string // the path segment that leads here
	tag           uint32 // of its hash
	parent        int32
	prefix, exact int32 // first entry of the chain, -1: none
}

// compileHost makes the compiled form of h. Routes that cannot be matched as written are left out of the trie.
func compileHost[V any](seed maphash.Seed, h *ir.Host, attach func(*ir.Host, *ir.Route) V) (*host[V], []Fault) {
	c := &host[V]{ir: h, entries: make([]entry[V], len(h.Routes)), nodes: make([]node, 1, len(h.Routes)+2), regex: -1}
	c.kind, c.name = patternOf(h)
	c.nodes[0] = node{prefix: -1, exact: -1}
	var faults []Fault
	if p := checkHostname(h); p != "" {
		faults = append(faults, Fault{Host: h, Path: "hostname", Message: p})
	}
	for i := len(h.Routes) - 1; i >= 0; i-- { // backwards: each goes to the head of its chain
		r := h.Routes[i]
		e := &c.entries[i]
		*e = entry[V]{route: r, value: attach(h, r), next: -1}
		var fs []Fault
		if e.cond, fs = compileConditions(h, r); len(fs) > 0 {
			faults = append(faults, fs...)
			e.faulty = true
			continue
		}
		c.insert(seed, int32(i), &r.Match.Path)
	}
	c.pack()
	return c, faults
}

// insert puts entry i where its path leads.
func (c *host[V]) insert(seed maphash.Seed, i int32, p *ir.PathMatch) {
	var head *int32
	switch p.Kind {
	case ir.PathRegex:
		head = &c.regex
	case ir.PathExact:
		n := c.descend(seed, p.Value)
		head = &c.nodes[n].exact
	default:
		n := c.descend(seed, prefixOf(p))
		head = &c.nodes[n].prefix
	}
	c.entries[i].next = *head
	*head = i
}

// prefixOf is the path whose elements a prefix match asks for: without the one slash at its end that does not count.
func prefixOf(p *ir.PathMatch) string { return strings.TrimSuffix(p.Value, "/") }

// descend returns the node of a path ("" or beginning with "/"), made if it is missing.
func (c *host[V]) descend(seed maphash.Seed, path string) int32 {
	at := int32(0)
	for path != "" {
		seg := path[1:]
		if end := strings.IndexByte(seg, '/'); end >= 0 {
			seg = seg[:end]
		}
		path = path[1+len(seg):]
		hash := mix(maphash.String(seed, seg), uint32(at))
		next := c.child(hash, at, seg)
		if next == 0 {
			next = int32(len(c.nodes))
			c.nodes = append(c.nodes, node{text: seg, tag: uint32(hash >> 32), parent: at, prefix: -1, exact: -1})
			if 2*len(c.nodes) > len(c.slots) {
				c.rehash(seed)
			} else {
				c.place(hash, next)
			}
		}
		at = next
	}
	return at
}

func (c *host[V]) place(hash uint64, n int32) {
	mask := uint64(len(c.slots) - 1)
	for s := hash & mask; ; s = (s + 1) & mask {
		if c.slots[s] == 0 {
			c.slots[s] = n
			return
		}
	}
}

func (c *host[V]) rehash(seed maphash.Seed) {
	c.slots = make([]int32, max(4, 1<<bits.Len(uint(2*len(c.nodes)-1))))
	for i := 1; i < len(c.nodes); i++ {
		n := &c.nodes[i]
		c.place(mix(maphash.String(seed, n.text), uint32(n.parent)), int32(i))
	}
}

// child returns the child of a node for a segment, 0 if there is none.
func (c *host[V]) child(hash uint64, parent int32, seg string) int32 {
	if len(c.slots) == 0 {
		return 0
	}
	mask := uint64(len(c.slots) - 1)
	tag := uint32(hash >> 32)
	for s := hash & mask; ; s = (s + 1) & mask {
		i := c.slots[s]
		if i == 0 {
			return 0
		}
		if n := &c.nodes[i]; n.tag == tag && n.parent == parent && n.text == seg {
			return i
		}
	}
}

// pack gives the slices their exact size and lays the segments' text side by side, so that a lookup touches few cache
// lines.
func (c *host[V]) pack() {
	c.nodes = append(make([]node, 0, len(c.nodes)), c.nodes...)
	var b strings.Builder
	for i := range c.nodes {
		b.WriteString(c.nodes[i].text)
	}
	text := b.String()
	for i := range c.nodes {
		n := len(c.nodes[i].text)
		c.nodes[i].text, text = text[:n], text[n:]
	}
}

// match returns the first entry in order that matches, -1 if none does.
func (c *host[V]) match(seed maphash.Seed, q *Query) int32 {
	best := int32(len(c.entries))
	at, whole := c.deepest(seed, q.Path)
	if at >= 0 {
		if whole {
			best = c.first(c.nodes[at].exact, best, q)
		}
		for {
			n := &c.nodes[at]
			best = c.first(n.prefix, best, q)
			if at == 0 {
				break
			}
			at = n.parent
		}
	}
	for i := c.regex; i >= 0 && i < best; i = c.entries[i].next {
		if e := &c.entries[i]; e.cond.path.Match(q.Path) && e.cond.hold(q) {
			best = i
		}
	}
	if best == int32(len(c.entries)) {
		return -1
	}
	return best
}

// deepest walks the path down the trie and returns the last node it reaches, and whether that is the whole path; -1 for a
// path that does not begin with "/".
func (c *host[V]) deepest(seed maphash.Seed, path []byte) (at int32, whole bool) {
	if len(path) == 0 || path[0] != '/' {
		return -1, false
	}
	if len(c.slots) == 0 {
		return 0, false
	}
	mask := uint64(len(c.slots) - 1)
	for {
		seg := path[1:]
		if end := bytes.IndexByte(seg, '/'); end >= 0 {
			seg = seg[:end]
		}
		hash := mix(maphash.Bytes(seed, seg), uint32(at))
		tag, next := uint32(hash>>32), int32(0)
		for s := hash & mask; ; s = (s + 1) & mask {
			i := c.slots[s]
			if i == 0 {
				return at, false
			}
			if n := &c.nodes[i]; n.tag == tag && n.parent == at && n.text == string(seg) {
				next = i
				break
			}
		}
		at = next
		if path = path[1+len(seg):]; len(path) == 0 {
			return at, true
		}
	}
}

// first returns the first entry of a chain that comes before best and whose conditions hold, else best.
func (c *host[V]) first(i, best int32, q *Query) int32 {
	for ; i >= 0 && i < best; i = c.entries[i].next {
		if e := &c.entries[i]; e.cond == nil || e.cond.hold(q) {
			return i
		}
	}
	return best
}
