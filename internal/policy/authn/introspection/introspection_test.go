package introspection

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// caller is a small policy.Caller over net/http.
type caller struct{}

func (caller) Call(ctx context.Context, c *policy.Call) (*policy.Reply, error) {
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Timeout)
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, c.Method, c.URL, bytes.NewReader(c.Body))
	if err != nil {
		return nil, err
	}
	req.Header = c.Header
	r, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(io.LimitReader(r.Body, c.Max+1))
	if int64(len(b)) > c.Max {
		return nil, policy.ErrTooLarge
	}
	return &policy.Reply{Status: r.StatusCode, Header: r.Header, Body: b}, err
}

// callFunc is a Caller for synctest, where no socket may be.
type callFunc func(ctx context.Context, c *policy.Call) (*policy.Reply, error)

func (f callFunc) Call(ctx context.Context, c *policy.Call) (*policy.Reply, error) { return f(ctx, c) }

type secrets map[string]*secret.Material

func (s secrets) Lookup(h string) *secret.Material { return s[h] }

const handle = "Secret/shop/idp"

func world(c policy.Caller, id, password string) policy.Env {
	e := policy.Env{Call: c, Refs: map[string]string{secretPath: handle}, Secret: secrets{}}
	if id != "" {
		e.Secret = secrets{handle: {Data: map[string]secret.Value{"client_id": secret.New([]byte(id)), "client_secret": secret.New([]byte(password))}}}
	}
	return e
}

func compile(t testing.TB, s v1alpha1.IntrospectionAuth, env policy.Env) method.Handler {
	t.Helper()
	h, err := Compile("tokens", &s, env)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func request(now time.Time, fields ...string) *exchange.Exchange {
	x := &exchange.Exchange{Start: now}
	for _, f := range fields {
		n, v, _ := strings.Cut(f, ": ")
		x.Request.Header.Append([]byte(n), []byte(v))
	}
	return x
}

// run is what becomes of a request, and whether somebody was asked.
func run(ctx context.Context, h method.Handler, x *exchange.Exchange) (o method.Outcome, asked bool) {
	o = h.Authenticate(x)
	for o.State == method.Waiting {
		asked = true
		o = o.Wait(ctx)(x)
	}
	return o, asked
}

func dur(s string) *gatewayv1.Duration { d := gatewayv1.Duration(s); return &d }

var start = time.Unix(1_700_000_000, 0)

func TestCompileFaults(t *testing.T) {
	ref := &v1alpha1.LocalSecretRef{Name: "idp"}
	for _, x := range []struct {
		spec v1alpha1.IntrospectionAuth
		want []string
	}{
		{v1alpha1.IntrospectionAuth{URL: "https://idp.example/introspect", ClientSecretRef: ref}, nil},
		{v1alpha1.IntrospectionAuth{URL: "ftp://idp.example", Cache: dur("11m"), Timeout: dur("0s"), DPoP: &v1alpha1.DPoP{Require: "Never"}, Audiences: []string{""},
			From: []v1alpha1.CredentialSource{{}}, ClaimsToHeaders: []v1alpha1.ClaimToHeader{{Claim: "sub", Header: "Host"}}},
			[]string{"from[0]", "claimsToHeaders[0].header", "url", "audiences", "cache", "timeout", "dpop.require"}},
		{v1alpha1.IntrospectionAuth{URL: "https://u:p@idp.example/", Cache: dur("10"), Timeout: dur("soon")}, []string{"url", "cache", "timeout"}},
	} {
		_, err := Compile("tokens", &x.spec, policy.Env{}) // a world in which nothing is there
		got := paths(err)
		if !slices.Equal(got, x.want) {
			t.Errorf("Compile(%+v): faults at %v, want %v", x.spec, got, x.want)
		}
	}
}

func paths(err error) (out []string) {
	if err == nil {
		return nil
	}
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range j.Unwrap() {
			out = append(out, paths(e)...)
		}
		return out
	}
	p, _, _ := strings.Cut(err.Error(), ":")
	return []string{p}
}

