package oidc

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
)

// later moves the requests' clock; the provider's stands still.
func (r *rig) later(d time.Duration) { r.now = r.now.Add(d) }

func TestRenewal(t *testing.T) {
	r := newRig(t, func(s *v1alpha1.OIDCAuth) { s.ForwardAccessToken = true })
	b := r.browser()
	b.login("/")
	r.later(3535 * time.Second)
	if o := b.open("/"); o.State != method.Accepted || len(o.Cookies) != 0 || r.fake.questions() != 1 {
		t.Fatalf("more than a minute before the end: %s, %d questions", show(o), r.fake.questions())
	}
	r.later(10 * time.Second)
	r.fake.set(func() {
		r.fake.claims = func(c map[string]any) { c["exp"], c["groups"] = r.now.Unix()+3600, []string{"boss"} }
	})
	before := b.copy()
	o := b.open("/")
	if o.State != method.Accepted || len(o.Cookies) != 1 || string(o.Header[1].Value) != "Bearer access-2" || fmt.Sprint(o.Identity.Claims["groups"]) != "[boss]" {
		t.Fatalf("within a minute of the end: %s %q", show(o), o.Header)
	}
	if got := r.fake.asked[1].Get("refresh_token"); got != "refresh-1" {
		t.Errorf("renewed with %q", got)
	}
	if o = b.open("/"); o.State != method.Accepted || len(o.Cookies) != 0 || string(o.Header[1].Value) != "Bearer access-2" {
		t.Errorf("with the new session: %s", show(o))
	}
	// what was on its way with the old cookies gets the new session, and the refresh token that is good once is not sent again
	if o = before.copy().open("/"); o.State != method.Accepted || len(o.Cookies) != 1 || string(o.Header[1].Value) != "Bearer access-2" {
		t.Errorf("with the old session, a moment later: %s", show(o))
	}
	if n := r.fake.questions(); n != 2 {
		t.Errorf("%d questions, want 2", n)
	}
	// long after, it is not good any more: the provider knows the refresh token as used
	r.later(graceTime * time.Second)
	before.header = nil
	if o = before.open("/"); o.State != method.Refused || o.Reason != expiredSession {
		t.Errorf("with the old session, long after: %s", show(o))
	}
}

// TestRenewalIsOne: requests of one session at one time ask once.
func TestRenewalIsOne(t *testing.T) {
	r := newRig(t, nil)
	b := r.browser()
	b.login("/")
	r.later(3590 * time.Second)
	r.fake.set(func() { r.fake.claims = func(c map[string]any) { c["exp"] = r.now.Unix() + 3600 } })
	var wg sync.WaitGroup
	for range 50 {
		c := b.copy()
		wg.Go(func() {
			if o := c.open("/"); o.State != method.Accepted || len(o.Cookies) != 1 {
				t.Errorf("%s with %d cookies", show(o), len(o.Cookies))
			}
		})
	}
	wg.Wait()
	if n := r.fake.questions(); n != 2 {
		t.Errorf("the provider was asked %d times, want 2: one login, one renewal", n)
	}
}

// TestRenewalOutlivesItsRequest: a client that goes away while the refresh token is on its way does not lose the session.
func TestRenewalOutlivesItsRequest(t *testing.T) {
	r := newRig(t, nil)
	b := r.browser()
	b.login("/")
	r.later(3590 * time.Second)
	r.fake.set(func() { r.fake.claims = func(c map[string]any) { c["exp"] = r.now.Unix() + 3600 } })
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	o := b.h.Authenticate(b.request("GET", "/"))
	if o.State != method.Waiting {
		t.Fatal(show(o))
	}
	o.Wait(gone)
	if o := b.open("/"); o.State != method.Accepted || len(o.Cookies) != 1 || r.fake.questions() != 2 {
		t.Errorf("the next request: %s, %d questions", show(o), r.fake.questions())
	}
}

