package listener

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	handshakeTime = 5 * time.Second  // for the PROXY protocol header and the TLS handshake together
	slack         = time.Second      // how much later than wanted a deadline may fall
	lingerTime    = 30 * time.Second // for all that a client still sends behind its answer
	lingerIdle    = 5 * time.Second  // for the next piece of it
)

// States of a connection, as bits.
const (
	idle        = 1 << iota // waits for a request
	stopping                // told to end
	interrupted             // reads fail
)

// Conn is a client's connection. Handshake is called first. One goroutine reads and one writes at a time; Closing and, after
// Handshake, Close may be called by any. Idle, Busy, Gone and the deadlines belong to the goroutine that reads; WriteWithin to
// the one that writes.
type Conn struct {
	// Group and Port are those of the listeners the connection was accepted for.
	Group string
	Port  uint16

	nc    net.Conn     // what is read and written: tls, or tcp
	tcp   *net.TCPConn // nil for a connection made by Wrap from something else
	raw   syscall.RawConn
	tls   *tls.Conn
	tstat *tls.ConnectionState
	asked bool // the client was asked for a certificate
	// refused says that the handshake was, for want of a certificate for refusedName.
	refused     bool
	refusedName string
	sock        *socket // nil for a connection made by Wrap
	meta        *Socket // nil after the handshake: a long connection keeps no old certificate alive

	peer, rawPeer netip.AddrPort
	state         atomic.Uint32
	since         time.Time
	counted       netip.Addr    // in socket.from; zero: not
	holds         atomic.Uint64 // Holding, and in the lower half how many bytes it takes
	told          atomic.Pointer[func()]
	next          func()    // see Continue
	readEnd       time.Time // the deadline set on the socket; zero: none
	writeEnd      time.Time

	// stage is bytes read from the socket that nc has not had yet: what followed a PROXY header, or a TLS record read into a
	// pooled buffer, which goes back to its pool when the last byte is taken.
	stage     []byte
	stageBuf  []byte
	stagePool Buffers
	parked    bool // reading below TLS must not touch the socket: only what is in stage
	// aheadOf is what a Watch read of a TLS client's bytes: they come next. nil: nothing.
	aheadOf []byte

	recv func(fd uintptr) bool // receive as a value, made once
	wait waiting
	poll polling
}

// waiting is the arguments and results of receive.
type waiting struct {
	pool Buffers
	once bool
	buf  []byte
	n    int
	err  error
}

// Buffers is a pool of buffers of at least a few KiB. Take never returns an empty one.
type Buffers interface {
	Take() []byte
	Give([]byte)
}

// errParked is what crypto/tls sees instead of waiting for the socket. It is temporary, so that the connection goes on.
var errParked net.Error = parkedError{}

type parkedError struct{}

func (parkedError) Error() string   { return "listener: nothing to read yet" }
func (parkedError) Timeout() bool   { return true }
func (parkedError) Temporary() bool { return true }

func newConn(tcp *net.TCPConn, k *socket) *Conn {
	c := &Conn{nc: tcp, tcp: tcp, sock: k, since: time.Now()}
	c.state.Store(idle)
	if a, ok := tcp.RemoteAddr().(*net.TCPAddr); ok {
		c.rawPeer = unmap(a.AddrPort())
	}
	c.peer = c.rawPeer
	if raw, err := tcp.SyscallConn(); err == nil {
		c.raw = raw
		c.recv = c.receive
	}
	return c
}

// serves makes c one of a socket's, which holds until c ends whatever becomes of the socket.
func (c *Conn) serves(m *Socket) { c.meta, c.Group, c.Port = m, m.Group, m.Port }

