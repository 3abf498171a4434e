package redirect

import (
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

func compile(t *testing.T, spec string) policy.Handler {
	t.Helper()
	s := Step()
	d, err := s.Decode([]byte(spec))
	if err != nil {
		t.Fatal(err)
	}
	h, err := d.Compile(policy.Env{})
	if err != nil {
		t.Fatalf("Compile(%s) = %v", spec, err)
	}
	return h
}

// request is http://shop.example:8080/cart/7?x=1 through a listener of port 8080, unless change says otherwise.
func request(change func(*exchange.Exchange)) *exchange.Exchange {
	x := &exchange.Exchange{Scheme: "http", Port: 8080, Matched: "/cart"}
	x.Request.Host = []byte("shop.example")
	x.Request.Path, x.Request.RawPath = []byte("/cart/7"), []byte("/cart/7")
	x.Request.Query, x.Request.HasQuery = []byte("x=1"), true
	if change != nil {
		change(x)
	}
	return x
}

// answer runs both hooks as proxy does.
func answer(h policy.Handler, x *exchange.Exchange) (status int, location string) {
	v := h.Request(x)
	x.Response.Edge, x.Response.Status = true, v.Status
	h.Response(x)
	return v.Status, string(x.Response.Header.Get("Location"))
}

// TestUnlessSecure: what came by https, as a trusted proxy says, is where it was to go; what came by http is not.
func TestUnlessSecure(t *testing.T) {
	h := compile(t, `{"scheme":"https","statusCode":308,"unlessSecure":true}`)
	if status, location := answer(h, request(nil)); status != 308 || location != "https://shop.example/cart/7?x=1" {
		t.Errorf("by http: %d %q", status, location)
	}
	if status, location := answer(h, request(func(x *exchange.Exchange) { x.Scheme = "https" })); status != 0 || location != "" {
		t.Errorf("by https: %d %q", status, location)
	}
	always := compile(t, `{"scheme":"https"}`)
	if status, _ := answer(always, request(func(x *exchange.Exchange) { x.Scheme = "https" })); status != 302 {
		t.Errorf("a filter: %d, want 302", status)
	}
}

func TestRedirect(t *testing.T) {
	https := func(x *exchange.Exchange) { x.Scheme, x.TLS, x.Port = "https", true, 8443 }
	port := func(n uint16) func(*exchange.Exchange) { return func(x *exchange.Exchange) { x.Port = n } }
	tests := []struct {
		name, spec string
		change     func(*exchange.Exchange)
		status     int
		want       string
	}{
		{"hostname", `{"hostname":"new.example"}`, port(80), 302, "http://new.example/cart/7?x=1"},
		{"listener's port", `{"hostname":"new.example"}`, nil, 302, "http://new.example:8080/cart/7?x=1"},
		{"listener's port with TLS", `{"hostname":"new.example"}`, https, 302, "https://new.example:8443/cart/7?x=1"},
		{"listener's port 443 with TLS", `{"hostname":"new.example"}`, func(x *exchange.Exchange) { https(x); x.Port = 443 }, 302, "https://new.example/cart/7?x=1"},
		{"scheme to https: its own port", `{"scheme":"https"}`, nil, 302, "https://shop.example/cart/7?x=1"},
		{"scheme to http: its own port", `{"scheme":"http"}`, https, 302, "http://shop.example/cart/7?x=1"},
		{"the same scheme: its own port", `{"scheme":"http"}`, nil, 302, "http://shop.example/cart/7?x=1"},
		{"scheme and port", `{"scheme":"https","port":8443}`, nil, 302, "https://shop.example:8443/cart/7?x=1"},
		{"scheme and its own port", `{"scheme":"https","port":443}`, nil, 302, "https://shop.example/cart/7?x=1"},
		{"scheme and the other's port", `{"scheme":"https","port":80}`, nil, 302, "https://shop.example:80/cart/7?x=1"},
		{"port", `{"port":8083}`, nil, 302, "http://shop.example:8083/cart/7?x=1"},
		{"port 80", `{"port":80}`, nil, 302, "http://shop.example/cart/7?x=1"},
		{"port 443 by http", `{"port":443}`, nil, 302, "http://shop.example:443/cart/7?x=1"},
		{"port 80 by https", `{"port":80}`, https, 302, "https://shop.example:80/cart/7?x=1"},
		{"port 443 by https", `{"port":443}`, https, 302, "https://shop.example/cart/7?x=1"},
		{"scheme http and port 443", `{"scheme":"http","port":443}`, https, 302, "http://shop.example:443/cart/7?x=1"},
		{"scheme http and port 80", `{"scheme":"http","port":80}`, https, 302, "http://shop.example/cart/7?x=1"},
		{"a listener for http at 443", `{"hostname":"new.example"}`, port(443), 302, "http://new.example:443/cart/7?x=1"},
		{"a listener for https at 80", `{"hostname":"new.example"}`, func(x *exchange.Exchange) { https(x); x.Port = 80 }, 302, "https://new.example:80/cart/7?x=1"},
		{"the same scheme over TLS: its own port", `{"scheme":"https"}`, https, 302, "https://shop.example/cart/7?x=1"},
		{"a trusted proxy that speaks TLS, and a port", `{"port":8443}`, func(x *exchange.Exchange) { x.Scheme = "https" }, 302, "https://shop.example:8443/cart/7?x=1"},
		{"a trusted proxy that speaks TLS", `{"hostname":"new.example"}`, func(x *exchange.Exchange) { x.Scheme = "https" }, 302, "https://new.example/cart/7?x=1"},
		{"a trusted proxy that says its name", `{"path":{"type":"ReplaceFullPath","replaceFullPath":"/n"}}`, func(x *exchange.Exchange) {
			x.Scheme, x.PublicHost, x.PublicPort = "https", []byte("pub.example"), 8443
		}, 302, "https://pub.example:8443/n?x=1"},
		{"a trusted proxy that says its port", `{}`, func(x *exchange.Exchange) { x.PublicPort = 81 }, 302, "http://shop.example:81/cart/7?x=1"},
		{"a trusted proxy's port and another scheme", `{"scheme":"https"}`, func(x *exchange.Exchange) { x.PublicPort = 81 }, 302, "https://shop.example/cart/7?x=1"},
		{"a trusted proxy's name and another", `{"hostname":"new.example"}`, func(x *exchange.Exchange) { x.PublicHost = []byte("pub.example") }, 302, "http://new.example:8080/cart/7?x=1"},
		{"no Host, but a hostname", `{"hostname":"new.example","scheme":"https"}`, func(x *exchange.Exchange) { x.Request.Host = nil }, 302, "https://new.example/cart/7?x=1"},
		{"301", `{"statusCode":301}`, port(80), 301, "http://shop.example/cart/7?x=1"},
		{"303", `{"statusCode":303}`, port(80), 303, "http://shop.example/cart/7?x=1"},
		{"307", `{"statusCode":307}`, port(80), 307, "http://shop.example/cart/7?x=1"},
		{"308", `{"statusCode":308}`, port(80), 308, "http://shop.example/cart/7?x=1"},
		{"full path", `{"path":{"type":"ReplaceFullPath","replaceFullPath":"/new"}}`, port(80), 302, "http://shop.example/new?x=1"},
		{"empty full path", `{"path":{"type":"ReplaceFullPath","replaceFullPath":""}}`, port(80), 302, "http://shop.example/?x=1"},
		{"prefix", `{"path":{"type":"ReplacePrefixMatch","replacePrefixMatch":"/basket"}}`, port(80), 302, "http://shop.example/basket/7?x=1"},
		{"prefix to nothing", `{"path":{"type":"ReplacePrefixMatch","replacePrefixMatch":""}}`, port(80), 302, "http://shop.example/7?x=1"},
		{"no query", `{"scheme":"https"}`, func(x *exchange.Exchange) { x.Request.Query, x.Request.HasQuery = nil, false }, 302, "https://shop.example/cart/7"},
		{"empty query", `{"scheme":"https"}`, func(x *exchange.Exchange) { x.Request.Query = nil }, 302, "https://shop.example/cart/7?"},
		{"the client's spelling", `{"scheme":"https"}`, func(x *exchange.Exchange) { x.Request.RawPath = []byte("/c%61rt/7") }, 302, "https://shop.example/c%61rt/7?x=1"},
		{"a literal address", `{"scheme":"https"}`, func(x *exchange.Exchange) { x.Request.Host = []byte("2001:db8::1") }, 302, "https://[2001:db8::1]/cart/7?x=1"},
		{"a literal address in brackets", `{"scheme":"https"}`, func(x *exchange.Exchange) { x.Request.Host = []byte("[::1]") }, 302, "https://[::1]/cart/7?x=1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, got := answer(compile(t, tt.spec), request(tt.change))
			if status != tt.status || got != tt.want {
				t.Errorf("%s: %d %s, want %d %s", tt.spec, status, got, tt.status, tt.want)
			}
		})
	}
}

