package http1

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// decode runs a body through Chunks in steps and tells "data|trailer|rest" or the fault.
func decode(c *Chunks, raw string, step int) string {
	c.Reset()
	var buf, body []byte
	var trailer exchange.Header
	for rest := []byte(raw); ; {
		data, n, done, f := c.Next(buf, &trailer)
		if f != nil {
			return fmt.Sprint(f.Status, " ", f.Reason)
		}
		body = append(body, data...)
		buf = buf[n:]
		if done {
			s := string(body) + "|"
			for _, f := range trailer.All() {
				s += fmt.Sprintf("%s=%s;", f.Name, f.Value)
			}
			return s + "|" + string(buf) + string(rest)
		}
		if n > 0 {
			continue
		}
		if len(rest) == 0 {
			return fmt.Sprintf("%s... %q is left", body, buf)
		}
		k := min(step, len(rest))
		buf, rest = append(buf[:len(buf):len(buf)], rest[:k]...), rest[k:]
	}
}

func TestChunks(t *testing.T) {
	for _, c := range []struct{ name, raw, want string }{
		{"empty", "0\r\n\r\n", "||"},
		{"one", "5\r\nhello\r\n0\r\n\r\n", "hello||"},
		{"several", "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", "hello world||"},
		{"what follows stays", "1\r\na\r\n0\r\n\r\nGET / HTTP/1.1", "a||GET / HTTP/1.1"},
		{"hexadecimal", "a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n", "01234567890123456789a||"},
		{"leading zeros", "0000000000000001\r\na\r\n000\r\n\r\n", "a||"},
		{"framing within data", "7\r\n0\r\n\r\n\r\n\r\n0\r\n\r\n", "0\r\n\r\n\r\n||"},
		{"trailers", "0\r\nA: b\r\nc:\td \r\n\r\nX", "|A=b;c=d;|X"},
		{"trailers that say too much", "0\r\nA: 1\r\nAuthorization: x\r\nCookie: y\r\nContent-Type: z\r\nX_Forwarded_For: 1\r\nIf-Match: *\r\n" +
			"Connection: A\r\nContent_Length: 3\r\nCONTENT_TYPE: q\r\nIffy: 1\r\nAge2: 2\r\n\r\n", "|A=1;Iffy=1;Age2=2;|"},
		{"extensions", "1;a\r\nx\r\n1;a=b;c=\"d\\\" ;\te\"\r\ny\r\n0;z=1\r\n\r\n", "xy||"},
		{"bad white space in extensions", "1; a ;\tb = c ; d=\"\" \t; e\r\nx\r\n0\r\n\r\n", "x||"},
		{"not complete", "5\r\nhel", `hel... "" is left`},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, step := range []int{1, 2, 3, len(c.raw)} {
				if got := decode(new(Chunks), c.raw, step); got != c.want {
					t.Errorf("%q in steps of %d: %q, want %q", c.raw, step, got, c.want)
				}
			}
		})
	}
}

func TestChunksSmuggling(t *testing.T) {
	for class, raws := range map[string][]string{
		"400 bad_chunk": {
			"\r\n", "\n", "x\r\n", "-1\r\n", "+1\r\n", "0x1\r\n", " 1\r\n", "1 \r\n", "1\t\r\n", "1 ;a\r\n", "1\n", "1\r1", "1\r\r\n", "1,\r\n", "1.\r\n",
			"00000000000000000\r\n", "8000000000000000\r\n", "ffffffffffffffff\r\n", "10000000000000000\r\n",
			"1;\r\n", "1;;a\r\n", "1;=a\r\n", "1;a=\r\n", "1;a\n", "1;\n", "1;a=b\n", "1;a=\"b\r\n", "1;a=\"b\n\"", "1;a=\"\"c\r\n", "1;a b\r\n", "1;a=b c\r\n", "1;a \r\n",
			"1;a=b \r\n", "1;a\x00\r\n", "1;[\r\n", "1;a=\"\x7f\"\r\n", "1;a=\"\\\x01\"\r\n", "1;a\r1\r\n",
			"1\r\nab\r\n", "1\r\na\n", "1\r\na\rb", "1\r\na0\r\n", "1\r\n\r\n\r\n\r\n",
		},
		"400 bad_trailer": {
			"0\r\n\n", "0\r\na\r\n", "0\r\na: b\n", "0\r\n a: b\r\n", "0\r\na : b\r\n", "0\r\na: b\r\n c\r\n", "0\r\na: \x00\r\n", "0\r\na: b\rc\r\n",
			"0\r\nContent-Length: 1\r\n", "0\r\ntransfer-encoding: chunked\r\n", "0\r\nHost: a\r\n", "0\r\nGET / HTTP/1.1\r\n",
		},
	} {
		for _, raw := range raws {
			for _, step := range []int{1, len(raw)} {
				if got := decode(new(Chunks), raw, step); got != class {
					t.Errorf("%q in steps of %d: %q, want %q", raw, step, got, class)
				}
			}
		}
	}
	for _, raw := range []string{"x\r\n", "0\r\na\r\n"} {
		if got := decode(&Chunks{Response: true}, raw, 1); got != "502 upstream_bad_body" {
			t.Errorf("%q of a response: %q, want 502 upstream_bad_body", raw, got)
		}
	}
}

