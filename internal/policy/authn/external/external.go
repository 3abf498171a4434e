// Package external asks an authorization service about each request: by HTTP, as the Gateway API's ExternalAuth has it (GEP-1494), or by
// gRPC, as Envoy's ext_authz has it. An answer is never kept. The service decides whether a request passes, and may have the backend told
// of fields that the policy names, no others; it never changes what the request itself is, and it never makes an identity: that of a
// caller it lets in is empty but for the method's name. Of a request it is sent the head, which the listener bounds, and at most 1 MiB
// of body; of its answer 64 KiB are read. With onFailure Allow only a failure of the service lets a request pass, never anything that the
// request brings about here.
package external

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
)

// Bounds and defaults.
const (
	maxAnswer      = 64 << 10
	maxBody        = 1 << 20
	maxTimeout     = 30 * time.Second
	defaultTimeout = time.Second
)

const refPath = "backendRef"

// Words of decisions.
const (
	denied      = "external_denied"
	unreachable = "external_unavailable"
)

// Refs lists the service that a method names.
func Refs(s *v1alpha1.ExternalAuth) []policy.Ref {
	b := &s.BackendRef
	r := policy.Ref{Path: refPath, Kind: "Service", Name: string(b.Name)}
	if b.Group != nil {
		r.Group = string(*b.Group)
	}
	if b.Kind != nil && *b.Kind != "" {
		r.Kind = string(*b.Kind)
	}
	if b.Namespace != nil {
		r.Namespace = string(*b.Namespace)
	}
	if b.Port != nil {
		r.Port = *b.Port
	}
	return []policy.Ref{r}
}

// external is a compiled method.
type external struct {
	call    policy.Caller
	cluster string
	asks    string
	host    string // of protocol GRPC
	timeout time.Duration
	open    bool // onFailure Allow
	body    bool
	allowed map[string]bool // request fields that are sent along, in lower case; nil: all
	told    map[string]bool // fields of an answer that the backend is told, in lower case
	prefix  string          // of protocol HTTP
	http    bool
	ask     func(context.Context, *question) method.Outcome
}

// Compile checks the method.
func Compile(_ string, s *v1alpha1.ExternalAuth, env policy.Env) (method.Handler, error) {
	var faults []error
	fault := func(path, hint, format string, args ...any) {
		faults = append(faults, &diag.Problem{Path: path, Msg: fmt.Sprintf(format, args...), Hint: hint})
	}
	e := &external{call: env.Call, cluster: env.Ref(refPath), timeout: defaultTimeout, body: s.ForwardBody != nil}
	h := method.Handler{Authenticate: e.authenticate, ReadsPath: true}
	if s.BackendRef.Name == "" {
		fault(refPath+".name", "", "is empty")
	}
	if r := Refs(s)[0]; r.Kind == "Service" && r.Port == 0 {
		fault(refPath+".port", "write the Service's port", "is missing")
	}
	switch s.Protocol {
	case "HTTP":
		e.ask, e.http = e.askHTTP, true
	case "GRPC":
		e.ask = e.askGRPC
	default:
		fault("protocol", "write HTTP or GRPC", "%q is not known", s.Protocol)
	}
	h.Body = e.limits(s, fault)
	field, request, response := "http", []string(nil), []string(nil)
	if g := s.GRPC; g != nil {
		field, request, response = "grpc", g.AllowedHeaders, g.AllowedResponseHeaders
		if s.Protocol == "HTTP" {
			fault("grpc", "take it out, or write protocol: GRPC", "goes with protocol GRPC only")
		}
	}
	if t := s.HTTP; t != nil {
		field, request, response = "http", t.AllowedHeaders, t.AllowedResponseHeaders
		if s.Protocol == "GRPC" {
			fault("http", "take it out, or write protocol: HTTP", "goes with protocol HTTP only")
		}
		e.prefix = strings.TrimRight(t.Path, "/")
		if !goodPrefix(t.Path) {
			fault("http.path", "write /check", "%q is not a path", t.Path)
		}
	}
	faults = append(faults, e.fields(field, request, response)...)
	h.Fields = response
	if len(faults) > 0 {
		return method.Handler{}, errors.Join(faults...)
	}
	e.asks = s.Protocol + " " + where(e.cluster, s)
	e.host = string(s.BackendRef.Name)
	return h, nil
}

// limits takes the bounds of a question; body is how much of the request's body has to be there.
func (e *external) limits(s *v1alpha1.ExternalAuth, fault func(path, hint, format string, args ...any)) (body int64) {
	switch s.OnFailure {
	case "", "Deny":
	case "Allow":
		e.open = true
	default:
		fault("onFailure", "write Deny or Allow", "%q is not known", s.OnFailure)
	}
	if s.Timeout != nil {
		d, err := policy.ParseDuration(string(*s.Timeout))
		switch {
		case err != nil:
			fault("timeout", policy.DurationHint, "%v", err)
		case d <= 0 || d > maxTimeout:
			fault("timeout", "write something between 1ms and 30s", "%s is out of bounds", *s.Timeout)
		}
		e.timeout = d
	}
	if b := s.ForwardBody; b != nil {
		if body = b.MaxSize; body < 1 || body > maxBody {
			fault("forwardBody.maxSize", "write something between 1 and 1048576", "%d is out of bounds", body)
		}
	}
	return body
}

