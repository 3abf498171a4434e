// Package invalid stands in for a policy that cannot be applied as written: every request it reaches is refused, and nothing that
// the policy would have guarded gets through.
package invalid

import (
	"cmp"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/fact"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// Name of the step.
const Name = "invalid"

// Step describes the policy. Users write it nowhere: translate and compile put it in a faulty policy's place.
func Step() policy.Step {
	return policy.Step{
		Name:  Name,
		Phase: func(policy.Spec) policy.Phase { return policy.Protect },
		New:   func() policy.Spec { return &Spec{} },
		Facts: func(s policy.Spec) []fact.Fact {
			return []fact.Fact{{Effect: "refuses", Object: "request", Value: s.(*Spec).reason()}}
		},
	}
}

// Spec says what is wrong.
type Spec struct {
	Reason string `json:"reason,omitempty"` // stable word; "": policy_invalid
	Detail string `json:"detail,omitempty"` // for the log and explain
}

func (s *Spec) reason() string { return cmp.Or(s.Reason, "policy_invalid") }

// Compile never fails.
func (s *Spec) Compile(policy.Env) (policy.Handler, error) {
	v := policy.Verdict{Status: 503, Reason: s.reason(), Detail: s.Detail}
	return policy.Handler{Request: func(*exchange.Exchange) policy.Verdict { return v }}, nil
}
