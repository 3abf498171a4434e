package http1

import (
	"strconv"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// AppendRequest appends the head of r as an HTTP/1.1 request: the request line of r.Method, path and r's query, Host with
// r.Authority, the header, extra, the framing fields, Expect if r.Continue, and Connection with Upgrade if r.Upgrade is set. path
// is what the backend gets: r.RawPath, r.Path or a rewritten one.
//
// r.Header and extra must hold no connection or framing field, as ParseRequest leaves them ("TE: trailers" gets its Connection
// option). Control bytes that a hook put into a value become spaces, so that no value can end its line.
func AppendRequest(dst []byte, r *exchange.Request, path []byte, framing Framing, extra ...exchange.Field) []byte {
	dst = append(append(dst, r.Method...), ' ')
	dst = append(dst, path...)
	if r.HasQuery {
		dst = append(append(dst, '?'), r.Query...)
	}
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(append(dst, r.Authority...), '\r', '\n')
	te := false
	for i, fields := 0, r.Header.All(); i < len(fields); i++ {
		dst = appendField(dst, &fields[i])
		te = te || len(fields[i].Name) == 2 && exchange.EqualFold(fields[i].Name, "te")
	}
	for i := range extra {
		dst = appendField(dst, &extra[i])
	}
	switch framing {
	case Length:
		dst = appendLength(dst, r.ContentLength)
	case Chunked:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	}
	if r.Continue {
		dst = append(dst, "Expect: 100-continue\r\n"...)
	}
	switch {
	case r.Upgrade != nil:
		dst = append(dst, "Connection: Upgrade"...)
		if te {
			dst = append(dst, ", TE"...)
		}
		dst = append(append(dst, "\r\nUpgrade: "...), r.Upgrade...)
		dst = append(dst, '\r', '\n')
	case te:
		dst = append(dst, "Connection: TE\r\n"...)
	}
	return append(dst, '\r', '\n')
}

// AppendResponse appends the head of r as an HTTP/1.1 response: the status line, the header, extra, the framing fields, and
// Connection: close if close is set or framing is UntilClose. With Length the content length is written also where no body
// follows (HEAD, 304). A client of HTTP/1.0 that keeps its connection needs the extra field Connection: keep-alive.
//
// For status 101 see AppendUpgrade. r.Header is held to the rules of AppendRequest.
func AppendResponse(dst []byte, r *exchange.Response, framing Framing, close bool, extra ...exchange.Field) []byte {
	dst = appendStatusLine(dst, r.Status)
	for i, fields := 0, r.Header.All(); i < len(fields); i++ {
		dst = appendField(dst, &fields[i])
	}
	for i := range extra {
		dst = appendField(dst, &extra[i])
	}
	switch framing {
	case Length:
		dst = appendLength(dst, r.ContentLength)
	case Chunked:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	case UntilClose:
		close = true
	}
	if close {
		dst = append(dst, "Connection: close\r\n"...)
	}
	return append(dst, '\r', '\n')
}

// AppendUpgrade appends the head of a 101 response, whose header holds Upgrade as ParseResponse left it there.
func AppendUpgrade(dst []byte, r *exchange.Response, extra ...exchange.Field) []byte {
	dst = appendStatusLine(dst, r.Status)
	for i, fields := 0, r.Header.All(); i < len(fields); i++ {
		dst = appendField(dst, &fields[i])
	}
	for i := range extra {
		dst = appendField(dst, &extra[i])
	}
	return append(dst, "Connection: Upgrade\r\n\r\n"...)
}

// AppendChunkHead appends the size line of a chunk of n bytes; n is above 0. CRLF goes after the chunk's data.
func AppendChunkHead(dst []byte, n int) []byte {
	return append(strconv.AppendUint(dst, uint64(n), 16), '\r', '\n')
}

// AppendTrailer appends the last chunk and the trailer section, with which a chunked body ends. A nil trailer is empty.
func AppendTrailer(dst []byte, trailer *exchange.Header) []byte {
	dst = append(dst, "0\r\n"...)
	if trailer != nil {
		for i, fields := 0, trailer.All(); i < len(fields); i++ {
			dst = appendField(dst, &fields[i])
		}
	}
	return append(dst, '\r', '\n')
}

// AppendChunkEnd appends the end of a chunked body without trailer section.
func AppendChunkEnd(dst []byte) []byte { return append(dst, "0\r\n\r\n"...) }

func appendLength(dst []byte, n int64) []byte {
	dst = strconv.AppendInt(append(dst, "Content-Length: "...), max(n, 0), 10)
	return append(dst, '\r', '\n')
}

func appendStatusLine(dst []byte, status int) []byte {
	if 0 <= status && status < len(statusLines) && statusLines[status] != "" {
		return append(dst, statusLines[status]...)
	}
	dst = strconv.AppendInt(append(dst, "HTTP/1.1 "...), int64(status), 10)
	return append(dst, " \r\n"...)
}

// statusLines are those of the registered statuses.
var statusLines = func() (t [600]string) {
	for status := range t {
		if text := exchange.StatusText(status); text != "" {
			t[status] = "HTTP/1.1 " + strconv.Itoa(status) + " " + text + "\r\n"
		}
	}
	return t
}()

// appendField appends a field line, and sees to it that it is one line.
func appendField(dst []byte, f *exchange.Field) []byte {
	dst = append(append(dst, f.Name...), ':', ' ')
	start := len(dst)
	dst = append(dst, f.Value...)
	for {
		if start = exchange.FieldValueEnd(dst, start); start == len(dst) {
			return append(dst, '\r', '\n')
		}
		dst[start] = ' '
	}
}
