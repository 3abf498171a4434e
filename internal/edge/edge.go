// Package edge is the apply loop of the data side: what the feed holds becomes sockets, certificates, clusters and a
// snapshot, in an order in which nothing is served before all that it needs is there, and is acknowledged when it is
// live. It is the same in one process and, later, in a managed proxy.
package edge

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/cert"
	"github.com/gatehouse-io/gatehouse/internal/compile"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/drive"
	"github.com/gatehouse-io/gatehouse/internal/feed"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/listener"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/proxy"
	"github.com/gatehouse-io/gatehouse/internal/secret"
	"github.com/gatehouse-io/gatehouse/internal/telemetry"
	"github.com/gatehouse-io/gatehouse/internal/upstream"
)

// Options of an Edge.
type Options struct {
	Feed     *feed.Memory
	Steps    []policy.Step
	Recorder *telemetry.Recorder
	Keys     policy.KeyStore // issued keys; nil: there are none
	Limiter  policy.Limiter  // nil: nothing is limited
	// Country is that of policy.Env; nil: no database.
	Country func(netip.Addr) (string, bool)
	Log     *slog.Logger
	Allow   func(netip.Addr) bool // which backend addresses may be dialled; nil: all
	Lookup  upstream.Lookup       // of the names of backends and of servers that policies ask; nil: Go's resolver, which tells no TTL
	Zone    string                // topology zone of this process, "": not known
	// BodyWindow is the time over which a client's rate of sending a body is measured, in whole seconds; 0: 30 s.
	BodyWindow time.Duration
	// Finish is how long connections may go on whose listener is gone; 0: 40 s.
	Finish time.Duration
	// Upgrades are protocols that clients may change to beside websocket.
	Upgrades []string
	// MemoryLimit is how many bytes of memory the process may use; 0: without end, and it is never overloaded.
	MemoryLimit int64
	// Memory counts the bytes in use; nil: Memory of this package.
	Memory func() int64
}

// Edge is a data side.
type Edge struct {
	o         Options
	clusters  *upstream.Set
	resolver  *upstream.Resolver
	secrets   secret.Store
	compiler  *compile.Compiler
	calls     *Calls
	proxy     *proxy.Edge
	driver    *drive.Driver
	listeners *listener.Set
	ready     atomic.Bool
	rebound   chan struct{} // what is acknowledged has changed by itself: a bind, or a name of a backend

	// Of the apply loop alone.
	seen      feed.State
	stores    cert.Stores
	certFault []diag.Fault
	wanted    []listener.Socket
	asks      map[string]bool // listeners whose clients are asked for a certificate
	backends  map[string]backendTLS
	checks    map[string]checker
	filled    map[string]bool // clusters whose endpoints were set
	faults    []diag.Fault    // of compiling
	refused   map[string]listener.State
	notes     map[string]string // of listeners, as they were told
	snapshot  *proxy.Snapshot
}

// backendTLS is the settings made for a cluster, kept while nothing they were made of changes.
type backendTLS struct {
	config   *ir.Cluster
	material []*secret.Material
	settings *upstream.Settings
}

// checker is the goroutine that asks the endpoints of a cluster for their health.
type checker struct{ stop context.CancelFunc }

// Times of DESIGN.md, "Default limits".
const (
	headerTime  = 10 * time.Second
	idleTime    = 90 * time.Second
	trustedIdle = 620 * time.Second // longer than large load balancers keep a connection (600 s): it is they who close it
	writeStall  = 60 * time.Second
	bodyRate    = 240
	bodyWindow  = 30 * time.Second
)

// How long an apply waits for all names that it brings: the first one, with which serving begins, and those that follow.
const (
	firstNames = 2 * time.Second
	laterNames = 50 * time.Millisecond
)

