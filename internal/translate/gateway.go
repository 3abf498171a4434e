package translate

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// attachment is what routes need to know of a Gateway, or Ingresses of an IngressClass.
type attachment struct {
	Listeners []attachPoint
	Addresses []diag.Address // of an IngressClass
}

// attachPoint is one listener as routes see it.
type attachPoint struct {
	Key, Name, Hostname, Protocol string
	Port                          int32
	Live                          bool // it stands in the IR
	Routes                        bool // routes of kind HTTPRoute may attach
	From                          gatewayv1.FromNamespaces
	Selector                      *metav1.LabelSelector
	Redirect                      *redirect // of every route, for HTTP only; nil: none
	HSTS                          *lowered  // for HTTPS only
	Required                      []required
	Identity                      string // handle of the certificate that backends are shown, "": none
}

// redirect is a redirect to HTTPS.
type redirect struct {
	Port uint16 // of the HTTPS listener
	By   ir.Source
}

// gatewayDetail is the verdict about a Gateway but for the number of its routes.
type gatewayDetail struct{ Object *diag.Object }

// gateway is the unit that turns one Gateway into listeners.
func (p *pass) gateway() {
	ref := p.u.key.ref
	gw, presence := objects.Get[*gatewayv1.Gateway](p.view, ref.Namespace, ref.Name)
	if presence != objects.Present {
		p.gone = true
		return
	}
	class, presence := objects.Get[*gatewayv1.GatewayClass](p.view, "", string(gw.Spec.GatewayClassName))
	if presence != objects.Present {
		v := newVerdict(ref, gw)
		hint := hintFor(string(gw.Spec.GatewayClassName), "there is", namesIn[*gatewayv1.GatewayClass](p.view, ""))
		v.warn("spec.gatewayClassName", "", hint, "there is no GatewayClass %s", gw.Spec.GatewayClassName)
		p.verdict(v)
		return
	}
	if string(class.Spec.ControllerName) != p.t.o.GatewayController {
		if to := ownParameters(gw); to != nil {
			p.say(topic{kind: parametersTopic, ref: *to}, false)
		}
		return
	}
	g := &gatewayPass{pass: p, gw: gw, verdict: newVerdict(ref, gw)}
	g.translate(class)
}

// gatewayPass is the work on one Gateway.
type gatewayPass struct {
	*pass
	verdict
	gw       *gatewayv1.Gateway
	params   parameters
	exposure *exposure
	addrs    []netip.Addr
	points   []attachPoint
	identity string // handle of the certificate that backends are shown, "": none
}

func (g *gatewayPass) translate(class *gatewayv1.GatewayClass) {
	reason, message := g.parametersOf(class)
	g.exposure = g.pass.expose(g.Ref, &g.params)
	g.exposure.infrastructure(g.gw.Spec.Infrastructure)
	if r, m := g.addresses(); reason == "" {
		reason, message = r, m
	}
	g.clientCertificate()
	conflicts := listenerConflicts(g.gw.Spec.Listeners)
	for i := range g.gw.Spec.Listeners {
		g.listener(i, conflicts[i], reason == "")
	}
	g.redirects()
	g.Ours = true
	g.Exposure = g.exposure.wanted()
	g.Addresses = g.exposure.addresses(g.Addresses)
	g.conditions(reason, message)
	g.annotations(g.gw)
	p := g.pass
	p.say(topic{kind: attachTopic, ref: g.Ref}, &attachment{Listeners: g.points})
	p.say(topic{kind: gatewayTopic, ref: g.Ref}, &gatewayDetail{g.Object})
}

// parametersOf reads the parameters of the Gateway and of its class. The reason is not empty if the Gateway's own ones are
// missing.
func (g *gatewayPass) parametersOf(class *gatewayv1.GatewayClass) (reason, message string) {
	if to := ownParameters(g.gw); to != nil {
		const field = "spec.infrastructure.parametersRef"
		own, bad := g.pass.parametersOf(g.Ref, field, *to)
		if bad != nil {
			g.fault(field, invalidParameters, bad.hint, "%s", bad.message)
			reason, message = invalidParameters, text(field, bad.message, bad.hint)
			g.params.Unknown = true
		} else {
			g.params = *own
		}
	}
	if far, bad := g.pass.classParameters(class); bad != nil {
		g.params.Unknown = true
	} else if far != nil {
		g.params.lay(far)
	}
	return reason, message
}

