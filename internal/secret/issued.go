package secret

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
)

// The text of an issued key is gh_<env>_<id>_<secret>_<crc>. All parts but env have a fixed length, so that a text is taken apart from its
// end; the fixed prefix and the checksum let scanners of source code and our own edge tell a key from junk without asking anybody.
const (
	issuedPrefix = "gh_"
	maxEnv       = 16
	idLen        = 12 // of 32 letters: 60 bits, enough that a database of millions does not meet one twice
	secretLen    = 32 // of 62 letters: 190 bits; with the last four characters known, more than 160 are left
	crcLen       = 6  // of 62 letters: holds 32 bits
	tailLen      = 1 + idLen + 1 + secretLen + 1 + crcLen

	// MaxIssued is the length in bytes of the longest issued key.
	MaxIssued = len(issuedPrefix) + maxEnv + tailLen
	minIssued = len(issuedPrefix) + 1 + tailLen
)

const (
	// crockford is the alphabet of ids, which people read to each other: no i, l, o, u.
	crockford = "0123456789abcdefghjkmnpqrstvwxyz"
	base62    = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// Issued is a key that Gatehouse makes and hands out, whole only once. It prints "[redacted]"; Reveal alone shows it. What may be stored
// and shown is Hash, Prefix and LastFour. The zero value is no key.
type Issued struct {
	v   Value
	env int // length
}

// NewIssued makes a key for env, 1 to 16 lower-case letters and digits ("live", "test"), from the random bytes of rand
// (crypto/rand's Reader).
func NewIssued(env string, rand io.Reader) (Issued, error) {
	if err := CheckEnv(env); err != nil {
		return Issued{}, err
	}
	b := make([]byte, 0, len(issuedPrefix)+len(env)+tailLen)
	b = append(b, issuedPrefix...)
	b = append(b, env...)
	var err error
	for _, part := range []struct {
		n        int
		alphabet string
	}{{idLen, crockford}, {secretLen, base62}} {
		b = append(b, '_')
		if b, err = draw(b, part.n, part.alphabet, rand); err != nil {
			return Issued{}, fmt.Errorf("drawing a key: %w", err)
		}
	}
	b = append(b, '_')
	crc := checksum(b)
	b = append(b, crc[:]...)
	i := Issued{v: New(b), env: len(env)}
	clear(b)
	return i, nil
}

// CheckEnv says what is wrong with the name of an environment.
func CheckEnv(env string) error {
	if len(env) == 0 || len(env) > maxEnv {
		return fmt.Errorf("environment %q: write 1 to %d lower-case letters and digits, such as live", env, maxEnv)
	}
	for i := range len(env) {
		if !envByte(env[i]) {
			return fmt.Errorf("environment %q: write lower-case letters and digits only, such as live", env)
		}
	}
	return nil
}

// draw appends n letters of alphabet, each as likely as the others: bytes beyond the last whole multiple of its length are thrown away.
func draw(b []byte, n int, alphabet string, rand io.Reader) ([]byte, error) {
	limit := 256 - 256%len(alphabet)
	var buf [64]byte
	defer clear(buf[:])
	// A source of randomness that gives nothing but what is thrown away is broken; 64 rounds of 64 bytes are not bad luck.
	for range 64 {
		if _, err := io.ReadFull(rand, buf[:]); err != nil {
			return b, err
		}
		for _, r := range buf {
			if n == 0 {
				return b, nil
			}
			if int(r) < limit {
				b = append(b, alphabet[int(r)%len(alphabet)])
				n--
			}
		}
	}
	if n == 0 {
		return b, nil
	}
	return b, errors.New("the source of random bytes is not random")
}

// ParseIssued says whether b has the prefix, shape and checksum of an issued key, and returns its id and environment as parts of b. It
// says nothing about whether Gatehouse ever made it. It allocates nothing.
func ParseIssued(b []byte) (id, env []byte, ok bool) {
	if len(b) < minIssued || len(b) > MaxIssued || string(b[:len(issuedPrefix)]) != issuedPrefix {
		return nil, nil, false
	}
	env, tail := b[len(issuedPrefix):len(b)-tailLen], b[len(b)-tailLen:]
	id = tail[1 : 1+idLen]
	hidden := tail[idLen+2 : idLen+2+secretLen]
	if tail[0] != '_' || tail[idLen+1] != '_' || tail[idLen+secretLen+2] != '_' {
		return nil, nil, false
	}
	for _, c := range env {
		if !envByte(c) {
			return nil, nil, false
		}
	}
	for _, c := range id {
		if !idByte(c) {
			return nil, nil, false
		}
	}
	for _, c := range hidden {
		if !base62Byte(c) {
			return nil, nil, false
		}
	}
	// The checksum guards against typing and scanning errors and is no secret, so a comparison that stops early tells nothing.
	if crc := checksum(b[:len(b)-crcLen]); string(crc[:]) != string(b[len(b)-crcLen:]) {
		return nil, nil, false
	}
	return id, env, true
}

// CheckID says whether id can be the id of an issued key: 12 of Crockford's 32 letters, lower-case.
func CheckID(id string) bool {
	if len(id) != idLen {
		return false
	}
	for i := range len(id) {
		if !idByte(id[i]) {
			return false
		}
	}
	return true
}

func envByte(c byte) bool { return c-'a' < 26 || c-'0' < 10 }

func idByte(c byte) bool {
	return c-'0' < 10 || c-'a' < 26 && c != 'i' && c != 'l' && c != 'o' && c != 'u'
}

func base62Byte(c byte) bool { return c-'0' < 10 || c-'a' < 26 || c-'A' < 26 }

// checksum is the CRC-32 (IEEE) of b as six base62 letters, the most significant first.
func checksum(b []byte) (out [crcLen]byte) {
	n := crc32.ChecksumIEEE(b)
	for i := crcLen - 1; i >= 0; i-- {
		out[i] = base62[n%62]
		n /= 62
	}
	return out
}

// HashOf is the SHA-256 of the whole text of a key: what is stored and looked up. No slow hash is needed, for nobody can try 190 random
// bits.
func HashOf(b []byte) [sha256.Size]byte { return sha256.Sum256(b) }

// Reveal returns the text itself; the caller shows it once and does not keep it.
func (i Issued) Reveal() []byte { return i.v.Reveal() }

// Hash is HashOf the key.
func (i Issued) Hash() [sha256.Size]byte { return HashOf(i.v.Reveal()) }

// Env, ID, Prefix ("gh_live_<id>") and LastFour are the parts that may be shown: people find a key by them. For the zero value they are "".
func (i Issued) Env() string { return i.part(len(issuedPrefix), len(issuedPrefix)+i.env) }

// ID names the key in lists and commands.
func (i Issued) ID() string {
	at := len(issuedPrefix) + i.env + 1
	return i.part(at, at+idLen)
}

// Prefix is everything before the secret part.
func (i Issued) Prefix() string { return i.part(0, len(issuedPrefix)+i.env+1+idLen) }

// LastFour are the last characters, which belong to the checksum.
func (i Issued) LastFour() string { return i.part(i.v.Len()-4, i.v.Len()) }

func (i Issued) part(from, to int) string {
	b := i.v.Reveal()
	if len(b) == 0 {
		return ""
	}
	return string(b[from:to])
}

// String, GoString, Format, LogValue and MarshalText never show the key.
func (i Issued) String() string               { return redacted }
func (i Issued) GoString() string             { return redacted }
func (i Issued) Format(f fmt.State, _ rune)   { fmt.Fprint(f, redacted) }
func (i Issued) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (i Issued) MarshalText() ([]byte, error) { return []byte(redacted), nil }
