package oidc

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
)

const maxQuery = 8 << 10

// reply is what the provider has the browser bring (RFC 6749 section 4.1.2, RFC 9207 section 2).
type reply struct {
	state, code, iss, fault string
	hasIss, hasFault        bool
}

// readReply reads the query of a callback. A parameter that stands twice could be read differently elsewhere: it is refused.
func readReply(query []byte) (r reply, why string) {
	if len(query) > maxQuery {
		return r, "the query is longer than 8 KiB"
	}
	seen := map[string]bool{}
	for len(query) > 0 {
		var pair []byte
		pair, query, _ = bytes.Cut(query, ampersand)
		k, v, _ := bytes.Cut(pair, equals)
		name, err := url.QueryUnescape(string(k))
		if err != nil {
			return r, "the query cannot be read"
		}
		to := map[string]*string{"state": &r.state, "code": &r.code, "iss": &r.iss, "error": &r.fault}[name]
		if to == nil {
			continue
		}
		if seen[name] {
			return r, name + " stands twice"
		}
		seen[name] = true
		if *to, err = url.QueryUnescape(string(v)); err != nil {
			return r, name + " cannot be read"
		}
	}
	r.hasIss, r.hasFault = seen["iss"], seen["error"]
	return r, ""
}

var ampersand = []byte("&")

// callback takes what the provider sends people back with. Nothing is asked of the provider before the attempt is known to be this browser's.
func (m *login) callback(x *exchange.Exchange) method.Outcome {
	if string(x.Request.Method) != "GET" {
		o := fail(405, badMethod, "the redirect path takes GET alone")
		o.Answer.Header = append(o.Answer.Header, exchange.Field{Name: []byte("Allow"), Value: []byte("GET")})
		return o
	}
	q, why := readReply(x.Request.Query)
	if why != "" {
		return fail(403, loginFailed, why)
	}
	ring, why := m.keys()
	if ring == nil {
		return fail(503, noKeys, why)
	}
	a, name, why := m.attemptOf(x, ring, q.state)
	if a == nil {
		return fail(403, loginFailed, why)
	}
	over := set(x, name, nil, 0) // an attempt is good once
	switch {
	case q.hasIss && q.iss != m.issuer:
		return fail(403, loginFailed, "the answer is another issuer's (RFC 9207)", over)
	case q.hasFault:
		return fail(403, loginFailed, "the provider answered "+knownFault(q.fault), over)
	case q.code == "" || len(q.code) > maxCode:
		return fail(403, loginFailed, "the answer has no code, or one longer than 4 KiB", over)
	}
	d, why := m.provider.known()
	switch {
	case d == nil && !x.Dry:
		o := m.patient(x, why, m.callback)
		if o.State == method.Unavailable { // another method must not take the callback for a request
			o = fail(503, noProvider, o.Detail)
		}
		return o
	case x.Dry:
		return method.Outcome{State: method.Waiting, Asks: m.issuer}
	case d.tellsIssuer && !q.hasIss:
		return fail(403, loginFailed, "the answer has no iss, which the provider says it sends (RFC 9207)", over)
	}
	g := &grant{m: m, document: d, ring: ring, now: x.Start.Unix(), place: m.place(m.names.of(x).session, x.Request.Host)}
	form := url.Values{"grant_type": {"authorization_code"}, "code": {q.code}, "redirect_uri": {origin(x) + m.redirect}, "code_verifier": {a.Verifier}}
	jar, to := m.names.jar(x), origin(x)+a.Original
	start := x.Start
	return method.Outcome{State: method.Waiting, Asks: d.token, Wait: func(ctx context.Context) func(*exchange.Exchange) method.Outcome {
		s, err := g.fresh(ctx, form, a.Nonce, start)
		o := m.finish(g, s, err, &jar, to, over)
		return func(*exchange.Exchange) method.Outcome { return o }
	}}
}

