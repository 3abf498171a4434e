package external

import (
	"context"
	"encoding/binary"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
)

// checker is an authorization service of grpc-go.
type checker struct {
	authv3.UnimplementedAuthorizationServer
	answer   *authv3.CheckResponse
	err      error
	saw      *authv3.CheckRequest
	deadline time.Duration
}

func (c *checker) Check(ctx context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	c.saw = r
	if at, ok := ctx.Deadline(); ok {
		c.deadline = time.Until(at)
	}
	return c.answer, c.err
}

// grpcService starts a server of grpc-go in clear text.
func grpcService(t testing.TB, c *checker) net.Addr {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	authv3.RegisterAuthorizationServer(s, c)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return l.Addr()
}

func yes(ok *authv3.OkHttpResponse) *authv3.CheckResponse {
	return &authv3.CheckResponse{Status: &status.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: ok}}
}

func no(d *authv3.DeniedHttpResponse) *authv3.CheckResponse {
	return &authv3.CheckResponse{Status: &status.Status{Code: 7}, HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: d}}
}

func option(name, value string, action corev3.HeaderValueOption_HeaderAppendAction) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: name, Value: value}, AppendAction: action}
}

const (
	add       = corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
	ifAbsent  = corev3.HeaderValueOption_ADD_IF_ABSENT
	overwrite = corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
	ifThere   = corev3.HeaderValueOption_OVERWRITE_IF_EXISTS
)

func TestGRPCQuestion(t *testing.T) {
	c := &checker{answer: yes(nil)}
	env := world(t, grpcService(t, c))
	x := request("Host: shop.example:443", "Authorization: Bearer t", "X-A: 1", "x-a: 2", "Cookie: a=1", "Cookie: b=2", "Connection: close", "X-Latin: caf\xe9")
	x.Request.ContentLength = -1
	if o := run(t.Context(), compile(t, spec("GRPC"), env), x); o.State != method.Accepted {
		t.Fatalf("%v (%s), want it accepted", o.State, o.Detail)
	}
	address := func(a string, p uint32) *authv3.AttributeContext_Peer {
		return &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: a, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: p}}}}}
	}
	want := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Source: address("192.0.2.7", 5000), Destination: address("", 443),
		TlsSession: &authv3.AttributeContext_TLSSession{Sni: "shop.example"},
		Request: &authv3.AttributeContext_Request{Time: timestamppb.New(x.Start), Http: &authv3.AttributeContext_HttpRequest{Id: "id-1", Method: "PUT",
			Path: "/cart%2Fa/7?a=1|2", Host: "shop.example:443", Scheme: "https", Size: -1, Protocol: "HTTP/1.1", Headers: map[string]string{
				"authorization": "Bearer t", "x-a": "1,2", "cookie": "a=1; b=2", "x-latin": "caf!", ":method": "PUT", ":path": "/cart%2Fa/7?a=1|2",
				":authority": "shop.example:443", ":scheme": "https"}}}}}
	if diff := cmp.Diff(want, c.saw, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if c.deadline <= 0 || c.deadline > time.Second {
		t.Errorf("the service has %s, want at most a second", c.deadline)
	}

	s := spec("GRPC")
	s.GRPC = &v1alpha1.ExternalGRPCAuth{AllowedHeaders: []string{"X-A"}}
	s.ForwardBody = &v1alpha1.ForwardBody{MaxSize: 10}
	h := compile(t, s, env)
	for _, body := range []string{"hello", "\xff\x00", ""} {
		x.Request.Body, x.Request.Buffered = []byte(body), true
		run(t.Context(), h, x)
		r := c.saw.GetAttributes().GetRequest().GetHttp()
		if got := r.GetBody() + string(r.GetRawBody()); got != body || r.GetSize() != int64(len(body)) {
			t.Errorf("body %q: the service saw %q of size %d", body, got, r.GetSize())
		}
		if diff := cmp.Diff(map[string]string{"x-a": "1,2"}, r.GetHeaders()); diff != "" {
			t.Error(diff)
		}
	}
}

