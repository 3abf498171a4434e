package exchange

import (
	"bytes"
	"strings"
	"testing"
)

// TestFieldValueEnd puts each byte at each place of values of all lengths around the width of the scan's steps, among bytes that
// the scan could mistake.
func TestFieldValueEnd(t *testing.T) {
	for _, fill := range []byte{' ', 'a', '~', '\t', 0x80, 0x9f, 0xa0, 0xff} {
		for size := range 40 {
			b := bytes.Repeat([]byte{fill}, size)
			if got := FieldValueEnd(b, 0); got != size {
				t.Fatalf("FieldValueEnd(%q, 0) = %d, want %d", b, got, size)
			}
			for at := range size {
				for c := range 256 {
					b[at] = byte(c)
					want := size
					if c < ' ' && c != '\t' || c == 0x7f {
						want = at
					}
					if got := FieldValueEnd(b, 0); got != want {
						t.Fatalf("FieldValueEnd(%q, 0) = %d, want %d", b, got, want)
					}
				}
				b[at] = fill
			}
		}
	}
}

func TestFieldValueEndFrom(t *testing.T) {
	b := []byte("a\r\nb: c\r\n")
	for from, want := range map[int]int{0: 1, 1: 1, 2: 2, 3: 7, 9: 9} {
		if got := FieldValueEnd(b, from); got != want {
			t.Errorf("FieldValueEnd(%q, %d) = %d, want %d", b, from, got, want)
		}
	}
}

func TestIsToken(t *testing.T) {
	const tokens = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for c := range 256 {
		b := []byte{'a', byte(c)}
		if want := strings.IndexByte(tokens, byte(c)) >= 0; IsToken(b) != want || IsTokenByte(byte(c)) != want {
			t.Errorf("IsToken(%q) = %v, want %v", b, !want, want)
		}
	}
	if IsToken(nil) {
		t.Error("IsToken of nothing = true, want false")
	}
}

func TestIsFieldValue(t *testing.T) {
	for v, want := range map[string]bool{"": true, "a b\tc": true, "caf\xc3\xa9": true, "a\r\nb: c": false, "a\x00": false, "\x7f": false} {
		if got := IsFieldValue([]byte(v)); got != want {
			t.Errorf("IsFieldValue(%q) = %v, want %v", v, got, want)
		}
	}
}
