package drive_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/policy/builtin"
)

// flaky is a backend that does one thing for each request, the next one for the next, whatever the connection: "reset" closes
// without a word once some of the body is there, "silent" answers nothing, else the status that is written.
func flaky(t *testing.T, seen chan<- string, acts ...string) string {
	var n atomic.Int32
	return edgetest.Backend(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			act := acts[min(int(n.Add(1))-1, len(acts)-1)]
			switch act {
			case "reset":
				_, _ = io.ReadFull(req.Body, make([]byte, 1))
				return
			case "silent":
				_, _ = io.Copy(io.Discard, r)
				return
			}
			body, err := io.ReadAll(req.Body)
			if err != nil {
				return
			}
			if seen != nil {
				seen <- fmt.Sprintf("%s %d bytes", req.Method, len(body))
			}
			fmt.Fprintf(c, "HTTP/1.1 %s X\r\nContent-Length: 2\r\n\r\nok", act)
		}
	})
}

func retryRig(t *testing.T, backend string, retry *ir.Retry, change func(*ir.Route)) *edgetest.Rig {
	return one(t, backend, func(o *edgetest.Options) {
		r := o.Config.Hosts[0].Routes[0]
		r.Retry = retry
		if change != nil {
			change(r)
		}
	})
}

// TestRetry: what is safe to try again is, and nothing else; the client sees one answer.
func TestRetry(t *testing.T) {
	rule := &ir.Retry{Attempts: 2, Codes: []int{503}, Conditions: []string{ir.ConnectFailure, ir.Reset}, Backoff: ir.Duration(time.Millisecond)}
	large := strings.Repeat("x", 64<<10)
	for _, x := range []struct {
		name, method, body string
		stream             bool // the body comes in pieces, after the head
		acts               []string
		retry              *ir.Retry
		want               int
	}{
		{name: "a status", method: "GET", acts: []string{"503", "503", "200"}, retry: rule, want: 200},
		{name: "a status, in vain", method: "GET", acts: []string{"503"}, retry: rule, want: 503},
		{name: "another status", method: "GET", acts: []string{"500", "200"}, retry: rule, want: 500},
		{name: "a reset", method: "GET", acts: []string{"reset", "reset", "200"}, retry: rule, want: 200},
		{name: "a reset by default", method: "GET", acts: []string{"reset", "200"}, want: 200},
		{name: "a reset with no rule", method: "GET", acts: []string{"reset", "200"}, retry: &ir.Retry{}, want: 502},
		{name: "a POST", method: "POST", body: "x", acts: []string{"reset", "200"}, retry: rule, want: 502},
		{name: "a POST's status", method: "POST", body: "x", acts: []string{"503", "200"}, retry: rule, want: 503},
		{name: "a PUT", method: "PUT", body: "hello", acts: []string{"reset", "503", "200"}, retry: rule, want: 200},
		{name: "a PUT whose body follows", method: "PUT", body: "hello", stream: true, acts: []string{"reset", "503", "200"}, retry: rule, want: 200},
		{name: "a PUT of as much as is kept", method: "PUT", body: large, stream: true, acts: []string{"503", "200"}, retry: rule, want: 200},
		{name: "a PUT of more than is kept", method: "PUT", body: large + "x", stream: true, acts: []string{"503", "200"}, retry: rule, want: 503},
	} {
		for _, chunked := range []bool{false, true} {
			if chunked && x.body == "" {
				continue
			}
			t.Run(fmt.Sprintf("%s, chunked %v", x.name, chunked), func(t *testing.T) {
				seen := make(chan string, 8)
				c := retryRig(t, flaky(t, seen, x.acts...), x.retry, nil).Dial()
				sendBody(t, c, x.method, x.body, chunked, x.stream)
				if res, body := c.Read(x.method); res.StatusCode != x.want {
					t.Fatalf("got %d %q, want %d", res.StatusCode, body, x.want)
				}
				if x.want != 200 {
					return
				}
				last := ""
				for len(seen) > 0 {
					last = <-seen
				}
				if want := fmt.Sprintf("%s %d bytes", x.method, len(x.body)); last != want {
					t.Errorf("the last try had %s, want %s", last, want)
				}
				sendBody(t, c, "GET", "", false, false)
				if res, _ := c.Read("GET"); res.StatusCode != 200 {
					t.Errorf("the connection did not go on: %d", res.StatusCode)
				}
			})
		}
	}
}

