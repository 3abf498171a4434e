package directresponse

import (
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

func TestAnswer(t *testing.T) {
	for _, tt := range []struct {
		spec   string
		status int
		header string
		body   string
	}{
		{`{}`, 200, "", ""},
		{`{"status":204}`, 204, "", ""},
		{`{"status":410}`, 410, "", ""},
		{`{"body":"User-agent: *\n","contentType":"text/plain"}`, 200, "Content-Type: text/plain; charset=utf-8", "User-agent: *\n"},
		{`{"body":"{status}","contentType":"application/json","headers":[{"name":"Cache-Control","value":" max-age=60 "},{"name":"Set-Cookie","value":"a=b"},{"name":"Set-Cookie","value":"c=d"}]}`,
			200, "Content-Type: application/json, Cache-Control: max-age=60, Set-Cookie: a=b, Set-Cookie: c=d", "{status}"},
	} {
		h, err := compile(t, tt.spec)
		if err != nil {
			t.Fatal(err)
		}
		v := h.Request(&exchange.Exchange{})
		var fields []string
		for _, f := range v.Header {
			fields = append(fields, string(f.Name)+": "+string(f.Value))
		}
		if got := strings.Join(fields, ", "); v.Status != tt.status || v.Reason != "direct_response" || got != tt.header || string(v.Body) != tt.body {
			t.Errorf("%s answers %d %s, %q, %q, want %d, %q, %q", tt.spec, v.Status, v.Reason, got, v.Body, tt.status, tt.header, tt.body)
		}
	}
}

func TestFaults(t *testing.T) {
	for _, tt := range []struct{ spec, want string }{
		{`{"status":101}`, "status: 101 is not the status of an answer (write 200 to 599)"},
		{`{"status":304,"body":"x","contentType":"text/plain"}`, "body: an answer of 304 has no body (leave it out)"},
		{`{"body":"x"}`, "contentType: is missing (write text/html, text/plain or application/json)"},
		{`{"contentType":"text/plain"}`, "contentType: is set, but there is no body (write a body, or leave both out)"},
		{`{"headers":[{"name":"Content-Type","value":"text/plain"}]}`, "headers[0].name: Content-Type cannot be set here (write contentType)"},
		{`{"headers":[{"name":"content-length","value":"1"},{"name":"X A","value":"1"}]}`,
			"headers[0].name: content-length cannot be set here (the edge frames each message)\nheaders[1].name: \"X A\" is not a header name (write letters, digits and hyphens, X-Team)"},
		{`{"headers":[{"name":"X-A","value":"a\r\nSet-Cookie: b"}]}`, `headers[0].value: "a\r\nSet-Cookie: b" holds a control character`},
	} {
		if _, err := compile(t, tt.spec); err == nil || err.Error() != tt.want {
			t.Errorf("%s compiles with %v, want %s", tt.spec, err, tt.want)
		}
	}
}

func TestAllocations(t *testing.T) {
	h, err := compile(t, `{"body":"ok","contentType":"text/plain","headers":[{"name":"X-A","value":"b"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	x := &exchange.Exchange{}
	if n := testing.AllocsPerRun(100, func() { h.Request(x) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
