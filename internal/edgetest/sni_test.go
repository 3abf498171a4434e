package edgetest_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/listener"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// TestMisdirectedAcrossListeners: what a connection may reach is decided by the name it was made for. Two HTTPS listeners share a
// socket; a request for the other one's host on a connection of the first is 421, as its certificate said nothing about it.
func TestMisdirectedAcrossListeners(t *testing.T) {
	one, wild := edgetest.Certificate(t, "one.example"), edgetest.Certificate(t, "*.two.example")
	b := edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) }))
	port := edgetest.FreePort(t)
	bind := []ir.Bind{{Address: netip.AddrFrom4([4]byte{127, 0, 0, 1}), Port: port}}
	gateway := func(key, host, handle string) *ir.Listener {
		return &ir.Listener{Key: key, Group: "G", Port: port, Protocol: ir.HTTPS, Hostname: host, Binds: bind,
			Source: ir.Source{Kind: "Gateway", Namespace: "test", Name: "g"}, TLS: &ir.TLS{Certificates: []ir.Certificate{{Handle: handle}}}}
	}
	route := func(l string) *ir.Host {
		return &ir.Host{Listener: l, Routes: []*ir.Route{{Name: "r/" + l, Backends: []ir.Backend{{Cluster: "c", Weight: 1}}}}}
	}
	r := edgetest.New(t, edgetest.Options{Config: edgetest.Simple(), Steps: edgetest.Steps(), Clusters: map[string][]string{"c": {b}}})
	cfg := &ir.Config{Clusters: edgetest.Simple().Clusters,
		Listeners: []*ir.Listener{gateway("one", "one.example", "Secret/test/one"), gateway("two", "*.two.example", "Secret/test/two")},
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
	for _, sni := range []string{"nobody.example", ""} { // of two listeners with hostnames neither is chosen without a name
		if nc, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, ServerName: sni}); err == nil {
			nc.Close()
			t.Errorf("a handshake for %q succeeded, which no listener takes", sni)
		}
	}
	limit := time.Now().Add(edgetest.Wait) // the client sees the alert a little before the server has counted it
	for r.Edge.Listeners().HandshakeFailures(listener.UnrecognizedName) != 2 {
		if time.Now().After(limit) {
			t.Fatalf("handshakes refused as unrecognized_name = %d, want 2", r.Edge.Listeners().HandshakeFailures(listener.UnrecognizedName))
		}
		runtime.Gosched()
	}
}

// TestNoServerNameReachesOnlyTheListenerChosen: a client without SNI gets the listener of any name, with its certificate, and no host of
// another one; H3, C1: the certificates name nothing that clients ask for.
func TestNoServerNameReachesOnlyTheListenerChosen(t *testing.T) {
	b := edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) }))
	port := edgetest.FreePort(t)
	ip := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	addr := netip.AddrPortFrom(ip, port).String()
	gateway := func(key, host string) *ir.Listener {
		return &ir.Listener{Key: key, Group: "G", Port: port, Protocol: ir.HTTPS, Hostname: host, Binds: []ir.Bind{{Address: ip, Port: port}},
			Source: ir.Source{Kind: "Gateway", Namespace: "test", Name: "g"}, TLS: &ir.TLS{Certificates: []ir.Certificate{{Handle: "Secret/test/" + key}}}}
	}
	route := func(l string) *ir.Host {
		return &ir.Host{Listener: l, Routes: []*ir.Route{{Name: "r/" + l, Backends: []ir.Backend{{Cluster: "c", Weight: 1}}}}}
	}
	secrets := secret.Set{"Secret/test/any": edgetest.Certificate(t, "CN=any").Material, "Secret/test/one": edgetest.Certificate(t, "other.test").Material}
	clusters := map[string][]string{"c": {b}}
	r := edgetest.New(t, edgetest.Options{Config: edgetest.Simple(), Steps: edgetest.Steps(), Clusters: clusters})
	ask := func(what, sni, host, certificate string, status int) {
		t.Helper()
		nc, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, ServerName: sni})
		if err != nil {
			t.Errorf("%s: handshake for %q: %v", what, sni, err)
			return
		}
		defer nc.Close()
		if got := nc.ConnectionState().PeerCertificates[0].Subject.CommonName; got != certificate {
			t.Errorf("%s: certificate for %q = %s, want %s", what, sni, got, certificate)
		}
		c := &edgetest.Client{Conn: nc, T: t, R: bufio.NewReader(nc)}
		c.Send("GET / HTTP/1.1\nHost: " + host + "\n\n")
		if res, body := c.Read("GET"); res.StatusCode != status {
			t.Errorf("%s: SNI %q, Host %s: %d %q, want %d", what, sni, host, res.StatusCode, body, status)
		}
	}
	publish := func(hosts []*ir.Host, ls ...*ir.Listener) {
		t.Helper()
		r.Publish(&ir.Config{Clusters: edgetest.Simple().Clusters, Listeners: ls, Hosts: hosts}, clusters, secrets)
	}
	publish([]*ir.Host{route("any"), route("one")}, gateway("any", ""), gateway("one", "one.example"))
	ask("two", "", addr, "any", 200)
	ask("two", "", "whatever.example", "any", 200)
	ask("two", "", "one.example", "any", 421)
	ask("two", "one.example", "one.example", "other.test", 200)
	ask("two", "ONE.example", "one.example", "other.test", 200)
	ask("two", "x.example", "one.example", "any", 421)
	ask("two", "one.example", "x.example", "other.test", 421)
	publish([]*ir.Host{route("one")}, gateway("one", "one.example"))
	ask("the only one", "", "one.example", "other.test", 200)
	ask("the only one", "", "x.example", "other.test", 404)
	ask("the only one", "", addr, "other.test", 404)

	// A second listener comes while a connection without a name is open: it was made for none of them now.
	nc, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c := &edgetest.Client{Conn: nc, T: t, R: bufio.NewReader(nc)}
	secrets = maps.Clone(secrets)
	secrets["Secret/test/two"] = edgetest.Certificate(t, "two.example").Material
	publish([]*ir.Host{route("one"), route("two")}, gateway("one", "one.example"), gateway("two", "two.example"))
	c.Send("GET / HTTP/1.1\nHost: two.example\n\n")
	if res, _ := c.Read("GET"); res.StatusCode != 421 {
		t.Errorf("a listener that came later, on a connection without a name: %d, want 421", res.StatusCode)
	}
}
