package mtls

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// issuer is an authority, or a client: a certificate and its key.
type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (i *issuer) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.cert.Raw})
}

// issue makes a certificate that by signs (nil: itself), an hour before start until an hour after it.
func issue(t testing.TB, by *issuer, change func(*x509.Certificate)) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: serial, NotBefore: start.Add(-time.Hour), NotAfter: start.Add(time.Hour), Subject: pkix.Name{CommonName: "client"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true}
	if change != nil {
		change(tmpl)
	}
	out := &issuer{key: key}
	parent, signer := tmpl, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	if out.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return out
}

func authority(t testing.TB, by *issuer, name string) *issuer {
	return issue(t, by, func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.KeyUsage, c.ExtKeyUsage = name, true, x509.KeyUsageCertSign, nil
		c.NotAfter = start.Add(24 * time.Hour)
	})
}

type store secret.Set

func (s store) Lookup(h string) *secret.Material { return s[h] }

func (s store) put(h string, pems ...[]byte) {
	s[h] = &secret.Material{Data: map[string]secret.Value{keyCA: secret.New(bytes.Join(pems, nil))}}
}

const one, two = "ConfigMap/shop/one", "Secret/shop/two"

func compiled(t testing.TB, s store, spec v1alpha1.MTLSAuth) method.Handler {
	t.Helper()
	refs := map[string]string{refPath(0): one}
	spec.CACertificateRefs = append(spec.CACertificateRefs, v1alpha1.LocalObjectRef{Name: "one"})
	if s[two] != nil {
		refs[refPath(1)] = two
		spec.CACertificateRefs = append(spec.CACertificateRefs, v1alpha1.LocalObjectRef{Kind: "Secret", Name: "two"})
	}
	h, err := Compile("machines", &spec, policy.Env{Secret: s, Refs: refs})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func request(at time.Time, chain ...*issuer) *exchange.Exchange {
	var certs []*x509.Certificate
	for _, i := range chain {
		certs = append(certs, i.cert)
	}
	return &exchange.Exchange{Start: at, TLS: true, Certificate: exchange.NewClientCertificate(certs)}
}

func uris(texts ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		for _, s := range texts {
			u, err := url.Parse(s)
			if err != nil {
				panic(err)
			}
			c.URIs = append(c.URIs, u)
		}
	}
}

func TestChains(t *testing.T) {
	root, other := authority(t, nil, "root"), authority(t, nil, "root") // the same name, another key
	middle := authority(t, root, "middle")
	expired := issue(t, root, func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage, c.ExtKeyUsage, c.Subject.CommonName = true, x509.KeyUsageCertSign, nil, "expired"
		c.NotAfter = start.Add(-time.Second)
	})
	server := issue(t, root, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	plain := issue(t, root, nil)
	notCA := issue(t, plain, nil)
	var long []*issuer
	for range maxChain {
		long = append(long, middle)
	}
	s := store{}
	s.put(one, root.pem())
	h := compiled(t, s, v1alpha1.MTLSAuth{})
	if !h.ClientCertificate || h.Challenge != "" || h.Admit != nil {
		t.Errorf("handler = %+v", h)
	}
	for _, tt := range []struct {
		name   string
		chain  []*issuer
		at     time.Duration
		state  method.State
		reason string
	}{
		{"no certificate", nil, 0, method.Absent, ""},
		{"by the root", []*issuer{plain}, 0, method.Accepted, ""},
		{"with the root beside", []*issuer{plain, root}, 0, method.Accepted, ""},
		{"through another", []*issuer{issue(t, middle, nil), middle}, 0, method.Accepted, ""},
		{"the one between is missing", []*issuer{issue(t, middle, nil)}, 0, method.Refused, "certificate_untrusted"},
		{"by an authority of the same name", []*issuer{issue(t, other, nil)}, 0, method.Refused, "certificate_untrusted"},
		{"that authority sent along", []*issuer{issue(t, other, nil), other}, 0, method.Refused, "certificate_untrusted"},
		{"by itself", []*issuer{issue(t, nil, nil)}, 0, method.Refused, "certificate_untrusted"},
		{"by one that may not sign", []*issuer{notCA, plain}, 0, method.Refused, "certificate_untrusted"},
		{"for servers", []*issuer{server}, 0, method.Refused, "certificate_purpose"},
		{"too late", []*issuer{plain}, time.Hour + time.Second, method.Refused, "certificate_expired"},
		{"at its last second", []*issuer{plain}, time.Hour, method.Accepted, ""},
		{"too early", []*issuer{plain}, -time.Hour - time.Second, method.Refused, "certificate_expired"},
		{"the one between is expired", []*issuer{issue(t, expired, nil), expired}, 0, method.Refused, "certificate_expired"},
		{"too many", append([]*issuer{plain}, long...), 0, method.Refused, "certificate_chain_too_long"},
	} {
		for range 2 { // what is remembered is the same
			o := h.Authenticate(request(start.Add(tt.at), tt.chain...))
			if o.State != tt.state || o.Reason != tt.reason {
				t.Errorf("%s: %v %q (%s), want %v %q", tt.name, o.State, o.Reason, o.Detail, tt.state, tt.reason)
			}
		}
	}
}

