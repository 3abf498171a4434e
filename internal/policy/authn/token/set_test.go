package token

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"fmt"
	"math/rand"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// live is a LiveStore whose work runs until its context is over.
type live struct {
	context.Context
	mu     sync.Mutex
	values map[string]any
	runs   sync.WaitGroup
}

func newLive(t testing.TB) *live {
	ctx, cancel := context.WithCancel(context.Background())
	l := &live{Context: ctx, values: map[string]any{}}
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
	l.values[key] = v
	if run != nil {
		l.runs.Go(func() { run(policy.Work{Context: l, Now: time.Now, Sleep: l.sleep}) })
	}
	return v
}

func (l *live) sleep(d time.Duration, wake <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-wake:
		return true
	case <-l.Done():
		return false
	}
}

// caller answers by a function and notes when each URL was asked.
type caller struct {
	mu     sync.Mutex
	asked  map[string][]time.Time
	answer func(url string) (*policy.Reply, error)
	slow   time.Duration
}

func (c *caller) Call(ctx context.Context, q *policy.Call) (*policy.Reply, error) {
	c.mu.Lock()
	if c.asked == nil {
		c.asked = map[string][]time.Time{}
	}
	c.asked[q.URL] = append(c.asked[q.URL], time.Now())
	answer, slow := c.answer, c.slow
	c.mu.Unlock()
	if slow > 0 {
		limit := 5 * time.Second // as the real one does
		timer := time.NewTimer(min(slow, limit))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if slow > limit {
			return nil, context.DeadlineExceeded
		}
	}
	return answer(q.URL)
}

func (c *caller) set(slow time.Duration, answer func(string) (*policy.Reply, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slow, c.answer = slow, answer
}

func (c *caller) count(url string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.asked[url])
}

// checkPace fails if a URL was asked more than twice in any minute.
func (c *caller) checkPace(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for url, at := range c.asked {
		for i := 2; i < len(at); i++ {
			if d := at[i].Sub(at[i-2]); d < time.Minute {
				t.Errorf("%s was asked three times within %s", url, d)
			}
		}
	}
}

func reply(status int, body string, header ...string) func(string) (*policy.Reply, error) {
	h := http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return func(string) (*policy.Reply, error) {
		return &policy.Reply{Status: status, Header: h, Body: []byte(body)}, nil
	}
}

const keysURL = "https://idp.example/keys"

// client sends tokens, and fails if one takes longer than 50 ms.
type client struct {
	*testing.T
	Issuer
}

func (c *client) send(text string) string {
	c.Helper()
	start := time.Now()
	j, f := Parse([]byte(text))
	if f != nil {
		c.Fatal(f)
	}
	claims, _ := j.Claims()
	_, f, gate := c.Verify(j, claims, start, true)
	if gate != nil {
		Wait(c.Context(), gate)
		_, f, _ = c.Verify(j, claims, start, false)
	}
	if d := time.Since(start); d > 50*time.Millisecond {
		c.Errorf("a request was held for %s, want at most 50ms", d)
	}
	return reason(f)
}

func newClient(t *testing.T, c *caller) *client {
	env := policy.Env{Live: newLive(t), Call: c}
	return &client{t, Issuer{Rules{Issuer: "i", Algorithms: Asymmetric, OptionalExpiry: true}, OpenURL(env, keysURL)}}
}

func tokenOf(t testing.TB, k *ecdsa.PrivateKey, kid string) string {
	return sign(t, k, "ES256", kid, map[string]any{"iss": "i"})
}

func TestSetFollowsRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newEC(t, elliptic.P256()), newEC(t, elliptic.P256())
		c := &caller{}
		c.set(10*time.Millisecond, reply(200, setOf(jwk(t, a, "a"))))
		cl := newClient(t, c)
		synctest.Wait()
		if got := cl.send(tokenOf(t, a, "a")); got != "" {
			t.Fatalf("while the first fetch takes 10 ms: %q, want it accepted", got)
		}
		c.set(10*time.Millisecond, reply(200, setOf(jwk(t, b, "b"))))
		if got := cl.send(tokenOf(t, b, "b")); got != KeyUnknown {
			t.Fatalf("a new key within 30 s of the last fetch: %q, want %s", got, KeyUnknown)
		}
		time.Sleep(31 * time.Second)
		if got := cl.send(tokenOf(t, b, "b")); got != "" {
			t.Fatalf("a new key after that: %q, want it fetched and accepted", got)
		}
		if got := cl.send(tokenOf(t, a, "a")); got != KeyUnknown {
			t.Fatalf("a key that is gone: %q, want %s", got, KeyUnknown)
		}
		c.checkPace(t)
	})
}

