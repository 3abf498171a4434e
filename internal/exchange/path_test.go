package exchange

import (
	"bytes"
	"fmt"
	"path"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestCanonicalPath(t *testing.T) {
	for _, c := range []struct{ raw, canonical, resolved, flags string }{
		{"/", "/", "/", ""},
		{"/a/b", "/a/b", "/a/b", ""},
		{"/a/b/", "/a/b/", "/a/b/", ""},
		{"/.well-known/x", "/.well-known/x", "/.well-known/x", ""},
		{"/a/...", "/a/...", "/a/...", ""},
		{"/a.b/c..", "/a.b/c..", "/a.b/c..", ""},
		// dot segments, in all spellings (RFC 3986 section 5.2.4)
		{"/.", "/", "/", ""},
		{"/..", "/", "/", ""},
		{"/../..", "/", "/", ""},
		{"/a/.", "/a/", "/a/", ""},
		{"/a/..", "/", "/", ""},
		{"/a/b/../", "/a/", "/a/", ""},
		{"/a/./b/../c", "/a/c", "/a/c", ""},
		{"/../../a", "/a", "/a", ""},
		{"/a/%2e%2E/b", "/b", "/b", ""},
		{"/a/.%2e/b", "/b", "/b", ""},
		{"/a/%2e/b", "/a/b", "/a/b", ""},
		{"/a/%2e", "/a/", "/a/", ""},
		{"/a/%2e%2e%2e", "/a/...", "/a/%2e%2e%2e", ""},
		// spelling
		{"/%7euser/%41%2d%5f", "/~user/A-_", "/%7euser/%41%2d%5f", ""},
		{"/a%20b%c3%a9", "/a%20b%C3%A9", "/a%20b%c3%a9", ""},
		{"/a%3ab:c", "/a%3Ab:c", "/a%3ab:c", ""},
		{"/%21!", "/%21!", "/%21!", ""},
		{"/a|b\"c^`{}<>[]", "/a%7Cb%22c%5E%60%7B%7D%3C%3E%5B%5D", "/a|b\"c^`{}<>[]", ""},
		{"/%7c", "/%7C", "/%7c", ""},
		{"/%61/../%62/./c", "/b/c", "/%62/c", ""},
		// what servers read differently
		{"/a%2fb", "/a%2Fb", "/a%2fb", "escaped_slash"},
		{"/a/..%2fb", "/a/..%2Fb", "/a/..%2fb", "escaped_slash"},
		{"/a%5Cb", "/a%5Cb", "/a%5Cb", "escaped_backslash"},
		{"/a\\..\\b", "/a%5C..%5Cb", "/a\\..\\b", "backslash"},
		{"/a%00", "/a%00", "/a%00", "escaped_nul"},
		{"/%252e%252e/a", "/%252e%252e/a", "/%252e%252e/a", "double_encoded_dot"},
		{"/%25252E/a", "/%25252E/a", "/%25252E/a", "double_encoded_dot"},
		{"/%25%32%65/a", "/%252e/a", "/%25%32%65/a", "double_encoded_dot"},
		{"/%25%32%35%32E/a", "/%25252E/a", "/%25%32%35%32E/a", "double_encoded_dot"},
		{"/%252f", "/%252f", "/%252f", ""},
		{"/a/..;x=1/b", "/a/..;x=1/b", "/a/..;x=1/b", "dot_parameter"},
		{"/a/%2e;/b", "/a/.;/b", "/a/%2e;/b", "dot_parameter"},
		{"/a;x/b", "/a;x/b", "/a;x/b", ""},
		{"//", "//", "//", "empty_segment"},
		{"/a//b", "/a//b", "/a//b", "empty_segment"},
		{"//a%2F", "//a%2F", "//a%2F", "escaped_slash,empty_segment"},
	} {
		for _, room := range [][]byte{nil, make([]byte, 3, 200)} {
			p, _, ok := CanonicalPath(room, []byte(c.raw))
			if !ok || string(p.Canonical) != c.canonical || string(p.Raw) != c.resolved || p.Flags.String() != c.flags {
				t.Errorf("CanonicalPath(%q) = %q, %q, %q, %v, want %q, %q, %q", c.raw, p.Canonical, p.Raw, p.Flags, ok,
					c.canonical, c.resolved, c.flags)
			}
		}
	}
}

func TestCanonicalPathRefuses(t *testing.T) {
	for name, raws := range map[string][]string{
		"malformed percent-encoding":    {"/%", "/%2", "/%2/", "/%zz", "/%2g", "/a%", "/%%30", "/a/../%"},
		"empty and dot segment":         {"//.", "/a//../b", "/a/..//b", "//%2e%2e/a", "/./a//", "/a/./b//c"},
		"bytes that are none of a path": {"", "a", "*", "/a b", "/a#b", "/a?b", "/\x00", "/a\tb", "/\x7f", "/\xc3\xa9", "/a\r\nb"},
	} {
		for _, raw := range raws {
			if p, _, ok := CanonicalPath(nil, []byte(raw)); ok {
				t.Errorf("%s: CanonicalPath(%q) = %q, want a refusal", name, raw, p.Canonical)
			}
		}
	}
}

// pathPieces is what paths are made of where they are made to deceive.
var pathPieces = []string{
	"/", "/", "/", ".", "..", "%2e", "%2E", "a", "b", "Z", "-", "~", "%7e", "%41", "%2f", "%2F", "%5c", "\\", "%00", "%25", "2", "e", "%32", "%35", "%65", "2e", "%252e",
	";", "=", ":", "@", "%20", "%c3%a9", "|", "\"", "%7C", "...", "!", "%21", "%", "%4",
}

func TestCanonicalPathProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		raw := "/" + strings.Join(rapid.SliceOfN(rapid.SampledFrom(pathPieces), 0, 12).Draw(t, "pieces"), "")
		if fault := pathFault([]byte(raw)); fault != "" {
			t.Error(fault)
		}
	})
}

