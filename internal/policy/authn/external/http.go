package external

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
)

// askHTTP asks with the client's method, path, Host and Authorization, and the fields that the policy names. A 200, and nothing else, lets
// the request pass.
func (e *external) askHTTP(ctx context.Context, q *question) method.Outcome {
	h := http.Header{"User-Agent": nil, "Idempotency-Key": nil} // asking twice does no harm, see edge.Calls
	for _, f := range q.fields {
		h.Add(f.name, f.value)
	}
	r, err := e.call.Call(ctx, &policy.Call{Method: q.method, URL: "http://" + q.authority + e.prefix + q.target, Cluster: e.cluster, Header: h, Body: q.body,
		Timeout: e.timeout, Max: maxAnswer})
	switch {
	case err != nil:
		return e.called(ctx, err)
	case r.Status == http.StatusOK:
		return method.Outcome{State: method.Accepted, Header: e.tells(r.Header)}
	case !answerable(r.Status):
		return e.failed(fmt.Sprintf("the service answered %d", r.Status))
	}
	body := r.Body
	if body == nil {
		body = []byte{}
	}
	return refused(r.Status, onward(r.Header), body)
}

// tells is what the backend is told of a 200: several fields of a name become one.
func (e *external) tells(h http.Header) (out []exchange.Field) {
	for _, name := range sorted(h) {
		if v := []byte(strings.Join(h[name], ", ")); e.told[strings.ToLower(name)] && exchange.IsFieldValue(v) {
			out = append(out, exchange.Field{Name: []byte(name), Value: v})
		}
	}
	return out
}

// onward is the header of an answer as the client gets it: without what was for our connection to the service.
func onward(h http.Header) (out []exchange.Field) {
	named := map[string]bool{}
	for _, list := range h["Connection"] {
		for name := range strings.SplitSeq(list, ",") {
			named[strings.ToLower(strings.TrimSpace(name))] = true
		}
	}
	for _, name := range sorted(h) {
		if n := strings.ToLower(name); hopByHop(n) || named[n] {
			continue
		}
		for _, v := range h[name] {
			if exchange.IsToken([]byte(name)) && exchange.IsFieldValue([]byte(v)) {
				out = append(out, exchange.Field{Name: []byte(name), Value: []byte(v)})
			}
		}
	}
	return out
}

func sorted(h http.Header) []string {
	names := make([]string, 0, len(h))
	for n := range h {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
