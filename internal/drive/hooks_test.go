package drive_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/edge"
	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// hooks is a step made of a handler.
type hooks struct{ h policy.Handler }

func (h *hooks) Compile(policy.Env) (policy.Handler, error) { return h.h, nil }

// with puts handlers before the rig's only route, in order.
func with(hs ...policy.Handler) func(*edgetest.Options) {
	return func(o *edgetest.Options) {
		for i, h := range hs {
			name := string(rune('a' + i))
			o.Steps = append(o.Steps, policy.Step{Name: name, New: func() policy.Spec { return &hooks{h} }})
			r := o.Config.Hosts[0].Routes[0]
			r.Steps = append(r.Steps, &ir.Step{Name: name, Phase: policy.Protect.String(), Spec: ir.RawJSON(`{}`)})
		}
	}
}

func echo(t *testing.T) string {
	return edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		w.Header().Set("X-From-Edge", r.Header.Get("X-From-Edge"))
		_, _ = w.Write(b)
	}))
}

func TestHooksSeeEverythingOnce(t *testing.T) {
	var done, data atomic.Int32
	name, value := []byte("X-From-Edge"), []byte("yes")
	count := policy.Handler{
		Request: func(x *exchange.Exchange) policy.Verdict {
			x.Local().N = 7
			x.Request.Header.Set(name, value)
			return policy.Verdict{}
		},
		RequestData: func(x *exchange.Exchange, p []byte, end bool) ([]byte, policy.Verdict) {
			data.Add(int32(len(p)))
			return p, policy.Verdict{}
		},
		KeepsLength: true,
		Response: func(x *exchange.Exchange) policy.Verdict {
			if x.Local().N != 7 {
				t.Errorf("the step's own state = %d, want 7", x.Local().N)
			}
			x.Response.Header.Set([]byte("X-Edge"), value)
			return policy.Verdict{}
		},
		Done: func(*exchange.Exchange) { done.Add(1) },
	}
	upper := policy.Handler{ResponseData: func(_ *exchange.Exchange, p []byte, end bool) ([]byte, policy.Verdict) {
		p = bytes.ToUpper(p)
		if end {
			p = append(p, '!')
		}
		return p, policy.Verdict{}
	}}
	r := one(t, echo(t), with(count, upper))
	c := r.Dial()
	c.Send("POST / HTTP/1.1\nHost: a\nContent-Length: 5\n\nhello")
	res, body := c.Read("POST")
	if body != "HELLO!" || res.Header.Get("X-Edge") != "yes" || res.Header.Get("X-From-Edge") != "yes" || data.Load() != 5 {
		t.Errorf("got %q, %v, %d request bytes seen", body, res.Header, data.Load())
	}
	r.Log.Next(t)
	if done.Load() != 1 {
		t.Errorf("Done ran %d times, want 1", done.Load())
	}
}

func TestStepAnswers(t *testing.T) {
	var after atomic.Int32
	deny := policy.Handler{Request: func(*exchange.Exchange) policy.Verdict {
		return policy.Verdict{Status: 403, Reason: "not_you", Header: []exchange.Field{{Name: []byte("X-Why"), Value: []byte("because")}}}
	}}
	never := policy.Handler{Request: func(*exchange.Exchange) policy.Verdict { after.Add(1); return policy.Verdict{} }}
	c := one(t, echo(t), with(deny, never)).Dial()
	for range 2 {
		c.Send("GET / HTTP/1.1\nHost: a\n\n")
		res, body := c.Read("GET")
		if res.StatusCode != 403 || res.Header.Get("X-Why") != "because" || !strings.Contains(body, `"reason":"not_you"`) ||
			res.Header.Get("Content-Type") != "application/problem+json" || res.Close {
			t.Errorf("got %d %v %q", res.StatusCode, res.Header, body)
		}
	}
	if after.Load() != 0 {
		t.Error("a step behind the one that refused ran")
	}
	c.Send("GET / HTTP/1.1\nHost: a\nAccept: text/html,application/xhtml+xml\n\n")
	if res, body := c.Read("GET"); !strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") || !strings.Contains(body, "403 Forbidden") {
		t.Errorf("a browser got %v %q", res.Header, body)
	}
}