func TestRenewalFails(t *testing.T) {
	near, past := 3590*time.Second, 3601*time.Second
	status := func(s int, word string) func(url.Values, map[string]any) int {
		return func(form url.Values, a map[string]any) int {
			if form.Get("grant_type") != "refresh_token" {
				return 0
			}
			clear(a)
			a["error"] = word
			return s
		}
	}
	claim := func(name string, v any) func(map[string]any) {
		return func(c map[string]any) { c[name] = v }
	}
	for _, c := range []struct {
		what   string
		after  time.Duration
		answer func(url.Values, map[string]any) int
		claims func(map[string]any)
		want   method.State
		reason string
	}{
		{"down, still valid", near, status(500, ""), nil, method.Accepted, ""},
		{"down, over", past, status(500, ""), nil, method.Unavailable, noProvider},
		{"the client is not known", past, status(401, "invalid_client"), nil, method.Unavailable, noProvider},
		{"invalid grant, still valid", near, status(400, "invalid_grant"), nil, method.Refused, expiredSession},
		{"invalid grant, over", past, status(400, "invalid_grant"), nil, method.Refused, expiredSession},
		{"may not refresh", past, status(400, "unauthorized_client"), nil, method.Refused, expiredSession},
		{"another subject", near, nil, claim("sub", "eve"), method.Refused, expiredSession},
		{"another nonce", near, nil, claim("nonce", "eve"), method.Refused, expiredSession},
		{"another audience", near, nil, claim("aud", "eve"), method.Refused, expiredSession},
		{"without an id token", near, func(_ url.Values, a map[string]any) int { delete(a, "id_token"); return 0 }, nil, method.Accepted, ""},
	} {
		r := newRig(t, nil)
		b := r.browser()
		b.login("/")
		r.later(c.after)
		r.fake.set(func() { r.fake.answer, r.fake.claims = c.answer, c.claims })
		page := b.copy()
		b.header = nil
		o := b.open("/")
		if o.State != c.want || o.Reason != c.reason {
			t.Errorf("%s: %s, want state %d %s", c.what, show(o), c.want, c.reason)
		}
		if c.want == method.Refused {
			if o = page.open("/"); o.State != method.Answered || o.Answer.Status != 302 {
				t.Errorf("%s: a page: %s, want a login", c.what, show(o))
			}
		}
	}
}

// TestRenewalRests: a provider that fails is left alone for some seconds, by all sessions.
func TestRenewalRests(t *testing.T) {
	r := newRig(t, nil)
	b, c := r.browser(), r.browser()
	b.login("/")
	c.login("/")
	r.later(3590 * time.Second)
	r.fake.set(func() { r.fake.answer = func(url.Values, map[string]any) int { return 500 } })
	for range 5 {
		for _, x := range []*browser{b, c} {
			if o := x.open("/"); o.State != method.Accepted {
				t.Fatal(show(o))
			}
		}
	}
	if n := r.fake.questions(); n != 3 {
		t.Errorf("%d questions, want 3: two logins, one renewal", n)
	}
	d := r.browser() // a method of another client rests by itself
	d.h = r.compile(func(s *v1alpha1.OIDCAuth) { s.ClientID, s.CookieName = "api", "other" })
	r.fake.set(func() {
		r.fake.answer, r.fake.claims = nil, func(c map[string]any) { c["aud"], c["exp"] = "api", r.now.Unix()+5 }
	})
	d.login("/")
	r.later(3 * time.Second)
	if o := d.open("/"); o.State != method.Accepted || len(o.Cookies) == 0 {
		t.Errorf("another method: %s", show(o))
	}
	r.fake.set(func() { r.fake.asked = r.fake.asked[:3] })
	r.later((restTime - 3) * time.Second)
	b.open("/")
	if n := r.fake.questions(); n != 4 {
		t.Errorf("%d questions after the rest, want 4", n)
	}
}

// TestShortTokens: tokens that live less than two minutes are renewed when half their time is over, not for every request.
func TestShortTokens(t *testing.T) {
	r := newRig(t, nil)
	r.fake.set(func() { r.fake.claims = func(c map[string]any) { c["exp"] = r.now.Unix() + 60 } })
	b := r.browser()
	b.login("/")
	for _, c := range []struct {
		after time.Duration
		asked int
	}{{29 * time.Second, 1}, {time.Second, 2}, {29 * time.Second, 2}, {time.Second, 3}} {
		r.later(c.after)
		if o := b.open("/"); o.State != method.Accepted || r.fake.questions() != c.asked {
			t.Errorf("%s: %d questions, want %d", show(o), r.fake.questions(), c.asked)
		}
	}
}

func TestNoRefreshToken(t *testing.T) {
	r := newRig(t, nil)
	r.fake.set(func() {
		r.fake.answer = func(_ url.Values, a map[string]any) int { delete(a, "refresh_token"); return 0 }
	})
	b := r.browser()
	b.login("/")
	r.later(3595 * time.Second)
	if o := b.open("/"); o.State != method.Accepted {
		t.Errorf("before the end: %s", show(o))
	}
	r.later(6 * time.Second)
	if o := b.open("/"); o.State != method.Answered || o.Answer.Status != 302 || r.fake.questions() != 1 {
		t.Errorf("after the end: %s", show(o))
	}
}

