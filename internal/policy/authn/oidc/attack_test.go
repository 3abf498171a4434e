package oidc

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

const sessionCookie = "__Host-gh_session"

// TestLoginCSRF: nobody is logged in by a callback that another browser began.
func TestLoginCSRF(t *testing.T) {
	r := newRig(t, nil)
	attacker, victim := r.browser(), r.browser()
	back := attacker.back(attacker.begin("/"))
	victim.failed("with no attempt of its own", victim.open(back))
	own := victim.begin("/")
	victim.failed("with another attempt", victim.open(back))
	// the attacker's cookie under the name that the victim's state asks for
	u, _ := url.Parse(own)
	for _, v := range attacker.cookies {
		victim.cookies["__Host-gh_session_login_"+u.Query().Get("state")[:idSize]] = v
	}
	victim.failed("with the attacker's cookie under the victim's name", victim.open(victim.back(own)))
	if n := r.fake.questions(); n != 0 {
		t.Errorf("the provider was asked %d times", n)
	}
}

// TestMixUp: the answer of another issuer is not taken to this one (RFC 9207), and an attempt at one provider is none at another.
func TestMixUp(t *testing.T) {
	r := newRig(t, nil)
	b := r.browser()
	b.failed("another issuer's answer", b.open(b.back(b.begin("/"), "iss", "https://evil.example")))
	b.failed("an empty iss", b.open(b.back(b.begin("/"))+"&iss="))
	if o := b.open(b.back(b.begin("/"), "iss", r.fake.URL)); o.Answer.Status != 302 {
		t.Errorf("the issuer's own answer: %s", show(o))
	}
	other := newRig(t, nil)
	other.secrets.Swap(secret.Set{secretHandle: r.secrets.Lookup(secretHandle)})
	c := r.browser()
	back := c.back(c.begin("/"))
	c.h = other.h
	c.failed("an attempt at another provider", c.open(back))

	strict := newRigOf(t, nil, func(d map[string]any) { d["authorization_response_iss_parameter_supported"] = true })
	b = strict.browser()
	b.failed("no iss from a provider that sends it", b.open(b.back(b.begin("/"))))
	if o := b.open(b.back(b.begin("/"), "iss", strict.fake.URL)); o.Answer.Status != 302 {
		t.Errorf("with iss: %s", show(o))
	}
}

// TestOpenRedirect: whatever was asked for, people end at the host they asked.
func TestOpenRedirect(t *testing.T) {
	r := newRig(t, nil)
	for _, target := range []string{"//evil.example/x", "/\\evil.example", "/%5cevil.example", "///evil.example", "/@evil.example", "/.evil.example",
		"/?u=https://evil.example", "/https://evil.example", "/%2f%2fevil.example", "/%0d%0aLocation:%20https://evil.example"} {
		b := r.browser()
		o := b.login(target)
		u, err := url.Parse(location(o))
		if err != nil || u.Scheme != "https" || u.Host != "shop.example" || u.User != nil || !strings.HasPrefix(location(o), "https://shop.example/") {
			t.Errorf("%s: sent to %q", target, location(o))
		}
	}
	x := r.browser().request("GET", "/")
	for raw, want := range map[string]string{"https://evil.example/": "/", "": "/", "/a\r\nX: y": "/", "/a#b": "/", "/ä": "/", "/" + strings.Repeat("a", 3000): "/", "/ok": "/ok"} {
		x.Request.RawPath = []byte(raw)
		if got := originalOf(x); got != want {
			t.Errorf("originalOf(%.20q) = %q, want %q", raw, got, want)
		}
	}
	x.Request.RawPath, x.Request.Query, x.Request.HasQuery = []byte("/a"), bytes.Repeat([]byte("q"), 3000), true
	if got := originalOf(x); got != "/a" {
		t.Errorf("with a long query: %.20q", got)
	}
	x.Request.RawPath, x.Request.Query = []byte("/"), bytes.Repeat([]byte("<"), 1900) // JSON escapes each as six bytes
	b := r.browser()
	if o := b.run(x); o.Answer.Status != 302 {
		t.Errorf("with a query that JSON makes long: %s", show(o))
	} else if o = b.open(b.back(location(o))); location(o) != "https://shop.example/" {
		t.Errorf("with a query that JSON makes long: %s", show(o))
	}
}

