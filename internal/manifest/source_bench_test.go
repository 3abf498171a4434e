package manifest

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkOneFile is the cost of one changed file of one object beside a file of 10,000, and its CPU time.
func BenchmarkOneFile(b *testing.B) {
	const ingress = `---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: %s, namespace: shop}
spec: {rules: [{host: %s.example, http: {paths: [{path: /v%d, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}
`
	dir := b.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	var many strings.Builder
	for i := range 10_000 {
		name := fmt.Sprintf("r%d", i)
		fmt.Fprintf(&many, ingress, name, name, 0)
	}
	write("many.yaml", many.String())
	long := time.Now().Add(-time.Hour) // a file written just now would be read again
	if err := os.Chtimes(filepath.Join(dir, "many.yaml"), long, long); err != nil {
		b.Fatal(err)
	}
	s, err := Open([]string{dir}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	s.scan()
	cpu := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	began, n := cpu(), 0
	for b.Loop() {
		n++
		write("one.yaml", fmt.Sprintf(ingress, "one", "one", n))
		if _, c, faults := s.scan(); len(c.Upserts) != 1 || len(faults) > 0 {
			b.Fatalf("change %d: %d objects, faults %v; want one object", n, len(c.Upserts), faults)
		}
	}
	b.ReportMetric((cpu()-began).Seconds()*1e3/float64(n), "cpu-ms/op")
}
