package listener

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/gatehouse-io/gatehouse/internal/cert"
	"github.com/gatehouse-io/gatehouse/internal/ir"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// heap is a pool that counts what is out.
type heap struct {
	mu    sync.Mutex
	out   int
	taken int
}

func (h *heap) Take() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.out++
	h.taken++
	return make([]byte, 4096)
}

func (h *heap) Give([]byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.out--
}

func (h *heap) held() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.out
}

// echo answers each read with the group of its connection and what was read, and ends like a driver would.
func echo(pool *heap) func(*Conn) {
	return func(c *Conn) {
		if c.Handshake() != nil {
			return
		}
		for {
			c.Idle(time.Now(), time.Minute)
			b, n, err := c.ReadPooled(pool)
			if err != nil {
				return
			}
			c.Busy()
			out := append([]byte(c.Group+":"), b[:n]...)
			pool.Give(b)
			if c.Closing() {
				out = append(out, " last"...)
			}
			if _, err := c.Write(out); err != nil || c.Closing() {
				return
			}
		}
	}
}

func newSet(t *testing.T, o Options) *Set {
	t.Helper()
	s := New(o)
	t.Cleanup(func() {
		s.Close()
		goleak.VerifyNone(t)
	})
	return s
}

func on(addr netip.Addr, port uint16, group string) Socket {
	return Socket{Bind: ir.Bind{Address: addr, Port: port}, Group: group, Port: 80, Listeners: []string{group + "/http"}}
}

// apply applies one socket and returns the address it got.
func apply(t *testing.T, s *Set, w Socket) string {
	t.Helper()
	st := s.Apply([]Socket{w})[w.Listeners[0]]
	if st.Problem != "" {
		t.Fatalf("bind: %s", st.Problem)
	}
	return st.Bound
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

func say(t *testing.T, c net.Conn, text, want string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	expect(t, c, want)
}

func expect(t *testing.T, c net.Conn, want string) {
	t.Helper()
	p := make([]byte, len(want))
	if _, err := io.ReadFull(c, p); err != nil || string(p) != want {
		t.Fatalf("read %q, %v, want %q", p, err, want)
	}
}

// freePort finds a port that was free a moment ago.
func freePort(t *testing.T) uint16 {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return uint16(ln.Addr().(*net.TCPAddr).Port)
}

func TestAcceptsOnlyAfterStart(t *testing.T) {
	s := newSet(t, Options{Serve: echo(&heap{})})
	addr := apply(t, s, on(loopback, 0, "g"))
	c := dial(t, addr)
	if _, err := io.WriteString(c, "hi"); err != nil {
		t.Fatal(err)
	}
	if n := s.Stats().Accepted; n != 0 {
		t.Errorf("accepted %d before Start", n)
	}
	s.Start()
	expect(t, c, "g:hi")
}

func TestReloadDropsNoConnection(t *testing.T) {
	pool := &heap{}
	s := newSet(t, Options{Serve: echo(pool)})
	s.Start()
	w := on(loopback, 0, "g")
	addr := apply(t, s, w)
	c := dial(t, addr)
	say(t, c, "one", "g:one")
	for range 3 { // same bind, more listeners on it, other sockets beside it
		w.Listeners = append(w.Listeners, "g/more")
		s.Apply([]Socket{w, on(loopback, freePort(t), "h")})
	}
	say(t, c, "two", "g:two")
	if got := apply(t, s, w); got != addr {
		t.Errorf("after a reload the socket is at %s, was at %s", got, addr)
	}
	say(t, dial(t, addr), "three", "g:three")
}

func TestSocketThatLeftEndsItsIdleConnections(t *testing.T) {
	s := newSet(t, Options{Serve: echo(&heap{})})
	s.Start()
	addr := apply(t, s, on(loopback, 0, "g"))
	c := dial(t, addr)
	say(t, c, "one", "g:one")
	s.Apply(nil)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read after the socket left: %v, want EOF", err)
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Error("the socket still accepts")
	}
}

