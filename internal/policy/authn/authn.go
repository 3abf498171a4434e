// Package authn finds out who calls: authentication of AuthPolicy. It tries the methods in their order, writes the one Identity of the
// exchange, and answers 401 with one WWW-Authenticate for all of them. How a credential is judged is for the methods, one folder each.
package authn

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/fact"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
)

// Name of the step.
const Name = "authn"

// Step describes the policy.
func Step() policy.Step {
	return policy.Step{
		Name:     Name,
		Sources:  []policy.Source{{Kind: "AuthPolicy", Field: "authentication"}},
		Phase:    func(policy.Spec) policy.Phase { return policy.Authenticate },
		New:      func() policy.Spec { return &Spec{} },
		Refs:     func(s policy.Spec) []policy.Ref { return s.(*Spec).refs() },
		Merge:    policy.Whole,
		Enforces: func(s policy.Spec) bool { m := s.(*Spec).Mode; return m == "" || m == policy.Enforce },
		Facts:    func(s policy.Spec) []fact.Fact { return s.(*Spec).facts() },
	}
}

// Spec is the field authentication of AuthPolicy.
type Spec struct{ v1alpha1.Authentication }

// Compile checks every method.
func (s *Spec) Compile(env policy.Env) (policy.Handler, error) {
	var faults []error
	fault := func(path, hint, format string, args ...any) {
		faults = append(faults, &diag.Problem{Path: path, Msg: fmt.Sprintf(format, args...), Hint: hint})
	}
	c := &chain{shadow: s.Mode == policy.Shadow}
	switch s.Require {
	case "", "AnyOf":
	case "AllOf":
		c.all = true
	default:
		fault("require", "write AnyOf or AllOf", "%q is not known", s.Require)
	}
	if err := policy.CheckMode("mode", s.Mode); err != nil {
		faults = append(faults, err)
	}
	if len(s.Methods) == 0 {
		fault("methods", "write at least one, or leave authentication out", "is empty")
	}
	h := policy.Handler{Request: c.request, Response: c.response}
	names := map[string]bool{}
	for i := range s.Methods {
		m := &s.Methods[i]
		at := fmt.Sprintf("methods[%d]", i)
		if m.Name == "" || names[m.Name] {
			fault(at+".name", "", "%q is empty or stands twice", m.Name)
		}
		names[m.Name] = true
		if m.Anonymous != nil && i < len(s.Methods)-1 && !c.all {
			fault(at, "move it to the end", "accepts everybody: no method behind it is asked")
		}
		field, compiled, err := compileMethod(m, env.In(at))
		if err != nil {
			faults = append(faults, diag.Under(diag.Join(at, field), err))
			continue
		}
		c.methods = append(c.methods, entry{Handler: compiled, name: m.Name})
		h.Identity = append(h.Identity, compiled.Fields...)
		h.QuerySecrets = append(h.QuerySecrets, compiled.QuerySecrets...)
		h.Body = max(h.Body, compiled.Body)
		h.ReadsPath = h.ReadsPath || compiled.ReadsPath
		h.ClientCertificate = h.ClientCertificate || compiled.ClientCertificate
	}
	if len(faults) > 0 {
		return policy.Handler{}, errors.Join(faults...)
	}
	if s.Mode == policy.Disabled {
		return policy.Handler{}, nil
	}
	c.seal()
	return h, nil
}

// entry is one compiled method.
type entry struct {
	method.Handler
	name string
}

// chain is a compiled spec.
type chain struct {
	methods []entry
	all     bool // AllOf
	shadow  bool
	keeps   bool           // an identity that was found before stays: a filter that knows none adds to it
	plain   policy.Verdict // 401 when no credential says more
}

// nameChallenge is where clients are told how to prove who they are (RFC 9110 section 11.6.1).
var nameChallenge = []byte("WWW-Authenticate")

// seal makes what is the same for every refusal.
func (c *chain) seal() {
	var all []string
	for i := range c.methods {
		if ch := c.methods[i].Challenge; ch != "" {
			all = append(all, ch)
		}
	}
	c.plain = policy.Verdict{Status: 401, Reason: "credentials_missing", Shadow: c.shadow}
	if len(all) > 0 {
		c.plain.Header = []exchange.Field{{Name: nameChallenge, Value: []byte(strings.Join(all, ", "))}}
	}
}

// seen is what the methods said so far, on one exchange.
type seen struct {
	id      exchange.Identity
	have    bool
	told    []exchange.Field
	cookies [][]byte
	refused []refusal
	absent  bool // AllOf: one has no credential
	dry     []string
}

type refusal struct {
	method int
	method.Outcome
}

