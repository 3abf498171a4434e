// Package secret holds secret values, the form of the keys that Gatehouse issues and, on the data side, secret bytes by
// handle, swapped beside the snapshot. A value never prints, logs or marshals itself: every way to text gives "[redacted]".
package secret

import (
	"crypto/subtle"
	"fmt"
	"log/slog"
	"sync/atomic"
)

const redacted = "[redacted]"

// Value is one secret byte string. Its zero value is empty.
//
// The bytes lie behind two pointers because fmt prints an unexported field of another struct, and what a verb does not
// fit (%s of a pointer in a map), without asking for a method; it follows one pointer then, never two.
type Value struct{ p **[]byte }

// New copies b into a Value.
func New(b []byte) Value {
	c := append([]byte(nil), b...)
	p := &c
	return Value{&p}
}

// Reveal returns the bytes themselves; the caller must not change, keep or print them.
func (v Value) Reveal() []byte {
	if v.p == nil {
		return nil
	}
	return **v.p
}

// Len is the number of bytes.
func (v Value) Len() int { return len(v.Reveal()) }

// Equal compares in a time that depends on the lengths only.
func (v Value) Equal(o Value) bool { return subtle.ConstantTimeCompare(v.Reveal(), o.Reveal()) == 1 }

// String, GoString, Format, LogValue and MarshalText never show the bytes.
func (v Value) String() string               { return redacted }
func (v Value) GoString() string             { return redacted }
func (v Value) Format(f fmt.State, _ rune)   { fmt.Fprint(f, redacted) }
func (v Value) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (v Value) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Material is the content of one Secret: its type and its values by key. It is not changed once made.
type Material struct {
	Type string
	Data map[string]Value
}

// Set is secret material by handle ("Secret/shop/shop-tls"). It is not changed once published.
type Set map[string]*Material

// Store is the data side's view of secrets: swapped whole, read without locks. The zero value is empty.
type Store struct{ p atomic.Pointer[Set] }

// Swap puts s in place of what was there.
func (s *Store) Swap(set Set) { s.p.Store(&set) }

// Lookup returns the material of a handle, or nil.
func (s *Store) Lookup(handle string) *Material {
	p := s.p.Load()
	if p == nil {
		return nil
	}
	return (*p)[handle]
}
