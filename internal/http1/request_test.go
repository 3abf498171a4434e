package http1

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// view is a request as text, for comparing.
type view struct {
	Method, Host, Authority, Path, RawPath, Query, Version, Header, Upgrade, Head string
	Length                                                                        int64
	HasQuery, Continue                                                            bool
}

func viewOf(r *exchange.Request, h Head) view {
	v := view{
		Method: string(r.Method), Host: string(r.Host), Authority: string(r.Authority), Path: string(r.Path), RawPath: string(r.RawPath),
		Query: string(r.Query), HasQuery: r.HasQuery, Version: r.Version.String(), Upgrade: string(r.Upgrade),
		Head: h.Framing.String(), Length: r.ContentLength, Continue: r.Continue,
	}
	if h.Close {
		v.Head += ", close"
	}
	for _, f := range r.Header.All() {
		v.Header += fmt.Sprintf("%s=%s;", f.Name, f.Value)
	}
	return v
}

// parse parses one head that is all of raw.
func parse(t testing.TB, p *Parser, raw string) view {
	t.Helper()
	var r exchange.Request
	n, h, f := p.ParseRequest([]byte(raw), &r)
	if f != nil || n != len(raw) {
		t.Fatalf("ParseRequest(%q) = %d, %v, want %d", raw, n, f, len(raw))
	}
	return viewOf(&r, h)
}

func TestRequest(t *testing.T) {
	get := view{
		Method: "GET", Host: "a", Authority: "a", Path: "/", RawPath: "/", Version: "HTTP/1.1", Head: "none",
	}
	with := func(change func(*view)) view {
		v := get
		change(&v)
		return v
	}
	for _, c := range []struct {
		name, raw string
		want      view
	}{
		{"smallest", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", get},
		{"one empty line before it", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", get},
		{"two empty lines before it", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", get},
		{"white space around values", "GET / HTTP/1.1\r\nHost:\t a \t\r\nX:\r\nY: \t \r\nZ:  b \t c\t\r\n\r\n",
			with(func(v *view) { v.Header = "X=;Y=;Z=b \t c;" })},
		{"path and query", "GET /a/%7Eb/../c?x=/../?%20 HTTP/1.1\r\nHost: a\r\n\r\n",
			with(func(v *view) { v.Path, v.RawPath, v.Query, v.HasQuery = "/a/c", "/a/c", "x=/../?%20", true })},
		{"raw path keeps its spelling", "GET /%61/./%7E HTTP/1.1\r\nHost: a\r\n\r\n",
			with(func(v *view) { v.Path, v.RawPath = "/a/~", "/%61/%7E" })},
		{"empty query", "GET /? HTTP/1.1\r\nHost: a\r\n\r\n", with(func(v *view) { v.HasQuery = true })},
		{"host", "GET / HTTP/1.1\r\nHost: Shop.Example.COM.:8080\r\n\r\n",
			with(func(v *view) { v.Host, v.Authority = "shop.example.com", "shop.example.com:8080" })},
		{"IPv6", "GET / HTTP/1.1\r\nHost: [2001:DB8:0::1]:80\r\n\r\n",
			with(func(v *view) { v.Host, v.Authority = "[2001:db8::1]", "[2001:db8::1]:80" })},
		{"HTTP/1.0", "GET / HTTP/1.0\r\n\r\n",
			with(func(v *view) { v.Host, v.Authority, v.Version, v.Head = "", "", "HTTP/1.0", "none, close" })},
		{"HTTP/1.0 that stays", "GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n",
			with(func(v *view) { v.Version = "HTTP/1.0" })},
		{"HTTP/1.1 that goes", "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: x, Close\r\n\r\n",
			with(func(v *view) { v.Head = "none, close" })},
		{"length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n",
			with(func(v *view) { v.Method, v.Head, v.Length = "POST", "length", 12 })},
		{"length 0", "POST / HTTP/1.1\r\nHost: a\r\ncontent-length:0\r\n\r\n",
			with(func(v *view) { v.Method, v.Head = "POST", "length" })},
		{"chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nExpect: 100-Continue\r\n\r\n",
			with(func(v *view) { v.Method, v.Head, v.Length, v.Continue = "POST", "chunked", exchange.Unknown, true })},
		{"HTTP/1.0 does not wait", "POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n",
			with(func(v *view) { v.Method, v.Version, v.Head, v.Length = "POST", "HTTP/1.0", "length, close", 1 })},
		{"no body to wait for", "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", get},
		{"absolute form", "GET HTTP://A:80/x?y HTTP/1.1\r\nHost: a\r\n\r\n",
			with(func(v *view) { v.Authority, v.Path, v.RawPath, v.Query, v.HasQuery = "a:80", "/x", "/x", "y", true })},
		{"port that is empty", "GET / HTTP/1.1\r\nHost: a:\r\n\r\n", get},
		{"port with leading zeros", "GET / HTTP/1.1\r\nHost: a:080\r\n\r\n", with(func(v *view) { v.Authority = "a:80" })},
		{"absolute form and Host in other spellings", "GET http://A.:/ HTTP/1.1\r\nHost: a:0080\r\n\r\n", get},
		{"Proxy fields are of this hop", "GET / HTTP/1.1\r\nHost: a\r\nProxy: x\r\nPROXY-authorization: Basic eA==\r\nProxy_Authorization: y\r\n" +
			"Proxy-Connection: close\r\nKeep-Alive: 5\r\nProxy-Authenticate: z\r\n\r\n", get},
		{"absolute form without path", "GET https://a HTTP/1.1\r\nHost: a:443\r\n\r\n", get},
		{"absolute form without path but query", "GET http://a?b=%41 HTTP/1.1\r\nHost: a\r\n\r\n",
			with(func(v *view) { v.Query, v.HasQuery = "b=%41", true })},
		{"absolute form in HTTP/1.0", "GET http://a/ HTTP/1.0\r\n\r\n",
			with(func(v *view) { v.Version, v.Head = "HTTP/1.0", "none, close" })},
		{"asterisk", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
			with(func(v *view) { v.Method, v.Path, v.RawPath = "OPTIONS", "*", "*" })},
		{"asterisk in absolute form", "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n",
			with(func(v *view) { v.Method, v.Path, v.RawPath = "OPTIONS", "*", "*" })},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, parse(t, new(Parser), c.raw)); diff != "" {
				t.Errorf("ParseRequest(%q): want -, got +\n%s", c.raw, diff)
			}
		})
	}
}