func TestLogout(t *testing.T) {
	r := newRig(t, nil)
	in := r.browser()
	in.login("/")
	in.begin2()
	for _, c := range []struct {
		what, verb string
		header     []string
		status     int
		out        bool
	}{
		{"a link here", "GET", []string{"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "navigate"}, 302, true},
		{"typed", "GET", []string{"Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate"}, 302, true},
		{"an old browser", "GET", nil, 302, true},
		{"a form here", "POST", []string{"Origin", "https://shop.example", "Sec-Fetch-Site", "same-origin"}, 303, true},
		{"a script here", "POST", []string{"Origin", "https://shop.example", "Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "cors"}, 204, true},
		{"an old script here", "POST", []string{"X-Requested-With", "XMLHttpRequest"}, 204, true},
		{"a link elsewhere", "GET", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate"}, 200, false},
		{"an image elsewhere", "GET", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"}, 200, false},
		{"a sister host", "GET", []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "navigate"}, 200, false},
		{"a form elsewhere", "POST", []string{"Origin", "https://evil.example"}, 200, false},
		{"a sandbox", "POST", []string{"Origin", "null"}, 200, false},
		{"another verb", "PUT", nil, 405, false},
	} {
		b := in.copy()
		o := b.run(b.request(c.verb, "/logout", c.header...))
		if o.State != method.Answered || o.Answer.Status != c.status {
			t.Errorf("%s: %s, want %d", c.what, show(o), c.status)
		}
		if out := len(b.cookies) == 0; out != c.out || !out && !maps.Equal(b.cookies, in.cookies) {
			t.Errorf("%s: the browser has %d cookies", c.what, len(b.cookies))
		}
		if c.status < 400 && field(o, "Cache-Control") != "no-store" {
			t.Errorf("%s: may be stored", c.what)
		}
		if c.status/100 != 3 {
			continue
		}
		u, _ := url.Parse(location(o))
		q := u.Query()
		if !strings.HasPrefix(location(o), r.fake.URL+"/end?") || q.Get("post_logout_redirect_uri") != "https://shop.example/" || q.Get("client_id") != "web" ||
			strings.Count(q.Get("id_token_hint"), ".") != 2 {
			t.Errorf("%s: sent to %s", c.what, location(o))
		}
	}
	b := r.browser()
	if o := b.open("/logout"); o.Answer.Status != 302 || strings.Contains(location(o), "hint") {
		t.Errorf("without a session: %s", show(o))
	}
	plain := newRigOf(t, nil, func(d map[string]any) { delete(d, "end_session_endpoint") })
	b = plain.browser()
	b.login("/")
	if o := b.open("/logout"); location(o) != "https://shop.example/" || len(b.cookies) != 0 {
		t.Errorf("from a provider that ends no sessions: %s", show(o))
	}
}

// begin2 leaves the cookie of an attempt beside the session.
func (b *browser) begin2() {
	c := b.copy()
	c.cookies = map[string]string{}
	c.begin("/")
	maps.Copy(b.cookies, c.cookies)
}

// TestExplain: on an exchange that is only explained nothing is asked, and whom it would ask is said.
func TestExplain(t *testing.T) {
	r := newRig(t, nil)
	b := r.browser()
	b.login("/")
	n := r.fake.questions()
	dry := func(b *browser, target string) method.Outcome {
		x := b.request("GET", target)
		x.Dry = true
		return b.h.Authenticate(x)
	}
	if o := dry(b, "/"); o.State != method.Accepted {
		t.Errorf("with a session: %s", show(o))
	}
	c := r.browser()
	if o := dry(c, "/"); o.State != method.Answered {
		t.Errorf("without one: %s", show(o))
	}
	if o := dry(c, c.back(c.begin("/"))); o.State != method.Waiting || o.Asks == "" {
		t.Errorf("a callback: %s", show(o))
	}
	r.later(3599 * time.Second)
	if o := dry(b, "/"); o.State != method.Waiting || o.Asks == "" {
		t.Errorf("a renewal: %s", show(o))
	}
	if r.fake.questions() != n {
		t.Error("the provider was asked")
	}
	r.env.Call, r.env.Live = nil, nil
	c.h = r.compile(nil)
	if o := dry(c, "/"); o.State != method.Answered || o.Answer.Reason != loginRequired {
		t.Errorf("without a caller: %s", show(o))
	}
}

func TestStoreBounds(t *testing.T) {
	s := newStore()
	r := &ring{}
	for i := range 40000 {
		k := sha256.Sum256([]byte(fmt.Sprint(i)))
		s.add(&k, &known{session: &session{}, ring: r, size: 1000})
		_, f, _ := s.join(&k, r, 0)
		s.land(&k, f, &renewed{renewal: &renewal{known: &known{ring: r}, sealed: make([]byte, 5000), until: 60}}, 0)
	}
	entries, text, again := 0, 0, 0
	for i := range s.shard {
		h := &s.shard[i]
		entries += len(h.young) + len(h.old)
		text += h.text
		sum := 0
		for _, n := range h.renewed {
			sum += len(n.sealed)
		}
		if sum != h.again {
			t.Errorf("a shard counts %d bytes and has %d", h.again, sum)
		}
		again += sum
		if len(h.flights) != 0 {
			t.Errorf("%d renewals are still on their way", len(h.flights))
		}
	}
	if entries > maxEntries || entries*1000 > maxText || again > maxText {
		t.Errorf("%d sessions, %d bytes, and %d bytes of renewals", entries, text, again)
	}
}

// TestNothingRuns: the background work ends with its context.
func TestNothingRuns(t *testing.T) {
	none := goleak.IgnoreCurrent()
	t.Run("", func(t *testing.T) {
		r := newRig(t, nil)
		r.browser().login("/")
	})
	if err := goleak.Find(none); err != nil {
		t.Error(err)
	}
}
