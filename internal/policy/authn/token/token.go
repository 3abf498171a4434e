// Package token verifies signed tokens (JWS compact form, RFC 7515; JWT, RFC 7519) as RFC 8725 asks, and keeps the key sets that they are
// verified with. A token never says how it is verified: the algorithm has to be one that the policy allows and that the key is for, and
// keys come from the policy alone. It never reads encrypted tokens, the JSON forms, or keys that a token carries or points to (but
// PublicKey, for proofs of possession), never believes a claim before the signature is checked, and never tells a token in an error.
//
// Bounds: a token has 16 KiB, its JSON 16 levels; a key set 512 KiB and 100 keys; RSA keys 2048 to 8192 bits. A key set is fetched at most
// twice a minute, whatever clients send and servers answer. A request waits for keys at most 40 ms. The cache of verified tokens holds
// 10,000 of them and 10 MiB of their text, each for 60 s at most.
package token

import (
	"bytes"
	"encoding/base64"
	"fmt"
)

// MaxToken is how many bytes a token may have.
const MaxToken = 16 << 10

// Reason words of faults. They stay for ever.
const (
	Malformed    = "token_malformed"
	TooLarge     = "token_too_large"
	BadAlgorithm = "algorithm_not_allowed"
	BadHeader    = "header_not_understood"
	BadType      = "type_not_allowed"
	BadIssuer    = "issuer_unknown"
	BadAudience  = "audience_wrong"
	Expired      = "token_expired"
	NoExpiry     = "expiry_missing"
	NotYet       = "token_not_yet_valid"
	KeyUnknown   = "key_unknown"
	NoKeyID      = "kid_missing"
	BadSignature = "signature_invalid"
	Unavailable  = "jwks_unavailable" // the only one that says nothing about the token
)

// Fault is why a token is not accepted.
type Fault struct {
	Reason string // stable word
	Detail string // for the log; holds no token
}

func (f *Fault) Error() string {
	if f.Detail == "" {
		return f.Reason
	}
	return f.Reason + ": " + f.Detail
}

func fault(reason, format string, args ...any) *Fault {
	return &Fault{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

// JWS is a signed text taken apart. Nothing of it is verified.
type JWS struct {
	Header    map[string]any // the protected header
	Algorithm Algorithms     // one, that of alg
	KeyID     string         // kid, "" if there is none
	Type      string         // typ, "" if there is none
	Payload   []byte

	signed    []byte // what is signed, in the text that Parse was given
	signature []byte
}

// Parse takes the compact form of a JWS apart (RFC 7515 section 7.1), strictly: three parts in base64url without padding or stray bits, a
// header of valid JSON without a repeated member, a known algorithm, and no extension that has to be understood (section 4.1.11). The
// result refers to text.
func Parse(text []byte) (*JWS, *Fault) {
	if len(text) > MaxToken {
		return nil, fault(TooLarge, "longer than %d bytes", MaxToken)
	}
	if n := bytes.Count(text, dot); n != 2 {
		return nil, fault(Malformed, "has %d parts, not the three of a signed token", n+1)
	}
	first := bytes.IndexByte(text, '.')
	last := bytes.LastIndexByte(text, '.')
	header, ok1 := decode(text[:first])
	payload, ok2 := decode(text[first+1 : last])
	signature, ok3 := decode(text[last+1:])
	if !ok1 || !ok2 || !ok3 {
		return nil, fault(Malformed, "is not base64url")
	}
	j := &JWS{Payload: payload, signed: text[:last], signature: signature}
	var f *Fault
	if j.Header, f = object(header); f != nil {
		return nil, f
	}
	return j, j.readHeader()
}

func (j *JWS) readHeader() *Fault {
	for _, name := range []string{"crit", "b64"} { // RFC 7797: b64 goes with crit, and changes what is signed
		if _, ok := j.Header[name]; ok {
			return fault(BadHeader, "the header has %s, and no extension is understood", name)
		}
	}
	alg, _ := j.Header["alg"].(string)
	var ok bool
	if j.Algorithm, ok = byName(alg); !ok {
		return fault(BadAlgorithm, "alg %s is none that is known", quote(alg))
	}
	for name, to := range map[string]*string{"kid": &j.KeyID, "typ": &j.Type} {
		v, there := j.Header[name]
		if *to, ok = v.(string); there && !ok {
			return fault(Malformed, "%s in the header is not a text", name)
		}
	}
	return nil
}

// Claims decodes the payload as a JSON object without repeated members. Numbers are int64 or uint64 if they are whole and fit, else
// float64.
func (j *JWS) Claims() (map[string]any, *Fault) { return object(j.Payload) }

// quote makes a text from outside fit for a log line.
func quote(s string) string {
	if len(s) > 64 {
		s = s[:64]
	}
	return fmt.Sprintf("%q", s)
}

var (
	dot = []byte(".")
)

// decode reads base64url as RFC 7515 section 2 has it. Go's decoder skips line ends and, unless strict, stray bits: both would give one
// token several spellings.
func decode(b []byte) ([]byte, bool) {
	for _, c := range b {
		if c-'a' >= 26 && c-'A' >= 26 && c-'0' >= 10 && c != '-' && c != '_' {
			return nil, false
		}
	}
	out := make([]byte, base64.RawURLEncoding.DecodedLen(len(b)))
	n, err := base64.RawURLEncoding.Strict().Decode(out, b)
	return out[:n], err == nil
}
