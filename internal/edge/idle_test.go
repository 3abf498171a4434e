package edge

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/listener"
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
				rec, err := telemetry.New(telemetry.Options{})
				if err != nil {
					t.Fatal(err)
				}
				defer rec.Close()
				e := New(Options{Recorder: rec, Log: slog.New(slog.DiscardHandler)})
				hosts := []string{"a.example", "b.example"}
				cfg := &ir.Config{}
				for i, c := range x.clients {
					cfg.Listeners = append(cfg.Listeners, &ir.Listener{Key: hosts[i], Hostname: hosts[i], Group: "g", Port: 80, Protocol: ir.HTTP, Client: c})
				}
				s, faults := e.compiler.Compile(cfg)
				if len(faults) > 0 {
					t.Fatal(faults)
				}
				e.proxy.Swap(s)
				near, far := net.Pipe()
				defer far.Close()
				start := time.Now()
				e.driver.Serve(listener.Wrap(from{near, netip.AddrPortFrom(netip.MustParseAddr(x.peer), 1)}, &listener.Socket{Group: "g", Port: 80}, nil))
				if took := time.Since(start); took < x.want || took > x.want+time.Second {
					t.Errorf("closed after %v, want %v", took, x.want)
				}
			})
		})
	}
}
