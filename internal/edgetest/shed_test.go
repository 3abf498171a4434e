package edgetest_test

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/listener"
	"github.com/gatehouse-io/gatehouse/internal/proxy"
)

// TestHalfHeadsAreShedBeforeAnythingIsRefused: from 80 % on, clients that sent a part of a head are closed, the longest first, while requests
// are still answered.
func TestHalfHeadsAreShedBeforeAnythingIsRefused(t *testing.T) {
	r, set := fill(t, says(t, "x"))
	half := r.Dial()
	half.Send("GET / HTTP/1.1\nHost: a\nX: " + strings.Repeat("a", 3000))
	set(899, proxy.LoadNormal)
	for limit := time.Now().Add(edgetest.Wait); r.Edge.Listeners().ShedCount(listener.Heading) == 0; runtime.Gosched() {
		if time.Now().After(limit) {
			t.Fatal("the half head was not shed")
		}
	}
	if b, err := half.R.ReadByte(); err == nil {
		t.Errorf("the client whose head is not complete read %q, want its connection closed", b)
	}
	c := r.Dial()
	c.Send("GET / HTTP/1.1\nHost: a\n\n")
	if res, body := c.Read("GET"); res.StatusCode != 200 || body != "x" {
		t.Errorf("got %d %q, want 200", res.StatusCode, body)
	}
	if n := r.Edge.Listeners().ShedCount(listener.Heading); n != 1 {
		t.Errorf("%d half heads were shed, want 1", n)
	}
}