func sendBody(t *testing.T, c *edgetest.Client, method, body string, chunked, stream bool) {
	t.Helper()
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s / HTTP/1.1\r\nHost: a\r\n", method)
	switch {
	case body == "":
		out.WriteString("\r\n")
	case chunked:
		fmt.Fprintf(&out, "Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	default:
		fmt.Fprintf(&out, "Content-Length: %d\r\n\r\n%s", len(body), body)
	}
	raw := out.Bytes()
	if head := bytes.Index(raw, []byte("\r\n\r\n")) + 4; stream { // the head alone: what follows streams
		if _, err := c.Write(raw[:head]); err != nil {
			t.Fatal(err)
		}
		raw = raw[head:]
		for len(raw) > 3 {
			n := len(raw)/2 + 1
			if _, err := c.Write(raw[:n]); err != nil {
				return // answered and closed before all was sent
			}
			raw = raw[n:]
		}
	}
	if _, err := c.Write(raw); err != nil && !stream {
		t.Fatal(err)
	}
}

// TestRetryWhileTheClientStillSends: the backend resets after the first part of a body; the client sends the rest only after that, and
// the next try gets all of it.
func TestRetryWhileTheClientStillSends(t *testing.T) {
	seen := make(chan string, 2)
	first := make(chan struct{})
	var n atomic.Int32
	b := edgetest.Backend(t, func(c net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		if n.Add(1) == 1 {
			_, _ = io.ReadFull(req.Body, make([]byte, 5))
			close(first)
			return
		}
		body, err := io.ReadAll(req.Body)
		seen <- fmt.Sprintf("%s %v", body, err)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	})
	c := retryRig(t, b, nil, nil).Dial()
	c.Send("PUT / HTTP/1.1\nHost: a\nContent-Length: 11\n\n")
	c.Send("hello")
	<-first
	for n.Load() < 2 {
		time.Sleep(time.Millisecond)
	}
	c.Send(" world")
	if res, _ := c.Read("PUT"); res.StatusCode != 200 {
		t.Fatalf("got %d, want 200", res.StatusCode)
	}
	if got := <-seen; got != "hello world <nil>" {
		t.Errorf("the second try got %q, want all of the body", got)
	}
}

// TestRetryTimeOfATry: a try that takes too long is followed by another if the rule says so, also once its head is there; all tries
// together end with the route's time.
func TestRetryTimeOfATry(t *testing.T) {
	d := ir.Duration(80 * time.Millisecond)
	rule := &ir.Retry{Attempts: 1, Conditions: []string{ir.FirstByte}, Backoff: ir.Duration(time.Millisecond)}
	for _, x := range []struct {
		name  string
		retry *ir.Retry
		route ir.Timeouts
		acts  []string
		want  int
		why   string
	}{
		{"again", rule, ir.Timeouts{Backend: &d}, []string{"silent", "200"}, 200, ""},
		{"in vain", rule, ir.Timeouts{Backend: &d}, []string{"silent"}, 504, "backend_timeout"},
		{"not by the rule", &ir.Retry{Attempts: 1, Conditions: []string{ir.Reset}}, ir.Timeouts{Backend: &d}, []string{"silent", "200"}, 504, "backend_timeout"},
		{"the rule's own time", &ir.Retry{Attempts: 1, Conditions: []string{ir.FirstByte}, PerTry: &d}, ir.Timeouts{}, []string{"silent", "200"}, 200, ""},
		{"the route's time", &ir.Retry{Attempts: 9, Conditions: []string{ir.FirstByte}}, ir.Timeouts{Request: &d}, []string{"silent"}, 504, "request_timeout"},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := retryRig(t, flaky(t, nil, x.acts...), x.retry, func(r *ir.Route) { r.Timeouts = x.route }).Dial()
			c.Send("GET / HTTP/1.1\nHost: a\n\n")
			if res, body := c.Read("GET"); res.StatusCode != x.want || !strings.Contains(body, x.why) {
				t.Errorf("got %d %q, want %d %s", res.StatusCode, body, x.want, x.why)
			}
		})
	}
}

