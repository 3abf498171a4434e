package http1

import (
	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// statusLine parses the status line at p.pos (RFC 9112 section 4). The reason is checked and forgotten. A line without the space
// before an empty reason passes: many backends write it so. So does a status above 599, which RFC 9110 section 15 has clients treat as
// 5xx.
func (p *Parser) statusLine(buf []byte) code {
	line := buf[p.pos:]
	if len(line) > 0 && line[0] != 'H' {
		return codeStatusLine
	}
	version, c := parseVersion(line)
	if c == 0 && (len(line) < 13 || line[8] != ' ') {
		c = codeStatusLine
	}
	if c != 0 {
		if c == codeRequestLine {
			c = codeStatusLine
		}
		return p.stuck(buf, c)
	}
	status := 0
	for _, d := range line[9:12] {
		if d < '0' || d > '9' {
			return p.stuck(buf, codeStatusLine)
		}
		status = status*10 + int(d-'0')
	}
	end := exchange.FieldValueEnd(line, 12)
	if status < 100 || line[12] != ' ' && end != 12 ||
		end+1 >= len(line) || line[end] != '\r' || line[end+1] != '\n' {
		return p.stuck(buf, codeStatusLine)
	}
	if end > p.Limits.line() {
		return codeLine
	}
	p.start = startLine{version: version, status: status}
	p.pos += end + 2
	p.first = p.pos
	return 0
}

// response fills r from a complete head.
func (p *Parser) response(buf, method []byte, r *exchange.Response) (h Head, c code) {
	l := &p.start
	r.Version, r.Status = l.version, l.status
	o, c := p.connection(buf)
	if c != 0 {
		return h, c
	}
	p.header(buf, o, &r.Header)
	r.Trailer.Reset()
	http10 := l.version == exchange.HTTP10
	h.Framing, r.ContentLength, c = p.bodyFraming(buf, http10)
	if c != 0 {
		return h, c
	}
	h.Close = o.close || http10 && !o.keepAlive
	switch {
	case l.status < 200:
		if h.Framing == Chunked || r.ContentLength > 0 {
			return h, codeInterimBody
		}
		h.Framing, r.ContentLength = None, 0
	case l.status == 204:
		// It has no body (RFC 9110 section 15.3.5). From a backend that announces one, who knows what follows.
		h.Close = h.Close || h.Framing == Chunked || r.ContentLength > 0
		h.Framing, r.ContentLength = None, 0
	case l.status == 304 || string(method) == "HEAD":
		h.Framing = None
	case h.Framing == None:
		h.Framing, h.Close = UntilClose, true
	}
	return h, p.peer(buf, o, r, &h)
}

// peer reads what the backend says of its connection: Keep-Alive and Upgrade.
func (p *Parser) peer(buf []byte, o options, r *exchange.Response, h *Head) code {
	switched := false
	for i := range p.special {
		s := &p.special[i]
		switch s.kind {
		case kindKeepAlive:
			h.KeepAlive = keepAlive(s.of(buf))
		case kindUpgrade:
			if r.Status == 101 && o.upgrade && !switched && len(s.of(buf)) > 0 {
				r.Header.Append(buf[s.name:s.nameEnd:s.nameEnd], s.of(buf))
				switched = true
			}
		}
	}
	if r.Status == 101 && !switched {
		return codeSwitch
	}
	return 0
}

// keepAlive is the timeout parameter of a Keep-Alive field in seconds, 0 if there is none.
func keepAlive(b []byte) int {
	const name = "timeout="
	for len(b) > 0 {
		var e []byte
		if e, b = nextElement(b); len(e) > len(name) && exchange.EqualFold(e[:len(name)], name) {
			if n, ok := parseLength(e[len(name):]); ok {
				return int(min(n, 1<<30))
			}
		}
	}
	return 0
}
