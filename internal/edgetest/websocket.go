package edgetest

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"testing"
	"time"
)

// Peer is one end of a relayed WebSocket, played byte by byte.
type Peer struct {
	net.Conn
	R      *bufio.Reader
	Client bool // what it sends is masked, what it reads is not
}

// Frame is a WebSocket frame (RFC 6455 section 5.2): its first byte, and its payload without the mask.
type Frame struct {
	First byte
	Data  string
}

// GoingAway is a Close frame with the status 1001.
func GoingAway() Frame { return Frame{0x88, "\x03\xe9"} }

// Text is a text frame.
func Text(s string) Frame { return Frame{0x81, s} }

// Bytes is the frame as p sends it.
func (p *Peer) Bytes(m Frame) []byte {
	b := []byte{m.First}
	mask := byte(0)
	if p.Client {
		mask = 0x80
	}
	switch n := len(m.Data); {
	case n < 126:
		b = append(b, mask|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, mask|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, mask|127), uint64(n))
	}
	if !p.Client {
		return append(b, m.Data...)
	}
	key := binary.NativeEndian.AppendUint32(nil, rand.Uint32())
	b = append(b, key...)
	for i := range len(m.Data) {
		b = append(b, m.Data[i]^key[i%4])
	}
	return b
}

// Send writes bytes.
func (p *Peer) Send(t testing.TB, b []byte) {
	t.Helper()
	if _, err := p.Write(b); err != nil {
		t.Fatalf("sending %.40q: %v", b, err)
	}
}

// Next reads a frame, which must be masked as its sender has to. The key is nil on what a server sends.
func (p *Peer) Next() (m Frame, key []byte, err error) {
	first, n, key, err := p.header()
	if err != nil {
		return Frame{First: first}, key, err
	}
	data := make([]byte, n)
	_, err = io.ReadFull(p.R, data)
	for i := range data {
		if key != nil {
			data[i] ^= key[i%4]
		}
	}
	return Frame{first, string(data)}, key, err
}

// Skip reads a frame like Next and throws its payload away: where many large ones pass, what Next allocates would be most of the work.
func (p *Peer) Skip() (first byte, err error) {
	first, n, _, err := p.header()
	if err == nil {
		_, err = p.R.Discard(int(n))
	}
	return first, err
}

// header reads a frame's header: its first byte, the length of the payload, the key.
func (p *Peer) header() (first byte, n uint64, key []byte, err error) {
	var h [8]byte
	if _, err = io.ReadFull(p.R, h[:2]); err != nil {
		return 0, 0, nil, err
	}
	first = h[0]
	if (h[1]&0x80 != 0) == p.Client {
		return first, 0, nil, fmt.Errorf("frame %#x %#x is masked as those of the other side are", h[0], h[1])
	}
	n = uint64(h[1] & 0x7f)
	switch n {
	case 126:
		_, err = io.ReadFull(p.R, h[:2])
		n = uint64(binary.BigEndian.Uint16(h[:]))
	case 127:
		_, err = io.ReadFull(p.R, h[:8])
		n = binary.BigEndian.Uint64(h[:])
	}
	if err == nil && !p.Client {
		key = make([]byte, 4)
		_, err = io.ReadFull(p.R, key)
	}
	return first, n, key, err
}

// Expect reads frames that must be these.
func (p *Peer) Expect(t testing.TB, want ...Frame) {
	t.Helper()
	for _, w := range want {
		if m, _, err := p.Next(); err != nil || m != w {
			t.Fatalf("got frame %#x %.40q, %v; want %#x %.40q", m.First, m.Data, err, w.First, w.Data)
		}
	}
}

// Ends fails unless nothing more comes but the end, in order.
func (p *Peer) Ends(t testing.TB) {
	t.Helper()
	if b, err := io.ReadAll(p.R); err != nil || len(b) > 0 {
		t.Fatalf("got %.40q, %v; want the end", b, err)
	}
}

// Upgraded are backends of relays: each connection that has had its 101 comes out of the channel, and is the test's then.
func Upgraded(t testing.TB, protocol string) (addr string, conns <-chan *Peer) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ch := make(chan *Peer, 256)
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
				_ = c.SetDeadline(time.Now().Add(3 * Wait))
				if _, err := fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: %s\r\nConnection: Upgrade\r\n\r\n", protocol); err == nil {
					ch <- &Peer{Conn: c, R: r}
				}
			}()
		}
	}()
	return l.Addr().String(), ch
}

// Open upgrades a client's connection.
func Open(t testing.TB, c *Client, protocol string, conns <-chan *Peer) (client, backend *Peer) {
	t.Helper()
	c.Send("GET /chat HTTP/1.1\nHost: shop.example\nConnection: Upgrade\nUpgrade: " + protocol + "\n\n")
	res, err := http.ReadResponse(c.R, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _ = res.Body.Close(); res.StatusCode != 101 { // it has no body
		t.Fatalf("got %d, want 101", res.StatusCode)
	}
	select {
	case backend = <-conns:
	case <-time.After(Wait):
		t.Fatal("no backend")
	}
	t.Cleanup(func() { backend.Close() })
	return &Peer{Conn: c.Conn, R: c.R, Client: true}, backend
}
