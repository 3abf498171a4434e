package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/gatehouse-io/gatehouse/test/cluster"
)

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
metadata: {name: web-2, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 3000}]}
`

// world is a cluster with Gatehouse, a Gateway and a backend.
type world struct {
	*cluster.Cluster
	routes, gateways dynamic.ResourceInterface
	address          string
}

func open(ctx context.Context, s *settings) (*world, error) {
	images, err := cluster.ConformanceImages(ctx, os.Stderr)
	if err != nil {
		return nil, err
	}
	own, err := cluster.GatehouseUnderTest()
	if err != nil {
		return nil, err
	}
	c, err := cluster.Start(ctx, cluster.Options{Images: append(images, own)})
	if err != nil {
		return nil, err
	}
	gv := schema.GroupVersion{Group: "gateway.networking.k8s.io", Version: "v1"}
	w := &world{Cluster: c, routes: c.Dynamic().Resource(gv.WithResource("httproutes")).Namespace("shop"),
		gateways: c.Dynamic().Resource(gv.WithResource("gateways")).Namespace("shop")}
	if err := w.furnish(ctx, s); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return w, nil
}

func (w *world) furnish(ctx context.Context, s *settings) error {
	if err := w.InstallGatewayAPI(ctx, "standard"); err != nil {
		return err
	}
	err := w.InstallGatehouse(ctx, cluster.Release{Set: []string{fmt.Sprintf("replicas=%d", s.replicas), "logs.access=off"}})
	if err != nil {
		return err
	}
	if err := w.Apply(ctx, []byte(shop), []byte(cluster.Echo("shop", "web", 1))); err != nil {
		return err
	}
	if err := w.WaitDeployment(ctx, "shop", "web"); err != nil {
		return err
	}
	return w.Wait(ctx, "the Gateway's address", func(ctx context.Context) error {
		g, err := w.gateways.Get(ctx, "public", metav1.GetOptions{})
		if err != nil {
			return err
		}
		all, _, _ := unstructured.NestedSlice(g.Object, "status", "addresses")
		if len(all) == 0 {
			return errors.New("there is none")
		}
		w.address, _, _ = unstructured.NestedString(all[0].(map[string]any), "value")
		return nil
	})
}

// route is an HTTPRoute for one hostname.
func route(name, backend string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": map[string]any{"name": name, "namespace": "shop"},
		"spec": map[string]any{
			"parentRefs": []any{map[string]any{"name": "public"}},
			"hostnames":  []any{name + ".example"},
			"rules":      []any{map[string]any{"backendRefs": []any{map[string]any{"name": backend, "port": int64(80)}}}},
		}}}
}

// clear removes all routes and waits until the Gateway has none.
func (w *world) clear(ctx context.Context) error {
	if err := w.routes.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		return err
	}
	return w.Wait(ctx, "the Gateway to have no route", func(ctx context.Context) error {
		g, err := w.gateways.Get(ctx, "public", metav1.GetOptions{})
		if n := attached(g); err == nil && n != 0 {
			err = fmt.Errorf("it has %d", n)
		}
		return err
	})
}

// attached is what a Gateway's status says of its first listener's routes, -1 if nothing.
func attached(g *unstructured.Unstructured) int64 {
	ls, _, _ := unstructured.NestedSlice(g.Object, "status", "listeners")
	if len(ls) == 0 {
		return -1
	}
	n, _, _ := unstructured.NestedInt64(ls[0].(map[string]any), "attachedRoutes")
	return n
}

func client() *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 4}}
}

// get returns the status of a request for a host, 0 if there was no answer.
func (w *world) get(c *http.Client, host string) (int, error) {
	r, err := http.NewRequest(http.MethodGet, "http://"+net.JoinHostPort(w.address, "80")+"/", nil)
	if err != nil {
		return 0, err
	}
	r.Host = host
	res, err := c.Do(r)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, err
}
