// Package authz says what a caller may do: authorization of AuthPolicy. Every rule that applies has to pass, whichever level wrote it;
// what cannot be evaluated closes.
package authz

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/gaissmai/bart"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/expression"
	"github.com/gatehouse-io/gatehouse/internal/fact"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// Name of the step.
const Name = "authz"

// Step describes the policy.
func Step() policy.Step {
	return policy.Step{
		Name:     Name,
		Sources:  []policy.Source{{Kind: "AuthPolicy", Field: "authorization"}},
		Phase:    func(policy.Spec) policy.Phase { return policy.Authorise },
		New:      func() policy.Spec { return &Spec{} },
		Merge:    merge,
		Enforces: func(s policy.Spec) bool { return s.(*Spec).enforces() },
		Facts:    func(s policy.Spec) []fact.Fact { return s.(*Spec).facts() },
	}
}

// Spec is the field authorization of AuthPolicy.
type Spec struct{ v1alpha1.Authorization }

// merge adds rules up. A rule under defaults is replaced by one of the same name nearer to the route; one under overrides never is: where
// a nearer level has its name too, both hold, and the farther one gets a name that nobody wrote.
func merge(layers []policy.Layer) (policy.Spec, policy.Origins) {
	out, origins := &Spec{}, policy.Origins{}
	out.Rules = map[string]v1alpha1.AuthorizationRule{}
	nearer := map[string]bool{}
	for i, l := range slices.Backward(layers) {
		for name, rule := range l.Spec.(*Spec).Rules {
			if !nearer[name] {
				out.Rules[name] = rule
				origins["rules."+name] = policy.Origin{Layer: i}
			}
		}
		for name := range l.Spec.(*Spec).Rules {
			nearer[name] = true
		}
	}
	for i, l := range layers {
		for name, rule := range l.Spec.(*Spec).Rules {
			if !l.Overrides || origins["rules."+name].Layer == i {
				continue
			}
			moved := fmt.Sprintf("%s@%d", name, i)
			for nearer[moved] {
				moved += "@"
			}
			out.Rules[moved] = rule
			origins["rules."+moved] = policy.Origin{Layer: i, Path: "rules." + name}
		}
	}
	for _, i := range policy.Rising(layers) {
		if o := layers[i].Spec.(*Spec).Otherwise; o != "" {
			out.Otherwise = o
			origins["otherwise"] = policy.Origin{Layer: i}
		}
	}
	return out, origins
}

func (s *Spec) enforces() bool {
	for _, r := range s.Rules {
		if r.Mode == "" || r.Mode == policy.Enforce {
			return true
		}
	}
	return s.Otherwise == "Deny"
}

// Compile checks every rule.
func (s *Spec) Compile(env policy.Env) (policy.Handler, error) {
	var faults []error
	r := &rules{country: env.Country}
	switch s.Otherwise {
	case "", "Allow":
	case "Deny":
		r.deny = true
	default:
		faults = append(faults, &diag.Problem{Path: "otherwise", Msg: fmt.Sprintf("%q is not known", s.Otherwise), Hint: "write Allow or Deny"})
	}
	for _, name := range slices.Sorted(maps.Keys(s.Rules)) {
		in := s.Rules[name]
		c := compiler{at: "rules." + name}
		if err := policy.CheckMode(c.at+".mode", in.Mode); err != nil {
			c.faults = append(c.faults, err)
		}
		if written, moved, _ := strings.Cut(name, "@"); !isName(written) || strings.Trim(moved, "@0123456789") != "" {
			c.fault("", "write letters, digits, - and _ in names", "%q is not a name", name)
		}
		if in.Require == nil && in.Deny == nil {
			c.fault("", "write require or deny", "requires and denies nothing")
		}
		out := rule{name: told(name, env), shadow: in.Mode == policy.Shadow, when: c.expression("when", in.When), require: c.requirement("require", in.Require), deny: c.requirement("deny", in.Deny)}
		faults = append(faults, c.faults...)
		if in.Mode != policy.Disabled {
			r.list = append(r.list, out)
		}
	}
	if len(faults) > 0 {
		return policy.Handler{}, errors.Join(faults...)
	}
	if len(r.list) == 0 && !r.deny {
		return policy.Handler{}, nil
	}
	return policy.Handler{Request: r.request, ReadsPath: slices.ContainsFunc(r.list, rule.readsPath)}, nil
}

