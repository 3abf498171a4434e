package oidc

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
)

func TestCompileFaults(t *testing.T) {
	long := gatewayv1.Duration("1000h")
	_, err := Compile("people", &v1alpha1.OIDCAuth{Issuer: "idp", Scopes: []string{"a b"}, RedirectPath: "/a/../b", LogoutPath: "/%6cogout",
		CookieName: "__Host-x", SessionLifetime: &long, ClaimsToHeaders: []v1alpha1.ClaimToHeader{{Claim: "sub", Header: "Cookie"}}}, policy.Env{})
	want := `issuer: "idp" is not the URL of a provider (write https://idp.example)
clientID: "" is not a client id (write what the provider calls this client)
clientSecretRef.name: is empty (name a Secret with the key client_secret)
scopes[0]: "a b" is not a scope (write one scope an entry)
redirectPath: "/a/../b" is not a path of its own in its plain spelling (write /oauth2/callback)
logoutPath: "/%6cogout" is not a path of its own in its plain spelling (write /logout)
cookieName: "__Host-x" cannot be the name of the cookie (write gh_session; __Host- is put before it by itself)
sessionLifetime: "1000h" is out of bounds (write something between 1m and 720h)
claimsToHeaders[0].header: "Cookie" cannot tell who calls: requests have it for something else (write X-User, or a name of your own)`
	if err == nil {
		t.Fatal("no fault")
	}
	if d := cmp.Diff(strings.ReplaceAll(want, `"1000h"`, "1000h"), err.Error()); d != "" {
		t.Errorf("faults (-want +got):\n%s", d)
	}
}

// TestCompileWithoutTheWorld: a spec is compiled to find its faults where there is nothing else; then nothing is asked and nobody gets in.
func TestCompileWithoutTheWorld(t *testing.T) {
	r := newRig(t, nil)
	h, err := Compile("people", r.spec(nil), policy.Env{})
	if err != nil {
		t.Fatal(err)
	}
	b := r.browser()
	b.h = h
	if o := b.open("/"); o.State != method.Unavailable || o.Reason != noKeys {
		t.Errorf("without a Secret: %s", show(o))
	}
	b.cookies["__Host-gh_session"] = "x"
	if o := b.open("/"); o.State != method.Unavailable || o.Reason != noKeys {
		t.Errorf("a session without a Secret: %s", show(o))
	}
}

func TestLogin(t *testing.T) {
	r := newRig(t, func(s *v1alpha1.OIDCAuth) { s.Scopes = []string{"profile", "groups"} })
	b := r.browser()
	to := b.begin("/cart//x?a=1&b=%2F")
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	for name, want := range map[string]string{"x": "1", "response_type": "code", "client_id": "web", "redirect_uri": "https://shop.example/oauth2/callback",
		"scope": "openid groups profile", "code_challenge_method": "S256"} {
		if q.Get(name) != want {
			t.Errorf("the browser is sent with %s=%q, want %q", name, q.Get(name), want)
		}
	}
	for _, name := range []string{"state", "nonce", "code_challenge"} {
		if len(q.Get(name)) != 43 {
			t.Errorf("the browser is sent with %s=%q, want 32 random bytes", name, q.Get(name))
		}
	}
	if strings.Contains(to, "cart") {
		t.Errorf("the provider is told the page: %s", to)
	}
	o := b.open(b.back(to))
	if location(o) != "https://shop.example/cart//x?a=1&b=%2F" || field(o, "Cache-Control") != "no-store" {
		t.Errorf("after the callback: %s", show(o))
	}
	if len(b.cookies) != 1 {
		t.Errorf("after the callback the browser has %d cookies, want the session's alone", len(b.cookies))
	}
	if got, want := r.fake.basic[0], "Basic d2ViOnMzY3JldCUyQiUyRg=="; got != want {
		t.Errorf("the client shows %q, want %q", got, want)
	}
	for range 2 { // opened, and remembered
		x := b.request("GET", "/cart", "Cookie", "other=1", "Authorization", "Bearer mine")
		o = b.run(x)
		if o.State != method.Accepted || o.Identity.Subject != "ann" || o.Identity.Issuer != r.fake.URL || len(o.Cookies) != 0 {
			t.Fatalf("with a session: %s %+v", show(o), o.Identity)
		}
		if len(o.Header) != 1 || string(o.Header[0].Value) != "ann" {
			t.Errorf("the backend is told %q", o.Header)
		}
		b.h.Admit(x)
		if got := string(x.Request.Header.Get("Cookie")); got != "other=1" || x.Request.Header.Count("Cookie") != 1 {
			t.Errorf("the backend sees the cookies %q", got)
		}
		if got := string(x.Request.Header.Get("Authorization")); got != "Bearer mine" {
			t.Errorf("Authorization became %q", got)
		}
	}
}

