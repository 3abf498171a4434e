package manifest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// report takes one fault of a rule.
type report func(path, message, hint string)

// validate holds an object to the rules that span several fields: those in CEL of the CRDs, and those of the API server's code.
func (d *decoder) validate(n *yaml.Node, o objects.Object) {
	say := func(path, message, hint string) {
		d.fault(&yaml.Node{Line: lineOf(n, path)}, path, message, hint)
	}
	switch o := o.(type) {
	case *networkingv1.Ingress:
		checkIngress(o, say)
	case *corev1.Service:
		checkService(o, say)
	case *discoveryv1.EndpointSlice:
		checkEndpointSlice(o, say)
	case *objects.Secret:
		if o.Material.Type == string(corev1.SecretTypeTLS) {
			for _, key := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
				if _, ok := o.Material.Data[key]; !ok {
					say(join("data", key), "is required in a Secret of type kubernetes.io/tls", "")
				}
			}
		}
	case *gatewayv1.Gateway:
		checkGateway(o, say)
	case *gatewayv1.HTTPRoute:
		checkHTTPRoute(o, say)
	case *v1alpha1.Backend:
		checkBackend(o, say)
	case *v1alpha1.ProtectionPolicy:
		checkProtection(o, say)
	case *v1alpha1.AuthPolicy:
		checkAuthPolicy(o, say)
	case *v1alpha1.RateLimitPolicy:
		checkRateLimitPolicy(o, say)
	case *v1alpha1.ClientTrafficPolicy:
		checkClientTraffic(o, say)
	case *v1alpha1.BackendTrafficPolicy:
		checkBackendTraffic(o, say)
	case *v1alpha1.GatewayParameters:
		if a := o.Spec.BackendAddresses; a != nil {
			checkNetworks(a.Allow, "spec.backendAddresses.allow", say)
		}
	}
}

func checkIngress(o *networkingv1.Ingress, say report) {
	if o.Spec.DefaultBackend == nil && len(o.Spec.Rules) == 0 {
		say("spec", "has neither rules nor defaultBackend", "write one of the two")
	}
	checkIngressBackend(o.Spec.DefaultBackend, "spec.defaultBackend", say)
	for i, r := range o.Spec.Rules {
		at := fmt.Sprintf("spec.rules[%d]", i)
		if _, err := netip.ParseAddr(r.Host); err == nil {
			say(at+".host", fmt.Sprintf("%q is an address, not a host name", r.Host), "write a DNS name, or leave host out for any")
		}
		if r.HTTP == nil {
			continue
		}
		for j, p := range r.HTTP.Paths {
			here := fmt.Sprintf("%s.http.paths[%d]", at, j)
			exact := *p.PathType != networkingv1.PathTypeImplementationSpecific
			switch {
			case exact && p.Path == "":
				say(here+".path", fmt.Sprintf("is required for pathType %s", *p.PathType), `write "/" for all paths`)
			case p.Path != "" && p.Path[0] != '/':
				say(here+".path", fmt.Sprintf("%q does not begin with \"/\"", p.Path), fmt.Sprintf("write %q", "/"+p.Path))
			case exact:
				checkPath(p.Path, here+".path", say)
			}
			checkIngressBackend(&p.Backend, here+".backend", say)
		}
	}
}

func checkIngressBackend(b *networkingv1.IngressBackend, at string, say report) {
	switch {
	case b == nil:
	case b.Service == nil && b.Resource == nil:
		say(at, "has neither service nor resource", "write service: {name: NAME, port: {number: PORT}}")
	case b.Service != nil && b.Resource != nil:
		say(at, "has both service and resource", "write one of the two")
	case b.Service != nil && b.Service.Port.Name == "" && b.Service.Port.Number == 0:
		say(at+".service.port", "has neither name nor number", "write one of the two")
	case b.Service != nil && b.Service.Port.Name != "" && b.Service.Port.Number != 0:
		say(at+".service.port", "has both name and number", "write one of the two")
	}
}

// checkPath holds a path that is compared as text to a form in which it can match the canonical path of a request.
func checkPath(path, at string, say report) {
	for _, part := range []string{"//", "/./", "/../", "%2f", "%2F"} {
		if strings.Contains(path, part) {
			say(at, fmt.Sprintf("%q contains %q", path, part), "no request's canonical path has it")
			return
		}
	}
	for _, end := range []string{"/.", "/.."} {
		if strings.HasSuffix(path, end) {
			say(at, fmt.Sprintf("%q ends with %q", path, end), "no request's canonical path has it")
		}
	}
}

func checkService(o *corev1.Service, say report) {
	s := &o.Spec
	switch {
	case s.Type == corev1.ServiceTypeExternalName && s.ExternalName == "":
		say("spec.externalName", "is required for type ExternalName", "")
	case s.Type == corev1.ServiceTypeExternalName && !isSubdomain(strings.TrimSuffix(s.ExternalName, ".")):
		say("spec.externalName", fmt.Sprintf("%q is not a DNS name", s.ExternalName), "write a name such as db.example.com; no port, no scheme")
	case s.Type != corev1.ServiceTypeExternalName && len(s.Ports) == 0 && s.ClusterIP != corev1.ClusterIPNone:
		say("spec.ports", "is required", "write ports: [{port: PORT}]")
	}
	names, ports := map[string]int{}, map[string]int{}
	for i, p := range s.Ports {
		at := fmt.Sprintf("spec.ports[%d]", i)
		if p.Name == "" && len(s.Ports) > 1 {
			say(at+".name", "is required where a Service has several ports", "")
		} else if first, twice := names[p.Name]; twice && p.Name != "" {
			say(at+".name", fmt.Sprintf("%q is also the name of ports[%d]", p.Name, first), "rename one of the two")
		}
		names[p.Name] = i
		key := fmt.Sprint(p.Protocol, p.Port)
		if first, twice := ports[key]; twice {
			say(at+".port", fmt.Sprintf("%d (%s) is also the port of ports[%d]", p.Port, p.Protocol, first), "remove one of the two")
		}
		ports[key] = i
	}
}

