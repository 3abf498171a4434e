package edgetest_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
)

// corpusCase is a line of the shared corpora: see their README.
type corpusCase struct {
	Corpus, ID, Expect, Why string
	HeadsMax                int `json:"heads_max"`
	CompleteMax             int `json:"complete_max"`
	Messages                []string
	Raw                     []byte
}

func corpus(t *testing.T, name string) []corpusCase {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "..", "..", "shared", "corpora", name))
	if err != nil {
		t.Skipf("the shared corpora are not here: %v", err)
	}
	defer f.Close()
	var cases []corpusCase
	for d := json.NewDecoder(f); ; {
		var c corpusCase
		if err := d.Decode(&c); err == io.EOF {
			return cases
		} else if err != nil {
			t.Fatal(err)
		}
		cases = append(cases, c)
	}
}

// sink is a backend that counts what it gets, by the client's address.
type sink struct {
	conns sync.WaitGroup
	mu    sync.Mutex
	got   map[string]*tally
	bad   []string
}

type tally struct{ heads, complete int }

func (s *sink) count(req *http.Request, f func(*tally)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ip := req.Header.Get("X-Real-Ip")
	if s.got[ip] == nil {
		s.got[ip] = &tally{}
	}
	f(s.got[ip])
}

func (s *sink) serve(c net.Conn) {
	s.conns.Add(1)
	defer s.conns.Done()
	r := bufio.NewReader(c)
	for {
		if _, err := r.Peek(1); err != nil {
			return
		}
		req, err := http.ReadRequest(r)
		if err != nil {
			s.mu.Lock()
			s.bad = append(s.bad, err.Error())
			s.mu.Unlock()
			return
		}
		s.count(req, func(t *tally) { t.heads++ })
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
		s.count(req, func(t *tally) { t.complete++ })
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); err != nil {
			return
		}
	}
}

// tcpDeviations are the cases in which the edge differs from the corpus, with the reason.
var tcpDeviations = map[string]string{
	"http11probe/COMP-METHOD-TRACE":    traceEndsHere,
	"http11probe/COMP-TRACE-SENSITIVE": traceEndsHere,
}

const traceEndsHere = "the head is well formed, but TRACE is 405 unless a rule names it: a backend would show the client's fields and the edge's"

// TestCorpusOverTCP sends every request of the corpora to a running edge, whole and byte by byte: no reject reaches a backend
// beyond what the corpus allows, and no accept is refused.
func TestCorpusOverTCP(t *testing.T) {
	cases := corpus(t, "http1-requests.jsonl")
	s := &sink{got: map[string]*tally{}}
	r := edgetest.New(t, edgetest.Options{Config: edgetest.Simple(), Steps: edgetest.Steps(),
		Clusters: map[string][]string{"c": {edgetest.Backend(t, s.serve)}}})
	type sent struct {
		*corpusCase
		step     int
		from     string
		statuses []int
	}
	var all []sent
	for i := range cases {
		for _, step := range []int{len(cases[i].Raw), 1} {
			if step == 1 && len(cases[i].Raw) > 4096 {
				step = 1009
			}
			from := fmt.Sprintf("127.1.%d.%d", len(all)/200, 1+len(all)%200) // one address for each conversation
			all = append(all, sent{&cases[i], step, from, converse(t, from, r.Addr, cases[i].Raw, step)})
		}
	}
	s.conns.Wait() // the edge closes idle connections after some seconds; then the backend has seen all there is
	for _, x := range all {
		got := s.got[x.from]
		if got == nil {
			got = &tally{}
		}
		key := x.Corpus + "/" + x.ID
		if why := judge(x.corpusCase, x.statuses, got.heads, got.complete); why != "" && tcpDeviations[key] == "" {
			t.Errorf("%s in steps of %d (%s; %s): %s; answers %v, backend saw %d heads, %d whole\n%.300q", key, x.step, x.Expect, x.Why, why,
				x.statuses, got.heads, got.complete, x.Raw)
		}
	}
	if len(s.bad) > 0 {
		t.Errorf("the backend got something malformed: %q", s.bad)
	}
	t.Logf("%d cases, sent %d times", len(cases), len(all))
}

// judge says what is wrong with the outcome of a case, "" if nothing is.
func judge(c *corpusCase, statuses []int, heads, complete int) string {
	accepts := 0
	for _, m := range c.Messages {
		if strings.HasPrefix(m, "accept") {
			accepts++
		}
	}
	good := 0
	for _, s := range statuses {
		if s < 300 {
			good++
		}
	}
	switch {
	case heads > c.HeadsMax:
		return fmt.Sprintf("%d heads reached the backend, at most %d may", heads, c.HeadsMax)
	case complete > c.CompleteMax:
		return fmt.Sprintf("%d whole requests reached the backend, at most %d may", complete, c.CompleteMax)
	case strings.HasPrefix(c.Expect, "accept") && good < accepts:
		return fmt.Sprintf("%d of %d accepted", good, accepts)
	case c.Expect == "reject" && len(statuses) > 0 && statuses[len(statuses)-1] < 400:
		return "the last answer is not a refusal"
	}
	return ""
}

// converse sends raw in steps, says that no more follows, and returns the final statuses of all answers. The edge must end
// the connection.
func converse(t *testing.T, from, addr string, raw []byte, step int) []int {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	nc, err := d.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(edgetest.Wait))
	answers := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(nc) // an edge that has refused may reset while more is sent: what came before counts
		answers <- b
	}()
	for p := range slices.Chunk(raw, max(step, 1)) {
		if _, err := nc.Write(p); err != nil {
			break
		}
	}
	_ = nc.(*net.TCPConn).CloseWrite()
	var statuses []int
	b := bufio.NewReader(bytes.NewReader(<-answers))
	for {
		res, err := http.ReadResponse(b, nil)
		if err != nil {
			return statuses
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return statuses
		}
		if res.StatusCode >= 200 {
			statuses = append(statuses, res.StatusCode)
		}
		if res.StatusCode == 101 {
			return statuses
		}
	}
}
