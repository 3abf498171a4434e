package compile

import (
	"maps"
	"slices"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/route"
)

// state is what is known of a host beside its compiled routes, counted, so that routes that come and go change it by their share. It
// is always that of the host's routes as they are now. Hosts whose routes have no steps have none.
type state struct {
	steps   map[*ir.Step]*used
	guards  tally[string] // what guards a route, where something does
	guarded int           // routes that something guards
	readers int           // steps that guard a route and read its path

	faults      tally[diag.Fault]
	lives       tally[*live]
	identity    tally[string] // header fields in which its steps tell who calls
	secrets     tally[string] // query parameters in which clients send credentials
	certificate int           // steps for which clients are asked for one
	closed      int           // steps that stand in for a policy with a fault
}

// used is a compiled step and how often the host's routes have it.
type used struct {
	*compiled
	n int
}

// tally counts how often each value is there.
type tally[T comparable] map[T]int

func (t *tally[T]) add(v T, n int) {
	if *t == nil {
		*t = tally[T]{}
	}
	if (*t)[v] += n; (*t)[v] == 0 {
		delete(*t, v)
	}
}

// account brings states and names from the hosts of the last configuration to those of cfg. It returns what path sensitivity the
// hosts had that changed.
func (r *run) account(cfg *ir.Config) map[*ir.Host]bool {
	changes := route.Changes(r.hosts, cfg.Hosts)
	r.hosts = cfg.Hosts
	was := make([]*state, len(changes))
	sense := make(map[*ir.Host]bool, len(changes))
	for i, c := range changes {
		if c.Was != nil {
			was[i] = r.states[c.Was]
			sense[c.Was] = was[i].pathSensitive(c.Was)
			delete(r.states, c.Was)
		}
	}
	for i, c := range changes {
		s := was[i]
		if s == nil {
			s = &state{steps: map[*ir.Step]*used{}}
		}
		var before, now []*ir.Route
		if c.Was != nil {
			before = c.Was.Routes
		}
		if c.Is != nil {
			now = c.Is.Routes
		}
		hunks := route.Diff(before, now)
		for _, k := range hunks { // first, so that a step that stays is not compiled again
			for _, x := range now[k.Start:k.End] {
				r.count(s, x, 1)
			}
		}
		for _, k := range hunks {
			for _, x := range before[k.From:k.To] {
				r.count(s, x, -1)
			}
		}
		if c.Is != nil && len(s.steps) > 0 {
			r.states[c.Is] = s
		}
	}
	return sense
}

// count counts a route n times more.
func (r *run) count(s *state, x *ir.Route, n int) {
	r.names.add(x.Name, n)
	for _, st := range x.Steps {
		c := r.use(s, st, n)
		if c.step.Phase <= policy.Limit && c.step.Handler.ReadsPath {
			s.readers += n
		}
	}
	for i := range x.Backends {
		for _, st := range x.Backends[i].Steps {
			r.use(s, st, n)
		}
	}
	if g := guards(x); g != "" {
		s.guards.add(g, n)
		s.guarded += n
	}
}

// use counts a step n times more, and what it notes with its first and its last use.
func (r *run) use(s *state, st *ir.Step, n int) *compiled {
	u := s.steps[st]
	if u == nil {
		u = &used{compiled: r.compiled(st)}
		s.steps[st] = u
		s.note(&u.kept, 1)
	}
	if u.n += n; u.n == 0 {
		delete(s.steps, st)
		s.note(&u.kept, -1)
	}
	return u.compiled
}

func (s *state) note(k *kept, n int) {
	for _, f := range k.faults {
		s.faults.add(f, n)
	}
	for _, l := range k.lives {
		s.lives.add(l, n)
	}
	for _, name := range k.identity {
		s.identity.add(name, n)
	}
	for _, name := range k.secrets {
		s.secrets.add(name, n)
	}
	if k.certificate {
		s.certificate += n
	}
	if k.closed {
		s.closed += n
	}
}

// pathSensitive reports whether two routes of a host differ in the steps that guard it, or one of those reads the path: then the
// spelling of a path could lead around it. s may be nil.
func (s *state) pathSensitive(h *ir.Host) bool {
	if s == nil {
		return false
	}
	kinds := len(s.guards)
	if s.guarded < len(h.Routes) {
		kinds++ // nothing guards the others
	}
	return s.readers > 0 || kinds > 1
}

// guards is what guards a route, in words that are the same where the same does; "" if nothing does.
func guards(r *ir.Route) string {
	var b []byte
	for _, s := range r.Steps {
		if ph, ok := policy.ParsePhase(s.Phase); ok && ph <= policy.Limit {
			b = append(b, s.Name...)
			b = append(b, s.Spec...)
			for _, path := range slices.Sorted(maps.Keys(s.Refs)) { // "keys" of one namespace are not those of another
				b = append(b, path...)
				b = append(b, s.Refs[path]...)
			}
		}
	}
	return string(b)
}
