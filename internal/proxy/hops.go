package proxy

import (
	"strconv"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

var (
	nameAllow       = []byte("Allow")
	allowed         = []byte("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
	nameMaxForwards = []byte("Max-Forwards")
	typeMessage     = []byte("message/http")
)

const (
	methodTrace   = "TRACE"
	methodOptions = "OPTIONS"
	// farthest is the largest Max-Forwards that is passed on: a greater one becomes it (RFC 9110 section 7.6.2).
	farthest = 255
)

// refusesTrace reports whether the route has nothing to say to a TRACE, which shows a client's own fields, and those that the edge adds,
// to whoever can make it send one: only a rule that names the method wants it.
func (f *Flow) refusesTrace(r *Route) bool {
	return string(f.Request.Method) == methodTrace && r.Config.Match.Method != methodTrace
}

// notAllowed is 405 with the methods that are let through (RFC 9110 section 15.5.6).
func (f *Flow) notAllowed() Action {
	return f.answer(policy.Verdict{Status: 405, Reason: "method_not_allowed", Header: []exchange.Field{{Name: nameAllow, Value: allowed}},
		Detail: "TRACE is let through by rules that name it"})
}

// lastHop obeys Max-Forwards (RFC 9110 section 7.6.2), which holds for TRACE and OPTIONS: the edge is the final recipient of a request
// that may not be forwarded, and another goes on with one less. It comes after the route's steps, so that policies hold for it. Of
// several fields the lowest counts; those that are no number are dropped.
func (f *Flow) lastHop() (Action, bool) {
	trace := string(f.Request.Method) == methodTrace
	h := &f.Request.Header
	if !trace && string(f.Request.Method) != methodOptions || !h.Has("Max-Forwards") {
		return 0, false
	}
	left := -1
	for _, field := range h.All() {
		if exchange.EqualFold(field.Name, "Max-Forwards") {
			if n := hops(field.Value); n >= 0 && (left < 0 || n < left) {
				left = n
			}
		}
	}
	switch {
	case left < 0:
		h.Del("Max-Forwards")
		return 0, false
	case left > 0:
		n := len(f.scratch)
		f.scratch = strconv.AppendInt(f.scratch, int64(min(left-1, farthest)), 10)
		h.Set(nameMaxForwards, f.scratch[n:])
		return 0, false
	case trace:
		return f.reflect(), true
	}
	return f.answer(policy.Verdict{Status: 200, Reason: "max_forwards", Body: []byte{},
		Header: []exchange.Field{{Name: nameAllow, Value: allowed}}}), true
}

// hops reads the digits of a Max-Forwards; -1: it is none. One too large to read is as good as the largest.
func hops(v []byte) int {
	n := 0
	for _, c := range v {
		if c < '0' || c > '9' {
			return -1
		}
		n = min(n*10+int(c-'0'), farthest+1)
	}
	if len(v) == 0 {
		return -1
	}
	return n
}

// reflect answers a TRACE with the request as it arrived here (RFC 9110 section 9.3.8), without its fields: what credentials are, and what
// steps have added for the backend, only the backend knows.
func (f *Flow) reflect() Action {
	r := &f.Request
	b := append(append(f.body[:0], r.Method...), ' ')
	b = append(append(b, r.Target...), " HTTP/1.1\r\nHost: "...)
	b = append(append(b, r.Authority...), "\r\nMax-Forwards: 0\r\n\r\n"...)
	f.body = b
	return f.answer(policy.Verdict{Status: 200, Reason: "max_forwards", Body: b,
		Header: []exchange.Field{{Name: nameContentType, Value: typeMessage}, {Name: nameCacheControl, Value: valueNoStore}}})
}
