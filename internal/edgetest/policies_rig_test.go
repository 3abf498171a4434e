package edgetest_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/control"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/edge"
	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/feed"
	"github.com/gatehouse-io/gatehouse/internal/limiter"
	"github.com/gatehouse-io/gatehouse/internal/manifest"
	"github.com/gatehouse-io/gatehouse/internal/objects"
	"github.com/gatehouse-io/gatehouse/internal/policy/builtin"
	"github.com/gatehouse-io/gatehouse/internal/telemetry"
	"github.com/gatehouse-io/gatehouse/internal/translate"
)

// wire is a way to bring a request to the edge. Every policy is tested over each of them: a protocol that is added later is a row here.
type wire struct {
	name            string
	secure, upgrade bool
}

func wires() []wire {
	return []wire{{name: "HTTP/1.1"}, {name: "HTTP/1.1 over TLS", secure: true}, {name: "WebSocket over HTTP/1.1", upgrade: true}}
}

// overEach runs a test over each wire, each with an edge of its own.
func overEach(t *testing.T, test func(w *stage), change ...func(*edge.Options)) {
	for _, v := range wires() {
		t.Run(v.name, func(t *testing.T) { test(newStage(t, v, change...)) })
	}
}

// stage is an edge that serves manifests, as "gatehouse run -f" does: a Gateway with the listeners web, tls and other, and on the first
// two the routes api (all paths) and open (/open).
type stage struct {
	*testing.T
	wire
	pair     *edgetest.Pair
	ports    map[string]uint16 // of the listeners
	backend  *witness
	feed     *feed.Memory
	loop     *control.Loop
	edge     *edge.Edge
	recorder *telemetry.Recorder
	log      *lines
	limiter  *limiter.Limiter
	sent     int // requests
}

const stageObjects = `apiVersion: v1
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
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: c}
spec: {controllerName: gatehouse.dev/gateway}
---
apiVersion: gatehouse.dev/v1alpha1
kind: GatewayParameters
metadata: {name: params, namespace: d}
spec: {}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g, namespace: d}
spec:
  gatewayClassName: c
  infrastructure: {parametersRef: {group: gatehouse.dev, kind: GatewayParameters, name: params}}
  listeners:
  - {name: web, port: WEB, protocol: HTTP}
  - {name: tls, port: TLS, protocol: HTTPS, tls: {certificateRefs: [{name: pair}]}}
  - {name: other, port: OTHER, protocol: HTTPS, tls: {certificateRefs: [{name: pair}]}}
---
`

// routeTo is an HTTPRoute of one rule on the listeners web and tls. more is more of its rule.
func routeTo(name, path, more string) string {
	return fmt.Sprintf(`---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: %s, namespace: d}
spec:
  parentRefs: [{name: g, sectionName: web}, {name: g, sectionName: tls}]
  rules: [{matches: [{path: {value: %s}}], backendRefs: [{name: s, port: 80}] %s}]
---
`, name, path, more)
}

const (
	toAPI     = "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: api}"
	toGateway = "{group: gateway.networking.k8s.io, kind: Gateway, name: g}"
)

// pol is a policy with a bundle under defaults, attached to targets.
func pol(kind, name, targets, bundle string) string {
	return polUnder(kind, name, targets, "defaults", bundle)
}

func polUnder(kind, name, targets, under, bundle string) string {
	return fmt.Sprintf("---\napiVersion: gatehouse.dev/v1alpha1\nkind: %s\nmetadata: {name: %s, namespace: d}\nspec:\n  targetRefs: [%s]\n  %s: %s\n---\n",
		kind, name, targets, under, bundle)
}

// authn is an AuthPolicy p on the route api with these methods.
func authn(methods string) string {
	return pol("AuthPolicy", "p", toAPI, "{authentication: {methods: ["+methods+"]}}")
}

// limits is a RateLimitPolicy l on the route api.
func limits(limits string) string {
	return pol("RateLimitPolicy", "l", toAPI, "{limits: {"+limits+"}}")
}