// ownParameters is what a Gateway names as its parameters, nil if it names none.
func ownParameters(gw *gatewayv1.Gateway) *diag.Ref {
	if gw.Spec.Infrastructure == nil || gw.Spec.Infrastructure.ParametersRef == nil {
		return nil
	}
	r := gw.Spec.Infrastructure.ParametersRef
	return &diag.Ref{Group: string(r.Group), Kind: string(r.Kind), Namespace: gw.Namespace, Name: r.Name}
}

// parametersOfClass is what a GatewayClass names as its parameters, nil if it names none.
func parametersOfClass(class *gatewayv1.GatewayClass) *diag.Ref {
	r := class.Spec.ParametersRef
	if r == nil {
		return nil
	}
	to := &diag.Ref{Group: string(r.Group), Kind: string(r.Kind), Name: r.Name}
	if r.Namespace != nil {
		to.Namespace = string(*r.Namespace)
	}
	return to
}

// classParameters reads the parameters of a GatewayClass, nil if it names none.
func (p *pass) classParameters(class *gatewayv1.GatewayClass) (*parameters, *refusal) {
	to := parametersOfClass(class)
	if to == nil {
		return nil, nil
	}
	if class.Spec.ParametersRef.Namespace == nil {
		return nil, &refusal{invalidParameters, "the namespace is missing", "GatewayParameters have a namespace"}
	}
	return p.parametersOf(refOf("GatewayClass", "", class.Name), "spec.parametersRef", *to)
}

// addresses reads spec.addresses. The reason is not empty if one is of a type that is not supported.
func (g *gatewayPass) addresses() (reason, message string) {
	for i, a := range g.gw.Spec.Addresses {
		path := fmt.Sprintf("spec.addresses[%d]", i)
		if a.Type != nil && *a.Type != gatewayv1.IPAddressType {
			g.fault(path+".type", "UnsupportedAddress", "write IPAddress", "%s is not supported", *a.Type)
			reason, message = "UnsupportedAddress", fmt.Sprintf("%s: type %s is not supported", path, *a.Type)
			continue
		}
		if a.Value == "" {
			continue // any address will do
		}
		ip, err := netip.ParseAddr(a.Value)
		if err != nil {
			g.fault(path+".value", "AddressNotUsable", "", "%q is not an IP address", a.Value)
			reason, message = "UnsupportedAddress", fmt.Sprintf("%s: %q is not an IP address", path, a.Value)
			continue
		}
		if e := g.exposure.Want; e != nil {
			if e.Address != "" || e.Type != "LoadBalancer" {
				g.fault(path, "AddressNotUsable", "name one address, or use exposure: Host", "a Service of type %s is asked for one address at most", e.Type)
				reason, message = "UnsupportedAddress", path+": a Service of type "+e.Type+" is asked for one address at most"
				continue
			}
			e.Address = ip.String()
			continue
		}
		g.addrs = append(g.addrs, ip)
		g.Addresses = append(g.Addresses, diag.Address{Type: string(gatewayv1.IPAddressType), Value: ip.String()})
	}
	return reason, message
}

// listenerConflicts says for each listener why it cannot be told from another one of its Gateway: "", HostnameConflict or
// ProtocolConflict. None of those in a conflict wins. Listeners of protocols that are not supported do not count.
func listenerConflicts(ls []gatewayv1.Listener) []string {
	out := make([]string, len(ls))
	for i := range ls {
		for j := range ls {
			if i == j || ls[i].Port != ls[j].Port || !supported(ls[i].Protocol) || !supported(ls[j].Protocol) {
				continue
			}
			switch {
			case ls[i].Protocol != ls[j].Protocol:
				out[i] = "ProtocolConflict"
			case out[i] == "" && hostnameOf(ls[i].Hostname) == hostnameOf(ls[j].Hostname):
				out[i] = "HostnameConflict"
			}
		}
	}
	return out
}

