package edgetest_test

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

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

const manyRoutes = `apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: gatehouse}
spec: {controllerName: gatehouse.dev/gateway}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g, namespace: d}
spec: {gatewayClassName: gatehouse, listeners: [{name: http, port: 18999, protocol: HTTP}]}
`

func manyRoute(i, host int, path string) string {
	return fmt.Sprintf(`---
apiVersion: v1
kind: Service
metadata: {name: s%[1]d, namespace: d}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: s%[1]d-1, namespace: d, labels: {kubernetes.io/service-name: s%[1]d}}
addressType: IPv4
ports: [{port: 9000}]
endpoints: [{addresses: [127.0.0.1]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r%[1]d, namespace: d}
spec:
  parentRefs: [{name: g}]
  hostnames: [h%[3]d.example]
  rules: [{matches: [{path: {value: %[2]s}}], backendRefs: [{name: s%[1]d, port: 80}]}]
`, i, path, host)
}

// BenchmarkOneChange is the whole way of one changed HTTPRoute among many, each with a Service of its own: objects, translate, feed,
// compile, swap, acknowledgement. It reports the CPU time of the process for each change. The goal at 100,000 routes over 10,000 hosts
// is 20 ms for a change, 150 MiB live for what the data side holds, and 10 s from files to live.
func BenchmarkOneChange(b *testing.B) {
	for _, size := range []struct{ routes, hosts int }{{5000, 5000}, {100_000, 10_000}} {
		b.Run(fmt.Sprintf("routes=%d/hosts=%d", size.routes, size.hosts), func(b *testing.B) { oneChange(b, size.routes, size.hosts) })
	}
}

// BenchmarkOneChangeInOneHost is the same with all routes in one virtual host, that of a Gateway without hostnames: nearly all of a
// host must be taken over from the version before. The goal at 100,000 routes is 20 ms.
func BenchmarkOneChangeInOneHost(b *testing.B) {
	for _, routes := range []int{1000, 10_000, 100_000} {
		for _, kind := range []string{"HTTPRoute", "Ingress"} {
			b.Run(fmt.Sprintf("%s/routes=%d", kind, routes), func(b *testing.B) {
				objs := parsed(b, manyRoutes)
				for i := range 100 {
					objs = append(objs, parsed(b, manyRoute(i, 0, "/"))[:2]...)
				}
				objs = append(objs, inOneHost(b, kind, routes)...)
				var changed [2]objects.Object
				for i, path := range []string{"/b", "/c"} {
					changed[i] = inOne(b, kind, routes/2, path)
				}
				change(b, objs, changed)
			})
		}
	}
}

// inOneHost are objects of one path each, all of one host.
func inOneHost(b *testing.B, kind string, n int) []objects.Object {
	objs := []objects.Object{}
	if kind == "Ingress" {
		objs = parsed(b, "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: ours}\nspec: {controller: gatehouse.dev/ingress}\n")
	}
	for i := range n {
		objs = append(objs, inOne(b, kind, i, fmt.Sprintf("/v1/team-%d/a%d", i%100, i)))
	}
	return objs
}

func inOne(b *testing.B, kind string, i int, path string) objects.Object {
	if kind == "Ingress" {
		class, pathType := "ours", networkingv1.PathTypePrefix
		in := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: fmt.Sprintf("r%d", i)}}
		in.Spec.IngressClassName = &class
		in.Spec.Rules = []networkingv1.IngressRule{{Host: "shop.example"}}
		in.Spec.Rules[0].HTTP = &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{Path: path, PathType: &pathType,
			Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: fmt.Sprintf("s%d", i%100),
				Port: networkingv1.ServiceBackendPort{Number: 80}}}}}}
		return in
	}
	r := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: fmt.Sprintf("r%d", i)}}
	r.Spec.ParentRefs = []gatewayv1.ParentReference{{Name: "g"}}
	port := gatewayv1.PortNumber(80)
	var backend gatewayv1.HTTPBackendRef
	backend.Name, backend.Port = gatewayv1.ObjectName(fmt.Sprintf("s%d", i%100)), &port
	r.Spec.Rules = []gatewayv1.HTTPRouteRule{{Matches: []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{Value: &path}}},
		BackendRefs: []gatewayv1.HTTPBackendRef{backend}}}
	return r
}

func parsed(b *testing.B, text string) []objects.Object {
	objs, faults := manifest.Parse("many.yaml", []byte(text))
	if len(faults) > 0 {
		b.Fatal(faults[0])
	}
	return objs
}

func oneChange(b *testing.B, routes, hosts int) {
	var y strings.Builder
	y.WriteString(manyRoutes)
	for i := range routes {
		y.WriteString(manyRoute(i, i%hosts, fmt.Sprintf("/a%d", i)))
	}
	began := time.Now()
	objs := parsed(b, y.String())
	reading := time.Since(began)
	var changed [2]objects.Object
	for i, path := range []string{"/b", "/c"} {
		changed[i] = parsed(b, manyRoute(routes/2, routes/2%hosts, path))[2]
	}
	b.ReportMetric(reading.Seconds(), "reading-s")
	change(b, objs, changed)
}

// change makes objs live and then one of changed after the other.
func change(b *testing.B, objs []objects.Object, changed [2]objects.Object) {
	f := &feed.Memory{}
	rec, err := telemetry.New(telemetry.Options{})
	if err != nil {
		b.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	e := edge.New(edge.Options{Feed: f, Steps: builtin.Steps(), Recorder: rec, Log: log})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { e.Run(ctx); close(done) }()
	defer func() { cancel(); <-done; e.Drain(ctx, 0) }()
	loop := control.New(translate.New(translate.Options{GatewayController: "gatehouse.dev/gateway", IngressController: "gatehouse.dev/ingress",
		HTTPPort: 18997, HTTPSPort: 18998, Steps: builtin.Steps()}), f, log)
	began := time.Now()
	loop.Apply(objects.Change{Upserts: objs}, nil)
	live(b, f)
	ready := time.Since(began)
	runtime.GC()
	before := cpu()
	n := 0
	for b.Loop() {
		loop.Apply(objects.Change{Upserts: []objects.Object{changed[n%2]}}, nil)
		live(b, f)
		n++
	}
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(n), "cpu-us/op")
	b.ReportMetric(ready.Seconds(), "ready-s")
}

// live waits until what was published last is acknowledged.
func live(b *testing.B, f *feed.Memory) {
	limit := time.After(3 * edgetest.Wait)
	for {
		st, _ := f.Latest()
		a, changed := f.Acked()
		if a.ConfigVersion == st.ConfigVersion {
			return
		}
		select {
		case <-changed:
		case <-limit:
			b.Fatal("not live")
		}
	}
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
