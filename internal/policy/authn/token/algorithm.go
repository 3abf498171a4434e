package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	_ "crypto/sha256" // the hash of RS256 and others
	_ "crypto/sha512"
	"fmt"
	"math/big"
	"strings"

	"github.com/gatehouse-io/gatehouse/internal/diag"
)

// Algorithms is a set of signature algorithms (RFC 7518 section 3.1, RFC 8037).
type Algorithms uint16

// The algorithms, one bit each.
const (
	RS256 Algorithms = 1 << iota
	RS384
	RS512
	PS256
	PS384
	PS512
	ES256
	ES384
	ES512
	EdDSA
	HS256
	HS384
	HS512
)

// Sets of algorithms.
const (
	Symmetric  = HS256 | HS384 | HS512
	Asymmetric = RS256 | RS384 | RS512 | PS256 | PS384 | PS512 | ES256 | ES384 | ES512 | EdDSA
)

// names stand in the order of the bits.
var names = [...]string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512"}

// byName is the algorithm of a name, letter by letter. Ed25519 is RFC 9864's word for what EdDSA means here.
func byName(name string) (Algorithms, bool) {
	if name == "Ed25519" {
		return EdDSA, true
	}
	for i, n := range names {
		if n == name {
			return 1 << i, true
		}
	}
	return 0, false
}

// String is the names with spaces between them.
func (a Algorithms) String() string {
	var out []string
	for i, n := range names {
		if a&(1<<i) != 0 {
			out = append(out, n)
		}
	}
	return strings.Join(out, " ")
}

// ParseAlgorithms reads a list of names; an empty one is Asymmetric. A list that mixes HS* with others is refused: it is how a public key
// comes to be used as a secret (RFC 8725 section 2.1). Faults have the path [i] or none.
func ParseAlgorithms(list []string) (Algorithms, []error) {
	if len(list) == 0 {
		return Asymmetric, nil
	}
	var all Algorithms
	var faults []error
	for i, n := range list {
		a, ok := byName(n)
		if !ok {
			faults = append(faults, &diag.Problem{Path: fmt.Sprintf("[%d]", i), Msg: fmt.Sprintf("%q is not known", n),
				Hint: "write one of " + strings.Join(names[:], ", ")})
		}
		all |= a
	}
	if all&Symmetric != 0 && all&Asymmetric != 0 {
		faults = append(faults, &diag.Problem{Msg: "mixes HS* with algorithms of public keys", Hint: "keep one kind for an issuer"})
	}
	return all, faults
}

// hash is the hash function of an algorithm.
func (a Algorithms) hash() crypto.Hash {
	switch a {
	case RS256, PS256, ES256, HS256:
		return crypto.SHA256
	case RS384, PS384, ES384, HS384:
		return crypto.SHA384
	}
	return crypto.SHA512
}

// verify checks a signature with the primitives of the standard library. It is only called for an algorithm that the key fits.
func (k *Key) verify(a Algorithms, signed, signature []byte) bool {
	if a == EdDSA {
		key, ok := k.public.(ed25519.PublicKey)
		return ok && len(signature) == ed25519.SignatureSize && ed25519.Verify(key, signed, signature)
	}
	h := a.hash()
	if secret, ok := k.public.([]byte); ok {
		mac := hmac.New(h.New, secret)
		mac.Write(signed)
		return a&Symmetric != 0 && hmac.Equal(mac.Sum(nil), signature)
	}
	d := h.New()
	d.Write(signed)
	digest := d.Sum(nil)
	switch key := k.public.(type) {
	case *rsa.PublicKey:
		if len(signature) != key.Size() {
			return false
		}
		if a&(PS256|PS384|PS512) != 0 { // RFC 7518 section 3.5: the salt is as long as the hash
			return rsa.VerifyPSS(key, h, digest, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
		return a&(RS256|RS384|RS512) != 0 && rsa.VerifyPKCS1v15(key, h, digest, signature) == nil
	case *ecdsa.PublicKey:
		n := (key.Curve.Params().BitSize + 7) / 8
		if len(signature) != 2*n { // RFC 7518 section 3.4
			return false
		}
		r, s := new(big.Int).SetBytes(signature[:n]), new(big.Int).SetBytes(signature[n:])
		return ecdsa.Verify(key, digest, r, s)
	}
	return false
}
