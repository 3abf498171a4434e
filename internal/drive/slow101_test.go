package drive_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// TestRelayReadsBesideTheWatch: when the backend takes its time with the 101, the client is watched meanwhile; that ends before the relay
// reads, or the watch would take bytes of the new protocol.
func TestRelayReadsBesideTheWatch(t *testing.T) {
	pair := edgetest.Certificate(t, "shop.example")
	b := edgetest.Backend(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		time.Sleep(150 * time.Millisecond) // longer than the edge waits before it looks at the client
		if _, err := io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"); err != nil {
			return
		}
		_, _ = io.Copy(c, r)
	})
	r := one(t, b, func(o *edgetest.Options) {
		o.Listener = func(l *ir.Listener) {
			l.Protocol, l.TLS = ir.HTTPS, &ir.TLS{Certificates: []ir.Certificate{{Handle: "tls"}}}
		}
		o.Secrets = secret.Set{"tls": pair.Material}
	})
	c := r.Dial()
	c.Conn = tls.Client(c.Conn, &tls.Config{RootCAs: pair.Pool, ServerName: "shop.example"})
	c.R = bufio.NewReader(c.Conn)
	c.Send("GET / HTTP/1.1\nHost: shop.example\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\n")
	if res, err := http.ReadResponse(c.R, nil); err != nil || res.StatusCode != 101 {
		t.Fatalf("got %v, %v; want 101", res, err)
	}
	for i := range 200 {
		want := fmt.Sprintf("message %03d", i)
		if _, err := io.WriteString(c, want); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c.R, got); err != nil || string(got) != want {
			t.Fatalf("got %q, %v; want %q", got, err, want)
		}
	}
}