// request asks the methods.
func (c *chain) request(x *exchange.Exchange) policy.Verdict {
	if c.all || x.Dry {
		return c.from(x, &seen{}, 0)
	}
	for i := range c.methods { // the usual cases: nothing has to be remembered
		o := c.methods[i].Authenticate(x)
		switch {
		case o.State == method.Absent:
			continue
		case o.State != method.Accepted || len(o.Cookies) > 0:
			return c.take(x, &seen{}, i, o)
		}
		id := o.Identity
		if id.Method == "" {
			id.Method = c.methods[i].name
		}
		c.know(x, id)
		c.finish(x, o.Header)
		return policy.Verdict{}
	}
	return c.plain
}

// know writes down who calls.
func (c *chain) know(x *exchange.Exchange, id exchange.Identity) {
	if !c.keeps || x.Identity.Method == "" {
		x.Identity = id
	}
}

// from asks the methods from the i-th on.
func (c *chain) from(x *exchange.Exchange, s *seen, i int) policy.Verdict {
	if i == len(c.methods) {
		return c.conclude(x, s)
	}
	return c.take(x, s, i, c.methods[i].Authenticate(x))
}

// take goes on with what the i-th method said.
func (c *chain) take(x *exchange.Exchange, s *seen, i int, o method.Outcome) policy.Verdict {
	// Whatever the answer would be: nobody is asked about a request that is refused already.
	idle := o.State == method.Waiting && c.all && (s.absent || len(s.refused) > 0)
	if x.Dry {
		text := told(o)
		if idle {
			text = "is not asked"
		}
		s.dry = append(s.dry, c.methods[i].name+": "+text)
	}
	if idle {
		return c.from(x, s, i+1)
	}
	switch o.State {
	case method.Waiting:
		if x.Dry { // nothing is asked: what follows is what happens if the answer is yes
			s.have = true
			no := "is answered 401"
			if i < len(c.methods)-1 && !c.all {
				no = "asks the next method"
			}
			return policy.Verdict{Wait: unasked, Detail: strings.Join(s.dry, "; ") + " (a no " + no + "; what follows is for a yes)"}
		}
		return policy.Verdict{Wait: c.wait(s, i, o)}
	case method.Answered:
		if x.Dry {
			o.Answer.Detail = strings.Join(s.dry, "; ")
		}
		if o.Answer.Shadow = c.shadow; !c.shadow {
			c.strip(x)
		}
		return o.Answer
	case method.Accepted:
		c.accept(x, s, i, o)
		if c.methods[i].Anyone && slices.ContainsFunc(s.refused, func(r refusal) bool { return r.State == method.Refused }) {
			x.AuthFailed = true // let in, and none the less with a guess that was wrong
		}
		if !c.all {
			return c.let(x, s)
		}
	case method.Absent:
		s.absent = true
	default:
		s.refused = append(s.refused, refusal{i, o})
	}
	return c.from(x, s, i+1)
}

// unasked stands in the place of a question, on an exchange that is only explained.
func unasked(context.Context) func(*exchange.Exchange) policy.Verdict { return nil }

// wait is the Wait of a verdict around that of an outcome.
func (c *chain) wait(s *seen, i int, o method.Outcome) func(context.Context) func(*exchange.Exchange) policy.Verdict {
	return func(ctx context.Context) func(*exchange.Exchange) policy.Verdict {
		then := o.Wait(ctx)
		return func(x *exchange.Exchange) policy.Verdict { return c.take(x, s, i, then(x)) }
	}
}

// accept takes what an accepting method found out.
func (c *chain) accept(x *exchange.Exchange, s *seen, i int, o method.Outcome) {
	s.told = append(s.told, o.Header...)
	s.cookies = append(s.cookies, o.Cookies...)
	id := o.Identity
	if id.Method == "" {
		id.Method = c.methods[i].name
	}
	if !s.have {
		s.have, s.id = true, id
		return
	}
	fill := func(to *string, from string) {
		if *to == "" {
			*to = from
		}
	}
	fill(&s.id.Subject, id.Subject)
	fill(&s.id.Application, id.Application)
	fill(&s.id.Plan, id.Plan)
	fill(&s.id.CredentialID, id.CredentialID)
	fill(&s.id.Issuer, id.Issuer)
	if len(s.id.Scopes) == 0 {
		s.id.Scopes = id.Scopes
	}
	if len(s.id.Claims) == 0 {
		s.id.Claims = id.Claims
	}
}

// let lets the caller in.
func (c *chain) let(x *exchange.Exchange, s *seen) policy.Verdict {
	c.know(x, s.id)
	if len(s.cookies) > 0 {
		x.Local().V = s.cookies
	}
	c.finish(x, s.told)
	return policy.Verdict{Detail: strings.Join(s.dry, "; ")}
}

