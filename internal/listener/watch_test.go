package listener

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/cert"
)

// told collects what a Watch says.
type told chan bool

func (c told) want(t *testing.T, closed bool) {
	t.Helper()
	select {
	case got := <-c:
		if got != closed {
			t.Errorf("the watch said closed %v, want %v", got, closed)
		}
	case <-time.After(10 * time.Second):
		t.Errorf("the watch said nothing, want closed %v", closed)
	}
}

// secure is both ends of a TLS connection.
func secure(t *testing.T, version uint16) (*tls.Conn, *net.TCPConn, *Conn) {
	t.Helper()
	client, server := tcpPair(t)
	srv := cert.NewServer("http/1.1")
	tab := table(t)
	srv.Swap(tab)
	c := Wrap(server, &Socket{TLS: tab}, srv.Config())
	conf := insecure()
	conf.MaxVersion = version
	tc := tls.Client(client, conf)
	shaken := make(chan error, 1)
	go func() { shaken <- tc.Handshake() }()
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tc.Close(); c.Close() })
	return tc, client, c
}

// TestWatchMissesTheEnd: a client that ends is seen, behind bytes that nobody reads too, and those are read afterwards.
func TestWatchMissesTheEnd(t *testing.T) {
	pool := &heap{}
	for _, sent := range []string{"", "GET /next HTTP/1.1\r\n\r\n"} {
		a, c := pipe(t)
		says := make(told, 2)
		stop := c.Watch(pool, func(closed bool) { says <- closed })
		_, _ = io.WriteString(a, sent)
		a.CloseWrite()
		says.want(t, false)
		stop()
		if got, err := io.ReadAll(c); string(got) != sent || err != nil {
			t.Errorf("then read %q, %v; want %q", got, err, sent)
		}
		a, c = pipe(t)
		stop = c.Watch(pool, func(closed bool) { says <- closed })
		_, _ = io.WriteString(a, sent)
		_ = a.SetLinger(0)
		a.Close()
		says.want(t, true)
		stop()
	}
}

// TestWatchMissesCloseNotify: a TLS client says that it sends no more without an end of its TCP connection; alone, behind a record that
// nobody reads, and in the bytes that came with an earlier record.
func TestWatchMissesCloseNotify(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, sent := range []string{"", "GET /next HTTP/1.1\r\n\r\n"} {
			for _, early := range []bool{false, true} {
				tc, _, c := secure(t, version)
				pool := &heap{}
				says := make(told, 2)
				say := func() {
					if sent != "" {
						_, _ = io.WriteString(tc, sent)
					}
					_ = tc.CloseWrite()
				}
				if early {
					say()
				}
				stop := c.Watch(pool, func(closed bool) { says <- closed })
				if !early {
					say()
				}
				says.want(t, false)
				stop()
				buf, n, err := c.ReadPooled(pool)
				if sent != "" {
					if err != nil || string(buf[:n]) != sent {
						t.Fatalf("%#x: then read %q, %v; want %q", version, buf[:n], err, sent)
					}
					pool.Give(buf)
					_, _, err = c.ReadPooled(pool)
				}
				if err != io.EOF {
					t.Errorf("%#x: at the end: %v, want EOF", version, err)
				}
				if pool.held() != 0 {
					t.Errorf("%#x: %d buffers never came back", version, pool.held())
				}
			}
		}
	}
}

// TestWatchTakesBytes: stopping a watch takes nothing from the client and leaves no deadline behind.
func TestWatchTakesBytes(t *testing.T) {
	pool := &heap{}
	for range 50 {
		tc, _, c := secure(t, tls.VersionTLS13)
		stop := c.Watch(pool, func(closed bool) { t.Errorf("the watch said closed %v of a client that is there", closed) })
		_, _ = io.WriteString(tc, "one")
		stop()
		_, _ = io.WriteString(tc, "two")
		c.ReadWithin(time.Now(), 10*time.Second)
		p := make([]byte, 6)
		if _, err := io.ReadFull(c, p); err != nil || string(p) != "onetwo" {
			t.Fatalf("read %q, %v; want onetwo", p, err)
		}
	}
}