// A chain is not remembered beyond the first of its certificates that ends.
func TestRememberedChainEnds(t *testing.T) {
	root := authority(t, nil, "root")
	middle := issue(t, root, func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage, c.ExtKeyUsage, c.Subject.CommonName = true, x509.KeyUsageCertSign, nil, "middle"
		c.NotAfter = start.Add(time.Minute)
	})
	leaf := issue(t, middle, nil)
	s := store{}
	s.put(one, root.pem())
	h := compiled(t, s, v1alpha1.MTLSAuth{})
	for _, tt := range []struct {
		at    time.Duration
		state method.State
	}{{0, method.Accepted}, {time.Minute, method.Accepted}, {time.Minute + time.Second, method.Refused}, {0, method.Accepted}} {
		if o := h.Authenticate(request(start.Add(tt.at), leaf, middle)); o.State != tt.state {
			t.Errorf("after %s: %v %s", tt.at, o.State, o.Reason)
		}
	}
	early := issue(t, root, func(c *x509.Certificate) { c.NotBefore = start.Add(30 * time.Second) })
	for _, tt := range []struct {
		at    time.Duration
		state method.State
	}{{0, method.Refused}, {59 * time.Second, method.Refused}, {60 * time.Second, method.Accepted}} { // a refusal is remembered for a minute
		if o := h.Authenticate(request(start.Add(tt.at), early)); o.State != tt.state {
			t.Errorf("not yet valid, after %s: %v %s", tt.at, o.State, o.Reason)
		}
	}
}

func TestAuthoritiesChange(t *testing.T) {
	a, b := authority(t, nil, "a"), authority(t, nil, "b")
	ca, cb := issue(t, a, nil), issue(t, b, nil)
	s := store{}
	h := compiled(t, s, v1alpha1.MTLSAuth{})
	state := func(h *method.Handler, c *issuer) method.State { return h.Authenticate(request(start, c)).State }
	if o := h.Authenticate(request(start, ca)); o.State != method.Unavailable || o.Reason != "authorities_unavailable" {
		t.Errorf("with no authorities: %+v", o)
	}
	s.put(one, []byte("no PEM"))
	if got := state(&h, ca); got != method.Unavailable {
		t.Errorf("with none that parses: %v", got)
	}
	s.put(one, a.pem())
	if x, y := state(&h, ca), state(&h, cb); x != method.Accepted || y != method.Refused {
		t.Errorf("with a: %v, %v", x, y)
	}
	s.put(one, a.pem(), b.pem())
	if x, y := state(&h, ca), state(&h, cb); x != method.Accepted || y != method.Accepted {
		t.Errorf("with both: %v, %v", x, y)
	}
	s.put(one, b.pem())
	if x, y := state(&h, ca), state(&h, cb); x != method.Refused || y != method.Accepted {
		t.Errorf("with b: %v, %v", x, y)
	}
	s.put(two, a.pem())
	h = compiled(t, s, v1alpha1.MTLSAuth{})
	if x, y := state(&h, ca), state(&h, cb); x != method.Accepted || y != method.Accepted {
		t.Errorf("with two objects: %v, %v", x, y)
	}
	delete(s, two) // what is missing might have signed it
	if x, y := state(&h, ca), state(&h, cb); x != method.Unavailable || y != method.Accepted {
		t.Errorf("with one of two objects: %v, %v", x, y)
	}
	delete(s, one)
	if x, y := state(&h, ca), state(&h, cb); x != method.Unavailable || y != method.Unavailable {
		t.Errorf("when all are gone: %v, %v", x, y)
	}
}

