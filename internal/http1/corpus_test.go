package http1

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// corpusCase is a line of the shared corpora: see their README.
type corpusCase struct {
	Corpus, ID, Expect, Level, Why string
	HeadsMax                       int `json:"heads_max"`
	CompleteMax                    int `json:"complete_max"`
	Messages                       []string
	Raw                            []byte
}

func corpus(t *testing.T, name string) []corpusCase {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "..", "..", "shared", "corpora", name))
	if err != nil {
		t.Skipf("the shared corpora are not here: %v", err)
	}
	defer f.Close()
	var cases []corpusCase
	s := bufio.NewScanner(f)
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		var c corpusCase
		if err := json.Unmarshal(s.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		cases = append(cases, c)
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	return cases
}

// chopped lists how a case is fed: bytes per read, 0 for all at once. Large cases are not fed byte by byte.
func chopped(raw []byte) []int {
	if len(raw) > 20_000 {
		return []int{0, 1009}
	}
	return []int{0, 1, 2, 3, 7, 61}
}

// requestDeviations are the cases in which we differ from the corpus, with the reason.
// There is none.
var requestDeviations = map[string]string{}

func TestCorpusRequests(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range corpus(t, "http1-requests.jsonl") {
		key := c.Corpus + "/" + c.ID
		var first string
		for _, step := range chopped(c.Raw) {
			got := requestConn(c.Raw, step)
			if step == 0 {
				first = got.String()
			} else if got.String() != first {
				t.Errorf("%s: in steps of %d: %v, whole: %v", key, step, got, first)
			}
			if fault := got.against(&c); fault != "" {
				if seen[key] = true; requestDeviations[key] == "" {
					t.Errorf("%s (%s %s): %s: %v\n%.300q", key, c.Expect, c.Why, fault, got, c.Raw)
				}
				break
			}
		}
	}
	for key := range requestDeviations {
		if !seen[key] {
			t.Errorf("%s is listed as a deviation and is none", key)
		}
	}
}

// conn is what became of one connection.
type conn struct {
	heads, complete int
	end             string // "refused", "closed", "upgraded", "in head", "in body", "idle"
	fault           *Fault
	messages        []message
}

// message is a message that was forwarded.
type message struct {
	head string // spelt anew
	body string
}

func (c conn) String() string {
	s := fmt.Sprintf("%d heads, %d complete, %s", c.heads, c.complete, c.end)
	if c.fault != nil {
		s += fmt.Sprintf(" %d %s", c.fault.Status, c.fault.Reason)
	}
	return fmt.Sprintf("%s %.2000q", s, c.messages)
}

// against says how the connection breaks what the corpus wants, or "".
func (c conn) against(want *corpusCase) string {
	if c.heads > want.HeadsMax || c.complete > want.CompleteMax {
		return fmt.Sprintf("more than %d heads or %d complete requests", want.HeadsMax, want.CompleteMax)
	}
	for i, m := range want.Messages {
		switch {
		case c.end == "closed" || c.end == "upgraded":
			if i >= c.complete {
				return ""
			}
		case i > c.complete || i == c.complete && c.end == "refused" && (m == "reject" || m == "either" || m == "incomplete"):
			return ""
		}
		switch m {
		case "accept", "accept-normalised":
			if i >= c.complete {
				return fmt.Sprintf("message %d is not accepted", i)
			}
		case "reject":
			return fmt.Sprintf("message %d is not refused", i)
		case "incomplete":
			if i < c.complete {
				return fmt.Sprintf("message %d is taken for complete", i)
			}
		}
	}
	if want.Expect == "reject" && c.end != "refused" {
		return "the connection is not refused"
	}
	return ""
}

// server is the server's side of a connection, without a backend.
type server struct {
	conn
	p      Parser
	r      exchange.Request
	h      Head
	chunks Chunks
	m      message
	left   int64
	inBody bool
	buf    []byte
}