// pathFault holds CanonicalPath to its promises for one path, and says which one it breaks.
func pathFault(raw []byte) string {
	p, _, ok := CanonicalPath(nil, raw)
	if !ok {
		return ""
	}
	again, _, ok := CanonicalPath(nil, p.Canonical)
	if !ok || !bytes.Equal(again.Canonical, p.Canonical) || !bytes.Equal(again.Raw, p.Canonical) {
		return fmt.Sprintf("CanonicalPath(%q) = %q, which becomes %q, %v", raw, p.Canonical, again.Canonical, ok)
	}
	told := p.Flags
	if told&Backslash != 0 {
		told |= EscapedBackslash
	}
	if again.Flags&^told != 0 { // dot segments may have taken some with them
		return fmt.Sprintf("CanonicalPath(%q) has %v, its canonical form %q has %v", raw, p.Flags, p.Canonical, again.Flags)
	}
	if r, _, ok := CanonicalPath(nil, p.Raw); !ok || !bytes.Equal(r.Canonical, p.Canonical) || !bytes.Equal(r.Raw, p.Raw) {
		return fmt.Sprintf("CanonicalPath(%q) = %q with %q, which becomes %q, %v", raw, p.Canonical, p.Raw, r.Canonical, ok)
	}
	if want := referencePath(string(raw)); string(p.Canonical) != want {
		return fmt.Sprintf("CanonicalPath(%q) = %q, want %q", raw, p.Canonical, want)
	}
	for _, s := range strings.Split(string(p.Canonical), "/") {
		if s == "." || s == ".." {
			return fmt.Sprintf("CanonicalPath(%q) = %q, which has a dot segment", raw, p.Canonical)
		}
	}
	return ""
}

// referencePath is the canonical form of a path that is known to be well formed, the slow way: respell, then resolve.
func referencePath(raw string) string {
	var b strings.Builder
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"
	for i := 0; i < len(raw); i++ {
		c, escaped := raw[i], raw[i] == '%'
		if escaped {
			fmt.Sscanf(raw[i+1:i+3], "%02x", &c)
			i += 2
		}
		if strings.IndexByte(plain, c) >= 0 || !escaped && strings.IndexByte("/!$&'()*+,;=:@", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	s := b.String()
	if strings.Contains(s, "//") {
		return s // then it has no dot segment
	}
	clean := path.Clean(s)
	if last := s[strings.LastIndexByte(s, '/'):]; clean != "/" && (last == "/" || last == "/." || last == "/..") {
		clean += "/"
	}
	return clean
}

func FuzzCanonicalPath(f *testing.F) {
	for _, s := range []string{"/", "/a/../b", "/%2e%2e/", "//a/%41%", "/a%2fb\\c", "/%25252e;/|", "/./..;/a"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if fault := pathFault(raw); fault != "" {
			t.Error(fault)
		}
	})
}

func TestCanonicalPathDoesNotCopyPlainPaths(t *testing.T) {
	for _, raw := range []string{"/", "/shop/items/4711", "/a.b/c-d_e~f/;x=1/@:!$&'()*+,"} {
		b := []byte(raw)
		p, room, ok := CanonicalPath(nil, b)
		if !ok || &p.Canonical[0] != &b[0] || &p.Raw[0] != &b[0] || room != nil {
			t.Errorf("CanonicalPath(%q) copies", raw)
		}
	}
}

func TestPathAllocations(t *testing.T) {
	room := make([]byte, 0, 256)
	for _, raw := range []string{"/shop/items/4711", "/a/%7e/../b%2fc/|/./d", "/a//b"} {
		b := []byte(raw)
		if n := testing.AllocsPerRun(100, func() {
			p, grown, _ := CanonicalPath(room, b)
			MergeEmptySegments(grown, p.Canonical)
		}); n != 0 {
			t.Errorf("CanonicalPath(%q) allocates %v times, want 0", raw, n)
		}
	}
}

func TestMergeEmptySegments(t *testing.T) {
	for raw, want := range map[string]string{"/": "/", "/a/b": "/a/b", "//": "/", "//a": "/a", "/a///b//": "/a/b/"} {
		if got, _ := MergeEmptySegments([]byte("x")[:1:1], []byte(raw)); string(got) != want {
			t.Errorf("MergeEmptySegments(%q) = %q, want %q", raw, got, want)
		}
	}
}

func TestIsQuery(t *testing.T) {
	for q, want := range map[string]bool{
		"": true, "a=b&c=%41": true, "q={x|y}^`\"?/": true, "%": false, "a=%4": false, "%zz": false, "a b": false, "a#b": false,
		"\x00": false, "\x7f": false, "\xc3": false,
	} {
		if got := IsQuery([]byte(q)); got != want {
			t.Errorf("IsQuery(%q) = %v, want %v", q, got, want)
		}
	}
}

func BenchmarkCanonicalPath(b *testing.B) {
	for _, raw := range []string{"/shop/items/4711/details", "/a/%7Euser/./b%2dc/../d"} {
		b.Run(strings.ReplaceAll(raw[1:], "/", "_"), func(b *testing.B) {
			path, room := []byte(raw), make([]byte, 0, 256)
			b.ReportAllocs()
			for b.Loop() {
				if _, _, ok := CanonicalPath(room, path); !ok {
					b.Fatal("refused")
				}
			}
		})
	}
}
