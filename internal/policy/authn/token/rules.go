package token

import (
	"math"
	"strings"
	"time"
)

// MaxLeeway is the most that clocks may differ.
const MaxLeeway = 5 * time.Minute

// Rules say which tokens of an issuer are accepted. Nothing in them is optional but what is named so.
type Rules struct {
	Issuer         string     // has to be iss
	Audiences      []string   // one has to be in aud; empty: any
	Algorithms     Algorithms // that may be used
	Types          []string   // that typ may be, without "application/"; empty: JWT, at+jwt or none
	Leeway         time.Duration
	OptionalExpiry bool // a token without exp is accepted
}

// Check judges everything but the signature (RFC 7519 section 4.1, RFC 8725 section 3).
func (r *Rules) Check(j *JWS, claims map[string]any, now time.Time) *Fault {
	if j.Algorithm&r.Algorithms == 0 {
		return fault(BadAlgorithm, "%s is not allowed", j.Algorithm)
	}
	if !r.allowsType(j) {
		return fault(BadType, "typ %s is not allowed", quote(j.Type))
	}
	if iss, ok := claims["iss"].(string); !ok || iss != r.Issuer {
		return fault(BadIssuer, "iss is not %s", quote(r.Issuer))
	}
	if f := r.checkAudience(claims); f != nil {
		return f
	}
	return r.checkTime(claims, now)
}

// allowsType compares typ without case, as media types are.
func (r *Rules) allowsType(j *JWS) bool {
	if _, there := j.Header["typ"]; !there && len(r.Types) == 0 {
		return true
	}
	typ := MediaType(j.Type)
	if len(r.Types) == 0 {
		return strings.EqualFold(typ, "JWT") || strings.EqualFold(typ, "at+jwt")
	}
	for _, t := range r.Types {
		if strings.EqualFold(t, typ) {
			return true
		}
	}
	return false
}

// MediaType is a typ without "application/", which it may leave out (RFC 7515 section 4.1.9).
func MediaType(typ string) string {
	const prefix = "application/"
	if n := len(prefix); len(typ) > n && strings.EqualFold(typ[:n], prefix) {
		return typ[n:]
	}
	return typ
}

func (r *Rules) checkAudience(claims map[string]any) *Fault {
	var have []any
	switch aud := claims["aud"].(type) {
	case nil:
		if _, there := claims["aud"]; there {
			return fault(Malformed, "aud is null")
		}
	case string:
		have = []any{aud}
	case []any:
		have = aud
	default:
		return fault(Malformed, "aud is neither a text nor a list of texts")
	}
	for _, v := range have {
		if _, ok := v.(string); !ok {
			return fault(Malformed, "aud is neither a text nor a list of texts")
		}
	}
	if len(r.Audiences) == 0 {
		return nil
	}
	for _, v := range have {
		for _, want := range r.Audiences {
			if v == want {
				return nil
			}
		}
	}
	return fault(BadAudience, "aud holds none of those that are accepted")
}

func (r *Rules) checkTime(claims map[string]any, now time.Time) *Fault {
	exp, there, ok := Date(claims, "exp")
	switch {
	case !ok:
		return fault(Malformed, "exp is not a time")
	case !there && !r.OptionalExpiry:
		return fault(NoExpiry, "the token has no exp")
	case there && !now.Before(exp.Add(r.Leeway)):
		return fault(Expired, "exp was %s", exp.UTC().Format(time.RFC3339))
	}
	nbf, there, ok := Date(claims, "nbf")
	switch {
	case !ok:
		return fault(Malformed, "nbf is not a time")
	case there && now.Before(nbf.Add(-r.Leeway)):
		return fault(NotYet, "nbf is %s", nbf.UTC().Format(time.RFC3339))
	}
	return nil
}

// latest is the end of the year 9999, in seconds; later times are taken for it.
const latest = 253402300799

// Date reads a NumericDate (RFC 7519 section 2): seconds since 1970, perhaps with a fraction. ok: it is one, or not there.
func Date(claims map[string]any, name string) (t time.Time, there, ok bool) {
	v, there := claims[name]
	if !there {
		return t, false, true
	}
	switch v := v.(type) {
	case int64:
		return time.Unix(min(v, latest), 0), true, v >= 0
	case uint64:
		return time.Unix(latest, 0), true, true
	case float64:
		if v < 0 || math.IsNaN(v) {
			return t, true, false
		}
		whole, fraction := math.Modf(math.Min(v, latest))
		return time.Unix(int64(whole), int64(fraction*1e9)), true, true
	}
	return t, true, false
}

// Until is how long what was verified at now may be remembered: until exp with the leeway, a minute at most.
func (r *Rules) Until(claims map[string]any, now time.Time) time.Time {
	until := now.Add(Remember)
	if exp, there, ok := Date(claims, "exp"); there && ok && exp.Add(r.Leeway).Before(until) {
		until = exp.Add(r.Leeway)
	}
	return until
}
