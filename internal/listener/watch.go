package listener

import (
	"errors"
	"os"
	"sync/atomic"
	"time"
)

// aheadSize is how much of what a TLS client sends behind its request is read to find out that it has ended. A close_notify behind more
// than that is not seen; the end of the TCP connection is.
const aheadSize = 4 << 10

// watcher is the goroutine of a Watch.
type watcher struct {
	c       *Conn
	pool    Buffers
	f       func(closed bool)
	stopped atomic.Bool
	done    chan struct{}
	half    bool // f was told of the half
	full    bool // no more is read ahead
}

// Watch has f called when the client ends its connection while nobody reads from it: f(false) once it says that it sends no more, f(true)
// once no answer can reach it. Either comes at most once, from another goroutine; f must not block. Until stop has returned, which does
// not wait for the client, nothing else may read or set a read deadline. Bytes that the client sends meanwhile are not lost. On a
// connection that is not a socket, f is never called.
func (c *Conn) Watch(pool Buffers, f func(closed bool)) (stop func()) {
	if c.raw == nil {
		return func() {}
	}
	x := &watcher{c: c, pool: pool, f: f, done: make(chan struct{})}
	c.readEnd = time.Time{}
	_ = c.tcp.SetReadDeadline(time.Time{}) // fails only on a closed connection, which the watch will tell
	if c.Interrupted() {
		c.wake()
	}
	go x.run()
	return x.stop
}

func (x *watcher) stop() {
	x.stopped.Store(true)
	_ = x.c.tcp.SetReadDeadline(time.Unix(1, 0))
	<-x.done
	if x.c.ReadOn(); x.c.Interrupted() {
		x.c.wake()
	}
}

func (x *watcher) run() {
	defer close(x.done)
	defer func() {
		if recover() != nil { // crypto/tls, on what the client sent
			x.f(true)
		}
	}()
	for x.look() {
	}
}

// look waits once, and reports whether the watch goes on.
func (x *watcher) look() bool {
	closed, half, err := x.ahead()
	if err == nil && !closed && !half {
		closed, half, err = x.c.awaitEnd(x)
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		if x.stopped.Load() {
			return false
		}
		if x.c.Interrupted() {
			x.f(true)
			return false
		}
		_ = x.c.tcp.SetReadDeadline(time.Time{}) // a deadline of something else
		return !x.stopped.Load()
	case err != nil || closed:
		x.f(true)
		return false
	case half:
		x.half = true
		x.f(false)
	}
	return true
}

// ahead lets TLS look at what has been read from the socket: whether the client says there that it sends no more.
func (x *watcher) ahead() (closed, half bool, err error) {
	c := x.c
	if c.tls == nil || x.half || x.full {
		return false, false, nil
	}
	c.parked = true
	defer func() { c.parked = false }()
	for {
		var one [1]byte
		p := one[:]
		if n := len(c.aheadOf); n > 0 {
			if p = c.aheadOf[n:cap(c.aheadOf)]; len(p) == 0 {
				x.full = true
				return false, false, nil
			}
		}
		n, err := c.tls.Read(p)
		switch {
		case n > 0 && len(c.aheadOf) > 0:
			c.aheadOf = c.aheadOf[:len(c.aheadOf)+n]
		case n > 0:
			c.aheadOf = append(make([]byte, 0, aheadSize), one[0])
		case errors.Is(err, errParked):
			return false, false, nil
		case err != nil: // close_notify, or what is no TLS
			return !isEOF(err), isEOF(err), nil
		}
	}
}
