package drive_test

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// TestSlowHeadIsNeverSent: a request whose head comes slowly goes out on a kept connection too.
func TestSlowHeadIsNeverSent(t *testing.T) {
	b := edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") }))
	c := one(t, b).Dial()
	c.Send("GET / HTTP/1.1\nHost: a\n\n")
	c.Read("GET")
	c.Send("GET / HTTP/1.1\n")
	time.Sleep(200 * time.Millisecond)
	c.Send("Host: a\n\n")
	_ = c.SetReadDeadline(time.Now().Add(3 * time.Second))
	res, err := http.ReadResponse(c.R, nil)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("got %v, %v, want 200", res, err)
	}
}

// TestSlowHeadIsBlamedOnTheBackend: the time for the first byte does not run while the client sends its head.
func TestSlowHeadIsBlamedOnTheBackend(t *testing.T) {
	b := edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") }))
	d := ir.Duration(150 * time.Millisecond)
	c := one(t, b, func(o *edgetest.Options) { o.Config.Clusters[0].Traffic = &ir.Traffic{First: &d} }).Dial()
	c.Send("GET / HTTP/1.1\nHost: a\n\n")
	c.Read("GET")
	c.Send("GET / HTTP/1.1\n")
	time.Sleep(300 * time.Millisecond)
	c.Send("Host: a\n\n")
	if res, body := c.Read("GET"); res.StatusCode != 200 {
		t.Fatalf("got %d %s, want 200", res.StatusCode, body)
	}
}
