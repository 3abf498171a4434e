package mtls

import (
	"crypto/x509"
	"net/url"
	"strings"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
)

// pattern is one name that a certificate may have.
type pattern struct {
	kind   byte // 'd' DNS, 'u' URI, 'e' email
	text   string
	prefix bool
}

// newPattern reads a name; problem says what is wrong with it, hint what to write.
func newPattern(n *v1alpha1.SubjectAltName) (p pattern, problem, hint string) {
	set := 0
	for _, c := range []struct {
		kind byte
		text string
	}{{'d', n.DNS}, {'u', n.URI}, {'e', n.Email}} {
		if c.text != "" {
			set++
			p.kind, p.text = c.kind, c.text
		}
	}
	if set != 1 {
		return p, "names not exactly one thing", "write one of dns, uri and email"
	}
	p.text, p.prefix = strings.CutSuffix(p.text, "*")
	if strings.Contains(p.text, "*") {
		return p, "has a * that is not at its end", "write spiffe://cluster.example/ns/shop/*"
	}
	switch p.kind {
	case 'u':
		scheme, rest, ok := strings.Cut(p.text, ":")
		if !ok || scheme == "" {
			return p, "is not a URI: it has no scheme", "write spiffe://cluster.example/ns/shop/*"
		}
		// With a * in the place of a host's end, spiffe://cluster.example* would be true of spiffe://cluster.example.evil.example.
		if host, is := strings.CutPrefix(rest, "//"); is && p.prefix && !strings.Contains(host, "/") {
			return p, "has a * in the place of its host", "end the host with a slash: spiffe://cluster.example/*"
		}
		p.text = foldURI(p.text)
	case 'd':
		p.text = strings.ToLower(p.text)
	case 'e':
		p.text = foldEmail(p.text)
	}
	return p, "", ""
}

// matches reports whether one of a certificate's names is the pattern's. The subject's common name is none of them.
func (p *pattern) matches(c *x509.Certificate) bool {
	switch p.kind {
	case 'd':
		for _, n := range c.DNSNames {
			if p.is(strings.ToLower(n)) {
				return true
			}
		}
	case 'u':
		for _, u := range c.URIs {
			if p.is(foldURI(u.String())) {
				return true
			}
		}
	case 'e':
		for _, n := range c.EmailAddresses {
			if p.is(foldEmail(n)) {
				return true
			}
		}
	}
	return false
}

// is compares a name. What climbs out of a prefix by dot segments does not lie below it.
func (p *pattern) is(name string) bool {
	if !p.prefix {
		return name == p.text
	}
	return strings.HasPrefix(name, p.text) && !(p.kind == 'u' && climbs(name))
}

func climbs(uri string) bool {
	uri = strings.ReplaceAll(strings.ToLower(uri), "%2e", ".")
	for _, s := range strings.FieldsFunc(uri, func(r rune) bool { return r == '/' || r == '\\' || r == '?' || r == '#' }) {
		if s == "." || s == ".." {
			return true
		}
	}
	return strings.Contains(uri, "%2f")
}

// foldURI puts scheme and host into lower case (RFC 3986 section 6.2.2.1), and leaves the path as it is.
func foldURI(s string) string {
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok {
		return s
	}
	host, is := strings.CutPrefix(rest, "//")
	if !is {
		return strings.ToLower(scheme) + ":" + rest
	}
	end := strings.IndexAny(host, "/?#")
	if end < 0 {
		end = len(host)
	}
	return strings.ToLower(scheme) + "://" + strings.ToLower(host[:end]) + host[end:]
}

// foldEmail puts the part behind the @ into lower case; the one before it is its domain's affair (RFC 5321 section 2.4).
func foldEmail(s string) string {
	i := strings.LastIndexByte(s, '@')
	if i < 0 {
		return s
	}
	return s[:i] + strings.ToLower(s[i:])
}

func isSPIFFE(u *url.URL) bool { return strings.EqualFold(u.Scheme, "spiffe") }

// validSPIFFE checks the form of a SPIFFE ID: a trust domain, and a path of letters, digits and .-_ without empty or dot segments
// (SPIFFE-ID, sections 2.1 and 2.2).
func validSPIFFE(u *url.URL) bool {
	if u.Host == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.RawPath != "" || u.Opaque != "" {
		return false
	}
	for _, c := range []byte(u.Host) {
		if !(c-'0' < 10 || c|0x20-'a' < 26 || c == '.' || c == '-' || c == '_') {
			return false
		}
	}
	if u.Path == "" {
		return true
	}
	for _, segment := range strings.Split(u.Path[1:], "/") {
		if segment == "" || segment == "." || segment == ".." {
			return false
		}
		for _, c := range []byte(segment) {
			if !(c-'0' < 10 || c|0x20-'a' < 26 || c == '.' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}
