package oidc

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/token"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// caller is a policy.Caller over net/http.
type caller struct{ client http.Client }

func (c *caller) Call(ctx context.Context, q *policy.Call) (*policy.Reply, error) {
	method := q.Method
	if method == "" {
		method = "GET"
	}
	req, err := http.NewRequestWithContext(ctx, method, q.URL, bytes.NewReader(q.Body))
	if err != nil {
		return nil, err
	}
	req.Header = q.Header.Clone()
	res, err := c.client.Transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return &policy.Reply{Status: res.StatusCode, Header: res.Header, Body: body}, err
}

// live is a policy.LiveStore whose work ends with the test.
type live struct {
	ctx context.Context
	wg  sync.WaitGroup
	mu  sync.Mutex
	all map[string]any
}

func newLive(t testing.TB) *live {
	ctx, cancel := context.WithCancel(context.Background())
	l := &live{ctx: ctx, all: map[string]any{}}
	t.Cleanup(func() {
		cancel()
		l.wg.Wait()
	})
	return l
}

func (l *live) Open(key string, open func() (any, func(policy.Work))) any {
	l.mu.Lock()
	defer l.mu.Unlock()
	if v, ok := l.all[key]; ok {
		return v
	}
	v, run := open()
	l.all[key] = v
	if run != nil {
		l.wg.Go(func() {
			run(policy.Work{Context: l.ctx, Now: time.Now, Sleep: func(d time.Duration, wake <-chan struct{}) bool {
				timer := time.NewTimer(d)
				defer timer.Stop()
				select {
				case <-timer.C:
				case <-wake:
				case <-l.ctx.Done():
				}
				return l.ctx.Err() == nil
			}})
		})
	}
	return v
}

// provider is an OpenID provider that does what a test wants, also what no good one does.
type fake struct {
	*httptest.Server
	t   testing.TB
	key *ecdsa.PrivateKey

	mu        sync.Mutex
	asked     []url.Values // forms of the token endpoint
	basic     []string     // Authorization of them
	nonce     map[string]string
	challenge map[string]string
	refresh   map[string]bool // that are good
	codes     int
	document  func(map[string]any)
	claims    func(map[string]any)
	answer    func(form url.Values, a map[string]any) int // the status; 0: 200
	sign      func(claims map[string]any) string
}

func newFake(t testing.TB) *fake {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{t: t, key: key, nonce: map[string]string{}, challenge: map[string]string{}, refresh: map[string]bool{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", f.discovery)
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: f.key.Public(), KeyID: "k"}}})
	})
	mux.HandleFunc("POST /token", f.token)
	f.Server = httptest.NewServer(mux)
	t.Cleanup(f.Close)
	return f
}

func (f *fake) discovery(w http.ResponseWriter, _ *http.Request) {
	d := map[string]any{"issuer": f.URL, "authorization_endpoint": f.URL + "/authorize?x=1", "token_endpoint": f.URL + "/token",
		"jwks_uri": f.URL + "/keys", "end_session_endpoint": f.URL + "/end"}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.document != nil {
		f.document(d)
	}
	_ = json.NewEncoder(w).Encode(d)
}

// authorize is a person who logs in: it makes a code for what the browser was sent with.
func (f *fake) authorize(location string) (code string) {
	u, err := url.Parse(location)
	if err != nil {
		f.t.Fatal(err)
	}
	q := u.Query()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.codes++
	code = fmt.Sprintf("code-%d", f.codes)
	f.nonce[code], f.challenge[code] = q.Get("nonce"), q.Get("code_challenge")
	return code
}

func (f *fake) token(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, maps.Clone(r.PostForm))
	f.basic = append(f.basic, r.Header.Get("Authorization"))
	claims := map[string]any{"iss": f.URL, "sub": "ann", "aud": "web", "exp": time.Now().Unix() + 3600, "iat": time.Now().Unix(), "groups": []string{"staff"}}
	status := 200
	a := map[string]any{"access_token": "access-" + fmt.Sprint(len(f.asked)), "token_type": "Bearer", "expires_in": 3600}
	no := func() {
		status, a = 400, map[string]any{"error": "invalid_grant", "error_description": "secret words"}
	}
	switch r.PostForm.Get("grant_type") {
	case "authorization_code":
		code := r.PostForm.Get("code")
		sum := sha256.Sum256([]byte(r.PostForm.Get("code_verifier")))
		if f.challenge[code] == "" || b64(sum[:]) != f.challenge[code] {
			no()
			break
		}
		claims["nonce"] = f.nonce[code]
		delete(f.challenge, code)
	case "refresh_token":
		if !f.refresh[r.PostForm.Get("refresh_token")] {
			no()
			break
		}
		delete(f.refresh, r.PostForm.Get("refresh_token")) // good once
	}
	if status == 200 {
		if f.claims != nil {
			f.claims(claims)
		}
		a["refresh_token"] = fmt.Sprintf("refresh-%d", len(f.asked))
		f.refresh[a["refresh_token"].(string)] = true
		sign := f.sign
		if sign == nil {
			sign = f.es256
		}
		a["id_token"] = sign(claims)
		if f.answer != nil {
			if s := f.answer(r.PostForm, a); s != 0 {
				status = s
			}
		}
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(a)
}