func TestRequestNeutralised(t *testing.T) {
	for _, c := range []struct{ name, fields, header, upgrade string }{
		{"hop by hop", "Keep-Alive: 5\r\nProxy-Connection: close\r\nConnection: keep-alive\r\nA: b\r\n", "A=b;", ""},
		{"named by Connection", "Connection: x-a, close\r\nX-A: 1\r\nX-B: 2\r\nx-a: 3\r\nConnection: X-C\r\nx_c: 4\r\n", "X-B=2;", ""},
		{"credentials named by Connection", "Authorization: b\r\nCookie: c\r\nConnection: authorization\r\n", "Cookie=c;", ""},
		{"Host named by Connection", "Connection: host, content-length, transfer-encoding\r\n", "", ""},
		{"twins of framing fields", "Transfer_Encoding: chunked\r\nContent_Length: 9\r\nKeep_Alive: 1\r\nproxy_connection: 1\r\nA_B: c\r\n",
			"A_B=c;", ""},
		{"other names that look alike", "Transfer-%45ncoding: chunked\r\nTransfer--Encoding: a\r\nXContent-Length: 3\r\n",
			"Transfer-%45ncoding=chunked;Transfer--Encoding=a;XContent-Length=3;", ""},
		{"TE", "TE: gzip, Trailers;q=1\r\nConnection: TE\r\n", "", ""},
		{"TE trailers", "TE: gzip, Trailers\r\nTE: trailers\r\nConnection: te\r\n", "TE=Trailers;", ""},
		{"TE that Connection does not name", "TE: trailers\r\n", "", ""},
		{"websocket", "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n",
			"Sec-WebSocket-Version=13;", "WebSocket"},
		{"websocket among others", "Connection: upgrade\r\nUpgrade: h2c, websocket\r\n", "", "websocket"},
		{"websocket in a second field", "Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n", "", "websocket"},
		{"websocket that Connection does not name", "Upgrade: websocket\r\n", "", ""},
		{"h2c", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nContent-Length: 3\r\n", "", ""},
		{"HTTP2-Settings alone", "http2_settings: AAMAAABk\r\nHTTP2-Settings: x\r\n", "", ""},
		{"unknown protocol", "Connection: Upgrade\r\nUpgrade: foo/2\r\n", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := parse(t, new(Parser), "GET / HTTP/1.1\r\nHost: a\r\n"+c.fields+"\r\n")
			if v.Header != c.header || v.Upgrade != c.upgrade || v.Host != "a" {
				t.Errorf("with %q: header %q, upgrade %q, host %q, want %q, %q, a", c.fields, v.Header, v.Upgrade, v.Host, c.header, c.upgrade)
			}
		})
	}
}

