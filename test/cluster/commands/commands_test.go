package commands

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/gatehouse-io/gatehouse/test/cluster"
)

func TestMain(m *testing.M) {
	os.Exit(cluster.Lab(m, cluster.PrepareGatehouse, cluster.PrepareConformance))
}

const shop = `
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: public, namespace: shop}
spec: {gatewayClassName: gatehouse, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 3000}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{name: public}]
  hostnames: [shop.example]
  rules: [{matches: [{path: {value: /cart}}], backendRefs: [{name: BACKEND, port: 80}]}]
`

// operator runs gatehouse with the cluster's kubeconfig.
type operator struct {
	*cluster.Cluster
	t *testing.T
}

// gatehouse returns what a command prints and its exit code.
func (o *operator) gatehouse(args ...string) (out string, code int) {
	o.t.Helper()
	image, err := cluster.GatehouseUnderTest()
	if err != nil {
		o.t.Fatal(err)
	}
	cmd := exec.CommandContext(o.t.Context(), image.Program, append(args, "--kubeconfig", o.Kubeconfig())...)
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		o.t.Fatal(err)
	}
	return b.String(), cmd.ProcessState.ExitCode()
}

// says runs a command until it prints all of some texts and ends with a code: what others do in a cluster takes its time.
func (o *operator) says(code int, args []string, want ...string) string {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(o.t.Context(), 45*time.Second)
	defer cancel()
	var out string
	err := o.Wait(ctx, "gatehouse "+strings.Join(args, " "), func(context.Context) error {
		var got int
		out, got = o.gatehouse(args...)
		var missing []string
		for _, w := range want {
			if !strings.Contains(out, w) {
				missing = append(missing, w)
			}
		}
		if got != code || len(missing) > 0 {
			return errors.New("missing: " + strings.Join(missing, "; ") + "\nprinted:\n" + out)
		}
		return nil
	})
	if err != nil {
		o.t.Fatal(err)
	}
	return out
}

// TestBeforeAndAfterInstalling walks through an installation: what check and status say at each stage, each finding with its hint.
func TestBeforeAndAfterInstalling(t *testing.T) {
	o := &operator{cluster.StartTest(t, cluster.Options{}), t}
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	out := o.says(0, []string{"check"}, "CustomResourceDefinition gateways.gateway.networking.k8s.io: is not installed, so no Gateway is read (install the Gateway API's CRDs",
		"CustomResourceDefinition backends.gatehouse.dev: is not installed, so no Backend is read (install the CRDs of the chart)", "0 errors,")
	if n := strings.Count(out, "gateways.gateway.networking.k8s.io: is not installed"); n != 1 {
		t.Errorf("said %d times:\n%s", n, out)
	}
	o.says(1, []string{"status"}, "no installation found")

	must(o.InstallGatewayAPI(ctx, "standard"))
	must(o.InstallGatehouse(ctx, cluster.Release{}))
	o.says(0, []string{"check"}, "Deployment gatehouse-system/gatehouse: 2 of 2 ready", "leader gatehouse-", "0 errors, 0 warnings; 0 routes on 2 listeners")
	o.says(0, []string{"status"}, "Deployment gatehouse-system/gatehouse: 2 of 2 ready", "GatewayClass gatehouse: Accepted")

	must(o.Apply(ctx, []byte(strings.Replace(shop, "BACKEND", "web", 1))))
	o.says(0, []string{"status"}, "Gateway shop/public: Accepted, Programmed, at 172.30.", "HTTPRoute shop/web at Gateway shop/public: Accepted, ResolvedRefs")
	o.says(0, []string{"routes"}, "shop.example", "prefix /cart", "shop/web:80")
	o.says(0, []string{"explain", "GET", "http://shop.example/cart/7"}, "prefix /cart", "HTTPRoute shop/web spec.rules[0].matches[0]")

	must(o.Apply(ctx, []byte(strings.Replace(shop, "BACKEND", "wbe", 1))))
	o.says(1, []string{"check"}, "HTTPRoute shop/web: spec.rules[0].backendRefs[0]: no Service shop/wbe (did you mean web?)", "1 error")
	o.says(1, []string{"status"}, "HTTPRoute shop/web at Gateway shop/public: ResolvedRefs=False BackendNotFound")
	out, _ = o.gatehouse("status", "-o", "json")
	var view struct {
		Installations []struct{ Name string }
		Objects       []json.RawMessage
	}
	if err := json.Unmarshal([]byte(out), &view); err != nil || len(view.Installations) != 1 || len(view.Objects) < 3 {
		t.Errorf("status -o json: %v\n%s", err, out)
	}

	must(o.Apply(ctx, []byte(strings.Replace(shop, "BACKEND", "web", 1))))
	_, err := o.Client().AppsV1().Deployments("gatehouse-system").Patch(ctx, "gatehouse", types.StrategicMergePatchType,
		[]byte(`{"spec":{"strategy":{"type":"Recreate","rollingUpdate":null},"template":{"spec":{"containers":[{"name":"gatehouse","image":"example.com/nowhere:1"}]}}}}`), metav1.PatchOptions{})
	must(err)
	o.says(1, []string{"check"}, "Deployment gatehouse-system/gatehouse: 0 of 2 pods are ready (kubectl -n gatehouse-system describe pod")
}

// TestNoServer: without an API server a command says so at once, in one line.
func TestNoServer(t *testing.T) {
	o := &operator{cluster.StartTest(t, cluster.Options{}), t}
	o.StopAPIServer()
	for _, command := range []string{"check", "routes", "status"} {
		out, code := o.gatehouse(command)
		if code != 1 || strings.Count(out, "\n") != 1 || !strings.Contains(out, "connection refused") {
			t.Errorf("gatehouse %s: exit %d, printed:\n%s", command, code, out)
		}
	}
}
