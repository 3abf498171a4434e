package cert

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// issue makes a certificate of one's own making, signed by itself: cn, then DNS names and IP addresses; "rsa" as a name makes it RSA.
func issue(t testing.TB, cn string, names ...string) *secret.Material {
	t.Helper()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: cn},
		NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature}
	var key crypto.Signer
	var err error
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if n == "rsa" {
			if key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
				t.Fatal(err)
			}
		} else if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	k, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &secret.Material{Type: "kubernetes.io/tls", Data: map[string]secret.Value{
		keyCert: secret.New(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		keyKey:  secret.New(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k}))}}
}

// listenerOf is a table entry for a hostname with own certificates, and the faults of its store.
func listenerOf(t testing.TB, hostname string, deflt *secret.Material, own ...*secret.Material) (Entry, []Fault) {
	t.Helper()
	spec, set := &ir.TLS{}, secret.Set{}
	for i, m := range own {
		h := fmt.Sprintf("Secret/s/%d", i)
		set[h] = m
		spec.Certificates = append(spec.Certificates, ir.Certificate{Handle: h, Source: ir.Source{Kind: "Gateway", Field: fmt.Sprintf("c[%d]", i)}})
	}
	if deflt != nil {
		set["d"], spec.Default = deflt, "d"
	}
	s, faults := Build(nil, hostname, spec, set)
	return Entry{Hostname: hostname, Store: s}, faults
}

// H3, C1: a listener shows its own certificate for every name that it takes. "" as want is unrecognized_name.
func TestListenerNeverRefusesForWantOfAFittingName(t *testing.T) {
	cn, ip, other := issue(t, "cn.example.com"), issue(t, "ip", "127.0.0.1"), issue(t, "other", "other.test")
	one, wild, deflt := issue(t, "one", "one.example.com"), issue(t, "wild", "*.example.com"), issue(t, "deflt", "*.deflt.test")
	broken := &secret.Material{Data: map[string]secret.Value{keyCert: one.Data[keyCert], keyKey: other.Data[keyKey]}}
	type ask struct{ sni, want string }
	for _, c := range []struct {
		name     string
		hostname string
		deflt    *secret.Material
		own      []*secret.Material
		asks     []ask
	}{
		{"common name alone", "", nil, []*secret.Material{cn}, []ask{{"cn.example.com", "cn.example.com"}, {"x.test", "cn.example.com"}, {"", "cn.example.com"}}},
		{"common name behind another", "", nil, []*secret.Material{other, cn}, []ask{{"CN.example.com", "cn.example.com"}, {"x.test", "other"}}},
		{"common name is nothing beside alternative names", "", nil, []*secret.Material{one, issue(t, "cn.test", "a.test")}, []ask{{"cn.test", "one"}, {"a.test", "cn.test"}}},
		{"address alone", "", nil, []*secret.Material{ip}, []ask{{"", "ip"}, {"x.test", "ip"}}},
		{"another name than the listener's", "san.example.com", nil, []*secret.Material{other}, []ask{{"san.example.com", "other"}, {"", "other"}, {"x.test", ""}}},
		{"two labels below a wildcard", "*.example.com", nil, []*secret.Material{wild}, []ask{{"a.b.example.com", "wild"}, {"a.example.com", "wild"}, {"example.com", ""}, {"", "wild"}}},
		{"exact before wildcard before the first", "", nil, []*secret.Material{other, wild, one}, []ask{{"one.example.com", "one"}, {"two.example.com", "wild"}, {"a.b.example.com", "other"}}},
		{"default only where it names the host", "", deflt, []*secret.Material{one}, []ask{{"a.deflt.test", "deflt"}, {"x.test", "one"}, {"", "one"}}},
		{"default alone", "", deflt, nil, []ask{{"x.test", "deflt"}, {"", "deflt"}}},
		{"does not parse", "", nil, []*secret.Material{broken}, []ask{{"one.example.com", ""}, {"", ""}}},
		{"does not parse, default", "", deflt, []*secret.Material{broken}, []ask{{"one.example.com", "deflt"}}},
		{"name too long for one", "", nil, []*secret.Material{one}, []ask{{strings.Repeat("a.", 200) + "test", ""}, {strings.Repeat("a.", 124) + "test", "one"}}},
	} {
		e, _ := listenerOf(t, c.hostname, c.deflt, c.own...)
		s := NewServer("http/1.1")
		s.Swap(NewTable(nil, []Entry{e}))
		for _, a := range c.asks {
			for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				st, err := shake(t, s, &tls.Config{ServerName: a.sni, InsecureSkipVerify: true, MaxVersion: v})
				switch {
				case a.want == "":
					wantAlert(t, c.name+", "+a.sni, err, "unrecognized name")
				case err != nil:
					t.Errorf("%s: handshake for %q: %v, want certificate %s", c.name, a.sni, err, a.want)
				case commonName(st) != a.want:
					t.Errorf("%s: certificate for %q = %s, want %s", c.name, a.sni, commonName(st), a.want)
				}
			}
		}
	}
}

