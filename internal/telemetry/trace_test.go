package telemetry

import (
	"strings"
	"testing"
)

func TestTraceparent(t *testing.T) {
	const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	for _, c := range []struct {
		in          string
		ok, sampled bool
	}{
		{"00-" + trace + "-" + parent + "-01", true, true},
		{"00-" + trace + "-" + parent + "-00", true, false},
		{"00-" + trace + "-" + parent + "-ff", true, true},
		{"00-" + trace + "-" + parent + "-01-x", false, false},
		{"cc-" + trace + "-" + parent + "-01-what-the-future-brings", true, true},
		{"cc-" + trace + "-" + parent + "-01.x", false, false},
		{"cc-" + trace + "-" + parent + "-01", true, true},
		{"ff-" + trace + "-" + parent + "-01", false, false},
		{"00-" + strings.ToUpper(trace) + "-" + parent + "-01", false, false},
		{"00-" + strings.Repeat("0", 32) + "-" + parent + "-01", false, false},
		{"00-" + trace + "-" + strings.Repeat("0", 16) + "-01", false, false},
		{"00-" + trace + "-" + parent, false, false},
		{"00-" + trace + "_" + parent + "-01", false, false},
		{"", false, false},
	} {
		gotTrace, gotParent, sampled, ok := Traceparent([]byte(c.in))
		if ok != c.ok || sampled != c.sampled {
			t.Errorf("Traceparent(%q) = sampled %v, ok %v, want %v, %v", c.in, sampled, ok, c.sampled, c.ok)
		}
		if ok && (string(gotTrace) != trace || string(gotParent) != parent) {
			t.Errorf("Traceparent(%q) = %s, %s", c.in, gotTrace, gotParent)
		}
	}
}

func TestValidTracestate(t *testing.T) {
	for in, want := range map[string]bool{
		"congo=t61rcWkgMzE": true, "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE": true, "a=1 , \tb=2": true, "a=1,,b=2": true,
		"tenant@vendor=1": true, "1a=b c": true,
		"": false, ",": false, "a": false, "=1": false, "a=": false, "A=1": false, "a=1,a=2": false, "a=b=c": false, "a=\x7f": false,
		"a=\u00e4": false, "-a=1": false,
		"a=" + strings.Repeat("x", 257):                                   false,
		strings.Repeat("x", 257) + "=1":                                   false,
		strings.Repeat("abcdefgh=12345678,", 29) + strings.Repeat("z", 6): false,
	} {
		if got := ValidTracestate([]byte(in)); got != want {
			t.Errorf("ValidTracestate(%q) = %v, want %v", in, got, want)
		}
	}
	var many []string
	for i := range 33 {
		many = append(many, string(rune('a'+i%26))+string(rune('a'+i/26))+"=1")
	}
	if !ValidTracestate([]byte(strings.Join(many[:32], ","))) || ValidTracestate([]byte(strings.Join(many, ","))) {
		t.Error("32 members must pass and 33 must not")
	}
}