func TestRequestUpgrades(t *testing.T) {
	p := &Parser{Upgrades: []string{"foo/2"}}
	if v := parse(t, p, "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: FOO/2\r\n\r\n"); v.Upgrade != "FOO/2" {
		t.Errorf("upgrade %q, want FOO/2", v.Upgrade)
	}
	if v := parse(t, p, "GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"); v.Upgrade != "" {
		t.Errorf("upgrade %q in HTTP/1.0, want none", v.Upgrade)
	}
}

// refusals are requests that are refused, by the class of hole that they try. Each is "status reason: request", where the request
// is completed: "⏎" is CRLF, and a head without Host gets one.
var refusals = map[string][]string{
	"SmugglingBothLengths": {
		"400 ambiguous_length: POST / HTTP/1.1⏎Content-Length: 3⏎Transfer-Encoding: chunked⏎⏎",
		"400 ambiguous_length: POST / HTTP/1.1⏎Transfer-Encoding: chunked⏎Content-Length: 0⏎⏎",
		"400 ambiguous_length: POST / HTTP/1.1⏎Content-Length: 3⏎Transfer-Encoding: identity⏎⏎",
	},
	"SmugglingContentLength": {
		"400 bad_content_length: POST / HTTP/1.1⏎Content-Length: 3⏎Content-Length: 3⏎⏎",
		"400 bad_content_length: POST / HTTP/1.1⏎Content-Length: 3⏎Content-Length: 4⏎⏎",
		"400 bad_content_length: POST / HTTP/1.1⏎Content-Length: 3, 3⏎⏎",
		"400 bad_content_length: POST / HTTP/1.1⏎Content-Length: +3⏎⏎",
		"400 bad_content_length: POST / HTTP/1.1⏎Content-Length: -3⏎⏎",
		"400 bad_content_length: POST / HTTP/1.1⏎Content-Length:⏎⏎",
		"400 bad_content_length: POST / HTTP/1.1⏎Content-Length: 03⏎⏎",
		"400 bad_content_length: POST / HTTP/1.1⏎Content-Length: 0x3⏎⏎",
		"400 bad_content_length: POST / HTTP/1.1⏎Content-Length: 3 3⏎⏎",
		"400 bad_content_length: POST / HTTP/1.1⏎Content-Length: 1e1⏎⏎",
		"400 bad_content_length: POST / HTTP/1.1⏎Content-Length: 9999999999999999999⏎⏎",
	},
	"SmugglingTransferEncoding": {
		"400 bad_transfer_encoding: POST / HTTP/1.1⏎Transfer-Encoding: chunked, chunked⏎⏎",
		"400 bad_transfer_encoding: POST / HTTP/1.1⏎Transfer-Encoding: chunked⏎Transfer-Encoding: chunked⏎⏎",
		"400 bad_transfer_encoding: POST / HTTP/1.1⏎Transfer-Encoding: chunked, identity⏎⏎",
		"400 bad_transfer_encoding: POST / HTTP/1.1⏎Transfer-Encoding: xchunked⏎⏎",
		"400 bad_transfer_encoding: POST / HTTP/1.1⏎Transfer-Encoding: \"chunked\"⏎⏎",
		"400 bad_transfer_encoding: POST / HTTP/1.1⏎Transfer-Encoding: chunked;a=b⏎⏎",
		"400 bad_transfer_encoding: POST / HTTP/1.1⏎Transfer-Encoding: ,chunked⏎⏎",
		"400 bad_transfer_encoding: POST / HTTP/1.1⏎Transfer-Encoding: chunked,⏎⏎",
		"400 bad_transfer_encoding: POST / HTTP/1.1⏎Transfer-Encoding:⏎⏎",
		"400 bad_transfer_encoding: POST / HTTP/1.0⏎Transfer-Encoding: chunked⏎⏎",
		"501 unsupported_transfer_encoding: POST / HTTP/1.1⏎Transfer-Encoding: gzip, chunked⏎⏎",
		"501 unsupported_transfer_encoding: POST / HTTP/1.1⏎Transfer-Encoding: gzip⏎Transfer-Encoding: chunked⏎⏎",
	},
	"SmugglingLines": {
		"400 bad_request_line: GET / HTTP/1.1\nHost: a⏎⏎",
		"400 bad_request_line: GET / HTTP/1.1\rX: y⏎⏎",
		"400 bad_request_line: \nGET / HTTP/1.1⏎⏎",
		"400 bad_request_line: \rGET / HTTP/1.1⏎⏎",
		"400 bad_request_line: ⏎⏎⏎GET / HTTP/1.1⏎⏎",
		"400 bad_header: GET / HTTP/1.1⏎X: y\nZ: z⏎⏎",
		"400 bad_header: GET / HTTP/1.1⏎X: y\rZ: z⏎⏎",
		"400 bad_header: GET / HTTP/1.1⏎X: y\r\r\n⏎",
		"400 bad_header: GET / HTTP/1.1⏎X: y⏎\n",
		"400 bad_header: GET / HTTP/1.1⏎X: y⏎\rZ",
		"400 bad_header: GET / HTTP/1.1⏎X: y⏎ z⏎⏎",
		"400 bad_header: GET / HTTP/1.1⏎X: y⏎\tz⏎⏎",
		"400 bad_header: GET / HTTP/1.1⏎ X: y⏎⏎",
		"400 bad_header: GET / HTTP/1.1⏎X⏎⏎",
	},
	"SmugglingFields": {
		"400 bad_header: GET / HTTP/1.1⏎X : y⏎⏎",
		"400 bad_header: GET / HTTP/1.1⏎X\t: y⏎⏎",
		"400 bad_header: GET / HTTP/1.1⏎: y⏎⏎",
		"400 bad_header: GET / HTTP/1.1⏎X Y: y⏎⏎",
		"400 bad_header: GET / HTTP/1.1⏎X\x00: y⏎⏎",
		"400 bad_header: GET / HTTP/1.1⏎(X): y⏎⏎",
		"400 bad_header: GET / HTTP/1.1⏎X\xff: y⏎⏎",
		"400 bad_header: GET / HTTP/1.1⏎X: \x00⏎⏎",
		"400 bad_header: GET / HTTP/1.1⏎X: a\x0bb⏎⏎",
		"400 bad_header: GET / HTTP/1.1⏎X: \x7f⏎⏎",
		"400 bad_connection: GET / HTTP/1.1⏎Connection: a b⏎⏎",
		"400 bad_connection: GET / HTTP/1.1⏎Connection: " + strings.Repeat("a,", 65) + "⏎⏎",
		"417 unknown_expectation: POST / HTTP/1.1⏎Expect: 200-ok⏎⏎",
		"417 unknown_expectation: POST / HTTP/1.1⏎Expect: 100-continue⏎Expect: x⏎⏎",
	},
	"RequestLine": {
		"400 bad_request_line: GET  / HTTP/1.1⏎⏎",
		"400 bad_request_line: GET /  HTTP/1.1⏎⏎",
		"400 bad_request_line: GET / HTTP/1.1 ⏎⏎",
		"400 bad_request_line: GET / x HTTP/1.1⏎⏎",
		"400 bad_request_line: GET\t/ HTTP/1.1⏎⏎",
		"400 bad_request_line:  GET / HTTP/1.1⏎⏎",
		"400 bad_request_line: GET HTTP/1.1⏎⏎",
		"400 bad_request_line: GET /⏎⏎",
		"400 bad_request_line: G@T / HTTP/1.1⏎⏎",
		"400 bad_request_line: GET /\x00 HTTP/1.1⏎⏎",
		"400 bad_request_line: GET / http/1.1⏎⏎",
		"400 bad_request_line: GET / HTTP/1.10⏎⏎",
		"400 bad_request_line: GET / HTTP/11⏎⏎",
		"400 bad_request_line: GET / HTTP/1,1⏎⏎",
		"400 bad_request_line: GET / HTTPS/1.1⏎⏎",
		"400 bad_request_line: \x16\x03\x01\x02",
		"505 unsupported_version: GET / HTTP/1.2⏎⏎",
		"505 unsupported_version: GET / HTTP/0.9⏎⏎",
		"505 unsupported_version: PRI * HTTP/2.0⏎⏎",
	},
	"Target": {
		"400 connect_not_allowed: CONNECT a:80 HTTP/1.1⏎⏎",
		"400 connect_not_allowed: CONNECT / HTTP/1.1⏎⏎",
		"400 bad_target: GET * HTTP/1.1⏎⏎",
		"400 bad_target: OPTIONS ** HTTP/1.1⏎⏎",
		"400 bad_target: GET a HTTP/1.1⏎⏎",
		"400 bad_target: GET a:80 HTTP/1.1⏎⏎",
		"400 bad_target: GET ?a HTTP/1.1⏎⏎",
		"400 bad_target: GET /# HTTP/1.1⏎⏎",
		"400 bad_target: GET /a?b#c HTTP/1.1⏎⏎",
		"400 bad_target: GET /\xc3\xa9 HTTP/1.1⏎⏎",
		"400 bad_target: GET /?a=%4 HTTP/1.1⏎⏎",
		"400 bad_target: GET http:a HTTP/1.1⏎⏎",
		"400 bad_target: GET ftp://a/ HTTP/1.1⏎⏎",
		"400 bad_path: GET /%4 HTTP/1.1⏎⏎",
		"400 bad_path: GET /%zz HTTP/1.1⏎⏎",
		"400 bad_path: GET /a%00b HTTP/1.1⏎⏎",
		"400 bad_path: GET /a//../b HTTP/1.1⏎⏎",
		"400 bad_path: GET http://a/%4 HTTP/1.1⏎⏎",
	},
	"Host": {
		"400 missing_host: GET / HTTP/1.1⏎X: y⏎⏎",
		"400 missing_host: GET http://a/ HTTP/1.1⏎X: y⏎⏎",
		"400 bad_host: GET / HTTP/1.1⏎Host: a⏎Host: a⏎⏎",
		"400 bad_host: GET / HTTP/1.0⏎Host: a⏎Host: b⏎⏎",
		"400 bad_host: GET / HTTP/1.1⏎Host:⏎⏎",
		"400 bad_host: GET / HTTP/1.1⏎Host:⏎Host: a⏎⏎",
		"400 bad_host: GET / HTTP/1.1⏎Host: a, b⏎⏎",
		"400 bad_host: GET / HTTP/1.1⏎Host: u@a⏎⏎",
		"400 bad_host: GET / HTTP/1.1⏎Host: a/b⏎⏎",
		"400 bad_host: GET / HTTP/1.1⏎Host: a:x⏎⏎",
		"400 bad_host: GET / HTTP/1.1⏎Host: a:65536⏎⏎",
		"400 bad_host: GET / HTTP/1.1⏎Host: a:0⏎⏎",
		"400 host_mismatch: GET http://a:/ HTTP/1.1⏎Host: a:081⏎⏎",
		"400 bad_host: GET http://u:p@a/ HTTP/1.1⏎Host: a⏎⏎",
		"400 bad_host: GET http:/// HTTP/1.1⏎Host: a⏎⏎",
		"400 bad_host: GET http://a\\@b/ HTTP/1.1⏎Host: a⏎⏎",
		"400 host_mismatch: GET http://b/ HTTP/1.1⏎Host: a⏎⏎",
		"400 host_mismatch: GET http://a:81/ HTTP/1.1⏎Host: a⏎⏎",
		"400 host_mismatch: GET https://a/ HTTP/1.1⏎Host: a:80⏎⏎",
	},
	"Upgrade": {
		"400 upgrade_with_body: GET / HTTP/1.1⏎Connection: upgrade⏎Upgrade: websocket⏎Content-Length: 1⏎⏎",
		"400 upgrade_with_body: GET / HTTP/1.1⏎Connection: upgrade⏎Upgrade: websocket⏎Transfer-Encoding: chunked⏎⏎",
	},
}

