package mtls

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

const (
	keyCA      = "ca.crt"
	maxKept    = 4096
	refusedFor = 60 // seconds that a refusal is remembered
)

// verifier is a compiled method.
type verifier struct {
	method     string
	sources    []method.Material
	patterns   []pattern
	header     []byte // nil: backends are not told
	structured bool   // the header is Client-Cert (RFC 9440)
	trusted    atomic.Pointer[authorities]
}

// authorities are the roots of one state of the material, and what was found with them. They are replaced, with all verdicts, when any
// of the material is another.
type authorities struct {
	of      []*secret.Material
	roots   *x509.CertPool // nil: none
	partial bool           // some of what is named is not there, or holds no certificate

	mu         sync.RWMutex
	young, old map[[sha256.Size]byte]*verdict // when young is half of what may be kept it becomes old, and old is forgotten
}

// verdict holds from one time until before another, both in Unix seconds.
type verdict struct {
	method.Outcome
	from, until int64
}

// current are the authorities as they are now, nil if there are none.
func (v *verifier) current() *authorities {
	a := v.trusted.Load()
	if a == nil || !a.still(v.sources) {
		a = read(v.sources)
		v.trusted.Store(a)
	}
	if a.roots == nil {
		return nil
	}
	return a
}

// still reports whether the material is what the authorities were read from.
func (a *authorities) still(sources []method.Material) bool {
	for i := range sources {
		if sources[i].Now() != a.of[i] {
			return false
		}
	}
	return true
}

func read(sources []method.Material) *authorities {
	a := &authorities{young: map[[sha256.Size]byte]*verdict{}}
	pool := x509.NewCertPool() // never nil: to x509 that is every authority of the system
	for i := range sources {
		m := sources[i].Now()
		a.of = append(a.of, m)
		if m == nil || !pool.AppendCertsFromPEM(m.Data[keyCA].Reveal()) {
			a.partial = true
			continue
		}
		a.roots = pool
	}
	return a
}

func (a *authorities) remembered(c *exchange.ClientCertificate, now int64) *method.Outcome {
	a.mu.RLock()
	defer a.mu.RUnlock()
	v := a.young[c.Sum]
	if v == nil {
		v = a.old[c.Sum]
	}
	if v == nil || now < v.from || now >= v.until {
		return nil
	}
	return &v.Outcome
}

func (a *authorities) remember(c *exchange.ClientCertificate, v *verdict) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.young) >= maxKept/2 {
		a.old, a.young = a.young, map[[sha256.Size]byte]*verdict{}
	}
	a.young[c.Sum] = v
}

// judge verifies a chain at a time; until is when what it says ends, in Unix seconds.
func (v *verifier) judge(a *authorities, c *exchange.ClientCertificate, at time.Time) (o method.Outcome, until int64) {
	leaf := c.Chain[0]
	between := x509.NewCertPool()
	for _, k := range c.Chain[1:] {
		between.AddCert(k)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{Roots: a.roots, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	until = at.Unix() + refusedFor
	if err != nil {
		reason, detail := explain(err)
		if reason == "certificate_untrusted" && a.partial {
			return method.Outcome{State: method.Unavailable, Reason: "authorities_unavailable", Detail: "some of what caCertificateRefs name holds no certificate in ca.crt, and the others do not sign this one"}, until
		}
		return method.Refuse(reason, detail), until
	}
	id, ok := v.identity(c)
	if !ok {
		return method.Refuse("certificate_name_malformed", "a SPIFFE ID that is none, or beside another URI"), until
	}
	if len(v.patterns) > 0 && !slices.ContainsFunc(v.patterns, func(p pattern) bool { return p.matches(leaf) }) {
		return method.Refuse("certificate_name_not_allowed", "none of subjectAltNames is in it"), until
	}
	o = method.Outcome{State: method.Accepted, Identity: id}
	if v.header != nil {
		o.Header = []exchange.Field{{Name: v.header, Value: v.told(leaf)}}
	}
	return o, end(chains)
}

// end is when the last of the chains is not valid any more, in Unix seconds: each ends with the first of its certificates.
func end(chains [][]*x509.Certificate) int64 {
	var last int64
	for _, chain := range chains {
		first := chain[0].NotAfter
		for _, k := range chain {
			if k.NotAfter.Before(first) {
				first = k.NotAfter
			}
		}
		last = max(last, first.Unix()+1) // NotAfter itself still counts
	}
	return last
}

// explain puts an error of x509 into a reason. Its text may hold what a client wrote, which stays out of the log.
func explain(err error) (reason, detail string) {
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "certificate_expired", "it, or what it leads through, is expired or not yet valid"
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return "certificate_purpose", "it is not for client authentication"
	case errors.As(err, &unknown):
		return "certificate_untrusted", "it leads to no authority of caCertificateRefs"
	}
	return "certificate_invalid", "its chain does not hold"
}

// identity is who a certificate says the caller is; false: its SPIFFE ID is none.
func (v *verifier) identity(c *exchange.ClientCertificate) (id exchange.Identity, ok bool) {
	leaf := c.Chain[0]
	id = exchange.Identity{Issuer: printable(leaf.Issuer.String()), CredentialID: hex.EncodeToString(c.Leaf[:]), Method: v.method}
	for _, u := range leaf.URIs {
		if isSPIFFE(u) && (len(leaf.URIs) != 1 || !validSPIFFE(u)) {
			return id, false
		}
	}
	switch {
	case len(leaf.URIs) > 0:
		id.Subject = printable(foldURI(leaf.URIs[0].String()))
	case len(leaf.DNSNames) > 0:
		id.Subject = printable(leaf.DNSNames[0])
	case len(leaf.EmailAddresses) > 0:
		id.Subject = printable(leaf.EmailAddresses[0])
	default:
		id.Subject = printable(leaf.Subject.CommonName)
	}
	return id, true
}

// maxName is the longest name in bytes that becomes part of an identity.
const maxName = 2048

// printable is s, "" if it is too long or holds what could break a line of a log or a field.
func printable(s string) string {
	if len(s) > maxName {
		return ""
	}
	for _, r := range s {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0xfffd || r == 0x2028 || r == 0x2029 {
			return ""
		}
	}
	return s
}

// told is the certificate as backends get it: base64 between colons (RFC 9440 section 2.1), or PEM, percent-encoded as other proxies do.
func (v *verifier) told(leaf *x509.Certificate) []byte {
	if v.structured {
		out := append(make([]byte, 0, len(leaf.Raw)*4/3+8), ':')
		out = base64.StdEncoding.AppendEncode(out, leaf.Raw)
		return append(out, ':')
	}
	const upper = "0123456789ABCDEF"
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})
	out := make([]byte, 0, len(text)*5/4)
	for _, c := range text {
		if c-'0' < 10 || c|0x20-'a' < 26 || c == '-' || c == '.' || c == '_' || c == '~' {
			out = append(out, c)
		} else {
			out = append(out, '%', upper[c>>4], upper[c&15])
		}
	}
	return out
}
