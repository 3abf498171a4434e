package listener

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/hex"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	proxyproto "github.com/pires/go-proxyproto"
)

// v2 makes a header of version 2: command and version, family and protocol, the rest.
func v2(cmd, family byte, rest string) string {
	return v2Sign + string([]byte{cmd, family, byte(len(rest) >> 8), byte(len(rest))}) + rest
}

const addrs4 = "\xc6\x33\x64\x04\x0a\x00\x00\x01\x30\x39\x01\xbb" // 198.51.100.4:12345 to 10.0.0.1:443

var addrs6 = "\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x04" + strings.Repeat("\x00", 16) + "\x30\x39\x01\xbb"

func proxyHeaders() []struct{ name, in, src, err string } {
	return []struct{ name, in, src, err string }{
		{"v1 TCP4", "PROXY TCP4 198.51.100.4 10.0.0.1 12345 443\r\n", "198.51.100.4:12345", ""},
		{"v1 TCP6", "PROXY TCP6 2001:db8::4 2001:db8::1 12345 443\r\n", "[2001:db8::4]:12345", ""},
		{"v1 UNKNOWN", "PROXY UNKNOWN\r\n", "", ""},
		{"v1 UNKNOWN with a rest", "PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", "", ""},
		{"v1 without CR", "PROXY TCP4 198.51.100.4 10.0.0.1 12345 443\n", "", "CR LF"},
		{"v1 too long", "PROXY UNKNOWN " + strings.Repeat("x", 100) + "\r\n", "", "longer"},
		{"v1 family and address differ", "PROXY TCP6 198.51.100.4 10.0.0.1 12345 443\r\n", "", "address"},
		{"v1 port too large", "PROXY TCP4 198.51.100.4 10.0.0.1 65536 443\r\n", "", "port"},
		{"v1 port with a sign", "PROXY TCP4 198.51.100.4 10.0.0.1 +123 443\r\n", "", "port"},
		{"v1 port with a zero", "PROXY TCP4 198.51.100.4 10.0.0.1 0123 443\r\n", "", "port"},
		{"v1 zone", "PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n", "", "address"},
		{"v1 two spaces", "PROXY TCP4  198.51.100.4 10.0.0.1 12345 443\r\n", "", "not PROXY"},
		{"v1 lower case", "proxy TCP4 198.51.100.4 10.0.0.1 12345 443\r\n", "", "no PROXY"},
		{"a request", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "", "no PROXY"},
		{"a TLS hello", "\x16\x03\x01\x02\x00\x01", "", "no PROXY"},
		{"v2 TCP4", v2(0x21, 0x11, addrs4), "198.51.100.4:12345", ""},
		{"v2 TCP4 with TLVs", v2(0x21, 0x11, addrs4+"\x04\x00\x01x"), "198.51.100.4:12345", ""},
		{"v2 TCP6", v2(0x21, 0x21, addrs6), "[2001:db8::4]:12345", ""},
		{"v2 LOCAL", v2(0x20, 0x00, ""), "", ""},
		{"v2 LOCAL with addresses", v2(0x20, 0x11, addrs4), "", ""},
		{"v2 UNSPEC", v2(0x21, 0x00, ""), "", ""},
		{"v2 addresses cut", v2(0x21, 0x11, addrs4[:11]), "", "bytes of address"},
		{"v2 IPv6 addresses cut", v2(0x21, 0x21, addrs4), "", "bytes of address"},
		// Not supported, so treated as UNSPEC (section 2.2): the address is the sender's own.
		{"v2 UDP over IPv4", v2(0x21, 0x12, addrs4), "", ""},
		{"v2 UDP over IPv6", v2(0x21, 0x22, addrs6), "", ""},
		{"v2 UNIX stream", v2(0x21, 0x31, strings.Repeat("x", 216)), "", ""},
		{"v2 UNIX datagram", v2(0x21, 0x32, strings.Repeat("x", 216)), "", ""},
		{"v2 family of nobody", v2(0x21, 0x41, addrs4), "", "family"},
		{"v2 protocol of nobody", v2(0x21, 0x13, addrs4), "", "family"},
		{"v2 family without a protocol", v2(0x21, 0x10, addrs4), "", "family"},
		{"v2 version 1", v2(0x11, 0x11, addrs4), "", "version"},
		{"v2 command 2", v2(0x22, 0x11, addrs4), "", "command"},
		{"v2 too long", v2(0x21, 0x11, addrs4+strings.Repeat("x", v2Max)), "", "more than"},
	}
}

