package translate_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/objects"
	"github.com/gatehouse-io/gatehouse/internal/translate"
)

// TestIncremental holds the result after any history of changes against the one from scratch, and checks that what did not
// change keeps its pointers.
func TestIncremental(t *testing.T) {
	w := newWorld(t)
	rapid.Check(t, func(t *rapid.T) {
		store := objects.NewStore()
		store.Apply(w.change(t, rapid.IntRange(0, 60).Draw(t, "at first")))
		tr := translate.New(options())
		last := tr.Update(store, nil)
		n := rapid.IntRange(1, 12).Draw(t, "changes")
		for range n {
			c := w.change(t, rapid.IntRange(1, 5).Draw(t, "objects"))
			touched := store.Apply(c)
			next := tr.Update(store, touched)
			want := translate.New(options()).Update(store, nil)
			if d := cmp.Diff(show(t, want), show(t, next)); d != "" {
				t.Fatalf("after a history of changes (-from scratch +incremental):\n%s", d)
			}
			keptPointers(t, last, next)
			last = next
		}
	})
}

// shown is a result as JSON text, each part of it.
type shown struct{ Config, Endpoints, Secrets, Report, Pending string }

func show(t rapid.TB, r translate.Result) shown {
	return shown{text(t, r.Config), text(t, r.Endpoints), text(t, r.Secrets), text(t, r.Report.Sorted()), text(t, r.Pending)}
}

func text(t rapid.TB, v any) string {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func keptPointers(t *rapid.T, last, next translate.Result) {
	if same := last.Config == next.Config; same == next.ConfigChanged {
		t.Fatalf("ConfigChanged = %v, but the same pointer: %v", next.ConfigChanged, same)
	}
	if a, b := text(t, last.Config), text(t, next.Config); (a == b) == next.ConfigChanged {
		t.Fatalf("ConfigChanged = %v, but equal: %v", next.ConfigChanged, a == b)
	}
	if a, b := text(t, last.Endpoints), text(t, next.Endpoints); (a == b) == next.EndpointsChanged {
		t.Fatalf("EndpointsChanged = %v, but equal: %v", next.EndpointsChanged, a == b)
	}
	kept(t, last.Config.Listeners, next.Config.Listeners, func(l *ir.Listener) string { return l.Key })
	kept(t, last.Config.Clusters, next.Config.Clusters, func(c *ir.Cluster) string { return c.Key })
	kept(t, last.Config.Hosts, next.Config.Hosts, func(h *ir.Host) string { return h.Listener + " " + h.Hostname })
	kept(t, last.Report.Sorted(), next.Report.Sorted(), func(o *diag.Object) string { return o.Ref.String() })
	routes := map[string]*ir.Route{}
	for _, h := range last.Config.Hosts {
		for _, r := range h.Routes {
			routes[h.Listener+" "+h.Hostname+" "+r.Name] = r
		}
	}
	for _, h := range next.Config.Hosts {
		for _, r := range h.Routes {
			if old := routes[h.Listener+" "+h.Hostname+" "+r.Name]; old != nil && old != r && text(t, old) == text(t, r) {
				t.Fatalf("route %s of host %q did not change, but its pointer did", r.Name, h.Hostname)
			}
		}
	}
	for k, es := range next.Endpoints {
		if old, ok := last.Endpoints[k]; ok && len(es) > 0 && text(t, old) == text(t, es) && &old[0] != &es[0] {
			t.Fatalf("endpoints of %s did not change, but the slice did", k)
		}
	}
}

// kept checks that parts which are equal in both lists are one pointer, and that the keys are sorted.
func kept[T any](t *rapid.T, last, next []*T, key func(*T) string) {
	old := map[string]*T{}
	for _, v := range last {
		old[key(v)] = v
	}
	seen := map[string]bool{}
	for _, v := range next {
		k := key(v)
		if seen[k] {
			t.Fatalf("%T %s stands twice", v, k)
		}
		seen[k] = true
		if o := old[k]; o != nil && o != v && text(t, o) == text(t, v) {
			t.Fatalf("%T %s did not change, but its pointer did", v, k)
		}
	}
}

// TestEverythingTouched translates all anew and keeps every pointer.
func TestEverythingTouched(t *testing.T) {
	store := objects.NewStore()
	store.Apply(objects.Change{Upserts: parse(t, builtins)})
	store.Apply(objects.Change{Upserts: parse(t, manyRoutes(50, 50))})
	tr := translate.New(options())
	first := tr.Update(store, nil)
	if len(first.Config.Hosts) != 50 {
		t.Fatalf("%d hosts, want 50", len(first.Config.Hosts))
	}
	again := tr.Update(store, nil)
	if again.ConfigChanged || again.EndpointsChanged || again.SecretsChanged || again.Config != first.Config || again.Report != first.Report {
		t.Errorf("nothing changed, but the result did: %+v", again)
	}
}
