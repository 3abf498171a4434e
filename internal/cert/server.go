package cert

import (
	"crypto/tls"
	"slices"
	"strings"
	"sync/atomic"
)

// Entry is one listener's part in the TLS of a socket.
type Entry struct {
	Hostname string // of the listener: "", "shop.example", "*.example" (one label or more)
	Store    *Store
	// MinVersion is "" or "1.2" for TLS 1.2, "1.3" for TLS 1.3.
	MinVersion string
	// ClientCertificate has clients asked for a certificate, which they may decline. It is not verified here: whoever reads it does so.
	ClientCertificate bool
}

// Table is the listeners of one socket by their hostnames. It is not changed once made; nil knows no name.
type Table struct {
	entries []Entry
	exact   map[string]*Entry
	wild    map[string]*Entry // "*.example" stands at "example"
	any     *Entry
}

// NewTable makes a table, which is prev if that was made of the same entries. Of two entries with one hostname the first counts.
func NewTable(prev *Table, entries []Entry) *Table {
	if prev != nil && slices.Equal(prev.entries, entries) {
		return prev
	}
	t := &Table{entries: entries, exact: map[string]*Entry{}, wild: map[string]*Entry{}}
	for i := range entries {
		e := &entries[i]
		name := strings.ToLower(e.Hostname)
		rest, wild := strings.CutPrefix(name, "*.")
		switch {
		case name == "":
			if t.any == nil {
				t.any = e
			}
		case wild:
			if t.wild[rest] == nil {
				t.wild[rest] = e
			}
		case t.exact[name] == nil:
			t.exact[name] = e
		}
	}
	return t
}

// longest is how long a name can be (RFC 1035 section 2.3.4). What is longer is looked up nowhere: it could be 64 KiB of dots.
const longest = 253

// entry finds the listener for a name in lower case: the exact hostname, then the longest wildcard, then the listener for
// any name. A client that sends no name reaches only that last one, or the only one there is. proxy judges requests by the same rule.
func (t *Table) entry(name string) *Entry {
	switch {
	case t == nil || len(name) > longest:
		return nil
	case name == "" && len(t.entries) == 1:
		return &t.entries[0]
	}
	if e := t.exact[name]; e != nil {
		return e
	}
	for rest := name; len(t.wild) > 0; {
		i := strings.IndexByte(rest, '.')
		if i < 0 {
			break
		}
		rest = rest[i+1:]
		if e := t.wild[rest]; e != nil {
			return e
		}
	}
	return t.any
}

// Server is the TLS of one socket for as long as the socket lives: its session ticket keys (which crypto/tls rotates
// daily) outlast every swap of certificates.
type Server struct {
	table  atomic.Pointer[Table]
	base   *tls.Config // TLS 1.2 and above
	strict *tls.Config // TLS 1.3 only
	refuse *tls.Config // names that have no certificate

	ask, askStrict *tls.Config // base and strict, asking the client for a certificate
}

// NewServer returns a server that knows no name yet. protocols is what ALPN offers, in order of preference.
func NewServer(protocols ...string) *Server {
	s := &Server{}
	s.base = &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: protocols, GetCertificate: s.certificate}
	s.strict = s.base.Clone()
	s.strict.MinVersion = tls.VersionTLS13
	// A resumed session asks for no certificate: without this a name whose certificate was withdrawn would still be
	// served to clients that hold a ticket.
	s.refuse = s.base.Clone()
	s.refuse.SessionTicketsDisabled = true
	s.ask, s.askStrict = s.asking(s.base), s.asking(s.strict)
	s.base.GetConfigForClient = s.config
	return s
}

// Swap puts t in place of what was there. Handshakes under way may still see the old table.
func (s *Server) Swap(t *Table) { s.table.Store(t) }

// Config is the one configuration of the socket, the same through all swaps.
func (s *Server) Config() *tls.Config { return s.base }

func (s *Server) config(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	name := strings.ToLower(hello.ServerName)
	e := s.table.Load().entry(name)
	if e == nil || !e.Store.Covers(name) {
		if r, ok := hello.Conn.(Refused); ok {
			r.Refused(name)
		}
		return s.refuse, nil
	}
	if e.ClientCertificate {
		if a, ok := hello.Conn.(Asked); ok {
			a.Asked()
		}
		if e.MinVersion == "1.3" {
			return s.askStrict, nil
		}
		return s.ask, nil
	}
	if e.MinVersion == "1.3" {
		return s.strict, nil
	}
	return nil, nil
}

// Asked is a connection that wants to know when its client is asked for a certificate.
type Asked interface{ Asked() }

// Refused is a connection that wants to know when there is no certificate for the name its client sent, "" for none.
type Refused interface{ Refused(name string) }

// mark stands before the name in a session of a client that showed a certificate.
const mark = "client certificate for "

// asking is c with the client asked for a certificate. A session is resumed only if it was made for the same name and holds a certificate:
// one from before clients were asked, of a client that had none to show, or of another listener would leave the client without a
// way to show one, for as long as its tickets are renewed. The keys of tickets are those of the socket.
func (s *Server) asking(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.ClientAuth = tls.RequestClientCert
	c.WrapSession = func(cs tls.ConnectionState, ss *tls.SessionState) ([]byte, error) {
		if len(cs.PeerCertificates) > 0 && !slices.ContainsFunc(ss.Extra, marked) {
			ss.Extra = append(ss.Extra, []byte(mark+strings.ToLower(cs.ServerName)))
		}
		return s.base.EncryptTicket(cs, ss)
	}
	c.UnwrapSession = func(identity []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		ss, err := s.base.DecryptTicket(identity, cs)
		if err != nil || ss == nil {
			return nil, err
		}
		want := mark + strings.ToLower(cs.ServerName)
		if !slices.ContainsFunc(ss.Extra, func(b []byte) bool { return string(b) == want }) {
			return nil, nil
		}
		return ss, nil
	}
	return c
}

func marked(b []byte) bool { return strings.HasPrefix(string(b), mark) }

// certificate returns nil without an error when there is none to show: crypto/tls then sends
// unrecognized_name (RFC 6066 section 3).
func (s *Server) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := strings.ToLower(hello.ServerName)
	e := s.table.Load().entry(name)
	if e == nil {
		return nil, nil
	}
	return e.Store.pick(name, hello), nil
}