func TestIdentity(t *testing.T) {
	root := authority(t, nil, "root")
	s := store{}
	s.put(one, root.pem())
	h := compiled(t, s, v1alpha1.MTLSAuth{})
	for _, tt := range []struct {
		name    string
		change  func(*x509.Certificate)
		subject string
		reason  string
	}{
		{"common name", nil, "client", ""},
		{"email", func(c *x509.Certificate) { c.EmailAddresses = []string{"ann@Shop.example"} }, "ann@Shop.example", ""},
		{"DNS before email", func(c *x509.Certificate) {
			c.DNSNames, c.EmailAddresses = []string{"a.example", "b.example"}, []string{"x@y"}
		}, "a.example", ""},
		{"URI before DNS", func(c *x509.Certificate) {
			uris("SPIFFE://Cluster.example/ns/Shop")(c)
			c.DNSNames = []string{"a.example"}
		}, "spiffe://cluster.example/ns/Shop", ""},
		{"two URIs", uris("https://a.example/x", "urn:b"), "https://a.example/x", ""},
		{"two SPIFFE IDs", uris("spiffe://a.example/x", "spiffe://a.example/y"), "", "certificate_name_malformed"},
		{"a SPIFFE ID behind another URI", uris("urn:b", "spiffe://a.example/x"), "", "certificate_name_malformed"},
		{"a SPIFFE ID with a query", uris("spiffe://a.example/x?y"), "", "certificate_name_malformed"},
		{"a SPIFFE ID with dot segments", uris("spiffe://a.example/x/../y"), "", "certificate_name_malformed"},
		{"a SPIFFE ID with a port", uris("spiffe://a.example:1/x"), "", "certificate_name_malformed"},
		{"an odd common name", func(c *x509.Certificate) { c.Subject.CommonName = "a\nb" }, "", ""},
	} {
		c := issue(t, root, tt.change)
		o := h.Authenticate(request(start, c))
		if o.Reason != tt.reason || o.Identity.Subject != tt.subject {
			t.Errorf("%s: %q %q (%s), want %q %q", tt.name, o.Identity.Subject, o.Reason, o.Detail, tt.subject, tt.reason)
		}
		sum := sha256.Sum256(c.cert.Raw)
		want := exchange.Identity{Subject: tt.subject, CredentialID: hex.EncodeToString(sum[:]), Issuer: "CN=root", Method: "machines"}
		if d := cmp.Diff(want, o.Identity); tt.reason == "" && d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, d)
		}
	}
}

