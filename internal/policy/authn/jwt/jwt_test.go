package jwt

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/token"
)

const idp = "https://idp.example"

var start = time.Unix(1_700_000_000, 0)

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func newKey(t testing.TB) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// sign makes a token; header says more than alg.
func sign(t testing.TB, key any, header, claims map[string]any) string {
	t.Helper()
	h := map[string]any{"alg": "ES256", "typ": "JWT"}
	if _, ok := key.(*rsa.PrivateKey); ok {
		h["alg"] = "RS256"
	}
	for k, v := range header {
		h[k] = v
	}
	one, _ := json.Marshal(h)
	two, _ := json.Marshal(claims)
	text := b64(one) + "." + b64(two)
	digest := sha256.Sum256([]byte(text))
	var signature []byte
	var err error
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		r, s, e := ecdsa.Sign(rand.Reader, k, digest[:])
		signature, err = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...), e
	case *rsa.PrivateKey:
		signature, err = rsa.SignPKCS1v15(nil, k, crypto.SHA256, digest[:])
	}
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + b64(signature)
}

func setOf(t testing.TB, kid string, key any) string {
	b, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.(interface{ Public() crypto.PublicKey }).Public(), KeyID: kid}}})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func claims(more ...any) map[string]any {
	c := map[string]any{"iss": idp, "sub": "ann", "aud": "shop", "azp": "web", "scope": "read write", "exp": start.Unix() + 300}
	for i := 0; i+1 < len(more); i += 2 {
		if c[more[i].(string)] = more[i+1]; more[i+1] == nil {
			delete(c, more[i].(string))
		}
	}
	return c
}

func request(fields ...string) *exchange.Exchange {
	x := &exchange.Exchange{Start: start, Scheme: "https"}
	x.Request.Method, x.Request.Authority, x.Request.Path = []byte("GET"), []byte("shop.example"), []byte("/")
	for i := 0; i+1 < len(fields); i += 2 {
		x.Request.Header.Append([]byte(fields[i]), []byte(fields[i+1]))
	}
	return x
}

func bearer(text string) *exchange.Exchange { return request("Authorization", "Bearer "+text) }

