package drive_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// overWire runs a test over clear text and over TLS.
func overWire(t *testing.T, backend string, retry *ir.Retry, test func(t *testing.T, dial func() *edgetest.Client)) {
	t.Run("clear text", func(t *testing.T) { test(t, retryRig(t, backend, retry, nil).Dial) })
	t.Run("TLS", func(t *testing.T) {
		pair := edgetest.Certificate(t, "a")
		r := one(t, backend, func(o *edgetest.Options) {
			o.Config.Hosts[0].Routes[0].Retry = retry
			o.Listener = func(l *ir.Listener) {
				l.Protocol, l.TLS = ir.HTTPS, &ir.TLS{Certificates: []ir.Certificate{{Handle: "Secret/test/tls"}}}
			}
			o.Secrets = secret.Set{"Secret/test/tls": pair.Material}
		})
		test(t, func() *edgetest.Client {
			nc, err := tls.Dial("tcp", r.Addr, &tls.Config{RootCAs: pair.Pool, ServerName: "a"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { nc.Close() })
			return &edgetest.Client{Conn: nc, T: t, R: bufio.NewReader(nc)}
		})
	})
}

// TestSlowUpgradeIsDeaf: a backend that takes longer to switch protocols than the edge waits before it watches its client is relayed to all
// the same: nothing but the relay reads from the client then.
func TestSlowUpgradeIsDeaf(t *testing.T) {
	b := edgetest.Backend(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		time.Sleep(250 * time.Millisecond)
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		_, _ = io.Copy(c, r)
	})
	overWire(t, b, nil, func(t *testing.T, dial func() *edgetest.Client) {
		c := dial()
		c.Send("GET / HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket\n\nearly")
		if res, err := http.ReadResponse(c.R, nil); err != nil || res.StatusCode != 101 {
			t.Fatalf("got %v, %v; want 101", res, err)
		}
		_ = c.Conn.SetReadDeadline(time.Now().Add(edgetest.Wait))
		for _, word := range []string{"early", "more", "again"} {
			if word != "early" {
				c.Send(word)
			}
			p := make([]byte, len(word))
			if _, err := io.ReadFull(c.R, p); err != nil || string(p) != word {
				t.Fatalf("relayed %q, %v; want %q", p, err, word)
			}
		}
	})
}

// TestTwoReadFromAClient: a body that goes on after a backoff, in which the client was watched, is read by the pump alone.
func TestTwoReadFromAClient(t *testing.T) {
	const chunks = 250
	var seen sync.Map
	var wrong atomic.Int32
	b := edgetest.Backend(t, func(c net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		if _, again := seen.LoadOrStore(req.URL.Path, true); !again {
			_, _ = io.ReadFull(req.Body, make([]byte, 10))
			time.Sleep(10 * time.Millisecond)
			_ = c.(*net.TCPConn).SetLinger(0)
			return
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		var want strings.Builder
		for i := range chunks {
			fmt.Fprintf(&want, "chunk %04d\n", i)
		}
		if string(body) != want.String() {
			wrong.Add(1)
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	})
	rule := &ir.Retry{Attempts: 3, Conditions: []string{ir.ConnectFailure, ir.Reset}, Backoff: ir.Duration(120 * time.Millisecond)}
	overWire(t, b, rule, func(t *testing.T, dial func() *edgetest.Client) {
		var wg sync.WaitGroup
		for i := range 8 { // the budget of further tries is 10 in a second
			c := dial()
			wg.Go(func() {
				fmt.Fprintf(c, "PUT /%s/%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", strings.ReplaceAll(t.Name(), " ", "_"), i)
				for k := range chunks {
					fmt.Fprintf(c, "b\r\nchunk %04d\n\r\n", k)
					time.Sleep(2 * time.Millisecond)
				}
				_, _ = io.WriteString(c, "0\r\n\r\n")
				_ = c.Conn.SetReadDeadline(time.Now().Add(edgetest.Wait))
				res, err := http.ReadResponse(c.R, nil)
				if err != nil || res.StatusCode != 200 {
					t.Errorf("upload %d: %v, %v; want 200", i, res, err)
				}
			})
		}
		wg.Wait()
		if n := wrong.Load(); n > 0 {
			t.Errorf("a backend took %d wrong bodies for whole ones", n)
		}
	})
}

// TestStuckUploadOutlivesItsClient: a client that is gone is noticed too while the pump waits for a backend that takes nothing.
func TestStuckUploadOutlivesItsClient(t *testing.T) {
	done := make(chan struct{})
	b := edgetest.Backend(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1))
		<-done
	})
	defer close(done)
	r := one(t, b)
	c := r.Dial()
	c.Send("PUT / HTTP/1.1\nHost: a\nContent-Length: 900000000\n\n")
	_ = c.Conn.SetWriteDeadline(time.Now().Add(time.Second))
	for p := make([]byte, 64<<10); ; {
		if _, err := c.Conn.Write(p); err != nil {
			break
		}
	}
	_ = c.Conn.(*net.TCPConn).SetLinger(0)
	c.Close()
	start := time.Now()
	if line := r.Log.Next(t); !strings.Contains(line, "client_gone") || time.Since(start) > 5*time.Second {
		t.Errorf("after %v: %s", time.Since(start), line)
	}
}
