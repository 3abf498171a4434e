package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// slow asks for something that is not answered before the backend is released, and waits until it has arrived there.
func (s *server) slow() <-chan answer {
	s.t.Helper()
	out := make(chan answer, 1)
	go func() {
		a, err := s.ask(request{port: s.httpPort, path: "/slow"})
		if err != nil {
			a.body = err.Error()
		}
		out <- a
	}()
	select {
	case <-s.web.arrived:
	case a := <-out:
		s.t.Fatalf("the slow request was answered %+v", a)
	case <-time.After(patience):
		s.t.Fatal("the slow request did not arrive")
	}
	return out
}

// TestDrain: after SIGTERM readyz is 503 and new connections are still served, then what is in flight ends whole.
func TestDrain(t *testing.T) {
	t.Parallel()
	s := serve(t, "--drain-grace", "1s")
	pending := s.slow()
	kept, err := net.Dial("tcp", "127.0.0.1:"+s.httpPort)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	s.signal(syscall.SIGTERM)
	s.eventually("readyz is 503", func() bool { return s.status(s.health, "/readyz") == 503 })
	if _, body := s.fetch(s.health, "/readyz"); !strings.Contains(body, `"reason":"draining"`) {
		t.Errorf("/readyz while draining: %s, want reason draining", body)
	}
	if a := s.get(request{port: s.httpPort, path: "/new"}); a.body != "web /new" {
		t.Errorf("a new connection within the grace is answered %+v", a)
	}
	resp := roundTrip(t, kept, "/kept")
	if resp.StatusCode != 200 || !resp.Close {
		t.Errorf("a kept connection is answered %d, close %t; want 200 and close, so that its client goes elsewhere", resp.StatusCode, resp.Close)
	}
	s.signal(syscall.SIGHUP) // asks for a new log, not for a hasty end
	s.eventually("new connections are refused", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+s.httpPort)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	select {
	case a := <-pending:
		t.Fatalf("the request in flight was answered %+v before its backend did", a)
	case <-s.ended:
		t.Fatal("the process ended with a request in flight")
	default:
	}
	close(s.web.release)
	if a := <-pending; a.status != 200 || a.body != "web /slow" {
		t.Errorf("the request in flight was answered %+v, want 200 web /slow", a)
	}
	if code := s.exit(); code != 0 {
		t.Errorf("exit code %d, want 0: nothing was lost", code)
	}
	if log := s.stderr.String(); !strings.Contains(log, "msg=draining") || !strings.Contains(log, "msg=stopped") {
		t.Errorf("the log does not tell of the drain:\n%s", log)
	}
}

// roundTrip sends a request on a connection that would be kept.
func roundTrip(t *testing.T, c net.Conn, path string) *http.Response {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: example.com\r\n\r\n", path); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp
}

// TestSecondSignal: who asks twice does not want to wait.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	s := serve(t, "--drain-grace", "1h")
	pending := s.slow()
	s.signal(syscall.SIGTERM)
	s.eventually("readyz is 503", func() bool { return s.status(s.health, "/readyz") == 503 })
	s.signal(syscall.SIGTERM)
	if code := s.exit(); code != 1 {
		t.Errorf("exit code %d, want 1: a request was lost", code)
	}
	if a := <-pending; a.status == 200 {
		t.Errorf("the request in flight was answered %+v, though it was not to be waited for", a)
	}
	if log := s.stderr.String(); !strings.Contains(log, "1 connection had to be closed before it was done") {
		t.Errorf("standard error does not say what was lost:\n%s", log)
	}
}

// TestInterrupt: Ctrl-C in a terminal has no load balancer to wait for.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	s := serve(t, "--drain-grace", "1h")
	s.signal(syscall.SIGINT)
	if code := s.exit(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// TestReopen: after SIGHUP the access log goes on in a new file of its name.
func TestReopen(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "access.log")
	s := serve(t, "--access-log", log)
	line := func(file, path string) func() bool {
		return func() bool { b, err := os.ReadFile(file); return err == nil && strings.Contains(string(b), path) }
	}
	s.get(request{port: s.httpPort, path: "/before"})
	s.eventually("the log has a line", line(log, "/before"))
	if err := os.Rename(log, log+".1"); err != nil {
		t.Fatal(err)
	}
	s.get(request{port: s.httpPort, path: "/moved"})
	s.eventually("the line goes where the file went", line(log+".1", "/moved"))
	s.signal(syscall.SIGHUP)
	s.eventually("there is a new file", func() bool { _, err := os.Stat(log); return err == nil })
	s.get(request{port: s.httpPort, path: "/after"})
	s.eventually("the new file has a line", line(log, "/after"))
	if line(log+".1", "/after")() {
		t.Error("the line after SIGHUP is in the old file too")
	}
}

