//go:build !linux

package listener

import (
	"os"

	"golang.org/x/sys/unix"
)

type polling struct{}

func inherit(fd int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
}

// Gone cannot tell without reading on this system.
func (c *Conn) Gone() (closed, halfClosed bool) { return false, false }

// awaitEnd cannot tell without reading on this system: it waits for the end of the watch.
func (c *Conn) awaitEnd(*watcher) (closed, half bool, err error) {
	err = c.raw.Read(func(uintptr) bool { return false })
	if err == nil {
		err = os.ErrClosed
	}
	return false, false, err
}
