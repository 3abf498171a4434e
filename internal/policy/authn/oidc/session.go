package oidc

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/token"
)

// session is what a session's cookie holds. Times are seconds since 1970.
type session struct {
	started int64  // of the login
	renewAt int64  // from then on the tokens are to be renewed
	expires int64  // of the tokens
	id      string // the id token as it came, for logging out; "" if it is left out
	claims  []byte // the id token's payload, a JSON object
	access  string // "" unless it is forwarded
	refresh string // "" if there is none
}

// version of the encoding; another one is not read.
const version = 1

// encode writes the session. Signed tokens are base64url of JSON and a signature: they are kept as bytes, which makes up for the base64 of
// the cookie. Nothing is compressed: lengths would tell about contents, and reading would have to be bounded.
func (s *session) encode() []byte {
	b := []byte{version}
	for _, n := range []int64{s.started, s.renewAt, s.expires} {
		b = binary.AppendVarint(b, n)
	}
	if s.id != "" {
		b = appendToken(append(b, 1), s.id)
	} else {
		b = appendBytes(append(b, 0), s.claims)
	}
	b = appendToken(b, s.access)
	return appendToken(b, s.refresh)
}

func appendBytes(b, text []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// appendToken writes a token: 3 and its three parts, if they are base64url that comes back the same; else 1 and the text.
func appendToken(b []byte, text string) []byte {
	parts := bytes.Split([]byte(text), []byte("."))
	var raw [3][]byte
	packed := len(parts) == 3
	for i := 0; packed && i < 3; i++ {
		var err error
		raw[i], err = base64.RawURLEncoding.Strict().DecodeString(string(parts[i]))
		packed = err == nil && base64.RawURLEncoding.EncodeToString(raw[i]) == string(parts[i])
	}
	if !packed {
		return appendBytes(append(b, 1), []byte(text))
	}
	b = append(b, 3)
	for _, p := range raw {
		b = appendBytes(b, p)
	}
	return b
}

// decode reads what encode wrote; false: it is something else. The parts of the result are copies.
func decode(b []byte) (s *session, ok bool) {
	r := cursor{b: b, ok: true}
	if r.byte() != version {
		return nil, false
	}
	s = &session{}
	for _, to := range []*int64{&s.started, &s.renewAt, &s.expires} {
		*to = r.varint()
	}
	switch r.byte() {
	case 0:
		s.claims = bytes.Clone(r.bytes())
	case 1:
		var payload []byte
		s.id, payload = r.token()
		s.claims = bytes.Clone(payload)
	default:
		return nil, false
	}
	s.access, _ = r.token()
	s.refresh, _ = r.token()
	return s, r.ok && len(r.b) == 0
}

// cursor reads; once something does not fit, ok is false and all else is empty.
type cursor struct {
	b  []byte
	ok bool
}

func (r *cursor) fail() {
	r.b, r.ok = nil, false
}

func (r *cursor) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *cursor) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *cursor) bytes() []byte {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > uint64(len(r.b)-n) {
		r.fail()
		return nil
	}
	out := r.b[n : n+int(v)]
	r.b = r.b[n+int(v):]
	return out
}

// token reads what appendToken wrote; payload is the second of three parts.
func (r *cursor) token() (text string, payload []byte) {
	switch r.byte() {
	case 1:
		return string(r.bytes()), nil
	case 3:
		var out []byte
		for i := range 3 {
			p := r.bytes()
			if i > 0 {
				out = append(out, '.')
			}
			if i == 1 {
				payload = p
			}
			out = base64.RawURLEncoding.AppendEncode(out, p)
		}
		return string(out), payload
	}
	r.fail()
	return "", nil
}

// place is what a cookie is sealed for: elsewhere it does not open (a cookie of another name, host, issuer, client or scopes).
func (m *login) place(name string, host []byte) []byte {
	b := make([]byte, 0, len(name)+len(host)+len(m.bound)+2)
	b = append(append(b, name...), 0)
	b = append(append(b, host...), 0)
	return append(b, m.bound...)
}

// key stands for a session's cookies, as this method reads them from this host.
func (m *login) key(x *exchange.Exchange, text []byte) [sha256.Size]byte {
	name := schemeHTTP // of the two spellings, which are sealed for different places
	if x.Scheme == "https" {
		name = schemeHTTPS
	}
	all, _ := x.Keep(m.rules[:], name, x.Request.Host, newline, text)
	return sha256.Sum256(all)
}

var (
	newline     = []byte("\n")
	schemeHTTP  = []byte("h")
	schemeHTTPS = []byte("s")
)

// known is an opened session and what follows from it. It is shared and never changed.
type known struct {
	*session
	identity exchange.Identity
	header   []exchange.Field
	ring     *ring // that it was opened with
	size     int   // of the sealed text
}

// unseal opens a session's text.
func (m *login) unseal(x *exchange.Exchange, r *ring, text []byte) (*known, bool) {
	plain, ok := r.unseal(forSession, m.place(m.names.of(x).session, x.Request.Host), text)
	if !ok {
		return nil, false
	}
	s, ok := decode(plain)
	if !ok {
		return nil, false
	}
	return m.knowledge(s, r, len(text))
}

// knowledge reads the identity of a session.
func (m *login) knowledge(s *session, r *ring, size int) (*known, bool) {
	claims, f := claimsOf(s.claims)
	if f != nil {
		return nil, false
	}
	k := &known{session: s, identity: m.claims.Identity(claims), header: m.claims.Header(claims), ring: r, size: size}
	if m.forward { // without a token the client's own goes all the same: a backend would take it for ours
		f := exchange.Field{Name: fieldAuthorization}
		if s.access != "" {
			f.Value = []byte("Bearer " + s.access)
		}
		k.header = append(k.header, f)
	}
	return k, true
}

var fieldAuthorization = []byte("Authorization")

// claimsOf decodes a payload as strictly as when it came.
func claimsOf(payload []byte) (map[string]any, *token.Fault) {
	return (&token.JWS{Payload: payload}).Claims()
}

// pack seals a session and knows it. What is too large is tried without the id token, which is only a help for logging out, and then
// without claims about the person that nothing in the spec names. Others stay: a rule may ask for them, or ask that they are not there.
func (m *login) pack(s *session, r *ring, place []byte) (sealed []byte, k *known, ok bool) {
	const most = maxChunks*maxChunk - 2
	small := *s
	for step := 0; ; step++ {
		sealed = r.seal(forSession, place, small.encode())
		if len(sealed) <= most {
			break
		}
		switch step {
		case 0:
			small.id = ""
		case 1:
			small.claims = m.shorten(s.claims)
		default:
			return nil, nil, false
		}
	}
	k, ok = m.knowledge(&small, r, len(sealed))
	return sealed, k, ok
}

// shorten leaves claims out that describe a person (OpenID Connect Core section 5.1) or belong to the token alone.
func (m *login) shorten(payload []byte) []byte {
	var claims map[string]json.RawMessage
	if json.Unmarshal(payload, &claims) != nil {
		return payload
	}
	for _, name := range []string{"at_hash", "c_hash", "s_hash", "given_name", "family_name", "middle_name", "nickname", "profile", "picture",
		"website", "gender", "birthdate", "zoneinfo", "locale", "updated_at", "address"} {
		if !m.wanted[name] {
			delete(claims, name)
		}
	}
	out, err := json.Marshal(claims)
	if err != nil {
		return payload
	}
	return out
}
