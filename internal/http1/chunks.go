package http1

import (
	"bytes"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// maxExtensions is how many bytes of chunk extensions a body may have in all, so that they cannot outweigh it.
const maxExtensions = 4 << 10

// Chunks decodes a chunked body (RFC 9112 section 7.1). The zero value is ready for a request's body.
type Chunks struct {
	Limits   Limits // HeaderBytes and HeaderCount bound the trailer section
	Response bool   // faults blame the backend, with status 502

	state  chunkState
	digits int
	left   int64 // bytes of data left; while the size is read, what its digits say so far
	extra  int   // bytes of extensions so far
	line   int   // where the trailer line that is not complete starts in room
	fields []span
	room   []byte // the trailer section, which may arrive in pieces
}

type chunkState uint8

const (
	chunkStart      chunkState = iota // before the first digit of a size
	chunkSize                         // after a digit
	chunkSizeLF                       // after the CR of a size line
	chunkSemicolon                    // after ";": white space or a name has to follow
	chunkName                         // in the name of an extension
	chunkNameSpace                    // after white space after a name
	chunkEquals                       // after "=": white space or a value has to follow
	chunkToken                        // in a value that is a token
	chunkQuoted                       // in a quoted value
	chunkEscaped                      // after "\" in a quoted value
	chunkValueEnd                     // after the closing quote
	chunkValueSpace                   // after white space after a value
	chunkData
	chunkDataCR
	chunkDataLF
	chunkTrailer
	chunkDone
)

// Reset makes c ready for the next body and keeps its room.
func (c *Chunks) Reset() {
	c.state, c.digits, c.left, c.extra, c.line = chunkStart, 0, 0, 0, 0
	c.fields, c.room = c.fields[:0], c.room[:0]
}

// Next looks at buf, the bytes after those that earlier calls have used up. data is the next bytes of the body, a part of buf;
// n is how many bytes of buf are used up, framing included; done says that the body is complete with its trailer section,
// and nothing after n belongs to it. With n == 0, not done and no fault, it needs more bytes.
//
// When done, trailer holds the trailer section, in c's room until the next Reset. Fields that frame, route, authenticate or
// describe the message (RFC 9110 section 6.5.1) are dropped; Host, Content-Length and Transfer-Encoding are a fault. trailer may be
// nil. Extensions are checked and dropped.
func (c *Chunks) Next(buf []byte, trailer *exchange.Header) (data []byte, n int, done bool, f *Fault) {
	n, bad := c.framing(buf, 0, trailer)
	if bad == 0 && c.state == chunkData && n < len(buf) {
		end := n + int(min(c.left, int64(len(buf)-n)))
		data = buf[n:end:end]
		if c.left -= int64(len(data)); c.left == 0 {
			c.state = chunkDataCR
		}
		n, bad = c.framing(buf, end, trailer)
	}
	if bad != 0 {
		if c.Response {
			return nil, 0, false, responseFaults[bad]
		}
		return nil, 0, false, requestFaults[bad]
	}
	return data, n, c.state == chunkDone, nil
}

// framing goes on from buf[i] until data, the end of the body or the end of buf, and says where that is.
func (c *Chunks) framing(buf []byte, i int, trailer *exchange.Header) (int, code) {
	for i < len(buf) {
		switch c.state {
		case chunkData, chunkDone:
			return i, 0
		case chunkTrailer:
			n, bad := c.trailerLine(buf[i:], trailer)
			if bad != 0 {
				return 0, bad
			}
			i += n
		default:
			if bad := c.step(buf[i]); bad != 0 {
				return 0, bad
			}
			i++
		}
	}
	return i, 0
}

// step takes one byte of framing.
func (c *Chunks) step(b byte) code {
	switch c.state {
	case chunkStart, chunkSize:
		return c.size(b)
	case chunkSizeLF:
		if b != '\n' {
			return codeChunkSize
		}
		if c.digits = 0; c.left == 0 {
			c.state = chunkTrailer
		} else {
			c.state = chunkData
		}
	case chunkDataCR:
		if b != '\r' {
			return codeChunkEnd
		}
		c.state = chunkDataLF
	case chunkDataLF:
		if b != '\n' {
			return codeChunkEnd
		}
		c.state = chunkStart
	default:
		if c.extra++; c.extra > maxExtensions {
			return codeChunkExtensions
		}
		if c.state = c.extension(b); c.state == chunkStart {
			return codeChunkExtension
		}
	}
	return 0
}

// size takes a byte of a chunk's size.
func (c *Chunks) size(b byte) code {
	if d := hexDigit[b]; d != 0 {
		if c.digits++; c.digits > 16 || c.left >= 1<<59 {
			return codeChunkSize
		}
		c.left = c.left<<4 | int64(d-1)
		c.state = chunkSize
		return 0
	}
	switch {
	case c.state == chunkSize && b == '\r':
		c.state = chunkSizeLF
	case c.state == chunkSize && b == ';':
		c.state = chunkSemicolon
	default:
		return codeChunkSize
	}
	return 0
}

// extension takes a byte of an extension (RFC 9112 section 7.1.1) and is the next state, chunkStart if it is not well formed.
func (c *Chunks) extension(b byte) chunkState {
	space, tok := b == ' ' || b == '\t', exchange.IsTokenByte(b)
	switch c.state {
	case chunkSemicolon:
		switch {
		case space:
			return chunkSemicolon
		case tok:
			return chunkName
		}
	case chunkName, chunkNameSpace:
		switch {
		case tok && c.state == chunkName:
			return chunkName
		case b == '=':
			return chunkEquals
		case b == ';':
			return chunkSemicolon
		case space:
			return chunkNameSpace
		case b == '\r' && c.state == chunkName:
			return chunkSizeLF
		}
	case chunkEquals:
		switch {
		case space:
			return chunkEquals
		case b == '"':
			return chunkQuoted
		case tok:
			return chunkToken
		}
	case chunkToken, chunkValueEnd, chunkValueSpace:
		switch {
		case tok && c.state == chunkToken:
			return chunkToken
		case b == ';':
			return chunkSemicolon
		case space:
			return chunkValueSpace
		case b == '\r' && c.state != chunkValueSpace:
			return chunkSizeLF
		}
	case chunkQuoted, chunkEscaped:
		switch {
		case b < ' ' && b != '\t' || b == 0x7f:
		case c.state == chunkEscaped:
			return chunkQuoted
		case b == '"':
			return chunkValueEnd
		case b == '\\':
			return chunkEscaped
		default:
			return chunkQuoted
		}
	}
	return chunkStart
}

// trailerLine takes bytes up to the end of a line of the trailer section, or all of b.
func (c *Chunks) trailerLine(b []byte, trailer *exchange.Header) (n int, bad code) {
	n = bytes.IndexByte(b, '\n') + 1
	whole := n > 0
	if !whole {
		n = len(b)
	}
	if len(c.room)+n > c.Limits.bytes()+len("\r\n") {
		return 0, codeTrailerBytes
	}
	if c.room = append(c.room, b[:n]...); !whole {
		return n, 0
	}
	if line := c.room[c.line:]; len(line) == 2 && line[0] == '\r' {
		c.finish(trailer)
		return n, 0
	}
	s, next, _ := fieldLine(c.room, c.line)
	if next == 0 {
		return 0, codeTrailer
	}
	if len(c.fields) == c.Limits.count() {
		return 0, codeTrailerBytes
	}
	switch classify(c.room[s.name:s.nameEnd]) {
	case kindHost, kindLength, kindCoding:
		return 0, codeTrailerField
	}
	c.line = next
	c.fields = append(c.fields, s)
	return n, 0
}

// finish hands out the trailer section.
func (c *Chunks) finish(trailer *exchange.Header) {
	c.state = chunkDone
	if trailer == nil {
		return
	}
	trailer.Reset()
	for i := range c.fields {
		s := &c.fields[i]
		if name := c.room[s.name:s.nameEnd:s.nameEnd]; !barredFromTrailer(name) {
			trailer.Append(name, s.of(c.room))
		}
	}
}

// barredFromTrailer says whether a field must not come after the body: what it says had to be known before (RFC 9110 section
// 6.5.1), and whoever merges it into the header changes decisions that were made.
func barredFromTrailer(name []byte) bool {
	if classify(name) != kindPlain {
		return true
	}
	for _, barred := range barredTrailers {
		if len(name) == len(barred) && hasPrefixFold(name, barred) {
			return true
		}
	}
	return hasPrefixFold(name, "x-forwarded-") || hasPrefixFold(name, "if-")
}

// barredTrailers are names in lower case; their twins with "_" are barred too.
var barredTrailers = [...]string{
	"authorization", "authentication-info", "www-authenticate", "cookie", "set-cookie", "content-type", "content-encoding", "content-range", "content-location",
	"content-disposition", "trailer", "cache-control", "age", "expires", "date", "location", "retry-after", "vary", "warning", "pragma",
	"max-forwards", "range", "forwarded", "x-real-ip", "origin",
}

// hasPrefixFold says whether name begins with prefix, which is in lower case, or with its twin.
func hasPrefixFold(name []byte, prefix string) bool {
	return len(name) >= len(prefix) && match(name[:len(prefix)], prefix, kindHost) != kindPlain
}

// hexDigit is a hexadecimal digit's value plus one; 0 is no digit.
var hexDigit = func() (t [256]uint8) {
	for i := range 10 {
		t['0'+i] = uint8(i + 1)
	}
	for i := range 6 {
		t['a'+i], t['A'+i] = uint8(i+11), uint8(i+11)
	}
	return t
}()
