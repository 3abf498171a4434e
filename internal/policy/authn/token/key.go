package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/go-jose/go-jose/v4"
)

// Bounds of key sets.
const (
	maxSet     = 512 << 10
	maxKeys    = 100
	minRSA     = 2048
	maxRSA     = 8192
	maxTries   = 4 // keys that are tried for a token without kid
	minRSAExp  = 3
	maxExpText = 6 // base64url letters of four bytes
)

// Key is one key that signatures are verified with.
type Key struct {
	id     string
	fits   Algorithms // that it may be used with
	public any        // *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey, or []byte, a secret
	thumb  [sha256.Size]byte
}

// Thumbprint is the SHA-256 of RFC 7638.
func (k *Key) Thumbprint() [sha256.Size]byte { return k.thumb }

// Bits is the size of an RSA key's modulus, 0 for other keys.
func (k *Key) Bits() int {
	if r, ok := k.public.(*rsa.PublicKey); ok {
		return r.N.BitLen()
	}
	return 0
}

// Verify checks the signature of j. The algorithm has to be allowed and one that the key is for.
func (k *Key) Verify(j *JWS, allowed Algorithms) *Fault {
	if j.Algorithm&allowed&k.fits == 0 {
		return fault(BadAlgorithm, "%s is not allowed with this key", j.Algorithm)
	}
	if !k.verify(j.Algorithm, j.signed, j.signature) {
		return &Fault{Reason: BadSignature}
	}
	return nil
}

// PublicKey reads a JWK (RFC 7517) that came with a proof of possession. It has to be a public key, and a good one.
func PublicKey(jwk map[string]any) (*Key, error) {
	k, err := parseKey(jwk)
	if err == nil && k.fits&Symmetric != 0 {
		err = errors.New("is a secret, not a public key")
	}
	return k, err
}

// parseKey reads one JWK. What its certificates say is not asked: a key is trusted for where it was found.
func parseKey(jwk map[string]any) (*Key, error) {
	for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "priv"} {
		if _, ok := jwk[private]; ok {
			return nil, errors.New("holds a private key, which is no longer secret where others read it")
		}
	}
	if use, ok := jwk["use"]; ok && use != "sig" {
		return nil, fmt.Errorf("use is %v, not sig", quoted(use))
	}
	if ops, ok := jwk["key_ops"]; ok {
		if list, _ := ops.([]any); !slices.Contains(list, any("verify")) {
			return nil, errors.New("key_ops does not hold verify")
		}
	}
	if e, ok := jwk["e"].(string); ok && len(e) > maxExpText {
		return nil, errors.New("the exponent e is larger than 2^32")
	}
	bare := map[string]any{}
	for _, name := range []string{"kty", "crv", "x", "y", "n", "e", "k"} {
		if v, ok := jwk[name]; ok {
			bare[name] = v
		}
	}
	text, err := json.Marshal(bare)
	if err != nil {
		return nil, err
	}
	var parsed jose.JSONWebKey
	if err := parsed.UnmarshalJSON(text); err != nil {
		return nil, fmt.Errorf("is no key: %w", err)
	}
	k := &Key{public: parsed.Key}
	if id, ok := jwk["kid"]; ok {
		if k.id, ok = id.(string); !ok {
			return nil, errors.New("kid is not a text")
		}
	}
	if k.fits, err = fits(parsed.Key); err != nil {
		return nil, err
	}
	if alg, ok := jwk["alg"]; ok { // RFC 8725 section 3.1: one key, one algorithm
		name, _ := alg.(string)
		a, _ := byName(name)
		if k.fits &= a; k.fits == 0 {
			return nil, fmt.Errorf("alg %s is none that fits the key", quoted(alg))
		}
	}
	if secret, ok := k.public.([]byte); ok {
		k.thumb = sha256.Sum256(secret)
		return k, nil
	}
	sum, err := parsed.Thumbprint(crypto.SHA256)
	copy(k.thumb[:], sum)
	return k, err
}

func quoted(v any) string {
	s, _ := v.(string)
	return quote(s)
}

// fits says which algorithms a key can be used with, and refuses weak keys.
func fits(key any) (Algorithms, error) {
	switch key := key.(type) {
	case *rsa.PublicKey:
		n := key.N.BitLen()
		switch {
		case n < minRSA || n > maxRSA:
			return 0, fmt.Errorf("is an RSA key of %d bits, not of %d to %d", n, minRSA, maxRSA)
		case key.E < minRSAExp || key.E%2 == 0 || key.N.Bit(0) == 0:
			return 0, fmt.Errorf("is no sound RSA key: its exponent is %d", key.E)
		case weakPrimes(key.N):
			return 0, errors.New("is an RSA key that can be factored (CVE-2017-15361)")
		}
		return RS256 | RS384 | RS512 | PS256 | PS384 | PS512, nil
	case *ecdsa.PublicKey:
		switch key.Curve.Params().BitSize {
		case 256:
			return ES256, nil
		case 384:
			return ES384, nil
		case 521:
			return ES512, nil
		}
	case ed25519.PublicKey:
		if len(key) == ed25519.PublicKeySize {
			return EdDSA, nil
		}
	case []byte:
		var a Algorithms
		for _, h := range []Algorithms{HS256, HS384, HS512} { // RFC 7518 section 3.2
			if len(key) >= h.hash().Size() {
				a |= h
			}
		}
		if a == 0 {
			return 0, fmt.Errorf("is a secret of %d bytes, and even HS256 needs 32", len(key))
		}
		return a, nil
	}
	return 0, errors.New("is of a kind that is not used")
}

