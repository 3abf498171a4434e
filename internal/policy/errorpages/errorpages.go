// Package errorpages writes the bodies of answers of 400 and more: errorPages of ProtectionPolicy. It changes bodies and what
// describes them, never a status, and never a header that says what to do next: a refusal stays one. It leaves alone what somebody
// wrote for the very answer, and gRPC.
package errorpages

import (
	"bytes"
	"errors"
	"fmt"
	"html"
	"strconv"
	"strings"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/fact"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// Name of the step.
const Name = "errorPages"

// Step describes the policy.
func Step() policy.Step {
	return policy.Step{
		Name:        Name,
		Sources:     []policy.Source{{Kind: "ProtectionPolicy", Field: "errorPages"}},
		Phase:       func(policy.Spec) policy.Phase { return policy.TransformResponse },
		New:         func() policy.Spec { return &Spec{} },
		Merge:       policy.Pairwise(merge),
		Facts:       func(s policy.Spec) []fact.Fact { return s.(*Spec).facts() },
		EveryAnswer: true,
	}
}

// Spec is the field errorPages of ProtectionPolicy. The first page that names a status holds for it.
type Spec []Page

// Page is one body.
type Page struct {
	Statuses    []string `json:"statuses"` // "404", "5xx"
	Body        string   `json:"body"`
	ContentType string   `json:"contentType"`
	Backends    bool     `json:"backends,omitempty"` // it takes the place of backends' bodies too
}

// merge looks at the inner level's pages first, and at the outer's for statuses that those do not name.
func merge(outer, inner policy.Spec) policy.Spec {
	m := append(append(Spec{}, *inner.(*Spec)...), *outer.(*Spec)...)
	return &m
}

// lowest is the first status that has pages; there are statuses of them.
const (
	lowest   = 400
	statuses = 200
)

// pages is a compiled spec: the page of each status, nil for none.
type pages struct{ edge, backend [statuses]*page }

type page struct {
	contentType []byte
	html        bool
	parts       []part
}

// part is text that is written as it is, or stands for a value.
type part struct {
	text  []byte
	value string // "", "{status}", "{reason}", "{requestId}"
}

// Compile checks each page.
func (s *Spec) Compile(policy.Env) (policy.Handler, error) {
	var faults []error
	ps := &pages{}
	for i := range *s {
		in, at := &(*s)[i], fmt.Sprintf("[%d]", i)
		value, problem := policy.ContentType(in.Body, in.ContentType)
		switch {
		case in.Body == "":
			faults = append(faults, &diag.Problem{Path: at + ".body", Msg: "is missing", Hint: "write the page"})
		case problem != nil:
			problem.Path = at + "." + problem.Path
			faults = append(faults, problem)
		}
		p := &page{contentType: value, html: bytes.Contains(value, []byte("html")), parts: parse(in.Body)}
		if len(in.Statuses) == 0 {
			faults = append(faults, &diag.Problem{Path: at + ".statuses", Msg: "names no status", Hint: hint})
		}
		for n, text := range in.Statuses {
			first, last, ok := parseStatus(text)
			if !ok {
				faults = append(faults, &diag.Problem{Path: fmt.Sprintf("%s.statuses[%d]", at, n), Msg: fmt.Sprintf("%q is not a status of 400 to 599", text), Hint: hint})
				continue
			}
			for status := first; status <= last; status++ {
				fill(&ps.edge[status-lowest], p)
				if in.Backends {
					fill(&ps.backend[status-lowest], p)
				}
			}
		}
	}
	if len(faults) > 0 {
		return policy.Handler{}, errors.Join(faults...)
	}
	return policy.Handler{Response: ps.response}, nil
}

const hint = `write "404" or "5xx"`

// fill gives a status its page if it has none.
func fill(at **page, p *page) {
	if *at == nil {
		*at = p
	}
}

// parseStatus reads "404", or "4xx" and "5xx" for all of a class.
func parseStatus(s string) (first, last int, ok bool) {
	switch s {
	case "4xx":
		return 400, 499, true
	case "5xx":
		return 500, 599, true
	}
	n, err := strconv.Atoi(s)
	return n, n, err == nil && len(s) == 3 && n >= lowest && n < lowest+statuses
}

// parse takes a body apart at the values that stand in it.
func parse(body string) (out []part) {
	for body != "" {
		at, value := len(body), ""
		for _, v := range []string{"{status}", "{reason}", "{requestId}"} {
			if i := strings.Index(body, v); i >= 0 && i < at {
				at, value = i, v
			}
		}
		if at > 0 {
			out = append(out, part{text: []byte(body[:at])})
		}
		if value != "" {
			out = append(out, part{value: value})
		}
		body = body[at+len(value):]
	}
	return out
}

// response puts a page in the place of the body.
func (ps *pages) response(x *exchange.Exchange) policy.Verdict {
	r := &x.Response
	if r.Status < lowest || r.Status >= lowest+statuses || r.Written {
		return policy.Verdict{}
	}
	p := ps.backend[r.Status-lowest]
	if r.Edge {
		p = ps.edge[r.Status-lowest]
	}
	if p == nil || isGRPC(&x.Request.Header) || isGRPC(&r.Header) {
		return policy.Verdict{}
	}
	if !r.Edge {
		r.Header.DelFunc(describesBody)
		r.Trailer.Reset()
	}
	r.Header.Set(contentType, p.contentType)
	r.Body = p.body(x)
	r.ContentLength = int64(len(r.Body))
	r.Buffered, r.Written = true, true
	return policy.Verdict{}
}

var contentType = []byte("Content-Type")

// isGRPC reports whether a message is gRPC's, whose status stands in trailers: its clients read no page.
func isGRPC(h *exchange.Header) bool {
	const grpc = "application/grpc"
	v := h.Get("Content-Type")
	return len(v) >= len(grpc) && exchange.EqualFold(v[:len(grpc)], grpc)
}

// describesBody reports whether a field is about the body that goes away, and would be wrong of another.
func describesBody(f exchange.Field) bool {
	for _, n := range [...]string{"etag", "digest", "trailer", "content-md5", "repr-digest", "accept-ranges", "last-modified", "content-digest",
		"content-encoding", "content-language", "content-location", "content-disposition"} {
		if exchange.EqualFold(f.Name, n) {
			return true
		}
	}
	return false
}

// body writes the page for an answer.
func (p *page) body(x *exchange.Exchange) []byte {
	if len(p.parts) == 1 && p.parts[0].value == "" {
		return p.parts[0].text
	}
	var digits [3]byte
	var room [16][]byte
	parts := room[:0]
	for i := range p.parts {
		text := p.parts[i].text
		switch p.parts[i].value {
		case "{status}":
			text = strconv.AppendInt(digits[:0], int64(x.Response.Status), 10)
		case "{reason}":
			text = p.escape([]byte(x.Reason))
		case "{requestId}":
			text = p.escape(x.ID)
		}
		parts = append(parts, text)
	}
	body, _ := x.Keep(parts...)
	return body
}

// escape makes a value harmless in the page. Our words and ids hold nothing that means anything in HTML or JSON; that they never
// will is not for this package to know.
func (p *page) escape(v []byte) []byte {
	if p.html && bytes.ContainsAny(v, `<>&'"`) {
		return []byte(html.EscapeString(string(v)))
	}
	return v
}

func (s *Spec) facts() []fact.Fact {
	var out []fact.Fact
	for i := range *s {
		for _, status := range (*s)[i].Statuses {
			out = append(out, fact.Fact{Effect: "sets", Object: "response.body", Value: status})
		}
	}
	return out
}
