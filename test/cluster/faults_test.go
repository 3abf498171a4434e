package cluster

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

func TestRollingUpdateLosesNothing(t *testing.T) {
	ctx, c, ns := use(t)
	if err := c.Apply(ctx, fmt.Appendf(nil, echoManifest, ns)); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitDeployment(ctx, ns, "echo"); err != nil {
		t.Fatal(err)
	}
	url := serviceURL(ctx, t, c, ns, "echo")
	if err := c.Wait(ctx, url, func(ctx context.Context) error { _, err := get(ctx, url); return err }); err != nil {
		t.Fatal(err)
	}
	load, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	var good, bad atomic.Int64
	go func() {
		defer close(done)
		for load.Err() == nil {
			if _, err := get(load, url); err == nil {
				good.Add(1)
			} else if load.Err() == nil {
				bad.Add(1)
				t.Log(err)
			}
		}
	}()
	patch := `{"spec":{"template":{"metadata":{"labels":{"version":"2"}}}}}`
	if _, err := c.Client().AppsV1().Deployments(ns).Patch(ctx, "echo", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitDeployment(ctx, ns, "echo"); err != nil {
		t.Fatal(err)
	}
	// The update is over when the last old pod is gone.
	err := c.Wait(ctx, "old pods to go", func(ctx context.Context) error {
		pods, err := c.Client().CoreV1().Pods(ns).List(ctx, metav1.ListOptions{LabelSelector: "version!=2"})
		if err == nil && len(pods.Items) > 0 {
			err = fmt.Errorf("%d are left", len(pods.Items))
		}
		return err
	})
	if err == nil { // a busy machine makes few requests in the time of an update
		err = c.Wait(ctx, "20 requests", func(context.Context) error {
			if n := good.Load() + bad.Load(); n < 20 {
				return fmt.Errorf("%d were made", n)
			}
			return nil
		})
	}
	stop()
	<-done
	if err != nil {
		t.Fatal(err)
	}
	if bad.Load() > 0 {
		t.Errorf("%d requests failed and %d succeeded during the update", bad.Load(), good.Load())
	}
}

func TestNamespaceDeletion(t *testing.T) {
	ctx, c, ns := use(t)
	if err := c.Apply(ctx, fmt.Appendf(nil, echoManifest, ns)); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitDeployment(ctx, ns, "echo"); err != nil {
		t.Fatal(err)
	}
	namespaces := c.Client().CoreV1().Namespaces()
	if err := namespaces.Delete(ctx, ns, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	err := c.Wait(ctx, "the namespace to go", func(ctx context.Context) error {
		if _, err := namespaces.Get(ctx, ns, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("still there: %w", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestAPIServerRestart(t *testing.T) {
	ctx, c, ns := use(t)
	url := probePod(ctx, t, c, ns, `containers: [{name: c, image: probe, `+readyAt8080+`}]`)
	c.StopAPIServer()
	wantGet(ctx, t, url+"/id", "uid 0") // pods do not mind
	if _, err := c.Client().CoreV1().Pods(ns).List(ctx, metav1.ListOptions{}); err == nil {
		t.Error("a stopped API server answers")
	}
	if err := c.StartAPIServer(ctx); err != nil {
		t.Fatal(err)
	}
	o := awaitPod(ctx, t, c, ns, "the same pod", isReady)
	if o.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Error("the pod started again")
	}
	// The node goes on: it hears of the pod's end and lets the object go.
	if err := c.Client().CoreV1().Pods(ns).Delete(ctx, "p", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	err := c.Wait(ctx, "the pod to go", func(ctx context.Context) error {
		if _, err := c.Client().CoreV1().Pods(ns).Get(ctx, "p", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("still there: %w", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestOldWatchIsGone(t *testing.T) {
	ctx, c, ns := use(t)
	maps := c.Client().CoreV1().ConfigMaps(ns)
	m, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "m"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	old := m.ResourceVersion
	for i := range 3 {
		m.Data = map[string]string{"k": fmt.Sprint(i)}
		if m, err = maps.Update(ctx, m, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Compact(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.RestartAPIServer(ctx); err != nil {
		t.Fatal(err)
	}
	w, err := maps.Watch(ctx, metav1.ListOptions{ResourceVersion: old})
	if err == nil {
		defer w.Stop()
		e := <-w.ResultChan()
		err = apierrors.FromObject(e.Object)
	}
	if !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
		t.Errorf("watching from an old version: %v, want 410 Gone", err)
	}
}

func TestAuthorisation(t *testing.T) {
	_, c, ns := use(t)
	r := c.Config()
	r.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:" + ns + ":default"}
	client, err := rest.HTTPClientFor(r)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Get(r.Host + "/api/v1/namespaces/" + ns + "/pods")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("an account without rules lists pods: %s, want 403", resp.Status)
	}
}

func TestGatewayAPI(t *testing.T) {
	ctx, c, ns := use(t)
	crds, err := GatewayAPICRDs(ctx, "standard")
	if err != nil {
		t.Fatal(err)
	}
	class := `{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: c}, spec: {controllerName: example.com/c}}`
	if err := c.Apply(ctx, crds, []byte(class)); err != nil {
		t.Fatal(err)
	}
	wrong := `{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: g, namespace: %s},
spec: {gatewayClassName: c, listeners: [{name: a, port: 0, protocol: HTTP}]}}`
	if err := c.Apply(ctx, fmt.Appendf(nil, wrong, ns)); err == nil || !strings.Contains(err.Error(), "port") {
		t.Errorf("a Gateway with port 0: %v, want the schema to refuse it", err)
	}
}
