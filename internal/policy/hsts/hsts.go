// Package hsts adds Strict-Transport-Security (RFC 6797) to answers over TLS. It never adds it to an answer in clear, and
// replaces what the backend wrote.
package hsts

import (
	"fmt"
	"strconv"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/fact"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// Name of the step.
const Name = "hsts"

// Step describes the policy.
func Step() policy.Step {
	return policy.Step{
		Name:    Name,
		Sources: []policy.Source{{Kind: "GatewayParameters", Field: "hsts"}},
		Phase:   func(policy.Spec) policy.Phase { return policy.TransformResponse },
		New:     func() policy.Spec { return &Spec{} },
		Merge:   policy.Whole,
		Facts: func(s policy.Spec) []fact.Fact {
			return []fact.Fact{{Effect: "sets", Object: "response.header.strict-transport-security", Value: s.(*Spec).value()}}
		},
		EveryAnswer: true, // RFC 6797 section 8.1: any answer over TLS may be the first that a browser sees
	}
}

// Spec is the field hsts of GatewayParameters.
type Spec struct {
	MaxAge            string `json:"maxAge"` // GEP-2257
	IncludeSubDomains bool   `json:"includeSubDomains,omitempty"`
}

// Compile checks the duration.
func (s *Spec) Compile(policy.Env) (policy.Handler, error) {
	if _, err := policy.ParseDuration(s.MaxAge); err != nil {
		return policy.Handler{}, &diag.Problem{Path: "maxAge", Msg: fmt.Sprintf("%q is not a duration", s.MaxAge), Hint: "write 8760h for a year"}
	}
	name, value := []byte("Strict-Transport-Security"), []byte(s.value())
	return policy.Handler{Response: func(x *exchange.Exchange) policy.Verdict {
		if x.TLS {
			x.Response.Header.Set(name, value)
		}
		return policy.Verdict{}
	}}, nil
}

// value is the field's value; a fraction of a second is dropped.
func (s *Spec) value() string {
	d, _ := policy.ParseDuration(s.MaxAge) // Compile told
	v := "max-age=" + strconv.FormatInt(int64(d/time.Second), 10)
	if s.IncludeSubDomains {
		v += "; includeSubDomains"
	}
	return v
}
