package oidc

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/token"
)

// How often the discovery document is read, and what answers may cost.
const (
	maxDocument = 256 << 10
	maxAnswer   = 64 << 10
	maxCode     = 4 << 10
	documentAge = time.Hour
	firstPause  = time.Second
	longPause   = time.Minute
	restTime    = 5 // seconds in which a provider that failed is not asked to renew sessions
)

// provider is the running value of an issuer: what its discovery document says (OpenID Connect Discovery section 3, RFC 8414 section 2).
type provider struct {
	issuer   string
	call     policy.Caller
	document atomic.Pointer[document]
	why      atomic.Pointer[string] // the last try failed
	rest     atomic.Int64           // seconds since 1970: until then nothing is renewed
	tried    chan struct{}          // closed once the document was asked for
	once     sync.Once
	running  atomic.Bool
}

// document is what is used of a discovery document.
type document struct {
	authorize, token, end string // endpoints; end is "" if sessions cannot be ended there
	post                  bool   // the client's secret goes into the form, because the provider offers nothing better
	tellsIssuer           bool   // callbacks have the parameter iss (RFC 9207 section 3)
}

func openProvider(env policy.Env, issuer string) *provider {
	return policy.Open(env, "oidc provider "+issuer, func() (*provider, func(policy.Work)) {
		p := &provider{issuer: issuer, call: env.Call, tried: make(chan struct{})}
		if p.call == nil {
			return p, nil
		}
		p.running.Store(true)
		return p, p.run
	})
}

// run reads the document now and then; one that was read stays when a later try fails.
func (p *provider) run(w policy.Work) {
	defer p.asked()
	pause := firstPause
	for {
		d, err := p.discover(w)
		if err == nil {
			p.document.Store(d)
			p.why.Store(nil)
			pause = firstPause
		} else {
			text := err.Error()
			p.why.Store(&text)
		}
		p.asked()
		wait := documentAge
		if err != nil {
			wait = pause
			pause = min(2*pause, longPause)
		}
		if !w.Sleep(wait, nil) {
			return
		}
	}
}

func (p *provider) asked() { p.once.Do(func() { close(p.tried) }) }

// known is the document, nil and why if there is none.
func (p *provider) known() (*document, string) {
	if d := p.document.Load(); d != nil {
		return d, ""
	}
	if why := p.why.Load(); why != nil {
		return nil, *why
	}
	return nil, "the discovery document has not been read yet"
}

// waits reports whether the first try is on its way, so that waiting for it has an end.
func (p *provider) waits() bool {
	select {
	case <-p.tried:
		return false
	default:
		return p.running.Load()
	}
}

func (p *provider) discover(ctx context.Context) (*document, error) {
	from := strings.TrimSuffix(p.issuer, "/") + "/.well-known/openid-configuration"
	reply, err := p.call.Call(ctx, &policy.Call{Method: http.MethodGet, URL: from, Max: maxDocument, Header: http.Header{"Accept": {"application/json"}}})
	switch {
	case err != nil:
		return nil, fmt.Errorf("GET %s: %w", from, err)
	case reply.Status != http.StatusOK:
		return nil, fmt.Errorf("GET %s: status %d, not 200", from, reply.Status)
	}
	d, err := readDocument(reply.Body, p.issuer)
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", from, err)
	}
	return d, nil
}