// requestConn plays a connection on which raw arrives in steps of so many bytes, 0 for all at once.
func requestConn(raw []byte, step int) conn {
	var s server
	if step == 0 {
		step = max(len(raw), 1)
	}
	for len(raw) > 0 {
		k := min(step, len(raw))
		s.buf = append(s.buf, raw[:k]...)
		raw = raw[k:]
		for s.end == "" && s.advance() {
		}
		if s.end != "" {
			return s.conn
		}
	}
	switch {
	case s.inBody:
		s.end = "in body"
	case len(s.buf) > 0:
		s.end = "in head"
	default:
		s.end = "idle"
	}
	return s.conn
}

// advance takes the next part of a message out of the buffer, and says whether there was one.
func (s *server) advance() bool {
	if !s.inBody {
		n, h, f := s.p.ParseRequest(s.buf, &s.r)
		if f != nil {
			s.end, s.fault = "refused", f
			return false
		}
		if n == 0 {
			return false
		}
		s.h, s.inBody, s.left = h, true, s.r.ContentLength
		s.m = message{head: string(AppendRequest(nil, &s.r, s.r.RawPath, h.Framing))}
		s.heads++
		s.buf = bytes.Clone(s.buf[n:])
		s.chunks.Reset()
	}
	if s.h.Framing == Chunked {
		return s.chunk()
	}
	n := int(min(s.left, int64(len(s.buf))))
	s.m.body += string(s.buf[:n])
	s.buf = s.buf[n:]
	if s.left -= int64(n); s.left == 0 {
		s.done()
		return true
	}
	return false
}

func (s *server) chunk() bool {
	data, n, done, f := s.chunks.Next(s.buf, &s.r.Trailer)
	if f != nil {
		s.end, s.fault = "refused", f
		return false
	}
	s.m.body += string(data)
	s.buf = s.buf[n:]
	if done {
		s.m.body += "|" + string(AppendTrailer(nil, &s.r.Trailer))
		s.done()
	}
	return done || n > 0
}

// done ends a message.
func (s *server) done() {
	s.complete++
	s.messages = append(s.messages, s.m)
	s.inBody = false
	switch {
	case s.r.Upgrade != nil:
		s.end = "upgraded"
	case s.h.Close:
		s.end = "closed"
	}
}

// responseDeviations are the cases in which we differ from the corpus, with the reason. The corpus holds what clients of all
// kinds accept from servers of all kinds; an edge may be stricter towards its backends.
var responseDeviations = map[string]string{
	"aiohttp/resp-http_response_parser_obs_line_folding-1":                               strictLines,
	"aiohttp/resp-http_response_parser_lenient_headers-1":                                strictLines,
	"aiohttp/resp-http_response_parser_bad_crlf-1":                                       strictLines,
	"httparse/resp-test_response_newlines":                                               strictLines,
	"httparse/resp-test_response_empty_lines_prefix_lf_only":                             strictLines,
	"httparse/resp-test_response_no_cr":                                                  strictLines,
	"aiohttp/resp-http_response_parser_bad_chunked_lax-1":                                "white space after a chunk size is refused in both directions",
	"aiohttp/resp-http_response_parser_notchunked-1":                                     onlyChunked,
	"aiohttp/resp-http_response_parser_empty_list_te_not_chunked-1":                      onlyChunked,
	"aiohttp/resp-http_response_parser_last_chunked-1":                                   onlyChunked,
	"aiohttp/resp-parse_payload_response_with_invalid_body-1":                            "the body is well formed: the source's test is about something else",
	"aiohttp/resp-response_parser_no_body_error_message-1":                               "the body is cut off: the codec waits, the driver sees the end",
	"httparse/resp-test_response_reason_with_space_and_tab":                              "a 101 that names no protocol leaves nothing to change to",
	"httparse/resp-response_reason_with_obs_text_byte":                                   "obs-text may stand in a reason (RFC 9112 section 4), and it is not passed on",
	"llhttp/resp-connection-HTTP-1-1-with-keep-alive-disabled-and-204-status":            "the response is complete; " + afterwards,
	"llhttp/resp-connection-HTTP-101-response-with-Upgrade-and-Content-Length-header":    interimBody,
	"llhttp/resp-connection-HTTP-101-response-with-Upgrade-and-Transfer-Encoding-header": interimBody,
	"llhttp/resp-connection-HTTP-100-first-then-400":                                     emptyLines,
	"llhttp/resp-sample-Response-starting-with-CRLF":                                     emptyLines,
}

