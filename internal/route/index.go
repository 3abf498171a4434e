package route

import (
	"bytes"
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

// index holds the virtual hosts of one listener by their pattern: a hash table in chunks, so that a copy with one host
// changed copies little. A chunk is never changed, only replaced.
type index[V any] struct {
	chunks [][]indexSlot[V] // by the lower half of the hash, within a chunk by the upper half
	size   int
	any    indexSlot[V]
	// one and many have a bit for each number of dots that a wildcard suffix has (63: that many or more), so that hosts
	// below no wildcard are not looked up label by label. A bit that no host has any more costs a lookup now and then.
	one, many uint64
}

// indexSlot is one host. What most lookups need of it stands here too, so that they go straight to the nodes of its trie.
type indexSlot[V any] struct {
	hash  uint64
	host  *host[V] // nil: free
	ir    *ir.Host
	nodes []node[V]
}

// perChunk is how many hosts a chunk holds on average at most.
const perChunk = 32

func (k hostKey) hash(seed hasher) uint64 {
	return mix(seed.string(k.name), uint32(k.kind))
}

func depthBit(dots int) uint64 { return 1 << min(dots, 63) }

// find returns the slot of the host with the pattern, nil if there is none.
func (x *index[V]) find(hash uint64, k pattern, name []byte) *indexSlot[V] {
	if x.size == 0 {
		return nil
	}
	chunk := x.chunks[slot(hash, len(x.chunks))]
	if len(chunk) == 0 {
		return nil
	}
	for i := slot(hash>>32, len(chunk)); ; i++ {
		if i == len(chunk) {
			i = 0
		}
		s := &chunk[i]
		if s.host == nil {
			return nil
		}
		if s.hash == hash && s.host.trie.named(s.nodes, k, name) {
			return s
		}
	}
}

func (x *index[V]) lookup(seed hasher, k pattern, name []byte) *indexSlot[V] {
	return x.find(mix(seed.bytes(name), uint32(k)), k, name)
}

// get returns the host with the key, nil if there is none.
func (x *index[V]) get(seed hasher, key hostKey) *host[V] {
	if key.kind == anyName {
		return x.any.host
	}
	if s := x.find(key.hash(seed), key.kind, []byte(key.name)); s != nil {
		return s.host
	}
	return nil
}

// put adds a host, in the place of one with its pattern if there is one. x.chunks must be x's own, its chunks need not.
func (x *index[V]) put(seed hasher, h *host[V]) {
	key := keyOf(h.ir)
	s := indexSlot[V]{hash: key.hash(seed), host: h, ir: h.ir, nodes: h.trie.nodes}
	switch key.kind {
	case anyName:
		x.any = s
		return
	case oneLabel:
		x.one |= depthBit(strings.Count(key.name, "."))
	case manyLabels:
		x.many |= depthBit(strings.Count(key.name, "."))
	}
	x.remove(seed, key)
	x.size++
	if x.size > perChunk*len(x.chunks) {
		x.widen()
	}
	c := slot(s.hash, len(x.chunks))
	x.chunks[c] = layChunk(append(taken(x.chunks[c], nil), s))
}

// remove takes the host with the pattern away, if there is one. x.chunks must be x's own.
func (x *index[V]) remove(seed hasher, key hostKey) {
	if key.kind == anyName {
		x.any = indexSlot[V]{}
		return
	}
	hash := key.hash(seed)
	if s := x.find(hash, key.kind, []byte(key.name)); s != nil {
		c := slot(hash, len(x.chunks))
		x.chunks[c] = layChunk(taken(x.chunks[c], s.host))
		x.size--
	}
}

// widen makes room for twice as many chunks.
func (x *index[V]) widen() {
	wide := make([][]indexSlot[V], max(1, 2*len(x.chunks)))
	for _, chunk := range x.chunks {
		for _, s := range taken(chunk, nil) {
			c := slot(s.hash, len(wide))
			wide[c] = append(wide[c], s)
		}
	}
	for c := range wide {
		wide[c] = layChunk(wide[c])
	}
	x.chunks = wide
}

// taken lists the slots of a chunk that hold a host other than but.
func taken[V any](chunk []indexSlot[V], but *host[V]) []indexSlot[V] {
	out := make([]indexSlot[V], 0, len(chunk))
	for _, s := range chunk {
		if s.host != nil && s.host != but {
			out = append(out, s)
		}
	}
	return out
}

// layChunk places hosts in a new chunk, at most two thirds full.
func layChunk[V any](hosts []indexSlot[V]) []indexSlot[V] {
	if len(hosts) == 0 {
		return nil
	}
	chunk := make([]indexSlot[V], 1+len(hosts)*3/2)
	for _, s := range hosts {
		i := slot(s.hash>>32, len(chunk))
		for chunk[i].host != nil {
			if i++; i == len(chunk) {
				i = 0
			}
		}
		chunk[i] = s
	}
	return chunk
}

// each calls do with every host.
func (x *index[V]) each(do func(*host[V])) {
	for _, chunk := range x.chunks {
		for _, s := range chunk {
			if s.host != nil {
				do(s.host)
			}
		}
	}
	if x.any.host != nil {
		do(x.any.host)
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
func (x *index[V]) next(seed hasher, c *cursor) *indexSlot[V] {
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
			if x.any.host != nil {
				return &x.any
			}
		default:
			return nil
		}
	}
}
