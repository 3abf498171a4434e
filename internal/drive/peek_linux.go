package drive

import (
	"syscall"
	"unsafe"
)

// silentNow reports whether a socket has nothing to read and has not ended. It asks the kernel directly: the call never
// waits, so the scheduler need not know of it, and unix.Recvfrom would allocate an address.
func silentNow(fd uintptr) bool {
	var b byte
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b)), 1,
		syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
	return errno == syscall.EAGAIN
}
