package drive_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// TestPanicReachesAnotherExchange: a panic in any hook costs the exchange in which it happens, and none that comes after it: no lock, no
// pooled state, no other step's Done and no snapshot is left behind.
func TestPanicReachesAnotherExchange(t *testing.T) {
	on := func(x *exchange.Exchange) {
		if x.Request.Header.Has("X-Panic") {
			panic("as the test wants")
		}
	}
	pass := func(*exchange.Exchange) policy.Verdict { return policy.Verdict{} }
	for name, h := range map[string]policy.Handler{
		"Request":  {Request: func(x *exchange.Exchange) policy.Verdict { on(x); return policy.Verdict{} }},
		"Response": {Response: func(x *exchange.Exchange) policy.Verdict { on(x); return policy.Verdict{} }},
		"RequestData": {Request: pass, KeepsLength: true,
			RequestData: func(x *exchange.Exchange, p []byte, _ bool) ([]byte, policy.Verdict) {
				on(x)
				return p, policy.Verdict{}
			}},
		"ResponseData": {Request: pass, KeepsLength: true,
			ResponseData: func(x *exchange.Exchange, p []byte, _ bool) ([]byte, policy.Verdict) {
				on(x)
				return p, policy.Verdict{}
			}},
		"Done": {Request: pass, Done: on},
	} {
		t.Run(name, func(t *testing.T) {
			var begun, done atomic.Int32
			outer := policy.Handler{
				Request: func(*exchange.Exchange) policy.Verdict { begun.Add(1); return policy.Verdict{} },
				Done:    func(*exchange.Exchange) { done.Add(1) },
			}
			r := one(t, echo(t), with(outer, h, outer))
			for range 4 {
				c := r.Dial()
				c.Send("POST / HTTP/1.1\nHost: a\nX-Panic: yes\nTransfer-Encoding: chunked\n\n3\nabc\n")
				c.Send("0\n\n")
				if res, err := http.ReadResponse(c.R, &http.Request{Method: "POST"}); err == nil {
					body, err := io.ReadAll(res.Body)
					if res.StatusCode == 200 && err == nil && string(body) != "abc" {
						t.Errorf("got 200 %q", body)
					}
				}
				c.Close()
				r.Log.Next(t)
			}
			for range 20 { // those that get what the pool holds
				c := r.Dial()
				c.Send("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n3\nabc\n")
				c.Send("0\n\n")
				if res, body := c.Read("POST"); res.StatusCode != 200 || body != "abc" {
					t.Fatalf("after a panic: got %d %q, want 200 abc", res.StatusCode, body)
				}
				r.Log.Next(t)
			}
			if begun.Load() != done.Load() {
				t.Errorf("the other steps began %d exchanges and were told the end of %d", begun.Load(), done.Load())
			}
			old := r.Edge.Snapshot()
			freed := make(chan struct{})
			release := old.Release
			old.Release = func() { close(freed); release() }
			r.Publish(&ir.Config{Listeners: old.Config.Listeners}, nil, nil)
			select {
			case <-freed:
			default:
				t.Error("the snapshot is still held, though no exchange uses it")
			}
		})
	}
}

// TestPanicBeforeTheHeadIsTold: a client whose exchange panics before its answer began gets 500, not a broken connection.
func TestPanicBeforeTheHeadIsTold(t *testing.T) {
	r := one(t, echo(t), with(policy.Handler{Request: func(*exchange.Exchange) policy.Verdict { panic("as the test wants") }}))
	c := r.Dial()
	c.Send("GET / HTTP/1.1\nHost: a\n\n")
	if res, _ := c.Read("GET"); res.StatusCode != 500 || !res.Close {
		t.Errorf("got %d, close %v; want 500 and close", res.StatusCode, res.Close)
	}
	if line := r.Log.Next(t); !strings.Contains(line, "internal_error") {
		t.Errorf("log line %s does not say internal_error", line)
	}
}