// TestSessionFixation: a login takes the place of a session that was there, whoever put it there.
func TestSessionFixation(t *testing.T) {
	r := newRig(t, nil)
	big := strings.Repeat("x", 8000)
	r.fake.set(func() { r.fake.claims = func(c map[string]any) { c["sub"], c["groups"] = "mallory", big } })
	attacker := r.browser()
	attacker.login("/")
	if len(attacker.cookies) < 3 {
		t.Fatalf("the session has %d cookies, want several", len(attacker.cookies))
	}
	r.fake.set(func() { r.fake.claims = nil })
	victim := r.browser()
	for k, v := range attacker.cookies {
		victim.cookies[k] = v
	}
	to := victim.copy()
	to.cookies = map[string]string{}
	location := to.begin("/")
	for k, v := range to.cookies {
		victim.cookies[k] = v
	}
	victim.open(victim.back(location))
	if len(victim.cookies) != 1 {
		t.Errorf("after the login the browser has %d cookies", len(victim.cookies))
	}
	if o := victim.open("/"); o.Identity.Subject != "ann" {
		t.Errorf("the victim is %q", o.Identity.Subject)
	}
	if o := attacker.open("/"); o.Identity.Subject != "mallory" {
		t.Errorf("the attacker became %q", o.Identity.Subject)
	}
}

// TestCookieElsewhere: a session is good for the host, client, scopes and cookie that it was made for, and under the same Secret.
func TestCookieElsewhere(t *testing.T) {
	r := newRig(t, nil)
	b := r.browser()
	b.login("/")
	if o := b.open("/"); o.State != method.Accepted {
		t.Fatalf("at home: %s", show(o))
	}
	refused := func(what string, c *browser) {
		t.Helper()
		c.header = nil
		if o := c.open("/"); o.State != method.Refused || o.Reason != invalidSession {
			t.Errorf("%s: %s, want %s", what, show(o), invalidSession)
		}
	}
	c := b.copy()
	c.host = "other.example"
	refused("another host", c)
	c = b.copy()
	c.h = r.compile(func(s *v1alpha1.OIDCAuth) { s.ClientID = "admin" })
	refused("another client", c)
	c = b.copy()
	c.h = r.compile(func(s *v1alpha1.OIDCAuth) { s.Scopes = []string{"admin"} })
	refused("other scopes", c)
	c = b.copy()
	c.h = r.compile(func(s *v1alpha1.OIDCAuth) { s.CookieName = "other" })
	c.cookies = map[string]string{"__Host-other": b.cookies[sessionCookie]}
	refused("another policy's cookie", c)
	c = b.copy()
	c.scheme, c.cookies = "http", map[string]string{"gh_session": b.cookies[sessionCookie]}
	refused("http", c)
	c = b.copy()
	c.cookies = map[string]string{}
	c.begin("/") // an attempt is no session, though the same ring sealed it
	for k, v := range c.cookies {
		if strings.Contains(k, "_login_") {
			c.cookies = map[string]string{sessionCookie: v}
			break
		}
	}
	refused("an attempt as a session", c)
	r.secrets.Swap(secret.Set{secretHandle: material("client_secret", "another")})
	refused("another secret", b.copy())
}

// TestTamperedCookie: no bit of a session can be changed, and none can be left out or added.
func TestTamperedCookie(t *testing.T) {
	r := newRig(t, nil)
	b := r.browser()
	b.login("/")
	b.header = nil
	good := b.cookies[sessionCookie]
	for i := range len(good) {
		for _, c := range []byte("A_z=") {
			if good[i] == c {
				continue
			}
			b.cookies[sessionCookie] = good[:i] + string(c) + good[i+1:]
			if o := b.open("/"); o.State != method.Refused {
				t.Fatalf("with byte %d as %c: %s", i, c, show(o))
			}
		}
	}
	for _, v := range []string{good[1:], good[:len(good)-1], good + "A", "", good + good, "2." + good} {
		b.cookies[sessionCookie] = v
		if o := b.open("/"); o.State != method.Refused || o.Reason != invalidSession {
			t.Fatalf("with %d of %d bytes: %s", len(v), len(good), show(o))
		}
	}
}

