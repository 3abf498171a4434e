//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for args, want := range map[string]string{
		"-gatehouse soak_test.go -short":     "",
		"-gatehouse soak_test.go -length 1s": "-length must be at least 10s",
		"-gatehouse soak_test.go more":       "no arguments follow",
		"-gatehouse missing":                 "missing: missing (make build)",
	} {
		_, err := parse(strings.Fields(args), io.Discard)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("parse(%q) = %v, want %q", args, err, want)
		}
	}
}

// TestFrame takes the masked frame from RFC 6455 section 5.7, with the opcode of a binary one.
func TestFrame(t *testing.T) {
	const masked = "\x82\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"
	if got := appendFrame(nil, []byte("Hello"), []byte("\x37\xfa\x21\x3d")); string(got) != masked {
		t.Errorf("appendFrame = %x, want %x", got, masked)
	}
	for _, f := range []string{masked, "\x82\x05Hello"} {
		if got, err := readFrame(bufio.NewReader(strings.NewReader(f))); err != nil || string(got) != "Hello" {
			t.Errorf("readFrame(%x) = %q, %v, want Hello", f, got, err)
		}
	}
	for _, f := range []string{"", "\x82", "\x81\x01a", "\x82\x7e\x00\x80", "\x82\x05Hell", "\x82\x81\x00"} {
		if got, err := readFrame(bufio.NewReader(strings.NewReader(f))); err == nil {
			t.Errorf("readFrame(%x) = %q, want an error", f, got)
		}
	}
}

// TestAcceptKey takes the example of RFC 6455 section 1.3.
func TestAcceptKey(t *testing.T) {
	if got := acceptKey("dGhlIHNhbXBsZSBub25jZQ=="); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Errorf("acceptKey = %q", got)
	}
}

// against is a client whose requests go straight to port.
func against(port int) *client {
	return &client{load: &load{world: &world{plain: port}, tallies: make([]tally, len(kinds))}}
}

// TestClients lets every kind of client talk to a backend without a proxy between them: then nothing fails.
func TestClients(t *testing.T) {
	p, err := newPod()
	if err != nil {
		t.Fatal(err)
	}
	defer p.end()
	for _, k := range kinds {
		c := against(p.port)
		for range 2 { // the second on the connection that was kept
			if err := k.do(c); err != nil {
				t.Errorf("%s: %v", k.name, err)
			}
		}
		c.hangUp()
	}
}

// TestClientsNotice lets clients talk to servers that are wrong in ways that a proxy could be.
func TestClientsNotice(t *testing.T) {
	wrong := map[string]struct {
		want string
		h    http.HandlerFunc
	}{
		"id": {"the answer to another request", func(w http.ResponseWriter, r *http.Request) { r.Header.Set("X-Soak-Id", "0"); echo(w, r) }},
		"body": {"the backend got another body", func(w http.ResponseWriter, r *http.Request) {
			_, _ = r.Body.Read(make([]byte, 1))
			r.Body = http.NoBody
			echo(w, r)
		}},
		"length": {"a body of another length", func(w http.ResponseWriter, r *http.Request) { r.URL.RawQuery = "bytes=100000"; echo(w, r) }},
		"status": {"502 backend_failed", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(502)
			_, _ = io.WriteString(w, `{"reason":"backend_failed"}`)
		}},
		"end": {"reading the head: unexpected EOF", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
	}
	for name, c := range wrong {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: c.h}
		go s.Serve(l)
		client := against(l.Addr().(*net.TCPAddr).Port)
		if err := client.post(); err == nil || reason(err) != c.want {
			t.Errorf("%s: post = %v, want %q", name, err, c.want)
		}
		client.hangUp()
		s.Close()
	}
}

