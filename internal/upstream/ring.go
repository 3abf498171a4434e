package upstream

import (
	"cmp"
	"maps"
	"slices"
)

// point is a place of an endpoint on the ring of a consistent hash (Karger and others, 1997).
type point struct {
	at uint64
	e  *Endpoint
}

// pointsEach is how many places an endpoint has on the ring: with 160 shares differ by some 8 %.
const pointsEach = 160

// index makes what endpoints are found by, as far as settings ask for it, from that of a list before: only what came and went is looked
// for. The caller holds build.
func (c *Cluster) index(before *list, base []*Endpoint, s *Settings) (ring []point, tokens map[uint64]*Endpoint) {
	if s.Hash != nil {
		old := before.base
		if before.ring == nil {
			old = nil
		}
		ring = before.ring
		if before.ring == nil || !slices.Equal(old, base) {
			ring = ringOf(before.ring, old, base)
		}
	}
	if s.Affinity != nil || c.sticky.Load() {
		tokens = tokensOf(before.tokens, before.base, base)
	}
	return ring, tokens
}

// ringOf places endpoints by their address alone: every process has the same ring, and one that comes or goes moves only
// its own share. ring is that of old. One that stands in base several times, by its weight, has as many times the places.
func ringOf(ring []point, old, base []*Endpoint) []point {
	for _, e := range old {
		e.places, e.wanted = 0, 0
	}
	for _, e := range base {
		e.places, e.wanted = 0, 0
	}
	for _, e := range old {
		e.places++
	}
	for _, e := range base {
		e.wanted++
	}
	var came []point
	for _, e := range base {
		if e.places < 0 || e.places == e.wanted {
			continue
		}
		e.places = -1 // its places are made anew
		h := HashText(0, e.Text)
		for i := range e.wanted * pointsEach {
			came = append(came, point{mix(h + uint64(i)*0x9e3779b97f4a7c15), e})
		}
	}
	slices.SortFunc(came, comparePoints)
	out := make([]point, 0, len(base)*pointsEach)
	for _, p := range ring {
		if p.e.places != p.e.wanted {
			continue
		}
		for len(came) > 0 && comparePoints(came[0], p) < 0 {
			out, came = append(out, came[0]), came[1:]
		}
		out = append(out, p)
	}
	return append(out, came...)
}

func comparePoints(a, b point) int {
	if a.at == b.at {
		return cmp.Compare(a.e.Text, b.e.Text)
	}
	return cmp.Compare(a.at, b.at)
}

// tokensOf are the endpoints of base by their tokens; before are those of old.
func tokensOf(before map[uint64]*Endpoint, old, base []*Endpoint) map[uint64]*Endpoint {
	if before != nil && slices.Equal(old, base) {
		return before
	}
	out := maps.Clone(before)
	if out == nil {
		out = make(map[uint64]*Endpoint, len(base))
	}
	for _, e := range old {
		e.wanted = 0
	}
	for _, e := range base {
		e.wanted = 1
	}
	for _, e := range old {
		if e.wanted == 0 && e.token != 0 {
			delete(out, e.token)
		}
	}
	for _, e := range base {
		if e.token == 0 {
			e.token = e.Token()
		}
		out[e.token] = e
	}
	return out
}

// stick has endpoints found by token from now on, and returns the list with them. A cluster whose settings ask for affinity has had them
// before; where a route alone asks for it, the first request that does makes them.
func (c *Cluster) stick() *list {
	c.build.Lock()
	defer c.build.Unlock()
	c.sticky.Store(true)
	l := c.list.Load()
	if l.tokens != nil {
		return l
	}
	tokens := tokensOf(nil, nil, l.base)
	c.mu.Lock()
	defer c.mu.Unlock()
	n := *c.list.Load()
	n.tokens = tokens
	c.list.Store(&n)
	return &n
}
