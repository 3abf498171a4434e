package cluster

import (
	"net/http"
	"sync"
)

// gate holds the requests of the node agent while there is no API server. Without it its watches would fail again and again meanwhile,
// and then take half a minute to come back: in a test that is a node which is deaf long after the fault is over.
type gate struct {
	mu   sync.Mutex
	open chan struct{} // closed while there is an API server
}

func newGate() *gate {
	g := &gate{open: make(chan struct{})}
	close(g.open)
	return g
}

func (g *gate) set(open bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.open:
		if !open {
			g.open = make(chan struct{})
		}
	default:
		if open {
			close(g.open)
		}
	}
}

func (g *gate) wait() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

// wrap makes a transport whose requests wait at the gate.
func (g *gate) wrap(next http.RoundTripper) http.RoundTripper { return gated{g, next} }

type gated struct {
	gate *gate
	next http.RoundTripper
}

func (t gated) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case <-t.gate.wait():
		return t.next.RoundTrip(r)
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}