func TestMetric(t *testing.T) {
	const text = "# HELP go_goroutines Number.\ngo_goroutines_total 7\ngo_goroutines 42\n"
	if got, err := metric(strings.NewReader(text), "go_goroutines"); err != nil || got != 42 {
		t.Errorf("metric = %v, %v, want 42", got, err)
	}
	if _, err := metric(strings.NewReader(text), "go_threads"); err == nil {
		t.Error("metric(go_threads) = nil error, want one")
	}
}

func TestQuantile(t *testing.T) {
	var a tally
	for i := range 100 {
		a.ok(time.Duration(i+1) * time.Millisecond)
	}
	for q, want := range map[float64]time.Duration{0.5: 50 * time.Millisecond, 0.99: 99 * time.Millisecond, 1: 100 * time.Millisecond} {
		if got := a.quantile(q); got < want || got > want*12/10 {
			t.Errorf("quantile(%v) = %v, want %v or up to a fifth more", q, got, want)
		}
	}
}

// TestReport names what grew, what is left and what failed, and nothing when all is well.
func TestReport(t *testing.T) {
	fresh := func() *soak {
		s := &soak{options: &options{gatehouse: "/nonexistent", length: time.Minute}, load: against(0).load}
		for i := range kinds {
			for range 1000 {
				s.load.tallies[i].ok(time.Millisecond)
			}
		}
		s.changes.ok(time.Millisecond)
		s.rotations.ok(time.Millisecond)
		for range 100 {
			s.samples = append(s.samples, sample{100, 100, 100 << 20})
		}
		s.before, s.after = sample{10, 10, 50 << 20}, sample{20, 20, 100 << 20}
		return s
	}
	cases := []struct {
		name string
		do   func(*soak)
		want []string
	}{
		{"well", func(*soak) {}, nil},
		{"a rise within the limits", func(s *soak) { s.samples[99] = sample{1e6, 1e6, 1e12} }, nil},
		{"goroutines", func(s *soak) { s.rise(sample{1, 0, 0}) }, []string{"goroutines grew from 130 to 190"}},
		{"descriptors", func(s *soak) { s.rise(sample{0, 1, 0}) }, []string{"descriptors grew from 130 to 190"}},
		{"memory", func(s *soak) { s.rise(sample{0, 0, 1 << 20}) }, []string{"RSS MiB grew from 130 to 190"}},
		{"left", func(s *soak) { s.after[goroutines] = 21 }, []string{"goroutines are left after the load: 21, before it 10"}},
		{"a GET", func(s *soak) { s.load.tallies[0].fail("502 x") }, []string{"GET: 1 of 1001 failed: 1 502 x"}},
		{"one POST", func(s *soak) { s.load.tallies[1].fail("502 x") }, nil},
		{"many POSTs", func(s *soak) {
			for range 11 {
				s.load.tallies[1].fail("502 x")
			}
		}, []string{"POST: 11 of 1011 failed: 11 502 x"}},
		{"unseen", func(s *soak) { note(&s.changes, time.Now(), errors.New("not seen")) }, []string{"routes seen: 1 times of 2 not: 1 not seen"}},
		{"no rotation", func(s *soak) { s.rotations = tally{} }, []string{"certificate seen: 0 times of 0 not: "}},
	}
	for _, c := range cases {
		s := fresh()
		c.do(s)
		text, faults := s.report("x")
		if strings.Join(faults, "\n") != strings.Join(c.want, "\n") {
			t.Errorf("%s: faults = %q, want %q", c.name, faults, c.want)
		}
		for _, f := range faults {
			if !strings.Contains(text, "FAULT: "+f) {
				t.Errorf("%s: the report does not tell %q", c.name, f)
			}
		}
		if !bytes.Contains([]byte(text), []byte("GAUGE")) {
			t.Errorf("%s: no table:\n%s", c.name, text)
		}
	}
}

// rise lets gauges grow from sample to sample.
func (s *soak) rise(by sample) {
	for i := range s.samples {
		for g := range gauges {
			s.samples[i][g] += by[g] * float64(i+1)
		}
	}
}
