// Package cors answers cross-origin requests by the Fetch standard: the CORS filter of HTTPRoute (GEP-1767) and the field cors of
// ProtectionPolicy. The edge alone decides: preflights never reach a backend, and the Access-Control fields of a backend never
// reach a client.
package cors

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/fact"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// Name of the step.
const Name = "cors"

// Step describes the policy.
func Step() policy.Step {
	return policy.Step{
		Name:    Name,
		Sources: []policy.Source{{Filter: "CORS"}, {Kind: "ProtectionPolicy", Field: "cors"}},
		Phase:   func(policy.Spec) policy.Phase { return policy.Protect },
		New:     func() policy.Spec { return &Spec{} },
		Merge:   policy.Whole,
		Facts:   func(s policy.Spec) []fact.Fact { return s.(*Spec).facts() },
	}
}

// Spec is HTTPCORSFilter of the Gateway API.
type Spec struct {
	AllowOrigins     []string `json:"allowOrigins,omitempty"` // "*", "https://shop.example", "https://*.example:8443"
	AllowCredentials *bool    `json:"allowCredentials,omitempty"`
	AllowMethods     []string `json:"allowMethods,omitempty"`
	AllowHeaders     []string `json:"allowHeaders,omitempty"`
	ExposeHeaders    []string `json:"exposeHeaders,omitempty"`
	MaxAge           *Age     `json:"maxAge,omitempty"` // nil: 5 s
}

// Age is a number of seconds, or the text of a duration (GEP-2257).
type Age string

// UnmarshalJSON takes a number or a string.
func (a *Age) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] != '"' {
		*a = Age(b)
		return nil
	}
	return json.Unmarshal(b, (*string)(a))
}

// seconds is the age in whole seconds.
func (a *Age) seconds() (int64, error) {
	if a == nil {
		return 5, nil
	}
	if n, err := strconv.ParseInt(string(*a), 10, 32); err == nil {
		if n < 0 {
			return 0, fmt.Errorf("%d is negative", n)
		}
		return n, nil
	}
	d, err := policy.ParseDuration(string(*a))
	return int64(d / time.Second), err
}

// Compile checks each list.
func (s *Spec) Compile(policy.Env) (policy.Handler, error) {
	var faults []error
	fault := func(path, hint, format string, args ...any) {
		faults = append(faults, &diag.Problem{Path: path, Msg: fmt.Sprintf(format, args...), Hint: hint})
	}
	r := &rules{credentials: s.AllowCredentials != nil && *s.AllowCredentials}
	for i, o := range s.AllowOrigins {
		p, err := parsePattern(o)
		if err != nil {
			fault(fmt.Sprintf("allowOrigins[%d]", i), "write https://shop.example, https://*.example:8443 or *", "%v", err)
		}
		r.origins = append(r.origins, p)
	}
	// list joins names; star says that it is "*" alone.
	list := func(path, noun string, in []string) (joined []byte, star bool) {
		for i, n := range in {
			at := fmt.Sprintf("%s[%d]", path, i)
			switch {
			case n == "*" && len(in) > 1:
				fault(at, "leave out the others", "* stands beside other names")
			case !exchange.IsToken([]byte(n)):
				fault(at, "", "%q is not a %s", n, noun)
			}
		}
		return []byte(strings.Join(in, ", ")), len(in) == 1 && in[0] == "*"
	}
	if len(s.AllowOrigins) > 1 {
		for i, o := range s.AllowOrigins {
			if o == "*" {
				fault(fmt.Sprintf("allowOrigins[%d]", i), "leave out the others", "* stands beside other origins")
			}
		}
	}
	r.methods, r.anyMethod = list("allowMethods", "method", s.AllowMethods)
	r.headers, r.anyHeader = list("allowHeaders", "header name", s.AllowHeaders)
	exposed, star := list("exposeHeaders", "header name", s.ExposeHeaders)
	if !star || !r.credentials { // with credentials, browsers take "*" for a name
		r.exposed = exposed
	}
	n, err := s.MaxAge.seconds()
	if err != nil {
		fault("maxAge", "write seconds, or 10m", "%v", err)
	}
	r.maxAge = strconv.AppendInt(nil, n, 10)
	if len(faults) > 0 {
		return policy.Handler{}, errors.Join(faults...)
	}
	return policy.Handler{Request: r.request, Response: r.response}, nil
}

// rules are a compiled spec.
type rules struct {
	origins              []pattern
	credentials          bool
	methods, headers     []byte // joined
	anyMethod, anyHeader bool
	exposed, maxAge      []byte
}

// preflight marks Local.N of a preflight request; below it lies the handle of the allowed origin.
const preflight = 1 << 62

