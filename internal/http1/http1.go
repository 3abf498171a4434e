// Package http1 is the HTTP/1.1 codec (RFC 9112): it reads heads and chunked bodies out of bytes that others have read, and
// appends heads to bytes that others write. It promises that what it accepts has one meaning: a message that two servers
// could read differently is refused, whatever is accepted is spelt anew from its parsed parts, and connection fields never
// leave the connection that they came on. It does no I/O, starts nothing, keeps no time, and allocates nothing once a
// connection's scratch space has grown to its heads.
package http1

import (
	"bytes"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// Limits bound a head; what is as large as its limit passes. A field that is zero has its default.
type Limits struct {
	RequestLine int // bytes of the request or status line without its CRLF: 16 KiB
	HeaderBytes int // bytes of all field lines with their CRLFs: 64 KiB
	HeaderCount int // field lines, those that are not forwarded included: 128
}

// The defaults of Limits.
const (
	DefaultRequestLine = 16 << 10
	DefaultHeaderBytes = 64 << 10
	DefaultHeaderCount = 128
)

func (l Limits) line() int {
	if l.RequestLine > 0 {
		return l.RequestLine
	}
	return DefaultRequestLine
}

func (l Limits) bytes() int {
	if l.HeaderBytes > 0 {
		return l.HeaderBytes
	}
	return DefaultHeaderBytes
}

func (l Limits) count() int {
	if l.HeaderCount > 0 {
		return l.HeaderCount
	}
	return DefaultHeaderCount
}

// Framing is how a body's end is found (RFC 9112 section 6.3).
type Framing uint8

// The framings.
const (
	None       Framing = iota // no body
	Length                    // as many bytes as ContentLength says, which may be 0
	Chunked                   // by Chunks
	UntilClose                // all until the connection ends: responses only
)

func (f Framing) String() string {
	return [...]string{"none", "length", "chunked", "until close"}[f]
}

// Head is what a head says about the connection that it came on.
type Head struct {
	Framing Framing
	Close   bool // the connection ends after this message
	// KeepAlive is the whole seconds for which the peer says that it keeps an idle connection (the timeout parameter of a
	// response's Keep-Alive field), 0 if it does not say.
	KeepAlive int
}

// maxEmptyLines is how many CRLFs before a request line are passed over. RFC 9112 section 2.2 asks for at least one; some
// clients send two. Anything else before a request line refuses the connection.
const maxEmptyLines = 2

// Parser parses the heads of one connection's direction, one after another. It owns the scratch space into which a head's
// slices may point. The zero value is ready.
type Parser struct {
	Limits Limits
	// Upgrades are the protocols that a client may change to beside "websocket", compared without case. Others are dropped
	// from the request, which goes on without them.
	Upgrades []string

	// A head that is not complete yet. Offsets count from the start of buf, so that buf may move and grow between calls.
	pos   int // start of the first line that is not parsed yet
	seen  int // no LF lies in buf[pos:seen]
	empty int // empty lines before the start line
	start startLine
	first int // start of the first field line, 0 while the start line is not parsed
	count int

	fields  []span    // that stay in the header
	special []special // that do not: what they mean is settled once all are there
	room    []byte    // for spellings that differ from the peer's
}

// span is where a field line's parts lie in buf.
type span struct{ name, nameEnd, value, valueEnd uint32 }

// special is a field with a meaning of its own.
type special struct {
	kind kind
	span
}

// startLine is a request or status line.
type startLine struct {
	version           exchange.Version
	method, methodEnd uint32
	target, targetEnd uint32
	status            int
}

// Reset forgets a head that is not complete, because buf now begins with another message.
func (p *Parser) Reset() {
	p.pos, p.seen, p.empty, p.first, p.count = 0, 0, 0, 0, 0
	p.fields, p.special = p.fields[:0], p.special[:0]
}

// ParseRequest parses the request head at the start of buf.
//
// n is its length, with the empty lines before it; 0 without a fault means that it is not complete: call again with the same
// bytes and more. A fault means that the connection has to end once the answer was sent.
//
// On success all that a head tells is in r, and slices of r point into buf or into p, until the next call. The header
// holds only fields that are meant for the backend: no Host, Content-Length, Transfer-Encoding, Connection, Keep-Alive,
// Proxy, Proxy-*, Upgrade, HTTP2-Settings or Expect, none of their twins spelt with "_" (which CGI-like servers read as the
// field itself), and none that Connection names. Of TE only "trailers" is left, if Connection names TE.
//
// r.Authority is the host and port in the one spelling of exchange.ParseAuthority, and r.Host its host: "Example.com.:" and
// "example.com" are one.
func (p *Parser) ParseRequest(buf []byte, r *exchange.Request) (n int, h Head, f *Fault) {
	end, c := p.head(buf, (*Parser).requestLine)
	if end > 0 {
		h, c = p.request(buf, r)
	}
	if c != 0 {
		p.Reset()
		return 0, Head{Close: true}, requestFaults[c]
	}
	if end > 0 {
		p.Reset()
	}
	return end, h, nil
}

// ParseResponse parses the response head at the start of buf; method is the request's. It is like ParseRequest; every fault
// has the status 502.
//
// A head with a status below 200 is returned as any other: unless it is 101 another head follows. A 101 keeps its Upgrade
// field in the header, the only hop-by-hop field that is ever there. ContentLength of a response without a body
// (HEAD, 304) is what the head said, else Unknown.
func (p *Parser) ParseResponse(buf []byte, method []byte, r *exchange.Response) (n int, h Head, f *Fault) {
	end, c := p.head(buf, (*Parser).statusLine)
	if end > 0 {
		h, c = p.response(buf, method, r)
	}
	if c != 0 {
		p.Reset()
		return 0, Head{Close: true}, responseFaults[c]
	}
	if end > 0 {
		p.Reset()
	}
	return end, h, nil
}

// head goes on with the head in buf. end is its length once it is complete.
func (p *Parser) head(buf []byte, startLine func(*Parser, []byte) code) (end int, c code) {
	if p.seen > p.pos {
		if len(buf) <= p.seen || bytes.IndexByte(buf[p.seen:], '\n') < 0 {
			return 0, p.wait(buf)
		}
	}
	if p.first == 0 {
		if c := startLine(p, buf); c != 0 || p.first == 0 {
			return 0, c
		}
	}
	return p.fieldLines(buf)
}

// fieldLines goes on with the field lines in buf.
func (p *Parser) fieldLines(buf []byte) (end int, c code) {
	limit := p.first + p.Limits.bytes()
	count := p.Limits.count()
	for i := p.pos; ; p.pos = i {
		if i+1 < len(buf) && buf[i] == '\r' && buf[i+1] == '\n' {
			return i + 2, 0
		}
		s, next, c := fieldLine(buf, i)
		if next == 0 {
			return 0, p.stuck(buf, c)
		}
		if next > limit {
			return 0, codeHeaderBytes
		}
		if p.count++; p.count > count {
			return 0, codeHeaderCount
		}
		if k := classify(buf[s.name:s.nameEnd]); k == kindPlain {
			p.fields = append(p.fields, s)
		} else if k != kindDrop {
			p.special = append(p.special, special{k, s})
		}
		i = next
	}
}

// stuck decides about a line at p.pos that cannot be parsed: it waits for the rest of a line whose LF is not there yet, so that
// a verdict does not depend on how the bytes arrive. Only a beginning that starts no line is told at once.
func (p *Parser) stuck(buf []byte, c code) code {
	line := buf[p.pos:]
	if len(line) > 0 && !exchange.IsTokenByte(line[0]) && (line[0] != '\r' || len(line) > 1) {
		return c
	}
	lf := bytes.IndexByte(line, '\n')
	if lf < 0 {
		return p.wait(buf)
	}
	if p.first == 0 {
		if lf-1 > p.Limits.line() {
			return codeLine
		}
		return c
	}
	if p.pos+lf+1 > p.first+p.Limits.bytes() {
		return codeHeaderBytes
	}
	if p.count >= p.Limits.count() {
		return codeHeaderCount
	}
	return c
}

// wait notes that buf holds no complete line at p.pos, and refuses one that is too long already or begins with a bare CR.
func (p *Parser) wait(buf []byte) code {
	p.seen = len(buf)
	bareCR := len(buf) > p.pos+1 && buf[p.pos] == '\r'
	if p.first == 0 {
		if bareCR {
			return codeRequestLine
		}
		if len(buf)-p.pos > p.Limits.line()+1 {
			return codeLine
		}
		return 0
	}
	if bareCR {
		return codeLineEnd
	}
	// A lone CR may begin the empty line, which does not count.
	if line := buf[p.pos:]; len(buf) > p.first+p.Limits.bytes() && len(line) > 0 && line[0] != '\r' {
		return codeHeaderBytes
	}
	return 0
}

// fieldLine parses the field line at buf[i] (RFC 9112 section 5). next is where the next line starts, 0 if there is none: the
// line is not complete, or not well formed in the way that c says.
func fieldLine(buf []byte, i int) (s span, next int, c code) {
	j := len(buf)
	for k, b := range buf[i:] {
		if !exchange.IsTokenByte(b) {
			j = i + k
			break
		}
	}
	if j == len(buf) {
		return s, 0, codeFieldName
	}
	if buf[j] != ':' || j == i {
		return s, 0, nameFault(buf, i, j)
	}
	k := j + 1
	for k < len(buf) && (buf[k] == ' ' || buf[k] == '\t') {
		k++
	}
	e := exchange.FieldValueEnd(buf, k)
	if e+1 >= len(buf) || buf[e] != '\r' || buf[e+1] != '\n' {
		return s, 0, codeFieldValue
	}
	v := e
	for v > k && (buf[v-1] == ' ' || buf[v-1] == '\t') {
		v--
	}
	return span{uint32(i), uint32(j), uint32(k), uint32(v)}, e + 2, 0
}

// nameFault says what is wrong with a field name that ends at j.
func nameFault(buf []byte, i, j int) code {
	switch c := buf[j]; {
	case j == i && (c == ' ' || c == '\t'):
		return codeFold
	case c == ' ' || c == '\t':
		return codeNameSpace
	case c == '\n', c == '\r':
		return codeLineEnd
	}
	return codeFieldName
}
