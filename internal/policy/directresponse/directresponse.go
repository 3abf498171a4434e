// Package directresponse answers without a backend: directResponse of ProtectionPolicy. It runs where a redirect does, after
// authorisation and limits.
package directresponse

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/fact"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// Name of the step.
const Name = "directResponse"

// Step describes the policy.
func Step() policy.Step {
	return policy.Step{
		Name:    Name,
		Sources: []policy.Source{{Kind: "ProtectionPolicy", Field: "directResponse"}},
		Phase:   func(policy.Spec) policy.Phase { return policy.TransformRequest },
		New:     func() policy.Spec { return &Spec{} },
		Merge:   policy.Whole,
		Facts: func(s policy.Spec) []fact.Fact {
			return []fact.Fact{{Effect: "answers", Object: "request", Value: strconv.Itoa(s.(*Spec).status())}}
		},
		Answers: true,
	}
}

// Spec is the field directResponse of ProtectionPolicy.
type Spec struct {
	Status      int      `json:"status,omitempty"` // 0: 200
	Body        string   `json:"body,omitempty"`
	ContentType string   `json:"contentType,omitempty"`
	Headers     []Header `json:"headers,omitempty"`
}

// Header is one field of the answer.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func (s *Spec) status() int { return cmp.Or(s.Status, 200) }

// refused says what to do instead of setting a field that stands elsewhere or that only the edge writes.
func refused(name string) (hint string) {
	if strings.EqualFold(strings.ReplaceAll(name, "_", "-"), "content-type") {
		return "write contentType"
	}
	hint, _, _ = policy.OwnedField(name)
	return hint
}

// Compile checks each part.
func (s *Spec) Compile(policy.Env) (policy.Handler, error) {
	var faults []error
	fault := func(path, hint, format string, args ...any) {
		faults = append(faults, &diag.Problem{Path: path, Msg: fmt.Sprintf(format, args...), Hint: hint})
	}
	v := policy.Verdict{Status: s.status(), Reason: "direct_response"}
	if v.Status < 200 || v.Status > 599 {
		fault("status", "write 200 to 599", "%d is not the status of an answer", v.Status)
	}
	switch {
	case s.Body != "":
		if bodiless(v.Status) {
			fault("body", "leave it out", "an answer of %d has no body", v.Status)
		}
		value, problem := policy.ContentType(s.Body, s.ContentType)
		if problem != nil {
			faults = append(faults, problem)
		}
		v.Body = []byte(s.Body)
		v.Header = append(v.Header, exchange.Field{Name: []byte("Content-Type"), Value: value})
	case s.ContentType != "":
		fault("contentType", "write a body, or leave both out", "is set, but there is no body")
	}
	for i, h := range s.Headers {
		at, value := fmt.Sprintf("headers[%d]", i), strings.Trim(h.Value, " \t")
		if !exchange.IsToken([]byte(h.Name)) {
			fault(at+".name", "write letters, digits and hyphens, X-Team", "%q is not a header name", h.Name)
		}
		if hint := refused(h.Name); hint != "" {
			fault(at+".name", hint, "%s cannot be set here", h.Name)
		}
		if !exchange.IsFieldValue([]byte(value)) {
			fault(at+".value", "", "%q holds a control character", h.Value)
		}
		v.Header = append(v.Header, exchange.Field{Name: []byte(h.Name), Value: []byte(value)})
	}
	if len(faults) > 0 {
		return policy.Handler{}, errors.Join(faults...)
	}
	return policy.Handler{Request: func(*exchange.Exchange) policy.Verdict { return v }}, nil
}

// bodiless answers have no body (RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5).
func bodiless(status int) bool { return status == 204 || status == 205 || status == 304 }
