package edgetest_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dunglas/httpsfv"
	"golang.org/x/crypto/bcrypt"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
)

// told is what a client is told of a limit (draft-ietf-httpapi-ratelimit-headers), "" where it is told nothing.
func (w *stage) told(h http.Header) (name string, remaining, reset, quota, window int64) {
	w.Helper()
	item := func(field string) (string, *httpsfv.Params) {
		if len(h[field]) == 0 {
			return "", httpsfv.NewParams()
		}
		l, err := httpsfv.UnmarshalList(h[field])
		if err != nil || len(l) != 1 {
			w.Fatalf("%s %q is not a list of one: %v", field, h[field], err)
		}
		i, ok := l[0].(httpsfv.Item)
		if !ok {
			w.Fatalf("%s %q has no item", field, h[field])
		}
		s, ok := i.Value.(string)
		if !ok {
			w.Fatalf("%s %q names no string", field, h[field])
		}
		return s, i.Params
	}
	number := func(p *httpsfv.Params, name string) int64 {
		v, _ := p.Get(name)
		n, _ := v.(int64)
		return n
	}
	name, limit := item("Ratelimit")
	other, policy := item("Ratelimit-Policy")
	if name != other {
		w.Errorf("RateLimit speaks of %q, RateLimit-Policy of %q", name, other)
	}
	return name, number(limit, "r"), number(limit, "t"), number(policy, "q"), number(policy, "w")
}

// limited fails unless the answer is 429 by a limit, told as a problem of its type.
func (w *stage) limited(a *answer, reason, by string) {
	w.Helper()
	w.refused(a, 429, reason)
	var p struct {
		Type     string
		Violated []string `json:"violated-policies"`
	}
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		w.Fatal(err)
	}
	if p.Type != "https://iana.org/assignments/http-problem-types#quota-exceeded" || fmt.Sprint(p.Violated) != "["+by+"]" {
		w.Errorf("the problem is %s", a.body)
	}
	if n, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || n < 1 {
		w.Errorf("Retry-After %q", a.header.Get("Retry-After"))
	}
}

// TestPolicyLimitRate: so many by one client, and no more; the client is told how many are left.
func TestPolicyLimitRate(t *testing.T) {
	overEach(t, func(w *stage) {
		w.apply(limits("per-client: {key: [\"request.headers['x-client']\"], rates: [{limit: 3, period: 1h}]}"))
		for i := range 3 {
			a := w.ask("/", "X-Client: a", `Answer: RateLimit: "backend";r=99;t=1`, `Answer: RateLimit-Policy: "backend";q=100`, "Answer: X-RateLimit-Limit: 7")
			w.passed(a)
			name, left, reset, quota, window := w.told(a.header) // the edge's, in the place of the backend's
			if name != "per-client" || left != int64(2-i) || reset <= 0 || reset > 3600 || quota != 3 || window != 3600 || a.header.Get("X-Ratelimit-Limit") != "7" {
				w.Errorf("the client is told %q and %q", a.header["Ratelimit"], a.header["Ratelimit-Policy"])
			}
		}
		a := w.ask("/", "X-Client: a")
		w.limited(a, "rate_limited", "per-client")
		if name, left, _, _, _ := w.told(a.header); name != "per-client" || left != 0 {
			w.Errorf("the client is told %q", a.header["Ratelimit"])
		}
		if n, _ := strconv.Atoi(a.header.Get("Retry-After")); n < 1190 || n > 1200 { // a third of an hour
			w.Errorf("Retry-After %d", n)
		}
		w.passed(w.ask("/", "X-Client: b"))
		a = w.ask("/open", `Answer: RateLimit: "backend";r=99;t=1`, `Answer: RateLimit-Policy: "backend";q=100`)
		if name, left, _, _, _ := w.told(a.header); name != "backend" || left != 99 { // where the edge limits nothing, the backend speaks
			w.Errorf("the client is told %q", a.header["Ratelimit"])
		}
	})
}

