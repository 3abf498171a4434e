package cert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// authority signs certificates for tests.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pool *x509.CertPool
	n    int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true,
		BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(c)
	return &authority{t: t, key: key, cert: c, pool: pool, n: 1}
}

func (a *authority) bundle() *secret.Material {
	return &secret.Material{Data: map[string]secret.Value{
		keyCA: secret.New(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))}}
}

// pair signs a certificate for names; the first is also its common name.
func (a *authority) pair(names ...string) *secret.Material {
	a.t.Helper()
	a.n++
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(a.n), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	kder, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return &secret.Material{Type: "kubernetes.io/tls", Data: map[string]secret.Value{
		keyCert: secret.New(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		keyKey:  secret.New(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kder})),
	}}
}

// shake does a handshake against s and returns the common name of the certificate shown.
func shake(t *testing.T, s *Server, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		tc := tls.Server(c, s.Config())
		if tc.Handshake() == nil {
			_, _ = tc.Write([]byte("x")) // carries the session tickets of TLS 1.3 to the client
		}
	}()
	c, err := tls.Dial("tcp", ln.Addr().String(), client)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer c.Close()
	var p [1]byte
	if _, err := c.Read(p[:]); err != nil {
		return tls.ConnectionState{}, err
	}
	return c.ConnectionState(), nil
}

func commonName(st tls.ConnectionState) string { return st.PeerCertificates[0].Subject.CommonName }

func TestSelectionByName(t *testing.T) {
	a := newAuthority(t)
	secrets := secret.Set{"Secret/s/shop": a.pair("shop.example"), "Secret/s/wild": a.pair("*.shop.example"),
		"Secret/s/deflt": a.pair("fallback.example"), "Secret/s/hosts": a.pair("own.example")}
	store, faults := Build(nil, "", &ir.TLS{Default: "Secret/s/deflt", Certificates: []ir.Certificate{
		{Handle: "Secret/s/shop", Hosts: []string{"shop.example"}}, {Handle: "Secret/s/wild", Hosts: []string{"*.shop.example"}},
		{Handle: "Secret/s/hosts", Hosts: []string{"Wanted.example"}}}}, secrets)
	if len(faults) != 1 || !faults[0].Warning || !strings.Contains(faults[0].Message, "does not name Wanted.example") {
		t.Errorf("faults = %+v, want one warning about Wanted.example", faults)
	}
	s := NewServer("http/1.1")
	s.Swap(NewTable(nil, []Entry{{Store: store}}))
	for _, c := range []struct{ sni, want string }{
		{"shop.example", "shop.example"},
		{"SHOP.example", "shop.example"},
		{"a.shop.example", "*.shop.example"},
		{"a.b.shop.example", "fallback.example"}, // a wildcard is one label
		{"wanted.example", "own.example"},
		{"own.example", "fallback.example"}, // hosts wanted stand in the place of the certificate's own
		{"other.example", "fallback.example"},
		{"", "fallback.example"},
	} {
		st, err := shake(t, s, &tls.Config{ServerName: c.sni, InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
		if err != nil {
			t.Errorf("handshake for %q: %v", c.sni, err)
			continue
		}
		if got := commonName(st); got != c.want {
			t.Errorf("certificate for %q = %q, want %q", c.sni, got, c.want)
		}
		if st.NegotiatedProtocol != "http/1.1" {
			t.Errorf("ALPN for %q = %q, want http/1.1", c.sni, st.NegotiatedProtocol)
		}
	}
}

func wantAlert(t *testing.T, what string, err error, alert string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), alert) {
		t.Errorf("%s: error = %v, want alert %q", what, err, alert)
	}
}

func TestNoCertificateIsUnrecognizedName(t *testing.T) {
	a := newAuthority(t)
	store, _ := Build(nil, "", &ir.TLS{Certificates: []ir.Certificate{{Handle: "Secret/s/shop", Hosts: []string{"shop.example"}}}},
		secret.Set{"Secret/s/shop": a.pair("shop.example")})
	s := NewServer("http/1.1")
	for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		s.Swap(nil)
		_, err := shake(t, s, &tls.Config{ServerName: "shop.example", InsecureSkipVerify: true, MaxVersion: v})
		wantAlert(t, "empty server", err, "unrecognized name")
		s.Swap(NewTable(nil, []Entry{{Store: store}}))
		for _, sni := range []string{"other.example", ""} {
			_, err := shake(t, s, &tls.Config{ServerName: sni, InsecureSkipVerify: true, MaxVersion: v})
			wantAlert(t, "name "+sni, err, "unrecognized name")
		}
	}
}