func TestAnswers(t *testing.T) {
	var body, auth, form atomic.Value
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		form.Store(r.Method + " " + r.Header.Get("Content-Type") + " " + r.Header.Get("Accept") + " " + string(b))
		auth.Store(r.Header.Get("Authorization"))
		text := body.Load().(string)
		if status := 0; len(text) == 3 {
			fmt.Sscan(text, &status)
			w.WriteHeader(status)
			return
		}
		_, _ = io.WriteString(w, text)
	}))
	defer s.Close()
	exp := func(d time.Duration) string { return fmt.Sprint(start.Add(d).Unix()) }
	for _, x := range []struct {
		body   string
		state  method.State
		reason string
	}{
		{`{"active":true,"sub":"u1","client_id":"web","scope":"a b","iss":"https://idp.example","aud":["x","orders"],"exp":` + exp(time.Minute) + `}`, method.Accepted, ""},
		{`{"active":true,"aud":"orders"}`, method.Accepted, ""},
		{`{"active":false}`, method.Refused, "token_inactive"},
		{`{"active":true,"aud":"other"}`, method.Refused, "audience_wrong"},
		{`{"active":true}`, method.Refused, "audience_wrong"},
		{`{"active":true,"aud":"orders","exp":` + exp(0) + `}`, method.Refused, "token_expired"},
		{`{"active":true,"aud":"orders","exp":` + exp(500*time.Millisecond) + `.5}`, method.Accepted, ""},
		{`{"active":true,"aud":"orders","nbf":` + exp(time.Second) + `}`, method.Refused, "token_not_yet_valid"},
		{`{"active":true,"aud":"orders","token_use":"refresh_token"}`, method.Refused, "type_not_allowed"},
		{`{"active":true,"aud":"orders","cnf":{"jkt":"x"}}`, method.Refused, "token_needs_dpop"},
		{`{"active":"true","aud":"orders"}`, method.Unavailable, "introspection_unavailable"},
		{`{"Active":true,"aud":"orders"}`, method.Unavailable, "introspection_unavailable"},
		{`{"active":1,"aud":"orders"}`, method.Unavailable, "introspection_unavailable"},
		{`{"active":true,"aud":"orders","exp":"soon"}`, method.Unavailable, "introspection_unavailable"},
		{`{"active":true,"aud":"orders","exp":1e300}`, method.Unavailable, "introspection_unavailable"},
		{`{"active":true,"aud":"orders","iss":7}`, method.Unavailable, "introspection_unavailable"},
		{`{"active":true,"aud":"orders"} {}`, method.Unavailable, "introspection_unavailable"},
		{`null`, method.Unavailable, "introspection_unavailable"},
		{``, method.Unavailable, "introspection_unavailable"},
		{`{"active":true,"aud":"orders","x":"` + strings.Repeat("x", maxAnswer) + `"}`, method.Unavailable, "introspection_unavailable"},
		{"500", method.Unavailable, "introspection_unavailable"},
		{"401", method.Unavailable, "introspection_unavailable"},
		{"302", method.Unavailable, "introspection_unavailable"},
		{"204", method.Unavailable, "introspection_unavailable"},
	} {
		body.Store(x.body)
		h := compile(t, v1alpha1.IntrospectionAuth{URL: s.URL, Audiences: []string{"orders"}, ClientSecretRef: &v1alpha1.LocalSecretRef{Name: "idp"},
			ClaimsToHeaders: []v1alpha1.ClaimToHeader{{Claim: "sub", Header: "X-User"}}}, world(caller{}, "a b:c", "p/ä"))
		o, _ := run(t.Context(), h, request(start, "Authorization: Bearer tok+en/=&x=%"))
		if o.State != x.state || o.Reason != x.reason {
			t.Errorf("%.80s: %v %s (%s), want %v %s", x.body, o.State, o.Reason, o.Detail, x.state, x.reason)
		}
		if x.state == method.Refused && o.Params != `error="invalid_token"` {
			t.Errorf("%.80s: params %q", x.body, o.Params)
		}
		if strings.Contains(fmt.Sprint(o.Detail), "tok+en") {
			t.Errorf("the token is in the detail %q", o.Detail)
		}
	}
	if got, want := form.Load(), "POST application/x-www-form-urlencoded application/json token=tok%2Ben%2F%3D%26x%3D%25&token_type_hint=access_token"; got != want {
		t.Errorf("the server got %s, want %s", got, want)
	}
	r := http.Request{Header: http.Header{"Authorization": {auth.Load().(string)}}}
	id, password, _ := r.BasicAuth()
	if id != "a+b%3Ac" || password != "p%2F%C3%A4" {
		t.Errorf("the server got Basic %s %s", id, password)
	}
}

