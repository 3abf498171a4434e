package http1

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// taken is one request that we accept, as a whole.
type taken struct {
	n    int // bytes of head and body
	r    exchange.Request
	h    Head
	body []byte
}

// take parses the request at the start of raw, body included; nil if it is refused or not complete.
func take(raw []byte) *taken {
	var p Parser
	m := new(taken)
	n, h, f := p.ParseRequest(raw, &m.r)
	if f != nil || n == 0 {
		return nil
	}
	m.h = h
	var ok bool
	var k int
	if k, m.body, ok = takeBody(raw[n:], h.Framing, m.r.ContentLength, false); !ok {
		return nil
	}
	m.n = n + k
	return m
}

func takeBody(raw []byte, framing Framing, length int64, response bool) (n int, body []byte, ok bool) {
	switch framing {
	case Length:
		if length > int64(len(raw)) {
			return 0, nil, false
		}
		return int(length), raw[:length], true
	case UntilClose:
		return len(raw), raw, true
	case Chunked:
		c := Chunks{Response: response}
		for {
			data, k, done, f := c.Next(raw[n:], nil)
			if f != nil || k == 0 && !done {
				return 0, nil, false
			}
			body = append(body, data...)
			if n += k; done {
				return n, body, true
			}
		}
	}
	return 0, nil, true
}

// differ holds what we make of the request at the start of raw against net/http, and says where the two disagree: on what it is, on
// where it ends, and on what we would send to a backend for it.
func differ(raw []byte) string {
	m := take(raw)
	if m == nil {
		return ""
	}
	if fault := sameRequest(m, raw[:m.n], false); fault != "" {
		return fault
	}
	out := AppendRequest(nil, &m.r, m.r.RawPath, m.h.Framing)
	if m.h.Framing == Chunked {
		if len(m.body) > 0 {
			out = append(append(AppendChunkHead(out, len(m.body)), m.body...), "\r\n"...)
		}
		out = AppendChunkEnd(out)
	} else {
		out = append(out, m.body...)
	}
	if fault := sameRequest(m, out, true); fault != "" {
		return "forwarded: " + fault
	}
	if len(m.r.Authority) == 0 {
		return "" // HTTP/1.0 without Host becomes HTTP/1.1 with an empty one, which we do not take
	}
	again := take(out)
	if again == nil || again.n != len(out) || !bytes.Equal(again.body, m.body) {
		return fmt.Sprintf("what we forward is not taken again: %q", out)
	}
	a, b := viewOf(&m.r, Head{}), viewOf(&again.r, Head{})
	a.Version = b.Version
	if a != b {
		return fmt.Sprintf("%+v is forwarded as %q and read as %+v", a, out, b)
	}
	return ""
}

// sameRequest says how net/http's view of raw differs from m. strict: net/http has to accept it.
func sameRequest(m *taken, raw []byte, strict bool) string {
	src := bufio.NewReader(bytes.NewReader(raw))
	req, err := http.ReadRequest(src)
	if err != nil {
		if strict {
			return fmt.Sprintf("net/http refuses %q: %v", raw, err)
		}
		return ""
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		if strict {
			return fmt.Sprintf("net/http refuses the body of %q: %v", raw, err)
		}
		return ""
	}
	if rest, _ := io.ReadAll(src); len(rest) > 0 {
		return fmt.Sprintf("net/http sees a message end %d bytes before we do: %q", len(rest), raw)
	}
	r := &m.r
	target := req.RequestURI
	if i := strings.Index(target, "://"); i >= 0 && target[0] != '/' {
		target = target[i+3:]
		target = target[len(req.URL.Host):]
		if !strings.HasPrefix(target, "/") {
			target = "/" + target
		}
	}
	path, query, hasQuery := strings.Cut(target, "?")
	canonical, _, _ := exchange.CanonicalPath(nil, []byte(path))
	if string(r.Path) == "*" {
		canonical.Canonical = r.Path
	}
	framing := None
	switch {
	case len(req.TransferEncoding) > 0:
		framing = Chunked
	case req.ContentLength > 0 || req.Header.Get("Content-Length") != "":
		framing = Length
	}
	for _, c := range []struct {
		what      string
		ours, net any
	}{
		{"method", string(r.Method), req.Method},
		{"host", string(r.Authority), spelt(req.Host)},
		{"path", string(r.Path), string(canonical.Canonical)},
		{"query", string(r.Query), query},
		{"query mark", r.HasQuery, hasQuery},
		{"body", string(m.body), string(body)},
		{"chunked", m.h.Framing == Chunked, framing == Chunked},
		{"length", max(r.ContentLength, 0), max(req.ContentLength, 0)},
	} {
		if c.ours != c.net {
			return fmt.Sprintf("%s: %q here, %q for net/http, in %q", c.what, c.ours, c.net, raw)
		}
	}
	return sameFields(&r.Header, req.Header, raw)
}

