package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// newPostgres starts a PostgreSQL of our own on loopback, which ends with the test, and returns its URL. Where there is none the test is
// skipped, unless GATEHOUSE_REQUIRE names postgres.
func newPostgres(t *testing.T) string {
	t.Helper()
	ctl, err := exec.LookPath("pg_ctl")
	if err == nil {
		ctl, err = filepath.EvalSymlinks(ctl)
	}
	if err != nil {
		if slices.Contains(strings.Split(os.Getenv("GATEHOUSE_REQUIRE"), ","), "postgres") {
			t.Fatal("GATEHOUSE_REQUIRE names postgres and pg_ctl is not in PATH: install PostgreSQL")
		}
		t.Skip("needs PostgreSQL: pg_ctl is not in PATH")
	}
	dir, err := os.MkdirTemp("", "gatehouse-postgres-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	as := &syscall.SysProcAttr{}
	if os.Getuid() == 0 { // it refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			if u, err = user.Lookup("nobody"); err != nil {
				t.Fatal(err)
			}
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		as.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	run := func(name string, args ...string) {
		t.Helper()
		c := exec.Command(filepath.Join(filepath.Dir(ctl), name), args...)
		c.Dir, c.SysProcAttr = dir, as
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	port := freePorts(t, 1)[0]
	data := filepath.Join(dir, "data")
	run("initdb", "-D", data, "-U", "gatehouse", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
	t.Cleanup(func() { run("pg_ctl", "-D", data, "-m", "immediate", "stop") })
	run("pg_ctl", "-D", data, "-w", "-t", "30", "-l", filepath.Join(dir, "log"), "-o",
		"-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -p "+port, "start")
	if t.Failed() {
		t.FailNow()
	}
	return fmt.Sprintf("postgres://gatehouse@%s/postgres?sslmode=disable", net.JoinHostPort("127.0.0.1", port))
}
