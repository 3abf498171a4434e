package drive_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

var uploads = flag.Int("uploads", 0, "how many uploads TestNoHoleInAnUpload makes; 0: some")

// TestHoleBetweenFailureAndRetry: what the client sends between a backend's failure and the further attempt is no hole in the body. Either
// all of it goes again, or there is no further attempt.
func TestHoleBetweenFailureAndRetry(t *testing.T) {
	for _, more := range []int{1 << 10, 8 << 10, 100 << 10} { // beside 60,000 bytes: all is kept; more than is kept; far more
		broken := make(chan struct{})
		got := make(chan int, 1)
		var n atomic.Int32
		b := edgetest.Backend(t, func(c net.Conn) {
			req, err := http.ReadRequest(bufio.NewReader(c))
			if err != nil {
				return
			}
			if n.Add(1) == 1 {
				_, _ = io.ReadFull(req.Body, make([]byte, 60_000))
				_ = c.(*net.TCPConn).SetLinger(0)
				c.Close()
				close(broken)
				return
			}
			body, err := io.ReadAll(req.Body)
			if err != nil {
				return
			}
			got <- len(body)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		})
		rule := &ir.Retry{Attempts: 2, Conditions: []string{ir.ConnectFailure, ir.Reset}, Backoff: ir.Duration(200 * time.Millisecond)}
		c := retryRig(t, b, rule, nil).Dial()
		c.Send("PUT / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n")
		chunk := func(size int) {
			fmt.Fprintf(c, "%x\r\n%s\r\n", size, strings.Repeat("x", size))
		}
		for range 6 {
			chunk(10_000)
		}
		<-broken
		chunk(more) // while the edge waits for its backoff
		_, _ = io.WriteString(c, "0\r\n\r\n")
		res, _ := c.Read("PUT")
		if res.StatusCode != 200 {
			if more < 4<<10 {
				t.Errorf("%d more bytes, all of them kept: got %d, want 200", more, res.StatusCode)
			}
			continue
		}
		if n := <-got; n != 60_000+more {
			t.Errorf("%d more bytes: a backend took %d bytes for the whole body, want %d", more, n, 60_000+more)
		}
	}
}

