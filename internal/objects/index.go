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

// TargetRefs lists what a policy is attached to, nil for other kinds.
func TargetRefs(o Object) (refs []v1alpha1.TargetRef) {
	switch p := o.(type) {
	case *v1alpha1.ProtectionPolicy:
		return p.Spec.TargetRefs
	case *v1alpha1.AuthPolicy:
		return p.Spec.TargetRefs
	case *v1alpha1.RateLimitPolicy:
		return p.Spec.TargetRefs
	case *v1alpha1.ClientTrafficPolicy:
		return p.Spec.TargetRefs
	case *v1alpha1.BackendTrafficPolicy:
		return p.Spec.TargetRefs
	case *gatewayv1.BackendTLSPolicy:
		for _, r := range p.Spec.TargetRefs {
			to := v1alpha1.TargetRef{Group: string(r.Group), Kind: string(r.Kind), Name: string(r.Name)}
			if r.SectionName != nil {
				to.SectionName = string(*r.SectionName)
			}
			refs = append(refs, to)
		}
	}
	return refs
}

// TargetName is the value under which ByTarget finds the policies that a namespace's policies attach to an object.
func TargetName(namespace string, r v1alpha1.TargetRef) string {
	if r.Kind == "IngressClass" || r.Kind == "GatewayClass" {
		namespace = ""
	}
	return r.Kind + "/" + namespace + "/" + r.Name
}

func policyTargets(o Object) []string {
	var out []string
	for _, r := range TargetRefs(o) {
		out = append(out, TargetName(o.GetNamespace(), r))
	}
	return out
}