// secretOf is a Secret of pairs of a key and its value.
func secretOf(name string, pairs ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: d}\ndata:\n", name)
	for i := 0; i < len(pairs); i += 2 {
		fmt.Fprintf(&b, "  %s: %s\n", pairs[i], base64.StdEncoding.EncodeToString([]byte(pairs[i+1])))
	}
	return b.String() + "---\n"
}

// newStage starts an edge and waits until it serves.
func newStage(t *testing.T, v wire, change ...func(*edge.Options)) *stage {
	t.Helper()
	w := &stage{T: t, wire: v, pair: edgetest.Certificate(t, "shop.example"), feed: &feed.Memory{}, log: &lines{}, backend: newWitness(t),
		ports: map[string]uint16{}}
	for _, l := range []string{"web", "tls", "other"} {
		w.ports[l] = edgetest.FreePort(t)
	}
	var err error
	if w.recorder, err = telemetry.New(telemetry.Options{AccessLog: "stdout", Stdout: w.log}); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	o := edge.Options{Feed: w.feed, Steps: builtin.Steps(), Recorder: w.recorder, Log: log}
	for _, f := range change {
		f(&o)
	}
	if o.Limiter == nil {
		w.limiter = limiter.New(limiter.Options{})
		t.Cleanup(w.limiter.Close)
		o.Limiter = w.limiter
	}
	w.edge = edge.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { w.edge.Run(ctx); close(done) }()
	t.Cleanup(func() {
		cancel()
		<-done
		w.edge.Drain(ctx, 0)
		_ = w.recorder.Close()
	})
	w.loop = control.New(translate.New(translate.Options{GatewayController: "gatehouse.dev/gateway", IngressController: "gatehouse.dev/ingress",
		HTTPPort: 1, HTTPSPort: 2, BindAddress: netip.MustParseAddr("127.0.0.1"), Loopback: true, Steps: builtin.Steps()}), w.feed, log)
	b64 := base64.StdEncoding.EncodeToString
	w.apply(strings.NewReplacer("BACKEND", fmt.Sprint(w.backend.port), "WEB", fmt.Sprint(w.ports["web"]), "OTHER", fmt.Sprint(w.ports["other"]),
		"TLS", fmt.Sprint(w.ports["tls"]), "CERT", b64(w.pair.Cert), "KEY", b64(w.pair.Key)).Replace(stageObjects) +
		routeTo("api", "/", "") + routeTo("open", "/open", ""))
	return w
}

// apply writes objects, as kubectl apply does, and waits until they are live. A fault fails the test.
func (w *stage) apply(yaml string) {
	w.Helper()
	for _, f := range w.publish(yaml) {
		w.Fatal(f)
	}
	w.await()
	for _, f := range w.loop.Faults() {
		w.Fatalf("fault: %s", f)
	}
}

// applyFaulty writes objects that are to have a fault which says want.
func (w *stage) applyFaulty(yaml, want string) {
	w.Helper()
	faults := w.publish(yaml)
	w.await()
	faults = append(faults, w.loop.Faults()...)
	for _, f := range faults {
		if strings.Contains(f.String(), want) {
			return
		}
	}
	w.Errorf("faults are %v, want %q", faults, want)
}

// publish hands objects to the control loop and does not wait.
func (w *stage) publish(yaml string) []diag.Fault {
	objs, faults := manifest.Parse("stage.yaml", []byte(yaml))
	w.loop.Apply(objects.Change{Upserts: objs}, faults)
	return faults
}

// remove deletes objects and waits until that is live.
func (w *stage) remove(kind, name string) {
	w.Helper()
	w.loop.Apply(objects.Change{Deletes: []objects.Key{{Kind: kind, Namespace: "d", Name: name}}}, nil)
	w.await()
}