func checkEndpointSlice(o *discoveryv1.EndpointSlice, say report) {
	for i, e := range o.Endpoints {
		for j, a := range e.Addresses {
			at := fmt.Sprintf("endpoints[%d].addresses[%d]", i, j)
			ip, err := netip.ParseAddr(a)
			switch {
			case o.AddressType == discoveryv1.AddressTypeFQDN && !isSubdomain(a):
				say(at, fmt.Sprintf("%q is not a DNS name", a), "")
			case o.AddressType == discoveryv1.AddressTypeIPv4 && (err != nil || !ip.Is4()):
				say(at, fmt.Sprintf("%q is not an IPv4 address", a), "addressType is IPv4; each family has a slice of its own")
			case o.AddressType == discoveryv1.AddressTypeIPv6 && (err != nil || !ip.Is6()):
				say(at, fmt.Sprintf("%q is not an IPv6 address", a), "addressType is IPv6; each family has a slice of its own")
			}
		}
	}
}

func checkBackend(o *v1alpha1.Backend, say report) {
	for i, e := range o.Spec.Endpoints {
		at := fmt.Sprintf("spec.endpoints[%d]", i)
		switch {
		case e.Address == "" && e.Hostname == "":
			say(at, "has neither address nor hostname", "write one of the two")
		case e.Address != "" && e.Hostname != "":
			say(at, "has both address and hostname", "write one of the two")
		case e.Address != "":
			if _, err := netip.ParseAddr(e.Address); err != nil {
				say(at+".address", fmt.Sprintf("%q is not an IP address", e.Address), "write 203.0.113.10 or 2001:db8::1; a name goes into hostname")
			}
		}
	}
	if t := o.Spec.TLS; t != nil && (t.WellKnownCACertificates == "") == (len(t.CACertificateRefs) == 0) {
		say("spec.tls", "needs exactly one of wellKnownCACertificates and caCertificateRefs", "")
	}
}

func checkProtection(o *v1alpha1.ProtectionPolicy, say report) {
	s := &o.Spec
	checkBundle(s.Defaults == nil, s.Overrides == nil, say)
	for name, p := range map[string]*v1alpha1.Protection{"spec.defaults": s.Defaults, "spec.overrides": s.Overrides} {
		if p == nil {
			continue
		}
		if c := p.CORS; c != nil {
			checkStar(c.AllowOrigins, name+".cors.allowOrigins", say)
			checkStar(c.AllowMethods, name+".cors.allowMethods", say)
			checkStar(c.AllowHeaders, name+".cors.allowHeaders", say)
		}
		if m := p.Maintenance; m != nil {
			checkNetworks(m.Allow, name+".maintenance.allow", say)
			checkContent(m.Body, m.ContentType, name+".maintenance", say)
		}
		if d := p.DirectResponse; d != nil {
			checkContent(d.Body, d.ContentType, name+".directResponse", say)
		}
		if z := p.Sizes; z != nil {
			for field, q := range map[string]*resource.Quantity{"requestBody": z.RequestBody, "responseBody": z.ResponseBody} {
				if q != nil && q.Sign() < 0 {
					say(name+".sizes."+field, "is negative", "write a size such as 1Mi")
				}
			}
		}
	}
}

func checkBundle(noDefaults, noOverrides bool, say report) {
	if noDefaults == noOverrides {
		say("spec", "needs exactly one of defaults and overrides", "")
	}
}

// checkContent: a body and its type go together.
func checkContent(body, contentType, at string, say report) {
	if (body == "") != (contentType == "") {
		say(at, "has one of body and contentType", "write both, or none")
	}
}

func checkClientTraffic(o *v1alpha1.ClientTrafficPolicy, say report) {
	if a := o.Spec.ClientAddress; a != nil {
		if (a.Source.Type == "Header") != (a.Source.Header != "") {
			say("spec.clientAddress.source.header", "goes with type Header, and only with it", "")
		}
		checkNetworks(a.TrustedCIDRs, "spec.clientAddress.trustedCIDRs", say)
	}
}

func checkNetworks(networks []string, at string, say report) {
	for i, n := range networks {
		if _, err := netip.ParsePrefix(n); err == nil {
			continue
		}
		hint := "write 10.0.0.0/8 or 192.0.2.7/32"
		if a, err := netip.ParseAddr(n); err == nil {
			hint = fmt.Sprintf("write %s/%d", n, a.BitLen())
		}
		say(fmt.Sprintf("%s[%d]", at, i), fmt.Sprintf("%q is not a network", n), hint)
	}
}

// checkStar: "*" stands alone in a list.
func checkStar[T ~string](list []T, at string, say report) {
	if len(list) > 1 && slices.Contains(list, "*") {
		say(at, `has "*" beside other values`, `write "*" alone, or leave it out`)
	}
}

func checkBackendTraffic(o *v1alpha1.BackendTrafficPolicy, say report) {
	l := o.Spec.LoadBalancer
	if l == nil {
		return
	}
	const path = "spec.loadBalancer.consistentHash"
	if (l.Algorithm == "ConsistentHash") != (l.ConsistentHash != nil) {
		say(path, "goes with algorithm ConsistentHash, and only with it", "")
	}
	if h := l.ConsistentHash; h != nil && (h.Type != "ClientAddress") != (h.Name != "") {
		say(path+".name", "goes with types Header and Cookie, and only with them", "")
	}
}