func compiled(t testing.TB, s *v1alpha1.JWTAuth, env policy.Env) method.Handler {
	t.Helper()
	h, err := Compile("idp", s, env)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// run runs a method to its end.
func run(t testing.TB, h method.Handler, x *exchange.Exchange) method.Outcome {
	t.Helper()
	o := h.Authenticate(x)
	for o.State == method.Waiting {
		o = o.Wait(t.Context())(x)
	}
	return o
}

func TestIdentity(t *testing.T) {
	k := newKey(t)
	h := compiled(t, &v1alpha1.JWTAuth{
		Issuers:         []v1alpha1.JWTIssuer{{Issuer: idp, Audiences: []string{"shop"}, JWKS: &v1alpha1.JWKS{Inline: setOf(t, "k", k)}}},
		ClaimsToHeaders: []v1alpha1.ClaimToHeader{{Claim: "sub", Header: "X-User"}, {Claim: "roles", Header: "X-Roles"}, {Claim: "none", Header: "X-None"}},
		Strip:           true,
	}, policy.Env{})
	x := bearer(sign(t, k, map[string]any{"kid": "k"}, claims("roles", []string{"a", "b"}, "jti", "7")))
	for range 2 { // verified, and remembered
		o := run(t, h, x)
		if o.State != method.Accepted {
			t.Fatalf("%s: %s", o.Reason, o.Detail)
		}
		id := o.Identity
		id.Claims = nil
		want := exchange.Identity{Subject: "ann", Application: "web", CredentialID: "7", Issuer: idp, Scopes: []string{"read", "write"}}
		if d := cmp.Diff(want, id); d != "" {
			t.Errorf("identity (-want +got):\n%s", d)
		}
		var told []string
		for _, f := range o.Header {
			told = append(told, string(f.Name)+": "+string(f.Value))
		}
		if d := cmp.Diff([]string{"X-User: ann", "X-Roles: a,b"}, told); d != "" {
			t.Errorf("told (-want +got):\n%s", d)
		}
	}
	if d := cmp.Diff([]string{"X-User", "X-Roles", "X-None"}, h.Fields); d != "" {
		t.Errorf("Fields (-want +got):\n%s", d)
	}
	if h.Admit(x); x.Request.Header.Len() != 0 {
		t.Error("the token is still in the request")
	}
	if h.Challenge != `Bearer realm="idp"` {
		t.Errorf("challenge %s", h.Challenge)
	}
}

func TestRefusals(t *testing.T) {
	k, other := newKey(t), newKey(t)
	h := compiled(t, &v1alpha1.JWTAuth{Issuers: []v1alpha1.JWTIssuer{
		{Issuer: idp, Audiences: []string{"shop"}, JWKS: &v1alpha1.JWKS{Inline: setOf(t, "k", k)}},
		{Issuer: "https://other.example", JWKS: &v1alpha1.JWKS{Inline: setOf(t, "k", other)}},
	}}, policy.Env{})
	kid := map[string]any{"kid": "k"}
	good := sign(t, k, kid, claims())
	for _, c := range []struct{ name, text, want string }{
		{"good", good, ""},
		{"other issuer", sign(t, other, kid, claims("iss", "https://other.example", "aud", nil)), ""},
		{"keys of the other issuer", sign(t, other, kid, claims()), token.BadSignature},
		{"the other issuer with our keys", sign(t, k, kid, claims("iss", "https://other.example")), token.BadSignature},
		{"unknown issuer", sign(t, k, kid, claims("iss", "https://evil.example")), token.BadIssuer},
		{"issuer with a slash", sign(t, k, kid, claims("iss", idp+"/")), token.BadIssuer},
		{"no issuer", sign(t, k, kid, claims("iss", nil)), token.BadIssuer},
		{"audience", sign(t, k, kid, claims("aud", "cart")), token.BadAudience},
		{"expired", sign(t, k, kid, claims("exp", start.Unix())), token.Expired},
		{"no expiry", sign(t, k, kid, claims("exp", nil)), token.NoExpiry},
		{"expiry a text", sign(t, k, kid, claims("exp", "2030")), token.Malformed},
		{"not yet", sign(t, k, kid, claims("nbf", start.Unix()+1)), token.NotYet},
		{"issued in the future is not looked at", sign(t, k, kid, claims("iat", start.Unix()+1000)), ""},
		{"proof as token", sign(t, k, map[string]any{"kid": "k", "typ": "dpop+jwt"}, claims()), token.BadType},
		{"unknown key", sign(t, k, map[string]any{"kid": "x"}, claims()), token.KeyUnknown},
		{"one bit of the claims", good[:60] + flip(good[60:61]) + good[61:], "any"},
		{"no token", "x", token.Malformed},
		{"long", strings.Repeat("x", token.MaxToken+1), token.TooLarge},
	} {
		o := run(t, h, bearer(c.text))
		switch {
		case c.want == "" && o.State != method.Accepted, c.want == "any" && o.State != method.Refused, len(c.want) > 3 && (o.State != method.Refused || o.Reason != c.want):
			t.Errorf("%s: state %d, %s (%s), want %q", c.name, o.State, o.Reason, o.Detail, c.want)
		case c.want != "" && o.Params != `error="invalid_token"`:
			t.Errorf("%s: params %q", c.name, o.Params)
		}
		if strings.Contains(o.Detail, c.text[:min(20, len(c.text))]) && len(c.text) > 1 {
			t.Errorf("%s: the detail holds the token: %s", c.name, o.Detail)
		}
	}
	if o := run(t, h, request()); o.State != method.Absent {
		t.Errorf("no token: state %d, want absent", o.State)
	}
	if o := run(t, h, request("Authorization", "Bearer "+good, "Authorization", "Bearer "+good)); o.Reason != "credential_repeated" {
		t.Errorf("two tokens: %s", o.Reason)
	}
}

func flip(s string) string {
	if s == "A" {
		return "B"
	}
	return "A"
}

func TestCompileFaults(t *testing.T) {
	d := gatewayv1.Duration("6m")
	weak, _ := rsa.GenerateKey(rand.Reader, 1024)
	_, err := Compile("idp", &v1alpha1.JWTAuth{
		From: []v1alpha1.CredentialSource{{}},
		Issuers: []v1alpha1.JWTIssuer{
			{Issuer: "urn:idp"},
			{Issuer: "a", JWKS: &v1alpha1.JWKS{}},
			{Issuer: "a", JWKS: &v1alpha1.JWKS{URL: "ftp://x"}},
			{Issuer: "b", Algorithms: []string{"HS256"}, JWKS: &v1alpha1.JWKS{URL: "https://x"}},
			{Issuer: "c", Algorithms: []string{"HS256", "RS256", "none"}, JWKS: &v1alpha1.JWKS{Inline: "x"}},
			{Issuer: "d", JWKS: &v1alpha1.JWKS{Inline: setOf(t, "k", weak)}, Leeway: &d, Expiry: "never"},
			{Issuer: "e", Algorithms: []string{"RS256"}, JWKS: &v1alpha1.JWKS{Inline: setOf(t, "k", newKey(t))}},
			{Issuer: "f", JWKS: &v1alpha1.JWKS{Inline: `{"keys":[{"kty":"oct","k":"AAAA"}]}`}},
		},
		ClaimsToHeaders: []v1alpha1.ClaimToHeader{{Claim: "sub", Header: "Host"}},
		DPoP:            &v1alpha1.DPoP{Require: "never"},
	}, policy.Env{})
	if err == nil {
		t.Fatal("no fault")
	}
	want := `from[0]: names not exactly one place (write one of header, query and cookie)
issuers[0].issuer: "urn:idp" is not a URL, so it has no discovery document (write jwks with url or inline)
issuers[1].jwks: sets not exactly one of url and inline (write url or inline)
issuers[2].issuer: "a" is empty or stands twice
issuers[2].jwks.url: "ftp://x" is not a URL that can be fetched (write https://idp.example/keys)
issuers[3].algorithms: HS* needs a secret, and one that is fetched from a URL is none (write the key under jwks.inline, or use algorithms of public keys)
issuers[4].algorithms[2]: "none" is not known (write one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, HS256, HS384, HS512)
issuers[4].algorithms: mixes HS* with algorithms of public keys (keep one kind for an issuer)
issuers[4].jwks.inline: is not JSON (write {"keys": [...]}, public keys as JWK)
issuers[5].expiry: "never" is not known (write Required or Optional)
issuers[5].leeway: 6m0s is longer than 5m0s (write at most 5m)
issuers[5].jwks.inline.keys[0]: is an RSA key of 1024 bits, not of 2048 to 8192
issuers[6].jwks.inline: has no key for RS256
issuers[7].jwks.inline.keys[0]: is a secret of 3 bytes, and even HS256 needs 32
claimsToHeaders[0].header: "Host" cannot tell who calls: requests have it for something else (write X-User, or a name of your own)
dpop.require: "never" is not known (write Bound or Always)`
	if d := cmp.Diff(want, err.Error()); d != "" {
		t.Errorf("faults (-want +got):\n%s", d)
	}
	if _, err := Compile("idp", &v1alpha1.JWTAuth{}, policy.Env{}); err == nil || !strings.HasPrefix(err.Error(), "issuers: is empty") {
		t.Errorf("no issuers: %v", err)
	}
}

// live is a LiveStore whose work runs until the test ends.
type live struct {
	mu     sync.Mutex
	ctx    context.Context
	values map[string]any
	runs   sync.WaitGroup
}

func newLive(t testing.TB) *live {
	ctx, cancel := context.WithCancel(context.Background())
	l := &live{ctx: ctx, values: map[string]any{}}
	t.Cleanup(func() { cancel(); l.runs.Wait() })
	return l
}

func (l *live) Open(key string, open func() (any, func(policy.Work))) any {
	l.mu.Lock()
	defer l.mu.Unlock()
	if v, ok := l.values[key]; ok {
		return v
	}
	v, run := open()
	if l.values[key] = v; run != nil {
		l.runs.Go(func() {
			run(policy.Work{Context: l.ctx, Now: time.Now, Sleep: func(d time.Duration, wake <-chan struct{}) bool {
				timer := time.NewTimer(d)
				defer timer.Stop()
				select {
				case <-timer.C:
				case <-wake:
				case <-l.ctx.Done():
					return false
				}
				return true
			}})
		})
	}
	return v
}

// caller is a small Caller over net/http.
type caller struct{ *http.Client }

func (c caller) Call(ctx context.Context, q *policy.Call) (*policy.Reply, error) {
	r, err := http.NewRequestWithContext(ctx, q.Method, q.URL, nil)
	if err != nil {
		return nil, err
	}
	r.Header = q.Header
	res, err := c.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, q.Max+1))
	if int64(len(body)) > q.Max {
		return nil, policy.ErrTooLarge
	}
	return &policy.Reply{Status: res.StatusCode, Header: res.Header, Body: body}, err
}

