// Package generate_test holds the generated CRDs (charts/gatehouse/crds) to what an API server asks of a CRD, and what they accept
// to what internal/manifest accepts: the same object must not be good in a file and bad in a cluster. The machinery is the API
// server's own (k8s.io/apiextensions-apiserver), which is why this lies in a module of its own.
package generate_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

const folder = "../../charts/gatehouse/crds"

// kind is one CRD, ready to judge objects.
type kind struct {
	crd        *apiextensionsv1.CustomResourceDefinition
	internal   *apiextensions.CustomResourceDefinition
	structural *structuralschema.Structural
	schema     validation.SchemaValidator
	rules      *cel.Validator
}

// load reads the CRDs by the name of their kind.
func load(t *testing.T) map[string]*kind {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no CRDs in %s (%v)", folder, err)
	}
	scheme := runtime.NewScheme()
	if err := apiextensionsv1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	out := map[string]*kind{}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		k := &kind{crd: &apiextensionsv1.CustomResourceDefinition{}, internal: &apiextensions.CustomResourceDefinition{}}
		if err := yaml.UnmarshalStrict(data, k.crd); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		scheme.Default(k.crd)
		apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&k.crd.Spec)
		if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(k.crd, k.internal, nil); err != nil {
			t.Fatal(err)
		}
		if len(k.crd.Spec.Versions) != 1 {
			t.Fatalf("%s has %d versions: load must be taught which one it means", f, len(k.crd.Spec.Versions))
		}
		props := k.internal.Spec.Validation
		if props == nil {
			props = k.internal.Spec.Versions[0].Schema
		}
		if k.structural, err = structuralschema.NewStructural(props.OpenAPIV3Schema); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		if k.schema, _, err = validation.NewSchemaValidator(props.OpenAPIV3Schema); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		k.rules = cel.NewValidator(k.structural, true, celconfig.PerCallLimit)
		out[k.crd.Spec.Names.Kind] = k
	}
	return out
}

// judge says what an API server says of an object that is written with strict field validation.
func (k *kind) judge(t *testing.T, doc map[string]any) []string {
	t.Helper()
	obj := runtime.DeepCopyJSON(doc)
	var faults []string
	for _, p := range pruning.PruneWithOptions(obj, k.structural, true, structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}) {
		faults = append(faults, p+": unknown field")
	}
	defaulting.Default(obj, k.structural)
	errs := validation.ValidateCustomResource(nil, obj, k.schema)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, k.structural, obj)...)
	if len(errs) == 0 && k.rules != nil { // rules run on what the schema lets through, as in the server
		more, _ := k.rules.Validate(context.Background(), field.NewPath(""), k.structural, obj, nil, celconfig.RuntimeCELCostBudget)
		errs = append(errs, more...)
	}
	for _, e := range errs {
		faults = append(faults, e.Error())
	}
	return faults
}

// TestCRDs: the API server takes the CRDs, rules in CEL and their cost included.
func TestCRDs(t *testing.T) {
	for name, k := range load(t) {
		k.internal.Status.StoredVersions = []string{v1alpha1.Version}
		for _, e := range crdvalidation.ValidateCustomResourceDefinition(context.Background(), k.internal) {
			t.Errorf("%s: %v", name, e)
		}
	}
}

// TestCRDsAreComplete: each of our kinds has its CRD, and each CRD what people and tools look for.
func TestCRDsAreComplete(t *testing.T) {
	crds := load(t)
	var want []string
	for _, k := range objects.Kinds() {
		if k.Group == v1alpha1.Group {
			want = append(want, k.Name)
			if c := crds[k.Name]; c != nil && c.crd.Spec.Names.Plural != k.Plural {
				t.Errorf("%s: plural %q in the CRD, %q in objects.Kinds", k.Name, c.crd.Spec.Names.Plural, k.Plural)
			}
		}
	}
	for _, name := range want {
		if crds[name] == nil {
			t.Errorf("%s has no CRD: run make generate", name)
		}
	}
	shorts := map[string]string{}
	for name, k := range crds {
		if !slices.Contains(want, name) {
			t.Errorf("there is a CRD of %s, which is not in objects.Kinds", name)
		}
		v := k.crd.Spec.Versions[0]
		if v.Subresources == nil || v.Subresources.Status == nil {
			t.Errorf("%s has no subresource status: users could write what Gatehouse concluded", name)
		}
		if !slices.Contains(k.crd.Spec.Names.Categories, "gatehouse") {
			t.Errorf("%s is not in the category gatehouse: kubectl get gatehouse leaves it out", name)
		}
		if n := len(v.AdditionalPrinterColumns); n == 0 || v.AdditionalPrinterColumns[n-1].Name != "Age" {
			t.Errorf("%s: the last column that kubectl prints is not Age", name)
		}
		for _, s := range k.crd.Spec.Names.ShortNames {
			if shorts[s] != "" {
				t.Errorf("%s and %s have the short name %s", name, shorts[s], s)
			}
			shorts[s] = name
		}
		label := k.crd.Labels["gateway.networking.k8s.io/policy"]
		if policy := strings.HasSuffix(name, "Policy"); policy != (label == "Direct" || label == "Inherited") {
			t.Errorf("%s has the label gateway.networking.k8s.io/policy=%q (GEP-713: Direct or Inherited on policies, none elsewhere)", name, label)
		}
		described(t, name+".spec", v.Schema.OpenAPIV3Schema.Properties["spec"])
	}
}

// described reports fields without documentation.
func described(t *testing.T, at string, s apiextensionsv1.JSONSchemaProps) {
	t.Helper()
	if s.Description == "" {
		t.Errorf("%s has no description", at)
	}
	for name, p := range s.Properties {
		described(t, at+"."+name, p)
	}
	if s.Items != nil && s.Items.Schema != nil {
		for name, p := range s.Items.Schema.Properties {
			described(t, at+"[]."+name, p)
		}
	}
}

// decode reads one document; nil if it is empty or of somebody else's kind.
func decode(t *testing.T, text string) map[string]any {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	var doc map[string]any
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil
	}
	if doc["apiVersion"] != v1alpha1.Group+"/"+v1alpha1.Version {
		return nil
	}
	return numbers(doc).(map[string]any)
}

// numbers turns float64 into int64 where nothing is lost, as the API server's decoder does.
func numbers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k])
		}
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case float64:
		if i := int64(v); float64(i) == v {
			return i
		}
	}
	return v
}
