package edgetest_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/listener"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/proxy"
)

// TestHalfHeadsAreShedBeforeAnythingIsRefused: from 80 % on, clients that sent a part of a head are closed, the longest first, while requests
// are still answered.
func TestHalfHeadsAreShedBeforeAnythingIsRefused(t *testing.T) {
	r, set := fill(t, says(t, "x"))
	half := r.Dial()
	half.Send("GET / HTTP/1.1\nHost: a\nX: " + strings.Repeat("a", 3000))
	set(899, proxy.LoadNormal)
	isShed(t, r, listener.Heading)
	if b, err := half.R.ReadByte(); err == nil {
		t.Errorf("the client whose head is not complete read %q, want its connection closed", b)
	}
	c := r.Dial()
	c.Send("GET / HTTP/1.1\nHost: a\n\n")
	if res, body := c.Read("GET"); res.StatusCode != 200 || body != "x" {
		t.Errorf("got %d %q, want 200", res.StatusCode, body)
	}
	if n := r.Edge.Listeners().ShedCount(listener.Heading); n != 1 {
		t.Errorf("%d half heads were shed, want 1", n)
	}
}

// isShed waits until a connection was shed at h.
func isShed(t *testing.T, r *edgetest.Rig, h listener.Holding) {
	t.Helper()
	for limit := time.Now().Add(edgetest.Wait); r.Edge.Listeners().ShedCount(h) == 0; runtime.Gosched() {
		if time.Now().After(limit) {
			t.Fatalf("no connection was shed at %s", h)
		}
	}
}

// silent is a backend that takes requests and says nothing.
func silent(t *testing.T) (addr string, asked <-chan struct{}) {
	ch := make(chan struct{}, 8)
	return edgetest.Backend(t, func(c net.Conn) {
		p := make([]byte, 4096)
		for {
			if _, err := c.Read(p); err != nil {
				return
			}
			ch <- struct{}{}
		}
	}), ch
}

// overloaded reads an answer that says that there is too little memory, and its line of the log.
func overloaded(t *testing.T, r *edgetest.Rig, c *edgetest.Client) {
	t.Helper()
	res, body := c.Read("GET")
	if res.StatusCode != 503 || !res.Close || !strings.Contains(body, `"reason":"overloaded"`) {
		t.Errorf("got %d, closing: %v, %q; want 503 overloaded and the end", res.StatusCode, res.Close, body)
	}
	if line := r.Log.Next(t); !strings.Contains(line, `"reason":"overloaded"`) || !strings.Contains(line, `"status":503`) {
		t.Errorf("log line %s does not say 503 overloaded", line)
	}
}

// TestWaitingRequestsAreToldWhenTheyAreShed: from 95 % on, who waits for a backend gets an answer, not a reset; before, the wait goes on.
func TestWaitingRequestsAreToldWhenTheyAreShed(t *testing.T) {
	addr, asked := silent(t)
	r, set := fill(t, addr)
	c := r.Dial()
	c.Send("GET / HTTP/1.1\nHost: a\n\n")
	<-asked
	set(949, proxy.LoadRefusing)
	isShedNot(t, r, listener.Stalled)
	set(950, proxy.LoadShedding)
	isShed(t, r, listener.Stalled)
	overloaded(t, r, c)
}

// isShedNot has connections shed at what is shed early, and sees that none is at h.
func isShedNot(t *testing.T, r *edgetest.Rig, h listener.Holding) {
	t.Helper()
	half := r.Dial()
	half.Send("GET / HTTP/1.1\nHost: a\nX: ")
	isShed(t, r, listener.Heading)
	if line := r.Log.Next(t); !strings.Contains(line, `"reason":"overloaded"`) {
		t.Errorf("log line %s does not say overloaded", line)
	}
	if n := r.Edge.Listeners().ShedCount(h); n != 0 {
		t.Errorf("%d connections were shed at %s, want none yet", n, h)
	}
}

// TestCollectedBodiesAreShedWhileNothingComes: from 95 % on a body that is being collected is refused at once, not with its next piece.
func TestCollectedBodiesAreShedWhileNothingComes(t *testing.T) {
	r, set := fill(t, says(t, "x"), &ir.Step{Name: "whole", Phase: policy.Protect.String(), Spec: []byte("{}")})
	c := r.Dial()
	c.Send("POST / HTTP/1.1\nHost: a\nContent-Length: 100\n\nhalf")
	set(950, proxy.LoadShedding)
	isShed(t, r, listener.Collecting)
	overloaded(t, r, c)
}

