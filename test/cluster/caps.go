package cluster

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// capabilities are those that pods name; the numbers are the kernel's.
var capabilities = map[string]int{
	"CHOWN": unix.CAP_CHOWN, "DAC_OVERRIDE": unix.CAP_DAC_OVERRIDE, "FSETID": unix.CAP_FSETID, "FOWNER": unix.CAP_FOWNER,
	"MKNOD": unix.CAP_MKNOD, "NET_RAW": unix.CAP_NET_RAW, "SETGID": unix.CAP_SETGID, "SETUID": unix.CAP_SETUID,
	"SETFCAP": unix.CAP_SETFCAP, "SETPCAP": unix.CAP_SETPCAP, "NET_BIND_SERVICE": unix.CAP_NET_BIND_SERVICE,
	"SYS_CHROOT": unix.CAP_SYS_CHROOT, "KILL": unix.CAP_KILL, "AUDIT_WRITE": unix.CAP_AUDIT_WRITE,
	"NET_ADMIN": unix.CAP_NET_ADMIN, "SYS_PTRACE": unix.CAP_SYS_PTRACE, "SYS_NICE": unix.CAP_SYS_NICE, "IPC_LOCK": unix.CAP_IPC_LOCK,
	"BPF": unix.CAP_BPF, "PERFMON": unix.CAP_PERFMON, "SYS_RESOURCE": unix.CAP_SYS_RESOURCE, "SYS_ADMIN": unix.CAP_SYS_ADMIN,
}

// defaultCaps is what container runtimes give to a container that says nothing.
var defaultCaps = []string{
	"CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP", "NET_BIND_SERVICE",
	"SYS_CHROOT", "KILL", "AUDIT_WRITE",
}

// containerCaps is what a container's processes may ever hold.
func containerCaps(add, drop []string) ([]int, error) {
	set := map[string]bool{}
	for _, c := range defaultCaps {
		set[c] = true
	}
	for _, c := range drop {
		if strings.EqualFold(c, "ALL") {
			clear(set)
		}
		delete(set, strings.TrimPrefix(strings.ToUpper(c), "CAP_"))
	}
	for _, c := range add {
		set[strings.TrimPrefix(strings.ToUpper(c), "CAP_")] = true
	}
	var out []int
	for c := range set {
		n, ok := capabilities[c]
		if !ok {
			return nil, fmt.Errorf("capability %q: not known to the test cluster", c)
		}
		out = append(out, n)
	}
	return out, nil
}

// lastCap is the highest capability of this kernel.
func lastCap() int {
	raw, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return unix.CAP_LAST_CAP
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return unix.CAP_LAST_CAP
	}
	return n
}

func rawSetgroups(list []uint32) error {
	var p unsafe.Pointer
	if len(list) > 0 {
		p = unsafe.Pointer(&list[0])
	}
	if _, _, e := syscall.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(list)), uintptr(p), 0); e != 0 {
		return e
	}
	return nil
}