func (f *fake) es256(claims map[string]any) string {
	body, _ := json.Marshal(claims)
	text := b64([]byte(`{"alg":"ES256","typ":"JWT","kid":"k"}`)) + "." + b64(body)
	digest := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, f.key, digest[:])
	if err != nil {
		f.t.Fatal(err)
	}
	return text + "." + b64(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

// set changes the provider while it may be asked.
func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fake) questions() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.asked)
}

const secretHandle = "Secret/shop/oidc"

func material(pairs ...string) *secret.Material {
	m := &secret.Material{Data: map[string]secret.Value{}}
	for i := 0; i+1 < len(pairs); i += 2 {
		m.Data[pairs[i]] = secret.New([]byte(pairs[i+1]))
	}
	return m
}

// rig is a compiled method beside a provider.
type rig struct {
	t       testing.TB
	fake    *fake
	secrets *secret.Store
	env     policy.Env
	h       method.Handler
	now     time.Time
}

func newRig(t testing.TB, change func(*v1alpha1.OIDCAuth)) *rig {
	t.Helper()
	return newRigOf(t, change, nil)
}

// newRigOf is one whose provider has changes in its discovery document.
func newRigOf(t testing.TB, change func(*v1alpha1.OIDCAuth), document func(map[string]any)) *rig {
	t.Helper()
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	r := &rig{t: t, fake: newFake(t), secrets: &secret.Store{}, now: time.Now()}
	r.secrets.Swap(secret.Set{secretHandle: material("client_secret", "s3cret+/")})
	r.env = policy.Env{Refs: map[string]string{secretPath: secretHandle}, Secret: r.secrets, Live: newLive(t), Call: &caller{http.Client{Transport: tr}}}
	r.fake.document = document
	r.h = r.compile(change)
	set := token.OpenIssuer(r.env, r.fake.URL)
	for limit := time.Now().Add(10 * time.Second); set.Keys() == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("the provider's keys were not fetched: %s", set.Why())
		}
	}
	return r
}

func (r *rig) spec(change func(*v1alpha1.OIDCAuth)) *v1alpha1.OIDCAuth {
	s := &v1alpha1.OIDCAuth{Issuer: r.fake.URL, ClientID: "web", ClientSecretRef: v1alpha1.LocalSecretRef{Name: "oidc"},
		ClaimsToHeaders: []v1alpha1.ClaimToHeader{{Claim: "sub", Header: "X-User"}}}
	if change != nil {
		change(s)
	}
	return s
}

func (r *rig) compile(change func(*v1alpha1.OIDCAuth)) method.Handler {
	r.t.Helper()
	h, err := Compile("people", r.spec(change), r.env)
	if err != nil {
		r.t.Fatal(err)
	}
	return h
}

// browser keeps cookies, as those of one host.
type browser struct {
	*rig
	h       method.Handler
	host    string
	scheme  string
	cookies map[string]string
	header  []string // of every request
}

func (r *rig) browser() *browser {
	return &browser{rig: r, h: r.h, host: "shop.example", scheme: "https", cookies: map[string]string{}, header: []string{"Accept", "text/html,*/*"}}
}

func (b *browser) copy() *browser {
	c := *b
	c.cookies = maps.Clone(b.cookies)
	return &c
}

