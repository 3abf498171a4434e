// Package mirror is the step of the HTTPRoute filter RequestMirror: it picks the requests of which another backend gets a copy. The
// copy is sent beside the exchange, and what becomes of it changes nothing for the client.
package mirror

import (
	"math/rand/v2"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// Step describes the step.
func Step() policy.Step {
	return policy.Step{
		Name:    "mirror",
		Sources: []policy.Source{{Filter: "RequestMirror"}},
		Phase:   func(policy.Spec) policy.Phase { return policy.TransformRequest },
		New:     func() policy.Spec { return new(Spec) },
		Refs: func(s policy.Spec) []policy.Ref {
			b := s.(*Spec).BackendRef
			r := policy.Ref{Path: refPath, Group: b.Group, Kind: "Service", Namespace: b.Namespace, Name: b.Name, Port: b.Port}
			if b.Kind != "" {
				r.Kind = b.Kind
			}
			return []policy.Ref{r}
		},
	}
}

const refPath = "backendRef"

// Spec is the JSON of the filter's field requestMirror.
type Spec struct {
	BackendRef struct {
		Group     string `json:"group"`
		Kind      string `json:"kind"`
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
		Port      int32  `json:"port"`
	} `json:"backendRef"`
	Percent  *int32 `json:"percent"`
	Fraction *struct {
		Numerator   int32  `json:"numerator"`
		Denominator *int32 `json:"denominator"`
	} `json:"fraction"`
}

// Compile returns the hook, which names the cluster in Exchange.Mirrors.
func (s *Spec) Compile(env policy.Env) (policy.Handler, error) {
	n, of := int32(1), int32(1)
	switch {
	case s.Percent != nil && s.Fraction != nil:
		return policy.Handler{}, diag.Errorf("fraction", "only one of percent and fraction may be set")
	case s.Percent != nil:
		n, of = *s.Percent, 100
		if n < 0 || n > of {
			return policy.Handler{}, diag.Errorf("percent", "%d is not between 0 and 100", n)
		}
	case s.Fraction != nil:
		n, of = s.Fraction.Numerator, 100
		if d := s.Fraction.Denominator; d != nil {
			of = *d
		}
		if n < 0 || of < 1 || n > of {
			return policy.Handler{}, diag.Errorf("fraction", "%d/%d is not a share between 0 and 1", n, of)
		}
	}
	to := env.Refs[refPath]
	return policy.Handler{Request: func(x *exchange.Exchange) policy.Verdict {
		if x.Dry && n > 0 || n == of || rand.Int32N(of) < n {
			x.Mirrors = append(x.Mirrors, to)
		}
		return policy.Verdict{}
	}}, nil
}
