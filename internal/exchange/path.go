package exchange

import (
	"bytes"
	"strings"
)

// PathFlags are the things in a path that servers read differently. Whether they are refused depends on the host, and so
// on a decision after the path was parsed: see Ambiguous.
type PathFlags uint8

// What a path holds.
const (
	EscapedSlash     PathFlags = 1 << iota // %2f
	EscapedBackslash                       // %5c
	EscapedNUL                             // %00
	Backslash                              // a raw one
	DoubleEncodedDot                       // %252e, %25252e ...
	DotParameter                           // a dot segment with a parameter, "/..;x/": some servers cut it, then climb
	EmptySegment                           // "//"
)

// Ambiguous is what a path-sensitive host refuses.
const Ambiguous = EscapedSlash | EscapedBackslash | EscapedNUL | Backslash | DoubleEncodedDot | DotParameter

// String is the words of the flags that are set, joined by ",", for logs and explanations: "escaped_slash,empty_segment".
func (f PathFlags) String() string {
	words := [...]string{
		"escaped_slash", "escaped_backslash", "escaped_nul", "backslash", "double_encoded_dot", "dot_parameter", "empty_segment",
	}
	var set []string
	for i, w := range words {
		if f&(1<<i) != 0 {
			set = append(set, w)
		}
	}
	return strings.Join(set, ",")
}

// Path is one path in its two spellings.
type Path struct {
	// Canonical has its dot segments resolved, unreserved octets (RFC 3986 section 2.3) decoded, every other escape in upper
	// case, and bytes that RFC 3986 does not allow in a path (such as " < > \ ^ ` { | }) escaped. It is a fixed point of
	// CanonicalPath.
	Canonical []byte
	// Raw is the client's spelling with dot segments resolved; its canonical form is Canonical.
	Raw   []byte
	Flags PathFlags
}

// CanonicalPath makes the one canonical path from raw, which begins with "/" and has no query. Dot segments, also those spelt
// with %2e, are resolved as in RFC 3986 section 5.2.4; empty segments stay. It refuses (ok is false) malformed percent-encoding,
// bytes outside visible ASCII, "#" and "?", and a path with both an empty and a dot segment, which servers resolve differently.
//
// A path in which nothing has to change comes back as it is, without a copy; else the new spelling is appended to room, whose
// grown slice is returned for the next use.
func CanonicalPath(room, raw []byte) (p Path, grown []byte, ok bool) {
	if len(raw) == 0 || raw[0] != '/' {
		return Path{}, room, false
	}
	p.Canonical, p.Raw = raw, raw
	if i := plainPrefix(raw); i == len(raw) {
		return p, room, true
	}
	s := pathScan{raw: raw}
	if !s.scan() {
		return Path{}, room, false
	}
	p.Flags = s.flags
	if s.dots {
		if s.flags&EmptySegment != 0 {
			return Path{}, room, false
		}
		start := len(room)
		room = appendResolved(room, raw)
		p.Raw = room[start:len(room):len(room)]
		p.Canonical = p.Raw
	}
	if s.respell {
		start := len(room)
		room = appendRespelt(room, p.Raw)
		p.Canonical = room[start:len(room):len(room)]
	}
	return p, room, true
}

// plainPrefix is how far raw is surely canonical: len(raw), or somewhere before the first byte that needs a closer look.
func plainPrefix(raw []byte) int {
	for i := 1; i < len(raw); i++ {
		switch pathClass[raw[i]] {
		case pathPlain:
		case pathDotSlash:
			if raw[i-1] == '/' {
				return i
			}
		default:
			return i
		}
	}
	return len(raw)
}

// pathScan looks at a path that is not plain.
type pathScan struct {
	raw           []byte
	flags         PathFlags
	dots, respell bool
}

// scan reports whether the path is well formed, and finds out what is in it.
func (s *pathScan) scan() bool {
	for i := 0; i < len(s.raw); i++ {
		switch pathClass[s.raw[i]] {
		case pathPlain:
		case pathDotSlash:
			if s.raw[i] == '/' {
				s.segment(i + 1)
			}
		case pathEscape:
			s.respell = true
			if s.raw[i] == '\\' {
				s.flags |= Backslash
			}
		case pathPercent:
			if !s.escape(i) {
				return false
			}
			i += 2
		default:
			return false
		}
	}
	return true
}

// segment looks at the segment that begins at i.
func (s *pathScan) segment(i int) {
	if i == len(s.raw) {
		return
	}
	if s.raw[i] == '/' {
		s.flags |= EmptySegment
		return
	}
	dots, n := leadingDots(s.raw[i:])
	if dots == 0 || dots > 2 {
		return
	}
	if i+n == len(s.raw) || s.raw[i+n] == '/' {
		s.dots = true
	} else if s.raw[i+n] == ';' {
		s.flags |= DotParameter
	}
}

// escape looks at the percent-encoding at i.
func (s *pathScan) escape(i int) bool {
	c, ok := unescape(s.raw, i)
	if !ok {
		return false
	}
	switch {
	case unreserved(c):
		s.respell = true
		return true
	case c == '/':
		s.flags |= EscapedSlash
	case c == '\\':
		s.flags |= EscapedBackslash
	case c == 0:
		s.flags |= EscapedNUL
	case c == '%':
		if s.escapedDot(i + 3) {
			s.flags |= DoubleEncodedDot
		}
	}
	if s.raw[i+1] >= 'a' || s.raw[i+2] >= 'a' {
		s.respell = true
	}
	return true
}

