package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestCheckWarnsOfNamesWithoutAddress: check looks names of backends up, so it says what run would say of them.
func TestCheckWarnsOfNamesWithoutAddress(t *testing.T) {
	const name = "no-such-name.invalid"
	ctx, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	_, err := net.DefaultResolver.LookupHost(ctx, name)
	if known := (*net.DNSError)(nil); !errors.As(err, &known) || !known.IsNotFound {
		t.Skipf("no DNS server here says that there is no %s: %v", name, err)
	}
	file := filepath.Join(t.TempDir(), "all.yaml")
	const backend = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g, namespace: shop}
spec:
  gatewayClassName: gatehouse
  listeners: [{name: http, port: 8001, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec:
  parentRefs: [{name: g}]
  rules: [{backendRefs: [{group: gatehouse.dev, kind: Backend, name: b}]}]
---
apiVersion: gatehouse.dev/v1alpha1
kind: Backend
metadata: {name: b, namespace: shop}
spec: {endpoints: [{hostname: ` + name + `, port: 80}]}
`
	if err := os.WriteFile(file, []byte(backend), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, stderr bytes.Buffer
	code := run(t.Context(), []string{"check", "-f", file}, os.Getenv, &out, &stderr)
	if want := `warning: Backend shop/b: spec: there is no name "` + name + `", or it has no address`; code != 0 || !strings.Contains(out.String(), want) {
		t.Errorf("exit code %d, output %s%s, want 0 and %s", code, out.String(), stderr.String(), want)
	}
}
