// Package oidc logs people in with a browser (OpenID Connect Core, authorization code with PKCE, RFC 9700). Sessions and login attempts are
// encrypted cookies: nothing is stored here, so every replica knows every session. A session is never accepted that was not sealed for the
// same issuer, client, scopes, host and cookie; nobody is ever sent elsewhere than to the provider or to a path of the host that was asked;
// nothing that the provider or the query says is shown to people, and no token is told in an error or a log. What cannot be judged is 503.
//
// Bounds: a session has 5 cookies of 3800 bytes, a login attempt one of 3800 that is good for 10 minutes and of which a browser is left 4;
// a callback's query 8 KiB, its code 4 KiB; an answer of the provider 64 KiB. 8,192 opened sessions and
// 16 MiB of their text are remembered, and 16,384 renewals and 16 MiB of theirs, each for a minute. About one session one question is asked at a time, and a provider that fails is not asked to renew
// sessions for 5 seconds.
package oidc

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/token"
)

// Defaults and bounds.
const (
	defaultRedirect = "/oauth2/callback"
	defaultLogout   = "/logout"
	defaultCookie   = "gh_session"
	defaultLifetime = 8 * time.Hour
	minLifetime     = time.Minute
	maxLifetime     = 30 * 24 * time.Hour
	maxPath         = 1024
	leeway          = 60 * time.Second // by which the provider's clock may differ from ours
)

// Reason words.
const (
	loginRequired  = "login_required"
	loginFailed    = "login_failed"
	loggedOut      = "logged_out"
	confirmLogout  = "logout_confirm"
	invalidSession = "session_invalid"
	expiredSession = "session_expired"
	largeSession   = "session_too_large"
	repeated       = "credential_repeated"
	badMethod      = "method_not_allowed"
	noKeys         = "session_keys_unavailable"
	noProvider     = "provider_unavailable"
)

const secretPath = "clientSecretRef"

// Refs lists the Secret that a method names.
func Refs(s *v1alpha1.OIDCAuth) []policy.Ref {
	return []policy.Ref{{Path: secretPath, Kind: "Secret", Name: s.ClientSecretRef.Name}}
}

// login is a compiled method.
type login struct {
	name     string
	material method.Material
	issuer   string
	client   string
	scopes   string // as they are asked for
	redirect string // path
	logout   string // path
	lifetime time.Duration
	names    names
	claims   *method.Claims
	wanted   map[string]bool // top members of the claims that the spec names
	forward  bool            // the access token goes to the backend
	bound    string          // what every cookie is sealed for, beside its name and host
	rules    [sha256.Size]byte
	tokens   token.Issuer // id tokens
	provider *provider
	store    *store
	ring     atomic.Pointer[ring]
}

// Compile checks the method.
func Compile(name string, s *v1alpha1.OIDCAuth, env policy.Env) (method.Handler, error) {
	m, err := compile(name, s, env)
	if err != nil {
		return method.Handler{}, err
	}
	return method.Handler{Authenticate: m.authenticate, Admit: m.names.strip, Fields: m.claims.Fields()}, nil
}

