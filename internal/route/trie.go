package route

import (
	"bytes"
	"hash/maphash"
	"math/bits"
	"strings"

	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// trie holds path segments. All its nodes lie in one hash table, by parent and segment, and a node fits one cache line
// with its text and with the route that most requests that end there get: so a host of ten routes is small, and in a host
// of a hundred thousand a lookup costs one cache miss for each step down, and none of them waits for the one before.
type trie[V any] struct {
	nodes []node[V] // nodes[0] is the root, the empty path; the others lie where their hash says
	long  *[]string // texts that do not fit their node
}

// node is one path segment below its parent: 64 bytes if V is a pointer. The root's text and tag are the host's name and
// the kind of its pattern, and its exact chain, which no path can reach, holds the routes with a regular expression for their path.
type node[V any] struct {
	tag           uint32 // of the hash, with tagSet; 0: this place is free
	parent        int32
	prefix, exact int32 // first entry of the chain of routes that end here, -1: none
	// route and value are those of the chain's first entry that plain names, if it has no conditions.
	route *ir.Route
	value V
	more  int32 // place of the text in trie.long plus 1; 0: it is in text
	inner bool  // has children
	plain uint8
	size  uint8 // of text
	text  [25]byte
}

// Values of node.plain.
const (
	plainPrefix = 1 + iota
	plainExact
)

// tagSet makes a tag differ from that of a free place.
const tagSet = 1

// slot spreads a hash over n places.
func slot(hash uint64, n int) int { return int(uint64(uint32(hash)) * uint64(n) >> 32) }

func tagOf(hash uint64) uint32 { return uint32(hash>>32) | tagSet }

// mix folds n into a hash of good quality.
func mix(h uint64, n uint32) uint64 {
	h ^= uint64(n) * 0x9e3779b97f4a7c15
	return h ^ h>>29
}

func (t *trie[V]) is(n *node[V], text []byte) bool {
	if n.more > 0 {
		return (*t.long)[n.more-1] == string(text)
	}
	return int(n.size) == len(text) && string(n.text[:n.size]) == string(text)
}

// named reports whether the trie, whose nodes are given, is that of the host for a pattern of the kind and text.
func (t *trie[V]) named(nodes []node[V], k pattern, text []byte) bool {
	return nodes[0].tag == uint32(k) && t.is(&nodes[0], text)
}

func (t *trie[V]) setText(n *node[V], text string) {
	if len(text) > len(n.text) {
		if t.long == nil {
			t.long = new([]string)
		}
		*t.long = append(*t.long, text)
		n.more = int32(len(*t.long))
		return
	}
	n.size = uint8(copy(n.text[:], text))
}

// deepest walks the path down and returns the last node it reaches, and whether that is the whole path; -1 for a path that
// does not begin with "/". nodes are t.nodes.
func (t *trie[V]) deepest(seed maphash.Seed, nodes []node[V], path []byte) (at int32, whole bool) {
	if len(path) == 0 || path[0] != '/' {
		return -1, false
	}
	table := nodes[1:]
	for nodes[at].inner {
		seg := path[1:]
		if end := bytes.IndexByte(seg, '/'); end >= 0 {
			seg = seg[:end]
		}
		hash := mix(maphash.Bytes(seed, seg), uint32(at))
		tag := tagOf(hash)
		i := slot(hash, len(table))
		for ; ; i++ {
			if i == len(table) {
				i = 0
			}
			n := &table[i]
			if n.tag == 0 {
				return at, false
			}
			if n.tag == tag && n.parent == at && t.is(n, seg) {
				break
			}
		}
		at = int32(i + 1)
		if path = path[1+len(seg):]; len(path) == 0 {
			return at, true
		}
	}
	return at, false
}

// sketch is a trie in the making: nodes in the order in which they came, parents first.
type sketch struct {
	seed  maphash.Seed
	nodes []sketchNode
	slots []int32 // node, 0: free; a power of two long, at most half full
}

type sketchNode struct {
	text          string
	hash          uint64 // of text
	parent        int32
	prefix, exact int32
	inner         bool
}

func newSketch(seed maphash.Seed, routes int) *sketch {
	s := &sketch{seed: seed, nodes: make([]sketchNode, 1, routes+2)}
	s.nodes[0] = sketchNode{prefix: -1, exact: -1}
	s.grow()
	return s
}

// descend returns the node of a path ("" or beginning with "/"), made if it is missing.
func (s *sketch) descend(path string) *sketchNode {
	at := int32(0)
	for path != "" {
		seg := path[1:]
		if end := strings.IndexByte(seg, '/'); end >= 0 {
			seg = seg[:end]
		}
		path = path[1+len(seg):]
		at = s.child(at, seg)
	}
	return &s.nodes[at]
}

func (s *sketch) child(at int32, seg string) int32 {
	hash := maphash.String(s.seed, seg)
	mask := uint64(len(s.slots) - 1)
	p := mix(hash, uint32(at)) & mask
	for s.slots[p] != 0 {
		if n := &s.nodes[s.slots[p]]; n.hash == hash && n.parent == at && n.text == seg {
			return s.slots[p]
		}
		p = (p + 1) & mask
	}
	i := int32(len(s.nodes))
	s.nodes[at].inner = true
	s.nodes = append(s.nodes, sketchNode{text: seg, hash: hash, parent: at, prefix: -1, exact: -1})
	s.slots[p] = i
	if 2*len(s.nodes) > len(s.slots) {
		s.grow()
	}
	return i
}

func (s *sketch) grow() {
	s.slots = make([]int32, 1<<bits.Len(uint(2*max(cap(s.nodes), 4)-1)))
	mask := uint64(len(s.slots) - 1)
	for i := 1; i < len(s.nodes); i++ {
		p := mix(s.nodes[i].hash, uint32(s.nodes[i].parent)) & mask
		for s.slots[p] != 0 {
			p = (p + 1) & mask
		}
		s.slots[p] = int32(i)
	}
}

// layTrie lays the nodes of a sketch where a lookup finds them, at most two thirds full.
func layTrie[V any](s *sketch, key hostKey, entries []entry[V]) trie[V] {
	t := trie[V]{nodes: make([]node[V], 1, 1+len(s.nodes)*3/2)}
	if len(s.nodes) > 1 {
		t.nodes = t.nodes[:cap(t.nodes)]
	}
	t.nodes[0].tag = uint32(key.kind)
	t.setText(&t.nodes[0], key.name)
	place := make([]int32, len(s.nodes))
	table := t.nodes[1:]
	for i := range s.nodes {
		from, n := &s.nodes[i], &t.nodes[0]
		if i > 0 {
			parent := place[from.parent]
			hash := mix(from.hash, uint32(parent))
			p := slot(hash, len(table))
			for table[p].tag != 0 {
				if p++; p == len(table) {
					p = 0
				}
			}
			n = &table[p]
			n.tag, n.parent = tagOf(hash), parent
			place[i] = int32(p + 1)
			t.setText(n, from.text)
		}
		n.prefix, n.exact, n.inner = from.prefix, from.exact, from.inner
		if at := n.exact; i > 0 && at >= 0 && entries[at].cond == nil {
			n.plain, n.route, n.value = plainExact, entries[at].route, entries[at].value
		}
		if at := n.prefix; at >= 0 && entries[at].cond == nil {
			n.plain, n.route, n.value = plainPrefix, entries[at].route, entries[at].value
		}
	}
	return t
}