// TestRetryOnAKeptConnectionHasItsOwnTime: the time of a further try begins with it, also where no connection has to be made for it.
func TestRetryOnAKeptConnectionHasItsOwnTime(t *testing.T) {
	var n atomic.Int32
	both, stop := make(chan struct{}), make(chan struct{})
	defer close(stop)
	b := edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch n.Add(1) {
		case 1:
			<-both
		case 2:
			close(both)
		case 3:
			<-stop
		}
	}))
	d := ir.Duration(200 * time.Millisecond)
	r := retryRig(t, b, &ir.Retry{Attempts: 1, Conditions: []string{ir.FirstByte}}, func(r *ir.Route) { r.Timeouts.Backend = &d })
	first, second := r.Dial(), r.Dial() // at the same time, so that two connections are kept afterwards
	first.Send("GET / HTTP/1.1\nHost: a\n\n")
	waitFor(t, func() bool { return n.Load() == 1 })
	second.Send("GET / HTTP/1.1\nHost: a\n\n")
	for _, c := range []*edgetest.Client{first, second} {
		if res, _ := c.Read("GET"); res.StatusCode != 200 {
			t.Fatalf("got %d, want 200", res.StatusCode)
		}
	}
	waitFor(t, func() bool { return r.Edge.Clusters().All()[0].All()[0].Idle() == 2 })
	first.Send("GET / HTTP/1.1\nHost: a\n\n")
	if res, body := first.Read("GET"); res.StatusCode != 200 {
		t.Errorf("got %d %q, want 200 of the second try", res.StatusCode, body)
	}
	if dials := r.Edge.Driver().Stats().BackendDials.Load(); dials != 2 {
		t.Errorf("%d connections were made, want 2: the tries were to go on kept ones", dials)
	}
}

// TestBackendTimeoutCoversTheBody (GEP-1742): a response that is not whole in the time of a try is cut off.
func TestBackendTimeoutCoversTheBody(t *testing.T) {
	stop := make(chan struct{})
	defer close(stop)
	b := edgetest.Backend(t, func(c net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(c))
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
		<-stop
	})
	d := ir.Duration(80 * time.Millisecond)
	r := retryRig(t, b, nil, func(r *ir.Route) { r.Timeouts.Backend = &d })
	c := r.Dial()
	c.Send("GET / HTTP/1.1\nHost: a\n\n")
	res, err := http.ReadResponse(c.R, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(res.Body); err == nil || string(b) != "half" {
		t.Errorf("read %q, %v; want half and an error", b, err)
	}
	if line := r.Log.Next(t); !strings.Contains(line, "backend_timeout") {
		t.Errorf("log: %s", line)
	}
}

// TestMirror: every mirror gets the whole request, once, however often the request itself is tried; what they answer, and whether
// they do, changes nothing.
func TestMirror(t *testing.T) {
	copies := make(chan string, 8)
	copyBackend := flaky(t, copies, "500")
	for _, x := range []struct {
		name, body      string
		chunked, stream bool
		want            string
	}{
		{"without a body", "", false, false, "PUT 0 bytes"},
		{"a body with the head", "hello", false, false, "PUT 5 bytes"},
		{"a body that follows", "hello", false, true, "PUT 5 bytes"},
		{"chunks", "hello", true, true, "PUT 5 bytes"},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := mirrorRig(t, flaky(t, nil, "reset", "200"), map[string][]string{"copy": {copyBackend}, "none": {}})
			c := r.Dial()
			sendBody(t, c, "PUT", x.body, x.chunked, x.stream)
			if res, body := c.Read("PUT"); res.StatusCode != 200 {
				t.Fatalf("got %d %q, want 200", res.StatusCode, body)
			}
			select {
			case got := <-copies:
				if got != x.want {
					t.Errorf("the mirror got %s, want %s", got, x.want)
				}
			case <-time.After(edgetest.Wait):
				t.Fatal("the mirror got nothing")
			}
			s := r.Edge.Driver().Stats()
			waitFor(t, func() bool { return s.MirrorsSent.Load() == 1 && s.MirrorsFailed.Load() == 1 })
			if len(copies) > 0 {
				t.Errorf("the mirror got a second copy: %s", <-copies)
			}
		})
	}
}

// TestMirrorDropped: a body of more than is kept is not mirrored, and counted.
func TestMirrorDropped(t *testing.T) {
	copies := make(chan string, 1)
	r := mirrorRig(t, flaky(t, nil, "200"), map[string][]string{"copy": {flaky(t, copies, "200")}, "none": {}})
	c := r.Dial()
	sendBody(t, c, "POST", strings.Repeat("x", 64<<10+1), false, true)
	if res, _ := c.Read("POST"); res.StatusCode != 200 {
		t.Fatalf("got %d, want 200", res.StatusCode)
	}
	s := r.Edge.Driver().Stats()
	waitFor(t, func() bool { return s.MirrorsDropped.Load() == 2 })
	if len(copies) > 0 {
		t.Errorf("the mirror got %s", <-copies)
	}
}

