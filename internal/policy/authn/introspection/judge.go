package introspection

import (
	"encoding/json"
	"math"
	"strings"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
)

// answer is what is said about one token. It is not changed once it is shared.
type answer struct {
	method.Outcome
	exp, nbf time.Time // zero: none
	until    time.Time // it is kept until then; zero: not kept
	size     int
}

// at is the answer to a request of that time.
func (a *answer) at(now time.Time) method.Outcome {
	switch {
	case a.State != method.Accepted:
	case !a.exp.IsZero() && !now.Before(a.exp):
		return method.InvalidToken("token_expired", "")
	case now.Before(a.nbf):
		return method.InvalidToken("token_not_yet_valid", "")
	}
	return a.Outcome
}

// judge reads the server's answer (RFC 7662 section 2.2). One that cannot be read is no answer.
func (m *introspection) judge(body []byte, now time.Time) *answer {
	var claims map[string]any
	if err := json.Unmarshal(body, &claims); err != nil {
		return &answer{Outcome: unavailable("the server's answer is not a JSON object")}
	}
	active, ok := claims["active"].(bool)
	if !ok {
		return &answer{Outcome: unavailable("the server's answer has no active that is true or false")}
	}
	if !active {
		return m.no("token_inactive", now)
	}
	a := &answer{size: len(body), until: now.Add(m.cache)}
	var unread string
	a.exp, unread = date(claims, "exp", unread)
	a.nbf, unread = date(claims, "nbf", unread)
	if iss, there := claims["iss"]; there {
		if _, ok := iss.(string); !ok {
			unread = "iss"
		}
	}
	switch {
	case unread != "":
		return &answer{Outcome: unavailable("the server's answer has " + unread + " of a kind that cannot be read")}
	case !m.meant(claims["aud"]):
		return m.no("audience_wrong", now)
	case otherKind(claims):
		return m.no("type_not_allowed", now)
	case m.dpop == nil && bound(claims):
		return m.no("token_needs_dpop", now)
	}
	if !a.exp.IsZero() && a.exp.Before(a.until) {
		a.until = a.exp
	}
	a.State, a.Identity, a.Header = method.Accepted, m.claims.Identity(claims), m.claims.Header(claims)
	return a
}

// no is an answer that the token is not good.
func (m *introspection) no(reason string, now time.Time) *answer {
	return &answer{Outcome: method.InvalidToken(reason, ""), until: now.Add(min(m.cache, maxNo))}
}

// meant reports whether the token is for one of the audiences.
func (m *introspection) meant(aud any) bool {
	if len(m.audiences) == 0 {
		return true
	}
	list, ok := aud.([]any)
	if !ok {
		list = []any{aud}
	}
	for _, a := range list {
		for _, want := range m.audiences {
			if a == want {
				return true
			}
		}
	}
	return false
}

// otherKind reports whether the server says that the token is no access token: servers know refresh and id tokens too, and call them
// active.
func otherKind(claims map[string]any) bool {
	for _, name := range []string{"token_type", "token_use", "typ"} {
		s, _ := claims[name].(string)
		switch strings.ToLower(s) {
		case "refresh", "refresh_token", "offline", "id", "id_token":
			return true
		}
	}
	return false
}

// bound reports whether the token may be used with a proof of a key only (RFC 9449 section 6): by itself it may have been stolen.
func bound(claims map[string]any) bool {
	cnf, _ := claims["cnf"].(map[string]any)
	_, ok := cnf["jkt"]
	return ok
}

// date reads a NumericDate (RFC 7519 section 2).
func date(claims map[string]any, name, unread string) (time.Time, string) {
	v, there := claims[name]
	if !there || v == nil {
		return time.Time{}, unread
	}
	f, ok := v.(float64)
	if !ok || math.Abs(f) > 1e11 {
		return time.Time{}, name
	}
	return time.UnixMilli(int64(f * 1000)), unread
}
