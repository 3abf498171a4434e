package kube

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

func at(minute int) metav1.Time {
	return metav1.NewTime(time.Date(2026, 11, 25, 12, minute, 0, 0, time.UTC))
}

func ourWriter() statusWriter { return statusWriter{"gatehouse.dev/gateway", at(30)} }

func condition(typ string, status metav1.ConditionStatus, reason string, minute int) metav1.Condition {
	return metav1.Condition{Type: typ, Status: status, Reason: reason, ObservedGeneration: 1, LastTransitionTime: at(minute)}
}

// TestConditionsOfOthersStay: conditions of types that are not ours stay, in their place; ours that are no longer concluded go; the time
// of the last change moves only with the status.
func TestConditionsOfOthersStay(t *testing.T) {
	have := []metav1.Condition{condition("Accepted", "True", "Accepted", 1), condition("example.com/Scanned", "True", "Clean", 2),
		condition("Programmed", "False", "Pending", 3), condition("PartiallyInvalid", "True", "UnsupportedValue", 4)}
	got := ourWriter().conditions(have, []diag.Condition{{Type: "Accepted", Status: true, Reason: "Accepted", ObservedGeneration: 2},
		{Type: "Programmed", Status: true, Reason: "Programmed", ObservedGeneration: 2}, {Type: "ResolvedRefs", Unknown: true, Reason: "Pending"}},
		"Accepted", "Programmed", "ResolvedRefs", "PartiallyInvalid")
	want := []metav1.Condition{condition("Accepted", "True", "Accepted", 1), condition("example.com/Scanned", "True", "Clean", 2),
		condition("Programmed", "True", "Programmed", 30), condition("ResolvedRefs", "Unknown", "Pending", 30)}
	want[0].ObservedGeneration, want[2].ObservedGeneration, want[3].ObservedGeneration = 2, 2, 0
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func routeWith(parents ...gatewayv1.RouteParentStatus) *gatewayv1.HTTPRoute {
	r := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", ResourceVersion: "7"}}
	r.Spec.ParentRefs = []gatewayv1.ParentReference{{Name: "theirs"}, {Name: "public"}}
	r.Status.Parents = parents
	return r
}

func parentStatus(controller, gateway string, cs ...metav1.Condition) gatewayv1.RouteParentStatus {
	return gatewayv1.RouteParentStatus{ParentRef: gatewayv1.ParentReference{Name: gatewayv1.ObjectName(gateway)},
		ControllerName: gatewayv1.GatewayController(controller), Conditions: cs}
}

func verdict() *diag.Object {
	return &diag.Object{Ours: true, Parents: []diag.Parent{{Ref: diag.Ref{Group: gatewayv1.GroupName, Kind: "Gateway", Namespace: "shop", Name: "public"},
		Conditions: []diag.Condition{{Type: "Accepted", Status: true, Reason: "Accepted", ObservedGeneration: 1}}}}}
}

// TestRouteEntriesOfOthersStay: entries of other controllers stay as they are, ours follow the verdicts, conditions that somebody added to
// ours stay.
func TestRouteEntriesOfOthersStay(t *testing.T) {
	w := ourWriter()
	theirs := parentStatus("example.com/other", "theirs", condition("Accepted", "True", "Accepted", 1))
	scanned := condition("example.com/Scanned", "True", "Clean", 2)
	ours := parentStatus("gatehouse.dev/gateway", "public", scanned, condition("Accepted", "True", "Accepted", 30))
	for _, c := range []struct {
		name    string
		have    []gatewayv1.RouteParentStatus
		verdict *diag.Object
		want    []gatewayv1.RouteParentStatus
		differs bool
	}{
		{"nothing there", nil, verdict(), []gatewayv1.RouteParentStatus{parentStatus("gatehouse.dev/gateway", "public", condition("Accepted", "True", "Accepted", 30))}, true},
		{"at rest", []gatewayv1.RouteParentStatus{theirs, ours}, verdict(), []gatewayv1.RouteParentStatus{theirs, ours}, false},
		{"at rest, ours first", []gatewayv1.RouteParentStatus{ours, theirs}, verdict(), []gatewayv1.RouteParentStatus{ours, theirs}, false},
		{"at rest, ours first", []gatewayv1.RouteParentStatus{ours, theirs}, verdict(), []gatewayv1.RouteParentStatus{ours, theirs}, false},
		{"another version of ours", []gatewayv1.RouteParentStatus{theirs, parentStatus("gatehouse.dev/gateway", "public", scanned, condition("Accepted", "False", "NoMatchingParent", 3))},
			verdict(), []gatewayv1.RouteParentStatus{theirs, ours}, true},
		{"a parent that left", []gatewayv1.RouteParentStatus{parentStatus("gatehouse.dev/gateway", "gone", scanned), theirs, ours}, verdict(),
			[]gatewayv1.RouteParentStatus{theirs, ours}, true},
		{"no longer ours", []gatewayv1.RouteParentStatus{theirs, ours}, nil, []gatewayv1.RouteParentStatus{theirs}, true},
		{"never ours", []gatewayv1.RouteParentStatus{theirs}, nil, []gatewayv1.RouteParentStatus{theirs}, false},
		{"never anybody's", nil, nil, []gatewayv1.RouteParentStatus{}, false},
	} {
		s, differs := w.status(routeWith(c.have...), c.verdict)
		if d := cmp.Diff(c.want, s.(*gatewayv1.HTTPRouteStatus).Parents); d != "" || differs != c.differs {
			t.Errorf("%s: differs = %v, want %v (-want +got):\n%s", c.name, differs, c.differs, d)
		}
	}
}

// TestGatewayListenersKeepForeignConditions also holds that a verdict about no address takes the old ones out.
func TestGatewayListenersKeepForeignConditions(t *testing.T) {
	kind := gatewayv1.IPAddressType
	g := &gatewayv1.Gateway{Status: gatewayv1.GatewayStatus{Addresses: []gatewayv1.GatewayStatusAddress{{Type: &kind, Value: "192.0.2.1"}},
		Conditions: []metav1.Condition{condition("example.com/Audited", "True", "Yes", 1)},
		Listeners: []gatewayv1.ListenerStatus{{Name: "gone", Conditions: []metav1.Condition{condition("Accepted", "True", "Accepted", 1)}},
			{Name: "http", Conditions: []metav1.Condition{condition("example.com/Scanned", "True", "Clean", 2)}}}}}
	d := &diag.Object{Ours: true, Conditions: []diag.Condition{{Type: "Accepted", Status: true, Reason: "Accepted", ObservedGeneration: 1}},
		Listeners: []diag.Listener{{Name: "http", AttachedRoutes: 2, SupportedKinds: []diag.Ref{{Group: gatewayv1.GroupName, Kind: "HTTPRoute"}},
			Conditions: []diag.Condition{{Type: "Programmed", Status: true, Reason: "Programmed", ObservedGeneration: 1}}}}}
	s, differs := ourWriter().status(g, d)
	got := s.(*gatewayv1.GatewayStatus)
	if !differs || len(got.Addresses) != 0 || len(got.Listeners) != 1 || got.Listeners[0].AttachedRoutes != 2 {
		t.Fatalf("status = %+v, differs = %v", got, differs)
	}
	if d := cmp.Diff([]metav1.Condition{condition("example.com/Audited", "True", "Yes", 1), condition("Accepted", "True", "Accepted", 30)}, got.Conditions); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]metav1.Condition{condition("example.com/Scanned", "True", "Clean", 2), condition("Programmed", "True", "Programmed", 30)}, got.Listeners[0].Conditions); d != "" {
		t.Error(d)
	}
	if g.Status.Listeners[0].Name != "gone" {
		t.Error("the object itself was changed")
	}
	if s, differs := ourWriter().status(g, nil); differs {
		t.Errorf("another controller's Gateway would be written: %v", s)
	}
}

