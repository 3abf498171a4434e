package http1

import (
	"bytes"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// requestLine parses the request line at p.pos (RFC 9112 section 3), after at most maxEmptyLines empty ones.
func (p *Parser) requestLine(buf []byte) code {
	for p.pos+1 < len(buf) && buf[p.pos] == '\r' && buf[p.pos+1] == '\n' {
		if p.empty++; p.empty > maxEmptyLines {
			return codeRequestLine
		}
		p.pos += 2
	}
	i := p.pos
	for i < len(buf) && exchange.IsTokenByte(buf[i]) {
		i++
	}
	methodEnd := i
	if i == p.pos || i == len(buf) || buf[i] != ' ' {
		return p.stuck(buf, codeRequestLine)
	}
	i++
	target := i
	for i < len(buf) && targetByte[buf[i]] {
		i++
	}
	targetEnd := i
	if i == target || i == len(buf) || buf[i] != ' ' {
		if i < len(buf) && (buf[i] == '#' || buf[i] >= 0x80) {
			return p.stuck(buf, codeTarget)
		}
		return p.stuck(buf, codeRequestLine)
	}
	i++
	version, c := parseVersion(buf[i:])
	if c == 0 && (i+10 > len(buf) || buf[i+8] != '\r' || buf[i+9] != '\n') {
		c = codeRequestLine
	}
	if c != 0 {
		return p.stuck(buf, c)
	}
	if i+8-p.pos > p.Limits.line() {
		return codeLine
	}
	p.start = startLine{
		version: version, method: uint32(p.pos), methodEnd: uint32(methodEnd),
		target: uint32(target), targetEnd: uint32(targetEnd),
	}
	p.pos = i + 10
	p.first = p.pos
	return 0
}

// parseVersion reads the eight bytes of a version (RFC 9112 section 2.3).
func parseVersion(b []byte) (exchange.Version, code) {
	if len(b) < 8 {
		return 0, codeRequestLine
	}
	switch string(b[:8]) {
	case "HTTP/1.1":
		return exchange.HTTP11, 0
	case "HTTP/1.0":
		return exchange.HTTP10, 0
	}
	digit := func(c byte) bool { return '0' <= c && c <= '9' }
	if string(b[:5]) == "HTTP/" && digit(b[5]) && b[6] == '.' && digit(b[7]) {
		return 0, codeVersion
	}
	return 0, codeRequestLine
}

// request fills r from a complete head.
func (p *Parser) request(buf []byte, r *exchange.Request) (h Head, c code) {
	p.room = p.room[:0]
	l := &p.start
	r.Version = l.version
	r.Method = buf[l.method:l.methodEnd:l.methodEnd]
	o, c := p.connection(buf)
	if c != 0 {
		return h, c
	}
	p.header(buf, o, &r.Header)
	r.Trailer.Reset()
	h.Framing, r.ContentLength, c = p.bodyFraming(buf, l.version == exchange.HTTP10)
	if c != 0 {
		return h, c
	}
	if h.Framing == None {
		r.ContentLength = 0
	}
	if c := p.target(buf, r); c != 0 {
		return h, c
	}
	if l.version == exchange.HTTP10 {
		h.Close = o.close || !o.keepAlive
	} else {
		h.Close = o.close
	}
	return h, p.negotiate(buf, o, r)
}

// negotiate reads what the client would like of the connection: Expect, TE and Upgrade.
func (p *Parser) negotiate(buf []byte, o options, r *exchange.Request) code {
	r.Continue, r.Upgrade = false, nil
	for i := range p.special {
		s := &p.special[i]
		switch s.kind {
		case kindExpect:
			if !exchange.EqualFold(s.of(buf), "100-continue") {
				return codeExpect
			}
			// A client of HTTP/1.0 does not mean it (RFC 9110 section 10.1.1).
			r.Continue = r.ContentLength != 0 && r.Version == exchange.HTTP11
		case kindTE:
			if v := element(s.of(buf), "trailers"); o.te && v != nil && !r.Header.Has("TE") {
				r.Header.Append(buf[s.name:s.nameEnd:s.nameEnd], v)
			}
		case kindUpgrade:
			if r.Upgrade == nil && o.upgrade && r.Version == exchange.HTTP11 {
				r.Upgrade = p.allowed(s.of(buf))
			}
		}
	}
	if r.Upgrade != nil && r.ContentLength != 0 {
		return codeUpgradeBody
	}
	return 0
}

// element is the spelling in list of the element that equals want without case, or nil.
func element(list []byte, want string) []byte {
	for len(list) > 0 {
		var e []byte
		if e, list = nextElement(list); exchange.EqualFold(e, want) {
			return e[:len(e):len(e)]
		}
	}
	return nil
}

// allowed is the first protocol in list that is let through, or nil.
func (p *Parser) allowed(list []byte) []byte {
	if e := element(list, "websocket"); e != nil {
		return e
	}
	for _, u := range p.Upgrades {
		if e := element(list, u); e != nil {
			return e
		}
	}
	return nil
}

// target reads the request target together with Host (RFC 9112 section 3.2).
func (p *Parser) target(buf []byte, r *exchange.Request) code {
	l := &p.start
	target := buf[l.target:l.targetEnd:l.targetEnd]
	r.Target, r.Query, r.HasQuery, r.PathFlags = target, nil, false, 0
	if string(r.Method) == "CONNECT" {
		return codeConnect
	}
	if target[0] == '/' {
		if c := p.host(buf, r); c != 0 {
			return c
		}
		return p.path(target, r)
	}
	if len(target) == 1 && target[0] == '*' {
		if string(r.Method) != "OPTIONS" {
			return codeTarget
		}
		r.Path, r.RawPath = target, target
		return p.host(buf, r)
	}
	return p.absolute(buf, target, r)
}

// host reads Host into r.Authority and r.Host.
func (p *Parser) host(buf []byte, r *exchange.Request) (c code) {
	r.Authority, r.RawAuthority, r.Host = nil, nil, nil
	for i := range p.special {
		if p.special[i].kind != kindHost {
			continue
		}
		if r.Authority != nil {
			return codeHosts
		}
		r.Authority = p.special[i].of(buf)
	}
	if r.Authority == nil {
		if r.Version == exchange.HTTP10 {
			return 0
		}
		return codeNoHost
	}
	a, room, ok := exchange.ParseAuthority(p.room, r.Authority)
	if p.room = room; !ok {
		return codeHost
	}
	r.Host, r.Authority, r.RawAuthority = a.Host, a.Text, r.Authority
	return 0
}

// path reads path and query from the end of a target.
func (p *Parser) path(b []byte, r *exchange.Request) code {
	if i := bytes.IndexByte(b, '?'); i >= 0 {
		b, r.Query, r.HasQuery = b[:i:i], b[i+1:], true
		if bytes.IndexByte(r.Query, '%') >= 0 && !exchange.IsQuery(r.Query) {
			return codeTarget
		}
	}
	path, room, ok := exchange.CanonicalPath(p.room, b)
	// A NUL cuts the path off in some backends and means nothing in any: it is refused for every host.
	if p.room = room; !ok || path.Flags&exchange.EscapedNUL != 0 {
		return codePath
	}
	r.Path, r.RawPath, r.PathFlags = path.Canonical, path.Raw, path.Flags
	return 0
}

// absolute reads a target in absolute form. Its authority and Host have to name the same host and port, because some servers
// route by one and some by the other.
func (p *Parser) absolute(buf, target []byte, r *exchange.Request) code {
	i := bytes.IndexByte(target, ':')
	port := "80"
	switch {
	case i == 4 && exchange.EqualFold(target[:4], "http"):
	case i == 5 && exchange.EqualFold(target[:5], "https"):
		port = "443"
	default:
		return codeTarget
	}
	rest := target[i+1:]
	if !bytes.HasPrefix(rest, []byte("//")) {
		return codeTarget
	}
	rest = rest[2:]
	end := bytes.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	authority, rest := rest[:end:end], rest[end:]
	a, room, ok := exchange.ParseAuthority(p.room, authority)
	if p.room = room; !ok {
		return codeHost
	}
	if c := p.host(buf, r); c != 0 {
		return c
	}
	if r.Authority != nil {
		var theirs []byte
		if len(r.Authority) > len(r.Host) {
			theirs = r.Authority[len(r.Host)+1:]
		}
		if !bytes.Equal(r.Host, a.Host) || !samePort(theirs, a.Port, port) {
			return codeHostMismatch
		}
	}
	r.Authority, r.RawAuthority, r.Host = a.Text, authority, a.Host
	if len(rest) > 0 && rest[0] == '/' {
		return p.path(rest, r)
	}
	start, root := len(p.room), byte('/')
	if len(rest) == 0 && string(r.Method) == "OPTIONS" { // RFC 9112 section 3.2.4
		root = '*'
	}
	p.room = append(append(p.room, root), rest...)
	rest = p.room[start:len(p.room):len(p.room)]
	if root == '*' {
		r.Path, r.RawPath = rest, rest
		return 0
	}
	return p.path(rest, r)
}

// samePort compares ports of which one that is not there means the scheme's.
func samePort(a, b []byte, scheme string) bool {
	if a == nil {
		return b == nil || string(b) == scheme
	}
	if b == nil {
		return string(a) == scheme
	}
	return bytes.Equal(a, b)
}

// targetByte holds the bytes of a request target: visible ASCII without "#".
var targetByte = func() (t [256]bool) {
	for c := '!'; c <= '~'; c++ {
		t[c] = c != '#'
	}
	return t
}()
