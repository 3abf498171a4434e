package edgetest_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/policy/builtin"
)

// step is a step of the IR as translate makes it.
func step(name, phase, spec string) *ir.Step {
	return &ir.Step{Name: name, Phase: phase, Spec: ir.RawJSON(spec), Sources: map[string]ir.Source{"": {Kind: "ProtectionPolicy", Namespace: "test", Name: name}}}
}

func errorPages(spec string) *ir.Step  { return step("errorPages", "transform response", spec) }
func maintenance(spec string) *ir.Step { return step("maintenance", "protect", spec) }

// answers is an edge with a backend that answers /<status> with that status, and routes /edge and /direct that the edge answers itself.
func answers(t *testing.T, listener, route []*ir.Step) *edgetest.Rig {
	t.Helper()
	b := edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var status int
		if _, err := fmt.Sscanf(r.URL.Path, "/%d", &status); err != nil {
			status = 200
		}
		w.Header().Set("Content-Type", "text/backend")
		w.Header().Set("WWW-Authenticate", "Basic")
		w.Header().Set("X-Conn", r.RemoteAddr)
		switch {
		case strings.HasSuffix(r.URL.Path, "/gzip"):
			var z bytes.Buffer
			g := gzip.NewWriter(&z)
			_, _ = g.Write([]byte("the backend's"))
			_ = g.Close()
			w.Header().Set("Content-Encoding", "gzip")
			w.Header().Set("ETag", `"1"`)
			w.WriteHeader(status)
			_, _ = w.Write(z.Bytes())
		case strings.HasSuffix(r.URL.Path, "/grpc"):
			w.Header().Set("Content-Type", "application/grpc")
			w.WriteHeader(status)
		case strings.HasSuffix(r.URL.Path, "/long"):
			w.WriteHeader(status)
			for range 200 {
				_, _ = w.Write(bytes.Repeat([]byte("x"), 10_000))
			}
		case strings.HasSuffix(r.URL.Path, "/chunked"):
			w.Header().Set("Trailer", "X-Sum")
			w.WriteHeader(status)
			_, _ = w.Write([]byte("the "))
			w.(http.Flusher).Flush()
			_, _ = w.Write([]byte("backend's"))
			w.Header().Set("X-Sum", "1")
		default:
			w.WriteHeader(status)
			if status >= 200 && status != 204 && status != 304 {
				_, _ = w.Write([]byte("the backend's"))
			}
		}
	}))
	c := edgetest.Simple()
	all := c.Hosts[0].Routes[0]
	all.Steps = route
	at := func(path string, more ...*ir.Step) *ir.Route {
		return &ir.Route{Name: "HTTPRoute/test" + path, Source: all.Source, Match: ir.Match{Path: ir.PathMatch{Kind: ir.PathPrefix, Value: path}},
			Steps: append(append([]*ir.Step(nil), route...), more...), NoBackend: "no backendRefs"}
	}
	c.Hosts[0].Hostname = "shop.example"
	c.Hosts[0].Routes = []*ir.Route{at("/direct", step("directResponse", "transform request", `{"status":404,"body":"direct {status}","contentType":"text/plain","headers":[{"name":"X-Team","value":"web"}]}`)),
		at("/robots", step("directResponse", "transform request", `{"body":"User-agent: *","contentType":"text/plain"}`)),
		at("/move", step("redirect", "transform request", `{"statusCode":308,"scheme":"https"}`)), at("/edge"), all}
	return edgetest.New(t, edgetest.Options{Config: c, Steps: builtin.Steps(), Clusters: map[string][]string{"c": {b}},
		Listener: func(l *ir.Listener) { l.Steps = listener }})
}

const pages = `[{"statuses":["404"],"body":"<p>{status} {reason} {requestId}</p>","contentType":"text/html"},
	{"statuses":["4xx","5xx"],"body":"page {status} {reason}","contentType":"text/plain","backends":true}]`

// TestErrorPages: which body a client gets, how it is framed, and that the status and what a refusal says stay.
func TestErrorPages(t *testing.T) {
	r := answers(t, []*ir.Step{errorPages(`[{"statuses":["404"],"body":"no {reason}","contentType":"text/plain"}]`)}, []*ir.Step{errorPages(pages)})
	c := r.Dial() // one connection for all: a body that is framed wrongly would break the next answer
	for _, tt := range []struct {
		request string
		status  int
		body    string
		length  int64
	}{
		{"GET /edge", 500, "page 500 no_backend", 19},
		{"HEAD /edge", 500, "", 19},
		{"GET /404", 404, "page 404 ", 9}, // the first page for 404 is not for backends
		{"GET /401", 401, "page 401 ", 9},
		{"HEAD /401", 401, "", 9},
		{"GET /503/gzip", 503, "page 503 ", 9},
		{"GET /500/chunked", 500, "page 500 ", 9},
		{"GET /500/long", 500, "page 500 ", 9},
		{"GET /200", 200, "the backend's", 13},
		{"GET /304", 304, "", -1},
		{"GET /503/grpc", 503, "", 0},
		{"GET /direct", 404, "direct {status}", 15},
		{"GET /robots", 200, "User-agent: *", 13},
		{"GET /move", 308, "", 0},
	} {
		method, target, _ := strings.Cut(tt.request, " ")
		c.Send(method + " " + target + " HTTP/1.1\nHost: shop.example\n\n")
		res, body := c.Read(method)
		if res.StatusCode != tt.status || body != tt.body || tt.length >= 0 && res.ContentLength != tt.length {
			t.Errorf("%s = %d %q of length %d, want %d %q of %d", tt.request, res.StatusCode, body, res.ContentLength, tt.status, tt.body, tt.length)
		}
		h := res.Header
		if strings.HasPrefix(body, "page") && (h.Get("Content-Type") != "text/plain; charset=utf-8" || h.Get("Content-Encoding")+h.Get("Etag")+h.Get("Trailer") != "" || len(res.Trailer) > 0) {
			t.Errorf("%s: the page is described as %v", tt.request, h)
		}
		if tt.status == 401 && h.Get("WWW-Authenticate") != "Basic" {
			t.Errorf("%s: the challenge is gone: %v", tt.request, h)
		}
		if target == "/direct" && h.Get("X-Team") != "web" || target == "/move" && h.Get("Location") == "" {
			t.Errorf("%s: header %v", tt.request, h)
		}
	}
}