func TestFallbackStillChoosesByKindOfKey(t *testing.T) {
	e, _ := listenerOf(t, "", nil, issue(t, "ecdsa", "a.test"), issue(t, "rsa", "a.test", "rsa"))
	s := NewServer()
	s.Swap(NewTable(nil, []Entry{e}))
	for suite, want := range map[uint16]string{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256: "rsa", tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256: "ecdsa"} {
		for _, sni := range []string{"a.test", "x.test", ""} {
			st, err := shake(t, s, &tls.Config{ServerName: sni, InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite}})
			if err != nil || commonName(st) != want {
				t.Errorf("%s, client of %s: %v, want that certificate", sni, want, err)
			}
		}
	}
}

// A client without a server name gets the listener of any name, or the only one, and its own protocol version and demand for certificates.
func TestNoServerNameIsNoWayRound(t *testing.T) {
	open, _ := listenerOf(t, "", nil, issue(t, "any", "any.test"))
	closed, _ := listenerOf(t, "closed.test", nil, issue(t, "closed", "closed.test"))
	closed.ClientCertificate, closed.MinVersion = true, "1.3"
	third, _ := listenerOf(t, "third.test", nil, issue(t, "third", "third.test"))
	for _, c := range []struct {
		name    string
		entries []Entry
		want    string // "": refused
		asked   bool
	}{
		{"any name beside one that asks", []Entry{closed, open}, "any", false},
		{"the only one asks", []Entry{closed}, "closed", true},
		{"two with names", []Entry{closed, third}, "", false},
	} {
		s := NewServer()
		s.Swap(NewTable(nil, c.entries))
		asked := false
		st, err := shake(t, s, &tls.Config{InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			asked = true
			return &tls.Certificate{}, nil
		}})
		switch {
		case c.want == "":
			wantAlert(t, c.name, err, "unrecognized name")
		case err != nil:
			t.Errorf("%s: %v", c.name, err)
		case commonName(st) != c.want || asked != c.asked:
			t.Errorf("%s: certificate %s, asked %v, want %s, %v", c.name, commonName(st), asked, c.want, c.asked)
		}
	}
	s := NewServer()
	s.Swap(NewTable(nil, []Entry{closed}))
	_, err := shake(t, s, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	wantAlert(t, "TLS 1.2 without a name at the only listener, of TLS 1.3", err, "protocol version")
}