func (b *browser) request(verb, target string, header ...string) *exchange.Exchange {
	x := &exchange.Exchange{Start: b.now, Scheme: b.scheme}
	path, query, has := strings.Cut(target, "?")
	x.Request.Method, x.Request.Target = []byte(verb), []byte(target)
	x.Request.Authority = []byte(b.host)
	a, _, ok := exchange.ParseAuthority(nil, x.Request.Authority)
	p, _, good := exchange.CanonicalPath(nil, []byte(path))
	if !ok || !good {
		b.t.Fatalf("%s%s is not a target", b.host, path)
	}
	x.Request.Host, x.Request.Path, x.Request.RawPath = a.Host, p.Canonical, p.Raw
	x.Request.Query, x.Request.HasQuery = []byte(query), has
	for _, h := range [][]string{b.header, header} {
		for i := 0; i+1 < len(h); i += 2 {
			x.Request.Header.Append([]byte(h[i]), []byte(h[i+1]))
		}
	}
	if len(b.cookies) > 0 {
		var all []string
		for _, k := range slices.Sorted(maps.Keys(b.cookies)) {
			all = append(all, k+"="+b.cookies[k])
		}
		x.Request.Header.Append([]byte("Cookie"), []byte(strings.Join(all, "; ")))
	}
	return x
}

// run runs the method to its end and takes its cookies.
func (b *browser) run(x *exchange.Exchange) method.Outcome {
	b.t.Helper()
	o := b.h.Authenticate(x)
	for o.State == method.Waiting {
		o = o.Wait(b.t.Context())(x)
	}
	for _, f := range o.Answer.Header {
		if string(f.Name) == "Set-Cookie" {
			b.take(string(f.Value))
		}
	}
	for _, c := range o.Cookies {
		b.take(string(c))
	}
	return o
}

func (b *browser) take(line string) {
	b.t.Helper()
	c, err := http.ParseSetCookie(line)
	if err != nil {
		b.t.Fatalf("%q: %v", line, err)
	}
	if len(c.Name)+len(c.Value) > 4096 {
		b.t.Errorf("a cookie of %d bytes, which browsers drop", len(c.Name)+len(c.Value))
	}
	if !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || c.Secure != (b.scheme == "https") ||
		strings.HasPrefix(c.Name, "__Host-") != (b.scheme == "https") {
		b.t.Errorf("%q has not all its attributes", line)
	}
	if c.MaxAge < 0 {
		delete(b.cookies, c.Name)
		return
	}
	b.cookies[c.Name] = c.Value
}

func (b *browser) open(target string, header ...string) method.Outcome {
	b.t.Helper()
	return b.run(b.request("GET", target, header...))
}

func location(o method.Outcome) string { return field(o, "Location") }

func field(o method.Outcome, name string) string {
	for _, f := range o.Answer.Header {
		if string(f.Name) == name {
			return string(f.Value)
		}
	}
	return ""
}

// begin opens a page and returns where the browser is sent.
func (b *browser) begin(target string) string {
	b.t.Helper()
	o := b.open(target)
	if o.State != method.Answered || o.Answer.Status != 302 || o.Answer.Reason != loginRequired {
		b.t.Fatalf("GET %s without a session: %s", target, show(o))
	}
	return location(o)
}

// back is the target that the provider sends the browser back to.
func (b *browser) back(location string, more ...string) string {
	b.t.Helper()
	u, err := url.Parse(location)
	if err != nil {
		b.t.Fatal(err)
	}
	q := url.Values{"code": {b.fake.authorize(location)}, "state": {u.Query().Get("state")}}
	for i := 0; i+1 < len(more); i += 2 {
		q.Set(more[i], more[i+1])
		if more[i+1] == "" {
			q.Del(more[i])
		}
	}
	return "/oauth2/callback?" + q.Encode()
}

// login logs in by way of a page.
func (b *browser) login(target string) method.Outcome {
	b.t.Helper()
	o := b.open(b.back(b.begin(target)))
	if o.State != method.Answered || o.Answer.Status != 302 {
		b.t.Fatalf("logging in: %s", show(o))
	}
	return o
}

func show(o method.Outcome) string {
	return fmt.Sprintf("state %d, %s %s; answer %d %s %s to %q", o.State, o.Reason, o.Detail, o.Answer.Status, o.Answer.Reason, o.Answer.Detail, location(o))
}

// failed checks that a login did not succeed: a page without anything of the query, and no session.
func (b *browser) failed(what string, o method.Outcome) {
	b.t.Helper()
	if o.State != method.Answered || o.Answer.Status != 403 || o.Answer.Reason != loginFailed || o.Answer.Body != nil {
		b.t.Errorf("%s: %s, want 403 %s", what, show(o), loginFailed)
	}
	for name := range b.cookies {
		if strings.HasSuffix(name, "gh_session") || strings.Contains(name, "gh_session.") {
			b.t.Errorf("%s: there is a session", what)
		}
	}
}
