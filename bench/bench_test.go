//go:build linux

package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/bench/lab"
)

func TestParse(t *testing.T) {
	cases := []struct{ args, err string }{
		{"", ""},
		{"-short", ""},
		{"-proxies nginx,apache", `no proxy "apache"`},
		{"-connections 64,many", `"many" is not a number`},
		{"-protocols http,h2", `"h2" is neither`},
		{"-rounds 0", "-rounds, -routes, -idle and -changes"},
		{"-bytes 10", "-bytes at least 1 MiB"},
		{"-measure requests,speed", `"speed" is none of requests, policies, idle, bodies, scale`},
		{"nginx", `unexpected argument "nginx"`},
	}
	for _, c := range cases {
		_, err := parse(strings.Fields(c.args), io.Discard)
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("parse(%q) = %v, want %q", c.args, err, c.err)
		}
	}
	o, err := parse([]string{"-short"}, io.Discard)
	if err != nil || o.rounds != 1 || !slices.Equal(o.connections, []int{64}) || slices.Contains(o.proxies, "caddy") {
		t.Errorf("parse(-short) = %+v, %v, want one round at 64 connections without Caddy", o, err)
	}
}

func TestMissing(t *testing.T) {
	o := &options{gatehouse: filepath.Join(t.TempDir(), "gatehouse"), proxies: []string{"gatehouse"}, coreProxy: "0", coreLoad: "0"}
	got := strings.Join(missing(o), "\n")
	if !strings.Contains(got, "(make build)") {
		t.Errorf("missing = %q, want it to name make build", got)
	}
}

func TestParseWrk(t *testing.T) {
	const out = `Running 3s test @ http://localhost:1/api
  1 threads and 64 connections
  Latency Distribution
     50%    1.50ms
     75%    1.80ms
     90%    2.00ms
     99%  812.00us
  1000 requests in 3.00s, 1.00MB read
`
	p50, p99, err := parseWrk(out)
	if err != nil || p50 != 1500*time.Microsecond || p99 != 812*time.Microsecond {
		t.Errorf("parseWrk = %v, %v, %v, want 1.5ms, 812us", p50, p99, err)
	}
	for _, bad := range []string{"", out + "  Non-2xx or 3xx responses: 3\n", out + "  Socket errors: connect 0, read 1, write 0, timeout 0\n"} {
		if _, _, err := parseWrk(bad); err == nil {
			t.Errorf("parseWrk(%q) = nil error, want one", bad)
		}
	}
}

// TestConfigurations checks that each proxy is told every route once and the measured one where it belongs.
func TestConfigurations(t *testing.T) {
	dir := t.TempDir()
	s := site{dir: dir, plain: 1, secure: 2, health: 3, backend: 5, routes: 1000,
		certFile: filepath.Join(dir, "cert.pem"), keyFile: filepath.Join(dir, "key.pem")}
	if _, err := lab.Certificate(s.certFile, s.keyFile, measuredHost); err != nil {
		t.Fatal(err)
	}
	ingress, err := s.gatehouse()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.haproxyCommand(); err != nil {
		t.Fatal(err)
	}
	mapped := s.haproxy()
	if b, err := os.ReadFile(s.file("hosts.map")); err == nil {
		mapped += string(b)
	}
	caddy, err := json.Marshal(s.caddy())
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name, text, each string
		n                int
	}{
		{"gatehouse", ingress, "kind: Ingress\n", 1000},
		{"nginx", s.nginx(), "server_name ", 1000},
		{"haproxy", mapped, "\tbackend\n", 1000},
		{"caddy", string(caddy), `"handler":"reverse_proxy"`, 2000}, // both servers
		{"reverseproxy", s.lines(), " /api http://127.0.0.1:5\n", 1000},
	}
	for _, c := range cases {
		if got := strings.Count(c.text, c.each); got != c.n {
			t.Errorf("%s: %d times %q, want %d", c.name, got, c.each, c.n)
		}
		if strings.Contains(c.text, "%!") {
			t.Errorf("%s: a format went wrong: %s", c.name, c.text[strings.Index(c.text, "%!"):][:40])
		}
		for _, h := range []string{measuredHost, "r00000.bench.example", "r00999.bench.example"} {
			if !strings.Contains(c.text, h) {
				t.Errorf("%s: no route for %s", c.name, h)
			}
		}
	}
	if i := slices.Index(s.hosts(), measuredHost); i != 500 {
		t.Errorf("the measured route stands at %d, want 500", i)
	}
	s.first = true
	if i := slices.Index(s.hosts(), measuredHost); i != 0 {
		t.Errorf("the measured route stands at %d, want 0", i)
	}
}

func TestDifferences(t *testing.T) {
	h := http.Header{}
	for _, f := range fields {
		h.Set(f, "x")
	}
	if got := differences("p", false, h); len(got) != 0 {
		t.Errorf("differences of all fields = %q, want none", got)
	}
	h.Del("X-Real-Ip")
	h.Set("Via", "x")
	want := []string{"p (https) also sends Via", "p (https) does not send X-Real-Ip"}
	if got := differences("p", true, h); !slices.Equal(got, want) {
		t.Errorf("differences = %q, want %q", got, want)
	}
}

func TestReport(t *testing.T) {
	r := row{false, 64}
	b := &bench{options: &options{proxies: []string{"gatehouse", "nginx", "gatehouse-b"}, connections: []int{64}, secure: []bool{false}, rounds: 3}}
	var samples []sample
	for round, us := range []int{20, 30, 25} {
		for _, name := range b.proxies {
			cpu := time.Duration(us) * time.Microsecond * 1000
			if name == "gatehouse-b" {
				cpu = cpu * 11 / 10
			}
			if name == "nginx" {
				cpu = 40 * time.Millisecond
			}
			samples = append(samples, sample{proxy: name, row: r, round: round, requests: 1000, span: time.Second, cpu: cpu, rss: 1 << 20,
				p50: time.Millisecond, p99: 2 * time.Millisecond})
		}
	}
	got := requestsReport(b, samples)
	for _, want := range []string{
		"gatehouse       25.00     0.62  0.50-0.75        1000       2         0    1.00    2.00        1",
		"gatehouse     to nginx by round    0.50 0.75 0.62",
		"gatehouse-b   to gatehouse, control 1.10 1.10 1.10",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("report = %s\nwant a line %q", got, want)
		}
	}
}
