package route

import (
	"cmp"
	"hash/maphash"
	"slices"
	"strconv"
	"strings"

	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// Build makes the table of a configuration. A host whose *ir.Host is that of prev keeps its compiled form and its values, and in a
// host that changed each *ir.Route that stays keeps its value; attach is called for the other routes, and only for them. What cannot
// be matched as written is reported at every Build, of unchanged hosts too, and never matches. prev may be nil. The cost of one
// changed host among many is that of compiling what is new in it and copying the rest, of comparing the hosts' pointers, and of
// copying the list of its listener's hosts.
func Build[V any](prev *Table[V], c *ir.Config, attach func(*ir.Host, *ir.Route) V) (*Table[V], []Fault) {
	return Update(prev, c, attach, func(_, _ *ir.Host) bool { return true })
}

// Update is Build where a value may depend on more than its route: keep reports whether the values of one version of a host may stand
// in the next.
func Update[V any](prev *Table[V], c *ir.Config, attach func(*ir.Host, *ir.Route) V, keep func(was, is *ir.Host) bool) (*Table[V], []Fault) {
	b := builder[V]{prev: prev, attach: attach, keep: keep, next: &Table[V]{listeners: c.Listeners, hosts: c.Hosts}}
	if prev == nil {
		b.next.seed = hasher{seed: maphash.MakeSeed()}
	} else {
		b.next.seed = prev.seed
	}
	if prev == nil || prev.twice || !samePlan(prev.listeners, c.Listeners) || !b.patch() {
		b.scratch()
	}
	return b.next, b.next.allFaults()
}

type builder[V any] struct {
	prev, next *Table[V]
	attach     func(*ir.Host, *ir.Route) V
	keep       func(was, is *ir.Host) bool
	kept       map[*ir.Host]*host[V]
	before     map[hostKey]*host[V] // the version before of hosts that changed
}

// samePlan reports whether two lists of listeners match the same hostnames in the same places.
func samePlan(a, b []*ir.Listener) bool {
	return slices.EqualFunc(a, b, func(a, b *ir.Listener) bool {
		return a == b || a.Key == b.Key && a.Group == b.Group && a.Port == b.Port && a.Hostname == b.Hostname
	})
}

// compile returns the compiled form of h, the kept one if there is one.
func (b *builder[V]) compile(h *ir.Host) *host[V] {
	if k := b.kept[h]; k != nil {
		if fs := b.prev.faults[h]; len(fs) > 0 {
			b.fault(h, fs...)
		}
		return k
	}
	c, fs := b.made(h)
	if len(fs) > 0 {
		b.fault(h, fs...)
	}
	return c
}

func (b *builder[V]) made(h *ir.Host) (*host[V], []Fault) {
	if old := b.before[keyOf(h)]; old != nil && b.keep(old.ir, h) {
		return revise(b.next.seed, old, h, b.attach)
	}
	return compileHost(b.next.seed, h, b.attach)
}

func (b *builder[V]) fault(h *ir.Host, fs ...Fault) {
	if b.next.faults == nil {
		b.next.faults = map[*ir.Host][]Fault{}
	}
	b.next.faults[h] = append(b.next.faults[h][:len(b.next.faults[h]):len(b.next.faults[h])], fs...)
}

// scratch builds everything but the compiled form of the hosts that prev has.
func (b *builder[V]) scratch() {
	t := b.next
	t.plan, t.faults, t.twice = newPlan(t.listeners), nil, false
	b.before = nil
	b.kept = map[*ir.Host]*host[V]{}
	if b.prev != nil {
		for _, s := range b.prev.sites {
			for _, l := range s.listeners {
				l.hosts.each(func(h *host[V]) { b.kept[h.ir] = h })
			}
		}
	}
	t.sites = make([]*Site[V], len(t.plan.names))
	for i, n := range t.plan.names {
		t.sites[i] = &Site[V]{seed: t.seed, names: n}
	}
	for _, l := range t.listeners {
		if p, ok := t.plan.place[l.Key]; ok {
			s := t.sites[p.site]
			if int(p.listener) == len(s.listeners) { // else its key stands twice
				s.listeners = append(s.listeners, &listener[V]{ir: l, hosts: &index[V]{}})
			}
		}
	}
	for _, h := range t.hosts {
		p, ok := t.plan.place[h.Listener]
		if !ok {
			b.fault(h, orphan(h))
			continue
		}
		hosts := t.sites[p.site].listeners[p.listener].hosts
		if hosts.get(t.seed, keyOf(h)) != nil {
			t.twice = true
			b.fault(h, Fault{Host: h, Path: "hostname", Message: "stands twice on its listener: the first one counts"})
			continue
		}
		hosts.put(t.seed, b.compile(h))
	}
}

func orphan(h *ir.Host) Fault {
	return Fault{Host: h, Path: "listener", Message: "there is no listener " + strconv.Quote(h.Listener)}
}

// newPlan sorts listeners into sites and hostnames.
func newPlan(ls []*ir.Listener) *plan {
	p := &plan{sites: map[siteKey]int32{}, place: map[string]place{}}
	count := []int32{}
	for _, l := range ls {
		key := siteKey{l.Group, l.Port}
		s, ok := p.sites[key]
		if !ok {
			s = int32(len(p.names))
			p.sites[key] = s
			p.names = append(p.names, &names{exact: map[string]int32{}, wild: map[string]int32{}, any: -1})
			count = append(count, 0)
		}
		n := p.names[s]
		if _, ok := p.place[l.Key]; ok || !n.put(l.Hostname, count[s]) {
			p.faults = append(p.faults, Fault{Listener: l, Path: "hostname",
				Message: "another listener of the group has its port and hostname: the first one counts"})
			continue
		}
		p.place[l.Key] = place{s, count[s]}
		count[s]++
	}
	return p
}

// put files listener i under a hostname and reports false if that is taken.
func (n *names) put(hostname string, i int32) bool {
	if hostname == "" {
		if n.any >= 0 {
			return false
		}
		n.any = i
		return true
	}
	m, key := n.exact, hostname
	if strings.HasPrefix(hostname, "*.") {
		m, key = n.wild, hostname[1:]
	}
	if _, ok := m[key]; ok {
		return false
	}
	m[key] = i
	return true
}

// delta is what changed among the hosts of one listener.
type delta struct {
	gone []*ir.Host
	came []*ir.Host
}

// patch builds the table from prev, whose listeners match alike, by what changed. It reports false if that does not do: a
// hostname stands twice.
func (b *builder[V]) patch() bool {
	t, prev := b.next, b.prev
	t.plan = prev.plan
	t.sites = prev.sites
	deltas := b.compare()
	if len(deltas) == 0 && slices.Equal(prev.listeners, t.listeners) {
		t.faults = prev.faults
		return true
	}
	t.sites = slices.Clone(prev.sites)
	own := map[int32]bool{} // sites that are already copies
	edit := func(p place) *listener[V] {
		s := t.sites[p.site]
		if !own[p.site] {
			own[p.site] = true
			s = &Site[V]{seed: s.seed, names: s.names, listeners: slices.Clone(s.listeners)}
			t.sites[p.site] = s
		}
		l := *s.listeners[p.listener]
		s.listeners[p.listener] = &l
		return &l
	}
	for i, l := range t.listeners {
		if p, ok := t.plan.place[l.Key]; ok && prev.listeners[i] != l && t.sites[p.site].listeners[p.listener].ir == prev.listeners[i] {
			edit(p).ir = l
		}
	}
	b.keepFaults(deltas)
	for key, d := range deltas {
		p, ok := t.plan.place[key]
		if !ok {
			for _, h := range d.came {
				b.fault(h, orphan(h))
			}
			continue
		}
		l := edit(p)
		var fits bool
		if l.hosts, fits = b.patchIndex(l.hosts, d); !fits {
			return false
		}
	}
	return true
}

// compare lists the hosts that went and came, by listener.
func (b *builder[V]) compare() map[string]*delta {
	out := map[string]*delta{}
	of := func(key string) *delta {
		d := out[key]
		if d == nil {
			d = &delta{}
			out[key] = d
		}
		return d
	}
	for _, c := range Changes(b.prev.hosts, b.next.hosts) {
		if c.Was != nil {
			d := of(c.Was.Listener)
			d.gone = append(d.gone, c.Was)
		}
		if c.Is != nil {
			d := of(c.Is.Listener)
			d.came = append(d.came, c.Is)
		}
	}
	return out
}

// Change is two versions of a host; Was is nil for one that came, Is for one that went.
type Change struct{ Was, Is *ir.Host }

// Changes lists what differs, by identity, between two lists of hosts. Both are sorted; were they not, the result would still be right,
// only longer.
func Changes(was, is []*ir.Host) (out []Change) {
	i, j := 0, 0
	for i < len(was) || j < len(is) {
		if i < len(was) && j < len(is) && was[i] == is[j] {
			i, j = i+1, j+1
			continue
		}
		order := 0
		switch {
		case i == len(was):
			order = 1
		case j == len(is):
			order = -1
		default:
			order = compareHosts(was[i], is[j])
		}
		var c Change
		if order <= 0 {
			c.Was = was[i]
			i++
		}
		if order >= 0 {
			c.Is = is[j]
			j++
		}
		out = append(out, c)
	}
	return out
}

func compareHosts(a, b *ir.Host) int {
	return cmp.Or(cmp.Compare(a.Listener, b.Listener), cmp.Compare(a.Hostname, b.Hostname), cmpBool(a.OneLabel, b.OneLabel))
}

func cmpBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// keepFaults takes over the faults of the hosts that stay.
func (b *builder[V]) keepFaults(deltas map[string]*delta) {
	if len(b.prev.faults) == 0 {
		return
	}
	gone := map[*ir.Host]bool{}
	for _, d := range deltas {
		for _, h := range d.gone {
			gone[h] = true
		}
	}
	for h, fs := range b.prev.faults {
		if !gone[h] {
			b.fault(h, fs...)
		}
	}
}

// patchIndex returns a copy of x with the change made, false if a hostname would stand twice.
func (b *builder[V]) patchIndex(x *index[V], d *delta) (*index[V], bool) {
	seed := b.next.seed
	y := *x
	y.chunks = slices.Clone(x.chunks)
	b.kept, b.before = map[*ir.Host]*host[V]{}, map[hostKey]*host[V]{}
	for _, h := range d.gone {
		key := keyOf(h)
		b.kept[h] = x.get(seed, key)
		b.before[key] = b.kept[h]
		y.remove(seed, key)
	}
	for _, h := range d.came {
		if y.get(seed, keyOf(h)) != nil {
			return nil, false
		}
		y.put(seed, b.compile(h))
	}
	return &y, true
}

// allFaults lists the faults of the listeners, then those of the hosts in their order.
func (t *Table[V]) allFaults() []Fault {
	out := slices.Clone(t.plan.faults)
	if len(t.faults) == 0 {
		return out
	}
	hosts := t.hosts
	if !t.twice { // then their names order them, and the many without a fault need not be looked at
		hosts = make([]*ir.Host, 0, len(t.faults))
		for h := range t.faults {
			hosts = append(hosts, h)
		}
		slices.SortFunc(hosts, compareHosts)
	}
	for _, h := range hosts {
		out = append(out, t.faults[h]...)
	}
	return out
}
