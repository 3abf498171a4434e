package chart_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
)

// clusterWide are the kinds without a namespace.
var clusterWide = []string{"ClusterRole", "ClusterRoleBinding", "GatewayClass", "IngressClass"}

// pod returns the pod of the Deployment or DaemonSet, and the selector.
func pod(t *testing.T, objs []runtime.Object) (corev1.PodTemplateSpec, map[string]string) {
	t.Helper()
	i := slices.IndexFunc(objs, func(o runtime.Object) bool {
		_, ok := o.(*appsv1.DaemonSet)
		return ok
	})
	if i >= 0 {
		s := objs[i].(*appsv1.DaemonSet).Spec
		return s.Template, s.Selector.MatchLabels
	}
	s := find[*appsv1.Deployment](t, objs).Spec
	return s.Template, s.Selector.MatchLabels
}

// TestRender: with each file of values the objects are of the API's types, lie where they should, and fit together.
func TestRender(t *testing.T) {
	for _, f := range valuesFiles(t) {
		t.Run(strings.TrimSuffix(filepath.Base(f), "-values.yaml"), func(t *testing.T) {
			objs := template(t, "edge", "main", "-f", f, gatewayAPI)
			seen := map[string]bool{}
			for _, o := range objs {
				m := o.(metav1.Object)
				name := id(t, o)
				if seen[name] {
					t.Errorf("%s is there twice", name)
				}
				seen[name] = true
				kind, ns := o.GetObjectKind().GroupVersionKind().Kind, m.GetNamespace()
				if slices.Contains(clusterWide, kind) != (ns == "") {
					t.Errorf("%s: namespace %q", name, ns)
				}
				if ns != "edge" && ns != "" && kind != "Role" && kind != "RoleBinding" {
					t.Errorf("%s does not lie in the release's namespace", name)
				}
				if m.GetLabels()["app.kubernetes.io/instance"] != "main" {
					t.Errorf("%s does not say whose it is", name)
				}
			}
			fits(t, objs)
			flags(t, objs)
		})
	}
}

// fits: what selects pods selects these, and accounts and roles that are named are there.
func fits(t *testing.T, objs []runtime.Object) {
	t.Helper()
	tmpl, selector := pod(t, objs)
	selects := func(what string, s map[string]string) {
		if len(s) == 0 || !labels.SelectorFromSet(s).Matches(labels.Set(tmpl.Labels)) {
			t.Errorf("%s selects by %v, the pods have %v", what, s, tmpl.Labels)
		}
	}
	there := map[string]bool{}
	for _, o := range objs {
		there[id(t, o)] = true
	}
	account := tmpl.Spec.ServiceAccountName
	if !there["ServiceAccount edge/"+account] {
		t.Errorf("no ServiceAccount %s", account)
	}
	selects("the workload", selector)
	byFlag, err := labels.ConvertSelectorToLabelsMap(arg(tmpl.Spec.Containers[0], "--pod-selector"))
	if err != nil {
		t.Error(err)
	}
	selects("--pod-selector", byFlag)
	for _, o := range objs {
		switch o := o.(type) {
		case *corev1.Service:
			selects(o.Name, o.Spec.Selector)
		case *policyv1.PodDisruptionBudget:
			selects(o.Name, o.Spec.Selector.MatchLabels)
		case *networkingv1.NetworkPolicy:
			selects(o.Name, o.Spec.PodSelector.MatchLabels)
		case *autoscalingv2.HorizontalPodAutoscaler:
			if !there[o.Spec.ScaleTargetRef.Kind+" edge/"+o.Spec.ScaleTargetRef.Name] {
				t.Errorf("it scales %v, which is not there", o.Spec.ScaleTargetRef)
			}
		case *rbacv1.RoleBinding:
			if !there["Role "+o.Namespace+"/"+o.RoleRef.Name] || len(o.Subjects) != 1 || o.Subjects[0].Name != account || o.Subjects[0].Namespace != "edge" {
				t.Errorf("RoleBinding %s/%s binds %v to %v", o.Namespace, o.Name, o.RoleRef, o.Subjects)
			}
		case *rbacv1.ClusterRoleBinding:
			if !there["ClusterRole "+o.RoleRef.Name] || len(o.Subjects) != 1 || o.Subjects[0].Name != account || o.Subjects[0].Namespace != "edge" {
				t.Errorf("ClusterRoleBinding %s binds %v to %v", o.Name, o.RoleRef, o.Subjects)
			}
		}
	}
}

