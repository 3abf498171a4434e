package edge

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/upstream"
)

// serve starts a server on loopback.
func serve(t *testing.T, h http.HandlerFunc, set func(*httptest.Server)) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	if set == nil {
		set = (*httptest.Server).Start
	}
	set(s)
	t.Cleanup(s.Close)
	return s
}

func answer(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, text) }
}

// calls makes Calls over rules, whose end and goroutines the test checks.
func calls(t *testing.T, r upstream.Rules, names map[string]string) (*Calls, *upstream.Set) {
	t.Helper()
	none := goleak.IgnoreCurrent()
	set := upstream.NewSet(r)
	c := NewCalls(set, upstream.System(func(_ context.Context, _, host string) ([]netip.Addr, error) {
		var out []netip.Addr
		for _, f := range strings.Fields(names[host]) {
			out = append(out, netip.MustParseAddr(f))
		}
		if out == nil {
			return nil, errors.New("no such host")
		}
		return out, nil
	}))
	t.Cleanup(func() {
		c.Close()
		if err := goleak.Find(none, goleak.IgnoreAnyFunction("net/http.(*conn).serve"), goleak.IgnoreAnyFunction("net/http.(*connReader).backgroundRead")); err != nil {
			t.Error(err)
		}
	})
	return c, set
}

func port(s *httptest.Server) string {
	_, p, _ := net.SplitHostPort(s.Listener.Addr().String())
	return p
}

// TestSSRF: what a policy's author writes as a URL, or as endpoints, does not make the edge speak to itself, to its machine or to
// services of the cloud at link-local addresses, whatever leads there.
func TestSSRF(t *testing.T) {
	var arrived atomic.Int64
	s := serve(t, answer("secret"), func(s *httptest.Server) {
		s.Config.ConnState = func(net.Conn, http.ConnState) { arrived.Add(1) }
		s.Start()
	})
	p := port(s)
	inCluster := func(a netip.Addr) bool {
		return !a.IsUnspecified() && !a.IsMulticast() && !a.IsLinkLocalUnicast() && !a.IsLoopback()
	}
	c, set := calls(t, upstream.Rules{Allow: inCluster}, map[string]string{"localhost": "127.0.0.1 ::1", "metadata.example": "169.254.169.254",
		"both.example": "169.254.169.254 127.0.0.1", "mapped.example": "::ffff:127.0.0.1"})
	set.Except(func(netip.Addr) bool { return true }) // some listener's exception, which is not this policy's
	for _, host := range []string{"127.0.0.1", "127.8.8.8", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0", "[::]", "localhost",
		"LOCALHOST", "metadata.example", "both.example", "mapped.example", "169.254.169.254", "[fe80::1]", "[fe80::1%25eth0]", "224.0.0.1"} {
		_, err := c.Call(t.Context(), &policy.Call{URL: "http://" + host + ":" + p + "/"})
		if err == nil || !errors.Is(err, errCallForbidden) && !strings.Contains(err.Error(), "no such host") {
			t.Errorf("Call(http://%s) = %v, want it forbidden", host, err)
		}
	}
	for _, url := range []string{"file:///etc/passwd", "gopher://127.0.0.1/", "http://", "http:///x", "//127.0.0.1/", "http://a b/", "http://u:p@127.0.0.1/",
		"http://127.0.0.1/\r\nHost: x", "http://[::1/", "unix:///run/x"} {
		if _, err := c.Call(t.Context(), &policy.Call{URL: url}); err == nil {
			t.Errorf("Call(%q) succeeded", url)
		}
	}
	k := set.Acquire("Service/shop/authz/80")
	defer set.Release(k)
	k.SetEndpoints([]upstream.Resolved{{Addr: netip.MustParseAddrPort("127.0.0.1:" + p), Ready: true}})
	if _, err := c.Call(t.Context(), &policy.Call{URL: "http://authz/", Cluster: k.Key}); !errors.Is(err, errCallForbidden) {
		t.Errorf("Call of a cluster with an endpoint on loopback: %v, want it forbidden", err)
	}
	if n := arrived.Load(); n != 0 {
		t.Errorf("%d connections arrived, want none", n)
	}
	own, _ := calls(t, upstream.Rules{Own: func(a netip.AddrPort) bool { return fmt.Sprint(a.Port()) == p }}, nil)
	if _, err := own.Call(t.Context(), &policy.Call{URL: s.URL}); !errors.Is(err, errCallForbidden) {
		t.Errorf("Call of the edge's own socket: %v, want it forbidden", err)
	}
}

