package manifest

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// BenchmarkLoad reads 10,000 HTTPRoutes from ten files, as a start does.
func BenchmarkLoad(b *testing.B) {
	dir, size := b.TempDir(), 0
	for f := range 10 {
		var y strings.Builder
		for i := range 1000 {
			fmt.Fprintf(&y, `---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r%[1]d-%[2]d, namespace: d}
spec:
  parentRefs: [{name: g}]
  hostnames: [h%[1]d-%[2]d.example]
  rules: [{matches: [{path: {value: /a}}], backendRefs: [{name: s, port: 80}]}]
`, f, i)
		}
		write(b, filepath.Join(dir, fmt.Sprintf("%d.yaml", f)), y.String())
		size += y.Len()
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		objs, faults, err := Load([]string{dir})
		if err != nil || len(faults) > 0 || len(objs) != 10_000 {
			b.Fatalf("%d objects, faults %v, %v", len(objs), faults, err)
		}
	}
}
