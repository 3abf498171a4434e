package http1

import (
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// typicalRequest is what a browser sends: ten fields.
const typicalRequest = "GET /shop/items/4711?page=2&sort=price HTTP/1.1\r\n" +
	"Host: shop.example.com\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n" +
	"Accept-Language: en-US,en;q=0.5\r\n" +
	"Accept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Referer: https://shop.example.com/shop/items?page=1\r\n" +
	"Cookie: session=8f14e45fceea167a5a36dedd4bea2543; theme=dark\r\n" +
	"Connection: keep-alive\r\n" +
	"If-None-Match: \"33a64df551425fcc55e4d42a148795d9f25f89d4\"\r\n" +
	"Cache-Control: max-age=0\r\n\r\n"

const typicalResponse = "HTTP/1.1 200 OK\r\n" +
	"Server: nginx/1.26.2\r\n" +
	"Date: Tue, 28 Jul 2026 01:02:03 GMT\r\n" +
	"Content-Type: application/json; charset=utf-8\r\n" +
	"Content-Length: 5120\r\n" +
	"Connection: keep-alive\r\n" +
	"Vary: Accept-Encoding\r\n" +
	"ETag: \"33a64df551425fcc55e4d42a148795d9f25f89d4\"\r\n" +
	"Cache-Control: private, max-age=60\r\n" +
	"X-Request-Id: 7b1f0c1e-77d5-4f0e-9f5e-1c3a6d1b2c3d\r\n\r\n"

// plainRequest is what a load generator sends.
const plainRequest = "GET /r/0500/x HTTP/1.1\r\nHost: shop.example.com\r\n\r\n"

func benchmarkRequest(b *testing.B, raw string) {
	buf := []byte(raw)
	var p Parser
	var r exchange.Request
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		if n, _, f := p.ParseRequest(buf, &r); n != len(buf) || f != nil {
			b.Fatal(n, f)
		}
	}
}

func BenchmarkParseRequest(b *testing.B) {
	b.Run("browser", func(b *testing.B) { benchmarkRequest(b, typicalRequest) })
	b.Run("plain", func(b *testing.B) { benchmarkRequest(b, plainRequest) })
	b.Run("escaped path", func(b *testing.B) {
		benchmarkRequest(b, "GET /a/%7Euser/./b%2dc/../d HTTP/1.1\r\nHost: Shop.Example.com\r\n\r\n")
	})
}

func BenchmarkParseResponse(b *testing.B) {
	buf := []byte(typicalResponse)
	var p Parser
	var r exchange.Response
	method := []byte("GET")
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		if n, _, f := p.ParseResponse(buf, method, &r); n != len(buf) || f != nil {
			b.Fatal(n, f)
		}
	}
}

func BenchmarkAppendRequest(b *testing.B) {
	var p Parser
	var r exchange.Request
	_, h, _ := p.ParseRequest([]byte(typicalRequest), &r)
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = AppendRequest(out[:0], &r, r.RawPath, h.Framing)
	}
	b.SetBytes(int64(len(out)))
}

func BenchmarkAppendResponse(b *testing.B) {
	var p Parser
	var r exchange.Response
	_, h, _ := p.ParseResponse([]byte(typicalResponse), []byte("GET"), &r)
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = AppendResponse(out[:0], &r, h.Framing, false)
	}
	b.SetBytes(int64(len(out)))
}

func BenchmarkChunks(b *testing.B) {
	var body []byte
	for range 16 {
		body = AppendChunkHead(body, 1024)
		body = append(body, make([]byte, 1024)...)
		body = append(body, '\r', '\n')
	}
	body = AppendTrailer(body, nil)
	var c Chunks
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		c.Reset()
		for rest, done := body, false; !done; {
			_, n, end, f := c.Next(rest, nil)
			if f != nil {
				b.Fatal(f)
			}
			rest, done = rest[n:], end
		}
	}
}
