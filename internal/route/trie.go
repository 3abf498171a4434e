package route

import (
	"bytes"
	"hash/maphash"
	"math/bits"
	"strings"

	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// trie holds the paths of a host's routes, each below the longest other one that it begins with, element by element. All
// its nodes lie in one hash table, by their whole path, and a node fits one cache line with its text and with the route
// that most requests that end there get: a lookup asks for the longest path first, at no more depths than the host's
// routes have, so that most read the root and one more line.
type trie[V any] struct {
	nodes []node[V] // nodes[0] is the root, the empty path; the others lie where their hash says
	long  *[]string // texts that do not fit their node
}

// node is one path: 64 bytes if V is a pointer. The root's text and tag are the host's name and the kind of its pattern, its
// parent has a bit for each depth (in slashes) that a path has, and its exact chain, which no path can reach, holds the
// routes with a regular expression for their path.
type node[V any] struct {
	tag           uint32 // of the hash, with tagSet; 0: this place is free
	parent        int32
	prefix, exact int32 // first entry of the chain of routes that end here, -1: none
	// route and value are those of the chain's first entry that plain names, if it has no conditions.
	route *ir.Route
	value V
	more  int32 // place of the text in trie.long plus 1; 0: it is in text
	plain uint8
	size  uint8    // of text
	text  [26]byte // what the path has beyond its parent's
}

// Values of node.plain.
const (
	plainPrefix = 1 + iota
	plainExact
)

// tagSet makes a tag differ from that of a free place.
const tagSet = 1

// deepBit is the bit of root.parent that stands for every depth from deepBit up. Few routes lie so deep: theirs are asked for
// from the shortest path on, so that a lookup keeps no more than deepBit hashes.
const deepBit = 8

// hasher hashes names and paths. Any hash gives right answers: what it finds is compared.
type hasher struct {
	seed maphash.Seed
	lost uint64 // bits that are always 0; tests set some to force collisions
}

func (h hasher) bytes(b []byte) uint64  { return maphash.Bytes(h.seed, b) &^ h.lost }
func (h hasher) string(s string) uint64 { return maphash.String(h.seed, s) &^ h.lost }

// below is the hash of a path from those of its parent and of its last element.
func (h hasher) below(parent, element uint64) uint64 {
	hi, lo := bits.Mul64(bits.RotateLeft64(parent, 23)^element, 0x9e3779b97f4a7c15)
	return (hi ^ lo) &^ h.lost
}

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
	n.more, n.size = 0, uint8(copy(n.text[:], text))
}

// name says which entry of a node's chains most requests that end there get.
func (n *node[V]) name(root bool, entries []entry[V]) {
	var none V
	n.plain, n.route, n.value = 0, nil, none
	if at := n.exact; !root && at >= 0 && entries[at].cond == nil {
		n.plain, n.route, n.value = plainExact, entries[at].route, entries[at].value
	}
	if at := n.prefix; at >= 0 && entries[at].cond == nil {
		n.plain, n.route, n.value = plainPrefix, entries[at].route, entries[at].value
	}
}

// deepest returns the node of the longest path that the given one begins with, and whether that is the whole path; -1 for a
// path that does not begin with "/". nodes are t.nodes.
func (t *trie[V]) deepest(h hasher, nodes []node[V], path []byte) (at int32, whole bool) {
	if len(path) == 0 || path[0] != '/' {
		return -1, false
	}
	depths := uint32(nodes[0].parent)
	if depths == 0 {
		return 0, false
	}
	last := bits.Len32(depths) - 1
	var probe [deepBit]struct {
		hash uint64
		end  int
	}
	n, hash := 0, uint64(0)
	for depth, end := 1, 0; depth <= last && end < len(path); depth++ {
		element := path[end+1:]
		if i := bytes.IndexByte(element, '/'); i >= 0 {
			element = element[:i]
		}
		end += 1 + len(element)
		hash = h.below(hash, h.bytes(element))
		if depth < deepBit {
			if depths>>depth&1 != 0 {
				probe[n].hash, probe[n].end = hash, end
				n++
			}
			continue
		}
		last++ // some path is this deep or deeper
		if i := t.find(nodes, hash, path[:end]); i > 0 {
			at, whole = i, end == len(path)
		}
	}
	if at > 0 {
		return at, whole
	}
	for n--; n >= 0; n-- {
		if i := t.find(nodes, probe[n].hash, path[:probe[n].end]); i > 0 {
			return i, probe[n].end == len(path)
		}
	}
	return 0, false
}