// TestRelaysAreShed: from 95 % on; the log says why a WebSocket ended.
func TestRelaysAreShed(t *testing.T) {
	addr, conns := edgetest.Upgraded(t, "websocket")
	r, set := fill(t, addr)
	client, backend := edgetest.Open(t, r.Dial(), "websocket", conns)
	client.Send(t, client.Bytes(edgetest.Text("hello")))
	backend.Expect(t, edgetest.Text("hello"))
	set(950, proxy.LoadShedding)
	isShed(t, r, listener.Relaying)
	if m, _, err := client.Next(); err == nil {
		t.Errorf("the client read %q, want its connection closed", m.Data)
	}
	if line := r.Log.Next(t); !strings.Contains(line, `"reason":"overloaded"`) || !strings.Contains(line, `"status":101`) {
		t.Errorf("log line %s does not say 101 overloaded", line)
	}
}

// TestLingeringConnectionsAreShed: a client that has its answer and goes on holding its connection is closed before anything is refused.
func TestLingeringConnectionsAreShed(t *testing.T) {
	r, set := fill(t, says(t, "x"))
	c := r.Dial()
	c.Send("NO\x01SENSE\n\n")
	if res, _ := c.Read("GET"); res.StatusCode != 400 {
		t.Fatalf("got %d, want 400", res.StatusCode)
	}
	set(899, proxy.LoadNormal)
	isShed(t, r, listener.Lingering)
}

// TestNoHeadGrowsWhenMemoryIsShort: a head of more than one buffer is refused then, and only then.
func TestNoHeadGrowsWhenMemoryIsShort(t *testing.T) {
	r := edgetest.New(t, edgetest.Options{Config: edgetest.Simple(), Clusters: map[string][]string{"c": {says(t, "x")}}, Steps: edgetest.Steps()})
	for _, x := range []struct {
		short bool
		size  int
		want  int
	}{{false, 20_000, 200}, {true, 20_000, 503}, {true, 10_000, 200}, {false, 20_000, 200}} {
		r.Edge.Driver().Tighten(x.short)
		c := r.Dial()
		c.Send("GET / HTTP/1.1\nHost: a\nX: " + strings.Repeat("a", x.size) + "\n\n")
		if res, body := c.Read("GET"); res.StatusCode != x.want || (x.want == 503) != strings.Contains(body, `"reason":"overloaded"`) {
			t.Errorf("short: %v, a head of %d bytes: got %d %q, want %d", x.short, x.size, res.StatusCode, body, x.want)
		}
	}
}

// TestConnectionsPerAddress: one connection too many of an address is reset, before anything is read of it, and counted; other addresses, and
// the next one after another has ended, are served. With the PROXY protocol it is the address in its header.
func TestConnectionsPerAddress(t *testing.T) {
	for _, x := range []struct {
		name         string
		client       ir.Client
		one, another string
	}{
		{"PROXY protocol", ir.Client{Address: "ProxyProtocol", Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
			"PROXY TCP4 192.0.2.7 192.0.2.8 4000 80\n", "PROXY TCP4 192.0.2.9 192.0.2.8 4000 80\n"},
		{"TCP", ir.Client{}, "", ""},
	} {
		t.Run(x.name, func(t *testing.T) {
			x.client.ConnectionsPerAddress = 2
			r := rig(t, says(t, "x"), client(x.client))
			served := func(head string) *edgetest.Client {
				c := r.Dial()
				c.Send(head + "GET / HTTP/1.1\nHost: a\n\n")
				if res, _ := c.Read("GET"); res.StatusCode != 200 {
					t.Fatalf("got %d, want 200", res.StatusCode)
				}
				return c
			}
			first := served(x.one)
			served(x.one)
			if c, err := net.Dial("tcp", r.Addr); err == nil { // else the reset was there already
				defer func() { _ = c.Close() }()
				_ = c.SetDeadline(time.Now().Add(edgetest.Wait))
				_, _ = io.WriteString(c, strings.ReplaceAll(x.one, "\n", "\r\n")) // fails if the reset came first
				if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("a third connection: %v, want a reset", err)
				}
			}
			if n := r.Edge.Listeners().Stats().Crowded; n != 1 {
				t.Errorf("%d connections were counted, want 1", n)
			}
			if x.another != "" {
				served(x.another)
			}
			open := r.Edge.Listeners().Stats().Open
			first.Close()
			for limit := time.Now().Add(edgetest.Wait); r.Edge.Listeners().Stats().Open >= open; runtime.Gosched() {
				if time.Now().After(limit) {
					t.Fatal("the closed connection still counts")
				}
			}
			served(x.one)
		})
	}
}
