package drive

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/upstream"
)

// faulty is a carrier that panics when it is read.
type faulty struct{ net.Conn }

func (faulty) Read([]byte) (int, error) { panic("a codec's fault") }

// TestPanicInAnErrandCostsItAlone: a mirror and a health check that panic have failed, are told with a stack, and leave no connection,
// count or endpoint in use behind; those after them are as ever.
func TestPanicInAnErrandCostsItAlone(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	defer s.Close()
	set := upstream.NewSet(upstream.Rules{})
	c := set.Acquire("c")
	c.Configure(upstream.NewSettings(&ir.Cluster{Traffic: &ir.Traffic{Breaker: &ir.Breaker{MaxConnections: 9},
		Active: &ir.Active{Path: "/", Interval: ir.Duration(time.Hour), Timeout: ir.Duration(5 * time.Second), Healthy: 1, Unhealthy: 1}}}, nil, ""))
	c.SetEndpoints([]upstream.Resolved{{Addr: netip.MustParseAddrPort(s.Listener.Addr().String()), Ready: true}})
	e := c.All()[0]
	var log strings.Builder
	d := &Driver{Clusters: set, Log: slog.New(slog.NewTextHandler(&log, nil))}
	spoil := func() { // the kept connection is one that panics
		t.Helper()
		q := &errand{c: c, e: e, limit: 5 * time.Second}
		conn, err := d.connection(q, time.Now().Add(5*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		conn.Net = faulty{conn.Net}
		e.Put(conn, time.Now())
	}
	clean := func(when string, conns int64) {
		t.Helper()
		if e.Active() != 0 || c.Connections() != conns || d.mirrors.Load() != 0 {
			t.Errorf("%s: %d exchanges, %d connections (want %d), %d mirrors are left", when, e.Active(), c.Connections(), conns, d.mirrors.Load())
		}
	}
	j := &mirrorJob{d: d, to: []*upstream.Cluster{c}, may: func(*upstream.Endpoint) bool { return true }, method: "GET",
		request: []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n")}
	spoil()
	if err := j.copyTo(c); err == nil || !strings.Contains(err.Error(), "panic: a codec's fault") {
		t.Errorf("mirror: %v", err)
	}
	clean("after a mirror", 0)
	if err := j.copyTo(c); err != nil {
		t.Errorf("the next mirror: %v", err)
	}
	clean("after the next", 1)
	e.Take(time.Now()).Close()

	spoil()
	d.checkAll(c, c.Settings().Active)
	clean("after a check", 0)
	if c.Out() != 1 {
		t.Errorf("a check that panicked has not failed")
	}
	d.checkAll(c, c.Settings().Active)
	clean("after the next", 1)
	if c.Out() != 0 {
		t.Errorf("the next check did not pass")
	}
	if n := strings.Count(log.String(), "faulty.Read("); n != 2 {
		t.Errorf("%d stacks were told, want 2:\n%s", n, log.String())
	}
}