// New makes an Edge that serves nothing yet.
func New(o Options) *Edge {
	if o.Lookup == nil {
		o.Lookup = upstream.System(net.DefaultResolver.LookupNetIP)
	}
	e := &Edge{o: o, backends: map[string]backendTLS{}, checks: map[string]checker{}, rebound: make(chan struct{}, 1)}
	e.clusters = upstream.NewSet(upstream.Rules{Allow: o.Allow, Own: func(a netip.AddrPort) bool { return e.listeners.Owns(a) }, Zone: o.Zone})
	e.resolver = upstream.NewResolver(e.clusters, o.Lookup, o.Log)
	e.proxy = proxy.NewEdge(o.Recorder)
	e.calls = NewCalls(e.clusters, o.Lookup)
	e.compiler = compile.New(o.Steps, e.clusters, policy.Env{Call: e.calls, Secret: &e.secrets, Live: compile.RunLive{}, Keys: o.Keys, Limiter: o.Limiter, Country: o.Country}, o.Recorder)
	e.driver = &drive.Driver{Edge: e.proxy, Clusters: e.clusters, Log: o.Log, Header: headerTime, Idle: idleTime,
		TrustedIdle: trustedIdle, WriteStall: writeStall, HeadMemory: o.MemoryLimit / headPart,
		BodyRate: bodyRate, BodyWindow: cmp.Or(o.BodyWindow, bodyWindow), Upgrades: o.Upgrades}
	again := func() {
		select {
		case e.rebound <- struct{}{}:
		default:
		}
	}
	e.resolver.Changed = again
	e.listeners = listener.New(listener.Options{Serve: e.driver.Serve, Log: o.Log, Finish: o.Finish, Changed: again})
	return e
}

// Run applies what the feed brings until ctx ends. It leaves what it serves as it is: Drain ends that.
func (e *Edge) Run(ctx context.Context) {
	go e.resolver.Run(ctx)
	if e.o.MemoryLimit > 0 {
		go e.watchMemory(ctx)
	}
	sweep := time.NewTicker(time.Second)
	defer sweep.Stop()
	for {
		st, changed := e.o.Feed.Latest()
		if st.ConfigVersion > 0 && st.EndpointsVersion > 0 && st.SecretsVersion > 0 {
			e.apply(ctx, st)
		}
	wait:
		for {
			select {
			case <-ctx.Done():
				return
			case <-changed:
				break wait
			case <-e.rebound:
				e.acknowledge(e.listeners.States())
			case <-e.proxy.Left():
				e.proxy.Collect()
			case now := <-sweep.C:
				e.clusters.Sweep(now)
			}
		}
	}
}

// apply makes a state live. The order matters: secrets and clusters first, then the sockets, then the snapshot that sends traffic to
// them.
func (e *Edge) apply(ctx context.Context, st feed.State) {
	old := e.seen
	secrets, config := st.SecretsVersion != old.SecretsVersion, st.ConfigVersion != old.ConfigVersion
	if secrets {
		e.secrets.Swap(st.Secrets)
	}
	next := e.snapshot
	if config {
		next, e.faults = e.compiler.Compile(st.Config)
	}
	clusters := old.Config == nil || config && !slices.Equal(old.Config.Clusters, st.Config.Clusters)
	stores := (secrets || config) && e.certificates(st)
	if secrets || clusters {
		e.configure(ctx, st)
	}
	if clusters || st.EndpointsVersion != old.EndpointsVersion {
		e.endpoints(ctx, st, old.Endpoints)
	}
	e.seen = st
	var states map[string]listener.State
	sockets := e.sockets(old.Config, st.Config, next, stores)
	if config { // before the sockets: one that is new must find its routes
		e.proxy.Swap(next)
		e.snapshot = next
	}
	if sockets {
		states = e.listeners.Apply(e.wanted)
		if !e.ready.Load() {
			e.listeners.Start()
			e.ready.Store(true)
		}
	} else {
		states = e.listeners.States()
	}
	e.acknowledge(states)
}

// configure gives every cluster its settings. They are made anew only when something they are made of has changed, because
// TLS settings hold the sessions to resume.
func (e *Edge) configure(ctx context.Context, st feed.State) {
	live := make(map[string]bool, len(st.Config.Clusters))
	for _, c := range st.Config.Clusters {
		live[c.Key] = true
		b := backendTLS{config: c}
		if c.TLS != nil {
			for _, h := range append(slices.Clone(c.TLS.CAs), c.TLS.ClientID) {
				b.material = append(b.material, st.Secrets[h])
			}
		}
		if old, ok := e.backends[c.Key]; ok && old.config == c && slices.Equal(old.material, b.material) {
			continue
		}
		b.settings = upstream.SettingsOf(c, st.Secrets)
		e.backends[c.Key] = b
		k := e.clusters.Acquire(c.Key)
		k.Configure(b.settings)
		e.check(ctx, k)
		e.clusters.Release(k)
	}
	maps.DeleteFunc(e.checks, func(k string, c checker) bool {
		if !live[k] {
			c.stop()
		}
		return !live[k]
	})
	maps.DeleteFunc(e.backends, func(k string, _ backendTLS) bool { return !live[k] })
}

