//go:build linux

package main

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestTables holds the reports of idle connections, bodies and many routes to what was measured.
func TestTables(t *testing.T) {
	b := &bench{options: &options{proxies: []string{"gatehouse", "nginx", "caddy"}, secure: []bool{false}, idle: 1024, bytes: 1 << 30, many: 100000}}
	idle := idleReport(b, []idleSample{
		{proxy: "gatehouse", before: 10 << 20, after: 15 << 20, n: 1024},
		{proxy: "gatehouse", before: 10 << 20, after: 17 << 20, n: 1024},
		{proxy: "nginx", before: 10 << 20, after: 12 << 20, n: 1024},
	})
	up := flow{do: "upload"}
	bodies := bodiesReport(b, []bodySample{
		{proxy: "gatehouse", flow: up, round: 0, cpu: time.Second, took: 2 * time.Second, idle: 10 << 20, peak: 12 << 20},
		{proxy: "nginx", flow: up, round: 0, cpu: 2 * time.Second, took: time.Second, idle: 10 << 20, peak: 11 << 20},
		{proxy: "gatehouse", flow: up, round: 1, cpu: time.Second, took: time.Second, idle: 10 << 20, peak: 14 << 20},
		{proxy: "nginx", flow: up, round: 1, cpu: time.Second, took: time.Second, idle: 10 << 20, peak: 11 << 20},
		{proxy: "caddy", flow: up, round: 2, cpu: time.Second, took: time.Second},
	})
	scale := scaleReport(b, []scaleSample{
		{proxy: "gatehouse", ready: 9 * time.Second, memory: 200 << 20, heap: 100 << 20, visible: []time.Duration{20 * time.Millisecond, 30 * time.Millisecond}},
		{proxy: "nginx", ready: time.Minute, memory: 300 << 20, heap: -1, visible: []time.Duration{time.Second}},
	})
	for _, c := range []struct{ report, want string }{
		{idle, "  gatehouse        6.0  5.0-7.0     3.00          10         16  \n"},
		{idle, "      nginx        2.0  2.0-2.0     1.00          10         12  \n"},
		{bodies, "  gatehouse    768     0.75  0.50-1.00        0.98     0.75  0.50-1.00       3.0    4.0  \n"},
		{bodies, "      caddy   1024        -          -        0.98        -          -       0.0    0.0  \n"},
		{scale, "  gatehouse     9.00            100           200       25.0     30.0  \n"},
		{scale, "      nginx    60.00              -           300     1000.0   1000.0  \n"},
	} {
		if squeeze := strings.Join(strings.Fields(c.want), " "); !strings.Contains(strings.Join(strings.Fields(c.report), " "), squeeze) {
			t.Errorf("report = %s\nwant a line %q", c.report, squeeze)
		}
	}
	if got := idleReport(b, nil); got != "" {
		t.Errorf("idleReport of nothing = %q, want none", got)
	}
}

// TestIdleConnections opens connections to a server and finds those that do not stay.
func TestIdleConnections(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != strings.Split(target, "?")[0] {
			w.WriteHeader(http.StatusNotFound)
		}
	})}
	go func() { _ = s.Serve(l) }()
	defer s.Close()
	b := &bench{options: &options{}, site: site{plain: l.Addr().(*net.TCPAddr).Port}}
	conns := make([]*idleConn, 3*openers)
	if err := b.openAll(t.Context(), conns, false); err != nil {
		t.Fatal(err)
	}
	for i, c := range conns {
		if err := c.get(); err != nil {
			t.Errorf("connection %d: %v", i, err)
		}
	}
	s.Close()
	if err := conns[0].get(); err == nil {
		t.Error("get on a connection that the server closed = nil, want an error")
	}
	for _, c := range conns {
		c.conn.Close()
	}
	if err := b.openAll(t.Context(), conns, false); err == nil {
		t.Error("openAll without a server = nil, want an error")
	}
}

// TestSiteOfManyPaths holds the files for many routes to naming each path of each host once.
func TestSiteOfManyPaths(t *testing.T) {
	s := site{dir: t.TempDir(), plain: 1, secure: 2, routes: 20, paths: 10}
	if got := strings.Count(s.nginx(), "location /"); got != 200 {
		t.Errorf("nginx has %d locations, want 200", got)
	}
	if got := strings.Count(s.ingress("a", "a.example", s.pathsOf()), "pathType: Prefix"); got != 10 {
		t.Errorf("an Ingress has %d paths, want 10", got)
	}
	if s.stream = true; !strings.Contains(s.nginx(), "proxy_request_buffering off; proxy_buffering off;") {
		t.Error("nginx would keep bodies")
	}
}
