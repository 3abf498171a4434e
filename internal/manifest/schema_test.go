package manifest

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	yaml "go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

var update = flag.Bool("update", false, "write golden files and schemas instead of comparing them")

const (
	gatewaySchemas = "schema/gateway.networking.k8s.io.json"
	bundleSchemas  = "schema/gatehouse.dev.json"
)

// The schemas of the Gateway API are those of the CRDs (experimental channel, as the Go types) of the module that is built in,
// less descriptions and rules in CEL.
func TestGatewaySchemasAreThoseOfTheCRDs(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").Output()
	if err != nil || len(bytes.TrimSpace(dir)) == 0 {
		t.Skipf("the gateway-api module is not unpacked here: %v", err)
	}
	out := map[string]*schema{}
	for _, k := range objects.Kinds() {
		if k.Group == gatewayGroup {
			out[k.Name] = crdSchema(t, filepath.Join(string(bytes.TrimSpace(dir)), "config", "crd", "experimental", gatewayGroup+"_"+k.Plural+".yaml"))
		}
	}
	sameSchemas(t, gatewaySchemas, out)
}

// The schemas of AuthPolicy and RateLimitPolicy, which are large, are those of our own CRDs.
func TestBundleSchemasAreThoseOfTheCRDs(t *testing.T) {
	out := map[string]*schema{}
	for _, k := range objects.Kinds() {
		if k.Name == "AuthPolicy" || k.Name == "RateLimitPolicy" {
			out[k.Name] = crdSchema(t, filepath.Join("..", "..", "charts", "gatehouse", "crds", k.Group+"_"+k.Plural+".yaml"))
		}
	}
	sameSchemas(t, bundleSchemas, out)
}

// sameSchemas holds a file of schemas to what CRDs say, or writes it.
func sameSchemas(t *testing.T, file string, schemas map[string]*schema) {
	t.Helper()
	want, err := json.MarshalIndent(schemas, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what the CRDs say (%v); to accept: go test ./internal/manifest -run %s -update", file, err, t.Name())
	}
}

// crdSchema is what a CRD says of its newest version that we read.
func crdSchema(t *testing.T, file string) *schema {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var crd struct {
		Spec struct {
			Versions []struct {
				Name   string
				Schema struct {
					OpenAPIV3Schema map[string]any `yaml:"openAPIV3Schema"`
				}
			}
		}
	}
	if err := yaml.Unmarshal(data, &crd); err != nil {
		t.Fatal(err)
	}
	for _, v := range crd.Spec.Versions {
		if v.Name != "v1" && v.Name != v1alpha1.Version {
			continue
		}
		sets(v.Schema.OpenAPIV3Schema)
		b, err := json.Marshal(v.Schema.OpenAPIV3Schema)
		if err != nil {
			t.Fatal(err)
		}
		s := &schema{}
		if err := json.Unmarshal(b, s); err != nil {
			t.Fatal(err)
		}
		delete(s.Properties, "status")
		return s
	}
	t.Fatalf("%s has neither version v1 nor %s", file, v1alpha1.Version)
	return nil
}

// sets says of lists that are sets that their items are unique.
func sets(v any) {
	switch v := v.(type) {
	case map[string]any:
		if v["x-kubernetes-list-type"] == "set" {
			v["uniqueItems"] = true
		}
		for _, c := range v {
			sets(c)
		}
	case []any:
		for _, c := range v {
			sets(c)
		}
	}
}

// Every field that a schema speaks of is one of the Go type: a name written wrong would check nothing.
func TestSchemasNameFieldsThatExist(t *testing.T) {
	r := newReader()
	for kind, s := range r.schemas {
		if _, ok := r.kinds[kind]; !ok {
			t.Errorf("schema of %s, which is not read", kind)
			continue
		}
		checkNames(t, r, kind, s, typeOf(kind))
	}
	for _, p := range patterns {
		if r.pattern(p.pattern).MatchString("not a value\x00") {
			t.Errorf("pattern %s matches anything", p.pattern)
		}
		if !usesPattern(r.schemas, p.pattern) {
			t.Errorf("no schema has the pattern %s", p.pattern)
		}
	}
}

func checkNames(t *testing.T, r *reader, at string, s *schema, rt reflect.Type) {
	t.Helper()
	for rt.Kind() == reflect.Pointer {
		rt = rt.Elem()
	}
	if s.Pattern != "" {
		if _, err := regexp.Compile(s.Pattern); err != nil {
			t.Errorf("%s: %v", at, err)
		}
	}
	if s.Items != nil {
		checkNames(t, r, at+"[]", s.Items, rt.Elem())
	}
	if s.Values != nil {
		checkNames(t, r, at+"{}", s.Values, rt.Elem())
	}
	if len(s.Properties)+len(s.Required) == 0 || rt == reflect.TypeFor[metav1.ObjectMeta]() {
		return
	}
	fields := r.fields(rt)
	for _, name := range s.Required {
		if fields[name] == nil {
			t.Errorf("%s: required field %q is not one of %v", at, name, rt)
		}
	}
	for name, p := range s.Properties {
		if fields[name] == nil {
			t.Errorf("%s: field %q is not one of %v", at, name, rt)
			continue
		}
		checkNames(t, r, at+"."+name, p, fields[name])
	}
}

func typeOf(kind string) reflect.Type {
	if kind == "Secret" {
		return reflect.TypeFor[corev1.Secret]()
	}
	return reflect.TypeOf(objects.New(kind)).Elem()
}

func usesPattern(schemas map[string]*schema, pattern string) bool {
	b, err := json.Marshal(schemas)
	if err != nil {
		panic(err)
	}
	quoted, err := json.Marshal(pattern)
	if err != nil {
		panic(err)
	}
	return strings.Contains(string(b), string(quoted))
}
