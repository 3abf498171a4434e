package exchange

import (
	"strings"
	"testing"
)

func TestParseAuthority(t *testing.T) {
	long := strings.Repeat("a", 250)
	for _, c := range []struct{ raw, host, port string }{
		{"a", "a", ""},
		{"example.com", "example.com", ""},
		{"Example.COM:8080", "example.com", "8080"},
		{"example.com.", "example.com", ""},
		{"example.com:", "example.com", ""}, // RFC 3986 section 3.2.3: port = *DIGIT
		{"example.com:080", "example.com", "80"},
		{"Example.com.:000000065535", "example.com", "65535"},
		{"[::1]:", "[::1]", ""},
		{"[0::1]:0443", "[::1]", "443"},
		{"Example.com.:80", "example.com", "80"},
		{"foo-bar_baz.com", "foo-bar_baz.com", ""},
		{"1.2.3.4:65535", "1.2.3.4", "65535"},
		{"[::1]", "[::1]", ""},
		{"[0:0:0:0:0:0:0:1]:80", "[::1]", "80"},
		{"[2001:DB8::A]", "[2001:db8::a]", ""},
		{"[::ffff:192.0.2.1]", "[::ffff:192.0.2.1]", ""},
		{long + ".com", long + ".com", ""},
	} {
		for _, room := range [][]byte{nil, []byte("xyz")} {
			a, _, ok := ParseAuthority(room, []byte(c.raw))
			if !ok || string(a.Host) != c.host || string(a.Port) != c.port {
				t.Errorf("ParseAuthority(%q) = %q, %q, %v, want %q, %q", c.raw, a.Host, a.Port, ok, c.host, c.port)
			}
			text := c.host
			if c.port != "" {
				text += ":" + c.port
			}
			if string(a.Text) != text {
				t.Errorf("ParseAuthority(%q) spells it %q, want %q", c.raw, a.Text, text)
			}
		}
	}
}

func TestParseAuthorityRefuses(t *testing.T) {
	for name, raws := range map[string][]string{
		"no host":           {"", ":80", ".", ".:80"},
		"empty label":       {".a", "a..b", "a.."},
		"port":              {"a:0", "a:00", "a:65536", "a:065536", "a:123456", "a:x", "a:0x50", "a:-1", "a:80:80", "a::80", "a: 80", "[::1]80"},
		"userinfo":          {"u@a", "u:p@a"},
		"list":              {"a,b", "a, b", "a b"},
		"bytes":             {"a/b", "a\\b", "a%41", "a#", "a?", "a=b", "{", "a*", "a\x00", "\xff", "é", "a;b", "a'b", "a|b", "a\tb"},
		"literal":           {"[", "[]", "[::1", "[::1]x", "::1", "[1.2.3.4]", "[v1.a]", "[::1%25en0]", "[::1%en0]", "[::g]", "[[::1]]"},
		"longer than names": {strings.Repeat("a", 255), "[" + strings.Repeat("0", 60) + "::1]"},
	} {
		for _, raw := range raws {
			if a, _, ok := ParseAuthority(nil, []byte(raw)); ok {
				t.Errorf("%s: ParseAuthority(%q) = %q, %q, want a refusal", name, raw, a.Host, a.Port)
			}
		}
	}
}

func FuzzParseAuthority(f *testing.F) {
	for _, s := range []string{"a", "Example.com.:80", "[::1]:443", "[::ffff:1.2.3.4]", "a..b", "1.2.3.4"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, _, ok := ParseAuthority(nil, raw)
		if !ok {
			return
		}
		again, _, ok := ParseAuthority(nil, a.Host)
		if !ok || string(again.Host) != string(a.Host) || again.Port != nil {
			t.Errorf("ParseAuthority(%q) = %q, which becomes %q, %v", raw, a.Host, again.Host, ok)
		}
		again, _, ok = ParseAuthority(nil, a.Text)
		if !ok || string(again.Text) != string(a.Text) || string(again.Host) != string(a.Host) || string(again.Port) != string(a.Port) {
			t.Errorf("ParseAuthority(%q) spells it %q, which becomes %q, %v", raw, a.Text, again.Text, ok)
		}
	})
}

func TestAuthorityAllocations(t *testing.T) {
	room := make([]byte, 0, 64)
	for _, raw := range []string{"shop.example.com", "Shop.example.com:80", "shop.example.com:080"} {
		b := []byte(raw)
		if n := testing.AllocsPerRun(100, func() { ParseAuthority(room, b) }); n != 0 {
			t.Errorf("ParseAuthority(%q) allocates %v times, want 0", raw, n)
		}
	}
}