func TestStepWaits(t *testing.T) {
	ask := policy.Handler{Request: func(x *exchange.Exchange) policy.Verdict {
		path := string(x.Request.Path)
		return policy.Verdict{Wait: func(context.Context) func(*exchange.Exchange) policy.Verdict {
			return func(x *exchange.Exchange) policy.Verdict {
				if path == "/no" {
					return policy.Verdict{Status: 401, Reason: "asked"}
				}
				x.Request.Header.Set([]byte("X-From-Edge"), []byte("asked"))
				return policy.Verdict{}
			}
		}}
	}}
	c := one(t, echo(t), with(ask)).Dial()
	c.Send("GET /yes HTTP/1.1\nHost: a\n\n")
	if res, _ := c.Read("GET"); res.StatusCode != 200 || res.Header.Get("X-From-Edge") != "asked" {
		t.Errorf("got %d %v", res.StatusCode, res.Header)
	}
	c.Send("GET /no HTTP/1.1\nHost: a\n\n")
	if res, _ := c.Read("GET"); res.StatusCode != 401 {
		t.Errorf("got %d, want 401", res.StatusCode)
	}
}

func TestStepWantsWholeBodies(t *testing.T) {
	h := policy.Handler{
		Body: 8, ResponseBody: 8,
		Request: func(x *exchange.Exchange) policy.Verdict {
			x.Request.Body = bytes.ToUpper(x.Request.Body)
			return policy.Verdict{}
		},
		Response: func(x *exchange.Exchange) policy.Verdict {
			if x.Response.Buffered {
				x.Response.Body = append(x.Response.Body, '?')
				x.Response.ContentLength = int64(len(x.Response.Body))
			}
			return policy.Verdict{}
		},
	}
	c := one(t, echo(t), with(h)).Dial()
	for _, framing := range []string{"Content-Length: 5\n\nhello", "Transfer-Encoding: chunked\n\n2\nhe\n3\nllo\n0\n\n"} {
		c.Send("POST / HTTP/1.1\nHost: a\n" + framing)
		if res, body := c.Read("POST"); res.StatusCode != 200 || body != "HELLO?" {
			t.Errorf("got %d %q, want 200 HELLO?", res.StatusCode, body)
		}
	}
	c.Send("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n9\n123456789\n0\n\n")
	if res, _ := c.Read("POST"); res.StatusCode != 413 {
		t.Errorf("got %d, want 413", res.StatusCode)
	}
	c.Closed()
	big := one(t, edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "123456789")
	})), with(h)).Dial()
	big.Send("GET / HTTP/1.1\nHost: a\n\n")
	if res, body := big.Read("GET"); res.StatusCode != 502 || !strings.Contains(body, "response_too_large") {
		t.Errorf("got %d %q, want 502 response_too_large", res.StatusCode, body)
	}
}

// TestStepRefusesStreamingBody: a refusal in the middle of a body reaches the client, and the backend never sees a whole one.
func TestStepRefusesStreamingBody(t *testing.T) {
	whole := make(chan bool, 1)
	b := edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		whole <- err == nil
	}))
	var done atomic.Int32
	limit := policy.Handler{
		Request: func(*exchange.Exchange) policy.Verdict { return policy.Verdict{} },
		RequestData: func(x *exchange.Exchange, p []byte, _ bool) ([]byte, policy.Verdict) {
			if x.Local().N += int64(len(p)); x.Local().N > 10 {
				return nil, policy.Verdict{Status: 413, Reason: "body_too_large"}
			}
			return p, policy.Verdict{}
		},
		KeepsLength: true,
		Done:        func(*exchange.Exchange) { done.Add(1) },
	}
	r := one(t, b, with(limit))
	c := r.Dial()
	c.Send("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n8\n12345678\n")
	c.Send("8\n12345678\n")
	if res, body := c.Read("POST"); res.StatusCode != 413 || !strings.Contains(body, "body_too_large") {
		t.Errorf("got %d %q, want 413 body_too_large", res.StatusCode, body)
	}
	c.Closed()
	if <-whole {
		t.Error("the backend saw a whole body")
	}
	r.Log.Next(t)
	if done.Load() != 1 {
		t.Errorf("Done ran %d times, want 1", done.Load())
	}
}