// A bind that changes hands must not serve one Gateway's connections by another's routes.
func TestBindThatChangesGroupRetiresConnections(t *testing.T) {
	s := newSet(t, Options{Serve: echo(&heap{})})
	s.Start()
	port := freePort(t)
	addr := apply(t, s, on(loopback, port, "g"))
	c := dial(t, addr)
	say(t, c, "one", "g:one")
	apply(t, s, on(loopback, port, "h"))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read on the old group's connection: %v, want EOF", err)
	}
	say(t, dial(t, addr), "two", "h:two")
}

func TestAddressInUseIsToldAndTriedAgain(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(other.Addr().(*net.TCPAddr).Port)
	changed := make(chan struct{}, 1)
	s := newSet(t, Options{Serve: echo(&heap{}), Changed: func() { changed <- struct{}{} }})
	s.Start()
	st := s.Apply([]Socket{on(loopback, port, "g"), on(loopback, 0, "h")})
	if st["g/http"].Bound != "" || !strings.Contains(st["g/http"].Problem, "in use") {
		t.Errorf("state of the taken bind = %+v, want a problem", st["g/http"])
	}
	if st["h/http"].Bound == "" || st["h/http"].Problem != "" {
		t.Errorf("state of the other bind = %+v, want it bound", st["h/http"])
	}
	other.Close()
	<-changed
	if st := s.States()["g/http"]; st.Bound == "" || st.Problem != "" {
		t.Errorf("state after the retry = %+v, want it bound", st)
	}
	say(t, dial(t, s.States()["g/http"].Bound), "x", "g:x")
}

// TestOverlapIsNamed: a port at every address leaves none for the same port at one; who has it is told.
func TestOverlapIsNamed(t *testing.T) {
	s := newSet(t, Options{Serve: echo(&heap{})})
	_, text, _ := net.SplitHostPort(apply(t, s, on(netip.Addr{}, 0, "probe")))
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	s.Apply(nil)
	port := uint16(n)
	st := s.Apply([]Socket{on(netip.Addr{}, port, "all"), on(loopback, port, "one")})
	if want := fmt.Sprintf("127.0.0.1:%d overlaps with :%[1]d, which listener all/http has", port); !strings.HasPrefix(st["one/http"].Problem, want) {
		t.Errorf("problem = %q, want %q", st["one/http"].Problem, want)
	}
	if st["all/http"].Problem != "" {
		t.Errorf("the one that has it: %+v", st["all/http"])
	}
}

func TestPortBelow1024WithoutPermission(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may bind every port")
	}
	s := newSet(t, Options{Serve: echo(&heap{})})
	st := s.Apply([]Socket{on(loopback, 80, "g")})["g/http"]
	if !strings.HasSuffix(st.Bound, ":10080") || !strings.Contains(st.Note, "bound 10080") {
		t.Skipf("this system lets everybody bind port 80, or 10080 is taken: %+v", st)
	}
}

func TestEveryAddressIsBothFamilies(t *testing.T) {
	s := newSet(t, Options{Serve: echo(&heap{})})
	s.Start()
	_, port, _ := net.SplitHostPort(apply(t, s, on(netip.Addr{}, 0, "g")))
	say(t, dial(t, "127.0.0.1:"+port), "x", "g:x")
	c, err := net.Dial("tcp", "[::1]:"+port)
	if err != nil {
		t.Skipf("no IPv6 here: %v", err)
	}
	defer c.Close()
	say(t, c, "x", "g:x")
}

func TestConnectionLimit(t *testing.T) {
	s := newSet(t, Options{Serve: echo(&heap{}), MaxConns: 2})
	s.Start()
	addr := apply(t, s, on(loopback, 0, "g"))
	a, b := dial(t, addr), dial(t, addr)
	say(t, a, "x", "g:x")
	say(t, b, "x", "g:x")
	if c, err := net.Dial("tcp", addr); err == nil { // the reset may come before Dial returns
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a third connection: read error %v, want a reset", err)
		}
	}
	say(t, a, "y", "g:y")
	if got := s.Stats(); got.Limited != 1 || got.Open != 2 || got.Accepted != 3 {
		t.Errorf("Stats() = %+v, want 3 accepted, 1 limited, 2 open", got)
	}
}

