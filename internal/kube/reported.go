package kube

import (
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// Reported is what stands in the status of an object, in the terms of a verdict: what a controller of that name wrote. It is nil for
// an object without such a status.
func Reported(o objects.Object, controller string) *diag.Object {
	out := &diag.Object{Generation: o.GetGeneration()}
	switch o := o.(type) {
	case *gatewayv1.GatewayClass:
		if string(o.Spec.ControllerName) != controller {
			return nil
		}
		out.Conditions = reported(o.Status.Conditions)
	case *gatewayv1.Gateway:
		out.Conditions = reported(o.Status.Conditions)
		for _, a := range o.Status.Addresses {
			out.Addresses = append(out.Addresses, diag.Address{Value: a.Value})
		}
		for _, l := range o.Status.Listeners {
			out.Listeners = append(out.Listeners, diag.Listener{Name: string(l.Name), AttachedRoutes: l.AttachedRoutes, Conditions: reported(l.Conditions)})
		}
	case *gatewayv1.HTTPRoute:
		for _, p := range o.Status.Parents {
			if string(p.ControllerName) == controller {
				out.Parents = append(out.Parents, reportedParent(o.Namespace, p.ParentRef, p.Conditions))
			}
		}
	case *gatewayv1.BackendTLSPolicy:
		out.Parents = reportedAncestors(o.Namespace, o.Status.Ancestors, controller)
	case *v1alpha1.ProtectionPolicy:
		out.Parents = reportedAncestors(o.Namespace, o.Status.Ancestors, controller)
	case *v1alpha1.AuthPolicy:
		out.Parents = reportedAncestors(o.Namespace, o.Status.Ancestors, controller)
	case *v1alpha1.RateLimitPolicy:
		out.Parents = reportedAncestors(o.Namespace, o.Status.Ancestors, controller)
	case *v1alpha1.ClientTrafficPolicy:
		out.Parents = reportedAncestors(o.Namespace, o.Status.Ancestors, controller)
	case *v1alpha1.BackendTrafficPolicy:
		out.Parents = reportedAncestors(o.Namespace, o.Status.Ancestors, controller)
	case *v1alpha1.Backend:
		out.Conditions = reported(o.Status.Conditions)
	case *v1alpha1.GatewayParameters:
		out.Conditions = reported(o.Status.Conditions)
	case *networkingv1.Ingress:
		for _, i := range o.Status.LoadBalancer.Ingress {
			out.Addresses = append(out.Addresses, diag.Address{Value: i.IP + i.Hostname})
		}
	}
	if out.Conditions == nil && out.Parents == nil && out.Addresses == nil && out.Listeners == nil {
		return nil
	}
	k := objects.KeyOf(o)
	out.Ref = diag.Ref{Kind: k.Kind, Namespace: k.Namespace, Name: k.Name}
	return out
}

func reportedAncestors(namespace string, as []gatewayv1.PolicyAncestorStatus, controller string) (out []diag.Parent) {
	for _, a := range as {
		if string(a.ControllerName) == controller {
			out = append(out, reportedParent(namespace, a.AncestorRef, a.Conditions))
		}
	}
	return out
}

func reportedParent(namespace string, r gatewayv1.ParentReference, cs []metav1.Condition) diag.Parent {
	out := diag.Parent{Ref: diag.Ref{Kind: "Gateway", Namespace: namespace, Name: string(r.Name)}, Conditions: reported(cs)}
	if r.Kind != nil {
		out.Ref.Kind = string(*r.Kind)
	}
	if r.Namespace != nil {
		out.Ref.Namespace = string(*r.Namespace)
	} else if out.Ref.Kind == "IngressClass" || out.Ref.Kind == "GatewayClass" {
		out.Ref.Namespace = ""
	}
	if r.SectionName != nil {
		out.SectionName = string(*r.SectionName)
	}
	if r.Port != nil {
		out.Port = *r.Port
	}
	return out
}

func reported(cs []metav1.Condition) (out []diag.Condition) {
	for _, c := range cs {
		out = append(out, diag.Condition{Type: c.Type, Status: c.Status == metav1.ConditionTrue, Unknown: c.Status == metav1.ConditionUnknown,
			Reason: c.Reason, Message: c.Message, ObservedGeneration: c.ObservedGeneration})
	}
	return out
}
