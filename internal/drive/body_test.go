package drive_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
)

// one is a rig with one backend for everything.
func one(t *testing.T, backend string, change ...func(*edgetest.Options)) *edgetest.Rig {
	t.Helper()
	o := edgetest.Options{Config: edgetest.Simple(), Clusters: map[string][]string{"c": {backend}}, Steps: edgetest.Steps()}
	for _, f := range change {
		f(&o)
	}
	return edgetest.New(t, o)
}

func TestBodiesStreamBothWays(t *testing.T) {
	// The backend echoes each chunk as soon as it has it; the client sends the next one only when it has the echo of the last.
	b := edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		p := make([]byte, 100)
		for {
			n, err := r.Body.Read(p)
			if n > 0 {
				_, _ = w.Write(p[:n])
				_ = http.NewResponseController(w).Flush()
			}
			if err != nil {
				w.Header().Set(http.TrailerPrefix+"X-Got", r.Trailer.Get("X-Sum"))
				return
			}
		}
	}))
	c := one(t, b).Dial()
	c.Send("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nTrailer: X-Sum\n\n5\nfirst\n")
	res, err := http.ReadResponse(c.R, &http.Request{Method: "POST"})
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 6)
	for _, s := range []string{"first", "second", "third!"} {
		if s != "first" {
			c.Send("6\n" + s + "\n")
		}
		if _, err := io.ReadFull(res.Body, p[:len(s)]); err != nil || string(p[:len(s)]) != s {
			t.Fatalf("echo = %q, %v, want %q", p, err, s)
		}
	}
	c.Send("0\nX-Sum: 17\n\n")
	if rest, err := io.ReadAll(res.Body); err != nil || len(rest) != 0 {
		t.Errorf("rest = %q, %v, want none", rest, err)
	}
	if got := res.Trailer.Get("X-Got"); got != "17" {
		t.Errorf("trailer = %q, want 17", got)
	}
	c.Send("GET / HTTP/1.1\nHost: a\n\n")
	if res, _ := c.Read("GET"); res.StatusCode != 200 {
		t.Errorf("the connection did not go on: %d", res.StatusCode)
	}
}

func TestLargeBodies(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	b := edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, _ := io.ReadAll(r.Body)
		if r.ContentLength >= 0 {
			w.Header().Set("Content-Length", r.Header.Get("X-Length"))
		}
		_, _ = w.Write(got)
	}))
	r := one(t, b)
	for _, chunked := range []bool{false, true} {
		req, err := http.NewRequest("POST", "http://"+r.Addr+"/", bytes.NewReader(big))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Length", "1048576")
		if chunked {
			req.ContentLength = -1
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || !bytes.Equal(got, big) {
			t.Errorf("chunked %v: %d bytes, %v; want the %d sent", chunked, len(got), err, len(big))
		}
	}
}

func TestExpectContinue(t *testing.T) {
	b := edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(417)
			return
		}
		got, _ := io.ReadAll(r.Body) // sends 100
		_, _ = w.Write(got)
	}))
	r := one(t, b)
	c := r.Dial()
	c.Send("POST /yes HTTP/1.1\nHost: a\nContent-Length: 4\nExpect: 100-continue\n\n")
	if line, err := c.R.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("got %q, %v, want 100 Continue", line, err)
	}
	if line, _ := c.R.ReadString('\n'); line != "\r\n" {
		t.Fatalf("after the 100: %q", line)
	}
	c.Send("body")
	if res, body := c.Read("POST"); res.StatusCode != 200 || body != "body" {
		t.Errorf("got %d %q, want 200 body", res.StatusCode, body)
	}
	c.Send("POST /no HTTP/1.1\nHost: a\nContent-Length: 4\nExpect: 100-continue\n\n")
	if res, _ := c.Read("POST"); res.StatusCode != 417 {
		t.Errorf("got %d, want 417", res.StatusCode)
	}
	c.Closed() // the body may or may not follow: only closing is safe
}

func TestBodilessResponses(t *testing.T) {
	b := script(t, nil,
		"HTTP/1.1 200 OK\nContent-Length: 10\n\n",
		"HTTP/1.1 204 No Content\n\n",
		"HTTP/1.1 304 Not Modified\nContent-Length: 10\n\n",
		"HTTP/1.1 200 OK\nContent-Length: 2\n\nok")
	c := one(t, b).Dial()
	for _, x := range []struct {
		method string
		status int
		length string
	}{{"HEAD", 200, "10"}, {"GET", 204, ""}, {"GET", 304, ""}, {"GET", 200, "2"}} {
		c.Send(x.method + " / HTTP/1.1\nHost: a\n\n")
		res, _ := c.Read(x.method)
		if res.StatusCode != x.status || x.status != 304 && res.Header.Get("Content-Length") != x.length {
			t.Errorf("%s: got %d, Content-Length %q; want %d, %q", x.method, res.StatusCode, res.Header.Get("Content-Length"), x.status, x.length)
		}
	}
}

