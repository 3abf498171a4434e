package token

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth is how deep objects and lists may nest.
const maxDepth = 16

// object decodes one JSON object. It refuses what two readers could read differently: repeated member names, bytes that are not UTF-8,
// numbers out of range.
func object(b []byte) (map[string]any, *Fault) {
	if !utf8.Valid(b) || !json.Valid(b) {
		return nil, fault(Malformed, "is not JSON")
	}
	r := reader{b: b}
	v, f := r.value(0)
	if f != nil {
		return nil, f
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, fault(Malformed, "is JSON, but no object")
	}
	return m, nil
}

// reader decodes a text that is known to be valid JSON, so that it has to look for nothing but its structure.
type reader struct {
	b  []byte
	at int
}

func (r *reader) next() byte {
	for {
		switch c := r.b[r.at]; c {
		case ' ', '\t', '\r', '\n', ',', ':':
			r.at++
		default:
			return c
		}
	}
}

func (r *reader) value(depth int) (any, *Fault) {
	if depth > maxDepth {
		return nil, fault(Malformed, "JSON nests deeper than %d levels", maxDepth)
	}
	switch r.next() {
	case '{':
		return r.object(depth)
	case '[':
		r.at++
		list := []any{}
		for r.next() != ']' {
			v, f := r.value(depth + 1)
			if f != nil {
				return nil, f
			}
			list = append(list, v)
		}
		r.at++
		return list, nil
	case '"':
		return r.text(), nil
	case 't':
		r.at += len("true")
		return true, nil
	case 'f':
		r.at += len("false")
		return false, nil
	case 'n':
		r.at += len("null")
		return nil, nil
	}
	return r.number()
}

func (r *reader) object(depth int) (any, *Fault) {
	r.at++
	m := map[string]any{}
	for r.next() != '}' {
		name := r.text()
		v, f := r.value(depth + 1)
		if f != nil {
			return nil, f
		}
		if _, twice := m[name]; twice {
			return nil, fault(Malformed, "JSON has the member %s twice", quote(name))
		}
		m[name] = v
	}
	r.at++
	return m, nil
}

func (r *reader) text() string {
	start := r.at
	escaped := false
	for r.at++; r.b[r.at] != '"'; r.at++ {
		if r.b[r.at] == '\\' {
			escaped = true
			r.at++
		}
	}
	r.at++
	if !escaped {
		return string(r.b[start+1 : r.at-1])
	}
	var s string
	if json.Unmarshal(r.b[start:r.at], &s) != nil {
		return "" // cannot be: the text is valid
	}
	return s
}

func (r *reader) number() (any, *Fault) {
	start := r.at
	for r.at < len(r.b) && strings.IndexByte("+-.0123456789eE", r.b[r.at]) >= 0 {
		r.at++
	}
	s := string(r.b[start:r.at])
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		return i, nil
	}
	if u, err := strconv.ParseUint(s, 10, 64); err == nil {
		return u, nil
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return nil, fault(Malformed, "a number in JSON is out of range")
	}
	return v, nil
}