func TestIdentity(t *testing.T) {
	h := compile(t, v1alpha1.IntrospectionAuth{URL: "http://idp.example/", Strip: true, ClaimsToHeaders: []v1alpha1.ClaimToHeader{{Claim: "sub", Header: "X-User"}}},
		world(callFunc(func(context.Context, *policy.Call) (*policy.Reply, error) {
			return &policy.Reply{Status: 200, Body: []byte(`{"active":true,"sub":"u1","client_id":"web","scope":"a b","iss":"i","jti":"j"}`)}, nil
		}), "", ""))
	x := request(start, "Authorization: bearer  t")
	o, _ := run(t.Context(), h, x)
	want := exchange.Identity{Subject: "u1", Application: "web", Issuer: "i", CredentialID: "j", Scopes: []string{"a", "b"}, Claims: o.Identity.Claims}
	if diff := cmp.Diff(want, o.Identity); diff != "" {
		t.Error(diff)
	}
	if len(o.Header) != 1 || string(o.Header[0].Name) != "X-User" || string(o.Header[0].Value) != "u1" {
		t.Errorf("backends are told %s", o.Header)
	}
	h.Admit(x)
	if x.Request.Header.Len() != 0 {
		t.Error("the token was not taken out")
	}
	if h.Challenge != `Bearer realm="tokens"` || !slices.Equal(h.Fields, []string{"X-User"}) {
		t.Errorf("challenge %s, fields %v", h.Challenge, h.Fields)
	}
}

// TestNothingIsAsked: for what cannot be a token, without a token, while explaining, without credentials of the client.
func TestNothingIsAsked(t *testing.T) {
	spec := v1alpha1.IntrospectionAuth{URL: "http://idp.example/", ClientSecretRef: &v1alpha1.LocalSecretRef{Name: "idp"}}
	h := compile(t, spec, world(callFunc(func(context.Context, *policy.Call) (*policy.Reply, error) {
		t.Error("the server was asked")
		return nil, io.EOF
	}), "", ""))
	for _, x := range []struct {
		fields []string
		state  method.State
		reason string
	}{
		{nil, method.Absent, ""},
		{[]string{"Authorization: Basic eA=="}, method.Absent, ""},
		{[]string{"Authorization: Bearer a", "Authorization: Bearer b"}, method.Refused, "credential_repeated"},
		{[]string{"Authorization: Bearer " + strings.Repeat("x", maxToken+1)}, method.Refused, "token_too_large"},
		{[]string{"Authorization: Bearer a b"}, method.Refused, "token_malformed"},
		{[]string{"Authorization: Bearer ä"}, method.Refused, "token_malformed"},
		{[]string{"Authorization: Bearer a"}, method.Unavailable, "introspection_unavailable"}, // no Secret
	} {
		o, _ := run(t.Context(), h, request(start, x.fields...))
		if o.State != x.state || o.Reason != x.reason {
			t.Errorf("%.40q: %v %s, want %v %s", x.fields, o.State, o.Reason, x.state, x.reason)
		}
	}
	dry := request(start, "Authorization: Bearer a")
	dry.Dry = true
	if o := h.Authenticate(dry); o.State != method.Waiting || o.Asks != spec.URL {
		t.Errorf("explaining: %+v, want it to say whom it would ask", o)
	}
	h = compile(t, v1alpha1.IntrospectionAuth{URL: "http://idp.example/"}, policy.Env{})
	if o, _ := run(t.Context(), h, request(start, "Authorization: Bearer a")); o.State != method.Unavailable {
		t.Errorf("without a Caller: %v", o.State)
	}
}

