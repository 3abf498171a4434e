// Package cert holds the certificates that the edge shows to clients and the TLS settings towards backends. A swap of
// certificates never touches a connection that is open, and a pair that does not parse never replaces one that does. A
// listener shows a certificate of its own even for a name that none of them covers, as nginx, Envoy and HAProxy do: a
// Gateway names a certificate for its listener, not for names, and whether it will do is for the client to judge. Where an
// Ingress names a certificate for hosts, other hosts never get it: the default certificate, else unrecognized_name. It
// opens no socket and no file but the system's trust store.
package cert

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// Keys of a Secret of type kubernetes.io/tls, and of a CA bundle.
const (
	keyCert = "tls.crt"
	keyKey  = "tls.key"
	keyCA   = "ca.crt"
)

// Fault is one certificate that is not served as written.
type Fault struct {
	Source  ir.Source // where the certificate is named
	Handle  string
	Message string
	Hint    string
	Warning bool // it is served all the same
}

// pair is what became of one Secret. It is kept while its material stays the same.
type pair struct {
	material *secret.Material
	cert     *tls.Certificate // nil: it never parsed
	problem  string           // why material is not what cert was made of
}

// names finds certificates by name.
type names struct {
	exact map[string][]*tls.Certificate // in lower case
	wild  map[string][]*tls.Certificate // "*.shop.example" stands at "shop.example"
}

// Store is the certificates of one listener. It is not changed once built; nil is an empty one.
type Store struct {
	pairs  map[string]*pair
	wanted names              // by the hosts that an Ingress wants one for
	own    names              // by the subject alternative names of the listener's own
	common names              // by the common name of those that have no alternative name
	listed []*tls.Certificate // the listener's own, in order
	any    []*tls.Certificate // wanted for every host
	deflt  *tls.Certificate
}

// parser parses each Secret once, however many listeners name it.
type parser map[*secret.Material]parsed

type parsed struct {
	cert *tls.Certificate
	err  error
}

func (p parser) parse(m *secret.Material) (*tls.Certificate, error) {
	if p == nil {
		return parse(m)
	}
	r, ok := p[m]
	if !ok {
		r.cert, r.err = parse(m)
		p[m] = r
	}
	return r.cert, r.err
}

// Build makes the store of a listener for hostname ("": any). A pair of prev whose material has not changed is not parsed again. A pair
// that does not parse leaves the one in use in its place, with a fault, for as long as t names its handle; a Secret that is gone takes
// its certificate with it at once. A nil t gives an empty store.
func Build(prev *Store, hostname string, t *ir.TLS, secrets secret.Set) (*Store, []Fault) {
	return build(prev, hostname, t, secrets, nil)
}

func build(prev *Store, hostname string, t *ir.TLS, secrets secret.Set, ps parser) (*Store, []Fault) {
	s := &Store{pairs: map[string]*pair{}}
	if t == nil {
		return s, nil
	}
	var faults []Fault
	for i := range t.Certificates {
		c := &t.Certificates[i]
		if c.Handle == "" {
			continue // see unserved
		}
		p, problem, hint := s.pair(prev, c.Handle, secrets, ps)
		if problem != "" {
			faults = append(faults, Fault{Source: c.Source, Handle: c.Handle, Message: problem, Hint: hint})
		}
		if p != nil && p.cert != nil {
			faults = append(faults, s.place(c, p.cert)...)
		}
	}
	if t.Default != "" {
		known := s.pairs[t.Default] != nil
		p, problem, hint := s.pair(prev, t.Default, secrets, ps)
		if problem != "" && !known {
			faults = append(faults, Fault{Handle: t.Default, Message: "default certificate: " + problem, Hint: hint})
		}
		if p != nil {
			s.deflt = p.cert
		}
	}
	return s, append(faults, append(s.mismatch(hostname, t), s.unserved(t)...)...)
}

// pair finds or parses the pair of a handle and says what is wrong with it.
func (s *Store) pair(prev *Store, handle string, secrets secret.Set, ps parser) (p *pair, problem, hint string) {
	const hint1 = "a Secret of type kubernetes.io/tls has the certificate chain in tls.crt and its key in tls.key, both PEM"
	m := secrets[handle]
	if m == nil {
		return nil, fmt.Sprintf("no %s", describe(handle)), ""
	}
	if p = s.pairs[handle]; p == nil {
		var old *pair
		if prev != nil {
			old = prev.pairs[handle]
		}
		if old != nil && old.material == m {
			p = old
		} else {
			p = &pair{material: m}
			c, err := ps.parse(m)
			switch {
			case err == nil:
				p.cert = c
			case old != nil && old.cert != nil:
				p.cert, p.problem = old.cert, err.Error()+"; the certificate before it stays in use"
			default:
				p.problem = err.Error()
			}
		}
		s.pairs[handle] = p
	}
	if p.problem != "" {
		return p, describe(handle) + ": " + p.problem, hint1
	}
	return p, "", ""
}

// describe turns "Secret/shop/shop-tls" into "Secret shop/shop-tls".
func describe(handle string) string { return strings.Replace(handle, "/", " ", 1) }

