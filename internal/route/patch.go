package route

import (
	"slices"
	"strings"

	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// Hunk is a place in which two lists of routes differ: those of the old one from From to To gave way to those of the new one from
// Start to End.
type Hunk struct{ From, To, Start, End int }

// Bounds of Diff: how many routes that came and went in one place it looks for, and how much it compares in all.
const (
	diffWindow = 512
	diffBudget = 1 << 22
)

// Diff compares two lists of routes by identity. What it does not find in reasonable time stands in one hunk with what changed.
func Diff(was, is []*ir.Route) []Hunk {
	end := 0 // how many are the same at the end
	for end < len(was) && end < len(is) && was[len(was)-1-end] == is[len(is)-1-end] {
		end++
	}
	was, is = was[:len(was)-end], is[:len(is)-end]
	var out []Hunk
	i, j, budget := 0, 0, diffBudget
	for i < len(was) || j < len(is) {
		if i < len(was) && j < len(is) && was[i] == is[j] {
			i, j = i+1, j+1
			continue
		}
		gone, came := resync(was[i:], is[j:], &budget)
		out = append(out, Hunk{i, i + gone, j, j + came})
		i, j = i+gone, j+came
	}
	return out
}

// resync returns how many of each list to pass over so that the two go on alike: the fewest in all.
func resync(was, is []*ir.Route, budget *int) (gone, came int) {
	if len(was) == 0 || len(is) == 0 {
		return len(was), len(is)
	}
	for d := 1; d <= diffWindow && *budget > 0; d++ {
		for gone := max(0, d-len(is)+1); gone <= d && gone < len(was); gone++ {
			*budget--
			if was[gone] == is[d-gone] {
				return gone, d - gone
			}
		}
	}
	return len(was), len(is)
}

// patchRatio bounds what is patched: with more than one route of so many changed the trie is laid anew.
const patchRatio = 16

// revise makes the compiled form of h from that of the version before it: routes that stay keep their values and their conditions,
// and where few changed the trie is a copy with those changed. Its result is that of compileHost.
func revise[V any](seed hasher, old *host[V], h *ir.Host, attach func(*ir.Host, *ir.Route) V) (*host[V], []Fault) {
	c := &host[V]{ir: h, entries: make([]entry[V], len(h.Routes))}
	hunks := Diff(old.ir.Routes, h.Routes)
	var faults []Fault
	if p := checkHostname(h); p != "" {
		faults = append(faults, Fault{Host: h, Path: "hostname", Message: p})
	}
	moved := make([]int32, len(old.entries)) // where each entry of old is now, -1: nowhere
	from, to, came := 0, 0, 0
	for _, k := range append(hunks, Hunk{len(old.entries), len(old.entries), len(c.entries), len(c.entries)}) {
		copy(c.entries[to:k.Start], old.entries[from:k.From])
		for ; from < k.From; from, to = from+1, to+1 {
			moved[from] = int32(to)
			if c.entries[to].faulty { // few: what is wrong with it is found again
				_, fs := compileConditions(h, h.Routes[to])
				faults = append(faults, fs...)
			}
		}
		for ; from < k.To; from++ {
			moved[from] = -1
		}
		for ; to < k.End; to++ {
			faults = append(faults, c.compile(to, attach)...)
			came++
		}
	}
	if gone := len(old.entries) + came - len(c.entries); (gone+came)*patchRatio > len(c.entries) || !c.patch(seed, old, moved, hunks) {
		c.lay(seed)
	}
	return c, faults
}

// patch makes the trie from that of old and puts the entries in order again. It reports false if the trie has to be laid anew.
func (c *host[V]) patch(seed hasher, old *host[V], moved []int32, hunks []Hunk) bool {
	follow := func(i int32) int32 { // the first of a chain that is still there
		for i >= 0 && moved[i] < 0 {
			i = old.entries[i].next
		}
		if i < 0 {
			return -1
		}
		return moved[i]
	}
	for from, to := range moved {
		if to >= 0 {
			c.entries[to].next = follow(old.entries[from].next)
		}
	}
	c.trie = trie[V]{nodes: make([]node[V], len(old.trie.nodes))}
	if old.trie.long != nil {
		long := slices.Clip(*old.trie.long) // what comes behind it is this trie's own
		c.trie.long = &long
	}
	nodes := c.trie.nodes
	used, empty := 0, 0
	for i := range nodes {
		n, was := &nodes[i], &old.trie.nodes[i]
		if i > 0 && was.tag == 0 {
			continue
		}
		*n = *was
		used++
		stays := (n.prefix < 0 || moved[n.prefix] >= 0) && (n.exact < 0 || moved[n.exact] >= 0)
		n.prefix, n.exact = follow(n.prefix), follow(n.exact)
		if !stays {
			n.name(i == 0, c.entries)
		}
		if n.prefix < 0 && n.exact < 0 {
			empty++
		}
	}
	for _, k := range slices.Backward(hunks) {
		for i := k.End - 1; i >= k.Start; i-- {
			if c.entries[i].faulty {
				continue
			}
			at, fresh := c.trie.place(seed, &c.entries[i].route.Match.Path, used)
			if at < 0 {
				return false
			}
			if fresh {
				used++
			}
			c.link(at, int32(i))
		}
	}
	return empty*4 <= used
}

// link puts entry i into its chain at a node.
func (c *host[V]) link(at, i int32) {
	n := &c.trie.nodes[at]
	to := &n.prefix
	if k := c.entries[i].route.Match.Path.Kind; k == ir.PathExact || k == ir.PathRegex {
		to = &n.exact
	}
	for *to >= 0 && *to < i {
		to = &c.entries[*to].next
	}
	c.entries[i].next, *to = *to, i
	n.name(at == 0, c.entries)
}

// place returns the node of a path, made if it is missing; -1 if there is no room for it, so many being used.
func (t *trie[V]) place(h hasher, p *ir.PathMatch, used int) (at int32, fresh bool) {
	path := p.Value
	switch p.Kind {
	case ir.PathExact:
	case ir.PathRegex:
		return 0, false
	default:
		path = prefixOf(p)
	}
	if path == "" {
		return 0, false
	}
	if at, whole := t.deepest(h, t.nodes, []byte(path)); whole {
		return at, false
	}
	table := t.nodes[1:]
	if used*5 >= len(table)*4 {
		return -1, false
	}
	parent := int32(0)
	if above := path[:strings.LastIndexByte(path, '/')]; above != "" {
		parent, _ = t.deepest(h, t.nodes, []byte(above))
	}
	hash, depth := uint64(0), 0
	for end := 0; end < len(path); depth++ {
		hash, end = h.step(hash, path, end)
	}
	i := slot(hash, len(table))
	for table[i].tag != 0 {
		if i++; i == len(table) {
			i = 0
		}
	}
	n := &table[i]
	*n = node[V]{tag: tagOf(hash), parent: parent, prefix: -1, exact: -1}
	t.setText(n, path[t.length(parent):])
	depths := uint32(t.nodes[0].parent)
	if depths>>min(depth+1, deepBit) != 0 {
		t.adopt(int32(i+1), path[t.length(parent):])
	}
	t.nodes[0].parent = int32(depths | 1<<min(depth, deepBit))
	return int32(i + 1), true
}

// adopt makes a new node, whose text is given, the parent of those of its parent's that lie below it.
func (t *trie[V]) adopt(at int32, text string) {
	parent := t.nodes[at].parent
	for i := 1; i < len(t.nodes); i++ {
		n := &t.nodes[i]
		if n.tag == 0 || n.parent != parent || int32(i) == at {
			continue
		}
		if rest, ok := t.below(n, text); ok {
			n.parent = at
			t.setText(n, rest)
		}
	}
}

// below returns what a node's text has beyond text, if it lies below it.
func (t *trie[V]) below(n *node[V], text string) (string, bool) {
	if n.more > 0 {
		s, ok := strings.CutPrefix((*t.long)[n.more-1], text)
		return s, ok && s != "" && s[0] == '/'
	}
	if k := len(text); int(n.size) <= k || string(n.text[:k]) != text || n.text[k] != '/' {
		return "", false
	}
	return string(n.text[len(text):n.size]), true
}

// length is that of a node's whole path.
func (t *trie[V]) length(at int32) (size int) {
	for ; at > 0; at = t.nodes[at].parent {
		if n := &t.nodes[at]; n.more > 0 {
			size += len((*t.long)[n.more-1])
		} else {
			size += int(n.size)
		}
	}
	return size
}
