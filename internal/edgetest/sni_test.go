package edgetest_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net/http"
	"net/netip"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// TestMisdirectedAcrossListeners: what a connection may reach is decided by the name it was made for. Two HTTPS listeners share a
// socket; a request for the other one's host on a connection of the first is 421, as its certificate said nothing about it.
func TestMisdirectedAcrossListeners(t *testing.T) {
	one, wild := edgetest.Certificate(t, "one.example"), edgetest.Certificate(t, "*.two.example")
	b := edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) }))
	port := edgetest.FreePort(t)
	bind := []ir.Bind{{Address: netip.AddrFrom4([4]byte{127, 0, 0, 1}), Port: port}}
	listener := func(key, host, handle string) *ir.Listener {
		return &ir.Listener{Key: key, Group: "G", Port: port, Protocol: ir.HTTPS, Hostname: host, Binds: bind,
			Source: ir.Source{Kind: "Gateway", Namespace: "test", Name: "g"}, TLS: &ir.TLS{Certificates: []ir.Certificate{{Handle: handle}}}}
	}
	route := func(l string) *ir.Host {
		return &ir.Host{Listener: l, Routes: []*ir.Route{{Name: "r/" + l, Backends: []ir.Backend{{Cluster: "c", Weight: 1}}}}}
	}
	r := edgetest.New(t, edgetest.Options{Config: edgetest.Simple(), Steps: edgetest.Steps(), Clusters: map[string][]string{"c": {b}}})
	cfg := &ir.Config{Clusters: edgetest.Simple().Clusters,
		Listeners: []*ir.Listener{listener("one", "one.example", "Secret/test/one"), listener("two", "*.two.example", "Secret/test/two")},
		Hosts:     []*ir.Host{route("one"), route("two")}}
	r.Publish(cfg, map[string][]string{"c": {b}}, secret.Set{"Secret/test/one": one.Material, "Secret/test/two": wild.Material})
	addr := netip.AddrPortFrom(bind[0].Address, port).String()
	for _, x := range []struct {
		sni, host string
		pair      *edgetest.Pair
		status    int
	}{
		{"one.example", "one.example", one, 200},
		{"a.two.example", "a.two.example", wild, 200},
		{"a.two.example", "b.two.example", wild, 200}, // the same listener
		{"one.example", "a.two.example", one, 421},
		{"a.two.example", "one.example", wild, 421},
		{"one.example", "other.example", one, 404},
	} {
		nc, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: x.pair.Pool, ServerName: x.sni})
		if err != nil {
			t.Errorf("handshake for %s: %v", x.sni, err)
			continue
		}
		c := &edgetest.Client{Conn: nc, T: t, R: bufio.NewReader(nc)}
		c.Send("GET / HTTP/1.1\nHost: " + x.host + "\n\n")
		if res, body := c.Read("GET"); res.StatusCode != x.status {
			t.Errorf("SNI %s, Host %s: %d %q, want %d", x.sni, x.host, res.StatusCode, body, x.status)
		}
		nc.Close()
	}
	if nc, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: one.Pool, ServerName: "nobody.example"}); err == nil {
		nc.Close()
		t.Error("a handshake for a name without a certificate succeeded")
	}
}