func TestSubjectAltNames(t *testing.T) {
	root := authority(t, nil, "root")
	s := store{}
	s.put(one, root.pem())
	for _, tt := range []struct {
		pattern v1alpha1.SubjectAltName
		change  func(*x509.Certificate)
		want    bool
	}{
		{v1alpha1.SubjectAltName{DNS: "A.example"}, func(c *x509.Certificate) { c.DNSNames = []string{"b.example", "a.EXAMPLE"} }, true},
		{v1alpha1.SubjectAltName{DNS: "a.example"}, func(c *x509.Certificate) { c.DNSNames = []string{"a.example.evil"} }, false},
		{v1alpha1.SubjectAltName{DNS: "shop-*"}, func(c *x509.Certificate) { c.DNSNames = []string{"shop-7.example"} }, true},
		{v1alpha1.SubjectAltName{DNS: "client"}, nil, false}, // a common name is no DNS name
		{v1alpha1.SubjectAltName{DNS: "*"}, nil, false},
		{v1alpha1.SubjectAltName{DNS: "a.example"}, uris("urn:a.example"), false},
		{v1alpha1.SubjectAltName{Email: "ann@shop.example"}, func(c *x509.Certificate) { c.EmailAddresses = []string{"ann@SHOP.example"} }, true},
		{v1alpha1.SubjectAltName{Email: "ann@shop.example"}, func(c *x509.Certificate) { c.EmailAddresses = []string{"Ann@shop.example"} }, false},
		{v1alpha1.SubjectAltName{URI: "spiffe://Cluster.example/ns/shop/*"}, uris("spiffe://cluster.EXAMPLE/ns/shop/sa/web"), true},
		{v1alpha1.SubjectAltName{URI: "spiffe://cluster.example/ns/shop/*"}, uris("spiffe://cluster.example/ns/Shop/sa/web"), false},
		{v1alpha1.SubjectAltName{URI: "spiffe://cluster.example/ns/shop/*"}, uris("spiffe://cluster.example/ns/shopping/web"), false},
		{v1alpha1.SubjectAltName{URI: "spiffe://cluster.example/ns/shop/*"}, uris("spiffe://cluster.example.evil/ns/shop/web"), false},
		{v1alpha1.SubjectAltName{URI: "spiffe://cluster.example/ns/shop"}, uris("spiffe://cluster.example/ns/shop"), true},
		{v1alpha1.SubjectAltName{URI: "spiffe://cluster.example/ns/shop"}, uris("spiffe://cluster.example/ns/shop/x"), false},
		{v1alpha1.SubjectAltName{URI: "https://a.example/shop/*"}, uris("https://a.example/shop/../admin"), false},
		{v1alpha1.SubjectAltName{URI: "https://a.example/shop/*"}, uris("https://a.example/shop/%2e%2e/admin"), false},
		{v1alpha1.SubjectAltName{URI: "https://a.example/shop/*"}, uris("https://a.example/shop/x..y"), true},
		{v1alpha1.SubjectAltName{URI: "urn:shop:*"}, uris("URN:shop:7"), true},
	} {
		h := compiled(t, s, v1alpha1.MTLSAuth{SubjectAltNames: []v1alpha1.SubjectAltName{{DNS: "nobody.example"}, tt.pattern}})
		o := h.Authenticate(request(start, issue(t, root, tt.change)))
		if (o.State == method.Accepted) != tt.want || !tt.want && o.Reason != "certificate_name_not_allowed" {
			t.Errorf("%+v: %v %q", tt.pattern, o.State, o.Reason)
		}
	}
}

func TestCertificateHeader(t *testing.T) {
	root := authority(t, nil, "root")
	c := issue(t, root, nil)
	s := store{}
	s.put(one, root.pem())
	h := compiled(t, s, v1alpha1.MTLSAuth{CertificateHeader: "X-Client-Certificate"})
	o := h.Authenticate(request(start, c))
	if d := cmp.Diff([]string{"X-Client-Certificate"}, h.Fields); d != "" || len(o.Header) != 1 || string(o.Header[0].Name) != "X-Client-Certificate" {
		t.Fatalf("%v, %+v", h.Fields, o)
	}
	v := string(o.Header[0].Value)
	if got, err := url.PathUnescape(v); err != nil || got != string(c.pem()) || strings.ContainsAny(v, " \n+/=") {
		t.Errorf("header = %s, %v", v, err)
	}
	h = compiled(t, s, v1alpha1.MTLSAuth{CertificateHeader: "client-Cert"})
	o = h.Authenticate(request(start, c))
	if want := ":" + base64.StdEncoding.EncodeToString(c.cert.Raw) + ":"; string(o.Header[0].Value) != want {
		t.Errorf("Client-Cert = %s, want %s", o.Header[0].Value, want)
	}
}