func compile(name string, s *v1alpha1.OIDCAuth, env policy.Env) (*login, error) {
	m := &login{name: name, material: method.NewMaterial(env, secretPath), issuer: s.Issuer, client: s.ClientID, forward: s.ForwardAccessToken, lifetime: defaultLifetime}
	var faults []error
	fault := func(path, hint, format string, args ...any) {
		faults = append(faults, &diag.Problem{Path: path, Msg: fmt.Sprintf(format, args...), Hint: hint})
	}
	if err := token.CheckURL(s.Issuer); err != nil || strings.Contains(s.Issuer, "?") {
		fault("issuer", "write https://idp.example", "%q is not the URL of a provider", s.Issuer)
	}
	if s.ClientID == "" || !exchange.IsFieldValue([]byte(s.ClientID)) {
		fault("clientID", "write what the provider calls this client", "%q is not a client id", s.ClientID)
	}
	if s.ClientSecretRef.Name == "" {
		fault(secretPath+".name", "name a Secret with the key client_secret", "is empty")
	}
	faults = append(faults, m.readScopes(s.Scopes)...)
	faults = append(faults, m.readPaths(s)...)
	cookie := s.CookieName
	if cookie == "" {
		cookie = defaultCookie
	}
	if !exchange.IsToken([]byte(cookie)) || strings.HasPrefix(cookie, "__") || len(cookie) > 64 {
		fault("cookieName", "write gh_session; __Host- is put before it by itself", "%q cannot be the name of the cookie", cookie)
	}
	m.names = newNames(cookie)
	if d, err := lifetime(s.SessionLifetime); err != nil {
		faults = append(faults, err)
	} else {
		m.lifetime = d
	}
	var err error
	if m.claims, err = method.NewClaims(s.Claims, s.ClaimsToHeaders); err != nil {
		faults = append(faults, err)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return m, m.open(s, env)
}

// readScopes sorts the scopes, so that their order does not end sessions. openid is always asked for: without it there is no id token.
func (m *login) readScopes(given []string) []error {
	var faults []error
	all := []string{"openid"}
	for i, sc := range given {
		if !isScope(sc) {
			faults = append(faults, &diag.Problem{Path: fmt.Sprintf("scopes[%d]", i), Msg: fmt.Sprintf("%q is not a scope", sc), Hint: "write one scope an entry"})
		}
		if !slices.Contains(all, sc) {
			all = append(all, sc)
		}
	}
	slices.Sort(all[1:])
	m.scopes = strings.Join(all, " ")
	return faults
}

// isScope is RFC 6749 section 3.3.
func isScope(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return s != ""
}

func (m *login) readPaths(s *v1alpha1.OIDCAuth) []error {
	var faults []error
	for _, p := range []struct {
		field, given, otherwise string
		to                      *string
	}{{"redirectPath", s.RedirectPath, defaultRedirect, &m.redirect}, {"logoutPath", s.LogoutPath, defaultLogout, &m.logout}} {
		*p.to = p.given
		if p.given == "" {
			*p.to = p.otherwise
		}
		c, _, ok := exchange.CanonicalPath(nil, []byte(*p.to))
		if !ok || (*p.to)[0] != '/' || string(c.Canonical) != *p.to || *p.to == "/" || c.Flags != 0 || len(*p.to) > maxPath {
			faults = append(faults, &diag.Problem{Path: p.field, Msg: fmt.Sprintf("%q is not a path of its own in its plain spelling", *p.to), Hint: "write " + p.otherwise})
		}
	}
	if m.redirect == m.logout {
		faults = append(faults, &diag.Problem{Path: "logoutPath", Msg: "is the same as redirectPath", Hint: "write " + defaultLogout})
	}
	return faults
}

func lifetime(given *gatewayv1.Duration) (time.Duration, error) {
	if given == nil {
		return defaultLifetime, nil
	}
	d, err := policy.ParseDuration(string(*given))
	switch {
	case err != nil:
		return 0, &diag.Problem{Path: "sessionLifetime", Msg: err.Error(), Hint: policy.DurationHint}
	case d < minLifetime || d > maxLifetime:
		return 0, &diag.Problem{Path: "sessionLifetime", Msg: fmt.Sprintf("%s is out of bounds", *given), Hint: "write something between 1m and 720h"}
	}
	return d, nil
}

// open opens what runs, once nothing is wrong with the spec.
func (m *login) open(s *v1alpha1.OIDCAuth, env policy.Env) error {
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encoding the spec: %w", err)
	}
	m.rules = token.HashOf([]byte(m.name), []byte(m.material.Handle), text)
	m.bound = m.issuer + "\x00" + m.client + "\x00" + m.scopes
	m.wanted = map[string]bool{}
	want := func(path string) {
		m.wanted[path] = true // a claim whose name has the dots in it
		top, _, _ := strings.Cut(path, ".")
		m.wanted[top] = true
	}
	if s.Claims != nil {
		want(s.Claims.Subject)
		want(s.Claims.Application)
		want(s.Claims.Scopes)
	}
	for _, c := range s.ClaimsToHeaders {
		want(c.Claim)
	}
	// typ is JWT or absent: an access token (at+jwt, RFC 9068) is no id token.
	m.provider = openProvider(env, m.issuer, m.rules)
	m.tokens = token.Issuer{Set: m.provider.set, Rules: token.Rules{Issuer: m.issuer, Audiences: []string{m.client},
		Algorithms: token.Asymmetric, Types: []string{"JWT", ""}, Leeway: leeway}}
	m.store = policy.Open(env, "oidc sessions", func() (*store, func(policy.Work)) { return newStore(), nil })
	return nil
}

// authenticate answers on the paths of the method, and looks for a session elsewhere.
func (m *login) authenticate(x *exchange.Exchange) method.Outcome {
	switch path := x.Request.Path; {
	case string(path) == m.redirect:
		return m.callback(x)
	case string(path) == m.logout:
		return m.end(x)
	}
	text, state := m.names.find(x)
	switch state {
	case cookieAbsent:
		return m.without(x, method.Outcome{})
	case cookieRepeated: // a login would not help: the browser would send both again
		return method.Refuse(repeated, "the session's cookie stands twice")
	case cookieMalformed:
		return m.without(x, method.Refuse(invalidSession, "the session's cookies do not fit together"))
	}
	r, why := m.keys()
	if r == nil {
		return unavailable(noKeys, why)
	}
	key := m.key(x, text)
	k := m.store.find(&key, r)
	if k == nil {
		var ok bool
		if k, ok = m.unseal(x, r, text); !ok {
			return m.without(x, method.Refuse(invalidSession, "not sealed by this method for this host"))
		}
		if !x.Dry {
			m.store.add(&key, k)
		}
	}
	return m.judge(x, key, k)
}

