package proxy

import (
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// TestFlowChangesListener: a Flow is used again for connections of other listeners, and takes no routes along.
func TestFlowChangesListener(t *testing.T) {
	w := newWorld(t, 1, nil, nil)
	var f Flow
	for _, c := range []struct {
		group string
		port  uint16
		want  string
	}{{"G", 80, "connect"}, {"G", 81, "answer(404 no_listener)"}, {"G", 80, "connect"}, {"H", 80, "answer(404 no_listener)"}, {"G", 80, "connect"}} {
		f.Begin(w.edge, &ConnInfo{Group: c.group, Port: c.port}, f.Start)
		f.Request.Method, f.Request.Host, f.Request.Authority = []byte("GET"), []byte("a"), []byte("a")
		f.Request.Path, f.Request.RawPath = []byte("/app"), []byte("/app")
		f.Request.Version = exchange.HTTP11
		if got := play(&f, "head"); got != c.want {
			t.Errorf("at %s port %d: %s, want %s", c.group, c.port, got, c.want)
		}
		f.End(f.Start)
	}
}
