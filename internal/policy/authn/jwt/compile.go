package jwt

import (
	"errors"
	"fmt"
	"strings"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/dpop"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/token"
)

// compile checks the spec, all of it, and only then opens what runs.
func compile(s *v1alpha1.JWTAuth, env policy.Env) (*tokens, error) {
	var faults []error
	t := &tokens{}
	var err error
	if t.source, err = method.NewSource(s.From, method.Bearer()); err != nil {
		faults = append(faults, err)
	}
	if len(s.Issuers) == 0 {
		faults = append(faults, &diag.Problem{Path: "issuers", Msg: "is empty", Hint: "name who signs the tokens that are accepted"})
	}
	names := map[string]bool{}
	for i := range s.Issuers {
		is := &s.Issuers[i]
		if is.Issuer == "" || names[is.Issuer] {
			faults = append(faults, diag.Errorf(path(i, ".issuer"), "%q is empty or stands twice", is.Issuer))
		}
		names[is.Issuer] = true
		rules, fs := rulesOf(is, path(i, ""))
		faults = append(faults, fs...)
		set, fs := keysOf(is, rules.Algorithms, path(i, ""))
		faults = append(faults, fs...)
		claims, _ := method.NewClaims(is.Claims, s.ClaimsToHeaders)
		t.issuers = append(t.issuers, issuer{token.Issuer{Rules: rules, Set: set}, claims})
	}
	if _, err := method.NewClaims(nil, s.ClaimsToHeaders); err != nil { // once for all issuers
		faults = append(faults, err)
	}
	if s.DPoP != nil {
		if t.dpop, err = dpop.New(s.DPoP, env.In("dpop")); err != nil {
			faults = append(faults, diag.Under("dpop", err))
		}
		t.proven, _ = method.NewSource(nil, dpop.Source())
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	for i := range t.issuers {
		if is := &t.issuers[i]; is.Set == nil {
			is.Set = openKeys(&s.Issuers[i], env)
		}
	}
	t.cache = token.OpenCache(env)
	t.current = func(i int) *token.Keys { return t.issuers[i].Set.Keys() }
	t.rules, err = hashRules(s)
	return t, err
}

// rulesOf reads what an issuer's tokens have to be.
func rulesOf(is *v1alpha1.JWTIssuer, at string) (token.Rules, []error) {
	r := token.Rules{Issuer: is.Issuer, Audiences: is.Audiences, Types: is.Types}
	var faults []error
	fault := func(path, hint, format string, args ...any) {
		faults = append(faults, &diag.Problem{Path: at + path, Msg: fmt.Sprintf(format, args...), Hint: hint})
	}
	algorithms, fs := token.ParseAlgorithms(is.Algorithms)
	r.Algorithms = algorithms
	for _, f := range fs {
		faults = append(faults, diag.Under(at+".algorithms", f))
	}
	for i, a := range is.Audiences {
		if a == "" {
			fault(fmt.Sprintf(".audiences[%d]", i), "", "is empty")
		}
	}
	r.Types = nil
	for i, typ := range is.Types {
		if typ == "" {
			fault(fmt.Sprintf(".types[%d]", i), "", "is empty")
		}
		r.Types = append(r.Types, token.MediaType(typ))
	}
	switch is.Expiry {
	case "", "Required":
	case "Optional":
		r.OptionalExpiry = true
	default:
		fault(".expiry", "write Required or Optional", "%q is not known", is.Expiry)
	}
	if is.Leeway != nil {
		d, err := policy.ParseDuration(string(*is.Leeway))
		switch {
		case err != nil:
			fault(".leeway", policy.DurationHint, "%v", err)
		case d > token.MaxLeeway:
			fault(".leeway", "write at most 5m", "%s is longer than %s", d, token.MaxLeeway)
		}
		r.Leeway = d
	}
	return r, faults
}

// keysOf checks where the keys of an issuer are. The set is nil if they are to be fetched.
func keysOf(is *v1alpha1.JWTIssuer, allowed token.Algorithms, at string) (*token.Set, []error) {
	secret := allowed&token.Symmetric != 0
	one := func(path, hint, msg string) []error {
		return []error{&diag.Problem{Path: at + path, Msg: msg, Hint: hint}}
	}
	inline := is.JWKS != nil && is.JWKS.Inline != ""
	switch {
	case is.JWKS != nil && inline == (is.JWKS.URL != ""):
		return nil, one(".jwks", "write url or inline", "sets not exactly one of url and inline")
	case secret && !inline:
		return nil, one(".algorithms", "write the key under jwks.inline, or use algorithms of public keys",
			"HS* needs a secret, and one that is fetched from a URL is none")
	case is.JWKS == nil:
		if err := token.CheckURL(is.Issuer); err != nil || strings.Contains(is.Issuer, "?") {
			return nil, one(".issuer", "write jwks with url or inline", fmt.Sprintf("%q is not a URL, so it has no discovery document", is.Issuer))
		}
		return nil, nil
	case !inline:
		if err := token.CheckURL(is.JWKS.URL); err != nil {
			return nil, one(".jwks.url", "write https://idp.example/keys", err.Error())
		}
		return nil, nil
	}
	at += ".jwks.inline"
	keys, dropped, err := token.ParseKeys([]byte(is.JWKS.Inline), secret)
	if err != nil {
		return nil, []error{&diag.Problem{Path: at, Msg: err.Error(), Hint: `write {"keys": [...]}, public keys as JWK`}}
	}
	var faults []error
	for _, d := range dropped { // the user wrote each of them, so each has to be usable
		faults = append(faults, diag.Under(at, d))
	}
	if len(faults) == 0 && !keys.Fits(allowed) {
		faults = []error{diag.Errorf(at, "has no key for %s", allowed)}
	}
	return token.Inline(keys), faults
}

func openKeys(is *v1alpha1.JWTIssuer, env policy.Env) *token.Set {
	if is.JWKS != nil {
		return token.OpenURL(env, is.JWKS.URL)
	}
	return token.OpenIssuer(env, is.Issuer)
}