func mirrorRig(t *testing.T, backend string, mirrors map[string][]string) *edgetest.Rig {
	return one(t, backend, func(o *edgetest.Options) {
		o.Steps = builtin.Steps()
		route := o.Config.Hosts[0].Routes[0]
		for key, addrs := range mirrors {
			o.Clusters[key] = addrs
			o.Config.Clusters = append(o.Config.Clusters, &ir.Cluster{Key: key})
			route.Steps = append(route.Steps, &ir.Step{Name: "mirror", Phase: "transform request", Spec: []byte("{}"), Refs: map[string]string{"backendRef": key}})
		}
	})
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(edgetest.Wait); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("what must happen did not")
		}
	}
}

// TestActiveChecks: an endpoint that fails its checks gets no requests until it passes them again.
func TestActiveChecks(t *testing.T) {
	var sick atomic.Bool
	serve := func(name string) string {
		return edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/healthz" && (sick.Load() && name == "a" || r.Host != "check.example") {
				w.WriteHeader(503)
			}
			_, _ = io.WriteString(w, name)
		}))
	}
	r := edgetest.New(t, edgetest.Options{Config: edgetest.Simple(), Steps: edgetest.Steps(), Clusters: map[string][]string{"c": {serve("a"), serve("b")}}})
	cfg := edgetest.Simple()
	cfg.Listeners = r.Edge.Snapshot().Config.Listeners
	cfg.Clusters[0].Traffic = &ir.Traffic{Active: &ir.Active{Path: "/healthz", Host: "check.example", Interval: ir.Duration(10 * time.Millisecond),
		Timeout: ir.Duration(time.Second), Healthy: 2, Unhealthy: 2}}
	var as []string
	for _, e := range r.Edge.Clusters().All()[0].All() {
		as = append(as, e.Text)
	}
	r.Publish(cfg, map[string][]string{"c": as}, nil)
	k := r.Edge.Clusters().All()[0]
	sick.Store(true)
	waitFor(t, func() bool { return len(k.Endpoints()) == 1 })
	c := r.Dial()
	for range 10 {
		c.Send("GET / HTTP/1.1\nHost: a\n\n")
		if res, body := c.Read("GET"); res.StatusCode != 200 || body != "b" {
			t.Errorf("got %d from %s, want 200 from b", res.StatusCode, body)
		}
	}
	sick.Store(false)
	waitFor(t, func() bool { return len(k.Endpoints()) == 2 })
}

// TestCircuitBreaker: a request too many, or a connection too many, is answered 503; the others are not disturbed.
func TestCircuitBreaker(t *testing.T) {
	for name, breaker := range map[string]*ir.Breaker{"requests": {MaxRequests: 1}, "connections": {MaxConnections: 1}} {
		t.Run(name, func(t *testing.T) {
			arrived, answer := make(chan struct{}), make(chan struct{})
			var n atomic.Int32
			b := edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if n.Add(1) == 1 {
					close(arrived)
					<-answer
				}
			}))
			r := one(t, b, func(o *edgetest.Options) { o.Config.Clusters[0].Traffic = &ir.Traffic{Breaker: breaker} })
			first, second := r.Dial(), r.Dial()
			first.Send("GET / HTTP/1.1\nHost: a\n\n")
			<-arrived
			second.Send("GET / HTTP/1.1\nHost: a\n\n")
			if res, body := second.Read("GET"); res.StatusCode != 503 || !strings.Contains(body, "circuit_open") {
				t.Errorf("got %d %q, want 503 circuit_open", res.StatusCode, body)
			}
			close(answer)
			if res, _ := first.Read("GET"); res.StatusCode != 200 {
				t.Errorf("the first got %d, want 200", res.StatusCode)
			}
			waitFor(t, func() bool { // an exchange ends a little after its answer
				second.Send("GET / HTTP/1.1\nHost: a\n\n")
				res, _ := second.Read("GET")
				return res.StatusCode == 200
			})
		})
	}
}

