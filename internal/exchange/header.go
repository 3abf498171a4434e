package exchange

import (
	"bytes"
	"slices"
	"strings"
)

// Field is one header field. Name keeps the case in which it was written; comparing names ignores case.
// The bytes of a field that came from a peer lie in a buffer of its connection: see Exchange.
type Field struct {
	Name, Value []byte
}

// Header is a header or trailer section: fields in the order of arrival. The zero value is empty and ready.
// No method allocates unless the section grows past what it held before.
type Header struct {
	fields []Field
}

// Reset empties the section and keeps its room.
func (h *Header) Reset() { h.fields = h.fields[:0] }

// Pack has the section hold no more memory than its fields need, of its own: for an exchange that lasts long.
func (h *Header) Pack() {
	n := 0
	for _, f := range h.fields {
		n += len(f.Name) + len(f.Value)
	}
	room, fields := make([]byte, 0, n), make([]Field, len(h.fields))
	keep := func(b []byte) []byte {
		at := len(room)
		room = append(room, b...)
		return room[at:len(room):len(room)]
	}
	for i, f := range h.fields {
		fields[i] = Field{Name: keep(f.Name), Value: keep(f.Value)}
	}
	h.fields = fields
}

// Len is the number of field lines.
func (h *Header) Len() int { return len(h.fields) }

// All returns the field lines. The slice is valid until the section changes; the caller may change Values in place.
func (h *Header) All() []Field { return h.fields }

// Append adds a field line at the end, without a copy of its bytes.
func (h *Header) Append(name, value []byte) {
	h.fields = append(h.fields, Field{Name: name, Value: value})
}

// Get returns the value of the first field named name, or nil; a field that is there and empty is not nil.
func (h *Header) Get(name string) []byte {
	for i := range h.fields {
		if EqualFold(h.fields[i].Name, name) {
			if v := h.fields[i].Value; v != nil {
				return v
			}
			return []byte{}
		}
	}
	return nil
}

// Has reports whether a field named name is there.
func (h *Header) Has(name string) bool {
	for i := range h.fields {
		if EqualFold(h.fields[i].Name, name) {
			return true
		}
	}
	return false
}

// Count is the number of field lines named name.
func (h *Header) Count(name string) int {
	n := 0
	for i := range h.fields {
		if EqualFold(h.fields[i].Name, name) {
			n++
		}
	}
	return n
}

// Joined appends to dst the values of all fields named name, joined by ", " (RFC 9110 section 5.3), those of Cookie by "; "
// (RFC 9113 section 8.2.3), and reports whether there was one.
func (h *Header) Joined(dst []byte, name string) ([]byte, bool) {
	found, comma := false, ", "
	if strings.EqualFold(name, "cookie") {
		comma = "; "
	}
	for i := range h.fields {
		if EqualFold(h.fields[i].Name, name) {
			if found {
				dst = append(dst, comma...)
			}
			dst = append(dst, h.fields[i].Value...)
			found = true
		}
	}
	return dst, found
}

// Set puts one field in the place of all fields of that name: at the first one's place, else at the end.
func (h *Header) Set(name, value []byte) {
	for i := range h.fields {
		if foldEqual(h.fields[i].Name, name) {
			h.fields[i] = Field{Name: name, Value: value}
			h.delFrom(i+1, name)
			return
		}
	}
	h.Append(name, value)
}

// Del removes all fields named name.
func (h *Header) Del(name string) {
	j := 0
	for i := range h.fields {
		if !EqualFold(h.fields[i].Name, name) {
			if i != j {
				h.fields[j] = h.fields[i]
			}
			j++
		}
	}
	h.fields = h.fields[:j]
}

// DelFunc removes the fields for which drop is true.
func (h *Header) DelFunc(drop func(Field) bool) {
	j := 0
	for i := range h.fields {
		if !drop(h.fields[i]) {
			h.fields[j] = h.fields[i]
			j++
		}
	}
	h.fields = h.fields[:j]
}

// Extend adds n empty field lines at the end and returns them, to be filled in place: codecs that know how many there are
// save the bookkeeping of Append.
func (h *Header) Extend(n int) []Field {
	old := len(h.fields)
	h.fields = slices.Grow(h.fields, n)[:old+n]
	return h.fields[old:]
}

// Truncate keeps the first n field lines.
func (h *Header) Truncate(n int) { h.fields = h.fields[:n] }

func (h *Header) delFrom(from int, name []byte) {
	j := from
	for i := from; i < len(h.fields); i++ {
		if !foldEqual(h.fields[i].Name, name) {
			h.fields[j] = h.fields[i]
			j++
		}
	}
	h.fields = h.fields[:j]
}

// EqualFold compares a field name with s, ignoring ASCII case.
func EqualFold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i := range b {
		if b[i] != s[i] && lower[b[i]] != lower[s[i]] {
			return false
		}
	}
	return true
}

func foldEqual(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	if bytes.Equal(a, b) {
		return true
	}
	for i := range a {
		if lower[a[i]] != lower[b[i]] {
			return false
		}
	}
	return true
}

// lower maps ASCII upper case to lower case and every other byte to itself.
var lower = func() (t [256]byte) {
	for i := range t {
		t[i] = byte(i)
		if 'A' <= i && i <= 'Z' {
			t[i] = byte(i) + 'a' - 'A'
		}
	}
	return t
}()

// Lower is c in lower case if it is an ASCII letter, else c.
func Lower(c byte) byte { return lower[c] }