// compiler collects what is wrong with one rule.
type compiler struct {
	at     string
	faults []error
}

func (c *compiler) fault(path, hint, format string, args ...any) {
	c.faults = append(c.faults, &diag.Problem{Path: diag.Join(c.at, path), Msg: fmt.Sprintf(format, args...), Hint: hint})
}

func (c *compiler) expression(path, src string) *expression.Program {
	if src == "" {
		return nil
	}
	p, err := expression.Compile(src, expression.Options{Kind: expression.Bool})
	if err == nil {
		return p
	}
	var f *expression.Fault
	if errors.As(err, &f) {
		c.fault(path, f.Hint, "%s", f.Msg)
	} else {
		c.fault(path, "", "%v", err)
	}
	return nil
}

func (c *compiler) requirement(path string, in *v1alpha1.Requirement) *requirement {
	if in == nil {
		return nil
	}
	if in.CEL == "" && len(in.Scopes) == 0 && len(in.CIDRs) == 0 && len(in.Countries) == 0 {
		c.fault(path, "write at least one of cel, scopes, cidrs and countries", "is empty")
	}
	out := &requirement{cel: c.expression(path+".cel", in.CEL), scopes: in.Scopes, countries: in.Countries}
	for i, n := range in.CIDRs {
		p, err := network(n)
		if err != nil {
			c.fault(fmt.Sprintf("%s.cidrs[%d]", path, i), "write 10.0.0.0/8 or 192.0.2.7/32", "%q is not a network", n)
			continue
		}
		if out.nets == nil {
			out.nets = new(bart.Lite)
		}
		out.nets.Insert(p)
	}
	for i, code := range in.Countries {
		if len(code) != 2 || strings.Trim(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
			c.fault(fmt.Sprintf("%s.countries[%d]", path, i), "write two letters, such as DE", "%q is not a country", code)
		}
	}
	return out
}

// isName reports whether a rule may be called so. What merge adds to a name begins with @.
func isName(s string) bool {
	if s == "" || len(s) > 63 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || (c == '-' || c == '_') && i > 0 && i < len(s)-1) {
			return false
		}
	}
	return true
}

// network parses a network. Clients' IPv4 addresses are such, also where a socket has them within IPv6: ::ffff:10.0.0.0/104 has none.
func network(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err == nil && p.Addr().Is4In6() {
		err = errors.New("no client's address lies in it")
	}
	return p.Masked(), err
}

// rules are a compiled spec.
type rules struct {
	list    []rule
	deny    bool // when no rule applies
	country func(netip.Addr) (string, bool)
}

// told is a rule's name in explanations and the log. Where several policies wrote rules it says which wrote this one, and leaves out what
// merge added to the name.
func told(name string, env policy.Env) string {
	if len(env.Sources) < 2 {
		return name
	}
	by := strings.TrimPrefix(env.Source("rules."+name), "AuthPolicy ")
	name, _, _ = strings.Cut(name, "@")
	return name + " (" + by + ")"
}

type rule struct {
	name          string
	shadow        bool
	when          *expression.Program
	require, deny *requirement
}

// readsPath reports whether one of a rule's expressions can tell paths apart.
func (ru rule) readsPath() bool {
	reads := func(p *expression.Program) bool { return p != nil && p.Reads("request.path") }
	return reads(ru.when) || ru.require != nil && reads(ru.require.cel) || ru.deny != nil && reads(ru.deny.cel)
}

// requirement is a compiled Requirement.
type requirement struct {
	cel       *expression.Program
	scopes    []string
	nets      *bart.Lite
	countries []string
}

const denied = "access_denied"

// request holds a request to every rule.
func (r *rules) request(x *exchange.Exchange) policy.Verdict {
	applied := false
	var trace []string
	var refusal policy.Verdict
	for i := range r.list {
		ru := &r.list[i]
		if ru.when != nil {
			if on, err := ru.when.Bool(x); err == nil && !on {
				if x.Dry {
					trace = append(trace, ru.name+" does not apply")
				}
				continue
			}
		}
		why, header := r.judge(ru, x)
		applied = applied || !ru.shadow
		switch {
		case why == "":
			if x.Dry {
				trace = append(trace, ru.name+" passed")
			}
		case ru.shadow:
			x.Shadow = append(x.Shadow, exchange.Shadowed{Step: Name, Reason: denied, Status: 403})
			if x.Dry {
				trace = append(trace, ru.name+" would refuse (shadow): "+why)
			}
		default:
			if refusal.Status == 0 {
				refusal = policy.Verdict{Status: 403, Reason: denied, Detail: "rule " + ru.name + ": " + why, Header: header}
			}
			if !x.Dry {
				return refusal
			}
			trace = append(trace, ru.name+" refused: "+why)
		}
	}
	if refusal.Status == 0 && !applied && r.deny {
		refusal = policy.Verdict{Status: 403, Reason: denied, Detail: "no rule applies, and otherwise is Deny"}
		trace = append(trace, "no rule applies: denied")
	}
	if x.Dry {
		refusal.Detail = strings.Join(trace, "; ")
	}
	return refusal
}

