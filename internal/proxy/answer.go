package proxy

import (
	"bytes"
	"cmp"
	"strconv"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// refuse answers with a problem document.
func (f *Flow) refuse(status int, reason, detail string) Action {
	if detail != "" {
		f.Detail = detail
	}
	return f.answer(policy.Verdict{Status: status, Reason: reason})
}

// answer makes a response of a verdict and runs the response hooks of the steps that ran over it.
func (f *Flow) answer(v policy.Verdict) Action {
	f.stage = stageAnswer
	f.compose(v)
	f.responseHooks()
	f.setDate()
	return ActionAnswer
}

// responseHooks runs the response hooks in reverse order: those of the steps that ran, or those of the listener where there is no
// route. What one decides takes the response's place, and those further out see that. Deny is terminal: a hook may turn a response
// into a refusal, never a refusal into something else.
func (f *Flow) responseHooks() {
	if f.Matched == nil && f.listener != nil {
		for i := len(f.listener.Steps) - 1; i >= 0; i-- {
			f.traced(&f.listener.Steps[i], policy.Verdict{})
			f.responseHook(i, &f.listener.Steps[i])
		}
	}
	for i := f.ran - 1; i >= 0; i-- {
		f.responseHook(i, f.step(i))
	}
}

func (f *Flow) responseHook(i int, s *Step) {
	if s.Handler.Response == nil {
		return
	}
	f.Enter(i)
	if v := s.Handler.Response(&f.Exchange); v.Shadow {
		f.shadow(s, v)
	} else if v.Status != 0 && !(f.Response.Edge && f.Response.Status >= 400) {
		f.traced(s, v)
		f.compose(v)
	}
}

var (
	nameContentType  = []byte("Content-Type")
	nameCacheControl = []byte("Cache-Control")
	typeProblem      = []byte("application/problem+json")
	typeHTML         = []byte("text/html; charset=utf-8")
	valueNoStore     = []byte("no-store")
)

// compose fills the response from a verdict. A verdict of 400 or more without a body gets a problem document (RFC 9457),
// or a short page for a client that prefers HTML.
func (f *Flow) compose(v policy.Verdict) Action {
	r := &f.Response
	r.Header.Reset()
	r.Trailer.Reset()
	r.Status, r.Edge, r.Version = v.Status, true, exchange.HTTP11
	f.Reason = v.Reason
	if v.Detail != "" {
		f.Detail = v.Detail
	}
	for _, h := range v.Header {
		r.Header.Append(h.Name, h.Value)
	}
	r.Body, r.Written = v.Body, v.Body != nil
	if v.Body == nil && v.Status >= 400 {
		if prefersHTML(f.Request.Header.Get("Accept")) {
			r.Header.Append(nameContentType, typeHTML)
			f.body = f.appendPage(f.body[:0], v.Status, v.Reason)
		} else {
			r.Header.Append(nameContentType, typeProblem)
			f.body = f.appendProblem(f.body[:0], &v)
		}
		r.Header.Append(nameCacheControl, valueNoStore)
		r.Body = f.body
	}
	r.Buffered = true
	r.ContentLength = int64(len(r.Body))
	return ActionAnswer
}

// prefersHTML is a coarse negotiation (RFC 9110 section 12.5.1): a browser names text/html, a program seldom does.
func prefersHTML(accept []byte) bool {
	html := bytes.Index(accept, []byte("text/html"))
	if html < 0 {
		return false
	}
	json := bytes.Index(accept, []byte("json"))
	return json < 0 || html < json
}

// appendProblem writes {"type","title","status","reason","requestId"}, and the verdict's own members. Reasons are words of ours and ids are checked: nothing
// needs escaping.
func (f *Flow) appendProblem(b []byte, v *policy.Verdict) []byte {
	b = append(b, `{"type":"`...)
	b = append(b, cmp.Or(v.Type, "about:blank")...)
	b = append(b, `","title":"`...)
	b = append(b, exchange.StatusText(v.Status)...)
	b = append(b, `","status":`...)
	b = strconv.AppendInt(b, int64(v.Status), 10)
	b = append(b, `,"reason":"`...)
	b = append(b, v.Reason...)
	if len(f.ID) > 0 {
		b = append(b, `","requestId":"`...)
		b = append(b, f.ID...)
	}
	b = append(b, '"')
	if len(v.Members) > 0 {
		b = append(append(b, ','), v.Members...)
	}
	return append(b, "}\n"...)
}

func (f *Flow) appendPage(b []byte, status int, reason string) []byte {
	b = append(b, "<!doctype html><html><head><meta charset=\"utf-8\"><title>"...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, exchange.StatusText(status)...)
	b = append(b, "</title></head><body><h1>"...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, exchange.StatusText(status)...)
	b = append(b, "</h1><p>"...)
	b = append(b, reason...)
	b = append(b, "</p><p>Request "...)
	b = append(b, f.ID...)
	return append(b, "</p></body></html>\n"...)
}
