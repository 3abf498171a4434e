package drive_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/edge"
	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// draining lets the edge drain, without a time of grace, and returns how many connections had to be cut once limit was called or nothing
// was left.
func draining(t *testing.T, r *edgetest.Rig) (cut <-chan int, limit func()) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*edgetest.Wait)
	t.Cleanup(cancel)
	ch := make(chan int, 1)
	go func() { ch <- r.Edge.Drain(ctx, 0) }()
	return ch, cancel
}

func hello(i int) edgetest.Frame { return edgetest.Frame{First: 0x81, Data: fmt.Sprint("hello ", i)} }

// TestDrainClosesWebSockets: both sides get a Close frame with 1001, both answer, and nothing has to be cut.
func TestDrainClosesWebSockets(t *testing.T) {
	pair := edgetest.Certificate(t, "shop.example")
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprint("TLS ", secure), func(t *testing.T) {
			addr, conns := edgetest.Upgraded(t, "websocket")
			r := one(t, addr, func(o *edgetest.Options) {
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
			client, backend := edgetest.Open(t, c, "websocket", conns)
			client.Send(t, client.Bytes(hello(1)))
			backend.Expect(t, hello(1))
			backend.Send(t, backend.Bytes(hello(2)))
			client.Expect(t, hello(2))
			cut, _ := draining(t, r)
			client.Expect(t, edgetest.GoingAway())
			m, key, err := backend.Next()
			if err != nil || m != edgetest.GoingAway() || string(key) == "\x00\x00\x00\x00" {
				t.Errorf("the backend got %#x %q with key %x, %v; want 1001 with a random key", m.First, m.Data, key, err)
			}
			client.Send(t, client.Bytes(edgetest.GoingAway()))
			backend.Send(t, backend.Bytes(edgetest.GoingAway()))
			client.Ends(t)
			backend.Ends(t)
			client.Close()
			backend.Close()
			if n := <-cut; n != 0 {
				t.Errorf("%d connections had to be cut, want none", n)
			}
			if line := r.Log.Next(t); !strings.Contains(line, `"reason":"going_away"`) || !strings.Contains(line, `"status":101`) {
				t.Errorf("log line %s does not say 101 going_away", line)
			}
		})
	}
}

// TestDrainWaitsForTheFrame: in the middle of a frame a Close frame would be payload. What follows the frame is not sent any more.
func TestDrainWaitsForTheFrame(t *testing.T) {
	for _, size := range []int{40, 300, 70_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			addr, conns := edgetest.Upgraded(t, "websocket")
			r := one(t, addr)
			client, backend := edgetest.Open(t, r.Dial(), "websocket", conns)
			long := edgetest.Frame{First: 0x01, Data: strings.Repeat("x", size)} // a fragment: a Close frame may stand between two
			b := client.Bytes(long)
			client.Send(t, b[:len(b)-20])
			if _, err := backend.R.Peek(min(len(b)-20, 100)); err != nil {
				t.Fatal(err)
			}
			cut, _ := draining(t, r)
			client.Expect(t, edgetest.GoingAway()) // nothing was under way to the client
			client.Send(t, slices.Concat(b[len(b)-20:], client.Bytes(edgetest.Frame{First: 0x80, Data: "the rest"})[:3]))
			backend.Expect(t, long)
			m, _, err := backend.Next()
			if err == nil && m == (edgetest.Frame{First: 0x80, Data: "the rest"}) {
				t.Fatal("half a frame came whole")
			}
			if err != nil || m != edgetest.GoingAway() {
				t.Fatalf("got %#x %q, %v; want 1001 behind the whole frame", m.First, m.Data, err)
			}
			backend.Send(t, backend.Bytes(edgetest.GoingAway()))
			backend.Ends(t)
			backend.Close()
			client.Send(t, client.Bytes(edgetest.Frame{First: 0x80, Data: "the rest"})[3:])
			client.Send(t, client.Bytes(edgetest.GoingAway()))
			client.Ends(t)
			client.Close()
			if n := <-cut; n != 0 {
				t.Errorf("%d connections had to be cut, want none", n)
			}
		})
	}
}