// TestRotation: an old key still opens sessions, a key that was taken away does not, not even those that are remembered.
func TestRotation(t *testing.T) {
	r := newRig(t, nil)
	key := func() string {
		var k [32]byte
		_, _ = rand.Read(k[:])
		return base64.StdEncoding.EncodeToString(k[:])
	}
	swap := func(lines ...string) {
		r.secrets.Swap(secret.Set{secretHandle: material("client_secret", "s3cret+/", "session_keys", strings.Join(lines, "\n"))})
	}
	one, two := key(), key()
	b := r.browser()
	b.login("/")
	derived := b.copy()
	swap("", one, "")
	b.cookies = map[string]string{}
	b.login("/")
	for _, c := range []struct {
		lines []string
		want  method.State
		why   string
	}{
		{[]string{one}, method.Accepted, ""},
		{[]string{two, " " + one + "\r"}, method.Accepted, ""},
		{[]string{two}, method.Refused, invalidSession},
		{[]string{two, one}, method.Accepted, ""},
		{nil, method.Unavailable, noKeys},
		{[]string{one, "c2hvcnQ="}, method.Unavailable, noKeys},
		{[]string{one, "not base64"}, method.Unavailable, noKeys},
		{make17(key), method.Unavailable, noKeys},
	} {
		swap(c.lines...)
		x := b.copy()
		x.header = nil
		for range 2 {
			if o := x.open("/"); o.State != c.want || o.Reason != c.why || strings.Contains(o.Detail, one) {
				t.Errorf("with %d keys: %s, want state %d", len(c.lines), show(o), c.want)
			}
		}
	}
	swap(one)
	derived.header = nil
	if o := derived.open("/"); o.State != method.Refused {
		t.Errorf("a session of the derived key, once there are session_keys: %s", show(o))
	}
}

func make17(key func() string) (lines []string) {
	for range 17 {
		lines = append(lines, key())
	}
	return lines
}

// TestReplay: neither a code nor a state is good twice.
func TestReplay(t *testing.T) {
	r := newRig(t, nil)
	b := r.browser()
	to := b.begin("/")
	stolen := b.copy()
	back := b.back(to)
	b.open(back)
	delete(b.cookies, sessionCookie)
	b.failed("the same callback again", b.open(back))
	stolen.failed("the same callback with the attempt's cookie", stolen.open(back))
	late := r.browser()
	back = late.back(late.begin("/"))
	began := r.now
	r.now = began.Add(attemptTime*time.Second + time.Second)
	late.failed("an attempt that is too old", late.open(back))
	r.now = began.Add(-2 * leeway)
	late.failed("an attempt from the future", late.open(back))
}

func TestCallbackFaults(t *testing.T) {
	r := newRig(t, nil)
	const evil = "<script>alert(1)</script>"
	for what, more := range map[string][]string{
		"access denied":  {"error", "access_denied", "error_description", evil, "code", ""},
		"unknown error":  {"error", evil},
		"no code":        {"code", ""},
		"long code":      {"code", strings.Repeat("c", maxCode+1)},
		"no state":       {"state", ""},
		"another state":  {"state", strings.Repeat("A", 43)},
		"odd state":      {"state", "../" + strings.Repeat("A", 40)},
		"long query":     {"x", strings.Repeat("x", maxQuery)},
		"code of others": {"code", "made-up"},
	} {
		b := r.browser()
		o := b.open(b.back(b.begin("/"), more...))
		b.failed(what, o)
		if strings.Contains(o.Answer.Detail, "script") || strings.Contains(o.Answer.Detail, "made-up") || strings.Contains(o.Answer.Detail, "secret words") {
			t.Errorf("%s: the detail tells %q", what, o.Answer.Detail)
		}
	}
	for _, more := range []string{"&state=x", "&code=x", "&error=x&error=y", "&iss=%zz", "&%zz=1"} {
		b := r.browser()
		b.failed(more, b.open(b.back(b.begin("/"))+more))
	}
	b := r.browser()
	back := b.back(b.begin("/"))
	for name, v := range b.cookies {
		x := b.request("GET", back, "Cookie", name+"="+v)
		b.failed("the attempt's cookie twice", b.run(x))
	}
	for _, verb := range []string{"POST", "HEAD"} {
		if o := b.run(b.request(verb, back)); o.Answer.Status != 405 || field(o, "Allow") != "GET" {
			t.Errorf("%s: %s", verb, show(o))
		}
	}
}

