package route

import (
	"bytes"
	"cmp"
	"fmt"
	"strings"

	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// Explanation is how Match comes to its result, for people. It agrees with Match on the same site and query.
type Explanation struct {
	Name        string       // the hostname asked for
	Listener    *ir.Listener // nil: no listener takes the hostname
	ListenerWhy string       // why this listener and no other of its port
	Hosts       []Trial      // the virtual hosts tried, in order
	Host        *ir.Host     // of the winner; for a miss the first one tried
	Route       *ir.Route    // the winner; nil for a miss
	Why         string       // why the winner beat Next; for a miss, why nothing matched
	Next        *ir.Route    // what would have matched without the winner; nil if nothing
	NextHost    *ir.Host     // of Next
	Nearest     *Candidate   // for a miss: the route that came nearest, and what it lacked; nil if there is none
}

// Trial is one virtual host that covers the request's name.
type Trial struct {
	Host       *ir.Host
	Routes     int         // how many it has
	Candidates []Candidate // those whose path fits, in match order
}

// Candidate is a route that the request was held against.
type Candidate struct {
	Host   *ir.Host
	Route  *ir.Route
	Index  int      // place in the host's match order
	Failed []string // what does not match; empty: it matches
}

// Explain goes the way of Match and tells it. Its cost is linear in the number of the hosts' routes.
func (s *Site[V]) Explain(q *Query) Explanation {
	x := Explanation{Name: string(q.Host)}
	l := s.find(q.Host)
	if l == nil {
		x.Why = fmt.Sprintf("no listener takes host %q: there %s", q.Host, s.hostnames())
		return x
	}
	x.Listener, x.ListenerWhy = l.ir, whyListener(l.ir.Hostname, len(s.listeners))
	q.joined = ""
	c := cursor{name: q.Host}
	for h := l.hosts.next(s.seed, &c); h != nil && x.Next == nil; h = l.hosts.next(s.seed, &c) {
		x.try(h.host.candidates(q), h.host.ir)
	}
	switch {
	case x.Route != nil && x.Next != nil:
		x.Why = beats(x.Host, x.NextHost, x.Route, x.Next)
	case x.Route != nil:
		x.Why = "nothing else matches"
	case len(x.Hosts) == 0:
		x.Why = fmt.Sprintf("no virtual host covers %q", q.Host)
		x.Nearest = l.nearestName(q)
	default:
		x.Nearest = l.nearest(s, &x, q)
		x.Why = "none of the routes matches"
	}
	return x
}

// hostnames lists the listeners' hostnames, the first few of them.
func (s *Site[V]) hostnames() string {
	var out []string
	for i, l := range s.Listeners() {
		if i == shown {
			out = append(out, "...")
			break
		}
		out = append(out, l.Hostname)
	}
	switch len(out) {
	case 0:
		return "is no listener"
	case 1:
		return "is " + out[0]
	}
	return "are " + strings.Join(out, ", ")
}

// try takes in what one virtual host has to say.
func (x *Explanation) try(cs []Candidate, h *ir.Host) {
	if x.Route == nil {
		x.Hosts = append(x.Hosts, Trial{Host: h, Routes: len(h.Routes), Candidates: cs})
		if x.Host == nil {
			x.Host = h
		}
	}
	for _, c := range cs {
		switch {
		case len(c.Failed) > 0:
		case x.Route == nil:
			x.Host, x.Route = h, c.Route
		case x.Next == nil:
			x.NextHost, x.Next = h, c.Route
		}
	}
}

func whyListener(hostname string, of int) string {
	switch {
	case of == 1:
		return "the only one"
	case hostname == "":
		return "takes every hostname that no other listener takes"
	case strings.HasPrefix(hostname, "*."):
		return "its " + hostname + " is the longest wildcard that covers the hostname"
	}
	return "its hostname is the one asked for"
}

// candidates are the routes whose path fits, each with what else fails.
func (c *host[V]) candidates(q *Query) []Candidate {
	var out []Candidate
	for i := range c.entries {
		e := &c.entries[i]
		if !e.fits(q.Path) {
			continue
		}
		k := Candidate{Host: c.ir, Route: e.route, Index: i}
		if e.cond != nil {
			k.Failed = e.cond.failures(q)
		}
		out = append(out, k)
	}
	return out
}

// fits reports whether the path alone would match.
func (e *entry[V]) fits(path []byte) bool {
	if e.faulty {
		return false
	}
	m := &e.route.Match.Path
	switch m.Kind {
	case ir.PathRegex:
		return e.cond.path.Match(path)
	case ir.PathExact:
		return m.Value == string(path)
	}
	p := prefixOf(m)
	return len(path) > 0 && path[0] == '/' && bytes.HasPrefix(path, []byte(p)) && (len(path) == len(p) || path[len(p)] == '/')
}

// failures are the conditions that do not hold, in words.
func (c *conditions) failures(q *Query) []string {
	var out []string
	if c.method != "" && c.method != string(q.Method) {
		out = append(out, fmt.Sprintf("method is %s, not %s", q.Method, c.method))
	}
	for i := range c.headers {
		f := &c.headers[i]
		if v, ok := q.header(f.name); !ok {
			out = append(out, "no header "+f.name)
		} else if !f.matches(v) {
			out = append(out, fmt.Sprintf("header %s is %q, not %s", f.name, v, f.wanted()))
		}
	}
	for i := range c.query {
		f := &c.query[i]
		if v, ok := firstParameter(q.RawQuery, f.name); !ok {
			out = append(out, "no query parameter "+f.name)
		} else if !q.parameter(f) {
			out = append(out, fmt.Sprintf("query parameter %s is %q, not %s", f.name, decode(nil, v), f.wanted()))
		}
	}
	return out
}

func (f *field) wanted() string {
	if f.regex != nil {
		return "~" + f.value
	}
	return fmt.Sprintf("%q", f.value)
}

// beats says why route a of host ah comes before route b of bh, by the precedence of the Gateway API.
func beats(ah, bh *ir.Host, a, b *ir.Route) string {
	if ah != bh {
		return "more specific hostname"
	}
	am, bm := &a.Match, &b.Match
	ak, bk := cmp.Or(am.Path.Kind, ir.PathPrefix), cmp.Or(bm.Path.Kind, ir.PathPrefix)
	switch {
	case ak != bk && bk != ir.PathExact:
		return ak + " comes before " + bk
	case ak == bk && len(am.Path.Value) > len(bm.Path.Value):
		return "longer"
	case am.Method != "" && bm.Method == "":
		return "names a method"
	case len(am.Headers) > len(bm.Headers):
		return fmt.Sprintf("more headers: %d, not %d", len(am.Headers), len(bm.Headers))
	case len(am.Query) > len(bm.Query):
		return fmt.Sprintf("more query parameters: %d, not %d", len(am.Query), len(bm.Query))
	case a.Created.Before(b.Created):
		return "older"
	case a.Source.Object() < b.Source.Object():
		return "first by name"
	}
	return "first in its object"
}

// nearest finds the route of the hosts tried that lacks least: of those whose path fits the one with the fewest
// failures, else the one whose path begins most like the request's.
func (l *listener[V]) nearest(s *Site[V], x *Explanation, q *Query) *Candidate {
	var best *Candidate
	for i := range x.Hosts {
		for j := range x.Hosts[i].Candidates {
			if c := &x.Hosts[i].Candidates[j]; best == nil || len(c.Failed) < len(best.Failed) {
				best = c
			}
		}
	}
	if best != nil {
		return best
	}
	alike := -1
	c := cursor{name: q.Host}
	for h := l.hosts.next(s.seed, &c); h != nil; h = l.hosts.next(s.seed, &c) {
		for i := range h.host.entries {
			e := &h.host.entries[i]
			if n := e.alike(q.Path); n > alike && !e.faulty {
				alike = n
				best = &Candidate{Host: h.host.ir, Route: e.route, Index: i, Failed: e.lacking(q)}
			}
		}
	}
	return best
}

// alike is how many bytes the route's path and the request's have in common at their beginning.
func (e *entry[V]) alike(path []byte) int {
	m := &e.route.Match.Path
	if m.Kind == ir.PathRegex {
		return 0
	}
	n := 0
	for n < len(path) && n < len(m.Value) && path[n] == m.Value[n] {
		n++
	}
	return n
}

// lacking is all that keeps a request from a route, its path included.
func (e *entry[V]) lacking(q *Query) []string {
	var out []string
	if !e.fits(q.Path) {
		out = append(out, fmt.Sprintf("path %s is not %s", q.Path, describePath(&e.route.Match.Path)))
	}
	if e.cond != nil {
		out = append(out, e.cond.failures(q)...)
	}
	return out
}

// nearestName finds the virtual host whose name is spelt most like the one asked for, and there the route that would match,
// else the first.
func (l *listener[V]) nearestName(q *Query) *Candidate {
	var best *host[V]
	least := 0
	l.hosts.each(func(h *host[V]) {
		d := distance(h.ir.Hostname, string(q.Host))
		if len(h.entries) > 0 && (best == nil || d < least || d == least && h.ir.Hostname < best.ir.Hostname) {
			best, least = h, d
		}
	})
	if best == nil {
		return nil
	}
	i := max(best.firstOf(q), 0)
	e := &best.entries[i]
	return &Candidate{Host: best.ir, Route: e.route, Index: i,
		Failed: append([]string{fmt.Sprintf("host %q is not %q", q.Host, best.ir.Hostname)}, e.lacking(q)...)}
}

// firstOf is the first candidate that matches, by a linear scan; -1 if none does.
func (c *host[V]) firstOf(q *Query) int {
	for _, k := range c.candidates(q) {
		if len(k.Failed) == 0 {
			return k.Index
		}
	}
	return -1
}

// distance is the number of letters to insert, delete or change to make b from a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}

func describePath(p *ir.PathMatch) string {
	return cmp.Or(p.Kind, ir.PathPrefix) + " " + cmp.Or(p.Value, "/")
}

// shown is how many candidates of a virtual host String prints.
const shown = 10

// String is the explanation on a few lines, as gatehouse explain prints it.
func (x Explanation) String() string {
	var b strings.Builder
	if x.Listener == nil {
		fmt.Fprintf(&b, "%s\n", x.Why)
		return b.String()
	}
	fmt.Fprintf(&b, "listener %s: %s\n", x.Listener.Key, x.ListenerWhy)
	for _, t := range x.Hosts {
		fmt.Fprintf(&b, "host %s: %s\n", cmp.Or(t.Host.Hostname, "*"), plural(t.Routes, "route"))
		for i, c := range t.Candidates {
			if i == shown {
				fmt.Fprintf(&b, "  and %d more\n", len(t.Candidates)-shown)
				break
			}
			fmt.Fprintf(&b, "  %d %s: %s\n", c.Index, ir.MatchText(c.Route.Match), cmp.Or(strings.Join(c.Failed, "; "), "matches"))
		}
		if len(t.Candidates) == 0 {
			b.WriteString("  no path fits\n")
		}
	}
	switch {
	case x.Route == nil:
		fmt.Fprintf(&b, "no match: %s\n", x.Why)
		if n := x.Nearest; n != nil {
			fmt.Fprintf(&b, "nearest: %s on host %s (%s): %s\n", ir.MatchText(n.Route.Match), cmp.Or(n.Host.Hostname, "*"), n.Route.Source,
				strings.Join(n.Failed, "; "))
		}
	case x.Next == nil:
		fmt.Fprintf(&b, "%s wins: %s\n", ir.MatchText(x.Route.Match), x.Why)
	default:
		fmt.Fprintf(&b, "%s wins over %s (%s)\n", ir.MatchText(x.Route.Match), ir.MatchText(x.Next.Match), x.Why)
	}
	return b.String()
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
