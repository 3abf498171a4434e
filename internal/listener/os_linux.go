package listener

import "golang.org/x/sys/unix"

// polling is the room for one poll(2), kept so that it need not be allocated.
type polling struct {
	fn  func(fd uintptr)
	fds [1]unix.PollFd
}

// inherit sets on a listening socket what accepted connections inherit. TCP's keep-alive finds peers that vanished while a
// stream without a deadline is open: after 60 s of silence, four probes 15 s apart. Failures change nothing that matters.
func inherit(fd int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
}

// Gone looks, without waiting and without reading, whether the client is still there: closed means that it can get no answer
// any more (reset, or both directions ended), halfClosed only that it will send nothing more, and may still read.
func (c *Conn) Gone() (closed, halfClosed bool) {
	if c.raw == nil {
		return false, false
	}
	if c.poll.fn == nil {
		c.poll.fn = c.look
	}
	c.poll.fds[0] = unix.PollFd{Events: unix.POLLRDHUP}
	if c.raw.Control(c.poll.fn) != nil { // closed on our side
		return true, true
	}
	r := c.poll.fds[0].Revents
	return r&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0, r&unix.POLLRDHUP != 0
}

func (c *Conn) look(fd uintptr) {
	c.poll.fds[0].Fd = int32(fd)
	_, _ = unix.Poll(c.poll.fds[:], 0)
}

// awaitEnd waits until the client has ended its side or all of the connection, until TLS has new bytes to look at, or until the
// read deadline.
func (c *Conn) awaitEnd(x *watcher) (closed, half bool, err error) {
	var fds [1]unix.PollFd
	c.wait = waiting{pool: x.pool}
	err = c.raw.Read(func(fd uintptr) bool {
		fds[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLRDHUP | unix.POLLIN}
		_, _ = unix.Poll(fds[:], 0)
		r := fds[0].Revents
		closed = r&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
		half = r&unix.POLLRDHUP != 0 && !x.half
		if closed || half {
			return true
		}
		return c.tls != nil && !x.half && !x.full && r&unix.POLLIN != 0 && c.receive(fd)
	})
	w := c.wait
	c.wait = waiting{}
	switch {
	case w.buf == nil:
	case w.n > 0:
		c.stage, c.stageBuf, c.stagePool = w.buf[:w.n], w.buf, x.pool
	default:
		x.pool.Give(w.buf)
	}
	if err == nil {
		err = w.err
	}
	return closed, half, err
}
