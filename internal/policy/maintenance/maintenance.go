// Package maintenance answers every request with 503: maintenance of ProtectionPolicy. Clients whose address is allowed get
// through; nobody else does, whatever they show.
package maintenance

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/gaissmai/bart"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/fact"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// Name of the step.
const Name = "maintenance"

// Step describes the policy.
func Step() policy.Step {
	return policy.Step{
		Name:     Name,
		Sources:  []policy.Source{{Kind: "ProtectionPolicy", Field: "maintenance"}},
		Phase:    func(policy.Spec) policy.Phase { return policy.Protect },
		New:      func() policy.Spec { return &Spec{} },
		Merge:    policy.Whole,
		Enforces: func(s policy.Spec) bool { return s.(*Spec).Mode != policy.Shadow },
		Facts: func(policy.Spec) []fact.Fact {
			return []fact.Fact{{Effect: "refuses", Object: "request", Value: "maintenance"}}
		},
	}
}

// Spec is the field maintenance of ProtectionPolicy.
type Spec struct {
	RetryAfter  string   `json:"retryAfter,omitempty"` // GEP-2257
	Allow       []string `json:"allow,omitempty"`      // networks
	Body        string   `json:"body,omitempty"`       // "": the edge's own document
	ContentType string   `json:"contentType,omitempty"`
	Mode        string   `json:"mode,omitempty"`
}

// Compile checks each part.
func (s *Spec) Compile(policy.Env) (policy.Handler, error) {
	var faults []error
	c := &closed{answer: policy.Verdict{Status: 503, Reason: "maintenance", Shadow: s.Mode == policy.Shadow}}
	if err := policy.CheckMode("mode", s.Mode); err != nil {
		faults = append(faults, err)
	}
	if s.RetryAfter != "" {
		d, err := policy.ParseDuration(s.RetryAfter)
		if err != nil || d < time.Second {
			faults = append(faults, &diag.Problem{Path: "retryAfter", Msg: fmt.Sprintf("%q is not a duration of a second or more", s.RetryAfter),
				Hint: "write 30s or 10m"})
		}
		seconds := strconv.AppendInt(nil, int64((d+time.Second-1)/time.Second), 10)
		c.answer.Header = append(c.answer.Header, exchange.Field{Name: []byte("Retry-After"), Value: seconds})
	}
	for i, n := range s.Allow {
		p, err := netip.ParsePrefix(n)
		if err != nil {
			faults = append(faults, &diag.Problem{Path: fmt.Sprintf("allow[%d]", i), Msg: fmt.Sprintf("%q is not a network", n),
				Hint: "write 10.0.0.0/8 or 192.0.2.7/32"})
			continue
		}
		c.allow.Insert(p.Masked())
	}
	switch {
	case s.Body != "":
		value, problem := policy.ContentType(s.Body, s.ContentType)
		if problem != nil {
			faults = append(faults, problem)
		}
		c.answer.Body = []byte(s.Body)
		c.answer.Header = append(c.answer.Header, exchange.Field{Name: []byte("Content-Type"), Value: value},
			exchange.Field{Name: []byte("Cache-Control"), Value: []byte("no-store")})
	case s.ContentType != "":
		faults = append(faults, &diag.Problem{Path: "contentType", Msg: "is set, but there is no body", Hint: "write a body, or leave both out"})
	}
	if len(faults) > 0 {
		return policy.Handler{}, errors.Join(faults...)
	}
	if s.Mode == policy.Disabled {
		return policy.Handler{}, nil
	}
	return policy.Handler{Request: c.request}, nil
}

// closed is a compiled spec.
type closed struct {
	allow  bart.Lite
	answer policy.Verdict
}

func (c *closed) request(x *exchange.Exchange) policy.Verdict {
	if c.allow.Contains(x.Client.Addr().Unmap()) {
		return policy.Verdict{}
	}
	return c.answer
}
