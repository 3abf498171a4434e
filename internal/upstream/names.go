package upstream

import (
	"container/heap"
	"fmt"
	"net/netip"
	"slices"

	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// NameStats counts names and lookups.
type NameStats struct {
	Answered, Absent, Failed int64 // lookups, by outcome
	Stale                    int64 // names whose last lookup failed and whose last good addresses are used
	Unresolved               int64 // names without an address
}

// Stats returns the counts as they are now.
func (r *Resolver) Stats() NameStats {
	s := NameStats{Answered: r.outcomes[0].Load(), Absent: r.outcomes[absent-answered].Load(), Failed: r.outcomes[failed-answered].Load()}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, x := range r.byName {
		switch {
		case len(x.addrs) == 0:
			s.Unresolved++
		case x.state == failed:
			s.Stale++
		}
	}
	return s
}

// Problems says of each cluster, by key, which of its names have no address, in order.
func (r *Resolver) Problems() map[string][]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out map[string][]string
	for _, x := range r.byName {
		if x.state == unknown || len(x.addrs) > 0 {
			continue
		}
		problem := fmt.Sprintf("%q cannot be looked up", x.text)
		if x.state == absent {
			problem = fmt.Sprintf("there is no name %q, or it has no address", x.text)
		}
		for key := range x.users {
			if out == nil {
				out = map[string][]string{}
			}
			out[key] = append(out[key], problem)
		}
	}
	for _, ps := range out {
		slices.Sort(ps)
	}
	return out
}

// queue is the names by when they are looked up next.
type queue []*name

var _ heap.Interface = (*queue)(nil)

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].next.Before(q[j].next) }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push is that of heap.Interface.
func (q *queue) Push(x any) {
	n := x.(*name)
	n.index = len(*q)
	*q = append(*q, n)
}

// Pop is that of heap.Interface.
func (q *queue) Pop() any {
	last := len(*q) - 1
	n := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	n.index = -1
	return n
}

func (s *Set) find(key string) *Cluster {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clusters[key]
}

func isName(e ir.Endpoint) bool {
	_, err := netip.ParseAddr(e.Host)
	return err != nil
}

func resolve(es []ir.Endpoint, addresses func(host string) []netip.Addr) []Resolved {
	out := make([]Resolved, 0, len(es))
	for _, e := range es {
		r := Resolved{Zone: e.Zone, ForZones: e.ForZones, Ready: e.Ready, Serving: e.Serving, Weight: e.Weight}
		if a, err := netip.ParseAddr(e.Host); err == nil {
			r.Addr = netip.AddrPortFrom(a.Unmap(), e.Port)
			out = append(out, r)
			continue
		}
		r.Name = e.Host
		for _, a := range addresses(e.Host) {
			r.Addr = netip.AddrPortFrom(a.Unmap(), e.Port)
			out = append(out, r)
		}
	}
	return out
}
