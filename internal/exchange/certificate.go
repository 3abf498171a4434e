package exchange

import (
	"crypto/sha256"
	"crypto/x509"
)

// ClientCertificate is the certificates that a client showed, made once for its connection and not changed.
type ClientCertificate struct {
	Chain []*x509.Certificate // the client's own first, then what is to lead to an authority
	Sum   [sha256.Size]byte   // SHA-256 of all of them, in their order
	Leaf  [sha256.Size]byte   // SHA-256 of the first
	Size  int                 // bytes of all of them (DER)
}

// NewClientCertificate returns nil for an empty chain.
func NewClientCertificate(chain []*x509.Certificate) *ClientCertificate {
	if len(chain) == 0 {
		return nil
	}
	c := &ClientCertificate{Chain: chain, Leaf: sha256.Sum256(chain[0].Raw)}
	h := sha256.New()
	for _, k := range chain {
		h.Write(k.Raw)
		c.Size += len(k.Raw)
	}
	h.Sum(c.Sum[:0])
	return c
}
