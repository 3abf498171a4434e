package drive

import (
	"log/slog"
	"net"
	"testing"
)

// TestPanicInARelayReachesNothingElse: a relay in which something panics ends both its connections, and the process goes on.
func TestPanicInARelayReachesNothingElse(t *testing.T) {
	r := &relay{d: &Driver{}}
	r.log = slog.New(slog.DiscardHandler)
	far := make([]net.Conn, 2)
	for i, e := range []*end{&r.client, &r.backend} {
		var near net.Conn
		near, far[i] = net.Pipe()
		e.conn = pipe{near}
	}
	r.client.read = func() ([]byte, int, error) { panic("as the test wants") }
	if n := r.flow(&r.client, &r.backend, nil); n != 0 || !r.panicked.Load() {
		t.Errorf("%d bytes passed, panicked: %v; want none and true", n, r.panicked.Load())
	}
	for i, c := range far {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Errorf("connection %d of the relay is still open", i)
		}
	}
}

type pipe struct{ net.Conn }

func (p pipe) CloseWrite() error { return p.Close() }
