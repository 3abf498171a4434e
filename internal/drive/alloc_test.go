package drive_test

import (
	"io"
	"net"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
)

// TestAllocationsPerRequest holds the hot path to zero: a request with usual headers on a kept connection, forwarded on a
// kept connection, logged and counted.
func TestAllocationsPerRequest(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nServer: b\r\n\r\nhello")
	b := edgetest.Backend(t, func(c net.Conn) {
		p := make([]byte, 4096)
		for {
			if n, err := c.Read(p); err != nil || n == 0 {
				return
			}
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	})
	c := one(t, b).Dial()
	for _, request := range []string{
		"GET /some/path?x=y HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: test\r\nAccept: */*\r\nCookie: a=b; c=d\r\n\r\n",
		"POST /some/path HTTP/1.1\r\nHost: shop.example\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nbody",
	} {
		in, out := []byte(request), make([]byte, 4096)
		n := testing.AllocsPerRun(2000, func() {
			if _, err := c.Write(in); err != nil {
				t.Fatal(err)
			}
			got := 0
			for got == 0 || string(out[got-5:got]) != "hello" {
				n, err := c.Conn.Read(out[got:])
				if err != nil && err != io.EOF {
					t.Fatal(err)
				}
				got += n
			}
		})
		if n != 0 {
			t.Errorf("%.4s: %v allocations for a request, want 0", request, n)
		}
	}
}
