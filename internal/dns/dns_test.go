package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

// server is a name server on a loopback address, by UDP and TCP, made of somebody else's DNS library.
type server struct {
	mu      sync.Mutex
	records map[string][]dns.RR // by "name type"
	rcode   map[string]int
	silent  map[string]bool // by name: no answer
	noEDNS  bool
	long    bool // what has answers does not fit into a packet
	asked   []string
}

// serve starts a server on a loopback address with a port, 0 for any.
func serve(t *testing.T, ip string, port int) (*server, uint16) {
	t.Helper()
	s := &server{records: map[string][]dns.RR{}, rcode: map[string]int{}, silent: map[string]bool{}}
	l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", ip, port))
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	pc, err := net.ListenPacket("udp", at)
	if err != nil {
		_ = l.Close()
		if port == 0 { // the port is another's for UDP
			return serve(t, ip, port)
		}
		t.Fatal(err)
	}
	for _, x := range []*dns.Server{{PacketConn: pc, Handler: s}, {Listener: l, Handler: s}} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = x.ActivateAndServe()
		}()
		t.Cleanup(func() {
			_ = x.Shutdown()
			<-done
		})
	}
	return s, netip.MustParseAddrPort(at).Port()
}

func (s *server) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := strings.ToLower(q.Question[0].Name)
	kind := dns.TypeToString[q.Question[0].Qtype]
	network := w.RemoteAddr().Network()
	s.asked = append(s.asked, network+" "+name+" "+kind)
	if s.silent[name] || s.silent[name+" "+kind] {
		return
	}
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = true
	code, set := s.rcode[name]
	if !set {
		code, set = s.rcode[name+" "+kind]
	}
	switch {
	case s.noEDNS && q.IsEdns0() != nil:
		m.SetRcodeFormatError(q)
	case set:
		m.Rcode = code
	case s.long && network == "udp" && len(s.records[name+" "+kind]) > 0:
		m.Truncated = true
	default:
		m.Answer = s.records[name+" "+kind]
		m.Ns = s.records[name+" SOA"]
		if len(s.records[name+" A"]) == 0 && len(s.records[name+" AAAA"]) == 0 && len(m.Ns) == 0 {
			m.Rcode = dns.RcodeNameError
		}
	}
	_ = w.WriteMsg(m)
}

func (s *server) set(t *testing.T, key string, records ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[key] = nil
	for _, r := range records {
		rr, err := dns.NewRR(r)
		if err != nil {
			t.Fatal(err)
		}
		s.records[key] = append(s.records[key], rr)
	}
}

// change changes how the server answers.
func (s *server) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *server) questions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := slices.Clone(s.asked)
	s.asked = nil
	slices.Sort(out)
	return out
}

// client makes a Client with a resolv.conf and a hosts file.
func client(t *testing.T, port uint16, conf, hosts string) *Client {
	t.Helper()
	dir := t.TempDir()
	o := Options{Config: filepath.Join(dir, "resolv.conf"), Hosts: filepath.Join(dir, "hosts"), Port: port}
	for path, text := range map[string]string{o.Config: conf, o.Hosts: hosts} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return New(o)
}

const local = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"

func strs(as []netip.Addr) (out []string) {
	for _, a := range as {
		out = append(out, a.String())
	}
	return out
}

// outcome says what an error of Lookup is.
func outcome(err error) string {
	var e *net.DNSError
	switch {
	case err == nil:
		return ""
	case !errors.As(err, &e):
		return "not a DNSError"
	case e.IsNotFound:
		return "absent"
	case e.IsTimeout:
		return "timeout"
	}
	return "failed"
}

