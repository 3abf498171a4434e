package exchange

import (
	"encoding/binary"
	"math/bits"
)

// IsTokenByte reports whether c may stand in a token: a method, a field name (RFC 9110 section 5.6.2).
func IsTokenByte(c byte) bool { return token[c] }

// IsToken reports whether b is a token: one or more token bytes.
func IsToken(b []byte) bool {
	for _, c := range b {
		if !token[c] {
			return false
		}
	}
	return len(b) > 0
}

// IsFieldValue reports whether b may be a field value: no control byte but HTAB (RFC 9110 section 5.5). White space at its
// ends is not looked at: HTTP/1 strips it, HTTP/2 forbids it.
func IsFieldValue(b []byte) bool { return FieldValueEnd(b, 0) == len(b) }

// FieldValueEnd is the index of the first byte at or after from that cannot stand in a field value, or len(b): a control
// byte other than HTAB, or DEL. In an HTTP/1 head that is the CR of the line's end if the line is well formed.
func FieldValueEnd(b []byte, from int) int {
	const (
		ones = 0x0101010101010101
		high = 0x8080808080808080
	)
	// A byte below 0x20, or equal to 0x7f, sets its high bit in one of the differences; so may one above 0x7f, and the next
	// one after such a byte. Words without such a bit are passed over.
	i := from
	for i+16 <= len(b) {
		p := (*[16]byte)(b[i:])
		w, x := binary.LittleEndian.Uint64(p[:8]), binary.LittleEndian.Uint64(p[8:])
		if ((w-0x20*ones)|((w^0x7f*ones)-ones)|(x-0x20*ones)|((x^0x7f*ones)-ones))&high != 0 {
			break
		}
		i += 16
	}
	for i+8 <= len(b) {
		w := binary.LittleEndian.Uint64(b[i:])
		del := w ^ 0x7f*ones
		// Now without those above 0x7f. Borrows make mistakes only above the first byte that counts.
		hit := ((w - 0x20*ones) &^ w & high) | ((del - ones) &^ del & high)
		if hit == 0 {
			i += 8
			continue
		}
		i += bits.TrailingZeros64(hit) >> 3
		if b[i] != '\t' {
			return i
		}
		i++
	}
	for ; i < len(b); i++ {
		if c := b[i]; c < 0x20 && c != '\t' || c == 0x7f {
			return i
		}
	}
	return i
}

// token holds the bytes of a token.
var token = func() (t [256]bool) {
	for _, c := range "!#$%&'*+-.^_`|~" {
		t[c] = true
	}
	for c := '0'; c <= '9'; c++ {
		t[c] = true
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = true, true
	}
	return t
}()
