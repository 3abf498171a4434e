package http1

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// parseResponse parses one head that is all of raw, in steps, and tells what it says.
func parseResponse(p *Parser, raw, method string, step int) string {
	var r exchange.Response
	for end := step; ; end += step {
		n, h, f := p.ParseResponse([]byte(raw[:min(end, len(raw))]), []byte(method), &r)
		switch {
		case f != nil:
			return fmt.Sprint(f.Status, " ", f.Reason)
		case n > 0:
			s := fmt.Sprintf("%v %d, %v, length %d", r.Version, r.Status, h.Framing, r.ContentLength)
			if h.Close {
				s += ", close"
			}
			if h.KeepAlive > 0 {
				s += fmt.Sprintf(", keep %d s", h.KeepAlive)
			}
			for _, f := range r.Header.All() {
				s += fmt.Sprintf("; %s=%s", f.Name, f.Value)
			}
			return s + strings.Repeat(" and more", len(raw)-n)
		case end >= len(raw):
			return "not complete"
		}
	}
}

func TestResponse(t *testing.T) {
	for _, c := range []struct{ raw, method, want string }{
		{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\n\r\n", "GET", "HTTP/1.1 200, length, length 5; A=b"},
		{"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", "GET", "HTTP/1.1 200, length, length 0"},
		{"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "GET", "HTTP/1.1 200, length, length 0"},
		{"HTTP/1.1 200 caf\xe9 \t!\r\nContent-Length: 0\r\n\r\n", "GET", "HTTP/1.1 200, length, length 0"},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "GET", "HTTP/1.1 200, chunked, length -1"},
		{"HTTP/1.1 200 OK\r\n\r\n", "GET", "HTTP/1.1 200, until close, length -1, close"},
		{"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", "GET", "HTTP/1.0 200, length, length 5, close"},
		{"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n", "GET", "HTTP/1.0 200, length, length 5"},
		{"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", "GET", "HTTP/1.0 200, until close, length -1, close"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: Close\r\n\r\n", "GET", "HTTP/1.1 200, length, length 5, close"},
		{"HTTP/1.1 600 Custom\r\nContent-Length: 5\r\n\r\n", "GET", "HTTP/1.1 600, length, length 5"},
		{"HTTP/1.1 999\r\n\r\n", "GET", "HTTP/1.1 999, until close, length -1, close"},
		{"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic\r\nproxy-authentication-info: a\r\nProxy_Authenticate: b\r\nContent-Length: 0\r\n\r\n", "GET",
			"HTTP/1.1 407, length, length 0"},
		// without body (RFC 9112 section 6.3)
		{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HEAD", "HTTP/1.1 200, none, length 5"},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HEAD", "HTTP/1.1 200, none, length -1"},
		{"HTTP/1.1 200 OK\r\n\r\n", "HEAD", "HTTP/1.1 200, none, length -1"},
		{"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "GET", "HTTP/1.1 304, none, length 5"},
		{"HTTP/1.1 304 Not Modified\r\n\r\n", "GET", "HTTP/1.1 304, none, length -1"},
		{"HTTP/1.1 204 No Content\r\n\r\n", "GET", "HTTP/1.1 204, none, length 0"},
		{"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "GET", "HTTP/1.1 204, none, length 0"},
		{"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", "GET", "HTTP/1.1 204, none, length 0, close"},
		{"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", "GET", "HTTP/1.1 204, none, length 0, close"},
		{"HTTP/1.1 100 Continue\r\n\r\n", "POST", "HTTP/1.1 100, none, length 0"},
		{"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", "GET", "HTTP/1.1 103, none, length 0; Link=</a>"},
		// fields of the connection
		{"HTTP/1.1 101 Switching Protocols\r\nConnection: keep-alive, upgrade\r\nUpgrade: websocket\r\nX: y\r\n\r\n", "GET",
			"HTTP/1.1 101, none, length 0; X=y; Upgrade=websocket"},
		{"HTTP/1.1 200 OK\r\nConnection: upgrade, x\r\nUpgrade: h2\r\nX: y\r\nKeep-Alive: max=3, Timeout=20\r\nProxy-Connection: a\r\n" +
			"TE: trailers\r\nContent-Length: 1\r\nSet-Cookie: a\r\nset-cookie: b\r\n\r\n", "GET",
			"HTTP/1.1 200, length, length 1, keep 20 s; Set-Cookie=a; set-cookie=b"},
	} {
		for _, step := range []int{1, 3, len(c.raw)} {
			if got := parseResponse(new(Parser), c.raw, c.method, step); got != c.want {
				t.Errorf("%s %q in steps of %d: %s, want %s", c.method, c.raw, step, got, c.want)
			}
		}
	}
}

func TestResponseSmuggling(t *testing.T) {
	for class, raws := range map[string][]string{
		"502 upstream_bad_header": {
			"\r\nHTTP/1.1 200 OK\r\n\r\n", "\nHTTP/1.1 200 OK\r\n\r\n", "x", "HTTPX1.1 200 OK\r\n", "http/1.1 200 OK\r\n", "HTTP/1.1  200 OK\r\n", "HTTP/1.1\t200 OK\r\n",
			"HTTP/1.1 20 OK\r\n", "HTTP/1.1 2000 OK\r\n", "HTTP/1.1 2x0 OK\r\n", "HTTP/1.1 099 OK\r\n", "HTTP/1.1 000 OK\r\n", "HTTP/1.1 1000 OK\r\n", "HTTP/1.1 200x\r\n", "HTTP/1.1 200\tOK\r\n",
			"HTTP/1.1 200 O\x00K\r\n", "HTTP/1.1 200 O\rK\r\n", "HTTP/1.1 200 OK\n", "HTTP/2.0 200 OK\r\n", "HTTP/1.2 200 OK\r\n", "HTTP/1.1 200 OK\r\n X: y\r\n",
			"HTTP/1.1 200 OK\r\nX: y\r\n z\r\n", "HTTP/1.1 200 OK\r\nX: y\rz\r\n", "HTTP/1.1 200 OK\r\nX: y\n", "HTTP/1.1 200 OK\r\nX : y\r\n", "HTTP/1.1 200 OK\r\nX\r\n",
			"HTTP/1.1 200 OK\r\n\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
			"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
			"HTTP/1.1 304 OK\r\nContent-Length: x\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
			"HTTP/1.1 100 Continue\r\nContent-Length: 1\r\n\r\n", "HTTP/1.1 103 x\r\nTransfer-Encoding: chunked\r\n\r\n",
			"HTTP/1.1 101 x\r\n\r\n", "HTTP/1.1 101 x\r\nUpgrade: a\r\n\r\n", "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade:\r\n\r\n",
			"HTTP/1.1 200 " + strings.Repeat("a", 16<<10) + "\r\n\r\n",
		},
		"502 upstream_header_too_large": {
			"HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 129), "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 64<<10) + "\r\n\r\n",
		},
	} {
		for _, raw := range raws {
			for _, step := range []int{1, 100, len(raw)} {
				if step == 1 && len(raw) > 10_000 {
					continue
				}
				if got := parseResponse(new(Parser), raw, "GET", step); got != class {
					t.Errorf("%.200q in steps of %d: %s, want %s", raw, step, got, class)
				}
			}
		}
	}
}

func TestResponseAllocations(t *testing.T) {
	for _, raw := range []string{typicalResponse, "HTTP/1.1 101 x\r\nConnection: upgrade, x\r\nX: y\r\nUpgrade: websocket\r\n\r\n", "HTTP/1.1 2\r\n"} {
		buf, method := []byte(raw), []byte("GET")
		var p Parser
		var r exchange.Response
		if n := testing.AllocsPerRun(100, func() { p.ParseResponse(buf, method, &r) }); n != 0 {
			t.Errorf("ParseResponse(%q) allocates %v times, want 0", raw, n)
		}
	}
}