// TestPolicyLimitTogether: of several limits the strictest is told, and what one refuses none counts.
func TestPolicyLimitTogether(t *testing.T) {
	overEach(t, func(w *stage) {
		w.apply(secretOf("keys", "app", keyOfShop) + authn("{name: keys, apiKey: {secretRefs: [{name: keys}]}}") + limits(
			"early: {rates: [{limit: 5, period: 1h}]}, late: {key: [identity.application], rates: [{limit: 2, period: 1h}]}, wide: {key: [identity.application], rates: [{limit: 4, period: 1h}]}"))
		const key = "X-API-Key: " + keyOfShop
		for i := range 2 {
			a := w.ask("/", key)
			w.passed(a)
			if name, left, _, _, _ := w.told(a.header); name != "late" || left != int64(1-i) {
				w.Errorf("the client is told %q", a.header["Ratelimit"])
			}
		}
		for range 5 {
			w.limited(w.ask("/", key), "rate_limited", "late")
		}
		// Five refused requests later the two others still have what the first two left.
		w.apply(limits("early: {rates: [{limit: 5, period: 1h}]}, wide: {key: [identity.application], rates: [{limit: 4, period: 1h}]}"))
		a := w.ask("/", key)
		w.passed(a)
		if name, left, _, _, _ := w.told(a.header); name != "wide" || left != 1 {
			w.Errorf("after refusals by another limit the client is told %q", a.header["Ratelimit"])
		}
		w.passed(w.ask("/", key))
		w.limited(w.ask("/", key), "rate_limited", "wide")
		w.refused(w.ask("/"), 401, "credentials_missing") // this one counts: early passed it
		w.limited(w.ask("/", key), "rate_limited", "early")
	})
}

// TestPolicyLimitEarly: a limit that needs to know nobody refuses before a password costs anything, or a server is asked.
func TestPolicyLimitEarly(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("pw"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	overEach(t, func(w *stage) {
		var asked atomic.Int64
		idp := edgetest.HTTPBackend(w, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			_, _ = rw.Write([]byte(`{"active":false}`))
		}))
		w.apply(secretOf("users", "auth", "ann:"+string(hash)) + authn("{name: users, basic: {secretRef: {name: users}}}, {name: tokens, introspection: {url: 'http://"+idp+"/', cache: 0s}}") +
			limits("early: {key: [client.address], rates: [{limit: 2, period: 1h}]}"))
		w.passed(w.ask("/", basic("ann", "pw")))
		w.refused(w.ask("/", bearer("t")), 401, "token_inactive")
		for range 5 {
			// Had the password been looked at, the answer were 401.
			w.limited(w.ask("/", basic("ann", "wrong")), "rate_limited", "early")
			w.limited(w.ask("/", bearer("t")), "rate_limited", "early")
		}
		if n := asked.Load(); n != 1 {
			w.Errorf("the server was asked %d times, want once", n)
		}
	})
}

// TestPolicyLimitAuthenticationFailures: who guesses is stopped; who knows is not counted.
func TestPolicyLimitAuthenticationFailures(t *testing.T) {
	overEach(t, func(w *stage) {
		w.apply(fromLoopbackTrust + secretOf("keys", "app", keyOfShop) + authn("{name: keys, apiKey: {secretRefs: [{name: keys}]}}") +
			limits("guesses: {count: AuthenticationFailures, key: [client.address], rates: [{limit: 3, period: 1h}]}"))
		const key, from = "X-API-Key: " + keyOfShop, "X-Forwarded-For: 192.0.2.1"
		for range 10 {
			w.passed(w.ask("/", key, from))
			w.refused(w.ask("/", from), 401, "credentials_missing") // no guess
		}
		for range 3 {
			w.refused(w.ask("/", "X-API-Key: guess", from), 401, "key_unknown")
			w.eventuallyIdle()
		}
		w.limited(w.ask("/", "X-API-Key: guess", from), "rate_limited", "guesses")
		w.limited(w.ask("/", key, from), "rate_limited", "guesses")
		w.passed(w.ask("/", key, "X-Forwarded-For: 192.0.2.2"))
		// Who is let in all the same guesses none the less.
		w.apply(authn("{name: keys, apiKey: {secretRefs: [{name: keys}]}}, {name: anybody, anonymous: {}}"))
		const other = "X-Forwarded-For: 192.0.2.3"
		for range 3 {
			w.passed(w.ask("/", other))
			w.passed(w.ask("/", key, other))
			w.passed(w.ask("/", "X-API-Key: guess", other))
			w.eventuallyIdle()
		}
		w.limited(w.ask("/", "X-API-Key: guess", other), "rate_limited", "guesses")
	})
}

