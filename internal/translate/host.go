package translate

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// acme is where certificate authorities look for answers to their challenges (RFC 8555 section 8.3): never redirected.
const acme = "/.well-known/acme-challenge"

// fragment is what one object contributes to one virtual host.
type fragment struct {
	Owner   diag.Ref
	Created time.Time
	Entries []entry
}

// entry is one route of a fragment and what its order depends on beside its match.
type entry struct {
	Route       *ir.Route
	Rule, Match int       // where it stands in its object
	Behind      int       // aPath, aDefault, anybodysDefault
	Redirect    *redirect // it is answered with a redirect; nil: it is served
}

// Values of entry.Behind.
const (
	aPath           = iota // the match decides
	aDefault               // defaultBackend: behind every path
	anybodysDefault        // defaultBackend of an Ingress with rules, for hosts in nobody's rules: behind one without
)

// placed is an entry with its owner.
type placed struct {
	entry
	owner   diag.Ref
	created time.Time
	behind  *placed // in a hostMemo: the first of those with its path; itself: it is served
}

// host is the unit that joins the contributions to one virtual host.
func (p *pass) host() {
	k := p.u.key
	m := p.u.memo
	tp := topic{kind: hostTopic, name: k.name, host: k.host, one: k.one}
	if m == nil || p.e.forums[tp] == nil {
		m = &hostMemo{}
		for _, f := range hearAll[*fragment](p, tp) {
			m.fill(f)
		}
		slices.SortFunc(m.sorted, comparePlaced)
		m.lead(0)
	} else {
		m.revise(p, tp)
	}
	if len(m.sorted) == 0 {
		p.gone = true
		return
	}
	p.remember(tp, m)
	p.conflicts(m)
	sink := topic{kind: hostSink, name: k.name, host: k.host, one: k.one}
	routes := m.routes
	if m.redirects > 0 {
		routes = nil
		for _, e := range p.redirected(m.first()) {
			routes = append(routes, e.Route)
		}
		if old := before[*ir.Host](p, sink); old != nil {
			keepRoutes(old.Routes, routes)
		}
	}
	p.say(sink, &ir.Host{Listener: k.name, Hostname: k.host, OneLabel: k.one, Routes: routes})
}

// keepRoutes puts the old pointer of each route that did not change into routes.
func keepRoutes(old, routes []*ir.Route) {
	var byName map[string]*ir.Route
	for i, r := range routes {
		if i < len(old) && old[i] == r {
			continue
		}
		if byName == nil {
			byName = make(map[string]*ir.Route, len(old))
			for _, o := range old {
				byName[o.Name] = o
			}
		}
		if o := byName[r.Name]; o != nil && o != r && reflect.DeepEqual(o, r) {
			routes[i] = o
		}
	}
}

// comparePlaced is the order of matches (Gateway API v1.6, HTTPRouteRule.matches; Ingress asks for the same): Exact paths,
// then the longest path, then a method, the most headers, the most query parameters, the oldest object, its name, its rule, its
// match. Where a regular expression stands is for implementations to say: among the prefixes by its length, behind a prefix
// of the same length.
func comparePlaced(a, b *placed) int {
	ma, mb := &a.Route.Match, &b.Route.Match
	return cmp.Or(cmp.Compare(a.Behind, b.Behind), compareBool(ma.Path.Kind == ir.PathExact, mb.Path.Kind == ir.PathExact),
		cmp.Compare(len(mb.Path.Value), len(ma.Path.Value)), compareBool(ma.Path.Kind != ir.PathRegex, mb.Path.Kind != ir.PathRegex),
		compareBool(ma.Method != "", mb.Method != ""), cmp.Compare(len(mb.Headers), len(ma.Headers)),
		cmp.Compare(len(mb.Query), len(ma.Query)), a.created.Compare(b.created), cmp.Compare(a.owner.Namespace, b.owner.Namespace),
		cmp.Compare(a.owner.Name, b.owner.Name), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Match, b.Match),
		cmp.Compare(a.Route.Name, b.Route.Name))
}

// compareBool puts true first.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// conflicts tells the owners of paths that an older Ingress, or an earlier rule, has.
func (p *pass) conflicts(m *hostMemo) {
	faults := map[diag.Ref]*diag.Object{}
	for e := range m.lost {
		if e.Behind == anybodysDefault {
			continue // each of them still has its own hosts
		}
		o := faults[e.owner]
		if o == nil {
			o = &diag.Object{Ref: e.owner}
			faults[e.owner] = o
		}
		o.Faults = append(o.Faults, p.conflict(e, e.behind))
	}
	for ref, o := range faults {
		diag.SortFaults(o.Faults)
		p.say(topic{kind: reportTopic, ref: ref}, o)
	}
}

