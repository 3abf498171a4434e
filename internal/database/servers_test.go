package database_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/gatehouse-io/gatehouse/internal/database"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// asChild makes the test's binary behave as the child that TestKilled kills.
const asChild = "GATEHOUSE_TEST_WRITES_TO"

var shared = &postgres{}

func TestMain(m *testing.M) {
	if where := os.Getenv(asChild); where != "" {
		child(where)
	}
	code := m.Run()
	shared.stop(syscall.SIGQUIT)
	if shared.dir != "" {
		os.RemoveAll(shared.dir)
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// postgres is a server of our own on loopback. The zero value starts at its first use.
type postgres struct {
	bin, dir string
	port     int
	cred     *syscall.Credential
	cmd      *exec.Cmd
	ended    chan struct{}
	log      bytes.Buffer
	made     atomic.Int64 // databases
}

// required says whether GATEHOUSE_REQUIRE names a server: then a test may not be skipped for the want of it.
func required(name string) bool {
	for v := range strings.SplitSeq(os.Getenv("GATEHOUSE_REQUIRE"), ",") {
		if strings.TrimSpace(v) == name {
			return true
		}
	}
	return false
}

// need starts the server, or skips the test where there is none.
func (p *postgres) need(t testing.TB) {
	t.Helper()
	if p.cmd != nil {
		return
	}
	if p.dir == "" {
		initdb, err := exec.LookPath("initdb")
		if err == nil {
			initdb, err = filepath.EvalSymlinks(initdb)
		}
		if err != nil {
			if required("postgres") {
				t.Fatal("GATEHOUSE_REQUIRE names postgres and initdb is not in PATH: install PostgreSQL")
			}
			t.Skip("needs PostgreSQL: initdb is not in PATH")
		}
		p.bin = filepath.Dir(initdb)
		if err := p.init(); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.start(); err != nil {
		t.Fatal(err)
	}
}

func (p *postgres) init() error {
	dir, err := os.MkdirTemp("", "gatehouse-postgres-")
	if err != nil {
		return err
	}
	p.dir = dir
	if os.Getuid() == 0 {
		// PostgreSQL refuses to run as root.
		u, err := user.Lookup("postgres")
		if err != nil {
			if u, err = user.Lookup("nobody"); err != nil {
				return err
			}
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		p.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			return err
		}
	}
	out, err := p.command("initdb", "-D", filepath.Join(dir, "data"), "-U", "gatehouse", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync").CombinedOutput()
	if err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	p.port = l.Addr().(*net.TCPAddr).Port
	return l.Close()
}

func (p *postgres) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(p.bin, name), args...)
	c.Dir = p.dir
	c.SysProcAttr = &syscall.SysProcAttr{Credential: p.cred, Setpgid: true}
	return c
}

func (p *postgres) start() error {
	p.cmd = p.command("postgres", "-D", filepath.Join(p.dir, "data"), "-c", "listen_addresses=127.0.0.1", "-p", strconv.Itoa(p.port),
		"-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "max_connections=200")
	p.cmd.Stderr = &p.log
	p.ended = make(chan struct{})
	orphaned(p.cmd.SysProcAttr)
	// The kernel's "parent" is the thread that starts it, so one is kept for that.
	started := make(chan error)
	cmd, ended := p.cmd, p.ended
	go func() {
		runtime.LockOSThread()
		started <- cmd.Start()
		<-ended
		runtime.UnlockOSThread()
	}()
	if err := <-started; err != nil {
		close(p.ended)
		p.cmd = nil
		return err
	}
	var err error
	for until := time.Now().Add(30 * time.Second); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		if err = p.exec("SELECT 1"); err == nil {
			return nil
		}
	}
	p.stop(syscall.SIGQUIT)
	return fmt.Errorf("PostgreSQL does not start: %w\n%s", err, p.log.String())
}

// stop ends the server as a signal does: SIGINT as it should be, SIGQUIT at once.
func (p *postgres) stop(s syscall.Signal) {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(s)
	_ = p.cmd.Wait()
	close(p.ended)
	p.cmd = nil
}

func (p *postgres) url(name string) secret.Value {
	return secret.New([]byte(fmt.Sprintf("postgres://gatehouse@127.0.0.1:%d/%s?sslmode=disable", p.port, name)))
}

func (p *postgres) exec(text string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, string(p.url("postgres").Reveal()))
	if err != nil {
		return err
	}
	_, err = c.Exec(ctx, text)
	return errors.Join(err, c.Close(ctx))
}

// empty returns a new database.
func (p *postgres) empty(t testing.TB) database.Options {
	t.Helper()
	p.need(t)
	name := fmt.Sprintf("t%d", p.made.Add(1))
	if err := p.exec("CREATE DATABASE " + name); err != nil {
		t.Fatal(err)
	}
	return database.Options{URL: p.url(name)}
}

// everywhere runs a test against SQLite and PostgreSQL, each time with an empty database: one suite holds for both.
func everywhere(t *testing.T, run func(t *testing.T, o database.Options)) {
	t.Run("sqlite", func(t *testing.T) { run(t, database.Options{Data: t.TempDir()}) })
	t.Run("postgres", func(t *testing.T) { run(t, shared.empty(t)) })
}

func open(t testing.TB, o database.Options) *database.DB {
	t.Helper()
	d, err := database.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// eventually waits until something holds that other goroutines or processes bring about.
func eventually(t testing.TB, within time.Duration, what string, f func() bool) {
	t.Helper()
	for until := time.Now().Add(within); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}
