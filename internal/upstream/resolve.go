package upstream

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// Lookup finds the addresses of a DNS name, and for how long they hold. An error that is a *net.DNSError with IsNotFound says that there
// are none, for ttl; any other that nothing is known, or, with addresses, that nothing is known of the other family.
type Lookup func(ctx context.Context, name string) (addrs []netip.Addr, ttl time.Duration, err error)

// System makes a Lookup of a resolver that tells no TTL, such as *net.Resolver by its LookupNetIP.
func System(lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)) Lookup {
	return func(ctx context.Context, name string) ([]netip.Addr, time.Duration, error) {
		as, err := lookup(ctx, "ip", name)
		return as, unknownTTL, err
	}
}

// Bounds of how names are looked up; docs/design/names.md says why.
const (
	minTTL       = 5 * time.Second
	maxTTL       = 5 * time.Minute
	unknownTTL   = 10 * time.Second
	lookupTime   = 30 * time.Second // of one lookup
	firstRetry   = 5 * time.Second  // after a lookup that failed, doubled each time
	lastRetry    = time.Minute
	staleFor     = 24 * time.Hour  // that the last good addresses are used (RFC 8767 section 5)
	handoverTime = 2 * time.Second // that the endpoints of before stay while a new name is first looked up
)

// lane says with which others a name's lookup shares the bound, so that names that fail hold up neither those that work nor new ones.
type lane int

const (
	laneKnown lane = iota
	laneNew
	laneFailing
	lanes
)

var laneSize = [lanes]int{laneKnown: 64, laneNew: 128, laneFailing: 64}

// Resolver turns endpoints, some of them DNS names, into addresses, and keeps them fresh. Each name is looked up once, however many
// clusters have it, by its own clock.
type Resolver struct {
	set    *Set
	lookup Lookup
	log    *slog.Logger
	wake   chan struct{} // due has a new first
	// Changed is called when Problems has changed; it must not wait. It is set before the first Apply.
	Changed func()

	outcomes [3]atomic.Int64 // by state, of answered on

	mu       sync.Mutex
	clusters map[string]*named // by key
	byName   map[string]*name
	due      queue
	waiting  [lanes][]*name
	running  [lanes]int
	fresh    []*name // since the last Wait
}

// named is the endpoints of a cluster.
type named struct {
	endpoints []ir.Endpoint
	names     bool       // one at least is a name
	held      []Resolved // what stays while a name is first looked up, until handover
	handover  time.Time
}

type state int

const (
	unknown  state = iota
	answered       // with addresses
	absent         // no such name, or no address of it
	failed
)

// name is what is known of a DNS name.
type name struct {
	text     string
	users    map[string]*named
	addrs    []netip.Addr // in order
	good     time.Time    // when both families were last answered
	state    state
	failures int  // in a row
	half     bool // the last answer was for one family, and the other failed
	next     time.Time
	index    int           // in due; -1: it is not there
	first    chan struct{} // closed after the first lookup
}

// NewResolver returns a resolver for the clusters of set.
func NewResolver(set *Set, lookup Lookup, log *slog.Logger) *Resolver {
	return &Resolver{set: set, lookup: lookup, log: log, wake: make(chan struct{}, 1), Changed: func() {}, clusters: map[string]*named{}, byName: map[string]*name{}}
}

// Apply sets a cluster's endpoints and does not wait: addresses and names that are known are there when it returns. The lookup of
// a new name begins, and ends with ctx. Until it is known, two seconds at most, the endpoints that the new ones take the place of stay.
func (r *Resolver) Apply(ctx context.Context, c *Cluster, es []ir.Endpoint) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.clusters[c.Key]
	n := &named{endpoints: es, names: slices.ContainsFunc(es, isName)}
	r.clusters[c.Key] = n
	isNew := false
	if n.names {
		for _, e := range es {
			if isName(e) {
				isNew = r.use(c.Key, n, e.Host) || isNew
			}
		}
	}
	if old != nil {
		if isNew {
			n.hold(r.resolved(old), r.resolved(n))
			time.AfterFunc(handoverTime, func() { r.handOver(c.Key, n) })
		}
		r.disuse(c.Key, old)
	}
	c.SetEndpoints(r.resolved(n))
	r.start(ctx)
}