// H14: what a certificate names is never an empty list, and a mismatch is a warning.
func TestMismatchIsToldAndOnlyThat(t *testing.T) {
	cn, other, one := issue(t, "cn.example.com"), issue(t, "other", "other.test"), issue(t, "one", "one.example.com")
	many := issue(t, "many", "a.t", "b.t", "c.t", "d.t", "e.t", "f.t", "g.t")
	const then = ": clients that verify names refuse it"
	for _, c := range []struct {
		hostname string
		deflt    *secret.Material
		own      []*secret.Material
		want     []string
	}{
		{"", nil, []*secret.Material{other}, nil},
		{"one.example.com", nil, []*secret.Material{other, one}, nil},
		{"one.example.com", one, []*secret.Material{other}, nil},
		{"*.example.com", nil, []*secret.Material{one}, nil},
		{"", nil, []*secret.Material{issue(t, "ip", "192.0.2.1")}, nil},
		{"", nil, []*secret.Material{cn}, []string{"the certificate names no host (it has no subject alternative name, only the common name cn.example.com, which browsers and many other clients do not read)"}},
		{"cn.example.com", nil, []*secret.Material{cn}, []string{"the certificate names no host (it has no subject alternative name, only the common name cn.example.com, which browsers and many other clients do not read)"}},
		{"one.example.com", nil, []*secret.Material{issue(t, "ip", "192.0.2.1")}, []string{"the certificate does not name one.example.com, the hostname of the listener (it names 192.0.2.1" + then + ")"}},
		{"*.example.com", nil, []*secret.Material{other}, []string{"the certificate does not name any host of *.example.com, the hostname of the listener (it names other.test" + then + ")"}},
		{"one.example.com", nil, []*secret.Material{many}, []string{"the certificate does not name one.example.com, the hostname of the listener (it names a.t, b.t, c.t, d.t, e.t and 2 more" + then + ")"}},
	} {
		_, faults := listenerOf(t, c.hostname, c.deflt, c.own...)
		var got []string
		for _, f := range faults {
			if !f.Warning || f.Source.Field != "c[0]" {
				t.Errorf("%s: %+v, want a warning of c[0]", c.hostname, f)
			}
			got = append(got, f.Message+" ("+f.Hint+")")
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: faults %q, want %q", c.hostname, got, c.want)
		}
	}
}

// Hosts for which an Ingress names no certificate have one from elsewhere, or that is a fault and no warning.
func TestHostsWithoutACertificateAreTold(t *testing.T) {
	shop := issue(t, "shop", "shop.example", "*.dev.example")
	set := secret.Set{"shop": shop, "deflt": issue(t, "d", "d.test")}
	bare := ir.Certificate{Hosts: []string{"shop.example", "A.dev.example", "lost.example"}, Source: ir.Source{Kind: "Ingress", Name: "bare"}}
	named := ir.Certificate{Handle: "shop", Hosts: []string{"shop.example", "*.dev.example"}}
	for _, c := range []struct {
		deflt string
		certs []ir.Certificate
		want  string
	}{
		{"", []ir.Certificate{bare, named}, "no certificate for lost.example: TLS handshakes are refused"},
		{"", []ir.Certificate{bare}, "no certificate for shop.example, a.dev.example, lost.example: TLS handshakes are refused"},
		{"deflt", []ir.Certificate{bare}, ""},
		{"", []ir.Certificate{{Hosts: []string{""}}}, "no certificate for any host: TLS handshakes are refused"},
		{"", []ir.Certificate{{Hosts: []string{""}}, {Handle: "shop", Hosts: []string{""}}}, ""},
	} {
		_, faults := Build(nil, "", &ir.TLS{Certificates: c.certs, Default: c.deflt}, set)
		got := ""
		for _, f := range faults {
			if got += f.Message; f.Warning {
				t.Errorf("%q is a warning, want an error", f.Message)
			}
		}
		if got != c.want {
			t.Errorf("faults = %q, want %q", got, c.want)
		}
	}
}

// What is wanted for any host (an Ingress without one) serves what nothing else covers, and takes no host from another.
func TestCertificateForAnyHostTakesNoHost(t *testing.T) {
	set := secret.Set{"any": issue(t, "any", "shop.example"), "shop": issue(t, "shop", "shop.example"), "deflt": issue(t, "deflt", "d.test")}
	for _, c := range []struct{ deflt, sni, want string }{{"", "shop.example", "shop"}, {"", "x.test", "any"}, {"", "", "any"}, {"deflt", "x.test", "deflt"}} {
		s, _ := Build(nil, "", &ir.TLS{Default: c.deflt, Certificates: []ir.Certificate{{Handle: "any", Hosts: []string{""}},
			{Handle: "shop", Hosts: []string{"shop.example"}}}}, set)
		if got := s.pick(c.sni, &tls.ClientHelloInfo{}).Leaf.Subject.CommonName; got != c.want {
			t.Errorf("default %q, %q: %s, want %s", c.deflt, c.sni, got, c.want)
		}
	}
}