func TestChunksLimits(t *testing.T) {
	limits := Limits{HeaderBytes: 20, HeaderCount: 2}
	for _, c := range []struct{ name, raw, want string }{
		{"4 KiB of extensions", "1;" + strings.Repeat("a", 4094) + "=\r\n", "400 bad_chunk"}, // the CR is one too, but = is first
		{"extensions at the limit", "1;" + strings.Repeat("a", 4095) + "\r\nx\r\n0\r\n\r\n", "x||"},
		{"extensions over it", "1;" + strings.Repeat("a", 4096) + "\r\nx\r\n0\r\n\r\n", "400 chunk_extensions_too_large"},
		{"extensions over it in all", strings.Repeat("1;a\r\nx\r\n", 2049) + "0\r\n\r\n", "400 chunk_extensions_too_large"},
		{"trailer section at the limit", "0\r\na: 23456\r\nb: 23456\r\n\r\n", "|a=23456;b=23456;|"},
		{"trailer section over it", "0\r\na: 23456\r\nb: 234567\r\n\r\n", "431 trailer_too_large"},
		{"a trailer line that does not end", "0\r\n" + strings.Repeat("a", 100), "431 trailer_too_large"},
		{"trailer fields over the limit", "0\r\na:\r\nb:\r\nc:\r\n\r\n", "431 trailer_too_large"},
	} {
		for _, step := range []int{1, 7, len(c.raw)} {
			if got := decode(&Chunks{Limits: limits}, c.raw, step); got != c.want {
				t.Errorf("%s in steps of %d: %.100q, want %q", c.name, step, got, c.want)
			}
		}
	}
}

func TestChunksAfterDone(t *testing.T) {
	var c Chunks
	if _, n, done, f := c.Next([]byte("0\r\n\r\n0"), nil); n != 5 || !done || f != nil {
		t.Fatalf("Next = %d, %v, %v, want 5, done", n, done, f)
	}
	if data, n, done, f := c.Next([]byte("0\r\n\r\n"), nil); data != nil || n != 0 || !done || f != nil {
		t.Errorf("Next after the end = %q, %d, %v, %v, want nothing and done", data, n, done, f)
	}
}

func TestChunksAllocations(t *testing.T) {
	buf := []byte("5;a=b\r\nhello\r\n0\r\nA: b\r\n\r\n")
	var c Chunks
	var trailer exchange.Header
	if n := testing.AllocsPerRun(100, func() {
		c.Reset()
		if _, n, done, _ := c.Next(buf, &trailer); n != len(buf) || !done {
			t.Fatal("not done in one call")
		}
	}); n != 0 {
		t.Errorf("Next allocates %v times, want 0", n)
	}
}

func TestChunksRoundTrip(t *testing.T) {
	var raw []byte
	var trailer exchange.Header
	trailer.Append([]byte("A"), []byte("b"))
	want := ""
	for _, n := range []int{1, 9, 10, 15, 16, 255, 4096, 70000} {
		data := strings.Repeat("x", n)
		raw = append(append(AppendChunkHead(raw, n), data...), "\r\n"...)
		want += data
	}
	if got := decode(new(Chunks), string(AppendTrailer(raw, &trailer)), 1000); got != want+"|A=b;|" {
		t.Errorf("with trailer: %d bytes, want %d", len(got), len(want))
	}
	if got := decode(new(Chunks), string(AppendChunkEnd(raw)), 1000); got != want+"||" {
		t.Errorf("without trailer: %d bytes, want %d", len(got), len(want))
	}
}