// eventuallyIdle waits until every exchange is over, so that what its end counts is counted.
func (w *stage) eventuallyIdle() {
	w.Helper()
	w.eventually("all exchanges are over", func() bool { return strings.Count(w.log.String(), "\n") >= w.sent })
}

// TestPolicyLimitConcurrency: a place is given back when the exchange ends, by whomever.
func TestPolicyLimitConcurrency(t *testing.T) {
	overEach(t, func(w *stage) {
		w.apply(limits("at-once: {concurrency: 2}"))
		hold := func(path string) (*edgetest.Client, call) {
			q := call{target: path}
			for range 20 {
				c := w.dial(q)
				c.Send(w.text(q))
				select {
				case <-w.backend.held:
					return c, q
				case <-time.After(edgetest.Wait / 20): // the place of a request before this one is not free yet
				}
				_ = c.Close()
			}
			w.Fatalf("%s did not reach the backend", path)
			return nil, q
		}
		end := func(c *edgetest.Client, q call) {
			w.backend.release(q.target)
			w.passed(w.read(c, q))
			_ = c.Close()
		}
		one, _ := hold("/hold/1")
		two, q2 := hold("/hold/2")
		w.limited(w.ask("/"), "concurrency_exceeded", "at-once")
		reset(one) // the client goes away while the backend works
		gone := time.Now()
		w.eventually("the place is free", func() bool { return w.ask("/").seen != nil })
		w.Logf("free after %v", time.Since(gone).Round(time.Millisecond))
		three, q3 := hold("/hold/3")
		w.limited(w.ask("/"), "concurrency_exceeded", "at-once")
		end(two, q2)
		end(three, q3)
		w.eventually("both places are free", func() bool { return w.ask("/").seen != nil })
		// A change of the configuration does not forget who is under way.
		four, q4 := hold("/hold/4")
		w.apply(limits("at-once: {concurrency: 1}"))
		w.limited(w.ask("/"), "concurrency_exceeded", "at-once")
		end(four, q4)
		w.eventually("the place is free", func() bool { return w.ask("/").seen != nil })
	})
}

// reset ends a client's connection as a process that is killed does.
func reset(c *edgetest.Client) {
	nc := c.Conn
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	_ = nc.(*net.TCPConn).SetLinger(0)
	_ = nc.Close()
}

// TestPolicyLimitCosts: what a request costs is said by it, and by its answer.
func TestPolicyLimitCosts(t *testing.T) {
	overEach(t, func(w *stage) {
		w.apply(limits(`units: {rates: [{limit: 10, period: 1h}], cost: "int(request.headers['x-cost'])", responseCost: "int(response.headers['x-used'])"}`))
		left := func(fields ...string) int64 {
			a := w.ask("/", fields...)
			w.passed(a)
			w.eventuallyIdle()
			_, n, _, _, _ := w.told(a.header)
			return n
		}
		if n := left("X-Cost: 3"); n != 7 {
			w.Errorf("%d left, want 7", n)
		}
		if n := left(); n != 6 { // cannot be evaluated: 1
			w.Errorf("%d left, want 6", n)
		}
		left("X-Cost: 0", "Answer: X-Used: 4")
		if n := left("X-Cost: 0"); n != 2 {
			w.Errorf("%d left after an answer that cost 4, want 2", n)
		}
		w.limited(w.ask("/", "X-Cost: 3", "Answer: X-Used: 100"), "rate_limited", "units")
		if n := left("X-Cost: -5"); n != 2 {
			w.Errorf("%d left after a negative cost, want 2", n)
		}
		left("X-Cost: 0", "Answer: X-Used: 100") // owed
		w.limited(w.ask("/", "X-Cost: 1"), "rate_limited", "units")
	})
}

