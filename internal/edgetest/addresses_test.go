package edgetest

import (
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/edge"
	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// TestNoRequestComesBackToTheEdge: a backend at one of the edge's own sockets would make a circle; no request goes there, whatever
// else is allowed.
func TestNoRequestComesBackToTheEdge(t *testing.T) {
	port := FreePort(t)
	own := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
	for _, bind := range []netip.Addr{own.Addr(), netip.IPv4Unspecified(), {}} {
		r := New(t, Options{Config: Simple(), Clusters: map[string][]string{"c": {own.String()}}, Steps: Steps(), Listener: func(l *ir.Listener) {
			l.Port, l.Binds = port, []ir.Bind{{Address: bind, Port: port}}
			l.Backends = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		}})
		c := DialTo(t, own.String())
		c.Send("GET / HTTP/1.1\nHost: a\n\n")
		if res, body := c.Read("GET"); res.StatusCode != 502 || !strings.Contains(body, "backend_address_forbidden") {
			t.Errorf("bound at %v: got %d %q, want 502 backend_address_forbidden", bind, res.StatusCode, body)
		}
		r.Edge.Listeners().Close()
	}
}

// TestForbiddenAddressNeedsTheListenersException: an address that is refused in general can be used by the listener that makes an
// exception and by no other, also while connections that it made lie in the pool.
func TestForbiddenAddressNeedsTheListenersException(t *testing.T) {
	b := HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	cfg := Simple()
	r := New(t, Options{Config: cfg, Clusters: map[string][]string{"c": {b}}, Steps: Steps(),
		Edge: func(o *edge.Options) { o.Allow = func(a netip.Addr) bool { return !a.IsLoopback() } }})
	ask := func(addr string) (int, string) {
		c := DialTo(t, addr)
		defer c.Close()
		c.Send("GET / HTTP/1.1\nHost: a\n\n")
		res, body := c.Read("GET")
		return res.StatusCode, body
	}
	if code, body := ask(r.Addr); code != 502 || !strings.Contains(body, "backend_address_forbidden") {
		t.Errorf("without an exception: %d %q, want 502 backend_address_forbidden", code, body)
	}
	port := FreePort(t)
	next := *cfg
	strict := *cfg.Listeners[0]
	open := strict
	open.Key, open.Group, open.Port = "test2", "Test2", port
	open.Binds = []ir.Bind{{Address: netip.AddrFrom4([4]byte{127, 0, 0, 1}), Port: port}}
	open.Backends = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	next.Listeners = []*ir.Listener{&strict, &open}
	host := *cfg.Hosts[0]
	host.Listener = "test2"
	next.Hosts = []*ir.Host{cfg.Hosts[0], &host}
	r.Publish(&next, map[string][]string{"c": {b}}, nil)
	openAddr := netip.AddrPortFrom(open.Binds[0].Address, port).String()
	for range 2 {
		if code, body := ask(openAddr); code != 200 {
			t.Errorf("with an exception: %d %q, want 200", code, body)
		}
		if code, body := ask(r.Addr); code != 502 || !strings.Contains(body, "backend_address_forbidden") {
			t.Errorf("without one, while a connection is kept: %d %q, want 502", code, body)
		}
	}
}
