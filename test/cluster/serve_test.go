package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const echoManifest = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo, namespace: %[1]s}
spec:
  replicas: 2
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      containers:
      - name: echo
        image: gateway-api/echo-basic:v1
        env:
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        ports: [{name: web, containerPort: 3000}]
        readinessProbe: {httpGet: {port: web, path: /}, periodSeconds: 1}
        lifecycle: {preStop: {sleep: {seconds: 1}}}
---
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: %[1]s}
spec:
  type: LoadBalancer
  ipFamilyPolicy: PreferDualStack
  selector: {app: echo}
  ports: [{name: http, port: 80, targetPort: web}]
`

// serviceURL waits for the Service's load balancer address and returns a URL of port 80 there.
func serviceURL(ctx context.Context, t *testing.T, c *Cluster, ns, name string) string {
	t.Helper()
	var url string
	err := c.Wait(ctx, "an address", func(ctx context.Context) error {
		s, err := c.Client().CoreV1().Services(ns).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if len(s.Status.LoadBalancer.Ingress) == 0 {
			return errors.New("none")
		}
		url = "http://" + s.Status.LoadBalancer.Ingress[0].IP
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return url
}

func TestDeploymentAnswers(t *testing.T) {
	ctx, c, ns := use(t)
	if err := c.Apply(ctx, fmt.Appendf(nil, echoManifest, ns)); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitDeployment(ctx, ns, "echo"); err != nil {
		t.Fatal(err)
	}
	lb := serviceURL(ctx, t, c, ns, "echo")
	s, err := c.Client().CoreV1().Services(ns).Get(ctx, "echo", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	urls := []string{lb}
	for _, ip := range s.Spec.ClusterIPs {
		if strings.Contains(ip, ":") {
			ip = "[" + ip + "]"
		}
		urls = append(urls, "http://"+ip)
	}
	for _, url := range urls {
		pods := map[string]bool{}
		// A ready pod is an endpoint a moment later.
		err := c.Wait(ctx, "both pods at "+url, func(ctx context.Context) error {
			body, err := get(ctx, url)
			if err != nil {
				return err
			}
			_, after, _ := strings.Cut(body, `"pod": "`)
			pod, _, _ := strings.Cut(after, `"`)
			pods[pod] = true
			if len(pods) != 2 {
				return fmt.Errorf("got %v", pods)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestUDP(t *testing.T) {
	ctx, c, ns := use(t)
	manifest := `
apiVersion: v1
kind: Pod
metadata: {name: u, namespace: %[1]s, labels: {app: u}}
spec:
  containers: [{name: c, image: gateway-api/echo-basic, env: [{name: UDP_ECHO_SERVER, value: "1"}, {name: UDP_PORT, value: "5353"}]}]
---
apiVersion: v1
kind: Service
metadata: {name: u, namespace: %[1]s}
spec: {selector: {app: u}, ports: [{port: 53, targetPort: 5353, protocol: UDP}]}
`
	if err := c.Apply(ctx, fmt.Appendf(nil, manifest, ns)); err != nil {
		t.Fatal(err)
	}
	s, err := c.Client().CoreV1().Services(ns).Get(ctx, "u", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	err = c.Wait(ctx, "an echo", func(context.Context) error {
		conn, err := net.Dial("udp", net.JoinHostPort(s.Spec.ClusterIP, "53"))
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(200 * time.Millisecond))
		conn.Write([]byte("hello"))
		buf := make([]byte, 1000)
		n, err := conn.Read(buf)
		if err != nil || !strings.Contains(string(buf[:n]), "hello") {
			return fmt.Errorf("%q, %w", buf[:n], err)
		}
		return nil
	})
	if err != nil {
		logs, _ := c.Logs(ns, "u")
		t.Errorf("%v\nlogs: %s", err, logs)
	}
}
