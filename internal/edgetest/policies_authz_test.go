package edgetest_test

import (
	"fmt"
	"strings"
	"testing"
)

const fromLoopbackTrust = `---
apiVersion: gatehouse.dev/v1alpha1
kind: ClientTrafficPolicy
metadata: {name: client, namespace: d}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}]
  clientAddress: {source: {type: XForwardedFor}, trustedCIDRs: [127.0.0.0/8]}
---
`

// TestPolicyAuthorization: what a known caller may do; 403 says who one is does not help, 401 that one is not known.
func TestPolicyAuthorization(t *testing.T) {
	overEach(t, func(w *stage) {
		idp := newKeyPair(w, "one")
		jwt := fmt.Sprintf("{name: jwt, jwt: {issuers: [{issuer: '%s', jwks: {inline: '%s'}}]}}", issuer, jwks(w, idp))
		w.apply(fromLoopbackTrust + pol("AuthPolicy", "p", toAPI, `{authentication: {methods: [`+jwt+`]}, authorization: {rules: {
			admin: {when: "request.path.startsWith('/admin')", require: {cel: "identity.claims.realm.roles.exists(r, r == 'admin')"}},
			write: {when: "request.method == 'DELETE'", require: {scopes: [write, delete]}},
			office: {when: "request.path == '/office'", require: {cidrs: [198.51.100.0/24, '2001:db8::/32']}},
			banned: {deny: {cel: "identity.subject == 'u2'", cidrs: [203.0.113.66/32]}},
			fails: {when: "request.path == '/fails'", require: {cel: "identity.claims.nothing.at.all == 'x'"}},
			failsToo: {when: "request.path == '/fails-too'", deny: {cel: "identity.claims.nothing.at.all == 'x'"}}}}}`))
		user := bearer(idp.token(w))
		plain := bearer(idp.token(w, "realm", nil))
		from := func(a string) string { return "X-Forwarded-For: " + a }
		for _, x := range []struct {
			method, path string
			fields       []string
			status       int
		}{
			{"GET", "/", []string{user}, 0},
			{"GET", "/", nil, 401},
			{"GET", "/admin", []string{user}, 0},
			{"GET", "/admin", []string{plain}, 403},
			{"GET", "/admin", nil, 401},
			{"GET", "/office", []string{user, from("198.51.100.7")}, 0},
			{"GET", "/office", []string{user, from("2001:db8::7")}, 0},
			{"GET", "/office", []string{user, from("192.0.2.7")}, 403},
			{"GET", "/", []string{user, from("203.0.113.66")}, 403},
			{"GET", "/", []string{bearer(idp.token(w, "sub", "u2"))}, 403},
			{"GET", "/fails", []string{user}, 403},
			{"GET", "/fails-too", []string{user}, 403},
		} {
			a := w.do(call{method: x.method, target: x.path, fields: x.fields})
			switch {
			case x.status == 0 && a.seen == nil || x.status != 0 && (a.status != x.status || a.seen != nil):
				w.Errorf("%s %s %.40q: got %d %s, want %d", x.method, x.path, x.fields, a.status, a.reason, x.status)
			case x.status == 403 && a.reason != "access_denied":
				w.Errorf("%s %s: reason %s", x.method, x.path, a.reason)
			case x.status == 403 && strings.Contains(a.body, "u1"), x.status == 403 && strings.Contains(a.body, "rule"):
				w.Errorf("%s %s: the client is told %s", x.method, x.path, a.body)
			}
		}
		if !w.upgrade {
			a := w.do(call{method: "DELETE", fields: []string{user}})
			w.refused(a, 403, "access_denied")
			if got := a.header.Get("Www-Authenticate"); got != `Bearer error="insufficient_scope", scope="write delete"` {
				w.Errorf("WWW-Authenticate %q", got)
			}
			w.passed(w.do(call{method: "DELETE", fields: []string{bearer(idp.token(w, "scope", "delete read write"))}}))
		}
	})
}

// TestPolicyAuthorizationOtherwise: with otherwise Deny only what a rule speaks of can pass, and a rule that only looks on is none.
func TestPolicyAuthorizationOtherwise(t *testing.T) {
	overEach(t, func(w *stage) {
		w.apply(pol("AuthPolicy", "p", toAPI, `{authorization: {otherwise: Deny, rules: {
			get: {when: "request.path == '/get'", require: {cel: "request.method == 'GET'"}},
			looks: {when: "request.path == '/looks'", mode: Shadow, require: {cel: "true"}},
			none: {when: "request.path == '/off'", mode: Disabled, require: {cel: "true"}}}}}`))
		w.passed(w.ask("/get"))
		for _, path := range []string{"/", "/looks", "/off", "/get/", "/GET"} {
			w.refused(w.ask(path), 403, "access_denied")
		}
		w.passed(w.ask("/open"))
	})
}