// TestRealServer has a real server of keys: first slow, then good.
func TestRealServer(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("run", func(t *testing.T) {
		k := newKey(t)
		var asked atomic.Int32
		open := make(chan struct{})
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			<-open
			io.WriteString(w, setOf(t, "k", k))
		}))
		t.Cleanup(server.Close)
		client := server.Client()
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		t.Cleanup(client.CloseIdleConnections)
		env := policy.Env{Live: newLive(t), Call: caller{client}}
		h := compiled(t, &v1alpha1.JWTAuth{Issuers: []v1alpha1.JWTIssuer{{Issuer: idp, JWKS: &v1alpha1.JWKS{URL: server.URL}}}}, env)
		send := func(kid string) method.Outcome {
			x := bearer(sign(t, k, map[string]any{"kid": kid}, claims("exp", time.Now().Unix()+300)))
			x.Start = time.Now()
			o := run(t, h, x)
			// That it is 50 ms and no more is tested where time is not real; here other programs run too.
			if d := time.Since(x.Start); d > time.Second {
				t.Errorf("a request was held for %s", d)
			}
			return o
		}
		for range 5 {
			if o := send("k"); o.State != method.Unavailable || o.Reason != token.Unavailable {
				t.Fatalf("the server does not answer: state %d, %s, want %s", o.State, o.Reason, token.Unavailable)
			}
		}
		close(open)
		deadline := time.Now().Add(5 * time.Second)
		o := send("k")
		for o.State != method.Accepted && time.Now().Before(deadline) {
			o = send("k")
		}
		if o.State != method.Accepted {
			t.Fatalf("the server answered: %s %s, want the token accepted", o.Reason, o.Detail)
		}
		for range 20 {
			if o := send("unknown"); o.State != method.Refused || o.Reason != token.KeyUnknown {
				t.Fatalf("an unknown key: state %d, %s", o.State, o.Reason)
			}
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("the server was asked %d times, want once", n)
		}
	})
}