// TestNoHoleInAnUpload: over random bodies, chunkings, breaks and timings a backend gets the exact body or no complete one.
func TestNoHoleInAnUpload(t *testing.T) {
	count := *uploads
	if count == 0 {
		if count = 600; testing.Short() {
			count = 100
		}
	}
	var whole, broken, wrong atomic.Int32
	b := edgetest.Backend(t, func(c net.Conn) { breaksOften(c, &whole, &broken, &wrong) })
	rule := &ir.Retry{Attempts: 3, Codes: []int{503}, Conditions: []string{ir.ConnectFailure, ir.Reset}, Backoff: ir.Duration(2 * time.Millisecond)}
	r := one(t, b, func(o *edgetest.Options) {
		o.Config.Hosts[0].Routes[0].Retry = rule
		o.Config.Clusters[0].Traffic = &ir.Traffic{
			Budget:  &ir.Budget{Percent: 100, Interval: ir.Duration(10 * time.Second), MinCount: 1 << 30, MinInterval: ir.Duration(time.Second)},
			Passive: &ir.Passive{}}
	})
	const clients = 8
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var answered atomic.Int32
	var wg sync.WaitGroup
	for k := range clients {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(k)))
			for range count / clients {
				if upload(t, r.Addr, rnd) == 200 {
					answered.Add(1)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d uploads: %d answered 200; backends saw %d whole bodies and broke off %d times", count, answered.Load(), whole.Load(), broken.Load())
	if wrong.Load() != 0 {
		t.Errorf("%d complete bodies were not what was sent", wrong.Load())
	}
	if broken.Load() == 0 || answered.Load() == 0 || answered.Load() > whole.Load() {
		t.Errorf("%d answered 200 of %d whole bodies, broken off %d times: the test saw too little", answered.Load(), whole.Load(), broken.Load())
	}
}

// pattern is the byte at i of the body that a seed names.
func pattern(seed uint64, i int) byte { return byte((uint64(i) + seed) * 0x9e3779b97f4a7c15 >> 32) }

// breaksOften serves uploads and breaks off half of them: at once, somewhere in the body, or behind it.
func breaksOften(c net.Conn, whole, broken, wrong *atomic.Int32) {
	r := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		seed, _ := strconv.ParseUint(req.Header.Get("X-Seed"), 10, 64)
		size, _ := strconv.Atoi(req.Header.Get("X-Size"))
		act := rand.IntN(6)
		if act < 2 { // in the middle, with a reset or a plain end
			broken.Add(1)
			_, _ = io.CopyN(io.Discard, req.Body, int64(rand.IntN(size+1)))
			if act == 0 {
				_ = c.(*net.TCPConn).SetLinger(0)
			}
			return
		}
		if act == 2 { // answers before it has read
			broken.Add(1)
			_, _ = io.CopyN(io.Discard, req.Body, int64(rand.IntN(size+1)))
			_, _ = io.WriteString(c, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			return
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		whole.Add(1)
		ok := len(body) == size
		for i := 0; ok && i < size; i++ {
			ok = body[i] == pattern(seed, i)
		}
		if !ok {
			wrong.Add(1)
		}
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); err != nil {
			return
		}
	}
}

// upload sends one body in random pieces and returns the status of the answer, 0 for none.
func upload(t *testing.T, addr string, rnd *rand.Rand) int {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * edgetest.Wait))
	seed, size := rnd.Uint64()>>1, rnd.IntN(200_000)+1
	body := make([]byte, size)
	for i := range body {
		body[i] = pattern(seed, i)
	}
	chunked := rnd.IntN(2) == 0
	framing := "Content-Length: " + strconv.Itoa(size)
	if chunked {
		framing = "Transfer-Encoding: chunked"
	}
	status := make(chan int, 1)
	go func() {
		res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: "PUT"})
		if err != nil {
			var late net.Error
			if errors.As(err, &late) && late.Timeout() {
				t.Errorf("an upload of %d bytes, chunked %v, hangs", size, chunked)
			}
			status <- 0
			return
		}
		status <- res.StatusCode
	}()
	fmt.Fprintf(c, "PUT / HTTP/1.1\r\nHost: a\r\nX-Seed: %d\r\nX-Size: %d\r\n%s\r\n\r\n", seed, size, framing)
	var out bytes.Buffer
	for len(body) > 0 {
		n := min(len(body), rnd.IntN(30_000)+1)
		out.Reset()
		if chunked {
			fmt.Fprintf(&out, "%x\r\n%s\r\n", n, body[:n])
		} else {
			out.Write(body[:n])
		}
		if _, err := c.Write(out.Bytes()); err != nil {
			break
		}
		if body = body[n:]; rnd.IntN(4) == 0 {
			select {
			case s := <-status: // answered early
				return s
			case <-time.After(time.Duration(rnd.IntN(3000)) * time.Microsecond):
			}
		}
	}
	if chunked {
		_, _ = io.WriteString(c, "0\r\n\r\n")
	}
	return <-status
}

// TestEarlyAnswerIsLostToAReset: an answer that comes before the upload is over arrives, however long the client goes on sending.
func TestEarlyAnswerIsLostToAReset(t *testing.T) {
	r := one(t, echo(t))
	r.Publish(&ir.Config{Listeners: r.Edge.Snapshot().Config.Listeners}, nil, nil) // no route: everything is 404
	for range 6 {
		c := r.Dial()
		c.Send("POST / HTTP/1.1\nHost: a\nContent-Length: 300000\n\n")
		tick := time.NewTicker(2 * time.Millisecond)
		for range 6 {
			<-tick.C
			if _, err := c.Write(make([]byte, 50_000)); err != nil {
				t.Fatalf("the client's write failed: %v", err)
			}
		}
		tick.Stop()
		if res, _ := c.Read("POST"); res.StatusCode != 404 {
			t.Errorf("got %d, want 404", res.StatusCode)
		}
	}
	for range 20 {
		res, err := http.Post("http://"+r.Addr+"/", "text/plain", bytes.NewReader(make([]byte, 5<<20)))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 404 {
			t.Errorf("got %d, want 404", res.StatusCode)
		}
	}
}

