package kube

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// testWatch is a watch of one kind whose events the test makes.
func testWatch(kind string) *watch {
	c := &Cluster{o: Options{Log: slog.New(slog.DiscardHandler), Namespace: "edge"}}
	s := newSource(c)
	c.source = s
	w := &watch{s: s, kind: s.kinds[kind], have: map[objects.Key]version{}}
	s.waiting[w] = true
	return w
}

// table is what a store holds after all that a watch handed on.
func table(w *watch, store *objects.Store) map[string]string {
	if c, _, ok := w.s.take(); ok {
		store.Apply(c)
	}
	out := map[string]string{}
	for _, r := range objects.List[*gatewayv1.HTTPRoute](store.View(nil), "", "") {
		out[r.Name] = string(r.UID) + "@" + r.ResourceVersion
	}
	return out
}

type event struct {
	gone bool
	o    *gatewayv1.HTTPRoute
}

func (e event) send(t *rapid.T, w *watch) {
	var err error
	switch {
	case e.gone && rapid.Bool().Draw(t, "final state unknown"):
		err = w.Delete(cache.DeletedFinalStateUnknown{Obj: e.o.DeepCopy()})
	case e.gone:
		err = w.Delete(e.o.DeepCopy())
	default:
		err = w.Add(e.o.DeepCopy())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// server is a small model of an API server: objects by name, and the events of all changes.
type server struct {
	rv      int
	objects map[string]*gatewayv1.HTTPRoute
	events  []event
}

func (s *server) change(t *rapid.T) {
	s.rv++
	name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name")
	old := s.objects[name]
	next := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "n", ResourceVersion: strconv.Itoa(s.rv), UID: types.UID(fmt.Sprint("u", s.rv))}}
	switch {
	case old != nil && rapid.IntRange(0, 2).Draw(t, "delete") == 0:
		next.UID = old.UID
		delete(s.objects, name)
		s.events = append(s.events, event{true, next})
		return
	case old != nil:
		next.UID = old.UID
	}
	s.objects[name] = next
	s.events = append(s.events, event{false, next})
}

func (s *server) list() []any {
	var out []any
	for _, o := range s.objects {
		out = append(out, o.DeepCopy())
	}
	return out
}

func (s *server) table() map[string]string {
	out := map[string]string{}
	for n, o := range s.objects {
		out[n] = string(o.UID) + "@" + o.ResourceVersion
	}
	return out
}

// TestHistories: events that come twice, too late or not at all (a watch that expired is followed by a list) end in the table that the
// API server has.
func TestHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		api := &server{objects: map[string]*gatewayv1.HTTPRoute{}}
		w, store := testWatch("HTTPRoute"), objects.NewStore()
		if err := w.Replace(nil, "0"); err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 8).Draw(t, "bursts") {
			from := len(api.events)
			for range rapid.IntRange(1, 6).Draw(t, "changes") {
				api.change(t)
			}
			fresh := slices.Clone(api.events[from:])
			if rapid.IntRange(0, 3).Draw(t, "expired") == 0 { // 410 Gone: some events are lost, then all is listed
				for _, e := range fresh[:rapid.IntRange(0, len(fresh)).Draw(t, "seen")] {
					e.send(t, w)
				}
				if err := w.Replace(api.list(), strconv.Itoa(api.rv)); err != nil {
					t.Fatal(err)
				}
			} else {
				for i := range fresh {
					if rapid.IntRange(0, 2).Draw(t, "twice") == 0 {
						fresh = append(fresh, fresh[i])
					}
				}
				if rapid.Bool().Draw(t, "reordered") {
					fresh = reordered(t, fresh)
				}
				for _, e := range fresh {
					e.send(t, w)
					if rapid.IntRange(0, 3).Draw(t, "taken") == 0 {
						table(w, store)
					}
				}
			}
			if d := cmp.Diff(api.table(), table(w, store)); d != "" {
				t.Fatalf("after %d changes (-server +ours):\n%s", api.rv, d)
			}
		}
	})
}

