package proxy

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/route"
	"github.com/gatehouse-io/gatehouse/internal/telemetry"
)

// Explanation is what the edge would do with one request, and why. Nothing is counted, written or called to find out.
type Explanation struct {
	Site     string        `json:"site"`               // "Gateway/shop/public port 8000"
	Listener string        `json:"listener,omitempty"` // key
	Why      string        `json:"listenerWhy,omitempty"`
	Match    []string      `json:"match"` // how the route was found, a line each
	Route    string        `json:"route,omitempty"`
	Source   string        `json:"source,omitempty"`     // object and field the route comes from
	Phases   []PhaseResult `json:"phases,omitempty"`     // of the steps that ran, in their order
	Backend  string        `json:"backend,omitempty"`    // cluster that this request goes to
	Shares   []string      `json:"shares,omitempty"`     // of several backends: "shop/web:80 90%"
	Target   string        `json:"target,omitempty"`     // method and target that the backend gets
	Host     string        `json:"host,omitempty"`       // Host that the backend gets
	Endpoint []string      `json:"endpoints,omitempty"`  // those that take requests
	Mirrors  []string      `json:"mirrors,omitempty"`    // clusters that may get a copy
	Forward  []string      `json:"forwarding,omitempty"` // balancer, session, times and tries, where somebody has written them
	Status   int           `json:"status,omitempty"`     // of an answer that the edge makes itself
	Reason   string        `json:"reason,omitempty"`
	Detail   string        `json:"detail,omitempty"`
	Location string        `json:"location,omitempty"` // of a redirect
}

// PhaseResult is one step's part.
type PhaseResult struct {
	Phase   string `json:"phase"`
	Step    string `json:"step"`
	Verdict string `json:"verdict"`
	Source  string `json:"source"`
}

// traced notes a step's verdict when the exchange is explained.
func (f *Flow) traced(s *Step, v policy.Verdict) {
	if f.trace == nil {
		return
	}
	p := PhaseResult{Phase: s.Phase.String(), Step: s.Config.Name, Verdict: "goes on", Source: s.Config.Source().String()}
	switch {
	case s.Handler.Request == nil:
		p.Verdict = "acts on the response"
	case v.Status != 0:
		p.Verdict = fmt.Sprintf("answer %d", v.Status)
		if v.Shadow {
			p.Verdict = fmt.Sprintf("goes on; shadow: would answer %d", v.Status)
		}
		if v.Reason != "" {
			p.Verdict += ", " + v.Reason
		}
	case v.Wait != nil:
		p.Verdict = v.Detail
	}
	if v.Detail != "" && v.Wait == nil {
		p.Verdict += ": " + v.Detail
	}
	f.trace.Phases = append(f.trace.Phases, p)
}

// silent is a Recorder that records nothing.
type silent struct{}

func (silent) NewID(dst []byte) []byte { return append(dst, "explained"...) }
func (silent) Record(uint32, *exchange.Exchange, *telemetry.Listener, *telemetry.Route, time.Duration) {
}
func (silent) Listener(string) *telemetry.Listener   { return nil }
func (silent) Route(string, string) *telemetry.Route { return nil }
func (silent) Retain(_, _ func(string) bool)         {}

// NoRecorder returns a Recorder that records nothing, for snapshots that only explain.
func NoRecorder() Recorder { return silent{} }

// Explain runs the real chain of a snapshot dry on a request whose head is in r, which came to a group and port. r is changed.
func Explain(s *Snapshot, group string, port uint16, tls bool, from netip.AddrPort, now time.Time, r *exchange.Request) *Explanation {
	x := &Explanation{Site: fmt.Sprintf("%s port %d", group, port)}
	site := s.Table.Site(group, port)
	if site != nil {
		q := route.Query{Host: r.Host, Path: r.Path, Method: r.Method, RawQuery: r.Query, Header: &r.Header}
		x.explainMatch(site.Explain(&q))
	}
	e := NewEdge(silent{})
	e.snapshot.Store(&Snapshot{Config: s.Config, Version: s.Version, Table: s.Table, Listeners: s.Listeners})
	var f Flow
	c := &ConnInfo{Group: group, Port: port, Peer: from, TLS: tls, PortText: AppendPort(nil, port)}
	c.PeerText = from.Addr().AppendTo(nil)
	f.Begin(e, c, now)
	f.random = uint64(time.Time{}.UnixNano())<<1 | 1 // the same request is explained the same way, whenever it is
	f.Dry, f.trace = true, x
	f.Request = *r
	act := f.Step(EventHead)
	for act == ActionBuffer || act == ActionWait {
		if act == ActionBuffer {
			act = f.Step(EventBody)
			continue
		}
		// Nothing is called: the line of the step says what it would ask, and what follows is what happens if it lets pass.
		f.Resume = func(*exchange.Exchange) policy.Verdict { return policy.Verdict{} }
		act = f.Step(EventResumed)
	}
	x.conclude(&f, act)
	f.End(now)
	return x
}

