package drive_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
)

// script answers each request of a connection with the next text, in which "\n" stands for CRLF, and tells what came.
func script(t *testing.T, seen chan<- string, answers ...string) string {
	return edgetest.Backend(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		for _, a := range answers {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			body, err := io.ReadAll(req.Body)
			if seen != nil {
				seen <- fmt.Sprintf("%s %s %s %q %v", req.Method, req.RequestURI, req.Host, body, err)
			}
			if _, err := io.WriteString(c, strings.ReplaceAll(a, "\n", "\r\n")); err != nil {
				return
			}
		}
	})
}

func TestForward(t *testing.T) {
	seen := make(chan string, 8)
	b := script(t, seen, "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", "HTTP/1.1 404 Not Found\nTransfer-Encoding: chunked\n\n3\nabc\n0\n\n")
	r := edgetest.New(t, edgetest.Options{Config: edgetest.Simple(), Clusters: map[string][]string{"c": {b}}, Steps: edgetest.Steps()})
	c := r.Dial()
	c.Send("GET /a?b=c HTTP/1.1\nHost: example.com\n\n")
	res, body := c.Read("GET")
	if res.StatusCode != 200 || body != "hello" {
		t.Errorf("got %d %q, want 200 hello", res.StatusCode, body)
	}
	if got, want := <-seen, `GET /a?b=c example.com "" <nil>`; got != want {
		t.Errorf("backend saw %s, want %s", got, want)
	}
	c.Send("POST /x HTTP/1.1\nHost: example.com\nContent-Length: 4\n\nbody")
	res, body = c.Read("POST")
	if res.StatusCode != 404 || body != "abc" {
		t.Errorf("got %d %q, want 404 abc", res.StatusCode, body)
	}
	if got, want := <-seen, `POST /x example.com "body" <nil>`; got != want {
		t.Errorf("backend saw %s, want %s", got, want)
	}
}
