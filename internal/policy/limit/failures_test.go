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

// TestNamesTold: no two parts of a limit have the same name for clients.
func TestNamesTold(t *testing.T) {
	const rate, quota = `{"limit":5,"period":"1m"}`, `"quota":{"limit":3,"window":"Month"}`
	for _, tt := range []struct{ spec, want string }{
		{`"rates":[` + rate + `]`, `"a";q=5;w=60`},
		{quota, `"a";q=3`},
		{`"rates":[` + rate + `],` + quota, `"a-quota";q=3`},
		{`"rates":[{"limit":9,"period":"1m"},` + rate + `]`, `"a-2";q=5;w=60`},
	} {
		l := limiter.New(limiter.Options{})
		early := Early()
		spec, err := early.Decode([]byte(`{"a":{` + tt.spec + `}}`))
		if err != nil {
			t.Fatal(err)
		}
		h, err := spec.Compile(policy.Env{Limiter: l})
		if err != nil {
			t.Fatal(err)
		}
		x := &exchange.Exchange{Start: time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)}
		h.Request(x)
		if x.Limit.Policy != tt.want {
			t.Errorf("%s is told as %s, want %s", tt.spec, x.Limit.Policy, tt.want)
		}
		h.Done(x)
		l.Close()
	}
}