// The longest hostname of a socket's listeners decides whose certificates and which versions count.
func TestListenersOfOneSocketAreIsolated(t *testing.T) {
	a := newAuthority(t)
	build := func(names ...string) *Store {
		st, faults := Build(nil, "", &ir.TLS{Certificates: []ir.Certificate{{Handle: "h"}}}, secret.Set{"h": a.pair(names...)})
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		return st
	}
	s := NewServer("http/1.1")
	s.Swap(NewTable(nil, []Entry{
		{Hostname: "*.example", Store: build("everything", "a.example", "x.y.example", "deep.shop.example")},
		{Hostname: "*.shop.example", Store: build("shop wildcard", "deep.shop.example")},
		{Hostname: "pay.shop.example", Store: build("pay", "pay.shop.example"), MinVersion: "1.3"},
	}))
	for _, c := range []struct{ sni, want string }{
		{"a.example", "everything"}, {"x.y.example", "everything"}, {"deep.shop.example", "shop wildcard"},
		{"pay.shop.example", "pay"},
	} {
		st, err := shake(t, s, &tls.Config{ServerName: c.sni, InsecureSkipVerify: true})
		if err != nil {
			t.Errorf("handshake for %q: %v", c.sni, err)
		} else if got := commonName(st); got != c.want {
			t.Errorf("certificate for %q = %q, want %q", c.sni, got, c.want)
		}
	}
	st, err := shake(t, s, &tls.Config{ServerName: "other.shop.example", InsecureSkipVerify: true})
	if err != nil || commonName(st) != "shop wildcard" {
		t.Errorf("a name that no certificate of its listener covers: %v, want the listener's own, not that of *.example", err)
	}
	_, err = shake(t, s, &tls.Config{ServerName: "pay.shop.example", InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	wantAlert(t, "TLS 1.2 at a listener of TLS 1.3", err, "protocol version")
	_, err = shake(t, s, &tls.Config{ServerName: "a.example", InsecureSkipVerify: true, MinVersion: tls.VersionTLS10,
		MaxVersion: tls.VersionTLS11})
	wantAlert(t, "TLS 1.1", err, "protocol version")
}

func TestSwapKeepsSessionsButNotWithdrawnNames(t *testing.T) {
	a := newAuthority(t)
	spec := &ir.TLS{Certificates: []ir.Certificate{{Handle: "shop"}}}
	for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		s := NewServer("http/1.1")
		one, _ := Build(nil, "", spec, secret.Set{"shop": a.pair("shop.example")})
		s.Swap(NewTable(nil, []Entry{{Store: one}}))
		client := &tls.Config{ServerName: "shop.example", RootCAs: a.pool, MaxVersion: v,
			ClientSessionCache: tls.NewLRUClientSessionCache(4)}
		for i, want := range []bool{false, true} {
			if st, err := shake(t, s, client); err != nil || st.DidResume != want {
				t.Fatalf("%#x: handshake %d: resumed %v, err %v, want %v", v, i, st.DidResume, err, want)
			}
		}
		two, _ := Build(one, "", spec, secret.Set{"shop": a.pair("shop.example")})
		s.Swap(NewTable(nil, []Entry{{Store: two}}))
		if st, err := shake(t, s, client); err != nil || !st.DidResume {
			t.Errorf("%#x: after a swap: resumed %v, err %v, want a resumed session", v, st.DidResume, err)
		}
		s.Swap(NewTable(nil, nil))
		_, err := shake(t, s, client)
		wantAlert(t, "name withdrawn, ticket held", err, "unrecognized name")
	}
}

func TestPairThatDoesNotParseLeavesTheOneInUse(t *testing.T) {
	a := newAuthority(t)
	good := a.pair("shop.example")
	bad := &secret.Material{Data: map[string]secret.Value{keyCert: good.Data[keyCert], keyKey: a.pair("shop.example").Data[keyKey]}}
	spec := &ir.TLS{Certificates: []ir.Certificate{{Handle: "Secret/s/shop", Source: ir.Source{Kind: "Ingress", Name: "shop"}}}}

	first, faults := Build(nil, "", spec, secret.Set{"Secret/s/shop": good})
	if len(faults) != 0 || !first.Covers("shop.example") {
		t.Fatalf("good pair: faults %v, covers %v", faults, first.Covers("shop.example"))
	}
	second, faults := Build(first, "", spec, secret.Set{"Secret/s/shop": bad})
	if len(faults) != 1 || faults[0].Source.Name != "shop" || !strings.Contains(faults[0].Message, "private key does not match") {
		t.Errorf("bad pair: faults %+v, want one: private key does not match", faults)
	}
	third, faults := Build(second, "", spec, secret.Set{"Secret/s/shop": bad}) // the same material again: still told
	if len(faults) != 1 || !third.Covers("shop.example") {
		t.Errorf("bad pair again: faults %v, covers %v, want one fault and the old pair", faults, third.Covers("shop.example"))
	}
	gone, _ := Build(third, "", &ir.TLS{}, secret.Set{"Secret/s/shop": bad})
	if gone.Covers("shop.example") {
		t.Error("out of the spec, the pair is still in use")
	}
	if back, _ := Build(gone, "", spec, secret.Set{"Secret/s/shop": bad}); back.Covers("shop.example") {
		t.Error("back in the spec with a pair that does not parse, the old pair came back")
	}
	absent, faults := Build(third, "", spec, secret.Set{})
	if absent.Covers("shop.example") || len(faults) != 1 || faults[0].Message != "no Secret s/shop" {
		t.Errorf("Secret gone: covers %v, faults %+v, want not covered and \"no Secret s/shop\"", absent.Covers("shop.example"), faults)
	}
	for _, f := range faults {
		if strings.Contains(f.Message+f.Hint, "PRIVATE") {
			t.Errorf("fault shows key material: %+v", f)
		}
	}
}

func TestUnchangedMaterialIsNotParsedAgain(t *testing.T) {
	a := newAuthority(t)
	spec := &ir.TLS{Certificates: []ir.Certificate{{Handle: "h"}}, Default: "h"}
	set := secret.Set{"h": a.pair("shop.example")}
	one, _ := Build(nil, "", spec, set)
	two, _ := Build(one, "", spec, set)
	if one.pairs["h"] != two.pairs["h"] {
		t.Error("the pair was parsed again")
	}
	if got := two.Handles(); !slices.Equal(got, []string{"h"}) || two.Expiry().IsZero() {
		t.Errorf("Handles() = %v, Expiry() = %v, want [h] and a time", got, two.Expiry())
	}
}

func TestBackendVerifiesChainAndName(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	store, _ := Build(nil, "", &ir.TLS{Default: "h"}, secret.Set{"h": a.pair("cart.internal")})
	s := NewServer("http/1.1")
	s.Swap(NewTable(nil, []Entry{{Store: store}}))
	secrets := secret.Set{"Secret/s/ca": a.bundle(), "Secret/s/stranger": stranger.bundle()}
	for _, c := range []struct {
		name string
		b    ir.BackendTLS
		want string // in the error, "" for none
	}{
		{"right", ir.BackendTLS{Hostname: "cart.internal", CAs: []string{"Secret/s/ca"}}, ""},
		{"two bundles", ir.BackendTLS{Hostname: "cart.internal", CAs: []string{"Secret/s/stranger", "Secret/s/ca"}}, ""},
		{"other name", ir.BackendTLS{Hostname: "pay.internal", CAs: []string{"Secret/s/ca"}}, "not pay.internal"},
		{"other authority", ir.BackendTLS{Hostname: "cart.internal", CAs: []string{"Secret/s/stranger"}}, "unknown authority"},
		{"system's roots", ir.BackendTLS{Hostname: "cart.internal", System: true}, "unknown authority"},
	} {
		conf, err := Backend(&c.b, secrets)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		_, err = shake(t, s, conf)
		if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: handshake error %v, want %q", c.name, err, c.want)
		}
	}
}

