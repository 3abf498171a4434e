package drive_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// TestReplay: a kept connection that died is found out by an idempotent request, which goes out once more; any other is not
// repeated.
func TestReplay(t *testing.T) {
	for _, x := range []struct {
		request string
		status  int
	}{
		{"GET / HTTP/1.1\nHost: a\n\n", 200},
		{"PUT / HTTP/1.1\nHost: a\nContent-Length: 4\n\nbody", 200},
		{"POST / HTTP/1.1\nHost: a\nContent-Length: 4\n\nbody", 502},
	} {
		var conns, replayed atomic.Int32
		b := edgetest.Backend(t, func(c net.Conn) {
			r := bufio.NewReader(c)
			first := conns.Add(1) == 1
			for n := 0; ; n++ {
				req, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				body, _ := io.ReadAll(req.Body)
				if first && n == 1 {
					return // dies with the second request unanswered
				}
				if !first && (req.Method == "GET" || string(body) == "body") {
					replayed.Add(1)
				}
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
		})
		c := one(t, b).Dial()
		c.Send("GET / HTTP/1.1\nHost: a\n\n")
		c.Read("GET")
		c.Send(x.request)
		res, _ := c.Read("GET")
		if res.StatusCode != x.status || (x.status == 200) != (replayed.Load() == 1) {
			t.Errorf("%.4s: got %d, replayed %d times; want %d", x.request, res.StatusCode, replayed.Load(), x.status)
		}
	}
}

// TestDesyncByStrayBytes: bytes that a backend sends after its response must not become the next client's response.
func TestDesyncByStrayBytes(t *testing.T) {
	sent := make(chan struct{}, 4)
	var conns atomic.Int32
	b := edgetest.Backend(t, func(c net.Conn) {
		conns.Add(1)
		r := bufio.NewReader(c)
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
		sent <- struct{}{}
		_, _ = io.Copy(io.Discard, r)
	})
	c := one(t, b).Dial()
	for i := range 3 {
		c.Send("GET / HTTP/1.1\nHost: a\n\n")
		if _, body := c.Read("GET"); body != "ok" {
			t.Fatalf("request %d: body = %q, want ok", i, body)
		}
		<-sent
	}
	if conns.Load() != 3 {
		t.Errorf("%d connections, want 3: none may be used again", conns.Load())
	}
}

func TestConnectFailure(t *testing.T) {
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	good := edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "good") }))
	r := one(t, dead.Addr().String(), func(o *edgetest.Options) { o.Clusters["c"] = append(o.Clusters["c"], good) })
	c := r.Dial()
	for range 4 {
		c.Send("POST / HTTP/1.1\nHost: a\nContent-Length: 1\n\nx")
		if res, body := c.Read("POST"); res.StatusCode != 200 || body != "good" {
			t.Errorf("got %d %q, want 200 good from the other endpoint", res.StatusCode, body)
		}
	}
	r.Publish(r.Edge.Snapshot().Config, map[string][]string{"c": {dead.Addr().String()}}, nil)
	c.Send("GET / HTTP/1.1\nHost: a\n\n")
	if res, body := c.Read("GET"); res.StatusCode != 502 || !strings.Contains(body, "backend_connect_failed") {
		t.Errorf("got %d %q, want 502 backend_connect_failed", res.StatusCode, body)
	}
	r.Publish(r.Edge.Snapshot().Config, map[string][]string{"c": {}}, nil)
	c.Send("GET / HTTP/1.1\nHost: a\n\n")
	if res, body := c.Read("GET"); res.StatusCode != 503 || !strings.Contains(body, "no_endpoint") {
		t.Errorf("got %d %q, want 503 no_endpoint", res.StatusCode, body)
	}
}

