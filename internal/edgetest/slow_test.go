package edgetest_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/edge"
	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/ir"
)

func rig(t *testing.T, backend string, change ...func(*edgetest.Options)) *edgetest.Rig {
	t.Helper()
	o := edgetest.Options{Config: edgetest.Simple(), Steps: edgetest.Steps(), Clusters: map[string][]string{"c": {backend}}}
	for _, f := range change {
		f(&o)
	}
	return edgetest.New(t, o)
}

func says(t *testing.T, text string) string {
	t.Helper()
	return edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			_, _ = io.WriteString(w, text)
		}
	}))
}

func client(c ir.Client) func(*edgetest.Options) {
	return func(o *edgetest.Options) { o.Listener = func(l *ir.Listener) { l.Client = &c } }
}

// dribble sends a byte every 20 ms until the other side closes or stop is called.
func dribble(c *edgetest.Client, text string) (stop func()) {
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-end:
				return
			case <-tick.C:
			}
			if _, err := c.Conn.Write([]byte{text[i%len(text)]}); err != nil {
				return
			}
		}
	}()
	return func() { close(end); <-done }
}

// TestSlowHead: bytes that keep coming do not move the time of a head.
func TestSlowHead(t *testing.T) {
	d := ir.Duration(300 * time.Millisecond)
	r := rig(t, says(t, "x"), client(ir.Client{HeaderTimeout: &d}))
	for _, before := range []string{"", "GET / HTTP/1.1\nHost: a\n\n"} { // first on the connection, and later
		c := r.Dial()
		if before != "" {
			c.Send(before)
			c.Read("GET")
		}
		start := time.Now()
		c.Send("GET / HTTP/1.1\nHost: a\nX-Slow: ")
		stop := dribble(c, "a")
		res, body := c.Read("GET")
		if took := time.Since(start); res.StatusCode != 408 || !res.Close || !strings.Contains(body, "header_timeout") || took < time.Duration(d) {
			t.Errorf("got %d %q after %v, want 408 header_timeout and the end after %v", res.StatusCode, body, took, time.Duration(d))
		}
		stop()
	}
}

// TestSlowBody: a client that sends a body below the rate is told 408; one that is just fast enough is not.
func TestSlowBody(t *testing.T) {
	r := rig(t, says(t, "x"), func(o *edgetest.Options) {
		o.Edge = func(e *edge.Options) { e.BodyWindow = time.Second }
	})
	for _, framing := range []string{"Content-Length: 100000", "Transfer-Encoding: chunked"} {
		c := r.Dial()
		c.Send("POST / HTTP/1.1\nHost: a\n" + framing + "\n\n")
		if strings.HasPrefix(framing, "T") {
			c.Send("186a0\n")
		}
		stop := dribble(c, "a") // 50 B/s
		if res, _ := c.Read("POST"); res.StatusCode != 408 || !res.Close {
			t.Errorf("%s: got %d, want 408 and the end", framing, res.StatusCode)
		}
		stop()
	}
	c := r.Dial()
	c.Send("POST / HTTP/1.1\nHost: a\nContent-Length: 1200\n\n")
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for range 24 { // 500 B/s over more than two windows
		<-tick.C
		c.Send(strings.Repeat("a", 50))
	}
	if res, _ := c.Read("POST"); res.StatusCode != 200 {
		t.Errorf("a body at 500 B/s: got %d, want 200", res.StatusCode)
	}
}

func TestIdleConnectionEnds(t *testing.T) {
	d := ir.Duration(200 * time.Millisecond)
	r := rig(t, says(t, "x"), client(ir.Client{IdleTimeout: &d}))
	for _, requests := range []int{0, 1} {
		c := r.Dial()
		for range requests {
			c.Send("GET / HTTP/1.1\nHost: a\n\n")
			c.Read("GET")
		}
		start := time.Now()
		c.Closed()
		if took := time.Since(start); took > edgetest.Wait {
			t.Errorf("after %d requests: closed after %v, want %v", requests, took, time.Duration(d))
		}
	}
}
