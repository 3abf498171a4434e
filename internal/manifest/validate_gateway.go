package manifest

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

func value[T any](p *T) T {
	var zero T
	if p == nil {
		return zero
	}
	return *p
}

// checkGateway has the CEL rules of the Gateway's CRD.
func checkGateway(o *gatewayv1.Gateway, say report) {
	seen := map[string]int{}
	for i, l := range o.Spec.Listeners {
		at := fmt.Sprintf("spec.listeners[%d]", i)
		plain := l.Protocol == gatewayv1.HTTPProtocolType || l.Protocol == gatewayv1.TCPProtocolType || l.Protocol == gatewayv1.UDPProtocolType
		switch {
		case plain && l.TLS != nil:
			say(at+".tls", fmt.Sprintf("does not go with protocol %s", l.Protocol), "write protocol: HTTPS, or remove tls")
		case l.Protocol == gatewayv1.TLSProtocolType && l.TLS == nil:
			say(at+".tls", "is required for protocol TLS", "write tls: {mode: Passthrough} or Terminate")
		case l.TLS == nil:
		case l.Protocol == gatewayv1.HTTPSProtocolType && value(l.TLS.Mode) == gatewayv1.TLSModePassthrough:
			say(at+".tls.mode", "must be Terminate for protocol HTTPS", "write protocol: TLS to pass through")
		case value(l.TLS.Mode) == gatewayv1.TLSModeTerminate && len(l.TLS.CertificateRefs) == 0 && len(l.TLS.Options) == 0:
			say(at+".tls.certificateRefs", "is required for mode Terminate", "write certificateRefs: [{name: SECRET}]")
		}
		if (l.Protocol == gatewayv1.TCPProtocolType || l.Protocol == gatewayv1.UDPProtocolType) && value(l.Hostname) != "" {
			say(at+".hostname", fmt.Sprintf("does not go with protocol %s", l.Protocol), "remove it")
		}
		key := fmt.Sprint(l.Port, "/", l.Protocol, "/", value(l.Hostname))
		if first, twice := seen[key]; twice {
			say(at, fmt.Sprintf("has the port, protocol and hostname of listeners[%d]", first), "change one of the three")
			continue
		}
		seen[key] = i
	}
	for i, a := range o.Spec.Addresses {
		at := fmt.Sprintf("spec.addresses[%d].value", i)
		if _, err := netip.ParseAddr(a.Value); err != nil && a.Value != "" && value(a.Type) == gatewayv1.IPAddressType {
			say(at, fmt.Sprintf("%q is not an IP address", a.Value), "write an address, or type: Hostname")
		}
		if value(a.Type) == gatewayv1.HostnameAddressType && a.Value != "" && !isSubdomain(strings.TrimPrefix(a.Value, "*.")) {
			say(at, fmt.Sprintf("%q is not a host name", a.Value), "")
		}
	}
}

// checkHTTPRoute has the CEL rules of the HTTPRoute's CRD.
func checkHTTPRoute(o *gatewayv1.HTTPRoute, say report) {
	checkParents(o.Spec.ParentRefs, say)
	names, matches := map[gatewayv1.SectionName]int{}, 0
	for i := range o.Spec.Rules {
		r, at := &o.Spec.Rules[i], fmt.Sprintf("spec.rules[%d]", i)
		if first, twice := names[value(r.Name)]; twice && r.Name != nil {
			say(at+".name", fmt.Sprintf("%q is also the name of rules[%d]", *r.Name, first), "rename one of the two")
		}
		names[value(r.Name)] = i
		matches += len(r.Matches)
		for j, m := range r.Matches {
			if m.Path != nil && value(m.Path.Type) != gatewayv1.PathMatchRegularExpression {
				checkRoutePath(value(m.Path.Value), fmt.Sprintf("%s.matches[%d].path.value", at, j), say)
			}
		}
		checkFilters(r.Filters, r, at, say)
		for j := range r.BackendRefs {
			b, here := &r.BackendRefs[j], fmt.Sprintf("%s.backendRefs[%d]", at, j)
			checkServicePort(&b.BackendObjectReference, here, say)
			checkFilters(b.Filters, r, here, say)
		}
		if t := r.Timeouts; t != nil {
			request, _ := time.ParseDuration(string(value(t.Request)))
			backend, _ := time.ParseDuration(string(value(t.BackendRequest)))
			if request > 0 && backend > request {
				say(at+".timeouts.backendRequest", "is longer than the timeout of the whole request", "shorten it, or lengthen timeouts.request")
			}
		}
	}
	if matches > 128 {
		say("spec.rules", fmt.Sprintf("%d matches in all rules, at most 128 are allowed", matches), "split the route in two")
	}
}

