package drive_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// The time for the first byte begins when the request is sent.
func TestFirstByteTimeBeginsEarly(t *testing.T) {
	b := edgetest.Backend(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		io.Copy(io.Discard, req.Body)
		time.Sleep(400 * time.Millisecond)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	})
	d := ir.Duration(time.Second)
	c := one(t, b, func(o *edgetest.Options) { o.Config.Clusters[0].Traffic = &ir.Traffic{First: &d} }).Dial()
	c.Send("POST / HTTP/1.1\nHost: a\nContent-Length: 6\n\nabc")
	time.Sleep(1800 * time.Millisecond)
	io.WriteString(c, "def")
	res, body := c.Read("POST")
	if res.StatusCode != 200 {
		t.Errorf("the backend answered 400 ms after it had the request, of 1 s: got %d %q", res.StatusCode, body)
	}
}

// A panic in the middle of a response must not look like its end.
func TestPanicLooksLikeTheEnd(t *testing.T) {
	h := policy.Handler{Request: func(*exchange.Exchange) policy.Verdict { return policy.Verdict{} }, KeepsLength: true,
		ResponseData: func(x *exchange.Exchange, p []byte, _ bool) ([]byte, policy.Verdict) {
			if len(p) > 0 && p[0] == 'b' {
				panic("as the test wants")
			}
			return p, policy.Verdict{}
		}}
	b := edgetest.Backend(t, func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\naaa\r\n")
		time.Sleep(100 * time.Millisecond)
		io.WriteString(c, "3\r\nbbb\r\n0\r\n\r\n")
		io.Copy(io.Discard, c)
	})
	c := one(t, b, with(h)).Dial()
	c.Send("GET / HTTP/1.0\nHost: a\n\n")
	res, err := http.ReadResponse(c.R, nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := io.ReadAll(res.Body)
	if err == nil {
		t.Errorf("%q looks like a whole body of %d", p, res.StatusCode)
	}
}