// weakPrimes reports whether a modulus bears the mark of keys made from primes of the form k*M + 65537^a mod M, where M is a product of
// small primes: then it is a power of 65537 modulo each of them (Nemec and others, "The Return of Coppersmith's Attack", 2017). A sound
// key passes for one with a chance below 2^-27.
func weakPrimes(n *big.Int) bool {
	var rest big.Int
	for p := int64(3); p <= 167; p += 2 {
		if !big.NewInt(p).ProbablyPrime(0) {
			continue
		}
		r := rest.Mod(n, big.NewInt(p)).Int64()
		g := int64(65537) % p
		found := false
		for power, i := int64(1), int64(0); i < p && !found; i++ {
			found = power == r
			power = power * g % p
		}
		if !found {
			return false
		}
	}
	return true
}

// Keys is a set of keys. It never changes.
type Keys struct {
	keys   []*Key
	byID   map[string][]*Key
	digest [sha256.Size]byte // of the text
}

// Len is the number of keys that can be used.
func (s *Keys) Len() int { return len(s.keys) }

// Fits reports whether a key of the set can be used with one of the algorithms.
func (s *Keys) Fits(a Algorithms) bool {
	return slices.ContainsFunc(s.keys, func(k *Key) bool { return k.fits&a != 0 })
}

// ParseKeys reads a JWK Set (RFC 7517 section 5). A key that cannot be used is left out, and dropped says why, with the path keys[i]; err
// says why there is no set at all. A set is of public keys, or (symmetric) of secrets, never of both.
func ParseKeys(text []byte, symmetric bool) (s *Keys, dropped []error, err error) {
	if len(text) > maxSet {
		return nil, nil, fmt.Errorf("is longer than %d bytes", maxSet)
	}
	set, f := object(text)
	if f != nil {
		return nil, nil, errors.New(f.Detail)
	}
	list, ok := set["keys"].([]any)
	switch {
	case !ok:
		return nil, nil, errors.New("has no list keys")
	case len(list) > maxKeys:
		return nil, nil, fmt.Errorf("has more than %d keys", maxKeys)
	}
	s = &Keys{byID: map[string][]*Key{}, digest: sha256.Sum256(text)}
	drop := func(i int, why string) { dropped = append(dropped, diag.Errorf(fmt.Sprintf("keys[%d]", i), "%s", why)) }
	for i, e := range list {
		m, _ := e.(map[string]any)
		k, err := parseKey(m)
		switch {
		case err != nil:
			drop(i, err.Error())
		case symmetric && k.fits&Symmetric == 0:
			return nil, nil, errors.New("mixes secrets (oct) and public keys")
		case !symmetric && k.fits&Symmetric != 0:
			drop(i, "is a secret (oct): these need algorithms with HS256, HS384 or HS512, and an inline set")
		default:
			s.keys = append(s.keys, k)
		}
	}
	s.index(func(id string) {
		dropped = append(dropped, diag.Errorf("keys", "several keys have the kid %s", quote(id)))
	})
	return s, dropped, nil
}

// index finds keys by kid. Two different keys of one kid that a token cannot tell apart by its alg are both left out: which of them signs
// is not known. The same key twice is one.
func (s *Keys) index(twice func(id string)) {
	var kept []*Key
	for _, k := range s.keys {
		alone := true
		for _, o := range s.keys {
			if o == k || o.id != k.id || o.fits&k.fits == 0 || k.id == "" {
				continue
			}
			if o.thumb != k.thumb {
				alone = false
			}
		}
		same := slices.ContainsFunc(kept, func(o *Key) bool { return o.id == k.id && o.thumb == k.thumb && o.fits == k.fits })
		switch {
		case !alone:
			twice(k.id)
		case !same:
			kept = append(kept, k)
			s.byID[k.id] = append(s.byID[k.id], k)
		}
	}
	s.keys = kept
}

// Verify checks the signature of j with the keys of its kid; if none has it, with those that have no kid at all; for a token without kid,
// with each that fits, up to four.
func (s *Keys) Verify(j *JWS, allowed Algorithms) *Fault {
	if j.Algorithm&allowed == 0 {
		return fault(BadAlgorithm, "%s is not allowed", j.Algorithm)
	}
	found := s.byID[j.KeyID]
	if j.KeyID == "" {
		found = s.keys
	} else if len(found) == 0 {
		found = s.byID[""]
	}
	if len(found) == 0 {
		return fault(KeyUnknown, "no key has the kid %s", quote(j.KeyID))
	}
	tried := 0
	for _, k := range found {
		if k.fits&j.Algorithm == 0 {
			continue
		}
		if tried++; tried > maxTries {
			return fault(NoKeyID, "more than %d keys fit, and the token does not say which", maxTries)
		}
		if k.verify(j.Algorithm, j.signed, j.signature) {
			return nil
		}
	}
	if tried == 0 {
		return fault(BadAlgorithm, "the key is not for %s", j.Algorithm)
	}
	return &Fault{Reason: BadSignature}
}
