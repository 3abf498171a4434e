package oidc

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"

	"github.com/gatehouse-io/gatehouse/internal/secret"
)

const (
	keySize    = 32
	maxRing    = 16
	secretKey  = "client_secret"
	sessionKey = "session_keys"
)

// Purposes: each has its own keys, so that attempts to log in, which anybody can make us seal, use up nothing of a session's key.
type purpose int

const (
	forSession purpose = iota
	forLogin
	purposes
)

// ring is what one material of the Secret gives.
type ring struct {
	of     *secret.Material
	why    string // nothing can be sealed or opened; "" if it can
	secret string // the client's
	keys   [purposes][]cipher.AEAD
}

// keys is the ring that counts now, nil and why if there is none. Ciphers are made once for a material: it is swapped whole.
func (m *login) keys() (r *ring, why string) {
	mat := m.material.Now()
	if mat == nil {
		return nil, "the Secret that clientSecretRef names is not there"
	}
	r = m.ring.Load()
	if r == nil || r.of != mat {
		r = newRing(mat)
		m.ring.Store(r)
	}
	if r.why != "" {
		return nil, r.why
	}
	return r, ""
}

func newRing(mat *secret.Material) *ring {
	r := &ring{of: mat, secret: string(bytes.TrimSpace(mat.Data[secretKey].Reveal()))}
	if r.secret == "" {
		r.why = "the Secret that clientSecretRef names has no key client_secret"
		return r
	}
	masters, why := mastersOf(mat, r.secret)
	if why != "" {
		r.why = why
		return r
	}
	for _, master := range masters {
		for p, label := range [purposes]string{"gatehouse oidc session 1", "gatehouse oidc login 1"} {
			key, err := hkdf.Key(sha256.New, master, nil, label, keySize)
			if err != nil {
				r.why = "no key can be derived: " + err.Error()
				return r
			}
			block, err := aes.NewCipher(key)
			if err != nil {
				r.why = err.Error()
				return r
			}
			aead, err := cipher.NewGCM(block)
			if err != nil {
				r.why = err.Error()
				return r
			}
			r.keys[p] = append(r.keys[p], aead)
		}
	}
	return r
}

// mastersOf reads session_keys. One line that cannot be read makes all of them useless: a key that silently does not count is found out
// too late.
func mastersOf(mat *secret.Material, clientSecret string) (masters [][]byte, why string) {
	text, there := mat.Data[sessionKey]
	if !there {
		return [][]byte{[]byte(clientSecret)}, ""
	}
	for i, line := range bytes.Split(text.Reveal(), []byte("\n")) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(string(line))
		if err != nil || len(key) != keySize {
			return nil, fmt.Sprintf("line %d of session_keys is not base64 of 32 bytes: write what openssl rand -base64 32 prints", i+1)
		}
		masters = append(masters, key)
	}
	switch {
	case len(masters) == 0:
		return nil, "session_keys is empty: write lines of base64 of 32 bytes, or leave it out"
	case len(masters) > maxRing:
		return nil, fmt.Sprintf("session_keys has %d keys, and %d are the most", len(masters), maxRing)
	}
	return masters, ""
}

// seal encrypts and authenticates text for one purpose and place; the result is base64url.
func (r *ring) seal(p purpose, place, text []byte) []byte {
	aead := r.keys[p][0]
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(text)+aead.Overhead())
	_, _ = rand.Read(nonce) // crypto/rand ends the program rather than fail
	sealed := aead.Seal(nonce, nonce, text, place)
	out := make([]byte, base64.RawURLEncoding.EncodedLen(len(sealed)))
	base64.RawURLEncoding.Encode(out, sealed)
	return out
}

// unseal is the inverse of seal, with any key of the ring; false: none fits, or what was sealed for another place.
func (r *ring) unseal(p purpose, place, sealed []byte) ([]byte, bool) {
	raw := make([]byte, base64.RawURLEncoding.DecodedLen(len(sealed)))
	n, err := base64.RawURLEncoding.Strict().Decode(raw, sealed)
	if err != nil {
		return nil, false
	}
	raw = raw[:n]
	for _, aead := range r.keys[p] {
		size := aead.NonceSize()
		if len(raw) < size {
			return nil, false
		}
		if text, err := aead.Open(nil, raw[:size], raw[size:], place); err == nil {
			return text, true
		}
	}
	return nil, false
}