// attemptOf opens the cookie of the attempt that a state is of.
func (m *login) attemptOf(x *exchange.Exchange, r *ring, state string) (a *attempt, name, why string) {
	if len(state) != randomText || !isID([]byte(state)) {
		return nil, "", "the answer has no state of ours"
	}
	name = m.names.of(x).login + state[:idSize]
	var sealed []byte
	for _, f := range x.Request.Header.All() {
		if !exchange.EqualFold(f.Name, "cookie") {
			continue
		}
		for rest := f.Value; len(rest) > 0; {
			var k, v []byte
			k, v, rest = nextCookie(rest)
			if string(k) != name {
				continue
			}
			if sealed != nil {
				return nil, "", "the attempt's cookie stands twice"
			}
			sealed = v
		}
	}
	if sealed == nil || len(sealed) > maxChunk {
		return nil, "", "this browser did not begin this login, or ended it already"
	}
	text, ok := r.unseal(forLogin, m.place(name, x.Request.Host), sealed)
	if !ok || json.Unmarshal(text, &a) != nil || a == nil {
		return nil, "", "the attempt's cookie is not sealed by this method for this host"
	}
	age := x.Start.Unix() - a.At
	switch {
	case subtle.ConstantTimeCompare([]byte(a.State), []byte(state)) != 1:
		return nil, "", "the state is another attempt's"
	case age > attemptTime || age < -int64(leeway.Seconds()):
		return nil, "", "the attempt is older than 10 minutes"
	case !isPath(a.Original):
		return nil, "", "the attempt leads nowhere"
	}
	return a, name, ""
}

// knownFault is the provider's error if it is one of the words for it (RFC 6749 section 4.1.2.1, OpenID Connect Core section 3.1.2.6). Any
// other text may be anybody's.
func knownFault(word string) string {
	if slices.Contains([]string{"access_denied", "invalid_request", "unauthorized_client", "unsupported_response_type", "invalid_scope", "server_error",
		"temporarily_unavailable", "interaction_required", "login_required", "account_selection_required", "consent_required",
		"invalid_request_uri", "invalid_request_object", "request_not_supported", "request_uri_not_supported", "registration_not_supported"}, word) {
		return word
	}
	return "an error that has no known word"
}

// finish answers a callback.
func (m *login) finish(g *grant, s *session, err error, jar *jar, to string, over []byte) method.Outcome {
	var no errNo
	var bad errBad
	switch {
	case errors.As(err, &no) || errors.As(err, &bad):
		return fail(403, loginFailed, err.Error(), over)
	case err != nil:
		o := fail(503, noProvider, err.Error(), over)
		o.Answer.Header = append(o.Answer.Header, exchange.Field{Name: []byte("Retry-After"), Value: []byte("1")})
		return o
	}
	sealed, _, ok := m.pack(s, g.ring, g.place)
	if !ok {
		return fail(403, largeSession, fmt.Sprintf("what the provider says does not fit into %d cookies of %d bytes: have it put less into tokens", maxChunks, maxChunk), over)
	}
	cookies, ok := jar.write(sealed, int64(m.lifetime.Seconds()))
	if !ok {
		return fail(403, largeSession, "the session does not fit into its cookies", over)
	}
	return answer(302, "logged_in", to, append(cookies, over)...)
}

// page is an answer of 200 with a page of ours.
func page(reason, html string) method.Outcome {
	return method.Outcome{State: method.Answered, Answer: policy.Verdict{Status: 200, Reason: reason, Body: []byte(html), Header: []exchange.Field{
		{Name: fieldContentType, Value: []byte("text/html; charset=utf-8")}, {Name: fieldCacheControl, Value: valueNoStore},
		{Name: []byte("Content-Security-Policy"), Value: []byte("default-src 'none'; frame-ancestors 'none'")},
		{Name: []byte("X-Frame-Options"), Value: []byte("DENY")},
	}}}
}
