package cors

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// pattern is one entry of allowOrigins.
type pattern struct {
	any    bool   // "*"
	scheme string // "http", "https"
	host   string // lower case; "" for any host; ".example" for any below it, else exact
	port   uint16
}

// parsePattern reads "*" or scheme://host[:port], whose host may be "*" or begin with "*.".
func parsePattern(s string) (pattern, error) {
	if s == "*" {
		return pattern{any: true}, nil
	}
	bad := fmt.Errorf("%q is not an origin", s)
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		return pattern{}, bad
	}
	p := pattern{scheme: strings.ToLower(scheme), port: wellKnown([]byte(scheme))}
	if p.port == 0 {
		return pattern{}, bad
	}
	host, port, hasPort := strings.Cut(rest, ":")
	if hasPort {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return pattern{}, bad
		}
		p.port = uint16(n)
	}
	if host == "*" {
		return p, nil
	}
	p.host = strings.ToLower(host)
	name, wild := strings.CutPrefix(p.host, "*.")
	if _, _, ok := exchange.ParseAuthority(nil, []byte(name)); !ok {
		return pattern{}, bad
	}
	if wild {
		p.host = "." + name
	}
	return p, nil
}

// wellKnown is the port that an origin of the scheme has if it names none, 0 for a scheme that has no CORS.
func wellKnown(scheme []byte) uint16 {
	switch {
	case exchange.EqualFold(scheme, "https"):
		return 443
	case exchange.EqualFold(scheme, "http"):
		return 80
	}
	return 0
}

// matches holds an Origin against the pattern. "null" is an origin for "*" alone.
func (p *pattern) matches(origin []byte) bool {
	if p.any {
		return true
	}
	scheme, rest, ok := bytes.Cut(origin, []byte("://"))
	if !ok || !exchange.EqualFold(scheme, p.scheme) {
		return false
	}
	port := wellKnown(scheme)
	host := rest
	if i := bytes.LastIndexByte(rest, ':'); i >= 0 && bytes.IndexByte(rest[i:], ']') < 0 {
		if host, port = rest[:i], portOf(rest[i+1:]); port == 0 {
			return false
		}
	}
	if port != p.port || len(host) == 0 {
		return false
	}
	switch {
	case p.host == "":
		return true
	case p.host[0] == '.':
		return len(host) > len(p.host) && exchange.EqualFold(host[len(host)-len(p.host):], p.host)
	}
	return exchange.EqualFold(host, p.host)
}

// portOf is the port in decimal, 0 if it is none.
func portOf(b []byte) uint16 {
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' || n > 65535 {
			return 0
		}
		n = 10*n + int(c-'0')
	}
	if n > 65535 {
		return 0
	}
	return uint16(n)
}
