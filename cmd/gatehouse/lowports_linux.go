package main

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// allowLowPorts puts the capability to bind ports below 1024 into effect, if the process has it. The program's file in the image
// carries it as permitted and not as effective: so the program starts in a container that does not have it too, and has to ask for what it
// may. An error says that the capability is there and stays without effect.
func allowLowPorts() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return fmt.Errorf("reading capabilities: %w", err)
	}
	const bind = 1 << unix.CAP_NET_BIND_SERVICE
	if sets[0].Permitted&bind == 0 || sets[0].Effective&bind != 0 {
		return nil
	}
	sets[0].Effective |= bind
	// Capabilities are those of a thread, and any thread may come to bind.
	_, _, e := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&sets[0])), 0)
	if e != 0 {
		return fmt.Errorf("raising NET_BIND_SERVICE: %w", e)
	}
	return nil
}