// TestLocationWithoutHost: a request of HTTP/1.0 without Host is not sent to https:///x (RFC 9110 section 4.2.2).
func TestLocationWithoutHost(t *testing.T) {
	for _, spec := range []string{`{}`, `{"scheme":"https"}`, `{"port":8443}`, `{"path":{"type":"ReplaceFullPath","replaceFullPath":"/new"}}`} {
		h := compile(t, spec)
		x := request(func(x *exchange.Exchange) { x.Request.Host, x.Request.Authority = nil, nil })
		v := h.Request(x)
		x.Response.Edge, x.Response.Status = true, v.Status
		h.Response(x)
		if l := x.Response.Header.Get("Location"); v.Status != 400 || v.Reason != "missing_host" || l != nil {
			t.Errorf("%s: %d %s, Location %q, want 400 missing_host without", spec, v.Status, v.Reason, l)
		}
	}
}

// TestLocationOnlyOnItsAnswer: a refusal that another step put in the redirect's place names no Location.
func TestLocationOnlyOnItsAnswer(t *testing.T) {
	h := compile(t, `{"scheme":"https"}`)
	x := request(nil)
	x.Response.Edge, x.Response.Status = true, 302
	h.Response(x) // Request did not run
	h.Request(x)
	x.Response.Status = 403
	h.Response(x)
	if l := x.Response.Header.Get("Location"); l != nil {
		t.Errorf("Location = %s, want none", l)
	}
}