func TestGRPCAnswer(t *testing.T) {
	for _, x := range []struct {
		name   string
		answer *authv3.CheckResponse
		err    error
		state  method.State
		status int
		want   string
		body   string
	}{
		{name: "yes", answer: &authv3.CheckResponse{Status: &status.Status{}}, state: method.Accepted},
		{name: "yes by its kind", answer: &authv3.CheckResponse{HttpResponse: yes(&authv3.OkHttpResponse{}).HttpResponse}, state: method.Accepted},
		{name: "headers", answer: yes(&authv3.OkHttpResponse{Headers: []*corev3.HeaderValueOption{option("x-user", "ann", add), option("X-Roles", "a", add),
			option("x-roles", "b", add), option("x-first", "1", ifAbsent), option("x-first", "2", ifAbsent), option("x-last", "1", add), option("x-last", "2", overwrite),
			option("x-none", "1", ifThere), option("x-other", "1", add), option("authorization", "stolen", overwrite), option("host", "evil", overwrite),
			option("x-bad", "a\r\nb", add), option("x-empty", "", add)},
			HeadersToRemove: []string{"x-api-key", "Authorization", "Host", ":path", "x-user", "content-length", "X-Forwarded-For"}}),
			state: method.Accepted, want: "-x-api-key; X-Empty: ; X-First: 1; X-Last: 2; X-Roles: a, b; X-User: ann"},
		{name: "the older append", answer: yes(&authv3.OkHttpResponse{Headers: []*corev3.HeaderValueOption{
			{Header: &corev3.HeaderValue{Key: "x-user", RawValue: []byte("ann")}, Append: wrapperspb.Bool(true)},
			{Header: &corev3.HeaderValue{Key: "x-user", Value: "bob"}, Append: wrapperspb.Bool(true)},
			{Header: &corev3.HeaderValue{Key: "x-last", Value: "1"}}, {Header: &corev3.HeaderValue{Key: "x-last", Value: "2"}, Append: wrapperspb.Bool(false)}}}),
			state: method.Accepted, want: "X-Last: 2; X-User: ann, bob"},
		{name: "no", answer: &authv3.CheckResponse{Status: &status.Status{Code: 7}}, state: method.Answered, status: 403},
		{name: "no with an ok", answer: &authv3.CheckResponse{Status: &status.Status{Code: 16}, HttpResponse: yes(nil).HttpResponse}, state: method.Answered, status: 403},
		{name: "denied", answer: no(&authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: 302}, Body: "bye", Headers: []*corev3.HeaderValueOption{
			option("location", "https://login.example/", overwrite), option("set-cookie", "a=1", add), option("set-cookie", "b=2", add), option("content-length", "7", overwrite),
			option(":status", "200", overwrite), option("transfer-encoding", "chunked", overwrite), option("x bad", "1", overwrite), option("x-bad", "a\nb", overwrite)}}),
			state: method.Answered, status: 302, body: "bye", want: "Location: https://login.example/; Set-Cookie: a=1; Set-Cookie: b=2"},
		{name: "denied with status 0", answer: &authv3.CheckResponse{Status: &status.Status{}, HttpResponse: no(&authv3.DeniedHttpResponse{}).HttpResponse},
			state: method.Answered, status: 403},
		{name: "denied with 100", answer: no(&authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: 100}}), state: method.Unavailable},
		{name: "error", answer: &authv3.CheckResponse{HttpResponse: &authv3.CheckResponse_ErrorResponse{ErrorResponse: &authv3.DeniedHttpResponse{}}},
			state: method.Unavailable},
		{name: "nothing", answer: &authv3.CheckResponse{}, state: method.Unavailable},
		{name: "an error of gRPC", err: grpcstatus.Error(codes.PermissionDenied, "secret text"), state: method.Unavailable},
		{name: "a panic of the service's", err: grpcstatus.Error(codes.Internal, ""), state: method.Unavailable},
		{name: "too long", answer: no(&authv3.DeniedHttpResponse{Body: strings.Repeat("x", maxAnswer)}), state: method.Unavailable},
	} {
		c := &checker{answer: x.answer, err: x.err}
		s := spec("GRPC")
		s.GRPC = &v1alpha1.ExternalGRPCAuth{AllowedResponseHeaders: []string{"X-User", "x-roles", "X-First", "X-Last", "X-None", "X-Bad", "X-Empty"}}
		o := run(t.Context(), compile(t, s, world(t, grpcService(t, c))), request())
		got := lines(o.Header)
		if o.State == method.Answered {
			got = lines(o.Answer.Header)
		}
		if o.State != x.state || o.Answer.Status != x.status || got != x.want || string(o.Answer.Body) != x.body {
			t.Errorf("%s: %v (%s) %d with\n%s and %q, want %v %d with\n%s and %q", x.name, o.State, o.Detail, o.Answer.Status, got, o.Answer.Body, x.state, x.status, x.want, x.body)
		}
		if strings.Contains(o.Detail, "secret text") {
			t.Errorf("%s: the service's text is in the detail", x.name)
		}
	}
}

