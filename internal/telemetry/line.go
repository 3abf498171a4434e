package telemetry

import (
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
	maxDetail = 512
)

// label is a field of a line.
type label uint8

const (
	lID label = iota
	lClient
	lMethod
	lHost
	lPath
	lQuery
	lScheme
	lStatus
	lReason
	lListener
	lRoute
	lObject
	lCluster
	lBackend
	lTries
	lIn
	lOut
	lTook
	lWaited
	lApplication
	lSubject
	lMethodOfAuth
	lShadow
	lDetail
	lAgent
	lTrace
	nLabels
)

// labels is what stands before the value of each field, in both formats.
var labels = func() (t [nLabels]struct{ json, text string }) {
	for i, name := range [nLabels]string{"id", "client", "method", "host", "path", "query", "scheme", "status", "reason", "listener",
		"route", "object", "cluster", "backend", "tries", "bytesIn", "bytesOut", "ms", "waitedMs", "application", "subject", "auth", "shadow", "detail", "userAgent", "trace"} {
		t[i].json, t[i].text = `,"`+name+`":`, " "+name+"="
	}
	return t
}()

// exchange appends the line of an exchange. Fields that are empty are left out, so that a line is short; the names are the same in
// both formats. route is what Format.route made, empty if the route is not known.
func (f Format) exchange(b []byte, c *clock, x *exchange.Exchange, route string, took time.Duration) []byte {
	if f == Text {
		b = c.append(append(b, "time="...), x.Start)
	} else {
		b = append(c.append(append(b, `{"time":"`...), x.Start), '"')
	}
	b = field(f, b, lID, x.ID, MaxID)
	if a := x.Client.Addr(); a.IsValid() {
		b = f.quote(a.AppendTo(f.quote(f.label(b, lClient))))
	}
	b = field(f, b, lMethod, x.Request.Method, maxName)
	b = field(f, b, lHost, x.Request.Host, maxName)
	if x.ClientPath != nil {
		b = field(f, b, lPath, x.ClientPath, maxTarget)
	} else {
		b = field(f, b, lPath, x.Request.Path, maxTarget)
	}
	if x.LoggedQuery != nil {
		b = field(f, b, lQuery, x.LoggedQuery, maxTarget)
	} else {
		b = field(f, b, lQuery, x.Request.Query, maxTarget)
	}
	b = field(f, b, lScheme, x.Scheme, maxName)
	b = f.number(b, lStatus, int64(x.Response.Status))
	b = field(f, b, lReason, x.Reason, maxName)
	b = field(f, b, lListener, x.Listener, maxTarget)
	if route != "" {
		b = append(b, route...)
	} else {
		b = field(f, b, lRoute, x.Route, maxTarget)
	}
	if x.Tries > 0 {
		b = field(f, b, lCluster, x.Cluster, maxTarget)
		if x.Backend.IsValid() {
			b = f.quote(x.Backend.AppendTo(f.quote(f.label(b, lBackend))))
		}
		b = f.number(b, lTries, int64(x.Tries))
	}
	b = f.number(b, lIn, x.BytesIn)
	b = f.number(b, lOut, x.BytesOut)
	b = milliseconds(f.label(b, lTook), took)
	if x.Tries > 0 && x.Waited > 0 {
		b = milliseconds(f.label(b, lWaited), x.Waited)
	}
	if id := &x.Identity; id.Method != "" {
		b = field(f, b, lApplication, id.Application, maxName)
		b = field(f, b, lSubject, id.Subject, maxName)
		b = field(f, b, lMethodOfAuth, id.Method, maxName)
	}
	if len(x.Shadow) > 0 { // the first: a request that several would refuse is rare, and the metric counts them all
		b = field(f, b, lShadow, x.Shadow[0].Reason, maxName)
	}
	if x.Reason != "" {
		b = field(f, b, lDetail, x.Detail, maxDetail)
	}
	b = field(f, b, lAgent, x.Request.Header.Get("user-agent"), maxAgent)
	if p := x.Request.Header.Get("traceparent"); p != nil {
		if trace, _, _, ok := Traceparent(p); ok {
			b = field(f, b, lTrace, trace, len(trace))
		}
	}
	if f == JSON {
		b = append(b, '}')
	}
	return append(b, '\n')
}

// route is the part of a line that is the same for all exchanges of a route, made once.
func (f Format) route(name, object string) string {
	return string(field(f, field(f, nil, lRoute, name, maxTarget), lObject, object, maxTarget))
}

func (f Format) label(b []byte, l label) []byte {
	if f == Text {
		return append(b, labels[l].text...)
	}
	return append(b, labels[l].json...)
}

// quote is for values that need no quotes in text.
func (f Format) quote(b []byte) []byte {
	if f == Text {
		return b
	}
	return append(b, '"')
}

func (f Format) number(b []byte, l label, n int64) []byte {
	return strconv.AppendInt(f.label(b, l), n, 10)
}

// milliseconds appends d with three decimals.
func milliseconds(b []byte, d time.Duration) []byte {
	us := max(d.Microseconds(), 0)
	b = strconv.AppendInt(b, us/1000, 10)
	r := us % 1000
	return append(b, '.', byte('0'+r/100), byte('0'+r/10%10), byte('0'+r%10))
}

// field appends a string field. Nothing in v can end the value or the line, or reach a terminal as a control.
func field[T ~string | ~[]byte](f Format, b []byte, l label, v T, limit int) []byte {
	if len(v) == 0 {
		return b
	}
	b = f.label(b, l)
	cut := len(v) > limit
	if cut {
		v = v[:limit]
	}
	need := inJSON
	if f == Text {
		need = inText
	}
	n := 0
	for n < len(v) && safe[v[n]]&need != 0 {
		n++
	}
	if n == len(v) && !cut {
		return f.quote(append(f.quote(b), v...))
	}
	b = appendEscaped(append(append(b, '"'), v[:n]...), v[n:])
	if cut {
		b = append(b, "..."...)
	}
	return append(b, '"')
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