// use notes that a cluster has a name, and reports whether it was never looked up.
func (r *Resolver) use(key string, n *named, text string) bool {
	x := r.byName[text]
	if x == nil {
		x = &name{text: text, users: map[string]*named{}, index: -1, first: make(chan struct{})}
		r.byName[text] = x
		r.fresh = append(r.fresh, x)
		r.waiting[laneNew] = append(r.waiting[laneNew], x)
	}
	x.users[key] = n
	return x.state == unknown
}

// disuse takes a cluster's former endpoints from the names that it no longer has.
func (r *Resolver) disuse(key string, old *named) {
	for _, e := range old.endpoints {
		x := r.byName[e.Host]
		if x == nil || x.users[key] != old {
			continue
		}
		delete(x.users, key)
		if len(x.users) == 0 {
			delete(r.byName, x.text)
			if x.index >= 0 {
				heap.Remove(&r.due, x.index)
			}
		}
	}
}

// hold keeps the addresses of names that go, or all endpoints if nothing would be left.
func (n *named) hold(before, after []Resolved) {
	for _, b := range before {
		gone := !slices.ContainsFunc(n.endpoints, func(e ir.Endpoint) bool { return e.Host == b.Name })
		if len(after) == 0 || b.Name != "" && gone {
			n.held = append(n.held, b)
		}
	}
	n.handover = time.Now().Add(handoverTime)
}

// handOver ends the time of the endpoints that were held.
func (r *Resolver) handOver(key string, n *named) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.clusters[key] == n && n.held != nil {
		n.held = nil
		r.fill(key, n)
	}
}

// resolved is a cluster's endpoints as they are known now.
func (r *Resolver) resolved(n *named) []Resolved {
	pending := false
	rs := resolve(n.endpoints, func(host string) []netip.Addr {
		x := r.byName[host]
		pending = pending || x.state == unknown
		return x.addrs
	})
	if pending && time.Now().Before(n.handover) {
		return append(rs, n.held...)
	}
	n.held = nil
	return rs
}

func (r *Resolver) fill(key string, n *named) {
	if c := r.set.find(key); c != nil {
		c.SetEndpoints(r.resolved(n))
	}
}