// checkParents: several references to one parent name its sections or ports, each another.
func checkParents(refs []gatewayv1.ParentReference, say report) {
	type parent struct{ group, kind, namespace, name string }
	type section struct {
		parent
		name string
		port gatewayv1.PortNumber
	}
	first, seen, count := map[parent]int{}, map[section]bool{}, map[parent]int{}
	for i, r := range refs {
		p := parent{string(value(r.Group)), string(value(r.Kind)), string(value(r.Namespace)), string(r.Name)}
		s := section{p, string(value(r.SectionName)), value(r.Port)}
		switch {
		case seen[s]:
			say(fmt.Sprintf("spec.parentRefs[%d]", i), fmt.Sprintf("repeats %s", p.name), "remove one, or give each another sectionName or port")
		case count[p] > 0 && (s.name == "" && s.port == 0 || bare(refs[first[p]])):
			say(fmt.Sprintf("spec.parentRefs[%d]", i), fmt.Sprintf("%s is referred to several times, once as a whole", p.name),
				"give each reference a sectionName or port")
		}
		if count[p] == 0 {
			first[p] = i
		}
		count[p]++
		seen[s] = true
	}
}

func bare(r gatewayv1.ParentReference) bool {
	return value(r.SectionName) == "" && value(r.Port) == 0
}

var pathCharacters = regexp.MustCompile(`^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$`)

func checkRoutePath(path, at string, say report) {
	switch {
	case !strings.HasPrefix(path, "/"):
		say(at, fmt.Sprintf("%q does not begin with \"/\"", path), fmt.Sprintf("write %q", "/"+path))
	case !pathCharacters.MatchString(path):
		say(at, fmt.Sprintf("%q holds characters that a path cannot have", path), "percent-encode them; a query goes into queryParams")
	default:
		checkPath(path, at, say)
	}
}

func checkServicePort(r *gatewayv1.BackendObjectReference, at string, say report) {
	if value(r.Group) == "" && value(r.Kind) == "Service" && r.Port == nil {
		say(at+".port", "is required for a Service", "write the Service's port")
	}
}

func checkFilters(filters []gatewayv1.HTTPRouteFilter, r *gatewayv1.HTTPRouteRule, at string, say report) {
	seen := map[gatewayv1.HTTPRouteFilterType]int{}
	for i := range filters {
		f, here := &filters[i], fmt.Sprintf("%s.filters[%d]", at, i)
		checkFilterFields(f, here, say)
		first, twice := seen[f.Type]
		if twice && f.Type != gatewayv1.HTTPRouteFilterRequestMirror && f.Type != gatewayv1.HTTPRouteFilterExtensionRef {
			say(here, fmt.Sprintf("%s is already filters[%d]", f.Type, first), "merge the two")
		}
		seen[f.Type] = i
		switch {
		case f.RequestRedirect != nil:
			if len(r.BackendRefs) > 0 && !strings.Contains(at, "backendRefs") {
				say(here, "RequestRedirect does not go with backendRefs", "remove backendRefs: a redirect calls no backend")
			}
			checkModifier(f.RequestRedirect.Path, r, here+".requestRedirect.path", say)
		case f.URLRewrite != nil:
			checkModifier(f.URLRewrite.Path, r, here+".urlRewrite.path", say)
		case f.RequestMirror != nil:
			checkServicePort(&f.RequestMirror.BackendRef, here+".requestMirror.backendRef", say)
			checkShare(f.RequestMirror, here+".requestMirror", say)
		case f.CORS != nil:
			checkStar(f.CORS.AllowOrigins, here+".cors.allowOrigins", say)
			checkStar(f.CORS.AllowMethods, here+".cors.allowMethods", say)
			checkStar(f.CORS.AllowHeaders, here+".cors.allowHeaders", say)
		}
	}
	redirect, a := seen[gatewayv1.HTTPRouteFilterRequestRedirect]
	rewrite, b := seen[gatewayv1.HTTPRouteFilterURLRewrite]
	if a && b {
		say(fmt.Sprintf("%s.filters[%d]", at, max(redirect, rewrite)), "RequestRedirect and URLRewrite do not go together", "remove one of the two")
	}
}

