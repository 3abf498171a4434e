package oidc

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/token"
)

// What answers may cost.
const (
	maxAnswer = 64 << 10
	maxCode   = 4 << 10
	restTime  = 5 // seconds in which a provider that failed is not asked to renew sessions
)

// provider is who is asked. Its discovery document comes with its keys.
type provider struct {
	issuer string
	set    *token.Set
	call   policy.Caller
	rest   *atomic.Int64 // seconds since 1970: until then nothing is renewed
}

// openProvider is the provider as a method sees it. Methods rest each by themselves: another's wrong secret is no failure of this one.
func openProvider(env policy.Env, issuer string, rules [sha256.Size]byte) *provider {
	return &provider{issuer: issuer, set: token.OpenIssuer(env, issuer), call: env.Call,
		rest: policy.Open(env, "oidc rest "+string(rules[:]), func() (*atomic.Int64, func(policy.Work)) { return new(atomic.Int64), nil })}
}

// document is what is used of a discovery document (OpenID Connect Discovery section 3, RFC 8414 section 2).
type document struct {
	authorize, token, end string // endpoints; end is "" if sessions cannot be ended there
	post                  bool   // the client's secret goes into the form, because the provider offers nothing better
	tellsIssuer           bool   // callbacks have the parameter iss (RFC 9207 section 3)
}

// known is the document, nil and why if there is none.
func (p *provider) known() (*document, string) {
	m := p.set.Document()
	if m == nil {
		return nil, "no discovery document: " + p.set.Why()
	}
	d, err := readDocument(m, p.issuer)
	if err != nil {
		return nil, "the discovery document: " + err.Error()
	}
	return d, ""
}

// readDocument reads a document that is known to be the issuer's. Nothing may lead from https to http.
func readDocument(m map[string]any, issuer string) (*document, error) {
	d := &document{}
	for name, to := range map[string]*string{"authorization_endpoint": &d.authorize, "token_endpoint": &d.token, "end_session_endpoint": &d.end} {
		*to, _ = m[name].(string)
		if err := endpoint(*to, issuer); to == &d.end && err != nil {
			d.end = ""
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	d.tellsIssuer, _ = m["authorization_response_iss_parameter_supported"].(bool)
	methods, _ := m["token_endpoint_auth_methods_supported"].([]any)
	if len(methods) > 0 && !slices.Contains(methods, any("client_secret_basic")) {
		if d.post = slices.Contains(methods, any("client_secret_post")); !d.post {
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

// aboutGrant reports whether a word is about the code or the refresh token, and not about us.
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