const (
	strictLines = "bare LF, folded lines and control bytes are refused in both directions"
	onlyChunked = "we ask backends for no other coding (RFC 9112 section 6.1)"
	afterwards  = "bytes that nobody asked for close the connection, which is the driver's"
	interimBody = "a 1xx response has no body (RFC 9110 section 15.2): what follows would be read in two ways"
	emptyLines  = "only a server passes over empty lines (RFC 9112 section 2.2): here they are bytes that nobody asked for"
)

func TestCorpusResponses(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range corpus(t, "http1-responses.jsonl") {
		key := c.Corpus + "/" + c.ID
		if c.Corpus == "proxy-protocol" || c.Expect == "unknown" {
			continue
		}
		var first string
		for _, step := range chopped(c.Raw) {
			got, fault := responseConn(c.Raw, step)
			if step == 0 {
				first = got
			} else if got != first {
				t.Errorf("%s: in steps of %d: %q, whole: %q", key, step, got, first)
			}
			if fault != nil && fault.Status != 502 {
				t.Errorf("%s: status %d, want 502", key, fault.Status)
			}
			if step == 0 && slices.Contains([]string{"accept", "reject"}, c.Expect) && (fault == nil) != (c.Expect == "accept") {
				if seen[key] = true; responseDeviations[key] == "" {
					t.Errorf("%s (%s): %.200q, %v\n%.300q", key, c.Expect, got, fault, c.Raw)
				}
			}
		}
	}
	for key := range responseDeviations {
		if !seen[key] {
			t.Errorf("%s is listed as a deviation and is none", key)
		}
	}
}

// responseConn plays the client's side of a connection on which raw arrives in steps as the answer to one GET, and is what it
// got, with the end that it came to.
func responseConn(raw []byte, step int) (got string, f *Fault) {
	var (
		p      Parser
		r      exchange.Response
		chunks = Chunks{Response: true}
		h      Head
		inBody bool
		buf    []byte
	)
	if step == 0 {
		step = max(len(raw), 1)
	}
	for len(raw) > 0 {
		k := min(step, len(raw))
		buf = append(buf, raw[:k]...)
		raw = raw[k:]
		for {
			if !inBody {
				n, head, f := p.ParseResponse(buf, []byte("GET"), &r)
				if f != nil {
					return got, f
				}
				if n == 0 {
					break
				}
				h = head
				inBody = r.Status >= 200
				got += string(AppendResponse(nil, &r, h.Framing, false))
				buf = bytes.Clone(buf[n:])
				continue
			}
			switch h.Framing {
			case Chunked:
				data, n, done, f := chunks.Next(buf, &r.Trailer)
				if f != nil {
					return got, f
				}
				got += string(data)
				if buf = buf[n:]; done {
					return got + "|" + string(AppendTrailer(nil, &r.Trailer)), nil
				}
				if n > 0 {
					continue
				}
			case Length:
				n := min(r.ContentLength, int64(len(buf)))
				got += string(buf[:n])
				buf = buf[n:]
				if r.ContentLength -= n; r.ContentLength == 0 {
					return got, nil
				}
			case UntilClose:
				got += string(buf)
				buf = nil
			case None:
				return got, nil
			}
			break
		}
	}
	return got, nil
}