// finish makes the request what a backend may see: without credentials, with what it is told about the caller.
func (c *chain) finish(x *exchange.Exchange, told []exchange.Field) {
	if c.shadow {
		return
	}
	c.strip(x)
	for _, f := range told {
		if f.Value == nil {
			x.Request.Header.Del(string(f.Name))
			continue
		}
		x.Request.Header.Set(f.Name, f.Value)
	}
}

// strip takes credentials out of the request.
func (c *chain) strip(x *exchange.Exchange) {
	for i := range c.methods {
		if c.methods[i].Admit != nil {
			c.methods[i].Admit(x)
		}
	}
}

// conclude decides when every method was asked and none decided.
func (c *chain) conclude(x *exchange.Exchange, s *seen) policy.Verdict {
	if c.all && !s.absent && len(s.refused) == 0 {
		return c.let(x, s)
	}
	detail := strings.Join(s.dry, "; ")
	if !c.shadow {
		c.strip(x) // nor does the log see a credential, even one that is not good
	}
	if len(s.refused) == 0 {
		v := c.plain
		v.Detail = detail
		return v
	}
	if detail == "" {
		detail = c.reasons(s)
	}
	for _, r := range s.refused {
		if r.State == method.Unavailable {
			return policy.Verdict{Status: 503, Reason: r.Reason, Detail: detail, Header: retryAfter, Shadow: c.shadow}
		}
	}
	x.AuthFailed = true
	return policy.Verdict{Status: 401, Reason: s.refused[0].Reason, Detail: detail, Header: c.challenges(s), Shadow: c.shadow}
}

// reasons tells what every method refused, for the log.
func (c *chain) reasons(s *seen) string {
	var out []string
	for _, r := range s.refused {
		text := c.methods[r.method].name + ": " + r.Reason
		if r.Detail != "" {
			text += ": " + r.Detail
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}

// challenges merges those of all methods, with what the refusing ones add.
func (c *chain) challenges(s *seen) []exchange.Field {
	var all []string
	for i := range c.methods {
		ch := c.methods[i].Challenge
		if ch == "" {
			continue
		}
		for _, r := range s.refused {
			if r.method == i && r.Params != "" {
				if strings.Contains(ch, " ") {
					ch += ","
				}
				ch += " " + r.Params
			}
		}
		all = append(all, ch)
	}
	if len(all) == 0 {
		return nil
	}
	return []exchange.Field{{Name: nameChallenge, Value: []byte(strings.Join(all, ", "))}}
}

// response hands on the cookies of a session that was renewed. Nobody may store an answer that has them, whatever the backend says of it: a
// cache would hand the session to others.
func (c *chain) response(x *exchange.Exchange) policy.Verdict {
	if cookies, ok := x.Local().V.([][]byte); ok {
		x.Response.Header.Set(nameCacheControl, valueNoStore)
		for _, v := range cookies {
			x.Response.Header.Append(nameSetCookie, v)
		}
	}
	return policy.Verdict{}
}

var (
	nameSetCookie    = []byte("Set-Cookie")
	nameCacheControl = []byte("Cache-Control")
	valueNoStore     = []byte("no-store")
	retryAfter       = []exchange.Field{{Name: []byte("Retry-After"), Value: []byte("1")}}
)

// told is an outcome in words, for explain.
func told(o method.Outcome) string {
	switch o.State {
	case method.Absent:
		return "no credential"
	case method.Accepted:
		text := "accepted"
		if o.Identity.Application != "" {
			text += ", application " + o.Identity.Application
		}
		if o.Identity.Subject != "" {
			text += ", subject " + o.Identity.Subject
		}
		return text
	case method.Answered:
		return "answers itself"
	case method.Waiting:
		return "would ask " + o.Asks
	}
	if o.Detail != "" {
		return o.Reason + ": " + o.Detail
	}
	return o.Reason
}

// refs lists what the methods refer to.
func (s *Spec) refs() []policy.Ref {
	var out []policy.Ref
	for i := range s.Methods {
		for _, r := range methodRefs(&s.Methods[i]) {
			r.Path = fmt.Sprintf("methods[%d].%s", i, r.Path)
			out = append(out, r)
		}
	}
	return out
}

func (s *Spec) facts() []fact.Fact {
	if s.Mode == policy.Disabled {
		return nil
	}
	out := []fact.Fact{{Effect: "requires", Object: "identity"}}
	for i := range s.Methods {
		out = append(out, fact.Fact{Effect: "accepts", Object: "credential", Value: kindOf(&s.Methods[i])})
	}
	return out
}
