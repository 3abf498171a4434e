package cors

import (
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/google/go-cmp/cmp"
)

func compile(spec string) (policy.Handler, error) {
	s := Step()
	d, err := s.Decode([]byte(spec))
	if err != nil {
		return policy.Handler{}, err
	}
	return d.Compile(policy.Env{})
}

const shop = `{"allowOrigins":["https://www.foo.com","https://*.bar.com"],"allowMethods":["GET","OPTIONS"],` +
	`"allowHeaders":["x-header-1","x-header-2"],"exposeHeaders":["x-header-3","x-header-4"],"allowCredentials":true,"maxAge":3600}`

// run gives a request's head and a backend's head to the hooks as proxy does, and returns the answer's head, sorted.
func run(t *testing.T, spec, method string, request, response []string) (policy.Verdict, []string) {
	t.Helper()
	h, err := compile(spec)
	if err != nil {
		t.Fatalf("Compile(%s) = %v", spec, err)
	}
	var x exchange.Exchange
	x.Request.Method = []byte(method)
	for _, l := range request {
		n, v, _ := strings.Cut(l, ": ")
		x.Request.Header.Append([]byte(n), []byte(v))
	}
	v := h.Request(&x)
	if v.Status == 0 {
		x.Request.Header.Del("origin") // a later step took it away
		for _, l := range response {
			n, v, _ := strings.Cut(l, ": ")
			x.Response.Header.Append([]byte(n), []byte(v))
		}
	}
	h.Response(&x)
	var out []string
	for _, f := range x.Response.Header.All() {
		out = append(out, string(f.Name)+": "+string(f.Value))
	}
	slices.Sort(out)
	return v, out
}

