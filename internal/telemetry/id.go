package telemetry

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"sync/atomic"
)

const hexDigits = "0123456789abcdef"

// IDLen is the length of an id that NewID makes.
const IDLen = 32

// MaxID is the longest request id taken over from a trusted peer.
const MaxID = 128

// ids makes request ids: 64 bits drawn once for the process, and a counter passed through a bijection, so that ids never repeat
// within a process, and no random number is drawn for a request.
type ids struct {
	prefix [16]byte
	start  uint64
	n      atomic.Uint64
}

func (i *ids) seed() error {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return fmt.Errorf("seeding request ids: %w", err)
	}
	putHex(i.prefix[:], binary.BigEndian.Uint64(b[:8]))
	i.start = binary.BigEndian.Uint64(b[8:])
	return nil
}

func putHex(dst []byte, v uint64) {
	for j := range 16 {
		dst[j] = hexDigits[v>>(60-4*j)&0xf]
	}
}

// NewID appends a new request id to dst: 32 lower-case hex digits. It is unique, not secret.
func (r *Recorder) NewID(dst []byte) []byte {
	// The finaliser of SplitMix64, a bijection on 64 bits (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators).
	z := r.ids.start + r.ids.n.Add(1)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	var low [16]byte
	putHex(low[:], z)
	dst = append(dst, r.ids.prefix[:]...)
	return append(dst, low[:]...)
}

// ValidID reports whether an X-Request-Id from a trusted peer may be taken over: 1 to 128 letters, digits and "-_.~:/+=@".
func ValidID(id []byte) bool {
	if len(id) == 0 || len(id) > MaxID {
		return false
	}
	for _, c := range id {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '-' || c == '_' || c == '.' || c == '~' || c == ':' || c == '/' || c == '+' || c == '=' || c == '@':
		default:
			return false
		}
	}
	return true
}
