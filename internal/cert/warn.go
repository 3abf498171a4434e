package cert

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// shown is how many names of a certificate a fault lists.
const shown = 5

// namesOf are the subject alternative names by which clients may know a server.
func namesOf(leaf *x509.Certificate) []string {
	out := slices.Clip(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		out = append(out, ip.String())
	}
	return out
}

// hint says what a certificate names instead.
func hint(leaf *x509.Certificate) string {
	const then = ": clients that verify names refuse it"
	found := namesOf(leaf)
	switch {
	case len(found) == 0 && leaf.Subject.CommonName == "":
		return "it has no subject alternative name" + then
	case len(found) == 0:
		return fmt.Sprintf("it has no subject alternative name, only the common name %s, which browsers and many other clients do not read", leaf.Subject.CommonName)
	}
	return "it names " + list(found) + then
}

func list(names []string) string {
	if n := len(names) - shown; n > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:shown], ", "), n)
	}
	return strings.Join(names, ", ")
}

// unnamed warns of hosts for which a certificate is wanted that it does not name.
func (s *Store) unnamed(c *ir.Certificate, leaf *x509.Certificate, hosts []string) []Fault {
	var missing []string
	for _, h := range hosts {
		if !hasName(leaf, h) {
			missing = append(missing, h)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return []Fault{{Source: c.Source, Handle: c.Handle, Warning: true,
		Message: "the certificate does not name " + list(missing), Hint: hint(leaf)}}
}

// mismatch warns of a listener none of whose certificates is for a name that its hostname takes.
func (s *Store) mismatch(hostname string, t *ir.TLS) []Fault {
	if len(s.listed) == 0 || hostname == "" || s.deflt != nil && serves(s.deflt.Leaf, hostname) {
		return nil
	}
	for _, c := range s.listed {
		if serves(c.Leaf, hostname) {
			return nil
		}
	}
	for i := range t.Certificates {
		c := &t.Certificates[i]
		p := s.pairs[c.Handle]
		if p == nil || p.cert != s.listed[0] || len(namesOf(p.cert.Leaf)) == 0 { // the last is warned of as it is
			continue
		}
		what := hostname
		if strings.HasPrefix(hostname, "*.") {
			what = "any host of " + hostname
		}
		return []Fault{{Source: c.Source, Handle: c.Handle, Warning: true,
			Message: fmt.Sprintf("the certificate does not name %s, the hostname of the listener", what), Hint: hint(p.cert.Leaf)}}
	}
	return nil
}

// serves reports whether a certificate is for a name that a listener's hostname takes ("*.example": of one label or more).
func serves(leaf *x509.Certificate, hostname string) bool {
	suffix, wild := strings.CutPrefix(strings.ToLower(hostname), "*")
	if !wild {
		return leaf.VerifyHostname(hostname) == nil
	}
	return slices.ContainsFunc(leaf.DNSNames, func(n string) bool {
		n = strings.ToLower(n)
		return strings.HasSuffix(n, suffix) && len(n) > len(suffix)
	})
}

// unserved says which hosts want TLS without naming a certificate and get none from elsewhere: their handshakes are refused.
func (s *Store) unserved(t *ir.TLS) (out []Fault) {
	for i := range t.Certificates {
		c := &t.Certificates[i]
		if c.Handle != "" {
			continue
		}
		var bare []string
		for _, h := range c.Hosts {
			if h = strings.ToLower(h); h == "" {
				if len(s.candidates("")) == 0 {
					bare = append(bare, "any host")
				}
			} else if len(s.candidates(h)) == 0 {
				bare = append(bare, h)
			}
		}
		if len(bare) > 0 {
			out = append(out, Fault{Source: c.Source, Message: fmt.Sprintf("no certificate for %s: TLS handshakes are refused", list(bare)),
				Hint: "write secretName, or defaultCertificateRef in the GatewayParameters of the IngressClass"})
		}
	}
	return out
}