// TestConnectionLimitByDefault: half of what the process may have open, because a connection to a backend may go with each.
func TestConnectionLimitByDefault(t *testing.T) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	if got, want := New(Options{}).opt.MaxConns, int(min(l.Cur, math.MaxInt32))/2; got != want || want == 0 {
		t.Errorf("MaxConns = %d of %d descriptors, want %d", got, l.Cur, want)
	}
}

func TestDrainLosesNothingInFlight(t *testing.T) {
	pool := &heap{}
	begun, finish := make(chan struct{}), make(chan struct{})
	s := newSet(t, Options{Serve: func(c *Conn) {
		c.Idle(time.Now(), time.Minute)
		b, n, err := c.ReadPooled(pool)
		if err != nil {
			return
		}
		defer pool.Give(b)
		c.Busy()
		if string(b[:n]) == "slow" {
			begun <- struct{}{}
			<-finish
		}
		if c.Closing() {
			_, _ = c.Write([]byte("last "))
		}
		_, _ = c.Write(b[:n])
	}})
	s.Start()
	addr := apply(t, s, on(loopback, 0, "g"))
	idle, slow := dial(t, addr), dial(t, addr)
	if _, err := io.WriteString(slow, "slow"); err != nil {
		t.Fatal(err)
	}
	<-begun
	aborted := make(chan int)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	go func() { aborted <- s.Drain(ctx, 200*time.Millisecond) }()
	for !s.Draining() {
		runtime.Gosched()
	}
	say(t, dial(t, addr), "new", "last new") // still accepted in the time of grace, and told to close
	if _, err := idle.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("idle connection after the grace: %v, want EOF", err)
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Error("accepts after the time of grace")
	}
	close(finish)
	expect(t, slow, "last slow")
	if n := <-aborted; n != 0 {
		t.Errorf("Drain = %d, want 0 connections cut", n)
	}
	if pool.held() != 0 {
		t.Errorf("%d buffers never came back", pool.held())
	}
}

func TestDrainCutsWhatDoesNotEnd(t *testing.T) {
	stuck, backend := make(chan struct{}), make(chan struct{})
	s := newSet(t, Options{Serve: func(c *Conn) {
		c.Busy()
		close(stuck)
		_, _ = c.Read(make([]byte, 1)) // until it is closed
		<-backend                      // which nobody waits for
	}})
	s.Start()
	dial(t, apply(t, s, on(loopback, 0, "g")))
	<-stuck
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if n := s.Drain(ctx, time.Hour); n != 1 {
		t.Errorf("Drain = %d, want 1 connection cut", n)
	}
	close(backend)
}

// A request that arrived in the moment its connection was told to stop is still read.
func TestStoppedWhileARequestArrives(t *testing.T) {
	a, c := pipe(t)
	if _, err := io.WriteString(a, "request"); err != nil {
		t.Fatal(err)
	}
	readable(t, c)
	c.stop()
	pool := &heap{}
	b, n, err := c.ReadPooled(pool)
	if err != nil || string(b[:n]) != "request" {
		t.Fatalf("ReadPooled = %q, %v, want the request", b[:n], err)
	}
	if c.Idle(time.Now(), time.Minute) {
		t.Error("Idle = true on a connection told to stop")
	}
	if _, _, err := c.ReadPooled(pool); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("ReadPooled with nothing there = %v, want a deadline error at once", err)
	}
	if pool.held() != 1 { // the request's own
		t.Errorf("%d buffers held, want 1", pool.held())
	}
}

