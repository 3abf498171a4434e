package headers

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/google/go-cmp/cmp"
)

func section(h *exchange.Header, lines ...string) {
	for _, l := range lines {
		n, v, _ := strings.Cut(l, ": ")
		h.Append([]byte(n), []byte(v))
	}
}

func lines(h *exchange.Header) []string {
	var out []string
	for _, f := range h.All() {
		out = append(out, string(f.Name)+": "+string(f.Value))
	}
	return out
}

func compile(t *testing.T, s policy.Step, spec string) policy.Handler {
	t.Helper()
	d, err := s.Decode([]byte(spec))
	if err != nil {
		t.Fatal(err)
	}
	h, err := d.Compile(policy.Env{})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHeaders(t *testing.T) {
	tests := []struct {
		name, spec string
		in, want   []string
	}{
		{"set", `{"set":[{"name":"My-Header","value":"bar"}]}`, []string{"my-header: foo", "a: 1", "MY-HEADER: baz"}, []string{"My-Header: bar", "a: 1"}},
		{"set what is not there", `{"set":[{"name":"b","value":" 2 "}]}`, []string{"a: 1"}, []string{"a: 1", "b: 2"}},
		{"add", `{"add":[{"name":"my-header","value":"bar,baz"}]}`, []string{"My-Header: foo"}, []string{"My-Header: foo,bar,baz"}},
		{"add behind the last line", `{"add":[{"name":"a","value":"3"}]}`, []string{"a: 1", "b: 1", "A: 2"}, []string{"a: 1", "b: 1", "A: 2,3"}},
		{"add what is not there", `{"add":[{"name":"b","value":"2"}]}`, []string{"a: 1"}, []string{"a: 1", "b: 2"}},
		{"add to an empty one", `{"add":[{"name":"a","value":"2"}]}`, []string{"a: "}, []string{"a: 2"}},
		{"add a cookie", `{"add":[{"name":"cookie","value":"b=2"}]}`, []string{"Cookie: a=1"}, []string{"Cookie: a=1; b=2"}},
		{"add a set-cookie", `{"add":[{"name":"Set-Cookie","value":"b=2"}]}`, []string{"set-cookie: a=1"}, []string{"set-cookie: a=1", "Set-Cookie: b=2"}},
		{"remove", `{"remove":["my-header1","my-header3"]}`, []string{"My-Header1: foo", "My-Header2: bar", "my-header3: baz"}, []string{"My-Header2: bar"}},
		{"all", `{"set":[{"name":"a","value":"1"}],"add":[{"name":"b","value":"2"}],"remove":["c"]}`, []string{"c: 3", "b: 0"}, []string{"b: 0,2", "a: 1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var x exchange.Exchange
			section(&x.Request.Header, tt.in...)
			section(&x.Response.Header, tt.in...)
			if v := compile(t, Request(), tt.spec).Request(&x); v.Status != 0 {
				t.Errorf("Request = %v, want to go on", v)
			}
			if d := cmp.Diff(tt.want, lines(&x.Request.Header)); d != "" {
				t.Errorf("request (-want +got):\n%s", d)
			}
			if v := compile(t, Response(), tt.spec).Response(&x); v.Status != 0 {
				t.Errorf("Response = %v, want to go on", v)
			}
			if d := cmp.Diff(tt.want, lines(&x.Response.Header)); d != "" {
				t.Errorf("response (-want +got):\n%s", d)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	for spec, want := range map[string]string{
		`{"set":[{"name":"Host","value":"a"}]}`:              "set[0].name: Host cannot be changed by a filter (use a URLRewrite filter with hostname)",
		`{"add":[{"name":"content-length","value":"1"}]}`:    "add[0].name: content-length cannot be changed by a filter (the edge frames each message)",
		`{"remove":["Transfer-Encoding"]}`:                   "remove[0]: Transfer-Encoding cannot be changed by a filter (the edge frames each message)",
		`{"remove":["a","Connection"]}`:                      "remove[1]: Connection cannot be changed by a filter (the edge writes it for each connection)",
		`{"set":[{"name":"Expect","value":"100-continue"}]}`: "set[0].name: Expect cannot be changed by a filter (the edge writes it for each message)",
		`{"add":[{"name":"TE","value":"gzip"}]}`:             "add[0].name: TE cannot be changed by a filter (the edge writes it for each connection)",
		`{"add":[{"name":"Trailer","value":"X"}]}`:           "add[0].name: Trailer cannot be changed by a filter (the edge writes it for each message)",
		`{"set":[{"name":"Transfer_Encoding","value":"a"}]}`: "set[0].name: Transfer_Encoding cannot be changed by a filter (the edge frames each message)",
		`{"add":[{"name":"content_length","value":"1"}]}`:    "add[0].name: content_length cannot be changed by a filter (the edge frames each message)",
		`{"remove":["HTTP2_Settings"]}`:                      "remove[0]: HTTP2_Settings cannot be changed by a filter (the edge writes it for each connection)",
		`{"set":[{"name":"Proxy","value":"http://a"}]}`: "set[0].name: Proxy cannot be changed by a filter " +
			"(it is for the edge as a proxy and never sent on: write Authorization, WWW-Authenticate or a name of your own)",
		`{"set":[{"name":"Proxy-Authorization","value":"Basic eA=="}]}`: "set[0].name: Proxy-Authorization cannot be changed by a filter " +
			"(it is for the edge as a proxy and never sent on: write Authorization, WWW-Authenticate or a name of your own)",
		`{"set":[{"name":":path","value":"/"}]}`:     `set[0].name: ":path" is not a header name (write letters, digits and hyphens, X-Team)`,
		`{"remove":[""]}`:                            `remove[0]: "" is not a header name (write letters, digits and hyphens, X-Team)`,
		`{"set":[{"name":"a","value":"1\r\nb: 2"}]}`: `set[0].value: "1\r\nb: 2" holds a control character`,
		`{"set":[{"name":"a","value":"1"}],"remove":["A"]}`: "remove[0]: A is changed by set[0].name already " +
			"(keep one action for each name; several values are written with commas)",
	} {
		var s Spec
		if err := json.Unmarshal([]byte(spec), &s); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Compile(policy.Env{}); err == nil || err.Error() != want {
			t.Errorf("Compile(%s) = %v, want %s", spec, err, want)
		}
	}
}

// TestHttpoxyRemovalRefused: taking out what no request has any more is what guides to httpoxy say, and harmless.
func TestHttpoxyRemovalRefused(t *testing.T) {
	compile(t, Request(), `{"remove":["Proxy","Proxy-Authorization"]}`)
}

func TestAllocates(t *testing.T) {
	h := compile(t, Request(), `{"set":[{"name":"a","value":"1"}],"add":[{"name":"b","value":"2"}],"remove":["c"]}`)
	var x exchange.Exchange
	names := [][]byte{[]byte("a"), []byte("b"), []byte("c")}
	if n := testing.AllocsPerRun(100, func() {
		x.Reset()
		for _, n := range names {
			x.Request.Header.Append(n, n)
		}
		h.Request(&x)
	}); n != 0 {
		t.Errorf("the hook makes %v allocations, want 0", n)
	}
}