// sameFields says which of our fields net/http sees otherwise. It may see more: those that we take out.
func sameFields(ours *exchange.Header, net http.Header, raw []byte) string {
	values := map[string][]string{}
	for _, f := range ours.All() {
		name := textproto.CanonicalMIMEHeaderKey(string(f.Name))
		values[name] = append(values[name], string(f.Value))
	}
	for name, v := range values {
		if name == "Te" || name == "Upgrade" || name == "Trailer" {
			continue // of the first two an element is left; net/http moves the third elsewhere
		}
		if !slices.Equal(v, net[name]) {
			return fmt.Sprintf("field %s: %q here, %q for net/http, in %q", name, v, net[name], raw)
		}
	}
	return ""
}

// differResponse is differ for responses to a GET.
func differResponse(raw []byte) string {
	var p Parser
	var r exchange.Response
	n, h, f := p.ParseResponse(raw, []byte("GET"), &r)
	if f != nil || n == 0 || r.Status < 200 {
		return ""
	}
	k, body, ok := takeBody(raw[n:], h.Framing, r.ContentLength, true)
	if !ok {
		return ""
	}
	req := &http.Request{Method: "GET"}
	src := bufio.NewReader(bytes.NewReader(raw[:n+k]))
	resp, err := http.ReadResponse(src, req)
	if err != nil {
		return ""
	}
	net, err := io.ReadAll(resp.Body)
	if err != nil {
		return ""
	}
	rest, _ := io.ReadAll(src)
	// A body after a status without one is for net/http the next message; here it ends the connection.
	if len(rest) > 0 || resp.StatusCode != r.Status || !bytes.Equal(net, body) || resp.Close && !h.Close {
		return fmt.Sprintf("%d, close %v, %q here; %d, close %v, %q and %q for net/http, in %q", r.Status, h.Close, body,
			resp.StatusCode, resp.Close, net, rest, raw)
	}
	return sameFields(&r.Header, resp.Header, raw)
}

func TestDifferentialCorpora(t *testing.T) {
	for _, c := range corpus(t, "http1-requests.jsonl") {
		if fault := differ(c.Raw); fault != "" {
			t.Errorf("%s/%s: %.2000s", c.Corpus, c.ID, fault)
		}
	}
	for _, c := range corpus(t, "http1-responses.jsonl") {
		if fault := differResponse(c.Raw); fault != "" {
			t.Errorf("%s/%s: %.2000s", c.Corpus, c.ID, fault)
		}
	}
}