func TestClientSecretPost(t *testing.T) {
	r := newRigOf(t, nil, func(d map[string]any) {
		d["token_endpoint_auth_methods_supported"] = []string{"private_key_jwt", "client_secret_post"}
	})
	r.browser().login("/")
	if form := r.fake.asked[0]; form.Get("client_id") != "web" || form.Get("client_secret") != "s3cret+/" || r.fake.basic[0] != "" {
		t.Errorf("the form was %v, Authorization %q", form, r.fake.basic[0])
	}
}

// TestXHR401: only who opens a page is sent to log in.
func TestXHR401(t *testing.T) {
	r := newRig(t, nil)
	for _, c := range []struct {
		verb   string
		header []string
		sent   bool
	}{
		{"GET", []string{"Accept", "text/html"}, true},
		{"HEAD", []string{"Accept", "Text/HTML"}, true},
		{"GET", []string{"Accept", "application/json", "Accept", "text/html;q=0.5"}, true},
		{"GET", []string{"Accept", "text/html", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Dest", "document"}, true},
		{"GET", nil, false},
		{"GET", []string{"Accept", "application/json"}, false},
		{"POST", []string{"Accept", "text/html"}, false},
		{"GET", []string{"Accept", "text/html", "X-Requested-With", "xmlhttprequest"}, false},
		{"GET", []string{"Accept", "text/html", "Sec-Fetch-Mode", "cors"}, false},
		{"GET", []string{"Accept", "text/html", "Sec-Fetch-Mode", "no-cors"}, false},
		{"GET", []string{"Accept", "text/html", "Sec-Fetch-Dest", "empty"}, false},
		{"GET", []string{"Accept", "text/html", "Authorization", "Bearer x"}, false},
	} {
		for _, cookie := range []string{"", "damaged"} {
			b := r.browser()
			b.header = nil
			if cookie != "" {
				b.cookies["__Host-gh_session"] = cookie
			}
			o := b.run(b.request(c.verb, "/", c.header...))
			want := method.Absent
			if cookie != "" {
				want = method.Refused
			}
			if c.sent {
				want = method.Answered
			}
			if o.State != want || want == method.Refused && o.Reason != invalidSession {
				t.Errorf("%s with %q, cookie %q: %s, want state %d", c.verb, c.header, cookie, show(o), want)
			}
		}
	}
}

func TestForwardAccessToken(t *testing.T) {
	r := newRig(t, func(s *v1alpha1.OIDCAuth) { s.ForwardAccessToken = true })
	b := r.browser()
	b.login("/")
	o := b.open("/")
	if len(o.Header) != 2 || string(o.Header[1].Name) != "Authorization" || string(o.Header[1].Value) != "Bearer access-1" {
		t.Errorf("the backend is told %q", o.Header)
	}
	r.fake.set(func() { r.fake.answer = func(_ url.Values, a map[string]any) int { a["access_token"] = ""; return 0 } })
	b = r.browser()
	b.login("/")
	if o = b.open("/"); len(o.Header) != 2 || o.Header[1].Value != nil {
		t.Errorf("without a token the backend is told %q, want the client's own field to go", o.Header)
	}
	r.fake.set(func() {
		r.fake.answer = func(_ url.Values, a map[string]any) int { a["token_type"] = "DPoP"; return 0 }
	})
	b = r.browser()
	b.failed("a DPoP token", b.open(b.back(b.begin("/"))))
}

// TestHTTP: without https the names have no prefix, and the cookies are not Secure.
func TestHTTP(t *testing.T) {
	r := newRig(t, nil)
	b := r.browser()
	b.scheme, b.host = "http", "Shop.example:8080"
	to := b.begin("/a")
	if u, _ := url.Parse(to); u.Query().Get("redirect_uri") != "http://shop.example:8080/oauth2/callback" {
		t.Errorf("the browser is sent to %s", to)
	}
	if o := b.open(b.back(to)); location(o) != "http://shop.example:8080/a" {
		t.Errorf("after the callback: %s", show(o))
	}
	if o := b.open("/a"); o.State != method.Accepted {
		t.Errorf("with a session: %s", show(o))
	}
}

func TestOrigin(t *testing.T) {
	r := newRig(t, nil)
	for host, want := range map[string]string{"shop.example": "https://shop.example", "Shop.Example:443": "https://shop.example",
		"shop.example:80": "https://shop.example:80", "[::1]:8443": "https://[::1]:8443", "[::1]": "https://[::1]"} {
		b := r.browser()
		b.host = host
		if got := origin(b.request("GET", "/")); got != want {
			t.Errorf("origin of %s is %s, want %s", host, got, want)
		}
	}
}

// TestOriginOfTrustedProxy: the browser comes back to where it was, which a trusted proxy that changes Host says.
func TestOriginOfTrustedProxy(t *testing.T) {
	for _, x := range []struct {
		host string
		port uint16
		want string
	}{{"pub.example", 0, "https://pub.example"}, {"pub.example", 8443, "https://pub.example:8443"}, {"pub.example", 443, "https://pub.example"},
		{"shop.example", 0, "https://shop.example:99"}, {"", 8443, "https://shop.example:99"}} {
		b := newRig(t, nil).browser()
		b.host = "shop.example:99"
		r := b.request("GET", "/")
		if r.PublicPort = x.port; x.host != "" {
			r.PublicHost = []byte(x.host)
		}
		if got := origin(r); got != x.want {
			t.Errorf("origin behind %s:%d is %s, want %s", x.host, x.port, got, x.want)
		}
	}
}

// TestLoginWithoutHost: nobody is sent to https:///.
func TestLoginWithoutHost(t *testing.T) {
	r := newRig(t, nil)
	b := r.browser()
	for _, path := range []string{"/", "/logout"} {
		x := b.request("GET", path, "Sec-Fetch-Mode", "navigate", "Accept", "text/html")
		x.Request.Host, x.Request.Authority = nil, nil
		if o := b.run(x); o.Answer.Status != 400 || o.Answer.Reason != "missing_host" || location(o) != "" {
			t.Errorf("%s: %s, want 400 missing_host", path, show(o))
		}
	}
}

// TestTabs: each tab has an attempt of its own, and a browser is left four.
func TestTabs(t *testing.T) {
	r := newRig(t, nil)
	b := r.browser()
	first, second := b.begin("/first"), b.begin("/second")
	if o := b.open(b.back(first)); location(o) != "https://shop.example/first" {
		t.Errorf("the first tab: %s", show(o))
	}
	if o := b.open(b.back(second)); location(o) != "https://shop.example/second" {
		t.Errorf("the second tab: %s", show(o))
	}
	b = r.browser()
	for range 20 {
		b.begin("/")
	}
	if len(b.cookies) != maxLogins {
		t.Errorf("after 20 attempts the browser has %d cookies, want %d", len(b.cookies), maxLogins)
	}
}

func TestLifetime(t *testing.T) {
	short := gatewayv1.Duration("30m")
	r := newRig(t, func(s *v1alpha1.OIDCAuth) { s.SessionLifetime = &short })
	b := r.browser()
	b.login("/")
	b.now = b.now.Add(30*time.Minute - time.Second)
	if o := b.open("/"); o.State != method.Accepted {
		t.Errorf("within its lifetime: %s", show(o))
	}
	b.now = b.now.Add(time.Second)
	if o := b.copy().open("/"); o.State != method.Answered || o.Answer.Status != 302 {
		t.Errorf("a page after the lifetime: %s", show(o))
	}
	b.header = nil
	if o := b.open("/"); o.State != method.Refused || o.Reason != expiredSession {
		t.Errorf("a script after the lifetime: %s", show(o))
	}
}

func TestProviderGone(t *testing.T) {
	r := newRig(t, nil)
	b := r.browser()
	b.login("/")
	to := b.copy()
	to.cookies = map[string]string{}
	back := to.back(to.begin("/"))
	r.fake.Close()
	if o := b.open("/"); o.State != method.Accepted {
		t.Errorf("a session: %s", show(o))
	}
	if o := to.open(back); o.State != method.Answered || o.Answer.Status != 503 || o.Answer.Reason != noProvider {
		t.Errorf("a callback: %s", show(o))
	}
	h := r.compile(func(s *v1alpha1.OIDCAuth) { s.Issuer += "/other" })
	to.h = h
	if o := to.open("/"); o.State != method.Unavailable || o.Reason != noProvider {
		t.Errorf("a page without a document: %s", show(o))
	}
}

// TestDocuments: a provider that cannot be used is 503, with why.
func TestDocuments(t *testing.T) {
	for want, document := range map[string]func(map[string]any){
		"authorization_endpoint": func(d map[string]any) { delete(d, "authorization_endpoint") },
		"token_endpoint":         func(d map[string]any) { d["token_endpoint"] = "/token" },
		"neither client_secret":  func(d map[string]any) { d["token_endpoint_auth_methods_supported"] = []string{"private_key_jwt"} },
	} {
		r := newRigOf(t, nil, document)
		if o := r.browser().open("/"); o.State != method.Unavailable || o.Reason != noProvider || !strings.Contains(o.Detail, want) {
			t.Errorf("%s: %s", want, show(o))
		}
	}
	for at, ok := range map[string]bool{"https://idp.example/x?y=1": true, "http://idp.example/x": false, "": false, "https://u@idp.example/": false, "https://idp.example/#f": false} {
		if err := endpoint(at, "https://idp.example"); (err == nil) != ok {
			t.Errorf("endpoint %q: %v", at, err)
		}
	}
}
