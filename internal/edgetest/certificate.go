package edgetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// Pair is a certificate signed by itself, as a Secret and as what a client trusts.
type Pair struct {
	Material  *secret.Material
	Cert, Key []byte // PEM
	Pool      *x509.CertPool
}

// Certificate makes a Pair for names: DNS names, or URIs if they have a scheme. The first one must be a DNS name; one behind "CN=" is the
// common name alone.
func Certificate(t testing.TB, names ...string) *Pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var uris []*url.URL
	names = slices.DeleteFunc(slices.Clone(names), func(n string) bool {
		u, err := url.Parse(n)
		if err != nil || u.Scheme == "" {
			return false
		}
		uris = append(uris, u)
		return true
	})
	common := names[0]
	if cn, ok := strings.CutPrefix(common, "CN="); ok {
		common, names = cn, names[1:]
	}
	tmpl := &x509.Certificate{URIs: uris, SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: common}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	p := &Pair{Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), Pool: x509.NewCertPool()}
	p.Pool.AppendCertsFromPEM(p.Cert)
	p.Material = &secret.Material{Type: "kubernetes.io/tls",
		Data: map[string]secret.Value{"tls.crt": secret.New(p.Cert), "tls.key": secret.New(p.Key)}}
	return p
}
