package exchange

import "testing"

func TestClimbs(t *testing.T) {
	for _, tt := range []struct {
		rest string
		want bool
	}{
		{"", false},
		{"/", false},
		{"/a/b", false},
		{"/a%2Fb", false},
		{"/a/..%2Fb", false}, // within what is there
		{"/a%2F..%2Fb", false},
		{"/a%2F..%2F..%2Fb", true},
		{"/..%2Fb", true},
		{"/%2E%2E%2Fb", true},
		{"/..%5Cb", true},
		{"/..\\b", true},
		{"/..;/b", true},
		{"/..;v=1%2Fb", true},
		{"/..%3B/b", true},
		{"/.;/b", false},
		{"/a;x=..%2F/b", false}, // within what is there
		{"/%252e%252e/b", true},
		{"/%25252e%25252e/b", true},
		{"/%25252e%2525", false},
		{"/.../b", false},
		{"/a/%2F/..", false},
		{"/%2F..", true},
		{"/%", false},
		{"/%zz/..%2F..", true},
	} {
		in := []byte(tt.rest)
		if got := Climbs(in); got != tt.want || string(in) != tt.rest {
			t.Errorf("Climbs(%q) = %v (it is now %q), want %v", tt.rest, got, in, tt.want)
		}
	}
	in := []byte("/a/..%2Fb;c/%252e")
	if n := testing.AllocsPerRun(100, func() { Climbs(in) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
