//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-io/gatehouse/bench/lab"
)

// bench is a prepared run: programs built, ports chosen, certificate made.
type bench struct {
	*options
	dir, caddy, reverseproxy, backend, body string
	site                                    site
	roots                                   *x509.CertPool
	log                                     io.Writer
	notes                                   []string // what the probe found that is not equal
	versions                                []string
}

// row is one line-up under which all proxies are measured.
type row struct {
	secure      bool
	connections int
}

func (r row) String() string {
	if r.secure {
		return fmt.Sprintf("HTTPS (HTTP/1.1, TLS 1.3, keep-alive), %d connections", r.connections)
	}
	return fmt.Sprintf("plain HTTP/1.1 keep-alive, %d connections", r.connections)
}

// sample is one measurement.
type sample struct {
	proxy    string
	row      row
	round    int
	requests uint64
	span     time.Duration
	cpu      time.Duration
	others   time.Duration // what everybody else did on the proxy's core: noise
	rss      int64
	p50, p99 time.Duration
}

// perRequest is the CPU time of one request, in microseconds.
func (s sample) perRequest() float64 {
	return float64(s.cpu.Nanoseconds()) / 1000 / float64(s.requests)
}

// prepare builds the programs and writes what all proxies share.
func prepare(ctx context.Context, o *options, dir string, log io.Writer) (*bench, error) {
	cache, err := filepath.Abs("../.cache/bench")
	if err != nil {
		return nil, err
	}
	b := &bench{options: o, dir: dir, log: log, caddy: filepath.Join(cache, "caddy"),
		reverseproxy: filepath.Join(cache, "reverseproxy"), backend: filepath.Join(cache, "backend"), body: filepath.Join(cache, "body")}
	builds := [][]string{{"build", "-o", b.backend, "./backend"}, {"build", "-o", b.reverseproxy, "./reverseproxy"}, {"build", "-o", b.body, "./body"}}
	if slices.Contains(o.proxies, "caddy") || slices.Contains(o.proxies, "caddy-first") {
		builds = append(builds, []string{"-C", "caddy", "build", "-o", b.caddy, "github.com/caddyserver/caddy/v2/cmd/caddy"})
	}
	for _, args := range builds {
		fmt.Fprintf(log, "building %s\n", args[len(args)-1])
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("building %s: %w\n%s", args[len(args)-1], err, out)
		}
	}
	ports, err := lab.FreePorts(5)
	if err != nil {
		return nil, err
	}
	b.site = site{plain: ports[0], secure: ports[1], health: ports[2], admin: ports[3], backend: ports[4], routes: o.routes,
		certFile: filepath.Join(dir, "cert.pem"), keyFile: filepath.Join(dir, "key.pem")}
	if b.roots, err = lab.Certificate(b.site.certFile, b.site.keyFile, measuredHost, "*.bench.example"); err != nil {
		return nil, fmt.Errorf("making the certificate: %w", err)
	}
	b.versions = b.versionsOf(ctx)
	return b, nil
}

