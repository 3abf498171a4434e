package listener

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/cert"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// table makes the TLS of a socket that shows a certificate for shop.example to everybody.
func table(t *testing.T) *cert.Table {
	t.Helper()
	return cert.NewTable(nil, []cert.Entry{{Store: storeOf(t)}})
}

func storeOf(t *testing.T) *cert.Store {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"shop.example"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	kder, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	store, faults := cert.Build(nil, "", &ir.TLS{Default: "h"}, secret.Set{"h": {Data: map[string]secret.Value{
		"tls.crt": secret.New(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		"tls.key": secret.New(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kder})),
	}}})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return store
}

func insecure() *tls.Config {
	return &tls.Config{ServerName: "shop.example", InsecureSkipVerify: true}
}

func TestTLSReadsWithoutHoldingABuffer(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		pool := &heap{}
		s := newSet(t, Options{Serve: echo(pool)})
		s.Start()
		w := on(loopback, 0, "g")
		w.TLS = table(t)
		conf := insecure()
		conf.MaxVersion = version
		c := tls.Client(dial(t, apply(t, s, w)), conf)
		say(t, c, "one", "g:one")
		say(t, c, "two", "g:two")
		if n := pool.held(); n > 1 { // the reading goroutine may be between Take and Give
			t.Errorf("%#x: %d buffers held by an idle connection", version, n)
		}
		// One record, larger than a buffer and split over many segments.
		big := bytes.Repeat([]byte("0123456789abcdef"), 900)
		if _, err := c.Write(big); err != nil {
			t.Fatal(err)
		}
		var got []byte
		for p := make([]byte, 4096); len(bytes.ReplaceAll(got, []byte("g:"), nil)) < len(big); {
			n, err := c.Read(p)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, p[:n]...)
		}
		if !bytes.Equal(bytes.ReplaceAll(got, []byte("g:"), nil), big) {
			t.Errorf("%#x: a large record came back changed", version)
		}
		if err := c.CloseWrite(); err != nil { // close_notify
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%#x: after close_notify: %v, want EOF", version, err)
		}
		s.Close()
		if pool.held() != 0 {
			t.Errorf("%#x: %d buffers never came back", version, pool.held())
		}
	}
}

func TestTLSRecordCutShortIsAnError(t *testing.T) {
	client, server := tcpPair(t)
	srv := cert.NewServer("http/1.1")
	tab := table(t)
	srv.Swap(tab)
	c := Wrap(server, &Socket{TLS: tab}, srv.Config())
	tc := tls.Client(client, insecure())
	shaken := make(chan error, 1)
	go func() { shaken <- tc.Handshake() }()
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	if c.SNI() != "shop.example" || c.TLS() == nil {
		t.Errorf("SNI() = %q, TLS() = %v, want shop.example and a state", c.SNI(), c.TLS())
	}
	if _, err := client.Write([]byte("\x17\x03\x03\x00\x20half a record")); err != nil {
		t.Fatal(err)
	}
	client.CloseWrite()
	pool := &heap{}
	if _, _, err := c.ReadPooled(pool); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("ReadPooled of half a record = %v, want unexpected EOF", err)
	}
	if pool.held() != 0 {
		t.Errorf("%d buffers held after the error", pool.held())
	}
}

func TestHandshakeHasADeadlineOfItsOwn(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 5 s")
	}
	t.Parallel()
	_, server := tcpPair(t)
	srv := cert.NewServer("http/1.1")
	c := Wrap(server, &Socket{TLS: table(t)}, srv.Config())
	start := time.Now()
	if err := c.Handshake(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Handshake with a silent client = %v, want a deadline error", err)
	}
	if d := time.Since(start); d < handshakeTime || d > handshakeTime+2*time.Second {
		t.Errorf("it took %v, want 5 s", d)
	}
}

