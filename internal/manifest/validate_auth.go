package manifest

import (
	"fmt"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
)

func checkAuthPolicy(o *v1alpha1.AuthPolicy, say report) {
	checkBundle(o.Spec.Defaults == nil, o.Spec.Overrides == nil, say)
	for at, b := range map[string]*v1alpha1.Auth{"spec.defaults": o.Spec.Defaults, "spec.overrides": o.Spec.Overrides} {
		if b == nil {
			continue
		}
		if a := b.Authentication; a != nil {
			for i := range a.Methods {
				checkMethod(&a.Methods[i], fmt.Sprintf("%s.authentication.methods[%d]", at, i), say)
			}
		}
		if a := b.Authorization; a != nil {
			for name, r := range a.Rules {
				checkRule(&r, join(at+".authorization.rules", name), say)
			}
		}
	}
}

// exactlyOne says so unless one of set is true, and no more.
func exactlyOne(at, message, hint string, say report, set ...bool) {
	n := 0
	for _, s := range set {
		if s {
			n++
		}
	}
	if n != 1 {
		say(at, message, hint)
	}
}

func checkMethod(m *v1alpha1.AuthenticationMethod, at string, say report) {
	exactlyOne(at, "exactly one method must be set", "write one of apiKey, jwt, introspection, oidc, basic, hmac, mtls, external and anonymous", say,
		m.APIKey != nil, m.JWT != nil, m.Introspection != nil, m.OIDC != nil, m.Basic != nil, m.HMAC != nil, m.MTLS != nil, m.External != nil, m.Anonymous != nil)
	if a := m.APIKey; a != nil {
		checkSources(a.From, at+".apiKey.from", say)
	}
	if a := m.Introspection; a != nil {
		checkSources(a.From, at+".introspection.from", say)
	}
	if a := m.JWT; a != nil {
		checkSources(a.From, at+".jwt.from", say)
		for i, is := range a.Issuers {
			if k := is.JWKS; k != nil {
				exactlyOne(fmt.Sprintf("%s.jwt.issuers[%d].jwks", at, i), "exactly one of url and inline must be set", "", say, k.URL != "", k.Inline != "")
			}
		}
	}
	if a := m.MTLS; a != nil {
		for i, n := range a.SubjectAltNames {
			exactlyOne(fmt.Sprintf("%s.mtls.subjectAltNames[%d]", at, i), "exactly one of dns, uri and email must be set", "", say, n.DNS != "", n.URI != "", n.Email != "")
		}
	}
	if a := m.External; a != nil {
		checkExternal(a, at+".external", say)
	}
}

func checkSources(from []v1alpha1.CredentialSource, at string, say report) {
	for i, s := range from {
		here := fmt.Sprintf("%s[%d]", at, i)
		exactlyOne(here, "exactly one of header, query and cookie must be set", "", say, s.Header != "", s.Query != "", s.Cookie != "")
		if s.Scheme != "" && s.Header == "" {
			say(here+".scheme", "goes with header only", "")
		}
	}
}

func checkExternal(a *v1alpha1.ExternalAuth, at string, say report) {
	if a.HTTP != nil && a.Protocol != "HTTP" {
		say(at+".http", "goes with protocol HTTP only", "")
	}
	if a.GRPC != nil && a.Protocol != "GRPC" {
		say(at+".grpc", "goes with protocol GRPC only", "")
	}
	r := a.BackendRef
	service := (r.Group == nil || *r.Group == "") && (r.Kind == nil || *r.Kind == gatewayv1.Kind("Service"))
	if service && r.Port == nil {
		say(at+".backendRef.port", "is required for a Service", "")
	}
}

func checkRule(r *v1alpha1.AuthorizationRule, at string, say report) {
	if r.Require == nil && r.Deny == nil {
		say(at, "at least one of require and deny must be set", "")
	}
	if r.Require != nil {
		checkNetworks(r.Require.CIDRs, at+".require.cidrs", say)
	}
	if r.Deny != nil {
		checkNetworks(r.Deny.CIDRs, at+".deny.cidrs", say)
	}
}

func checkRateLimitPolicy(o *v1alpha1.RateLimitPolicy, say report) {
	checkBundle(o.Spec.Defaults == nil, o.Spec.Overrides == nil, say)
	for at, b := range map[string]*v1alpha1.RateLimits{"spec.defaults": o.Spec.Defaults, "spec.overrides": o.Spec.Overrides} {
		if b == nil {
			continue
		}
		for name, l := range b.Limits {
			if len(l.Rates) == 0 && l.Quota == nil && l.Concurrency == nil && l.Mode != "Disabled" {
				say(join(at+".limits", name), "at least one of rates, quota and concurrency must be set", "")
			}
		}
	}
}
