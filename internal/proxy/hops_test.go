package proxy

import (
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// TestTraceForwarded: TRACE reaches a backend only by a rule that names it, and Max-Forwards is obeyed (RFC 9110 section 7.6.2).
func TestTraceForwarded(t *testing.T) {
	for _, x := range []struct {
		name, method, rule, hops, want, left, allow, body string
	}{
		{name: "TRACE", method: "TRACE", want: "answer(405 method_not_allowed)", allow: string(allowed)},
		{name: "TRACE that ends here", method: "TRACE", hops: "0", want: "answer(405 method_not_allowed)", allow: string(allowed)},
		{name: "TRACE that is named", method: "TRACE", rule: "TRACE", want: "connect"},
		{name: "TRACE with hops left", method: "TRACE", rule: "TRACE", hops: "3", want: "connect", left: "2"},
		{name: "TRACE that is named and ends here", method: "TRACE", rule: "TRACE", hops: "0", want: "answer(200 max_forwards)",
			body: "TRACE /app HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n"},
		{name: "OPTIONS", method: "OPTIONS", want: "connect"},
		{name: "OPTIONS that ends here", method: "OPTIONS", hops: "0", want: "answer(200 max_forwards)", allow: string(allowed)},
		{name: "OPTIONS with one hop", method: "OPTIONS", hops: "1", want: "connect", left: "0"},
		{name: "more hops than there are", method: "OPTIONS", hops: "99999999999999999999", want: "connect", left: "255"},
		{name: "the lowest counts", method: "OPTIONS", hops: "7,3", want: "connect", left: "2"},
		{name: "no number", method: "OPTIONS", hops: "-1", want: "connect"},
		{name: "GET", method: "GET", hops: "0", want: "connect", left: "0"},
	} {
		t.Run(x.name, func(t *testing.T) {
			ran := false
			step := Step{Config: &ir.Step{Name: "auth"}, Handler: policy.Handler{Request: func(*exchange.Exchange) policy.Verdict { ran = true; return policy.Verdict{} }}}
			w := newWorld(t, 1, []Step{step}, func(r *Route) { r.Config.Match.Method = x.rule })
			var f Flow
			w.begin(&f, x.method, "/app")
			f.Request.Target = []byte("/app")
			f.Request.Header.Append([]byte("Cookie"), []byte("secret"))
			for _, v := range strings.FieldsFunc(x.hops, func(c rune) bool { return c == ',' }) {
				f.Request.Header.Append([]byte("Max-Forwards"), []byte(v))
			}
			if got := play(&f, "head"); got != x.want {
				t.Errorf("%s, want %s", got, x.want)
			}
			if got := string(f.Request.Header.Get("Max-Forwards")); x.want == "connect" && got != x.left {
				t.Errorf("Max-Forwards %q, want %q", got, x.left)
			}
			if got := string(f.Response.Header.Get("Allow")); got != x.allow {
				t.Errorf("Allow %q, want %q", got, x.allow)
			}
			if x.body != "" && string(f.Response.Body) != x.body {
				t.Errorf("body %q, want %q", f.Response.Body, x.body)
			}
			if want := x.want != "answer(405 method_not_allowed)"; ran != want {
				t.Errorf("the route's steps ran: %v, want %v", ran, want)
			}
		})
	}
}

// TestNoDate: every final response has a Date (RFC 9110 section 6.6.1), a backend's own stays, and the text follows the clock.
func TestNoDate(t *testing.T) {
	const first, later = "Thu, 01 Jan 1970 00:00:01 GMT", "Sun, 06 Nov 1994 08:49:37 GMT"
	at := time.Date(1994, 11, 6, 9, 49, 37, 999, time.FixedZone("", 3600))
	w := newWorld(t, 1, nil, nil)
	for _, x := range []struct {
		name, method, path, events, own string
		status                          int
		late                            bool
		want                            []string
	}{
		{name: "refusal", method: "GET", path: "/", events: "head", want: []string{first}},
		{name: "malformed head", method: "GET", path: "/", events: "malformed", want: []string{first}},
		{name: "method that is refused", method: "TRACE", path: "/app", events: "head", want: []string{first}},
		{name: "forwarded", method: "GET", path: "/app", events: "head connected", status: 200, late: true, want: []string{later}},
		{name: "forwarded with its own", method: "GET", path: "/app", events: "head connected", status: 200, own: "yesterday", late: true, want: []string{"yesterday"}},
		{name: "a status of nobody", method: "GET", path: "/app", events: "head connected", status: 999, late: true, want: []string{later}},
		{name: "switched", method: "GET", path: "/app", events: "head connected", status: 101, late: true},
	} {
		t.Run(x.name, func(t *testing.T) {
			var f Flow
			w.begin(&f, x.method, x.path)
			play(&f, x.events)
			if x.late {
				f.Now, f.Response.Status = at, x.status
				if x.own != "" {
					f.Response.Header.Append([]byte("dAte"), []byte(x.own))
				}
				f.Request.Upgrade = []byte("websocket")
				f.Response.Header.Append([]byte("Upgrade"), []byte("websocket"))
				f.Step(EventBackendHead)
			}
			var got []string
			for _, h := range f.Response.Header.All() {
				if exchange.EqualFold(h.Name, "date") {
					got = append(got, string(h.Value))
				}
			}
			if len(got) != len(x.want) || len(got) > 0 && got[0] != x.want[0] {
				t.Errorf("Date %q, want %q", got, x.want)
			}
		})
	}
}

// TestDateAllocates: the text of a second is written into the flow's own room.
func TestDateAllocates(t *testing.T) {
	w := newWorld(t, 1, nil, nil)
	var f Flow
	w.begin(&f, "GET", "/app")
	f.Response.Header.Append([]byte("A"), []byte("b"))
	f.Response.Header.Append([]byte("A"), []byte("b"))
	second := int64(0)
	if n := testing.AllocsPerRun(100, func() {
		second++
		f.Now = time.Unix(second, 0)
		f.Response.Header.Truncate(1)
		f.setDate()
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// TestRegisteredMethodsNotRepeated: the IANA registry says which methods are idempotent.
func TestRegisteredMethodsNotRepeated(t *testing.T) {
	for method, want := range map[string]bool{"QUERY": true, "PROPFIND": true, "REPORT": true, "SEARCH": true, "PUT": true, "MKCOL": true, "COPY": true,
		"VERSION-CONTROL": true, "PROPPATCH": true, "UNLOCK": true, "POST": false, "PATCH": false, "LOCK": false, "CONNECT": false, "query": false, "NOTIFY": false} {
		if got := idempotent([]byte(method)); got != want {
			t.Errorf("idempotent(%s) = %v, want %v", method, got, want)
		}
	}
}

func BenchmarkDate(b *testing.B) {
	w := newWorld(b, 1, nil, nil)
	var f Flow
	w.begin(&f, "GET", "/app")
	for _, name := range []string{"Content-Type", "Cache-Control", "Etag", "Vary", "Server", "X-Frame-Options"} {
		f.Response.Header.Append([]byte(name), []byte("b"))
	}
	fields := f.Response.Header.Len()
	b.ReportAllocs()
	for b.Loop() {
		f.Response.Header.Truncate(fields)
		f.setDate()
	}
}
