// Package chart_test renders charts/gatehouse with the real Helm and holds what comes out to the types of the Kubernetes API, to the
// list of rights (testdata/rbac-*.txt), to the program's flags and to what the chart's page says. `go test . -update` writes the golden
// files and the page's table of values.
package chart_test

import (
	"bytes"
	"debug/buildinfo"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
)

var update = flag.Bool("update", false, "write golden files instead of comparing them")

const (
	root  = "../.."
	chart = root + "/charts/gatehouse"
	bin   = root + "/.cache/bin/helm"
	tool  = "helm.sh/helm/v4"
)

// gatewayAPI makes a rendering believe in a cluster that has the Gateway API.
const gatewayAPI = "--api-versions=gateway.networking.k8s.io/v1/GatewayClass"

// helm runs Helm, without a cluster unless env says otherwise, and returns what it printed.
func helm(t *testing.T, env []string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	build(t)
	cmd := exec.Command(bin, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG=/nonexistent", "HELM_CACHE_HOME="+t.TempDir(), "HELM_CONFIG_HOME="+t.TempDir(), "HELM_DATA_HOME="+t.TempDir())
	cmd.Env = append(cmd.Env, env...)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err = cmd.Run()
	return o.String(), e.String(), err
}

// build makes the Helm that go.mod pins, unless it is there (make builds it too). It takes minutes the first time.
func build(t *testing.T) {
	t.Helper()
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.ReadFile(bin)
	if err == nil && info.Main.Path == tool && strings.Contains(string(mod), "\t"+tool+" "+info.Main.Version+" ") {
		return
	}
	t.Log("building Helm")
	cmd := exec.Command("go", "build", "-o", bin, tool+"/cmd/helm")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building Helm: %v\n%s", err, out)
	}
}

// template renders the chart as release r in namespace ns and decodes what comes out.
func template(t *testing.T, ns, r string, args ...string) []runtime.Object {
	t.Helper()
	out, errs, err := helm(t, nil, append([]string{"template", r, chart, "-n", ns}, args...)...)
	if err != nil {
		t.Fatalf("helm template %s: %v\n%s", strings.Join(args, " "), err, errs)
	}
	return decode(t, out)
}

// scheme knows all kinds that the chart makes, but for those of the Prometheus operator.
func scheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientscheme.AddToScheme, gatewayv1.Install, v1alpha1.AddToScheme} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// decode reads documents strictly: no unknown field, none twice, no other types than the API's.
func decode(t *testing.T, text string) []runtime.Object {
	t.Helper()
	s := scheme(t)
	strict := json.NewSerializerWithOptions(json.DefaultMetaFactory, s, s, json.SerializerOptions{Yaml: true, Strict: true})
	var out []runtime.Object
	for doc := range strings.SplitSeq(text, "\n---\n") {
		var blank map[string]any
		if err := yaml.Unmarshal([]byte(doc), &blank); err == nil && len(blank) == 0 {
			continue
		}
		obj, _, err := strict.Decode([]byte(doc), nil, nil)
		if runtime.IsNotRegisteredError(err) && blank["apiVersion"] == "monitoring.coreos.com/v1" {
			obj, err = &unstructured.Unstructured{Object: blank}, nil
		}
		if err != nil {
			t.Errorf("%v in:\n%s", err, doc)
			continue
		}
		out = append(out, obj)
	}
	return out
}

// id is "Kind namespace/name" of an object, "Kind name" where it has no namespace.
func id(t *testing.T, o runtime.Object) string {
	t.Helper()
	m := o.(metav1.Object)
	kind := o.GetObjectKind().GroupVersionKind().Kind
	if m.GetNamespace() == "" {
		return kind + " " + m.GetName()
	}
	return kind + " " + m.GetNamespace() + "/" + m.GetName()
}

// find returns the only object of type T.
func find[T runtime.Object](t *testing.T, objs []runtime.Object) T {
	t.Helper()
	var found []T
	for _, o := range objs {
		if x, ok := o.(T); ok {
			found = append(found, x)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d objects of type %T, want one", len(found), *new(T))
	}
	return found[0]
}

// valuesFiles are the files of values that the chart is rendered with in tests.
func valuesFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(chart + "/ci/*-values.yaml")
	if err != nil || len(files) < 4 {
		t.Fatalf("only %d files of values (%v)", len(files), err)
	}
	return files
}

// container is the first container of a pod; arg its argument by flag.
func arg(c corev1.Container, flag string) string {
	for _, a := range c.Args {
		if v, ok := strings.CutPrefix(a, flag+"="); ok {
			return v
		}
	}
	return ""
}

// golden compares got with a file, or writes it.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what comes out; to accept: go test . -update\n--- got\n%s\n--- want\n%s", file, got, want)
	}
}

func TestLint(t *testing.T) {
	for _, f := range valuesFiles(t) {
		if out, errs, err := helm(t, nil, "lint", "--strict", chart, "-f", f); err != nil || strings.Contains(out+errs, "[WARNING]") {
			t.Errorf("helm lint with %s: %v\n%s%s", f, err, out, errs)
		}
	}
	if i := slices.IndexFunc(valuesFiles(t), func(f string) bool { return strings.HasSuffix(f, "/default-values.yaml") }); i < 0 {
		t.Error("no default-values.yaml")
	}
}
