package diag_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-io/gatehouse/internal/diag"
)

func TestFaultString(t *testing.T) {
	cart := diag.Ref{Group: "gateway.networking.k8s.io", Kind: "HTTPRoute", Namespace: "shop", Name: "cart"}
	for _, c := range []struct {
		fault diag.Fault
		want  string
	}{
		{diag.Fault{Message: "no files"}, "no files"},
		{diag.Fault{File: "shop.yaml", Message: "cannot be read"}, "shop.yaml: cannot be read"},
		{diag.Fault{Line: 3, Message: "a line without its file is not shown"}, "a line without its file is not shown"},
		{
			diag.Fault{Object: cart, Path: "spec.rules[0]", Message: "no match", Hint: "write one", File: "shop.yaml", Line: 12},
			"shop.yaml:12: HTTPRoute shop/cart: spec.rules[0]: no match (write one)",
		},
		{
			diag.Fault{Object: diag.Ref{Kind: "GatewayClass", Name: "edge"}, Message: "not used", Severity: diag.Warning},
			"warning: GatewayClass edge: not used",
		},
	} {
		if got := c.fault.String(); got != c.want {
			t.Errorf("String() = %q, want %q", got, c.want)
		}
	}
}

func TestFaultJSON(t *testing.T) {
	got, err := json.Marshal(diag.Fault{Object: diag.Ref{Kind: "Ingress", Name: "a"}, Message: "m", Severity: diag.Warning})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"object":{"kind":"Ingress","name":"a"},"message":"m","severity":"warning"}`
	if string(got) != want {
		t.Errorf("JSON = %s, want %s", got, want)
	}
}

func TestSortFaultsIsTotal(t *testing.T) {
	ref := func(k, n string) diag.Ref { return diag.Ref{Kind: k, Name: n} }
	want := []diag.Fault{
		{Object: ref("Z", "z"), Message: "no file comes first"},
		{File: "a", Line: 2, Message: "1"},
		{File: "a", Line: 10, Message: "lines are numbers"},
		{File: "b", Object: ref("A", "b"), Message: "1"},
		{File: "b", Object: ref("B", "a"), Path: "a", Message: "2"},
		{File: "b", Object: ref("B", "a"), Path: "b", Message: "1"},
		{File: "b", Object: ref("B", "a"), Path: "b", Message: "2"},
	}
	for range 20 {
		got := append([]diag.Fault(nil), want...)
		rand.Shuffle(len(got), func(i, j int) { got[i], got[j] = got[j], got[i] })
		diag.SortFaults(got)
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("order (-want +got):\n%s", d)
		}
	}
}

func TestProblem(t *testing.T) {
	err := fmt.Errorf("compiling: %w", diag.Errorf("allow[0]", "%q is not a network", "x"))
	var p *diag.Problem
	if !errors.As(err, &p) || p.Path != "allow[0]" || p.Msg != `"x" is not a network` {
		t.Fatalf("errors.As gave %+v", p)
	}
	for _, c := range []struct {
		p    diag.Problem
		want string
	}{
		{diag.Problem{Msg: "empty"}, "empty"},
		{diag.Problem{Path: "a", Msg: "empty"}, "a: empty"},
		{diag.Problem{Path: "a", Msg: "empty", Hint: "write one"}, "a: empty (write one)"},
	} {
		if got := c.p.Error(); got != c.want {
			t.Errorf("Error() = %q, want %q", got, c.want)
		}
	}
}

func TestReport(t *testing.T) {
	var none *diag.Report
	if got := none.Faults(); got != nil {
		t.Errorf("faults of no report = %v", got)
	}
	a, b := diag.Ref{Kind: "Gateway", Namespace: "x", Name: "a"}, diag.Ref{Kind: "Gateway", Namespace: "x", Name: "b"}
	r := diag.NewReport(
		&diag.Object{Ref: b, Faults: []diag.Fault{{Object: b, Message: "2"}, {Object: b, Message: "1"}}},
		&diag.Object{Ref: a, Faults: []diag.Fault{{Object: a, Message: "3"}}},
	)
	var names, messages []string
	for _, o := range r.Sorted() {
		names = append(names, o.Ref.Name)
	}
	for _, f := range r.Faults() {
		messages = append(messages, f.Object.Name+f.Message)
	}
	if d := cmp.Diff([]string{"a", "b"}, names); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"a3", "b1", "b2"}, messages); d != "" {
		t.Error(d)
	}
}

func TestReportWith(t *testing.T) {
	named := func(n int) diag.Ref { return diag.Ref{Kind: "HTTPRoute", Namespace: "x", Name: fmt.Sprint(n)} }
	var all []*diag.Object
	for n := range 1000 {
		all = append(all, &diag.Object{Ref: named(n)})
	}
	old := diag.NewReport(all...)
	one, other := &diag.Object{Ref: named(7), Generation: 2}, &diag.Object{Ref: named(1000)}
	next := old.With(map[diag.Ref]*diag.Object{named(7): one, named(8): nil, named(1000): other})
	if old.Object(named(7)) != all[7] || old.Object(named(8)) != all[8] || old.Object(named(1000)) != nil {
		t.Error("With changed the report it came from")
	}
	if next.Object(named(7)) != one || next.Object(named(8)) != nil || next.Object(named(1000)) != other || next.Object(named(9)) != all[9] {
		t.Error("With did not make the changes, or more than them")
	}
	got := map[diag.Ref]*diag.Object{}
	for ref, o := range next.Since(old) {
		got[ref] = o
	}
	want := map[diag.Ref]*diag.Object{named(7): one, named(8): nil, named(1000): other}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Since: %s", d)
	}
	if n := len(slices.Collect(next.All())); n != 1000 {
		t.Errorf("%d objects, want 1000", n)
	}
	for ref := range next.Since(next) {
		t.Errorf("Since itself: %v", ref)
	}
}

func TestFindReturnsTheConditionItself(t *testing.T) {
	cs := []diag.Condition{{Type: "Accepted"}, {Type: "Programmed"}}
	diag.Find(cs, "Programmed").Status = true
	if !cs[1].Status || cs[0].Status {
		t.Errorf("conditions = %+v", cs)
	}
	if got := diag.Find(cs, "ResolvedRefs"); got != nil {
		t.Errorf("Find of an absent type = %+v", got)
	}
}
