package main

import (
	"math"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
)

func files(pairs ...string) fstest.MapFS {
	fs := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		fs[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1] + "\n")}
	}
	return fs
}

func TestCgroupMemory(t *testing.T) {
	for _, x := range []struct {
		name  string
		files fstest.MapFS
		want  int64
	}{
		{"no cgroups", files(), 0},
		{"a container", files("proc/self/cgroup", "0::/", "sys/fs/cgroup/memory.max", "536870912"), 536870912},
		{"no limit", files("proc/self/cgroup", "0::/", "sys/fs/cgroup/memory.max", "max"), 0},
		{"a service", files("proc/self/cgroup", "0::/system.slice/g.service", "sys/fs/cgroup/system.slice/g.service/memory.max", "1000",
			"sys/fs/cgroup/system.slice/memory.max", "max"), 1000},
		{"a tighter one around it", files("proc/self/cgroup", "0::/a/b", "sys/fs/cgroup/a/b/memory.max", "1000", "sys/fs/cgroup/a/memory.max", "500"), 500},
		{"version 1", files("proc/self/cgroup", "5:cpu:/a\n4:memory:/a\n0::/", "sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1000",
			"sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"), 1000},
		{"version 1 in a container", files("proc/self/cgroup", "4:memory:/kubepods/pod1/c1", "sys/fs/cgroup/memory/memory.limit_in_bytes", "2000"), 2000},
		{"version 1 without a limit", files("proc/self/cgroup", "4:memory:/", "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"), 0},
	} {
		if got := cgroupMemory(x.files); got != x.want {
			t.Errorf("%s: cgroupMemory = %d, want %d", x.name, got, x.want)
		}
	}
}

func TestLimitMemory(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	cgroup := files("proc/self/cgroup", "0::/", "sys/fs/cgroup/memory.max", "10000000000")
	for _, x := range []struct {
		name, env    string
		set          int64 // by the runtime, from the environment
		files        fstest.MapFS
		want, leaves int64
	}{
		{"GOMEMLIMIT", "1GiB", 1 << 30, cgroup, 1 << 30, 1 << 30},
		{"the cgroup's", "", math.MaxInt64, cgroup, 9_000_000_000, 9_000_000_000},
		{"off", "off", math.MaxInt64, cgroup, 10_000_000_000, math.MaxInt64},
		{"neither", "", math.MaxInt64, files(), 0, math.MaxInt64},
	} {
		debug.SetMemoryLimit(x.set)
		if got := limitMemory(x.env, x.files); got != x.want || debug.SetMemoryLimit(-1) != x.leaves {
			t.Errorf("%s: limitMemory = %d and the runtime has %d, want %d and %d", x.name, got, debug.SetMemoryLimit(-1), x.want, x.leaves)
		}
	}
}

// TestOverloadedProcess: a process that has far less memory than it needs refuses requests, says so, and can still be looked at and ended.
func TestOverloadedProcess(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "1MiB")
	t.Setenv("GOGC", "400") // the limit alone would make it collect garbage all the time
	s := serve(t)
	s.eventually("requests are refused", func() bool {
		a, err := s.ask(request{port: s.httpPort, path: "/"})
		return err == nil && a.status == 503 && strings.Contains(a.body, `"reason":"overloaded"`)
	})
	for address, path := range map[string]string{s.health: "/readyz", s.admin: "/debug/routes"} {
		if code := s.status(address, path); code != 200 {
			t.Errorf("%s: %d, want 200", path, code)
		}
	}
	if v := s.metric("gatehouse_overload_level"); v != "2" {
		t.Errorf("gatehouse_overload_level is %s, want 2", v)
	}
	if log := s.stderr.String(); !strings.Contains(log, "memory is short") {
		t.Errorf("the log does not say that memory is short:\n%s", log)
	}
	s.signal(syscall.SIGINT)
	if code := s.exit(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}
