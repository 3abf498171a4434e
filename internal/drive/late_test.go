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

// TestLateUpgradeIsDeaf: a backend that takes its time to change the protocol gets what the client sends after it.
func TestLateUpgradeIsDeaf(t *testing.T) {
	pair := edgetest.Certificate(t, "shop.example")
	for _, secure := range []bool{false, true} {
		for _, protocol := range []string{"websocket"} {
			t.Run(fmt.Sprint("TLS ", secure, " ", protocol), func(t *testing.T) {
				b := edgetest.Backend(t, func(c net.Conn) {
					r := bufio.NewReader(c)
					if _, err := http.ReadRequest(r); err != nil {
						return
					}
					time.Sleep(300 * time.Millisecond)
					_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
					_, _ = io.Copy(c, r)
				})
				r := one(t, b, func(o *edgetest.Options) {
					o.Listener = func(l *ir.Listener) {
						if secure {
							l.Protocol, l.TLS = ir.HTTPS, &ir.TLS{Certificates: []ir.Certificate{{Handle: "tls"}}}
						}
					}
					o.Secrets = secret.Set{"tls": pair.Material}
				})
				c := r.Dial()
				if secure {
					c.Conn = tls.Client(c.Conn, &tls.Config{RootCAs: pair.Pool, ServerName: "shop.example"})
					c.R = bufio.NewReader(c.Conn)
				}
				_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
				res, err := http.ReadResponse(c.R, nil)
				if err != nil || res.StatusCode != 101 {
					t.Fatalf("got %v, %v, want 101", res, err)
				}
				_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
				for i := range 3 {
					want := string(rune('a'+i)) + "bcdefghij"
					_, _ = io.WriteString(c, want)
					got := make([]byte, 10)
					if n, err := io.ReadFull(c.R, got); err != nil || string(got) != want {
						t.Fatalf("echo %d: got %q, %v, want %q", i, got[:n], err, want)
					}
				}
			})
		}
	}
}
