// Package introspection asks an authorization server about tokens (RFC 7662) and keeps its answers for a short time. A token is
// accepted on the word of the server alone; when that cannot be had the answer is 503, never a yes. What a client can make it spend is
// bounded: a token is at most 8 KiB, an answer 32 KiB; 10,000 answers of each kind (yes, no) are kept, of at most 16 MiB each;
// about one token one question is asked at a time, and a server that fails five times in a row is left alone for a second. Tokens are
// never kept, only their SHA-256, and are never part of a log.
package introspection

import (
	"bytes"
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
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/dpop"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
)

// Bounds and defaults.
const (
	maxToken       = 8 << 10
	maxAnswer      = 32 << 10
	maxURL         = 2048
	maxCache       = 10 * time.Minute
	maxNo          = 10 * time.Second // a token that is not active may become so: an answer no is kept shorter
	maxTimeout     = 30 * time.Second
	defaultCache   = 30 * time.Second
	defaultTimeout = 2 * time.Second
)

const secretPath = "clientSecretRef"

// Refs lists the Secret that a method names.
func Refs(s *v1alpha1.IntrospectionAuth) []policy.Ref {
	if s.ClientSecretRef == nil {
		return nil
	}
	return []policy.Ref{{Path: secretPath, Kind: "Secret", Name: s.ClientSecretRef.Name}}
}

// Compile checks the method.
func Compile(name string, s *v1alpha1.IntrospectionAuth, env policy.Env) (method.Handler, error) {
	m := &introspection{env: env, url: s.URL, audiences: s.Audiences, secret: s.ClientSecretRef != nil}
	var faults []error
	fault := func(err error) { faults = append(faults, err) }
	var err error
	if m.source, err = method.NewSource(s.From, method.Bearer()); err != nil {
		fault(err)
	}
	if m.claims, err = method.NewClaims(s.Claims, s.ClaimsToHeaders); err != nil {
		fault(err)
	}
	if err := checkURL(s.URL); err != nil {
		fault(err)
	}
	if slices.Contains(s.Audiences, "") {
		fault(&diag.Problem{Path: "audiences", Msg: "one is empty", Hint: "write the aud of tokens for this API"})
	}
	m.cache, err = duration("cache", s.Cache, defaultCache, 0, maxCache)
	if err != nil {
		fault(err)
	}
	m.timeout, err = duration("timeout", s.Timeout, defaultTimeout, time.Millisecond, maxTimeout)
	if err != nil {
		fault(err)
	}
	if s.DPoP != nil {
		if m.dpop, err = dpop.New(s.DPoP, env.In("dpop")); err != nil {
			fault(diag.Under("dpop", err))
		}
		m.proven, _ = method.NewSource(nil, dpop.Source())
	}
	if len(faults) > 0 {
		return method.Handler{}, errors.Join(faults...)
	}
	key, err := json.Marshal(struct {
		Name, Secret string
		Spec         *v1alpha1.IntrospectionAuth
	}{name, env.Ref(secretPath), s})
	if err != nil {
		return method.Handler{}, fmt.Errorf("encoding the spec: %w", err)
	}
	m.store = policy.Open(env, "introspection "+string(key), func() (*store, func(policy.Work)) { return newStore(), nil })
	h := method.Handler{Authenticate: m.authenticate, Challenge: m.dpop.Beside(`Bearer realm="` + name + `"`), Fields: m.claims.Fields(),
		QuerySecrets: m.source.Query()}
	if s.Strip {
		h.Admit = m.strip
	}
	return h, nil
}

// strip takes the token out of the request, and the proof that came with it.
func (m *introspection) strip(x *exchange.Exchange) {
	dpop.Strip(x, m.source, m.proven)
}

func checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" || len(text) > maxURL {
		return &diag.Problem{Path: "url", Msg: fmt.Sprintf("%q is not the URL of an endpoint", text), Hint: "write https://idp.example/introspect"}
	}
	return nil
}

func duration(path string, given *gatewayv1.Duration, otherwise, least, most time.Duration) (time.Duration, error) {
	if given == nil {
		return otherwise, nil
	}
	d, err := policy.ParseDuration(string(*given))
	if err != nil {
		return 0, &diag.Problem{Path: path, Msg: err.Error(), Hint: policy.DurationHint}
	}
	if d < least || d > most {
		return 0, &diag.Problem{Path: path, Msg: fmt.Sprintf("%s is out of bounds", *given), Hint: fmt.Sprintf("write something between %s and %s", least, most)}
	}
	return d, nil
}

// introspection is a compiled method.
type introspection struct {
	env            policy.Env
	url            string
	secret         bool
	source         *method.Source
	proven         *method.Source // Authorization: DPoP; nil without proofs
	dpop           *dpop.Checker
	claims         *method.Claims
	audiences      []string
	cache, timeout time.Duration
	store          *store
}

