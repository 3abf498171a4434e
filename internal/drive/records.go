package drive

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// reading is how records reads.
type reading int

const (
	readWait    reading = iota // until something comes
	readNow                    // what is there
	readNothing                // nothing: only what crypto/tls has is looked at
)

// errNothing is temporary, so crypto/tls goes on after it.
var errNothing net.Error = nothing{}

type nothing struct{}

func (nothing) Error() string   { return "drive: nothing to read now" }
func (nothing) Timeout() bool   { return true }
func (nothing) Temporary() bool { return true }

// records carries TLS to a backend. It follows where records end, because crypto/tls does not tell whether it holds a part of one.
type records struct {
	*net.TCPConn
	raw  syscall.RawConn
	how  reading
	head int // bytes of a record's header that have come, 0 to 4
	high int // the first byte of a record's length, once it has come
	left int // bytes of a record's content that have not
	one  [1]byte
}

const recordHeader = 5 // type, version, length (RFC 8446 section 5.1)

// client begins TLS over the connection.
func (x *wire) client(tcp *net.TCPConn, c *tls.Config) *tls.Conn {
	x.records = &records{TCPConn: tcp, raw: x.raw}
	x.tls = tls.Client(x.records, c)
	return x.tls
}

// drained reads on over TLS without waiting, and reports whether no byte of a response and no part of a record was there.
func (x *wire) drained(how reading) bool {
	x.records.how = how
	n, err := x.tls.Read(x.records.one[:])
	x.records.how = readWait
	return n == 0 && errors.Is(err, errNothing) && x.records.head == 0 && x.records.left == 0
}

// Read is that of net.Conn.
func (r *records) Read(p []byte) (n int, err error) {
	switch r.how {
	case readNothing:
		return 0, errNothing
	case readNow:
		n, err = r.now(p)
	default:
		n, err = r.TCPConn.Read(p)
	}
	r.follow(p[:n])
	return n, err
}

// now reads what is there.
func (r *records) now(p []byte) (n int, err error) {
	if e := r.raw.Control(func(fd uintptr) {
		for {
			if n, err = syscall.Read(int(fd), p); err != syscall.EINTR {
				return
			}
		}
	}); e != nil {
		return 0, e
	}
	switch {
	case err == syscall.EAGAIN:
		return 0, errNothing
	case err != nil:
		return 0, os.NewSyscallError("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// follow moves on over what was read.
func (r *records) follow(p []byte) {
	for len(p) > 0 {
		n := 1
		switch {
		case r.left > 0:
			n = min(r.left, len(p))
			r.left -= n
		case r.head == recordHeader-2:
			r.high = int(p[0])
			r.head++
		case r.head == recordHeader-1:
			r.left = r.high<<8 | int(p[0])
			r.head = 0
		default:
			r.head++
		}
		p = p[n:]
	}
}
