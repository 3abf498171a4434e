package method

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
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

// Find returns the credential at the first place that has one, nil if none has. It lies in the request's own buffers. twice reports that
// the place holds several: then nobody can say which one a backend would read, and it is to be refused.
func (s *Source) Find(x *exchange.Exchange) (credential []byte, twice bool) {
	for i := range s.places {
		p := &s.places[i]
		switch {
		case p.header != "":
			credential, twice = p.inHeader(&x.Request.Header)
		case len(p.query) > 0:
			credential, twice = inQuery(x.Request.Query, p.query)
		default:
			credential, twice = inCookie(&x.Request.Header, p.cookie)
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

// inQuery finds a parameter whose name and value need no decoding: no credential of ours does.
func inQuery(query, name []byte) (found []byte, twice bool) {
	for len(query) > 0 {
		var pair []byte
		pair, query, _ = bytes.Cut(query, ampersand)
		k, v, _ := bytes.Cut(pair, equals)
		if !bytes.Equal(k, name) || len(v) == 0 {
			continue
		}
		if found != nil {
			return nil, true
		}
		found = v
	}
	return found, false
}

func inCookie(h *exchange.Header, name []byte) (found []byte, twice bool) {
	for _, f := range h.All() {
		if !exchange.EqualFold(f.Name, "cookie") {
			continue
		}
		for rest := f.Value; len(rest) > 0; {
			var pair []byte
			pair, rest, _ = bytes.Cut(rest, semicolon)
			k, v, _ := bytes.Cut(bytes.TrimLeft(pair, " "), equals)
			if !bytes.Equal(k, name) || len(v) == 0 {
				continue
			}
			if found != nil {
				return nil, true
			}
			found = v
		}
	}
	return found, false
}

var (
	ampersand  = []byte("&")
	equals     = []byte("=")
	semicolon  = []byte(";")
	nameCookie = []byte("Cookie")
)

// Strip takes the credential out of every place where it may stand, so that a backend sees none.
func (s *Source) Strip(x *exchange.Exchange) {
	for i := range s.places {
		p := &s.places[i]
		switch {
		case p.header != "":
			p.outOf(&x.Request.Header)
		case len(p.query) > 0:
			x.Request.Query = without(x, x.Request.Query, p.query, '&')
			x.Request.HasQuery = x.Request.HasQuery && len(x.Request.Query) > 0
		default:
			stripCookie(x, p.cookie)
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

// stripCookie takes one cookie out of the Cookie fields, which become one.
func stripCookie(x *exchange.Exchange, name []byte) {
	h := &x.Request.Header
	if v, _ := inCookie(h, name); v == nil {
		if _, twice := inCookie(h, name); !twice {
			return
		}
	}
	var all []byte
	for _, f := range h.All() {
		if exchange.EqualFold(f.Name, "cookie") {
			if len(all) > 0 {
				all = append(all, "; "...)
			}
			all = append(all, f.Value...)
		}
	}
	h.DelFunc(func(f exchange.Field) bool { return exchange.EqualFold(f.Name, "cookie") })
	if rest := without(x, all, name, ';'); len(rest) > 0 {
		h.Append(nameCookie, rest)
	}
}

// without is a list of pairs without those of a name, in the exchange's own room.
func without(x *exchange.Exchange, list, name []byte, separator byte) []byte {
	if !bytes.Contains(list, name) {
		return list
	}
	out := make([]byte, 0, len(list))
	for len(list) > 0 {
		var pair []byte
		pair, list, _ = bytes.Cut(list, []byte{separator})
		if k, _, _ := bytes.Cut(bytes.TrimLeft(pair, " "), equals); bytes.Equal(k, name) {
			continue
		}
		if len(out) > 0 {
			out = append(out, separator)
		} else if separator == ';' {
			pair = bytes.TrimLeft(pair, " ")
		}
		out = append(out, pair...)
	}
	kept, _ := x.Keep(out)
	return kept
}

// IdentityField refuses a header name that carries the request itself, and so cannot tell who calls.
func IdentityField(path, name string) error {
	n := strings.ReplaceAll(strings.ToLower(name), "_", "-")
	bad := !exchange.IsToken([]byte(name))
	for _, exact := range []string{"host", "authorization", "cookie", "connection", "transfer-encoding", "forwarded", "te", "upgrade",
		"trailer", "keep-alive", "proxy-authorization", "proxy-connection", "expect", "range", "date", "via", "x-request-id", "x-real-ip"} {
		bad = bad || n == exact
	}
	for _, prefix := range []string{"content-", "accept", "x-forwarded-", "sec-", "if-"} {
		bad = bad || strings.HasPrefix(n, prefix)
	}
	if bad {
		return &diag.Problem{Path: path, Msg: fmt.Sprintf("%q cannot tell who calls: requests have it for something else", name), Hint: "write X-User, or a name of your own"}
	}
	return nil
}
