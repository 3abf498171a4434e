package errorpages

import (
	"encoding/json"
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

func must(t *testing.T, spec string) policy.Handler {
	t.Helper()
	h, err := compile(t, spec)
	if err != nil {
		t.Fatalf("%s: %v", spec, err)
	}
	return h
}

// answer is an answer of the edge, with its document.
func answer(status int) *exchange.Exchange {
	x := &exchange.Exchange{Reason: "no_endpoint", ID: []byte("id-1")}
	x.Response.Status, x.Response.Edge, x.Response.Buffered = status, true, true
	x.Response.Body = []byte("{}")
	x.Response.Header.Append([]byte("Content-Type"), []byte("application/problem+json"))
	return x
}

const three = `[{"statuses":["404","4xx"],"body":"four","contentType":"text/plain"},
	{"statuses":["404","503"],"body":"exact","contentType":"text/plain","backends":true},
	{"statuses":["5xx"],"body":"five","contentType":"text/plain","backends":true}]`

func TestWhichPage(t *testing.T) {
	h := must(t, three)
	for _, tt := range []struct {
		name   string
		status int
		change func(*exchange.Exchange)
		want   string // "{}": the body that was there
	}{
		{"the first that names it", 404, nil, "four"},
		{"of a class", 418, nil, "four"},
		{"exact before the class", 503, nil, "exact"},
		{"of the other class", 599, nil, "five"},
		{"none for what went well", 200, nil, "{}"},
		{"none for a redirect", 302, nil, "{}"},
		{"none for what lies outside", 600, nil, "{}"},
		{"a backend's: the first that is for backends", 404, func(x *exchange.Exchange) { x.Response.Edge = false }, "exact"},
		{"a backend's: none", 418, func(x *exchange.Exchange) { x.Response.Edge = false }, "{}"},
		{"a backend's: of a class", 500, func(x *exchange.Exchange) { x.Response.Edge = false }, "five"},
		{"what was written for the answer stays", 503, func(x *exchange.Exchange) { x.Response.Written = true }, "{}"},
		{"a gRPC request", 503, func(x *exchange.Exchange) {
			x.Request.Header.Append([]byte("content-type"), []byte("application/grpc+proto"))
		}, "{}"},
		{"a gRPC response", 503, func(x *exchange.Exchange) {
			x.Response.Header.Set([]byte("Content-Type"), []byte("Application/gRPC"))
		}, "{}"},
	} {
		x := answer(tt.status)
		if tt.change != nil {
			tt.change(x)
		}
		if v := h.Response(x); v.Status != 0 || x.Response.Status != tt.status {
			t.Errorf("%s: decided %d, status %d", tt.name, v.Status, x.Response.Status)
		}
		r := &x.Response
		if string(r.Body) != tt.want {
			t.Errorf("%s: %d has the body %q, want %q", tt.name, tt.status, r.Body, tt.want)
		}
		if tt.want != "{}" && (r.ContentLength != int64(len(tt.want)) || !r.Written || !r.Buffered || string(r.Header.Get("Content-Type")) != "text/plain; charset=utf-8") {
			t.Errorf("%s: %+v", tt.name, r)
		}
	}
}

// TestValues: the three values are put in, escaped where that matters, and nothing else is.
func TestValues(t *testing.T) {
	for _, tt := range []struct{ contentType, body, want string }{
		{"text/html", "<p>{status}: {reason}, {requestId}</p>", "<p>503: no_endpoint, a&lt;b&gt;&#34;</p>"},
		{"text/plain", "{status}: {reason}, {requestId}", `503: no_endpoint, a<b>"`},
		{"text/html", "{Status} {{status}} { status } {host} ${x} %s {", "{Status} {503} { status } {host} ${x} %s {"},
		{"text/html", "{status}{status}", "503503"},
		{"text/html", "no value", "no value"},
	} {
		spec, err := json.Marshal([]Page{{Statuses: []string{"503"}, Body: tt.body, ContentType: tt.contentType}})
		if err != nil {
			t.Fatal(err)
		}
		x := answer(503)
		x.ID = []byte(`a<b>"`)
		must(t, string(spec)).Response(x)
		if got := string(x.Response.Body); got != tt.want {
			t.Errorf("%q becomes %q, want %q", tt.body, got, tt.want)
		}
	}
}

// TestRefusalsStay: a page takes the headers away that describe a backend's body, and no other.
func TestRefusalsStay(t *testing.T) {
	h := must(t, `[{"statuses":["4xx","5xx"],"body":"page","contentType":"text/plain","backends":true}]`)
	x := answer(401)
	x.Response.Edge = false
	x.Response.Trailer.Append([]byte("X-Sum"), []byte("1"))
	for _, n := range []string{"WWW-Authenticate", "Retry-After", "Location", "Set-Cookie", "Allow", "Content-Range", "Content-Security-Policy", "Vary"} {
		x.Response.Header.Append([]byte(n), []byte("stays"))
	}
	for _, n := range []string{"ETag", "content-encoding", "Content-Language", "Last-Modified", "Accept-Ranges", "Digest", "Repr-Digest",
		"Content-Digest", "Content-MD5", "Content-Location", "Content-Disposition", "Trailer"} {
		x.Response.Header.Append([]byte(n), []byte("goes"))
	}
	h.Response(x)
	var stay []string
	for _, f := range x.Response.Header.All() {
		if string(f.Value) == "goes" {
			t.Errorf("%s is still there", f.Name)
		}
		if string(f.Value) == "stays" {
			stay = append(stay, string(f.Name))
		}
	}
	if len(stay) != 8 || x.Response.Trailer.Len() != 0 || x.Response.Status != 401 {
		t.Errorf("status %d, %d trailers, what stayed: %v", x.Response.Status, x.Response.Trailer.Len(), stay)
	}
}

// TestLevels: for a status that both levels name, the inner's page holds.
func TestLevels(t *testing.T) {
	s := Step()
	spec := func(text string) policy.Spec {
		d, err := s.Decode([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	outer := spec(`[{"statuses":["5xx","404"],"body":"outer","contentType":"text/plain"}]`)
	inner := spec(`[{"statuses":["503"],"body":"inner","contentType":"text/plain"}]`)
	merged, _ := s.Merge([]policy.Layer{{Spec: outer}, {Spec: inner}})
	h, err := merged.Compile(policy.Env{})
	if err != nil {
		t.Fatal(err)
	}
	for status, want := range map[int]string{503: "inner", 500: "outer", 404: "outer", 403: "{}"} {
		x := answer(status)
		h.Response(x)
		if got := string(x.Response.Body); got != want {
			t.Errorf("%d has the body %q, want %q", status, got, want)
		}
	}
}

func TestFaults(t *testing.T) {
	for _, tt := range []struct{ spec, want string }{
		{`[{"statuses":["404","40","4x","200","600","4XX"],"body":"x","contentType":"text/plain"}]`,
			`[0].statuses[1]: "40" is not a status of 400 to 599 (write "404" or "5xx")`},
		{`[{"body":"x","contentType":"text/plain"}]`, `[0].statuses: names no status (write "404" or "5xx")`},
		{`[{"statuses":["404"],"contentType":"text/plain"}]`, "[0].body: is missing (write the page)"},
		{`[{"statuses":["404"],"body":"x"}]`, "[0].contentType: is missing (write text/html, text/plain or application/json)"},
	} {
		_, err := compile(t, tt.spec)
		if err == nil || strings.Split(err.Error(), "\n")[0] != tt.want {
			t.Errorf("%s compiles with %v, want %s", tt.spec, err, tt.want)
		}
	}
	if _, err := compile(t, `[{"statuses":["404","40","4x","200","600","4XX","-40"],"body":"x","contentType":"text/plain"}]`); strings.Count(err.Error(), "\n") != 5 {
		t.Errorf("six statuses that are none: %v", err)
	}
}

// TestAllocations: what has no page, and a page without values, costs no memory.
func TestAllocations(t *testing.T) {
	h := must(t, three)
	fine, page := answer(200), answer(404)
	if n := testing.AllocsPerRun(100, func() {
		h.Response(fine)
		page.Response.Written = false
		h.Response(page)
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
