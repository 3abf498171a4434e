// Package dpop checks proofs that a caller holds the key which an access token is bound to (RFC 9449). It accepts each proof once, and
// never a proof for another request, another token or another key. It hands out no nonces.
//
// Bounds: a proof has 8 KiB, its jti 256 bytes, its RSA key 4096 bits, and may be 5 minutes old at most. The memory of proofs holds 1,048,576
// of them for each maxAge in use (some 50 MB when full), 262,144 in each of 16 parts; the proofs of one key lie in one part, so that one
// caller cannot use up the room of all. Full means 503: a proof that cannot be remembered cannot be accepted once only.
package dpop

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/token"
)

const (
	maxProof   = 8 << 10
	maxID      = 256
	maxRSA     = 4096 // a proof brings its key: what a client can make us compute is kept small
	defaultAge = 60 * time.Second
	maxAge     = 5 * time.Minute
	ahead      = 10 * time.Second // how far a client's clock may be ahead of ours
)

// Reason words.
const (
	missing   = "dpop_proof_missing"
	repeated  = "dpop_proof_repeated"
	invalid   = "dpop_proof_invalid"
	old       = "dpop_proof_expired"
	replayed  = "dpop_proof_replayed"
	wrongKey  = "dpop_key_wrong"
	unbound   = "token_not_bound"
	asBearer  = "token_needs_dpop"
	storeFull = "dpop_store_full"
)

// Checker is a compiled DPoP.
type Checker struct {
	always bool
	age    time.Duration
	owner  [sha256.Size]byte // the method whose proofs these are: two methods of one request may see one proof each
	seen   *store
}

