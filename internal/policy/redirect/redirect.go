// Package redirect answers with a redirect: the RequestRedirect filter of HTTPRoute. The Location is always absolute, and its
// port is left out where it is the well-known one of its scheme. The query is kept.
package redirect

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/fact"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// Name of the step.
const Name = "redirect"

// Step describes the policy.
func Step() policy.Step {
	return policy.Step{
		Name:    Name,
		Sources: []policy.Source{{Filter: "RequestRedirect"}},
		Phase:   func(policy.Spec) policy.Phase { return policy.TransformRequest },
		New:     func() policy.Spec { return &Spec{} },
		Facts:   func(s policy.Spec) []fact.Fact { return s.(*Spec).facts() },
		Answers: true,
	}
}

// Spec is HTTPRequestRedirectFilter of the Gateway API. What is absent is taken from the request; the port from the scheme, if
// that is written, else from the listener.
type Spec struct {
	Scheme     *string              `json:"scheme,omitempty"`
	Hostname   *string              `json:"hostname,omitempty"`
	Path       *policy.PathModifier `json:"path,omitempty"`
	Port       *int32               `json:"port,omitempty"`
	StatusCode *int                 `json:"statusCode,omitempty"` // 301, 302 (default), 303, 307, 308
	// UnlessSecure lets a request through that came by https, which behind a trusted proxy is as that says. Users do not write it: it is
	// for httpsRedirect, whose target such a request has reached.
	UnlessSecure bool `json:"unlessSecure,omitempty"`
}

// Compile checks each part.
func (s *Spec) Compile(policy.Env) (policy.Handler, error) {
	var faults []error
	fault := func(path, hint, format string, args ...any) {
		faults = append(faults, &diag.Problem{Path: path, Msg: fmt.Sprintf(format, args...), Hint: hint})
	}
	t := target{status: 302, unlessSecure: s.UnlessSecure}
	if s.Scheme != nil {
		if t.scheme = *s.Scheme; t.scheme != "http" && t.scheme != "https" {
			fault("scheme", "write http or https", "%q is not a scheme to redirect to", t.scheme)
		}
	}
	if s.Hostname != nil {
		a, _, ok := exchange.ParseAuthority(nil, []byte(*s.Hostname))
		if !ok || len(a.Port) > 0 {
			fault("hostname", "write shop.example; the port has a field of its own", "%q is not a hostname", *s.Hostname)
		}
		t.host = []byte(*s.Hostname)
	}
	if s.Port != nil {
		if *s.Port < 1 || *s.Port > 65535 {
			fault("port", "write 1 to 65535", "%d is not a port", *s.Port)
		}
		t.port = uint16(*s.Port)
	}
	if s.StatusCode != nil {
		switch t.status = *s.StatusCode; t.status {
		case 301, 302, 303, 307, 308:
		default:
			fault("statusCode", "write 301, 302, 303, 307 or 308", "%d is not a redirect", t.status)
		}
	}
	if s.Path != nil {
		to, err := s.Path.Replacement()
		if err != nil {
			faults = append(faults, err)
		}
		t.modify, t.path, t.prefix = true, to.Text, to.Prefix
	}
	if len(faults) > 0 {
		return policy.Handler{}, errors.Join(faults...)
	}
	return policy.Handler{Request: t.decide, Response: t.locate}, nil
}

// target is where requests are sent.
type target struct {
	unlessSecure bool

	status int
	scheme string // "": the request's
	host   []byte // nil: the request's
	port   uint16 // 0: by the rules
	modify bool
	prefix bool   // path replaces the matched prefix, else the whole path
	path   string // if modify
}

func (t *target) decide(x *exchange.Exchange) policy.Verdict {
	if t.unlessSecure && x.Scheme == "https" {
		return policy.Verdict{}
	}
	if len(t.hostOf(x)) == 0 {
		return policy.Verdict{Status: 400, Reason: "missing_host", Detail: "a redirect needs a host, and the request has no Host"}
	}
	x.Local().N = 1
	return policy.Verdict{Status: t.status, Reason: "redirect"}
}

