package gatehouse_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// echo is a backend: a Deployment and a Service of one name, port 80, whose pods answer with what they were asked and who they are.
func echo(name string, replicas int) string {
	return strings.NewReplacer("$name", name, "$count", fmt.Sprint(replicas)).Replace(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: $name}
spec:
  replicas: $count
  selector: {matchLabels: {app: $name}}
  template:
    metadata: {labels: {app: $name}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: echo
        image: gateway-api/echo-basic
        env:
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        - {name: SERVICE_NAME, value: $name}
        readinessProbe: {httpGet: {path: /, port: 3000}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: $name}
spec: {selector: {app: $name}, ports: [{name: http, port: 80, targetPort: 3000}]}
`)
}

// backends makes backends with one pod each and waits for them.
func (s *scene) backends(names ...string) {
	s.Helper()
	for _, n := range names {
		s.apply(echo(n, 1))
	}
	for _, n := range names {
		s.ready(n, 1)
	}
}

// ready waits until the pods of a backend are ready and the EndpointSlices of its Service say so, which comes a little later.
func (s *scene) ready(name string, pods int) {
	s.Helper()
	s.eventually("backend "+name, func(ctx context.Context) error {
		l, err := s.Client().DiscoveryV1().EndpointSlices(s.namespace).List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=" + name})
		if err != nil {
			return err
		}
		n := 0
		for _, slice := range l.Items {
			for _, e := range slice.Endpoints {
				if slice.AddressType == discoveryv1.AddressTypeIPv4 && e.Conditions.Ready != nil && *e.Conditions.Ready {
					n++
				}
			}
		}
		if n != pods {
			return fmt.Errorf("%d endpoints are ready, want %d", n, pods)
		}
		return nil
	})
}

// echoed is what a backend says it was asked, and who it is.
type echoed struct {
	Path, Host, Method, Proto, Namespace, Service, Pod string

	Headers http.Header
}

// request is one request of a client.
type request struct {
	method  string // default: GET
	scheme  string // default: http
	address string // where to connect to
	port    int    // default: that of the scheme
	host    string // default: address
	path    string
	header  http.Header
	roots   *x509.CertPool // who may have signed the certificate; nil: anybody
}

// answer is what came back; seen is set if a backend answered.
type answer struct {
	status int
	proto  string
	header http.Header
	body   string
	seen   echoed
	certs  []*x509.Certificate
}

// do sends a request on a connection of its own and follows no redirect.
func (r request) do(ctx context.Context) (*answer, error) {
	if r.scheme == "" {
		r.scheme = "http"
	}
	if r.port == 0 {
		r.port = map[string]int{"http": 80, "https": 443}[r.scheme]
	}
	if r.host == "" {
		r.host = r.address
	}
	to := net.JoinHostPort(r.address, fmt.Sprint(r.port))
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", to)
		},
		TLSClientConfig: &tls.Config{ServerName: r.host, RootCAs: r.roots, InsecureSkipVerify: r.roots == nil}}
	client := &http.Client{Timeout: 5 * time.Second, Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	host := r.host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	req, err := http.NewRequestWithContext(ctx, r.method, r.scheme+"://"+host+"/"+strings.TrimPrefix(r.path, "/"), nil)
	if err != nil {
		return nil, err
	}
	for name, values := range r.header {
		req.Header[name] = values
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	a := &answer{status: res.StatusCode, proto: res.Proto, header: res.Header, body: string(body)}
	if res.TLS != nil {
		a.certs = res.TLS.PeerCertificates
	}
	if strings.Contains(a.body, `"service"`) {
		if err := json.Unmarshal(body, &a.seen); err != nil {
			return nil, fmt.Errorf("the backend's answer: %w", err)
		}
	}
	return a, nil
}

// answers says what is wrong with the answer to a request: want is a status, and the service that should have answered if it is 200.
func (r request) answers(ctx context.Context, status int, service string) error {
	a, err := r.do(ctx)
	if err != nil {
		return err
	}
	if a.status != status || a.seen.Service != service {
		return fmt.Errorf("%s at %s: status %d from %q, want %d from %q: %.200s", r.host, r.address, a.status, a.seen.Service, status, service, a.body)
	}
	return nil
}

// serves waits until a request is answered by a service.
func (s *scene) serves(r request, service string) {
	s.Helper()
	s.eventually(r.host+" from "+service, func(ctx context.Context) error { return r.answers(ctx, http.StatusOK, service) })
}

// refuses waits until a request is answered with a status by Gatehouse itself.
func (s *scene) refuses(r request, status int) {
	s.Helper()
	s.eventually(fmt.Sprintf("%s to answer %d", r.host, status), func(ctx context.Context) error { return r.answers(ctx, status, "") })
}

// closed waits until nobody listens.
func (s *scene) closed(r request) {
	s.Helper()
	s.eventually(fmt.Sprintf("nobody at %s port %d", r.address, r.port), func(ctx context.Context) error {
		a, err := r.do(ctx)
		if err == nil {
			return fmt.Errorf("status %d", a.status)
		}
		var op *net.OpError
		if !errors.As(err, &op) || op.Op != "dial" {
			return err
		}
		return nil
	})
}

// route is an HTTPRoute of a host to a service.
func route(name, gateway, host, service string) string {
	return strings.NewReplacer("$name", name, "$gateway", gateway, "$host", host, "$service", service).Replace(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: $name}
spec:
  parentRefs: [{name: $gateway}]
  hostnames: [$host]
  rules: [{backendRefs: [{name: $service, port: 80}]}]
`)
}

// pair is a certificate that signed itself, for one host.
type pair struct {
	cert, key []byte // PEM
	pool      *x509.CertPool
}

func newPair(t *testing.T, host string) *pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	form := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), x509.NewCertPool()}
	p.pool.AppendCertsFromPEM(p.cert)
	return p
}

// secret is a Secret that holds the pair.
func (p *pair) secret(name string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: %s}\ntype: kubernetes.io/tls\ndata: {tls.crt: %s, tls.key: %s}\n", name,
		base64.StdEncoding.EncodeToString(p.cert), base64.StdEncoding.EncodeToString(p.key))
}