// TestIDTokens: what the provider gives is only believed if it is signed, and about this login.
func TestIDTokens(t *testing.T) {
	r := newRig(t, nil)
	other := newFake(t)
	hash := func(text string) string {
		h := sha256.Sum256([]byte(text))
		return b64(h[:16])
	}
	none := func(c map[string]any) string {
		b, _ := json.Marshal(c)
		return b64([]byte(`{"alg":"none"}`)) + "." + b64(b) + "."
	}
	with := func(name string, v any) func(map[string]any) {
		return func(c map[string]any) {
			if c[name] = v; v == nil {
				delete(c, name)
			}
		}
	}
	for _, c := range []struct {
		what   string
		claims func(map[string]any)
		sign   func(map[string]any) string
		answer func(url.Values, map[string]any) int
		good   bool
	}{
		{what: "good", good: true},
		{what: "with at_hash", claims: func(c map[string]any) { c["at_hash"] = hash("the access token") },
			answer: func(_ url.Values, a map[string]any) int { a["access_token"] = "the access token"; return 0 }, good: false}, // has spaces
		{what: "with at_hash", claims: with("at_hash", hash("at")), answer: func(_ url.Values, a map[string]any) int { a["access_token"] = "at"; return 0 }, good: true},
		{what: "with another at_hash", claims: with("at_hash", hash("other"))},
		{what: "with an at_hash that is no text", claims: with("at_hash", 7)},
		{what: "alg none", sign: none},
		{what: "another's key", sign: other.es256},
		{what: "no token", answer: func(_ url.Values, a map[string]any) int { delete(a, "id_token"); return 0 }},
		{what: "no JWT", sign: func(map[string]any) string { return "x" }},
		{what: "another nonce", claims: with("nonce", "x")},
		{what: "no nonce", claims: with("nonce", nil)},
		{what: "another issuer", claims: with("iss", "https://evil.example")},
		{what: "another audience", claims: with("aud", "admin")},
		{what: "no audience", claims: with("aud", nil)},
		{what: "another azp", claims: with("azp", "admin")},
		{what: "own azp", claims: func(c map[string]any) { c["azp"], c["aud"] = "web", []string{"web", "api"} }, good: true},
		{what: "several audiences without azp", claims: with("aud", []string{"web", "api"})},
		{what: "expired", claims: with("exp", time.Now().Unix()-300)},
		{what: "expired within the leeway", claims: with("exp", time.Now().Unix()-30)},
		{what: "no exp", claims: with("exp", nil)},
		{what: "no sub", claims: with("sub", nil)},
		{what: "sub is a number", claims: with("sub", 7)},
		{what: "sub is empty", claims: with("sub", "")},
	} {
		r.fake.set(func() { r.fake.claims, r.fake.sign, r.fake.answer = c.claims, c.sign, c.answer })
		b := r.browser()
		o := b.open(b.back(b.begin("/")))
		switch {
		case c.good:
			if o.Answer.Status != 302 {
				t.Errorf("%s: %s", c.what, show(o))
			}
		case c.claims != nil && strings.Contains(c.what, "at_hash") && c.answer != nil: // an answer that cannot be read is no answer
			if o.Answer.Status != 503 {
				t.Errorf("%s: %s", c.what, show(o))
			}
		default:
			b.failed(c.what, o)
		}
	}
}

// TestTokenEndpoint: an answer that says nothing about the login is 503, and none is told.
func TestTokenEndpoint(t *testing.T) {
	r := newRig(t, nil)
	for _, c := range []struct {
		status int
		word   string
		want   int
	}{{500, "", 503}, {401, "invalid_client", 503}, {400, "odd", 503}, {302, "", 503}, {400, "invalid_grant", 403}} {
		r.fake.set(func() {
			r.fake.answer = func(_ url.Values, a map[string]any) int {
				clear(a)
				a["error"], a["error_description"] = c.word, "secret words"
				return c.status
			}
		})
		b := r.browser()
		o := b.open(b.back(b.begin("/")))
		if o.State != method.Answered || o.Answer.Status != c.want || strings.Contains(o.Answer.Detail, "secret words") || len(b.cookies) != 0 {
			t.Errorf("%d %s: %s", c.status, c.word, show(o))
		}
	}
}

