package listener

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"time"
)

// busy serves connections that end only with their socket, and tells of each that begins and that is told to end.
func busy(begun, told chan<- *Conn) func(*Conn) {
	return func(c *Conn) {
		c.Busy()
		c.Told(func() { told <- c })
		begun <- c
		for b := make([]byte, 16); ; {
			_, err := c.Read(b)
			switch {
			case errors.Is(err, os.ErrDeadlineExceeded): // once
				c.ReadOn()
			case err != nil:
				return
			}
		}
	}
}

// TestSocketThatLeftCutsItsConnections: what does not end when it is told to ends when the time for it is over; the connections of the
// sockets that stay are not told.
func TestSocketThatLeftCutsItsConnections(t *testing.T) {
	begun, told := make(chan *Conn, 4), make(chan *Conn, 4)
	s := newSet(t, Options{Serve: busy(begun, told), Finish: 100 * time.Millisecond})
	s.Start()
	stays := on(loopback, freePort(t), "stays")
	goes, taken := on(loopback, freePort(t), "goes"), on(loopback, freePort(t), "taken")
	st := s.Apply([]Socket{stays, goes, taken})
	kept := dial(t, st["stays/http"].Bound)
	gone := []net.Conn{dial(t, st["goes/http"].Bound), dial(t, st["taken/http"].Bound)}
	for range 3 {
		<-begun
	}
	other := taken
	other.Group = "other"
	start := time.Now()
	s.Apply([]Socket{stays, other})
	for range gone {
		if c := <-told; c.Group == "stays" {
			t.Error("the connection of a socket that stays was told to end")
		}
	}
	for _, c := range gone {
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v, want the end", err)
		}
		if took := time.Since(start); took < 100*time.Millisecond {
			t.Errorf("cut after %v, want 100 ms", took)
		}
	}
	for s.Stats().Open > 1 {
		runtime.Gosched()
	}
	if _, err := kept.Write([]byte("x")); err != nil {
		t.Errorf("the connection that stays: %v", err)
	}
	for left := 1; left > 0; runtime.Gosched() { // it is forgotten after the last one was cut
		s.mu.Lock()
		left = len(s.left)
		s.mu.Unlock()
	}
}

// TestDrainCutsThoseOfSocketsThatLeft: a drain ends them too, before their own time is over.
func TestDrainCutsThoseOfSocketsThatLeft(t *testing.T) {
	begun, told := make(chan *Conn, 4), make(chan *Conn, 4)
	s := newSet(t, Options{Serve: busy(begun, told), Finish: time.Hour})
	s.Start()
	dial(t, apply(t, s, on(loopback, 0, "g")))
	<-begun
	s.Apply(nil)
	<-told
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if n := s.Drain(ctx, 0); n != 1 {
		t.Errorf("Drain = %d, want 1 connection cut", n)
	}
}

// TestTold: whichever comes first, being told to end or asking to be told, the read is interrupted once.
func TestTold(t *testing.T) {
	for _, before := range []bool{false, true} {
		a, c := pipe(t)
		calls := make(chan struct{}, 2)
		if before {
			c.stop()
		}
		c.Told(func() { calls <- struct{}{} })
		if !before {
			c.stop()
		}
		c.stop() // again: nothing more
		<-calls
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read = %v, want a deadline error", err)
		}
		c.ReadOn()
		if _, err := io.WriteString(a, "x"); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Errorf("Read after ReadOn = %d, %v, want 1", n, err)
		}
		if len(calls) > 0 {
			t.Error("told twice")
		}
	}
}