func (p *pass) conflict(loser, winner *placed) diag.Fault {
	what := fmt.Sprintf("%s %s of host %s", loser.Route.Match.Path.Kind, loser.Route.Match.Path.Value, cmp.Or(p.u.key.host, "*"))
	if loser.Behind != aPath {
		what = "the default backend of host " + cmp.Or(p.u.key.host, "*")
	}
	f := diag.Fault{Object: loser.owner, Path: loser.Route.Source.Field, Reason: conflicted,
		Message: fmt.Sprintf("%s belongs to %s, which is older", what, winner.owner)}
	switch {
	case winner.owner != loser.owner && winner.created.Equal(loser.created):
		f.Message = fmt.Sprintf("%s belongs to %s, which comes first by name", what, winner.owner)
	case winner.owner == loser.owner:
		f.Message = fmt.Sprintf("%s is also at %s, which comes first", what, winner.Route.Source.Field)
	}
	return f
}

// redirected puts redirects to HTTPS in place of the routes that ask for one. What lies below acme is served; a redirect that
// a later one makes superfluous is left out, so that most hosts have a single one. Where a trusted proxy may have ended TLS, redirects stand
// before the routes instead: what came by https is served.
func (p *pass) redirected(all []placed) []placed {
	proxied := p.proxied(p.u.key.name)
	var out []placed
	for _, e := range all {
		path := e.Route.Match.Path
		if e.Redirect == nil || path.Kind != ir.PathRegex && under(acme, path.Value) {
			e.Redirect = nil
			out = append(out, e)
			continue
		}
		if path.Kind == ir.PathPrefix && under(path.Value, acme) {
			c := e
			r := *e.Route
			r.Name += "/acme"
			r.Match.Path.Value = acme
			c.Route, c.Redirect, c.Behind = &r, nil, aPath
			out = append(out, c)
		}
		e.Route = redirectRoute(e.Route, e.Redirect, proxied)
		out = append(out, e)
	}
	slices.SortStableFunc(out, func(a, b placed) int { return comparePlaced(&a, &b) })
	if proxied {
		return out
	}
	return slimmed(out)
}

// proxied says whether the clients of a listener may be proxies that are believed about the scheme.
func (p *pass) proxied(listener string) bool {
	i := strings.LastIndexByte(listener, '/')
	kind, name, _ := strings.Cut(listener[:i], "/")
	namespace, object, namespaced := strings.Cut(name, "/")
	if !namespaced {
		namespace, object = "", name
	}
	c := p.clientPolicy(refOf(kind, namespace, object), listener[i+1:])
	return c != nil && (c.Address == "XForwardedFor" || c.Address == "Header") && len(c.Trusted) > 0
}

// slimmed leaves out redirects that an unconditional one for "/" at the end makes superfluous.
func slimmed(all []placed) []placed {
	last := all[len(all)-1]
	m := last.Route.Match
	if last.Redirect == nil || m.Path != (ir.PathMatch{Kind: ir.PathPrefix, Value: "/"}) || m.Method != "" || len(m.Headers)+len(m.Query) > 0 {
		return all
	}
	var served []placed // behind the one looked at
	out := []placed{last}
	for i := len(all) - 2; i >= 0; i-- {
		e := all[i]
		if e.Redirect == nil {
			served = append(served, e)
		} else if !slices.ContainsFunc(served, func(s placed) bool { return overlap(s.Route.Match.Path, e.Route.Match.Path) }) {
			continue
		}
		out = append(out, e)
	}
	slices.Reverse(out)
	return out
}

// overlap says whether one path could match both.
func overlap(a, b ir.PathMatch) bool {
	return a.Kind == ir.PathRegex || b.Kind == ir.PathRegex || under(a.Value, b.Value) || under(b.Value, a.Value)
}

// under says whether path is prefix or lies below it, by path element.
func under(prefix, path string) bool {
	return prefix == "/" || path == prefix || strings.HasPrefix(path, prefix) && path[len(prefix)] == '/'
}

// redirectRoute is the redirect in place of a route or, if clients are proxied, before it. No attached policy acts on it.
func redirectRoute(r *ir.Route, by *redirect, proxied bool) *ir.Route {
	spec := struct {
		Scheme       string `json:"scheme"`
		Port         uint16 `json:"port,omitempty"`
		StatusCode   int    `json:"statusCode"`
		UnlessSecure bool   `json:"unlessSecure,omitempty"`
	}{"https", by.Port, 308, proxied}
	if by.Port == 443 {
		spec.Port = 0
	}
	s := &ir.Step{Name: "redirect", Phase: policy.TransformRequest.String(), Target: r.Source, Spec: mustJSON(spec), Sources: map[string]ir.Source{"": by.By}}
	if proxied {
		both := *r
		both.Steps = append([]*ir.Step{s}, r.Steps...)
		return &both
	}
	return &ir.Route{Name: r.Name + "/https-redirect", Source: r.Source, Match: r.Match, Created: r.Created, Steps: []*ir.Step{s}}
}

// covers says whether every name that matches the pattern name also matches pattern. Both may begin with "*." (one label or
// more); "" is any.
func covers(pattern, name string) bool {
	switch {
	case pattern == "" || pattern == name:
		return true
	case strings.HasPrefix(pattern, "*."):
		return strings.HasSuffix(name, pattern[1:]) && len(name) > len(pattern)-1
	}
	return false
}