// readDocument checks that the document is about the issuer, and that nothing leads from https to http.
func readDocument(body []byte, issuer string) (*document, error) {
	var m struct {
		Issuer    string   `json:"issuer"`
		Authorize string   `json:"authorization_endpoint"`
		Token     string   `json:"token_endpoint"`
		End       string   `json:"end_session_endpoint"`
		Methods   []string `json:"token_endpoint_auth_methods_supported"`
		TellsIss  bool     `json:"authorization_response_iss_parameter_supported"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, errors.New("the document is not the JSON of a provider")
	}
	if m.Issuer != issuer {
		return nil, fmt.Errorf("the document is of the issuer %.64q, not of %q: issuer has to be spelt as the provider spells it", m.Issuer, issuer)
	}
	for name, at := range map[string]string{"authorization_endpoint": m.Authorize, "token_endpoint": m.Token} {
		if err := endpoint(at, issuer); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if m.End != "" && endpoint(m.End, issuer) != nil {
		m.End = ""
	}
	d := &document{authorize: m.Authorize, token: m.Token, end: m.End, tellsIssuer: m.TellsIss}
	if len(m.Methods) > 0 && !slices.Contains(m.Methods, "client_secret_basic") {
		if d.post = slices.Contains(m.Methods, "client_secret_post"); !d.post {
			return nil, errors.New("the provider takes neither client_secret_basic nor client_secret_post")
		}
	}
	return d, nil
}

func endpoint(at, issuer string) error {
	if err := token.CheckURL(at); err != nil {
		return err
	}
	if secure(issuer) && !secure(at) {
		return errors.New("leads from https to http")
	}
	return nil
}

func secure(url string) bool { return strings.HasPrefix(strings.ToLower(url), "https:") }

// tokens is a good answer of the token endpoint (RFC 6749 section 5.1, OpenID Connect Core section 3.1.3.3).
type tokens struct {
	Access  string      `json:"access_token"`
	Type    string      `json:"token_type"`
	Refresh string      `json:"refresh_token"`
	ID      string      `json:"id_token"`
	Expires json.Number `json:"expires_in"`
}

// errNo is an answer that the grant is not good: a word of RFC 6749 section 5.2.
type errNo struct{ word string }

func (e errNo) Error() string { return "the token endpoint answered " + e.word }

// grants are the words that are about the code or the refresh token, and not about us.
func aboutGrant(word string) bool {
	switch word {
	case "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope", "invalid_request":
		return true
	}
	return false
}

// exchange asks the token endpoint. An errNo says that the grant is not good; any other error, that nothing is known.
func (p *provider) exchange(ctx context.Context, d *document, client, secret string, form url.Values) (*tokens, error) {
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Accept": {"application/json"}}
	if d.post {
		form.Set("client_id", client)
		form.Set("client_secret", secret)
	} else { // RFC 6749 section 2.3.1: both parts are form-encoded first
		pair := url.QueryEscape(client) + ":" + url.QueryEscape(secret)
		header["Authorization"] = []string{"Basic " + base64.StdEncoding.EncodeToString([]byte(pair))}
	}
	if p.call == nil {
		return nil, errors.New("nothing may be asked here")
	}
	reply, err := p.call.Call(ctx, &policy.Call{Method: http.MethodPost, URL: d.token, Header: header, Body: []byte(form.Encode()), Max: maxAnswer})
	if err != nil {
		return nil, fmt.Errorf("asking the token endpoint: %w", err)
	}
	if reply.Status != http.StatusOK {
		var no struct {
			Error string `json:"error"`
		}
		if reply.Status >= 400 && reply.Status < 500 && json.Unmarshal(reply.Body, &no) == nil {
			if aboutGrant(no.Error) {
				return nil, errNo{no.Error}
			}
			if no.Error == "invalid_client" {
				return nil, errors.New("the token endpoint does not know the client: check clientID and client_secret")
			}
		}
		return nil, fmt.Errorf("the token endpoint answered %d", reply.Status)
	}
	var t tokens
	if err := json.Unmarshal(reply.Body, &t); err != nil {
		return nil, errors.New("the token endpoint's answer cannot be read")
	}
	if !plain(t.Access) || !plain(t.Refresh) || !plain(t.ID) {
		return nil, errors.New("a token in the token endpoint's answer has bytes that no token has")
	}
	return &t, nil
}

// plain reports whether a token has nothing but visible ASCII in it (RFC 6749 appendix A.12), so that it can stand in a field.
func plain(token string) bool {
	for _, c := range []byte(token) {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}
