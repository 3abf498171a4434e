//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const patience = 30 * time.Second // for one request, whatever it is

// kind is one sort of client: how many of them there are, and what one does again and again. Where strict is set a single failure
// fails the soak; else one in a hundred does, because a request that may not be repeated can meet a backend that ends.
type kind struct {
	name   string
	n      int
	strict bool
	do     func(*client) error
}

var kinds = []kind{
	{"GET", 24, true, (*client).get},
	{"POST", 12, false, (*client).post},
	{"slow", 8, true, (*client).slow},
	{"WebSocket", 12, false, (*client).socket},
	{"abort", 8, false, (*client).abort},
}

// load is all clients and what they saw.
type load struct {
	world   *world
	tallies []tally // by kind
	ids     atomic.Uint64
}

// client is one of them. It does not repeat anything, so what goes wrong shows.
type client struct {
	*load
	secure bool
	conn   net.Conn
	r      *bufio.Reader
}

// run lets all clients work until ctx ends and what they have begun is done.
func (l *load) run(ctx context.Context) {
	var wg sync.WaitGroup
	for k, kind := range kinds {
		for i := range kind.n {
			wg.Go(func() {
				c := &client{load: l, secure: i%2 == 1}
				defer c.hangUp()
				for ctx.Err() == nil {
					begin := time.Now()
					if err := kind.do(c); err != nil {
						l.tallies[k].fail(reason(err))
						c.hangUp()
					} else {
						l.tallies[k].ok(time.Since(begin))
					}
					select { // a thousand requests each second or two: the churn is what is tested, not the rate
					case <-ctx.Done():
					case <-time.After(time.Duration(mathrand.IntN(40)) * time.Millisecond):
					}
				}
			})
		}
	}
	wg.Wait()
}

// refusal is an answer of another status than was expected.
type refusal struct {
	status int
	reason string
}

func (r refusal) Error() string { return strings.TrimSpace(fmt.Sprint(r.status, " ", r.reason)) }

func refused(res *http.Response) error {
	var problem struct{ Reason string }
	_ = json.NewDecoder(res.Body).Decode(&problem) // the status says enough where there is none
	return refusal{res.StatusCode, problem.Reason}
}

// reason is what an error is counted under: no addresses, so that equal ones add up.
func reason(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Op + ": " + op.Err.Error()
	}
	return err.Error()
}

// dial makes the client's connection, if it has none.
func (c *client) dial() error {
	if c.conn != nil {
		return c.conn.SetDeadline(time.Now().Add(patience))
	}
	port := c.world.plain
	if c.secure {
		port = c.world.secure
	}
	conn, err := net.DialTimeout("tcp4", fmt.Sprintf("127.0.0.1:%d", port), patience)
	if err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if c.secure {
		s := tls.Client(conn, &tls.Config{ServerName: host("client"), InsecureSkipVerify: true, VerifyConnection: c.world.trust})
		if err := s.Handshake(); err != nil {
			conn.Close()
			return fmt.Errorf("handshake: %w", err)
		}
		conn = s
	}
	c.conn, c.r = conn, bufio.NewReader(conn)
	return nil
}

func (c *client) hangUp() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// request makes one with an id of its own to a route that is always there: a steady one, or the one that changes.
func (c *client) request(method string, answer int, body io.Reader) (*http.Request, error) {
	name := "changed"
	if n := mathrand.IntN(2 * steady); n < steady {
		name = fmt.Sprintf("s%d", n)
	}
	req, err := http.NewRequest(method, fmt.Sprintf("http://%s/echo?bytes=%d", host(name), answer), body)
	if err == nil {
		req.Header.Set("X-Soak-Id", fmt.Sprint(c.ids.Add(1)))
	}
	return req, err
}

