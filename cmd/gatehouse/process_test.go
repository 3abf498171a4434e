package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for what should come at once; only a failing test waits so long.
const patience = 20 * time.Second

// server is a real gatehouse process on a copy of examples/shop, with backends in the test.
type server struct {
	t                   *testing.T
	dir                 string // the manifests
	httpPort, httpsPort string // of the IngressClass
	gateway, gatewayTLS string // ports of the Gateway
	health, admin       string // addresses
	web, api, canary    *backend
	cmd                 *exec.Cmd
	stdout, stderr      output
	ended               chan struct{} // closed when the process is gone; then code is its exit code
	code                int
}

// output is what a process has written so far.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// backend answers its name and the request's target. A request to /slow tells arrived and answers after release.
type backend struct {
	*httptest.Server
	arrived, release chan struct{}
}

func newBackend(t *testing.T, name string) *backend {
	b := &backend{arrived: make(chan struct{}, 16), release: make(chan struct{})}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/slow") {
			b.arrived <- struct{}{}
			select {
			case <-b.release:
			case <-r.Context().Done():
				return
			}
		}
		fmt.Fprintf(w, "%s %s", name, r.URL.RequestURI())
	}))
	t.Cleanup(b.Close)
	return b
}

func (b *backend) port() string {
	_, p, _ := net.SplitHostPort(b.Listener.Addr().String())
	return p
}

// freePorts are ports of loopback on which nobody listened a moment ago. They lie below those that systems give out by
// themselves, so that nobody is given one before the process has bound it.
func freePorts(t *testing.T, n int) []string {
	t.Helper()
	var out []string
	for range 1000 {
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(20000+rand.IntN(12000)))
		if err != nil {
			continue
		}
		defer l.Close()
		if out = append(out, strconv.Itoa(l.Addr().(*net.TCPAddr).Port)); len(out) == n {
			return out
		}
	}
	t.Fatal("there are no free ports")
	return nil
}

// prepare copies the shop and writes free ports into it. Nothing runs yet.
func prepare(t *testing.T) *server {
	t.Helper()
	ports := freePorts(t, 6)
	s := &server{t: t, dir: t.TempDir(), httpPort: ports[0], httpsPort: ports[1], gateway: ports[2], gatewayTLS: ports[3],
		health: "127.0.0.1:" + ports[4], admin: "127.0.0.1:" + ports[5], web: newBackend(t, "web"), api: newBackend(t, "api"),
		canary: newBackend(t, "canary"), ended: make(chan struct{})}
	if err := copyShop(s.dir); err != nil {
		t.Fatal(err)
	}
	s.edit("services.yaml", "port: 9101", "port: "+s.web.port(), "port: 9102", "port: "+s.api.port(), "port: 9103", "port: "+s.canary.port())
	s.edit("gateway.yaml", "port: 8000", "port: "+s.gateway, "port: 8444", "port: "+s.gatewayTLS)
	return s
}

// serve prepares, starts and waits until the process is ready.
func serve(t *testing.T, args ...string) *server {
	t.Helper()
	s := prepare(t)
	s.start(args...)
	s.eventually("readyz is 200", func() bool { return s.status(s.health, "/readyz") == 200 })
	return s
}

// start runs the process on the manifests; args come last, so they win.
func (s *server) start(args ...string) {
	s.t.Helper()
	s.cmd = exec.Command(os.Args[0], append([]string{"run", "-f", s.dir, "--bind", "127.0.0.1", "--http-port", s.httpPort,
		"--https-port", s.httpsPort, "--health", s.health, "--admin", s.admin, "--drain-grace", "0s"}, args...)...)
	s.cmd.Env = append(os.Environ(), asProgram+"=1")
	s.cmd.Stdout, s.cmd.Stderr = &s.stdout, &s.stderr
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		var e *exec.ExitError
		if err := s.cmd.Wait(); errors.As(err, &e) {
			s.code = e.ExitCode()
		} else if err != nil {
			s.code = -2
		}
		close(s.ended)
	}()
	s.t.Cleanup(func() {
		_ = s.cmd.Process.Kill() // it may be gone already
		<-s.ended
		if s.t.Failed() {
			s.t.Logf("standard error of the process:\n%s", s.stderr.String())
		}
	})
}

// edit replaces text in a manifest: pairs of old and new, each of which must be there.
func (s *server) edit(file string, pairs ...string) {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, file))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(pairs); i += 2 {
		if !bytes.Contains(b, []byte(pairs[i])) {
			s.t.Fatalf("%s does not hold %q", file, pairs[i])
		}
	}
	s.write(file, strings.NewReplacer(pairs...).Replace(string(b)))
}

func (s *server) write(file, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, file), []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// exit waits for the end of the process and returns its exit code.
func (s *server) exit() int {
	s.t.Helper()
	select {
	case <-s.ended:
		return s.code
	case <-time.After(patience):
		s.t.Fatal("the process did not end")
	}
	return -1
}

// eventually polls: a process tells a test nothing by itself.
func (s *server) eventually(what string, ok func() bool) {
	s.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-s.ended:
			s.t.Fatalf("the process ended with code %d before %s", s.code, what)
		case <-deadline:
			s.t.Fatalf("it never came to this: %s", what)
		case <-tick.C:
		}
	}
}

// answer is a response read whole.
type answer struct {
	status   int
	body     string
	location string
}

// request is what to ask for. Empty: GET, of host example.com.
type request struct {
	method, host, port, path string
	tls                      bool
	header                   [2]string
}

// ask sends one request on a connection of its own. It may be called by any goroutine.
func (s *server) ask(r request) (answer, error) {
	host := cmp.Or(r.host, "example.com")
	scheme := "http"
	if r.tls {
		scheme = "https"
	}
	req, err := http.NewRequest(cmp.Or(r.method, "GET"), scheme+"://"+host+":"+r.port+r.path, nil)
	if err != nil {
		return answer{}, err
	}
	if r.header[0] != "" {
		req.Header.Set(r.header[0], r.header[1])
	}
	tr := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, "127.0.0.1:"+r.port)
		}}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, string(b), resp.Header.Get("Location")}, err
}

// get is the answer to a request that must succeed.
func (s *server) get(r request) answer {
	s.t.Helper()
	a, err := s.ask(r)
	if err != nil {
		s.t.Fatalf("%+v: %v", r, err)
	}
	return a
}

// fetch reads from the health or admin server; header is a name and its value, or nothing.
func (s *server) fetch(address, path string, header ...string) (int, string) {
	req, err := http.NewRequest("GET", "http://"+address+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

func (s *server) status(address, path string, header ...string) int {
	code, _ := s.fetch(address, path, header...)
	return code
}

// metric is the value of a series as /metrics spells both.
func (s *server) metric(series string) string {
	s.t.Helper()
	code, text := s.fetch(s.health, "/metrics")
	if code != 200 {
		s.t.Fatalf("/metrics: %d %s", code, text)
	}
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), series+" "); ok {
			return v
		}
	}
	return ""
}
