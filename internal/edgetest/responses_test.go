package edgetest_test

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
)

// wellFormed are rejects of the corpus that say nothing against the response itself, with the reason.
var wellFormed = map[string]string{
	"aiohttp/resp-parse_payload_response_with_invalid_body-1":                 "the source's test is about something else",
	"httparse/resp-response_reason_with_obs_text_byte":                        "RFC 9112 section 4 allows obs-text in a reason phrase; the edge writes its own",
	"llhttp/resp-connection-HTTP-1-1-with-keep-alive-disabled-and-204-status": "what follows the 204 is dropped with the connection",
}

// TestResponseCorpusOverTCP lets a backend answer with every response of the corpora, whole and byte by byte. What must be
// rejected never looks like a whole answer to the client, and no case gives the client a second answer or breaks the edge.
// Which responses are accepted is held by the codec's own run over the corpora.
func TestResponseCorpusOverTCP(t *testing.T) {
	var mu sync.Mutex
	var raw []byte
	var step int
	b := edgetest.Backend(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		mu.Lock()
		p, n := raw, step
		mu.Unlock()
		for s := range slices.Chunk(p, max(n, 1)) {
			if _, err := c.Write(s); err != nil {
				return
			}
		}
	})
	r := edgetest.New(t, edgetest.Options{Config: edgetest.Simple(), Steps: edgetest.Steps(), Clusters: map[string][]string{"c": {b}}})
	for _, c := range corpus(t, "http1-responses.jsonl") {
		if c.Corpus == "proxy-protocol" {
			continue // requests: the room listener runs them
		}
		for _, n := range []int{len(c.Raw), 1} {
			mu.Lock()
			raw, step = c.Raw, n
			mu.Unlock()
			status, extra, err := ask(t, r.Addr)
			key := c.Corpus + "/" + c.ID
			if c.Expect == "reject" && status < 500 && err == nil && wellFormed[key] == "" {
				t.Errorf("%s in steps of %d: the client got a whole answer %d, want 502 or a broken one\n%.300q", key, n, status, c.Raw)
			}
			if extra != "" {
				t.Errorf("%s in steps of %d: behind the answer came %q\n%.300q", key, n, extra, c.Raw)
			}
		}
	}
}

// ask sends one request and returns the answer's status, what came behind it, and the error of reading it whole.
func ask(t *testing.T, addr string) (int, string, error) {
	t.Helper()
	c := edgetest.DialTo(t, addr)
	defer c.Close()
	c.Send("GET / HTTP/1.1\nHost: a\nConnection: close\n\n")
	for {
		res, err := http.ReadResponse(c.R, &http.Request{Method: "GET"})
		if err != nil {
			return 0, "", err
		}
		if res.StatusCode < 200 && res.StatusCode != 101 {
			continue
		}
		_, err = io.Copy(io.Discard, res.Body)
		extra, _ := io.ReadAll(c.R)
		return res.StatusCode, string(extra), err
	}
}

// TestCrossUserMix: of 100,000 concurrent requests with ids of their own none gets the answer to another one, with bodies, chunks,
// pipelines, errors and clients that leave in the middle mixed in.
func TestCrossUserMix(t *testing.T) {
	total, workers := 100_000, 64
	if testing.Short() || raceEnabled {
		total = 20_000
	}
	b := edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		id := r.Header.Get("X-Id")
		if len(body) > 0 && !strings.HasPrefix(string(body), id) {
			w.WriteHeader(599)
			return
		}
		if r.URL.Path == "/drop" {
			panic(http.ErrAbortHandler)
		}
		if r.URL.Path == "/chunked" {
			_ = http.NewResponseController(w).Flush()
		}
		_, _ = io.WriteString(w, id)
	}))
	r := edgetest.New(t, edgetest.Options{Config: edgetest.Simple(), Steps: edgetest.Steps(), Clusters: map[string][]string{"c": {b}}})
	var wg sync.WaitGroup
	fail := make(chan string, workers)
	for w := range workers {
		wg.Go(func() {
			if msg := mixer(r.Addr, w, total/workers); msg != "" {
				fail <- msg
			}
		})
	}
	wg.Wait()
	close(fail)
	for msg := range fail {
		t.Error(msg)
	}
}

// mixer is one client: n requests over as many connections as it needs.
func mixer(addr string, worker, n int) string {
	rnd := rand.New(rand.NewPCG(uint64(worker), 1))
	var c net.Conn
	var br *bufio.Reader
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	for i := range n {
		if c == nil {
			var err error
			if c, err = net.Dial("tcp", addr); err != nil {
				return err.Error()
			}
			_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
			br = bufio.NewReader(c)
		}
		id := fmt.Sprintf("w%d-%d", worker, i)
		var s string
		path := "/"
		switch rnd.IntN(8) {
		case 0:
			s = fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nX-Id: %s\r\nContent-Length: %d\r\n\r\n%s", id, len(id), id)
		case 1:
			s = fmt.Sprintf("POST /chunked HTTP/1.1\r\nHost: a\r\nX-Id: %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", id, len(id), id)
		case 2:
			path = "/chunked"
		case 3:
			if rnd.IntN(4) == 0 {
				path = "/drop"
			}
		}
		if s == "" {
			s = fmt.Sprintf("GET %s HTTP/1.1\r\nHost: a\r\nX-Id: %s\r\n\r\n", path, id)
		}
		if _, err := io.WriteString(c, s); err != nil {
			return err.Error()
		}
		if rnd.IntN(200) == 0 { // leave with the answer under way
			c.Close()
			c = nil
			continue
		}
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			return fmt.Sprintf("%s %q: %v", id, s, err)
		}
		body, err := io.ReadAll(res.Body)
		switch {
		case err != nil:
			return fmt.Sprintf("%s: %v", id, err)
		case path == "/drop" && res.StatusCode == 502:
		case res.StatusCode != 200 || string(body) != id:
			return fmt.Sprintf("%s got %d %q", id, res.StatusCode, body)
		}
		if res.Close {
			c.Close()
			c = nil
		}
	}
	return ""
}