// answered reads the answer to req, through pace, and holds it to what the request asked for.
func (c *client) answered(req *http.Request, sum string, answer int, pace func(io.Reader) io.Reader) error {
	res, err := http.ReadResponse(c.r, req)
	if err != nil {
		return fmt.Errorf("reading the head: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return refused(res)
	}
	n, err := io.Copy(io.Discard, pace(res.Body))
	switch got := res.Header.Get("X-Soak-Id"); {
	case err != nil:
		return fmt.Errorf("reading the body: %w", err)
	case got != req.Header.Get("X-Soak-Id"):
		return errors.New("the answer to another request")
	case res.Header.Get("X-Soak-Sum") != sum:
		return errors.New("the backend got another body")
	case n != int64(answer):
		return errors.New("a body of another length")
	}
	if res.Close {
		c.hangUp()
	}
	return nil
}

const sumOfNothing = "0-00000000"

// get sends a GET without a body on a kept connection.
func (c *client) get() error {
	if err := c.dial(); err != nil {
		return err
	}
	answer := mathrand.IntN(8 << 10)
	req, err := c.request(http.MethodGet, answer, nil)
	if err != nil {
		return err
	}
	if err := req.Write(c.conn); err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	return c.answered(req, sumOfNothing, answer, fast)
}

// post sends a body of up to 64 KiB, every other time in chunks.
func (c *client) post() error {
	if err := c.dial(); err != nil {
		return err
	}
	body := make([]byte, 1+mathrand.IntN(64<<10))
	_, _ = rand.Read(body) // never fails
	req, err := c.request(http.MethodPost, 1024, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if mathrand.IntN(2) == 0 {
		req.ContentLength, req.TransferEncoding = -1, []string{"chunked"}
	}
	sent := req.Write(c.conn)
	err = c.answered(req, fmt.Sprintf("%d-%08x", len(body), crc32.ChecksumIEEE(body)), 1024, fast)
	if err != nil && sent != nil && !errors.As(err, new(refusal)) { // an answer may come before the body is sent, then it counts
		return fmt.Errorf("sending: %w", sent)
	}
	return err
}

func fast(r io.Reader) io.Reader   { return r }
func slowly(r io.Reader) io.Reader { return &slowReader{r} }

// slowReader reads little at a time, with pauses.
type slowReader struct{ r io.Reader }

func (s *slowReader) Read(p []byte) (int, error) {
	time.Sleep(5 * time.Millisecond)
	return s.r.Read(p[:min(len(p), 16<<10)])
}

// slow sends a head in pieces and takes a long answer slowly.
func (c *client) slow() error {
	if err := c.dial(); err != nil {
		return err
	}
	answer := mathrand.IntN(2 << 20) // more than sockets hold, so that the proxy has to wait
	req, err := c.request(http.MethodGet, answer, nil)
	if err != nil {
		return err
	}
	var head bytes.Buffer
	if err := req.Write(&head); err != nil {
		return err
	}
	for head.Len() > 0 {
		if _, err := c.conn.Write(head.Next(40)); err != nil {
			return fmt.Errorf("sending: %w", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return c.answered(req, sumOfNothing, answer, slowly)
}

// socket opens a WebSocket, has twenty frames echoed, and closes it.
func (c *client) socket() error {
	c.hangUp()
	if err := c.dial(); err != nil {
		return err
	}
	defer c.hangUp()
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	key := base64.StdEncoding.EncodeToString(random[:])
	req, err := http.NewRequest(http.MethodGet, "http://"+host("changed")+"/ws", nil)
	if err != nil {
		return err
	}
	for k, v := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key} {
		req.Header.Set(k, v)
	}
	if err := req.Write(c.conn); err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	res, err := http.ReadResponse(c.r, req)
	if err != nil {
		return fmt.Errorf("reading the head: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusSwitchingProtocols {
		return refused(res)
	}
	if res.Header.Get("Sec-WebSocket-Accept") != acceptKey(key) {
		return errors.New("another Sec-WebSocket-Accept")
	}
	for i := range 20 {
		payload := fmt.Appendf(nil, "frame %d of %s", i, key)
		if _, err := c.conn.Write(appendFrame(nil, payload, random[:4])); err != nil {
			return fmt.Errorf("sending a frame: %w", err)
		}
		got, err := readFrame(c.r)
		if err != nil {
			return fmt.Errorf("reading a frame: %w", err)
		}
		if !bytes.Equal(got, payload) {
			return errors.New("another frame came back")
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}

// abort goes away in the middle of something: a handshake, a head, a body that it sends or one that it gets; every other time with
// a reset. Only that it could connect is asked of it.
func (c *client) abort() error {
	c.hangUp()
	secure := c.secure
	what := mathrand.IntN(4)
	if what == 0 {
		c.secure = false // the bytes below then are half a record
	}
	err := c.dial()
	c.secure = secure
	if err != nil {
		return err
	}
	defer c.hangUp()
	// The errors of these do not matter: the client is about to go.
	switch target := host("changed"); what {
	case 0:
		_, _ = c.conn.Write([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"))
	case 1:
		_, _ = fmt.Fprintf(c.conn, "GET /echo HTTP/1.1\r\nHost: %s\r\nX-Half", target)
	case 2:
		_, _ = fmt.Fprintf(c.conn, "POST /echo HTTP/1.1\r\nHost: %s\r\nContent-Length: 1000000\r\n\r\n%s", target, make([]byte, 10000))
	case 3:
		_, _ = fmt.Fprintf(c.conn, "GET /echo?bytes=10000000 HTTP/1.1\r\nHost: %s\r\n\r\n", target)
		_, _ = io.CopyN(io.Discard, c.r, 20000)
	}
	time.Sleep(time.Duration(mathrand.IntN(50)) * time.Millisecond)
	raw := c.conn
	if s, ok := raw.(*tls.Conn); ok {
		raw = s.NetConn()
	}
	if tcp, ok := raw.(*net.TCPConn); ok && mathrand.IntN(2) == 0 {
		_ = tcp.SetLinger(0)
		_ = tcp.Close() // before TLS could say goodbye
	}
	return nil
}
