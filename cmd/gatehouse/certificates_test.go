package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
)

const fittingCertificates = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g, namespace: shop}
spec:
  gatewayClassName: gatehouse
  listeners:
  - {name: cn, port: 8001, protocol: HTTPS, hostname: cn.example.com, tls: {certificateRefs: [{name: cn}]}}
  - {name: other, port: 8002, protocol: HTTPS, hostname: san.example.com, tls: {certificateRefs: [{name: other}]}}
  - {name: right, port: 8003, protocol: HTTPS, hostname: other.test, tls: {certificateRefs: [{name: other}]}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: shop}
spec:
  tls: [{hosts: [cn.example.com], secretName: cn}]
  rules: [{host: cn.example.com}]
  defaultBackend: {service: {name: web, port: {number: 80}}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80}]}
`

const bareIngress = `---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: bare, namespace: shop}
spec:
  tls: [{hosts: [cn.example.com, lost.example.com]}]
  rules: [{host: lost.example.com}]
  defaultBackend: {service: {name: web, port: {number: 80}}}
`

// TestCheckTellsOfCertificates: H3, C1, H14: a certificate that does not fit is served and a warning, with exit code 0 and without an empty
// list of names; a host that wants TLS and has no certificate is an error.
func TestCheckTellsOfCertificates(t *testing.T) {
	dir := t.TempDir()
	secrets := ""
	for name, p := range map[string]*edgetest.Pair{"cn": edgetest.Certificate(t, "CN=cn.example.com"), "other": edgetest.Certificate(t, "other.test")} {
		crt, _ := json.Marshal(string(p.Cert))
		key, _ := json.Marshal(string(p.Key))
		secrets += fmt.Sprintf("---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: shop}\ntype: kubernetes.io/tls\nstringData: {tls.crt: %s, tls.key: %s}\n", name, crt, key)
	}
	check := func(manifests string, code int, want string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(manifests+secrets), 0o600); err != nil {
			t.Fatal(err)
		}
		var out, stderr bytes.Buffer
		got := run(context.Background(), []string{"check", "-f", dir}, os.Getenv, &out, &stderr)
		if d := cmp.Diff(want, strings.ReplaceAll(out.String(), dir+"/", "")); got != code || d != "" {
			t.Errorf("exit code %d, want %d; %s(-want +got)\n%s", got, code, stderr.String(), d)
		}
	}
	const nobody = "it has no subject alternative name, only the common name cn.example.com, which browsers and many other clients do not read"
	const warnings = `all.yaml:7: warning: Gateway shop/g: spec.listeners[0].tls.certificateRefs[0]: the certificate names no host (` + nobody + `)
all.yaml:8: warning: Gateway shop/g: spec.listeners[1].tls.certificateRefs[0]: the certificate does not name san.example.com, the hostname of the listener (it names other.test: clients that verify names refuse it)
all.yaml:15: warning: Ingress shop/web: spec.tls[0]: the certificate does not name cn.example.com (` + nobody + `)
`
	check(fittingCertificates, 0, warnings+"0 errors, 3 warnings; 5 routes on 5 listeners\n")
	check(fittingCertificates+bareIngress, 1, warnings+"all.yaml:28: Ingress shop/bare: spec.tls[0]: no certificate for lost.example.com: TLS handshakes are refused "+
		"(write secretName, or defaultCertificateRef in the GatewayParameters of the IngressClass)\n1 error, 3 warnings; 8 routes on 5 listeners\n")
}