func TestLookup(t *testing.T) {
	s, port := serve(t, "127.0.0.1", 0)
	s.set(t, "both.example. A", "both.example. 60 A 192.0.2.1", "both.example. 40 A 192.0.2.2")
	s.set(t, "both.example. AAAA", "both.example. 50 AAAA 2001:db8::1")
	s.set(t, "four.example. A", "four.example. 60 A 192.0.2.1")
	s.set(t, "four.example. SOA", "example. 20 SOA ns. host. 1 2 3 4 15")
	s.set(t, "alias.example. A", "alias.example. 7 CNAME real.example.", "real.example. 300 A 192.0.2.3")
	s.set(t, "none.example. SOA", "example. 20 SOA ns. host. 1 2 3 4 15")
	s.set(t, "half.example. A", "half.example. 60 A 192.0.2.4")
	s.change(func() {
		s.rcode["servfail.example."], s.rcode["refused.example."] = dns.RcodeServerFailure, dns.RcodeRefused
		s.silent["silent.example."], s.silent["half.example. AAAA"] = true, true
	})
	c := client(t, port, local, "")
	for _, x := range []struct {
		name  string
		addrs []string
		ttl   time.Duration
		out   string
	}{
		{"both.example", []string{"192.0.2.1", "192.0.2.2", "2001:db8::1"}, 40 * time.Second, ""},
		{"BOTH.example.", []string{"192.0.2.1", "192.0.2.2", "2001:db8::1"}, 40 * time.Second, ""},
		{"four.example", []string{"192.0.2.1"}, 60 * time.Second, ""},
		{"alias.example", []string{"192.0.2.3"}, 7 * time.Second, ""},
		{"none.example", nil, 15 * time.Second, "absent"},
		{"nxdomain.example", nil, noSOA, "absent"},
		{"servfail.example", nil, 0, "failed"},
		{"refused.example", nil, 0, "failed"},
		{"silent.example", nil, 0, "timeout"},
		{"half.example", []string{"192.0.2.4"}, 60 * time.Second, "timeout"},
		{strings.Repeat("x", 64) + ".example", nil, noSOA, "absent"},
		{"a..example", nil, noSOA, "absent"},
		{"localhost", []string{"127.0.0.1", "::1"}, fileTTL, ""},
	} {
		t.Run(x.name, func(t *testing.T) {
			as, ttl, err := c.Lookup(t.Context(), x.name)
			if d := cmp.Diff(x.addrs, strs(as)); d != "" || ttl != x.ttl || outcome(err) != x.out {
				t.Errorf("Lookup(%q) = %v, %v, %v, want %v, %v, %q", x.name, as, ttl, err, x.addrs, x.ttl, x.out)
			}
		})
	}
}

// TestTruncated: what does not fit into a packet is asked for by TCP.
func TestTruncated(t *testing.T) {
	s, port := serve(t, "127.0.0.1", 0)
	var want []string
	var records []string
	for i := range 250 {
		a := fmt.Sprintf("192.0.2.%d", i)
		want, records = append(want, a), append(records, "many.example. 60 A "+a)
	}
	s.set(t, "many.example. A", records...)
	s.set(t, "many.example. SOA", "example. 20 SOA ns. host. 1 2 3 4 15")
	s.change(func() { s.long = true })
	as, _, err := client(t, port, local, "").Lookup(t.Context(), "many.example")
	if d := cmp.Diff(want, strs(as)); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
	if d := cmp.Diff([]string{"tcp many.example. A", "udp many.example. A", "udp many.example. AAAA"}, s.questions()); d != "" {
		t.Error(d)
	}
}

// TestOldServer: a server that refuses EDNS is asked without, and remembered.
func TestOldServer(t *testing.T) {
	s, port := serve(t, "127.0.0.1", 0)
	s.set(t, "a.example. A", "a.example. 60 A 192.0.2.1")
	s.change(func() { s.noEDNS = true })
	c := client(t, port, local, "")
	for i := range 2 {
		if as, _, err := c.Lookup(t.Context(), "a.example"); err != nil || len(as) != 1 {
			t.Errorf("lookup %d: %v, %v", i, as, err)
		}
	}
	if n := len(s.questions()); n > 6 { // two that were refused, and two for each lookup
		t.Errorf("%d questions, want 6 at most", n)
	}
}

// TestSearch: the candidates of a name, in their order, up to the first that exists.
func TestSearch(t *testing.T) {
	s, port := serve(t, "127.0.0.1", 0)
	s.set(t, "web.shop.svc.local. A", "web.shop.svc.local. 60 A 192.0.2.1")
	s.set(t, "web.shop.example. A", "web.shop.example. 60 A 192.0.2.2")
	s.change(func() { s.rcode["down.svc.local."] = dns.RcodeServerFailure })
	s.set(t, "down. A", "down. 60 A 192.0.2.66")
	c := client(t, port, local+"search x.svc.local svc.local\noptions ndots:2\n", "")
	for _, x := range []struct {
		name, addr, out string
		asked           []string
	}{
		{"web.shop", "192.0.2.1", "", []string{"web.shop.x.svc.local.", "web.shop.svc.local."}},
		{"web.shop.example", "192.0.2.2", "", []string{"web.shop.example."}},
		{"web.shop.", "", "absent", []string{"web.shop."}},
		// What may exist further in front is not passed over for a stranger's name behind it.
		{"down", "", "failed", []string{"down.x.svc.local.", "down.svc.local."}},
		{"nothing", "", "absent", []string{"nothing.x.svc.local.", "nothing.svc.local.", "nothing."}},
	} {
		as, _, err := c.Lookup(t.Context(), x.name)
		if got := strings.Join(strs(as), " "); got != x.addr || outcome(err) != x.out {
			t.Errorf("Lookup(%q) = %v, %v, want %q, %q", x.name, as, err, x.addr, x.out)
		}
		var want []string
		for _, n := range x.asked {
			want = append(want, "udp "+n+" A", "udp "+n+" AAAA")
		}
		slices.Sort(want)
		if d := cmp.Diff(want, s.questions()); d != "" {
			t.Errorf("%s:\n%s", x.name, d)
		}
	}
}

