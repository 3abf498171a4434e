package method

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// Source finds a credential in requests, and takes it out of them.
type Source struct{ places []place }

type place struct {
	header, scheme string
	query, cookie  []byte
}

// Bearer is where tokens stand by default (RFC 6750 section 2.1).
func Bearer() []v1alpha1.CredentialSource {
	return []v1alpha1.CredentialSource{{Header: "Authorization", Scheme: "Bearer"}}
}

// NewSource checks the places, which are those of the field from; none: otherwise.
func NewSource(from, otherwise []v1alpha1.CredentialSource) (*Source, error) {
	if len(from) == 0 {
		from = otherwise
	}
	var s Source
	var faults []error
	for i, c := range from {
		n := 0
		for _, set := range []bool{c.Header != "", c.Query != "", c.Cookie != ""} {
			if set {
				n++
			}
		}
		at := fmt.Sprintf("from[%d]", i)
		switch {
		case n != 1:
			faults = append(faults, &diag.Problem{Path: at, Msg: "names not exactly one place", Hint: "write one of header, query and cookie"})
		case c.Scheme != "" && c.Header == "":
			faults = append(faults, &diag.Problem{Path: at + ".scheme", Msg: "goes with header only"})
		case c.Header != "" && !exchange.IsToken([]byte(c.Header)):
			faults = append(faults, diag.Errorf(at+".header", "%q is not a header name", c.Header))
		case c.Cookie != "" && !exchange.IsToken([]byte(c.Cookie)):
			faults = append(faults, diag.Errorf(at+".cookie", "%q is not a cookie name", c.Cookie))
		}
		s.places = append(s.places, place{header: c.Header, scheme: c.Scheme, query: []byte(c.Query), cookie: []byte(c.Cookie)})
	}
	return &s, errors.Join(faults...)
}

// Query names the query parameters in which the credential may stand.
func (s *Source) Query() (names []string) {
	for _, p := range s.places {
		if len(p.query) > 0 {
			names = append(names, string(p.query))
		}
	}
	return names
}

// Find returns the credential at the first place that has one, nil if none has. It lies in the request's own buffers, or in the
// exchange's room. twice reports that the place holds several: then nobody can say which one a backend would read, and it is to be refused.
func (s *Source) Find(x *exchange.Exchange) (credential []byte, twice bool) {
	for i := range s.places {
		p := &s.places[i]
		switch {
		case p.header != "":
			credential, twice = p.inHeader(&x.Request.Header)
		case len(p.query) > 0:
			credential, twice = p.inPairs(nil, x.Request.Query, ampersand)
			credential = decoded(x, credential)
		default:
			credential, twice = p.inCookies(&x.Request.Header)
		}
		if credential != nil || twice {
			return credential, twice
		}
	}
	return nil, false
}

func (p *place) inHeader(h *exchange.Header) (found []byte, twice bool) {
	for _, f := range h.All() {
		if !exchange.EqualFold(f.Name, p.header) {
			continue
		}
		v, ok := p.cut(f.Value)
		if !ok {
			continue
		}
		if found != nil {
			return nil, true
		}
		found = v
	}
	return found, false
}

// cut takes the scheme off a field's value; false: it has another one, or nothing behind it.
func (p *place) cut(v []byte) ([]byte, bool) {
	if p.scheme == "" {
		return v, len(v) > 0
	}
	n := len(p.scheme)
	if len(v) <= n || v[n] != ' ' || !exchange.EqualFold(v[:n], p.scheme) {
		return nil, false
	}
	v = bytes.TrimLeft(v[n:], " ")
	return v, len(v) > 0
}

// inPairs finds the value of a parameter or a cookie in a list of pairs; found is what an earlier list had.
func (p *place) inPairs(found, list, separator []byte) (value []byte, twice bool) {
	for len(list) > 0 {
		var pair []byte
		pair, list, _ = bytes.Cut(list, separator)
		v, mine := p.of(pair)
		if !mine || len(v) == 0 {
			continue
		}
		if found != nil {
			return nil, true
		}
		found = v
	}
	return found, false
}

// of takes a pair apart, if it is the place's. It reads names as lenient servers do: what they would take for the credential must not
// get past.
func (p *place) of(pair []byte) (value []byte, mine bool) {
	name, value, _ := bytes.Cut(pair, equals)
	if len(p.query) > 0 {
		return value, bytes.Equal(name, p.query) || isEncoded(name, p.query)
	}
	return trimmed(value), bytes.Equal(trimmed(name), p.cookie)
}

func (p *place) inCookies(h *exchange.Header) (found []byte, twice bool) {
	for _, f := range h.All() {
		if !exchange.EqualFold(f.Name, "cookie") {
			continue
		}
		if found, twice = p.inPairs(found, f.Value, semicolon); twice {
			return nil, true
		}
	}
	return found, false
}