// check has the endpoints of a cluster asked for their health if its settings want it. It is started anew with them, so that a
// shorter interval counts at once.
func (e *Edge) check(ctx context.Context, k *upstream.Cluster) {
	if old, ok := e.checks[k.Key]; ok {
		old.stop()
		delete(e.checks, k.Key)
	}
	if k.Settings().Active != nil {
		ctx, stop := context.WithCancel(ctx)
		e.checks[k.Key] = checker{stop}
		go e.driver.Check(ctx, k)
	}
}

// endpoints fills the clusters whose endpoints have changed, and those that are new. Names that are new are looked up beside: a change
// waits for its own, all together and not for long, and never for those of another.
func (e *Edge) endpoints(ctx context.Context, st feed.State, old ir.Endpoints) {
	filled := make(map[string]bool, len(st.Config.Clusters))
	for _, c := range st.Config.Clusters {
		es := st.Endpoints[c.Key]
		if !e.filled[c.Key] || !same(old[c.Key], es) {
			k := e.clusters.Acquire(c.Key)
			e.resolver.Apply(ctx, k, es)
			e.clusters.Release(k)
		}
		filled[c.Key] = true
	}
	for key := range e.filled {
		if !filled[key] {
			e.resolver.Forget(key)
		}
	}
	e.filled = filled
	wait := laterNames
	if !e.ready.Load() {
		wait = firstNames
	}
	e.resolver.Wait(ctx, wait)
}

// same compares by identity: a slice that did not change is kept from one version to the next.
func same(a, b []ir.Endpoint) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// nameFaults are the names of backends that have no address now.
func (e *Edge) nameFaults() []diag.Fault {
	if e.seen.Config == nil {
		return nil
	}
	return NameFaults(e.seen.Config.Clusters, e.resolver.Problems())
}

// NameFaults are warnings of the names without an address that a resolver told of.
func NameFaults(clusters []*ir.Cluster, problems map[string][]string) (out []diag.Fault) {
	if len(problems) == 0 {
		return nil
	}
	for _, c := range clusters {
		for _, p := range problems[c.Key] {
			out = append(out, diag.Fault{Object: diag.Ref{Kind: c.Source.Kind, Namespace: c.Source.Namespace, Name: c.Source.Name},
				Path: c.Source.Field, Message: p, Hint: "write a name that DNS knows, or an address", Reason: "NameNotResolved", Severity: diag.Warning})
		}
	}
	return out
}

func (e *Edge) acknowledge(states map[string]listener.State) {
	a := feed.Ack{ConfigVersion: e.seen.ConfigVersion, EndpointsVersion: e.seen.EndpointsVersion,
		SecretsVersion: e.seen.SecretsVersion, Listeners: map[string]feed.ListenerState{}}
	notes := make(map[string]string, len(states))
	for k, s := range states {
		a.Listeners[k] = feed.ListenerState{Bound: s.Bound, Problem: s.Problem, Note: s.Note}
		if s.Note != "" && e.notes[k] != s.Note {
			e.o.Log.Info("listener bound elsewhere", "listener", k, "note", s.Note)
		}
		notes[k] = s.Note
	}
	e.notes = notes
	for k, s := range e.refused {
		a.Listeners[k] = feed.ListenerState{Bound: s.Bound, Problem: s.Problem}
	}
	a.Faults = slices.Concat(e.faults, e.certFault, e.nameFaults())
	e.o.Feed.Acknowledge(a)
}

// Ready reports whether the first snapshot is live and every bind was tried.
func (e *Edge) Ready() bool { return e.ready.Load() }

// Snapshot is what serves now, nil before the first.
func (e *Edge) Snapshot() *proxy.Snapshot { return e.proxy.Snapshot() }

// Driver is the driver, for its counters.
func (e *Edge) Driver() *drive.Driver { return e.driver }

// Listeners are the sockets, for their counters.
func (e *Edge) Listeners() *listener.Set { return e.listeners }

// Names counts the names of backends and their lookups.
func (e *Edge) Names() upstream.NameStats { return e.resolver.Stats() }

// Clusters are the live clusters, for metrics and explanations.
func (e *Edge) Clusters() *upstream.Set { return e.clusters }

// Load is how short memory is.
func (e *Edge) Load() proxy.Load { return e.proxy.Load() }

// Drain ends serving without losing what is in flight: for grace new connections are still taken, then those in use may
// finish until ctx ends. Then the idle connections to backends are closed. It returns how many exchanges did not finish.
func (e *Edge) Drain(ctx context.Context, grace time.Duration) int {
	defer e.calls.Close()
	defer e.compiler.Close()
	defer e.clusters.CloseIdle()
	defer e.proxy.Collect() // nobody else does once Run has ended
	return e.listeners.Drain(ctx, grace)
}
