package drive_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// records reads until what it read ends a chunked body, and counts the records that it came in: a read over TLS never spans two of them.
func records(r io.Reader) (n int) {
	var all []byte
	p := make([]byte, 64<<10)
	for !bytes.HasSuffix(all, []byte("\r\n0\r\n\r\n")) {
		k, err := r.Read(p)
		if err != nil {
			return -1
		}
		all = append(all, p[:k]...)
		n++
	}
	return n
}

// TestAWriteForEveryChunk: however small the chunks of a body are, those that came together leave together, in both directions.
func TestAWriteForEveryChunk(t *testing.T) {
	const most = 20 // some for what the kernel brings in pieces; the chunks are a thousand
	crumbs := strings.Repeat("a\r\n0123456789\r\n", 1000) + "0\r\n\r\n"
	pair := edgetest.Certificate(t, "web.internal")

	seen := make(chan int, 1)
	var conns atomic.Int32
	b := overBackend(t, "127.0.0.1:0", pair, tls.VersionTLS13, &conns, func(h io.ReadWriter, _ *gather) {
		seen <- records(h)
		_, _ = io.WriteString(h, answer("ok"))
	})
	c := trusting(t, pair, tls.VersionTLS13, b).Dial()
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"+crumbs); err != nil {
		t.Fatal(err)
	}
	c.Read("POST")
	if n := <-seen; n < 1 || n > most {
		t.Errorf("a request of 1,000 chunks went in %d writes, want at most %d", n, most)
	}

	plain := edgetest.Backend(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 4096))
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+crumbs)
	})
	r := one(t, plain, func(o *edgetest.Options) {
		o.Listener = func(l *ir.Listener) {
			l.Protocol, l.TLS = ir.HTTPS, &ir.TLS{Certificates: []ir.Certificate{{Handle: "Secret/test/tls"}}}
		}
		o.Secrets = secret.Set{"Secret/test/tls": pair.Material}
	})
	nc, err := tls.Dial("tcp", r.Addr, &tls.Config{RootCAs: pair.Pool, ServerName: "web.internal"})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := io.WriteString(nc, "GET / HTTP/1.1\r\nHost: web.internal\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if n := records(nc); n < 1 || n > most {
		t.Errorf("a response of 1,000 chunks came in %d writes, want at most %d", n, most)
	}
}