// Whole, and byte by byte with a request right behind: no byte of which may be lost.
func TestProxyHeaders(t *testing.T) {
	const request = "GET / HTTP/1.1\r\n\r\n"
	for _, c := range proxyHeaders() {
		for _, step := range []int{1, 7, 1 << 20} {
			conn := &Conn{meta: &Socket{Trusted: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
				rawPeer: netip.MustParseAddrPort("192.0.2.1:1")}
			conn.peer = conn.rawPeer
			r := &steps{strings.NewReader(c.in + request), step}
			err := conn.readProxy(r)
			if (err == nil) != (c.err == "") || (err != nil && !strings.Contains(err.Error(), c.err)) {
				t.Errorf("%s by %d: error %v, want %q", c.name, step, err, c.err)
				continue
			}
			if err != nil {
				continue
			}
			want := c.src
			if want == "" {
				want = "192.0.2.1:1"
			}
			if conn.Peer().String() != want {
				t.Errorf("%s by %d: Peer() = %v, want %s", c.name, step, conn.Peer(), want)
			}
			rest, _ := io.ReadAll(r.r)
			if got := string(conn.stage) + string(rest); got != request {
				t.Errorf("%s by %d: after the header came %q, want the request", c.name, step, got)
			}
		}
	}
}

type steps struct {
	r io.Reader
	n int
}

func (s *steps) Read(p []byte) (int, error) { return s.r.Read(p[:min(s.n, len(p))]) }

func TestProxyHeaderFromAPeerThatIsNotTrusted(t *testing.T) {
	for _, trusted := range [][]netip.Prefix{nil, {netip.MustParsePrefix("10.0.0.0/8")}} {
		conn := &Conn{meta: &Socket{Trusted: trusted}, rawPeer: netip.MustParseAddrPort("192.0.2.1:1")}
		if err := conn.readProxy(strings.NewReader("PROXY TCP4 10.0.0.9 10.0.0.1 1 2\r\n")); err == nil || conn.Peer().IsValid() {
			t.Errorf("trusting %v: error %v, Peer() %v, want a refusal", trusted, err, conn.Peer())
		}
	}
}

// Over TCP, before TLS, and without: the connection is refused when the header is missing.
func TestProxyHeaderBeforeTLS(t *testing.T) {
	s := newSet(t, Options{Serve: func(c *Conn) {
		if c.Handshake() != nil {
			return
		}
		b, n, err := c.ReadPooled(&heap{})
		if err != nil {
			return
		}
		_, _ = c.Write([]byte(c.Peer().String() + " " + c.RawPeer().Addr().String() + " " + string(b[:n])))
	}})
	s.Start()
	w := on(loopback, 0, "g")
	w.Proxy, w.Trusted = true, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	addr := apply(t, s, w)
	const header = "PROXY TCP4 198.51.100.4 10.0.0.1 12345 443\r\n"
	say(t, dial(t, addr), header+"hi", "198.51.100.4:12345 127.0.0.1 hi")
	c := dial(t, addr)
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("a request without the header was answered %d bytes", n)
	}
	if got := s.Stats().ProxyRefused; got != 1 {
		t.Errorf("ProxyRefused = %d, want 1", got)
	}
	w.TLS = table(t)
	apply(t, s, w)
	raw := dial(t, addr)
	if _, err := io.WriteString(raw, header); err != nil {
		t.Fatal(err)
	}
	say(t, tls.Client(raw, insecure()), "hi", "198.51.100.4:12345 127.0.0.1 hi")
}

// What the library writes, we read; and on any input we accept no header that it refuses, and read the same address.
func FuzzProxyHeader(f *testing.F) {
	for _, c := range proxyHeaders() {
		f.Add([]byte(c.in))
	}
	src, dst := &net.TCPAddr{IP: net.IP{198, 51, 100, 4}, Port: 1}, &net.TCPAddr{IP: net.IP{10, 0, 0, 1}, Port: 2}
	for _, version := range []byte{1, 2} {
		b, err := proxyproto.HeaderProxyFromAddrs(version, src, dst).Format()
		if err != nil {
			f.Fatal(err)
		}
		if _, got, err := parseProxy(b); err != nil || got.String() != "198.51.100.4:1" {
			f.Errorf("the library's header of version %d: %v, %v", version, got, err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		used, got, err := parseProxy(b)
		if err != nil || used == 0 {
			if used != 0 || got.IsValid() {
				t.Fatalf("used %d, source %v beside error %v", used, got, err)
			}
			return
		}
		if used > len(b) {
			t.Fatalf("used %d of %d bytes", used, len(b))
		}
		h, lerr := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(b), 8192))
		if lerr != nil {
			if got.IsValid() { // it is stricter about UNKNOWN, LOCAL and TLVs, which carry no address for us
				if b[0] != 'P' && used > v2Fixed+36 {
					return
				}
				t.Fatalf("accepted %v from a header that the library refuses: %v\n%s", got, lerr, hex.Dump(b))
			}
			return
		}
		if a, _, ok := h.TCPAddrs(); ok && got.IsValid() && unmap(a.AddrPort()) != unmap(got) {
			t.Fatalf("source %v, the library reads %v", got, a)
		}
	})
}