// TestPolicyShadow: what a policy in mode Shadow would have refused passes, is logged and is counted; Disabled is as if it were not there.
func TestPolicyShadow(t *testing.T) {
	overEach(t, func(w *stage) {
		const keys = "methods: [{name: keys, apiKey: {secretRefs: [{name: keys}]}}]"
		w.apply(secretOf("keys", "app", keyOfShop) + pol("AuthPolicy", "p", toAPI, "{authentication: {mode: Shadow, "+keys+"}, authorization: {rules: {none: {mode: Shadow, require: {cel: 'false'}}}}}"))
		s := w.passed(w.ask("/shadow", "X-API-Key: no"))
		if s.Header.Get("X-Api-Key") != "no" {
			w.Error("a policy that only looks on took a field away")
		}
		if l := w.logged("/shadow"); !strings.Contains(l, `"shadow":"key_unknown"`) || strings.Contains(l, `"reason"`) {
			w.Errorf("the log says %s", l)
		}
		for _, reason := range []string{"key_unknown", "access_denied"} {
			if n := w.metric("gatehouse_shadow_decisions_total", reason); n != 1 {
				w.Errorf("%s was counted %v times, want once", reason, n)
			}
		}
		// Limits too, also where there are no others.
		w.apply(limits("one: {mode: Shadow, rates: [{limit: 1, period: 1h}]}"))
		w.passed(w.ask("/first"))
		a := w.ask("/second")
		w.passed(a)
		if a.header.Get("Ratelimit") != "" {
			w.Errorf("a client is told of a limit that only looks on: %s", a.header.Get("Ratelimit"))
		}
		w.logged("/second")
		if n := w.metric("gatehouse_shadow_decisions_total", "rate_limited"); n != 1 {
			w.Errorf("a limit in mode Shadow that was exceeded once was counted %v times", n)
		}
		// An outer default is taken away by Disabled nearer to the route.
		w.apply(pol("AuthPolicy", "outer", toGateway, "{authentication: {"+keys+"}}"))
		w.refused(w.ask("/open"), 401, "credentials_missing")
		w.apply(pol("AuthPolicy", "p", toAPI, "{authentication: {mode: Disabled, "+keys+"}}"))
		w.passed(w.ask("/"))
		w.refused(w.ask("/open"), 401, "credentials_missing")
		// Overrides are not.
		w.apply(polUnder("AuthPolicy", "outer", toGateway, "overrides", "{authentication: {"+keys+"}}"))
		w.refused(w.ask("/"), 401, "credentials_missing")
	})
}

// TestPolicyLevels: rules of all levels add up; of one name the nearer takes the place of a default, and never of an override.
func TestPolicyLevels(t *testing.T) {
	overEach(t, func(w *stage) {
		rule := func(path string) string { return `{deny: {cel: "request.path == '` + path + `'"}}` }
		w.apply(polUnder("AuthPolicy", "outer", toGateway, "overrides", "{authorization: {rules: {a: "+rule("/a-outer")+", b: "+rule("/b-outer")+"}}}") +
			pol("AuthPolicy", "p", toAPI, "{authorization: {rules: {a: "+rule("/a-inner")+", c: "+rule("/c-inner")+"}}}"))
		for path, want := range map[string]int{"/a-outer": 403, "/b-outer": 403, "/a-inner": 403, "/c-inner": 403, "/": 0} {
			if a := w.ask(path); (a.seen == nil) != (want != 0) {
				w.Errorf("over overrides: %s: got %d %s", path, a.status, a.reason)
			}
		}
		w.apply(pol("AuthPolicy", "outer", toGateway, "{authorization: {rules: {a: "+rule("/a-outer")+", b: "+rule("/b-outer")+"}}}"))
		for path, want := range map[string]int{"/a-outer": 0, "/b-outer": 403, "/a-inner": 403, "/c-inner": 403, "/": 0} {
			if a := w.ask(path); (a.seen == nil) != (want != 0) {
				w.Errorf("over defaults: %s: got %d %s", path, a.status, a.reason)
			}
		}
	})
}
