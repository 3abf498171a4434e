package chart_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	"sigs.k8s.io/yaml"
)

// server answers what Helm asks of an API server before it installs: its version, the kinds that it knows, and the CRDs that it has. It
// knows the kinds of objs and no other object. It returns the environment in which Helm finds it.
func server(t *testing.T, objs []runtime.Object, crds map[string]map[string]any) []string {
	t.Helper()
	answers := map[string]any{
		"/version":                       version.Info{Major: "1", Minor: "37", GitVersion: "v1.37.0"},
		"/api":                           metav1.APIVersions{Versions: []string{"v1"}},
		"/api/v1/namespaces/kube-system": map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": "kube-system"}},
	}
	lists := map[schema.GroupVersion]*metav1.APIResourceList{}
	know := func(k schema.GroupVersionKind, namespaced bool) {
		gv := k.GroupVersion()
		if lists[gv] == nil {
			lists[gv] = &metav1.APIResourceList{GroupVersion: gv.String()}
		}
		plural, _ := meta.UnsafeGuessKindToResource(k)
		lists[gv].APIResources = append(lists[gv].APIResources, metav1.APIResource{Name: plural.Resource, Kind: k.Kind, Namespaced: namespaced})
	}
	know(schema.GroupVersionKind{Version: "v1", Kind: "Namespace"}, false)
	know(schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "DaemonSet"}, true)
	know(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"}, false)
	for _, o := range objs {
		know(o.GetObjectKind().GroupVersionKind(), o.(metav1.Object).GetNamespace() != "")
	}
	var groups metav1.APIGroupList
	for gv, list := range lists {
		if gv.Group == "" {
			answers["/api/v1"] = list
			continue
		}
		answers["/apis/"+gv.String()] = list
		v := metav1.GroupVersionForDiscovery{GroupVersion: gv.String(), Version: gv.Version}
		groups.Groups = append(groups.Groups, metav1.APIGroup{Name: gv.Group, Versions: []metav1.GroupVersionForDiscovery{v}, PreferredVersion: v})
	}
	answers["/apis"] = groups
	for name, crd := range crds {
		answers["/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"+name] = crd
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		answer, ok := answers[path.Clean(r.URL.Path)]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			answer = metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure,
				Reason: metav1.StatusReasonNotFound, Code: http.StatusNotFound, Message: "not found"}
		}
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Errorf("answering %s: %v", r.URL, err)
		}
	}))
	t.Cleanup(s.Close)
	config := filepath.Join(t.TempDir(), "kubeconfig")
	text := "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{name: a, context: {cluster: a, user: a}}]\nusers: [{name: a}]\n" +
		"clusters: [{name: a, cluster: {server: " + s.URL + "}}]\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"KUBECONFIG=" + config}
}

// crds reads the chart's own by name.
func crds(t *testing.T) map[string]map[string]any {
	t.Helper()
	files, err := filepath.Glob(chart + "/crds/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no CRDs (%v)", err)
	}
	out := map[string]map[string]any{}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var crd map[string]any
		if err := yaml.Unmarshal(data, &crd); err != nil {
			t.Fatal(err)
		}
		out[crd["metadata"].(map[string]any)["name"].(string)] = crd
	}
	return out
}

// drop takes a property out of the schema of a CRD, by the path of its spec.
func drop(crd map[string]any, fields ...string) {
	version := crd["spec"].(map[string]any)["versions"].([]any)[0].(map[string]any)
	s := version["schema"].(map[string]any)["openAPIV3Schema"].(map[string]any)
	for i, f := range fields {
		if items, ok := s["items"].(map[string]any); ok {
			s = items
		}
		props := s["properties"].(map[string]any)
		if i == len(fields)-1 {
			delete(props, f)
			return
		}
		s = props[f].(map[string]any)
	}
}

