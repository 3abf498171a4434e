package edgetest_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestHoleIdentityHeaders: a client says who it is in the fields in which backends are told who calls. No spelling of theirs gets to a
// backend, from the head or from trailers, on routes with the policy and without it.
func TestHoleIdentityHeaders(t *testing.T) {
	overEach(t, func(w *stage) {
		idp := newKeyPair(w, "one")
		w.apply(authn(fmt.Sprintf("{name: jwt, jwt: {issuers: [{issuer: '%s', jwks: {inline: '%s'}}], claimsToHeaders: [{claim: sub, header: X-User}, {claim: nothing, header: X-Nothing}]}}",
			issuer, jwks(w, idp))))
		known := bearer(idp.token(w))
		for what, fields := range map[string][]string{
			"as it is":                   {"X-User: root"},
			"in lower case":              {"x-user: root"},
			"in upper case":              {"X-USER: root"},
			"with underscores":           {"x_user: root"},
			"mixed":                      {"X_User: root", "X-uSER: root", "x-User: root"},
			"twice":                      {"X-User: root", "X-User: root"},
			"empty, then filled":         {"X-User:", "X-User: root"},
			"named by Connection":        {"Connection: X-User", "X-User: root"},
			"a claim that is not there":  {"X-Nothing: root", "x_nothing: root"},
			"of the edge's own names":    {"X-Gatehouse-User: root", "x_gatehouse_user: root"},
			"named by Connection before": {"X-User: root", "Connection: x-user, X-Nothing"},
		} {
			for _, path := range []string{"/", "/open"} {
				if w.upgrade && strings.Contains(what, "Connection") {
					continue // the handshake has a field Connection of its own
				}
				s := w.passed(w.ask(path, append([]string{known}, fields...)...))
				w.untold(what+" at "+path, s.Header, path == "/")
			}
		}
		if w.upgrade { // has no trailers
			return
		}
		for _, path := range []string{"/", "/open"} {
			c := w.dial(call{})
			c.Send("POST " + path + " HTTP/1.1\nHost: shop.example\n" + known + "\nTE: trailers\nTrailer: X-User, x_user, X-Kept\nTransfer-Encoding: chunked\n\n" +
				"4\nbody\n0\nX-User: root\nx_user: root\nX-USER: root\nX-Nothing: root\nX-Kept: yes\n\n")
			s := w.passed(w.read(c, call{method: "POST"}))
			w.untold("in trailers at "+path, s.Trailer, false)
			w.untold("beside trailers at "+path, s.Header, path == "/")
		}
	})
}

// untold fails if a backend is told what a client says; told says that the edge itself tells it.
func (w *stage) untold(what string, h http.Header, told bool) {
	w.Helper()
	for name, values := range h {
		n := strings.ReplaceAll(strings.ToLower(name), "_", "-")
		switch {
		case len(values) == 0: // announced by Trailer, and never sent
		case n == "x-user" && told && name == "X-User" && fmt.Sprint(values) == "[u1]":
		case n == "x-user", n == "x-nothing", strings.HasPrefix(n, "x-gatehouse"), strings.Contains(strings.Join(values, ","), "root"):
			w.Errorf("%s: the backend sees %s: %q", what, name, values)
		}
	}
	if told && h.Get("X-User") != "u1" {
		w.Errorf("%s: the backend is not told who calls", what)
	}
}

// TestHoleIdentityWhileBroken: while the policy of one route is broken, the routes beside it, which are open, let through no field in which
// it told backends who calls.
func TestHoleIdentityWhileBroken(t *testing.T) {
	overEach(t, func(w *stage) {
		idp := newKeyPair(w, "one")
		good := fmt.Sprintf("{name: jwt, jwt: {issuers: [{issuer: '%s', jwks: {inline: '%s'}}], claimsToHeaders: [{claim: sub, header: X-User}]}}", issuer, jwks(w, idp))
		for what, x := range map[string]struct{ methods, fault string }{
			"a reference": {good + ", {name: keys, apiKey: {secretRefs: [{name: nowhere}]}}", "nowhere"},
			"a value":     {strings.Replace(good, "jwks: {inline: '", "jwks: {inline: 'x", 1), "inline"},
			"a field":     {strings.Replace(good, "issuers:", "issuer:", 1), "unknown field"},
		} {
			w.apply(authn(good))
			w.untold(what+", whole", w.passed(w.ask("/open", "X-User: root", "x_user: root")).Header, false)
			for range 2 {
				w.applyFaulty(authn(x.methods), x.fault)
				w.untold(what+", broken", w.passed(w.ask("/open", "X-User: root", "x_user: root")).Header, false)
				w.publish(routeTo("more", "/more", "")) // another snapshot, broken as before
				w.await()
				w.untold(what+", broken still", w.passed(w.ask("/more", "X-User: root")).Header, false)
				w.remove("HTTPRoute", "more")
			}
		}
		w.remove("AuthPolicy", "p") // whoever takes it away says that nobody is told any more
		if w.passed(w.ask("/open", "X-User: root")).Header.Get("X-User") != "root" {
			w.Error("a field is taken away that no policy speaks of")
		}
	})
}

