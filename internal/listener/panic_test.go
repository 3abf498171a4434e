package listener

import (
	"io"
	"sync/atomic"
	"testing"
)

// TestPanicCostsItsConnectionAlone: neither the counter of open connections, nor the registry, nor the drain keeps one whose server panicked,
// be it at once or in what Continue gave.
func TestPanicCostsItsConnectionAlone(t *testing.T) {
	var n atomic.Int32
	s := newSet(t, Options{Serve: func(c *Conn) {
		switch n.Add(1) {
		case 1:
			panic("as the test wants")
		case 2:
			c.Continue(func() { panic("as the test wants") })
		default:
			c.Continue(func() { _, _ = io.WriteString(c, "fine") })
		}
	}})
	addr := apply(t, s, on(loopback, 0, "g"))
	s.Start()
	for i, want := range []string{"", "", "fine"} {
		c := dial(t, addr)
		if got, _ := io.ReadAll(c); string(got) != want {
			t.Errorf("connection %d: got %q, want %q", i+1, got, want)
		}
	}
	s.conns.Wait()
	if got := s.Stats().Open; got != 0 {
		t.Errorf("%d connections count as open, want none", got)
	}
	s.each(func(c *Conn) { t.Errorf("%v is still in the registry", c.Peer()) })
}