// TestBufferingDoesNotBlindWatchers: a step that watches bytes sees them also where another one wants the whole body.
func TestBufferingDoesNotBlindWatchers(t *testing.T) {
	whole := policy.Handler{Body: 100, ResponseBody: 100}
	watch := func(limit int) policy.Handler {
		return policy.Handler{
			KeepsLength: true,
			RequestData: func(_ *exchange.Exchange, p []byte, _ bool) ([]byte, policy.Verdict) {
				if len(p) > limit {
					return nil, policy.Verdict{Status: 413, Reason: "body_too_large"}
				}
				return p, policy.Verdict{}
			},
			ResponseData: func(_ *exchange.Exchange, p []byte, _ bool) ([]byte, policy.Verdict) {
				if len(p) > limit {
					return nil, policy.Verdict{Status: 502, Reason: "response_too_large"}
				}
				return p, policy.Verdict{}
			},
		}
	}
	b := edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, r.URL.Path[1:])
	}))
	c := one(t, b, with(whole, watch(4))).Dial()
	for _, x := range []struct {
		request string
		status  int
	}{
		{"POST /four HTTP/1.1\nHost: a\nContent-Length: 4\n\nbody", 200},
		{"GET /fiver HTTP/1.1\nHost: a\n\n", 502},
		{"POST /four HTTP/1.1\nHost: a\nContent-Length: 5\n\nbodyx", 413},
	} {
		c.Send(x.request)
		if res, body := c.Read("POST"); res.StatusCode != x.status {
			t.Errorf("%.20q: got %d %q, want %d", x.request, res.StatusCode, body, x.status)
		}
	}
}

// TestHeldResponseBreaksOff: a backend that answered is not asked again because its body broke off.
func TestHeldResponseBreaksOff(t *testing.T) {
	var asked atomic.Int32
	b := edgetest.Backend(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		for n := 0; ; n++ {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			asked.Add(1)
			if n == 1 { // on the kept connection
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort")
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	c := one(t, b, with(policy.Handler{ResponseBody: 100})).Dial()
	for _, want := range []int{200, 502} {
		c.Send("GET / HTTP/1.1\nHost: a\n\n")
		if res, body := c.Read("GET"); res.StatusCode != want {
			t.Errorf("got %d %q, want %d", res.StatusCode, body, want)
		}
	}
	if asked.Load() != 2 {
		t.Errorf("the backend was asked %d times, want 2", asked.Load())
	}
}

// TestHeldResponseKeepsItsHead: a body that comes bit by bit while it is held does not overwrite the head that stands before it.
func TestHeldResponseKeepsItsHead(t *testing.T) {
	asked := make(chan struct{})
	body := strings.Repeat("Set-Cookie: evil\r\n", 3000)
	b := edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Good", "yes")
		for part := range slices.Chunk([]byte(body), 10_000) {
			_, _ = w.Write(part)
			_ = http.NewResponseController(w).Flush()
			<-asked
		}
	}))
	var seen atomic.Value
	c := one(t, b, with(policy.Handler{ResponseBody: 1 << 20, Response: func(x *exchange.Exchange) policy.Verdict {
		seen.Store(string(x.Response.Header.Get("X-Good")))
		return policy.Verdict{}
	}})).Dial()
	c.Send("GET / HTTP/1.1\nHost: a\n\n")
	for range (len(body) + 9999) / 10_000 {
		asked <- struct{}{}
	}
	res, got := c.Read("GET")
	if res.StatusCode != 200 || res.Header.Get("X-Good") != "yes" || got != body || len(res.Header) != 4 {
		t.Errorf("got %d %v and %d bytes, want 200, X-Good: yes and %d bytes", res.StatusCode, res.Header, len(got), len(body))
	}
	if seen.Load() != "yes" {
		t.Errorf("the step saw X-Good: %q, want yes", seen.Load())
	}
}

// collects is a step that wants the whole body of a request.
func collects() policy.Handler {
	return policy.Handler{Body: 1 << 20, Request: func(*exchange.Exchange) policy.Verdict { return policy.Verdict{} }}
}

// waitsFor is a step that waits for f.
func waitsFor(f func(context.Context)) policy.Handler {
	return policy.Handler{Request: func(*exchange.Exchange) policy.Verdict {
		return policy.Verdict{Wait: func(ctx context.Context) func(*exchange.Exchange) policy.Verdict {
			f(ctx)
			return func(*exchange.Exchange) policy.Verdict { return policy.Verdict{} }
		}}
	}}
}

// window makes the time over which a client's rate is measured shorter.
func window(d time.Duration) func(*edgetest.Options) {
	return func(o *edgetest.Options) { o.Edge = func(e *edge.Options) { e.BodyWindow = d } }
}