// TestErrorPageWithoutARoute: the listener's page answers what matches no route, with the reason and the request's id.
func TestErrorPageWithoutARoute(t *testing.T) {
	r := answers(t, []*ir.Step{errorPages(pages)}, nil)
	c := r.Dial()
	c.Send("GET /x HTTP/1.1\nHost: other.example\n\n")
	res, body := c.Read("GET")
	id, _, _ := strings.Cut(strings.TrimPrefix(body, "<p>404 route_not_found "), "<")
	if res.StatusCode != 404 || id == "" || body != "<p>404 route_not_found "+id+"</p>" || res.Header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Errorf("%d %q, %v", res.StatusCode, body, res.Header)
	}
	if line := r.Log.Next(t); !strings.Contains(line, id) {
		t.Errorf("the id %q of the page is not that of the log: %s", id, line)
	}
	c.Send("GET /edge HTTP/1.1\nHost: shop.example\n\n") // a route that says nothing has no page: its steps are all that hold
	if res, body := c.Read("GET"); res.StatusCode != 500 || !strings.Contains(body, `"reason":"no_backend"`) {
		t.Errorf("%d %q", res.StatusCode, body)
	}
}

// TestConnectionAfterAnErrorPage: a short body that a page takes the place of leaves the backend's connection in use.
func TestConnectionAfterAnErrorPage(t *testing.T) {
	r := answers(t, nil, []*ir.Step{errorPages(pages)})
	c := r.Dial()
	conn := map[string]bool{}
	for range 5 {
		c.Send("GET /500 HTTP/1.1\nHost: shop.example\n\n")
		if res, body := c.Read("GET"); res.StatusCode != 500 || body != "page 500 " {
			t.Fatalf("%d %q", res.StatusCode, body)
		} else {
			conn[res.Header.Get("X-Conn")] = true
		}
	}
	if len(conn) != 1 {
		t.Errorf("%d connections were made to the backend, want 1", len(conn))
	}
}

// TestMaintenance: nobody gets through but who is allowed, whatever the method, and the answer says when to come back.
func TestMaintenance(t *testing.T) {
	r := answers(t, nil, []*ir.Step{maintenance(`{"retryAfter":"10m","allow":["192.0.2.0/24"]}`), step("cors", "protect", `{"allowOrigins":["*"]}`)})
	c := r.Dial()
	for _, head := range []string{"GET /200", "POST /200", "OPTIONS /200", "GET /robots"} {
		c.Send(head + " HTTP/1.1\nHost: shop.example\nOrigin: https://a.example\nAccess-Control-Request-Method: GET\nX-Forwarded-For: 192.0.2.1\n\n")
		res, body := c.Read("GET")
		if res.StatusCode != 503 || !strings.Contains(body, `"reason":"maintenance"`) || res.Header.Get("Retry-After") != "600" {
			t.Errorf("%s = %d %q, %v", head, res.StatusCode, body, res.Header)
		}
	}
	if line := r.Log.Next(t); !strings.Contains(line, "maintenance") {
		t.Errorf("log: %s", line)
	}
	r = answers(t, nil, []*ir.Step{maintenance(`{"allow":["127.0.0.0/8"]}`)})
	c = r.Dial()
	c.Send("GET /200 HTTP/1.1\nHost: shop.example\n\n")
	if res, body := c.Read("GET"); res.StatusCode != 200 || body != "the backend's" {
		t.Errorf("for an allowed client: %d %q", res.StatusCode, body)
	}
}

// TestMaintenancePage: a page of its own comes before those for all answers, which come before the document.
func TestMaintenancePage(t *testing.T) {
	for _, tt := range []struct{ spec, body string }{
		{`{"retryAfter":"10m"}`, "page 503 maintenance"},
		{`{"retryAfter":"10m","body":"<h1>Back soon</h1>","contentType":"text/html"}`, "<h1>Back soon</h1>"},
	} {
		r := answers(t, nil, []*ir.Step{errorPages(pages), maintenance(tt.spec)})
		c := r.Dial()
		c.Send("GET /200 HTTP/1.1\nHost: shop.example\n\n")
		if res, body := c.Read("GET"); res.StatusCode != 503 || body != tt.body || res.Header.Get("Retry-After") != "600" || res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %q, %v", tt.spec, res.StatusCode, body, res.Header)
		}
	}
}

// TestRefusedResponseHasThePage: what a step further in makes of a backend's answer is seen by those further out.
func TestRefusedResponseHasThePage(t *testing.T) {
	r := answers(t, nil, []*ir.Step{errorPages(pages), step("cors", "protect", `{"allowOrigins":["https://a.example"]}`), step("size", "protect", `{"responseBody":"5"}`)})
	c := r.Dial()
	c.Send("GET /200 HTTP/1.1\nHost: shop.example\nOrigin: https://a.example\n\n")
	res, body := c.Read("GET")
	if res.StatusCode != 502 || body != "page 502 response_too_large" || res.Header.Get("Access-Control-Allow-Origin") != "https://a.example" {
		t.Errorf("%d %q, %v", res.StatusCode, body, res.Header)
	}
}
