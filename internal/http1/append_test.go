package http1

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

func field(name, value string) exchange.Field {
	return exchange.Field{Name: []byte(name), Value: []byte(value)}
}

func TestAppendRequest(t *testing.T) {
	for _, c := range []struct {
		raw, want string
		extra     []exchange.Field
	}{
		{"GET /a/../b?c HTTP/1.1\r\nHost: A:80\r\nConnection: close, x\r\nX: 1\r\nY:2\r\n\r\n",
			"GET /b?c HTTP/1.1\r\nHost: a:80\r\nY: 2\r\n\r\n", nil},
		{"GET http://a? HTTP/1.0\r\n\r\n", "GET /? HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1\r\n\r\n",
			[]exchange.Field{field("X-Forwarded-For", "1")}},
		{"GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: \r\n\r\n", nil},
		{"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", nil},
		{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\nExpect: 100-continue\r\n\r\n",
			"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\nExpect: 100-continue\r\n\r\n", nil},
		{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:chunked\r\n\r\n",
			"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", nil},
		{"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c,websocket\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", nil},
		{"GET / HTTP/1.1\r\nHost: a\r\nConnection: TE, upgrade\r\nUpgrade: websocket\r\nTE: trailers\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: Upgrade, TE\r\nUpgrade: websocket\r\n\r\n", nil},
		{"GET / HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nTE: a,trailers\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n", nil},
	} {
		var p Parser
		var r exchange.Request
		_, h, f := p.ParseRequest([]byte(c.raw), &r)
		if f != nil {
			t.Fatalf("%q: %v", c.raw, f)
		}
		if diff := cmp.Diff(c.want, string(AppendRequest(nil, &r, r.RawPath, h.Framing, c.extra...))); diff != "" {
			t.Errorf("%q: want -, got +\n%s", c.raw, diff)
		}
	}
}

func TestAppendResponse(t *testing.T) {
	var header exchange.Header
	header.Append([]byte("A"), []byte("b"))
	for _, c := range []struct {
		status  int
		length  int64
		framing Framing
		close   bool
		extra   []exchange.Field
		want    string
	}{
		{200, 5, Length, false, nil, "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 5\r\n\r\n"},
		{200, 0, Length, true, nil, "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"},
		{404, -1, Chunked, false, nil, "HTTP/1.1 404 Not Found\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n"},
		{200, -1, UntilClose, false, nil, "HTTP/1.1 200 OK\r\nA: b\r\nConnection: close\r\n\r\n"},
		{204, 0, None, false, nil, "HTTP/1.1 204 No Content\r\nA: b\r\n\r\n"},
		{299, 0, None, false, []exchange.Field{field("Connection", "keep-alive")},
			"HTTP/1.1 299 \r\nA: b\r\nConnection: keep-alive\r\n\r\n"},
	} {
		r := exchange.Response{Status: c.status, Header: header, ContentLength: c.length}
		if got := string(AppendResponse(nil, &r, c.framing, c.close, c.extra...)); got != c.want {
			t.Errorf("AppendResponse(%d, %v, %v) = %q, want %q", c.status, c.framing, c.close, got, c.want)
		}
	}
}

func TestAppendUpgrade(t *testing.T) {
	var p Parser
	var r exchange.Response
	const raw = "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: a\r\n\r\n"
	if _, _, f := p.ParseResponse([]byte(raw), []byte("GET"), &r); f != nil {
		t.Fatal(f)
	}
	const want = "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
	if got := string(AppendUpgrade(nil, &r)); got != want {
		t.Errorf("AppendUpgrade = %q, want %q", got, want)
	}
}

// TestResponseSplitting gives a hook's value the means to end its line: it must not.
func TestResponseSplitting(t *testing.T) {
	r := exchange.Response{Status: 302}
	r.Header.Append([]byte("Location"), []byte("/a\r\nSet-Cookie: x\r\n\r\n\x00\x7f\tb"))
	const want = "HTTP/1.1 302 Found\r\nLocation: /a  Set-Cookie: x      \tb\r\nContent-Length: 0\r\n\r\n"
	if got := string(AppendResponse(nil, &r, Length, false)); got != want {
		t.Errorf("AppendResponse = %q, want %q", got, want)
	}
}

func TestAppendAllocations(t *testing.T) {
	var p, q Parser
	var r exchange.Request
	var s exchange.Response
	_, h, _ := p.ParseRequest([]byte(typicalRequest), &r)
	_, g, _ := q.ParseResponse([]byte(typicalResponse), []byte("GET"), &s)
	out := make([]byte, 0, 4096)
	name, value := []byte("X-Request-Id"), []byte("1")
	if n := testing.AllocsPerRun(100, func() {
		AppendRequest(out, &r, r.RawPath, h.Framing, exchange.Field{Name: name, Value: value})
		AppendResponse(out, &s, g.Framing, true, exchange.Field{Name: name, Value: value})
		AppendTrailer(AppendChunkHead(out, 4711), &s.Trailer)
	}); n != 0 {
		t.Errorf("appending heads allocates %v times, want 0", n)
	}
}
