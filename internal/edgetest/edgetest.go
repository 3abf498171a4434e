// Package edgetest runs an edge inside a test: real sockets on loopback, backends written out byte by byte, a raw client. Only tests
// import it.
package edgetest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/edge"
	"github.com/gatehouse-io/gatehouse/internal/feed"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/secret"
	"github.com/gatehouse-io/gatehouse/internal/telemetry"
)

// Wait is how long a test waits for what must happen.
const Wait = 10 * time.Second

// Rig is an edge that serves one listener, "test", on loopback.
type Rig struct {
	T        testing.TB
	Edge     *edge.Edge
	Feed     *feed.Memory
	Recorder *telemetry.Recorder
	Addr     string // of the listener
	Log      *Lines // of the access log
}

// Options of a Rig.
type Options struct {
	Steps    []policy.Step
	Listener func(*ir.Listener)  // changes the listener
	Config   *ir.Config          // without listeners: its hosts name the listener "test"
	Clusters map[string][]string // cluster key -> addresses
	Secrets  secret.Set
	Edge     func(*edge.Options) // changes the edge's own options
}

// New starts an edge and waits until it serves. It ends with the test.
func New(t testing.TB, o Options) *Rig {
	t.Helper()
	lines := &Lines{ch: make(chan string, 4096)}
	rec, err := telemetry.New(telemetry.Options{AccessLog: "stdout", Stdout: lines})
	if err != nil {
		t.Fatal(err)
	}
	r := &Rig{T: t, Feed: &feed.Memory{}, Recorder: rec, Log: lines}
	eo := edge.Options{Feed: r.Feed, Steps: o.Steps, Recorder: rec, Log: slog.New(slog.DiscardHandler)}
	if o.Edge != nil {
		o.Edge(&eo)
	}
	r.Edge = edge.New(eo)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		r.Edge.Run(ctx)
		close(done)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		stop, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		r.Edge.Drain(stop, 0)
		_ = rec.Close()
	})
	port := FreePort(t)
	l := &ir.Listener{Key: "test", Group: "Test", Port: port, Protocol: ir.HTTP, Source: ir.Source{Kind: "Gateway", Namespace: "test", Name: "test"},
		Binds: []ir.Bind{{Address: netip.AddrFrom4([4]byte{127, 0, 0, 1}), Port: port}}}
	if o.Listener != nil {
		o.Listener(l)
	}
	r.Addr = netip.AddrPortFrom(l.Binds[0].Address, port).String()
	o.Config.Listeners = []*ir.Listener{l}
	r.Publish(o.Config, o.Clusters, o.Secrets)
	return r
}

// Publish puts a configuration live and waits until it is.
func (r *Rig) Publish(c *ir.Config, clusters map[string][]string, secrets secret.Set) {
	r.T.Helper()
	es := ir.Endpoints{}
	for k, as := range clusters {
		es[k] = []ir.Endpoint{}
		for _, a := range as {
			ap := netip.MustParseAddrPort(a)
			es[k] = append(es[k], ir.Endpoint{Host: ap.Addr().String(), Port: ap.Port(), Ready: true, Serving: true})
		}
	}
	var want uint64
	r.Feed.Update(func(s *feed.State) (bool, bool, bool) {
		s.Config, s.Endpoints, s.Secrets = c, es, secrets
		want = s.ConfigVersion + 1
		return true, true, true
	})
	limit := time.After(Wait)
	for {
		a, changed := r.Feed.Acked()
		if a.ConfigVersion >= want {
			for k, l := range a.Listeners {
				if l.Problem != "" {
					r.T.Fatalf("listener %s: %s", k, l.Problem)
				}
			}
			return
		}
		select {
		case <-changed:
		case <-limit:
			r.T.Fatal("the configuration did not become live")
		}
	}
}

// FreePort returns a port that was free a moment ago, at every address. It lies below those that systems give to connections by
// themselves, so that none of these has it before it is bound.
func FreePort(t testing.TB) uint16 {
	for range 1000 {
		port := 20000 + rand.IntN(12000)
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			continue
		}
		_ = l.Close()
		return uint16(port)
	}
	t.Fatal("there is no free port")
	return 0
}

// Simple is a configuration of one host for all names with one route, prefix "/", to cluster "c".
func Simple() *ir.Config {
	return &ir.Config{
		Hosts: []*ir.Host{{Listener: "test", Routes: []*ir.Route{{Name: "HTTPRoute/test/r/0/0",
			Source:   ir.Source{Kind: "HTTPRoute", Namespace: "test", Name: "r", Field: "spec.rules[0]"},
			Match:    ir.Match{Path: ir.PathMatch{Kind: ir.PathPrefix, Value: "/"}},
			Backends: []ir.Backend{{Cluster: "c", Weight: 1}}}}}},
		Clusters: []*ir.Cluster{{Key: "c", Source: ir.Source{Kind: "Service", Namespace: "test", Name: "c"}}},
	}
}

// Backend accepts connections and serves each with a function in a goroutine of its own.
func Backend(t testing.TB, serve func(c net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(6 * Wait))
				serve(c)
			}()
		}
	}()
	return l.Addr().String()
}

// HTTPBackend serves a handler with net/http.
func HTTPBackend(t testing.TB, h http.Handler) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	t.Cleanup(func() { s.Close() })
	go func() { _ = s.Serve(l) }()
	return l.Addr().String()
}

// Dial opens a connection to the rig's listener.
func (r *Rig) Dial() *Client { return DialTo(r.T, r.Addr) }

// Client is a raw client.
type Client struct {
	net.Conn
	T testing.TB
	R *bufio.Reader
}

// DialTo opens a raw client.
func DialTo(t testing.TB, addr string) *Client {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(3 * Wait))
	return &Client{Conn: c, T: t, R: bufio.NewReader(c)}
}

// Send writes text in which "\n" stands for CRLF.
func (c *Client) Send(text string) {
	c.T.Helper()
	if _, err := io.WriteString(c, strings.ReplaceAll(text, "\n", "\r\n")); err != nil {
		c.T.Fatalf("sending: %v", err)
	}
}

// Read reads one response to a request of the method, with its body.
func (c *Client) Read(method string) (*http.Response, string) {
	c.T.Helper()
	res, err := http.ReadResponse(c.R, &http.Request{Method: method})
	if err != nil {
		c.T.Fatalf("reading the response: %v", err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		c.T.Fatalf("reading the body: %v (got %q)", err, b)
	}
	return res, string(b)
}

// Closed fails unless the edge closes the connection without a further byte.
func (c *Client) Closed() {
	c.T.Helper()
	if b, err := c.R.ReadByte(); err == nil {
		rest, _ := c.R.Peek(min(c.R.Buffered(), 200))
		c.T.Fatalf("connection still open; got %q", append([]byte{b}, rest...))
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		c.T.Fatal("connection still open")
	}
}

// Lines is the access log, line by line.
type Lines struct{ ch chan string }

func (l *Lines) Write(p []byte) (int, error) {
	for s := range strings.SplitSeq(strings.TrimSuffix(string(p), "\n"), "\n") {
		select {
		case l.ch <- s:
		default:
		}
	}
	return len(p), nil
}

// Next returns the next line.
func (l *Lines) Next(t testing.TB) string {
	t.Helper()
	select {
	case s := <-l.ch:
		return s
	case <-time.After(Wait):
		t.Fatal("no line in the access log")
		return ""
	}
}
