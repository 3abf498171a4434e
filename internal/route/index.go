package route

import (
	"bytes"
	"hash/maphash"
	"math/bits"
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
	slots  []int32 // position in hosts + 1, 0: free; a power of two long, at most half full
	hashes []uint64
	hosts  []*host[V]
	any    *host[V]
	// one and many have a bit for each number of dots that a wildcard suffix has (63: that many or more), so that hosts
	// below no wildcard are not looked up label by label.
	one, many uint64
}

func (k hostKey) hash(seed maphash.Seed) uint64 {
	return mix(maphash.String(seed, k.name), uint32(k.kind))
}

// mix folds n into a hash of good quality.
func mix(h uint64, n uint32) uint64 { return h ^ uint64(n)*0x9e3779b97f4a7c15 }

func depthBit(dots int) uint64 { return 1 << min(dots, 63) }

// put adds a host and reports false if its pattern is there already. The index must not be published yet, nor share its
// slots.
func (x *index[V]) put(seed maphash.Seed, h *host[V]) bool {
	if h.kind == anyName {
		if x.any != nil {
			return false
		}
		x.any = h
		return true
	}
	key := hostKey{h.kind, h.name}
	hash := key.hash(seed)
	if x.position(hash, key) >= 0 {
		return false
	}
	switch h.kind {
	case oneLabel:
		x.one |= depthBit(strings.Count(h.name, "."))
	case manyLabels:
		x.many |= depthBit(strings.Count(h.name, "."))
	}
	x.hosts = append(x.hosts, h)
	x.hashes = append(x.hashes, hash)
	if 2*len(x.hosts) > len(x.slots) {
		x.rehash()
	} else {
		x.place(len(x.hosts) - 1)
	}
	return true
}

func (x *index[V]) place(i int) {
	mask := uint64(len(x.slots) - 1)
	for s := x.hashes[i] & mask; ; s = (s + 1) & mask {
		if x.slots[s] == 0 {
			x.slots[s] = int32(i + 1)
			return
		}
	}
}

// rehash makes new slots for all hosts.
func (x *index[V]) rehash() {
	n := max(8, 1<<bits.Len(uint(2*len(x.hosts)-1)))
	x.slots = make([]int32, n)
	for i := range x.hosts {
		x.place(i)
	}
}

// position returns where the host with the pattern lies in hosts, -1 if there is none.
func (x *index[V]) position(hash uint64, key hostKey) int {
	if len(x.slots) == 0 {
		return -1
	}
	mask := uint64(len(x.slots) - 1)
	for s := hash & mask; ; s = (s + 1) & mask {
		i := x.slots[s]
		if i == 0 {
			return -1
		}
		if x.hashes[i-1] == hash {
			if h := x.hosts[i-1]; h.kind == key.kind && h.name == key.name {
				return int(i - 1)
			}
		}
	}
}

// lookup is position for the bytes of a request.
func (x *index[V]) lookup(seed maphash.Seed, k pattern, name []byte) *host[V] {
	if len(x.slots) == 0 {
		return nil
	}
	hash := mix(maphash.Bytes(seed, name), uint32(k))
	mask := uint64(len(x.slots) - 1)
	for s := hash & mask; ; s = (s + 1) & mask {
		i := x.slots[s]
		if i == 0 {
			return nil
		}
		if x.hashes[i-1] == hash {
			if h := x.hosts[i-1]; h.kind == k && h.name == string(name) {
				return h
			}
		}
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