// proxy starts one proxy with a fresh configuration and waits until it answers.
func (b *bench) proxy(ctx context.Context, name string) (*lab.Process, error) {
	s := b.site
	s.dir = filepath.Join(b.dir, name)
	if err := os.RemoveAll(s.dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, err
	}
	args, err := s.command(b, name)
	if err != nil {
		return nil, fmt.Errorf("configuring %s: %w", name, err)
	}
	p, err := lab.Start(b.coreProxy, args...)
	if err != nil {
		return nil, err
	}
	err = p.Wait(ctx, func(ctx context.Context) error {
		_, err := b.fetch(ctx, false, "")
		return err
	})
	if err != nil {
		p.Stop()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

// fetch sends one request through the proxy and returns the answer's body, or that of the backend itself for direct paths.
func (b *bench) fetch(ctx context.Context, secure bool, direct string) ([]byte, error) {
	tr := &http.Transport{DisableCompression: true, DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{RootCAs: b.roots, MinVersion: tls.VersionTLS13},
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			_, port, _ := net.SplitHostPort(addr)
			return (&net.Dialer{}).DialContext(ctx, "tcp4", net.JoinHostPort("127.0.0.1", port))
		}}
	u := b.url(secure)
	if direct != "" {
		u = fmt.Sprintf("http://127.0.0.1:%d%s", b.site.backend, direct)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, err
	}
	for _, h := range b.headers() {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: status %d: %s", u, resp.StatusCode, body)
	}
	return body, err
}

// headers are what every request carries beside its own.
func (b *bench) headers() []string {
	if b.site.credentials == nil {
		return nil
	}
	return b.site.credentials.headers()
}

func (b *bench) url(secure bool) string {
	if secure {
		return fmt.Sprintf("https://%s:%d%s", measuredHost, b.site.secure, target)
	}
	return fmt.Sprintf("http://%s:%d%s", measuredHost, b.site.plain, target)
}

// probeAll sends one request through each proxy to a backend that tells what it got, and notes where they differ.
func (b *bench) probeAll(ctx context.Context) error {
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", b.site.backend))
	if err != nil {
		return err
	}
	s := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(r.Header)
	})}
	go func() { _ = s.Serve(l) }() // until Close
	defer s.Close()
	for _, name := range b.proxies {
		fmt.Fprintf(b.log, "probing %s\n", name)
		p, err := b.proxy(ctx, name)
		if err != nil {
			return err
		}
		for _, secure := range b.secure {
			body, err := b.fetch(ctx, secure, "")
			var got http.Header
			if err == nil {
				err = json.Unmarshal(body, &got)
			}
			if err != nil {
				p.Stop()
				return fmt.Errorf("probing %s: %w\n%s", name, err, p.Output())
			}
			b.notes = append(b.notes, differences(name, secure, got)...)
		}
		p.Stop()
	}
	return nil
}

// differences says which fields a proxy adds besides fields, or leaves out.
func differences(name string, secure bool, got http.Header) []string {
	var notes []string
	for _, f := range fields {
		if got.Get(f) == "" {
			notes = append(notes, fmt.Sprintf("%s (%s) does not send %s", name, scheme(secure), f))
		}
	}
	for f := range got {
		if !slices.Contains(fields, f) && f != "User-Agent" && f != "Connection" {
			notes = append(notes, fmt.Sprintf("%s (%s) also sends %s", name, scheme(secure), f))
		}
	}
	slices.Sort(notes)
	return notes
}

func scheme(secure bool) string {
	if secure {
		return "https"
	}
	return "http"
}

func (b *bench) rows() []row {
	var rows []row
	for _, secure := range b.secure {
		for _, c := range b.connections {
			rows = append(rows, row{secure, c})
		}
	}
	return rows
}

// measureAll goes through all rounds. Within a round every proxy is measured under a row before the next row comes; odd rounds go
// through the proxies backwards.
func (b *bench) measureAll(ctx context.Context) ([]sample, error) {
	var samples []sample
	for round := range b.rounds {
		for _, r := range b.rows() {
			order := slices.Clone(b.proxies)
			if round%2 == 1 {
				slices.Reverse(order)
			}
			for _, name := range order {
				s, err := b.measure(ctx, name, r, round)
				if err != nil {
					return nil, fmt.Errorf("measuring %s, %v, round %d: %w", name, r, round+1, err)
				}
				fmt.Fprintf(b.log, "round %d, %v: %s %.2f us/request, %.0f requests/s\n", round+1, r, name, s.perRequest(),
					float64(s.requests)/s.span.Seconds())
				samples = append(samples, s)
			}
		}
	}
	return samples, nil
}

// serve starts a backend and waits until it answers.
func (b *bench) serve(ctx context.Context, program string) (*lab.Process, error) {
	p, err := lab.Start(b.coreLoad, program, "-listen", fmt.Sprintf("127.0.0.1:%d", b.site.backend))
	if err != nil {
		return nil, err
	}
	if err := p.Wait(ctx, func(ctx context.Context) error { _, err := b.fetch(ctx, false, target); return err }); err != nil {
		p.Stop()
		return nil, err
	}
	return p, nil
}

// count asks the backend how many requests it has answered.
func (b *bench) count(ctx context.Context) (uint64, error) {
	body, err := b.fetch(ctx, false, "/-/count")
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(string(body), 10, 64)
}