// TestCache: yes is kept for cache, but not beyond exp; no for ten seconds; what is no answer is not kept.
func TestCache(t *testing.T) {
	for _, x := range []struct {
		body  string
		cache string
		keeps time.Duration // 0: not at all
	}{
		{`{"active":true}`, "", 30 * time.Second},
		{`{"active":true}`, "1m", time.Minute},
		{`{"active":true}`, "0s", 0},
		{fmt.Sprintf(`{"active":true,"exp":%d}`, start.Add(5*time.Second).Unix()), "1m", 5 * time.Second},
		{`{"active":false}`, "1m", 10 * time.Second},
		{`{"active":false}`, "5s", 5 * time.Second},
		{`{"active":false}`, "0s", 0},
		{`{}`, "1m", 0},
	} {
		spec := v1alpha1.IntrospectionAuth{URL: "http://idp.example/"}
		if x.cache != "" {
			spec.Cache = dur(x.cache)
		}
		h := compile(t, spec, world(callFunc(func(context.Context, *policy.Call) (*policy.Reply, error) {
			return &policy.Reply{Status: 200, Body: []byte(x.body)}, nil
		}), "", ""))
		asks := func(d time.Duration, token string) bool {
			_, asked := run(t.Context(), h, request(start.Add(d), "Authorization: Bearer "+token))
			return asked
		}
		if !asks(0, "a") || !asks(0, "b") {
			t.Errorf("%s: an answer about another token was used", x.body)
		}
		if x.keeps == 0 {
			if !asks(0, "a") {
				t.Errorf("%s, cache %q: kept", x.body, x.cache)
			}
			continue
		}
		if asks(x.keeps-time.Millisecond, "a") {
			t.Errorf("%s, cache %q: not kept for %s", x.body, x.cache, x.keeps)
		}
		if !asks(x.keeps, "a") {
			t.Errorf("%s, cache %q: kept for %s", x.body, x.cache, x.keeps)
		}
	}
}

// TestCacheBounds: a client that makes tokens up pushes out neither good answers nor the process.
func TestCacheBounds(t *testing.T) {
	size := 10
	h := compile(t, v1alpha1.IntrospectionAuth{URL: "http://idp.example/"}, world(callFunc(func(_ context.Context, c *policy.Call) (*policy.Reply, error) {
		v, _ := url.ParseQuery(string(c.Body))
		b, _ := json.Marshal(map[string]any{"active": strings.HasPrefix(v.Get("token"), "good"), "x": strings.Repeat("x", size)})
		return &policy.Reply{Status: 200, Body: b}, nil
	}), "", ""))
	asks := func(token string) bool {
		_, asked := run(t.Context(), h, request(start, "Authorization: Bearer "+token))
		return asked
	}
	asks("good")
	for i := range maxEntries + 1 {
		asks(fmt.Sprint("bad", i))
	}
	if asks("good") {
		t.Error("made-up tokens pushed a good answer out")
	}
	if !asks("bad0") || asks(fmt.Sprint("bad", maxEntries)) {
		t.Error("of the answers no, the oldest is not the one that went")
	}
	size = 20 << 10
	for i := range 1000 {
		asks(fmt.Sprint("good", i))
	}
	if !asks("good0") || asks("good999") {
		t.Error("the answers yes are not bounded by their bytes")
	}
}

// TestServerDown: answers that are known still serve, and after five failures the server has a second's rest; then one request finds
// out for all.
func TestServerDown(t *testing.T) {
	var down atomic.Bool
	var calls atomic.Int64
	h := compile(t, v1alpha1.IntrospectionAuth{URL: "http://idp.example/", Cache: dur("10m")}, world(callFunc(func(context.Context, *policy.Call) (*policy.Reply, error) {
		calls.Add(1)
		if down.Load() {
			return nil, io.ErrUnexpectedEOF
		}
		return &policy.Reply{Status: 200, Body: []byte(`{"active":true}`)}, nil
	}), "", ""))
	ask := func(d time.Duration, token string, want method.State, asks bool) {
		t.Helper()
		before := calls.Load()
		o, _ := run(t.Context(), h, request(start.Add(d), "Authorization: Bearer "+token))
		if o.State != want || (calls.Load() > before) != asks {
			t.Errorf("at %s: %v, asked %v; want %v, %v", d, o.State, calls.Load() > before, want, asks)
		}
	}
	ask(0, "known", method.Accepted, true)
	down.Store(true)
	for i := range mostFailures {
		ask(time.Second, fmt.Sprint(i), method.Unavailable, true)
	}
	ask(time.Second, "new", method.Unavailable, false)
	ask(time.Second, "known", method.Accepted, false)
	ask(1999*time.Millisecond, "new", method.Unavailable, false)
	ask(2*time.Second, "new", method.Unavailable, true) // finds out that it still is
	ask(2*time.Second, "new", method.Unavailable, false)
	down.Store(false)
	ask(3*time.Second, "new", method.Accepted, true)
	ask(3*time.Second, "newer", method.Accepted, true)
}

