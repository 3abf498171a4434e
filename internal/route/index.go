package route

import (
	"bytes"
	"hash/maphash"
	"strings"

	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// names finds the listener of a site by hostname.
type names struct {
	exact map[string]int32
	wild  map[string]int32 // by suffix with its dot: ".example"
	any   int32            // -1: none
}

// find returns the listener with the most specific hostname that covers host, -1 if none does.
func (n *names) find(host []byte) int32 {
	if len(n.exact) > 0 {
		if i, ok := n.exact[string(host)]; ok {
			return i
		}
	}
	if len(n.wild) > 0 {
		for d := nextDot(host, 0); d >= 0; d = nextDot(host, d) {
			if i, ok := n.wild[string(host[d:])]; ok {
				return i
			}
		}
	}
	return n.any
}

// nextDot is the place of the first dot after from, -1 if none. A dot at 0 does not count: a wildcard stands for one label
// at least.
func nextDot(host []byte, from int) int {
	if from+1 >= len(host) {
		return -1
	}
	i := bytes.IndexByte(host[from+1:], '.')
	if i < 0 {
		return -1
	}
	return from + 1 + i
}

// pattern is the kind of a virtual host's hostname pattern.
type pattern uint8

const (
	exactName  pattern = iota
	oneLabel           // "*." for exactly one label
	manyLabels         // "*." for one label or more
	anyName
)

// patternOf splits a host's pattern into its kind and the text that is looked up: the name, or the suffix with its dot.
func patternOf(h *ir.Host) (pattern, string) {
	switch {
	case h.Hostname == "":
		return anyName, ""
	case !strings.HasPrefix(h.Hostname, "*."):
		return exactName, h.Hostname
	case h.OneLabel:
		return oneLabel, h.Hostname[1:]
	default:
		return manyLabels, h.Hostname[1:]
	}
}

// hostKey is what is unique among the virtual hosts of a listener.
type hostKey struct {
	kind pattern
	name string
}

func keyOf(h *ir.Host) hostKey {
	k, name := patternOf(h)
	return hostKey{k, name}
}

// index holds the virtual hosts of one listener by their pattern. It is immutable.
type index[V any] struct {
	slots []indexSlot[V] // two thirds full at most
	size  int            // of the slots, those taken
	any   *host[V]
	// one and many have a bit for each number of dots that a wildcard suffix has (63: that many or more), so that hosts
	// below no wildcard are not looked up label by label.
	one, many uint64
}

type indexSlot[V any] struct {
	hash uint64
	host *host[V] // nil: free
}

func (k hostKey) hash(seed maphash.Seed) uint64 {
	return mix(maphash.String(seed, k.name), uint32(k.kind))
}

func depthBit(dots int) uint64 { return 1 << min(dots, 63) }

// put adds a host and reports false if its pattern is there already. The index must not be published yet, nor share its
// slots.
func (x *index[V]) put(seed maphash.Seed, h *host[V]) bool {
	switch h.kind {
	case anyName:
		if x.any != nil {
			return false
		}
		x.any = h
		return true
	case oneLabel:
		x.one |= depthBit(strings.Count(h.name, "."))
	case manyLabels:
		x.many |= depthBit(strings.Count(h.name, "."))
	}
	if 3*(x.size+1) > 2*len(x.slots) {
		x.rehash(2*(x.size+1), func(*host[V]) bool { return true })
	}
	hash := hostKey{h.kind, h.name}.hash(seed)
	i, found := x.find(hash, h.kind, []byte(h.name))
	if found {
		return false
	}
	x.slots[i] = indexSlot[V]{hash, h}
	x.size++
	return true
}

// rehash gives the index new slots with room for room hosts, and keeps those hosts for which keep is true.
func (x *index[V]) rehash(room int, keep func(*host[V]) bool) {
	old := x.slots
	x.slots, x.size = make([]indexSlot[V], max(8, room*3/2)), 0
	for _, o := range old {
		if o.host == nil || !keep(o.host) {
			continue
		}
		s := slot(o.hash, len(x.slots))
		for x.slots[s].host != nil {
			if s++; s == len(x.slots) {
				s = 0
			}
		}
		x.slots[s] = o
		x.size++
	}
}

// find returns the slot of the host with the pattern, or the free one where it would lie; -1 if there are no slots.
func (x *index[V]) find(hash uint64, k pattern, name []byte) (at int, found bool) {
	if len(x.slots) == 0 {
		return -1, false
	}
	for s := slot(hash, len(x.slots)); ; s++ {
		if s == len(x.slots) {
			s = 0
		}
		h := x.slots[s].host
		if h == nil {
			return s, false
		}
		if x.slots[s].hash == hash && h.kind == k && h.name == string(name) {
			return s, true
		}
	}
}

func (x *index[V]) lookup(seed maphash.Seed, k pattern, name []byte) *host[V] {
	if i, ok := x.find(mix(maphash.Bytes(seed, name), uint32(k)), k, name); ok {
		return x.slots[i].host
	}
	return nil
}

// each calls do with every host.
func (x *index[V]) each(do func(*host[V])) {
	for _, s := range x.slots {
		if s.host != nil {
			do(s.host)
		}
	}
	if x.any != nil {
		do(x.any)
	}
}

// cursor walks the virtual hosts that cover a name, the most specific first.
type cursor struct {
	name  []byte
	stage uint8
	dot   int // place of the dot whose suffix is next
	dots  int // in name[dot:]
}

const (
	tryExact uint8 = iota
	tryOne
	tryMany
	tryAny
	done
)

// next returns the next virtual host that covers the cursor's name, nil at the end.
func (x *index[V]) next(seed maphash.Seed, c *cursor) *host[V] {
	for {
		switch c.stage {
		case tryExact:
			c.stage = tryAny
			if x.one|x.many != 0 {
				if c.dot = nextDot(c.name, 0); c.dot >= 0 {
					c.stage, c.dots = tryOne, bytes.Count(c.name[c.dot:], []byte{'.'})
				}
			}
			if h := x.lookup(seed, exactName, c.name); h != nil {
				return h
			}
		case tryOne: // only the first dot: one label stands before it
			c.stage = tryMany
			if x.one&depthBit(c.dots) != 0 {
				if h := x.lookup(seed, oneLabel, c.name[c.dot:]); h != nil {
					return h
				}
			}
		case tryMany:
			suffix, dots := c.name[c.dot:], c.dots
			if c.dot, c.dots = nextDot(c.name, c.dot), dots-1; c.dot < 0 || x.many == 0 {
				c.stage = tryAny
			}
			if x.many&depthBit(dots) != 0 {
				if h := x.lookup(seed, manyLabels, suffix); h != nil {
					return h
				}
			}
		case tryAny:
			c.stage = done
			if x.any != nil {
				return x.any
			}
		default:
			return nil
		}
	}
}
