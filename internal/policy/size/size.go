// Package size bounds bodies: sizes of ProtectionPolicy. A body at the limit passes. One whose length is announced is refused
// before a byte of it is read; any other is counted as it streams past. It keeps no body.
package size

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/fact"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// Name of the step.
const Name = "size"

// Step describes the policy.
func Step() policy.Step {
	return policy.Step{
		Name:     Name,
		Sources:  []policy.Source{{Kind: "ProtectionPolicy", Field: "sizes"}},
		Phase:    func(policy.Spec) policy.Phase { return policy.Protect },
		New:      func() policy.Spec { return &Spec{} },
		Merge:    policy.Pairwise(merge),
		Enforces: func(s policy.Spec) bool { return s.(*Spec).Mode != policy.Shadow },
		Facts:    func(s policy.Spec) []fact.Fact { return s.(*Spec).facts() },
	}
}

// Spec is the field sizes of ProtectionPolicy.
type Spec struct {
	RequestBody  *Quantity `json:"requestBody,omitempty"`
	ResponseBody *Quantity `json:"responseBody,omitempty"`
	Mode         string    `json:"mode,omitempty"`
}

// Quantity is the text of a resource quantity, "1Mi". A number in JSON is one, too.
type Quantity string

// UnmarshalJSON takes a string or a number.
func (q *Quantity) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] != '"' {
		*q = Quantity(b)
		return nil
	}
	return json.Unmarshal(b, (*string)(q))
}

// bytes is the quantity in bytes.
func (q Quantity) bytes() (int64, error) {
	v, err := resource.ParseQuantity(string(q))
	if err != nil {
		return 0, fmt.Errorf("%q is not a size", string(q))
	}
	n, whole := v.AsInt64()
	if !whole || n < 0 {
		return 0, fmt.Errorf("%q is not a whole number of bytes", string(q))
	}
	return n, nil
}

// merge takes each field from the inner level, if it is written there.
func merge(outer, inner policy.Spec) policy.Spec {
	m := *inner.(*Spec)
	if m.RequestBody == nil {
		m.RequestBody = outer.(*Spec).RequestBody
	}
	if m.ResponseBody == nil {
		m.ResponseBody = outer.(*Spec).ResponseBody
	}
	if m.Mode == "" {
		m.Mode = outer.(*Spec).Mode
	}
	return &m
}

// none is a limit that is not there.
const none = -1

// Compile checks the sizes.
func (s *Spec) Compile(policy.Env) (policy.Handler, error) {
	var faults []error
	limit := func(path string, q *Quantity) int64 {
		if q == nil {
			return none
		}
		n, err := q.bytes()
		if err != nil {
			faults = append(faults, &diag.Problem{Path: path, Msg: err.Error(), Hint: "write bytes, or 64Ki, 10Mi, 1Gi"})
		}
		return n
	}
	if err := policy.CheckMode("mode", s.Mode); err != nil {
		faults = append(faults, err)
	}
	l := &limits{shadow: s.Mode == policy.Shadow, request: limit("requestBody", s.RequestBody), response: limit("responseBody", s.ResponseBody)}
	if len(faults) > 0 {
		return policy.Handler{}, errors.Join(faults...)
	}
	if s.Mode == policy.Disabled {
		return policy.Handler{}, nil
	}
	h := policy.Handler{KeepsLength: true}
	if l.request != none {
		h.Request, h.RequestData = l.head, l.in
	}
	if l.response != none {
		h.Response, h.ResponseData = l.answer, l.out
	}
	if l.request != none && l.response != none {
		l.counts.New = func() any { return &counts{} }
		h.Done = l.done
	}
	return h, nil
}

// limits is a compiled spec, in bytes.
type limits struct {
	request, response int64
	shadow            bool
	counts            sync.Pool // of *counts, if both directions are limited: Local.N has room for one
}

type counts struct{ in, out int64 }

var (
	tooLarge       = policy.Verdict{Status: 413, Reason: "body_too_large"}
	answerTooLarge = policy.Verdict{Status: 502, Reason: "response_too_large"}
)

// head refuses a body whose announced length is over the limit.
func (l *limits) head(x *exchange.Exchange) policy.Verdict {
	if x.Request.ContentLength > l.request {
		return l.refuse(tooLarge)
	}
	if l.response != none {
		x.Local().V = l.counts.Get()
	}
	return policy.Verdict{}
}

// count adds n to one direction's sum and returns it.
func (l *limits) count(x *exchange.Exchange, in, out int64) int64 {
	local := x.Local()
	if c, ok := local.V.(*counts); ok {
		c.in += in
		c.out += out
		if in > 0 {
			return c.in
		}
		return c.out
	}
	local.N += in + out
	return local.N
}

func (l *limits) in(x *exchange.Exchange, p []byte, _ bool) ([]byte, policy.Verdict) {
	n := int64(len(p))
	if n == 0 {
		return p, policy.Verdict{}
	}
	return l.past(x.Request.ContentLength, l.count(x, n, 0), n, l.request, p, tooLarge)
}

// answer refuses a response whose announced length is over the limit. What the edge itself says is not bounded, and a response
// to HEAD or with 304 has no body, whatever length it announces.
func (l *limits) answer(x *exchange.Exchange) policy.Verdict {
	r := &x.Response
	if r.Edge || r.Status == 304 || bytes.Equal(x.Request.Method, head) || r.ContentLength <= l.response {
		return policy.Verdict{}
	}
	return l.refuse(answerTooLarge)
}

// refuse is the verdict as the mode has it.
func (l *limits) refuse(v policy.Verdict) policy.Verdict {
	v.Shadow = l.shadow
	return v
}

// past judges the last n of sum bytes. In shadow mode they go on, and what would have happened is told once: of a body whose length was
// announced, by the head.
func (l *limits) past(announced, sum, n, limit int64, p []byte, v policy.Verdict) ([]byte, policy.Verdict) {
	switch {
	case sum <= limit:
		return p, policy.Verdict{}
	case !l.shadow:
		return nil, v
	case sum-n <= limit && announced == exchange.Unknown:
		return p, l.refuse(v)
	}
	return p, policy.Verdict{}
}

var head = []byte("HEAD")

func (l *limits) out(x *exchange.Exchange, p []byte, _ bool) ([]byte, policy.Verdict) {
	n := int64(len(p))
	if n == 0 || x.Response.Edge {
		return p, policy.Verdict{}
	}
	return l.past(x.Response.ContentLength, l.count(x, 0, n), n, l.response, p, answerTooLarge)
}

func (l *limits) done(x *exchange.Exchange) {
	if c, ok := x.Local().V.(*counts); ok {
		*c = counts{}
		x.Local().V = nil
		l.counts.Put(c)
	}
}

func (s *Spec) facts() []fact.Fact {
	var out []fact.Fact
	add := func(object string, q *Quantity) {
		if q == nil {
			return
		}
		if n, err := q.bytes(); err == nil {
			out = append(out, fact.Fact{Effect: "limits", Object: object, Value: strconv.FormatInt(n, 10)})
		}
	}
	add("request.body.bytes", s.RequestBody)
	add("response.body.bytes", s.ResponseBody)
	return out
}
