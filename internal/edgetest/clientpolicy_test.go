package edgetest_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/control"
	"github.com/gatehouse-io/gatehouse/internal/edge"
	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/feed"
	"github.com/gatehouse-io/gatehouse/internal/manifest"
	"github.com/gatehouse-io/gatehouse/internal/objects"
	"github.com/gatehouse-io/gatehouse/internal/policy/builtin"
	"github.com/gatehouse-io/gatehouse/internal/telemetry"
	"github.com/gatehouse-io/gatehouse/internal/translate"
)

// attachment is a way to have a ClientTrafficPolicy hold for a listener.
type attachment struct {
	name   string
	target string // of the policy
	class  bool   // an IngressClass stands in the Gateway's place
	beside bool   // the listener beside it has the policy, too, or is for TLS
	more   string // objects
}

var attachments = []attachment{
	{name: "Gateway", target: "{group: gateway.networking.k8s.io, kind: Gateway, name: g}", beside: true},
	{name: "listener", target: "{group: gateway.networking.k8s.io, kind: Gateway, name: g, sectionName: web}"},
	{name: "IngressClass", target: "{group: networking.k8s.io, kind: IngressClass, name: k}", class: true, beside: true},
}

const edgeObjects = `apiVersion: v1
kind: Service
metadata: {name: s, namespace: d}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: s-1, namespace: d, labels: {kubernetes.io/service-name: s}}
addressType: IPv4
ports: [{port: BACKEND}]
endpoints: [{addresses: [127.0.0.1]}]
---
apiVersion: v1
kind: Secret
metadata: {name: pair, namespace: d}
type: kubernetes.io/tls
data: {tls.crt: CERT, tls.key: KEY}
---
`

const gatewayObjects = `apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: c}
spec: {controllerName: gatehouse.dev/gateway}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g, namespace: d}
spec:
  gatewayClassName: c
  listeners:
  - {name: web, port: WEB, protocol: PROTOCOL}
  - {name: beside, port: BESIDE, protocol: HTTP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: d}
spec:
  parentRefs: [{name: g}]
  rules: [{backendRefs: [{name: s, port: 80}]}]
---
`

// An IngressClass has one port in clear text, and one for TLS: with TLS the latter is the listener, and the former the one beside it.
const classObjects = `apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: k}
spec: {controller: gatehouse.dev/ingress}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: i, namespace: d}
spec:
  ingressClassName: k
  tls: [{hosts: [shop.example], secretName: pair}]
  rules:
  - http: &paths {paths: [{path: /, pathType: Prefix, backend: {service: {name: s, port: {number: 80}}}}]}
  - {host: shop.example, http: *paths}
---
`

const clientPolicy = `apiVersion: gatehouse.dev/v1alpha1
kind: ClientTrafficPolicy
metadata: {name: p, namespace: d}
spec:
  targetRefs: [%s]
  %s
`

// served is an edge that serves manifests, as "gatehouse run -f" does.
type served struct {
	t           *testing.T
	web, beside string // addresses of its listeners
	pair        *edgetest.Pair
	feed        *feed.Memory
	edge        *edge.Edge
}

// serve runs an edge in front of a backend with a ClientTrafficPolicy that says spec, attached so; "" is none. It is ready when the
// policy is live.
func serve(t *testing.T, backend string, a attachment, secure bool, spec string, change ...func(*edge.Options)) *served {
	t.Helper()
	s := &served{t: t, pair: edgetest.Certificate(t, "shop.example"), feed: &feed.Memory{}}
	web, beside := edgetest.FreePort(t), edgetest.FreePort(t)
	protocol := "HTTP"
	if secure {
		protocol = "HTTPS, tls: {certificateRefs: [{name: pair}]}"
	}
	more := gatewayObjects
	if a.class {
		more = classObjects
	}
	b64 := base64.StdEncoding.EncodeToString
	y := strings.NewReplacer("BACKEND", fmt.Sprint(netip.MustParseAddrPort(backend).Port()), "WEB", fmt.Sprint(web), "BESIDE", fmt.Sprint(beside),
		"CERT", b64(s.pair.Cert), "KEY", b64(s.pair.Key), "PROTOCOL", protocol).Replace(edgeObjects + more)
	y += a.more
	if spec != "" {
		y += "---\n" + fmt.Sprintf(clientPolicy, a.target, spec)
	}
	objs, faults := manifest.Parse("edge.yaml", []byte(y))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	rec, err := telemetry.New(telemetry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	o := edge.Options{Feed: s.feed, Steps: builtin.Steps(), Recorder: rec, Log: log}
	for _, f := range change {
		f(&o)
	}
	s.edge = edge.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { s.edge.Run(ctx); close(done) }()
	t.Cleanup(func() {
		cancel()
		<-done
		s.edge.Drain(ctx, 0)
		_ = rec.Close()
	})
	// Of an IngressClass the ports are options. In clear text nothing uses the other one.
	http, https := web, beside
	if secure {
		http, https = beside, web
	}
	loop := control.New(translate.New(translate.Options{GatewayController: "gatehouse.dev/gateway", IngressController: "gatehouse.dev/ingress",
		HTTPPort: http, HTTPSPort: https, BindAddress: netip.MustParseAddr("127.0.0.1"), Loopback: true, Steps: builtin.Steps()}), s.feed, log)
	loop.Apply(objects.Change{Upserts: objs}, nil)
	s.await()
	s.web, s.beside = fmt.Sprintf("127.0.0.1:%d", web), fmt.Sprintf("127.0.0.1:%d", beside)
	return s
}

// await waits until what was published last is live.
func (s *served) await() {
	s.t.Helper()
	limit := time.After(edgetest.Wait)
	for {
		st, _ := s.feed.Latest()
		a, changed := s.feed.Acked()
		if st.ConfigVersion > 0 && a.ConfigVersion == st.ConfigVersion {
			for k, l := range a.Listeners {
				if l.Problem != "" {
					s.t.Fatalf("listener %s: %s", k, l.Problem)
				}
			}
			return
		}
		select {
		case <-changed:
		case <-limit:
			s.t.Fatal("not live")
		}
	}
}

// head is a backend that answers with the request's path and the fields that tell who the client is.
func head(t *testing.T) string {
	t.Helper()
	return edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			fmt.Fprintf(w, "%s real=%s for=%s", r.RequestURI, r.Header.Get("X-Real-Ip"), strings.Join(r.Header["X-Forwarded-For"], ", "))
		}
	}))
}

