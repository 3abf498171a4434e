//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-io/gatehouse/bench/lab"
)

// memorySample is what a number of clients that only hold connections did to one process.
type memorySample struct {
	what, limit         string
	n, open             int   // connections, and those that were still there at the end
	before, after, peak int64 // resident bytes
	honest              map[string]int
	note                string
}

// attack is what those clients do.
type attack struct {
	what, limit string // limit is GOMEMLIMIT, "": none
	n           int
	send        func(b *bench, c net.Conn) error
}

// halfHead is as long as in the finding that this is about: it needs a buffer of 64 KiB.
var halfHead = []byte("GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + strings.Repeat("a", 61_585-42))

func sends(p []byte) func(*bench, net.Conn) error {
	return func(_ *bench, c net.Conn) error {
		_, _ = c.Write(p) // one that is refused in the middle of it is refused
		return nil
	}
}

var attacks = []attack{
	{"half heads of 61,585 bytes", "150MiB", 2500, sends(halfHead)},
	{"one byte", "150MiB", 5000, sends([]byte("G"))},
	{"one byte", "460MiB", 9000, sends([]byte("G"))},
	{"WebSockets, one message each way, idle", "", 5000, (*bench).chat},
}

const (
	attackers  = 64
	holdFor    = 5 * time.Second
	askEvery   = 10 * time.Millisecond
	shakeFor   = 10 * time.Second
	chatAnswer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)

// measureMemory runs each attack against a process of its own, while others ask.
func (b *bench) measureMemory(ctx context.Context) (samples []memorySample, err error) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	go talk(ln)
	b.site.backend = ln.Addr().(*net.TCPAddr).Port
	for _, a := range attacks {
		s, err := b.attacked(ctx, a)
		if err != nil {
			return samples, fmt.Errorf("%s: %w", a.what, err)
		}
		fmt.Fprintf(b.log, "%s, GOMEMLIMIT=%s: peak %.0f MiB, %v\n", a.what, a.limit, float64(s.peak)/(1<<20), s.honest)
		samples = append(samples, s)
	}
	s, err := b.shaken(ctx)
	return append(samples, s), err
}

// limited starts Gatehouse with a limit of memory.
func (b *bench) limited(ctx context.Context, limit string) (*lab.Process, error) {
	s := b.site
	s.dir = filepath.Join(b.dir, "memory")
	args, err := s.command(b, "gatehouse")
	if err != nil {
		return nil, err
	}
	if limit != "" {
		args = append([]string{"env", "GOMEMLIMIT=" + limit}, args...)
	}
	p, err := lab.Start(b.coreProxy, args...)
	if err != nil {
		return nil, err
	}
	if err := p.Wait(ctx, func(ctx context.Context) error { _, err := b.fetch(ctx, false, ""); return err }); err != nil {
		p.Stop()
		return nil, err
	}
	return p, nil
}

func (b *bench) attacked(ctx context.Context, a attack) (s memorySample, err error) {
	p, err := b.limited(ctx, a.limit)
	if err != nil {
		return s, err
	}
	defer p.Stop()
	first, err := p.Measure()
	if err != nil {
		return s, err
	}
	if err := p.ResetPeak(); err != nil {
		return s, err
	}
	asking, done := context.WithCancel(ctx)
	honest := make(chan map[string]int, 1)
	go func() { honest <- b.others(asking) }()
	conns := make([]net.Conn, a.n)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	err = b.attack(a, conns)
	if err == nil {
		err = sleep(ctx, holdFor)
	}
	done()
	s = memorySample{what: a.what, limit: a.limit, n: a.n, before: first.RSS, honest: <-honest}
	if err != nil {
		return s, err
	}
	last, err := p.Measure()
	if err != nil {
		return s, err
	}
	s.after = last.RSS
	if b.profile != "" {
		b.saveProfile(ctx, "heap?gc=1", fmt.Sprintf("memory-%d.pprof", a.n))
		b.saveProfile(ctx, "heap?gc=1&debug=1", fmt.Sprintf("memory-%d.txt", a.n))
		b.saveProfile(ctx, "goroutine?debug=1", fmt.Sprintf("memory-%d-goroutines.txt", a.n))
	}
	s.peak, err = p.Peak()
	for _, c := range conns {
		if stays(c) {
			s.open++
		}
	}
	return s, err
}