// TestAnswerStandsForOurs: an end that has had no Close frame yet gets the other end's answer; one that has gets no second.
func TestAnswerStandsForOurs(t *testing.T) {
	addr, conns := edgetest.Upgraded(t, "websocket")
	r := one(t, addr)
	client, backend := edgetest.Open(t, r.Dial(), "websocket", conns)
	b := client.Bytes(hello(1))
	client.Send(t, b[:4])
	if _, err := backend.R.Peek(4); err != nil {
		t.Fatal(err)
	}
	cut, _ := draining(t, r)
	client.Expect(t, edgetest.GoingAway())
	own := edgetest.Frame{First: 0x88, Data: "\x03\xe9bye"}
	client.Send(t, slices.Concat(b[4:], client.Bytes(own)))
	client.Ends(t) // it has had one and given one: nothing keeps it
	client.Close()
	backend.Expect(t, hello(1), own)
	backend.Send(t, backend.Bytes(own))
	backend.Ends(t)
	backend.Close()
	if n := <-cut; n != 0 {
		t.Errorf("%d connections had to be cut, want none", n)
	}
}

// TestSilentPeerIsCut: an end that does not answer has until the drain's end; the other one need not wait for it.
func TestSilentPeerIsCut(t *testing.T) {
	addr, conns := edgetest.Upgraded(t, "websocket")
	r := one(t, addr)
	client, backend := edgetest.Open(t, r.Dial(), "websocket", conns)
	cut, limit := draining(t, r)
	client.Expect(t, edgetest.GoingAway())
	client.Send(t, client.Bytes(edgetest.GoingAway()))
	client.Ends(t)
	backend.Expect(t, edgetest.GoingAway())
	limit()
	if n := <-cut; n != 1 {
		t.Errorf("%d connections were cut, want 1", n)
	}
	if _, err := io.ReadAll(backend.R); err != nil {
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			t.Error("the backend's connection is still open")
		}
	}
}

// TestDrainCutsWhatIsNoWebSocket: nothing is put into what is no WebSocket framing, or another protocol: it ends with the drain.
func TestDrainCutsWhatIsNoWebSocket(t *testing.T) {
	for _, protocol := range []string{"websocket", "chat/2"} {
		t.Run(protocol, func(t *testing.T) {
			addr, conns := edgetest.Upgraded(t, protocol)
			r := one(t, addr, func(o *edgetest.Options) { o.Edge = func(e *edge.Options) { e.Upgrades = []string{"chat/2"} } })
			client, backend := edgetest.Open(t, r.Dial(), protocol, conns)
			say := func(from, to *edgetest.Peer, text string) {
				t.Helper()
				from.Send(t, []byte(text))
				got := make([]byte, len(text))
				if _, err := io.ReadFull(to.R, got); err != nil || string(got) != text {
					t.Fatalf("got %q, %v; want %q", got, err, text)
				}
			}
			say(client, backend, "HELO there")
			say(backend, client, "250 here")
			cut, limit := draining(t, r)
			for i := range 10 { // it goes on while the others end
				say(client, backend, fmt.Sprint("more ", i))
				say(backend, client, fmt.Sprint("and more ", i))
			}
			limit()
			if n := <-cut; n != 1 {
				t.Errorf("%d connections were cut, want 1", n)
			}
			for _, p := range []*edgetest.Peer{client, backend} {
				if b, _ := io.ReadAll(p.R); len(b) > 0 {
					t.Errorf("got %q before the end, want nothing", b)
				}
			}
		})
	}
}

// TestUpgradeWhileDraining: a backend may agree to a WebSocket when the drain has begun; it hears of it at once.
func TestUpgradeWhileDraining(t *testing.T) {
	asked, agree := make(chan struct{}), make(chan struct{})
	got := make(chan edgetest.Frame, 1)
	r := one(t, edgetest.Backend(t, func(c net.Conn) {
		p := &edgetest.Peer{Conn: c, R: bufio.NewReader(c)}
		if _, err := http.ReadRequest(p.R); err != nil {
			return
		}
		close(asked)
		<-agree
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"+string(p.Bytes(hello(1))))
		if m, _, err := p.Next(); err == nil {
			got <- m
			_, _ = c.Write(p.Bytes(m))
		}
	}))
	c := r.Dial()
	c.Send("GET / HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket\n\n")
	<-asked
	cut, _ := draining(t, r)
	for { // the socket is closed before a connection in use is told
		probe, err := net.Dial("tcp", r.Addr)
		if err != nil {
			break
		}
		probe.Close()
	}
	close(agree)
	if res, err := http.ReadResponse(c.R, nil); err != nil || res.StatusCode != 101 {
		t.Fatalf("got %v, %v; want 101", res, err)
	}
	client := &edgetest.Peer{Conn: c.Conn, R: c.R, Client: true}
	client.Expect(t, hello(1), edgetest.GoingAway())
	client.Send(t, client.Bytes(edgetest.GoingAway()))
	client.Ends(t)
	client.Close()
	if m := <-got; m != edgetest.GoingAway() {
		t.Errorf("the backend got %#x %q, want 1001", m.First, m.Data)
	}
	if n := <-cut; n != 0 {
		t.Errorf("%d connections had to be cut, want none", n)
	}
}

