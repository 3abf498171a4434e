package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// cpuOf is the processor time that all processes whose name begins so have taken so far. Linux counts it in hundredths of a second (proc(5)).
func cpuOf(name string) time.Duration {
	var sum time.Duration
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(b), "(")
		comm, rest, ok := strings.Cut(rest, ") ")
		fields := strings.Fields(rest)
		if !ok || !strings.HasPrefix(comm, name) || len(fields) < 13 {
			continue
		}
		for _, ticks := range fields[11:13] {
			n, _ := strconv.ParseInt(ticks, 10, 64)
			sum += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return sum
}