func TestPipelining(t *testing.T) {
	seen := make(chan string, 8)
	b := script(t, seen, "HTTP/1.1 200 OK\nContent-Length: 1\n\n1", "HTTP/1.1 200 OK\nContent-Length: 1\n\n2", "HTTP/1.1 200 OK\nContent-Length: 1\n\n3")
	c := one(t, b).Dial()
	c.Send("GET /1 HTTP/1.1\nHost: a\n\nPOST /2 HTTP/1.1\nHost: a\nContent-Length: 3\n\nabcGET /3 HTTP/1.1\nHost: a\n\n")
	for _, want := range []string{"1", "2", "3"} {
		if _, body := c.Read("GET"); body != want {
			t.Fatalf("body = %q, want %q", body, want)
		}
	}
	for _, want := range []string{`GET /1 a "" <nil>`, `POST /2 a "abc" <nil>`, `GET /3 a "" <nil>`} {
		if got := <-seen; got != want {
			t.Errorf("backend saw %s, want %s", got, want)
		}
	}
}

// TestPipeliningBehindLongBody: what follows a body that had to be read into a second buffer is the next request.
func TestPipeliningBehindLongBody(t *testing.T) {
	b := edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		w.Header().Set("X-N", http.StatusText(200))
		_, _ = io.WriteString(w, strings.Repeat("x", int(n%10)))
	}))
	c := one(t, b).Dial()
	body := strings.Repeat("y", 100_003)
	go c.Send("POST /2 HTTP/1.1\nHost: a\nContent-Length: 100003\n\n" + body + "GET /3 HTTP/1.1\nHost: a\n\n")
	if _, got := c.Read("POST"); got != "xxx" {
		t.Errorf("body = %q, want xxx", got)
	}
	if res, got := c.Read("GET"); res.StatusCode != 200 || got != "" {
		t.Errorf("second: %d %q, want 200 and no body", res.StatusCode, got)
	}
}

func TestHTTP10Client(t *testing.T) {
	b := script(t, nil, "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n3\nabc\n0\n\n")
	c := one(t, b).Dial()
	c.Send("GET / HTTP/1.0\nHost: a\n\n")
	got, err := io.ReadAll(c.R)
	if err != nil || !strings.HasSuffix(string(got), "\r\n\r\nabc") || strings.Contains(string(got), "chunked") {
		t.Errorf("got %q, %v; want a body until close", got, err)
	}
}

func TestHTTP10KeepAlive(t *testing.T) {
	b := script(t, nil, "HTTP/1.1 200 OK\nContent-Length: 1\n\n1", "HTTP/1.1 200 OK\nContent-Length: 1\n\n2")
	c := one(t, b).Dial()
	for _, want := range []string{"1", "2"} {
		c.Send("GET / HTTP/1.0\nHost: a\nConnection: keep-alive\n\n")
		res, body := c.Read("GET")
		if body != want || res.Header.Get("Connection") != "keep-alive" {
			t.Errorf("body = %q, Connection %q; want %q, keep-alive", body, res.Header.Get("Connection"), want)
		}
	}
}

func TestUntilCloseResponse(t *testing.T) {
	b := edgetest.Backend(t, func(c net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(c))
		_, _ = io.WriteString(c, "HTTP/1.0 200 OK\r\nX: y\r\n\r\nuntil close")
	})
	c := one(t, b).Dial()
	for range 2 {
		c.Send("GET / HTTP/1.1\nHost: a\n\n")
		if res, body := c.Read("GET"); body != "until close" || res.Close {
			t.Errorf("body = %q, close %v; want it chunked on a connection that goes on", body, res.Close)
		}
	}
}

// TestResponseCut: a client must be able to tell a response that was cut off from a whole one.
func TestResponseCut(t *testing.T) {
	for _, head := range []string{"Content-Length: 10", "Transfer-Encoding: chunked"} {
		b := edgetest.Backend(t, func(c net.Conn) {
			_, _ = http.ReadRequest(bufio.NewReader(c))
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"+head+"\r\n\r\n5\r\nabc")
		})
		r := one(t, b)
		c := r.Dial()
		c.Send("GET / HTTP/1.1\nHost: a\n\n")
		res, err := http.ReadResponse(c.R, &http.Request{Method: "GET"})
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(res.Body); err == nil {
			t.Errorf("%s: read %q without an error", head, body)
		}
		if line := r.Log.Next(t); !strings.Contains(line, "backend_cut") {
			t.Errorf("log line %s does not say backend_cut", line)
		}
	}
}