// refused runs the refusals of one class, whole and byte by byte.
func refused(t *testing.T, class string) {
	if len(refusals[class]) == 0 {
		t.Fatalf("no refusals of class %q", class)
	}
	for _, c := range refusals[class] {
		want, raw, _ := strings.Cut(c, ": ")
		raw = strings.ReplaceAll(raw, "⏎", "\r\n")
		if class != "Host" && !strings.Contains(raw, "HTTP/1.0") {
			raw = strings.Replace(raw, "HTTP/1.1\r\n", "HTTP/1.1\r\nHost: a\r\n", 1)
		}
		for _, step := range []int{0, 1} {
			got := requestConn([]byte(raw), step)
			if got.heads != 0 || got.fault == nil || fmt.Sprint(got.fault.Status, " ", got.fault.Reason) != want {
				t.Errorf("%q in steps of %d: %v, want %s", raw, step, got, want)
			}
		}
	}
}

func TestRequestSmugglingBothLengths(t *testing.T)      { refused(t, "SmugglingBothLengths") }
func TestRequestSmugglingContentLength(t *testing.T)    { refused(t, "SmugglingContentLength") }
func TestRequestSmugglingTransferEncoding(t *testing.T) { refused(t, "SmugglingTransferEncoding") }
func TestRequestSmugglingLines(t *testing.T)            { refused(t, "SmugglingLines") }
func TestRequestSmugglingFields(t *testing.T)           { refused(t, "SmugglingFields") }
func TestRequestLine(t *testing.T)                      { refused(t, "RequestLine") }
func TestRequestTargetConfusion(t *testing.T)           { refused(t, "Target") }
func TestRequestHostConfusion(t *testing.T)             { refused(t, "Host") }
func TestRequestUpgradeWithBody(t *testing.T)           { refused(t, "Upgrade") }

