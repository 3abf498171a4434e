package diag

import "testing"

func TestNearest(t *testing.T) {
	names := []string{"backendRefs", "filters", "matches", "name", "retry", "timeouts"}
	for _, c := range []struct{ word, want string }{
		{"backendrefs", "backendRefs"}, {"backendRef", "backendRefs"}, {"bakcendRefs", "backendRefs"}, {"filter", "filters"},
		{"mtaches", "matches"}, {"nam", "name"}, {"nmae", "name"}, {"timeout", "timeouts"},
		{"name", ""}, {"hostnames", ""}, {"x", ""}, {"", ""}, {"re", ""}, {"path", ""},
	} {
		if got := Nearest(c.word, names); got != c.want {
			t.Errorf("Nearest(%q) = %q, want %q", c.word, got, c.want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "ab", 2}, {"ab", "", 2}, {"ab", "ba", 1}, {"kitten", "sitting", 3}, {"abc", "abc", 0}, {"ca", "abc", 3}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