// TestRefusalCostsTheConnection: a refused request whose short body comes later leaves the connection usable, and its body is no request.
func TestRefusalCostsTheConnection(t *testing.T) {
	r := one(t, echo(t))
	r.Publish(&ir.Config{Listeners: r.Edge.Snapshot().Config.Listeners}, nil, nil)
	for name, parts := range map[string][2]string{
		"length":  {"Content-Length: 5\n\n", "GET /"},
		"chunked": {"Transfer-Encoding: chunked\n\n5\nGE", "T /\n0\n\n"},
	} {
		c := r.Dial()
		for range 3 {
			c.Send("POST / HTTP/1.1\nHost: a\n" + parts[0])
			res, _ := c.Read("POST") // the answer does not wait for the body
			if res.StatusCode != 404 || res.Close {
				t.Fatalf("%s: got %d, close %v; want 404 and the connection", name, res.StatusCode, res.Close)
			}
			c.Send(parts[1])
		}
	}
	c := r.Dial() // too long to be read off
	c.Send("POST / HTTP/1.1\nHost: a\nContent-Length: 70000\n\n")
	if res, _ := c.Read("POST"); res.StatusCode != 404 || !res.Close {
		t.Errorf("a long body: got %d, close %v; want 404 and close", res.StatusCode, res.Close)
	}
}

// TestWaitForContinueIsBlamedOnTheClient: a client that waits for 100 (Continue) owes no bytes. The backend's time runs meanwhile.
func TestWaitForContinueIsBlamedOnTheClient(t *testing.T) {
	for _, x := range []struct {
		path  string
		first time.Duration
		want  int
	}{{"/late", 30 * time.Second, 200}, {"/never", 1500 * time.Millisecond, 504}} {
		b := edgetest.Backend(t, func(c net.Conn) {
			r := bufio.NewReader(c)
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if req.URL.Path == "/never" {
				_, _ = io.Copy(io.Discard, r)
				return
			}
			time.Sleep(2500 * time.Millisecond) // a backend that takes its time: more than two windows of the rate
			_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
			body, _ := io.ReadAll(req.Body)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		})
		first := ir.Duration(x.first)
		r := one(t, b, window(time.Second), func(o *edgetest.Options) { o.Config.Clusters[0].Traffic = &ir.Traffic{First: &first} })
		c := r.Dial()
		c.Send("POST " + x.path + " HTTP/1.1\nHost: a\nContent-Length: 5\nExpect: 100-continue\n\n")
		if x.want == 200 {
			line, err := c.R.ReadString('\n')
			if err != nil || !strings.HasPrefix(line, "HTTP/1.1 100") {
				t.Fatalf("got %q, %v; want 100 (Continue)", line, err)
			}
			_, _ = c.R.ReadString('\n')
			c.Send("hello")
		}
		if res, body := c.Read("POST"); res.StatusCode != x.want {
			t.Errorf("%s: got %d %q, want %d", x.path, res.StatusCode, body, x.want)
		}
	}
}

// TestRequestTimeStandsStillWhileABodyIsCollected: the route's time for a request runs from its start, whatever the client takes.
func TestRequestTimeStandsStillWhileABodyIsCollected(t *testing.T) {
	d := ir.Duration(300 * time.Millisecond)
	r := one(t, echo(t), with(collects()), func(o *edgetest.Options) { o.Config.Hosts[0].Routes[0].Timeouts.Request = &d })
	c := r.Dial()
	start := time.Now()
	c.Send("POST / HTTP/1.1\nHost: a\nContent-Length: 1000\n\nsome")
	res, body := c.Read("POST")
	if res.StatusCode != 504 || !strings.Contains(body, "request_timeout") {
		t.Errorf("got %d %q, want 504 request_timeout", res.StatusCode, body)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("it took %v, want some 0.3 s", took)
	}
}