func TestCall(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Seen", fmt.Sprintf("%s %s host=%s agent=%s accept=%q body=%s", r.Method, r.RequestURI, r.Host, r.UserAgent(), r.Header["Accept-Encoding"], b))
		w.Header().Set("Location", "http://127.0.0.1:1/")
		w.WriteHeader(302)
	}, nil)
	c, _ := calls(t, upstream.Rules{}, map[string]string{"idp.example": "127.0.0.1"})
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1") // neither used, nor a redirect followed
	for _, x := range []struct {
		call policy.Call
		want string
	}{
		{policy.Call{URL: "/a"}, "GET /a host=idp.example:PORT agent=gatehouse accept=[] body="},
		{policy.Call{URL: ""}, "GET / host=idp.example:PORT agent=gatehouse accept=[] body="},
		{policy.Call{URL: "?q"}, "GET /?q host=idp.example:PORT agent=gatehouse accept=[] body="},
		{policy.Call{URL: "/a|b%2fc//d?x=\"y\"&z?#frag", Method: "POST", Body: []byte("token=1")}, "POST /a|b%2fc//d?x=\"y\"&z? host=idp.example:PORT agent=gatehouse accept=[] body=token=1"},
		{policy.Call{URL: "/a?", Header: http.Header{"User-Agent": {"me"}}}, "GET /a? host=idp.example:PORT agent=me accept=[] body="},
	} {
		x.call.URL = "http://idp.example:" + port(s) + x.call.URL
		r, err := c.Call(t.Context(), &x.call)
		if err != nil || r.Status != 302 {
			t.Errorf("Call(%s) = %v, %v, want 302", x.call.URL, r, err)
			continue
		}
		if want := strings.ReplaceAll(x.want, "PORT", port(s)); r.Header.Get("X-Seen") != want {
			t.Errorf("Call(%s): the server saw\n%s, want\n%s", x.call.URL, r.Header.Get("X-Seen"), want)
		}
	}
	c.Close()
	if _, err := c.Call(t.Context(), &policy.Call{URL: s.URL}); !errors.Is(err, errCallsClosed) {
		t.Errorf("after Close: %v, want errCallsClosed", err)
	}
}

func TestCallBounds(t *testing.T) {
	hang := make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/long":
			_, _ = io.WriteString(w, strings.Repeat("x", 1001))
		case "/chunks":
			for range 1001 {
				_, _ = io.WriteString(w, "x")
				_ = http.NewResponseController(w).Flush()
			}
		case "/default":
			_, _ = w.Write(make([]byte, 1<<20+1))
		case "/head":
			w.Header().Set("X", strings.Repeat("x", 128<<10))
		case "/hang", "/slow":
			if r.URL.Path == "/slow" {
				_, _ = io.WriteString(w, "x")
				_ = http.NewResponseController(w).Flush()
			}
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		}
	}, nil)
	defer close(hang)
	c, _ := calls(t, upstream.Rules{}, nil)
	for _, x := range []struct {
		path string
		max  int64
		want error
	}{
		{"/long", 1000, policy.ErrTooLarge}, {"/long", 1001, nil}, {"/chunks", 1000, policy.ErrTooLarge}, {"/chunks", 1001, nil},
		{"/default", 0, policy.ErrTooLarge}, {"/hang", 0, context.DeadlineExceeded}, {"/slow", 0, context.DeadlineExceeded},
	} {
		timeout := time.Duration(0)
		if x.want == context.DeadlineExceeded {
			timeout = 30 * time.Millisecond
		}
		r, err := c.Call(t.Context(), &policy.Call{URL: s.URL + x.path, Max: x.max, Timeout: timeout})
		if !errors.Is(err, x.want) || err == nil && len(r.Body) != 1001 {
			t.Errorf("%s with %d: %v, want %v", x.path, x.max, err, x.want)
		}
	}
	if _, err := c.Call(t.Context(), &policy.Call{URL: s.URL + "/head"}); err == nil {
		t.Error("a head of 128 KiB was taken")
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Call(gone, &policy.Call{URL: s.URL + "/hang"}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that is over: %v", err)
	}
}

