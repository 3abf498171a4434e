package translate_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"testing"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"

	"github.com/gatehouse-io/gatehouse/internal/objects"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// decodeAll reads multi-document YAML without the checks and defaults of an API server: translate must do without them.
func decodeAll(t testing.TB, text string) []objects.Object {
	t.Helper()
	var out []objects.Object
	d := yaml.NewDecoder(bytes.NewReader([]byte(text)))
	for {
		var doc map[string]any
		err := d.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		raw, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		kind, _ := doc["kind"].(string)
		var into any = &corev1.Secret{}
		o := objects.New(kind)
		if kind != "Secret" {
			into = o
		}
		j := json.NewDecoder(bytes.NewReader(raw))
		j.DisallowUnknownFields()
		if err := j.Decode(into); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		if s, ok := into.(*corev1.Secret); ok {
			own := &objects.Secret{ObjectMeta: s.ObjectMeta, Material: secret.Material{Type: string(s.Type), Data: map[string]secret.Value{}}}
			for k, v := range s.Data {
				own.Material.Data[k] = secret.New(v)
			}
			for k, v := range s.StringData {
				own.Material.Data[k] = secret.New([]byte(v))
			}
			o = own
		}
		out = append(out, o)
	}
}