func TestBackendClientCertificateAndSession(t *testing.T) {
	a := newAuthority(t)
	conf, err := Backend(&ir.BackendTLS{Hostname: "cart.internal", CAs: []string{"ca"}, ClientID: "me"},
		secret.Set{"ca": a.bundle(), "me": a.pair("edge.internal")})
	if err != nil {
		t.Fatal(err)
	}
	store, _ := Build(nil, "", &ir.TLS{Default: "h"}, secret.Set{"h": a.pair("cart.internal")})
	s := NewServer("http/1.1")
	s.Swap(NewTable(nil, []Entry{{Store: store}}))
	var seen []string
	s.base.ClientAuth, s.base.ClientCAs = tls.RequireAndVerifyClientCert, a.pool
	s.base.VerifyConnection = func(st tls.ConnectionState) error {
		if len(st.PeerCertificates) == 0 {
			return errors.New("no certificate")
		}
		seen = append(seen, commonName(st))
		return nil
	}
	for i, want := range []bool{false, true} {
		st, err := shake(t, s, conf)
		if err != nil || st.DidResume != want {
			t.Fatalf("handshake %d: resumed %v, err %v, want %v", i, st.DidResume, err, want)
		}
	}
	if !slices.Equal(seen, []string{"edge.internal", "edge.internal"}) {
		t.Errorf("the backend saw %v, want edge.internal twice", seen)
	}
}

// Whatever is missing, the answer is an error, never a configuration that verifies less.
func TestBackendNeverFallsBackToNoVerification(t *testing.T) {
	for _, c := range []struct {
		name string
		b    ir.BackendTLS
		set  secret.Set
		want string
	}{
		{"no hostname", ir.BackendTLS{System: true}, nil, "no hostname"},
		{"nothing to trust", ir.BackendTLS{Hostname: "a"}, nil, "nothing to trust"},
		{"bundle missing", ir.BackendTLS{Hostname: "a", CAs: []string{"Secret/s/ca"}}, nil, "no Secret s/ca"},
		{"bundle empty", ir.BackendTLS{Hostname: "a", CAs: []string{"c"}}, secret.Set{"c": {}}, "ca.crt"},
		{"client certificate missing", ir.BackendTLS{Hostname: "a", System: true, ClientID: "Secret/s/me"}, nil, "no Secret s/me"},
		{"client certificate empty", ir.BackendTLS{Hostname: "a", System: true, ClientID: "c"}, secret.Set{"c": {}}, "tls.crt"},
	} {
		conf, err := Backend(&c.b, c.set)
		if conf != nil || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: Backend = %v, %v, want an error with %q", c.name, conf, err, c.want)
		}
	}
}
