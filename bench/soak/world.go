//go:build linux

package main

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-io/gatehouse/bench/lab"
)

const (
	steady = 200 // routes that stay as they are
	pods   = 3   // backends at a time
	keep   = 5   // changes that an added route lives
)

// world is the folder that Gatehouse follows, and the backends that it names.
type world struct {
	dir           string // conf is what Gatehouse follows, beside it files are made
	plain, secure int
	mu            sync.Mutex
	leaves        map[string]bool // certificates that have been in use, in DER
	newest        string
	pods          []*pod
	ending        sync.WaitGroup
}

func host(name string) string { return name + ".soak.example" }

func newWorld(dir string, plain, secure int) (*world, error) {
	w := &world{dir: dir, plain: plain, secure: secure, leaves: map[string]bool{}}
	if err := os.MkdirAll(filepath.Join(dir, "conf"), 0o755); err != nil {
		return nil, err
	}
	for range pods {
		p, err := newPod()
		if err != nil {
			return nil, err
		}
		w.pods = append(w.pods, p)
	}
	var routes strings.Builder
	for i := range steady {
		routes.WriteString(route(fmt.Sprintf("s%d", i), 0))
	}
	for name, text := range map[string]string{
		"base.yaml": fmt.Sprintf(base, plain, secure), "steady.yaml": routes.String(), "changed.yaml": route("changed", 0), "endpoints.yaml": w.endpoints(),
	} {
		if err := w.write(name, text); err != nil {
			return nil, err
		}
	}
	return w, w.rotate()
}

const base = `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: soak, namespace: soak}
spec:
  gatewayClassName: gatehouse
  listeners:
  - {name: http, port: %d, protocol: HTTP}
  - {name: https, port: %d, protocol: HTTPS, tls: {certificateRefs: [{name: pair}]}}
---
apiVersion: v1
kind: Service
metadata: {name: pods, namespace: soak}
spec: {ports: [{name: http, port: 80}]}
`

// route is an HTTPRoute of a host of its own; each answer tells the generation.
func route(name string, generation int) string {
	return fmt.Sprintf(`---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: %s, namespace: soak}
spec:
  parentRefs: [{name: soak}]
  hostnames: [%s]
  rules:
  - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-Generation, value: "%d"}]}}]
    backendRefs: [{name: pods, port: 80}]
`, name, host(name), generation)
}

// endpoints is one slice for each pod, because a slice has one port for all its endpoints.
func (w *world) endpoints() string {
	var b strings.Builder
	for i, p := range w.pods {
		fmt.Fprintf(&b, `---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: pods-%d, namespace: soak, labels: {kubernetes.io/service-name: pods}}
addressType: IPv4
endpoints: [{addresses: [127.0.0.1], conditions: {ready: true}}]
ports: [{name: http, port: %d, protocol: TCP}]
`, i, p.port)
	}
	return b.String()
}

// write replaces a file of the folder in one step, as editors and kubelets do.
func (w *world) write(name, text string) error {
	beside := filepath.Join(w.dir, name)
	if err := os.WriteFile(beside, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(beside, filepath.Join(w.dir, "conf", name))
}

// replacePod starts a backend in the place of the oldest, and ends that one at the same moment in which its endpoint goes.
func (w *world) replacePod() error {
	p, err := newPod()
	if err != nil {
		return err
	}
	old := w.pods[0]
	w.pods = append(w.pods[1:], p)
	err = w.write("endpoints.yaml", w.endpoints())
	w.ending.Go(old.end)
	return err
}

// changeRoutes changes one route, adds one and removes an older one, whose name it returns if there was one.
func (w *world) changeRoutes(generation int) (added, removed string, err error) {
	if err := w.write("changed.yaml", route("changed", generation)); err != nil {
		return "", "", err
	}
	added = fmt.Sprintf("r%d", generation)
	if err := w.write(added+".yaml", route(added, generation)); err != nil {
		return "", "", err
	}
	if generation <= keep {
		return added, "", nil
	}
	removed = fmt.Sprintf("r%d", generation-keep)
	return added, removed, os.Remove(filepath.Join(w.dir, "conf", removed+".yaml"))
}

// rotate makes another certificate for all hosts and replaces the Secret.
func (w *world) rotate() error {
	certFile, keyFile := filepath.Join(w.dir, "cert.pem"), filepath.Join(w.dir, "key.pem")
	if _, err := lab.Certificate(certFile, keyFile, host("*")); err != nil {
		return fmt.Errorf("making a certificate: %w", err)
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.newest = string(pair.Certificate[0])
	w.leaves[w.newest] = true
	w.mu.Unlock()
	text := "apiVersion: v1\nkind: Secret\nmetadata: {name: pair, namespace: soak}\ntype: kubernetes.io/tls\ndata:\n"
	for _, f := range []struct{ key, file string }{{"tls.crt", certFile}, {"tls.key", keyFile}} {
		b, err := os.ReadFile(f.file)
		if err != nil {
			return err
		}
		text += fmt.Sprintf("  %s: %s\n", f.key, base64.StdEncoding.EncodeToString(b))
	}
	return w.write("pair.yaml", text)
}

// trust accepts the certificates that have been in use, and none else.
func (w *world) trust(s tls.ConnectionState) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.leaves[string(s.PeerCertificates[0].Raw)] {
		return fmt.Errorf("a certificate that was never configured, from %v", s.PeerCertificates[0].NotBefore.Format(time.RFC3339))
	}
	return nil
}

// isNewest says whether a connection has got the certificate that was written last.
func (w *world) isNewest(s tls.ConnectionState) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(s.PeerCertificates[0].Raw) == w.newest
}

func (w *world) end() {
	for _, p := range w.pods {
		w.ending.Go(p.end)
	}
	w.ending.Wait()
}
