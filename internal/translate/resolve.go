package translate

import (
	"fmt"
	"slices"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// reach says how far a reference may go.
type reach uint8

const (
	local   reach = iota // its own namespace, or an object without one
	granted              // other namespaces too, where a ReferenceGrant allows it
	anyNS                // other namespaces too: what is named decides itself (a Gateway's allowedRoutes, an administrator's class)
)

// refSite is a field that refers to other objects: the only ones that are followed, and to what.
type refSite struct {
	from  string   // kind of the object that holds the field
	field string   // path without indexes
	kinds []string // "group/Kind" of what it may name
	reach reach
}

// refSites lists every reference that Gatehouse follows. What is not here is not followed.
func refSites() []refSite {
	const gw, core, own = "gateway.networking.k8s.io", "", "gatehouse.dev"
	secrets, parameters := []string{core + "/Secret"}, []string{own + "/GatewayParameters"}
	backends := []string{core + "/Service", own + "/Backend"}
	targets := []string{gw + "/Gateway", "networking.k8s.io/IngressClass", "networking.k8s.io/Ingress", gw + "/HTTPRoute"}
	guards := []string{own + "/ProtectionPolicy", own + "/AuthPolicy", own + "/RateLimitPolicy"}
	sites := []refSite{
		{"GatewayClass", "spec.parametersRef", parameters, anyNS},
		{"Gateway", "spec.gatewayClassName", []string{gw + "/GatewayClass"}, local},
		{"Gateway", "spec.infrastructure.parametersRef", parameters, local},
		{"Gateway", "spec.listeners.tls.certificateRefs", secrets, granted},
		{"Gateway", "spec.tls.backend.clientCertificateRef", secrets, granted},
		{"HTTPRoute", "spec.parentRefs", []string{gw + "/Gateway"}, anyNS},
		{"HTTPRoute", "spec.rules.backendRefs", backends, granted},
		{"HTTPRoute", "spec.rules.filters.requestMirror.backendRef", backends, granted},
		{"HTTPRoute", "spec.rules.filters.externalAuth.backendRef", backends, granted},
		{"HTTPRoute", "spec.rules.backendRefs.filters.requestMirror.backendRef", backends, granted},
		{"HTTPRoute", "spec.rules.filters.extensionRef", guards, local},
		{"HTTPRoute", "spec.rules.backendRefs.filters.extensionRef", guards[:1], local},
		{"IngressClass", "spec.parameters", parameters, anyNS},
		{"Ingress", "spec.ingressClassName", []string{"networking.k8s.io/IngressClass"}, local},
		{"Ingress", "spec.tls.secretName", secrets, local},
		{"Ingress", "spec.defaultBackend.service", backends[:1], local},
		{"Ingress", "spec.rules.http.paths.backend.service", backends[:1], local},
		{"Ingress", "spec.defaultBackend.resource", backends[1:], local},
		{"Ingress", "spec.rules.http.paths.backend.resource", backends[1:], local},
		{"Backend", "spec.tls.caCertificateRefs", []string{core + "/Secret", core + "/ConfigMap"}, local},
		{"Backend", "spec.tls.clientCertificateRef", secrets, granted},
		{"BackendTLSPolicy", "spec.targetRefs", backends[:1], local},
		{"BackendTLSPolicy", "spec.validation.caCertificateRefs", []string{core + "/ConfigMap", core + "/Secret"}, local},
		{"ProtectionPolicy", "spec.targetRefs", targets, local},
		{"AuthPolicy", "spec.targetRefs", targets, local},
		{"RateLimitPolicy", "spec.targetRefs", targets, local},
		{"ClientTrafficPolicy", "spec.targetRefs", targets[:2], local},
		{"BackendTrafficPolicy", "spec.targetRefs", append(slices.Clone(targets[2:]), backends...), local},
		{"GatewayParameters", "spec.defaultCertificateRef", secrets, granted},
	}
	for _, bundle := range []string{"spec.defaults", "spec.overrides"} {
		methods := bundle + ".authentication.methods."
		sites = append(sites, []refSite{
			{"AuthPolicy", methods + "apiKey.secretRefs", secrets, local},
			{"AuthPolicy", methods + "introspection.clientSecretRef", secrets, local},
			{"AuthPolicy", methods + "oidc.clientSecretRef", secrets, local},
			{"AuthPolicy", methods + "basic.secretRef", secrets, local},
			{"AuthPolicy", methods + "hmac.secretRef", secrets, local},
			{"AuthPolicy", methods + "mtls.caCertificateRefs", []string{core + "/ConfigMap", core + "/Secret"}, local},
			{"AuthPolicy", methods + "external.backendRef", backends, granted},
		}...)
	}
	return sites
}

// refusal is why a reference is not followed.
type refusal struct {
	reason  string // InvalidKind, RefNotPermitted
	message string
	hint    string
}

// resolve is the only way from one object to another. It says whether field of the object from may name to; it denies by
// default: the field must be known, the kind allowed there, and another namespace opened by a ReferenceGrant in it. Whether
// to exists is for the caller to ask.
func (p *pass) resolve(from diag.Ref, field string, to diag.Ref) *refusal {
	i := slices.IndexFunc(p.t.sites, func(s refSite) bool { return s.from == from.Kind && s.field == field })
	if i < 0 {
		return &refusal{reason: "InvalidKind", message: fmt.Sprintf("%s of a %s is not followed", field, from.Kind)}
	}
	s := p.t.sites[i]
	if !slices.Contains(s.kinds, to.Group+"/"+to.Kind) {
		return &refusal{"InvalidKind", fmt.Sprintf("%s %s is not supported here", kindText(to), to.Name), "use " + kindsText(s.kinds)}
	}
	if to.Namespace == "" || to.Namespace == from.Namespace || s.reach == anyNS {
		return nil
	}
	if s.reach == granted && p.grants(from, to) {
		return nil
	}
	r := &refusal{reason: "RefNotPermitted", message: fmt.Sprintf("%s may not be referred to from namespace %s", to, from.Namespace)}
	if s.reach == granted {
		r.hint = fmt.Sprintf("a ReferenceGrant in namespace %s has to allow it from %s", to.Namespace, from.Kind)
	}
	return r
}

// grants says whether a ReferenceGrant in the namespace of to allows the reference.
func (p *pass) grants(from, to diag.Ref) bool {
	for _, g := range objects.List[*gatewayv1.ReferenceGrant](p.view, objects.ByNamespace, to.Namespace) {
		isFrom := slices.ContainsFunc(g.Spec.From, func(f gatewayv1.ReferenceGrantFrom) bool {
			return string(f.Group) == from.Group && string(f.Kind) == from.Kind && string(f.Namespace) == from.Namespace
		})
		isTo := slices.ContainsFunc(g.Spec.To, func(t gatewayv1.ReferenceGrantTo) bool {
			return string(t.Group) == to.Group && string(t.Kind) == to.Kind &&
				(t.Name == nil || *t.Name == "" || string(*t.Name) == to.Name)
		})
		if isFrom && isTo {
			return true
		}
	}
	return false
}

func kindText(r diag.Ref) string {
	if r.Group == "" {
		return r.Kind
	}
	return r.Kind + "." + r.Group
}

func kindsText(kinds []string) string {
	out := ""
	for i, k := range kinds {
		if i > 0 {
			out += " or "
		}
		if k[0] == '/' {
			k = k[1:]
		}
		out += k
	}
	return out
}
