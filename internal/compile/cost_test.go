package compile_test

import (
	"crypto/rand"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/compile"
	"github.com/gatehouse-io/gatehouse/internal/http1"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/limiter"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/builtin"
	"github.com/gatehouse-io/gatehouse/internal/proxy"
	"github.com/gatehouse-io/gatehouse/internal/secret"
	"github.com/gatehouse-io/gatehouse/internal/upstream"
)

// policySets are steps whose cost is watched: what bench measures with sockets around it.
var policySets = []struct {
	name  string
	steps []*ir.Step
}{
	{"plain", nil},
	{"key", []*ir.Step{authn}},
	{"key and limit", []*ir.Step{authn, limit}},
	{"key, limit and early limit", []*ir.Step{early, authn, limit}},
	{"issued key and limit", []*ir.Step{issuedAuthn, limit}},
	{"cel", []*ir.Step{authz}},
}

// oneKey is a store of issued keys that knows one.
type oneKey struct{ hash [32]byte }

func (k oneKey) Open() policy.Keys { return k }
func (oneKey) Ready() bool         { return true }
func (k oneKey) Lookup(hash *[32]byte, _ time.Time) (policy.IssuedKey, bool) {
	return policy.IssuedKey{ID: "0123456789ab", Application: "shop/app"}, *hash == k.hash
}

var (
	authn       = policyStep("authn", policy.Authenticate, "AuthPolicy", `{"methods":[{"name":"key","apiKey":{"secretRefs":[{"name":"keys"}]}}]}`)
	issuedAuthn = policyStep("authn", policy.Authenticate, "AuthPolicy", `{"methods":[{"name":"issued","apiKey":{"from":[{"header":"X-Issued"}]}}]}`)
	authz       = policyStep("authz", policy.Authorise, "AuthPolicy",
		`{"rules":{"readers":{"when":"request.path.startsWith('/api')","require":{"cel":"request.method in ['GET','HEAD'] && request.headers['x-api-key'] != ''"}}}}`)
	limit = policyStep("limit", policy.Limit, "RateLimitPolicy", `{"app":{"when":"identity.application != ''","key":["identity.application"],"rates":[{"limit":1000000000,"period":"1s"}]}}`)
	early = policyStep("limitEarly", policy.LimitEarly, "RateLimitPolicy", `{"address":{"key":["client.address"],"rates":[{"limit":1000000000,"period":"1s"}]}}`)
)

func policyStep(name string, phase policy.Phase, kind, spec string) *ir.Step {
	return &ir.Step{Name: name, Phase: phase.String(), Spec: ir.RawJSON(spec), Refs: map[string]string{"methods[0].apiKey.secretRefs[0]": "Secret/shop/keys"},
		Sources: map[string]ir.Source{"": {Kind: kind, Namespace: "shop", Name: "p"}}}
}

// passer passes requests through the steps of a snapshot, up to the choice of a backend.
func passer(tb testing.TB, steps []*ir.Step) (pass func()) {
	tb.Helper()
	clusters := upstream.NewSet(upstream.Rules{})
	secrets := &secret.Store{}
	secrets.Swap(secret.Set{"Secret/shop/keys": &secret.Material{Data: map[string]secret.Value{"app": secret.New([]byte("hunter2"))}}})
	l := limiter.New(limiter.Options{})
	tb.Cleanup(l.Close)
	key, err := secret.NewIssued("live", rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	env := policy.Env{Secret: secrets, Limiter: l, Keys: oneKey{secret.HashOf(key.Reveal())}}
	c := compile.New(builtin.Steps(), clusters, env, proxy.NoRecorder())
	s, faults := c.Compile(config(host("", prefix("/", steps...))))
	if len(faults) > 0 {
		tb.Fatal(faults)
	}
	k := clusters.Acquire("c")
	k.Configure(&upstream.Settings{})
	k.SetEndpoints([]upstream.Resolved{{Addr: netip.MustParseAddrPort("192.0.2.1:80"), Ready: true, Serving: true}})
	e := proxy.NewEdge(proxy.NoRecorder())
	e.Swap(s)
	conn := &proxy.ConnInfo{Group: "g", Port: 80, Peer: netip.MustParseAddrPort("192.0.2.7:4711"), PeerText: []byte("192.0.2.7"), PortText: []byte("80")}
	head := []byte(strings.ReplaceAll("GET /api/orders/1234?page=2 HTTP/1.1\nHost: shop.example\nUser-Agent: test\nAccept: */*\nX-API-Key: hunter2\n"+
		"X-Issued: "+string(key.Reveal())+"\n\n", "\n", "\r\n"))
	var f proxy.Flow
	var p http1.Parser
	buf := make([]byte, len(head))
	now := time.Now()
	return func() {
		copy(buf, head)
		now = now.Add(time.Microsecond)
		f.Begin(e, conn, now)
		if _, _, fault := p.ParseRequest(buf, &f.Request); fault != nil {
			tb.Fatal(fault)
		}
		if act := f.Step(proxy.EventHead); act != proxy.ActionConnect {
			tb.Fatalf("the request did not get to a backend: %v %s %s", act, f.Reason, f.Detail)
		}
		f.End(now)
	}
}

func BenchmarkPolicies(b *testing.B) {
	for _, x := range policySets {
		b.Run(x.name, func(b *testing.B) {
			pass := passer(b, x.steps)
			b.ReportAllocs()
			for b.Loop() {
				pass()
			}
		})
	}
}

// Nothing that a request meets on these ways is allocated for it.
func TestPoliciesAlloc(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates; make test runs this without it too")
	}
	for _, x := range policySets {
		pass := passer(t, x.steps)
		if n := testing.AllocsPerRun(1000, pass); n != 0 {
			t.Errorf("%s: %v allocations a request, want 0", x.name, n)
		}
	}
}

// BenchmarkChangeInOneHost is the cost of one route that changes in a host of many, each with a step that guards it.
func BenchmarkChangeInOneHost(b *testing.B) {
	for _, n := range []int{1000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			c := compile.New(builtin.Steps(), upstream.NewSet(upstream.Rules{}), policy.Env{Secret: &secret.Store{}}, proxy.NoRecorder())
			routes := make([]*ir.Route, n)
			for i := range routes {
				s := *early
				routes[i] = prefix(fmt.Sprintf("/v1/team-%d/a%d", i%100, i), &s)
			}
			last, _ := c.Compile(config(host("", routes...)))
			i := 0
			for b.Loop() {
				next := slices.Clone(routes)
				s := *early
				next[n/2] = prefix(fmt.Sprintf("/new-%d", i%2), &s)
				i++
				snapshot, _ := c.Compile(config(host("", next...)))
				last.Release()
				last = snapshot
			}
		})
	}
}