// await waits until what was published last is live.
func (w *stage) await() {
	w.Helper()
	limit := time.After(edgetest.Wait)
	for {
		st, _ := w.feed.Latest()
		a, changed := w.feed.Acked()
		if a.ConfigVersion == st.ConfigVersion && a.EndpointsVersion == st.EndpointsVersion && a.SecretsVersion == st.SecretsVersion {
			for k, l := range a.Listeners {
				if l.Problem != "" {
					w.Fatalf("listener %s: %s", k, l.Problem)
				}
			}
			return
		}
		select {
		case <-changed:
		case <-limit:
			w.Fatal("not live")
		}
	}
}

// call is a request. Its zero value is GET / by the stage's wire.
type call struct {
	method, target string
	fields         []string // "Name: value"
	body           string
	listener       string           // "": that of the wire
	cert           *tls.Certificate // of the client, where the listener has TLS
}

// answer is what came back; seen is what the backend saw, nil if nothing came there.
type answer struct {
	status int
	header http.Header
	body   string
	reason string // of a problem document
	seen   *sighting
}

// ask asks for a target with fields.
func (w *stage) ask(target string, fields ...string) *answer {
	w.Helper()
	return w.do(call{target: target, fields: fields})
}

func (w *stage) do(q call) *answer {
	w.Helper()
	c := w.dial(q)
	defer c.Close()
	w.sent++
	c.Send(w.text(q))
	return w.read(c, q)
}

// dial opens a connection to the listener of a request.
func (w *stage) dial(q call) *edgetest.Client {
	w.Helper()
	l := q.listener
	if l == "" {
		l = "web"
		if w.secure {
			l = "tls"
		}
	}
	addr := fmt.Sprintf("127.0.0.1:%d", w.ports[l])
	if l == "web" {
		return edgetest.DialTo(w, addr)
	}
	cfg := &tls.Config{RootCAs: w.pair.Pool, ServerName: "shop.example"}
	if q.cert != nil {
		cfg.Certificates = []tls.Certificate{*q.cert}
	}
	nc, err := tls.Dial("tcp", addr, cfg)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(3 * edgetest.Wait))
	return &edgetest.Client{Conn: nc, T: w, R: bufio.NewReader(nc)}
}

