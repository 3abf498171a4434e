package drive

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http/httptest"
	"testing"
)

// BenchmarkQuiet is what a kept TLS connection costs for being looked at: once when it is kept and once when it is used again.
func BenchmarkQuiet(b *testing.B) {
	h := httptest.NewTLSServer(nil)
	defer h.Close()
	roots := x509.NewCertPool()
	roots.AddCert(h.Certificate())
	nc, err := net.Dial("tcp", h.Listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	x := newWire(nc.(*net.TCPConn))
	if err := x.client(nc.(*net.TCPConn), &tls.Config{RootCAs: roots, ServerName: "example.com", MinVersion: tls.VersionTLS13}).Handshake(); err != nil {
		b.Fatal(err)
	}
	for _, x := range []struct {
		name string
		f    func() bool
	}{{"keep", x.quiet}, {"use", x.usable}} {
		b.Run(x.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !x.f() {
					b.Fatal("not usable")
				}
			}
		})
	}
}