func supported(p gatewayv1.ProtocolType) bool {
	return p == gatewayv1.HTTPProtocolType || p == gatewayv1.HTTPSProtocolType
}

func hostnameOf(h *gatewayv1.Hostname) string {
	if h == nil {
		return ""
	}
	return strings.ToLower(string(*h))
}

// listener translates one listener; usable says that the Gateway itself is in order.
func (g *gatewayPass) listener(i int, conflict string, usable bool) {
	l := &g.gw.Spec.Listeners[i]
	path := fmt.Sprintf("spec.listeners[%d]", i)
	d := diag.Listener{Name: string(l.Name), SupportedKinds: []diag.Ref{}}
	point := attachPoint{Key: keyOf(g.Ref, string(l.Name)), Name: string(l.Name), Hostname: hostnameOf(l.Hostname), Protocol: string(l.Protocol),
		Port: l.Port, From: gatewayv1.NamespacesFromSame}
	reason, message := g.acceptable(l, path)
	unresolved := g.allowed(l, path, &point, &d)
	var tls *ir.TLS
	if l.Protocol == gatewayv1.HTTPSProtocolType && reason == "" {
		var bad *refusal
		if tls, bad = g.tls(l, path); bad != nil && unresolved == nil {
			unresolved = bad
		}
		point.HSTS = g.params.HSTS
	}
	point.Identity, point.Required = g.identity, g.params.Required
	if conflict != "" {
		reason, message = conflict, g.conflictText(l, conflict)
		g.fault(path, conflict, "", "%s", message)
	}
	if reason == "" || conflict != "" {
		g.exposure.wantPort(l.Port)
	}
	point.Live = usable && reason == ""
	served := point.Live && (tls == nil || len(tls.Certificates) > 0 || tls.Default != "")
	d.Conditions = g.listenerConditions(l, reason, message, conflict, unresolved, served)
	if point.Live {
		d.Key = point.Key
		g.emit(l, path, &point, tls)
	}
	g.points = append(g.points, point)
	g.Listeners = append(g.Listeners, d)
}

// acceptable says why a listener cannot be served at all, "" if it can.
func (g *gatewayPass) acceptable(l *gatewayv1.Listener, path string) (reason, message string) {
	switch {
	case !supported(l.Protocol):
		message = fmt.Sprintf("protocol %s is not supported", l.Protocol)
		g.fault(path+".protocol", "UnsupportedProtocol", "use HTTP or HTTPS", "%s", message)
		return "UnsupportedProtocol", message
	case l.Port < 1 || l.Port > 65535:
		message = fmt.Sprintf("%d is not a port", l.Port)
		g.fault(path+".port", "PortUnavailable", "", "%s", message)
		return "PortUnavailable", message
	case hostnameProblem(hostnameOf(l.Hostname)) != "":
		message = fmt.Sprintf("%q %s", *l.Hostname, hostnameProblem(hostnameOf(l.Hostname)))
		g.fault(path+".hostname", unsupportedValue, "", "%s", message)
		return unsupportedValue, message
	case l.Protocol == gatewayv1.HTTPProtocolType && l.TLS != nil:
		g.warn(path+".tls", "", "use protocol HTTPS", "has no meaning for protocol HTTP")
	case l.Protocol == gatewayv1.HTTPSProtocolType && l.TLS != nil && l.TLS.Mode != nil && *l.TLS.Mode != gatewayv1.TLSModeTerminate:
		message = fmt.Sprintf("TLS mode %s is not supported for protocol HTTPS", *l.TLS.Mode)
		g.fault(path+".tls.mode", unsupportedValue, "use Terminate", "%s", message)
		return unsupportedValue, message
	case l.Protocol == gatewayv1.HTTPSProtocolType && g.wantsClientCertificates(l.Port):
		message = "client certificates are not verified yet, so nobody is let in"
		g.fault("spec.tls.frontend", unsupportedValue, "", "%s", message)
		return unsupportedValue, message
	}
	return "", ""
}

