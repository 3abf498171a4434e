package upstream

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// Lookup finds the addresses of a DNS name; an error keeps the last good ones. *net.Resolver's LookupNetIP fits.
type Lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)

// refresh is how often names are looked up again. Go's resolver does not tell a record's TTL, so it is near the lower end
// of DESIGN.md's bounds (5 s to 5 min): late by little, at a cost of one query per name and interval.
const refresh = 10 * time.Second

// Resolver turns endpoints, some of them DNS names, into addresses, and keeps them fresh.
type Resolver struct {
	set    *Set
	lookup Lookup
	log    *slog.Logger

	mu    sync.Mutex
	named map[string]*named // clusters with at least one name, by key
}

type named struct {
	endpoints []ir.Endpoint
	last      map[string][]netip.Addr // by name
}

// NewResolver returns a resolver for the clusters of set.
func NewResolver(set *Set, lookup Lookup, log *slog.Logger) *Resolver {
	return &Resolver{set: set, lookup: lookup, log: log, named: map[string]*named{}}
}

// Apply sets a cluster's endpoints. Addresses are there when it returns; a name that was never looked up is looked up
// first, for at most two seconds, so that a cluster is not empty for the time of its first query.
func (r *Resolver) Apply(ctx context.Context, c *Cluster, es []ir.Endpoint) {
	if !slices.ContainsFunc(es, isName) {
		r.mu.Lock()
		delete(r.named, c.Key)
		r.mu.Unlock()
		c.SetEndpoints(resolve(es, nil))
		return
	}
	r.mu.Lock()
	n := r.named[c.Key]
	if n == nil {
		n = &named{last: map[string][]netip.Addr{}}
		r.named[c.Key] = n
	}
	n.endpoints = es
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	r.refresh(ctx, c.Key, false)
}

// Forget drops a cluster that is no longer named.
func (r *Resolver) Forget(key string) {
	r.mu.Lock()
	delete(r.named, key)
	r.mu.Unlock()
}

// Run looks names up again until ctx ends.
func (r *Resolver) Run(ctx context.Context) {
	t := time.NewTicker(refresh)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		r.mu.Lock()
		keys := make([]string, 0, len(r.named))
		for k := range r.named {
			keys = append(keys, k)
		}
		r.mu.Unlock()
		for _, k := range keys {
			r.refresh(ctx, k, true)
		}
	}
}

// refresh looks up the names of one cluster: all, or those that are not known yet.
func (r *Resolver) refresh(ctx context.Context, key string, all bool) {
	r.mu.Lock()
	n := r.named[key]
	if n == nil {
		r.mu.Unlock()
		return
	}
	es := n.endpoints
	want := map[string]bool{}
	for _, e := range es {
		if isName(e) && (all || n.last[e.Host] == nil) {
			want[e.Host] = true
		}
	}
	r.mu.Unlock()
	found := map[string][]netip.Addr{}
	for name := range want {
		as, err := r.lookup(ctx, "ip", name)
		if err != nil || len(as) == 0 {
			r.log.Warn("name not resolved", "cluster", key, "name", name, "err", err)
			continue
		}
		slices.SortFunc(as, netip.Addr.Compare)
		found[name] = as
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.named[key] != n {
		return // replaced meanwhile
	}
	for name, as := range found {
		n.last[name] = as
	}
	c := r.set.find(key)
	if c != nil {
		c.SetEndpoints(resolve(n.endpoints, n.last))
	}
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

func resolve(es []ir.Endpoint, names map[string][]netip.Addr) []Resolved {
	out := make([]Resolved, 0, len(es))
	for _, e := range es {
		r := Resolved{Zone: e.Zone, ForZones: e.ForZones, Ready: e.Ready, Serving: e.Serving, Weight: e.Weight}
		if a, err := netip.ParseAddr(e.Host); err == nil {
			r.Addr = netip.AddrPortFrom(a.Unmap(), e.Port)
			out = append(out, r)
			continue
		}
		r.Name = e.Host
		for _, a := range names[e.Host] {
			r.Addr = netip.AddrPortFrom(a.Unmap(), e.Port)
			out = append(out, r)
		}
	}
	return out
}