const keysAuth = "{name: keys, apiKey: {secretRefs: [{name: keys}]}}"

// TestHoleBrokenPolicy: a policy of a live route that breaks closes it, whatever breaks it; mended, it opens to those who may.
func TestHoleBrokenPolicy(t *testing.T) {
	overEach(t, func(w *stage) {
		const key = "X-API-Key: " + keyOfShop
		good := authn(keysAuth)
		w.apply(secretOf("keys", "app", keyOfShop) + good)
		closed := func(what string) {
			w.Helper()
			for _, fields := range [][]string{nil, {key}} {
				if a := w.ask("/", fields...); a.status != 503 || a.reason != "policy_invalid" || a.seen != nil {
					w.Errorf("%s: got %d %s, want 503 policy_invalid", what, a.status, a.reason)
				}
			}
			w.passed(w.ask("/open"))
		}
		for what, x := range map[string]struct{ yaml, fault string }{
			"an unknown field":       {authn("{name: keys, apiKey: {secretsRefs: [{name: keys}]}}"), "unknown field"},
			"a wrong value":          {pol("AuthPolicy", "p", toAPI, "{authentication: {require: Some, methods: ["+keysAuth+"]}}"), "Some"},
			"two methods in one":     {authn("{name: keys, apiKey: {}, anonymous: {}}"), "exactly one"},
			"no method":              {authn(""), "methods"},
			"no such Secret":         {authn("{name: keys, apiKey: {secretRefs: [{name: kyes}]}}"), "there is no Secret d/kyes"},
			"an expression":          {pol("AuthPolicy", "p", toAPI, "{authentication: {methods: ["+keysAuth+"]}, authorization: {rules: {a: {require: {cel: 'request.pth'}}}}}"), "request.pth"},
			"defaults and overrides": {strings.Replace(good, "  defaults:", "  overrides: {authentication: {methods: [{name: a, anonymous: {}}]}}\n  defaults:", 1), "exactly one"},
			"a limit":                {limits("a: {rates: [{limit: 0, period: 1h}]}"), "limit"},
			"a limit's expression":   {limits("a: {key: ['identity.nobody'], rates: [{limit: 1, period: 1h}]}"), "identity.nobody"},
			"a limit that is none":   {limits("a: {}"), "at least one"},
		} {
			w.applyFaulty(x.yaml, x.fault)
			closed(what)
			if strings.Contains(what, "limit") {
				w.remove("RateLimitPolicy", "l")
			} else {
				w.apply(good)
			}
			w.passed(w.ask("/", key))
			w.refused(w.ask("/"), 401, "credentials_missing")
		}
		w.remove("Secret", "keys")
		closed("the Secret is deleted")
		w.apply(secretOf("keys", "app", keyOfShop))
		w.passed(w.ask("/", key))
	})
}

// TestHoleExtension: a policy that a rule names runs beside what is attached, both have to pass; deleted, the rule is closed.
func TestHoleExtension(t *testing.T) {
	overEach(t, func(w *stage) {
		const key = "X-API-Key: " + keyOfShop
		extension := routeTo("api", "/", ", filters: [{type: ExtensionRef, extensionRef: {group: gatehouse.dev, kind: AuthPolicy, name: named}}]")
		named := pol("AuthPolicy", "named", "", "{authentication: {methods: [{name: others, apiKey: {from: [{header: X-Other}], secretRefs: [{name: others}]}}]}}")
		w.apply(secretOf("keys", "app", keyOfShop) + secretOf("others", "app", "other-key") + authn(keysAuth) + named + extension)
		w.passed(w.ask("/", key, "X-Other: other-key"))
		w.refused(w.ask("/", key), 401, "credentials_missing")
		w.refused(w.ask("/", "X-Other: other-key"), 401, "credentials_missing")
		// One that lets everybody in takes nothing away from what is attached.
		w.apply(pol("AuthPolicy", "named", "", "{authentication: {methods: [{name: anybody, anonymous: {}}]}}"))
		w.refused(w.ask("/"), 401, "credentials_missing")
		w.passed(w.ask("/", key))
		w.remove("AuthPolicy", "p")
		w.apply(named)
		w.refused(w.ask("/"), 401, "credentials_missing")
		w.remove("AuthPolicy", "named")
		w.refused(w.ask("/"), 503, "policy_invalid")
		w.refused(w.ask("/", "X-Other: other-key"), 503, "policy_invalid")
		w.apply(named)
		w.passed(w.ask("/", "X-Other: other-key"))
		// Broken, it is as good as gone.
		w.applyFaulty(pol("AuthPolicy", "named", "", "{authorization: {rules: {a: {require: {cel: 'request.pth'}}}}}"), "request.pth")
		w.refused(w.ask("/", "X-Other: other-key"), 503, "policy_invalid")
		w.passed(w.ask("/open"))
	})
}