func TestPreflight(t *testing.T) {
	ask := func(origin string, more ...string) []string {
		return append([]string{"Origin: " + origin, "access-control-request-method: PUT"}, more...)
	}
	tests := []struct {
		name, spec string
		request    []string
		want       []string
	}{
		{"exact origin", shop, ask("https://www.foo.com", "access-control-request-headers: x-header-1"), []string{
			"Access-Control-Allow-Credentials: true", "Access-Control-Allow-Headers: x-header-1, x-header-2",
			"Access-Control-Allow-Methods: GET, OPTIONS", "Access-Control-Allow-Origin: https://www.foo.com",
			"Access-Control-Expose-Headers: x-header-3, x-header-4", "Access-Control-Max-Age: 3600", "Vary: Origin"}},
		{"origin below a wildcard", shop, ask("https://xpto.www.bar.com"), []string{
			"Access-Control-Allow-Credentials: true", "Access-Control-Allow-Headers: x-header-1, x-header-2",
			"Access-Control-Allow-Methods: GET, OPTIONS", "Access-Control-Allow-Origin: https://xpto.www.bar.com",
			"Access-Control-Expose-Headers: x-header-3, x-header-4", "Access-Control-Max-Age: 3600", "Vary: Origin"}},
		{"other origin", shop, ask("https://foobar.com"), []string{"Vary: Origin"}},
		{"everything, without credentials", `{"allowOrigins":["*"],"allowMethods":["*"],"allowHeaders":["*"],"exposeHeaders":["*"]}`,
			ask("https://a.test:123", "Access-Control-Request-Headers: x-a, authorization"), []string{
				"Access-Control-Allow-Headers: x-a, authorization", "Access-Control-Allow-Methods: PUT",
				"Access-Control-Allow-Origin: https://a.test:123", "Access-Control-Expose-Headers: *", "Access-Control-Max-Age: 5", "Vary: Origin"}},
		{"everything, with credentials", `{"allowOrigins":["*"],"allowMethods":["*"],"allowHeaders":["*"],"exposeHeaders":["*"],"allowCredentials":true}`,
			ask("https://a.test"), []string{"Access-Control-Allow-Credentials: true", "Access-Control-Allow-Methods: PUT",
				"Access-Control-Allow-Origin: https://a.test", "Access-Control-Max-Age: 5", "Vary: Origin"}},
		{"a duration", `{"allowOrigins":["https://a.test"],"maxAge":"10m"}`, ask("https://a.test"), []string{
			"Access-Control-Allow-Origin: https://a.test", "Access-Control-Max-Age: 600", "Vary: Origin"}},
		{"the shortest time", `{"allowOrigins":["https://a.test"],"maxAge":"0s"}`, ask("https://a.test"), []string{
			"Access-Control-Allow-Origin: https://a.test", "Access-Control-Max-Age: 0", "Vary: Origin"}},
		{"every header, of two lines", `{"allowOrigins":["https://a.test"],"allowHeaders":["*"],"allowCredentials":true}`,
			ask("https://a.test", "Access-Control-Request-Headers: x-a", "Access-Control-Request-Headers: x-b"), []string{
				"Access-Control-Allow-Credentials: true", "Access-Control-Allow-Headers: x-a, x-b",
				"Access-Control-Allow-Origin: https://a.test", "Access-Control-Max-Age: 5", "Vary: Origin"}},
		{"any host of a scheme, with credentials", `{"allowOrigins":["https://*"],"allowMethods":["PUT","DELETE"],"allowCredentials":true}`, ask("https://a.b.test"), []string{
			"Access-Control-Allow-Credentials: true", "Access-Control-Allow-Methods: PUT, DELETE",
			"Access-Control-Allow-Origin: https://a.b.test", "Access-Control-Max-Age: 5", "Vary: Origin"}},
		{"any host of a scheme, by the other", `{"allowOrigins":["https://*"],"allowCredentials":true}`, ask("http://a.b.test"), []string{"Vary: Origin"}},
		{"a method that is not allowed is for the browser to refuse", `{"allowOrigins":["*"],"allowMethods":["GET"]}`, ask("https://a.test"), []string{
			"Access-Control-Allow-Methods: GET", "Access-Control-Allow-Origin: https://a.test", "Access-Control-Max-Age: 5", "Vary: Origin"}},
		{"credentials refused", `{"allowOrigins":["*"],"allowCredentials":false}`, ask("https://a.test"), []string{
			"Access-Control-Allow-Origin: https://a.test", "Access-Control-Max-Age: 5", "Vary: Origin"}},
		{"no origin allowed", `{}`, ask("https://a.test"), []string{"Vary: Origin"}},
		{"two origins", shop, ask("https://www.foo.com", "Origin: https://www.foo.com"), []string{"Vary: Origin"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, got := run(t, tt.spec, "OPTIONS", tt.request, nil)
			if v.Status != 200 || v.Reason != "cors_preflight" {
				t.Errorf("the preflight is answered with %v, want 200 cors_preflight", v)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestActualRequest(t *testing.T) {
	backend := []string{"Content-Type: text/plain", "access-control-allow-origin: *", "Access-Control-Foo: 1"}
	tests := []struct {
		name, spec, method string
		request, response  []string
		want               []string
	}{
		{"allowed", shop, "GET", []string{"Origin: https://www.foo.com", "Access-Control-Request-Method: GET"}, backend, []string{
			"Access-Control-Allow-Credentials: true", "Access-Control-Allow-Origin: https://www.foo.com",
			"Access-Control-Expose-Headers: x-header-3, x-header-4", "Content-Type: text/plain", "Vary: Origin"}},
		{"not allowed", shop, "GET", []string{"Origin: https://evil.test"}, backend, []string{"Content-Type: text/plain", "Vary: Origin"}},
		{"everything, with credentials", `{"allowOrigins":["*"],"allowMethods":["*"],"allowHeaders":["*"],"exposeHeaders":["*"],"allowCredentials":true}`, "PUT",
			[]string{"Origin: https://a.test", "Cookie: a=b"}, backend, []string{
				"Access-Control-Allow-Credentials: true", "Access-Control-Allow-Origin: https://a.test", "Content-Type: text/plain", "Vary: Origin"}},
		{"everything, without credentials", `{"allowOrigins":["*"],"exposeHeaders":["*"]}`, "PUT", []string{"Origin: null"}, backend, []string{
			"Access-Control-Allow-Origin: null", "Access-Control-Expose-Headers: *", "Content-Type: text/plain", "Vary: Origin"}},
		{"no origin", shop, "GET", nil, backend, []string{"Content-Type: text/plain", "Vary: Origin"}},
		{"OPTIONS that is no preflight", shop, "OPTIONS", []string{"Origin: https://www.foo.com"}, nil, []string{
			"Access-Control-Allow-Credentials: true", "Access-Control-Allow-Origin: https://www.foo.com",
			"Access-Control-Expose-Headers: x-header-3, x-header-4", "Vary: Origin"}},
		{"the backend varies already", shop, "GET", nil, []string{"vary: accept, ORIGIN"}, []string{"vary: accept, ORIGIN"}},
		{"the backend varies by all", shop, "GET", nil, []string{"Vary: *"}, []string{"Vary: *"}},
		{"the backend varies otherwise", shop, "GET", nil, []string{"Vary: X-Origin"}, []string{"Vary: Origin", "Vary: X-Origin"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, got := run(t, tt.spec, tt.method, tt.request, tt.response)
			if v.Status != 0 {
				t.Errorf("Request = %v, want to go on", v)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestOrigins(t *testing.T) {
	for _, tt := range []struct {
		pattern, origin string
		want            bool
	}{
		{"https://a.test", "https://a.test", true},
		{"https://a.test", "https://a.test:443", true},
		{"https://a.test:443", "https://a.test", true},
		{"http://a.test", "http://a.test:80", true},
		{"https://a.test", "http://a.test", false},
		{"https://a.test", "https://a.test:8443", false},
		{"https://a.test:8443", "https://a.test:8443", true},
		{"https://a.test:8443", "https://a.test", false},
		{"https://a.test", "https://a.test.evil.test", false},
		{"https://a.test", "https://xa.test", false},
		{"https://a.test", "HTTPS://A.TEST", true},
		{"https://*.a.test", "https://b.a.test", true},
		{"https://*.a.test", "https://c.b.a.test", true},
		{"https://*.a.test", "https://a.test", false},
		{"https://*.a.test", "https://.a.test", false},
		{"https://*.a.test", "https://xa.test", false},
		{"https://*.a.test:8443", "https://b.a.test:8443", true},
		{"https://*", "https://b.a.test", true},
		{"https://*", "https://[::1]", true},
		{"https://*", "https://[::1]:443", true},
		{"https://*", "http://b.a.test", false},
		{"http://*:8080", "http://b.a.test:8080", true},
		{"*", "null", true},
		{"*", "chrome-extension://abc", true},
		{"https://*", "null", false},
		{"https://*", "https://", false},
		{"https://*", "https://a.test:", false},
		{"https://*", "https://a.test:99999999999", false},
		{"https://*", "https://a.test:44x", false},
	} {
		p, err := parsePattern(tt.pattern)
		if err != nil {
			t.Errorf("parsePattern(%q) = %v", tt.pattern, err)
		}
		if got := p.matches([]byte(tt.origin)); got != tt.want {
			t.Errorf("%q matches %q = %v, want %v", tt.pattern, tt.origin, got, tt.want)
		}
	}
	for _, s := range []string{"", "a.test", "ftp://a.test", "https://", "https://a.test:0", "https://a.test:65536", "https://a.test/", "https://a*.test",
		"https://*a.test", "https://a.*.test", "https://**", "https://*.", "null", "https://user@a.test"} {
		if p, err := parsePattern(s); err == nil {
			t.Errorf("parsePattern(%q) = %+v, want an error", s, p)
		}
	}
}

func TestFaults(t *testing.T) {
	const hint = " (write https://shop.example, https://*.example:8443 or *)"
	for spec, want := range map[string]string{
		`{"allowOrigins":["a.test","https://b.test:x"]}`: `allowOrigins[0]: "a.test" is not an origin` + hint + "\n" +
			`allowOrigins[1]: "https://b.test:x" is not an origin` + hint,
		`{"allowOrigins":["https://a.test","*"]}`: "allowOrigins[1]: * stands beside other origins (leave out the others)",
		`{"allowMethods":["*","GET"]}`:            "allowMethods[0]: * stands beside other names (leave out the others)",
		`{"allowHeaders":["x y"]}`:                `allowHeaders[0]: "x y" is not a header name`,
		`{"exposeHeaders":["a\r\nb"]}`:            `exposeHeaders[0]: "a\r\nb" is not a header name`,
		`{"maxAge":-1}`:                           "maxAge: -1 is negative (write seconds, or 10m)",
		`{"maxAge":"soon"}`:                       `maxAge: "soon" is not a duration (write seconds, or 10m)`,
		`{"maxAge":1.5}`:                          `maxAge: "1.5" is not a duration (write seconds, or 10m)`,
	} {
		if _, err := compile(spec); err == nil || err.Error() != want {
			t.Errorf("Compile(%s) = %v, want %s", spec, err, want)
		}
	}
}

func TestAllocates(t *testing.T) {
	h, err := compile(shop)
	if err != nil {
		t.Fatal(err)
	}
	var x exchange.Exchange
	name, origin := []byte("Origin"), []byte("https://a.bar.com")
	if n := testing.AllocsPerRun(100, func() {
		x.Reset()
		x.Request.Header.Append(name, origin)
		h.Request(&x)
		x.Response.Header.Append(allowOrigin, yes)
		h.Response(&x)
	}); n != 0 {
		t.Errorf("the hooks make %v allocations, want 0", n)
	}
}
