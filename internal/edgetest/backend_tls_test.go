package edgetest_test

import (
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// TestBackendTLS: the name and the chain are verified, a client certificate is shown, and nothing goes in clear text instead.
func TestBackendTLS(t *testing.T) {
	server, id := edgetest.Certificate(t, "web.internal", "*.wild.internal", "spiffe://shop/web"), edgetest.Certificate(t, "edge.internal")
	pair, err := tls.X509KeyPair(server.Cert, server.Key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: id.Pool, ClientAuth: tls.VerifyClientCertIfGiven},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			name := "nobody"
			if len(r.TLS.PeerCertificates) > 0 {
				name = r.TLS.PeerCertificates[0].Subject.CommonName
			}
			_, _ = io.WriteString(w, name+" to "+r.TLS.ServerName)
		})}
	go func() { _ = s.ServeTLS(l, "", "") }()
	t.Cleanup(func() { s.Close() })
	ca := func(p *edgetest.Pair) *secret.Material {
		return &secret.Material{Data: map[string]secret.Value{"ca.crt": secret.New(p.Cert)}}
	}
	secrets := secret.Set{"ca": ca(server), "other": ca(id), "id": id.Material}
	for _, x := range []struct {
		name   string
		tls    ir.BackendTLS
		status int
		body   string
	}{
		{"verified", ir.BackendTLS{Hostname: "web.internal", CAs: []string{"ca"}}, 200, "nobody to web.internal"},
		{"client certificate", ir.BackendTLS{Hostname: "web.internal", CAs: []string{"ca"}, ClientID: "id"}, 200, "edge.internal to web.internal"},
		{"wrong name", ir.BackendTLS{Hostname: "other.internal", CAs: []string{"ca"}}, 502, ""},
		{"another name instead", ir.BackendTLS{Hostname: "sni.internal", Names: []string{"x.internal", "web.internal"}, CAs: []string{"ca"}}, 200, "nobody to sni.internal"},
		{"a URI instead", ir.BackendTLS{Hostname: "sni.internal", URIs: []string{"spiffe://shop/web"}, CAs: []string{"ca"}}, 200, "nobody to sni.internal"},
		{"a wildcard instead", ir.BackendTLS{Hostname: "sni.internal", Names: []string{"*.wild.internal"}, CAs: []string{"ca"}}, 200, "nobody to sni.internal"},
		{"the hostname does not count beside names", ir.BackendTLS{Hostname: "web.internal", Names: []string{"x.internal"}, CAs: []string{"ca"}}, 502, ""},
		{"a wildcard that is not there", ir.BackendTLS{Hostname: "web.internal", Names: []string{"*.internal"}, CAs: []string{"ca"}}, 502, ""},
		{"a URI that is not there", ir.BackendTLS{Hostname: "web.internal", URIs: []string{"spiffe://shop/web/x"}, CAs: []string{"ca"}}, 502, ""},
		{"the right name from the wrong CA", ir.BackendTLS{Hostname: "web.internal", Names: []string{"web.internal"}, CAs: []string{"other"}}, 502, ""},
		{"wrong CA", ir.BackendTLS{Hostname: "web.internal", CAs: []string{"other"}}, 502, ""},
		{"missing CA", ir.BackendTLS{Hostname: "web.internal", CAs: []string{"nosuch"}}, 503, ""},
		{"nothing to trust", ir.BackendTLS{Hostname: "web.internal"}, 503, ""},
	} {
		r := rig(t, l.Addr().String(), func(o *edgetest.Options) { o.Config.Clusters[0].TLS, o.Secrets = &x.tls, secrets })
		status, body := get(t, r.Dial(), "a", "/")
		if status != x.status || x.body != "" && body != x.body {
			t.Errorf("%s: got %d %q, want %d %q", x.name, status, body, x.status, x.body)
		}
	}
}

// TestProxyProtocolAddress: the address in the PROXY protocol's head, of both versions, is the client's.
func TestProxyProtocolAddress(t *testing.T) {
	b := edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("X-Forwarded-For"))
	}))
	r := rig(t, b, client(ir.Client{Address: "ProxyProtocol", Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}))
	for _, head := range []string{
		"PROXY TCP4 192.0.2.7 192.0.2.8 4000 80\r\n",
		"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\xc0\x00\x02\x08\x0f\xa0\x00\x50",
	} {
		c := r.Dial()
		if _, err := io.WriteString(c, head); err != nil {
			t.Fatal(err)
		}
		if status, body := get(t, c, "a", "/"); status != 200 || body != "192.0.2.7" {
			t.Errorf("%q: got %d %q, want 200 192.0.2.7", head, status, body)
		}
	}
}