// TestHeadWaitsForTheBody: the head of a response leaves at once, and so does every piece, in every framing.
func TestHeadWaitsForTheBody(t *testing.T) {
	for name, x := range map[string]struct{ head, first, rest string }{
		"length":  {"Content-Length: 6", "one", "two"},
		"chunked": {"Transfer-Encoding: chunked", "3\r\none\r\n", "3\r\ntwo\r\n0\r\n\r\n"},
		"close":   {"Connection: close", "one", "two"},
	} {
		t.Run(name, func(t *testing.T) {
			step := make(chan struct{})
			b := edgetest.Backend(t, func(c net.Conn) {
				if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
					return
				}
				for _, s := range []string{"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + x.head + "\r\n\r\n", x.first, x.rest} {
					_, _ = io.WriteString(c, s)
					<-step
				}
			})
			c := one(t, b).Dial()
			c.Send("GET / HTTP/1.1\nHost: a\n\n")
			res, err := http.ReadResponse(c.R, &http.Request{Method: "GET"}) // while the backend waits
			if err != nil || res.StatusCode != 200 {
				t.Fatalf("got %v, %v; want a head", res, err)
			}
			p := make([]byte, 3)
			for _, want := range []string{"one", "two"} {
				step <- struct{}{}
				if _, err := io.ReadFull(res.Body, p); err != nil || string(p) != want {
					t.Fatalf("got %q, %v; want %q", p, err, want)
				}
			}
			close(step)
			if rest, err := io.ReadAll(res.Body); err != nil || len(rest) != 0 {
				t.Errorf("behind it: %q, %v", rest, err)
			}
		})
	}
}

// TestClosedClientKeepsTheBackendBusy: a client that is gone, its sending side alone or altogether, ends the backend's work at once:
// while a head is awaited, in the middle of a response, behind bytes that it had pipelined.
func TestClosedClientKeepsTheBackendBusy(t *testing.T) {
	for _, x := range []struct {
		name      string
		respond   string // what the backend says before it goes silent
		pipelined string
		half      bool
	}{
		{name: "closed"},
		{name: "half closed", half: true},
		{name: "behind pipelined bytes", pipelined: "GET /next HTTP/1.1\nHost: a\n\n", half: true},
		{name: "in a response", respond: "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhal", half: true},
		{name: "in a stream", respond: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhal\r\n"},
	} {
		t.Run(x.name, func(t *testing.T) {
			asked, ended := make(chan struct{}), make(chan struct{})
			b := edgetest.Backend(t, func(c net.Conn) {
				r := bufio.NewReader(c)
				if _, err := http.ReadRequest(r); err != nil {
					return
				}
				_, _ = io.WriteString(c, x.respond)
				close(asked)
				_, _ = io.Copy(io.Discard, r)
				close(ended)
			})
			r := one(t, b)
			c := r.Dial()
			c.Send("GET / HTTP/1.1\nHost: a\n\n" + x.pipelined)
			<-asked
			start := time.Now()
			if x.half {
				_ = c.Conn.(*net.TCPConn).CloseWrite()
			} else {
				c.Close()
			}
			select {
			case <-ended:
			case <-time.After(edgetest.Wait):
				t.Fatal("the backend works on")
			}
			if took := time.Since(start); took > 2*time.Second { // 0.1 s on a machine that has time
				t.Errorf("the backend worked on for %v", took)
			}
			if line := r.Log.Next(t); !strings.Contains(line, "client_gone") {
				t.Errorf("log line %s does not say client_gone", line)
			}
		})
	}
}

// TestWaitingStepOutlivesItsClient: a step that waits for a service is told when the client is gone.
func TestWaitingStepOutlivesItsClient(t *testing.T) {
	waits, ended := make(chan struct{}), make(chan error, 1)
	c := one(t, echo(t), with(waitsFor(func(ctx context.Context) {
		close(waits)
		<-ctx.Done()
		ended <- ctx.Err()
	}))).Dial()
	c.Send("GET / HTTP/1.1\nHost: a\n\n")
	<-waits
	c.Close()
	select {
	case <-ended:
	case <-time.After(edgetest.Wait):
		t.Error("the step waits on")
	}
}

// TestBackoffOutlivesItsClient: nor does the time before a further attempt.
func TestBackoffOutlivesItsClient(t *testing.T) {
	rule := &ir.Retry{Attempts: 2, Conditions: []string{ir.Reset}, Backoff: ir.Duration(time.Hour)}
	asked := make(chan struct{}, 4)
	b := edgetest.Backend(t, func(c net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(c))
		asked <- struct{}{}
	})
	r := retryRig(t, b, rule, nil)
	c := r.Dial()
	c.Send("GET / HTTP/1.1\nHost: a\n\n")
	<-asked
	c.Close()
	if line := r.Log.Next(t); !strings.Contains(line, "client_gone") {
		t.Errorf("log line %s does not say client_gone", line)
	}
}