func TestGone(t *testing.T) {
	check := func(what string, c *Conn, closed, half bool) {
		t.Helper()
		if gotClosed, gotHalf := c.Gone(); gotClosed != closed || gotHalf != half {
			t.Errorf("%s: Gone() = %v, %v, want %v, %v", what, gotClosed, gotHalf, closed, half)
		}
	}
	a, c := pipe(t)
	check("open", c, false, false)
	if _, err := a.Write([]byte("pipelined")); err != nil {
		t.Fatal(err)
	}
	readable(t, c)
	check("bytes waiting", c, false, false)
	if n := testing.AllocsPerRun(100, func() { c.Gone() }); n != 0 {
		t.Errorf("Gone allocates %v times", n)
	}

	a, c = pipe(t)
	a.CloseWrite()
	readable(t, c) // the end is readable
	check("half closed", c, false, true)

	a, c = pipe(t)
	_ = a.SetLinger(0)
	a.Close()
	readable(t, c) // so is a reset
	check("reset", c, true, true)

	_, c = pipe(t)
	c.Close()
	check("closed by us", c, true, true)
}

func TestReadPooledKeepsNoBufferWhileItWaits(t *testing.T) {
	a, c := pipe(t)
	pool := &heap{}
	type read struct {
		text string
		err  error
	}
	reads := make(chan read)
	go func() {
		for {
			b, n, err := c.ReadPooled(pool)
			reads <- read{string(b[:n]), err}
			if err != nil {
				return
			}
			pool.Give(b)
		}
	}()
	for _, text := range []string{"one", "two"} {
		if _, err := io.WriteString(a, text); err != nil {
			t.Fatal(err)
		}
		if got := <-reads; got.text != text || got.err != nil {
			t.Fatalf("ReadPooled = %q, %v, want %q", got.text, got.err, text)
		}
	}
	a.CloseWrite()
	if got := <-reads; !errors.Is(got.err, io.EOF) {
		t.Errorf("ReadPooled at the end = %v, want EOF", got.err)
	}
	if pool.held() != 0 {
		t.Errorf("%d buffers held", pool.held())
	}
	if pool.taken > 6 { // each wait takes one to look, gives it back, and takes one to read
		t.Errorf("%d buffers taken for 3 reads", pool.taken)
	}
}

// one is a pool of one buffer.
type one struct{ b []byte }

func (o *one) Take() []byte { return o.b }
func (o *one) Give([]byte)  {}

func TestHotPathAllocatesNothing(t *testing.T) {
	a, c := pipe(t)
	pool := &one{make([]byte, 4096)}
	text := []byte("GET / HTTP/1.1\r\n\r\n")
	now := time.Now()
	n := testing.AllocsPerRun(200, func() {
		if _, err := a.Write(text); err != nil {
			t.Fatal(err)
		}
		c.Idle(now, time.Minute)
		if _, n, err := c.ReadPooled(pool); n != len(text) || err != nil {
			t.Fatal(n, err)
		}
		c.Busy()
		c.WriteWithin(now, time.Minute)
		if _, err := c.Write(text); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Read(pool.b); err != nil {
			t.Fatal(err)
		}
		_ = c.Closing()
	})
	if n != 0 {
		t.Errorf("one request allocates %v times, want 0", n)
	}
}

func TestDeadlineIsNeverEarlyAndAtMostASecondLate(t *testing.T) {
	now := time.Unix(1000, 0)
	at := func(d time.Duration) time.Time { return now.Add(d) }
	for _, c := range []struct {
		name   string
		set    time.Time
		d      time.Duration
		change bool
		want   time.Time
	}{
		{"none wanted, none set", time.Time{}, 0, false, time.Time{}},
		{"none wanted, one set", at(5 * time.Second), 0, true, time.Time{}},
		{"first", time.Time{}, 10 * time.Second, true, at(11 * time.Second)},
		{"set is exact", at(10 * time.Second), 10 * time.Second, false, at(10 * time.Second)},
		{"set is a second late", at(11 * time.Second), 10 * time.Second, false, at(11 * time.Second)},
		{"set is later", at(11*time.Second + 1), 10 * time.Second, true, at(11 * time.Second)},
		{"set is earlier", at(10*time.Second - 1), 10 * time.Second, true, at(11 * time.Second)},
		{"set has passed", at(-time.Hour), 10 * time.Second, true, at(11 * time.Second)},
	} {
		change, got := later(c.set, now, c.d)
		if change != c.change || !got.Equal(c.want) {
			t.Errorf("%s: later = %v, %v, want %v, %v", c.name, change, got, c.change, c.want)
		}
	}
}

