package mirror

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

func compile(t *testing.T, spec string) (policy.Handler, error) {
	t.Helper()
	s := Step()
	v, err := s.Decode([]byte(spec))
	if err != nil {
		t.Fatal(err)
	}
	return v.Compile(policy.Env{Refs: map[string]string{"backendRef": "Service/shop/copy/80"}})
}

func TestShare(t *testing.T) {
	for _, x := range []struct {
		spec        string
		least, most int // of 10,000 requests
	}{
		{`{}`, 10000, 10000},
		{`{"percent": 100}`, 10000, 10000},
		{`{"percent": 0}`, 0, 0},
		{`{"percent": 20}`, 1800, 2200},
		{`{"fraction": {"numerator": 1, "denominator": 1000}}`, 1, 40},
		{`{"fraction": {"numerator": 50}}`, 4700, 5300},
		{`{"fraction": {"numerator": 3, "denominator": 3}}`, 10000, 10000},
	} {
		h, err := compile(t, x.spec)
		if err != nil {
			t.Errorf("%s: %v", x.spec, err)
			continue
		}
		n := 0
		var e exchange.Exchange
		for range 10000 {
			e.Reset()
			if v := h.Request(&e); v.Status != 0 {
				t.Fatalf("%s: answers %d", x.spec, v.Status)
			}
			if len(e.Mirrors) == 1 && e.Mirrors[0] == "Service/shop/copy/80" {
				n++
			}
		}
		if n < x.least || n > x.most {
			t.Errorf("%s: %d of 10,000 mirrored, want %d to %d", x.spec, n, x.least, x.most)
		}
	}
}

func TestFaults(t *testing.T) {
	for spec, want := range map[string]string{
		`{"percent": 101}`: "percent: 101 is not between 0 and 100",
		`{"percent": 5, "fraction": {"numerator": 1}}`:     "fraction: only one of percent and fraction may be set",
		`{"fraction": {"numerator": 2, "denominator": 1}}`: "fraction: 2/1 is not a share between 0 and 1",
		`{"fraction": {"numerator": 1, "denominator": 0}}`: "fraction: 1/0 is not a share between 0 and 1",
	} {
		if _, err := compile(t, spec); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", spec, err, want)
		}
	}
}

func TestRefs(t *testing.T) {
	s := Step()
	v, err := s.Decode(json.RawMessage(`{"backendRef": {"name": "copy", "port": 80, "namespace": "other"}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []policy.Ref{{Path: "backendRef", Kind: "Service", Namespace: "other", Name: "copy", Port: 80}}
	if d := cmp.Diff(want, s.Refs(v)); d != "" {
		t.Error(d)
	}
}

// TestExplainedAlways: an explanation names every mirror that may get a copy.
func TestExplainedAlways(t *testing.T) {
	h, err := compile(t, `{"percent": 1}`)
	if err != nil {
		t.Fatal(err)
	}
	e := exchange.Exchange{Dry: true}
	if h.Request(&e); len(e.Mirrors) != 1 {
		t.Errorf("%d mirrors, want 1", len(e.Mirrors))
	}
}