// TestStaleDeadlineSwallowsARequest: a deadline that has passed before a request is sent ends no exchange and swallows no request: neither
// one that an earlier exchange's body has left on a kept connection, nor one of a process that had no time.
func TestStaleDeadlineSwallowsARequest(t *testing.T) {
	slow := policy.Handler{Request: func(x *exchange.Exchange) policy.Verdict {
		if x.Request.Header.Has("X-Slow") {
			time.Sleep(250 * time.Millisecond) // as if the process had been stopped
		}
		return policy.Verdict{}
	}}
	c := one(t, echo(t), with(slow)).Dial()
	for i := range 20 {
		c.Send("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n3\nabc\n") // its body flows
		c.Send("0\n\n")
		if res, body := c.Read("POST"); res.StatusCode != 200 || body != "abc" {
			t.Fatalf("got %d %q, want 200 abc", res.StatusCode, body)
		}
		head := ""
		if i%10 == 0 {
			head = "X-Slow: yes\n"
		}
		c.Send("POST / HTTP/1.1\nHost: a\n" + head + "Content-Length: 3\n\nabc") // on the connection that the other one has left
		if res, body := c.Read("POST"); res.StatusCode != 200 || body != "abc" {
			t.Fatalf("got %d %q, want 200 abc", res.StatusCode, body)
		}
	}
}

// TestSlowReaderIsTakenForAStalledOne: who takes a large body slowly, client or backend, is not one that takes nothing.
func TestSlowReaderIsTakenForAStalledOne(t *testing.T) {
	const size = 24 << 20 // far more than the sockets' buffers hold
	large := strings.Repeat("x", size)
	slowly := func(r io.Reader) int {
		n, p := 0, make([]byte, 256<<10)
		for {
			k, err := r.Read(p)
			if n += k; err != nil {
				return n
			}
			time.Sleep(40 * time.Millisecond)
		}
	}
	got := make(chan int, 1)
	b := edgetest.Backend(t, func(c net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		got <- slowly(req.Body)
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", size, large)
	})
	r := one(t, b, with(policy.Handler{Body: 2 * size, ResponseBody: 2 * size}))
	r.Edge.Driver().WriteStall = 300 * time.Millisecond // before the first connection
	c := r.Dial()
	go func() {
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", size, large)
	}()
	if n := <-got; n != size {
		t.Errorf("the backend got %d bytes, want %d", n, size)
	}
	res, err := http.ReadResponse(c.R, &http.Request{Method: "POST"})
	if err != nil {
		t.Fatal(err)
	}
	if n := slowly(res.Body); n != size {
		t.Errorf("the client got %d bytes, want %d", n, size)
	}
}

// TestRefusedBodyHoldsItsExchange: a refused request is over when its answer is written, not when the body that nobody wants has come.
func TestRefusedBodyHoldsItsExchange(t *testing.T) {
	r := one(t, echo(t))
	r.Publish(&ir.Config{Listeners: r.Edge.Snapshot().Config.Listeners}, nil, nil)
	c := r.Dial()
	c.Send("POST / HTTP/1.1\nHost: a\nContent-Length: 5\n\n")
	c.Read("POST")
	r.Log.Next(t) // before the body
	c.Send("hello")
	c.Send("GET / HTTP/1.1\nHost: a\n\n")
	if res, _ := c.Read("GET"); res.StatusCode != 404 {
		t.Errorf("got %d, want 404", res.StatusCode)
	}
}