// wantsClientCertificates says whether spec.tls.frontend asks for verification on a port.
func (g *gatewayPass) wantsClientCertificates(port int32) bool {
	if g.gw.Spec.TLS == nil || g.gw.Spec.TLS.Frontend == nil {
		return false
	}
	f := g.gw.Spec.TLS.Frontend
	for _, pp := range f.PerPort {
		if pp.Port == port {
			return pp.TLS.Validation != nil
		}
	}
	return f.Default.Validation != nil
}

// allowed reads allowedRoutes.
func (g *gatewayPass) allowed(l *gatewayv1.Listener, path string, point *attachPoint, d *diag.Listener) *refusal {
	if a := l.AllowedRoutes; a != nil && a.Namespaces != nil && a.Namespaces.From != nil {
		point.From = *a.Namespaces.From
		if point.From == gatewayv1.NamespacesFromSelector {
			point.Selector = a.Namespaces.Selector
			if _, err := metav1.LabelSelectorAsSelector(point.Selector); err != nil {
				g.fault(path+".allowedRoutes.namespaces.selector", invalid, "", "%v", err)
				point.Selector = nil // selects nothing
			}
		}
	}
	if !supported(l.Protocol) {
		return nil
	}
	http := diag.Ref{Group: Group("HTTPRoute"), Kind: "HTTPRoute"}
	if l.AllowedRoutes == nil || len(l.AllowedRoutes.Kinds) == 0 {
		point.Routes, d.SupportedKinds = true, []diag.Ref{http}
		return nil
	}
	var bad *refusal
	for i, k := range l.AllowedRoutes.Kinds {
		kind := diag.Ref{Group: http.Group, Kind: string(k.Kind)}
		if k.Group != nil {
			kind.Group = string(*k.Group)
		}
		if kind == http {
			point.Routes, d.SupportedKinds = true, []diag.Ref{http}
			continue
		}
		at := fmt.Sprintf("%s.allowedRoutes.kinds[%d]", path, i)
		message := fmt.Sprintf("%s cannot attach to a listener of protocol %s", kindText(kind), l.Protocol)
		g.fault(at, "InvalidRouteKinds", "use HTTPRoute", "%s", message)
		bad = cmp.Or(bad, &refusal{"InvalidRouteKinds", at + ": " + message, ""})
	}
	return bad
}

// tls collects the certificates of an HTTPS listener and says which reference is not in order.
func (g *gatewayPass) tls(l *gatewayv1.Listener, path string) (*ir.TLS, *refusal) {
	const field = "spec.listeners.tls.certificateRefs"
	out := &ir.TLS{Certificates: []ir.Certificate{}, Default: g.params.Certificate}
	var refs []gatewayv1.SecretObjectReference
	if l.TLS != nil {
		refs = l.TLS.CertificateRefs
	}
	var bad *refusal
	for i, c := range refs {
		at := fmt.Sprintf("%s.tls.certificateRefs[%d]", path, i)
		handle, r := g.certificate(g.Ref, field, c)
		if r != nil {
			g.fault(at, r.reason, r.hint, "%s", r.message)
			bad = cmp.Or(bad, &refusal{r.reason, text(at, r.message, r.hint), ""})
		}
		if handle != "" {
			out.Certificates = append(out.Certificates, ir.Certificate{Handle: handle, Source: sourceOf(g.Ref, at)})
			g.pass.say(topic{kind: secretTopic, name: handle}, true)
		}
	}
	if out.Default != "" {
		g.pass.say(topic{kind: secretTopic, name: out.Default}, true)
	}
	if len(refs) == 0 && out.Default == "" {
		at := path + ".tls.certificateRefs"
		g.fault(at, invalidCertificateRef, "name a Secret of type kubernetes.io/tls", "no certificate")
		bad = &refusal{invalidCertificateRef, at + ": no certificate", ""}
	}
	return out, bad
}

func (g *gatewayPass) conflictText(l *gatewayv1.Listener, conflict string) string {
	var others []string
	for i := range g.gw.Spec.Listeners {
		o := &g.gw.Spec.Listeners[i]
		same := hostnameOf(o.Hostname) == hostnameOf(l.Hostname) && o.Protocol == l.Protocol
		if o.Name != l.Name && o.Port == l.Port && supported(o.Protocol) && (same || conflict == "ProtocolConflict" && o.Protocol != l.Protocol) {
			others = append(others, string(o.Name))
		}
	}
	if conflict == "ProtocolConflict" {
		return fmt.Sprintf("its port is also that of listener %s, with another protocol: none of them is served", strings.Join(others, ", "))
	}
	return fmt.Sprintf("its port and hostname are also those of listener %s: none of them is served", strings.Join(others, ", "))
}