// find returns the node of a path with its hash, 0 if there is none.
func (t *trie[V]) find(nodes []node[V], hash uint64, path []byte) int32 {
	table := nodes[1:]
	tag := tagOf(hash)
	for i := slot(hash, len(table)); ; i++ {
		if i == len(table) {
			i = 0
		}
		n := &table[i]
		if n.tag == 0 {
			return 0
		}
		if n.tag == tag && t.spells(nodes, n, path) {
			return int32(i + 1)
		}
	}
}

// spells reports whether a node is that of the path.
func (t *trie[V]) spells(nodes []node[V], n *node[V], path []byte) bool {
	for n.parent != 0 {
		size := int(n.size)
		if n.more > 0 {
			size = len((*t.long)[n.more-1])
		}
		if size > len(path) || !t.is(n, path[len(path)-size:]) {
			return false
		}
		path = path[:len(path)-size]
		n = &nodes[n.parent]
	}
	return t.is(n, path)
}

// sketch is a trie in the making.
type sketch struct {
	hasher
	nodes  []sketchNode // nodes[0] is the root
	slots  []int32      // node, 0: free; a power of two long, at most half full
	depths uint32       // as in the root of a trie
}

type sketchNode struct {
	path          string
	hash          uint64
	parent        int32
	prefix, exact int32
}

func newSketch(h hasher, routes int) *sketch {
	s := &sketch{hasher: h, nodes: make([]sketchNode, 1, routes+2)}
	s.nodes[0] = sketchNode{prefix: -1, exact: -1}
	s.slots = make([]int32, 1<<bits.Len(uint(2*cap(s.nodes)-1)))
	return s
}

// node returns the node of a path ("" or beginning with "/"), made if it is missing. There is room for one of each route.
func (s *sketch) node(path string) *sketchNode {
	hash, depth := uint64(0), 0
	for end := 0; end < len(path); depth++ {
		hash, end = s.step(hash, path, end)
	}
	if depth == 0 {
		return &s.nodes[0]
	}
	p := s.find(hash, path)
	if s.slots[p] == 0 {
		s.slots[p] = int32(len(s.nodes))
		s.nodes = append(s.nodes, sketchNode{path: path, hash: hash, prefix: -1, exact: -1})
		s.depths |= 1 << min(depth, deepBit)
	}
	return &s.nodes[s.slots[p]]
}

// step goes on from path[:end], whose hash is given, by one element.
func (h hasher) step(hash uint64, path string, end int) (uint64, int) {
	element := path[end+1:]
	if i := strings.IndexByte(element, '/'); i >= 0 {
		element = element[:i]
	}
	return h.below(hash, h.string(element)), end + 1 + len(element)
}

// find returns the place in slots of a path, or the free one for it.
func (s *sketch) find(hash uint64, path string) int {
	mask := uint64(len(s.slots) - 1)
	p := hash & mask
	for s.slots[p] != 0 {
		if n := &s.nodes[s.slots[p]]; n.hash == hash && n.path == path {
			break
		}
		p = (p + 1) & mask
	}
	return int(p)
}

// adopt finds the parent of every node.
func (s *sketch) adopt() {
	if s.depths&(s.depths-1) == 0 && s.depths>>deepBit == 0 {
		return // all have one depth: none is below another
	}
	for i := 1; i < len(s.nodes); i++ {
		n := &s.nodes[i]
		hash, end := uint64(0), 0
		for depth := 1; ; depth++ {
			if hash, end = s.step(hash, n.path, end); end == len(n.path) {
				break
			}
			if s.depths>>min(depth, deepBit)&1 != 0 {
				if p := s.slots[s.find(hash, n.path[:end])]; p != 0 {
					n.parent = p
				}
			}
		}
	}
}

// layTrie lays the nodes of a sketch where a lookup finds them, at most two thirds full.
func layTrie[V any](s *sketch, key hostKey, entries []entry[V]) trie[V] {
	s.adopt()
	t := trie[V]{nodes: make([]node[V], 1, 1+len(s.nodes)*3/2)}
	if len(s.nodes) > 1 {
		t.nodes = t.nodes[:cap(t.nodes)]
	}
	place := make([]int32, len(s.nodes))
	table := t.nodes[1:]
	for i := 1; i < len(s.nodes); i++ {
		hash := s.nodes[i].hash
		p := slot(hash, len(table))
		for table[p].tag != 0 {
			if p++; p == len(table) {
				p = 0
			}
		}
		table[p].tag = tagOf(hash)
		place[i] = int32(p + 1)
	}
	for i := range s.nodes {
		from, n := &s.nodes[i], &t.nodes[place[i]]
		n.prefix, n.exact, n.parent = from.prefix, from.exact, place[from.parent]
		t.setText(n, from.path[len(s.nodes[from.parent].path):])
		n.name(i == 0, entries)
	}
	root := &t.nodes[0]
	root.tag, root.parent = uint32(key.kind), int32(s.depths)
	t.setText(root, key.name)
	return t
}