func TestExplainAsksNobody(t *testing.T) {
	k := newKey(t)
	h := compiled(t, &v1alpha1.JWTAuth{Issuers: []v1alpha1.JWTIssuer{{Issuer: idp, JWKS: &v1alpha1.JWKS{URL: "https://idp.example/keys"}}}}, policy.Env{})
	x := bearer(sign(t, k, nil, claims()))
	if o := h.Authenticate(x); o.State != method.Unavailable {
		t.Errorf("without a world: state %d, want unavailable", o.State)
	}
	x.Dry = true
	if o := h.Authenticate(x); o.State != method.Waiting || o.Asks != "https://idp.example/keys" {
		t.Errorf("explained: state %d, asks %q", o.State, o.Asks)
	}
}

func TestDPoP(t *testing.T) {
	k, holder := newKey(t), newKey(t)
	spec := &v1alpha1.JWTAuth{DPoP: &v1alpha1.DPoP{}, Strip: true,
		Issuers: []v1alpha1.JWTIssuer{{Issuer: idp, JWKS: &v1alpha1.JWKS{Inline: setOf(t, "k", k)}}}}
	h := compiled(t, spec, policy.Env{})
	public := jose.JSONWebKey{Key: holder.Public()}
	thumb, _ := public.Thumbprint(crypto.SHA256)
	text := sign(t, k, nil, claims("cnf", map[string]any{"jkt": b64(thumb)}))
	sum := sha256.Sum256([]byte(text))
	proof := func() string {
		return sign(t, holder, map[string]any{"typ": "dpop+jwt", "jwk": public}, map[string]any{
			"jti": rand.Text(), "htm": "GET", "htu": "https://shop.example/", "iat": start.Unix(), "ath": b64(sum[:])})
	}
	once := proof()
	x := request("Authorization", "DPoP "+text, "DPoP", once)
	if o := run(t, h, x); o.State != method.Accepted {
		t.Errorf("a bound token with its proof: %s %s", o.Reason, o.Detail)
	}
	if h.Admit(x); x.Request.Header.Len() != 0 {
		t.Error("the token or the proof is still in the request")
	}
	for _, c := range []struct {
		name   string
		fields []string
		want   string
	}{
		{"a remembered token with another proof", []string{"Authorization", "dpop " + text, "DPoP", proof()}, ""},
		{"the same proof", []string{"Authorization", "DPoP " + text, "DPoP", once}, "dpop_proof_replayed"},
		{"no proof", []string{"Authorization", "DPoP " + text}, "dpop_proof_missing"},
		{"as Bearer", []string{"Authorization", "Bearer " + text}, "token_needs_dpop"},
		{"in both schemes", []string{"Authorization", "DPoP " + text, "Authorization", "Bearer " + text, "DPoP", proof()}, "credential_repeated"},
		{"loose as Bearer", []string{"Authorization", "Bearer " + sign(t, k, nil, claims())}, ""},
	} {
		if o := run(t, h, request(c.fields...)); o.Reason != c.want {
			t.Errorf("%s: %q %s, want %q", c.name, o.Reason, o.Detail, c.want)
		}
	}
	const algs = `DPoP algs="RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA"`
	if h.Challenge != `Bearer realm="idp", `+algs {
		t.Errorf("challenge %s", h.Challenge)
	}
	spec.DPoP.Require = "Always"
	if h := compiled(t, spec, policy.Env{}); h.Challenge != algs {
		t.Errorf("challenge %s", h.Challenge)
	}
	// Without the field dpop the scheme is none of ours.
	spec.DPoP = nil
	if o := run(t, compiled(t, spec, policy.Env{}), request("Authorization", "DPoP "+text)); o.State != method.Absent {
		t.Errorf("scheme DPoP without dpop: state %d, want absent", o.State)
	}
}
