package edgetest_test

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/listener"
	"github.com/gatehouse-io/gatehouse/internal/proxy"
)

// TestResponseUnderWayIsNotStalled: a backend that took its time with the head has answered; what it sends is not cut.
func TestResponseUnderWayIsNotStalled(t *testing.T) {
	addr := edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(250 * time.Millisecond)
		for range 800 {
			_, _ = w.Write(make([]byte, 1000))
			w.(http.Flusher).Flush()
			time.Sleep(5 * time.Millisecond)
		}
	}))
	r, set := fill(t, addr)
	c := r.Dial()
	c.Send("GET / HTTP/1.1\nHost: a\n\n")
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	res, err := http.ReadResponse(c.R, nil)
	if err != nil {
		t.Fatal(err)
	}
	set(960, proxy.LoadShedding)
	n, err := io.Copy(io.Discard, res.Body)
	t.Logf("status %d, %d bytes of 800000, %v; shed at waiting: %d; log %s", res.StatusCode, n, err, r.Edge.Listeners().ShedCount(listener.Stalled), r.Log.Next(t))
	if err != nil {
		t.Error("a response under way was cut")
	}
}