func TestRequestLimits(t *testing.T) {
	limits := Limits{RequestLine: 30, HeaderBytes: 40, HeaderCount: 3}
	line := func(n int) string { return "GET /" + strings.Repeat("a", n-len("GET / HTTP/1.1")) + " HTTP/1.1\r\n" }
	fields := func(n int) string {
		return "Host: a\r\nX: " + strings.Repeat("b", n-len("Host: a\r\nX: \r\n")) + "\r\n"
	}
	for _, c := range []struct {
		raw    string
		status int
	}{
		{line(30) + fields(40) + "\r\n", 0},
		{line(31) + fields(20) + "\r\n", 414},
		{strings.Repeat("A", 100), 414},
		{line(31), 414},
		{"GET /" + strings.Repeat("a", 40) + "#", 414},
		{"GET /" + strings.Repeat("a", 40) + "# HTTP/1.1\r\n", 414},
		{line(30) + fields(41) + "\r\n", 431},
		{line(20) + "Host: a\r\nX: " + strings.Repeat("b", 60), 431},
		{line(20) + "Host: a\r\nX: " + strings.Repeat("b", 60) + "\x00\r\n\r\n", 431},
		{line(20) + strings.Repeat("a", 41), 431},
		{line(20) + "Host: a\r\nA:\r\nB:\r\n\r\n", 0},
		{line(20) + "Host: a\r\nA:\r\nB:\r\nC:\r\n\r\n", 431},
		{line(20) + "Host: a\r\nA:\r\nTE:\r\nC\r\n\r\n", 431},
		{line(20) + "Host: a\r\nConnection: a\r\nA:\r\nC:\r\n\r\n", 431},
		{"\r\n\r\n" + line(30) + fields(40) + "\r\n", 0},
	} {
		for _, step := range []int{1, 2, 5, len(c.raw)} {
			p := Parser{Limits: limits}
			var r exchange.Request
			var f *Fault
			n := 0
			for end := step; n == 0 && f == nil; end += step {
				n, _, f = p.ParseRequest([]byte(c.raw[:min(end, len(c.raw))]), &r)
				if end >= len(c.raw) {
					break
				}
			}
			status := 0
			if f != nil {
				status = f.Status
			}
			if status != c.status || f == nil && n != len(c.raw) {
				t.Errorf("%q in steps of %d: %d, %v, want status %d", c.raw, step, n, f, c.status)
			}
		}
	}
}

