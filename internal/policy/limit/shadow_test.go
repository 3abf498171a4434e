package limit

import (
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/limiter"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// TestShadowAlone: a policy with nothing but limits in shadow mode counts, tells what it would have refused, and refuses nothing.
func TestShadowAlone(t *testing.T) {
	for _, tt := range []struct {
		name, spec string
		together   bool // the second request comes while the first is under way
		want       string
	}{
		{"rate", `{"a":{"mode":"Shadow","rates":[{"limit":1,"period":"1h"}]}}`, false, "rate_limited"},
		{"quota", `{"a":{"mode":"Shadow","quota":{"limit":1,"window":"Year"}}}`, false, "quota_exceeded"},
		{"concurrency", `{"a":{"mode":"Shadow","concurrency":1}}`, true, "concurrency_exceeded"},
		{"concurrency, one after the other", `{"a":{"mode":"Shadow","concurrency":1}}`, false, ""},
		{"responseCost", `{"a":{"mode":"Shadow","cost":"0","responseCost":"5","rates":[{"limit":5,"period":"1h"}]},
			"b":{"mode":"Shadow","cost":"0","rates":[{"limit":1,"period":"1h"}]}}`, false, ""},
		{"responseCost counts", `{"a":{"mode":"Shadow","responseCost":"1","rates":[{"limit":2,"period":"1h"}]}}`, false, "rate_limited"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := limiter.New(limiter.Options{})
			defer l.Close()
			early := Early()
			spec, err := early.Decode([]byte(tt.spec))
			if err != nil {
				t.Fatal(err)
			}
			h, err := spec.Compile(policy.Env{Target: "RateLimitPolicy/shop/a", Limiter: l})
			if err != nil {
				t.Fatal(err)
			}
			if h.Request == nil {
				t.Fatal("Compile made no hooks: nothing would be counted")
			}
			start := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
			ask := func() *exchange.Exchange {
				x := &exchange.Exchange{Start: start}
				if v := h.Request(x); v.Status != 0 || v.Wait != nil {
					t.Fatalf("Request = %+v, want that it passes", v)
				}
				h.Response(x)
				return x
			}
			first := ask()
			if !tt.together {
				h.Done(first)
			}
			second := ask()
			h.Done(second)
			got := ""
			if len(second.Shadow) > 0 {
				got = second.Shadow[0].Reason
			}
			if got != tt.want || len(first.Shadow) > 0 {
				t.Errorf("the second request: %q (%+v), want %q", got, first.Shadow, tt.want)
			}
		})
	}
}