// TestBadTokensTripNothing: a server that answers 400 to a token it cannot read does not stop serving the others.
func TestBadTokensTripNothing(t *testing.T) {
	h := compile(t, v1alpha1.IntrospectionAuth{URL: "http://idp.example/"}, world(callFunc(func(_ context.Context, c *policy.Call) (*policy.Reply, error) {
		if strings.HasPrefix(string(c.Body), "token=good&") {
			return &policy.Reply{Status: 200, Body: []byte(`{"active":true}`)}, nil
		}
		return &policy.Reply{Status: 400}, nil
	}), "", ""))
	for i := range 10 * mostFailures {
		if o, _ := run(t.Context(), h, request(start, fmt.Sprint("Authorization: Bearer bad", i))); o.State != method.Unavailable {
			t.Fatalf("a token that the server cannot read: %v", o.State)
		}
	}
	if o, _ := run(t.Context(), h, request(start, "Authorization: Bearer good")); o.State != method.Accepted {
		t.Errorf("after many bad tokens a good one: %v (%s)", o.State, o.Detail)
	}
}

// TestSingleFlight: about one token one question is on its way; whoever waits for it keeps its own time, and whoever asked and was cut
// short leaves the question to the next.
func TestSingleFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		h := compile(t, v1alpha1.IntrospectionAuth{URL: "http://idp.example/"}, world(callFunc(func(ctx context.Context, _ *policy.Call) (*policy.Reply, error) {
			calls.Add(1)
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(time.Second):
				return &policy.Reply{Status: 200, Body: []byte(`{"active":true,"sub":"u"}`)}, nil
			}
		}), "", ""))
		var wg sync.WaitGroup
		ask := func(limit time.Duration, want method.State) {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				if o, _ := run(ctx, h, request(time.Now(), "Authorization: Bearer a")); o.State != want {
					t.Errorf("with %s: %v (%s), want %v", limit, o.State, o.Detail, want)
				}
			})
			synctest.Wait()
		}
		ask(500*time.Millisecond, method.Unavailable) // asks, and its time is over
		ask(100*time.Millisecond, method.Unavailable) // waits, and its time is over
		for range 20 {
			ask(time.Minute, method.Accepted)
		}
		wg.Wait()
		if n := calls.Load(); n != 2 {
			t.Errorf("%d questions, want 2: that of the first, and one after it", n)
		}
	})
}

func BenchmarkKnownToken(b *testing.B) {
	h := compile(b, v1alpha1.IntrospectionAuth{URL: "http://idp.example/", ClaimsToHeaders: []v1alpha1.ClaimToHeader{{Claim: "sub", Header: "X-User"}}},
		world(callFunc(func(context.Context, *policy.Call) (*policy.Reply, error) {
			return &policy.Reply{Status: 200, Body: []byte(`{"active":true,"sub":"u1","scope":"a b"}`)}, nil
		}), "", ""))
	x := request(start, "Host: shop.example", "Accept: */*", "Authorization: Bearer 2YotnFZFEjr1zCsicMWpAA2YotnFZFEjr1zCsicMWpAA")
	run(b.Context(), h, x)
	b.ReportAllocs()
	for b.Loop() {
		if o := h.Authenticate(x); o.State != method.Accepted {
			b.Fatal(o)
		}
	}
}

// A bound token without a proof is refused, and so is one that has to be bound and is not; the challenge names both schemes.
func TestProofs(t *testing.T) {
	var body atomic.Value
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, body.Load().(string))
	}))
	defer s.Close()
	for _, x := range []struct {
		require, body, scheme string
		state                 method.State
	}{
		{"", `{"active":true}`, "Bearer", method.Accepted},
		{"", `{"active":true,"cnf":{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}`, "Bearer", method.Refused},
		{"", `{"active":true,"cnf":{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}`, "DPoP", method.Refused},
		{"Always", `{"active":true}`, "Bearer", method.Refused},
		{"Always", `{"active":true}`, "DPoP", method.Refused},
	} {
		body.Store(x.body)
		h := compile(t, v1alpha1.IntrospectionAuth{URL: s.URL, DPoP: &v1alpha1.DPoP{Require: x.require}}, world(caller{}, "a", "b"))
		for range 2 { // asked, then remembered
			if o, _ := run(t.Context(), h, request(start, "Authorization: "+x.scheme+" tok")); o.State != x.state {
				t.Errorf("%q %s as %s: %v %s, want %v", x.require, x.body, x.scheme, o.State, o.Reason, x.state)
			}
		}
		if !strings.Contains(h.Challenge, "DPoP algs=") {
			t.Errorf("challenge %q", h.Challenge)
		}
	}
}
