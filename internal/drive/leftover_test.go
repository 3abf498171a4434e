package drive_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// gather holds back what is written until flush, so that several records leave in one segment.
type gather struct {
	net.Conn
	hold bool
	b    bytes.Buffer
}

func (g *gather) Write(p []byte) (int, error) {
	if g.hold {
		return g.b.Write(p)
	}
	return g.Conn.Write(p)
}

// flush writes n bytes of what was held, -1: all, in one go.
func (g *gather) flush(n int) {
	if n < 0 {
		n = g.b.Len()
	}
	_, _ = g.Conn.Write(g.b.Next(n))
}

// protocols are what a backend may be spoken to by; 0 is cleartext.
var protocols = map[string]uint16{"cleartext": 0, "TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13}

// overBackend serves each connection with what it makes of the carrier of HTTP and the wire beneath, and counts connections.
func overBackend(t *testing.T, at string, pair *edgetest.Pair, version uint16, conns *atomic.Int32, serve func(http io.ReadWriter, wire *gather)) string {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	cert, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	conf := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: version, MaxVersion: version}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Add(1)
			go func() {
				defer func() { _ = c.Close() }()
				g := &gather{Conn: c}
				if version == 0 {
					serve(g, g)
					return
				}
				if s := tls.Server(g, conf); s.Handshake() == nil {
					serve(s, g)
				}
			}()
		}
	}()
	return l.Addr().String()
}

// trusting makes a rig for backends that speak a protocol.
func trusting(t *testing.T, pair *edgetest.Pair, version uint16, backends ...string) *edgetest.Rig {
	t.Helper()
	return one(t, backends[0], func(o *edgetest.Options) {
		o.Clusters["c"] = backends
		if version != 0 {
			o.Config.Clusters[0].TLS = &ir.BackendTLS{Hostname: "web.internal", CAs: []string{"ca"}}
			o.Secrets = secret.Set{"ca": {Data: map[string]secret.Value{"ca.crt": secret.New(pair.Cert)}}}
		}
	})
}

const poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON"