func (b *bench) attack(a attack, conns []net.Conn) error {
	var wg sync.WaitGroup
	var next atomic.Int64
	errs := make([]error, attackers)
	for w := range attackers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(conns); i = int(next.Add(1)) - 1 {
				d := net.Dialer{Timeout: 30 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i/perSource))}}
				c, err := d.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", b.site.plain))
				if err != nil {
					errs[w] = err
					return
				}
				conns[i] = c
				if err := a.send(b, c); err != nil {
					errs[w] = err
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// stays reports whether the other side has not ended a connection.
func stays(c net.Conn) bool {
	var p [4096]byte
	_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := c.Read(p[:])
	var late net.Error
	return err == nil || errors.As(err, &late) && late.Timeout()
}

// others sends requests, each on a connection of its own, and counts what became of them.
func (b *bench) others(ctx context.Context) map[string]int {
	got := map[string]int{}
	tr := &http.Transport{DisableKeepAlives: true}
	for ctx.Err() == nil {
		req, err := http.NewRequest(http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", b.site.plain, target), nil)
		if err != nil {
			return got
		}
		req.Host = fmt.Sprintf("%s:%d", measuredHost, b.site.plain)
		res, err := tr.RoundTrip(req)
		if err != nil {
			got["failed"]++
		} else {
			_, _ = io.Copy(io.Discard, res.Body)
			res.Body.Close()
			got[strconv.Itoa(res.StatusCode)]++
		}
		_ = sleep(ctx, askEvery)
	}
	return got
}

// chat opens a WebSocket and has one message go each way.
func (b *bench) chat(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	defer func() { _ = c.SetDeadline(time.Time{}) }()
	if _, err := fmt.Fprintf(c, "GET /api/chat HTTP/1.1\r\nHost: %s:%d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", measuredHost, b.site.plain); err != nil {
		return err
	}
	r := bufio.NewReaderSize(c, 512)
	for {
		l, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		if strings.HasPrefix(l, "HTTP/") && !strings.HasPrefix(l, "HTTP/1.1 101") {
			return errors.New(strings.TrimSpace(l))
		}
		if l == "\r\n" {
			break
		}
	}
	if _, err := c.Write([]byte{0x81, 0x82, 0, 0, 0, 0, 'h', 'i'}); err != nil {
		return err
	}
	_, err := io.ReadFull(r, make([]byte, 4))
	return err
}

// talk is the backend: it answers requests, and in a WebSocket each message with one.
func talk(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			p := make([]byte, 2048)
			for {
				n, err := c.Read(p)
				if err != nil {
					return
				}
				answer := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
				switch {
				case p[0] == 0x81:
					answer = "\x81\x02hi"
				case bytes.Contains(p[:n], []byte("websocket")):
					answer = chatAnswer
				}
				if _, err := io.WriteString(c, answer); err != nil {
					return
				}
			}
		}()
	}
}

var collections = regexp.MustCompile(`# NumGC = (\d+)`)

// shaken counts collections of garbage under TLS handshakes, one after the other.
func (b *bench) shaken(ctx context.Context) (s memorySample, err error) {
	p, err := b.limited(ctx, "")
	if err != nil {
		return s, err
	}
	defer p.Stop()
	count := func() (n int, err error) {
		res, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/debug/pprof/heap?debug=1", b.site.admin))
		if err != nil {
			return 0, err
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if m := collections.FindSubmatch(text); m != nil && err == nil {
			return strconv.Atoi(string(m[1]))
		}
		return 0, fmt.Errorf("no count of collections: %w", err)
	}
	s = memorySample{what: "TLS handshakes, one after the other"}
	var first, last, n int
	shake := func(d time.Duration) error {
		for n = 0; d > 0; n++ {
			at := time.Now()
			c, err := tls.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", b.site.secure), &tls.Config{RootCAs: b.roots, ServerName: measuredHost})
			if err != nil {
				return err
			}
			c.Close()
			d -= time.Since(at)
		}
		return ctx.Err()
	}
	if err := shake(2 * time.Second); err != nil {
		return s, err
	}
	if first, err = count(); err != nil {
		return s, err
	}
	if err := shake(shakeFor); err != nil {
		return s, err
	}
	if last, err = count(); err != nil {
		return s, err
	}
	u, err := p.Measure()
	s.after, s.n = u.RSS, n
	s.note = fmt.Sprintf("%.1f collections/s at %.0f handshakes/s", float64(last-first)/shakeFor.Seconds(), float64(n)/shakeFor.Seconds())
	return s, err
}

func memoryReport(samples []memorySample) string {
	if len(samples) == 0 {
		return ""
	}
	var w bytes.Buffer
	fmt.Fprintf(&w, "\nclients that only hold connections, for %v after the last of them; resident memory, and what others got who asked meanwhile\n\n", holdFor)
	t := tabwriter.NewWriter(&w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "CONNECTIONS\tOF\tGOMEMLIMIT\tMiB BEFORE\tAFTER\tPEAK\tKiB EACH\tSTILL OPEN\tOTHERS GOT\n")
	mib := func(n int64) string { return fmt.Sprintf("%.0f", float64(n)/(1<<20)) }
	for _, s := range samples {
		if s.note != "" {
			fmt.Fprintf(t, "%d\t%s\t-\t-\t%s\t-\t-\t-\t%s\n", s.n, s.what, mib(s.after), s.note)
			continue
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%.1f\t%d\t%v\n", s.n, s.what, s.limit, mib(s.before), mib(s.after), mib(s.peak),
			float64(s.after-s.before)/1024/float64(s.n), s.open, strings.TrimPrefix(fmt.Sprint(s.honest), "map"))
	}
	_ = t.Flush() // to a buffer
	return w.String()
}
