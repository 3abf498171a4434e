package drive

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/http1"
	"github.com/gatehouse-io/gatehouse/internal/listener"
)

// relay passes the 101 response on and then bytes both ways, until both directions have ended (RFC 9110 section 7.8). What the
// configuration becomes meanwhile does not reach it, and it keeps nothing of the one that it began under; a client's connection that is
// told to end says so on both sides of a WebSocket.
func (w *work) relay() bool {
	w.unwatch()
	w.out = http1.AppendUpgrade(w.out[:0], &w.Response)
	// What the backend sent behind its head belongs to the new protocol, and so does what the client sent behind its own.
	rest := w.ub[w.ur:w.uw]
	w.ur = w.uw
	up := w.up
	_ = up.Net.SetDeadline(time.Time{}) // fails only on a closed connection, which the relay will tell
	w.c.ReadWithin(time.Time{}, 0)
	w.c.WriteWithin(time.Time{}, 0)
	if _, err := w.c.Write(w.out); err != nil {
		return w.lost()
	}
	// Read buffers are taken when bytes come, so that a relay on which nothing moves holds none. The log still needs the heads.
	first, rest := bytes.Clone(w.in[w.r:w.w]), bytes.Clone(rest)
	w.r = w.w
	keep(&w.Response.Header)
	w.unready()
	w.LetGo()
	t := &tunnel{idle: w.limits.streamIdle, log: w.d.Log, websocket: exchange.EqualFold(w.Request.Upgrade, "websocket")}
	t.moved()
	w.c.Hold(listener.Relaying, relaySize)
	client := &end{conn: w.c, within: func(at time.Time) { w.c.ReadWithin(at, t.idle) }, readOn: w.c.ReadOn,
		read: func() ([]byte, int, error) { return w.c.ReadPooled(w.d) }}
	backend := &end{conn: up.Net.(halfCloser), within: func(at time.Time) { _ = up.Net.SetReadDeadline(at.Add(t.idle)) },
		readOn: func() { _ = up.Net.SetReadDeadline(time.Time{}) }, read: up.IO.(*wire).pooled(up.Net, w.d)}
	if t.websocket {
		w.c.Told(func() {
			t.told.Store(true)
			_ = up.Net.SetReadDeadline(time.Unix(1, 0))
		})
	}
	toBackend := make(chan int64, 1)
	go func() {
		d := direction{tunnel: t, src: client, dst: backend, pool: w.d, frames: frames{masked: true}}
		var n int64
		defer func() { toBackend <- n }()
		defer d.recover()
		n = d.copy(first)
	}()
	d := direction{tunnel: t, src: backend, dst: client, pool: w.d}
	func() {
		defer d.recover()
		w.BytesOut += d.copy(rest)
	}()
	w.BytesIn += <-toBackend
	switch {
	case t.timedOut.Load():
		w.Reason = "stream_idle"
	case t.panicked.Load():
		w.Reason, w.Detail = "internal_error", "the relay panicked"
	case w.c.Shed():
		w.Reason = "overloaded"
	case t.left.Load():
		w.Reason = "going_away"
	}
	w.drop()
	return false
}

// relaySize is about what a relay takes on which nothing moves.
const relaySize = 12 << 10

// tunnel is two directions of bytes. It ends when both have, when one fails, or when nothing moved for idle (0: never).
type tunnel struct {
	idle      time.Duration
	log       *slog.Logger
	websocket bool
	last      atomic.Int64 // when something moved, Unix nanoseconds
	timedOut  atomic.Bool
	told      atomic.Bool // to end
	garbage   atomic.Bool // what passes is no WebSocket framing: nothing may be put in
	panicked  atomic.Bool
	left      atomic.Bool // a Close frame of ours was
}

// halfCloser is a connection whose directions end one by one: TCP, or TLS over it.
type halfCloser interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// end is one end of a tunnel. One goroutine reads from it, another one writes to it.
type end struct {
	conn   halfCloser
	read   func() (buf []byte, n int, err error) // into a buffer of the pool, which is the caller's then if n > 0
	within func(from time.Time)                  // makes the next read end at idle after a time
	readOn func()                                // lets reads wait again
	closes atomic.Uint32                         // closeSent, closeRead
	ended  atomic.Bool                           // CloseWrite was called
}

// finish says that nothing follows, once.
func (e *end) finish() error {
	if e.ended.Swap(true) {
		return nil
	}
	return e.conn.CloseWrite()
}

func (t *tunnel) moved() { t.last.Store(time.Now().UnixNano()) }

// direction is what flows from src to dst. It belongs to one goroutine.
type direction struct {
	*tunnel
	src, dst *end
	pool     listener.Buffers
	frames   frames
	leaving  bool // it has noticed that the tunnel is told to end
	over     bool // dst has had a Close frame
	woken    bool // src's read was interrupted for that: it happens once
}

// copy sends first and then what src sends to dst until src ends, then tells dst that nothing
// follows. When it fails, it closes both ends, so that the other direction ends too.
func (d *direction) copy(first []byte) (n int64) {
	if d.flow(first, &n) != nil {
		_, _ = d.src.conn.Close(), d.dst.conn.Close()
	}
	return n
}

// recover ends the relay, and it alone, when one of its directions panicked.
func (d *direction) recover() {
	if p := recover(); p != nil {
		d.panicked.Store(true)
		d.log.Error("relay panicked", "panic", p, "stack", string(debug.Stack()))
		_, _ = d.src.conn.Close(), d.dst.conn.Close()
	}
}

// keep has the fields of h lie in memory of their own.
func keep(h *exchange.Header) {
	for i := range h.All() {
		f := &h.All()[i]
		f.Name, f.Value = bytes.Clone(f.Name), bytes.Clone(f.Value)
	}
}

func (d *direction) flow(first []byte, n *int64) error {
	if err := d.pass(first, n); err != nil {
		return err
	}
	for {
		if d.idle > 0 {
			d.src.within(time.Unix(0, d.last.Load()))
		}
		// Looked at after the deadline was set: the interruption of the read comes later then, or is not needed.
		if d.told.Load() && !d.leaving {
			if err := d.leave(); err != nil {
				return err
			}
		}
		buf, k, err := d.src.read()
		if k > 0 {
			d.moved()
			var err error
			if d.told.Load() && !d.leaving { // while it read: what follows the frame is not sent any more
				err = d.leave()
			}
			if err == nil {
				err = d.pass(buf[:k], n)
			}
			d.pool.Give(buf)
			if err != nil {
				return err
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return d.dst.finish()
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		case d.told.Load() && !d.woken:
			d.woken = true
			d.src.readOn()
		case d.idle > 0 && time.Since(time.Unix(0, d.last.Load())) < d.idle: // the other direction moved meanwhile
		default:
			d.timedOut.Store(d.idle > 0)
			return err
		}
	}
}

// write sends p to dst and counts it.
func (d *direction) write(p []byte, n *int64) error {
	if len(p) == 0 {
		return nil
	}
	k, err := d.dst.conn.Write(p)
	*n += int64(k)
	return err
}