func TestSetKeepsTheLastGoodKeys(t *testing.T) {
	for name, bad := range map[string]func(string) (*policy.Reply, error){
		"500":      reply(500, ""),
		"redirect": reply(302, "", "Location", "https://evil.example/keys"),
		"garbage":  reply(200, "<html>"),
		"no keys":  reply(200, "{}"),
		"huge":     func(string) (*policy.Reply, error) { return nil, policy.ErrTooLarge },
		"no limit": reply(200, `{"keys":[],"x":"`+strings.Repeat("x", maxSet)+`"}`),
		"refused":  func(string) (*policy.Reply, error) { return nil, errors.New("connection refused") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newEC(t, elliptic.P256())
				c := &caller{}
				c.set(0, bad)
				cl := newClient(t, c)
				synctest.Wait()
				good, unknown := tokenOf(t, k, "k"), tokenOf(t, k, "u")
				for range 100 {
					if got := cl.send(good); got != Unavailable {
						t.Fatalf("no keys yet: %q, want %s", got, Unavailable)
					}
					time.Sleep(5 * time.Second)
				}
				c.set(0, reply(200, setOf(jwk(t, k, "k")), "Cache-Control", "max-age=1"))
				time.Sleep(31 * time.Second)
				c.set(0, bad)
				for range 2000 { // some three hours
					if got := cl.send(good); got != "" {
						t.Fatalf("the server fails: %q, want the last good keys", got)
					}
					if got := cl.send(unknown); got != KeyUnknown {
						t.Fatalf("the server fails: %q for a kid that is unknown, want %s", got, KeyUnknown)
					}
					time.Sleep(5 * time.Second)
				}
				c.checkPace(t)
				if !strings.Contains(cl.Set.Why(), "keys") {
					t.Errorf("Why() = %q, want the URL in it", cl.Set.Why())
				}
			})
		})
	}
}

// However servers answer and clients ask, no URL is asked more than twice a minute and no request is held for more than 50 ms.
func TestSetUnderRandomServersAndClients(t *testing.T) {
	for seed := range int64(8) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewSource(seed))
			keys := []*ecdsa.PrivateKey{newEC(t, elliptic.P256()), newEC(t, elliptic.P256()), newEC(t, elliptic.P256())}
			var texts []string
			for i, k := range keys {
				texts = append(texts, tokenOf(t, k, fmt.Sprint(i)), tokenOf(t, k, fmt.Sprint("x", i)))
			}
			c := &caller{}
			c.set(0, reply(500, ""))
			cl := newClient(t, c)
			for range 400 {
				var answer func(string) (*policy.Reply, error)
				switch r.Intn(4) {
				case 0:
					answer = reply(500, "")
				case 1:
					answer = reply(200, "<html>", "Cache-Control", "max-age=0")
				default:
					n := r.Intn(len(keys))
					answer = reply(200, setOf(jwk(t, keys[n], fmt.Sprint(n))), "Cache-Control", fmt.Sprintf("max-age=%d", r.Intn(200)))
				}
				c.set([]time.Duration{0, 5 * time.Millisecond, 39 * time.Millisecond, time.Second, time.Minute}[r.Intn(5)], answer)
				var all sync.WaitGroup
				for range 5 {
					text := texts[r.Intn(len(texts))]
					all.Go(func() { cl.send(text) })
				}
				all.Wait()
				time.Sleep(time.Duration(r.Intn(20_000)) * time.Millisecond)
			}
			c.checkPace(t)
			if n := c.count(keysURL); n < 10 {
				t.Errorf("the keys were fetched %d times in an hour, want some", n)
			}
		})
	}
}

func TestSetHonoursCacheControl(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"": 10 * time.Minute, "max-age=1": time.Minute, "max-age=3600": time.Hour, "public, max-age=7200, must-revalidate": 2 * time.Hour,
		"max-age=99999999": 24 * time.Hour, "max-age=99999999999999999999": 24 * time.Hour, "no-store": time.Minute, "no-cache, max-age=900": time.Minute,
		"max-age=-1": 10 * time.Minute, `max-age="600"`: 10 * time.Minute, "Max-Age=900": 15 * time.Minute,
	} {
		if got := ageOf(http.Header{"Cache-Control": {value}}); got != want {
			t.Errorf("Cache-Control: %q: %s, want %s", value, got, want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		c := &caller{}
		c.set(0, reply(200, setOf(), "Cache-Control", "max-age=300"))
		newClient(t, c)
		time.Sleep(time.Hour - time.Second)
		if n := c.count(keysURL); n != 12 {
			t.Errorf("%d fetches in an hour with max-age=300, want 12", n)
		}
	})
}