// hostile is what messages are made of where they are made to be read in two ways; most draws are well formed.
var hostile = struct{ method, target, version, field, end, body []string }{
	method: []string{"GET", "POST", "HEAD", "OPTIONS", "PUT", "get", "G-T", "PRI"},
	target: []string{"/", "/a", "/a?b=c", "/a/../b", "//a", "/%41%7e", "/a|b", "/\"", "/?", "/a;b:c@d", "*", "http://a/", "http://a?b", "HTTP://A",
		"/%2e%2e/a", "/a%2fb", "/a\\b", "//a//b", "/:a", "http://a:80/x"},
	version: []string{"HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.2"},
	field: []string{"Host: a", "Host: A:80", "Host:a", "Content-Length: 5", "Content-Length: 0", "Content-Length:  5 ", "content-length: 05",
		"Transfer-Encoding: chunked", "transfer-encoding:\tCHUNKED ", "Transfer-Encoding: gzip", "Transfer_Encoding: chunked", "Content_Length: 1",
		"Connection: close", "Connection: keep-alive", "Connection: x, y", "Connection: upgrade", "Upgrade: websocket", "Upgrade: h2c",
		"TE: trailers", "Connection: te", "Expect: 100-continue", "X: y", "x:", "X: a\tb", "Y: \xff\x80", "X : y", " X: y", "X\x00: y", "X: \x00",
		"Trailer: X", "Cookie: a; b", "Cookie: c", "Pragma: no-cache", "Keep-Alive: 1"},
	end:  []string{"\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\r\n", "\r\n "},
	body: []string{"hello", "5\r\nhello\r\n0\r\n\r\n", "5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n", "0\r\n\r\n", "", "GET / HTTP/1.1\r\nHost: b\r\n\r\n", "00\r\n\r\n"},
}

// drawMessage makes a message whose first line is first.
func drawMessage(t *rapid.T, first string) []byte {
	pick := func(from []string, label string) string { return rapid.SampledFrom(from).Draw(t, label) }
	s := first + pick(hostile.end, "end")
	if rapid.IntRange(0, 9).Draw(t, "host") > 0 {
		s += "Host: a\r\n"
	}
	for range rapid.IntRange(0, 5).Draw(t, "fields") {
		s += pick(hostile.field, "field") + pick(hostile.end, "end")
	}
	return []byte(s + "\r\n" + pick(hostile.body, "body") + pick(hostile.body, "more"))
}

func TestDifferentialRequests(t *testing.T) {
	accepted := 0
	rapid.Check(t, func(t *rapid.T) {
		pick := func(from []string, label string) string { return rapid.SampledFrom(from).Draw(t, label) }
		raw := drawMessage(t, pick(hostile.method, "method")+" "+pick(hostile.target, "target")+" "+pick(hostile.version, "version"))
		if fault := differ(raw); fault != "" {
			t.Error(fault)
		}
		if fault := splits(raw); fault != "" {
			t.Error(fault)
		}
		if take(raw) != nil {
			accepted++
		}
	})
	if accepted == 0 {
		t.Error("no request was accepted: nothing was compared")
	}
}

func TestDifferentialResponses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		status := rapid.SampledFrom([]string{"200 OK", "200", "204 No Content", "304 x", "404 Not \xff", "500 ", "999 x"}).Draw(t, "status")
		raw := drawMessage(t, rapid.SampledFrom(hostile.version).Draw(t, "version")+" "+status)
		if fault := differResponse(raw); fault != "" {
			t.Error(fault)
		}
	})
}

// splits says whether the connection on which raw arrives ends differently when it is cut into two reads, or into single bytes.
func splits(raw []byte) string {
	want := requestConn(raw, 0).String()
	if got := requestConn(raw, 1).String(); got != want {
		return fmt.Sprintf("%q byte by byte: %s, whole: %s", raw, got, want)
	}
	for at := 1; at < min(len(raw), 300); at++ {
		if got := requestConn(raw, at).String(); got != want {
			return fmt.Sprintf("%q in steps of %d: %s, whole: %s", raw, at, got, want)
		}
	}
	return ""
}

// spelt is a host and port in our spelling: net/http leaves it as the client wrote it.
func spelt(host string) string {
	a, _, _ := exchange.ParseAuthority(nil, []byte(host))
	return string(a.Text)
}
