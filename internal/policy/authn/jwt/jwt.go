// Package jwt accepts signed tokens. What a token has to be is for package token; here is what the method's spec means, which issuer a
// token is of, and what becomes of its claims. It asks nobody on the path of a request: keys are fetched beside it, and a request waits for
// them 40 ms at most. It never says in an answer more than a reason word.
package jwt

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/dpop"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/token"
)

// Refs lists what a method refers to: nothing, its keys are in the spec or at a URL.
func Refs(*v1alpha1.JWTAuth) []policy.Ref { return nil }

// tokens is a compiled method.
type tokens struct {
	source  *method.Source
	proven  *method.Source // Authorization: DPoP; nil without proofs
	dpop    *dpop.Checker
	issuers []issuer
	cache   *token.Cache
	rules   [sha256.Size]byte // hash of all that decides about a token
	current func(i int) *token.Keys
}

type issuer struct {
	token.Issuer
	claims *method.Claims
}

// Compile checks the method.
func Compile(name string, s *v1alpha1.JWTAuth, env policy.Env) (method.Handler, error) {
	t, err := compile(s, env)
	if err != nil {
		return method.Handler{}, err
	}
	h := method.Handler{Authenticate: t.authenticate, Challenge: t.dpop.Beside(`Bearer realm="` + name + `"`), QuerySecrets: t.source.Query()}
	for _, c := range s.ClaimsToHeaders {
		h.Fields = append(h.Fields, c.Header)
	}
	if s.Strip {
		h.Admit = t.strip
	}
	return h, nil
}

// strip takes the token out of the request, and the proof that came with it.
func (t *tokens) strip(x *exchange.Exchange) {
	dpop.Strip(x, t.source, t.proven)
}

// hashRules makes one sum of everything that decides about a token and what becomes of it. Proofs are judged for each request.
func hashRules(s *v1alpha1.JWTAuth) ([sha256.Size]byte, error) {
	text, err := json.Marshal([]any{s.Issuers, s.ClaimsToHeaders})
	return token.HashOf(text), err
}

func (t *tokens) authenticate(x *exchange.Exchange) method.Outcome {
	text, twice := dpop.Find(x, t.source, t.proven)
	switch {
	case twice:
		return method.InvalidToken("credential_repeated", "several tokens")
	case text == nil:
		return method.Outcome{}
	case len(text) > token.MaxToken:
		return refused(&token.Fault{Reason: token.TooLarge})
	}
	sum := token.SumOf(t.rules, text)
	if v := t.cache.Find(&sum, x.Start, t.current); v != nil {
		return t.accept(x, text, v)
	}
	return t.judge(x, text, &sum)
}

// judge verifies a token that is not known.
func (t *tokens) judge(x *exchange.Exchange, text []byte, sum *token.Sum) method.Outcome {
	j, f := token.Parse(text)
	if f != nil {
		return refused(f)
	}
	claims, f := j.Claims()
	if f != nil {
		return refused(f)
	}
	i := t.issuerOf(claims)
	if i < 0 {
		return refused(&token.Fault{Reason: token.BadIssuer})
	}
	is := &t.issuers[i]
	v, f, gate := t.verify(x, i, j, claims, !x.Dry)
	switch {
	case x.Dry && f != nil && (f.Reason == token.KeyUnknown || f.Reason == token.Unavailable) && is.Set.From() != "":
		return method.Outcome{State: method.Waiting, Asks: is.Set.From()}
	case gate != nil:
		return t.wait(x, text, sum, i, claims, gate)
	case f != nil:
		return refused(f)
	}
	if !x.Dry {
		t.cache.Add(sum, v, len(text), is.Until(claims, x.Start))
	}
	return t.accept(x, text, v)
}

// wait judges the token again when newer keys may be there. It keeps a copy of the token, because it works off the exchange's owner.
func (t *tokens) wait(x *exchange.Exchange, text []byte, sum *token.Sum, i int, claims map[string]any, gate <-chan struct{}) method.Outcome {
	kept, key := string(text), *sum
	return method.Outcome{State: method.Waiting, Asks: t.issuers[i].Set.From(), Wait: func(ctx context.Context) func(*exchange.Exchange) method.Outcome {
		token.Wait(ctx, gate)
		return func(x *exchange.Exchange) method.Outcome {
			text := []byte(kept)
			j, f := token.Parse(text)
			if f != nil {
				return refused(f)
			}
			v, f, _ := t.verify(x, i, j, claims, false)
			if f != nil {
				return refused(f)
			}
			t.cache.Add(&key, v, len(text), t.issuers[i].Until(claims, x.Start))
			return t.accept(x, text, v)
		}
	}}
}

// verify verifies a token of the i-th issuer and reads its claims.
func (t *tokens) verify(x *exchange.Exchange, i int, j *token.JWS, claims map[string]any, ask bool) (*token.Verified, *token.Fault, <-chan struct{}) {
	is := &t.issuers[i]
	keys, f, gate := is.Verify(j, claims, x.Start, ask)
	if f != nil {
		return nil, f, gate
	}
	return &token.Verified{Claims: claims, Identity: is.claims.Identity(claims), Header: is.claims.Header(claims), Issuer: i, Keys: keys}, nil, nil
}

// issuerOf finds the issuer that a token says it is of, -1: none. It is only believed once the signature is checked with the issuer's keys.
func (t *tokens) issuerOf(claims map[string]any) int {
	iss, ok := claims["iss"].(string)
	for i := range t.issuers {
		if ok && t.issuers[i].Rules.Issuer == iss {
			return i
		}
	}
	return -1
}

// accept lets a verified token's caller in, if the proof is good where one is due.
func (t *tokens) accept(x *exchange.Exchange, text []byte, v *token.Verified) method.Outcome {
	if t.dpop == nil {
		if ok, o := dpop.Unproven(v.Claims); !ok {
			return o
		}
	} else if ok, o := t.dpop.Check(x, text, v.Claims); !ok {
		return o
	}
	return method.Outcome{State: method.Accepted, Identity: v.Identity, Header: v.Header}
}

// refused is the outcome of a fault: 401, or 503 if it says nothing about the token.
func refused(f *token.Fault) method.Outcome {
	if f.Reason == token.Unavailable {
		return method.Outcome{State: method.Unavailable, Reason: f.Reason, Detail: f.Detail}
	}
	return method.InvalidToken(f.Reason, f.Detail)
}

// path is where the i-th issuer stands.
func path(i int, field string) string { return fmt.Sprintf("issuers[%d]%s", i, field) }