func TestBusyConnectionSetsADeadlineOnceASecond(t *testing.T) {
	set, changes := time.Time{}, 0
	for i := range 10_000 { // ten seconds of a request each millisecond
		change, at := later(set, time.Unix(0, int64(i)*1e6), 90*time.Second)
		if set = at; change {
			changes++
		}
	}
	if changes > 10 {
		t.Errorf("the deadline was set %d times in 10 s, want at most 10", changes)
	}
}

func TestReadDeadlineEndsARead(t *testing.T) {
	_, c := pipe(t)
	c.ReadWithin(time.Now().Add(-time.Hour), time.Minute)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read past its deadline = %v", err)
	}
	if _, _, err := c.ReadPooled(&heap{}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("ReadPooled past its deadline = %v", err)
	}
}

func TestResetIsNoOrderlyEnd(t *testing.T) {
	a, c := pipe(t)
	c.Reset()
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client reads %v, want a reset", err)
	}
	c.Reset() // again: harmless
}

func TestInterruptHolds(t *testing.T) {
	_, c := pipe(t)
	ended := make(chan error)
	go func() {
		_, err := c.Read(make([]byte, 1))
		ended <- err
	}()
	c.Interrupt()
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the read that waited = %v, want a deadline error", err)
	}
	c.ReadWithin(time.Now(), time.Minute)
	if _, _, err := c.ReadPooled(&heap{}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a later read = %v, want a deadline error", err)
	}
	c.stop()
	if _, _, err := c.ReadPooled(&heap{}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a read after stop = %v, want a deadline error", err)
	}
}

func TestWriteBuffers(t *testing.T) {
	a, c := pipe(t)
	v := net.Buffers{[]byte("head "), []byte("body")}
	if n, err := c.WriteBuffers(&v); n != 9 || err != nil {
		t.Fatalf("WriteBuffers = %d, %v", n, err)
	}
	expect(t, a, "head body")
}

func TestWrapOnAnInMemoryNetwork(t *testing.T) {
	a, b := net.Pipe()
	tab := table(t)
	srv := cert.NewServer("http/1.1")
	srv.Swap(tab)
	c := Wrap(b, &Socket{Group: "g", Port: 443, TLS: tab}, srv.Config())
	defer c.Close()
	defer a.Close() // first: Close would wait for somebody to read the alert
	tc := tls.Client(a, insecure())
	go func() {
		if tc.Handshake() == nil {
			_, _ = tc.Write([]byte("hello"))
		}
	}()
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	p, n, err := c.ReadPooled(&heap{})
	if err != nil || string(p[:n]) != "hello" {
		t.Errorf("ReadPooled = %q, %v, want hello", p[:n], err)
	}
	if closed, half := c.Gone(); closed || half {
		t.Errorf("Gone() = %v, %v on an open pipe", closed, half)
	}
	if c.Peer() != (netip.AddrPort{}) {
		t.Errorf("Peer() = %v on a pipe, want none", c.Peer())
	}
}

// TestHandshakePanic: what panics on the handshake's goroutine ends there and goes on where somebody can keep it to the connection.
func TestHandshakePanic(t *testing.T) {
	conf := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { panic("out of its mind") }}
	client, server := net.Pipe()
	defer client.Close()
	go func() { _ = tls.Client(client, insecure()).Handshake() }()
	c := Wrap(server, &Socket{TLS: table(t)}, conf)
	defer func() {
		_ = server.Close()
		if p, ok := recover().(string); !ok || !strings.HasPrefix(p, "handshake: out of its mind\n") || !strings.Contains(p, "TestHandshakePanic") {
			t.Errorf("recovered %v, want the panic and its stack", p)
		}
	}()
	t.Errorf("Handshake = %v, want a panic", c.Handshake())
}
