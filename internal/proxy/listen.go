package proxy

import (
	"net/netip"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/telemetry"
)

// Listener is a compiled ir.Listener: how it treats its clients.
type Listener struct {
	Config   *ir.Listener
	Counters *telemetry.Listener
	// Trusted reports whether a peer is a proxy that is believed; nil: nobody is.
	Trusted func(netip.Addr) bool
	// Header names the field that a trusted peer writes the client's address into; "" is X-Forwarded-For.
	Header string
	// Backend reports whether its requests may go to an address where backends may not lie in general; nil: none may.
	Backend func(netip.Addr) bool
	// KeepEscapes and RejectEscapes override whether %2F, %5C and %00 are refused; neither: on path-sensitive hosts.
	KeepEscapes, RejectEscapes bool
	// Identity names, in lower case and with "-" for "_", the fields in which policies tell backends who calls: clients may not send them.
	Identity []string
	// QuerySecrets names the query parameters in which clients send credentials: the log has no value of theirs.
	QuerySecrets []string
	// ClientCertificate says that a step of one of its routes reads the certificates of clients, which are asked for one.
	ClientCertificate bool
	// Steps have a Response hook for answers to requests that match no route, and no other hook.
	Steps []Step
	// KeepEmpty and MergeEmpty override whether empty path segments are merged; neither: on path-sensitive hosts.
	KeepEmpty, MergeEmpty bool
}

// Settings are what holds for a socket's connections before the host of a request is known. Zero fields: the defaults. Of
// several listeners on one socket the strictest value counts.
type Settings struct {
	RequestLine, HeaderBytes, HeaderCount int
	Header, Idle, StreamIdle              *time.Duration // 0: without end
	Listeners                             []*Listener    // all that share the socket
	WaitHalf                              bool           // one of them has a client that sends no more waited for
}

// SocketKey names the listeners that share a socket.
type SocketKey struct {
	Group string
	Port  uint16
}

// Tighten takes over what is stricter in c.
func (s *Settings) Tighten(c *ir.Client) {
	s.RequestLine = lower(s.RequestLine, c.RequestLine)
	s.HeaderBytes = lower(s.HeaderBytes, c.HeaderBytes)
	s.HeaderCount = lower(s.HeaderCount, c.HeaderCount)
	s.Header = sooner(s.Header, c.HeaderTimeout)
	s.Idle = sooner(s.Idle, c.IdleTimeout)
	s.StreamIdle = sooner(s.StreamIdle, c.StreamIdle)
	s.WaitHalf = s.WaitHalf || c.HalfClose == ir.HalfCloseWait
}

// Trusts reports whether every listener of the socket believes a peer: then it is a proxy, whatever host its next request names.
func (s *Settings) Trusts(peer netip.Addr) bool {
	for _, l := range s.Listeners {
		if l.Trusted == nil || !l.Trusted(peer) {
			return false
		}
	}
	return len(s.Listeners) > 0
}

func lower(a, b int) int {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

func sooner(a *time.Duration, b *ir.Duration) *time.Duration {
	if b == nil {
		return a
	}
	d := time.Duration(*b)
	if a == nil || *a == 0 || d != 0 && d < *a {
		return &d
	}
	return a
}

// siteOf is what a site belongs to: a Flow serves connections of all listeners, one after the other.
type siteOf struct {
	snapshot *Snapshot
	group    string
	port     uint16
}

// listen finds the site and the listener of the request's host, and who the client is.
func (f *Flow) listen() *Listener {
	s := f.snapshot
	if of := (siteOf{s, f.conn.Group, f.conn.Port}); f.siteOf != of {
		f.site, f.siteOf = s.Table.Site(of.group, of.port), of
	}
	if f.site == nil {
		return nil
	}
	c := f.site.Listener(f.Request.Host)
	if c == nil {
		return nil
	}
	f.Listener = c.Key
	l := s.Listeners[c.Key]
	if l == nil || l.Trusted == nil || !l.Trusted(f.Peer.Addr()) {
		return l
	}
	f.Exchange.Trusted = true
	name := l.Header
	if name == "" {
		name = "X-Forwarded-For"
	}
	f.Client = rightmost(&f.Request.Header, name, l.Trusted, f.Peer)
	return l
}

// rightmost walks the addresses of all fields called name from the right and returns the first that is not trusted; the
// leftmost if all are, the peer if there is none. Empty elements count as none (RFC 9110 section 5.6.1.2). An entry that is no
// address ends the walk: what stands to its left was vouched for by nobody.
func rightmost(h *exchange.Header, name string, trusted func(netip.Addr) bool, peer netip.AddrPort) netip.AddrPort {
	client := peer
	fields := h.All()
	for i := len(fields) - 1; i >= 0; i-- {
		if !exchange.EqualFold(fields[i].Name, name) {
			continue
		}
		for v := fields[i].Value; len(v) > 0; {
			var e []byte
			if e, v = lastElement(v); len(e) == 0 {
				continue
			}
			a, ok := parseClient(e)
			if !ok {
				return client
			}
			client = a
			if !trusted(a.Addr()) {
				return client
			}
		}
	}
	return client
}

// parseClient reads "192.0.2.1", "192.0.2.1:80", "2001:db8::1" or "[2001:db8::1]:80", with white space around.
func parseClient(b []byte) (netip.AddrPort, bool) {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	if len(b) == 0 || len(b) > 64 {
		return netip.AddrPort{}, false
	}
	s := string(b)
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), true
	}
	if s[0] == '[' && s[len(s)-1] == ']' {
		s = s[1 : len(s)-1]
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a.Unmap(), 0), true
}
