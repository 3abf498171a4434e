package external

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/edge"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
	"github.com/gatehouse-io/gatehouse/internal/upstream"
)

const handle = "Service/shop/authz/80"

// world is an Env whose Caller is the real one, with a cluster that has one endpoint.
func world(t testing.TB, at net.Addr) policy.Env {
	t.Helper()
	set := upstream.NewSet(upstream.Rules{})
	k := set.Acquire(handle)
	k.SetEndpoints([]upstream.Resolved{{Addr: netip.MustParseAddrPort(at.String()), Ready: true}})
	c := edge.NewCalls(set, nil)
	t.Cleanup(func() {
		c.Close()
		set.Release(k)
	})
	return policy.Env{Call: c, Refs: map[string]string{refPath: handle}}
}

func spec(protocol string) v1alpha1.ExternalAuth {
	port := gatewayv1.PortNumber(80)
	return v1alpha1.ExternalAuth{Protocol: protocol, BackendRef: gatewayv1.BackendObjectReference{Name: "authz", Port: &port}}
}

func compile(t testing.TB, s v1alpha1.ExternalAuth, env policy.Env) method.Handler {
	t.Helper()
	h, err := Compile("authz", &s, env)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// request is a request with a query, fields and perhaps a body.
func request(fields ...string) *exchange.Exchange {
	x := &exchange.Exchange{Start: time.Unix(1_700_000_000, 0), Scheme: "https", TLS: true, SNI: "shop.example", Port: 443, ID: []byte("id-1"),
		Client: netip.MustParseAddrPort("192.0.2.7:5000")}
	r := &x.Request
	r.Method, r.Authority, r.Host, r.Path, r.Query, r.HasQuery, r.Version = []byte("PUT"), []byte("shop.example:443"), []byte("shop.example"), []byte("/cart%2Fa/7"),
		[]byte("a=1|2"), true, exchange.HTTP11
	for _, f := range fields {
		n, v, _ := strings.Cut(f, ": ")
		r.Header.Append([]byte(n), []byte(v))
	}
	return x
}

func run(ctx context.Context, h method.Handler, x *exchange.Exchange) method.Outcome {
	o := h.Authenticate(x)
	for o.State == method.Waiting {
		o = o.Wait(ctx)(x)
	}
	return o
}

// lines is a header as text, sorted.
func lines(fs []exchange.Field) string {
	var out []string
	for _, f := range fs {
		if f.Value == nil {
			out = append(out, "-"+string(f.Name))
			continue
		}
		out = append(out, string(f.Name)+": "+string(f.Value))
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

func TestCompileFaults(t *testing.T) {
	dur := func(s string) *gatewayv1.Duration { d := gatewayv1.Duration(s); return &d }
	bad := v1alpha1.ExternalAuth{Protocol: "SOAP", OnFailure: "Maybe", Timeout: dur("31s"), ForwardBody: &v1alpha1.ForwardBody{MaxSize: 1<<20 + 1},
		HTTP: &v1alpha1.ExternalHTTPAuth{Path: "check", AllowedHeaders: []string{"X", "a b", "Transfer-Encoding"}, AllowedResponseHeaders: []string{"X-User", "Authorization", "x-forwarded_for"}}}
	both := spec("GRPC")
	both.HTTP, both.GRPC, both.Timeout = &v1alpha1.ExternalHTTPAuth{}, &v1alpha1.ExternalGRPCAuth{}, dur("0s")
	other := spec("HTTP")
	other.GRPC = &v1alpha1.ExternalGRPCAuth{AllowedResponseHeaders: []string{"Host"}}
	for _, x := range []struct {
		name string
		spec v1alpha1.ExternalAuth
		want []string
	}{
		{"good", spec("HTTP"), nil},
		{"all wrong", bad, []string{"backendRef.name", "backendRef.port", "protocol", "onFailure", "timeout", "forwardBody.maxSize", "http.path",
			"http.allowedHeaders[1]", "http.allowedHeaders[2]", "http.allowedResponseHeaders[1]", "http.allowedResponseHeaders[2]"}},
		{"http and grpc", both, []string{"timeout", "http"}},
		{"grpc with HTTP", other, []string{"grpc", "grpc.allowedResponseHeaders[0]"}},
	} {
		_, err := Compile("authz", &x.spec, policy.Env{})
		var got []string
		if j, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range j.Unwrap() {
				p, _, _ := strings.Cut(e.Error(), ":")
				got = append(got, p)
			}
		}
		if !slices.Equal(got, x.want) {
			t.Errorf("%s: faults at %v, want %v", x.name, got, x.want)
		}
	}
}

func TestPrefix(t *testing.T) {
	for p, want := range map[string]bool{"": true, "/": true, "/check": true, "/a/b%20c/": true, "check": false, "/a?b": false, "/a#b": false, "/a b": false,
		"/../x": false, "/a/.": false, "/%zz": false, "/%2": false, "/a\\b": false, "//evil.example": true} {
		if got := goodPrefix(p); got != want {
			t.Errorf("goodPrefix(%q) = %v, want %v", p, got, want)
		}
	}
}

func TestSendable(t *testing.T) {
	for a, want := range map[string]bool{"shop.example": true, "shop.example:8080": true, "[2001:db8::1]:80": true, "a_b": true, "a/b": false, "u@h": false,
		"a?b": false, "[::1": false, "a%20b": false, "": false, "h:port": false, "a[b]": false} {
		if got := sendable(a); got != want && a != "" {
			t.Errorf("sendable(%q) = %v, want %v", a, got, want)
		}
	}
}

// TestNothingIsAsked: while explaining, and where there is nobody to ask, whatever onFailure says.
func TestNothingIsAsked(t *testing.T) {
	for _, protocol := range []string{"HTTP", "GRPC"} {
		s := spec(protocol)
		s.OnFailure = "Allow"
		h := compile(t, s, policy.Env{Refs: map[string]string{refPath: handle}})
		x := request()
		if o := run(t.Context(), h, x); o.State != method.Unavailable || o.Reason != "external_unavailable" {
			t.Errorf("%s without a Caller: %v %s", protocol, o.State, o.Reason)
		}
		x.Dry = true
		if o := h.Authenticate(x); o.State != method.Waiting || o.Asks != protocol+" shop/authz:80" {
			t.Errorf("%s while explaining: %v, asks %q", protocol, o.State, o.Asks)
		}
	}
}

// TestOnFailure: a service that is gone, or does not answer in time.
func TestOnFailure(t *testing.T) {
	gone := httptest.NewServer(nil)
	at := gone.Listener.Addr()
	gone.Close()
	hang := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}))
	defer slow.Close()
	defer close(hang)
	short := gatewayv1.Duration("20ms")
	for _, protocol := range []string{"HTTP", "GRPC"} {
		for name, a := range map[string]net.Addr{"gone": at, "slow": slow.Listener.Addr()} {
			for on, want := range map[string]method.State{"": method.Unavailable, "Deny": method.Unavailable, "Allow": method.Accepted} {
				s := spec(protocol)
				s.OnFailure, s.Timeout = on, &short
				o := run(t.Context(), compile(t, s, world(t, a)), request())
				if o.State != want || o.Detail == "" || want == method.Unavailable && o.Reason != "external_unavailable" {
					t.Errorf("%s, service %s, onFailure %q: %v %s (%s), want %v", protocol, name, on, o.State, o.Reason, o.Detail, want)
				}
			}
		}
	}
}