// Wait waits until the names that are new since it was last called have been looked up, all together for at most limit.
func (r *Resolver) Wait(ctx context.Context, limit time.Duration) {
	r.mu.Lock()
	fresh := r.fresh
	r.fresh = nil
	r.mu.Unlock()
	if len(fresh) == 0 {
		return
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	for _, x := range fresh {
		select {
		case <-x.first:
		case <-t.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// Forget drops a cluster that is no longer named.
func (r *Resolver) Forget(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := r.clusters[key]; n != nil {
		delete(r.clusters, key)
		r.disuse(key, n)
	}
}

// Run looks names up again, each at its own time, until ctx ends.
func (r *Resolver) Run(ctx context.Context) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-r.wake:
		}
		now := time.Now()
		r.mu.Lock()
		for len(r.due) > 0 && !r.due[0].next.After(now) {
			x := heap.Pop(&r.due).(*name)
			in := laneKnown
			if x.state == failed {
				in = laneFailing
			}
			r.waiting[in] = append(r.waiting[in], x)
		}
		r.start(ctx)
		if len(r.due) > 0 {
			t.Reset(r.due[0].next.Sub(now))
		}
		r.mu.Unlock()
	}
}

// start begins the lookups that wait and have room.
func (r *Resolver) start(ctx context.Context) {
	for in := range lanes {
		for len(r.waiting[in]) > 0 && r.running[in] < laneSize[in] {
			x := r.waiting[in][0]
			r.waiting[in][0] = nil
			r.waiting[in] = r.waiting[in][1:]
			if r.byName[x.text] != x {
				continue // dropped meanwhile
			}
			r.running[in]++
			go r.refresh(ctx, x, in)
		}
	}
}

// refresh looks one name up.
func (r *Resolver) refresh(ctx context.Context, x *name, in lane) {
	addrs, ttl, err := r.ask(ctx, x.text)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running[in]--
	if r.byName[x.text] == x && ctx.Err() == nil {
		r.learn(x, addrs, ttl, err)
	}
	r.start(ctx)
}

// ask is the lookup, within its time. One that panics has failed, and that is all.
func (r *Resolver) ask(ctx context.Context, text string) (addrs []netip.Addr, ttl time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	defer func() {
		if v := recover(); v != nil {
			r.log.Error("panic in a lookup", "name", text, "panic", v, "stack", string(debug.Stack()))
			addrs, err = nil, fmt.Errorf("panic: %v", v)
		}
	}()
	return r.lookup(ctx, text)
}

// learn takes the outcome of a lookup.
func (r *Resolver) learn(x *name, addrs []netip.Addr, ttl time.Duration, err error) {
	now := time.Now()
	before, was, half := x.addrs, x.state, x.half
	x.half = err != nil && len(addrs) > 0
	var dns *net.DNSError
	switch {
	case err == nil && len(addrs) == 0 || errors.As(err, &dns) && dns.IsNotFound:
		x.state, x.addrs, x.failures = absent, nil, 0
	case len(addrs) == 0:
		x.state = failed
		x.failures++
		ttl = min(firstRetry<<min(x.failures-1, 8), lastRetry)
		if now.Sub(x.good) > staleFor {
			x.addrs = nil
		}
	default:
		if err == nil {
			x.good = now
		} else if now.Sub(x.good) <= staleFor {
			addrs = append(addrs, otherFamily(x.addrs, addrs)...)
		}
		addrs = slices.Clone(addrs)
		slices.SortFunc(addrs, netip.Addr.Compare)
		x.state, x.addrs, x.failures = answered, slices.Compact(addrs), 0
	}
	r.outcomes[x.state-answered].Add(1)
	x.next = now.Add(min(max(ttl, minTTL), maxTTL))
	heap.Push(&r.due, x)
	select {
	case r.wake <- struct{}{}:
	default:
	}
	r.tell(x, was, half, err)
	if len(before) == 0 != (len(x.addrs) == 0) || len(x.addrs) == 0 && was != x.state {
		r.Changed()
	}
	if was == unknown || !slices.Equal(before, x.addrs) {
		for key, n := range x.users {
			r.fill(key, n)
		}
	}
	if was == unknown {
		close(x.first)
	}
}

// tell logs what has changed about a name.
func (r *Resolver) tell(x *name, was state, half bool, err error) {
	if was == x.state && half == x.half {
		return
	}
	switch x.state {
	case absent:
		r.log.Warn("name of a backend does not exist or has no address: it has no endpoints", "name", x.text, "err", err)
	case failed:
		r.log.Warn("name of a backend cannot be looked up: its last addresses are used", "name", x.text, "addresses", len(x.addrs), "err", err)
	default:
		if x.half {
			r.log.Warn("addresses of one family cannot be looked up for a name of a backend: the last ones are used", "name", x.text, "err", err)
		} else if was != unknown {
			r.log.Info("name of a backend is resolved again", "name", x.text, "addresses", len(x.addrs))
		}
	}
}

// otherFamily is those of before that are of a family of which there is none among now.
func otherFamily(before, now []netip.Addr) (out []netip.Addr) {
	for _, b := range before {
		if !slices.ContainsFunc(now, func(a netip.Addr) bool { return a.Is4() == b.Is4() }) {
			out = append(out, b)
		}
	}
	return out
}