// A server that does not answer for AAAA, or with SERVFAIL, ends no search at a name that does not exist, nor does the name count as absent.
func TestSearchGoesOnWhereThereIsNoName(t *testing.T) {
	s, port := serve(t, "127.0.0.1", 0)
	s.set(t, "api.vendor. A", "api.vendor. 60 A 192.0.2.1")
	s.set(t, "api.vendor. AAAA", "api.vendor. 60 AAAA 2001:db8::1")
	s.change(func() {
		for _, n := range []string{"api.vendor", "gone.vendor"} {
			s.silent[n+".a.test. AAAA"] = true
			s.rcode[n+".b.test. AAAA"] = dns.RcodeServerFailure
		}
		s.rcode["six.vendor.a.test. A"], s.rcode["six.vendor.a.test. AAAA"] = dns.RcodeServerFailure, dns.RcodeNameError
	})
	c := client(t, port, "nameserver 127.0.0.1\nsearch a.test b.test\noptions ndots:5 timeout:2 attempts:2\n", "")
	began := time.Now()
	as, _, err := c.Lookup(t.Context(), "api.vendor")
	if diff := cmp.Diff([]string{"192.0.2.1", "2001:db8::1"}, strs(as)); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if took := time.Since(began); took > 1500*time.Millisecond {
		t.Errorf("took %v", took)
	}
	if _, _, err := c.Lookup(t.Context(), "gone.vendor"); outcome(err) == "absent" {
		t.Error("a name is said to be absent though one family was never answered:", err)
	}
	s.questions()
	if _, _, err := c.Lookup(t.Context(), "six.vendor"); outcome(err) != "failed" || slices.ContainsFunc(s.questions(), func(q string) bool { return strings.Contains(q, "b.test") }) {
		t.Error("the search went on where A failed:", err)
	}
}

// A domain of the search list that the servers refuse to serve keeps no name behind it from being found.
func TestSearchGoesOnBehindARefusedDomain(t *testing.T) {
	s, port := serve(t, "127.0.0.1", 0)
	s.set(t, "api.vendor. A", "api.vendor. 60 A 192.0.2.1")
	s.change(func() {
		for _, n := range []string{"api.vendor.corp.test.", "gone.vendor.corp.test."} {
			s.rcode[n] = dns.RcodeRefused
		}
	})
	c := client(t, port, "nameserver 127.0.0.1\nsearch corp.test\noptions ndots:5 timeout:2\n", "")
	if as, _, err := c.Lookup(t.Context(), "api.vendor"); err != nil || strings.Join(strs(as), " ") != "192.0.2.1" {
		t.Errorf("got %v, %v; want 192.0.2.1", as, err)
	}
	if _, _, err := c.Lookup(t.Context(), "gone.vendor"); outcome(err) != "failed" {
		t.Errorf("a name of which a part was refused is said to be absent: %v", err)
	}
}

// TestServers: one that does not answer costs its time once, and is asked last from then on; one that fails is passed over.
func TestServers(t *testing.T) {
	first, port := serve(t, "127.0.0.1", 0)
	second, _ := serve(t, "127.0.0.2", int(port))
	second.set(t, "a.example. A", "a.example. 60 A 192.0.2.1")
	second.set(t, "b.example. A", "b.example. 60 A 192.0.2.2")
	first.change(func() {
		first.silent["a.example."] = true
		first.rcode["b.example."] = dns.RcodeServerFailure
	})
	c := client(t, port, "nameserver 127.0.0.1\nnameserver 127.0.0.2\noptions timeout:1\n", "")
	for _, name := range []string{"b.example", "a.example"} {
		if as, _, err := c.Lookup(t.Context(), name); err != nil || len(as) != 1 {
			t.Errorf("%s: %v, %v", name, as, err)
		}
		if len(first.questions()) != 2 {
			t.Errorf("%s: the first server was not asked first", name)
		}
	}
	if as, _, err := c.Lookup(t.Context(), "a.example"); err != nil || len(as) != 1 || len(first.questions()) != 0 {
		t.Errorf("%v, %v; want an answer of the second server without a question to the first", as, err)
	}
}

