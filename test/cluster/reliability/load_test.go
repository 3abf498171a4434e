package reliability

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/gatehouse-io/gatehouse/test/cluster"
)

func TestMain(m *testing.M) {
	os.Exit(cluster.Lab(m, cluster.PrepareGatehouse, cluster.PrepareConformance))
}

const system = "gatehouse-system"

// shop is a Gateway and a route to the backend.
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
` + route

const route = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: ROUTE, namespace: shop}
spec:
  parentRefs: [{name: public}]
  hostnames: [ROUTE.example]
  rules: [{backendRefs: [{name: web, port: 80}]}]
`

// world is a cluster with Gatehouse and the shop in it.
type world struct {
	*cluster.Cluster
	ctx     context.Context
	address string // of the Gateway
}

func start(t *testing.T, channel string, o cluster.Options) *world {
	t.Helper()
	w := &world{cluster.StartTest(t, o), t.Context(), ""}
	t.Cleanup(func() {
		if t.Failed() {
			w.tellLogs(t)
		}
	})
	if channel != "" {
		w.must(t, w.InstallGatewayAPI(w.ctx, channel))
	}
	w.must(t, w.InstallGatehouse(w.ctx, cluster.Release{Set: []string{"drainGrace=2s"}}))
	if channel != "" {
		w.openShop(t)
	}
	return w
}

func (w *world) openShop(t *testing.T) {
	t.Helper()
	w.apply(t, named(shop, "web"), cluster.Echo("shop", "web", 2))
	w.must(t, w.WaitDeployment(w.ctx, "shop", "web"))
	w.address = w.gatewayAddress(t)
	w.serves(t, "web.example")
}

func (w *world) must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) apply(t *testing.T, yaml ...string) {
	t.Helper()
	for _, y := range yaml {
		w.must(t, w.Apply(w.ctx, []byte(y)))
	}
}

// eventually waits until check returns nil. The node agent and the control plane may need half a minute to notice that the API server
// is back.
func (w *world) eventually(t *testing.T, what string, check func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 90*time.Second)
	defer cancel()
	w.must(t, w.Wait(ctx, what, check))
}

var gateways = schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gateways"}

func (w *world) gatewayAddress(t *testing.T) string {
	t.Helper()
	return w.gatewayAddresses(t)[0]
}

// gatewayAddresses are those in the Gateway's status, one at least.
func (w *world) gatewayAddresses(t *testing.T) (addresses []string) {
	t.Helper()
	w.eventually(t, "an address of the Gateway", func(ctx context.Context) error {
		u, err := w.Dynamic().Resource(gateways).Namespace("shop").Get(ctx, "public", metav1.GetOptions{})
		if err != nil {
			return err
		}
		status, _ := u.Object["status"].(map[string]any)
		all, _ := status["addresses"].([]any)
		if len(all) == 0 {
			return fmt.Errorf("status is %v", status)
		}
		addresses = nil
		for _, a := range all {
			addresses = append(addresses, a.(map[string]any)["value"].(string))
		}
		return nil
	})
	return addresses
}

// get asks for a host at the Gateway, on a connection of its own.
func (w *world) get(ctx context.Context, host string) (status int, body string, err error) {
	return fetch(ctx, &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}, w.address, host)
}

func fetch(ctx context.Context, c *http.Client, address, host string) (int, string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(address, "80")+"/", nil)
	if err != nil {
		return 0, "", err
	}
	r.Host = host
	res, err := c.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

// serves waits until a host is served.
func (w *world) serves(t *testing.T, host string) {
	t.Helper()
	w.answers(t, host, http.StatusOK)
}

func (w *world) answers(t *testing.T, host string, want int) {
	t.Helper()
	w.eventually(t, fmt.Sprintf("%s to answer %d", host, want), func(ctx context.Context) error {
		status, body, err := w.get(ctx, host)
		if err == nil && status != want {
			err = fmt.Errorf("status %d: %.200s", status, body)
		}
		return err
	})
}

// load asks for web.example from several clients, half of them on kept connections, until its end is called; then it fails the test
// if any request did not get a 200.
func (w *world) load(t *testing.T) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(w.ctx)
	address := w.address
	var wg sync.WaitGroup
	var mu sync.Mutex
	var count int
	var faults []string
	for n := range 6 {
		c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: n%2 == 0}}
		wg.Go(func() {
			defer c.CloseIdleConnections()
			pace := time.NewTicker(5 * time.Millisecond)
			defer pace.Stop()
			for ctx.Err() == nil {
				status, body, err := fetch(context.WithoutCancel(ctx), c, address, "web.example")
				mu.Lock()
				count++
				if err != nil || status != http.StatusOK {
					faults = append(faults, fmt.Sprintf("%s: status %d, %v: %.300s", time.Now().Format("15:04:05.000"), status, err, body))
				}
				mu.Unlock()
				select {
				case <-ctx.Done():
				case <-pace.C:
				}
			}
		})
	}
	return func() {
		t.Helper()
		cancel()
		wg.Wait()
		if count == 0 {
			t.Error("no request was made")
		}
		t.Logf("%d requests, %d not answered 200", count, len(faults))
		for _, f := range faults[:min(len(faults), 10)] {
			t.Error(f)
		}
	}
}

// pods lists the pods of Gatehouse.
func (w *world) pods(ctx context.Context) ([]corev1.Pod, error) {
	l, err := w.Client().CoreV1().Pods(system).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=gatehouse"})
	if err != nil {
		return nil, err
	}
	return l.Items, nil
}

// leader is the pod that holds the lease, "" if none does.
func (w *world) leader(ctx context.Context) (string, error) {
	l, err := w.Client().CoordinationV1().Leases(system).Get(ctx, "gatehouse", metav1.GetOptions{})
	if err != nil || l.Spec.HolderIdentity == nil {
		return "", err
	}
	return *l.Spec.HolderIdentity, nil
}

// tellLogs puts the logs of Gatehouse into the test's output.
func (w *world) tellLogs(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	pods, err := w.pods(ctx)
	if err != nil {
		t.Logf("pods: %v", err)
	}
	for _, p := range pods {
		text, err := w.Logs(system, p.Name)
		t.Logf("log of %s (%s), %v:\n%s", p.Name, p.Status.Phase, err, text)
	}
}
