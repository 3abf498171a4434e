package exchange

import "testing"

// The table of HTTPPathModifier.replacePrefixMatch, and what it leaves open.
func TestAppendReplaced(t *testing.T) {
	for _, tt := range []struct{ path, prefix, replacement, want string }{
		{"/foo/bar", "/foo", "/xyz", "/xyz/bar"},
		{"/foo/bar", "/foo", "/xyz/", "/xyz/bar"},
		{"/foo/bar", "/foo/", "/xyz", "/xyz/bar"},
		{"/foo/bar", "/foo/", "/xyz/", "/xyz/bar"},
		{"/foo", "/foo", "/xyz", "/xyz"},
		{"/foo/", "/foo", "/xyz", "/xyz/"},
		{"/foo/bar", "/foo", "", "/bar"},
		{"/foo/", "/foo", "", "/"},
		{"/foo", "/foo", "", "/"},
		{"/foo/", "/foo", "/", "/"},
		{"/foo", "/foo", "/", "/"},
		{"/foo", "/foo/", "/xyz", "/xyz"},
		{"/foo", "/", "/xyz", "/xyz/foo"},
		{"/", "/", "/xyz", "/xyz/"},
		{"/", "/", "", "/"},
		{"/a/b", "/", "/", "/a/b"},
	} {
		if got := string(AppendReplaced([]byte("x"), []byte(tt.path), tt.prefix, tt.replacement)); got != "x"+tt.want {
			t.Errorf("AppendReplaced(%q, %q, %q) = %q, want %q", tt.path, tt.prefix, tt.replacement, got[1:], tt.want)
		}
	}
}
