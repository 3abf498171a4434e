package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/secret"
)

const open = "hunter2-open-sesame"

// leaks says whether text holds the secret, also as hex, decimal bytes or base64.
func leaks(text string) bool {
	for _, form := range []string{
		open, fmt.Sprintf("%x", open), fmt.Sprintf("%X", open), fmt.Sprint([]byte(open)),
		strings.Trim(fmt.Sprintf("%v", []byte(open)), "[]"), "aHVudGVyMi1vcGVuLXNlc2FtZQ", "0x68, 0x75",
	} {
		if strings.Contains(text, form) {
			return true
		}
	}
	return false
}

// hidden has fields whose methods fmt may not call.
type hidden struct {
	v  secret.Value
	pv *secret.Value
	m  secret.Material
	pm *secret.Material
}

// holders are the shapes in which a value comes into print: bare, by pointer, and inside what holds it.
func holders() map[string]any {
	v := secret.New([]byte(open))
	m := secret.Material{Type: "Opaque", Data: map[string]secret.Value{"k": v}}
	return map[string]any{
		"value": v, "pointer": &v, "slice": []secret.Value{v}, "array": [1]secret.Value{v},
		"material": m, "material pointer": &m, "set": secret.Set{"Secret/a/b": &m},
		"struct": struct{ V secret.Value }{v}, "unexported": hidden{v, &v, m, &m}, "pointer to unexported": &hidden{v, &v, m, &m}, "any": []any{v}, "map key": map[string]any{"a": m},
	}
}

func TestNoVerbPrintsTheValue(t *testing.T) {
	for name, h := range holders() {
		for _, verb := range strings.Split("v,+v,#v,s,q,x,X,d,o,b,c,U,e,g,t,T,-30s,.3s,08d,# x,z", ",") {
			got := fmt.Sprintf("%"+verb, h)
			if leaks(got) {
				t.Errorf("%s with %%%s prints the value: %s", name, verb, got)
			}
		}
		if got := fmt.Sprint(h); leaks(got) {
			t.Errorf("Sprint(%s) = %s", name, got)
		}
	}
	if got := fmt.Sprintf("%s %v %#v %x", secret.New([]byte(open)), secret.Value{}, secret.Value{}, secret.New(nil)); got !=
		"[redacted] [redacted] [redacted] [redacted]" {
		t.Errorf("printed %q", got)
	}
}

func TestJSONHoldsNoValue(t *testing.T) {
	for name, h := range holders() {
		got, err := json.Marshal(h)
		if err != nil {
			t.Errorf("json of %s: %v", name, err)
		}
		if leaks(string(got)) {
			t.Errorf("json of %s = %s", name, got)
		}
	}
	got, err := json.Marshal(map[string]secret.Value{"k": secret.New([]byte(open))})
	if err != nil || string(got) != `{"k":"[redacted]"}` {
		t.Errorf("json = %s, %v", got, err)
	}
}

func TestSlogHoldsNoValue(t *testing.T) {
	var b bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&b, nil), slog.NewJSONHandler(&b, nil)} {
		log := slog.New(h)
		for name, v := range holders() {
			log.Info("have", "it", v, slog.Group("in", "a group", v), "of", name)
		}
		log.With("it", secret.New([]byte(open))).Info("with")
	}
	if !strings.Contains(b.String(), "[redacted]") {
		t.Errorf("nothing was logged: %s", b.String())
	}
	if leaks(b.String()) {
		t.Errorf("the log holds the value:\n%s", b.String())
	}
}

func TestErrorsHoldNoValue(t *testing.T) {
	if got := fmt.Errorf("trying %v: %w", secret.New([]byte(open)), fmt.Errorf("%s", secret.New([]byte(open)))).Error(); leaks(got) {
		t.Errorf("error = %s", got)
	}
}

func TestValueIsACopy(t *testing.T) {
	b := []byte("abc")
	v := secret.New(b)
	b[0] = 'x'
	if got := string(v.Reveal()); got != "abc" || v.Len() != 3 {
		t.Errorf("value = %q, length %d", got, v.Len())
	}
}

func TestEqual(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{{"", "", true}, {"a", "a", true}, {"a", "b", false}, {"a", "aa", false}, {"a", "", false}} {
		if got := secret.New([]byte(c.a)).Equal(secret.New([]byte(c.b))); got != c.want {
			t.Errorf("Equal(%q, %q) = %v, want %v", c.a, c.b, got, c.want)
		}
	}
	if !(secret.Value{}).Equal(secret.New(nil)) {
		t.Error("the zero Value is not equal to an empty one")
	}
}

// A reader sees one whole set or another, never a mixture.
func TestStoreSwapsWhole(t *testing.T) {
	var s secret.Store
	if got := s.Lookup("a"); got != nil {
		t.Fatalf("Lookup in the zero Store = %v", got)
	}
	s.Swap(secret.Set{"a": {Type: "0"}})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				if m := s.Lookup("a"); m == nil {
					t.Error("a was away between two sets that hold it")
					return
				}
			}
		})
	}
	for i := range 1000 {
		s.Swap(secret.Set{"a": {Type: fmt.Sprint(i)}})
	}
	wg.Wait()
	s.Swap(secret.Set{"b": {}})
	if s.Lookup("a") != nil || s.Lookup("b") == nil {
		t.Error("a set was not replaced whole")
	}
}
