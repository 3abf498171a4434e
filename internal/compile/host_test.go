package compile_test

import (
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gatehouse-io/gatehouse/internal/compile"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/invalid"
	"github.com/gatehouse-io/gatehouse/internal/proxy"
	"github.com/gatehouse-io/gatehouse/internal/route"
	"github.com/gatehouse-io/gatehouse/internal/secret"
	"github.com/gatehouse-io/gatehouse/internal/telemetry"
	"github.com/gatehouse-io/gatehouse/internal/upstream"
)

// noting is a step of which all is known that a host takes note of.
type noting struct {
	Tells  string `json:"tells"`
	Secret string `json:"secret"`
	Path   bool   `json:"path"`
	Asks   bool   `json:"asks"`
	Wrong  bool   `json:"wrong"`
}

func (n *noting) Compile(policy.Env) (policy.Handler, error) {
	h := policy.Handler{Request: func(*exchange.Exchange) policy.Verdict { return policy.Verdict{} }, ReadsPath: n.Path, ClientCertificate: n.Asks}
	if n.Wrong {
		return h, &diag.Problem{Path: "wrong", Msg: "is wrong"}
	}
	if n.Tells != "" {
		h.Identity = []string{n.Tells}
	}
	if n.Secret != "" {
		h.QuerySecrets = []string{n.Secret}
	}
	return h, nil
}

func newNoting(rec proxy.Recorder) *compile.Compiler {
	steps := []policy.Step{invalid.Step(), {Name: "noting", New: func() policy.Spec { return &noting{} }}}
	return compile.New(steps, upstream.NewSet(upstream.Rules{}), policy.Env{Secret: &secret.Store{}}, rec)
}

func drawSteps(t *rapid.T) (out []*ir.Step) {
	for range rapid.SampledFrom([]int{0, 0, 1, 1, 2}).Draw(t, "steps") {
		spec := rapid.SampledFrom([]string{"{}", "{}", `{"tells":"X-User"}`, `{"secret":"token"}`, `{"path":true}`, `{"asks":true}`, `{"wrong":true}`}).Draw(t, "spec")
		s := step("noting", spec)
		s.Phase = rapid.SampledFrom([]string{policy.Protect.String(), policy.Authenticate.String(), policy.TransformRequest.String()}).Draw(t, "phase")
		out = append(out, s)
	}
	return out
}

// TestRoutesThatComeAndGo holds a snapshot, after any history of routes of a host, against one compiled from scratch: values, faults, and
// what listeners take note of.
func TestRoutesThatComeAndGo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newNoting(proxy.NoRecorder())
		var routes []*ir.Route
		values := map[*ir.Route]*proxy.Route{} // of the version before
		for range rapid.IntRange(1, 8).Draw(t, "versions") {
			for range rapid.IntRange(0, 3).Draw(t, "edits") {
				i := rapid.IntRange(0, len(routes)).Draw(t, "where")
				switch {
				case rapid.Bool().Draw(t, "comes") || len(routes) == 0:
					r := prefix(fmt.Sprintf("/%d", rapid.IntRange(0, 9).Draw(t, "path")), drawSteps(t)...)
					r.Backends[0].Steps = drawSteps(t)
					routes = slices.Insert(slices.Clone(routes), i, r)
				default:
					i %= len(routes)
					routes = slices.Delete(slices.Clone(routes), i, i+1)
				}
			}
			h := host("a.example", routes...)
			cfg := config(h, host("b.example", prefix("/")))
			got, faults := c.Compile(cfg)
			fresh := newNoting(proxy.NoRecorder())
			want, wantFaults := fresh.Compile(cfg)
			if d := cmp.Diff(wantFaults, faults); d != "" {
				t.Fatalf("faults:\n%s", d)
			}
			a, b := want.Listeners["l"], got.Listeners["l"]
			fields := func(l *proxy.Listener) []string { return append(slices.Clone(l.Identity), l.QuerySecrets...) }
			if a.ClientCertificate != b.ClientCertificate || len(wantFaults) == 0 && !slices.Equal(fields(a), fields(b)) {
				t.Fatalf("listener: %v %v, want %v %v", b.ClientCertificate, fields(b), a.ClientCertificate, fields(a))
			}
			for _, f := range fields(a) {
				if !slices.Contains(fields(b), f) { // with a fault there may be more: those of before
					t.Fatalf("listener: %v, want %v", fields(b), fields(a))
				}
			}
			now := map[*ir.Route]*proxy.Route{}
			for i := range 10 {
				q := &route.Query{Host: []byte("a.example"), Path: []byte(fmt.Sprintf("/%d", i))}
				x, y := want.Table.Site("g", 80).Match(q), got.Table.Site("g", 80).Match(q)
				if x.Route != y.Route {
					t.Fatalf("%s: %v, want %v", q.Path, y.Route, x.Route)
				}
				if x.Route == nil {
					continue
				}
				if x.Value.PathSensitive != y.Value.PathSensitive || words(x.Value) != words(y.Value) {
					t.Fatalf("%s: path-sensitive %v, steps %s; want %v, %s", q.Path, y.Value.PathSensitive, words(y.Value), x.Value.PathSensitive, words(x.Value))
				}
				if old := values[y.Route]; old != nil && old != y.Value && old.PathSensitive == y.Value.PathSensitive {
					t.Fatalf("%s: the route stayed, but was compiled again", q.Path)
				}
				now[y.Route] = y.Value
			}
			values = now
		}
	})
}

func words(r *proxy.Route) string {
	var b strings.Builder
	for _, s := range append(slices.Clone(r.Steps), r.Backends[0].Steps...) {
		fmt.Fprintf(&b, "%v %s %v;", s.Phase, s.Config.Spec, s.Handler.ReadsPath)
	}
	return b.String()
}

// TestCountersOfRoutesFollowThem: routes that are gone take no room among those that are counted by name, and one that stays keeps its
// counters, whatever becomes of its host.
func TestCountersOfRoutesFollowThem(t *testing.T) {
	rec, err := telemetry.New(telemetry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer rec.Close()
	c := newNoting(rec)
	var x exchange.Exchange
	x.Response.Status = 200
	stays := prefix("/stays")
	var first *telemetry.Route
	const n = telemetry.MaxRoutes * 6 / 10
	for set := range 4 {
		routes := []*ir.Route{stays}
		var names []string
		for i := range n {
			names = append(names, fmt.Sprintf("/%d/%d", set, i))
			routes = append(routes, prefix(names[i]))
		}
		again := *stays // written anew, under its name
		routes[0] = &again
		s, _ := c.Compile(config(host("a.example", routes...)))
		for _, name := range names {
			rec.Record(0, &x, nil, find(t, s, "a.example", name).Counters, time.Millisecond)
		}
		w := httptest.NewRecorder()
		rec.Metrics().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		if got := strings.Count(w.Body.String(), fmt.Sprintf(`gatehouse_route_requests_total{code="2xx",route="/%d/`, set)); got != n {
			t.Errorf("set %d: %d of %d routes have counters of their own", set, got, n)
		}
		if got := strings.Count(w.Body.String(), fmt.Sprintf(`route="/%d/`, set-1)); got != 0 {
			t.Errorf("set %d: %d series of routes that are gone", set, got)
		}
		now := find(t, s, "a.example", "/stays").Counters
		if first != nil && now != first {
			t.Errorf("set %d: a route that stays has other counters", set)
		}
		first = now
	}
}
