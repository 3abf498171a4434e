package cert

import (
	"crypto/tls"
	"strings"
	"sync/atomic"
)

// Entry is one listener's part in the TLS of a socket.
type Entry struct {
	Hostname string // of the listener: "", "shop.example", "*.example" (one label or more)
	Store    *Store
	// MinVersion is "" or "1.2" for TLS 1.2, "1.3" for TLS 1.3.
	MinVersion string
}

// Table is the listeners of one socket by their hostnames. It is not changed once made; nil knows no name.
type Table struct {
	exact map[string]*Entry
	wild  map[string]*Entry // "*.example" stands at "example"
	any   *Entry
}

// NewTable makes a table. Of two entries with one hostname the first counts.
func NewTable(entries []Entry) *Table {
	t := &Table{exact: map[string]*Entry{}, wild: map[string]*Entry{}}
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

// entry finds the listener for a name in lower case: the exact hostname, then the longest wildcard, then the listener for
// any name. A client that sends no name reaches only that last one.
func (t *Table) entry(name string) *Entry {
	if t == nil {
		return nil
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
	switch {
	case e == nil || !e.Store.Covers(name):
		return s.refuse, nil
	case e.MinVersion == "1.3":
		return s.strict, nil
	}
	return nil, nil
}

// certificate returns nil without an error when no certificate is meant for the name: crypto/tls then sends
// unrecognized_name (RFC 6066 section 3).
func (s *Server) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := strings.ToLower(hello.ServerName)
	e := s.table.Load().entry(name)
	if e == nil {
		return nil, nil
	}
	return e.Store.pick(name, hello), nil
}