func TestTimeouts(t *testing.T) {
	silent := edgetest.Backend(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	d := ir.Duration(60 * time.Millisecond)
	for reason, change := range map[string]func(*ir.Config){
		"backend_timeout": func(c *ir.Config) { c.Clusters[0].Traffic = &ir.Traffic{First: &d} },
		"request_timeout": func(c *ir.Config) { c.Hosts[0].Routes[0].Timeouts.Request = &d },
	} {
		c := one(t, silent, func(o *edgetest.Options) { change(o.Config) }).Dial()
		c.Send("GET / HTTP/1.1\nHost: a\n\n")
		if res, body := c.Read("GET"); res.StatusCode != 504 || !strings.Contains(body, reason) {
			t.Errorf("got %d %q, want 504 %s", res.StatusCode, body, reason)
		}
		c.Send("GET / HTTP/1.1\nHost: a\n\n")
		if res, _ := c.Read("GET"); res.StatusCode != 504 {
			t.Errorf("the connection did not go on: %d", res.StatusCode)
		}
	}
}

// TestEarlyResponse: a backend that answers before it has read the body is heard, and the body does not become a request.
func TestEarlyResponse(t *testing.T) {
	b := edgetest.Backend(t, func(c net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(c))
		_, _ = io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
		_, _ = io.Copy(io.Discard, c)
	})
	c := one(t, b).Dial()
	c.Send("POST / HTTP/1.1\nHost: a\nContent-Length: 1000000\n\nGET /evil HTTP/1.1\nHost: a\n\n")
	res, body := c.Read("POST")
	if res.StatusCode != 413 || body != "big" {
		t.Errorf("got %d %q, want 413 big", res.StatusCode, body)
	}
	c.Closed()
}

// TestClientGone: the backend's work ends when the client has left.
func TestClientGone(t *testing.T) {
	t.Run("while it sends", func(t *testing.T) {
		ended := make(chan error, 1)
		b := edgetest.Backend(t, func(c net.Conn) {
			req, err := http.ReadRequest(bufio.NewReader(c))
			if err == nil {
				_, err = io.ReadAll(req.Body)
			}
			ended <- err
		})
		r := one(t, b)
		c := r.Dial()
		c.Send("POST / HTTP/1.1\nHost: a\nContent-Length: 100\n\nhalf")
		c.Close()
		if err := <-ended; err == nil {
			t.Error("the backend saw a whole body")
		}
		if line := r.Log.Next(t); !strings.Contains(line, "client_gone") {
			t.Errorf("log line %s does not say client_gone", line)
		}
	})
	t.Run("while it waits", func(t *testing.T) {
		asked, ended := make(chan struct{}), make(chan struct{})
		b := edgetest.Backend(t, func(c net.Conn) {
			_, _ = http.ReadRequest(bufio.NewReader(c))
			close(asked)
			_, _ = io.Copy(io.Discard, c)
			close(ended)
		})
		r := one(t, b)
		c := r.Dial()
		c.Send("GET / HTTP/1.1\nHost: a\n\n")
		<-asked
		_ = c.Conn.(*net.TCPConn).SetLinger(0)
		c.Close()
		select {
		case <-ended:
		case <-time.After(edgetest.Wait):
			t.Error("the backend's connection stays open")
		}
	})
}

// TestHalfClosedClient: where a policy says so, a client that says that it sends no more still gets its answer; one whose answer is at
// hand gets it in any case.
func TestHalfClosedClient(t *testing.T) {
	closed := make(chan struct{})
	b := edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-closed
		time.Sleep(300 * time.Millisecond) // longer than an exchange is patient without looking at its client
		_, _ = io.WriteString(w, "late")
	}))
	c := one(t, b, func(o *edgetest.Options) {
		o.Listener = func(l *ir.Listener) { l.Client = &ir.Client{HalfClose: ir.HalfCloseWait} }
	}).Dial()
	c.Send("GET / HTTP/1.1\nHost: a\n\n")
	_ = c.Conn.(*net.TCPConn).CloseWrite()
	close(closed)
	if res, body := c.Read("GET"); res.StatusCode != 200 || body != "late" {
		t.Errorf("got %d %q, want 200 late", res.StatusCode, body)
	}
	c.Closed()
	c = one(t, script(t, nil, "HTTP/1.1 200 OK\nContent-Length: 2\n\nok")).Dial()
	c.Send("GET / HTTP/1.1\nHost: a\n\n")
	_ = c.Conn.(*net.TCPConn).CloseWrite()
	if res, body := c.Read("GET"); res.StatusCode != 200 || body != "ok" {
		t.Errorf("got %d %q, want 200 ok", res.StatusCode, body)
	}
}