// TestDrainUnderTraffic: with frames of all sizes under way in both directions each end sees whole frames, one Close frame, the end.
func TestDrainUnderTraffic(t *testing.T) {
	addr, conns := edgetest.Upgraded(t, "websocket")
	r := one(t, addr)
	var wg, begun sync.WaitGroup
	const relays = 8
	var peers []*edgetest.Peer
	for range relays {
		client, backend := edgetest.Open(t, r.Dial(), "websocket", conns)
		peers = append(peers, client, backend)
	}
	for _, p := range peers {
		begun.Add(1)
		stop, answered := make(chan struct{}), make(chan struct{})
		var frames [][]byte
		for _, size := range []int{0, 1, 125, 126, 4000, 70_000} {
			frames = append(frames, p.Bytes(edgetest.Frame{First: 0x82, Data: strings.Repeat("d", size)}))
		}
		wg.Go(func() { // writes until the reader has seen a Close frame, then answers it
			defer close(answered)
			for {
				select {
				case <-stop:
					if _, err := p.Write(p.Bytes(edgetest.GoingAway())); err != nil {
						t.Errorf("answering: %v", err)
					}
					return
				default:
				}
				if _, err := p.Write(frames[rand.IntN(len(frames))]); err != nil {
					t.Errorf("writing: %v", err)
					return
				}
			}
		})
		wg.Go(func() {
			defer p.Close()
			for i := 0; ; i++ {
				first, err := p.Skip()
				if i == 20 {
					begun.Done()
				}
				if err == nil && first == 0x82 {
					continue
				}
				close(stop)
				if i < 20 {
					begun.Done()
				}
				if <-answered; err != nil || first != edgetest.GoingAway().First {
					t.Errorf("frame %d: %#x, %v", i, first, err)
					return
				}
				if b, err := io.ReadAll(p.R); len(b) > 0 || err != nil {
					t.Errorf("behind the Close frame: %.40q, %v", b, err)
				}
				return
			}
		})
	}
	begun.Wait()
	cut, _ := draining(t, r)
	wg.Wait()
	if n := <-cut; n != 0 {
		t.Errorf("%d connections had to be cut, want none", n)
	}
}

// TestStreamIdle: a relay ends when nothing moves in either direction, not when one is silent.
func TestStreamIdle(t *testing.T) {
	addr, conns := edgetest.Upgraded(t, "websocket")
	d := ir.Duration(time.Second)
	r := one(t, addr, func(o *edgetest.Options) {
		o.Listener = func(l *ir.Listener) { l.Client = &ir.Client{StreamIdle: &d} }
	})
	client, backend := edgetest.Open(t, r.Dial(), "websocket", conns)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for i := range 15 { // three times idle, in one direction alone
		<-tick.C
		client.Send(t, client.Bytes(hello(i)))
		backend.Expect(t, hello(i))
	}
	last := time.Now()
	if b, _ := io.ReadAll(client.R); len(b) > 0 || time.Since(last) < time.Duration(d) {
		t.Errorf("got %q after %v, want the end after %v", b, time.Since(last), time.Duration(d))
	}
	if line := r.Log.Next(t); !strings.Contains(line, `"reason":"stream_idle"`) {
		t.Errorf("log line %s does not say stream_idle", line)
	}
}

// TestUnwantedSwitch: a backend that changes to a protocol nobody asked for gave no answer.
func TestUnwantedSwitch(t *testing.T) {
	for _, request := range []string{"GET / HTTP/1.1\nHost: a\n\n", "POST / HTTP/1.1\nHost: a\nContent-Length: 100000\n\nbody",
		"GET / HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket\n\n"} {
		c := one(t, edgetest.Backend(t, func(c net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil { // not its body
				_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat/2\r\nConnection: Upgrade\r\n\r\nevil")
			}
			_, _ = io.Copy(io.Discard, c)
		})).Dial()
		c.Send(request)
		if res, body := c.Read("GET"); res.StatusCode != 502 || !strings.Contains(body, "backend_failed") {
			t.Errorf("%.30q: got %d %q, want 502 backend_failed", request, res.StatusCode, body)
		}
	}
}