// New checks the spec; paths of faults are relative to it.
func New(s *v1alpha1.DPoP, env policy.Env) (*Checker, error) {
	c := &Checker{age: defaultAge, owner: sha256.Sum256([]byte(env.Target + "\x00" + env.At))}
	var faults []error
	switch s.Require {
	case "", "Bound":
	case "Always":
		c.always = true
	default:
		faults = append(faults, &diag.Problem{Path: "require", Msg: fmt.Sprintf("%q is not known", s.Require), Hint: "write Bound or Always"})
	}
	if s.MaxAge != nil {
		d, err := policy.ParseDuration(string(*s.MaxAge))
		switch {
		case err != nil:
			faults = append(faults, &diag.Problem{Path: "maxAge", Msg: err.Error(), Hint: policy.DurationHint})
		case d < time.Second || d > maxAge:
			faults = append(faults, &diag.Problem{Path: "maxAge", Msg: fmt.Sprintf("%s is not between 1s and 5m", d), Hint: "write 60s"})
		}
		c.age = d
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	c.seen = openStore(env, c.age)
	return c, nil
}

// Challenge is the member of WWW-Authenticate (RFC 9449 section 7.1). A refusal's Params have to go with it.
func (c *Checker) Challenge() string { return `DPoP algs="` + token.Asymmetric.String() + `"` }

// Beside is the challenge of a method that takes tokens by another scheme too: its own, ours, or both. Ours is last: what a refusal adds
// belongs to it. A nil Checker adds nothing.
func (c *Checker) Beside(challenge string) string {
	switch {
	case c == nil:
		return challenge
	case c.Always():
		return c.Challenge()
	}
	return challenge + ", " + c.Challenge()
}

// Always reports whether every token has to be bound, so that no other challenge makes sense.
func (c *Checker) Always() bool { return c.always }

// Source is where a token with a proof stands: Authorization with the scheme DPoP.
func Source() []v1alpha1.CredentialSource {
	return []v1alpha1.CredentialSource{{Header: "Authorization", Scheme: "DPoP"}}
}

// Find is the token of a request: what source finds, or behind the scheme DPoP what proven finds (nil: such tokens are not looked for).
// twice: there are several, and nobody can say which one a backend would read.
func Find(x *exchange.Exchange, source, proven *method.Source) (text []byte, twice bool) {
	text, twice = source.Find(x)
	if proven == nil || twice {
		return text, twice
	}
	other, again := proven.Find(x)
	switch {
	case again || other != nil && text != nil:
		return nil, true
	case other != nil:
		return other, false
	}
	return text, false
}

// Strip takes the token of a request out of it, wherever Find may find it, and with proven the proof that came with it.
func Strip(x *exchange.Exchange, source, proven *method.Source) {
	source.Strip(x)
	if proven != nil {
		proven.Strip(x)
		x.Request.Header.Del("DPoP")
	}
}

// Check judges the proof of a request whose token is verified and has these claims, which hold cnf.jkt if it is bound to a key (RFC 9449
// section 6). ok: the request may pass; else the outcome says why not. On an exchange that is only explained nothing is remembered.
func (c *Checker) Check(x *exchange.Exchange, text []byte, claims map[string]any) (ok bool, o method.Outcome) {
	bound, want, f := binding(claims)
	switch {
	case f:
		return false, method.InvalidToken(token.Malformed, "the claim cnf is not understood")
	case !bound && (c.always || shown(x, "DPoP")):
		return false, method.InvalidToken(unbound, "the token has no cnf.jkt")
	case !bound:
		return true, method.Outcome{}
	case shown(x, "Bearer"): // section 7.2: a stolen token is not let in as another kind of token
		return false, method.InvalidToken(asBearer, "the token is bound to a key, and was sent as Bearer")
	}
	return c.proof(x, text, want)
}

// Unproven is the outcome for a token where no proofs are asked for: one that is bound to a key is refused, because whoever shows it without
// a proof may have stolen it (RFC 9449 section 7.1). ok: the token is not bound to a key.
func Unproven(claims map[string]any) (ok bool, o method.Outcome) {
	if bound, _, bad := binding(claims); bound || bad {
		return false, method.InvalidToken(asBearer, "the token is bound to a key, and the policy has no dpop")
	}
	return true, method.Outcome{}
}

// binding reads cnf.jkt (section 6.1), the base64url of a SHA-256.
func binding(claims map[string]any) (bound bool, jkt []byte, bad bool) {
	v, there := claims["cnf"]
	if !there {
		return false, nil, false
	}
	cnf, ok := v.(map[string]any)
	if !ok {
		return false, nil, true
	}
	v, there = cnf["jkt"]
	if !there { // bound to something else, such as a certificate
		return false, nil, false
	}
	s, _ := v.(string)
	jkt, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return true, jkt, err != nil || len(jkt) != sha256.Size
}

// shown reports whether a token was sent in Authorization with a scheme.
func shown(x *exchange.Exchange, scheme string) bool {
	n := len(scheme)
	for _, f := range x.Request.Header.All() {
		if exchange.EqualFold(f.Name, "authorization") && len(f.Value) > n && f.Value[n] == ' ' && exchange.EqualFold(f.Value[:n], scheme) {
			return true
		}
	}
	return false
}

func refuse(reason, format string, args ...any) (bool, method.Outcome) {
	return false, method.Outcome{State: method.Refused, Reason: reason, Detail: fmt.Sprintf(format, args...), Params: `error="invalid_dpop_proof"`}
}

// proof checks the one proof of the request as section 4.3 says; the numbers are its.
func (c *Checker) proof(x *exchange.Exchange, text, jkt []byte) (bool, method.Outcome) {
	var proof []byte
	switch h := &x.Request.Header; h.Count("DPoP") { // 1
	case 0:
		return refuse(missing, "the token is bound to a key, and the request has no field DPoP")
	case 1:
		proof = h.Get("DPoP")
	default:
		return refuse(repeated, "the request has several fields DPoP")
	}
	if len(proof) > maxProof {
		return refuse(invalid, "the proof is longer than %d bytes", maxProof)
	}
	j, f := token.Parse(proof) // 2
	if f != nil {
		return refuse(invalid, "%s", f.Error())
	}
	claims, f := j.Claims()
	switch {
	case f != nil:
		return refuse(invalid, "%s", f.Error())
	case j.Type != "dpop+jwt": // 4
		return refuse(invalid, "typ is not dpop+jwt")
	case j.Algorithm&token.Asymmetric == 0: // 5
		return refuse(invalid, "%s is no algorithm of public keys", j.Algorithm)
	}
	id, why := c.about(x, text, claims)
	if why.State != method.Absent {
		return false, why
	}
	return c.key(x, j, jkt, id)
}

// about checks that the claims are about this request, this token and this time. The outcome is Absent if they are.
func (c *Checker) about(x *exchange.Exchange, text []byte, claims map[string]any) (id string, o method.Outcome) {
	no := func(reason, what string) (string, method.Outcome) {
		_, o := refuse(reason, "%s", what)
		return "", o
	}
	id, _ = claims["jti"].(string) // 3
	htm, _ := claims["htm"].(string)
	htu, _ := claims["htu"].(string)
	ath, _ := claims["ath"].(string)
	iat, there, ok := token.Date(claims, "iat")
	sum := sha256.Sum256(text)
	var want [43]byte // base64url of 32 bytes
	base64.RawURLEncoding.Encode(want[:], sum[:])
	switch {
	case id == "" || len(id) > maxID:
		return no(invalid, "jti is missing, or too long")
	case htm != string(x.Request.Method): // 8
		return no(invalid, "htm is not the method of the request")
	case !sameURL(x, htu): // 9
		return no(invalid, "htu is not the URL of the request")
	case !there || !ok: // 11
		return no(invalid, "iat is missing, or no time")
	case x.Start.After(iat.Add(c.age)):
		return no(old, "the proof is older than "+c.age.String())
	case iat.After(x.Start.Add(ahead)):
		return no(old, "the proof is of the future: the clocks differ")
	case subtle.ConstantTimeCompare(want[:], []byte(ath)) != 1: // 12
		return no(invalid, "ath is not the hash of the token")
	}
	return id, method.Outcome{}
}

// key checks the proof's key and its signature, and only then that the proof is new: nobody else may use up its jti.
func (c *Checker) key(x *exchange.Exchange, j *token.JWS, jkt []byte, id string) (bool, method.Outcome) {
	jwk, _ := j.Header["jwk"].(map[string]any)
	if jwk == nil {
		return refuse(invalid, "the header has no jwk")
	}
	k, err := token.PublicKey(jwk) // 7
	if err != nil {
		return refuse(invalid, "jwk %v", err)
	}
	thumb := k.Thumbprint()
	switch {
	case k.Bits() > maxRSA:
		return refuse(invalid, "jwk is an RSA key of more than %d bits", maxRSA)
	case subtle.ConstantTimeCompare(thumb[:], jkt) != 1: // 12
		return refuse(wrongKey, "the token is bound to another key")
	}
	if f := k.Verify(j, token.Asymmetric); f != nil { // 6
		return refuse(invalid, "%s", f.Error())
	}
	if x.Dry {
		return true, method.Outcome{}
	}
	sum := token.HashOf(c.owner[:], thumb[:], []byte(id))
	switch c.seen.add(thumb[0], [16]byte(sum[:16]), x.Start) { // section 11.1
	case again:
		return refuse(replayed, "the proof was used before")
	case full:
		return false, method.Outcome{State: method.Unavailable, Reason: storeFull, Detail: "too many proofs are remembered"}
	}
	return true, method.Outcome{}
}

// sameURL compares htu with the URL of the request as the client wrote it, both normalised (RFC 3986 sections 6.2.2 and 6.2.3), without
// query and fragment.
func sameURL(x *exchange.Exchange, htu string) bool {
	b := []byte(htu)
	if i := bytes.IndexAny(b, "?#"); i >= 0 {
		b = b[:i]
	}
	scheme, rest, ok := bytes.Cut(b, []byte("://"))
	if !ok || !exchange.EqualFold(scheme, x.Scheme) {
		return false
	}
	authority, path := rest, []byte("/")
	if i := bytes.IndexByte(rest, '/'); i >= 0 {
		authority, path = rest[:i], rest[i:]
	}
	theirs, _, ok := exchange.ParseAuthority(nil, authority)
	if !ok {
		return false
	}
	ours, _, ok := exchange.ParseAuthority(nil, x.Request.Authority)
	if !ok || !bytes.Equal(theirs.Host, ours.Host) || !bytes.Equal(port(theirs, x.Scheme), port(ours, x.Scheme)) {
		return false
	}
	canonical, _, ok := exchange.CanonicalPath(nil, path)
	want := x.ClientPath
	if want == nil {
		want = x.Request.Path
	}
	return ok && bytes.Equal(canonical.Canonical, want)
}

func port(a exchange.Authority, scheme string) []byte {
	switch {
	case a.Port != nil:
		return a.Port
	case scheme == "https":
		return []byte("443")
	}
	return []byte("80")
}
