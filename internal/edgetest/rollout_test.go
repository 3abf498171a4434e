package edgetest_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/feed"
	"github.com/gatehouse-io/gatehouse/internal/ir"
)

func endpoints(addrs ...string) []ir.Endpoint {
	es := []ir.Endpoint{}
	for _, a := range addrs {
		ap := netip.MustParseAddrPort(a)
		es = append(es, ir.Endpoint{Host: ap.Addr().String(), Port: ap.Port(), Ready: true, Serving: true})
	}
	return es
}

// update publishes what f changes and waits until the data side has it.
func update(t testing.TB, r *edgetest.Rig, f func(*feed.State) (bool, bool, bool)) feed.Ack {
	t.Helper()
	r.Feed.Update(f)
	want, _ := r.Feed.Latest()
	limit := time.After(edgetest.Wait)
	for {
		a, changed := r.Feed.Acked()
		if a.ConfigVersion >= want.ConfigVersion && a.EndpointsVersion >= want.EndpointsVersion && a.SecretsVersion >= want.SecretsVersion {
			return a
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatal("not live")
		}
	}
}

func setEndpoints(t testing.TB, r *edgetest.Rig, addrs ...string) {
	update(t, r, func(s *feed.State) (bool, bool, bool) {
		s.Endpoints = ir.Endpoints{"c": endpoints(addrs...)}
		return false, true, false
	})
}

func get(t *testing.T, c *edgetest.Client, host, path string) (int, string) {
	t.Helper()
	c.Send("GET " + path + " HTTP/1.1\nHost: " + host + "\n\n")
	res, body := c.Read("GET")
	return res.StatusCode, body
}

// TestRolloutDoesNotCompile: new endpoints are used at once, under the same snapshot and on the same client connection.
func TestRolloutDoesNotCompile(t *testing.T) {
	r := rig(t, says(t, "one"))
	c := r.Dial()
	if _, body := get(t, c, "a", "/"); body != "one" {
		t.Fatalf("body = %q, want one", body)
	}
	before := r.Edge.Snapshot()
	setEndpoints(t, r, says(t, "two"))
	if _, body := get(t, c, "a", "/"); body != "two" {
		t.Errorf("body = %q, want two", body)
	}
	if r.Edge.Snapshot() != before {
		t.Error("a rollout of endpoints made another snapshot")
	}
}

// TestNewClusterIsFilledFirst: while routes move to clusters that did not exist before, no request meets an empty one.
func TestNewClusterIsFilledFirst(t *testing.T) {
	b := says(t, "x")
	r := rig(t, b)
	stop := load(t, r, 2)
	for i := range 100 {
		key := fmt.Sprintf("c%d", i)
		cfg := edgetest.Simple()
		cfg.Listeners = r.Edge.Snapshot().Config.Listeners
		cfg.Hosts[0].Routes[0].Backends[0].Cluster, cfg.Clusters[0].Key = key, key
		r.Publish(cfg, map[string][]string{key: {b}}, nil)
	}
	stop()
	r.Edge.Drain(t.Context(), 0) // an exchange ends a little after its answer
	if n := len(r.Edge.Clusters().All()); n != 1 {
		t.Errorf("%d clusters are live, want the last one only", n)
	}
}

// load sends requests from n clients, each on a connection that it keeps, until the returned function is called. Each answer must be
// 200, and no connection may be dropped.
func load(t *testing.T, r *edgetest.Rig, n int) (stop func()) {
	t.Helper()
	var wg sync.WaitGroup
	var sent atomic.Int64
	ctx, cancel := context.WithCancel(context.Background())
	begun := make(chan struct{}, n)
	for range n {
		wg.Go(func() {
			c, err := net.Dial("tcp", r.Addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(6 * edgetest.Wait))
			for in, first := bufio.NewReader(c), true; ctx.Err() == nil; first = false {
				if err := askOnce(c, in); err != nil {
					t.Errorf("request %d: %v", sent.Load(), err)
					return
				}
				sent.Add(1)
				if first {
					begun <- struct{}{}
				}
			}
		})
	}
	for range n {
		select {
		case <-begun:
		case <-time.After(edgetest.Wait):
			t.Error("no load")
		}
	}
	return func() {
		t.Helper()
		cancel()
		wg.Wait()
		t.Logf("%d requests", sent.Load())
	}
}

// askOnce sends one request on a connection that is kept, and wants 200 for an answer. net/http's own client would do more than that: dial
// anew, or ask again.
func askOnce(c net.Conn, in *bufio.Reader) error {
	if _, err := io.WriteString(c, "DELETE / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		return err
	}
	res, err := http.ReadResponse(in, &http.Request{Method: "DELETE"})
	if err != nil {
		return err
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 || res.Close {
		return fmt.Errorf("%d %q, closed %v: %w", res.StatusCode, body, res.Close, err)
	}
	return nil
}

// TestSwapUnderLoad: 200 configurations, each another one, under load.
func TestSwapUnderLoad(t *testing.T) {
	b := says(t, "x")
	r := rig(t, b)
	stop := load(t, r, 4)
	for i := range 200 {
		cfg := edgetest.Simple()
		cfg.Listeners = r.Edge.Snapshot().Config.Listeners
		cfg.Hosts = append(cfg.Hosts, &ir.Host{Listener: "test", Hostname: fmt.Sprintf("h%d.example", i), Routes: cfg.Hosts[0].Routes})
		r.Publish(cfg, map[string][]string{"c": {b}}, nil)
	}
	stop()
}

// TestEndpointsSwapUnderLoad is a rolling update without end: a new backend takes over, then the old one shuts down as a
// server does that is told to: it finishes what it has and closes idle connections.
func TestEndpointsSwapUnderLoad(t *testing.T) {
	start := func(n int) (string, *http.Server) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				_, _ = fmt.Fprint(w, n)
			})}
		go func() { _ = s.Serve(l) }()
		return l.Addr().String(), s
	}
	addr, server := start(0)
	r := rig(t, addr)
	stop := load(t, r, 4)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for i := range 40 {
		<-tick.C
		next, s := start(i + 1)
		setEndpoints(t, r, next)
		ctx, cancel := context.WithTimeout(context.Background(), edgetest.Wait)
		if err := server.Shutdown(ctx); err != nil {
			t.Errorf("backend %d did not end: %v", i, err)
		}
		cancel()
		server = s
	}
	stop()
	_ = server.Close()
}

// TestNothingIsLeft: after the end no goroutine runs and no connection to a backend is open.
func TestNothingIsLeft(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	var open atomic.Int64
	ended := make(chan struct{}, 16)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }),
		ConnState: func(_ net.Conn, st http.ConnState) {
			switch st {
			case http.StateNew:
				open.Add(1)
			case http.StateClosed:
				open.Add(-1)
				ended <- struct{}{}
			}
		}}
	go func() { _ = s.Serve(l) }()
	t.Run("life", func(t *testing.T) {
		r := rig(t, l.Addr().String())
		load(t, r, 3)()
		for _, c := range r.Edge.Clusters().All() {
			for _, e := range c.Endpoints() {
				if e.Active() != 0 || e.Idle() == 0 {
					t.Errorf("%d active, %d idle; want none active and some idle", e.Active(), e.Idle())
				}
			}
		}
	})
	for limit := time.After(2 * time.Second); open.Load() > 0; { // less than the pool's own idle time
		select {
		case <-ended:
		case <-limit:
			t.Fatalf("%d connections to the backend are open", open.Load())
		}
	}
	_ = s.Close()
	goleak.VerifyNone(t, ignore)
}
