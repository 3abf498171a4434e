package translate_test

import (
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/internal/objects"
	"github.com/gatehouse-io/gatehouse/internal/translate"
)

// manyRoutes writes n HTTPRoutes, spread over so many hosts, each to a Service of its own, on one Gateway.
func manyRoutes(n, hosts int) string {
	var b strings.Builder
	b.WriteString(`apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: public, namespace: shop}
spec: {gatewayClassName: gatehouse, listeners: [{name: http, port: 80, protocol: HTTP}]}
`)
	for i := range n {
		fmt.Fprintf(&b, `---
apiVersion: v1
kind: Service
metadata: {name: s%d, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r%d, namespace: shop, generation: 1}
spec: {parentRefs: [{name: public}], hostnames: [h%d.example], rules: [{matches: [{path: {value: /p%d}}], backendRefs: [{name: s%d, port: 80}]}]}
`, i, i, i%hosts, i, i)
	}
	return b.String()
}

// gatewayPolicies reach every one of manyRoutes.
const gatewayPolicies = `apiVersion: gatehouse.dev/v1alpha1
kind: AuthPolicy
metadata: {name: callers, namespace: shop}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: public}]
  defaults:
    authentication: {methods: [{name: keys, apiKey: {}}]}
    authorization: {rules: {write: {when: 'request.method != "GET"', require: {cel: '"write" in identity.scopes'}}}}
---
apiVersion: gatehouse.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: often, namespace: shop}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: public}]
  defaults: {limits: {each: {key: [identity.application], rates: [{limit: 100, period: 1s}]}}}
`

// BenchmarkOneRouteOf5000 is the CPU time from one changed HTTPRoute to the new configuration and report. The goal is 2 ms.
func BenchmarkOneRouteOf5000(b *testing.B) {
	for _, bc := range []struct {
		hosts    int
		policies string
	}{{5000, ""}, {50, ""}, {50, gatewayPolicies}} {
		hosts := bc.hosts
		b.Run(fmt.Sprintf("%d hosts, policies %v", hosts, bc.policies != ""), func(b *testing.B) {
			store := objects.NewStore()
			store.Apply(objects.Change{Upserts: parse(b, bc.policies)})
			store.Apply(objects.Change{Upserts: parse(b, builtins)})
			store.Apply(objects.Change{Upserts: decodeAll(b, manyRoutes(5000, hosts))})
			tr := translate.New(options())
			if r := tr.Update(store, nil); len(r.Config.Hosts) != hosts {
				b.Fatalf("%d hosts, want %d", len(r.Config.Hosts), hosts)
			}
			route, _ := objects.Get[*gatewayv1.HTTPRoute](store.View(nil), "shop", "r17")
			runtime.GC()
			b.ResetTimer()
			began := cpuTime(b)
			for i := range b.N {
				next := route.DeepCopy()
				next.Generation = int64(i + 2)
				path := fmt.Sprintf("/p%d", i)
				next.Spec.Rules[0].Matches[0].Path.Value = &path
				r := tr.Update(store, store.Apply(objects.Change{Upserts: []objects.Object{next}}))
				if !r.ConfigChanged || r.EndpointsChanged {
					b.Fatalf("changed: config %v, endpoints %v; want the configuration alone", r.ConfigChanged, r.EndpointsChanged)
				}
			}
			b.ReportMetric((cpuTime(b)-began).Seconds()*1e3/float64(b.N), "cpu-ms/op")
		})
	}
}

// cpuTime is what this process has used of all processors, the garbage collector included.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkFromScratch is the first translation of 5,000 routes. It also reports what is alive because of it: units, IR, verdicts.
func BenchmarkFromScratch(b *testing.B) {
	store := objects.NewStore()
	store.Apply(objects.Change{Upserts: parse(b, builtins)})
	store.Apply(objects.Change{Upserts: decodeAll(b, manyRoutes(5000, 5000))})
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	var tr *translate.Translator
	for b.Loop() {
		tr = translate.New(options())
		tr.Update(store, nil)
	}
	b.ReportMetric(float64(heap()-before)/(1<<20), "MiB-kept")
	runtime.KeepAlive(tr)
	runtime.KeepAlive(store)
}
