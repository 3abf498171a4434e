package external

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
)

const (
	checkPath   = "/envoy.service.auth.v3.Authorization/Check"
	frameHeader = 5
)

// askGRPC asks by one unary call, framed by hand: a client of gRPC would bring connections and names of its own.
func (e *external) askGRPC(ctx context.Context, q *question) method.Outcome {
	body, err := frame(e.check(q))
	if err != nil { // cannot be: check sends valid UTF-8 alone
		return method.Outcome{State: method.Unavailable, Reason: unreachable, Detail: err.Error()}
	}
	h := http.Header{"Content-Type": {"application/grpc+proto"}, "Te": {"trailers"}, "Grpc-Timeout": {strconv.FormatInt(max(e.timeout.Milliseconds(), 1), 10) + "m"},
		"Idempotency-Key": nil} // asking twice does no harm, see edge.Calls
	r, err := e.call.Call(ctx, &policy.Call{Method: http.MethodPost, URL: "http://" + e.host + checkPath, Cluster: e.cluster, HTTP2: true, Header: h, Body: body,
		Timeout: e.timeout, Max: maxAnswer})
	if err != nil {
		return e.called(ctx, err)
	}
	answer, problem := unframe(r)
	if problem != "" {
		return e.failed(problem)
	}
	return e.judge(answer)
}

// frame is a message as gRPC sends it (its protocol over HTTP/2, "Length-Prefixed-Message"), not compressed.
func frame(m proto.Message) ([]byte, error) {
	b := make([]byte, frameHeader, frameHeader+proto.Size(m))
	b, err := proto.MarshalOptions{}.MarshalAppend(b, m)
	if err != nil {
		return nil, err
	}
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-frameHeader))
	return b, nil
}

// unframe reads the response to a unary call. Whatever is not exactly one message with status 0 behind it is a failure.
func unframe(r *policy.Reply) (*authv3.CheckResponse, string) {
	if r.Status != http.StatusOK {
		return nil, fmt.Sprintf("the service answered %d, which is not gRPC", r.Status)
	}
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		return nil, "the service's answer is not gRPC"
	}
	status := r.Trailer.Get("Grpc-Status")
	if status == "" { // a response of trailers only has them in its head
		status = r.Header.Get("Grpc-Status")
	}
	switch {
	case status == "":
		return nil, "the service's answer has no grpc-status"
	case status != "0":
		if _, err := strconv.ParseUint(status, 10, 8); err != nil {
			status = "that is no number"
		}
		return nil, "the service answered grpc-status " + status
	case len(r.Body) < frameHeader || r.Body[0] != 0 || uint64(binary.BigEndian.Uint32(r.Body[1:])) != uint64(len(r.Body)-frameHeader):
		return nil, "the service's answer is not one message, or is compressed"
	}
	m := new(authv3.CheckResponse)
	if err := proto.Unmarshal(r.Body[frameHeader:], m); err != nil {
		return nil, "the service's answer is no CheckResponse"
	}
	return m, ""
}

// check is what the service is told.
func (e *external) check(q *question) *authv3.CheckRequest {
	h := &authv3.AttributeContext_HttpRequest{Id: text(q.id), Method: text(q.method), Headers: e.headers(q), Path: text(q.target), Host: text(q.authority),
		Scheme: text(q.scheme), Size: q.size, Protocol: q.protocol}
	if len(q.body) > 0 {
		if utf8.Valid(q.body) {
			h.Body = string(q.body)
		} else {
			h.RawBody = q.body
		}
	}
	a := &authv3.AttributeContext{Source: peer(q.client, q.clientPort), Destination: peer("", q.port),
		Request: &authv3.AttributeContext_Request{Time: timestamppb.New(q.start), Http: h}}
	if q.tls {
		a.TlsSession = &authv3.AttributeContext_TLSSession{Sni: text(q.sni)}
	}
	return &authv3.CheckRequest{Attributes: a}
}

// headers are the fields by their names in lower case, several of one name joined. With all fields come those of HTTP/2, as from Envoy.
func (e *external) headers(q *question) map[string]string {
	out := make(map[string]string, len(q.fields)+4)
	for _, f := range q.fields {
		name, v := text(f.name), text(f.value)
		before, there := out[name]
		switch {
		case !there:
		case name == "cookie":
			v = before + "; " + v
		default:
			v = before + "," + v
		}
		out[name] = v
	}
	if e.allowed == nil {
		out[":method"], out[":path"], out[":authority"], out[":scheme"] = text(q.method), text(q.target), text(q.authority), text(q.scheme)
	}
	return out
}

// text is s as a protobuf string may be: what is not UTF-8 becomes "!", as from Envoy.
func text(s string) string { return strings.ToValidUTF8(s, "!") }

func peer(address string, port uint32) *authv3.AttributeContext_Peer {
	return &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: address, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port}}}}}
}

// judge takes the service's answer. One that says neither yes nor no is a failure, and one that says both is a no.
func (e *external) judge(m *authv3.CheckResponse) method.Outcome {
	no := m.GetDeniedResponse()
	switch {
	case m.GetErrorResponse() != nil:
		return e.failed("the service tells of an error")
	case m.GetStatus() == nil && m.GetHttpResponse() == nil:
		return e.failed("the service's answer is empty")
	case no == nil && m.GetStatus().GetCode() == 0:
		return e.accept(m.GetOkResponse())
	case no == nil:
		return refused(http.StatusForbidden, nil, nil)
	}
	status := http.StatusForbidden
	if s := no.GetStatus(); s != nil && s.GetCode() != 0 {
		if status = int(s.GetCode()); !answerable(status) {
			return e.failed(fmt.Sprintf("the service denies with status %d", status))
		}
	}
	h := http.Header{}
	apply(h, no.GetHeaders(), func(string) bool { return true })
	fields := onward(h)
	body := []byte(no.GetBody())
	if len(body) == 0 && h.Get("Content-Type") == "" {
		body = nil
	}
	return refused(status, fields, body)
}

// accept is a yes: what the backend is told, and what it is not.
func (e *external) accept(ok *authv3.OkHttpResponse) method.Outcome {
	h := http.Header{}
	apply(h, ok.GetHeaders(), func(name string) bool { return e.told[name] })
	o := method.Outcome{State: method.Accepted, Header: e.tells(h)}
	for _, name := range ok.GetHeadersToRemove() {
		if _, set := h[http.CanonicalHeaderKey(name)]; !set && method.IdentityField("", name) == nil {
			o.Header = append(o.Header, exchange.Field{Name: []byte(name)})
		}
	}
	return o
}

// apply makes fields of what the service has set, appended or overwritten, in its order. The client's own fields of these names are gone.
func apply(h http.Header, options []*corev3.HeaderValueOption, may func(string) bool) {
	for _, o := range options {
		key, value := o.GetHeader().GetKey(), o.GetHeader().GetValue()
		if raw := o.GetHeader().GetRawValue(); value == "" && len(raw) > 0 {
			value = string(raw)
		}
		if !may(strings.ToLower(key)) {
			continue
		}
		name := http.CanonicalHeaderKey(key)
		_, there := h[name]
		action := o.GetAppendAction()
		if o.GetAppend() != nil { //nolint:staticcheck // services still use the older field
			action = corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
			if o.GetAppend().GetValue() { //nolint:staticcheck // as above
				action = corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
			}
		}
		switch {
		case action == corev3.HeaderValueOption_ADD_IF_ABSENT && there,
			action == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS && !there:
		case action == corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD:
			h[name] = append(slices.Clip(h[name]), value)
		default:
			h[name] = []string{value}
		}
	}
}
