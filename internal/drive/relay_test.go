package drive_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
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

// peer is one end of a relay: what it reads are frames.
type peer struct {
	net.Conn
	r      *bufio.Reader
	masked bool // it is the client: what it sends is masked, what it reads is not
}

// message is a frame: its first byte, and its payload without the mask.
type message struct {
	first byte
	data  string
}

var goingAway = message{0x88, "\x03\xe9"}

// bytes is the message as p sends it.
func (p *peer) bytes(m message) []byte {
	b := []byte{m.first}
	mask := byte(0)
	if p.masked {
		mask = 0x80
	}
	switch n := len(m.data); {
	case n < 126:
		b = append(b, mask|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, mask|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, mask|127), uint64(n))
	}
	if !p.masked {
		return append(b, m.data...)
	}
	key := binary.NativeEndian.AppendUint32(nil, rand.Uint32())
	b = append(b, key...)
	for i := range len(m.data) {
		b = append(b, m.data[i]^key[i%4])
	}
	return b
}

func (p *peer) send(t *testing.T, b []byte) {
	t.Helper()
	if _, err := p.Write(b); err != nil {
		t.Fatalf("sending %.40q: %v", b, err)
	}
}

// next reads a frame, which must be masked as its sender has to. The key is nil on what a server sends.
func (p *peer) next() (m message, key []byte, err error) {
	var h [8]byte
	if _, err = io.ReadFull(p.r, h[:2]); err != nil {
		return m, nil, err
	}
	m.first = h[0]
	if (h[1]&0x80 != 0) == p.masked {
		return m, nil, fmt.Errorf("frame %#x %#x is masked as those of the other side are", h[0], h[1])
	}
	n := uint64(h[1] & 0x7f)
	switch n {
	case 126:
		_, err = io.ReadFull(p.r, h[:2])
		n = uint64(binary.BigEndian.Uint16(h[:]))
	case 127:
		_, err = io.ReadFull(p.r, h[:8])
		n = binary.BigEndian.Uint64(h[:])
	}
	if err != nil {
		return m, nil, err
	}
	if !p.masked {
		key = make([]byte, 4)
		if _, err = io.ReadFull(p.r, key); err != nil {
			return m, nil, err
		}
	}
	data := make([]byte, n)
	_, err = io.ReadFull(p.r, data)
	for i := range data {
		if key != nil {
			data[i] ^= key[i%4]
		}
	}
	m.data = string(data)
	return m, key, err
}

// expect reads frames that must be these.
func (p *peer) expect(t *testing.T, want ...message) {
	t.Helper()
	for _, w := range want {
		if m, _, err := p.next(); err != nil || m != w {
			t.Fatalf("got frame %#x %.40q, %v; want %#x %.40q", m.first, m.data, err, w.first, w.data)
		}
	}
}

// ends fails unless nothing more comes but the end, in order.
func (p *peer) ends(t *testing.T) {
	t.Helper()
	if b, err := io.ReadAll(p.r); err != nil || len(b) > 0 {
		t.Fatalf("got %.40q, %v; want the end", b, err)
	}
}

// upgraded are backends of relays: each connection that has had its 101 comes out of the channel, and is the test's then.
func upgraded(t *testing.T, protocol string) (addr string, conns <-chan *peer) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ch := make(chan *peer, 256)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				r := bufio.NewReader(c)
				if req, err := http.ReadRequest(r); err != nil || req.Header.Get("Upgrade") != protocol {
					c.Close()
					return
				}
				_ = c.SetDeadline(time.Now().Add(3 * edgetest.Wait))
				if _, err := fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: %s\r\nConnection: Upgrade\r\n\r\n", protocol); err == nil {
					ch <- &peer{Conn: c, r: r}
				}
			}()
		}
	}()
	return l.Addr().String(), ch
}

// open upgrades a client's connection.
func open(t *testing.T, c *edgetest.Client, protocol string, conns <-chan *peer) (client, backend *peer) {
	t.Helper()
	c.Send("GET /chat HTTP/1.1\nHost: shop.example\nConnection: Upgrade\nUpgrade: " + protocol + "\n\n")
	if res, err := http.ReadResponse(c.R, nil); err != nil || res.StatusCode != 101 {
		t.Fatalf("got %v, %v; want 101", res, err)
	}
	select {
	case backend = <-conns:
	case <-time.After(edgetest.Wait):
		t.Fatal("no backend")
	}
	t.Cleanup(func() { backend.Close() })
	return &peer{Conn: c.Conn, r: c.R, masked: true}, backend
}