func TestDiscovery(t *testing.T) {
	k := newEC(t, elliptic.P256())
	set := setOf(jwk(t, k, "k"))
	const issuer, keys = "https://idp.example/tenant/", "https://keys.example/jwks"
	oidc, oauth := "https://idp.example/tenant/.well-known/openid-configuration", "https://idp.example/.well-known/oauth-authorization-server/tenant"
	doc := func(issuer, uri string) string { return fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, issuer, uri) }
	for _, c := range []struct {
		name string
		docs map[string]string
		want string
	}{
		{"OpenID", map[string]string{oidc: doc(issuer, keys), keys: set}, ""},
		{"RFC 8414", map[string]string{oauth: doc(issuer, keys), keys: set}, ""},
		{"another issuer", map[string]string{oidc: doc("https://idp.example/tenant", keys), keys: set}, Unavailable},
		{"no issuer", map[string]string{oidc: `{"jwks_uri":"` + keys + `"}`, keys: set}, Unavailable},
		{"issuer twice", map[string]string{oidc: `{"issuer":"x","issuer":"` + issuer + `","jwks_uri":"` + keys + `"}`, keys: set}, Unavailable},
		{"no jwks_uri", map[string]string{oidc: `{"issuer":"` + issuer + `"}`}, Unavailable},
		{"to http", map[string]string{oidc: doc(issuer, "http://keys.example/jwks"), "http://keys.example/jwks": set}, Unavailable},
		{"to a file", map[string]string{oidc: doc(issuer, "file:///etc/keys")}, Unavailable},
		{"no document", map[string]string{keys: set}, Unavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				call := &caller{}
				call.set(0, func(url string) (*policy.Reply, error) {
					if body, ok := c.docs[url]; ok {
						return reply(200, body)(url)
					}
					return reply(404, "")(url)
				})
				env := policy.Env{Live: newLive(t), Call: call}
				cl := &client{t, Issuer{Rules{Issuer: issuer, Algorithms: Asymmetric, OptionalExpiry: true}, OpenIssuer(env, issuer)}}
				text := sign(t, k, "ES256", "k", map[string]any{"iss": issuer})
				synctest.Wait()
				for range 100 {
					if got := cl.send(text); got != c.want {
						t.Fatalf("%q (%s), want %q", got, cl.Set.Why(), c.want)
					}
					time.Sleep(7 * time.Second)
				}
				if uri := cl.Set.Document()["jwks_uri"]; (uri == keys) != (c.want == "") {
					t.Errorf("the document's jwks_uri is %v", uri)
				}
				call.checkPace(t)
			})
		})
	}
}

// An issuer whose discovery document is gone keeps its keys, and new ones are still found where they were.
func TestDiscoveryKeepsTheLastGoodDocument(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const issuer = "https://idp.example"
		a, b := newEC(t, elliptic.P256()), newEC(t, elliptic.P256())
		c := &caller{}
		server := func(documents map[string]string) {
			c.set(0, func(url string) (*policy.Reply, error) {
				if body, ok := documents[url]; ok {
					return reply(200, body)(url)
				}
				return reply(404, "")(url)
			})
		}
		server(map[string]string{issuer + "/.well-known/openid-configuration": `{"issuer":"` + issuer + `","jwks_uri":"` + keysURL + `"}`,
			keysURL: setOf(jwk(t, a, "a"))})
		env := policy.Env{Live: newLive(t), Call: c}
		cl := &client{t, Issuer{Rules{Issuer: issuer, Algorithms: Asymmetric, OptionalExpiry: true}, OpenIssuer(env, issuer)}}
		text := func(k *ecdsa.PrivateKey, kid string) string {
			return sign(t, k, "ES256", kid, map[string]any{"iss": issuer})
		}
		synctest.Wait()
		if got := cl.send(text(a, "a")); got != "" {
			t.Fatalf("%q (%s), want it accepted", got, cl.Set.Why())
		}
		server(map[string]string{keysURL: setOf(jwk(t, b, "b"))})
		time.Sleep(time.Hour)
		if got := cl.send(text(b, "b")); got != "" {
			t.Errorf("a new key without a document: %q (%s), want it accepted", got, cl.Set.Why())
		}
		c.checkPace(t)
	})
}

// Without a world, and once the work is over, nobody waits.
func TestSetWithoutWork(t *testing.T) {
	s := OpenURL(policy.Env{}, keysURL)
	if s.Keys() != nil || s.Refresh(time.Now()) != nil {
		t.Error("a set without a world has keys, or waits for them")
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		l := &live{Context: ctx, values: map[string]any{}}
		c := &caller{}
		c.set(time.Hour, reply(200, setOf()))
		s := OpenURL(policy.Env{Live: l, Call: c}, keysURL)
		synctest.Wait()
		gate := s.Refresh(time.Now())
		if gate == nil {
			t.Fatal("nothing to wait for while keys are fetched")
		}
		cancel()
		l.runs.Wait()
		<-gate
		if s.Refresh(time.Now().Add(time.Hour)) != nil {
			t.Error("the work is over, and there is something to wait for")
		}
	})
}

func TestSetsOfOneURLAreOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &caller{}
		c.set(0, reply(200, setOf()))
		env := policy.Env{Live: newLive(t), Call: c}
		for range 10 {
			OpenURL(env, keysURL)
		}
		time.Sleep(time.Second)
		if n := c.count(keysURL); n != 1 {
			t.Errorf("%d fetches for ten policies, want 1", n)
		}
	})
}
