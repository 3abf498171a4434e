package http1

import (
	"bytes"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// kind is what a field means to the connection.
type kind uint8

const (
	kindPlain kind = iota // means nothing to it: forwarded
	kindDrop              // of this connection, and of no interest
	kindHost
	kindLength
	kindCoding
	kindConnection
	kindKeepAlive
	kindUpgrade
	kindTE
	kindExpect
)

// classify finds the fields that are not forwarded as they are. A twin, spelt with "_" for "-", is dropped: some servers
// hand both to an application under one name.
func classify(name []byte) kind {
	switch len(name) {
	case 2:
		return match(name, "te", kindTE)
	case 4:
		return match(name, "host", kindHost)
	case 5:
		return match(name, "proxy", kindDrop) // CGI-like servers make HTTP_PROXY of it (CVE-2016-5385)
	case 6:
		return match(name, "expect", kindExpect)
	case 7:
		return match(name, "upgrade", kindUpgrade)
	case 10:
		if name[0]|0x20 == 'k' {
			return match(name, "keep-alive", kindKeepAlive)
		}
		return match(name, "connection", kindConnection)
	case 14:
		if name[0]|0x20 == 'h' {
			return match(name, "http2-settings", kindDrop)
		}
		return match(name, "content-length", kindLength)
	case 16:
		return match(name, "proxy-connection", kindDrop)
	case 17:
		return match(name, "transfer-encoding", kindCoding)
	case 18:
		return match(name, "proxy-authenticate", kindDrop)
	case 19:
		return match(name, "proxy-authorization", kindDrop)
	case 25:
		return match(name, "proxy-authentication-info", kindDrop)
	}
	return kindPlain
}

// match is k if name, which is as long as want, is want in any case, kindDrop if it is its twin, else kindPlain.
func match(name []byte, want string, k kind) kind {
	for i := range len(want) {
		if c := exchange.Lower(name[i]); c != want[i] {
			if c != '_' || want[i] != '-' {
				return kindPlain
			}
			k = kindDrop
		}
	}
	return k
}

// options is what the Connection fields of a head say (RFC 9110 section 7.6.1).
type options struct {
	close, keepAlive, upgrade, te bool
	named                         bool // they name other fields, which are then dropped
}

// maxOptions bounds the work that Connection can make: each option is compared with each field.
const maxOptions = 64

// connection reads the Connection fields.
func (p *Parser) connection(buf []byte) (o options, c code) {
	n := 0
	for i := range p.special {
		if p.special[i].kind != kindConnection {
			continue
		}
		rest := p.special[i].of(buf)
		for len(rest) > 0 {
			var opt []byte
			if opt, rest = nextElement(rest); len(opt) == 0 {
				continue
			}
			if !exchange.IsToken(opt) {
				return o, codeConnection
			}
			if n++; n > maxOptions {
				return o, codeConnection
			}
			switch {
			case exchange.EqualFold(opt, "close"):
				o.close = true
			case exchange.EqualFold(opt, "keep-alive"):
				o.keepAlive = true
			case exchange.EqualFold(opt, "upgrade"):
				o.upgrade = true
			case exchange.EqualFold(opt, "te"):
				o.te = true
			default:
				o.named = true
			}
		}
	}
	return o, 0
}

// of is the field's value.
func (s *span) of(buf []byte) []byte { return buf[s.value:s.valueEnd:s.valueEnd] }

// header puts the fields that are forwarded into h.
func (p *Parser) header(buf []byte, o options, h *exchange.Header) {
	h.Reset()
	fields := h.Extend(len(p.fields))
	kept := 0
	for _, s := range p.fields {
		name := buf[s.name:s.nameEnd:s.nameEnd]
		if o.named && p.nominated(buf, name) {
			continue
		}
		fields[kept] = exchange.Field{Name: name, Value: buf[s.value:s.valueEnd:s.valueEnd]}
		kept++
	}
	h.Truncate(kept)
}

// nominated says whether a Connection field names name.
func (p *Parser) nominated(buf, name []byte) bool {
	for i := range p.special {
		if p.special[i].kind != kindConnection {
			continue
		}
		rest := p.special[i].of(buf)
		for len(rest) > 0 {
			var opt []byte
			if opt, rest = nextElement(rest); foldEqual(opt, name) {
				return true
			}
		}
	}
	return false
}

// foldEqual compares two names without case, "_" and "-" being the same.
func foldEqual(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		x, y := exchange.Lower(a[i]), exchange.Lower(b[i])
		if x != y && !(x == '_' && y == '-') && !(x == '-' && y == '_') {
			return false
		}
	}
	return true
}

// nextElement cuts the first element off a comma-separated list without quoted strings. The element may be empty.
func nextElement(list []byte) (element, rest []byte) {
	if i := bytes.IndexByte(list, ','); i >= 0 {
		element, rest = list[:i], list[i+1:]
	} else {
		element = list
	}
	return trim(element), rest
}

// trim cuts optional white space off both ends.
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// bodyFraming reads Content-Length and Transfer-Encoding, whose disagreement is how requests are smuggled. length is
// exchange.Unknown if neither is there. http10 refuses Transfer-Encoding, which that version does not know.
func (p *Parser) bodyFraming(buf []byte, http10 bool) (f Framing, length int64, c code) {
	length = exchange.Unknown
	lengths, codings, chunked := 0, 0, 0
	final := false // the last coding is chunked
	for i := range p.special {
		s := &p.special[i]
		switch s.kind {
		case kindLength:
			lengths++
			var ok bool
			if length, ok = parseLength(s.of(buf)); !ok {
				return None, 0, codeLength
			}
		case kindCoding:
			rest := s.of(buf)
			for more := true; more; {
				var coding []byte
				coding, rest = nextElement(rest)
				more = rest != nil
				if codings++; len(coding) == 0 {
					return None, 0, codeCoding
				}
				if final = exchange.EqualFold(coding, "chunked"); final {
					chunked++
				}
			}
		}
	}
	switch {
	case codings == 0 && lengths == 0:
		return None, exchange.Unknown, 0
	case codings == 0 && lengths == 1:
		return Length, length, 0
	case codings == 0:
		return None, 0, codeLengths
	case lengths > 0:
		return None, 0, codeBoth
	case http10:
		return None, 0, codeCodingVersion
	case chunked > 1 || !final:
		return None, 0, codeCoding
	case codings > 1:
		return None, 0, codeCodingUnknown
	}
	return Chunked, exchange.Unknown, 0
}

// parseLength reads a Content-Length: digits, at most 18, without leading zeros, so that nobody reads it as octal.
func parseLength(b []byte) (n int64, ok bool) {
	if len(b) == 0 || len(b) > 18 || b[0] == '0' && len(b) > 1 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}