// text is the request as it is sent.
func (w *stage) text(q call) string {
	method, target := q.method, q.target
	if method == "" {
		method = "GET"
	}
	if target == "" {
		target = "/"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\nHost: shop.example\n", method, target)
	if w.upgrade && q.body == "" {
		b.WriteString("Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n")
	}
	for _, f := range q.fields {
		b.WriteString(f + "\n")
	}
	if q.body != "" {
		fmt.Fprintf(&b, "Content-Length: %d\n", len(q.body))
	}
	return b.String() + "\n" + q.body
}

func (w *stage) read(c *edgetest.Client, q call) *answer {
	w.Helper()
	var res *http.Response
	var body string
	if w.upgrade {
		var err error
		if res, err = http.ReadResponse(c.R, &http.Request{Method: q.method}); err != nil {
			w.Fatalf("reading the response: %v", err)
		}
		if res.StatusCode != 101 {
			b, _ := io.ReadAll(res.Body)
			body = string(b)
		}
	} else {
		res, body = c.Read(q.method)
	}
	a := &answer{status: res.StatusCode, header: res.Header, body: body}
	if s := res.Header.Get("Seen"); s != "" {
		a.seen = &sighting{}
		if err := json.Unmarshal([]byte(s), a.seen); err != nil {
			w.Fatal(err)
		}
	}
	if res.Header.Get("Content-Type") == "application/problem+json" {
		var p struct{ Reason string }
		if err := json.Unmarshal([]byte(body), &p); err != nil {
			w.Fatalf("problem document %q: %v", body, err)
		}
		a.reason = p.Reason
	}
	return a
}

// passed fails unless the backend answered, and returns what it saw.
func (w *stage) passed(a *answer) *sighting {
	w.Helper()
	if a.seen == nil || a.status != 200 && a.status != 101 {
		w.Fatalf("got %d %s %.200q, want the backend's answer", a.status, a.reason, a.body)
	}
	return a.seen
}

// refused fails unless the edge answered so, and nothing reached a backend.
func (w *stage) refused(a *answer, status int, reason string) {
	w.Helper()
	if a.status != status || a.reason != reason || a.seen != nil {
		w.Fatalf("got %d %q (from the backend: %v), want %d %s", a.status, a.reason, a.seen != nil, status, reason)
	}
}

// sighting is a request as a backend saw it.
type sighting struct {
	Method, URI, Body string
	Header, Trailer   http.Header
}

// witness is a backend that answers with what it saw.
type witness struct {
	port uint16
	hold sync.Map      // path -> a channel that ends the wait of the request that has it
	held chan struct{} // one for each request to /hold that arrived
}

func newWitness(t *testing.T) *witness {
	b := &witness{held: make(chan struct{}, 256)}
	b.port = netip.MustParseAddrPort(edgetest.HTTPBackend(t, b)).Port()
	return b
}

// ServeHTTP answers. The fields Answer of a request, "Name: value", are fields of the answer; /hold/... waits for release.
func (b *witness) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	var body bytes.Buffer
	if _, err := io.Copy(&body, r.Body); err != nil {
		return
	}
	if strings.HasPrefix(r.URL.Path, "/hold") {
		end, _ := b.hold.LoadOrStore(r.URL.Path, make(chan struct{}))
		b.held <- struct{}{}
		select {
		case <-end.(chan struct{}):
		case <-r.Context().Done():
		case <-time.After(3 * edgetest.Wait):
		}
	}
	text, err := json.Marshal(sighting{r.Method, r.RequestURI, body.String(), r.Header, r.Trailer})
	if err != nil {
		panic(err)
	}
	rw.Header().Set("Seen", string(text))
	for _, f := range r.Header["Answer"] {
		name, value, _ := strings.Cut(f, ": ")
		rw.Header().Add(name, value)
	}
	if r.Header.Get("Upgrade") == "" {
		return
	}
	rw.Header().Set("Upgrade", r.Header.Get("Upgrade"))
	rw.Header().Set("Connection", "Upgrade")
	rw.WriteHeader(http.StatusSwitchingProtocols)
	if c, _, err := http.NewResponseController(rw).Hijack(); err == nil {
		_ = c.Close()
	}
}

// release ends the wait of a request.
func (b *witness) release(path string) {
	end, _ := b.hold.LoadOrStore(path, make(chan struct{}))
	close(end.(chan struct{}))
}

// lines is an access log.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// logged waits until the access log has a line with text, and returns the line.
func (w *stage) logged(text string) string {
	w.Helper()
	var line string
	w.eventually("a line of the log with "+text, func() bool {
		for l := range strings.Lines(w.log.String()) {
			if strings.Contains(l, text) {
				line = l
				return true
			}
		}
		return false
	})
	return line
}

func (w *stage) eventually(what string, ok func() bool) {
	w.Helper()
	for end := time.Now().Add(edgetest.Wait); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("not within %s: %s", edgetest.Wait, what)
		}
	}
}

// metric sums the samples of a metric that have a label of this value.
func (w *stage) metric(name, value string) (sum float64) {
	w.Helper()
	req, err := http.NewRequestWithContext(w.Context(), http.MethodGet, "/metrics", nil)
	if err != nil {
		w.Fatal(err)
	}
	rec := httptest.NewRecorder()
	w.recorder.Metrics().ServeHTTP(rec, req)
	for l := range strings.Lines(rec.Body.String()) {
		if strings.HasPrefix(l, name+"{") && strings.Contains(l, `"`+value+`"`) {
			n, err := strconv.ParseFloat(strings.TrimSpace(l[strings.LastIndexByte(l, ' '):]), 64)
			if err != nil {
				w.Fatal(err)
			}
			sum += n
		}
	}
	return sum
}