// judge decides about an opened session.
func (m *login) judge(x *exchange.Exchange, key [sha256.Size]byte, k *known) method.Outcome {
	now := x.Start.Unix()
	if now >= k.started+int64(m.lifetime/time.Second) {
		return m.without(x, method.Refuse(expiredSession, "its lifetime is over"))
	}
	if now < k.renewAt || k.refresh == "" && now < k.expires {
		return m.accept(k)
	}
	if k.refresh == "" {
		return m.without(x, method.Refuse(expiredSession, "its tokens have expired, and there is no refresh token"))
	}
	return m.renew(x, key, k)
}

// accept lets the session's owner in.
func (m *login) accept(k *known) method.Outcome {
	return method.Outcome{State: method.Accepted, Identity: k.identity, Header: k.header}
}

// without is the outcome for a request that has no good session: browsers that go somewhere are sent to the provider, others get what o says.
func (m *login) without(x *exchange.Exchange, o method.Outcome) method.Outcome {
	if !navigates(x) {
		return o
	}
	return m.begin(x)
}

// navigates reports whether a person opens a page, and so can log in. A request with Authorization brings another credential.
func navigates(x *exchange.Exchange) bool {
	h := &x.Request.Header
	if m := string(x.Request.Method); m != "GET" && m != "HEAD" || x.Request.Upgrade != nil || h.Has("Authorization") {
		return false
	}
	if exchange.EqualFold(h.Get("X-Requested-With"), "XMLHttpRequest") {
		return false
	}
	if mode := h.Get("Sec-Fetch-Mode"); mode != nil && string(mode) != "navigate" {
		return false
	} else if mode == nil && (h.Has("Sec-Fetch-Site") || h.Has("Sec-Fetch-Dest")) {
		return false
	}
	for _, f := range h.All() {
		if exchange.EqualFold(f.Name, "accept") && acceptsHTML(f.Value) {
			return true
		}
	}
	return false
}

func acceptsHTML(accept []byte) bool {
	const html = "text/html"
	for i := 0; i+len(html) <= len(accept); i++ {
		if exchange.EqualFold(accept[i:i+len(html)], html) {
			return true
		}
	}
	return false
}

func unavailable(reason, detail string) method.Outcome {
	return method.Outcome{State: method.Unavailable, Reason: reason, Detail: detail}
}

var (
	fieldLocation     = []byte("Location")
	fieldSetCookie    = []byte("Set-Cookie")
	fieldCacheControl = []byte("Cache-Control")
	fieldContentType  = []byte("Content-Type")
	valueNoStore      = []byte("no-store")
)

// answer is what the method itself answers, with cookies. An answer of 400 and more gets its page, and its Cache-Control, from the edge.
func answer(status int, reason, location string, cookies ...[]byte) method.Outcome {
	v := policy.Verdict{Status: status, Reason: reason}
	if location != "" {
		v.Header = append(v.Header, exchange.Field{Name: fieldLocation, Value: []byte(location)})
	}
	for _, c := range cookies {
		v.Header = append(v.Header, exchange.Field{Name: fieldSetCookie, Value: c})
	}
	if status < 400 {
		v.Header = append(v.Header, exchange.Field{Name: fieldCacheControl, Value: valueNoStore})
	}
	return method.Outcome{State: method.Answered, Answer: v}
}

// fail is an answer that the login did not succeed. It is 403 and not 401: there is no credential to ask a browser for.
func fail(status int, reason, detail string, cookies ...[]byte) method.Outcome {
	o := answer(status, reason, "", cookies...)
	o.Answer.Detail = detail
	return o
}

// hostless refuses a request that names no host: there is nowhere to come back to (RFC 9110 section 4.2.2).
func hostless(x *exchange.Exchange) (method.Outcome, bool) {
	if len(x.Request.Host) > 0 || len(x.PublicHost) > 0 {
		return method.Outcome{}, false
	}
	return fail(400, "missing_host", "a login leads back to a host, and the request has no Host"), true
}

// origin is scheme://host[:port] as the client addressed it, or as a trusted proxy says that it did, without a port that goes without
// saying.
func origin(x *exchange.Exchange) string {
	a, _, ok := exchange.ParseAuthority(nil, x.Request.Authority)
	host := string(x.Request.Host)
	if x.PublicHost != nil && string(x.PublicHost) != host {
		host, a.Port = string(x.PublicHost), nil
		if x.PublicPort != 0 {
			a.Port = strconv.AppendUint(nil, uint64(x.PublicPort), 10)
		}
	}
	if strings.Contains(host, ":") && host[0] != '[' {
		host = "[" + host + "]"
	}
	port := ""
	if ok && len(a.Port) > 0 && string(a.Port) != map[string]string{"http": "80", "https": "443"}[x.Scheme] {
		port = ":" + string(a.Port)
	}
	return x.Scheme + "://" + host + port
}