func (g *gatewayPass) listenerConditions(l *gatewayv1.Listener, reason, message, conflict string, unresolved *refusal, served bool) []diag.Condition {
	v := g.verdict
	var out []diag.Condition
	if reason == "" {
		out = append(out, v.condition(accepted, true, accepted, ""))
	} else {
		out = append(out, v.condition(accepted, false, reason, message))
	}
	if conflict == "" {
		out = append(out, v.condition(conflicted, false, noConflicts, ""))
	} else {
		out = append(out, v.condition(conflicted, true, conflict, message))
	}
	if unresolved == nil {
		out = append(out, v.condition(resolvedRefs, true, resolvedRefs, ""))
	} else {
		out = append(out, v.condition(resolvedRefs, false, unresolved.reason, unresolved.message))
	}
	switch {
	case served && len(g.exposure.binds(uint16(l.Port))) == 0:
		out = append(out, v.condition(programmed, false, pending, "no port of the pods is assigned yet"))
	case served && (unresolved == nil || unresolved.reason == "InvalidRouteKinds"):
		out = append(out, v.condition(programmed, true, programmed, ""))
	case unresolved != nil && reason == "":
		out = append(out, v.condition(programmed, false, invalid, unresolved.message))
	default:
		out = append(out, v.condition(programmed, false, invalid, cmp.Or(message, "the Gateway is not accepted")))
	}
	return out
}

// emit makes the IR's listener.
func (g *gatewayPass) emit(l *gatewayv1.Listener, path string, point *attachPoint, tls *ir.TLS) {
	out := &ir.Listener{Key: point.Key, Source: sourceOf(g.Ref, path), Group: keyOf(g.Ref), Port: uint16(l.Port), Protocol: string(l.Protocol),
		Hostname: point.Hostname, TLS: tls, Client: g.clientPolicy(g.Ref, point.Name), Created: g.gw.CreationTimestamp.UTC(),
		Backends: g.params.Backends, Steps: g.unmatched(g.Ref, point.Name)}
	for _, a := range g.addrs {
		out.Binds = append(out.Binds, ir.Bind{Address: a, Port: out.Port})
	}
	if len(g.addrs) == 0 {
		out.Binds = g.exposure.binds(out.Port)
	}
	g.pass.say(topic{kind: listenerSink, name: point.Key}, out)
}

// clientPolicy is the ClientTrafficPolicy of a listener: its own, else that of what it belongs to.
func (p *pass) clientPolicy(ref diag.Ref, section string) *ir.Client {
	t := hear[*target](p, topic{kind: targetTopic, name: targetNameOf(ref)})
	if t == nil {
		return nil
	}
	if c := t.Client[section]; c != nil && c.Client != nil {
		return c.Client
	}
	if c := t.Client[""]; c != nil {
		return c.Client
	}
	return nil
}

// redirects gives each HTTP listener the HTTPS listener that it redirects to, where the parameters ask for it.
func (g *gatewayPass) redirects() {
	if g.params.Redirect == nil || !*g.params.Redirect {
		return
	}
	for i := range g.points {
		h := &g.points[i]
		if h.Protocol != ir.HTTP || !h.Live {
			continue
		}
		j := slices.IndexFunc(g.points, func(s attachPoint) bool {
			return s.Live && s.Protocol == ir.HTTPS && (s.Hostname == h.Hostname || covers(s.Hostname, h.Hostname))
		})
		if j < 0 {
			g.warn(fmt.Sprintf("spec.listeners[%d]", i), "", "", "httpsRedirect: no HTTPS listener takes its hostnames, so nothing is redirected")
			continue
		}
		h.Redirect = &redirect{uint16(g.points[j].Port), g.params.RedirectBy}
	}
}

// refusedIdentity is the handle of no Secret: what a Gateway may not show is not left out, its requests to TLS backends are refused.
const refusedIdentity = "Secret/none/none"

