package cert

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// sessions is how many TLS sessions are kept for resumption to the endpoints of one cluster.
const sessions = 256

// Backend returns the TLS settings towards a cluster: TLS 1.2 and above, chain and name verified against b.Hostname, HTTP/1.1
// by ALPN. An error says which handle is missing or does not parse; the cluster must then be refused, never spoken to
// without verification. The value holds a session cache: keep it while b and the material stay the same.
func Backend(b *ir.BackendTLS, secrets secret.Set) (*tls.Config, error) {
	if b.Hostname == "" {
		return nil, errors.New("no hostname to verify")
	}
	if !b.System && len(b.CAs) == 0 {
		return nil, errors.New("nothing to trust: neither the system's roots nor a CA bundle is named")
	}
	roots := x509.NewCertPool()
	if b.System {
		system, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Errorf("reading the system's roots: %w", err)
		}
		roots = system
	}
	for _, handle := range b.CAs {
		m := secrets[handle]
		if m == nil {
			return nil, fmt.Errorf("no %s", describe(handle))
		}
		ca := m.Data[keyCA]
		if !roots.AppendCertsFromPEM(ca.Reveal()) {
			return nil, fmt.Errorf("%s: key ca.crt holds no PEM certificate", describe(handle))
		}
	}
	c := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         b.Hostname,
		RootCAs:            roots,
		NextProtos:         []string{"http/1.1"},
		ClientSessionCache: tls.NewLRUClientSessionCache(sessions),
	}
	if len(b.Names)+len(b.URIs) > 0 {
		verifyInstead(c, b.Names, b.URIs)
	}
	if b.ClientID != "" {
		m := secrets[b.ClientID]
		if m == nil {
			return nil, fmt.Errorf("no %s", describe(b.ClientID))
		}
		pair, err := parse(m)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", describe(b.ClientID), err)
		}
		c.Certificates = []tls.Certificate{*pair}
	}
	return c, nil
}

// verifyInstead has a certificate verified by its chain and by one of other names than the server name. crypto/tls can only verify
// the server name, so its own check is switched off and the whole of it made here: for each handshake, resumed ones too.
func verifyInstead(c *tls.Config, names, uris []string) {
	c.InsecureSkipVerify = true
	roots := c.RootCAs
	c.VerifyConnection = func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 {
			return errors.New("the backend showed no certificate")
		}
		leaf := s.PeerCertificates[0]
		o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()} // KeyUsages: server authentication
		for _, i := range s.PeerCertificates[1:] {
			o.Intermediates.AddCert(i)
		}
		if _, err := leaf.Verify(o); err != nil {
			return err
		}
		for _, n := range names {
			if hasName(leaf, n) {
				return nil
			}
		}
		for _, u := range leaf.URIs {
			if slices.Contains(uris, u.String()) {
				return nil
			}
		}
		return fmt.Errorf("the certificate has none of the subject alternative names %s", strings.Join(slices.Concat(names, uris), ", "))
	}
}

// hasName reports whether a certificate is for a DNS name; "*.example" needs that very wildcard in it.
func hasName(leaf *x509.Certificate, name string) bool {
	if strings.HasPrefix(name, "*.") {
		return slices.ContainsFunc(leaf.DNSNames, func(n string) bool { return strings.EqualFold(n, name) })
	}
	return leaf.VerifyHostname(name) == nil
}