// judge says why a rule that applies does not pass, "" if it does.
func (r *rules) judge(ru *rule, x *exchange.Exchange) (why string, header []exchange.Field) {
	if q := ru.require; q != nil {
		if why, header = r.unmet(q, x); why != "" {
			return why, header
		}
	}
	if q := ru.deny; q != nil {
		return r.met(q, x), nil
	}
	return "", nil
}

// unmet says which part of a requirement does not hold. What cannot be evaluated does not hold.
func (r *rules) unmet(q *requirement, x *exchange.Exchange) (why string, header []exchange.Field) {
	if q.nets != nil && !q.nets.Contains(address(x)) {
		return "the client's address is in none of its networks", nil
	}
	for _, s := range q.scopes {
		if !slices.Contains(x.Identity.Scopes, s) {
			return "scope " + s + " is missing", insufficient(q.scopes, x)
		}
	}
	if len(q.countries) > 0 {
		if code, ok := r.where(x); !ok {
			return noDatabase, nil
		} else if !slices.Contains(q.countries, code) {
			return "the client's country is not one of its", nil
		}
	}
	if q.cel != nil {
		if ok, err := q.cel.Bool(x); err != nil {
			return "its expression failed: " + err.Error(), nil
		} else if !ok {
			return "its expression is false", nil
		}
	}
	return "", nil
}

// met says which part of a prohibition holds. What cannot be evaluated holds.
func (r *rules) met(q *requirement, x *exchange.Exchange) string {
	if q.nets != nil && q.nets.Contains(address(x)) {
		return "the client's address is in one of its networks"
	}
	for _, s := range q.scopes {
		if slices.Contains(x.Identity.Scopes, s) {
			return "the caller has scope " + s
		}
	}
	if len(q.countries) > 0 {
		if code, ok := r.where(x); !ok {
			return noDatabase
		} else if slices.Contains(q.countries, code) {
			return "the client's country is one of its"
		}
	}
	if q.cel != nil {
		if ok, err := q.cel.Bool(x); err != nil {
			return "its expression failed: " + err.Error()
		} else if ok {
			return "its expression is true"
		}
	}
	return ""
}

const noDatabase = "there is no database of countries (run --geoip)"

// address is the client's, as networks have it: without a zone, and IPv4 as such.
func address(x *exchange.Exchange) netip.Addr { return x.Client.Addr().Unmap().WithZone("") }

// where is the country of the client, "" if the database does not know the address; false: there is no database.
func (r *rules) where(x *exchange.Exchange) (string, bool) {
	if r.country == nil {
		return "", false
	}
	return r.country(address(x))
}

// insufficient tells a caller with a token which scopes it needs (RFC 6750 section 3.1).
func insufficient(scopes []string, x *exchange.Exchange) []exchange.Field {
	if x.Identity.Issuer == "" {
		return nil
	}
	v := `Bearer error="insufficient_scope", scope="` + strings.Join(scopes, " ") + `"`
	if !exchange.IsFieldValue([]byte(v)) || slices.ContainsFunc(scopes, func(s string) bool { return strings.ContainsAny(s, `"\`) }) {
		return nil
	}
	return []exchange.Field{{Name: []byte("WWW-Authenticate"), Value: []byte(v)}}
}

func (s *Spec) facts() []fact.Fact {
	var out []fact.Fact
	for _, name := range slices.Sorted(maps.Keys(s.Rules)) {
		if s.Rules[name].Mode != policy.Disabled {
			out = append(out, fact.Fact{Effect: "authorises", Object: "request", Value: name})
		}
	}
	if s.Otherwise == "Deny" {
		out = append(out, fact.Fact{Effect: "refuses", Object: "request", Value: "otherwise"})
	}
	return out
}