// Wrap makes a connection of nc, which need not be TCP, for tests and in-memory networks. m.Bind is not used; TLS and
// the PROXY protocol work as on a socket, with conf the TLS configuration when m.TLS is not nil.
func Wrap(nc net.Conn, m *Socket, conf *tls.Config) *Conn {
	if tcp, ok := nc.(*net.TCPConn); ok {
		c := newConn(tcp, nil)
		c.serves(m)
		if m.TLS != nil {
			c.tls = tls.Server(&wire{Conn: nc, c: c}, conf)
		}
		return c
	}
	c := &Conn{nc: nc}
	c.serves(m)
	c.state.Store(idle)
	if ap, err := netip.ParseAddrPort(nc.RemoteAddr().String()); err == nil {
		c.rawPeer, c.peer = unmap(ap), unmap(ap)
	}
	if m.TLS != nil {
		c.tls = tls.Server(&wire{Conn: nc, c: c}, conf)
	}
	return c
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// Handshake reads the PROXY protocol header, if the socket wants one, and does the TLS handshake, if it speaks TLS. Both
// together have 5 s. After an error the connection must be closed. It is called once, before anything is read.
func (c *Conn) Handshake() error {
	defer func() { c.meta = nil }()
	if !c.meta.Proxy && c.meta.TLS == nil {
		return c.place()
	}
	low := c.low()
	if err := low.SetDeadline(time.Now().Add(handshakeTime)); err != nil {
		return err
	}
	if c.meta.Proxy {
		if err := c.readProxy(low); err != nil {
			c.count(func(n *counters) { n.proxy.Add(1) })
			return err
		}
	}
	if err := c.place(); err != nil {
		return err
	}
	if c.meta.TLS != nil {
		if c.tls == nil {
			c.tls = tls.Server(&wire{Conn: low, c: c}, c.sock.tls.Config())
		}
		if err := c.shake(); err != nil {
			c.shakeFailed(err)
			return err
		}
		st := c.tls.ConnectionState()
		c.nc, c.tstat = c.tls, &st
	}
	c.readEnd, c.writeEnd = time.Time{}, time.Time{}
	if err := low.SetDeadline(time.Time{}); err != nil {
		return err
	}
	return nil
}

// place counts the connection for its client's address, or resets it when that has too many.
func (c *Conn) place() error {
	if c.sock == nil {
		return nil
	}
	err := c.sock.place(c, c.meta.PerAddress)
	if err != nil {
		c.Reset()
	}
	return err
}

// shake does the TLS handshake on a goroutine of its own, because it needs a deep stack: the connection's would keep that size for as
// long as it idles, or until the collector has run some times. A panic becomes the caller's, which has a way to deal with it.
func (c *Conn) shake() error {
	type result struct {
		err   error
		fault string
	}
	done := make(chan result, 1)
	go func() {
		var r result
		defer func() {
			if p := recover(); p != nil {
				r.fault = fmt.Sprintf("handshake: %v\n%s", p, debug.Stack())
			}
			done <- r
		}()
		r.err = c.tls.Handshake()
	}()
	r := <-done
	if r.fault != "" {
		panic(r.fault)
	}
	return r.err
}

func (c *Conn) count(f func(*counters)) {
	if c.sock != nil {
		f(&c.sock.set.stats)
	}
}

// low is the connection below TLS.
func (c *Conn) low() net.Conn {
	if c.tcp != nil {
		return c.tcp
	}
	if c.tls != nil && c.nc == net.Conn(c.tls) {
		return c.tls.NetConn().(*wire).Conn
	}
	return c.nc
}

// Peer is who connected: the source in the PROXY protocol header where there is one, else RawPeer.
func (c *Conn) Peer() netip.AddrPort { return c.peer }

// RawPeer is the other end of the TCP connection.
func (c *Conn) RawPeer() netip.AddrPort { return c.rawPeer }

// TLS is what the handshake agreed on, nil on a connection in clear text and before the handshake.
func (c *Conn) TLS() *tls.ConnectionState { return c.tstat }

// Asked reports whether the client was asked for a certificate in the handshake.
func (c *Conn) Asked() bool { return c.asked }

// SNI is the name that the client asked for in the handshake, "" if none.
func (c *Conn) SNI() string {
	if c.tstat == nil {
		return ""
	}
	return c.tstat.ServerName
}

// Raw is the TCP connection below, nil on an in-memory network. Reading from it past this Conn loses bytes.
func (c *Conn) Raw() *net.TCPConn { return c.tcp }

// Read reads like net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	if c.tls == nil && len(c.stage) > 0 {
		return c.unstage(p), nil
	}
	if len(c.aheadOf) > 0 {
		n := copy(p, c.aheadOf)
		if c.aheadOf = c.aheadOf[n:]; len(c.aheadOf) == 0 {
			c.aheadOf = nil
		}
		return n, nil
	}
	return c.nc.Read(p)
}

func (c *Conn) unstage(p []byte) int {
	n := copy(p, c.stage)
	if c.stage = c.stage[n:]; len(c.stage) == 0 {
		c.stage = nil
		if c.stagePool != nil {
			c.stagePool.Give(c.stageBuf)
			c.stageBuf, c.stagePool = nil, nil
		}
	}
	return n
}

// ReadPooled waits until there is something to read, without holding a buffer while it waits, and reads it into one from
// pool, which then belongs to the caller. On an error no buffer is handed out. A connection told to stop while it waited
// looks once more for bytes that came at the same moment, so that a request already there is still served.
func (c *Conn) ReadPooled(pool Buffers) (buf []byte, n int, err error) {
	if c.raw == nil || len(c.aheadOf) > 0 || c.tls == nil && len(c.stage) > 0 {
		b := pool.Take()
		if n, err = c.Read(b); n > 0 {
			return b, n, nil
		}
		pool.Give(b)
		return nil, 0, err
	}
	if c.tls == nil {
		return c.await(pool)
	}
	for {
		b := pool.Take()
		c.parked = true
		n, err = c.tls.Read(b)
		c.parked = false
		if n > 0 {
			return b, n, nil // an error, if there is one, comes again with the next read
		}
		pool.Give(b)
		if err != nil && !errors.Is(err, errParked) {
			return nil, 0, err
		}
		raw, n, err := c.await(pool)
		switch {
		case errors.Is(err, io.EOF): // let TLS judge whether the end may come here
			var one [1]byte
			if n, err = c.tls.Read(one[:]); n == 0 {
				return nil, 0, err
			}
			return nil, 0, io.ErrUnexpectedEOF
		case err != nil:
			return nil, 0, err
		}
		c.stage, c.stageBuf, c.stagePool = raw[:n], raw, pool
	}
}