// TestRequestDefaultLimits holds the documented numbers: at the limit it passes, one more does not.
func TestRequestDefaultLimits(t *testing.T) {
	line := func(n int) string { return "GET /" + strings.Repeat("a", n-len("GET / HTTP/1.1")) + " HTTP/1.1\r\n" }
	const host = "Host: a\r\n"
	for _, c := range []struct {
		raw    string
		status int
	}{
		{line(16<<10) + host + "\r\n", 0},
		{line(16<<10+1) + host + "\r\n", 414},
		{line(20) + host + "X: " + strings.Repeat("b", 64<<10-len(host)-5) + "\r\n\r\n", 0},
		{line(20) + host + "X: " + strings.Repeat("b", 64<<10-len(host)-4) + "\r\n\r\n", 431},
		{line(20) + host + strings.Repeat("X: y\r\n", 127) + "\r\n", 0},
		{line(20) + host + strings.Repeat("X: y\r\n", 128) + "\r\n", 431},
	} {
		got := requestConn([]byte(c.raw), 0)
		if c.status == 0 && got.complete != 1 || c.status != 0 && (got.fault == nil || got.fault.Status != c.status) {
			t.Errorf("%.40q... of %d bytes: %.200v, want status %d", c.raw, len(c.raw), got, c.status)
		}
	}
}

