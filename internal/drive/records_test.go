package drive

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http/httptest"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestRecordBoundaries: however records come in pieces, it is known whether one is left open.
func TestRecordBoundaries(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stream []byte
		ends := map[int]bool{0: true}
		for range rapid.IntRange(1, 5).Draw(t, "records") {
			n := rapid.OneOf(rapid.IntRange(0, 3), rapid.IntRange(0, 1<<14+256)).Draw(t, "length")
			stream = append(append(stream, 23, 3, 3, byte(n>>8), byte(n)), make([]byte, n)...)
			ends[len(stream)] = true
		}
		r := &records{}
		for at := 0; at < len(stream); {
			n := rapid.IntRange(1, min(len(stream)-at, 3000)).Draw(t, "piece")
			r.follow(stream[at : at+n])
			at += n
			if open := r.head != 0 || r.left != 0; open == ends[at] {
				t.Fatalf("after %d bytes: a record is open: %v, want %v", at, open, !ends[at])
			}
		}
	})
}

// TestUsableAfterTickets: tickets for later sessions that lie in the socket do not make a kept connection unusable; a byte of a
// response, a part of a record and an end do.
func TestUsableAfterTickets(t *testing.T) {
	const wait = 10 * time.Second
	h := httptest.NewTLSServer(nil) // for its certificate
	defer h.Close()
	roots := x509.NewCertPool()
	roots.AddCert(h.Certificate())
	for name, spoil := range map[string]func(server *tls.Conn, raw net.Conn){
		"a byte":           func(s *tls.Conn, _ net.Conn) { _, _ = s.Write([]byte("x")) },
		"part of a record": func(_ *tls.Conn, raw net.Conn) { _, _ = raw.Write([]byte{23, 3, 3}) },
		"an end":           func(s *tls.Conn, _ net.Conn) { _ = s.Close() },
		"a cut":            func(_ *tls.Conn, raw net.Conn) { _ = raw.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			near, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			far, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = near.Close(); _ = far.Close() }()
			server := tls.Server(far, &tls.Config{Certificates: h.TLS.Certificates, MinVersion: tls.VersionTLS13,
				ClientAuth: tls.RequestClientCert}) // then its ticket comes in a flight of its own
			shaken := make(chan error, 1)
			go func() { shaken <- server.Handshake() }()
			x := newWire(near.(*net.TCPConn))
			c := x.client(near.(*net.TCPConn), &tls.Config{RootCAs: roots, ServerName: "example.com", MinVersion: tls.VersionTLS13,
				ClientSessionCache: tls.NewLRUClientSessionCache(1)})
			if err := errors.Join(c.Handshake(), <-shaken); err != nil {
				t.Fatal(err)
			}
			arrived := func() { // something is in the socket
				t.Helper()
				if err := x.raw.Read(func(fd uintptr) bool { return !silentNow(fd) }); err != nil {
					t.Fatal(err)
				}
			}
			_ = near.SetReadDeadline(time.Now().Add(wait))
			arrived()
			_ = near.SetReadDeadline(time.Unix(1, 0)) // of an exchange that is over
			for range 2 {
				if !x.usable() {
					t.Error("not usable after a ticket")
				}
			}
			spoil(server, far)
			_ = near.SetReadDeadline(time.Now().Add(wait))
			arrived()
			if x.usable() {
				t.Error("usable")
			}
		})
	}
}
