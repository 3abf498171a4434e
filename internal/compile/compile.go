// Package compile turns one version of the IR into a proxy.Snapshot and finds the faults that only policies can find:
// specs that do not compile, patterns that cannot be matched. What is faulty never stops the rest. It keeps the compiled form of
// hosts and routes that did not change, and reaches neither sockets nor files.
package compile

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gaissmai/bart"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/proxy"
	"github.com/gatehouse-io/gatehouse/internal/route"
	"github.com/gatehouse-io/gatehouse/internal/upstream"
)

// Compiler compiles one version after another.
type Compiler struct {
	steps    map[string]policy.Step
	clusters *upstream.Set
	env      policy.Env
	recorder proxy.Recorder
	table    *route.Table[*proxy.Route]
	hosts    []*ir.Host          // that are compiled
	states   map[*ir.Host]*state // of those whose routes have steps
	names    tally[string]       // of their routes
	version  uint64
	held     *holding // by the snapshot made last
	lives    lives
	told     map[string]*proxy.Listener // of the snapshot made last, by key: see guard
}

// kept is what a compiled step has to say beside its handler.
type kept struct {
	faults      []diag.Fault
	lives       []*live
	identity    []string // header fields in which it tells who calls
	secrets     []string // query parameters in which clients send credentials
	certificate bool     // clients are asked for one
	closed      bool     // it stands in for a policy with a fault
}

// holding is the clusters that snapshots hold, shared by all that name the same ones.
type holding struct {
	names    []*ir.Cluster
	clusters map[string]*upstream.Cluster
	users    atomic.Int64
}

// hold returns what a snapshot of cfg holds, counted once more.
func (c *Compiler) hold(cfg *ir.Config) *holding {
	h := c.held
	if h == nil || !slices.Equal(h.names, cfg.Clusters) || !h.use() {
		h = &holding{names: cfg.Clusters, clusters: make(map[string]*upstream.Cluster, len(cfg.Clusters))}
		for _, k := range cfg.Clusters {
			h.clusters[k.Key] = c.clusters.Acquire(k.Key)
		}
		h.users.Store(1)
		c.held = h
	}
	return h
}