// TestCallConnections: many calls to one endpoint open no more connections than the bound, and none waits in vain.
func TestCallConnections(t *testing.T) {
	for _, streams := range []int{0, 1, 100} { // that the server lets each connection have; 0: HTTP/1
		prior := streams > 0
		c, set := calls(t, upstream.Rules{}, nil)
		k := set.Acquire("Service/shop/authz/80")
		defer set.Release(k)
		var most atomic.Int64
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			most.Store(max(most.Load(), k.Connections())) // as the client counts: a server sees the end of one a little late
			w.Header().Set("Trailer", "Grpc-Status")
			_, _ = io.WriteString(w, r.Proto)
			w.Header().Set("Grpc-Status", "0")
		}, func(s *httptest.Server) {
			s.Config.Protocols = new(http.Protocols)
			s.Config.Protocols.SetHTTP1(true)
			s.Config.Protocols.SetUnencryptedHTTP2(true)
			s.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: streams}
			s.Start()
		})
		k.SetEndpoints([]upstream.Resolved{{Addr: netip.MustParseAddrPort(s.Listener.Addr().String()), Ready: true}})
		want := "HTTP/1.1"
		if prior {
			want = "HTTP/2.0"
		}
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				for range 5 {
					r, err := c.Call(t.Context(), &policy.Call{URL: "http://authz/", Cluster: k.Key, HTTP2: prior})
					if err != nil || string(r.Body) != want || r.Trailer.Get("Grpc-Status") != "0" {
						t.Errorf("Call = %+v, %v, want %s and a trailer", r, err, want)
						return
					}
				}
			})
		}
		wg.Wait()
		bound := int64(callConns)
		if prior {
			bound *= 2 // see gates
		}
		if n := most.Load(); n > bound {
			t.Errorf("%d streams: %d connections at once, want at most %d", streams, n, bound)
		}
	}
}

func TestCallTLS(t *testing.T) {
	tlsServer := func(most uint16) *httptest.Server {
		s := serve(t, answer("ok"), func(s *httptest.Server) {
			s.TLS = &tls.Config{MaxVersion: most, MinVersion: tls.VersionTLS10}
			s.StartTLS()
		})
		return s
	}
	good, old := tlsServer(tls.VersionTLS13), tlsServer(tls.VersionTLS11)
	file := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: good.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", file) // read once in a process: no other test of this package verifies by the system's roots
	c, set := calls(t, upstream.Rules{}, map[string]string{"example.com": "127.0.0.1", "other.example": "127.0.0.1"})
	for _, x := range []struct {
		url string
		ok  bool
	}{
		{good.URL, true},
		{"https://example.com:" + port(good), true},
		{"https://other.example:" + port(good), false}, // another name
		{old.URL, false}, // TLS 1.1
		{"http://127.0.0.1:" + port(good), false},
	} {
		r, err := c.Call(t.Context(), &policy.Call{URL: x.url})
		if ok := err == nil && r.Status == 200; ok != x.ok {
			t.Errorf("Call(%s) = %+v, %v, want %v", x.url, r, err, x.ok)
		}
	}
	k := set.Acquire("Service/shop/authz/443")
	defer set.Release(k)
	k.SetEndpoints([]upstream.Resolved{{Addr: netip.MustParseAddrPort(good.Listener.Addr().String()), Ready: true}})
	for name, want := range map[string]bool{"example.com": true, "other.example": false} {
		roots := good.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
		k.Configure(upstream.NewSettings(nil, &tls.Config{MinVersion: tls.VersionTLS12, ServerName: name, RootCAs: roots, NextProtos: []string{"http/1.1"}}, ""))
		if _, err := c.Call(t.Context(), &policy.Call{URL: "http://authz/", Cluster: k.Key}); (err == nil) != want {
			t.Errorf("Call of a cluster whose certificate has to be for %s: %v, want %v", name, err, want)
		}
	}
}

func TestCallCluster(t *testing.T) {
	name := func(n string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s %s %s", n, r.Host, r.RequestURI, b)
		}
	}
	a := serve(t, name("a"), nil)
	b := serve(t, name("b"), nil)
	c, set := calls(t, upstream.Rules{}, nil)
	q := &policy.Call{Method: "POST", URL: "http://shop.example:8080/check?x=1", Cluster: "Service/shop/authz/80", Body: []byte("body"),
		Header: http.Header{"Idempotency-Key": {}}} // a connection that the pod closed is no failure then
	ask := func() string {
		r, err := c.Call(t.Context(), q)
		if err != nil {
			return err.Error()
		}
		return string(r.Body)
	}
	if got := ask(); got != errNoEndpoint.Error() {
		t.Errorf("a cluster that nobody filled: %s", got)
	}
	k := set.Acquire(q.Cluster)
	at := func(s *httptest.Server) upstream.Resolved {
		return upstream.Resolved{Addr: netip.MustParseAddrPort(s.Listener.Addr().String()), Ready: true}
	}
	k.SetEndpoints([]upstream.Resolved{at(a), at(b)})
	const rest = " shop.example:8080 /check?x=1 body"
	seen := map[string]int{}
	for range 10 {
		seen[ask()]++
	}
	if seen["a"+rest] != 5 || seen["b"+rest] != 5 {
		t.Errorf("ten calls to two endpoints: %v, want five each", seen)
	}
	a.Close() // a pod is gone and the cluster has not noticed yet
	for range 10 {
		if got := ask(); got != "b"+rest {
			t.Errorf("with one endpoint gone: %s", got)
		}
	}
	b.Close()
	if got := ask(); !strings.Contains(got, "refused") {
		t.Errorf("with both gone: %s", got)
	}
	k.Configure(upstream.NewSettings(nil, nil, "CA bundle is missing"))
	if got := ask(); got != "CA bundle is missing" {
		t.Errorf("with a cluster that has a problem: %s", got)
	}
	set.Release(k)
	if n := k.Connections(); n != 0 {
		t.Errorf("%d connections are still counted", n)
	}
}