func TestMalformedRequestReachesNobody(t *testing.T) {
	seen := make(chan string, 1)
	b := script(t, seen, "HTTP/1.1 200 OK\nContent-Length: 0\n\n")
	r := one(t, b)
	for _, s := range []string{
		"GET / HTTP/1.1\nHost: a\nContent-Length: 1\nTransfer-Encoding: chunked\n\n0\n\n",
		"GET  / HTTP/1.1\nHost: a\n\n",
		"GET / HTTP/1.1\n\n",
		"GET / HTTP/1.1\nHost: a\nX : y\n\n",
		"CONNECT a:80 HTTP/1.1\nHost: a\n\n",
	} {
		c := r.Dial()
		c.Send(s + "GET /second HTTP/1.1\nHost: a\n\n")
		res, _ := c.Read("GET")
		if res.StatusCode != 400 || !res.Close {
			t.Errorf("%q: got %d, close %v; want 400 and close", s, res.StatusCode, res.Close)
		}
		c.Closed()
	}
	select {
	case s := <-seen:
		t.Errorf("backend saw %s", s)
	default:
	}
}

// TestBadChunkInFlight: a body whose framing breaks after the head went on is 400, and the backend never sees its end.
func TestBadChunkInFlight(t *testing.T) {
	ended := make(chan error, 1)
	b := edgetest.Backend(t, func(c net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err == nil {
			_, err = io.ReadAll(req.Body)
		}
		ended <- err
	})
	c := one(t, b).Dial()
	c.Send("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n3\nabc\nzz\n")
	if res, _ := c.Read("POST"); res.StatusCode != 400 {
		t.Errorf("got %d, want 400", res.StatusCode)
	}
	c.Closed()
	if err := <-ended; err == nil {
		t.Error("the backend saw a whole body")
	}
}

func TestWebSocket(t *testing.T) {
	b := edgetest.Backend(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		req, err := http.ReadRequest(r)
		if err != nil || req.Header.Get("Upgrade") != "websocket" {
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhi!")
		_, _ = io.Copy(c, r) // echo
	})
	c := one(t, b).Dial()
	c.Send("GET / HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket\n\nearly")
	res, err := http.ReadResponse(c.R, nil)
	if err != nil || res.StatusCode != 101 || !strings.EqualFold(res.Header.Get("Upgrade"), "websocket") {
		t.Fatalf("got %v, %v; want 101", res, err)
	}
	p := make([]byte, 8)
	if _, err := io.ReadFull(c.R, p); err != nil || string(p) != "hi!early" {
		t.Fatalf("relayed %q, %v", p, err)
	}
	c.Send("more")
	if _, err := io.ReadFull(c.R, p[:4]); err != nil || string(p[:4]) != "more" {
		t.Fatalf("relayed %q, %v", p[:4], err)
	}
	_ = c.Conn.(*net.TCPConn).CloseWrite()
	c.Closed()
}

// TestWebSocketElsewhere: where one backend cannot be reached, another one gets the request to upgrade.
func TestWebSocketElsewhere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // nobody listens here any more
	b := script(t, nil, "HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\nConnection: Upgrade\n\n")
	r := one(t, b, func(o *edgetest.Options) { o.Clusters["c"] = []string{l.Addr().String(), b} })
	for i := range 3 { // whichever comes first
		c := r.Dial()
		c.Send("GET / HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket\n\n")
		if res, err := http.ReadResponse(c.R, nil); err != nil || res.StatusCode != 101 {
			t.Errorf("request %d: got %v, %v; want 101", i, res, err)
		}
		c.Close()
	}
}

// TestRefusedUpgrade: an answer other than 101 is the answer, and what followed the head is dropped with the connection.
func TestRefusedUpgrade(t *testing.T) {
	b := script(t, nil, "HTTP/1.1 403 Forbidden\nContent-Length: 2\n\nno")
	c := one(t, b).Dial()
	c.Send("GET / HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket\n\nGET /evil HTTP/1.1\nHost: a\n\n")
	if res, body := c.Read("GET"); res.StatusCode != 403 || body != "no" {
		t.Errorf("got %d %q, want 403 no", res.StatusCode, body)
	}
	c.Closed()
}

// TestBackendDiesUnderBody: a backend that goes away while the body still flows ends the exchange, not the edge.
func TestBackendDiesUnderBody(t *testing.T) {
	b := edgetest.Backend(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_ = c.(*net.TCPConn).SetLinger(0)
		}
	})
	r := one(t, b)
	for range 5 {
		c := r.Dial()
		c.Send("PUT / HTTP/1.1\nHost: a\nContent-Length: 1000000\n\n")
		c.Send(strings.Repeat("x", 1000)) // and no more: the edge waits for the rest when the backend dies
		if res, body := c.Read("PUT"); res.StatusCode != 502 || !strings.Contains(body, "backend_failed") {
			t.Errorf("got %d %q, want 502 backend_failed", res.StatusCode, body)
		}
		c.Close()
	}
}
