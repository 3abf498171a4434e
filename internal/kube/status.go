package kube

import (
	"encoding/json"
	"reflect"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// statusWriter works out what the status of one object should be. It changes nothing of what others wrote: conditions of types that
// are not ours, entries of other controllers.
type statusWriter struct {
	controller string      // by which entries are ours
	now        metav1.Time // of conditions that change
}

// status is what the status of o should be, given the verdict d (nil or not ours: nothing of ours should be in it), and whether
// that is not what it is. It changes neither.
func (w statusWriter) status(o objects.Object, d *diag.Object) (status any, differs bool) {
	if d != nil && !d.Ours {
		d = nil
	}
	switch o := o.(type) {
	case *gatewayv1.GatewayClass:
		return w.gatewayClass(o, d)
	case *gatewayv1.Gateway:
		return w.gateway(o, d)
	case *gatewayv1.HTTPRoute:
		return w.route(o, d)
	case *networkingv1.Ingress:
		return w.ingress(o, d)
	case *gatewayv1.BackendTLSPolicy:
		as, differs := w.ancestors(o.Status.Ancestors, d)
		return &gatewayv1.PolicyStatus{Ancestors: as}, differs
	case *v1alpha1.ProtectionPolicy:
		return w.policy(o.Status, d)
	case *v1alpha1.AuthPolicy:
		return w.policy(o.Status, d)
	case *v1alpha1.RateLimitPolicy:
		return w.policy(o.Status, d)
	case *v1alpha1.ClientTrafficPolicy:
		return w.policy(o.Status, d)
	case *v1alpha1.BackendTrafficPolicy:
		return w.policy(o.Status, d)
	case *v1alpha1.Backend:
		return w.conditionsOnly(o.Status, d)
	case *v1alpha1.GatewayParameters:
		return w.conditionsOnly(o.Status, d)
	}
	return nil, false
}

// conditions merges ours into those that are there: one of ours that says nothing new keeps the time of its last change, one of
// ours (by owned) that is no longer concluded goes, one of another type stays where it is.
func (w statusWriter) conditions(have []metav1.Condition, want []diag.Condition, owned ...string) []metav1.Condition {
	out := make([]metav1.Condition, 0, len(have)+len(want))
	done := map[string]bool{}
	for _, h := range have {
		if c := diag.Find(want, h.Type); c != nil && !done[h.Type] {
			out = append(out, w.condition(*c, &h))
			done[h.Type] = true
		} else if !slices.Contains(owned, h.Type) {
			out = append(out, h)
		}
	}
	for _, c := range want {
		if !done[c.Type] {
			out = append(out, w.condition(c, nil))
		}
	}
	if len(out) == 0 {
		return have[:0:0]
	}
	return out
}

// longest a condition's message may be (metav1.Condition).
const longestMessage = 32768

func (w statusWriter) condition(c diag.Condition, old *metav1.Condition) metav1.Condition {
	out := metav1.Condition{Type: c.Type, Status: metav1.ConditionFalse, Reason: c.Reason, Message: c.Message,
		ObservedGeneration: c.ObservedGeneration, LastTransitionTime: w.now}
	if c.Unknown {
		out.Status = metav1.ConditionUnknown
	} else if c.Status {
		out.Status = metav1.ConditionTrue
	}
	if len(out.Message) > longestMessage {
		out.Message = out.Message[:longestMessage]
	}
	if old != nil && old.Status == out.Status {
		out.LastTransitionTime = old.LastTransitionTime
	}
	return out
}

func (w statusWriter) gatewayClass(o *gatewayv1.GatewayClass, d *diag.Object) (any, bool) {
	if d == nil {
		return nil, false // another controller's
	}
	s := o.Status.DeepCopy()
	s.Conditions = w.conditions(s.Conditions, d.Conditions, "Accepted")
	s.SupportedFeatures = nil
	for _, f := range d.Features {
		s.SupportedFeatures = append(s.SupportedFeatures, gatewayv1.SupportedFeature{Name: gatewayv1.FeatureName(f)})
	}
	return s, !reflect.DeepEqual(s, &o.Status)
}

func (w statusWriter) gateway(o *gatewayv1.Gateway, d *diag.Object) (any, bool) {
	if d == nil {
		return nil, false // another controller's: it has overwritten ours, or will
	}
	s := o.Status.DeepCopy()
	s.Conditions = w.conditions(s.Conditions, d.Conditions, "Accepted", "Programmed", "ResolvedRefs")
	s.Addresses = nil
	for _, a := range d.Addresses[:min(len(d.Addresses), 16)] {
		kind := gatewayv1.AddressType(a.Type)
		s.Addresses = append(s.Addresses, gatewayv1.GatewayStatusAddress{Type: &kind, Value: a.Value})
	}
	old := map[string]gatewayv1.ListenerStatus{}
	for _, l := range s.Listeners {
		old[string(l.Name)] = l
	}
	s.Listeners = nil
	for _, l := range d.Listeners {
		out := gatewayv1.ListenerStatus{Name: gatewayv1.SectionName(l.Name), AttachedRoutes: l.AttachedRoutes, SupportedKinds: []gatewayv1.RouteGroupKind{},
			Conditions: w.conditions(old[l.Name].Conditions, l.Conditions, "Accepted", "Conflicted", "ResolvedRefs", "Programmed")}
		for _, k := range l.SupportedKinds {
			group := gatewayv1.Group(k.Group)
			out.SupportedKinds = append(out.SupportedKinds, gatewayv1.RouteGroupKind{Group: &group, Kind: gatewayv1.Kind(k.Kind)})
		}
		s.Listeners = append(s.Listeners, out)
	}
	return s, !reflect.DeepEqual(s, &o.Status)
}

// mostParents is how many entries a route's status may have.
const mostParents = 32

func (w statusWriter) route(o *gatewayv1.HTTPRoute, d *diag.Object) (any, bool) {
	have := o.Status.Parents
	ours := func(p *gatewayv1.RouteParentStatus) bool { return string(p.ControllerName) == w.controller }
	var want []gatewayv1.RouteParentStatus
	if d != nil {
		for _, ref := range o.Spec.ParentRefs {
			i := slices.IndexFunc(d.Parents, func(p diag.Parent) bool { return sameParent(o.Namespace, &ref, &p) })
			if i < 0 {
				continue
			}
			var old []metav1.Condition
			if j := slices.IndexFunc(have, func(p gatewayv1.RouteParentStatus) bool { return ours(&p) && reflect.DeepEqual(p.ParentRef, ref) }); j >= 0 {
				old = have[j].Conditions
			}
			want = append(want, gatewayv1.RouteParentStatus{ParentRef: ref, ControllerName: gatewayv1.GatewayController(w.controller),
				Conditions: w.conditions(old, d.Parents[i].Conditions, "Accepted", "ResolvedRefs", "PartiallyInvalid")})
		}
	}
	out := inPlace(have, want, mostParents, ours, func(a, b *gatewayv1.RouteParentStatus) bool { return reflect.DeepEqual(a.ParentRef, b.ParentRef) })
	s := gatewayv1.HTTPRouteStatus{RouteStatus: gatewayv1.RouteStatus{Parents: out}}
	return &s, !(len(out) == 0 && len(have) == 0) && !reflect.DeepEqual(out, have)
}

// inPlace lays the entries that we want over a list that others write too. Theirs stay, and theirs and ours keep their places: were
// ours moved to the end, two controllers that do so would write the list in turn for ever. New ones follow, up to most in all.
func inPlace[T any](have, want []T, most int, ours func(*T) bool, same func(a, b *T) bool) []T {
	out := []T{}
	used := make([]bool, len(want))
	for i := range have {
		if !ours(&have[i]) {
			out = append(out, have[i])
			continue
		}
		for j := range want {
			if !used[j] && same(&have[i], &want[j]) {
				out, used[j] = append(out, want[j]), true
				break
			}
		}
	}
	for j := range want {
		if !used[j] && len(out) < most {
			out = append(out, want[j])
		}
	}
	return out
}

// sameParent says whether a verdict is about a parentRef.
func sameParent(namespace string, ref *gatewayv1.ParentReference, p *diag.Parent) bool {
	kind, section, port := "Gateway", "", int32(0)
	if ref.Kind != nil {
		kind = string(*ref.Kind)
	}
	if ref.Namespace != nil {
		namespace = string(*ref.Namespace)
	}
	if ref.SectionName != nil {
		section = string(*ref.SectionName)
	}
	if ref.Port != nil {
		port = *ref.Port
	}
	return p.Ref.Kind == kind && p.Ref.Namespace == namespace && p.Ref.Name == string(ref.Name) && p.SectionName == section && p.Port == port
}

func (w statusWriter) ingress(o *networkingv1.Ingress, d *diag.Object) (any, bool) {
	if d == nil {
		return nil, false // its new controller writes it; without one nobody would believe it
	}
	var out []networkingv1.IngressLoadBalancerIngress
	for _, a := range d.Addresses {
		if a.Type == string(gatewayv1.HostnameAddressType) {
			out = append(out, networkingv1.IngressLoadBalancerIngress{Hostname: a.Value})
		} else {
			out = append(out, networkingv1.IngressLoadBalancerIngress{IP: a.Value})
		}
	}
	s := networkingv1.IngressStatus{LoadBalancer: networkingv1.IngressLoadBalancerStatus{Ingress: out}}
	same := slices.EqualFunc(out, o.Status.LoadBalancer.Ingress, func(a, b networkingv1.IngressLoadBalancerIngress) bool {
		return a.IP == b.IP && a.Hostname == b.Hostname
	})
	return &s, !same
}

// mostAncestors is how many entries a policy's status may have (GEP-713).
const mostAncestors = 16

func (w statusWriter) policy(have v1alpha1.PolicyStatus, d *diag.Object) (any, bool) {
	s := have.DeepCopy()
	var differs bool
	s.Ancestors, differs = w.ancestors(have.Ancestors, d)
	return s, differs
}

func (w statusWriter) ancestors(have []gatewayv1.PolicyAncestorStatus, d *diag.Object) ([]gatewayv1.PolicyAncestorStatus, bool) {
	ours := func(a *gatewayv1.PolicyAncestorStatus) bool { return string(a.ControllerName) == w.controller }
	var want []gatewayv1.PolicyAncestorStatus
	if d != nil {
		for _, p := range d.Parents {
			ref := ancestorRef(p)
			var old []metav1.Condition
			if j := slices.IndexFunc(have, func(a gatewayv1.PolicyAncestorStatus) bool { return ours(&a) && reflect.DeepEqual(a.AncestorRef, ref) }); j >= 0 {
				old = have[j].Conditions
			}
			want = append(want, gatewayv1.PolicyAncestorStatus{AncestorRef: ref, ControllerName: gatewayv1.GatewayController(w.controller),
				Conditions: w.conditions(old, p.Conditions, "Accepted", "Programmed", "OverlapFree", "ResolvedRefs")})
		}
	}
	out := inPlace(have, want, mostAncestors, ours, func(a, b *gatewayv1.PolicyAncestorStatus) bool {
		return reflect.DeepEqual(a.AncestorRef, b.AncestorRef)
	})
	return out, !(len(out) == 0 && len(have) == 0) && !reflect.DeepEqual(out, have)
}

func ancestorRef(p diag.Parent) gatewayv1.ParentReference {
	group, kind := gatewayv1.Group(p.Ref.Group), gatewayv1.Kind(p.Ref.Kind)
	out := gatewayv1.ParentReference{Group: &group, Kind: &kind, Name: gatewayv1.ObjectName(p.Ref.Name)}
	if p.Ref.Namespace != "" {
		ns := gatewayv1.Namespace(p.Ref.Namespace)
		out.Namespace = &ns
	}
	if p.SectionName != "" {
		section := gatewayv1.SectionName(p.SectionName)
		out.SectionName = &section
	}
	return out
}

// conditionsOnly is for kinds that attach to nothing.
func (w statusWriter) conditionsOnly(have v1alpha1.PolicyStatus, d *diag.Object) (any, bool) {
	if d == nil {
		return nil, false
	}
	s := have.DeepCopy()
	s.Conditions = w.conditions(s.Conditions, d.Conditions, "Accepted")
	return s, !reflect.DeepEqual(s, &have)
}

// patch is the JSON merge patch (RFC 7396) that makes status the status of o, refused if o is not the newest version. A merge patch
// keeps what it does not name, so fields that are to be empty are named.
func patch(o objects.Object, status any) ([]byte, error) {
	b, err := json.Marshal(status)
	if err != nil {
		return nil, err
	}
	var fields map[string]any
	if err := json.Unmarshal(b, &fields); err != nil {
		return nil, err
	}
	for _, f := range listFields(status) {
		if _, ok := fields[f]; !ok {
			fields[f] = nil
		}
	}
	if s, ok := status.(*networkingv1.IngressStatus); ok && len(s.LoadBalancer.Ingress) == 0 {
		fields["loadBalancer"] = map[string]any{"ingress": nil}
	}
	return json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": o.GetResourceVersion()}, "status": fields})
}

// listFields are the fields of a status that are left out of its JSON when they are empty.
func listFields(status any) []string {
	switch status.(type) {
	case *gatewayv1.GatewayClassStatus:
		return []string{"conditions", "supportedFeatures"}
	case *gatewayv1.GatewayStatus:
		return []string{"addresses", "conditions", "listeners"}
	case *v1alpha1.PolicyStatus:
		return []string{"ancestors", "conditions"}
	}
	return nil
}
