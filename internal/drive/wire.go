package drive

import (
	"io"
	"net"
	"os"
	"syscall"
)

// wire does the small things with a backend's socket that net.Conn cannot: to look whether an idle connection is still
// silent, and to send a request and wait for its response in one go. Its callback is made once per connection.
//
// A read of net.Conn asks the kernel first, in vain while the backend still works, and waits then. Here the poller is made ready to
// wait before the request is written, so no answer can be missed and the first read is the one that finds it: one system call
// less for each exchange.
type wire struct {
	raw  syscall.RawConn
	step func(fd uintptr) bool
	look func(fd uintptr) // whether it is silent
	peek func(fd uintptr) // what is there
	tls  bool             // what it carries is TLS

	check bool   // look for silence first
	out   []byte // what is still to be written
	in    []byte // room for what is read; nil: only look

	wrote, n int
	stale    bool // it was not silent
	full     bool // the socket takes no more now: what is left of out has to wait
	writeErr error
	readErr  error
	reading  bool
}

func newWire(tcp *net.TCPConn) *wire {
	x := &wire{}
	if raw, err := tcp.SyscallConn(); err == nil {
		x.raw = raw
	}
	x.step, x.look, x.peek = x.advance, x.silent, x.read
	return x
}

// usable reports whether nothing has come on the connection since its last response: a byte would be taken for the next
// response, an end means it is gone.
func (x *wire) usable() bool {
	x.stale = false
	return x.raw != nil && x.raw.Control(x.look) == nil && !x.stale
}

// silent is usable's look at the socket: whatever deadline an earlier exchange left there does not matter to it.
func (x *wire) silent(fd uintptr) { x.stale = !silentNow(fd) }

// poll reads what is there already, without waiting. Of a connection with TLS it knows nothing.
func (x *wire) poll(p []byte) (n int) {
	if x.raw == nil || x.tls {
		return 0
	}
	x.in, x.n = p, 0
	err := x.raw.Control(x.peek)
	if x.in = nil; err != nil {
		return 0
	}
	return x.n
}

// read is poll's look at the socket. What fails comes again with the next read.
func (x *wire) read(fd uintptr) {
	n, _ := syscall.Read(int(fd), x.in)
	x.n = max(n, 0)
}

// roundTrip writes out and waits for the first bytes of the answer, up to the connection's read deadline, whose error it
// returns. With check it does nothing but set stale if the connection is not silent.
func (x *wire) roundTrip(out, in []byte, check bool) error {
	x.check, x.out, x.in = check, out, in
	x.wrote, x.n, x.stale, x.full, x.reading = 0, 0, false, false, false
	x.writeErr, x.readErr = nil, nil
	err := x.raw.Read(x.step)
	x.out, x.in = nil, nil
	return err
}

// advance is called by the poller until it returns true; false means: wait until the socket is readable.
func (x *wire) advance(fd uintptr) bool {
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