// draining lets the edge drain, without a time of grace, and returns how many connections had to be cut once limit was called or nothing
// was left.
func draining(t *testing.T, r *edgetest.Rig) (cut <-chan int, limit func()) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*edgetest.Wait)
	t.Cleanup(cancel)
	ch := make(chan int, 1)
	go func() { ch <- r.Edge.Drain(ctx, 0) }()
	return ch, cancel
}

func hello(i int) message { return message{0x81, fmt.Sprint("hello ", i)} }

// TestDrainClosesWebSockets: both sides get a Close frame with 1001, both answer, and nothing has to be cut.
func TestDrainClosesWebSockets(t *testing.T) {
	pair := edgetest.Certificate(t, "shop.example")
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprint("TLS ", secure), func(t *testing.T) {
			addr, conns := upgraded(t, "websocket")
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
			client, backend := open(t, c, "websocket", conns)
			client.send(t, client.bytes(hello(1)))
			backend.expect(t, hello(1))
			backend.send(t, backend.bytes(hello(2)))
			client.expect(t, hello(2))
			cut, _ := draining(t, r)
			client.expect(t, goingAway)
			m, key, err := backend.next()
			if err != nil || m != goingAway || string(key) == "\x00\x00\x00\x00" {
				t.Errorf("the backend got %#x %q with key %x, %v; want 1001 with a random key", m.first, m.data, key, err)
			}
			client.send(t, client.bytes(goingAway))
			backend.send(t, backend.bytes(goingAway))
			client.ends(t)
			backend.ends(t)
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
			addr, conns := upgraded(t, "websocket")
			r := one(t, addr)
			client, backend := open(t, r.Dial(), "websocket", conns)
			long := message{0x01, strings.Repeat("x", size)} // a fragment: a Close frame may stand between two
			b := client.bytes(long)
			client.send(t, b[:len(b)-20])
			if _, err := backend.r.Peek(min(len(b)-20, 100)); err != nil {
				t.Fatal(err)
			}
			cut, _ := draining(t, r)
			client.expect(t, goingAway) // nothing was under way to the client
			client.send(t, slices.Concat(b[len(b)-20:], client.bytes(message{0x80, "the rest"})[:3]))
			backend.expect(t, long)
			m, _, err := backend.next()
			if err == nil && m == (message{0x80, "the rest"}) {
				t.Fatal("half a frame came whole")
			}
			if err != nil || m != goingAway {
				t.Fatalf("got %#x %q, %v; want 1001 behind the whole frame", m.first, m.data, err)
			}
			backend.send(t, backend.bytes(goingAway))
			backend.ends(t)
			backend.Close()
			client.send(t, client.bytes(message{0x80, "the rest"})[3:])
			client.send(t, client.bytes(goingAway))
			client.ends(t)
			client.Close()
			if n := <-cut; n != 0 {
				t.Errorf("%d connections had to be cut, want none", n)
			}
		})
	}
}

// TestAnswerStandsForOurs: an end that has had no Close frame yet gets the other end's answer; one that has gets no second.
func TestAnswerStandsForOurs(t *testing.T) {
	addr, conns := upgraded(t, "websocket")
	r := one(t, addr)
	client, backend := open(t, r.Dial(), "websocket", conns)
	b := client.bytes(hello(1))
	client.send(t, b[:4])
	if _, err := backend.r.Peek(4); err != nil {
		t.Fatal(err)
	}
	cut, _ := draining(t, r)
	client.expect(t, goingAway)
	own := message{0x88, "\x03\xe9bye"}
	client.send(t, slices.Concat(b[4:], client.bytes(own)))
	client.ends(t) // it has had one and given one: nothing keeps it
	client.Close()
	backend.expect(t, hello(1), own)
	backend.send(t, backend.bytes(own))
	backend.ends(t)
	backend.Close()
	if n := <-cut; n != 0 {
		t.Errorf("%d connections had to be cut, want none", n)
	}
}