// parse makes a certificate of a Secret. Its errors never hold bytes of the Secret.
func parse(m *secret.Material) (*tls.Certificate, error) {
	chain, key := m.Data[keyCert], m.Data[keyKey]
	switch {
	case chain.Len() == 0:
		return nil, errors.New("key tls.crt is missing or empty")
	case key.Len() == 0:
		return nil, errors.New("key tls.key is missing or empty")
	}
	c, err := tls.X509KeyPair(chain.Reveal(), key.Reveal())
	if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "tls: "))
	}
	if c.Leaf == nil {
		if c.Leaf, err = x509.ParseCertificate(c.Certificate[0]); err != nil {
			return nil, errors.New(strings.TrimPrefix(err.Error(), "x509: "))
		}
	}
	return &c, nil
}

// place puts a certificate where handshakes find it, and warns of what clients will not like about it.
func (s *Store) place(c *ir.Certificate, cert *tls.Certificate) []Fault {
	if len(c.Hosts) == 0 {
		s.listed = appendNew(s.listed, cert)
		s.index(cert)
	}
	var hosts []string
	for _, h := range c.Hosts {
		if h == "" {
			s.any = appendNew(s.any, cert)
			s.index(cert)
			continue
		}
		hosts = append(hosts, h)
		s.wanted.add(h, cert)
	}
	if len(hosts) == 0 && len(namesOf(cert.Leaf)) == 0 {
		return []Fault{{Source: c.Source, Handle: c.Handle, Warning: true, Message: "the certificate names no host", Hint: hint(cert.Leaf)}}
	}
	return s.unnamed(c, cert.Leaf, hosts)
}

// index adds a certificate under the names in it.
func (s *Store) index(c *tls.Certificate) {
	found := namesOf(c.Leaf)
	for _, n := range found {
		s.own.add(n, c)
	}
	if len(found) == 0 && c.Leaf.Subject.CommonName != "" {
		s.common.add(c.Leaf.Subject.CommonName, c)
	}
}

func (n *names) add(host string, c *tls.Certificate) {
	host = strings.ToLower(host)
	m := &n.exact
	if rest, ok := strings.CutPrefix(host, "*."); ok {
		m, host = &n.wild, rest
	}
	if *m == nil {
		*m = map[string][]*tls.Certificate{}
	}
	(*m)[host] = appendNew((*m)[host], c)
}

func appendNew(cs []*tls.Certificate, c *tls.Certificate) []*tls.Certificate {
	if slices.Contains(cs, c) {
		return cs
	}
	return append(cs, c)
}

// find returns the certificates for the exact name, else those for the wildcard of its parent (one label, RFC 9525 section 6.3).
func (n *names) find(name string) []*tls.Certificate {
	if cs := n.exact[name]; len(cs) > 0 {
		return cs
	}
	if i := strings.IndexByte(name, '.'); i > 0 {
		return n.wild[name[i+1:]]
	}
	return nil
}

// Covers reports whether a handshake for name (lower case, "" for none) finds a certificate.
func (s *Store) Covers(name string) bool { return len(s.candidates(name)) > 0 }

// candidates returns the certificates for a handshake: those that cover the name, else the listener's own, else the default.
func (s *Store) candidates(name string) []*tls.Certificate {
	if s == nil {
		return nil
	}
	for _, n := range [...]*names{&s.wanted, &s.own, &s.common} {
		if cs := n.find(name); len(cs) > 0 {
			return cs
		}
	}
	switch {
	case s.deflt != nil && (len(s.listed) == 0 || name != "" && s.deflt.Leaf.VerifyHostname(name) == nil):
		return []*tls.Certificate{s.deflt}
	case len(s.listed) > 0:
		return s.listed
	}
	return s.any
}

// pick returns the certificate for a handshake, nil if there is none. Of several (say RSA and ECDSA) the first that the client
// supports is taken.
func (s *Store) pick(name string, hello *tls.ClientHelloInfo) *tls.Certificate {
	cs := s.candidates(name)
	if len(cs) > 1 {
		unnamed := *hello
		unnamed.ServerName = "" // the name has been judged: SupportsCertificate would refuse what does not cover it
		for _, c := range cs {
			if unnamed.SupportsCertificate(c) == nil {
				return c
			}
		}
	}
	if len(cs) > 0 {
		return cs[0]
	}
	return nil
}

// Handles returns the handles that have a certificate in use, sorted.
func (s *Store) Handles() []string {
	if s == nil {
		return nil
	}
	var out []string
	for _, h := range slices.Sorted(maps.Keys(s.pairs)) {
		if s.pairs[h].cert != nil {
			out = append(out, h)
		}
	}
	return out
}

// Expiry is when the first of the certificates in use ends; zero if there is none.
func (s *Store) Expiry() time.Time {
	var first time.Time
	if s == nil {
		return first
	}
	for _, p := range s.pairs {
		if p.cert != nil && (first.IsZero() || p.cert.Leaf.NotAfter.Before(first)) {
			first = p.cert.Leaf.NotAfter
		}
	}
	return first
}
