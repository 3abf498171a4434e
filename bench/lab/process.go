//go:build linux

// Package lab holds what all measurements share: programs under observation, free ports, certificates. It ends only what it started.
package lab

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is a program that the harness started, with what it printed.
type Process struct {
	cmd     *exec.Cmd
	name    string
	Started time.Time
	Done    chan struct{} // closed when it has ended
	err     error         // why, once Done is closed
	mu      sync.Mutex
	print   bytes.Buffer
}

// Write keeps what the program prints, up to a limit.
func (p *Process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.print.Len() < 64<<10 {
		p.print.Write(b)
	}
	return len(b), nil
}

// Output is what it has printed so far, to standard output and standard error.
func (p *Process) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.print.String()
}

// Start runs args on one core, or on any if core is empty, in a process group of its own.
func Start(core string, args ...string) (*Process, error) {
	p := &Process{Done: make(chan struct{})}
	p.name = filepath.Base(args[0])
	if core != "" {
		args = append([]string{"taskset", "-c", core}, args...)
	}
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p.Started = time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", args[0], err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.Done)
	}()
	return p, nil
}

// PID is the program's process id; taskset has become the program.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Stop asks the program to end and makes it after 3 s: at the end of a measurement there is nothing to drain.
func (p *Process) Stop() {
	_ = p.cmd.Process.Signal(os.Interrupt) // on SIGTERM a proxy may go on accepting for a while
	select {
	case <-p.Done:
	case <-time.After(3 * time.Second):
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // its own group: what it started, too
		<-p.Done
	}
}

// Wait tries ready until it succeeds, for at most two minutes and while the program runs.
func (p *Process) Wait(ctx context.Context, ready func(context.Context) error) error {
	deadline := time.Now().Add(2 * time.Minute)
	for {
		try, cancel := context.WithTimeout(ctx, time.Second)
		err := ready(try)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-p.Done:
			return fmt.Errorf("%s ended (%w):\n%s", p.name, cmp.Or(p.err, errors.New("exit status 0")), p.Output())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not ready after two minutes: %w\n%s", p.name, err, p.Output())
		}
	}
}

// Usage is what a program and its children have used so far.
type Usage struct {
	CPU time.Duration // of all threads, those that have ended too
	RSS int64         // bytes now
}

// Peak is the most that has been resident since ResetPeak, in bytes: of the program and its direct children, each at its own time.
func (p *Process) Peak() (int64, error) {
	pids, err := p.pids()
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0, err
		}
		kib, err := peakOf(string(b))
		if err != nil {
			return 0, err
		}
		sum += kib << 10
	}
	return sum, nil
}

// ResetPeak makes what is resident now the most that has been (proc(5), clear_refs).
func (p *Process) ResetPeak() error {
	pids, err := p.pids()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
			return err
		}
	}
	return nil
}

// peakOf reads VmHWM from /proc/PID/status, in KiB.
func peakOf(status string) (int64, error) {
	for line := range strings.Lines(status) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			return strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(v), "kB")), 10, 64)
		}
	}
	return 0, errors.New("no VmHWM in /proc/PID/status")
}

// pids are the program's and those of its direct children.
func (p *Process) pids() ([]int, error) {
	stats, err := p.stats()
	var pids []int
	for _, st := range stats {
		pids = append(pids, st.pid)
	}
	return pids, err
}

// Measure sums the program and its direct children (nginx's workers).
func (p *Process) Measure() (Usage, error) {
	var u Usage
	stats, err := p.stats()
	for _, st := range stats {
		u.CPU += st.cpu
		u.RSS += st.rss
	}
	return u, err
}

func (p *Process) stats() ([]stat, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var stats []stat
	found := false
	for _, d := range dirs {
		b, err := os.ReadFile(d)
		if err != nil {
			continue // it ended meanwhile
		}
		st, err := parseStat(string(b))
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", d, err)
		}
		if st.pid == p.PID() || st.parent == p.PID() {
			found = found || st.pid == p.PID()
			stats = append(stats, st)
		}
	}
	if !found {
		return nil, errors.New("the process is gone")
	}
	return stats, nil
}

type stat struct {
	pid, parent int
	cpu         time.Duration
	rss         int64
}

// parseStat reads /proc/PID/stat (proc(5)): utime and stime are in ticks of 10 ms, rss in pages.
func parseStat(s string) (stat, error) {
	open, end := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
	if open < 0 || end < open {
		return stat{}, errors.New("no program name")
	}
	f := strings.Fields(s[end+1:])
	if len(f) < 22 {
		return stat{}, fmt.Errorf("%d fields", len(f))
	}
	var st stat
	var utime, stime int64
	for _, v := range []struct {
		to   *int64
		text string
	}{{&utime, f[11]}, {&stime, f[12]}, {&st.rss, f[21]}} {
		n, err := strconv.ParseInt(v.text, 10, 64)
		if err != nil {
			return stat{}, err
		}
		*v.to = n
	}
	var err1, err2 error
	st.pid, err1 = strconv.Atoi(strings.TrimSpace(s[:open]))
	st.parent, err2 = strconv.Atoi(f[1])
	st.cpu = time.Duration(utime+stime) * 10 * time.Millisecond
	st.rss *= int64(os.Getpagesize())
	return st, errors.Join(err1, err2)
}

// CoreBusy reads from /proc/stat how long a core has not been idle: all its times but idle and iowait, guests counted once.
func CoreBusy(s, core string) (time.Duration, error) {
	for line := range strings.Lines(s) {
		f := strings.Fields(line)
		if len(f) < 9 || f[0] != "cpu"+core {
			continue
		}
		var ticks int64
		for i, v := range f[1:9] {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				return 0, err
			}
			if i != 3 && i != 4 {
				ticks += n
			}
		}
		return time.Duration(ticks) * 10 * time.Millisecond, nil
	}
	return 0, fmt.Errorf("no core %s in /proc/stat", core)
}

// FreePorts finds n ports that nobody listens on.
func FreePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("finding a free port: %w", err)
		}
		defer l.Close() // all at the end, so that each is another one
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