// use counts one more user, unless the last one has gone.
func (h *holding) use() bool {
	for n := h.users.Load(); n > 0; n = h.users.Load() {
		if h.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
	return false
}

func (h *holding) release(set *upstream.Set) {
	if h.users.Add(-1) == 0 {
		for _, k := range h.clusters {
			set.Release(k)
		}
	}
}

// New returns a compiler for the steps of a list, which holds one called "invalid" for what does not compile.
// Steps get env, whose Live may be RunLive.
func New(steps []policy.Step, clusters *upstream.Set, env policy.Env, recorder proxy.Recorder) *Compiler {
	c := &Compiler{steps: map[string]policy.Step{}, clusters: clusters, env: env, recorder: recorder,
		states: map[*ir.Host]*state{}, names: tally[string]{}}
	c.lives.values = map[string]*live{}
	for _, s := range steps {
		c.steps[s.Name] = s
	}
	return c
}

// run is one compilation.
type run struct {
	*Compiler
	held  map[string]*upstream.Cluster
	cache map[*ir.Step]*compiled
	own   state // of listeners' own steps
}

// compiled is a step and what it notes about each host that has it.
type compiled struct {
	step proxy.Step
	kept
}

// Compile makes a snapshot of cfg, holding every cluster that cfg names until its Release. Faults are those of the whole
// configuration, also of parts that were compiled earlier.
func (c *Compiler) Compile(cfg *ir.Config) (*proxy.Snapshot, []diag.Fault) {
	held := c.hold(cfg)
	r := &run{Compiler: c, held: held.clusters, cache: map[*ir.Step]*compiled{}, own: state{steps: map[*ir.Step]*used{}}}
	was := r.account(cfg)
	c.retain(cfg)
	table, unmatched := route.Update(c.table, cfg, r.route, func(a, b *ir.Host) bool { return was[a] == c.states[b].pathSensitive(b) })
	c.table = table
	c.version++
	s := &proxy.Snapshot{Config: cfg, Version: c.version, Table: table, Listeners: map[string]*proxy.Listener{},
		Clusters: held.clusters, Sockets: map[proxy.SocketKey]*proxy.Settings{}}
	var out []diag.Fault
	var exceptions []netip.Prefix
	for _, l := range cfg.Listeners {
		exceptions = append(exceptions, l.Backends...)
		p := compileListener(l)
		for _, st := range l.Steps {
			r.use(&r.own, st, 1)
		}
		p.Steps = r.own.stepsOf(l.Steps)
		p.Counters = c.recorder.Listener(l.Key)
		s.Listeners[l.Key] = p
		if l.Client != nil {
			k := proxy.SocketKey{Group: l.Group, Port: l.Port}
			if s.Sockets[k] == nil {
				s.Sockets[k] = &proxy.Settings{}
			}
			s.Sockets[k].Tighten(l.Client)
		}
	}
	for _, l := range cfg.Listeners {
		if k := s.Sockets[proxy.SocketKey{Group: l.Group, Port: l.Port}]; k != nil {
			k.Listeners = append(k.Listeners, s.Listeners[l.Key])
		}
	}
	c.clusters.Except(contains(exceptions))
	for _, f := range unmatched {
		out = append(out, unmatchedFault(f))
	}
	c.guard(s)
	lives := c.lives.hold(func(yield func(*live) bool) {
		for st := range r.all() {
			for l := range st.lives {
				if !yield(l) {
					return
				}
			}
		}
	})
	s.Release = func() {
		held.release(c.clusters)
		c.lives.release(lives)
	}
	for st := range r.all() {
		for f := range st.faults {
			out = append(out, f)
		}
	}
	diag.SortFaults(out)
	return s, slices.Compact(out)
}

// all are the states of hosts and that of the listeners.
func (r *run) all() iter.Seq[*state] {
	return func(yield func(*state) bool) {
		if !yield(&r.own) {
			return
		}
		for _, s := range r.states {
			if !yield(s) {
				return
			}
		}
	}
}

// retain drops the counters of listeners and routes that are gone, so that those which come find room.
func (c *Compiler) retain(cfg *ir.Config) {
	listeners := make(map[string]bool, len(cfg.Listeners))
	for _, l := range cfg.Listeners {
		listeners[l.Key] = true
	}
	c.recorder.Retain(func(key string) bool { return listeners[key] }, func(name string) bool { return c.names[name] > 0 })
}

// guard tells listeners what their hosts' steps need of every request. A policy with a fault no longer says in which fields it tells who
// calls: as long as there is one, clients may not send those of before on the routes that are still open.
func (c *Compiler) guard(s *proxy.Snapshot) {
	for h, k := range c.states {
		if len(k.identity)+len(k.secrets)+k.certificate+k.closed == 0 {
			continue
		}
		l := s.Listeners[h.Listener]
		if l == nil {
			continue
		}
		l.ClientCertificate = l.ClientCertificate || k.certificate > 0
		l.Identity = union(l.Identity, slices.Collect(maps.Keys(k.identity)))
		l.QuerySecrets = union(l.QuerySecrets, slices.Collect(maps.Keys(k.secrets)))
		if old := c.told[h.Listener]; k.closed > 0 && old != nil {
			l.Identity, l.QuerySecrets = union(l.Identity, old.Identity), union(l.QuerySecrets, old.QuerySecrets)
		}
	}
	for _, l := range s.Listeners {
		slices.Sort(l.Identity)
		slices.Sort(l.QuerySecrets)
	}
	c.told = s.Listeners
}

func unmatchedFault(f route.Fault) diag.Fault {
	d := diag.Fault{Path: f.Path, Message: f.Message, Reason: "Unmatchable"}
	switch {
	case f.Route != nil:
		d.Object = object(f.Route.Source)
		d.Path = f.Route.Source.Field
		if f.Path != "" {
			d.Path += "." + f.Path
		}
	case f.Listener != nil:
		d.Object = object(f.Listener.Source)
	case f.Host != nil:
		d.Object = diag.Ref{Kind: "Host", Name: f.Host.Hostname}
	}
	return d
}

func object(s ir.Source) diag.Ref {
	return diag.Ref{Kind: s.Kind, Namespace: s.Namespace, Name: s.Name}
}

// route compiles one route of a host that changed.
func (r *run) route(h *ir.Host, c *ir.Route) *proxy.Route {
	s := r.states[h]
	p := &proxy.Route{Config: c, Name: c.Name, Steps: s.stepsOf(c.Steps), PathSensitive: s.pathSensitive(h),
		Counters: r.recorder.Route(c.Name, c.Source.Object())}
	if c.Match.Path.Kind == ir.PathPrefix || c.Match.Path.Kind == "" {
		p.Prefix = c.Match.Path.Value
		if p.Prefix == "" {
			p.Prefix = "/"
		}
	}
	for i := range c.Backends {
		b := &c.Backends[i]
		pb := proxy.Backend{Config: b, Weight: uint64(b.Weight), Steps: s.stepsOf(b.Steps)}
		if b.Cluster != "" {
			pb.Cluster = r.held[b.Cluster]
		}
		p.Total += pb.Weight
		p.Backends = append(p.Backends, pb)
	}
	if d := c.Timeouts.Request; d != nil {
		p.Request, p.Unlimited = time.Duration(*d), *d == 0
	}
	if d := c.Timeouts.Backend; d != nil {
		p.Backend = time.Duration(*d)
		p.Unlimited = p.Unlimited || *d == 0
	}
	return p
}

func (s *state) stepsOf(ss []*ir.Step) []proxy.Step {
	if len(ss) == 0 {
		return nil
	}
	out := make([]proxy.Step, 0, len(ss))
	for _, st := range ss {
		out = append(out, s.steps[st].step)
	}
	return out
}

// compiled is a step, compiled once in a run.
func (r *run) compiled(s *ir.Step) *compiled {
	c := r.cache[s]
	if c == nil {
		c = r.step(s)
		r.cache[s] = c
	}
	return c
}

func union[T comparable](a, b []T) []T {
	for _, v := range b {
		if !slices.Contains(a, v) {
			a = append(a, v)
		}
	}
	return a
}

// step compiles one step. A step that does not compile answers 503 policy_invalid in its place: what cannot be enforced
// is not passed over.
func (r *run) step(s *ir.Step) *compiled {
	c := &compiled{step: proxy.Step{Config: s}}
	if ph, ok := policy.ParsePhase(s.Phase); ok {
		c.step.Phase = ph
	}
	h, err := r.handler(s, c)
	if err != nil {
		c.note(s, err)
		h = r.invalid(err)
	}
	c.closed = err != nil || s.Name == "invalid"
	for _, name := range h.Identity {
		c.identity = append(c.identity, strings.ReplaceAll(strings.ToLower(name), "_", "-"))
	}
	c.certificate, c.secrets = h.ClientCertificate, h.QuerySecrets
	c.step.Handler = h
	return c
}

func (r *run) handler(s *ir.Step, c *compiled) (policy.Handler, error) {
	def, ok := r.steps[s.Name]
	if !ok {
		return policy.Handler{}, fmt.Errorf("no step is called %q", s.Name)
	}
	spec, err := def.Decode(s.Spec)
	if err != nil {
		return policy.Handler{}, fmt.Errorf("decoding: %w", err)
	}
	env := r.env
	env.Target, env.Refs = s.Target.String(), s.Refs
	env.Sources = make(map[string]string, len(s.Sources))
	for path, src := range s.Sources {
		env.Sources[path] = src.Object()
	}
	if env.Live != nil {
		env.Live = opener{&r.lives, &c.kept}
	}
	return spec.Compile(env)
}

// invalid is the handler of the step "invalid", which answers 503 policy_invalid.
func (r *run) invalid(why error) policy.Handler {
	def := r.steps["invalid"]
	raw, err := json.Marshal(map[string]string{"reason": "policy_invalid", "detail": why.Error()})
	if err != nil {
		panic(err) // two strings
	}
	spec, err := def.Decode(raw)
	if err != nil {
		panic(fmt.Sprintf("compile: the step invalid does not take its own spec: %v", err))
	}
	h, err := spec.Compile(policy.Env{})
	if err != nil {
		panic(fmt.Sprintf("compile: the step invalid does not compile: %v", err))
	}
	return h
}

// note keeps what is wrong with a step.
func (k *kept) note(s *ir.Step, err error) {
	src := s.Source()
	for _, e := range flatten(err) {
		f := diag.Fault{Object: object(src), Path: src.Field, Message: e.Error(), Reason: "Invalid"}
		var p *diag.Problem
		if errors.As(e, &p) {
			f.Message, f.Hint = p.Msg, p.Hint
			f.Path = diag.Join(f.Path, p.Path)
		}
		k.faults = append(k.faults, f)
	}
}

func flatten(err error) []error {
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range j.Unwrap() {
			out = append(out, flatten(e)...)
		}
		return out
	}
	return []error{err}
}

func compileListener(l *ir.Listener) *proxy.Listener {
	p := &proxy.Listener{Config: l}
	if len(l.Backends) > 0 {
		p.Backend = contains(l.Backends)
	}
	c := l.Client
	if c == nil {
		return p
	}
	p.KeepEscapes, p.RejectEscapes = c.EscapedSlashes == "Keep", c.EscapedSlashes == "Reject"
	p.KeepEmpty, p.MergeEmpty = c.EmptySegments == "Keep", c.EmptySegments == "Merge"
	if c.Address == "XForwardedFor" || c.Address == "Header" {
		p.Trusted = contains(c.Trusted)
		p.Header = c.AddressHeader
	}
	return p
}

func contains(ns []netip.Prefix) func(netip.Addr) bool {
	var nets bart.Lite
	for _, n := range ns {
		nets.Insert(n.Masked())
	}
	return nets.Contains
}