// clientCertificate reads spec.tls.backend.clientCertificateRef (GEP-3155): what the Gateway shows to backends that speak TLS.
func (g *gatewayPass) clientCertificate() {
	t := g.gw.Spec.TLS
	if t == nil || t.Backend == nil || t.Backend.ClientCertificateRef == nil {
		return
	}
	const field = "spec.tls.backend.clientCertificateRef"
	handle, bad := g.pass.certificate(g.Ref, field, *t.Backend.ClientCertificateRef)
	g.identity = cmp.Or(handle, refusedIdentity)
	if handle != "" { // its body is wanted for the verdict, also before a TLS backend is there
		g.say(topic{kind: secretTopic, name: handle}, true)
	}
	if bad == nil {
		g.add(resolvedRefs, true, resolvedRefs, "")
		return
	}
	if bad.reason == invalidCertificateRef {
		bad.reason = string(gatewayv1.GatewayReasonInvalidClientCertificateRef)
	}
	g.fault(field, bad.reason, bad.hint, "%s", bad.message)
	g.add(resolvedRefs, false, bad.reason, text(field, bad.message, bad.hint))
}

// conditions adds those of the Gateway as a whole.
func (g *gatewayPass) conditions(reason, message string) {
	var bad []string
	live, served := 0, 0
	for i, d := range g.Listeners {
		if c := diag.Find(d.Conditions, accepted); !c.Status {
			bad = append(bad, d.Name)
		}
		if g.points[i].Live {
			live++
		}
		if diag.Find(d.Conditions, programmed).Status {
			served++
		}
	}
	text := fmt.Sprintf("not accepted: listener %s", strings.Join(bad, ", "))
	switch {
	case reason != "":
		g.add(accepted, false, reason, message)
	case live == 0:
		if len(bad) == 0 {
			text = "there is no listener"
		}
		g.add(accepted, false, listenersNotValid, text)
	case len(bad) > 0:
		g.add(accepted, true, listenersNotValid, text)
	default:
		g.add(accepted, true, accepted, "")
	}
	why, unreached := g.exposure.unreached()
	switch {
	case live > 0 && why != "":
		g.add(programmed, false, why, unreached)
	case served > 0:
		g.add(programmed, true, programmed, "")
	default:
		g.add(programmed, false, invalid, cmp.Or(message, "no listener can be served"))
	}
}

// gatewayVerdict is the unit that counts the routes of a Gateway.
func (p *pass) gatewayVerdict() {
	details := hearAll[*gatewayDetail](p, topic{kind: gatewayTopic, ref: p.u.key.ref})
	if len(details) == 0 {
		p.gone = true
		return
	}
	count := map[string]int32{}
	for _, names := range hearAll[[]string](p, topic{kind: attachedTopic, ref: p.u.key.ref}) {
		for _, n := range names {
			count[n]++
		}
	}
	out := *details[0].Object
	out.Listeners = slices.Clone(out.Listeners)
	for i := range out.Listeners {
		out.Listeners[i].AttachedRoutes = count[out.Listeners[i].Name]
	}
	p.say(topic{kind: reportTopic, ref: p.u.key.ref}, &out)
}

// gatewayClass is the unit for the verdict about one GatewayClass.
func (p *pass) gatewayClass() {
	ref := p.u.key.ref
	class, presence := objects.Get[*gatewayv1.GatewayClass](p.view, "", ref.Name)
	if presence != objects.Present {
		p.gone = true
		return
	}
	if string(class.Spec.ControllerName) != p.t.o.GatewayController {
		if to := parametersOfClass(class); to != nil {
			p.say(topic{kind: parametersTopic, ref: *to}, false)
		}
		return
	}
	v := newVerdict(ref, class)
	v.Ours, v.Features = true, SupportedFeatures()
	if _, bad := p.classParameters(class); bad != nil {
		v.fault("spec.parametersRef", invalidParameters, bad.hint, "%s", bad.message)
		v.add(accepted, false, invalidParameters, text("spec.parametersRef", bad.message, bad.hint))
	} else {
		v.add(accepted, true, accepted, "")
	}
	v.annotations(class)
	p.verdict(v)
}