func answer(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// overWrites are the ways in which a backend writes more than it said, all in one segment.
var overWrites = map[string]func(http io.Writer, wire *gather, good string){
	"in the same record": func(h io.Writer, g *gather, good string) {
		_, _ = io.WriteString(h, good+poison)
		g.flush(-1)
	},
	"in a second record": func(h io.Writer, g *gather, good string) {
		_, _ = io.WriteString(h, good)
		_, _ = io.WriteString(h, poison)
		g.flush(-1)
	},
	"in a record larger than the buffer's room": func(h io.Writer, g *gather, good string) {
		_, _ = io.WriteString(h, good)
		_, _ = io.WriteString(h, poison+strings.Repeat("x", 16000))
		g.flush(-1)
	},
	"in a third record, after a large response": func(h io.Writer, g *gather, good string) {
		big := answer(good[strings.Index(good, "\r\n\r\n")+4:] + strings.Repeat(" ", 30000))
		_, _ = io.WriteString(h, big)
		_, _ = io.WriteString(h, poison)
		g.flush(-1)
	},
	"in half a record": func(h io.Writer, g *gather, good string) {
		_, _ = io.WriteString(h, good)
		n := g.b.Len()
		_, _ = io.WriteString(h, poison)
		g.flush(n + (g.b.Len()-n)/2)
	},
	"in three bytes of a record's header": func(h io.Writer, g *gather, good string) {
		_, _ = io.WriteString(h, good)
		n := g.b.Len()
		_, _ = io.WriteString(h, poison)
		g.flush(n + 3)
	},
}

// TestLeftoversReachNoOtherClient: a backend that writes more than it said loses its connection, and no byte of it becomes a response,
// whether the rest lies in the buffer, in crypto/tls or in the socket.
func TestLeftoversReachNoOtherClient(t *testing.T) {
	pair := edgetest.Certificate(t, "web.internal")
	for protocol, version := range protocols {
		for where, write := range overWrites {
			t.Run(protocol+" "+where, func(t *testing.T) {
				var conns atomic.Int32
				b := overBackend(t, "127.0.0.1:0", pair, version, &conns, func(h io.ReadWriter, g *gather) {
					for r := bufio.NewReader(h); ; {
						q, err := http.ReadRequest(r)
						if err != nil {
							return
						}
						g.hold = true
						write(h, g, answer(q.URL.Path))
						// What is held back leaves with the next answer, if there is one.
					}
				})
				r := trusting(t, pair, version, b)
				for i := range 4 {
					c := r.Dial()
					path := fmt.Sprintf("/%d", i)
					c.Send("GET " + path + " HTTP/1.1\nHost: a\nConnection: close\n\n")
					if res, body := c.Read("GET"); res.StatusCode != 200 || strings.TrimRight(body, " ") != path {
						t.Errorf("request %d: %d %.60q, want its own answer", i, res.StatusCode, body)
					}
				}
				if n := conns.Load(); n != 4 {
					t.Errorf("%d connections for 4 requests: none may be used again", n)
				}
			})
		}
	}
}

// TestTicketsKeepTheConnection: what a TLS backend sends about TLS alone, in the same segment as the response, costs no connection.
func TestTicketsKeepTheConnection(t *testing.T) {
	pair := edgetest.Certificate(t, "web.internal")
	for protocol, version := range protocols {
		t.Run(protocol, func(t *testing.T) {
			var conns atomic.Int32
			b := overBackend(t, "127.0.0.1:0", pair, version, &conns, func(h io.ReadWriter, _ *gather) {
				for r := bufio.NewReader(h); ; {
					q, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					_, _ = io.WriteString(h, answer(q.URL.Path))
				}
			})
			c := trusting(t, pair, version, b).Dial()
			for i := range 20 {
				path := fmt.Sprintf("/%d", i)
				c.Send("GET " + path + " HTTP/1.1\nHost: a\n\n")
				if res, body := c.Read("GET"); res.StatusCode != 200 || body != path {
					t.Errorf("request %d: %d %q", i, res.StatusCode, body)
				}
			}
			if n := conns.Load(); n > 2 { // one, or a second where a request overtook the end of the exchange before
				t.Errorf("%d connections for 20 requests", n)
			}
		})
	}
}

// TestNoForeignBytes: over many exchanges with TLS backends that write more than they said every other time, no client gets a byte of
// another's. GATEHOUSE_EXCHANGES says how many, 2,000 by default; the addresses are several, so that ports do not run out.
func TestNoForeignBytes(t *testing.T) {
	total, err := strconv.Atoi(os.Getenv("GATEHOUSE_EXCHANGES"))
	if err != nil {
		total = 2000
	}
	pair := edgetest.Certificate(t, "web.internal")
	var ways []func(io.Writer, *gather, string)
	for _, w := range overWrites {
		ways = append(ways, w)
	}
	var conns, over atomic.Int32
	var backends []string
	for i := range 8 {
		version := []uint16{tls.VersionTLS12, tls.VersionTLS13}[i%2]
		backends = append(backends, overBackend(t, fmt.Sprintf("127.0.0.%d:0", i+1), pair, version, &conns, func(h io.ReadWriter, g *gather) {
			for r := bufio.NewReader(h); ; {
				q, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				g.hold = true
				if rand.IntN(2) == 0 {
					over.Add(1)
					ways[rand.IntN(len(ways))](h, g, answer(q.URL.Path))
					continue
				}
				_, _ = io.WriteString(h, answer(q.URL.Path))
				g.flush(-1)
			}
		}))
	}
	r := trusting(t, pair, tls.VersionTLS13, backends...)
	var next, foreign, failed atomic.Int32
	var wg sync.WaitGroup
	start := time.Now()
	for range 8 {
		wg.Go(func() {
			c := r.Dial()
			for i := next.Add(1); int(i) <= total; i = next.Add(1) {
				path := fmt.Sprintf("/%d", i)
				_ = c.SetDeadline(time.Now().Add(time.Minute))
				c.Send("GET " + path + " HTTP/1.1\nHost: a\n\n")
				res, body := c.Read("GET")
				switch {
				case res.StatusCode != 200:
					failed.Add(1)
				case strings.TrimRight(body, " ") != path:
					foreign.Add(1)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d exchanges, %d over-written, %d connections, %v", total, over.Load(), conns.Load(), time.Since(start).Round(time.Millisecond))
	if foreign.Load() != 0 || failed.Load() != 0 {
		t.Errorf("%d foreign answers and %d failures in %d exchanges, want none", foreign.Load(), failed.Load(), total)
	}
}