// flags: each argument is a flag of `gatehouse run` (docs/reference/cli.md, which a test holds to the program).
func flags(t *testing.T, objs []runtime.Object) {
	t.Helper()
	page, err := os.ReadFile(root + "/docs/reference/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "\n## run\n")
	text, _, _ = strings.Cut(text, "\n## ")
	tmpl, _ := pod(t, objs)
	args := tmpl.Spec.Containers[0].Args
	if len(args) == 0 || args[0] != "run" {
		t.Fatalf("args = %q, want run first", args)
	}
	for _, a := range args[1:] {
		name, _, _ := strings.Cut(a, "=")
		if !strings.Contains(text, "\n| `"+name+"` |") {
			t.Errorf("%s is no flag of gatehouse run", name)
		}
	}
}

// TestTwoReleases: two releases share no object, in two namespaces under one name and in one namespace under two names.
func TestTwoReleases(t *testing.T) {
	second := "../../charts/gatehouse/ci/watch-namespaces-values.yaml"
	one := map[string]bool{}
	for _, o := range template(t, "edge", "main", gatewayAPI, "--set", "watchNamespaces={shop,blog}") {
		one[id(t, o)] = true
	}
	for _, r := range [][2]string{{"other", "main"}, {"edge", "second"}} {
		for _, o := range template(t, r[0], r[1], gatewayAPI, "-f", second) {
			if one[id(t, o)] {
				t.Errorf("release %s in %s and release main in edge both have %s", r[1], r[0], id(t, o))
			}
		}
	}
}

// TestRestricted: the pod meets the "restricted" Pod Security Standard and more, by default.
func TestRestricted(t *testing.T) {
	tmpl, _ := pod(t, template(t, "edge", "main"))
	p, c := tmpl.Spec.SecurityContext, tmpl.Spec.Containers[0].SecurityContext
	yes := func(b *bool) bool { return b != nil && *b }
	switch {
	case tmpl.Spec.HostNetwork, tmpl.Spec.HostPID, tmpl.Spec.HostIPC:
		t.Error("it uses a namespace of the node")
	case !yes(p.RunAsNonRoot), *p.RunAsUser != 65532, *p.RunAsGroup != 65532, p.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault:
		t.Errorf("pod: %+v", p)
	case c.AllowPrivilegeEscalation == nil, *c.AllowPrivilegeEscalation, !yes(c.ReadOnlyRootFilesystem), yes(c.Privileged):
		t.Errorf("container: %+v", c)
	case len(c.Capabilities.Add) != 0, !slices.Equal(c.Capabilities.Drop, []corev1.Capability{"ALL"}):
		t.Errorf("capabilities: %+v", c.Capabilities)
	case len(tmpl.Spec.Volumes) != 0:
		t.Errorf("volumes: %+v", tmpl.Spec.Volumes)
	case tmpl.Spec.EnableServiceLinks == nil, *tmpl.Spec.EnableServiceLinks:
		t.Error("it gets a variable for every Service of its namespace")
	}
}

// TestHostSecurity: nobody's processes, in the node's network with one capability or with none.
func TestHostSecurity(t *testing.T) {
	for _, test := range []struct {
		set  string
		bind bool
	}{
		{"exposure=Host", true}, {"exposure=Host,host.lowPorts=false", false}, {"exposure=Host,host.network=false", false},
		{"host.lowPorts=true", false}, // with exposure Service
	} {
		tmpl, _ := pod(t, template(t, "edge", "main", "--set", test.set))
		c := tmpl.Spec.Containers[0].SecurityContext
		if c.RunAsUser != nil || c.RunAsNonRoot != nil || !*tmpl.Spec.SecurityContext.RunAsNonRoot {
			t.Errorf("--set %s: it may run as root: %+v", test.set, c)
		}
		if bind := slices.Equal(c.Capabilities.Add, []corev1.Capability{"NET_BIND_SERVICE"}); bind != test.bind || !bind && len(c.Capabilities.Add) > 0 {
			t.Errorf("--set %s: it adds %v", test.set, c.Capabilities.Add)
		}
		if *c.AllowPrivilegeEscalation || !*c.ReadOnlyRootFilesystem || !slices.Equal(c.Capabilities.Drop, []corev1.Capability{"ALL"}) {
			t.Errorf("--set %s: it may do more than it needs: %+v", test.set, c)
		}
	}
}

// TestWorkload: what is computed from several values.
func TestWorkload(t *testing.T) {
	for _, c := range []struct {
		set  string
		want string // a regular expression
	}{
		{"", `(?s)kind: Deployment.*replicas: 2.*maxUnavailable: 0\s+maxSurge: 1.*topologyKey: topology.kubernetes.io/zone.*value: "483183820"`},
		{"exposure=Host", `(?s)maxUnavailable: 1\s+maxSurge: 0.*hostNetwork: true.*dnsPolicy: ClusterFirstWithHostNet.*--exposure=Host.*- NET_BIND_SERVICE`},
		{"exposure=Host,host.network=false", `(?s)name: net.ipv4.ip_unprivileged_port_start\s+value: "0".*hostPort: 443`},
		{"kind=DaemonSet", `(?s)kind: DaemonSet.*updateStrategy:\s+type: RollingUpdate\s+rollingUpdate:\s+maxUnavailable: 0`},
		{"autoscaling.enabled=true", `(?s)kind: HorizontalPodAutoscaler.*kind: Deployment`},
		{"watchNamespaces={a}", `--watch-namespaces=a,edge\n`},
		{"resources.limits.memory=1G,goMemoryLimitPercent=50", `value: "500000000"`},
		{"resources.limits.memory=1000000000", `value: "900000000"`},
		{"image.tag=v9", `image: "gatehouse:v9"`},
		{"stores.databaseSecretRef.name=pg,stores.redisSecretRef.name=r,stores.redisSecretRef.key=k",
			`(?s)--database-file=/stores/database/url\n.*--redis-file=/stores/redis/url\n.*mountPath: /stores/database, readOnly: true.*secretName: "pg", items: \[\{key: "url", path: url\}\].*key: "k"`},
		{"stores.data.persistentVolumeClaim.claimName=a,replicas=1", `(?s)maxUnavailable: 1\s+maxSurge: 0.*fsGroup: 65532.*--data=/stores/data\n.*volumes:\s+- name: store-data\s+persistentVolumeClaim:\s+claimName: a`},
		{"stores.geoip.volume.configMap.name=a", `(?s)--geoip=/stores/geoip/GeoLite2-Country.mmdb\n.*mountPath: /stores/geoip, readOnly: true.*configMap:\s+name: a`},
		{"ingressClass.default=true", `ingressclass.kubernetes.io/is-default-class: "true"`},
	} {
		out, errs, err := helm(t, nil, "template", "main", chart, "-n", "edge", "--set", c.set)
		if err != nil || !regexp.MustCompile(c.want).MatchString(out) {
			t.Errorf("--set %s: %v %s\n does not match %s", c.set, err, errs, c.want)
		}
	}
	for set, no := range map[string]string{
		"exposure=Service": "hostPort:|hostNetwork:|sysctls:|NET_BIND_SERVICE|fsGroup|volume|/stores", "autoscaling.enabled=true": "\n  replicas:",
		"replicas=1": "PodDisruptionBudget", "kind=DaemonSet": "PodDisruptionBudget|\n  replicas:|topologySpread",
		"resources.limits=null": "GOMEMLIMIT", "goMemoryLimitPercent=0": "GOMEMLIMIT", "rbac.create=false": "kind: ClusterRole",
		"metrics.service.create=false": "kind: Service\n", "ingressClass.create=false": "IngressClass",
	} {
		out, errs, err := helm(t, nil, "template", "main", chart, "-n", "edge", "--set", set)
		if err != nil || regexp.MustCompile(no).MatchString(out) {
			t.Errorf("--set %s: %v %s\n matches %s", set, err, errs, no)
		}
	}
}

// TestClasses: a GatewayClass only where the Gateway API is, and both classes have the parameters that the chart makes.
func TestClasses(t *testing.T) {
	objs := template(t, "edge", "main", gatewayAPI, "--set", "parameters.infrastructure.service.type=NodePort")
	g, i, p := find[*gatewayv1.GatewayClass](t, objs), find[*networkingv1.IngressClass](t, objs), find[*v1alpha1.GatewayParameters](t, objs)
	if r := g.Spec.ParametersRef; r == nil || r.Name != p.Name || string(*r.Namespace) != p.Namespace {
		t.Errorf("GatewayClass: parametersRef = %+v", r)
	}
	if r := i.Spec.Parameters; r == nil || r.Name != p.Name || *r.Namespace != p.Namespace || *r.Scope != "Namespace" {
		t.Errorf("IngressClass: parameters = %+v", r)
	}
	if p.Spec.Infrastructure.Service.Type != "NodePort" {
		t.Errorf("GatewayParameters: %+v", p.Spec.Infrastructure)
	}
	for _, o := range template(t, "edge", "main") {
		switch o.(type) {
		case *gatewayv1.GatewayClass, *v1alpha1.GatewayParameters:
			t.Errorf("%s is there by default", id(t, o))
		}
	}
}

// TestNoGatewayAPI: the chart has our own CRDs and nobody else's.
func TestNoGatewayAPI(t *testing.T) {
	out, errs, err := helm(t, nil, "show", "crds", chart)
	if err != nil {
		t.Fatalf("%v\n%s", err, errs)
	}
	n := 0
	for doc := range strings.SplitSeq(out, "\n---\n") {
		var crd metav1.PartialObjectMetadata
		if err := yaml.Unmarshal([]byte(doc), &crd); err != nil {
			t.Fatal(err)
		}
		if crd.Name == "" {
			continue
		}
		n++
		if !strings.HasSuffix(crd.Name, ".gatehouse.dev") {
			t.Errorf("the chart has the CRD %s", crd.Name)
		}
	}
	files, err := os.ReadDir("../../charts/gatehouse/crds")
	if err != nil {
		t.Fatal(err)
	}
	if n != len(files) || n == 0 {
		t.Errorf("helm show crds prints %d CRDs, want the %d of the chart", n, len(files))
	}
}
