package gatehouse_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

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
			r := cluster.Release{Name: x.release, Namespace: sc.namespace, Values: []string{filepath.Join(dir, f.Name())},
				Set: append([]string{"drainGrace=0s"}, x.set...)}
			if !x.own { // none may have the classes and controllers of the installation that is there
				r.Set = append(r.Set, "controllers.gateway=gatehouse.dev/gateway-example", "controllers.ingress=gatehouse.dev/ingress-example",
					"gatewayClass.name=example", "ingressClass.name=example")
			}
			x.run(sc, r)
			sc.confined(r, x.capabilities)
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

	capabilities uint64 // that its processes hold, as bits
}

// netBindService is the capability of that name (linux/capability.h).
const netBindService = 1 << 10

var chartExamples = map[string]chartExample{
	"default-values.yaml": {release: "gatehouse-default", run: (*scene).exampleServes},
	"all-features-values.yaml": {release: "edge", set: []string{"metrics.serviceMonitor.enabled=false", // there is no Prometheus operator
		"stores.geoip.volume=null"}, // nor a claim to mount
		run: exampleStores, capabilities: netBindService},
	"single-values.yaml": {cannot: "the test cluster has no persistent volumes"},
	"host-values.yaml": {release: "gatehouse-daemon", set: []string{"healthPort=9912", "admin=127.0.0.1:9911"},
		namespaces: []string{"edge"}, run: exampleDaemon, capabilities: netBindService},
	"host-ports-values.yaml":       {cannot: "the test cluster has no hostPort"},
	"watch-namespaces-values.yaml": {release: "gatehouse-shop", own: true, namespaces: []string{"shop", "blog"}, run: exampleNamespaces},
}

// exampleStores installs an example whose Secrets name stores. Nothing is there: nothing is asked of them before a policy does.
func exampleStores(s *scene, r cluster.Release) {
	s.apply(`
apiVersion: v1
kind: Secret
metadata: {name: postgres}
stringData: {uri: "postgres://gatehouse@192.0.2.1/gatehouse"}
---
apiVersion: v1
kind: Secret
metadata: {name: redis}
stringData: {url: "redis://192.0.2.1:6379"}
`)
	s.install(r)
}

const exampleIngress = `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec: {ingressClassName: example, defaultBackend: {service: {name: web, port: {number: 80}}}}
`

// exampleServes installs an example and has an Ingress of its class served.
func (s *scene) exampleServes(r cluster.Release) {
	s.install(r)
	s.backends("web")
	s.apply(exampleIngress)
	s.serves(request{address: s.address("Ingress", "web"), host: "web.example"}, "web")
}

// exampleDaemon: a pod runs on the one node that has the label, and binds the IngressClass's port there. Status shows the address of the
// Service that publishService names.
func exampleDaemon(s *scene, r cluster.Release) {
	needsCapabilities(s.T)
	label := func(value string) {
		patch := fmt.Appendf(nil, `{"metadata": {"labels": {"example.com/edge": %s}}}`, value)
		if _, err := s.Client().CoreV1().Nodes().Patch(context.Background(), "node-a", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
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
	s.apply(exampleIngress)
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
	s.secretsOf(r, []string{"shop", "blog", r.Namespace}, []string{other.namespace, "default", "kube-system", ""})
	as := s.as(account(r.Namespace, r.Name))
	if _, err := as.CoreV1().Secrets("shop").Get(s.Context(), "pair", metav1.GetOptions{}); err != nil {
		s.Errorf("a Secret of a watched namespace: %v", err)
	}
	if _, err := as.CoreV1().Secrets(other.namespace).Get(s.Context(), "pair", metav1.GetOptions{}); !apierrors.IsForbidden(err) {
		s.Errorf("a Secret elsewhere: %v, want that it is forbidden", err)
	}
}

// secretsOf holds that an installation's account may read Secrets in some namespaces, not in others, and write them nowhere.
func (s *scene) secretsOf(r cluster.Release, may, mayNot []string) {
	s.Helper()
	as := s.as(account(r.Namespace, r.Name))
	for i, namespace := range slices.Concat(may, mayNot) {
		for _, verb := range []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"} {
			want := i < len(may) && slices.Contains([]string{"get", "list", "watch"}, verb)
			out, err := as.AuthorizationV1().SelfSubjectAccessReviews().Create(s.Context(), &authorizationv1.SelfSubjectAccessReview{
				Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
					Namespace: namespace, Verb: verb, Resource: "secrets"}}}, metav1.CreateOptions{})
			s.must(err)
			if got := out.Status.Allowed; got != want {
				s.Errorf("%s may %s Secrets in namespace %q: %v, want %v", r.Name, verb, namespace, got, want)
			}
		}
	}
}

// as is a client that acts as another user, with the groups that a service account has.
func (s *scene) as(user string) kubernetes.Interface {
	s.Helper()
	config := s.Config()
	config.Impersonate.UserName = user
	c, err := kubernetes.NewForConfig(config)
	s.must(err)
	return c
}

// confined holds that the processes of an installation are not root's, hold only these capabilities and can gain none, and that their
// root cannot be written.
func (s *scene) confined(r cluster.Release, capabilities uint64) {
	s.Helper()
	pods, err := s.pods(s.Context(), r.Namespace, r.Name)
	s.must(err)
	if len(pods) == 0 {
		s.Errorf("%s has no pod", r.Name)
	}
	held := fmt.Sprintf("%016x", capabilities)
	if oneUser() {
		held = fmt.Sprintf("%016x", 0)
	}
	for _, p := range pods {
		dir := s.process("POD_NAME=" + p.Name)
		text, err := os.ReadFile(filepath.Join(dir, "status"))
		s.must(err)
		for field, want := range map[string]string{"Uid": s.seen(dir, "uid"), "Gid": s.seen(dir, "gid"), "NoNewPrivs": "1",
			"CapEff": held, "CapPrm": held, "CapBnd": fmt.Sprintf("%016x", capabilities)} {
			m := regexp.MustCompile(`(?m)^` + field + `:(.*)$`).FindSubmatch(text)
			if m == nil || strings.Join(strings.Fields(string(m[1])), " ") != want {
				s.Errorf("%s: %s is %q, want %q", p.Name, field, m, want)
			}
		}
		for _, at := range []string{"/", "/tmp"} {
			if err := os.WriteFile(filepath.Join(dir, "root", at, "written"), nil, 0o600); !errors.Is(err, unix.EROFS) {
				s.Errorf("%s: writing to %s: %v, want that it is read-only", p.Name, at, err)
			}
		}
	}
}

// seen is how /proc shows the four ids of a process that is user or group 65532: in a lab with one user each pod's process has a user
// namespace of its own, whose only user is that.
func (s *scene) seen(dir, kind string) string {
	s.Helper()
	id := "65532"
	if oneUser() {
		raw, err := os.ReadFile(filepath.Join(dir, kind+"_map"))
		s.must(err)
		if f := strings.Fields(string(raw)); len(f) == 3 && f[0] == id && f[2] == "1" {
			id = f[1]
		}
	}
	return strings.Join([]string{id, id, id, id}, " ")
}

// process finds the process of Gatehouse with a variable in its environment: the folder in /proc.
func (s *scene) process(variable string) string {
	s.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	s.must(err)
	for _, dir := range all {
		environ, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err == nil && slices.Contains(strings.Split(string(environ), "\x00"), variable) {
			return dir
		}
	}
	s.Fatalf("no process has %s", variable)
	return ""
}