func checkShare(m *gatewayv1.HTTPRequestMirrorFilter, at string, say report) {
	switch {
	case m.Percent != nil && m.Fraction != nil:
		say(at, "has both percent and fraction", "write one of the two")
	case m.Fraction != nil && m.Fraction.Denominator != nil && m.Fraction.Numerator > *m.Fraction.Denominator:
		say(at+".fraction", "is more than the whole", "write a numerator up to the denominator")
	}
}

// checkFilterFields: a filter has the field of its type, and no other.
func checkFilterFields(f *gatewayv1.HTTPRouteFilter, at string, say report) {
	for _, c := range []struct {
		kind  gatewayv1.HTTPRouteFilterType
		name  string
		there bool
	}{
		{gatewayv1.HTTPRouteFilterRequestHeaderModifier, "requestHeaderModifier", f.RequestHeaderModifier != nil},
		{gatewayv1.HTTPRouteFilterResponseHeaderModifier, "responseHeaderModifier", f.ResponseHeaderModifier != nil},
		{gatewayv1.HTTPRouteFilterRequestMirror, "requestMirror", f.RequestMirror != nil},
		{gatewayv1.HTTPRouteFilterRequestRedirect, "requestRedirect", f.RequestRedirect != nil},
		{gatewayv1.HTTPRouteFilterURLRewrite, "urlRewrite", f.URLRewrite != nil},
		{gatewayv1.HTTPRouteFilterExtensionRef, "extensionRef", f.ExtensionRef != nil},
		{gatewayv1.HTTPRouteFilterCORS, "cors", f.CORS != nil},
		{gatewayv1.HTTPRouteFilterExternalAuth, "externalAuth", f.ExternalAuth != nil},
	} {
		switch {
		case f.Type == c.kind && !c.there:
			say(at+"."+c.name, fmt.Sprintf("is required for type %s", f.Type), "")
		case f.Type != c.kind && c.there:
			say(at+"."+c.name, fmt.Sprintf("does not go with type %s", f.Type), fmt.Sprintf("write type: %s, or remove it", c.kind))
		}
	}
}

// checkModifier: a path modifier has the field of its type; a prefix is replaced only where one prefix is matched.
func checkModifier(m *gatewayv1.HTTPPathModifier, r *gatewayv1.HTTPRouteRule, at string, say report) {
	if m == nil {
		return
	}
	full, prefix := m.ReplaceFullPath != nil, m.ReplacePrefixMatch != nil
	switch m.Type {
	case gatewayv1.FullPathHTTPPathModifier:
		if !full {
			say(at+".replaceFullPath", "is required for type ReplaceFullPath", "")
		}
		if prefix {
			say(at+".replacePrefixMatch", "does not go with type ReplaceFullPath", "write type: ReplacePrefixMatch, or remove it")
		}
	case gatewayv1.PrefixMatchHTTPPathModifier:
		if !prefix {
			say(at+".replacePrefixMatch", "is required for type ReplacePrefixMatch", "")
		}
		if full {
			say(at+".replaceFullPath", "does not go with type ReplacePrefixMatch", "write type: ReplaceFullPath, or remove it")
		}
		if len(r.Matches) != 1 || r.Matches[0].Path == nil || value(r.Matches[0].Path.Type) != gatewayv1.PathMatchPathPrefix {
			say(at, "ReplacePrefixMatch needs exactly one match in the rule, of type PathPrefix", "split the rule")
		}
	}
}