// escapedDot says whether what follows an escaped "%" makes it, decoded once or more, an escaped dot: "2e", "252e" ...,
// in which each character may be escaped itself.
func (s *pathScan) escapedDot(i int) bool {
	for {
		two, n := octet(s.raw, i)
		last, m := octet(s.raw, i+n)
		if two != '2' || last != '5' {
			return two == '2' && last|0x20 == 'e'
		}
		i += n + m
	}
}

// octet is the octet at b[i], which may be escaped, and how many bytes it takes; 0 and 0 behind the end.
func octet(b []byte, i int) (c byte, n int) {
	if i >= len(b) {
		return 0, 0
	}
	if b[i] == '%' {
		if c, ok := unescape(b, i); ok {
			return c, 3
		}
	}
	return b[i], 1
}

// leadingDots counts the dots, plain or escaped, with which b begins, and the bytes that they take.
func leadingDots(b []byte) (dots, n int) {
	for n < len(b) {
		switch {
		case b[n] == '.':
			n++
		case n+2 < len(b) && b[n] == '%' && b[n+1] == '2' && b[n+2]|0x20 == 'e':
			n += 3
		default:
			return dots, n
		}
		dots++
	}
	return dots, n
}

// appendResolved appends raw, a well-formed path without empty segments, with its dot segments resolved.
func appendResolved(dst, raw []byte) []byte {
	start := len(dst)
	for len(raw) > 0 {
		segment, rest, more := raw[1:], []byte(nil), false
		if i := bytes.IndexByte(segment, '/'); i >= 0 {
			segment, rest, more = segment[:i], segment[i:], true
		}
		dots, n := leadingDots(segment)
		switch {
		case n != len(segment) || dots == 0 || dots > 2:
			dst = append(append(dst, '/'), segment...)
		case dots == 2:
			dst = dst[:start+max(bytes.LastIndexByte(dst[start:], '/'), 0)]
			fallthrough
		default:
			if !more {
				dst = append(dst, '/')
			}
		}
		raw = rest
	}
	return dst
}

// appendRespelt appends the canonical spelling of a well-formed path without dot segments.
func appendRespelt(dst, raw []byte) []byte {
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch pathClass[c] {
		case pathPercent:
			c, _ = unescape(raw, i)
			i += 2
			if unreserved(c) {
				dst = append(dst, c)
				continue
			}
			fallthrough
		case pathEscape:
			dst = append(dst, '%', upperHex[c>>4], upperHex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// MergeEmptySegments is path with every run of slashes as one. A path without empty segments comes back as it is; else the
// new one is appended to room, whose grown slice is returned for the next use.
func MergeEmptySegments(room, path []byte) (merged, grown []byte) {
	if !bytes.Contains(path, []byte("//")) {
		return path, room
	}
	start := len(room)
	for i, c := range path {
		if c != '/' || i == 0 || path[i-1] != '/' {
			room = append(room, c)
		}
	}
	return room[start:len(room):len(room)], room
}

// IsQuery reports whether b may stand after the "?" of a request target: visible ASCII without "#", with well-formed
// percent-encoding. It is laxer than RFC 3986 as browsers are: they send | ^ ` { } [ ] as they are.
func IsQuery(b []byte) bool {
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '%':
			if _, ok := unescape(b, i); !ok {
				return false
			}
			i += 2
		case c <= ' ' || c >= 0x7f || c == '#':
			return false
		}
	}
	return true
}

// unescape is the octet that the percent-encoding at b[i] stands for.
func unescape(b []byte, i int) (c byte, ok bool) {
	if i+2 >= len(b) {
		return 0, false
	}
	hi, lo := hexDigit[b[i+1]], hexDigit[b[i+2]]
	return (hi-1)<<4 | (lo - 1), hi != 0 && lo != 0
}

// unreserved is RFC 3986 section 2.3.
func unreserved(c byte) bool {
	return hostClass[c] != 0 || c == '~'
}

const upperHex = "0123456789ABCDEF"

const (
	pathPlain    = iota + 1 // stands for itself
	pathDotSlash            // "." and "/": a closer look where two of them meet
	pathPercent
	pathEscape // allowed by us, not by RFC 3986: canonically escaped
)

// pathClass says what a byte is in a path; 0 cannot stand there.
var pathClass = func() (t [256]uint8) {
	for c := '!'; c <= '~'; c++ {
		t[c] = pathEscape
	}
	for c := range t {
		if unreserved(byte(c)) {
			t[c] = pathPlain
		}
	}
	for _, c := range "!$&'()*+,;=:@" {
		t[c] = pathPlain
	}
	t['.'], t['/'], t['%'] = pathDotSlash, pathDotSlash, pathPercent
	t['#'], t['?'] = 0, 0
	return t
}()

// hexDigit is a hexadecimal digit's value plus one; 0 is no digit.
var hexDigit = func() (t [256]uint8) {
	for i := range 10 {
		t['0'+i] = uint8(i + 1)
	}
	for i := range 6 {
		t['a'+i], t['A'+i] = uint8(i+11), uint8(i+11)
	}
	return t
}()
