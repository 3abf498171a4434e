package http1

import (
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// FuzzRequest holds any bytes to all promises about requests: net/http agrees on what is accepted, what is forwarded reads
// the same, and the way in which the bytes arrive makes no difference.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(typicalRequest))
	f.Add([]byte("POST /a/../b?c HTTP/1.1\r\nHost: A:80\r\nTransfer-Encoding: chunked\r\nConnection: x\r\nX: y\r\n\r\n1;a=\"b\"\r\nx\r\n0\r\nA: b\r\n\r\n"))
	f.Add([]byte("\r\nPUT http://a/%41 HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabcGET / HTTP/1.1\r\n"))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: [::1]:80\r\nConnection: upgrade, te\r\nUpgrade: h2c, websocket\r\nTE: trailers\r\nExpect: 100-continue\r\n\r\n"))
	f.Add([]byte("OPTIONS * HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\nContent-Length: 1\nTransfer_Encoding: chunked\r\n\r\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if fault := differ(raw); fault != "" {
			t.Error(fault)
		}
		if len(raw) < 2000 {
			whole, single := requestConn(raw, 0).String(), requestConn(raw, 1).String()
			if whole != single {
				t.Errorf("%q: %s whole, %s byte by byte", raw, whole, single)
			}
		}
	})
}

func FuzzResponse(f *testing.F) {
	f.Add([]byte(typicalResponse))
	f.Add([]byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nA: b\r\n\r\n"))
	f.Add([]byte("HTTP/1.0 204 x\r\nContent-Length: 3\r\nConnection: keep-alive, a\r\nA: b\r\nKeep-Alive: timeout=5\r\n\r\nabc"))
	f.Add([]byte("HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nabc"))
	f.Add([]byte("HTTP/1.1 304 \xff\r\nContent-Length: 3\r\nX: y\r\n z\r\n\r\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if fault := differResponse(raw); fault != "" {
			t.Error(fault)
		}
		if len(raw) > 2000 {
			return
		}
		whole, fault := responseConn(raw, 0)
		single, other := responseConn(raw, 1)
		if fault != other || fault == nil && whole != single {
			t.Errorf("%q: %q, %v whole, %q, %v byte by byte", raw, whole, fault, single, other)
		}
	})
}

func FuzzChunks(f *testing.F) {
	for _, s := range []string{"5\r\nhello\r\n0\r\n\r\n", "1; a ;b=\"c\\\"\" ; d = e\r\nx\r\n000\r\nA: b\r\nCookie: c\r\n\r\nGET", "ffffffffffffffff\r\n", "1 \r\n",
		"0\r\nContent-Length: 1\r\n\r\n", "1\r\nab"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		whole := decode(new(Chunks), string(raw), max(len(raw), 1))
		if single := decode(new(Chunks), string(raw), 1); single != whole {
			t.Errorf("%q: %q whole, %q byte by byte", raw, whole, single)
		}
		// Whatever the extensions were, what goes on to a backend is decoded to the same.
		var c Chunks
		var trailer exchange.Header
		var out []byte
		for rest := raw; ; {
			data, n, done, fault := c.Next(rest, &trailer)
			if fault != nil || n == 0 && !done {
				return
			}
			if rest = rest[n:]; len(data) > 0 {
				out = append(append(AppendChunkHead(out, len(data)), data...), "\r\n"...)
			}
			if done {
				if again := decode(new(Chunks), string(AppendTrailer(out, &trailer))+string(rest), 64); again != whole {
					t.Errorf("%q: %q, and %q after %q", raw, whole, again, out)
				}
				return
			}
		}
	})
}
