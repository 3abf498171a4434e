package telemetry

import (
	"net/netip"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// What a client sends is cut in the log at these lengths, in bytes, and then ends in "...".
const (
	maxTarget = 2048 // path, query
	maxAgent  = 512
	maxName   = 255 // host, method
)

// encoder writes one line at the end of b.
type encoder struct {
	b    []byte
	text bool
	some bool // a field was written
}

// exchange writes the line of an exchange. Fields that are empty are left out, so that a line is short; the names are the
// same in both formats.
func (e *encoder) exchange(c *clock, x *exchange.Exchange, object string, took time.Duration) {
	if !e.text {
		e.b = append(e.b, '{')
	}
	e.key("time")
	e.quote()
	e.b = c.append(e.b, x.Start)
	e.quote()
	bytesField(e, "id", x.ID, MaxID)
	if a := x.Client.Addr(); a.IsValid() {
		e.key("client")
		e.quote()
		e.b = a.AppendTo(e.b)
		e.quote()
	}
	bytesField(e, "method", x.Request.Method, maxName)
	bytesField(e, "host", x.Request.Host, maxName)
	bytesField(e, "path", x.Request.Path, maxTarget)
	bytesField(e, "query", x.Request.Query, maxTarget)
	stringField(e, "scheme", x.Scheme)
	e.number("status", int64(x.Response.Status))
	stringField(e, "reason", x.Reason)
	stringField(e, "listener", x.Listener)
	stringField(e, "route", x.Route)
	stringField(e, "object", object)
	if x.Tries > 0 {
		stringField(e, "cluster", x.Cluster)
		e.address("backend", x.Backend)
		e.number("tries", int64(x.Tries))
	}
	e.number("bytesIn", x.BytesIn)
	e.number("bytesOut", x.BytesOut)
	e.milliseconds("ms", took)
	if x.Tries > 0 && x.Waited > 0 {
		e.milliseconds("waitedMs", x.Waited)
	}
	bytesField(e, "userAgent", x.Request.Header.Get("user-agent"), maxAgent)
	if p := x.Request.Header.Get("traceparent"); p != nil {
		if trace, _, _, ok := Traceparent(p); ok {
			bytesField(e, "trace", trace, 32)
		}
	}
	if !e.text {
		e.b = append(e.b, '}')
	}
	e.b = append(e.b, '\n')
}

func (e *encoder) key(name string) {
	switch {
	case e.text:
		if e.some {
			e.b = append(e.b, ' ')
		}
		e.b = append(e.b, name...)
		e.b = append(e.b, '=')
	case e.some:
		e.b = append(e.b, ',', '"')
		e.b = append(e.b, name...)
		e.b = append(e.b, '"', ':')
	default:
		e.b = append(e.b, '"')
		e.b = append(e.b, name...)
		e.b = append(e.b, '"', ':')
	}
	e.some = true
}

// quote is for values that need no quotes in text.
func (e *encoder) quote() {
	if !e.text {
		e.b = append(e.b, '"')
	}
}

func (e *encoder) number(name string, n int64) {
	e.key(name)
	e.b = strconv.AppendInt(e.b, n, 10)
}

func (e *encoder) address(name string, a netip.AddrPort) {
	if !a.IsValid() {
		return
	}
	e.key(name)
	e.quote()
	e.b = a.AppendTo(e.b)
	e.quote()
}

// milliseconds writes d with three decimals.
func (e *encoder) milliseconds(name string, d time.Duration) {
	us := max(d.Microseconds(), 0)
	e.key(name)
	e.b = strconv.AppendInt(e.b, us/1000, 10)
	f := us % 1000
	e.b = append(e.b, '.', byte('0'+f/100), byte('0'+f/10%10), byte('0'+f%10))
}

func stringField(e *encoder, name, v string) { field(e, name, v, maxTarget) }

func bytesField(e *encoder, name string, v []byte, limit int) { field(e, name, v, limit) }

// field writes a string. Nothing in v can end the value, the line, or the terminal's mood.
func field[T ~string | ~[]byte](e *encoder, name string, v T, limit int) {
	if len(v) == 0 {
		return
	}
	e.key(name)
	cut := len(v) > limit
	if cut {
		v = v[:limit]
	}
	need := inJSON
	if e.text {
		need = inText
	}
	n := 0
	for n < len(v) && safe[v[n]]&need != 0 {
		n++
	}
	if n == len(v) && !cut {
		e.quote()
		e.b = append(e.b, v...)
		e.quote()
		return
	}
	e.b = append(e.b, '"')
	e.b = append(e.b, v[:n]...)
	e.b = appendEscaped(e.b, v[n:])
	if cut {
		e.b = append(e.b, "..."...)
	}
	e.b = append(e.b, '"')
}

const (
	inJSON uint8 = 1 << iota // stands in a JSON string as it is
	inText                   // stands in an unquoted logfmt value as it is
)

// safe says what of that is true for each byte.
var safe = func() (t [256]byte) {
	for c := 0x20; c < 0x7f; c++ {
		if c != '"' && c != '\\' {
			t[c] = inJSON
			if c != ' ' && c != '=' {
				t[c] |= inText
			}
		}
	}
	return t
}()

// appendEscaped writes s for the inside of a JSON string. Everything that is not a printable character (controls, line
// separators, marks that turn the direction of text) is written \uXXXX, bytes that are not UTF-8 as \ufffd.
func appendEscaped[T ~string | ~[]byte](b []byte, s T) []byte {
	for i := 0; i < len(s); {
		from := i
		for i < len(s) && safe[s[i]]&inJSON != 0 {
			i++
		}
		b = append(b, s[from:i]...)
		if i == len(s) {
			break
		}
		if c := s[i]; c < utf8.RuneSelf {
			i++
			if c == '"' || c == '\\' {
				b = append(b, '\\', c)
			} else {
				b = appendUnit(b, rune(c))
			}
			continue
		}
		var enc [utf8.UTFMax]byte
		r, n := utf8.DecodeRune(enc[:copy(enc[:], s[i:])])
		switch {
		case r == utf8.RuneError && n == 1:
			b = appendUnit(b, utf8.RuneError)
		case unicode.IsPrint(r):
			b = append(b, s[i:i+n]...)
		case r > 0xffff:
			r -= 0x10000
			b = appendUnit(appendUnit(b, 0xd800+r>>10), 0xdc00+r&0x3ff)
		default:
			b = appendUnit(b, r)
		}
		i += n
	}
	return b
}

func appendUnit(b []byte, r rune) []byte {
	return append(b, '\\', 'u', hexDigits[r>>12&0xf], hexDigits[r>>8&0xf], hexDigits[r>>4&0xf], hexDigits[r&0xf])
}

// clock writes times as RFC 3339 in UTC with milliseconds and keeps the text of the last second.
type clock struct {
	second int64
	stamp  []byte // "2026-10-01T12:00:05."
}

func (c *clock) append(b []byte, t time.Time) []byte {
	if s := t.Unix(); s != c.second || c.stamp == nil {
		c.second = s
		c.stamp = t.UTC().AppendFormat(c.stamp[:0], "2006-01-02T15:04:05.")
	}
	ms := t.Nanosecond() / 1e6
	b = append(b, c.stamp...)
	return append(b, byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), 'Z')
}
