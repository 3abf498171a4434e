//go:build linux

package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

func TestEnds(t *testing.T) {
	cases := []struct {
		p       string
		matched uint8
		heads   int
		state   uint8
	}{
		{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0, 1, 0},
		{"GET / HTTP/1.1\r\nHost: a\r\n", 0, 0, 2},
		{"\r\n", 2, 1, 0},
		{"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n", 0, 2, 0},
		{"GET / HTTP/1.1\r\n\r\nGET / HT", 0, 1, 0},
		{"\r\r\n\r\n", 0, 1, 0},
		{"\n", 3, 1, 0},
		{"x", 3, 0, 0},
	}
	for _, c := range cases {
		if h, s := ends([]byte(c.p), c.matched); h != c.heads || s != c.state {
			t.Errorf("ends(%q, %d) = %d, %d, want %d, %d", c.p, c.matched, h, s, c.heads, c.state)
		}
	}
}

func TestServer(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	failed := make(chan error, 1)
	go func() { failed <- run(address, 10) }()
	deadline := time.Now().Add(10 * time.Second)
	get := func(path string) string {
		for {
			resp, err := http.Get("http://" + address + path)
			if err == nil {
				defer resp.Body.Close()
				b, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				return string(b)
			}
			select {
			case err := <-failed:
				t.Fatal(err)
			default:
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
	for i := range 3 {
		if got := get("/api"); got != "xxxxxxxxxx" {
			t.Errorf("answer %d = %q, want 10 bytes", i, got)
		}
		if got, want := get("/-/count"), fmt.Sprint(i+1); got != want {
			t.Errorf("count = %s, want %s", got, want)
		}
	}
}
