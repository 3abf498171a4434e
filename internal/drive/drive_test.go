package drive_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/secret"
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

// TestTLS: the same over TLS, with requests behind each other on one connection.
func TestTLS(t *testing.T) {
	pair := edgetest.Certificate(t, "shop.example")
	b := script(t, nil, "HTTP/1.1 200 OK\nContent-Length: 1\n\n1", "HTTP/1.1 200 OK\nContent-Length: 1\n\n2", "HTTP/1.1 200 OK\nContent-Length: 1\n\n3")
	r := one(t, b, func(o *edgetest.Options) {
		o.Listener = func(l *ir.Listener) {
			l.Protocol, l.TLS = ir.HTTPS, &ir.TLS{Certificates: []ir.Certificate{{Handle: "Secret/test/tls"}}}
		}
		o.Secrets = secret.Set{"Secret/test/tls": pair.Material}
	})
	nc, err := tls.Dial("tcp", r.Addr, &tls.Config{RootCAs: pair.Pool, ServerName: "shop.example"})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c := &edgetest.Client{Conn: nc, T: t, R: bufio.NewReader(nc)}
	c.Send("GET / HTTP/1.1\nHost: shop.example\n\n")
	if _, body := c.Read("GET"); body != "1" {
		t.Errorf("body = %q, want 1", body)
	}
	c.Send("GET / HTTP/1.1\nHost: shop.example\n\nGET / HTTP/1.1\nHost: shop.example\n\n")
	for _, want := range []string{"2", "3"} {
		if _, body := c.Read("GET"); body != want {
			t.Errorf("body = %q, want %q", body, want)
		}
	}
}
