// Package headers sets, adds and removes fields of the request's or the response's header section: the
// RequestHeaderModifier and ResponseHeaderModifier filters of HTTPRoute. It never touches a field that says where a message
// ends, which connection it is on or which host it is for.
package headers

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/fact"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// Names of the two steps.
const (
	RequestName  = "requestHeaders"
	ResponseName = "responseHeaders"
)

// Request is the step for the head that the backend gets.
func Request() policy.Step {
	return policy.Step{
		Name:    RequestName,
		Sources: []policy.Source{{Filter: "RequestHeaderModifier"}},
		Phase:   func(policy.Spec) policy.Phase { return policy.TransformRequest },
		New:     func() policy.Spec { return &Spec{} },
		Facts:   func(s policy.Spec) []fact.Fact { return s.(*Spec).facts("request.header.") },
	}
}

// Response is the step for the head that the client gets, answers of the edge included.
func Response() policy.Step {
	return policy.Step{
		Name:    ResponseName,
		Sources: []policy.Source{{Filter: "ResponseHeaderModifier"}},
		Phase:   func(policy.Spec) policy.Phase { return policy.TransformResponse },
		New:     func() policy.Spec { return &Spec{response: true} },
		Facts:   func(s policy.Spec) []fact.Fact { return s.(*Spec).facts("response.header.") },
	}
}

// Spec is HTTPHeaderFilter of the Gateway API. Of one name there may be one action only.
type Spec struct {
	Set    []Field  `json:"set,omitempty"`
	Add    []Field  `json:"add,omitempty"`
	Remove []string `json:"remove,omitempty"`

	response bool
}

// Field is one header field.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Compile checks names and values.
func (s *Spec) Compile(policy.Env) (policy.Handler, error) {
	var faults []error
	seen := map[string]string{}
	name := func(path, n string, removed bool) {
		low := strings.ToLower(n)
		switch why, owned, gone := policy.OwnedField(n); {
		case !exchange.IsToken([]byte(n)):
			faults = append(faults, &diag.Problem{Path: path, Msg: fmt.Sprintf("%q is not a header name", n),
				Hint: "write letters, digits and hyphens, X-Team"})
		case owned && !(removed && gone):
			faults = append(faults, &diag.Problem{Path: path, Msg: n + " cannot be changed by a filter", Hint: why})
		case seen[low] != "":
			faults = append(faults, &diag.Problem{Path: path, Msg: fmt.Sprintf("%s is changed by %s already", n, seen[low]),
				Hint: "keep one action for each name; several values are written with commas"})
		}
		seen[low] = path
	}
	fields := func(path string, in []Field) []exchange.Field {
		var out []exchange.Field
		for i, f := range in {
			name(fmt.Sprintf("%s[%d].name", path, i), f.Name, false)
			v := strings.Trim(f.Value, " \t")
			if !exchange.IsFieldValue([]byte(v)) {
				faults = append(faults, diag.Errorf(fmt.Sprintf("%s[%d].value", path, i), "%q holds a control character", f.Value))
			}
			out = append(out, exchange.Field{Name: []byte(f.Name), Value: []byte(v)})
		}
		return out
	}
	c := change{set: fields("set", s.Set), add: fields("add", s.Add), remove: s.Remove}
	for i, n := range s.Remove {
		name(fmt.Sprintf("remove[%d]", i), n, true)
	}
	if len(faults) > 0 {
		return policy.Handler{}, errors.Join(faults...)
	}
	if s.response {
		return policy.Handler{Response: c.response}, nil
	}
	return policy.Handler{Request: c.request}, nil
}

// change is what is done to a section.
type change struct {
	set, add []exchange.Field
	remove   []string
}

func (c *change) request(x *exchange.Exchange) policy.Verdict {
	c.apply(x, &x.Request.Header)
	return policy.Verdict{}
}

func (c *change) response(x *exchange.Exchange) policy.Verdict {
	c.apply(x, &x.Response.Header)
	return policy.Verdict{}
}

func (c *change) apply(x *exchange.Exchange, h *exchange.Header) {
	for _, n := range c.remove {
		h.Del(n)
	}
	for i := range c.set {
		h.Set(c.set[i].Name, c.set[i].Value)
	}
	for i := range c.add {
		add(x, h, &c.add[i])
	}
}

var (
	comma     = []byte(",")
	semicolon = []byte("; ")
)

// add puts a value behind those that are there, in their line ("foo,bar"): some servers read one line only. A Set-Cookie has a
// line of its own (RFC 9110 section 5.3), and cookies are joined by "; " (RFC 6265 section 4.2.1).
func add(x *exchange.Exchange, h *exchange.Header, f *exchange.Field) {
	all := h.All()
	for i := len(all) - 1; i >= 0; i-- {
		if !bytes.EqualFold(all[i].Name, f.Name) {
			continue
		}
		switch {
		case exchange.EqualFold(f.Name, "set-cookie"):
			h.Append(f.Name, f.Value)
		case len(all[i].Value) == 0:
			all[i].Value = f.Value
		case exchange.EqualFold(f.Name, "cookie"):
			all[i].Value, _ = x.Keep(all[i].Value, semicolon, f.Value)
		default:
			all[i].Value, _ = x.Keep(all[i].Value, comma, f.Value)
		}
		return
	}
	h.Append(f.Name, f.Value)
}

func (s *Spec) facts(object string) []fact.Fact {
	var out []fact.Fact
	for _, f := range s.Set {
		out = append(out, fact.Fact{Effect: "sets", Object: object + strings.ToLower(f.Name), Value: strings.Trim(f.Value, " \t")})
	}
	for _, f := range s.Add {
		out = append(out, fact.Fact{Effect: "adds", Object: object + strings.ToLower(f.Name), Value: strings.Trim(f.Value, " \t")})
	}
	for _, n := range s.Remove {
		out = append(out, fact.Fact{Effect: "removes", Object: object + strings.ToLower(n)})
	}
	return out
}