// TestFailOpenIsNotForTheClientToChoose: what a request brings about is no failure of the service, and does not let it pass.
func TestFailOpenIsNotForTheClientToChoose(t *testing.T) {
	long := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(403)
		_, _ = w.Write(make([]byte, maxAnswer+1))
	}))
	defer long.Close()
	s := spec("HTTP")
	s.OnFailure = "Allow"
	h := compile(t, s, world(t, long.Listener.Addr()))
	if o := run(t.Context(), h, request()); o.State != method.Unavailable {
		t.Errorf("an answer that is too long: %v (%s)", o.State, o.Detail)
	}
	for _, host := range []string{"a/b", "a?b", "u@h", "a%", "h:1:2", "[::1"} {
		x := request()
		x.Request.Authority = []byte(host)
		if o := run(t.Context(), h, x); o.State != method.Refused {
			t.Errorf("the host %q: %v (%s)", host, o.State, o.Detail)
		}
	}
	for name, change := range map[string]func(*exchange.Request){
		"path": func(r *exchange.Request) { r.Path = []byte("/a|b\"<>^`{}\x80") }, "query": func(r *exchange.Request) { r.Query = []byte("%zz|\xff") },
		"method": func(r *exchange.Request) { r.Method = []byte("M-SEARCH") }, "no host": func(r *exchange.Request) { r.Authority, r.Host = nil, nil },
		"field": func(r *exchange.Request) { r.Header.Append([]byte("Authorization"), []byte("\xff\t\x80")) },
	} {
		ok := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }))
		x := request()
		change(&x.Request)
		if o := run(t.Context(), compile(t, s, world(t, ok.Listener.Addr())), x); o.State == method.Accepted {
			t.Errorf("a strange %s: accepted (%s)", name, o.Detail)
		}
		ok.Close()
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if o := run(over, h, request()); o.State != method.Unavailable {
		t.Errorf("a request whose time is over: %v", o.State)
	}
}
