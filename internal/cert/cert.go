// Package cert holds the certificates that the edge shows to clients, by name, and the TLS settings towards backends. A
// swap of certificates never touches a connection that is open, and a pair that does not parse never replaces one that
// does. It never serves a name with a certificate that was not meant for it: where no certificate covers a name and there
// is no default, the handshake ends with unrecognized_name. It opens no socket and no file but the system's trust store.
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

// Store is the certificates of one listener. It is not changed once built; nil is an empty one.
type Store struct {
	pairs map[string]*pair
	exact map[string][]*tls.Certificate // names in lower case
	wild  map[string][]*tls.Certificate // "*.shop.example" stands at "shop.example"
	deflt *tls.Certificate
}

// Build makes the store of a listener. A pair of prev whose material has not changed is not parsed again. A pair that does not parse
// leaves the one in use in its place, with a fault, for as long as t names its handle; a Secret that is gone takes its
// certificate with it at once. A nil t gives an empty store.
func Build(prev *Store, t *ir.TLS, secrets secret.Set) (*Store, []Fault) {
	s := &Store{pairs: map[string]*pair{}, exact: map[string][]*tls.Certificate{}, wild: map[string][]*tls.Certificate{}}
	if t == nil {
		return s, nil
	}
	var faults []Fault
	for _, c := range t.Certificates {
		p, problem, hint := s.pair(prev, c.Handle, secrets)
		if problem != "" {
			faults = append(faults, Fault{Source: c.Source, Handle: c.Handle, Message: problem, Hint: hint})
		}
		if p == nil || p.cert == nil {
			continue
		}
		hosts := c.Hosts
		if len(hosts) == 0 {
			hosts = p.cert.Leaf.DNSNames
		} else if missing := uncovered(p.cert.Leaf, hosts); len(missing) > 0 {
			faults = append(faults, Fault{Source: c.Source, Handle: c.Handle, Warning: true,
				Message: fmt.Sprintf("the certificate does not name %s", strings.Join(missing, ", ")),
				Hint:    fmt.Sprintf("it names %s; clients that verify names will refuse it", strings.Join(p.cert.Leaf.DNSNames, ", "))})
		}
		for _, h := range hosts {
			s.add(strings.ToLower(h), p.cert)
		}
	}
	if t.Default != "" {
		known := s.pairs[t.Default] != nil
		p, problem, hint := s.pair(prev, t.Default, secrets)
		if problem != "" && !known {
			faults = append(faults, Fault{Handle: t.Default, Message: "default certificate: " + problem, Hint: hint})
		}
		if p != nil {
			s.deflt = p.cert
		}
	}
	return s, faults
}

// pair finds or parses the pair of a handle and says what is wrong with it.
func (s *Store) pair(prev *Store, handle string, secrets secret.Set) (p *pair, problem, hint string) {
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
			c, err := parse(m)
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

func uncovered(leaf *x509.Certificate, hosts []string) []string {
	var out []string
	for _, h := range hosts {
		if strings.HasPrefix(h, "*.") {
			if !slices.ContainsFunc(leaf.DNSNames, func(n string) bool { return strings.EqualFold(n, h) }) {
				out = append(out, h)
			}
		} else if leaf.VerifyHostname(h) != nil {
			out = append(out, h)
		}
	}
	return out
}

func (s *Store) add(host string, c *tls.Certificate) {
	m, name := s.exact, host
	if rest, ok := strings.CutPrefix(host, "*."); ok {
		m, name = s.wild, rest
	}
	if !slices.Contains(m[name], c) {
		m[name] = append(m[name], c)
	}
}

// Covers reports whether a handshake for name (lower case, "" for none) finds a certificate.
func (s *Store) Covers(name string) bool {
	return s != nil && (s.deflt != nil || len(s.named(name)) > 0)
}

// named returns the certificates for a name, without the default: those for the exact name, else those for the wildcard of its
// parent (one label, RFC 9525 section 6.3).
func (s *Store) named(name string) []*tls.Certificate {
	if cs := s.exact[name]; len(cs) > 0 {
		return cs
	}
	if i := strings.IndexByte(name, '.'); i > 0 {
		return s.wild[name[i+1:]]
	}
	return nil
}

// pick returns the certificate for a handshake, nil if there is none. Of several for one name (say RSA and ECDSA) the first
// that the client supports is taken.
func (s *Store) pick(name string, hello *tls.ClientHelloInfo) *tls.Certificate {
	if s == nil {
		return nil
	}
	cs := s.named(name)
	for i, c := range cs {
		if len(cs) == 1 || hello.SupportsCertificate(c) == nil {
			return cs[i]
		}
	}
	if len(cs) > 0 {
		return cs[0]
	}
	return s.deflt
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
