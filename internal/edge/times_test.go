package edge

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/listener"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/telemetry"
)

// from is a connection from an address.
type from struct {
	net.Conn
	netip.AddrPort
}

func (f from) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(f.AddrPort) }

// TestIdleTime: how long a connection waits for a request, by who the peer is and what the policies of its socket say. A deadline
// may fall a second later than wanted, and never earlier.
func TestIdleTime(t *testing.T) {
	trusting := func(kind string, idle time.Duration) *ir.Client {
		c := &ir.Client{Address: kind, AddressHeader: "cf-connecting-ip", Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
		if idle > 0 {
			d := ir.Duration(idle)
			c.IdleTimeout = &d
		}
		return c
	}
	for _, x := range []struct {
		name    string
		peer    string
		clients []*ir.Client // of the listeners on the socket
		want    time.Duration
	}{
		{"no policy", "10.1.2.3", []*ir.Client{nil}, 90 * time.Second},
		{"a policy without a word about it", "192.0.2.1", []*ir.Client{{}}, 90 * time.Second},
		{"trusted", "10.1.2.3", []*ir.Client{trusting("XForwardedFor", 0)}, 620 * time.Second},
		{"trusted by a header of its own", "10.1.2.3", []*ir.Client{trusting("Header", 0)}, 620 * time.Second},
		{"not trusted", "192.0.2.1", []*ir.Client{trusting("XForwardedFor", 0)}, 90 * time.Second},
		{"trusted, and the policy says how long", "10.1.2.3", []*ir.Client{trusting("XForwardedFor", 30*time.Second)}, 30 * time.Second},
		{"trusted to relay TCP: each connection is one client's", "10.1.2.3", []*ir.Client{trusting("ProxyProtocol", 0)}, 90 * time.Second},
		{"trusted by one of two", "10.1.2.3", []*ir.Client{trusting("XForwardedFor", 0), nil}, 90 * time.Second},
		{"trusted by both", "10.1.2.3", []*ir.Client{trusting("XForwardedFor", 0), trusting("Header", 0)}, 620 * time.Second},
		{"trusted by both, one says how long", "10.1.2.3", []*ir.Client{trusting("XForwardedFor", 0), trusting("Header", time.Hour)}, time.Hour},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hosts := []string{"a.example", "b.example"}
				cfg := &ir.Config{}
				for i, c := range x.clients {
					cfg.Listeners = append(cfg.Listeners, &ir.Listener{Key: hosts[i], Hostname: hosts[i], Group: "g", Port: 80, Protocol: ir.HTTP, Client: c})
				}
				c := dial(t, cfg, x.peer)
				start := time.Now()
				if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
					t.Errorf("got %q, %v; want the end", b, err)
				}
				if took := time.Since(start); took < x.want || took > x.want+time.Second {
					t.Errorf("closed after %v, want %v", took, x.want)
				}
			})
		})
	}
}

// dial connects a client at an address to an edge that serves cfg, without a socket. It is called in a bubble of synctest.
func dial(t *testing.T, cfg *ir.Config, peer string) net.Conn {
	t.Helper()
	rec, err := telemetry.New(telemetry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e := New(Options{Recorder: rec, Log: slog.New(slog.DiscardHandler), Steps: []policy.Step{
		{Name: "whole", New: func() policy.Spec { return &whole{} }, Phase: func(policy.Spec) policy.Phase { return policy.Protect }}}})
	s, faults := e.compiler.Compile(cfg)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	e.proxy.Swap(s)
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() {
		e.driver.Serve(listener.Wrap(from{near, netip.AddrPortFrom(netip.MustParseAddr(peer), 1)}, &listener.Socket{Group: "g", Port: 80}, nil))
		close(done)
	}()
	t.Cleanup(func() {
		far.Close()
		<-done
		_ = rec.Close()
	})
	return far
}

// whole is a step that wants the whole body of a request.
type whole struct{}

func (*whole) Compile(policy.Env) (policy.Handler, error) { return policy.Handler{Body: 1 << 20}, nil }

// TestTimesOfRequests: by default a head has 10 s, however its bytes come, and a body has to come with 240 B/s, measured over 30 s. A
// body that was read whole is answered by a cluster without endpoints, 503. An answer reaches the client however late it is.
func TestTimesOfRequests(t *testing.T) {
	const post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30000\r\n\r\n"
	type piece struct {
		after time.Duration // since the piece before
		text  string
	}
	body := func(n int) string { return strings.Repeat("b", n) }
	for _, x := range []struct {
		name     string
		pieces   []piece
		status   int
		min, max time.Duration // when the answer comes
	}{
		{"a head in time", []piece{{0, "GET / HTTP/1.1\r\n"}, {10*time.Second - 1, "Host: a\r\n\r\n"}}, 503, 10*time.Second - 1, 10 * time.Second},
		{"a head that does not end", []piece{{0, "GET / HTTP/1.1\r\n"}}, 408, 10 * time.Second, 11 * time.Second},
		{"a head bit by bit", []piece{{0, "GET / HTTP/1.1\r\n"}, {4 * time.Second, "Host: a\r\n"}, {4 * time.Second, "X: y\r\n"}}, 408, 10 * time.Second, 11 * time.Second},
		{"a body just fast enough", []piece{{0, post}, {29 * time.Second, body(7200)}, {29 * time.Second, body(7200)}, {29 * time.Second, body(7200)},
			{29 * time.Second, body(7200)}, {29 * time.Second, body(1200)}}, 503, 145 * time.Second, 145 * time.Second},
		{"a body one byte too slow", []piece{{0, post}, {29 * time.Second, body(7199)}}, 408, 30 * time.Second, 31 * time.Second},
		{"a body too slow in the second window", []piece{{0, post}, {time.Second, body(7200)}, {40 * time.Second, body(799)}}, 408, 60 * time.Second, 62 * time.Second},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := dial(t, &ir.Config{
					Listeners: []*ir.Listener{{Key: "l", Group: "g", Port: 80, Protocol: ir.HTTP}},
					Hosts: []*ir.Host{{Listener: "l", Routes: []*ir.Route{{Name: "r", Match: ir.Match{Path: ir.PathMatch{Kind: ir.PathPrefix, Value: "/"}},
						Steps:    []*ir.Step{{Name: "whole", Phase: policy.Protect.String(), Spec: []byte("{}")}},
						Backends: []ir.Backend{{Cluster: "c", Weight: 1}}}}}},
					Clusters: []*ir.Cluster{{Key: "c"}}}, "192.0.2.1")
				start := time.Now()
				for _, p := range x.pieces {
					time.Sleep(p.after)
					if _, err := io.WriteString(c, p.text); err != nil {
						t.Fatalf("writing: %v", err)
					}
				}
				res, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); res.StatusCode != x.status || took < x.min || took > x.max {
					t.Errorf("got %d after %v, want %d after %v to %v", res.StatusCode, took, x.status, x.min, x.max)
				}
			})
		})
	}
}
