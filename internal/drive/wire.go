package drive

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"syscall"
)

// wire does the small things with a backend's socket that net.Conn cannot: to look whether an idle connection is still
// silent, and to send a request and wait for its response in one go. Its callbacks are made once per connection.
//
// A read of net.Conn asks the kernel first, in vain while the backend still works, and waits then. Here the poller is made ready to
// wait before the request is written, so no answer can be missed and the first read is the one that finds it: one system call
// less for each exchange.
type wire struct {
	raw  syscall.RawConn
	step func(fd uintptr) bool
	look func(fd uintptr) // sets stale
	peek func(fd uintptr) // reads what is there

	tls     *tls.Conn // nil: cleartext
	records *records  // what lies below it

	check bool   // look for silence first
	out   []byte // what is still to be written
	in    []byte // room for what is read; nil: only look

	wrote, n int
	stale    bool // it was not silent
	full     bool // the socket takes no more now: what is left of out has to wait
	writeErr error
	readErr  error
	began    bool // the poller has let the round trip begin
	reading  bool
}

func newWire(tcp *net.TCPConn) *wire {
	x := &wire{}
	if raw, err := tcp.SyscallConn(); err == nil {
		x.raw = raw
	}
	x.step, x.peek = x.advance, x.read
	x.look = func(fd uintptr) { x.stale = !silentNow(fd) }
	return x
}

// usable reports whether nothing has come on the connection since its last response: a byte would be taken for the next
// response, an end means it is gone. Over TLS what has come may be about TLS alone, such as a ticket for the next session.
func (x *wire) usable() bool {
	if x.raw == nil {
		return false
	}
	// Not by Read: that would fail where the deadline of the exchange before has passed.
	if err := x.raw.Control(x.look); err != nil {
		return false
	}
	return !x.stale || x.tls != nil && x.drained(readNow)
}

// poll reads what is there already, without waiting. What fails comes again with the next read.
func (x *wire) poll(p []byte) (n int) {
	switch {
	case x.raw == nil:
		return 0
	case x.tls != nil:
		x.records.how = readNow
		n, _ = x.tls.Read(p)
		x.records.how = readWait
		return n
	}
	x.in, x.n = p, 0
	if err := x.raw.Control(x.peek); err != nil {
		x.n = 0
	}
	x.in = nil
	return x.n
}

// read is poll's look at the socket.
func (x *wire) read(fd uintptr) {
	n, _ := syscall.Read(int(fd), x.in)
	x.n = max(n, 0)
}

// quiet reports whether all that was read of the backend has been handed out: over TLS neither decrypted bytes nor a record, whole or
// not, may be left. It asks no kernel: what still lies in the socket is for usable to find, before the next request goes.
func (x *wire) quiet() bool { return x.tls == nil || x.drained(readNothing) }

// roundTrip writes out and waits for the first bytes of the answer, up to the connection's read deadline, whose error it
// returns. With check it does nothing but set stale if the connection is not silent.
func (x *wire) roundTrip(out, in []byte, check bool) error {
	x.check, x.out, x.in = check, out, in
	x.wrote, x.n, x.stale, x.full, x.began, x.reading = 0, 0, false, false, false, false
	x.writeErr, x.readErr = nil, nil
	err := x.raw.Read(x.step)
	x.out, x.in = nil, nil
	return err
}

// advance is called by the poller until it returns true; false means: wait until the socket is readable.
func (x *wire) advance(fd uintptr) bool {
	x.began = true
	if x.check {
		x.check = false
		if x.stale = !silentNow(fd); x.stale {
			return true
		}
	}
	if x.in == nil {
		return true
	}
	if !x.reading {
		if !x.write(int(fd)) {
			return true
		}
		x.reading = true
		return false
	}
	for {
		n, err := syscall.Read(int(fd), x.in)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return false
		case err != nil:
			x.readErr = os.NewSyscallError("read", err)
		case n == 0:
			x.readErr = io.EOF
		default:
			x.n = n
		}
		return true
	}
}

// write writes out and reports whether all of it went.
func (x *wire) write(fd int) bool {
	for len(x.out) > 0 {
		n, err := syscall.Write(fd, x.out)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			x.full = true
			return false
		case err != nil:
			x.writeErr = os.NewSyscallError("write", err)
			return false
		}
		x.out = x.out[n:]
		x.wrote += n
	}
	return true
}

// smallRead is what a relay's read from a backend with TLS begins with: crypto/tls cannot say when bytes are there.
const smallRead = 1 << 10

// pooled returns a function that waits until something can be read, without a buffer while it waits, and reads it into one of the pool.
func (x *wire) pooled(carrier net.Conn, pool *Driver) func() ([]byte, int, error) {
	if x.tls != nil || x.raw == nil {
		return secret(carrier, pool)
	}
	var buf []byte
	var n int
	var failed error
	look := func(fd uintptr) bool {
		buf = pool.Take()
		for {
			n, failed = syscall.Read(int(fd), buf)
			switch failed {
			case syscall.EINTR:
				continue
			case syscall.EAGAIN:
				pool.Give(buf)
				buf = nil
				return false
			}
			return true
		}
	}
	return func() ([]byte, int, error) {
		buf, n, failed = nil, 0, nil
		err := x.raw.Read(look)
		b := buf
		buf = nil
		switch {
		case err != nil:
		case failed != nil:
			err = os.NewSyscallError("read", failed)
		case n == 0:
			err = io.EOF
		default:
			return b, n, nil
		}
		if b != nil {
			pool.Give(b)
		}
		return nil, 0, err
	}
}

// secret is pooled for TLS: it waits with a small buffer, and takes a whole one as long as that was too small.
func secret(carrier net.Conn, pool *Driver) func() ([]byte, int, error) {
	small := make([]byte, smallRead)
	more := false
	return func() ([]byte, int, error) {
		buf := small
		if more {
			buf = pool.Take()
		}
		n, err := carrier.Read(buf)
		more = n >= smallRead
		if n <= 0 {
			pool.Give(buf)
		}
		return buf, n, err
	}
}