// TestCallBreaker: calls count on the circuit breaker of the service.
func TestCallBreaker(t *testing.T) {
	in, out := make(chan struct{}), make(chan struct{})
	s := serve(t, func(http.ResponseWriter, *http.Request) {
		in <- struct{}{}
		<-out
	}, nil)
	c, set := calls(t, upstream.Rules{}, nil)
	k := set.Acquire("Service/shop/authz/80")
	defer set.Release(k)
	k.SetEndpoints([]upstream.Resolved{{Addr: netip.MustParseAddrPort(s.Listener.Addr().String()), Ready: true}})
	for _, breaker := range []ir.Breaker{{MaxRequests: 1}, {MaxConnections: 1}} {
		k.Configure(upstream.NewSettings(&ir.Cluster{Key: k.Key, Traffic: &ir.Traffic{Breaker: &breaker}}, nil, ""))
		q := policy.Call{URL: "http://authz/", Cluster: k.Key}
		done := make(chan error)
		go func() {
			_, err := c.Call(t.Context(), &q)
			done <- err
		}()
		<-in
		if _, err := c.Call(t.Context(), &q); !errors.Is(err, errCallFull) {
			t.Errorf("%+v: the second call: %v, want errCallFull", breaker, err)
		}
		out <- struct{}{}
		if err := <-done; err != nil {
			t.Errorf("%+v: the first call: %v", breaker, err)
		}
	}
}

// TestCallsWait: a call that finds no slot waits for its own time, and leaves nothing behind.
func TestCallsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gates{of: map[string]*gate{}}
		var leave []func()
		for range callConns {
			l, err := g.enter(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			leave = append(leave, l)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := g.enter(short, "a"); !errors.Is(err, errCallBusy) {
			t.Errorf("one more: %v, want errCallBusy", err)
		}
		other, err := g.enter(t.Context(), "b")
		if err != nil {
			t.Fatal(err)
		}
		other()
		go func() {
			time.Sleep(time.Second)
			leave[0]()
		}()
		l, err := g.enter(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		leave[0] = l
		for _, l := range leave {
			l()
		}
		if len(g.of) != 0 {
			t.Errorf("%d hosts are left", len(g.of))
		}
	})
}

// BenchmarkCall is one question to a service of a cluster, on connections that are kept.
func BenchmarkCall(b *testing.B) {
	s := httptest.NewServer(answer("ok"))
	defer s.Close()
	set := upstream.NewSet(upstream.Rules{})
	c := NewCalls(set, nil)
	defer c.Close()
	k := set.Acquire("Service/shop/authz/80")
	defer set.Release(k)
	k.SetEndpoints([]upstream.Resolved{{Addr: netip.MustParseAddrPort(s.Listener.Addr().String()), Ready: true}})
	q := policy.Call{URL: "http://authz/", Cluster: k.Key}
	b.ReportAllocs()
	for b.Loop() {
		if r, err := c.Call(b.Context(), &q); err != nil || !bytes.Equal(r.Body, []byte("ok")) {
			b.Fatal(r, err)
		}
	}
}

// TestIdleCallsGiveWay: with room for one connection to several endpoints, calls one after the other are all answered.
func TestIdleCallsGiveWay(t *testing.T) {
	c, set := calls(t, upstream.Rules{}, nil)
	k := set.Acquire("Service/shop/authz/80")
	defer set.Release(k)
	var rs []upstream.Resolved
	for range 3 {
		s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		defer s.Close()
		rs = append(rs, upstream.Resolved{Addr: netip.MustParseAddrPort(s.Listener.Addr().String()), Ready: true})
	}
	k.SetEndpoints(rs)
	k.Configure(upstream.NewSettings(&ir.Cluster{Key: k.Key, Traffic: &ir.Traffic{Breaker: &ir.Breaker{MaxConnections: 1}}}, nil, ""))
	for i := range 20 {
		if _, err := c.Call(t.Context(), &policy.Call{URL: "http://authz/", Cluster: k.Key}); err != nil {
			t.Errorf("call %d: %v", i, err)
		}
	}
	if n := k.Connections(); n > 1 {
		t.Errorf("%d connections, want 1 at most", n)
	}
}