// conclude writes down how it ended.
func (x *Explanation) conclude(f *Flow, act Action) {
	if r := f.Matched; r != nil {
		x.Route, x.Source = r.Name, r.Config.Source.String()
	}
	x.Listener = f.Listener
	if f.backend != nil {
		x.Backend, x.Shares = f.backend.Config.Cluster, shares(f.Matched)
		if c := f.backend.Cluster; c != nil {
			for _, e := range c.Endpoints() {
				x.Endpoint = append(x.Endpoint, e.Text)
			}
		}
	}
	if act == ActionAnswer {
		x.Status, x.Reason, x.Detail = f.Response.Status, f.Reason, f.Detail
		x.Location = string(f.Response.Header.Get("Location"))
		return
	}
	target := string(f.Target())
	if f.Request.HasQuery {
		target += "?" + string(f.Request.Query)
	}
	x.Target = string(f.Request.Method) + " " + target
	x.Mirrors = slices.Clone(f.Mirrors)
	x.Forward = f.forwarding()
	x.Host = string(f.Request.Authority)
}

// shares tells how the requests of a route are divided, nothing if it has one backend.
func shares(r *Route) (out []string) {
	if len(r.Backends) < 2 {
		return nil
	}
	for _, b := range r.Backends {
		name := ir.ClusterText(b.Config.Cluster)
		if b.Cluster == nil {
			name = "answer 500"
		}
		out = append(out, fmt.Sprintf("%s %.3g%%", name, 100*float64(b.Weight)/float64(r.Total)))
	}
	return out
}

// explainMatch puts the route table's explanation into lines.
func (x *Explanation) explainMatch(m route.Explanation) {
	x.Why = m.ListenerWhy
	add := func(format string, a ...any) { x.Match = append(x.Match, fmt.Sprintf(format, a...)) }
	for _, t := range m.Hosts {
		add("host %s: %s", hostText(t.Host), plural(t.Routes, "route"))
	}
	switch {
	case m.Route == nil:
		add("none: %s", m.Why)
		if n := m.Nearest; n != nil && n.Route != nil {
			add("nearest: %s (%s): %s", ir.MatchText(n.Route.Match), n.Route.Source, strings.Join(n.Failed, "; "))
		}
	case m.Next != nil:
		add("%s wins over %s (%s): %s", ir.MatchText(m.Route.Match), ir.MatchText(m.Next.Match), m.Next.Source, m.Why)
	default:
		add("%s: %s", ir.MatchText(m.Route.Match), m.Why)
	}
}

func hostText(h *ir.Host) string {
	if h.Hostname == "" {
		return "any"
	}
	return h.Hostname
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Print writes the explanation for people, in the order of an exchange's life.
func (x *Explanation) Print(w io.Writer) {
	line := func(format string, a ...any) { fmt.Fprintf(w, format+"\n", a...) }
	switch {
	case x.Listener == "":
		line("listener: none chosen at %s", x.Site)
	case x.Why != "" && x.Why != onlyListener:
		line("listener: %s (%s)", x.Listener, x.Why)
	default:
		line("listener: %s", x.Listener)
	}
	for _, m := range x.Match {
		line("route: %s", m)
	}
	if x.Route != "" {
		line("rule: %s", x.Source)
	}
	last := policy.TransformResponse.String()
	x.printPhases(line, func(p string) bool { return p != last })
	switch {
	case len(x.Shares) > 0:
		line("backend: %s; this one by chance, of %s", backendText(x.Backend), strings.Join(x.Shares, ", "))
	case x.Backend != "":
		line("backend: %s", backendText(x.Backend))
	}
	if x.Status != 0 {
		x.printAnswer(line)
	} else {
		line("endpoints: %s", strings.Join(x.Endpoint, ", "))
		for _, l := range x.Forward {
			line("%s", l)
		}
		line("forward: %s, Host %s", x.Target, x.Host)
		for _, m := range x.Mirrors {
			line("mirror: %s", ir.ClusterText(m))
		}
	}
	x.printPhases(line, func(p string) bool { return p == last })
}

// onlyListener is what route says of a listener that had no rival: nobody asks why.
const onlyListener = "the only one"

func backendText(cluster string) string {
	if cluster == "" {
		return "none"
	}
	return ir.ClusterText(cluster)
}

func (x *Explanation) printPhases(line func(string, ...any), wanted func(phase string) bool) {
	for _, p := range x.Phases {
		if wanted(p.Phase) {
			line("%s: %s: %s (%s)", p.Phase, p.Step, p.Verdict, p.Source)
		}
	}
}

func (x *Explanation) printAnswer(line func(string, ...any)) {
	s := fmt.Sprintf("answer: %d %s", x.Status, exchange.StatusText(x.Status))
	if x.Reason != "" {
		s += ", " + x.Reason
	}
	if x.Detail != "" {
		s += ": " + x.Detail
	}
	line("%s", s)
	if x.Location != "" {
		line("location: %s", x.Location)
	}
}