func TestFaults(t *testing.T) {
	for spec, want := range map[string]string{
		`{"scheme":"ftp"}`:                    `scheme: "ftp" is not a scheme to redirect to (write http or https)`,
		`{"hostname":"a.test:80"}`:            `hostname: "a.test:80" is not a hostname (write shop.example; the port has a field of its own)`,
		`{"hostname":"a.test/x"}`:             `hostname: "a.test/x" is not a hostname (write shop.example; the port has a field of its own)`,
		`{"port":0}`:                          "port: 0 is not a port (write 1 to 65535)",
		`{"port":65536}`:                      "port: 65536 is not a port (write 1 to 65535)",
		`{"statusCode":200}`:                  "statusCode: 200 is not a redirect (write 301, 302, 303, 307 or 308)",
		`{"path":{}}`:                         `path.type: "" is not a path modifier (write ReplaceFullPath or ReplacePrefixMatch)`,
		`{"path":{"type":"ReplaceFullPath"}}`: "path.replaceFullPath: is missing, and the type is ReplaceFullPath",
		`{"path":{"type":"ReplacePrefixMatch","replacePrefixMatch":"/a?b"}}`: `path.replacePrefixMatch: "/a?b" is not a path ` +
			"(write /new, without query; other characters as %XX)",
		`{"path":{"type":"ReplaceFullPath","replaceFullPath":"/a\r\nb"}}`: `path.replaceFullPath: "/a\r\nb" is not a path ` +
			"(write /new, without query; other characters as %XX)",
		`{"scheme":"x","port":-1}`: "scheme: \"x\" is not a scheme to redirect to (write http or https)\nport: -1 is not a port (write 1 to 65535)",
	} {
		step := Step()
		s, err := step.Decode([]byte(spec))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Compile(policy.Env{}); err == nil || err.Error() != want {
			t.Errorf("Compile(%s) = %v, want %s", spec, err, want)
		}
	}
}

func TestAllocates(t *testing.T) {
	h := compile(t, `{"scheme":"https","port":8443,"path":{"type":"ReplacePrefixMatch","replacePrefixMatch":"/basket"}}`)
	x := request(nil)
	path, host, query := x.Request.Path, x.Request.Host, x.Request.Query
	if n := testing.AllocsPerRun(100, func() {
		x.Reset()
		x.Scheme, x.Port, x.Matched = "http", 8080, "/cart"
		x.Request.Path, x.Request.Host, x.Request.Query, x.Request.HasQuery = path, host, query, true
		v := h.Request(x)
		x.Response.Edge, x.Response.Status = true, v.Status
		h.Response(x)
	}); n != 0 {
		t.Errorf("the hooks make %v allocations, want 0", n)
	}
}