// TestPatchNamesWhatIsEmpty: a merge patch leaves alone what it does not name.
func TestPatchNamesWhatIsEmpty(t *testing.T) {
	ing := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "9"}}
	ing.Status.LoadBalancer.Ingress = []networkingv1.IngressLoadBalancerIngress{{IP: "192.0.2.1"}}
	s, differs := ourWriter().status(ing, &diag.Object{Ours: true})
	b, err := patch(ing, s)
	if err != nil || !differs {
		t.Fatal(err, differs)
	}
	if want := `{"metadata":{"resourceVersion":"9"},"status":{"loadBalancer":{"ingress":null}}}`; string(b) != want {
		t.Errorf("patch = %s, want %s", b, want)
	}
	b, err = patch(&gatewayv1.Gateway{}, &gatewayv1.GatewayStatus{})
	if err != nil {
		t.Fatal(err)
	}
	var p struct{ Status map[string]any }
	if err := json.Unmarshal(b, &p); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"addresses", "conditions", "listeners"} {
		if v, ok := p.Status[f]; !ok || v != nil {
			t.Errorf("%s = %v, %v: want null", f, v, ok)
		}
	}
}

// TestPolicyAncestors: one entry per target, those of others stay, no more than 16; for every kind that is attached to something.
func TestPolicyAncestors(t *testing.T) {
	protection, auth, rate, client, backend := &v1alpha1.ProtectionPolicy{}, &v1alpha1.AuthPolicy{}, &v1alpha1.RateLimitPolicy{}, &v1alpha1.ClientTrafficPolicy{}, &v1alpha1.BackendTrafficPolicy{}
	for o, status := range map[objects.Object]*v1alpha1.PolicyStatus{protection: &protection.Status, auth: &auth.Status, rate: &rate.Status,
		client: &client.Status, backend: &backend.Status} {
		status.Ancestors = []gatewayv1.PolicyAncestorStatus{{ControllerName: "example.com/other", AncestorRef: gatewayv1.ParentReference{Name: "x"}}}
		d := &diag.Object{Ours: true}
		for range 20 {
			d.Parents = append(d.Parents, diag.Parent{Ref: diag.Ref{Kind: "IngressClass", Name: "gatehouse", Group: "networking.k8s.io"},
				Conditions: []diag.Condition{{Type: "Accepted", Status: true, Reason: "Accepted"}}})
		}
		s, differs := ourWriter().status(o, d)
		got, ok := s.(*v1alpha1.PolicyStatus)
		if !ok || !differs || len(got.Ancestors) != 16 || got.Ancestors[0].ControllerName != "example.com/other" || got.Ancestors[1].AncestorRef.Namespace != nil {
			t.Errorf("%T: status = %+v", o, s)
			continue
		}
		*status = *got
		if _, differs = ourWriter().status(o, d); differs {
			t.Errorf("%T: the status is written again though nothing changed", o)
		}
		if r := Reported(o, "gatehouse.dev/gateway"); r == nil || len(r.Parents) != 15 || !r.Parents[0].Conditions[0].Status {
			t.Errorf("%T: Reported = %+v, want the 15 entries of ours", o, r)
		}
		if _, differs = ourWriter().status(o, nil); !differs {
			t.Errorf("%T: the entries of a policy that is no longer ours stay", o)
		}
	}
}
