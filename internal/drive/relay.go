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
	"github.com/gatehouse-io/gatehouse/internal/proxy"
	"github.com/gatehouse-io/gatehouse/internal/upstream"
)

// relay is an upgraded connection: it passes bytes both ways until both directions have ended (RFC 9110 section 7.8). What the
// configuration becomes meanwhile does not reach it, and it keeps nothing of the one that it began under, nor of what its exchange needed; a
// client's connection that is told to end says so on both sides of a WebSocket.
type relay struct {
	proxy.Flow
	tunnel
	d               *Driver
	c               *listener.Conn
	up              *upstream.Conn
	client, backend end
	first, rest     []byte // what came behind the heads: it belongs to the new protocol
}

// relay passes the 101 response on and makes the relay, which begins when the exchange has given back what it held.
func (w *work) relay() bool {
	w.unwatch() // it would read beside the relay
	w.out = http1.AppendUpgrade(w.out[:0], &w.Response)
	_ = w.up.Net.SetDeadline(time.Time{}) // fails only on a closed connection, which the relay will tell
	w.c.ReadWithin(time.Time{}, 0)
	w.c.WriteWithin(time.Time{}, 0)
	if _, err := w.c.Write(w.out); err != nil {
		return w.lost()
	}
	r := &relay{d: w.d, c: w.c, up: w.up, first: bytes.Clone(w.in[w.r:w.w]), rest: bytes.Clone(w.ub[w.ur:w.uw])}
	r.idle, r.log, r.websocket = w.limits.streamIdle, w.d.Log, exchange.EqualFold(w.Request.Upgrade, "websocket")
	w.Request.Header.Pack()
	w.Response.Header.Pack()
	w.LetGo()
	// The log needs the head: it stays, with what was made of it, for the relay's life.
	r.Flow, w.Flow = w.Flow, proxy.Flow{}
	w.parser, w.reply, w.in, w.up = http1.Parser{Upgrades: w.d.Upgrades}, http1.Parser{}, nil, nil
	w.r, w.w, w.ur, w.uw = 0, 0, 0, 0
	w.relays = r
	return false
}

// run is the relay's life. Its goroutine is not the exchange's, whose stack it would keep.
func (r *relay) run() {
	defer func() { _ = r.c.Close() }()
	defer func() { r.End(time.Now()) }()
	defer func() {
		r.up.Endpoint.End()
		r.up.Close()
	}()
	if !r.c.Hold(listener.Relaying, relaySize) { // shed while it waited for the 101: every read of it fails at once
		r.Reason = "overloaded"
		return
	}
	r.moved()
	r.client.conn, r.client.readOn = r.c, r.c.ReadOn
	r.client.within = func(at time.Time) { r.c.ReadWithin(at, r.idle) }
	r.client.read = func() ([]byte, int, error) { return r.c.ReadPooled(r.d) }
	r.backend.conn = r.up.Net.(halfCloser)
	r.backend.within = func(at time.Time) { _ = r.up.Net.SetReadDeadline(at.Add(r.idle)) }
	r.backend.readOn = func() { _ = r.up.Net.SetReadDeadline(time.Time{}) }
	r.backend.read = r.up.IO.(*wire).pooled(r.up.Net, r.d)
	if r.websocket {
		r.c.Told(func() {
			r.told.Store(true)
			_ = r.up.Net.SetReadDeadline(time.Unix(1, 0))
		})
	}
	toBackend := make(chan int64, 1)
	go func() {
		var n int64
		defer func() { toBackend <- n }()
		n = r.flow(&r.client, &r.backend, r.first)
	}()
	r.BytesOut += r.flow(&r.backend, &r.client, r.rest)
	r.BytesIn += <-toBackend
	switch {
	case r.timedOut.Load():
		r.Reason = "stream_idle"
	case r.panicked.Load():
		r.Reason, r.Detail = "internal_error", "the relay panicked"
	case r.c.Shed():
		r.Reason = "overloaded"
	case r.left.Load():
		r.Reason = "going_away"
	}
}

// flow carries one direction to its end and counts what passed.
func (r *relay) flow(src, dst *end, first []byte) (n int64) {
	d := direction{tunnel: &r.tunnel, src: src, dst: dst, pool: r.d, frames: frames{masked: src == &r.client}}
	defer d.recover()
	d.copy(first, &n)
	return n
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
func (d *direction) copy(first []byte, n *int64) {
	if d.flow(first, n) != nil {
		_, _ = d.src.conn.Close(), d.dst.conn.Close()
	}
}

// recover ends the relay, and it alone, when one of its directions panicked.
func (d *direction) recover() {
	if p := recover(); p != nil {
		d.panicked.Store(true)
		d.log.Error("relay panicked", "panic", p, "stack", string(debug.Stack()))
		_, _ = d.src.conn.Close(), d.dst.conn.Close()
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
