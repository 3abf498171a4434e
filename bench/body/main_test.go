//go:build linux

package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestTransfers moves bodies without a proxy, of one piece, none and a bit more than some.
func TestTransfers(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(serve))
	defer s.Close()
	for _, do := range []string{"upload", "chunked", "download", "crumbs-up", "crumbs-down"} {
		for _, n := range []int64{1, piece, 3*piece + 7} {
			tr := transfer{to: s.Listener.Addr().String(), host: "localhost", path: "/x", do: do, bytes: n}
			if took, err := tr.run(); err != nil || took <= 0 {
				t.Errorf("%s of %d bytes: %v, %v", do, n, took, err)
			}
		}
	}
}

// TestTransferNotices: a body that did not arrive whole is an error.
func TestTransferNotices(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Bytes", "9")
	}))
	defer s.Close()
	for _, do := range []string{"upload", "chunked", "download", "else"} {
		tr := transfer{to: s.Listener.Addr().String(), host: "localhost", path: "/", do: do, bytes: 10}
		if _, err := tr.run(); err == nil || !strings.Contains(err.Error(), "of 10 bytes arrived") && do != "else" {
			t.Errorf("%s: error %v, want one that counts bytes", do, err)
		}
	}
}
