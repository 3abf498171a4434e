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
	"slices"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-io/gatehouse/bench/lab"
)

// idleSample is what a number of idle connections cost one proxy, in bytes of resident memory.
type idleSample struct {
	proxy         string
	secure        bool
	before, after int64 // before: it has answered one request
	n             int
}

// each is the growth for one connection, in KiB.
func (s idleSample) each() float64 { return float64(s.after-s.before) / 1024 / float64(s.n) }

const (
	perSource  = 5000 // connections from one address: fewer than it has free ports
	openers    = 64   // connections that are opened at a time
	idleChecks = 100  // connections that must still work at the end
)

// measureIdle opens -idle connections to each proxy in turn, lets each carry one request, and leaves them alone.
func (b *bench) measureIdle(ctx context.Context) ([]idleSample, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return nil, err
	}
	// Gatehouse keeps half its descriptors for client connections.
	if uint64(b.idle)*2 > limit.Max {
		return nil, fmt.Errorf("-idle %d needs a descriptor limit of twice that, not %d: raise it (ulimit -Hn) or ask for fewer", b.idle, limit.Max)
	}
	var samples []idleSample
	for round := range min(b.rounds, 3) {
		for _, secure := range b.secure {
			order := slices.Clone(b.proxies)
			if round%2 == 1 {
				slices.Reverse(order)
			}
			for _, name := range order {
				if name == "caddy-first" {
					continue // the order of routes is nothing to an idle connection
				}
				s, err := b.idleOf(ctx, name, secure)
				if err != nil {
					return nil, fmt.Errorf("idle connections of %s, round %d: %w", name, round+1, err)
				}
				fmt.Fprintf(b.log, "round %d, %d idle connections, %s: %s %.1f KiB each\n", round+1, s.n, scheme(secure), name, s.each())
				samples = append(samples, s)
			}
		}
	}
	return samples, nil
}

func (b *bench) idleOf(ctx context.Context, name string, secure bool) (s idleSample, err error) {
	p, err := b.proxy(ctx, name)
	if err != nil {
		return s, err
	}
	defer p.Stop()
	before, err := p.Measure()
	if err != nil {
		return s, err
	}
	conns := make([]*idleConn, b.idle)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.conn.Close()
			}
		}
	}()
	if err := b.openAll(ctx, conns, secure); err != nil {
		return s, err
	}
	// Long enough for kept connections to backends to end, and for what each proxy does by itself when it has nothing to do.
	if err := sleep(ctx, b.settle); err != nil {
		return s, err
	}
	after, err := p.Measure()
	if err != nil {
		return s, err
	}
	if b.profile != "" && name == "gatehouse" {
		b.takeHeap(ctx, secure)
	}
	for i := 0; i < len(conns); i += max(1, len(conns)/idleChecks) {
		if err := conns[i].get(); err != nil {
			return s, fmt.Errorf("connection %d of %d did not stay: %w", i+1, len(conns), err)
		}
	}
	return idleSample{proxy: name, secure: secure, before: before.RSS, after: after.RSS, n: len(conns)}, nil
}

// openAll fills conns with connections, each of which has carried one request.
func (b *bench) openAll(ctx context.Context, conns []*idleConn, secure bool) error {
	var wg sync.WaitGroup
	errs := make([]error, openers)
	for o := range openers {
		wg.Go(func() {
			for i := o; i < len(conns) && errs[o] == nil && ctx.Err() == nil; i += openers {
				conns[i], errs[o] = b.open(i, secure)
			}
		})
	}
	wg.Wait()
	return errors.Join(errors.Join(errs...), ctx.Err())
}

// idleConn is one client connection. Its reader goes with each answer: the harness, too, has memory to spare only for sockets.
type idleConn struct {
	conn net.Conn
	port int
}

func (b *bench) open(i int, secure bool) (*idleConn, error) {
	port := b.site.plain
	if secure {
		port = b.site.secure
	}
	d := net.Dialer{Timeout: 30 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i/perSource))}}
	conn, err := d.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, err
	}
	if secure {
		conn = tls.Client(conn, &tls.Config{RootCAs: b.roots, ServerName: measuredHost, MinVersion: tls.VersionTLS13})
	}
	c := &idleConn{conn, port}
	if err := c.get(); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// get sends a request and takes the whole answer.
func (c *idleConn) get() error {
	if err := c.conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c.conn, "GET %s HTTP/1.1\r\nHost: %s:%d\r\n\r\n", target, measuredHost, c.port); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReader(c.conn), nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK || res.Close {
		return fmt.Errorf("status %d, closing: %v", res.StatusCode, res.Close)
	}
	return nil
}

// takeHeap saves what Gatehouse's memory holds now.
func (b *bench) takeHeap(ctx context.Context, secure bool) {
	for _, kind := range []string{"heap", "goroutine"} {
		b.saveProfile(ctx, kind, fmt.Sprintf("idle-%s-%s.pprof", scheme(secure), kind))
	}
	b.saveProfile(ctx, "heap?gc=1", fmt.Sprintf("idle-%s-heap-gc.pprof", scheme(secure)))
}

// idleReport is the table of idle connections.
func idleReport(b *bench, samples []idleSample) string {
	if len(samples) == 0 {
		return ""
	}
	var w bytes.Buffer
	for _, secure := range b.secure {
		fmt.Fprintf(&w, "\nidle connections over %s: %d that have each carried one request, %v later; resident memory\n\n", scheme(secure), b.idle, b.settle)
		t := tabwriter.NewWriter(&w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintf(t, "PROXY\tKiB each\t(min-max)\tx nginx\tMiB before\tMiB after\t\n")
		nginx := lab.Median(eachOf(samples, "nginx", secure))
		for _, name := range b.proxies {
			each := eachOf(samples, name, secure)
			if len(each) == 0 {
				continue
			}
			var before, after []float64
			for _, s := range samples {
				if s.proxy == name && s.secure == secure {
					before, after = append(before, float64(s.before)/(1<<20)), append(after, float64(s.after)/(1<<20))
				}
			}
			ratio := "-"
			if nginx > 0 {
				ratio = fmt.Sprintf("%.2f", lab.Median(each)/nginx)
			}
			fmt.Fprintf(t, "%s\t%.1f\t%.1f-%.1f\t%s\t%.0f\t%.0f\t\n", name, lab.Median(each), slices.Min(each), slices.Max(each), ratio,
				lab.Median(before), lab.Median(after))
		}
		_ = t.Flush() // to a buffer
	}
	return w.String()
}

func eachOf(samples []idleSample, name string, secure bool) (each []float64) {
	for _, s := range samples {
		if s.proxy == name && s.secure == secure {
			each = append(each, s.each())
		}
	}
	return each
}