// A change of one Secret or one listener makes one store.
func TestUnchangedStoresAndTablesAreKept(t *testing.T) {
	ls, set := listeners(t, 4)
	var s Stores
	if !s.Update(ls, set) || s.Update(ls, set) {
		t.Fatal("the first update changes all, the second nothing")
	}
	before := maps.Clone(s.ByListener())
	table := NewTable(nil, []Entry{{Store: before["l0"]}})
	changed := secret.Set{"s0": set["s0"], "s1": issue(t, "new", "new.test"), "s2": set["s2"], "s3": set["s3"]}
	if !s.Update(ls, changed) {
		t.Error("a Secret changed: Update = false")
	}
	for i, l := range ls {
		if kept := s.ByListener()[l.Key] == before[l.Key]; kept != (i != 1) {
			t.Errorf("store of %s kept: %v", l.Key, kept)
		}
	}
	if NewTable(table, []Entry{{Store: s.ByListener()["l0"]}}) != table || NewTable(table, []Entry{{Store: s.ByListener()["l1"]}}) == table {
		t.Error("a table is kept if and only if its stores are")
	}
	if !s.Update(ls[:3], changed) || len(s.ByListener()) != 3 {
		t.Error("a listener that is gone leaves its store")
	}
}

func listeners(t testing.TB, n int) ([]*ir.Listener, secret.Set) {
	set, m := secret.Set{}, issue(t, "x", "x.test")
	var ls []*ir.Listener
	for i := range n {
		h := fmt.Sprintf("s%d", i)
		set[h] = &secret.Material{Type: m.Type, Data: m.Data}
		ls = append(ls, &ir.Listener{Key: fmt.Sprintf("l%d", i), TLS: &ir.TLS{Certificates: []ir.Certificate{{Handle: h}}}})
	}
	return ls, set
}

// BenchmarkOneSecretOf10000: one Secret changes; before there was Stores, every store was built anew.
func BenchmarkOneSecretOf10000(b *testing.B) {
	ls, set := listeners(b, 10000)
	turn := func() { set["s5"] = &secret.Material{Type: set["s5"].Type, Data: set["s5"].Data} }
	b.Run("kept", func(b *testing.B) {
		var s Stores
		s.Update(ls, set)
		for b.Loop() {
			turn()
			s.Update(ls, set)
		}
	})
	b.Run("all", func(b *testing.B) {
		stores := map[string]*Store{}
		update := func() {
			for _, l := range ls {
				stores[l.Key], _ = Build(stores[l.Key], "", l.TLS, set)
			}
		}
		update()
		for b.Loop() {
			turn()
			update()
		}
	})
}

// BenchmarkOneSecretOfOneListener: one Secret of the 10,000 of an IngressClass changes.
func BenchmarkOneSecretOfOneListener(b *testing.B) {
	l := &ir.Listener{Key: "l", TLS: &ir.TLS{}}
	set := secret.Set{}
	m := issue(b, "x", "*.x.test")
	for i := range 10000 {
		h := fmt.Sprintf("s%d", i)
		set[h] = &secret.Material{Type: m.Type, Data: m.Data}
		l.TLS.Certificates = append(l.TLS.Certificates, ir.Certificate{Handle: h, Hosts: []string{fmt.Sprintf("h%d.x.test", i)}})
	}
	var s Stores
	s.Update([]*ir.Listener{l}, set)
	for b.Loop() {
		set["s5"] = &secret.Material{Type: m.Type, Data: m.Data}
		s.Update([]*ir.Listener{l}, set)
	}
}
