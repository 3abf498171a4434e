// Package rewrite changes the host and the path that the backend sees: the URLRewrite filter of HTTPRoute. A rewritten
// path is canonical again, and one whose prefix was replaced never lies outside the replacement.
package rewrite

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

// Name of the step.
const Name = "rewrite"

// Step describes the policy.
func Step() policy.Step {
	return policy.Step{
		Name:    Name,
		Sources: []policy.Source{{Filter: "URLRewrite"}},
		Phase:   func(policy.Spec) policy.Phase { return policy.TransformRequest },
		New:     func() policy.Spec { return &Spec{} },
		Facts:   func(s policy.Spec) []fact.Fact { return s.(*Spec).facts() },
	}
}

// Spec is HTTPURLRewriteFilter of the Gateway API.
type Spec struct {
	Hostname *string              `json:"hostname,omitempty"`
	Path     *policy.PathModifier `json:"path,omitempty"`
}

// Compile checks each part.
func (s *Spec) Compile(policy.Env) (policy.Handler, error) {
	var faults []error
	var c change
	if s.Hostname != nil {
		a, _, ok := exchange.ParseAuthority(nil, []byte(*s.Hostname))
		if !ok || len(a.Port) > 0 {
			faults = append(faults, &diag.Problem{Path: "hostname", Msg: fmt.Sprintf("%q is not a hostname", *s.Hostname),
				Hint: "write shop.example, without a port"})
		}
		c.host = []byte(*s.Hostname)
	}
	if s.Path != nil {
		to, err := s.Path.Replacement()
		if err != nil {
			faults = append(faults, err)
		}
		c.path, c.full, c.flags, c.prefix = string(to.Path.Canonical), to.Path.Canonical, to.Path.Flags, to.Prefix
	}
	if len(faults) > 0 {
		return policy.Handler{}, errors.Join(faults...)
	}
	return policy.Handler{Request: c.request}, nil
}

// change is what is done to a request.
type change struct {
	host   []byte // nil: kept
	path   string // canonical; "": kept
	flags  exchange.PathFlags
	prefix bool // path replaces the matched prefix, else the whole path
	full   []byte
}

func (c *change) request(x *exchange.Exchange) policy.Verdict {
	if c.path != "" {
		if v := c.rewritePath(x); v.Status != 0 {
			return v
		}
		x.Rewritten = true
	}
	if c.host != nil {
		x.Request.Authority, x.HostRewritten = c.host, true
	}
	return policy.Verdict{}
}

func (c *change) rewritePath(x *exchange.Exchange) policy.Verdict {
	if !c.prefix {
		x.Request.Path, x.Request.PathFlags = c.full, c.flags
		return policy.Verdict{}
	}
	if x.Matched == "" || !below(x.Request.Path, x.Matched) {
		return policy.Verdict{Status: 500, Reason: "rewrite_failed",
			Detail: "ReplacePrefixMatch, but the path does not begin with the prefix of the match"}
	}
	var room, again [512]byte
	path := exchange.AppendReplaced(room[:0], x.Request.Path, x.Matched, c.path)
	p, _, ok := exchange.CanonicalPath(again[:0], path)
	if !ok || !below(p.Canonical, c.path) ||
		p.Flags&exchange.Ambiguous != 0 && exchange.Climbs(p.Canonical[len(strings.TrimSuffix(c.path, "/")):]) {
		return policy.Verdict{Status: 400, Reason: "path_ambiguous", Detail: "the rewritten path leaves its prefix"}
	}
	x.Request.Path, _ = x.Keep(p.Canonical)
	x.Request.PathFlags = p.Flags
	return policy.Verdict{}
}

// below reports whether path lies at or below prefix, by path element.
func below(path []byte, prefix string) bool {
	prefix = strings.TrimSuffix(prefix, "/")
	return bytes.HasPrefix(path, []byte(prefix)) && (len(path) == len(prefix) || path[len(prefix)] == '/')
}

func (s *Spec) facts() []fact.Fact {
	var out []fact.Fact
	add := func(object string, v *string) {
		if v != nil {
			out = append(out, fact.Fact{Effect: "sets", Object: object, Value: *v})
		}
	}
	add("request.host", s.Hostname)
	if s.Path != nil {
		add("request.path", s.Path.ReplaceFullPath)
		add("request.path.prefix", s.Path.ReplacePrefixMatch)
	}
	return out
}
