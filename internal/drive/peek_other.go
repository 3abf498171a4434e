//go:build !linux

package drive

import "golang.org/x/sys/unix"

// silentNow reports whether a socket has nothing to read and has not ended.
func silentNow(fd uintptr) bool {
	var b [1]byte
	_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return err == unix.EAGAIN
}