func (m *introspection) authenticate(x *exchange.Exchange) method.Outcome {
	token, twice := dpop.Find(x, m.source, m.proven)
	switch {
	case twice:
		return method.Refuse("credential_repeated", "several tokens in one place")
	case token == nil:
		return method.Outcome{}
	case len(token) > maxToken:
		return method.InvalidToken("token_too_large", "longer than 8 KiB")
	case !visible(token):
		return method.InvalidToken("token_malformed", "bytes that no token has in it")
	case x.Dry:
		return method.Outcome{State: method.Waiting, Asks: m.url}
	}
	now := x.Start
	hash := sha256.Sum256(token)
	if m.cache > 0 {
		if a := m.store.find(&hash, now); a != nil {
			return m.proved(x, token, a.at(now))
		}
	}
	if !m.store.breaker.lets(now) {
		return unavailable("the server failed again and again; it is asked again in a second")
	}
	return m.wait(hash, token, now)
}

// wait is apart, so that a known token costs no allocation.
func (m *introspection) wait(hash [sha256.Size]byte, token []byte, now time.Time) method.Outcome {
	q, kept := m.question(token), bytes.Clone(token)
	return method.Outcome{State: method.Waiting, Asks: m.url, Wait: func(ctx context.Context) func(*exchange.Exchange) method.Outcome {
		a := m.answer(ctx, &hash, now, q)
		return func(x *exchange.Exchange) method.Outcome { return m.proved(x, kept, a.at(now)) }
	}}
}

// proved asks for the proof of an accepted token that needs one.
func (m *introspection) proved(x *exchange.Exchange, token []byte, o method.Outcome) method.Outcome {
	if m.dpop != nil && o.State == method.Accepted {
		if ok, refused := m.dpop.Check(x, token, o.Identity.Claims); !ok {
			return refused
		}
	}
	return o
}

// visible reports whether a token has nothing but visible ASCII in it (RFC 6749 appendix A.12).
func visible(token []byte) bool {
	for _, c := range token {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

func unavailable(detail string) method.Outcome {
	return method.Outcome{State: method.Unavailable, Reason: "introspection_unavailable", Detail: detail}
}

// question is the body of the request (RFC 7662 section 2.1).
func (m *introspection) question(token []byte) []byte {
	return []byte("token=" + url.QueryEscape(string(token)) + "&token_type_hint=access_token")
}

// answer is what is known of a token: from the store, from another request that asks just now, or from the server.
func (m *introspection) answer(ctx context.Context, hash *[sha256.Size]byte, now time.Time, q []byte) *answer {
	if m.cache == 0 { // every request asks
		return m.ask(ctx, now, q)
	}
	for {
		known, f, mine := m.store.join(hash, now)
		switch {
		case known != nil:
			return known
		case mine:
			return m.lead(ctx, f, hash, now, q)
		}
		select {
		case <-f.done:
			if f.answer != nil {
				return f.answer
			}
			// whoever asked was cut short by its own request, and that says nothing about this one
		case <-ctx.Done():
			return &answer{Outcome: unavailable("the request's time was over while another asked about the same token")}
		}
	}
}

// lead asks the server for all that wait for the same answer.
func (m *introspection) lead(ctx context.Context, f *flight, hash *[sha256.Size]byte, now time.Time, q []byte) (a *answer) {
	defer func() {
		shared := a
		if ctx.Err() != nil && a != nil && a.State == method.Unavailable {
			shared = nil
		}
		m.store.land(hash, f, shared)
	}()
	return m.ask(ctx, now, q)
}

// ask asks the server.
func (m *introspection) ask(ctx context.Context, now time.Time, q []byte) *answer {
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Accept": {"application/json"},
		"Idempotency-Key": {}} // see edge.Calls
	if m.secret {
		basic, problem := m.credentials()
		if problem != "" {
			return &answer{Outcome: unavailable(problem)}
		}
		header["Authorization"] = []string{basic}
	}
	if m.env.Call == nil {
		return &answer{Outcome: unavailable("nothing may be asked here")}
	}
	r, err := m.env.Call.Call(ctx, &policy.Call{Method: http.MethodPost, URL: m.url, Header: header, Body: q, Timeout: m.timeout, Max: maxAnswer})
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, policy.ErrTooLarge) {
			m.store.breaker.failed()
		}
		return &answer{Outcome: unavailable(err.Error())}
	}
	switch {
	case r.Status == http.StatusOK:
	case r.Status >= 500, r.Status == http.StatusUnauthorized, r.Status == http.StatusForbidden, r.Status == http.StatusTooManyRequests:
		m.store.breaker.failed()
		return &answer{Outcome: unavailable(fmt.Sprintf("the server answered %d", r.Status))}
	default: // about this token: others are not to suffer from it
		return &answer{Outcome: unavailable(fmt.Sprintf("the server answered %d", r.Status))}
	}
	m.store.breaker.worked()
	return m.judge(r.Body, now)
}

// credentials is the client's, for the field Authorization (RFC 6749 section 2.3.1: both parts are form-encoded first).
func (m *introspection) credentials() (basic, problem string) {
	secret := m.env.Material(secretPath)
	if secret == nil {
		return "", "the Secret that clientSecretRef names is not there"
	}
	id, password := secret.Data["client_id"], secret.Data["client_secret"]
	if id.Len() == 0 || password.Len() == 0 {
		return "", "the Secret that clientSecretRef names has no keys client_id and client_secret"
	}
	pair := url.QueryEscape(strings.TrimSpace(string(id.Reveal()))) + ":" + url.QueryEscape(strings.TrimSpace(string(password.Reveal())))
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(pair)), ""
}