func TestSocketsShareAndRefuse(t *testing.T) {
	old, young := time.Unix(1, 0), time.Unix(2, 0)
	bind := []ir.Bind{{Port: 443}}
	l := func(key, group string, at time.Time, protocol string, binds []ir.Bind) *ir.Listener {
		kind, name, _ := strings.Cut(group, "/")
		return &ir.Listener{Key: key, Group: group, Port: 443, Binds: binds, Protocol: protocol, Created: at,
			Source: ir.Source{Kind: kind, Name: name}}
	}
	trusting := l("g/b", "Gateway/g", young, ir.HTTPS, bind)
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	trusting.Client = &ir.Client{Address: "ProxyProtocol", Trusted: trusted, TLSMinVersion: "1.3"}
	wanted, refused := Sockets(nil, []*ir.Listener{
		l("h/a", "Gateway/h", young, ir.HTTPS, bind),
		l("g/a", "Gateway/g", old, ir.HTTPS, bind),
		trusting,
		l("g/plain", "Gateway/g", young, ir.HTTP, bind),
		l("h/b", "Gateway/h", young, ir.HTTP, []ir.Bind{{Port: 80}, {Address: loopback, Port: 81}}),
	}, map[string]*cert.Store{}, nil)
	type row struct {
		Bind, Group, Keys string
		TLS, Proxy        bool
	}
	var got []row
	for _, w := range wanted {
		got = append(got, row{bindText(w.Bind), w.Group, strings.Join(w.Listeners, " "), w.TLS != nil, w.Proxy})
	}
	want := []row{{":443", "Gateway/g", "g/a g/b", true, true}, {":80", "Gateway/h", "h/b", false, false},
		{"127.0.0.1:81", "Gateway/h", "h/b", false, false}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("sockets (-want +got):\n%s", d)
	}
	wantRefused := map[string]State{
		"h/a":     {Problem: ":443 is taken by Gateway g, which is older"},
		"g/plain": {Problem: ":443 is taken by Gateway g, which is older"},
	}
	if d := cmp.Diff(wantRefused, refused); d != "" {
		t.Errorf("refused (-want +got):\n%s", d)
	}
}

// pipe is both ends of a TCP connection: a for the client, c as a Conn.
func pipe(t *testing.T) (a *net.TCPConn, c *Conn) {
	t.Helper()
	client, server := tcpPair(t)
	return client, Wrap(server, &Socket{}, nil)
}

func tcpPair(t testing.TB) (client, server *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	x, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	y, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close(); y.Close() })
	return x.(*net.TCPConn), y.(*net.TCPConn)
}

// readable waits until the kernel has something for c, without taking it.
func readable(t *testing.T, c *Conn) {
	t.Helper()
	var p [1]byte
	err := c.raw.Read(func(fd uintptr) bool {
		n, _, err := syscall.Recvfrom(int(fd), p[:], syscall.MSG_PEEK)
		return n > 0 || !errors.Is(err, syscall.EAGAIN)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestLingerLetsARefusedClientSeeTheAnswer(t *testing.T) {
	a, c := pipe(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = c.Read(make([]byte, 10)) // the rest of the request stays unread
		_, _ = c.Write([]byte("413"))
		c.Linger()
	}()
	if _, err := a.Write(bytes.Repeat([]byte("x"), 32<<10)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 3)
	if _, err := io.ReadFull(a, got); err != nil || string(got) != "413" {
		t.Errorf("client read %q, %v, want 413", got, err)
	}
	if _, err := a.Read(got); !errors.Is(err, io.EOF) {
		t.Errorf("then %v, want EOF", err)
	}
	a.Close()
	<-done
}

// TestLingerIsBounded: neither a client that never stops sending nor one that sends nothing is drained for ever.
func TestLingerIsBounded(t *testing.T) {
	_, quiet := pipe(t)
	start := time.Now()
	quiet.linger(time.Hour, 50*time.Millisecond)
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("a client that sends nothing was drained for %v", took)
	}
	a, c := pipe(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.linger(300*time.Millisecond, time.Hour)
	}()
	p := make([]byte, 64<<10)
	_ = a.SetDeadline(time.Now().Add(10 * time.Second))
	for {
		if _, err := a.Write(p); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("a client that never stops sending is still being drained")
			}
			break
		}
	}
	<-done
}
