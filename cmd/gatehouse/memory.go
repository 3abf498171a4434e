package main

import (
	"context"
	"io/fs"
	"math"
	"path"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"
)

// memoryPercent is the part of a cgroup's memory that Go's memory limit is set to: the rest is the kernel's, for sockets above all.
const memoryPercent = 90

// limitMemory returns how many bytes the process may use, 0: no limit is known. It is GOMEMLIMIT where that is set; else the runtime is
// given a limit by what the cgroup allows; with GOMEMLIMIT=off it is told none, and the cgroup's holds. root is the file system.
func limitMemory(gomemlimit string, root fs.FS) int64 {
	if n := debug.SetMemoryLimit(-1); n != math.MaxInt64 {
		return n
	}
	n := cgroupMemory(root)
	if n > 0 && gomemlimit == "" {
		n = n / 100 * memoryPercent
		debug.SetMemoryLimit(n)
	}
	return n
}

// cgroupMemory is the least of the memory limits of the process's cgroup and those around it, version 2 or 1; 0: there is none.
func cgroupMemory(root fs.FS) (limit int64) {
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil { // not Linux, or no /proc: then nothing is known of a limit
		return 0
	}
	for line := range strings.Lines(string(groups)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3) // number, controllers, path
		if len(f) != 3 {
			continue
		}
		mount, file := "", ""
		switch {
		case f[0] == "0" && f[1] == "":
			mount, file = "sys/fs/cgroup", "memory.max"
		case f[1] == "memory":
			mount, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		// In a container the path may be that of the host, of which only the last part is mounted: what is not there is passed over.
		for dir := path.Clean("/" + f[2]); ; dir = path.Dir(dir) {
			if n := readLimit(root, path.Join(mount, dir, file)); n > 0 && (limit == 0 || n < limit) {
				limit = n
			}
			if dir == "/" {
				break
			}
		}
	}
	return limit
}

// readLimit reads a number of bytes; 0: there is none, or one that stands for no limit ("max", or in version 1 about 2^63).
func readLimit(root fs.FS, name string) int64 {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || n <= 0 || n >= 1<<60 {
		return 0
	}
	return n
}

const (
	garbageRoom = 64 << 20 // that a small heap may let gather between two collections, within garbageMost percent of what lives
	garbageMost = 400
	paceEvery   = time.Second
)

// pace keeps the collector from running several times a second while the heap is small, as under many TLS handshakes: it sets the percentage
// of garbage by the live heap until ctx ends. The memory limit holds all the same. With GOGC set, that is used.
func pace(ctx context.Context, gogc string) {
	if gogc != "" {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	set := 100
	tick := time.NewTicker(paceEvery)
	defer tick.Stop()
	for {
		metrics.Read(live)
		if p := garbagePercent(live[0].Value.Uint64()); p < set || p >= set+set/4 { // setting it stops the world for a moment
			debug.SetGCPercent(p)
			set = p
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// garbagePercent is 400 while at most 16 MiB live, and falls to Go's 100 at 64 MiB: a larger heap takes no more than it did.
func garbagePercent(live uint64) int {
	return int(min(max(garbageRoom*100/max(live, 1), 100), garbageMost))
}
