package invalid

import (
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

func TestInvalid(t *testing.T) {
	for spec, want := range map[string]string{`{}`: "policy_invalid", `{"reason":"policy_missing","detail":"no AuthPolicy"}`: "policy_missing"} {
		step := Step()
		s, err := step.Decode([]byte(spec))
		if err != nil {
			t.Fatal(err)
		}
		h, err := s.Compile(policy.Env{})
		if err != nil {
			t.Fatal(err)
		}
		if v := h.Request(&exchange.Exchange{}); v.Status != 503 || v.Reason != want || v.Detail != s.(*Spec).Detail {
			t.Errorf("%s: %v, want 503 %s", spec, v, want)
		}
		if p := step.Phase(s); p != policy.Protect {
			t.Errorf("it runs in the phase %s, want protect: before anything is let through", p)
		}
	}
}