// request answers preflights and remembers the origin, if it is allowed: a later step may take the field away.
func (r *rules) request(x *exchange.Exchange) policy.Verdict {
	h := &x.Request.Header
	origin := h.Get("Origin")
	if origin == nil {
		return policy.Verdict{}
	}
	local := x.Local()
	if h.Count("Origin") == 1 && r.allows(origin) {
		_, local.N = x.Keep(origin)
	}
	if string(x.Request.Method) == "OPTIONS" && h.Has("Access-Control-Request-Method") {
		local.N |= preflight
		// 200, not 204: some clients take no other, and the GEP allows both.
		return policy.Verdict{Status: 200, Reason: "cors_preflight"}
	}
	return policy.Verdict{}
}

func (r *rules) allows(origin []byte) bool {
	for i := range r.origins {
		if r.origins[i].matches(origin) {
			return true
		}
	}
	return false
}

var (
	allowOrigin      = []byte("Access-Control-Allow-Origin")
	allowCredentials = []byte("Access-Control-Allow-Credentials")
	allowMethods     = []byte("Access-Control-Allow-Methods")
	allowHeaders     = []byte("Access-Control-Allow-Headers")
	exposeHeaders    = []byte("Access-Control-Expose-Headers")
	maxAge           = []byte("Access-Control-Max-Age")
	vary             = []byte("Vary")
	originName       = []byte("Origin")
	yes              = []byte("true")
)

// response puts the edge's fields in the place of the backend's. The origin is always named, never "*": so an answer is right
// with and without credentials, and Vary keeps caches from mixing origins.
func (r *rules) response(x *exchange.Exchange) policy.Verdict {
	h := &x.Response.Header
	h.DelFunc(isAccessControl)
	if !varies(h) {
		h.Append(vary, originName)
	}
	n := x.Local().N
	if n&^preflight == 0 {
		return policy.Verdict{}
	}
	h.Append(allowOrigin, x.Kept(n&^preflight))
	if r.credentials {
		h.Append(allowCredentials, yes)
	}
	if len(r.exposed) > 0 {
		h.Append(exposeHeaders, r.exposed)
	}
	if n&preflight == 0 {
		return policy.Verdict{}
	}
	appendAllowed(x, allowMethods, r.methods, r.anyMethod, "Access-Control-Request-Method")
	appendAllowed(x, allowHeaders, r.headers, r.anyHeader, "Access-Control-Request-Headers")
	h.Append(maxAge, r.maxAge)
	return policy.Verdict{}
}

// appendAllowed names what is allowed; where all is, what was asked for: "*" would not cover Authorization, nor anything with
// credentials.
func appendAllowed(x *exchange.Exchange, name, allowed []byte, all bool, asked string) {
	if all {
		var room [256]byte
		list, _ := x.Request.Header.Joined(room[:0], asked)
		allowed, _ = x.Keep(list)
	}
	if len(allowed) > 0 {
		x.Response.Header.Append(name, allowed)
	}
}

func isAccessControl(f exchange.Field) bool {
	const prefix = "access-control-"
	return len(f.Name) > len(prefix) && exchange.EqualFold(f.Name[:len(prefix)], prefix)
}

// varies reports whether the response already says that it differs by origin.
func varies(h *exchange.Header) bool {
	for _, f := range h.All() {
		if exchange.EqualFold(f.Name, "vary") && hasMember(f.Value, "origin") {
			return true
		}
	}
	return false
}

// hasMember reports whether a list holds the name, or "*".
func hasMember(list []byte, name string) bool {
	for len(list) > 0 {
		end := 0
		for end < len(list) && list[end] != ',' {
			end++
		}
		m := list[:end]
		for len(m) > 0 && (m[0] == ' ' || m[0] == '\t') {
			m = m[1:]
		}
		for len(m) > 0 && (m[len(m)-1] == ' ' || m[len(m)-1] == '\t') {
			m = m[:len(m)-1]
		}
		if exchange.EqualFold(m, name) || string(m) == "*" {
			return true
		}
		list = list[min(end+1, len(list)):]
	}
	return false
}

func (s *Spec) facts() []fact.Fact {
	var out []fact.Fact
	for _, o := range s.AllowOrigins {
		out = append(out, fact.Fact{Effect: "allows", Object: "cors.origin", Value: strings.ToLower(o)})
	}
	for _, m := range s.AllowMethods {
		out = append(out, fact.Fact{Effect: "allows", Object: "cors.method", Value: m})
	}
	for _, h := range s.AllowHeaders {
		out = append(out, fact.Fact{Effect: "allows", Object: "cors.header", Value: strings.ToLower(h)})
	}
	for _, h := range s.ExposeHeaders {
		out = append(out, fact.Fact{Effect: "exposes", Object: "cors.header", Value: strings.ToLower(h)})
	}
	if s.AllowCredentials != nil && *s.AllowCredentials {
		out = append(out, fact.Fact{Effect: "allows", Object: "cors.credentials"})
	}
	return append(out, fact.Fact{Effect: "sets", Object: "response.header.access-control"})
}
