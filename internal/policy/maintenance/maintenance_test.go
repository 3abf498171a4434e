package maintenance

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

func compile(t *testing.T, spec string) (policy.Handler, error) {
	t.Helper()
	s := Step()
	d, err := s.Decode([]byte(spec))
	if err != nil {
		t.Fatal(err)
	}
	return d.Compile(policy.Env{})
}

// from is an exchange of a client at an address.
func from(addr string) *exchange.Exchange {
	return &exchange.Exchange{Client: netip.AddrPortFrom(netip.MustParseAddr(addr), 1234)}
}

func TestWhoGetsThrough(t *testing.T) {
	for _, tt := range []struct {
		spec, client string
		through      bool
	}{
		{`{}`, "10.1.2.3", false},
		{`{"allow":["10.0.0.0/8"]}`, "10.1.2.3", true},
		{`{"allow":["10.0.0.0/8"]}`, "::ffff:10.1.2.3", true},
		{`{"allow":["10.0.0.0/8"]}`, "11.0.0.1", false},
		{`{"allow":["10.9.9.9/8"]}`, "10.1.2.3", true}, // host bits do not count
		{`{"allow":["192.0.2.7/32","2001:db8::/32"]}`, "2001:db8::1", true},
		{`{"allow":["192.0.2.7/32","2001:db8::/32"]}`, "192.0.2.8", false},
		{`{"allow":["0.0.0.0/0"]}`, "2001:db8::1", false},
	} {
		h, err := compile(t, tt.spec)
		if err != nil {
			t.Fatal(err)
		}
		v := h.Request(from(tt.client))
		if through := v.Status == 0; through != tt.through || !through && (v.Status != 503 || v.Reason != "maintenance") {
			t.Errorf("%s for %s = %d %s, want through %v", tt.spec, tt.client, v.Status, v.Reason, tt.through)
		}
	}
}

func TestAnswer(t *testing.T) {
	for _, tt := range []struct{ spec, header, body string }{
		{`{}`, "", ""},
		{`{"retryAfter":"10m"}`, "Retry-After: 600", ""},
		{`{"retryAfter":"1s500ms"}`, "Retry-After: 2", ""}, // not before the time
		{`{"body":"<h1>Back soon</h1>","contentType":"text/html"}`, "Content-Type: text/html; charset=utf-8, Cache-Control: no-store", "<h1>Back soon</h1>"},
	} {
		h, err := compile(t, tt.spec)
		if err != nil {
			t.Fatal(err)
		}
		v := h.Request(from("192.0.2.1"))
		var fields []string
		for _, f := range v.Header {
			fields = append(fields, string(f.Name)+": "+string(f.Value))
		}
		if got := strings.Join(fields, ", "); got != tt.header || string(v.Body) != tt.body {
			t.Errorf("%s answers %q, %q, want %q, %q", tt.spec, got, v.Body, tt.header, tt.body)
		}
	}
}

func TestFaults(t *testing.T) {
	for _, tt := range []struct{ spec, want string }{
		{`{"retryAfter":"soon"}`, `retryAfter: "soon" is not a duration of a second or more (write 30s or 10m)`},
		{`{"retryAfter":"500ms"}`, `retryAfter: "500ms" is not a duration of a second or more (write 30s or 10m)`},
		{`{"allow":["10.0.0.1","office"]}`, "allow[0]: \"10.0.0.1\" is not a network (write 10.0.0.0/8 or 192.0.2.7/32)\nallow[1]: \"office\" is not a network (write 10.0.0.0/8 or 192.0.2.7/32)"},
		{`{"body":"x"}`, "contentType: is missing (write text/html, text/plain or application/json)"},
		{`{"contentType":"text/html"}`, "contentType: is set, but there is no body (write a body, or leave both out)"},
	} {
		if _, err := compile(t, tt.spec); err == nil || err.Error() != tt.want {
			t.Errorf("%s compiles with %v, want %s", tt.spec, err, tt.want)
		}
	}
}

// TestAllocations: neither a refusal nor a client that gets through costs memory.
func TestAllocations(t *testing.T) {
	h, err := compile(t, `{"retryAfter":"10m","allow":["10.0.0.0/8"],"body":"soon","contentType":"text/plain"}`)
	if err != nil {
		t.Fatal(err)
	}
	in, out := from("10.1.2.3"), from("192.0.2.1")
	if n := testing.AllocsPerRun(100, func() { h.Request(in); h.Request(out) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