// TestFiles: the hosts file comes before DNS, and both files are read again when they have changed.
func TestFiles(t *testing.T) {
	s, port := serve(t, "127.0.0.1", 0)
	s.set(t, "a.example. A", "a.example. 60 A 192.0.2.1")
	c := client(t, port, local, "192.0.2.9\tA.example b # c\n::ffff:192.0.2.8 a.example\nnot-an-address x\n")
	want := func(name string, addrs ...string) {
		t.Helper()
		as, _, err := c.Lookup(t.Context(), name)
		if d := cmp.Diff(addrs, strs(as)); d != "" {
			t.Errorf("%s: %v\n%s", name, err, d)
		}
	}
	want("a.example", "192.0.2.9", "192.0.2.8")
	want("b", "192.0.2.9")
	if q := s.questions(); len(q) > 0 {
		t.Errorf("asked %q for names of the hosts file", q)
	}
	if err := os.WriteFile(c.o.Hosts, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.o.Config, []byte(local+"search example"), 0o600); err != nil {
		t.Fatal(err)
	}
	want("b", "192.0.2.9") // not looked at again yet
	c.files.mu.Lock()
	c.files.looked = time.Now().Add(-fileTTL)
	c.files.mu.Unlock()
	want("a", "192.0.2.1")
}

// TestForged: packets that answer another question are passed over.
func TestForged(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pc.Close() }()
	go func() {
		b := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			q := new(dns.Msg)
			if q.Unpack(b[:n]) != nil {
				continue
			}
			send := func(change func(m *dns.Msg), addr string) {
				m := new(dns.Msg)
				m.SetReply(q)
				m.RecursionAvailable = true
				if q.Question[0].Qtype == dns.TypeA {
					rr, _ := dns.NewRR("a.example. 60 A " + addr)
					m.Answer = []dns.RR{rr}
				}
				change(m)
				if out, err := m.Pack(); err == nil {
					_, _ = pc.WriteTo(out, from)
				}
			}
			_, _ = pc.WriteTo([]byte("no message"), from)
			send(func(m *dns.Msg) { m.Id++ }, "192.0.2.66")
			send(func(m *dns.Msg) { m.Question[0].Name = "b.example." }, "192.0.2.66")
			send(func(m *dns.Msg) { m.Question = nil }, "192.0.2.66")
			send(func(m *dns.Msg) { m.Response = false }, "192.0.2.66")
			send(func(m *dns.Msg) { m.Question = slices.Clone(q.Question); m.Question[0].Name = "A.example." }, "192.0.2.1")
		}
	}()
	as, _, err := client(t, netip.MustParseAddrPort(pc.LocalAddr().String()).Port(), local, "").Lookup(t.Context(), "a.example")
	if d := cmp.Diff([]string{"192.0.2.1"}, strs(as)); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
}

// TestCanceled: a lookup ends with its context.
func TestCanceled(t *testing.T) {
	s, port := serve(t, "127.0.0.1", 0)
	s.change(func() { s.silent["a.example."] = true })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, _, err := client(t, port, "nameserver 127.0.0.1\noptions timeout:30 attempts:5", "").Lookup(ctx, "a.example")
	if outcome(err) != "timeout" || time.Since(start) > 10*time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}

func TestConfig(t *testing.T) {
	c := parseConfig([]byte("# c\n; c\nnameserver 192.0.2.1\nnameserver nonsense\nnameserver fe80::1%eth0\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n"+
		"domain old.example\nsearch a.example b.example\noptions ndots:99 timeout:0 attempts:3 rotate use-vc edns0 nonsense:x\n"), 53)
	var servers []string
	for _, s := range c.servers {
		servers = append(servers, s.String())
	}
	if d := cmp.Diff([]string{"192.0.2.1:53", "[fe80::1%eth0]:53", "192.0.2.2:53"}, servers); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"a.example", "b.example"}, c.search); d != "" {
		t.Error(d)
	}
	if c.ndots != 15 || c.timeout != time.Second || c.attempts != 3 || !c.rotate || !c.tcp {
		t.Errorf("%+v", c)
	}
	c = parseConfig(nil, 53)
	if c.ndots != 1 || c.timeout != 5*time.Second || c.attempts != 2 || c.servers[0].String() != "127.0.0.1:53" {
		t.Errorf("defaults: %+v", c)
	}
}

// FuzzRead: whatever a server sends, reading it ends.
func FuzzRead(f *testing.F) {
	m := new(dns.Msg)
	m.SetQuestion("a.example.", dns.TypeA)
	rr, _ := dns.NewRR("a.example. 60 A 192.0.2.1")
	m.Answer, m.Response = []dns.RR{rr}, true
	b, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(_ *testing.T, b []byte) {
		if len(b) < 2 {
			return
		}
		q := question("a.example.")
		_, _, _ = read(b, uint16(b[0])<<8|uint16(b[1]), q)
	})
}
