package oidc

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strconv"
	"strings"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/token"
)

const (
	attemptTime = 600 // seconds that a person has for logging in
	maxOriginal = 2000
	maxDropped  = 32 // cookies that one answer takes away
	randomSize  = 32
	randomText  = 43 // letters of it
)

// attempt is what a login attempt's cookie holds. Each tab has its own.
type attempt struct {
	At       int64  `json:"t"` // seconds since 1970
	State    string `json:"s"`
	Nonce    string `json:"n"`
	Verifier string `json:"v"` // of PKCE (RFC 7636)
	Original string `json:"o"` // path and query that were asked for, never a host
}

func random() string {
	var b [randomSize]byte
	_, _ = rand.Read(b[:]) // crypto/rand ends the program rather than fail
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// begin sends a browser to the provider (OpenID Connect Core section 3.1.2.1).
func (m *login) begin(x *exchange.Exchange) method.Outcome {
	if o, is := hostless(x); is {
		return o
	}
	r, why := m.keys()
	if r == nil {
		return unavailable(noKeys, why)
	}
	d, why := m.provider.known()
	switch {
	case x.Dry: // where to is for who asks in earnest
		return answer(302, loginRequired, m.issuer)
	case d == nil:
		return m.patient(x, why, m.begin)
	}
	a := attempt{At: x.Start.Unix(), State: random(), Nonce: random(), Verifier: random(), Original: originalOf(x)}
	text, err := json.Marshal(&a)
	if err != nil {
		return unavailable(noKeys, "the attempt cannot be written")
	}
	name := m.names.of(x).login + a.State[:idSize]
	sealed := r.seal(forLogin, m.place(name, x.Request.Host), text)
	if len(sealed) > maxChunk { // escapes of JSON made the path long
		a.Original = "/"
		if text, err = json.Marshal(&a); err != nil {
			return unavailable(noKeys, "the attempt cannot be written")
		}
		sealed = r.seal(forLogin, m.place(name, x.Request.Host), text)
	}
	challenge := sha256.Sum256([]byte(a.Verifier))
	to := withQuery(d.authorize, url.Values{
		"response_type": {"code"}, "client_id": {m.client}, "redirect_uri": {origin(x) + m.redirect}, "scope": {m.scopes}, "state": {a.State},
		"nonce": {a.Nonce}, "code_challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])}, "code_challenge_method": {"S256"},
	})
	cookies := [][]byte{set(x, name, sealed, attemptTime)}
	_, logins := m.names.here(x) // browsers send the oldest first
	for i := 0; i < len(logins)-(maxLogins-1) && i < maxDropped; i++ {
		cookies = append(cookies, set(x, logins[i], nil, 0))
	}
	return answer(302, loginRequired, to, cookies...)
}

// patient waits a moment for the provider's document if it can be fetched now, and then goes on; else nothing can be said.
func (m *login) patient(x *exchange.Exchange, why string, then func(*exchange.Exchange) method.Outcome) method.Outcome {
	if x.Dry {
		return method.Outcome{State: method.Waiting, Asks: m.issuer}
	}
	var gate <-chan struct{}
	if m.provider.set.Document() == nil {
		gate = m.provider.set.Refresh(x.Start)
	}
	if gate == nil {
		return unavailable(noProvider, why)
	}
	return method.Outcome{State: method.Waiting, Asks: m.issuer, Wait: func(ctx context.Context) func(*exchange.Exchange) method.Outcome {
		token.Wait(ctx, gate)
		return then
	}}
}

// originalOf is the path and query that a request is about, to come back to. It is only ever put behind this host's own origin.
func originalOf(x *exchange.Exchange) string {
	path := x.Request.RawPath
	if len(path) == 0 {
		path = x.Request.Path
	}
	to := string(path)
	if len(to) > maxOriginal || !isPath(to) {
		return "/"
	}
	if x.Request.HasQuery && len(to)+1+len(x.Request.Query) <= maxOriginal {
		if q := to + "?" + string(x.Request.Query); isPath(q) {
			return q
		}
	}
	return to
}

// isPath reports whether s can stand behind an origin: it begins with a slash and is visible ASCII without a fragment.
func isPath(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || c == '#' {
			return false
		}
	}
	return strings.HasPrefix(s, "/")
}

// withQuery adds parameters to an endpoint, which may have some already (RFC 6749 section 3.1).
func withQuery(endpoint string, v url.Values) string {
	glue := "?"
	if strings.Contains(endpoint, "?") {
		glue = "&"
	}
	return endpoint + glue + v.Encode()
}

// dropLogins takes away the cookies of all attempts.
func (m *login) dropLogins(x *exchange.Exchange) (cookies [][]byte) {
	_, logins := m.names.here(x)
	for i := 0; i < len(logins) && i < maxDropped; i++ {
		cookies = append(cookies, set(x, logins[i], nil, 0))
	}
	return cookies
}

func (t *tokens) lifetime() int64 {
	n, err := strconv.ParseFloat(string(t.Expires), 64)
	if err != nil || n < 1 || n > 1e9 {
		return 0
	}
	return int64(n)
}