// sizes is a request with a request line, a header section and a number of fields of these sizes, where 0 is as small as may be.
func sizes(line, section, count int) string {
	var b bytes.Buffer
	const first, last = "GET /", " HTTP/1.1"
	b.WriteString(first + strings.Repeat("a", max(line-len(first)-len(last), 0)) + last + "\r\n")
	begin := b.Len()
	b.WriteString("Host: a\r\n")
	for range count - 1 {
		b.WriteString("X: \r\n")
	}
	if rest := section - (b.Len() - begin); section > 0 {
		b.WriteString("Y: " + strings.Repeat("y", rest-len("Y: \r\n")) + "\r\n")
	}
	b.WriteString("\r\n")
	return b.String()
}

// sizeLimits are the limits on the size of a head: what a policy says for them, and a request that has n.
var sizeLimits = []struct {
	name, spec    string
	byDefault, by int // limits: by default, and by spec
	request       func(n int) string
	status        int
	reason        string
}{
	{"request line", "limits: {requestLineBytes: 1000}", 16 << 10, 1000, func(n int) string { return sizes(n, 0, 0) }, 414, "request_line_too_long"},
	{"larger request line", "limits: {requestLineBytes: 20Ki}", 16 << 10, 20 << 10, func(n int) string { return sizes(n, 0, 0) }, 414, "request_line_too_long"},
	{"header section", "limits: {headerBytes: 2k}", 64 << 10, 2000, func(n int) string { return sizes(0, n, 0) }, 431, "header_too_large"},
	{"larger header section", "limits: {headerBytes: 80Ki}", 64 << 10, 80 << 10, func(n int) string { return sizes(0, n, 0) }, 431, "header_too_large"},
	{"fields", "limits: {headerCount: 10}", 128, 10, func(n int) string { return sizes(0, 0, n) }, 431, "too_many_fields"},
	{"more fields", "limits: {headerCount: 200}", 128, 200, func(n int) string { return sizes(0, 0, n) }, 431, "too_many_fields"},
}

// TestHeadSizes: at each limit a request passes, and with one more it is refused and the connection ends, by default and by a policy,
// however that is attached; a listener beside it that the policy is not for keeps the defaults.
func TestHeadSizes(t *testing.T) {
	backend := head(t)
	for _, a := range attachments {
		t.Run(a.name, func(t *testing.T) {
			none := serve(t, backend, a, false, "")
			for _, l := range sizeLimits {
				s := serve(t, backend, a, false, l.spec)
				for _, x := range []struct {
					which, addr string
					limit       int
				}{{"without a policy", none.web, l.byDefault}, {"by the policy", s.web, l.by}, {"beside", s.beside, l.byDefault}} {
					if x.which == "beside" && a.beside {
						continue
					}
					for _, more := range []int{0, 1} {
						c := edgetest.DialTo(t, x.addr)
						if _, err := io.WriteString(c, l.request(x.limit+more)); err != nil {
							t.Fatal(err)
						}
						res, body := c.Read("GET")
						if want := []int{200, l.status}[more]; res.StatusCode != want || more == 1 && (!strings.Contains(body, l.reason) || !res.Close) {
							t.Errorf("%s %s, %d and %d more: got %d %.80q, close %v; want %d", l.name, x.which, x.limit, more, res.StatusCode, body, res.Close, want)
						}
					}
				}
			}
		})
	}
}