var (
	location  = []byte("Location")
	plain     = []byte("http://")
	secure    = []byte("https://")
	bracket   = []byte("[")
	unbracket = []byte("]")
	question  = []byte("?")
)

// locate writes the Location of the answer that decide made.
func (t *target) locate(x *exchange.Exchange) policy.Verdict {
	if x.Local().N == 0 || !x.Response.Edge || x.Response.Status != t.status {
		return policy.Verdict{}
	}
	var portRoom [6]byte
	var pathRoom [512]byte
	host := t.hostOf(x)
	port := t.appendPort(portRoom[:0], x)
	path := t.appendPath(pathRoom[:0], x)
	start := secure
	if t.schemeOf(x) == "http" {
		start = plain
	}
	var open, shut []byte
	if bytes.IndexByte(host, ':') >= 0 && host[0] != '[' {
		open, shut = bracket, unbracket
	}
	var v []byte
	if x.Request.HasQuery {
		v, _ = x.Keep(start, open, host, shut, port, path, question, x.Request.Query)
	} else {
		v, _ = x.Keep(start, open, host, shut, port, path)
	}
	x.Response.Header.Set(location, v)
	return policy.Verdict{}
}

// hostOf is the host of the Location: of the filter, of the trusted proxy that the client reached, of the request. A client of HTTP/1.0
// may say none, and a Location must not be without (RFC 9110 section 4.2.2).
func (t *target) hostOf(x *exchange.Exchange) []byte {
	switch {
	case t.host != nil:
		return t.host
	case x.PublicHost != nil:
		return x.PublicHost
	}
	return x.Request.Host
}

func (t *target) schemeOf(x *exchange.Exchange) string {
	if t.scheme != "" {
		return t.scheme
	}
	return x.Scheme
}

// appendPort appends ":port", or nothing if it is the scheme's own. A client that reached a trusted proxy saw the port that that says,
// or by another scheme than our listener's not the listener's: it is left out.
func (t *target) appendPort(dst []byte, x *exchange.Exchange) []byte {
	scheme, port := t.schemeOf(x), t.port
	if port == 0 {
		switch {
		case t.scheme != "":
			return dst
		case x.PublicPort != 0:
			port = x.PublicPort
		case (scheme == "https") != x.TLS:
			return dst
		default:
			port = x.Port
		}
	}
	if port == 0 || scheme == "http" && port == 80 || scheme == "https" && port == 443 {
		return dst
	}
	return strconv.AppendUint(append(dst, ':'), uint64(port), 10)
}

func (t *target) appendPath(dst []byte, x *exchange.Exchange) []byte {
	path := x.Request.Path
	if !x.Rewritten && len(x.Request.RawPath) > 0 {
		path = x.Request.RawPath
	}
	switch {
	case !t.modify:
		return append(dst, path...)
	case t.prefix && x.Matched != "":
		// The prefix matched the canonical path: the client's spelling of it may be longer.
		return exchange.AppendReplaced(dst, x.Request.Path, x.Matched, t.path)
	}
	return append(dst, t.path...)
}

func (s *Spec) facts() []fact.Fact {
	var out []fact.Fact
	add := func(object string, v *string) {
		if v != nil {
			out = append(out, fact.Fact{Effect: "redirects", Object: object, Value: *v})
		}
	}
	add("request.scheme", s.Scheme)
	add("request.host", s.Hostname)
	if s.Path != nil {
		add("request.path", s.Path.ReplaceFullPath)
		add("request.path.prefix", s.Path.ReplacePrefixMatch)
	}
	if s.Port != nil {
		out = append(out, fact.Fact{Effect: "redirects", Object: "request.port", Value: strconv.Itoa(int(*s.Port))})
	}
	if len(out) == 0 {
		out = append(out, fact.Fact{Effect: "redirects", Object: "request"})
	}
	return out
}
