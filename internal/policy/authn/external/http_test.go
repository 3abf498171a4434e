package external

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
)

// service is a server that answers what the test says and tells what it saw.
func service(t testing.TB, h http.HandlerFunc) (s *httptest.Server, saw *string) {
	t.Helper()
	saw = new(string)
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		var fields []string
		for _, n := range slices.Sorted(maps.Keys(r.Header)) {
			fields = append(fields, n+": "+strings.Join(r.Header[n], "|"))
		}
		*saw = fmt.Sprintf("%s %s host=%s length=%d {%s} %s", r.Method, r.RequestURI, r.Host, r.ContentLength, strings.Join(fields, "; "), b)
		h(w, r)
	}))
	t.Cleanup(s.Close)
	return s, saw
}

// TestHTTPQuestion: what is always sent (GEP-1494), and what the policy names.
func TestHTTPQuestion(t *testing.T) {
	s, saw := service(t, func(http.ResponseWriter, *http.Request) {})
	client := []string{"Host: shop.example:443", "authorization: Bearer t", "Cookie: a=1", "User-Agent: curl", "X-A: 1", "x-a: 2", "Content-Length: 5",
		"Connection: close", "Idempotency-Key: k"}
	for _, x := range []struct {
		path    string
		allowed []string
		body    int64
		want    string
	}{
		{"", nil, 0, "PUT /cart%2Fa/7?a=1|2 host=shop.example:443 length=0 {Authorization: Bearer t; Content-Length: 0} "},
		{"/check/", nil, 5, "PUT /check/cart%2Fa/7?a=1|2 host=shop.example:443 length=5 {Authorization: Bearer t; Content-Length: 5} hello"},
		{"/check", []string{"x-A", "COOKIE", "User-Agent", "Idempotency-Key"}, 0,
			"PUT /check/cart%2Fa/7?a=1|2 host=shop.example:443 length=0 {Authorization: Bearer t; Content-Length: 0; Cookie: a=1; Idempotency-Key: k; User-Agent: curl; X-A: 1|2} "},
	} {
		v := spec("HTTP")
		v.HTTP = &v1alpha1.ExternalHTTPAuth{Path: x.path, AllowedHeaders: x.allowed}
		if x.body > 0 {
			v.ForwardBody = &v1alpha1.ForwardBody{MaxSize: x.body}
		}
		h := compile(t, v, world(t, s.Listener.Addr()))
		if h.Body != x.body {
			t.Errorf("Handler.Body = %d, want %d", h.Body, x.body)
		}
		r := request(client...)
		r.Request.ContentLength, r.Request.Body, r.Request.Buffered = 5, []byte("hello"), x.body > 0
		if o := run(t.Context(), h, r); o.State != method.Accepted {
			t.Fatalf("%v (%s), want it accepted", o.State, o.Detail)
		}
		if *saw != x.want {
			t.Errorf("the service saw\n%s, want\n%s", *saw, x.want)
		}
	}
}

// TestHTTPAnswer: a 200 lets pass and tells the backend what the policy names; anything else goes to the client.
func TestHTTPAnswer(t *testing.T) {
	for _, x := range []struct {
		name   string
		status int
		header []string
		body   string
		state  method.State
		want   string // what the backend is told, or the client gets
	}{
		{"200", 200, []string{"X-User: ann", "x-roles: a", "X-Roles: b", "X-Other: 1", "Set-Cookie: s=1", "Authorization: stolen"}, "ignored", method.Accepted,
			"X-Roles: a, b; X-User: ann"},
		{"200 that says nothing", 200, nil, "", method.Accepted, ""},
		{"403", 403, []string{"Content-Type: text/plain", "X-User: ann"}, "no", method.Answered, "Content-Type: text/plain; X-User: ann"},
		{"401", 401, []string{"WWW-Authenticate: Bearer", "Connection: X-Hop", "X-Hop: 1", "Keep-Alive: timeout=5", "Content-Type: text/plain"}, "", method.Answered,
			"Content-Type: text/plain; Www-Authenticate: Bearer"},
		{"302 to a login", 302, []string{"Location: https://login.example/?rd=1", "Set-Cookie: a=1", "Set-Cookie: b=2"}, "", method.Answered,
			"Location: https://login.example/?rd=1; Set-Cookie: a=1; Set-Cookie: b=2"},
		{"204 is not 200", 204, nil, "", method.Answered, ""},
		{"201 is not 200", 201, []string{"Content-Type: text/plain"}, "made", method.Answered, "Content-Type: text/plain"},
		{"500", 500, []string{"Content-Type: text/plain"}, "oh", method.Answered, "Content-Type: text/plain"},
		{"a status that is none", 999, nil, "", method.Unavailable, ""},
	} {
		s, _ := service(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Date"] = nil
			for _, f := range x.header {
				n, v, _ := strings.Cut(f, ": ")
				w.Header().Add(n, v)
			}
			w.WriteHeader(x.status)
			_, _ = io.WriteString(w, x.body)
		})
		v := spec("HTTP")
		v.HTTP = &v1alpha1.ExternalHTTPAuth{AllowedResponseHeaders: []string{"x-user", "X-Roles"}}
		h := compile(t, v, world(t, s.Listener.Addr()))
		if !slices.Equal(h.Fields, []string{"x-user", "X-Roles"}) {
			t.Errorf("Fields = %v", h.Fields)
		}
		o := run(t.Context(), h, request())
		got := lines(o.Header)
		if x.state == method.Answered {
			got = lines(o.Answer.Header)
			if o.Answer.Status != x.status || string(o.Answer.Body) != x.body || o.Answer.Body == nil || o.Answer.Reason != "external_denied" {
				t.Errorf("%s: the client gets %d %q, %s", x.name, o.Answer.Status, o.Answer.Body, o.Answer.Reason)
			}
		}
		if o.State != x.state || got != x.want {
			t.Errorf("%s: %v (%s) with\n%s, want %v with\n%s", x.name, o.State, o.Detail, got, x.state, x.want)
		}
		if o.Identity.Subject != "" || o.Identity.Claims != nil {
			t.Errorf("%s: an identity %+v", x.name, o.Identity)
		}
	}
}

func BenchmarkHTTP(b *testing.B) {
	s, _ := service(b, func(http.ResponseWriter, *http.Request) {})
	h := compile(b, spec("HTTP"), world(b, s.Listener.Addr()))
	x := request("Host: shop.example", "Authorization: Bearer t", "Accept: */*")
	b.ReportAllocs()
	for b.Loop() {
		if o := run(b.Context(), h, x); o.State != method.Accepted {
			b.Fatal(o)
		}
	}
}
