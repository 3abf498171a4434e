package compile_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

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

// picky is a step that finds one fault for each entry of its spec.
type picky struct {
	Wrong []diag.Problem `json:"wrong"`
	Plain string         `json:"plain"`
}

func (p *picky) Compile(policy.Env) (policy.Handler, error) {
	var errs []error
	for _, w := range p.Wrong {
		errs = append(errs, &w)
	}
	if p.Plain != "" {
		errs = append(errs, errors.New(p.Plain))
	}
	return policy.Handler{Request: func(*exchange.Exchange) policy.Verdict { return policy.Verdict{Status: 299} }}, errors.Join(errs...)
}

type world struct {
	compiler *compile.Compiler
	clusters *upstream.Set
}

func newWorld(t *testing.T) *world {
	t.Helper()
	rec, err := telemetry.New(telemetry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rec.Close() })
	w := &world{clusters: upstream.NewSet(upstream.Rules{})}
	steps := []policy.Step{invalid.Step(), {Name: "picky", New: func() policy.Spec { return &picky{} }}}
	w.compiler = compile.New(steps, w.clusters, policy.Env{Secret: &secret.Store{}}, rec)
	return w
}

func step(name, spec string) *ir.Step {
	return &ir.Step{Name: name, Phase: policy.Protect.String(), Spec: ir.RawJSON(spec),
		Sources: map[string]ir.Source{"": {Kind: "ProtectionPolicy", Namespace: "shop", Name: "p", Field: "spec.picky"}}}
}

func host(name string, routes ...*ir.Route) *ir.Host {
	return &ir.Host{Listener: "l", Hostname: name, Routes: routes}
}

func prefix(path string, steps ...*ir.Step) *ir.Route {
	return &ir.Route{Name: path, Source: ir.Source{Kind: "HTTPRoute", Namespace: "shop", Name: "r", Field: "spec.rules[0]"},
		Match: ir.Match{Path: ir.PathMatch{Kind: ir.PathPrefix, Value: path}}, Steps: steps,
		Backends: []ir.Backend{{Cluster: "c", Weight: 1}}}
}

func config(hosts ...*ir.Host) *ir.Config {
	return &ir.Config{Listeners: []*ir.Listener{{Key: "l", Group: "g", Port: 80, Protocol: ir.HTTP}}, Hosts: hosts,
		Clusters: []*ir.Cluster{{Key: "c"}}}
}

// find returns the compiled route for a request.
func find(t *testing.T, s *proxy.Snapshot, name, path string) *proxy.Route {
	t.Helper()
	site := s.Table.Site("g", 80)
	if site == nil {
		t.Fatal("no site")
	}
	m := site.Match(&route.Query{Host: []byte(name), Path: []byte(path), Method: []byte("GET")})
	if m.Route == nil {
		t.Fatalf("no route for %s%s", name, path)
	}
	return m.Value
}

