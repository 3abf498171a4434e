package edgetest

import (
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// Steps is a list that holds only the step "invalid", without which nothing compiles.
func Steps() []policy.Step {
	return []policy.Step{{Name: "invalid", New: func() policy.Spec { return &refuse{} }, Phase: func(policy.Spec) policy.Phase { return policy.Protect }}}
}

type refuse struct{}

func (*refuse) Compile(policy.Env) (policy.Handler, error) {
	return policy.Handler{Request: func(*exchange.Exchange) policy.Verdict {
		return policy.Verdict{Status: 503, Reason: "policy_invalid"}
	}}, nil
}