// await reads from the socket into a buffer taken when bytes are there.
func (c *Conn) await(pool Buffers) ([]byte, int, error) {
	c.wait = waiting{pool: pool}
	err := c.raw.Read(c.recv)
	if errors.Is(err, os.ErrDeadlineExceeded) && c.state.Load()&(stopping|interrupted) == stopping {
		c.readEnd = time.Time{}
		if e := c.tcp.SetReadDeadline(time.Time{}); e == nil {
			c.wait.once = true
			if e = c.raw.Read(c.recv); e == nil && c.wait.buf != nil {
				err = nil
			}
		}
	}
	w := c.wait
	c.wait = waiting{}
	switch {
	case err != nil:
		return nil, 0, err
	case w.err == nil && w.n > 0:
		return w.buf, w.n, nil
	}
	if w.buf != nil {
		pool.Give(w.buf)
	}
	if w.err == nil {
		w.err = io.EOF
	}
	return nil, 0, w.err
}

// receive is called by the runtime's poller until it returns true: false means wait until the socket is readable.
func (c *Conn) receive(fd uintptr) bool {
	b := c.wait.pool.Take()
	for {
		n, err := unix.Read(int(fd), b)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			c.wait.pool.Give(b)
			return c.wait.once
		case err != nil:
			c.wait.buf, c.wait.n, c.wait.err = b, 0, os.NewSyscallError("read", err)
			return true
		}
		c.wait.buf, c.wait.n = b, n
		return true
	}
}

// wire is the connection that crypto/tls reads from.
type wire struct {
	net.Conn
	c *Conn
}

// Asked is called in the handshake, for cert.Asked.
func (w *wire) Asked() { w.c.asked = true }

// Refused is called in the handshake, for cert.Refused.
func (w *wire) Refused(name string) { w.c.refused, w.c.refusedName = true, name }

func (w *wire) Read(p []byte) (int, error) {
	if len(w.c.stage) > 0 {
		return w.c.unstage(p), nil
	}
	if w.c.parked {
		return 0, errParked
	}
	return w.Conn.Read(p)
}

// Write writes all of p, like net.Conn.
func (c *Conn) Write(p []byte) (int, error) { return c.nc.Write(p) }

// WriteBuffers writes all of v and consumes it: with one system call in clear text.
func (c *Conn) WriteBuffers(v *net.Buffers) (int64, error) {
	if c.tls == nil && c.tcp != nil {
		return v.WriteTo(c.tcp)
	}
	return v.WriteTo(c.nc)
}

// Close closes at once. Bytes not read yet make the kernel reset the connection, which can take an answer away from the
// client: Linger avoids that.
func (c *Conn) Close() error { return c.nc.Close() }

// Reset closes with a reset and without close_notify, so that nobody takes an answer that was cut short for a whole one. What was
// written and has not left yet is lost.
func (c *Conn) Reset() {
	if c.tcp != nil {
		_ = c.tcp.SetLinger(0) // fails only on a closed connection
	}
	_ = c.low().Close()
}

// CloseWrite says that no byte follows: close_notify on TLS, then FIN.
func (c *Conn) CloseWrite() error {
	if c.tls != nil && c.tstat != nil {
		if err := c.tls.CloseWrite(); err != nil {
			return err
		}
	}
	if h, ok := c.low().(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}

// Continue has f go on with the connection when Serve returns, in a goroutine of its own: one with a stack that is as small as f needs. On a
// connection made by Wrap f has run when it returns.
func (c *Conn) Continue(f func()) {
	if c.sock == nil {
		f()
		return
	}
	c.next = f
}

// Linger ends a connection whose client may still be sending: after the answer it says that no byte follows, takes what still comes
// until the client ends too, sends nothing for 5 s, or 30 s are over, and closes (RFC 9112 section 9.6). So the client sees the answer,
// which a reset would take away from it.
func (c *Conn) Linger() { c.linger(lingerTime, lingerIdle) }

func (c *Conn) linger(most, idle time.Duration) {
	defer func() { _ = c.Close() }()
	c.Hold(Lingering, 0)
	low := c.low()
	end := time.Now().Add(most)
	_ = low.SetDeadline(time.Now().Add(idle))
	if c.CloseWrite() != nil {
		return
	}
	var p [4096]byte
	for {
		if _, err := low.Read(p[:]); err != nil {
			return
		}
		now := time.Now()
		if !now.Before(end) {
			return
		}
		_ = low.SetReadDeadline(now.Add(min(idle, end.Sub(now)))) // fails only on a closed connection, which the read will tell
	}
}

// isEOF reports whether a peer said that it sends no more, and did so between two messages of its protocol.
func isEOF(err error) bool { return errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) }
