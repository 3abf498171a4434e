package limit

import (
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/limiter"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// TestFailuresUntold: who passes is told of the limits that counted the request, not of the one that counts wrong credentials.
func TestFailuresUntold(t *testing.T) {
	l := limiter.New(limiter.Options{})
	defer l.Close()
	early := Early()
	spec, err := early.Decode([]byte(`{"all":{"rates":[{"limit":100,"period":"1m"}]},"wrong":{"count":"AuthenticationFailures","rates":[{"limit":1,"period":"1h"}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	h, err := spec.Compile(policy.Env{Limiter: l, Sources: map[string]string{"": "RateLimitPolicy shop/a", "wrong": "RateLimitPolicy shop/b"}})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	x := &exchange.Exchange{Start: start, AuthFailed: true}
	if v := h.Request(x); v.Status != 0 || x.Limit.Name != `"all"` {
		t.Errorf("the first request: %d, told of %s; want that it passes and is told of all", v.Status, x.Limit.Name)
	}
	h.Done(x)
	x = &exchange.Exchange{Start: start}
	if v := h.Request(x); v.Status != 429 || x.Limit.Name != `"wrong"` {
		t.Errorf("after a wrong credential: %d, told of %s; want 429 by wrong", v.Status, x.Limit.Name)
	}
	h.Done(x)
	x = &exchange.Exchange{Start: start, Dry: true}
	if v, want := h.Request(x), "all (shop/a) applies, 98 left; wrong (shop/b) applies, would refuse: rate_limited"; v.Detail != want {
		t.Errorf("explained: %q, want %q", v.Detail, want)
	}
}