// TestAccessLog: both formats name the same fields, and nothing is lost at the end.
func TestAccessLog(t *testing.T) {
	t.Parallel()
	ask := func(format string) (*server, string) {
		s := serve(t, "--access-log", "stdout", "--access-log-format", format)
		s.get(request{port: s.httpPort, path: "/api/orders?a=1"})
		s.get(request{host: "nowhere.example", port: s.httpPort, path: "/"})
		s.signal(syscall.SIGINT)
		if code := s.exit(); code != 0 {
			t.Errorf("exit code %d, want 0", code)
		}
		return s, s.stdout.String()
	}
	s, text := ask("json")
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines, want 2:\n%s", len(lines), text)
	}
	if !strings.Contains(lines[0], "/api/orders") { // two connections: a line is written when its client has the answer already
		lines[0], lines[1] = lines[1], lines[0]
	}
	var first, second map[string]any
	for i, v := range []any{&first, &second} {
		if err := json.Unmarshal([]byte(lines[i]), v); err != nil {
			t.Fatalf("%s: %v", lines[i], err)
		}
	}
	want := map[string]any{"method": "GET", "path": "/api/orders", "query": "a=1", "status": 200.0, "client": "127.0.0.1", "scheme": "http",
		"listener": "IngressClass/gatehouse/http", "object": "Ingress shop/shop", "cluster": "Service/shop/api-service/80",
		"backend": "127.0.0.1:" + s.api.port()}
	for k, v := range want {
		if first[k] != v {
			t.Errorf("first line: %s is %v, want %v", k, first[k], v)
		}
	}
	for _, k := range []string{"time", "id", "ms"} {
		if first[k] == nil {
			t.Errorf("first line has no %s: %s", k, lines[0])
		}
	}
	if second["status"] != 404.0 || second["reason"] != "route_not_found" {
		t.Errorf("second line: %s, want 404 route_not_found", lines[1])
	}
	_, text = ask("text")
	for _, f := range []string{"time=", " method=GET", " path=/api/orders", ` query="a=1"`, " status=200", ` object="Ingress shop/shop"`, " reason=route_not_found"} {
		if !strings.Contains(text, f) {
			t.Errorf("text lines have no %q:\n%s", f, text)
		}
	}
}

// TestAdminToken: a TCP address that is not loopback needs a token; who has one sends it; a unix socket is guarded by its mode.
func TestAdminToken(t *testing.T) {
	t.Parallel()
	refused := prepare(t)
	refused.start("--admin", "0.0.0.0:"+freePorts(t, 1)[0])
	if code := refused.exit(); code != 2 {
		t.Errorf("--admin on every address without a token: exit code %d, want 2", code)
	}
	if log := refused.stderr.String(); !strings.Contains(log, "is not loopback: it needs --admin-token-file") {
		t.Errorf("standard error does not say what is missing:\n%s", log)
	}
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("correct-horse-battery\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	port := freePorts(t, 1)[0]
	s := serve(t, "--admin", "0.0.0.0:"+port, "--admin-token-file", token)
	for _, c := range []struct {
		header []string
		want   int
	}{{nil, 401}, {[]string{"Authorization", "Bearer wrong"}, 401}, {[]string{"Authorization", "Bearer correct-horse-battery"}, 200},
		{[]string{"Authorization", "Bearer correct-horse-battery", "Origin", "https://page.example"}, 403}} {
		if got := s.status("127.0.0.1:"+port, "/debug/routes", c.header...); got != c.want {
			t.Errorf("/debug/routes with %q: %d, want %d", c.header, got, c.want)
		}
	}
	if code := s.status(s.health, "/debug/routes"); code != 404 {
		t.Errorf("/debug/routes on the health server: %d, want 404", code)
	}
}

func TestAdminSocket(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "gh") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "admin")
	s := serve(t, "--admin", "unix:"+socket)
	st, err := os.Stat(socket)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("the socket: %v, %v; want mode 0600", st, err)
	}
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if resp := roundTrip(t, c, "/debug/routes"); resp.StatusCode != 200 {
		t.Errorf("/debug/routes over the socket: %d, want 200", resp.StatusCode)
	}
	s.signal(syscall.SIGINT)
	s.exit()
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

// TestAddressInUse: what cannot be opened is said, and the process does not go on half.
func TestAddressInUse(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := prepare(t)
	s.start("--health", l.Addr().String())
	if code := s.exit(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if log := s.stderr.String(); !strings.Contains(log, "--health "+l.Addr().String()) || !strings.Contains(log, "address already in use") {
		t.Errorf("standard error does not say which address is in use:\n%s", log)
	}
	// A port of traffic that is in use stops only its listener, and is told.
	busy := prepare(t)
	busy.httpPort = fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
	busy.start()
	busy.eventually("readyz is 200", func() bool { return busy.status(busy.health, "/readyz") == 200 })
	if a := busy.get(request{port: busy.gateway, path: "/api"}); a.body != "api /api" {
		t.Errorf("the other listeners answer %+v", a)
	}
	busy.eventually("the log names the listener", func() bool {
		return strings.Contains(busy.stderr.String(), "listener=IngressClass/gatehouse/http")
	})
	_, body := busy.fetch(busy.admin, "/debug/config")
	if !strings.Contains(body, "is in use by another process") {
		t.Errorf("/debug/config does not say that the port is in use")
	}
}