// TestPolicyLimitAddresses: who has a /64 has one allowance; an IPv4 address is one.
func TestPolicyLimitAddresses(t *testing.T) {
	overEach(t, func(w *stage) {
		w.apply(fromLoopbackTrust + limits("per-client: {key: [client.address], rates: [{limit: 2, period: 1h}]}"))
		from := func(a string) *answer { return w.ask("/", "X-Forwarded-For: "+a) }
		w.passed(from("2001:db8:0:1::1"))
		w.passed(from("2001:db8:0:1:ffff:ffff:ffff:ffff"))
		w.limited(from("2001:db8:0:1:1234::5"), "rate_limited", "per-client")
		w.passed(from("2001:db8:0:2::1"))
		w.passed(from("192.0.2.1"))
		w.passed(from("::ffff:192.0.2.1"))
		w.limited(from("192.0.2.1"), "rate_limited", "per-client")
		w.passed(from("192.0.2.2"))
	})
}

// TestPolicyLimitSurvivesChanges: what was counted stays when the limit, its policy's other limits or the routes change; a policy that is
// attached to two routes limits both together.
func TestPolicyLimitSurvivesChanges(t *testing.T) {
	overEach(t, func(w *stage) {
		const both = toAPI + ", {group: gateway.networking.k8s.io, kind: HTTPRoute, name: open}"
		say := func(limits string) { w.apply(pol("RateLimitPolicy", "l", both, "{limits: {"+limits+"}}")) }
		left := func(a *answer) int64 {
			w.Helper()
			w.passed(a)
			_, n, _, _, _ := w.told(a.header)
			return n
		}
		say("all: {rates: [{limit: 10, period: 1h}]}")
		left(w.ask("/"))
		if n := left(w.ask("/open")); n != 8 {
			w.Errorf("%d left after one on each route, want 8", n)
		}
		say("all: {rates: [{limit: 20, period: 1h}]}, other: {rates: [{limit: 1000, period: 1s}]}")
		if n := left(w.ask("/")); n != 15 { // what is owed is time: two of ten an hour are four of twenty, and this is the fifth
			w.Errorf("%d left of 20, want 15", n)
		}
		w.apply(routeTo("api", "/", "") + routeTo("third", "/third", ""))
		before := left(w.ask("/"))
		w.apply(routeTo("api", "/", ", filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-A, value: b}]}}]"))
		if n := left(w.ask("/")); n != before-1 {
			w.Errorf("%d left after a change of the route, %d before", n, before)
		}
		w.remove("RateLimitPolicy", "l")
		if a := w.ask("/"); a.header.Get("Ratelimit") != "" {
			w.Errorf("without a policy the client is told %q", a.header.Get("Ratelimit"))
		}
		say("all: {rates: [{limit: 20, period: 1h}]}")
		if n := left(w.ask("/")); n != before-2 {
			w.Errorf("%d left after the policy came back, %d before", n, before-1)
		}
	})
}

// TestPolicyLimitLevels: limits of all levels add up by their names.
func TestPolicyLimitLevels(t *testing.T) {
	overEach(t, func(w *stage) {
		one := func(n int) string { return fmt.Sprintf("{limits: {one: {rates: [{limit: %d, period: 1h}]}}}", n) }
		policyOf := func(a *answer) string { return strings.Join(a.header["Ratelimit-Policy"], "") }
		w.apply(pol("RateLimitPolicy", "outer", toGateway, one(50)) + pol("RateLimitPolicy", "l", toAPI, one(60)))
		if got := policyOf(w.ask("/")); got != `"one";q=60;w=3600` {
			w.Errorf("of two defaults the client is told %s", got)
		}
		if got := policyOf(w.ask("/open")); got != `"one";q=50;w=3600` {
			w.Errorf("elsewhere the client is told %s", got)
		}
		w.apply(polUnder("RateLimitPolicy", "outer", toGateway, "overrides", one(50)))
		if got := policyOf(w.ask("/")); got != `"one";q=50;w=3600` {
			w.Errorf("of overrides and defaults the client is told %s", got)
		}
		w.apply(pol("RateLimitPolicy", "outer", toGateway, one(50)) + limits("one: {mode: Disabled}"))
		if got := policyOf(w.ask("/")); got != "" {
			w.Errorf("of a limit that is disabled the client is told %s", got)
		}
	})
}