// TestHugeCookies: a session is cut into cookies that browsers take; what is larger than five of them is made smaller, and else refused.
func TestHugeCookies(t *testing.T) {
	r := newRig(t, func(s *v1alpha1.OIDCAuth) {
		s.ForwardAccessToken = true
		s.ClaimsToHeaders = append(s.ClaimsToHeaders, v1alpha1.ClaimToHeader{Claim: "nickname", Header: "X-Nick"})
	})
	for _, c := range []struct {
		groups, picture, access int
		cookies                 int  // 0: refused
		hint, shown             bool // the id token, and the picture, are still there
	}{
		{100, 0, 100, 1, true, false}, {4000, 0, 100, 2, true, false}, {9000, 10, 100, 4, true, true}, {9000, 10, 4800, 5, true, true},
		{9000, 100, 5000, 5, false, false}, {9000, 10, 4880, 5, false, true}, {9000, 2000, 5000, 5, false, false}, {9000, 0, 6000, 0, false, false},
		{100, 0, 15000, 0, false, false},
	} {
		r.fake.set(func() {
			r.fake.claims = func(m map[string]any) {
				m["groups"], m["picture"], m["nickname"] = strings.Repeat("g", c.groups), strings.Repeat("p", c.picture), "nick"
			}
			r.fake.answer = func(_ url.Values, a map[string]any) int { a["access_token"] = strings.Repeat("a", c.access); return 0 }
		})
		b := r.browser()
		o := b.open(b.back(b.begin("/")))
		if c.cookies == 0 {
			if o.Answer.Status != 403 || o.Answer.Reason != largeSession || len(b.cookies) != 0 {
				t.Errorf("%+v: %s", c, show(o))
			}
			continue
		}
		if o.Answer.Status != 302 || len(b.cookies) != c.cookies {
			t.Errorf("%+v: %s with %d cookies", c, show(o), len(b.cookies))
			continue
		}
		o = b.open("/")
		picture, _ := o.Identity.Claims["picture"].(string)
		if o.State != method.Accepted || o.Identity.Claims["groups"] != strings.Repeat("g", c.groups) || o.Identity.Claims["nickname"] != "nick" || (picture != "") != c.shown {
			t.Errorf("%+v: %s, a picture of %d bytes", c, show(o), len(picture))
		}
		if o = b.open("/logout"); strings.Contains(location(o), "id_token_hint") != (c.hint && c.groups < 4000) {
			t.Errorf("%+v: logging out leads to %.200s", c, location(o))
		}
	}
}

// TestOddCookies: what does not fit together is no session, and what stands twice is refused without a login, which would not help.
func TestOddCookies(t *testing.T) {
	r := newRig(t, nil)
	r.fake.set(func() { r.fake.claims = func(c map[string]any) { c["groups"] = strings.Repeat("g", 6000) } })
	b := r.browser()
	b.login("/")
	if len(b.cookies) != 3 {
		t.Fatalf("%d cookies, want 3", len(b.cookies))
	}
	stale := b.copy()
	stale.cookies[sessionCookie+".3"] = "left over"
	if o := stale.open("/"); o.State != method.Accepted {
		t.Errorf("with a cookie that is left over: %s", show(o))
	}
	for what, change := range map[string]func(c map[string]string){
		"one missing":     func(c map[string]string) { delete(c, sessionCookie+".1") },
		"the first alone": func(c map[string]string) { delete(c, sessionCookie+".1"); delete(c, sessionCookie+".2") },
		"no first":        func(c map[string]string) { delete(c, sessionCookie+".0") },
		"exchanged": func(c map[string]string) {
			c[sessionCookie+".1"], c[sessionCookie+".2"] = c[sessionCookie+".2"], c[sessionCookie+".1"]
		},
		"huge":     func(c map[string]string) { c[sessionCookie+".1"] = strings.Repeat("x", 60000) },
		"too many": func(c map[string]string) { c[sessionCookie+".0"] = "9" + c[sessionCookie+".0"][1:] },
		"one":      func(c map[string]string) { c[sessionCookie+".0"] = "1" + c[sessionCookie+".0"][1:] },
	} {
		c := b.copy()
		change(c.cookies)
		if o := c.copy().open("/"); o.State != method.Answered || o.Answer.Status != 302 {
			t.Errorf("%s: %s, want a login", what, show(o))
		}
		c.header = nil
		if o := c.open("/"); o.State != method.Refused || o.Reason != invalidSession {
			t.Errorf("%s: %s", what, show(o))
		}
	}
	if o := b.run(b.request("GET", "/", "Cookie", sessionCookie+".1=x")); o.State != method.Refused || o.Reason != repeated {
		t.Errorf("twice: %s", show(o))
	}
}

// TestNothingIsTold: tokens, codes and secrets are in no outcome but the session itself and the logout's hint.
func TestNothingIsTold(t *testing.T) {
	r := newRig(t, nil)
	b := r.browser()
	o := b.login("/")
	text := fmt.Sprintf("%+v %s", o, show(o))
	for _, f := range o.Answer.Header {
		text += string(f.Value)
	}
	for _, word := range []string{"access-1", "refresh-1", "code-1", "s3cret"} {
		if strings.Contains(text, word) {
			t.Errorf("the answer tells %s", word)
		}
	}
}
