package v1alpha1_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
)

// The comments on the fields are the reference documentation, so no field may be without one.
func TestEveryFieldIsDocumented(t *testing.T) {
	n := 0
	for _, file := range []string{"types.go", "backendtraffic.go", "authpolicy.go", "ratelimitpolicy.go"} {
		n += undocumented(t, file)
	}
	if n < 40 {
		t.Errorf("only %d fields seen", n)
	}
}

// undocumented reports the fields of a file without a comment, and returns how many fields there are.
func undocumented(t *testing.T, file string) (n int) {
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(node ast.Node) bool {
		spec, ok := node.(*ast.TypeSpec)
		if !ok {
			return true
		}
		st, ok := spec.Type.(*ast.StructType)
		if !ok {
			return false
		}
		for _, field := range st.Fields.List {
			if len(field.Names) == 0 {
				continue // embedded metadata
			}
			n++
			if !documented(field.Doc) {
				t.Errorf("%s.%s has no comment", spec.Name.Name, field.Names[0].Name)
			}
		}
		return false
	})
	return n
}

// documented: there is more than markers for controller-gen.
func documented(c *ast.CommentGroup) bool {
	for l := range strings.Lines(c.Text()) {
		if !strings.HasPrefix(l, "+") && strings.TrimSpace(l) != "" {
			return true
		}
	}
	return false
}

// YAML 1.1 reads these words as booleans where they stand unquoted, as keys too.
func TestNoFieldNameIsAYAMLBoolean(t *testing.T) {
	words := []string{"y", "n", "yes", "no", "on", "off", "true", "false"}
	var walk func(reflect.Type, string)
	seen := map[reflect.Type]bool{}
	walk = func(rt reflect.Type, at string) {
		for rt.Kind() == reflect.Pointer || rt.Kind() == reflect.Slice || rt.Kind() == reflect.Map {
			rt = rt.Elem()
		}
		if rt.Kind() != reflect.Struct || seen[rt] || !strings.HasSuffix(rt.PkgPath(), "v1alpha1") {
			return
		}
		seen[rt] = true
		for i := range rt.NumField() {
			f := rt.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if slices.Contains(words, strings.ToLower(name)) {
				t.Errorf("%s.%s is a YAML 1.1 boolean", at, name)
			}
			if !f.Anonymous && name == "" {
				t.Errorf("%s.%s has no JSON name", at, f.Name)
			}
			walk(f.Type, at+"."+name)
		}
	}
	for _, kind := range []any{v1alpha1.Backend{}, v1alpha1.ProtectionPolicy{}, v1alpha1.ClientTrafficPolicy{}, v1alpha1.GatewayParameters{}, v1alpha1.BackendTrafficPolicy{}, v1alpha1.AuthPolicy{}, v1alpha1.RateLimitPolicy{}} {
		walk(reflect.TypeOf(kind), reflect.TypeOf(kind).Name())
	}
}
