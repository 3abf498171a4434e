package gatehouse_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/gatehouse-io/gatehouse/test/cluster"
)

// charts: what the chart makes of its examples runs.
func charts(s *site, t *testing.T) {
	dir := filepath.Join(repository(t), "charts", "gatehouse", "ci")
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		x, ok := chartExamples[f.Name()]
		if !ok {
			t.Errorf("%s is not in the table of examples", f.Name())
			continue
		}
		t.Run(strings.TrimSuffix(f.Name(), "-values.yaml"), func(t *testing.T) {
			if x.cannot != "" {
				t.Skip(x.cannot)
			}
			sc := s.scene(t)
			for _, n := range x.namespaces {
				sc.space(n)
			}
			r := cluster.Release{Name: x.release, Namespace: sc.namespace, Values: []string{filepath.Join(dir, f.Name())}, Set: append([]string{"drainGrace=0s"}, x.set...)}
			if !x.own { // none may have the classes and controllers of the installation that is there
				r.Set = append(r.Set, "controllers.gateway=gatehouse.dev/gateway-example", "controllers.ingress=gatehouse.dev/ingress-example",
					"gatewayClass.name=example", "ingressClass.name=example")
			}
			x.run(sc, r)
		})
	}
}

type chartExample struct {
	cannot     string // why it is not run here
	release    string
	set        []string
	own        bool // it names classes and controllers of its own
	namespaces []string
	run        func(*scene, cluster.Release)
}

var chartExamples = map[string]chartExample{
	"default-values.yaml": {release: "gatehouse-default", run: (*scene).exampleServes},
	// The cluster has no Prometheus operator.
	"all-features-values.yaml":     {release: "edge", set: []string{"metrics.serviceMonitor.enabled=false"}, run: (*scene).install},
	"host-values.yaml":             {release: "gatehouse-daemon", set: []string{"healthPort=9912", "admin=127.0.0.1:9911"}, namespaces: []string{"edge"}, run: exampleDaemon},
	"host-ports-values.yaml":       {cannot: "the test cluster has no hostPort"},
	"watch-namespaces-values.yaml": {release: "gatehouse-shop", own: true, namespaces: []string{"shop", "blog"}, run: exampleNamespaces},
}

// exampleServes installs an example and has an Ingress of its class served.
func (s *scene) exampleServes(r cluster.Release) {
	s.install(r)
	s.backends("web")
	s.apply("apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: web}\nspec: {ingressClassName: example, defaultBackend: {service: {name: web, port: {number: 80}}}}\n")
	s.serves(request{address: s.address("Ingress", "web"), host: "web.example"}, "web")
}

// exampleDaemon: a pod runs on the one node that has the label, and binds the IngressClass's port there. Status shows the address of the
// Service that publishService names.
func exampleDaemon(s *scene, r cluster.Release) {
	label := func(value string) {
		_, err := s.Client().CoreV1().Nodes().Patch(context.Background(), "node-a", types.MergePatchType, fmt.Appendf(nil, `{"metadata": {"labels": {"example.com/edge": %s}}}`, value), metav1.PatchOptions{})
		if err != nil {
			s.Error(err)
		}
	}
	label(`"true"`)
	s.Cleanup(func() { label("null") })
	s.Cleanup(func() { s.uninstall(r) })
	edge := &scene{s.site, s.T, "edge"}
	edge.apply("apiVersion: v1\nkind: Service\nmetadata: {name: front}\nspec: {type: LoadBalancer, selector: {none: here}, ports: [{port: 80}]}\n")
	r.GatewayAPI = true
	yaml, err := cluster.RenderChart(s.Context(), &r)
	s.must(err)
	s.must(s.Apply(s.Context(), yaml))
	s.eventually("the DaemonSet", func(ctx context.Context) error {
		d, err := s.Client().AppsV1().DaemonSets(r.Namespace).Get(ctx, r.Name, metav1.GetOptions{})
		if err == nil && (d.Status.NumberReady != 1 || d.Status.DesiredNumberScheduled != 1) {
			err = fmt.Errorf("%d pods of %d are ready", d.Status.NumberReady, d.Status.DesiredNumberScheduled)
		}
		return err
	})
	s.backends("web")
	s.apply("apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: web}\nspec: {ingressClassName: example, defaultBackend: {service: {name: web, port: {number: 80}}}}\n")
	node, err := s.Client().CoreV1().Nodes().Get(s.Context(), "node-a", metav1.GetOptions{})
	s.must(err)
	s.serves(request{address: node.Status.Addresses[0].Address, host: "web.example"}, "web")
	front, err := s.Client().CoreV1().Services("edge").Get(s.Context(), "front", metav1.GetOptions{})
	s.must(err)
	if got := s.address("Ingress", "web"); len(front.Status.LoadBalancer.Ingress) == 0 || got != front.Status.LoadBalancer.Ingress[0].IP {
		s.Errorf("status shows %s, the published Service has %v", got, front.Status.LoadBalancer.Ingress)
	}
}

// exampleNamespaces: with rights in some namespaces alone, what lies there is served and what lies elsewhere is not seen; nothing is
// tried that is not allowed.
func exampleNamespaces(s *scene, r cluster.Release) {
	s.install(r)
	shop, other := &scene{s.site, s.T, "shop"}, s.scene(s.T)
	for _, at := range []*scene{shop, other} {
		at.backends("web")
		at.apply(strings.Replace(httpGateway("gw", 80), "gatewayClassName: gatehouse", "gatewayClassName: shop", 1))
		at.apply(newPair(s.T, "gw.example").secret("pair"))
	}
	shop.serves(request{address: shop.address("Gateway", "gw"), host: "gw.example"}, "web")
	other.during(time.Second, func(ctx context.Context) error {
		o, err := other.of("Gateway").Get(ctx, "gw", metav1.GetOptions{})
		if err == nil && len(addresses(o)) > 0 {
			err = errors.New("a Gateway of a namespace that is not watched has an address")
		}
		return err
	})
	text, err := s.log(s.Context(), r.Namespace, r.Name)
	s.must(err)
	for line := range strings.Lines(text) {
		if l := strings.ToLower(line); strings.Contains(l, "forbidden") || strings.Contains(l, "may not be read") {
			s.Errorf("logged: %s", line)
		}
	}
	user := account(r.Namespace, r.Name)
	for _, namespace := range []string{"shop", "blog", r.Namespace, other.namespace, "default", "kube-system", ""} {
		want := slices.Contains([]string{"shop", "blog", r.Namespace}, namespace)
		for _, verb := range []string{"get", "list", "watch"} {
			if got := s.may(user, verb, "secrets", namespace); got != want {
				s.Errorf("%s may %s Secrets in namespace %q: %v, want %v", user, verb, namespace, got, want)
			}
		}
		for _, verb := range []string{"create", "update", "patch", "delete"} {
			if s.may(user, verb, "secrets", namespace) {
				s.Errorf("%s may %s Secrets in namespace %q", user, verb, namespace)
			}
		}
	}
}

// may asks the API server whether a user may do something.
func (s *scene) may(user, verb, resource, namespace string) bool {
	s.Helper()
	out, err := s.Client().AuthorizationV1().SubjectAccessReviews().Create(s.Context(), &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: user, ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: verb, Resource: resource}}}, metav1.CreateOptions{})
	s.must(err)
	return out.Status.Allowed
}