// TestRequestInAMovingBuffer lets the buffer grow and move while a head arrives, as the driver does.
func TestRequestInAMovingBuffer(t *testing.T) {
	want := parse(t, new(Parser), typicalRequest)
	var p Parser
	var r exchange.Request
	for end := 1; end <= len(typicalRequest); end++ {
		n, h, f := p.ParseRequest(bytes.Clone([]byte(typicalRequest[:end])), &r)
		if f != nil || n != 0 && n != len(typicalRequest) {
			t.Fatalf("after %d bytes: %d, %v", end, n, f)
		}
		if end == len(typicalRequest) {
			if diff := cmp.Diff(want, viewOf(&r, h)); diff != "" {
				t.Errorf("want -, got +\n%s", diff)
			}
		}
	}
}

// TestRequestAfterReset checks that nothing of an abandoned head, a refused head or an earlier request is left.
func TestRequestAfterReset(t *testing.T) {
	want := parse(t, new(Parser), plainRequest)
	for _, before := range []string{"POST /x HTTP/1.1\r\nHost: b\r\nConte", "\r\nGET / HTTP/1.1\r\n x", typicalRequest,
		"POST / HTTP/1.1\r\nHost: b\r\nConnection: close, upgrade\r\nUpgrade: websocket\r\nX: y\r\n\r\n"} {
		var p Parser
		var r exchange.Request
		if n, _, f := p.ParseRequest([]byte(before), &r); n == 0 && f == nil {
			p.Reset()
		}
		n, h, f := p.ParseRequest([]byte(plainRequest), &r)
		if diff := cmp.Diff(want, viewOf(&r, h)); n != len(plainRequest) || f != nil || diff != "" {
			t.Errorf("after %q: %d, %v, want -, got +\n%s", before, n, f, diff)
		}
	}
}

// TestRequestByteByByteIsLinear counts the bytes that the next call has to look at again: a long line that arrives in single
// bytes must not be scanned from its start each time.
func TestRequestByteByByteIsLinear(t *testing.T) {
	var p Parser
	var r exchange.Request
	raw := []byte("GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("b", 60_000) + "\r\n\r\n")
	scanned := 0
	for end := 1; end < len(raw); end++ {
		if n, _, f := p.ParseRequest(raw[:end], &r); n != 0 || f != nil {
			t.Fatalf("after %d bytes: %d, %v", end, n, f)
		}
		scanned += end - max(p.pos, min(p.seen, end))
	}
	if scanned > 4*len(raw) {
		t.Errorf("%d bytes are left to scan again over %d calls", scanned, len(raw))
	}
	if n, _, f := p.ParseRequest(raw, &r); n != len(raw) || f != nil {
		t.Errorf("ParseRequest = %d, %v, want %d", n, f, len(raw))
	}
}

func TestRequestAllocations(t *testing.T) {
	for name, raw := range map[string]string{
		"browser": typicalRequest, "plain": plainRequest,
		"respelt":   "GET /%7e/../A|b?%41 HTTP/1.1\r\nHost: Example.COM\r\n\r\n",
		"nominated": "GET / HTTP/1.1\r\nHost: a\r\nConnection: x, te, upgrade\r\nX: y\r\nTE: trailers\r\nUpgrade: websocket\r\n\r\n",
		"absolute":  "GET http://Example.com?a HTTP/1.1\r\nHost: example.com\r\n\r\n",
		"refused":   "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
	} {
		buf := []byte(raw)
		var p Parser
		var r exchange.Request
		if n := testing.AllocsPerRun(100, func() { p.ParseRequest(buf, &r) }); n != 0 {
			t.Errorf("%s: ParseRequest allocates %v times, want 0", name, n)
		}
	}
}
