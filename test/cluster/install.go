package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// GatehouseImage is the image that the chart names, without its tag.
const GatehouseImage = "gatehouse"

// Release is one installation of the chart.
type Release struct {
	Name      string   // default: gatehouse
	Namespace string   // default: gatehouse-system
	Values    []string // values files, as helm's -f
	Set       []string // "key=value", as helm's --set

	GatewayAPI bool // the cluster has the Gateway API's CRDs; InstallGatehouse looks
}

// rootDir is the folder of the repository.
func rootDir() (string, error) {
	dir, err := ModuleDir()
	if err != nil {
		return "", err
	}
	return filepath.Dir(filepath.Dir(dir)), nil
}

func gatehousePath() (string, error) {
	cache, err := CacheDir()
	return filepath.Join(cache, "bin", "gatehouse-under-test"), err
}

// PrepareGatehouse builds Gatehouse and what installs it. It belongs among Lab's preparations.
func PrepareGatehouse(ctx context.Context) error {
	root, err := rootDir()
	if err != nil {
		return err
	}
	path, err := gatehousePath()
	if err != nil {
		return err
	}
	if err := BuildProgram(ctx, root, "./cmd/gatehouse", path); err != nil {
		return err
	}
	if _, err := buildHelm(ctx); err != nil {
		return err
	}
	_, err = GatewayAPICRDs(ctx, "standard")
	return err
}

// PrepareConformance builds the images that the Gateway API's conformance manifests name.
func PrepareConformance(ctx context.Context) error {
	_, err := ConformanceImages(ctx, os.Stderr)
	return err
}

// buildHelm returns the path of a helm of the version that the repository pins.
func buildHelm(ctx context.Context) (string, error) {
	root, err := rootDir()
	if err != nil {
		return "", err
	}
	helm := filepath.Join(root, ".cache", "bin", "helm")
	cmd := exec.CommandContext(ctx, "make", "-s", "-C", root, ".cache/bin/helm")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("building helm: %w", err)
	}
	return helm, nil
}

// GatehouseUnderTest is the image of what PrepareGatehouse built.
func GatehouseUnderTest() (Image, error) {
	path, err := gatehousePath()
	return Image{Name: GatehouseImage, Program: path, Entrypoint: "/gatehouse", User: 65532, FileCaps: []string{"NET_BIND_SERVICE"}}, err
}

// StartTest starts a cluster with Gatehouse's image and those of the conformance manifests, beside o.Images, and closes it when the
// test ends. A test that failed leaves the end of the control plane's logs in its output.
func StartTest(t testing.TB, o Options) *Cluster {
	t.Helper()
	images, err := ConformanceImages(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	own, err := GatehouseUnderTest()
	if err != nil {
		t.Fatal(err)
	}
	o.Images = append(slices.Clip(append(images, own)), o.Images...)
	c, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("closing the cluster: %v", err)
		}
	})
	return c
}

// InstallGatewayAPI installs the Gateway API's CRDs of a channel, "standard" or "experimental".
func (c *Cluster) InstallGatewayAPI(ctx context.Context, channel string) error {
	crds, err := GatewayAPICRDs(ctx, channel)
	if err != nil {
		return err
	}
	return c.Apply(ctx, crds)
}

// InstallGatehouse applies what `helm template` makes of the chart and waits until its pods are ready.
func (c *Cluster) InstallGatehouse(ctx context.Context, r Release) error {
	groups, err := c.Client().Discovery().ServerGroups()
	if err != nil {
		return err
	}
	r.GatewayAPI = slices.ContainsFunc(groups.Groups, func(g metav1.APIGroup) bool { return g.Name == "gateway.networking.k8s.io" })
	yaml, err := RenderChart(ctx, &r)
	if err != nil {
		return err
	}
	namespace := fmt.Appendf(nil, "apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n", r.Namespace)
	if err := c.Apply(ctx, namespace, yaml); err != nil {
		return fmt.Errorf("installing the chart: %w", err)
	}
	return c.WaitDeployment(ctx, r.Namespace, r.Name)
}

// RenderChart is what `helm template` prints for a release; it fills in r's defaults.
func RenderChart(ctx context.Context, r *Release) ([]byte, error) {
	root, err := rootDir()
	if err != nil {
		return nil, err
	}
	if r.Name == "" {
		r.Name = "gatehouse"
	}
	if r.Namespace == "" {
		r.Namespace = "gatehouse-system"
	}
	args := []string{"template", r.Name, filepath.Join(root, "charts", "gatehouse"), "--namespace", r.Namespace, "--include-crds",
		"--set", "image.repository=" + GatehouseImage}
	if r.GatewayAPI {
		args = append(args, "--api-versions", "gateway.networking.k8s.io/v1/GatewayClass")
	}
	for _, f := range r.Values {
		args = append(args, "-f", f)
	}
	for _, s := range r.Set {
		args = append(args, "--set", s)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(root, ".cache", "bin", "helm"), args...)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return nil, errors.Join(fmt.Errorf("helm template: %w", err), errors.New(problems.String()))
	}
	return out.Bytes(), nil
}

// Echo is the YAML of a Deployment of the Gateway API's echo backend, which answers every request with what it got as JSON, and of a
// Service of the same name at port 80.
func Echo(namespace, name string, replicas int) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[2]s, namespace: %[1]s}
spec:
  replicas: %[3]d
  selector: {matchLabels: {app: %[2]s}}
  template:
    metadata: {labels: {app: %[2]s}}
    spec:
      containers:
      - name: echo
        image: gateway-api/echo-basic
        env:
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        readinessProbe: {httpGet: {path: /, port: 3000}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: %[2]s, namespace: %[1]s}
spec: {selector: {app: %[2]s}, ports: [{name: http, port: 80, targetPort: 3000}]}
`, namespace, name, replicas)
}