// TestHoleRequired: where a kind of policy is demanded, a route without one is closed, also one that arrives before its policy.
func TestHoleRequired(t *testing.T) {
	overEach(t, func(w *stage) {
		const key = "X-API-Key: " + keyOfShop
		toLate := strings.Replace(toAPI, "name: api", "name: late", 1)
		w.apply("apiVersion: gatehouse.dev/v1alpha1\nkind: GatewayParameters\nmetadata: {name: params, namespace: d}\nspec: {requirePolicies: [AuthPolicy]}\n---\n" +
			secretOf("keys", "app", keyOfShop) + authn(keysAuth))
		w.passed(w.ask("/", key))
		w.refused(w.ask("/open", key), 503, "policy_missing")
		w.apply(routeTo("late", "/late", ""))
		w.refused(w.ask("/late", key), 503, "policy_missing")
		w.apply(pol("AuthPolicy", "late", toLate, "{authentication: {methods: ["+keysAuth+"]}}"))
		w.passed(w.ask("/late", key))
		w.refused(w.ask("/late"), 401, "credentials_missing")
		// One that only looks on, or is off, is none.
		for _, mode := range []string{"Shadow", "Disabled"} {
			w.apply(pol("AuthPolicy", "late", toLate, "{authentication: {mode: "+mode+", methods: ["+keysAuth+"]}}"))
			w.refused(w.ask("/late", key), 503, "policy_missing")
		}
		w.apply(pol("AuthPolicy", "late", toLate, "{authorization: {rules: {a: {mode: Disabled, require: {cel: 'false'}}}}}"))
		w.refused(w.ask("/late", key), 503, "policy_missing")
		w.remove("AuthPolicy", "p")
		w.refused(w.ask("/", key), 503, "policy_missing")
		w.refused(w.ask("/", key), 503, "policy_missing")
		// Nobody attaches to what is not there.
		w.applyFaulty(pol("AuthPolicy", "lost", strings.Replace(toAPI, "name: api", "name: nowhere", 1), "{authentication: {methods: ["+keysAuth+"]}}"), "nowhere")
		w.refused(w.ask("/", key), 503, "policy_missing")
	})
}

// TestHolePathSpelling: another spelling of a path does not lead around a rule that reads it.
func TestHolePathSpelling(t *testing.T) {
	overEach(t, func(w *stage) {
		w.apply(pol("AuthPolicy", "p", toAPI, `{authorization: {rules: {admin: {deny: {cel: "request.path == '/admin' || request.path.startsWith('/admin/')"}}}}}`))
		w.refused(w.ask("/admin"), 403, "access_denied")
		w.passed(w.ask("/public"))
		for _, path := range []string{"/admin/", "/admin/x", "/%61dmin", "/adm%69n/x", "/./admin", "/x/../admin", "/x/%2e%2e/admin", "/x/%2E./admin/y", "//admin",
			"/x//../admin", "//x/../admin", "/admin//x", "/admin/..%2fadmin/x", "/%2fadmin", "/x%2f..%2fadmin", "/x%5c..%5cadmin", "/x\\..\\admin", "/%252e%252e/admin",
			"/x/%252e%252e/admin", "/admin%00", "/admin%2f", "/admin%2fx", "/admin;x", "/admin/;x", "/;/admin", "/admin?x", "/admin%3fx", "http://shop.example/admin",
			"http://shop.example/x/../admin", "/ADMIN", "/Admin/x", "/admin%20", "/admin.", "/open/../admin", "/open/%2e%2e/admin", "/open%2f..%2fadmin", "/open//../admin"} {
			a := w.ask(path)
			if a.seen == nil {
				continue // refused: by the rule, or as a path that two could read differently
			}
			// What passes is another path in the eyes of the backend too.
			got, _, _ := strings.Cut(a.seen.URI, "?")
			if lower := strings.ToLower(got); got == "/admin" || strings.HasPrefix(got, "/admin/") || strings.Contains(got, "/..") || strings.Contains(lower, "%2e") ||
				strings.Contains(lower, "%2f") || strings.Contains(lower, "%5c") || strings.Contains(got, "\\") || strings.Contains(got, "//") || strings.Contains(lower, "%61") {
				w.Errorf("%s passed: the backend sees %s", path, a.seen.URI)
			} else {
				w.Logf("%s is another path: the backend sees %s", path, a.seen.URI)
			}
		}
	})
}
