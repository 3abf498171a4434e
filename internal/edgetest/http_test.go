package edgetest_test

import (
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
)

// raw is a backend that shows each request's head as the body of an answer that says nothing else than status and length.
func raw(t *testing.T, status string) string {
	return edgetest.Backend(t, func(c net.Conn) {
		var head []byte
		for buf := make([]byte, 4096); !strings.Contains(string(head), "\r\n\r\n"); {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			head = append(head, buf[:n]...)
		}
		_, _ = c.Write([]byte("HTTP/1.1 " + status + "\r\nContent-Length: " + strconv.Itoa(len(head)) + "\r\nConnection: close\r\n\r\n" + string(head)))
	})
}

// TestAnswerWithoutDate: each final response has one Date of now, and each refusal the request id, whoever made it.
func TestAnswerWithoutDate(t *testing.T) {
	c := edgetest.Simple()
	c.Hosts[0].Routes[0].Match.Path.Value = "/app"
	r := edgetest.New(t, edgetest.Options{Config: c, Clusters: map[string][]string{"c": {raw(t, "200 OK")}}})
	for _, x := range []struct {
		name, request string
		status        int
	}{
		{"forwarded", "GET /app HTTP/1.1\nHost: a\n\n", 200},
		{"no route", "GET / HTTP/1.1\nHost: a\n\n", 404},
		{"malformed head", "GET / HTTP/1.1\nHost: a\nA : b\n\n", 400},
		{"no head", "\x16\x03\x01", 400},
		{"TRACE", "TRACE /app HTTP/1.1\nHost: a\n\n", 405},
		{"OPTIONS that ends here", "OPTIONS /app HTTP/1.1\nHost: a\nMax-Forwards: 0\n\n", 200},
	} {
		t.Run(x.name, func(t *testing.T) {
			before := time.Now().Truncate(time.Second)
			client := r.Dial()
			client.Send(x.request)
			res, body := client.Read(http.MethodGet)
			dates := res.Header.Values("Date")
			if res.StatusCode != x.status || len(dates) != 1 {
				t.Fatalf("%d, Date %q, want %d and one", res.StatusCode, dates, x.status)
			}
			if at, err := http.ParseTime(dates[0]); err != nil || at.Before(before) || at.After(time.Now()) {
				t.Errorf("Date %q (%v), want now", dates[0], err)
			}
			if id := regexp.MustCompile(`"requestId":"[0-9a-f]{32}"`); x.status >= 400 && !id.MatchString(body) {
				t.Errorf("no request id in %s", body)
			}
		})
	}
}

// TestFieldsOfTheHopForwarded: what is meant for a proxy ends at the edge, and the backend gets one spelling of the authority.
func TestFieldsOfTheHopForwarded(t *testing.T) {
	r := edgetest.New(t, edgetest.Options{Config: edgetest.Simple(), Clusters: map[string][]string{"c": {raw(t, "999 Odd\r\nProxy-Authenticate: Basic\r\nX-Odd: y")}}})
	c := r.Dial()
	c.Send("GET / HTTP/1.1\nHost: Shop.Example.:0080\nProxy: http://evil\nProxy-Authorization: Basic eA==\nProxy_Connection: a\nX-Kept: b\n\n")
	res, got := c.Read(http.MethodGet)
	if res.StatusCode != 999 || res.Header.Get("X-Odd") != "y" || res.Header.Get("Proxy-Authenticate") != "" {
		t.Errorf("%d %v, want 999 with X-Odd, without Proxy-Authenticate", res.StatusCode, res.Header)
	}
	if !strings.HasPrefix(got, "GET / HTTP/1.1\r\nHost: shop.example:80\r\n") || !strings.Contains(got, "X-Kept: b\r\n") || strings.Contains(strings.ToLower(got), "proxy") {
		t.Errorf("the backend got %q", got)
	}
}