// fields takes the two lists of names.
func (e *external) fields(at string, request, response []string) (faults []error) {
	for i, n := range request {
		path := fmt.Sprintf("%s.allowedHeaders[%d]", at, i)
		if !exchange.IsToken([]byte(n)) {
			faults = append(faults, &diag.Problem{Path: path, Msg: fmt.Sprintf("%q is not a header name", n)})
		} else if hopByHop(strings.ToLower(n)) {
			faults = append(faults, &diag.Problem{Path: path, Msg: fmt.Sprintf("%q belongs to one connection and is never sent on", n), Hint: "take it out"})
		}
	}
	if len(request) > 0 {
		e.allowed = lowered(request)
	}
	for i, n := range response {
		if err := method.IdentityField(fmt.Sprintf("%s.allowedResponseHeaders[%d]", at, i), n); err != nil {
			faults = append(faults, err)
		}
	}
	e.told = lowered(response)
	return faults
}

func lowered(names []string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[strings.ToLower(n)] = true
	}
	return m
}

// where is the service in words: shop/authz:80.
func where(handle string, s *v1alpha1.ExternalAuth) string {
	name := string(s.BackendRef.Name)
	if parts := strings.Split(handle, "/"); len(parts) >= 3 { // Service/shop/authz/80
		name = parts[1] + "/" + parts[2]
	}
	if s.BackendRef.Port != nil {
		return fmt.Sprintf("%s:%d", name, *s.BackendRef.Port)
	}
	return name
}

// goodPrefix reports whether text can stand in front of a path: "" or a path of the URI's own characters without dot segments.
func goodPrefix(text string) bool {
	if text == "" {
		return true
	}
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~!$&'()*+,;=:@/", c) >= 0:
		case c == '%' && i+2 < len(text) && hex(text[i+1]) && hex(text[i+2]):
			i += 2
		default:
			return false
		}
	}
	for _, segment := range strings.Split(text[1:], "/") {
		if segment == "." || segment == ".." {
			return false
		}
	}
	return text[0] == '/' && len(text) <= 1024
}

func hex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' }

// hopByHop reports whether a field, in lower case, belongs to one connection (RFC 9110 section 7.6.1) or frames a message.
func hopByHop(name string) bool {
	_, owned, _ := policy.OwnedField(name)
	return owned && name != "host"
}

func (e *external) authenticate(x *exchange.Exchange) method.Outcome {
	o := method.Outcome{State: method.Waiting, Asks: e.asks}
	if x.Dry {
		return o
	}
	if e.call == nil || e.cluster == "" {
		return method.Outcome{State: method.Unavailable, Reason: unreachable, Detail: "there is no service to ask"}
	}
	q := e.question(x)
	if e.http && !sendable(q.authority) { // not the service's failure: see the package comment
		return method.Refuse("host_invalid", "the service cannot be told of this host")
	}
	o.Wait = func(ctx context.Context) func(*exchange.Exchange) method.Outcome {
		o := e.ask(ctx, q)
		return func(*exchange.Exchange) method.Outcome { return o }
	}
	return o
}

// question is what the service is told, copied from the request.
type question struct {
	method, authority, target, scheme, id, protocol, sni string
	fields                                               []field
	body                                                 []byte
	size                                                 int64
	start                                                time.Time
	client                                               string
	clientPort, port                                     uint32
	tls                                                  bool
}

// field is a field of the request that may be sent along, its name in lower case.
type field struct{ name, value string }

func (e *external) question(x *exchange.Exchange) *question {
	r := &x.Request
	// The path is the one that all policies judge. What goes to the backend has the same meaning, if not the same spelling.
	q := &question{method: string(r.Method), authority: cmp.Or(string(r.Authority), string(r.Host), "localhost"), target: string(r.Path), scheme: x.Scheme,
		id: string(x.ID), protocol: r.Version.String(), sni: x.SNI, size: r.ContentLength, start: x.Start, client: x.Client.Addr().Unmap().String(),
		clientPort: uint32(x.Client.Port()), port: uint32(x.Port), tls: x.TLS}
	if r.HasQuery {
		q.target += "?" + string(r.Query)
	}
	for _, f := range r.Header.All() {
		name := strings.ToLower(string(f.Name))
		if hopByHop(name) || name == "host" || !e.sends(name) {
			continue
		}
		q.fields = append(q.fields, field{name, string(f.Value)})
	}
	if e.body {
		q.body = append(q.body, r.Body...)
		q.size = int64(len(q.body))
	}
	return q
}

// sends reports whether a field of the request is sent along.
func (e *external) sends(name string) bool {
	if e.http {
		return name == "authorization" || e.allowed[name]
	}
	return e.allowed == nil || e.allowed[name]
}

// sendable reports whether an authority has nothing in it that a client of HTTP would refuse to send.
func sendable(authority string) bool {
	for i := range len(authority) {
		c := authority[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~[]:", c) >= 0) {
			return false
		}
	}
	u, err := url.Parse("http://" + authority)
	return err == nil && u.Host == authority
}

// failed is what a failure of the service comes to.
func (e *external) failed(detail string) method.Outcome {
	if e.open {
		return method.Outcome{State: method.Accepted, Detail: detail + "; onFailure lets it pass"}
	}
	return method.Outcome{State: method.Unavailable, Reason: unreachable, Detail: detail}
}

// called is failed for an error of Call. An answer that is too long, and a request that cannot be sent, are no failures of the service.
func (e *external) called(ctx context.Context, err error) method.Outcome {
	if errors.Is(err, policy.ErrTooLarge) || ctx.Err() != nil {
		return method.Outcome{State: method.Unavailable, Reason: unreachable, Detail: err.Error()}
	}
	return e.failed(err.Error())
}

// refused is the service's own answer to the client; body nil: the edge writes one.
func refused(status int, fields []exchange.Field, body []byte) method.Outcome {
	return method.Outcome{State: method.Answered, Answer: policy.Verdict{Status: status, Reason: denied, Header: fields, Body: body}}
}

// answerable reports whether a status can be the whole of an answer to a client.
func answerable(status int) bool { return status >= http.StatusOK && status <= 599 }