func TestCompile(t *testing.T) {
	_, err := Compile("m", &v1alpha1.MTLSAuth{CertificateHeader: "Cookie", CACertificateRefs: []v1alpha1.LocalObjectRef{{Kind: "Pod", Name: "a"}, {}},
		SubjectAltNames: []v1alpha1.SubjectAltName{{}, {DNS: "a", URI: "urn:b"}, {DNS: "*.example"}, {URI: "shop"}, {URI: "spiffe://shop*"}, {URI: "spiffe://*"}, {URI: "urn:*"}}}, policy.Env{})
	var paths []string
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		var p *diag.Problem
		if errors.As(e, &p) {
			paths = append(paths, p.Path)
		}
	}
	want := []string{"caCertificateRefs[0].kind", "caCertificateRefs[1].name", "subjectAltNames[0]", "subjectAltNames[1]", "subjectAltNames[2]",
		"subjectAltNames[3]", "subjectAltNames[4]", "subjectAltNames[5]", "certificateHeader"}
	if d := cmp.Diff(want, paths); d != "" {
		t.Errorf("faults (-want +got):\n%s", d)
	}
	if _, err := Compile("m", &v1alpha1.MTLSAuth{}, policy.Env{}); err == nil {
		t.Error("without authorities: no fault")
	}
	spec := &v1alpha1.MTLSAuth{CACertificateRefs: []v1alpha1.LocalObjectRef{{Name: "a"}, {Kind: "Secret", Name: "b"}}}
	h, err := Compile("m", spec, policy.Env{})
	if err != nil {
		t.Fatal(err)
	}
	if o := h.Authenticate(request(start, issue(t, nil, nil))); o.State != method.Unavailable {
		t.Errorf("with nothing of the world: %+v", o)
	}
	refs := []policy.Ref{{Path: "caCertificateRefs[0]", Kind: "ConfigMap", Name: "a"}, {Path: "caCertificateRefs[1]", Kind: "Secret", Name: "b"}}
	if d := cmp.Diff(refs, Refs(spec)); d != "" {
		t.Error(d)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	a := read(nil)
	c := &exchange.ClientCertificate{}
	for i := range 3 * maxKept {
		c.Sum[0], c.Sum[1], c.Sum[2] = byte(i), byte(i>>8), byte(i>>16)
		a.remember(c, &verdict{until: 2})
		if n := len(a.young) + len(a.old); n > maxKept || a.remembered(c, 1) == nil {
			t.Fatalf("%d are kept, want at most %d with the last", n, maxKept)
		}
	}
}

func TestRememberedAllocatesNothing(t *testing.T) {
	root := authority(t, nil, "root")
	s := store{}
	s.put(one, root.pem())
	h := compiled(t, s, v1alpha1.MTLSAuth{CertificateHeader: "X-Client-Certificate"})
	x := request(start, issue(t, root, nil))
	h.Authenticate(x)
	if n := testing.AllocsPerRun(100, func() { h.Authenticate(x) }); n > 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func FuzzNames(f *testing.F) {
	f.Add("spiffe://cluster.example/ns/shop/*", "spiffe://cluster.example/ns/shop/x")
	f.Add("spiffe://cluster.example*", "spiffe://cluster.example.evil/")
	f.Fuzz(func(t *testing.T, text, name string) {
		p, problem, _ := newPattern(&v1alpha1.SubjectAltName{URI: text})
		u, err := url.Parse(name)
		if problem != "" || err != nil {
			return
		}
		if p.matches(&x509.Certificate{URIs: []*url.URL{u}}) && isSPIFFE(u) && validSPIFFE(u) {
			host, _, _ := strings.Cut(strings.TrimPrefix(p.text, "spiffe://"), "/")
			if strings.HasPrefix(p.text, "spiffe://") && !strings.EqualFold(host, u.Host) {
				t.Fatalf("%q matches %q of another trust domain", text, name)
			}
		}
	})
}

func BenchmarkAuthenticate(b *testing.B) {
	root := authority(b, nil, "root")
	s := store{}
	s.put(one, root.pem())
	for _, kept := range []bool{true, false} {
		b.Run(map[bool]string{true: "remembered", false: "verified"}[kept], func(b *testing.B) {
			h := compiled(b, s, v1alpha1.MTLSAuth{SubjectAltNames: []v1alpha1.SubjectAltName{{DNS: "a.example"}}})
			x := request(start, issue(b, root, func(c *x509.Certificate) { c.DNSNames = []string{"a.example"} }))
			x.Dry = !kept
			b.ReportAllocs()
			for b.Loop() {
				if o := h.Authenticate(x); o.State != method.Accepted {
					b.Fatal(o)
				}
			}
		})
	}
}