func specText(t *testing.T, p picky) string {
	t.Helper()
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var shopPolicy = diag.Ref{Kind: "ProtectionPolicy", Namespace: "shop", Name: "p"}

func TestFaultsOfSteps(t *testing.T) {
	several := picky{Wrong: []diag.Problem{{Path: "a", Msg: "a is odd", Hint: "write 2"}, {Path: "b[1]", Msg: "b is late"}, {Msg: "all of it"}}, Plain: "and more"}
	fault := func(path, msg, hint string) diag.Fault {
		return diag.Fault{Object: shopPolicy, Path: path, Message: msg, Hint: hint, Reason: "Invalid"}
	}
	for _, x := range []struct {
		name string
		step *ir.Step
		want []diag.Fault
	}{
		{"none", step("picky", `{}`), nil},
		{"several at once", step("picky", specText(t, several)), []diag.Fault{fault("spec.picky", "all of it", ""), fault("spec.picky", "and more", ""),
			fault("spec.picky.a", "a is odd", "write 2"), fault("spec.picky.b[1]", "b is late", "")}},
		{"unknown step", step("nosuch", `{}`), []diag.Fault{fault("spec.picky", `no step is called "nosuch"`, "")}},
	} {
		s, got := newWorld(t).compiler.Compile(config(host("a.example", prefix("/", x.step), prefix("/x", x.step)), host("b.example", prefix("/", x.step))))
		if d := cmp.Diff(x.want, got); d != "" {
			t.Errorf("%s: (-want +got)\n%s", x.name, d)
		}
		for _, path := range []string{"/", "/x"} {
			v := find(t, s, "a.example", path).Steps[0].Handler.Request(&exchange.Exchange{})
			want := policy.Verdict{Status: 299}
			if x.want != nil {
				want = policy.Verdict{Status: 503, Reason: "policy_invalid", Detail: v.Detail}
				if v.Detail == "" {
					t.Errorf("%s: the detail does not say why", x.name)
				}
			}
			if v.Status != want.Status || v.Reason != want.Reason {
				t.Errorf("%s: %s answers %d %s, want %d %s", x.name, path, v.Status, v.Reason, want.Status, want.Reason)
			}
		}
	}
}

func TestBrokenSpecIsAFault(t *testing.T) {
	_, faults := newWorld(t).compiler.Compile(config(host("", prefix("/", step("picky", `{"wrong":3}`)))))
	if len(faults) != 1 || faults[0].Object != shopPolicy {
		t.Errorf("faults = %v, want one of %v", faults, shopPolicy)
	}
}

// TestFaultWithoutField: a step whose place in its object is not known still has the path in the spec.
func TestFaultWithoutField(t *testing.T) {
	s := step("picky", `{"wrong":[{"Path":"a","Msg":"odd"}]}`)
	s.Sources = map[string]ir.Source{"": {Kind: "ProtectionPolicy", Namespace: "shop", Name: "p"}}
	_, faults := newWorld(t).compiler.Compile(config(host("", prefix("/", s))))
	if len(faults) != 1 || faults[0].Path != "a" {
		t.Errorf("faults = %v, want one at path a", faults)
	}
}

func TestKeptHosts(t *testing.T) {
	w := newWorld(t)
	bad := host("bad.example", prefix("/", step("picky", `{"plain":"never right"}`)))
	good := host("good.example", prefix("/"))
	first, faults := w.compiler.Compile(config(bad, good))
	if len(faults) != 1 {
		t.Fatalf("faults = %v, want one", faults)
	}
	changed := host("good.example", prefix("/", step("picky", `{}`)))
	second, again := w.compiler.Compile(config(bad, changed))
	if d := cmp.Diff(faults, again); d != "" {
		t.Errorf("the fault of a host that stays changed:\n%s", d)
	}
	if find(t, first, "bad.example", "/") != find(t, second, "bad.example", "/") {
		t.Error("a host that stays was compiled again")
	}
	if find(t, first, "good.example", "/") == find(t, second, "good.example", "/") {
		t.Error("a host that changed was not compiled again")
	}
	if _, gone := w.compiler.Compile(config(changed)); len(gone) != 0 {
		t.Errorf("faults of a host that left: %v", gone)
	}
	if _, back := w.compiler.Compile(config(bad, changed)); len(back) != 1 {
		t.Errorf("the host came back with %d faults, want 1", len(back))
	}
}

func TestPathSensitive(t *testing.T) {
	guard := step("picky", `{}`)
	in := func(p policy.Phase, s ir.Step) *ir.Step { s.Phase = p.String(); return &s }
	other := func(s ir.Step, handle string) *ir.Step { s.Refs = map[string]string{"secretRef": handle}; return &s }
	for _, x := range []struct {
		name   string
		routes []*ir.Route
		want   bool
	}{
		{"no steps", []*ir.Route{prefix("/"), prefix("/a")}, false},
		{"one route", []*ir.Route{prefix("/", guard)}, false},
		{"all guarded alike", []*ir.Route{prefix("/", guard), prefix("/a", step("picky", `{}`))}, false},
		{"one guarded", []*ir.Route{prefix("/a", guard), prefix("/")}, true},
		{"guarded otherwise", []*ir.Route{prefix("/a", guard), prefix("/", step("picky", `{"wrong":[]}`))}, true},
		{"another secret", []*ir.Route{prefix("/a", other(*guard, "Secret/a/x")), prefix("/", other(*guard, "Secret/b/x"))}, true},
		{"the same secret", []*ir.Route{prefix("/a", other(*guard, "Secret/a/x")), prefix("/", other(*guard, "Secret/a/x"))}, false},
		{"authorise", []*ir.Route{prefix("/a", in(policy.Authorise, *guard)), prefix("/")}, true},
		{"limit", []*ir.Route{prefix("/a", in(policy.Limit, *guard)), prefix("/")}, true},
		{"transform only", []*ir.Route{prefix("/a", in(policy.TransformRequest, *guard)), prefix("/")}, false},
	} {
		s, _ := newWorld(t).compiler.Compile(config(host("", x.routes...)))
		for _, r := range x.routes {
			if got := find(t, s, "any.example", r.Match.Path.Value).PathSensitive; got != x.want {
				t.Errorf("%s: route %s path-sensitive = %v, want %v", x.name, r.Name, got, x.want)
			}
		}
	}
}

// TestClustersAreHeld: a cluster stays while a snapshot that names it is held, and goes with the last.
func TestClustersAreHeld(t *testing.T) {
	w := newWorld(t)
	keys := func() (out []string) {
		for _, c := range w.clusters.All() {
			out = append(out, c.Key)
		}
		return out
	}
	want := func(when string, ks ...string) {
		t.Helper()
		if d := cmp.Diff(ks, keys()); d != "" {
			t.Errorf("%s:\n%s", when, d)
		}
	}
	h := host("", prefix("/"))
	cfg := config(h)
	first, _ := w.compiler.Compile(cfg)
	same, _ := w.compiler.Compile(&ir.Config{Listeners: cfg.Listeners, Hosts: cfg.Hosts, Clusters: cfg.Clusters})
	more := *cfg
	more.Clusters = append([]*ir.Cluster{{Key: "b"}}, cfg.Clusters...)
	third, _ := w.compiler.Compile(&more)
	want("all held", "b", "c")
	if find(t, third, "x", "/").Backends[0].Cluster != find(t, first, "x", "/").Backends[0].Cluster {
		t.Error("the cluster of a kept route is another")
	}
	third.Release()
	want("the newest released", "c")
	first.Release()
	want("one of two released", "c")
	same.Release()
	want("all released")
	again, _ := w.compiler.Compile(config(host("", prefix("/"))))
	want("compiled after the last release", "c")
	again.Release()
	want("released again")
}
