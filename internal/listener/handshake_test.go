package listener

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/cert"
	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// lines is a log that several goroutines write.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// plainAlert sends what follows the ClientHello as OpenSSL's clients do that refuse a certificate: an alert in clear text.
type plainAlert struct {
	net.Conn
	hello bool
}

func (p *plainAlert) Write(b []byte) (int, error) {
	if !p.hello {
		p.hello = true
		return p.Conn.Write(b)
	}
	const unknownCA = "\x15\x03\x03\x00\x02\x02\x30"
	if _, err := io.WriteString(p.Conn, unknownCA); err != nil {
		return 0, err
	}
	return len(b), nil
}

// C1: a refused handshake is seen: counted by reason, and logged, but not each of many.
func TestRefusedHandshakesAreCountedAndOneIsLogged(t *testing.T) {
	log := &lines{}
	ended := make(chan error, 1)
	s := newSet(t, Options{Log: slog.New(slog.NewTextHandler(log, nil)), Serve: func(c *Conn) { ended <- c.Handshake() }})
	s.Start()
	w := on(loopback, 0, "g")
	full := cert.NewTable(nil, []cert.Entry{{Hostname: "shop.example", Store: storeOf(t)}, {Hostname: "x.example"}})
	w.TLS = full
	addr := apply(t, s, w)
	shake := func(conf *tls.Config) func(net.Conn) {
		return func(c net.Conn) { _ = tls.Client(c, conf).Handshake() }
	}
	long := strings.Repeat("a", 5000)
	for _, c := range []struct {
		what string
		do   func(net.Conn)
		want Failure
	}{
		{"a name without a listener", shake(&tls.Config{ServerName: "nobody.example\n" + long, InsecureSkipVerify: true}), UnrecognizedName},
		{"another", shake(&tls.Config{ServerName: "second.example", InsecureSkipVerify: true}), UnrecognizedName},
		{"a listener without a certificate", shake(&tls.Config{ServerName: "x.example", InsecureSkipVerify: true}), UnrecognizedName},
		{"no name", shake(&tls.Config{InsecureSkipVerify: true}), UnrecognizedName},
		{"old TLS", shake(&tls.Config{ServerName: "shop.example", InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}), Protocol},
		{"clear text", func(c net.Conn) { _, _ = io.WriteString(c, "GET / HTTP/1.1\r\n\r\n") }, Protocol},
		{"a client that does not trust it", shake(&tls.Config{ServerName: "shop.example"}), ClientAlert},
		{"an OpenSSL client that does not trust it", func(c net.Conn) {
			_ = tls.Client(&plainAlert{Conn: c}, &tls.Config{ServerName: "shop.example"}).Handshake()
		}, ClientAlert},
		{"a client that goes", func(c net.Conn) { _ = c.Close() }, Closed},
	} {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		before := s.HandshakeFailures(c.want)
		c.do(nc)
		select {
		case err = <-ended:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: the handshake did not end", c.what)
		}
		if got := s.HandshakeFailures(c.want); err == nil || got != before+1 {
			t.Errorf("%s: error %v, %s counted %d times more, want once", c.what, err, c.want, got-before)
		}
		nc.Close()
	}
	if got := s.Stats().HandshakeFailures; got != 9 {
		t.Errorf("failures in all = %d, want 9", got)
	}
	got := log.String()
	if n := strings.Count(got, "TLS handshake refused"); n != 1 || !strings.Contains(got, `nobody.example\n`) || strings.Contains(got, strings.Repeat("a", 200)) {
		t.Errorf("log has %d lines about refused names, want one, quoted and cut:\n%s", n, got)
	}
	if got := failureOf(&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}); got != Timeout {
		t.Errorf("failure of a read that timed out = %s, want timeout", got)
	}
}

// A table of certificates is made anew only if something in it changed.
func TestSocketsKeepTablesThatDidNotChange(t *testing.T) {
	bind := func(p uint16) []ir.Bind { return []ir.Bind{{Port: p}} }
	ls := []*ir.Listener{
		{Key: "a", Group: "g", Port: 1, Protocol: ir.HTTPS, Binds: bind(1)},
		{Key: "b", Group: "g", Port: 2, Protocol: ir.HTTPS, Binds: bind(2)},
	}
	stores := map[string]*cert.Store{"a": storeOf(t), "b": storeOf(t)}
	one, _ := Sockets(nil, ls, stores, nil)
	stores["b"] = storeOf(t)
	two, _ := Sockets(one, ls, stores, nil)
	three, _ := Sockets(two, ls, stores, func(key string) bool { return key == "a" })
	if one[0].TLS != two[0].TLS || one[1].TLS == two[1].TLS || two[0].TLS == three[0].TLS || two[1].TLS != three[1].TLS {
		t.Error("tables are kept if and only if neither a store nor a demand for certificates changed")
	}
}

// BenchmarkSocketsOf10000: 10,000 listeners of one port; "kept": nothing in its table changed.
func BenchmarkSocketsOf10000(b *testing.B) {
	stores := map[string]*cert.Store{}
	var ls []*ir.Listener
	for i := range 10000 {
		l := &ir.Listener{Key: fmt.Sprint(i), Group: "g", Port: 1, Protocol: ir.HTTPS, Hostname: fmt.Sprintf("h%d.test", i), Binds: []ir.Bind{{Port: 1}}}
		ls, stores[l.Key] = append(ls, l), &cert.Store{}
	}
	one, _ := Sockets(nil, ls, stores, nil)
	b.Run("kept", func(b *testing.B) {
		for b.Loop() {
			Sockets(one, ls, stores, nil)
		}
	})
	b.Run("made", func(b *testing.B) {
		for b.Loop() {
			Sockets(nil, ls, stores, nil)
		}
	})
}
