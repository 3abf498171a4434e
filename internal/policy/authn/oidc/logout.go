package oidc

import (
	"net/url"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
)

// maxHint is the longest id token that goes into a URL, in bytes: servers refuse long ones.
const maxHint = 4 << 10

// confirmPage asks a person who comes from another site. It has no script, and nothing of the request in it.
const confirmPage = `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Log out</title></head>` +
	`<body><form method="post"><p>Do you want to log out?</p><button>Log out</button></form></body></html>` + "\n"

// end ends the session here and, for a browser that opens a page, at the provider (OpenID Connect RP-Initiated Logout section 2). Whoever
// comes from another site has to confirm it: a link or an image elsewhere logs nobody out. A script gets 204, because it could not follow
// to the provider, whose session then goes on.
func (m *login) end(x *exchange.Exchange) method.Outcome {
	post := string(x.Request.Method) == "POST"
	if !post && string(x.Request.Method) != "GET" {
		o := fail(405, badMethod, "the logout path takes GET and POST alone")
		o.Answer.Header = append(o.Answer.Header, exchange.Field{Name: []byte("Allow"), Value: []byte("GET, POST")})
		return o
	}
	if o, is := hostless(x); is {
		return o
	}
	if !fromHere(x) {
		return page(confirmLogout, confirmPage)
	}
	jar := m.names.jar(x)
	cookies := append(jar.clear(), m.dropLogins(x)...)
	if isScript(x) {
		return answer(204, loggedOut, "", cookies...)
	}
	status := 302
	if post {
		status = 303
	}
	to := origin(x) + "/"
	if d, _ := m.provider.known(); d != nil && d.end != "" {
		v := url.Values{"client_id": {m.client}, "post_logout_redirect_uri": {to}}
		if hint := m.hint(x); hint != "" {
			v.Set("id_token_hint", hint)
		}
		to = withQuery(d.end, v)
	}
	return answer(status, loggedOut, to, cookies...)
}

// fromHere reports whether a request was made by a page of this origin or by the person. A browser that says neither Sec-Fetch-Site nor
// Origin is old, or speaks plain http: it is believed.
func fromHere(x *exchange.Exchange) bool {
	h := &x.Request.Header
	if o := h.Get("Origin"); o != nil && string(o) != origin(x) {
		return false
	}
	switch site := h.Get("Sec-Fetch-Site"); {
	case site == nil, string(site) == "same-origin", string(site) == "none":
		return true
	}
	return false
}

func isScript(x *exchange.Exchange) bool {
	mode := x.Request.Header.Get("Sec-Fetch-Mode")
	return mode != nil && string(mode) != "navigate" || exchange.EqualFold(x.Request.Header.Get("X-Requested-With"), "XMLHttpRequest")
}

// hint is the id token of the request's session, "" if there is none that fits into a URL.
func (m *login) hint(x *exchange.Exchange) string {
	text, state := m.names.find(x)
	r, _ := m.keys()
	if state != cookieFound || r == nil {
		return ""
	}
	k, ok := m.unseal(x, r, text)
	if !ok || len(k.id) > maxHint {
		return ""
	}
	return k.id
}