// measure starts a proxy, loads it and takes the difference of two moments in the middle of the load: so neither connecting, nor
// handshakes, nor an empty cache counts.
func (b *bench) measure(ctx context.Context, name string, r row, round int) (sample, error) {
	s := sample{proxy: name, row: r, round: round}
	p, err := b.proxy(ctx, name)
	if err != nil {
		return s, err
	}
	defer p.Stop()
	whole := b.warm + b.span + time.Second
	args := []string{"wrk", "-t", "1", "-c", strconv.Itoa(r.connections), "-d", fmt.Sprintf("%ds", int(whole.Seconds()+0.5)), "--timeout", "10s", "--latency"}
	for _, h := range b.headers() {
		args = append(args, "-H", h)
	}
	load, err := lab.Start(b.coreLoad, append(args, b.url(r.secure))...)
	if err != nil {
		return s, err
	}
	defer load.Stop()
	if err := sleep(ctx, b.warm); err != nil {
		return s, err
	}
	if b.profile != "" && name == "gatehouse" && round == b.rounds-1 {
		// While the row is measured, which then counts a little less exactly.
		go b.saveProfile(ctx, fmt.Sprintf("profile?seconds=%d", max(1, int(b.span.Seconds()))), fmt.Sprintf("%s-%d.pprof", scheme(r.secure), r.connections))
	}
	before, err := b.moment(ctx, p)
	if err != nil {
		return s, err
	}
	if err := sleep(ctx, b.span); err != nil {
		return s, err
	}
	after, err := b.moment(ctx, p)
	if err != nil {
		return s, err
	}
	select {
	case <-load.Done:
	case <-ctx.Done():
		return s, ctx.Err()
	}
	s.requests, s.span = after.count-before.count, after.at.Sub(before.at)
	s.cpu, s.rss = after.CPU-before.CPU, after.RSS
	s.others = max(0, after.core-before.core-s.cpu)
	if s.requests == 0 {
		return s, fmt.Errorf("no request reached the backend:\n%s\n%s", load.Output(), p.Output())
	}
	s.p50, s.p99, err = parseWrk(load.Output())
	return s, err
}

// moment is the state of all counters at one time.
type moment struct {
	lab.Usage
	count uint64        // of the backend
	core  time.Duration // that the proxy's core has been busy
	at    time.Time
}

func (b *bench) moment(ctx context.Context, p *lab.Process) (m moment, err error) {
	if m.count, err = b.count(ctx); err != nil {
		return m, fmt.Errorf("asking the backend: %w", err)
	}
	if m.Usage, err = p.Measure(); err != nil {
		return m, err
	}
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return m, err
	}
	m.at = time.Now()
	m.core, err = lab.CoreBusy(string(text), b.coreProxy)
	return m, err
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// saveProfile saves a profile of Gatehouse under -profile: what is its path below /debug/pprof. The measurement goes on without one.
func (b *bench) saveProfile(ctx context.Context, what, name string) {
	err := func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/debug/pprof/%s", b.site.admin, what), nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		if err := os.MkdirAll(b.profile, 0o755); err != nil {
			return err
		}
		f, err := os.Create(filepath.Join(b.profile, name))
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(f, resp.Body)
		return err
	}()
	if err != nil {
		fmt.Fprintf(b.log, "no profile: %v\n", err)
	}
}

// parseWrk reads the latencies from what wrk --latency prints. Anything but answers of 2xx and 3xx is an error: what is refused is
// cheap and must not count.
func parseWrk(out string) (p50, p99 time.Duration, err error) {
	for line := range strings.Lines(out) {
		if l := strings.TrimSpace(line); strings.HasPrefix(l, "Non-2xx") || strings.HasPrefix(l, "Socket errors") {
			return 0, 0, fmt.Errorf("wrk: %s", l)
		}
	}
	for _, q := range []struct {
		re *regexp.Regexp
		to *time.Duration
	}{{regexp.MustCompile(`(?m)^\s+50%\s+(\S+)`), &p50}, {regexp.MustCompile(`(?m)^\s+99%\s+(\S+)`), &p99}} {
		m := q.re.FindStringSubmatch(out)
		if m == nil {
			return 0, 0, fmt.Errorf("wrk printed no latencies:\n%s", out)
		}
		if *q.to, err = time.ParseDuration(m[1]); err != nil {
			return 0, 0, fmt.Errorf("wrk's latency: %w", err)
		}
	}
	return p50, p99, nil
}