// TestCRDsCheck: an installation or upgrade over CRDs that lack a field is refused and says which, and what to do.
func TestCRDsCheck(t *testing.T) {
	objs := template(t, "edge", "main")
	const command = "helm show crds CHART | kubectl apply --server-side --force-conflicts -f -"
	for _, c := range []struct {
		name    string
		change  func(map[string]map[string]any)
		upgrade bool
		set     string
		lacks   string // "": it goes through
	}{
		{name: "the same", change: func(map[string]map[string]any) {}, upgrade: true},
		{name: "none yet", change: func(c map[string]map[string]any) { clear(c) }},
		{name: "one more field in the cluster", upgrade: true, change: func(c map[string]map[string]any) {
			version := c["backends.gatehouse.dev"]["spec"].(map[string]any)["versions"].([]any)[0].(map[string]any)
			s := version["schema"].(map[string]any)["openAPIV3Schema"].(map[string]any)
			s["properties"].(map[string]any)["more"] = map[string]any{"type": "string"}
		}},
		{name: "a field", upgrade: true, lacks: "they lack GatewayParameters.spec.infrastructure.service.loadBalancerClass.\n",
			change: func(c map[string]map[string]any) {
				drop(c["gatewayparameters.gatehouse.dev"], "spec", "infrastructure", "service", "loadBalancerClass")
			}},
		{name: "a field in a list, and all of a part", lacks: "they lack Backend.spec.endpoints.hostname, ClientTrafficPolicy.spec.limits.\n",
			change: func(c map[string]map[string]any) {
				drop(c["backends.gatehouse.dev"], "spec", "endpoints", "hostname")
				drop(c["clienttrafficpolicies.gatehouse.dev"], "spec", "limits")
			}},
		{name: "a kind", upgrade: true, lacks: "they lack ProtectionPolicy.\n", change: func(c map[string]map[string]any) {
			delete(c, "protectionpolicies.gatehouse.dev")
		}},
		{name: "a kind, and the check is off", upgrade: true, set: "crds.check=false", change: func(c map[string]map[string]any) {
			delete(c, "protectionpolicies.gatehouse.dev")
		}},
	} {
		have := crds(t)
		c.change(have)
		args := []string{"template", "main", chart, "-n", "edge", "--dry-run=server", "--disable-openapi-validation", "--set", c.set}
		if c.upgrade {
			args = append(args, "--is-upgrade")
		}
		_, errs, err := helm(t, server(t, objs, have), args...)
		switch {
		case c.lacks == "" && err != nil:
			t.Errorf("%s: %v\n%s", c.name, err, errs)
		case c.lacks != "" && (err == nil || !strings.Contains(errs, c.lacks) || !strings.Contains(errs, command)):
			t.Errorf("%s: want %q and the command in:\n%s", c.name, c.lacks, errs)
		}
	}
}

// TestNotes: what Helm prints after an installation, in a cluster with neither the Gateway API nor our CRDs and in one with both.
func TestNotes(t *testing.T) {
	both := template(t, "edge", "main", gatewayAPI, "--set", "parameters.httpsRedirect=false")
	for name, args := range map[string][]string{
		"bare": nil, "default": nil,
		"host":  {"-f", chart + "/ci/host-values.yaml", "--set", "admin=off"},
		"watch": {"-f", chart + "/ci/watch-namespaces-values.yaml", "--set", "ingressClass.create=false"},
	} {
		mode, env := "--dry-run=server", server(t, both, crds(t))
		if name == "bare" {
			mode, env = "--dry-run=client", nil
		}
		out, errs, err := helm(t, env, append([]string{"install", "main", chart, "-n", "edge", mode, "--disable-openapi-validation"}, args...)...)
		if err != nil {
			t.Fatalf("%v\n%s", err, errs)
		}
		_, notes, ok := strings.Cut(out, "\nNOTES:\n")
		if !ok {
			t.Fatalf("no notes in:\n%s", out)
		}
		golden(t, "testdata/notes-"+name+".txt", notes)
	}
}
