package edgetest_test

import (
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
)

// TestHalfClose: a client that says that it sends no more is taken for gone, and the backend's work ends, unless a policy says Wait.
func TestHalfClose(t *testing.T) {
	for _, a := range attachments {
		for _, spec := range []string{"", "halfClose: End", "halfClose: Wait"} {
			t.Run(a.name+" "+spec, func(t *testing.T) {
				asked, ended := make(chan struct{}), make(chan struct{})
				answer := make(chan struct{}, 1)
				b := edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					close(asked)
					select {
					case <-r.Context().Done():
						close(ended)
					case <-answer:
						_, _ = io.WriteString(w, "late")
					}
				}))
				s := serve(t, b, a, false, spec)
				c := edgetest.DialTo(t, s.web)
				c.Send("GET / HTTP/1.1\nHost: a\n\n")
				happens(t, asked, "the backend is asked")
				_ = c.Conn.(*net.TCPConn).CloseWrite()
				if spec != "halfClose: Wait" {
					happens(t, ended, "the backend's work ends")
					if rest, err := io.ReadAll(c.R); len(rest) > 0 {
						t.Errorf("got %q, %v; want no answer", rest, err)
					}
					return
				}
				// Long enough for a look at the client.
				select {
				case <-ended:
					t.Fatal("the backend's work was ended")
				case <-time.After(300 * time.Millisecond):
				}
				answer <- struct{}{}
				if res, body := c.Read("GET"); res.StatusCode != 200 || body != "late" {
					t.Errorf("got %d %q, want 200 late", res.StatusCode, body)
				}
			})
		}
	}
}

func happens(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(edgetest.Wait):
		t.Fatalf("it never happens that %s", what)
	}
}
