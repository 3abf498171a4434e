package drive_test

import (
	"io"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
)

// TestLingerIsOfOneConnection: that a connection had to wait for what its client still sent does not concern the one that is served by
// the same work next. A relay would be read off instead of begun.
func TestLingerIsOfOneConnection(t *testing.T) {
	addr, conns := edgetest.Upgraded(t, "websocket")
	r := one(t, addr)
	for range 8 { // under the race detector the pool keeps not everything
		bad := r.Dial()
		bad.Send("GET / HTTP/1.1\n\n")
		if res, _ := bad.Read("GET"); res.StatusCode != 400 {
			t.Fatalf("got %d, want 400", res.StatusCode)
		}
		_ = bad.Close()
		r.Log.Next(t)
		time.Sleep(10 * time.Millisecond) // until the work is in the pool

		client, backend := edgetest.Open(t, r.Dial(), "websocket", conns)
		client.Send(t, client.Bytes(hello(1)))
		backend.Expect(t, hello(1))
		backend.Send(t, backend.Bytes(hello(2)))
		client.Expect(t, hello(2))
		client.Close()
		backend.Close()
		r.Log.Next(t)
	}
}

// TestLingerNotInherited: nor is a connection kept open that its client wants to see closed.
func TestLingerNotInherited(t *testing.T) {
	r := one(t, echo(t))
	for range 8 {
		bad := r.Dial()
		bad.Send("GET / HTTP/1.1\n\n")
		bad.Read("GET")
		_ = bad.Close()
		r.Log.Next(t)
		time.Sleep(10 * time.Millisecond)

		c := r.Dial()
		c.Send("GET / HTTP/1.1\nHost: a\nConnection: close\n\n")
		c.Read("GET")
		time.Sleep(50 * time.Millisecond)
		// A connection that is closed resets who writes to it; one that lingers takes it.
		_, _ = c.Write([]byte("x"))
		time.Sleep(50 * time.Millisecond)
		if _, err := c.Write([]byte("x")); err == nil {
			if _, err = io.ReadAll(c.R); err == nil {
				t.Error("the connection lingers, want it closed")
			}
		}
		r.Log.Next(t)
	}
}
