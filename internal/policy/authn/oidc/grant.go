package oidc

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"net/url"
	"strings"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/policy/authn/token"
)

// defaultAge is how long tokens are taken to be good that do not say so, in seconds.
const defaultAge = 300

// grant is one question to the token endpoint, with what is needed of the request that asks.
type grant struct {
	m        *login
	document *document
	ring     *ring
	now      int64  // of the request, seconds since 1970
	place    []byte // of the session's cookie
}

// errBad says that what the provider gave is not to be believed.
type errBad struct{ why string }

func (e errBad) Error() string { return "the provider's tokens are not good: " + e.why }

// fresh redeems a code (OpenID Connect Core section 3.1.3). An errNo or errBad is about the login; another error says nothing about it.
func (g *grant) fresh(ctx context.Context, form url.Values, nonce string, start time.Time) (*session, error) {
	t, err := g.ask(ctx, form)
	if err != nil {
		return nil, err
	}
	if t.ID == "" {
		return nil, errBad{"there is no id token"}
	}
	claims, payload, err := g.verify(ctx, t, start)
	if err != nil {
		return nil, err
	}
	got, _ := claims["nonce"].(string)
	if subtle.ConstantTimeCompare([]byte(got), []byte(nonce)) != 1 {
		return nil, errBad{"the nonce is not that of the attempt"}
	}
	s := &session{started: g.now, id: t.ID, claims: payload, refresh: t.Refresh}
	return s, g.times(s, t, claims)
}

// renewed asks for newer tokens of a session (section 12). Nothing of the old session is changed.
func (g *grant) renewed(ctx context.Context, old *session, start time.Time) (*session, error) {
	t, err := g.ask(ctx, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {old.refresh}})
	if err != nil {
		return nil, err
	}
	s := *old
	if t.Refresh != "" {
		s.refresh = t.Refresh
	}
	if t.ID == "" { // section 12.2: it may be left out
		return &s, g.times(&s, t, nil)
	}
	claims, payload, err := g.verify(ctx, t, start)
	if err != nil {
		return nil, err
	}
	before, f := claimsOf(old.claims)
	if f != nil {
		return nil, errBad{"the session's claims cannot be read"}
	}
	if claims["sub"] != before["sub"] {
		return nil, errBad{"sub is not that of the session"}
	}
	if n, there := claims["nonce"]; there && before["nonce"] != nil && n != before["nonce"] {
		return nil, errBad{"the nonce is not that of the session"}
	}
	s.id, s.claims = t.ID, payload
	return &s, g.times(&s, t, claims)
}

func (g *grant) ask(ctx context.Context, form url.Values) (*tokens, error) {
	t, err := g.m.provider.exchange(ctx, g.document, g.m.client, g.ring.secret, form)
	if err != nil {
		return nil, err
	}
	if g.m.forward && t.Access != "" && !strings.EqualFold(t.Type, "bearer") {
		return nil, errBad{"the access token is not a Bearer token, and so cannot be forwarded"}
	}
	return t, nil
}

// times says how long tokens are good. claims are those of a new id token, nil if there is none. They are renewed a minute before they
// expire, or when half their time is over if that is later.
func (g *grant) times(s *session, t *tokens, claims map[string]any) error {
	if g.m.forward {
		s.access = t.Access
	}
	if claims != nil {
		exp, _, _ := token.Date(claims, "exp")
		s.expires = exp.Unix()
		if n := t.lifetime(); g.m.forward && n > 0 {
			s.expires = min(s.expires, g.now+n)
		}
	} else if n := t.lifetime(); n > 0 {
		s.expires = g.now + n
	} else {
		s.expires = g.now + defaultAge
	}
	left := s.expires - g.now
	if left <= 0 {
		return errBad{"the id token has expired already: do the clocks here and there agree?"}
	}
	s.renewAt = s.expires - min(60, (left+1)/2)
	return nil
}

// verify judges an id token (section 3.1.3.7) and its tie to the access token (section 3.1.3.8).
func (g *grant) verify(ctx context.Context, t *tokens, start time.Time) (claims map[string]any, payload []byte, err error) {
	j, f := token.Parse([]byte(t.ID))
	if f != nil {
		return nil, nil, errBad{f.Error()}
	}
	if claims, f = j.Claims(); f != nil {
		return nil, nil, errBad{f.Error()}
	}
	_, f, gate := g.m.tokens.Verify(j, claims, start, true)
	if gate != nil {
		token.Wait(ctx, gate)
		_, f, _ = g.m.tokens.Verify(j, claims, start, false)
	}
	switch {
	case f != nil && (f.Reason == token.Unavailable || f.Reason == token.KeyUnknown):
		return nil, nil, f // a key that is new to us is no fault of the person who logs in: keys are fetched twice a minute at most
	case f != nil:
		return nil, nil, errBad{f.Error()}
	}
	if sub, ok := claims["sub"].(string); !ok || sub == "" {
		return nil, nil, errBad{"sub is no text"}
	}
	azp, there := claims["azp"]
	list, _ := claims["aud"].([]any)
	switch {
	case there && azp != g.m.client:
		return nil, nil, errBad{"azp is another client"}
	case !there && len(list) > 1:
		return nil, nil, errBad{"aud names several, and azp does not say for whom it is"}
	}
	if want, there := claims["at_hash"]; there {
		got, _ := want.(string)
		if t.Access == "" || subtle.ConstantTimeCompare([]byte(got), []byte(leftHalf(j.Algorithm, t.Access))) != 1 {
			return nil, nil, errBad{"at_hash is not that of the access token"}
		}
	}
	return claims, j.Payload, nil
}

// leftHalf is the left half of the hash that an algorithm uses, as at_hash has it. Ed25519 hashes with SHA-512.
func leftHalf(a token.Algorithms, text string) string {
	var sum []byte
	switch {
	case a&(token.RS256|token.PS256|token.ES256) != 0:
		h := sha256.Sum256([]byte(text))
		sum = h[:]
	case a&(token.RS384|token.PS384|token.ES384) != 0:
		h := sha512.Sum384([]byte(text))
		sum = h[:]
	default:
		h := sha512.Sum512([]byte(text))
		sum = h[:]
	}
	return base64.RawURLEncoding.EncodeToString(sum[:len(sum)/2])
}