// TestBrokenResponseIsNotNamed: a response that breaks a rule is answered with the word for that rule, in its head and in its body.
func TestBrokenResponseIsNotNamed(t *testing.T) {
	for _, x := range []struct {
		response, reason string
		head             bool // the client sees a 502
	}{
		{"HTTP/1.1 200 OK\nContent-Length: 1\nContent-Length: 1\n\na", "upstream_bad_header", true},
		{"HTTP/1.1 200 OK\nX: " + strings.Repeat("a", 200_000) + "\n\n", "upstream_header_too_large", true},
		{"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\nzz\n", "upstream_bad_body", false},
		{strings.Repeat("HTTP/1.1 103 Early Hints\n\n", 100), "upstream_bad_header", true},
	} {
		r := one(t, script(t, nil, x.response))
		c := r.Dial()
		c.Send("GET / HTTP/1.1\nHost: a\n\n")
		res, err := http.ReadResponse(c.R, &http.Request{Method: "GET"})
		for err == nil && res.StatusCode == 103 {
			res, err = http.ReadResponse(c.R, &http.Request{Method: "GET"})
		}
		if x.head && (err != nil || res.StatusCode != 502) {
			t.Errorf("%.60q: got %v, %v; want 502", x.response, res, err)
		}
		if line := r.Log.Next(t); !strings.Contains(line, `"`+x.reason+`"`) {
			t.Errorf("%.60q: log line %s does not say %s", x.response, line, x.reason)
		}
	}
}

// TestUnreadBodyIsTheNextResponse: a response whose body a step took away (its status says that there is none) leaves a connection on which
// that body may still come: it is not used again.
func TestUnreadBodyIsTheNextResponse(t *testing.T) {
	var conns atomic.Int32
	b := edgetest.Backend(t, func(c net.Conn) {
		conns.Add(1)
		r := bufio.NewReader(c)
		for {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
			_, _ = io.WriteString(c, "POISON")
		}
	})
	c := one(t, b, with(policy.Handler{Response: func(x *exchange.Exchange) policy.Verdict {
		x.Response.Status = 204
		return policy.Verdict{}
	}})).Dial()
	for range 5 {
		c.Send("GET / HTTP/1.1\nHost: a\n\n")
		if res, body := c.Read("GET"); res.StatusCode != 204 || body != "" {
			t.Fatalf("got %d %q, want 204", res.StatusCode, body)
		}
	}
}

// TestHeldHEADLosesItsLength: a step that wants whole responses waits for none where there is none, whatever length the head tells.
func TestHeldHEADLosesItsLength(t *testing.T) {
	b := script(t, nil, "HTTP/1.1 200 OK\nContent-Length: 50\n\n", "HTTP/1.1 304 Not Modified\nContent-Length: 5000\n\n",
		"HTTP/1.1 200 OK\nContent-Length: 5000\n\n", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok")
	c := one(t, b, with(policy.Handler{ResponseBody: 100})).Dial()
	for _, x := range []struct {
		method string
		status int
		length string
	}{{"HEAD", 200, "50"}, {"GET", 304, ""}, {"HEAD", 200, "5000"}, {"GET", 200, "2"}} {
		c.Send(x.method + " / HTTP/1.1\nHost: a\n\n")
		res, _ := c.Read(x.method)
		if res.StatusCode != x.status || x.length != "" && res.Header.Get("Content-Length") != x.length {
			t.Errorf("%s: got %d, length %q; want %d, %q", x.method, res.StatusCode, res.Header.Get("Content-Length"), x.status, x.length)
		}
	}
}

// TestHintsAreSentTwice: the 1xx responses of an attempt that failed are not followed by those of the next one.
func TestHintsAreSentTwice(t *testing.T) {
	b := flakyHints(t)
	c := one(t, b).Dial()
	c.Send("GET / HTTP/1.1\nHost: a\n\n")
	hints := 0
	for {
		res, err := http.ReadResponse(c.R, &http.Request{Method: "GET"})
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode == 103 {
			hints++
			continue
		}
		if res.StatusCode != 200 || hints != 1 {
			t.Errorf("got %d after %d hints, want 200 after 1", res.StatusCode, hints)
		}
		return
	}
}

// flakyHints sends hints with every attempt and breaks off the first.
func flakyHints(t *testing.T) string {
	var n atomic.Int32
	return edgetest.Backend(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
		if n.Add(1) > 1 {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
}