// trimmed is b without the white space around it.
func trimmed(b []byte) []byte { return bytes.Trim(b, " \t") }

// isEncoded reports whether raw is name in the spelling of a form: with %XX for any octet, and + for a space.
func isEncoded(raw, name []byte) bool {
	i := 0
	for _, want := range name {
		if i == len(raw) {
			return false
		}
		c, n := octet(raw[i:])
		if c == '+' && n == 1 {
			c = ' '
		}
		if c != want {
			return false
		}
		i += n
	}
	return i == len(raw)
}

// octet is the first octet of b, decoded, and how many bytes it takes.
func octet(b []byte) (c byte, n int) {
	if b[0] == '%' && len(b) > 2 {
		if hi, lo := digit(b[1]), digit(b[2]); hi < 16 && lo < 16 {
			return hi<<4 | lo, 3
		}
	}
	return b[0], 1
}

// digit is the value of a hexadecimal digit, 16 if it is none.
func digit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 16
}

// decoded is a value of a query without its percent-encoding. A + stays one: keys have it more often than spaces.
func decoded(x *exchange.Exchange, v []byte) []byte {
	if bytes.IndexByte(v, '%') < 0 {
		return v
	}
	v, _ = x.Keep(v)
	out := v[:0]
	for len(v) > 0 {
		c, n := octet(v)
		out, v = append(out, c), v[n:]
	}
	return out
}

var (
	ampersand = []byte("&")
	equals    = []byte("=")
	semicolon = []byte(";")
)

// Strip takes the credential out of every place where it may stand, so that a backend sees none.
func (s *Source) Strip(x *exchange.Exchange) {
	for i := range s.places {
		p := &s.places[i]
		switch {
		case p.header != "":
			p.outOf(&x.Request.Header)
		case len(p.query) > 0:
			if rest, had := p.without(x, x.Request.Query, ampersand); had {
				x.Request.Query, x.Request.HasQuery = rest, len(rest) > 0
			}
		default:
			p.outOfCookies(x)
		}
	}
}

// outOf takes the credential's fields out of a header. It is a loop of its own because a function for DelFunc would be allocated.
func (p *place) outOf(h *exchange.Header) {
	fields := h.All()
	n := 0
	for i := range fields {
		if exchange.EqualFold(fields[i].Name, p.header) {
			if _, ok := p.cut(fields[i].Value); ok {
				continue
			}
		}
		fields[n] = fields[i]
		n++
	}
	h.Truncate(n)
}

// outOfCookies takes the cookie out of all Cookie fields.
func (p *place) outOfCookies(x *exchange.Exchange) {
	h := &x.Request.Header
	fields := h.All()
	n := 0
	for i := range fields {
		f := fields[i]
		if exchange.EqualFold(f.Name, "cookie") {
			if rest, had := p.without(x, f.Value, semicolon); had {
				if f.Value = bytes.TrimLeft(rest, " \t"); len(f.Value) == 0 {
					continue
				}
			}
		}
		fields[n] = f
		n++
	}
	h.Truncate(n)
}

// without is a list of pairs without those of the place, in the exchange's own room; had reports whether there were any. The others stay as
// they are.
func (p *place) without(x *exchange.Exchange, list, separator []byte) (rest []byte, had bool) {
	for at := list; !had && len(at) > 0; {
		var pair []byte
		pair, at, _ = bytes.Cut(at, separator)
		_, had = p.of(pair)
	}
	if !had {
		return list, false
	}
	list, _ = x.Keep(list)
	rest = list[:0]
	for first, more := true, true; more; {
		var pair []byte
		pair, list, more = bytes.Cut(list, separator)
		if _, mine := p.of(pair); mine {
			continue
		}
		if !first {
			rest = append(rest, separator...)
		}
		rest, first = append(rest, pair...), false
	}
	return rest, true
}

// IdentityField refuses a header name that carries the request itself, and so cannot tell who calls.
func IdentityField(path, name string) error {
	n := strings.ReplaceAll(strings.ToLower(name), "_", "-")
	bad := !exchange.IsToken([]byte(name))
	if _, owned, _ := policy.OwnedField(name); owned {
		bad = true
	}
	for _, exact := range []string{"authorization", "cookie", "forwarded", "range", "date", "via", "x-request-id", "x-real-ip",
		"origin", "referer", "user-agent", "cache-control", "pragma", "max-forwards", "dpop"} {
		bad = bad || n == exact
	}
	for _, prefix := range []string{"content-", "accept", "x-forwarded-", "sec-", "if-", "access-control-"} {
		bad = bad || strings.HasPrefix(n, prefix)
	}
	if bad {
		return &diag.Problem{Path: path, Msg: fmt.Sprintf("%q cannot tell who calls: requests have it for something else", name), Hint: "write X-User, or a name of your own"}
	}
	return nil
}
