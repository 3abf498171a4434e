//go:build linux

// Command backend answers every request with the same bytes, as cheaply as one thread can: raw epoll, no parsing but the search for
// the end of a head. It is a load's other end, not a server: requests have no body, and an answer that the socket does not take
// at once closes the connection. "GET /-/count" answers how many requests it has answered, itself not counted.
//
//	backend -listen 127.0.0.1:9000 [-body 1024]
package main

import (
	"bytes"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:9000", "address, IPv4")
	body := flag.Int("body", 1024, "bytes of body in each answer")
	flag.Parse()
	runtime.LockOSThread()
	if err := run(*listen, *body); err != nil {
		fmt.Fprintln(os.Stderr, "backend:", err)
		os.Exit(1)
	}
}

// server is the loop's state. matched is, by descriptor, how many bytes of the blank line that ends a head have arrived.
type server struct {
	epoll, listener int
	answer          []byte // repeated: as many as a pipelined read can ask for
	one             int    // length of a single answer
	matched         []uint8
	count           uint64
	buf             [64 << 10]byte
}

const maxPipelined = 64

func run(listen string, body int) error {
	addr, err := netip.ParseAddrPort(listen)
	if err != nil || !addr.Addr().Is4() {
		return fmt.Errorf("%q is not an IPv4 address and port", listen)
	}
	answer := answerOf(time.Now(), "application/json", bytes.Repeat([]byte("x"), body))
	s := &server{answer: bytes.Repeat(answer, maxPipelined), one: len(answer), matched: make([]uint8, 1<<16)}
	if err := s.listen(addr); err != nil {
		return err
	}
	events := make([]unix.EpollEvent, 512)
	for {
		n, err := unix.EpollWait(s.epoll, events, -1)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("waiting: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			if int(e.Fd) == s.listener {
				s.accept()
			} else if !s.serve(int(e.Fd)) {
				unix.Close(int(e.Fd))
			}
		}
	}
}

func answerOf(now time.Time, kind string, body []byte) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nDate: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nCache-Control: no-store\r\n\r\n%s",
		now.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT"), kind, len(body), body)
}

func (s *server) listen(addr netip.AddrPort) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("making a socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return fmt.Errorf("setting SO_REUSEADDR: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}); err != nil {
		return fmt.Errorf("binding %s: %w", addr, err)
	}
	if err := unix.Listen(fd, 4096); err != nil {
		return fmt.Errorf("listening on %s: %w", addr, err)
	}
	if s.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("making an epoll: %w", err)
	}
	s.listener = fd
	return s.watch(fd)
}

func (s *server) watch(fd int) error {
	return unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

func (s *server) accept() {
	for {
		fd, _, err := unix.Accept4(s.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return // no more now
		}
		if fd >= len(s.matched) || s.watch(fd) != nil {
			unix.Close(fd)
			continue
		}
		s.matched[fd] = 0
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
}

// serve reads once and answers what is complete. It is false when the connection is done.
func (s *server) serve(fd int) bool {
	n, errno := raw(unix.SYS_READ, fd, s.buf[:])
	if errno == unix.EAGAIN || errno == unix.EINTR {
		return true
	}
	if errno != 0 || n == 0 {
		return false
	}
	p := s.buf[:n]
	fresh := s.matched[fd] == 0
	heads, state := ends(p, s.matched[fd])
	s.matched[fd] = state
	if heads == 0 {
		return true
	}
	out := s.answer[:min(heads, maxPipelined)*s.one]
	if fresh && heads == 1 && bytes.HasPrefix(p, []byte("GET /-/count ")) {
		out = answerOf(time.Now(), "text/plain", fmt.Append(nil, s.count))
	} else {
		s.count += uint64(heads)
	}
	w, errno := raw(unix.SYS_WRITE, fd, out)
	return errno == 0 && w == len(out) && heads <= maxPipelined
}

// raw reads or writes without telling Go's scheduler, which is right only because the descriptor does not block.
func raw(call uintptr, fd int, p []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	return int(n), errno
}

const blank = "\r\n\r\n"

// ends counts the heads that end in p, when matched bytes of the blank line came before it, and says how many have come after it.
func ends(p []byte, matched uint8) (heads int, state uint8) {
	// The common case, one whole request, is two comparisons and one search.
	if matched == 0 && len(p) >= len(blank) && string(p[len(p)-len(blank):]) == blank {
		return bytes.Count(p, []byte(blank)), 0
	}
	for _, c := range p {
		switch {
		case c == blank[matched]:
			matched++
		case c == '\r':
			matched = 1
		default:
			matched = 0
		}
		if int(matched) == len(blank) {
			heads++
			matched = 0
		}
	}
	return heads, matched
}
