package edgetest_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
)

// service is a Service with one endpoint on loopback.
func service(name, addr string) string {
	return fmt.Sprintf(`---
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: d}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s-1, namespace: d, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
ports: [{port: %[2]d}]
endpoints: [{addresses: [127.0.0.1]}]
---
`, name, netip.MustParseAddrPort(addr).Port())
}

// TestPolicyIntrospection: a server is asked about each token; no without it, 503 while it is down.
func TestPolicyIntrospection(t *testing.T) {
	overEach(t, func(w *stage) {
		var asked, down atomic.Int64
		idp := edgetest.HTTPBackend(w, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			id, secret, _ := r.BasicAuth()
			if id != "edge" || secret != "s3cret" || r.Method != "POST" || down.Load() > 0 {
				rw.WriteHeader(http.StatusInternalServerError)
				return
			}
			if token := r.FormValue("token"); strings.HasPrefix(token, "good") {
				fmt.Fprintf(rw, `{"active":true,"sub":"u-%s","scope":"read","aud":"shop","client_id":"app"}`, token)
				return
			}
			fmt.Fprint(rw, `{"active":false}`)
		}))
		w.apply(secretOf("client", "client_id", "edge", "client_secret", "s3cret") + authn(fmt.Sprintf(
			"{name: tokens, introspection: {url: 'http://%s/introspect', clientSecretRef: {name: client}, audiences: [shop], strip: true, claimsToHeaders: [{claim: sub, header: X-User}]}}", idp)))
		for range 3 {
			s := w.passed(w.ask("/", bearer("good-1"), "X_User: root"))
			if got := fmt.Sprint(s.Header["X-User"], s.Header["X_user"], s.Header["Authorization"]); got != "[u-good-1] [] []" {
				w.Errorf("the backend sees %s", got)
			}
			w.refused(w.ask("/", bearer("bad-1")), 401, "token_inactive")
		}
		if n := asked.Load(); n != 2 {
			w.Errorf("the server was asked %d times about two tokens, want 2", n)
		}
		w.refused(w.ask("/"), 401, "credentials_missing")
		down.Store(1)
		w.passed(w.ask("/", bearer("good-1"))) // remembered
		a := w.ask("/", bearer("good-2"))
		w.refused(a, 503, "introspection_unavailable")
		if a.header.Get("Retry-After") == "" {
			w.Error("503 without Retry-After")
		}
	})
}

// TestPolicyExternalHTTP: an authorization service that speaks HTTP: its yes tells the backend, its no is the answer.
func TestPolicyExternalHTTP(t *testing.T) {
	overEach(t, func(w *stage) {
		var saw atomic.Pointer[http.Request]
		authz := edgetest.HTTPBackend(w, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			saw.Store(r)
			if r.Header.Get("Authorization") != "Letter of-mother" {
				rw.Header().Set("Location", "https://login.example/")
				rw.Header().Set("X-User", "nobody")
				rw.WriteHeader(http.StatusFound)
				fmt.Fprint(rw, "log in")
				return
			}
			rw.Header().Set("X-User", "child")
			rw.Header().Set("X-Other", "not allowed")
		}))
		w.apply(service("authz", authz) + authn(`{name: ext, external: {protocol: HTTP, backendRef: {name: authz, port: 80},
			http: {path: /check, allowedHeaders: [X-Sent], allowedResponseHeaders: [X-User]}}}`))
		s := w.passed(w.ask("/cart/7?a=b", "Authorization: Letter of-mother", "X-Sent: 1", "X-Kept: 2", "x-user: root", "X_USER: root", "X-Other: mine"))
		if got := fmt.Sprint(s.Header["X-User"], s.Header["X_user"], s.Header["X-Other"]); got != "[child] [] [mine]" {
			w.Errorf("the backend is told %s", got)
		}
		if r := saw.Load(); r.RequestURI != "/check/cart/7?a=b" || r.Header.Get("X-Sent") != "1" || r.Header.Get("X-Kept") != "" || r.Host != "shop.example" {
			w.Errorf("the service was asked %s of %s with %v", r.RequestURI, r.Host, r.Header)
		}
		a := w.ask("/")
		if a.status != 302 || a.header.Get("Location") != "https://login.example/" || a.body != "log in" || a.seen != nil {
			w.Errorf("got %d %v %q, want the service's answer", a.status, a.header, a.body)
		}
		// Nobody there: 503, or through where the policy says so.
		closed := edgetest.Backend(w, func(net.Conn) {})
		w.apply(service("authz", closed))
		w.refused(w.ask("/", "Authorization: Letter of-mother"), 503, "external_unavailable")
		w.apply(authn(`{name: ext, external: {protocol: HTTP, backendRef: {name: authz, port: 80}, onFailure: Allow}}`))
		w.passed(w.ask("/"))
	})
}

// checker is an authorization service of grpc-go.
type checker struct {
	authv3.UnimplementedAuthorizationServer
	mu  sync.Mutex
	saw *authv3.CheckRequest
}

func (c *checker) Check(_ context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.saw = r
	set := func(name, value string) *corev3.HeaderValueOption {
		return &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: name, Value: value}}
	}
	if r.GetAttributes().GetRequest().GetHttp().GetHeaders()["authorization"] != "Letter of-mother" {
		return &authv3.CheckResponse{Status: &status.Status{Code: 7}, HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status: &typev3.HttpStatus{Code: 402}, Body: "pay", Headers: []*corev3.HeaderValueOption{set("X-Price", "5")}}}}, nil
	}
	return &authv3.CheckResponse{Status: &status.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
		Headers: []*corev3.HeaderValueOption{set("x-user", "child"), set("x-other", "not allowed")}, HeadersToRemove: []string{"authorization", "x-secret"}}}}, nil
}

// TestPolicyExternalGRPC: the same of Envoy's protocol, with a server of grpc-go.
func TestPolicyExternalGRPC(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, server := &checker{}, grpc.NewServer()
	authv3.RegisterAuthorizationServer(server, c)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	overEach(t, func(w *stage) {
		w.apply(service("authz", l.Addr().String()) + authn(`{name: ext, external: {protocol: GRPC, backendRef: {name: authz, port: 80},
			grpc: {allowedResponseHeaders: [X-User]}}}`))
		s := w.passed(w.ask("/cart/7?a=b", "Authorization: Letter of-mother", "X-Secret: 1", "X-Sent: 2", "x-user: root", "X_user: root", "X-Other: mine"))
		if got := fmt.Sprint(s.Header["X-User"], s.Header["X_user"], s.Header["X-Other"], s.Header["X-Secret"], s.Header["Authorization"]); got != "[child] [] [mine] [] [Letter of-mother]" {
			w.Errorf("the backend is told %s", got)
		}
		c.mu.Lock()
		q := c.saw.GetAttributes().GetRequest().GetHttp()
		c.mu.Unlock()
		if q.GetMethod() != "GET" || q.GetPath() != "/cart/7?a=b" || q.GetHost() != "shop.example" || q.GetHeaders()["x-sent"] != "2" || q.GetHeaders()["x-user"] != "" {
			w.Errorf("the service was asked %v", q)
		}
		a := w.ask("/")
		if a.status != 402 || a.body != "pay" || a.header.Get("X-Price") != "5" || a.seen != nil {
			w.Errorf("got %d %v %q, want the service's answer", a.status, a.header, a.body)
		}
	})
}