// reordered mixes events of different objects freely, and those of one object as far as it stays one object: that a name is taken again
// by a new object is never told before the old one's end is.
func reordered(t *rapid.T, es []event) []event {
	byUID := map[types.UID][]event{}
	for _, e := range es {
		byUID[e.o.UID] = append(byUID[e.o.UID], e)
	}
	names := map[string][]event{}
	for _, e := range es {
		if g := byUID[e.o.UID]; g != nil {
			names[e.o.Name] = append(names[e.o.Name], rapid.Permutation(g).Draw(t, "order")...)
			delete(byUID, e.o.UID)
		}
	}
	var out []event
	keys := slices.Sorted(maps.Keys(names))
	for len(keys) > 0 {
		i := rapid.IntRange(0, len(keys)-1).Draw(t, "next")
		k := keys[i]
		out = append(out, names[k][0])
		if names[k] = names[k][1:]; len(names[k]) == 0 {
			keys = slices.Delete(keys, i, i+1)
		}
	}
	return out
}

// TestNothingBeforeEverything: objects are handed on only when every kind was read or is known not to be there.
func TestNothingBeforeEverything(t *testing.T) {
	w := testWatch("HTTPRoute")
	other := &watch{s: w.s, kind: w.s.kinds["Gateway"], have: map[objects.Key]version{}}
	w.s.waiting[other] = true
	if err := w.Replace([]any{&gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "n", ResourceVersion: "1"}}}, "1"); err != nil {
		t.Fatal(err)
	}
	if _, _, ok := w.s.take(); ok {
		t.Fatal("objects were handed on while Gateways were not read")
	}
	other.s.synced(other, other.missing())
	c, faults, ok := w.s.take()
	if !ok || len(c.Upserts) != 1 || len(faults) != 1 {
		t.Fatalf("got %v, %v, %v", c, faults, ok)
	}
	if _, _, ok = w.s.take(); ok {
		t.Error("the same was handed on twice")
	}
	other.s.synced(other, other.missing())
	if _, _, ok = w.s.take(); ok {
		t.Error("a fault that is known was handed on again")
	}
}

// TestKindThatIsUninstalled takes its objects away and forgets their versions.
func TestKindThatIsUninstalled(t *testing.T) {
	w, store := testWatch("HTTPRoute"), objects.NewStore()
	r := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "n", ResourceVersion: "5", UID: "u"}}
	if err := w.Replace([]any{r}, "5"); err != nil {
		t.Fatal(err)
	}
	if got := table(w, store); len(got) != 1 {
		t.Fatalf("table = %v", got)
	}
	w.absent()
	if got := table(w, store); len(got) != 0 {
		t.Errorf("table = %v after the kind went", got)
	}
	if err := w.Replace([]any{r.DeepCopy()}, "5"); err != nil {
		t.Fatal(err)
	}
	if got := table(w, store); len(got) != 1 {
		t.Errorf("table = %v after the kind came back", got)
	}
}

// TestStrangers: what is not of the kind is refused, not handed on.
func TestStrangers(t *testing.T) {
	w := testWatch("HTTPRoute")
	if err := w.Add(&gatewayv1.Gateway{}); err == nil {
		t.Error("a Gateway was taken for an HTTPRoute")
	}
}

// TestFaultsChangeWhileWatchesSync: the last watch to sync and those whose faults change meanwhile do not get in each other's way.
func TestFaultsChangeWhileWatchesSync(t *testing.T) {
	for range 100 {
		w := testWatch("HTTPRoute")
		w.s.c.o.Log = slog.New(slog.DiscardHandler)
		other := &watch{s: w.s, kind: w.kind, namespace: "other"}
		var wg sync.WaitGroup
		wg.Go(func() { w.s.synced(w, diag.Fault{}) })
		wg.Go(func() { w.s.synced(other, diag.Fault{Message: "cannot be read"}) })
		wg.Wait()
		if _, faults, ok := w.s.take(); !ok || len(faults) != 1 {
			t.Fatalf("handed on %v, %v", faults, ok)
		}
	}
}
