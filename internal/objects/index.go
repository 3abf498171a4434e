package objects

import (
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
)

// IngressClassAnnotation is the older way to name the class of an Ingress.
const IngressClassAnnotation = "kubernetes.io/ingress.class"

func gatewayClass(o Object) []string {
	return []string{string(o.(*gatewayv1.Gateway).Spec.GatewayClassName)}
}

func routeParents(o Object) []string {
	r := o.(*gatewayv1.HTTPRoute)
	var out []string
	for _, p := range r.Spec.ParentRefs {
		kind, ns := "Gateway", r.Namespace
		if p.Kind != nil {
			kind = string(*p.Kind)
		}
		if p.Namespace != nil {
			ns = string(*p.Namespace)
		}
		out = append(out, kind+"/"+ns+"/"+string(p.Name))
	}
	return out
}

func ingressClass(o Object) []string {
	i := o.(*networkingv1.Ingress)
	if i.Spec.IngressClassName != nil {
		return []string{*i.Spec.IngressClassName}
	}
	return []string{i.Annotations[IngressClassAnnotation]}
}

func sliceService(o Object) []string {
	s := o.(*discoveryv1.EndpointSlice)
	name, ok := s.Labels[discoveryv1.LabelServiceName]
	if !ok {
		return nil
	}
	return []string{s.Namespace + "/" + name}
}

func policyTargets(o Object) []string {
	var refs []v1alpha1.TargetRef
	switch p := o.(type) {
	case *v1alpha1.ProtectionPolicy:
		refs = p.Spec.TargetRefs
	case *v1alpha1.ClientTrafficPolicy:
		refs = p.Spec.TargetRefs
	case *v1alpha1.BackendTrafficPolicy:
		refs = p.Spec.TargetRefs
	}
	var out []string
	for _, r := range refs {
		ns := o.GetNamespace()
		if r.Kind == "IngressClass" || r.Kind == "GatewayClass" {
			ns = ""
		}
		out = append(out, r.Kind+"/"+ns+"/"+r.Name)
	}
	return out
}
