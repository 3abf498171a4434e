package rewrite

import (
	"strings"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"pgregory.net/rapid"
)

func compile(spec string) (policy.Handler, error) {
	s := Step()
	d, err := s.Decode([]byte(spec))
	if err != nil {
		return policy.Handler{}, err
	}
	return d.Compile(policy.Env{})
}

func TestRewrite(t *testing.T) {
	const prefix = `{"path":{"type":"ReplacePrefixMatch","replacePrefixMatch":"`
	tests := []struct {
		spec, path, matched string
		want                string // path; "" for a refusal
		host                string
	}{
		// The table of the Gateway API.
		{prefix + `/xyz"}}`, "/foo/bar", "/foo", "/xyz/bar", ""},
		{prefix + `/xyz/"}}`, "/foo/bar", "/foo", "/xyz/bar", ""},
		{prefix + `/xyz"}}`, "/foo/bar", "/foo/", "/xyz/bar", ""},
		{prefix + `/xyz/"}}`, "/foo/bar", "/foo/", "/xyz/bar", ""},
		{prefix + `/xyz"}}`, "/foo", "/foo", "/xyz", ""},
		{prefix + `/xyz"}}`, "/foo/", "/foo", "/xyz/", ""},
		{prefix + `"}}`, "/foo/bar", "/foo", "/bar", ""},
		{prefix + `"}}`, "/foo/", "/foo", "/", ""},
		{prefix + `"}}`, "/foo", "/foo", "/", ""},
		{prefix + `/"}}`, "/foo/", "/foo", "/", ""},
		{prefix + `/"}}`, "/foo", "/foo", "/", ""},
		// What it leaves open.
		{prefix + `/xyz"}}`, "/foo", "/", "/xyz/foo", ""},
		{prefix + `/x%79z"}}`, "/foo/b%2Fr", "/foo", "/xyz/b%2Fr", ""},
		{prefix + `/xyz"}}`, "/foo", "", "", ""},        // not a prefix match
		{prefix + `/xyz"}}`, "/foobar", "/foo", "", ""}, // another step changed the path
		{`{"path":{"type":"ReplaceFullPath","replaceFullPath":"/one/t%77o"}}`, "/foo", "", "/one/two", ""},
		{`{"path":{"type":"ReplaceFullPath","replaceFullPath":""}}`, "/foo", "/foo", "/", ""},
		{`{"hostname":"api.example"}`, "/foo", "/foo", "/foo", "api.example"},
		{`{"hostname":"api.example","path":{"type":"ReplaceFullPath","replaceFullPath":"/x"}}`, "/foo", "/foo", "/x", "api.example"},
	}
	for _, tt := range tests {
		h, err := compile(tt.spec)
		if err != nil {
			t.Fatalf("Compile(%s) = %v", tt.spec, err)
		}
		x := &exchange.Exchange{Matched: tt.matched}
		x.Request.Path = []byte(tt.path)
		v := h.Request(x)
		if tt.want == "" {
			if v.Status != 500 || v.Reason != "rewrite_failed" || string(x.Request.Path) != tt.path {
				t.Errorf("%s of %s below %q = %v, want 500 rewrite_failed", tt.spec, tt.path, tt.matched, v)
			}
			continue
		}
		if v.Status != 0 || string(x.Request.Path) != tt.want || x.Rewritten != strings.Contains(tt.spec, "path") {
			t.Errorf("%s of %s below %q = %s (rewritten %v), %v, want %s", tt.spec, tt.path, tt.matched, x.Request.Path, x.Rewritten, v, tt.want)
		}
		if string(x.Request.Authority) != tt.host || x.HostRewritten != (tt.host != "") {
			t.Errorf("%s: authority %q (rewritten %v), want %q", tt.spec, x.Request.Authority, x.HostRewritten, tt.host)
		}
	}
}

// TestNeverLeavesItsPrefix: whatever canonical path, prefix and replacement: the new path is canonical and lies below the
// replacement, or the request is refused.
func TestNeverLeavesItsPrefix(t *testing.T) {
	segment := rapid.SampledFrom([]string{"a", "b", "..", ".", "", "%2e%2e", "%2F", "%5c..", "..%2f", "..;x", "a%20b", "%252e%252e"})
	path := rapid.Map(rapid.SliceOfN(segment, 0, 6), func(s []string) string { return "/" + strings.Join(s, "/") })
	rapid.Check(t, func(t *rapid.T) {
		p, _, ok := exchange.CanonicalPath(nil, []byte(path.Draw(t, "path")))
		if !ok {
			return
		}
		at := rapid.IntRange(0, len(p.Canonical)).Draw(t, "prefix ends")
		for at < len(p.Canonical) && p.Canonical[at] != '/' {
			at++
		}
		replacement := path.Draw(t, "replacement")
		h, err := compile(`{"path":{"type":"ReplacePrefixMatch","replacePrefixMatch":"` + replacement + `"}}`)
		if err != nil {
			return
		}
		base, _, _ := exchange.CanonicalPath(nil, []byte(replacement))
		x := &exchange.Exchange{Matched: string(p.Canonical[:at])}
		x.Request.Path = p.Canonical
		v := h.Request(x)
		if v.Status != 0 {
			if at > 0 && v.Reason != "path_ambiguous" {
				t.Fatalf("refused with %v", v)
			}
			return
		}
		got := string(x.Request.Path)
		if root := strings.TrimSuffix(string(base.Canonical), "/"); got != root && !strings.HasPrefix(got, root+"/") {
			t.Fatalf("%s with %s by %s is %s: outside", p.Canonical, x.Matched, replacement, got)
		}
		if again, _, ok := exchange.CanonicalPath(nil, []byte(got)); !ok || string(again.Canonical) != got {
			t.Fatalf("%s with %s by %s is %s: not canonical", p.Canonical, x.Matched, replacement, got)
		}
	})
}

func TestFaults(t *testing.T) {
	for spec, want := range map[string]string{
		`{"hostname":"*.example"}`:            `hostname: "*.example" is not a hostname (write shop.example, without a port)`,
		`{"hostname":""}`:                     `hostname: "" is not a hostname (write shop.example, without a port)`,
		`{"path":{"type":"Regex"}}`:           `path.type: "Regex" is not a path modifier (write ReplaceFullPath or ReplacePrefixMatch)`,
		`{"path":{"type":"ReplaceFullPath"}}`: "path.replaceFullPath: is missing, and the type is ReplaceFullPath",
		`{"path":{"type":"ReplaceFullPath","replaceFullPath":"new"}}`: `path.replaceFullPath: "new" is not a path ` +
			"(write /new, without query; other characters as %XX)",
		`{"path":{"type":"ReplacePrefixMatch","replacePrefixMatch":"/%zz"}}`: `path.replacePrefixMatch: "/%zz" is not a path ` +
			"(write /new, without query; other characters as %XX)",
	} {
		if _, err := compile(spec); err == nil || err.Error() != want {
			t.Errorf("Compile(%s) = %v, want %s", spec, err, want)
		}
	}
}

func TestAllocates(t *testing.T) {
	h, err := compile(`{"hostname":"api.example","path":{"type":"ReplacePrefixMatch","replacePrefixMatch":"/xyz"}}`)
	if err != nil {
		t.Fatal(err)
	}
	var x exchange.Exchange
	path := []byte("/foo/bar")
	if n := testing.AllocsPerRun(100, func() {
		x.Reset()
		x.Request.Path, x.Matched = path, "/foo"
		h.Request(&x)
	}); n != 0 {
		t.Errorf("the hook makes %v allocations, want 0", n)
	}
}