// TestSession: a client stays on its endpoint while others come and go, gets another when its own has left, and shares of several
// backends hold for new clients only.
func TestSession(t *testing.T) {
	name := func(s string) string {
		return edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, s) }))
	}
	addrs := map[string][]string{"c": {name("a1"), name("a2"), name("a3")}, "d": {name("b1"), name("b2")}}
	for kind, affinity := range map[string]*ir.Affinity{"cookie": {Cookie: "gh"}, "header": {Header: "X-Session"}, "limited": {Cookie: "gh", Absolute: ir.Duration(time.Hour)}} {
		t.Run(kind, func(t *testing.T) {
			r := edgetest.New(t, edgetest.Options{Config: sessionConfig(affinity), Steps: edgetest.Steps(), Clusters: addrs})
			ask := func(token string) (string, string) {
				c := r.Dial()
				defer c.Close()
				field := "Cookie: x=1; gh=" + token
				if affinity.Header != "" {
					field = "x-session: " + token
				}
				c.Send("GET / HTTP/1.1\nHost: a\n" + field + "\n\n")
				res, body := c.Read("GET")
				if affinity.Header != "" {
					return body, res.Header.Get("X-Session")
				}
				for _, k := range res.Cookies() {
					if k.Name == "gh" && k.HttpOnly && k.Path == "/" {
						return body, k.Value
					}
				}
				return body, ""
			}
			seen := map[string]bool{}
			for range 40 {
				mine, token := ask("")
				if token == "" {
					t.Fatal("no session was begun")
				}
				seen[mine] = true
				for range 4 {
					if got, next := ask(token); got != mine || affinity.Cookie != "" && next != "" {
						t.Fatalf("session of %s went to %s (new token %q)", mine, got, next)
					}
				}
			}
			if len(seen) != 5 {
				t.Errorf("40 clients are on %d endpoints, want all 5", len(seen))
			}
			var token string
			for mine := ""; mine != "a2"; {
				mine, token = ask("")
			}
			cfg := r.Edge.Snapshot().Config
			r.Publish(cfg, map[string][]string{"c": {addrs["c"][1], name("a4"), name("a5")}, "d": addrs["d"]}, nil)
			if got, _ := ask(token); got != "a2" {
				t.Errorf("after the others have changed the session of a2 goes to %s", got)
			}
			r.Publish(cfg, map[string][]string{"c": {addrs["c"][0]}, "d": addrs["d"]}, nil)
			got, next := ask(token)
			if got == "a2" || next == "" {
				t.Errorf("after a2 has left its session goes to %s, token %q; want another and a new token", got, next)
			}
			if again, _ := ask(next); again != got {
				t.Errorf("the new session of %s goes to %s", got, again)
			}
			for _, junk := range []string{"x", strings.Repeat("f", 16), strings.Repeat("g", 16), token + "-zz-1", strings.Repeat("1", 4000)} {
				if got, _ := ask(junk); got == "" {
					t.Errorf("token %.20q: no answer", junk)
				}
			}
		})
	}
}

func sessionConfig(a *ir.Affinity) *ir.Config {
	c := edgetest.Simple()
	c.Clusters = append(c.Clusters, &ir.Cluster{Key: "d"})
	route := c.Hosts[0].Routes[0]
	route.Affinity = a
	route.Backends = append(route.Backends, ir.Backend{Cluster: "d", Weight: 1})
	return c
}

// TestBackoffEndsWithTheClient: a client that leaves during the wait before a further try ends the exchange.
func TestBackoffEndsWithTheClient(t *testing.T) {
	rule := &ir.Retry{Attempts: 1, Codes: []int{503}, Backoff: ir.Duration(time.Hour)}
	r := retryRig(t, flaky(t, nil, "503"), rule, nil)
	c := r.Dial()
	c.Send("GET / HTTP/1.1\nHost: a\n\n")
	waitFor(t, func() bool { return r.Edge.Driver().Stats().Retries.Load() == 1 })
	_ = c.Conn.(*net.TCPConn).SetLinger(0)
	c.Close()
	if line := r.Log.Next(t); !strings.Contains(line, "client_gone") {
		t.Errorf("log: %s", line)
	}
	ctx, cancel := context.WithTimeout(context.Background(), edgetest.Wait)
	defer cancel()
	if n := r.Edge.Drain(ctx, 0); n != 0 {
		t.Errorf("%d exchanges were still on", n)
	}
}
