package drive

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/upstream"
)

// TestEndOfABodyHoldsTheNextRequestBack: a pump that ends behind the last read of its response leaves a deadline in the past on the
// connection. The next request on it must set its own: under one that has passed nothing is written, and the answer is waited for in vain.
func TestEndOfABodyHoldsTheNextRequestBack(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	defer s.Close()
	set := upstream.NewSet(upstream.Rules{})
	c := set.Acquire("c")
	c.Configure(upstream.NewSettings(&ir.Cluster{}, nil, ""))
	c.SetEndpoints([]upstream.Resolved{{Addr: netip.MustParseAddrPort(s.Listener.Addr().String()), Ready: true}})
	e := c.All()[0]
	d := &Driver{Clusters: set, Log: slog.New(slog.DiscardHandler)}
	conn, err := d.connection(&errand{c: c, e: e, limit: 5 * time.Second}, time.Now().Add(5*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	e.Begin()
	w := &work{d: d, up: conn}
	w.setDeadline(time.Now(), time.Now(), 0) // for the read that got the response
	p := &w.pump
	p.running, p.up, p.finished, p.done = true, conn, true, make(chan struct{})
	p.end()
	close(p.done)
	w.ubody.end = true
	w.settle()
	next := e.Take(time.Now())
	if next == nil {
		t.Fatal("the connection was not kept")
	}
	defer next.Close()
	w = &work{d: d, up: next}
	w.setDeadline(time.Now(), time.Now(), 0)
	if err := next.IO.(*wire).roundTrip([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), make([]byte, 100), false); err != nil {
		t.Errorf("the next request: %v", err)
	}
}