// TestGRPCServerOfAnotherKind: what speaks HTTP/2 but not gRPC lets nobody in.
func TestGRPCServerOfAnotherKind(t *testing.T) {
	ok, err := frame(yes(nil))
	if err != nil {
		t.Fatal(err)
	}
	for name, h := range map[string]http.HandlerFunc{
		"a page": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(ok) },
		"no status": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			_, _ = w.Write(ok)
		},
		"another status": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Grpc-Status", "0")
			w.WriteHeader(201)
		},
	} {
		s := httptest.NewUnstartedServer(h)
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		s.Start()
		if o := run(t.Context(), compile(t, spec("GRPC"), world(t, s.Listener.Addr())), request()); o.State != method.Unavailable {
			t.Errorf("%s: %v (%s)", name, o.State, o.Detail)
		}
		s.Close()
	}
}

// FuzzUnframe: no answer makes it panic, and only one whole message with status 0 is read.
func FuzzUnframe(f *testing.F) {
	ok, err := frame(yes(&authv3.OkHttpResponse{HeadersToRemove: []string{"x"}}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add("application/grpc", "0", ok)
	f.Add("application/grpc+proto", "", ok[:4])
	f.Add("application/grpc", "0", append([]byte{1}, ok[1:]...))
	f.Add("application/grpc", "0", append(append([]byte{}, ok...), ok...))
	f.Fuzz(func(t *testing.T, kind, code string, body []byte) {
		m, problem := unframe(&policy.Reply{Status: 200, Header: http.Header{"Content-Type": {kind}}, Trailer: http.Header{"Grpc-Status": {code}}, Body: body})
		if (m == nil) == (problem == "") {
			t.Fatalf("unframe = %v, %q", m, problem)
		}
		if m == nil {
			return
		}
		if code != "0" || body[0] != 0 || int(binary.BigEndian.Uint32(body[1:])) != len(body)-frameHeader {
			t.Fatalf("unframe took %q with status %q", body, code)
		}
		again, err := frame(m)
		if err != nil {
			t.Fatal(err)
		}
		same, problem := unframe(&policy.Reply{Status: 200, Header: http.Header{"Content-Type": {"application/grpc"}, "Grpc-Status": {"0"}}, Body: again})
		if problem != "" || !proto.Equal(m, same) {
			t.Fatalf("written and read again: %v, %q", same, problem)
		}
		e := external{told: map[string]bool{"x-user": true}}
		if o := e.judge(m); o.State == method.Absent || o.State == method.Waiting || o.State == method.Answered && !answerable(o.Answer.Status) {
			t.Fatalf("judge = %+v", o)
		}
	})
}

func BenchmarkGRPC(b *testing.B) {
	h := compile(b, spec("GRPC"), world(b, grpcService(b, &checker{answer: yes(nil)})))
	x := request("Host: shop.example", "Authorization: Bearer t", "Accept: */*")
	b.ReportAllocs()
	for b.Loop() {
		if o := run(b.Context(), h, x); o.State != method.Accepted {
			b.Fatal(o)
		}
	}
}