// TestSilentPeerIsCut: an end that does not answer has until the drain's end; the other one need not wait for it.
func TestSilentPeerIsCut(t *testing.T) {
	addr, conns := upgraded(t, "websocket")
	r := one(t, addr)
	client, backend := open(t, r.Dial(), "websocket", conns)
	cut, limit := draining(t, r)
	client.expect(t, goingAway)
	client.send(t, client.bytes(goingAway))
	client.ends(t)
	backend.expect(t, goingAway)
	limit()
	if n := <-cut; n != 1 {
		t.Errorf("%d connections were cut, want 1", n)
	}
	if _, err := io.ReadAll(backend.r); err != nil {
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
			addr, conns := upgraded(t, protocol)
			r := one(t, addr, func(o *edgetest.Options) { o.Edge = func(e *edge.Options) { e.Upgrades = []string{"chat/2"} } })
			client, backend := open(t, r.Dial(), protocol, conns)
			say := func(from, to *peer, text string) {
				t.Helper()
				from.send(t, []byte(text))
				got := make([]byte, len(text))
				if _, err := io.ReadFull(to.r, got); err != nil || string(got) != text {
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
			for _, p := range []*peer{client, backend} {
				if b, _ := io.ReadAll(p.r); len(b) > 0 {
					t.Errorf("got %q before the end, want nothing", b)
				}
			}
		})
	}
}

// TestUpgradeWhileDraining: a backend may agree to a WebSocket when the drain has begun; it hears of it at once.
func TestUpgradeWhileDraining(t *testing.T) {
	asked, agree := make(chan struct{}), make(chan struct{})
	got := make(chan message, 1)
	r := one(t, edgetest.Backend(t, func(c net.Conn) {
		p := &peer{Conn: c, r: bufio.NewReader(c)}
		if _, err := http.ReadRequest(p.r); err != nil {
			return
		}
		close(asked)
		<-agree
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"+string(p.bytes(hello(1))))
		if m, _, err := p.next(); err == nil {
			got <- m
			_, _ = c.Write(p.bytes(m))
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
	client := &peer{Conn: c.Conn, r: c.R, masked: true}
	client.expect(t, hello(1), goingAway)
	client.send(t, client.bytes(goingAway))
	client.ends(t)
	client.Close()
	if m := <-got; m != goingAway {
		t.Errorf("the backend got %#x %q, want 1001", m.first, m.data)
	}
	if n := <-cut; n != 0 {
		t.Errorf("%d connections had to be cut, want none", n)
	}
}

// TestDrainUnderTraffic: with frames of all sizes under way in both directions each end sees whole frames, one Close frame, the end.
func TestDrainUnderTraffic(t *testing.T) {
	addr, conns := upgraded(t, "websocket")
	r := one(t, addr)
	var wg, begun sync.WaitGroup
	const relays = 32
	var peers []*peer
	for range relays {
		client, backend := open(t, r.Dial(), "websocket", conns)
		peers = append(peers, client, backend)
	}
	for _, p := range peers {
		begun.Add(1)
		stop, answered := make(chan struct{}), make(chan struct{})
		wg.Go(func() { // writes until the reader has seen a Close frame, then answers it
			defer close(answered)
			for {
				m := message{0x82, strings.Repeat("d", []int{0, 1, 125, 126, 4000, 70_000}[rand.IntN(6)])}
				select {
				case <-stop:
					m = goingAway
				default:
				}
				if _, err := p.Write(p.bytes(m)); err != nil {
					t.Errorf("writing: %v", err)
				} else if m != goingAway {
					continue
				}
				return
			}
		})
		wg.Go(func() {
			defer p.Close()
			for i := 0; ; i++ {
				m, _, err := p.next()
				if i == 20 {
					begun.Done()
				}
				if err == nil && m.first == 0x82 {
					continue
				}
				close(stop)
				if i < 20 {
					begun.Done()
				}
				if <-answered; err != nil || m != goingAway {
					t.Errorf("frame %d: %#x, %v", i, m.first, err)
					return
				}
				if b, err := io.ReadAll(p.r); len(b) > 0 || err != nil {
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
	addr, conns := upgraded(t, "websocket")
	d := ir.Duration(time.Second)
	r := one(t, addr, func(o *edgetest.Options) {
		o.Listener = func(l *ir.Listener) { l.Client = &ir.Client{StreamIdle: &d} }
	})
	client, backend := open(t, r.Dial(), "websocket", conns)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for i := range 15 { // three times idle, in one direction alone
		<-tick.C
		client.send(t, client.bytes(hello(i)))
		backend.expect(t, hello(i))
	}
	last := time.Now()
	if b, _ := io.ReadAll(client.r); len(b) > 0 || time.Since(last) < time.Duration(d) {
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
