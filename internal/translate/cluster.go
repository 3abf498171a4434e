package translate

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/objects"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// portRef names a port of a Service by number, or by name if the number is 0.
type portRef struct {
	number int32
	name   string
}

func (r portRef) String() string {
	if r.name != "" {
		return r.name
	}
	return strconv.Itoa(int(r.number))
}

// backendCluster is the key of the cluster that a reference to a Service or Backend stands for, once resolve allowed it.
func (p *pass) backendCluster(to diag.Ref, port portRef) (key string, bad *refusal) {
	if to.Kind == "Backend" {
		if _, presence := objects.Get[*v1alpha1.Backend](p.view, to.Namespace, to.Name); presence != objects.Present {
			hint := didYouMean(to.Name, namesIn[*v1alpha1.Backend](p.view, to.Namespace))
			return "", &refusal{backendNotFound, "no " + to.String(), hint}
		}
		return keyOf(to), nil
	}
	s, presence := objects.Get[*corev1.Service](p.view, to.Namespace, to.Name)
	if presence != objects.Present {
		hint := didYouMean(to.Name, namesIn[*corev1.Service](p.view, to.Namespace))
		return "", &refusal{backendNotFound, "no " + to.String(), hint}
	}
	if s.Labels[v1alpha1.LabelOwnerKind] != "" && to.Namespace == p.t.o.Namespace {
		return "", &refusal{"RefNotPermitted", to.String() + " is the edge's own: requests would come back to it", "name the Service that is to answer"}
	}
	if port == (portRef{}) {
		return "", &refusal{backendNotFound, "no port of " + to.String() + " is named", "a Service needs a port"}
	}
	var names []string
	for _, sp := range s.Spec.Ports {
		if sp.Protocol != "" && sp.Protocol != corev1.ProtocolTCP {
			continue
		}
		if port.name != "" && sp.Name == port.name || port.name == "" && sp.Port == port.number {
			return keyOf(to, strconv.Itoa(int(sp.Port))), nil
		}
		if port.name != "" && sp.Name != "" {
			names = append(names, sp.Name)
		} else {
			names = append(names, strconv.Itoa(int(sp.Port)))
		}
	}
	if s.Spec.Type == corev1.ServiceTypeExternalName && port.name == "" {
		return keyOf(to, port.String()), nil // the name says it all: it needs no list of ports
	}
	return "", &refusal{backendNotFound, fmt.Sprintf("%s has no port %s", to, port), hintFor(port.String(), "it has", names)}
}

// cluster is the unit for one cluster that some route names.
func (p *pass) cluster() {
	key := p.u.key.name
	if len(hearAll[bool](p, topic{kind: clusterTopic, name: key})) == 0 {
		p.gone = true
		return
	}
	ref, port := parseKey(key)
	c := &ir.Cluster{Key: key, Source: sourceOf(ref, "spec")}
	name := ""
	if ref.Kind == "Backend" {
		b, presence := objects.Get[*v1alpha1.Backend](p.view, ref.Namespace, ref.Name)
		if presence != objects.Present {
			return
		}
		c.TLS, _ = p.backendTLS(ref, b)
	} else {
		s, presence := objects.Get[*corev1.Service](p.view, ref.Namespace, ref.Name)
		if presence != objects.Present {
			return
		}
		name = portName(s, port)
		c.TLS = p.policyTLS(ref, s, port)
	}
	if _, id, ok := strings.Cut(key, "@"); ok && c.TLS != nil && c.TLS.ClientID == "" {
		own := *c.TLS
		own.ClientID = id
		c.TLS = &own
	}
	if c.TLS != nil {
		for _, h := range append(slices.Clone(c.TLS.CAs), c.TLS.ClientID) {
			if h != "" {
				p.say(topic{kind: secretTopic, name: h}, true)
			}
		}
	}
	c.Traffic = p.clusterTraffic(ref, key, name)
	p.say(topic{kind: clusterSink, name: key}, c)
}

// parseKey takes the key of a cluster, or a handle, apart.
func parseKey(key string) (ref diag.Ref, port int32) {
	key, _, _ = strings.Cut(key, "@")
	parts := strings.Split(key, "/")
	ref = refOf(parts[0], parts[1], parts[2])
	if len(parts) > 3 {
		n, _ := strconv.ParseInt(parts[3], 10, 32) // we wrote it
		port = int32(n)
	}
	return ref, port
}

// backend is the unit for the verdict about one Backend.
func (p *pass) backend() {
	ref := p.u.key.ref
	b, presence := objects.Get[*v1alpha1.Backend](p.view, ref.Namespace, ref.Name)
	if presence != objects.Present {
		p.gone = true
		return
	}
	v := newVerdict(ref, b)
	_, v.Faults = p.backendTLS(ref, b)
	if len(b.Spec.Endpoints) == 0 {
		v.fault("spec.endpoints", invalid, "", "there is no endpoint")
	}
	for i, e := range b.Spec.Endpoints {
		if bad := endpointProblem(e); bad != nil {
			v.fault(strings.TrimSuffix(fmt.Sprintf("spec.endpoints[%d].%s", i, bad.Path), "."), invalid, bad.Hint, "%s", bad.Msg)
		} else if what := p.t.forbidden(e.Address); what != "" {
			v.warn(fmt.Sprintf("spec.endpoints[%d].address", i), "backend_address_forbidden", "",
				"%s is a %s address: it is dialled only where backendAddresses of GatewayParameters allows it", e.Address, what)
		}
	}
	v.annotations(b)
	v.acceptIfFaultless()
	v.Ours = true
	p.verdict(v)
}

// forbidden says of what sort an address is that backends may not have, "" if it may.
func (t *Translator) forbidden(address string) string {
	ip, err := netip.ParseAddr(address)
	switch {
	case err != nil:
		return ""
	case ip.Unmap().IsLoopback() && !t.o.Loopback:
		return "loopback"
	case ip.Unmap().IsLinkLocalUnicast():
		return "link-local"
	case ip.Unmap().IsUnspecified():
		return "unspecified"
	case ip.Unmap().IsMulticast():
		return "multicast"
	}
	return ""
}

// endpointProblem is what is wrong with an endpoint of a Backend: it is not used then. Nil: nothing.
func endpointProblem(e v1alpha1.BackendEndpoint) *diag.Problem {
	if (e.Address == "") == (e.Hostname == "") {
		return &diag.Problem{Msg: "exactly one of address and hostname must be set"}
	}
	if _, err := netip.ParseAddr(e.Address); e.Address != "" && err != nil {
		return &diag.Problem{Path: "address", Msg: fmt.Sprintf("%q is not an IP address", e.Address), Hint: "a DNS name goes into hostname"}
	}
	if e.Port < 1 || e.Port > 65535 {
		return &diag.Problem{Path: "port", Msg: fmt.Sprintf("%d is not a port", e.Port)}
	}
	return nil
}

// endpoints is the unit for the endpoints of one cluster.
func (p *pass) endpoints() {
	c := hear[*ir.Cluster](p, topic{kind: clusterSink, name: p.u.key.name})
	if c == nil {
		p.gone = true
		return
	}
	p.say(topic{kind: endpointsSink, name: c.Key}, Endpoints(p.view, c))
}

// Endpoints lists the endpoints of a cluster that take requests, or would if no better one did, sorted by host and port.
func Endpoints(v *objects.View, c *ir.Cluster) []ir.Endpoint {
	ref, port := parseKey(c.Key)
	out := []ir.Endpoint{}
	if ref.Kind == "Backend" {
		b, presence := objects.Get[*v1alpha1.Backend](v, ref.Namespace, ref.Name)
		if presence != objects.Present {
			return out
		}
		for _, e := range b.Spec.Endpoints {
			if endpointProblem(e) == nil {
				out = append(out, ir.Endpoint{Host: cmp.Or(e.Address, e.Hostname), Port: uint16(e.Port), Ready: true, Serving: true})
			}
		}
		return sortEndpoints(out)
	}
	s, presence := objects.Get[*corev1.Service](v, ref.Namespace, ref.Name)
	if presence != objects.Present {
		return out
	}
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return append(out, ir.Endpoint{Host: strings.TrimSuffix(s.Spec.ExternalName, "."), Port: externalPort(s, port), Ready: true, Serving: true})
	}
	byFamily := map[discoveryv1.AddressType][]ir.Endpoint{}
	for _, es := range objects.List[*discoveryv1.EndpointSlice](v, objects.ByService, ref.Namespace+"/"+ref.Name) {
		if n := slicePort(s, es, port); n != 0 {
			byFamily[es.AddressType] = appendSlice(byFamily[es.AddressType], es, n)
		}
	}
	return sortEndpoints(append(out, family(s, byFamily)...))
}

// family picks the endpoints of one address family: of a dual-stack Service each pod has an address of both, and counts once.
func family(s *corev1.Service, all map[discoveryv1.AddressType][]ir.Endpoint) []ir.Endpoint {
	order := []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6, discoveryv1.AddressTypeFQDN}
	if len(s.Spec.IPFamilies) > 0 && s.Spec.IPFamilies[0] == corev1.IPv6Protocol {
		order[0], order[1] = order[1], order[0]
	}
	var rest []ir.Endpoint
	for _, f := range order {
		if slices.ContainsFunc(all[f], func(e ir.Endpoint) bool { return e.Ready }) {
			return all[f]
		}
		if rest == nil {
			rest = all[f]
		}
	}
	return rest
}

// externalPort is the port to dial for a port of a Service of type ExternalName: its numeric targetPort, if it has one.
func externalPort(s *corev1.Service, port int32) uint16 {
	for _, sp := range s.Spec.Ports {
		if sp.Port == port && sp.TargetPort.Type == intstr.Int && sp.TargetPort.IntVal > 0 && sp.TargetPort.IntVal <= 65535 {
			return uint16(sp.TargetPort.IntVal)
		}
	}
	return uint16(port)
}

// slicePort is the port of a slice that a port of its Service stands for, 0 if it has none.
func slicePort(s *corev1.Service, es *discoveryv1.EndpointSlice, port int32) uint16 {
	i := slices.IndexFunc(s.Spec.Ports, func(sp corev1.ServicePort) bool {
		return sp.Port == port && (sp.Protocol == "" || sp.Protocol == corev1.ProtocolTCP)
	})
	if i < 0 {
		return 0
	}
	only := len(s.Spec.Ports) == 1 && len(es.Ports) == 1 // written by hand: the name may be missing on one side
	for _, ep := range es.Ports {
		name := ""
		if ep.Name != nil {
			name = *ep.Name
		}
		if (name == s.Spec.Ports[i].Name || only) && ep.Port != nil && *ep.Port > 0 && *ep.Port <= 65535 &&
			(ep.Protocol == nil || *ep.Protocol == corev1.ProtocolTCP) {
			return uint16(*ep.Port)
		}
	}
	return 0
}

// appendSlice adds a slice's endpoints. An absent condition counts as ready (discovery/v1).
func appendSlice(out []ir.Endpoint, es *discoveryv1.EndpointSlice, port uint16) []ir.Endpoint {
	for _, e := range es.Endpoints {
		ready := e.Conditions.Ready == nil || *e.Conditions.Ready
		serving := ready
		if e.Conditions.Serving != nil {
			serving = *e.Conditions.Serving
		}
		terminating := e.Conditions.Terminating != nil && *e.Conditions.Terminating
		if !ready && !(serving && terminating) {
			continue
		}
		zone := ""
		if e.Zone != nil {
			zone = *e.Zone
		}
		var forZones []string
		if e.Hints != nil {
			for _, z := range e.Hints.ForZones {
				forZones = append(forZones, z.Name)
			}
		}
		for _, a := range e.Addresses {
			out = append(out, ir.Endpoint{Host: a, Port: port, Zone: zone, ForZones: forZones, Ready: ready, Serving: serving || ready})
		}
	}
	return out
}

// sortEndpoints sorts by host and port and leaves out repeats; of two for one address the ready one stays.
func sortEndpoints(es []ir.Endpoint) []ir.Endpoint {
	slices.SortFunc(es, func(a, b ir.Endpoint) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Port, b.Port), compareBool(a.Ready, b.Ready), cmp.Compare(a.Zone, b.Zone))
	})
	return slices.CompactFunc(es, func(a, b ir.Endpoint) bool { return a.Host == b.Host && a.Port == b.Port })
}

// secret is the unit for one handle that something names.
func (p *pass) secret() {
	handle := p.u.key.name
	if len(hearAll[bool](p, topic{kind: secretTopic, name: handle})) == 0 {
		p.gone = true
		return
	}
	switch m, pend := material(p.view, handle); {
	case pend:
		ref, _ := parseKey(handle)
		p.say(topic{kind: pendingSink, name: handle}, objects.Key{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name})
	case m != nil:
		p.say(topic{kind: secretSink, name: handle}, m)
	}
}

// material is what a handle stands for, nil if it is not there or pending.
func material(v *objects.View, handle string) (m *secret.Material, pend bool) {
	ref, _ := parseKey(handle)
	if ref.Kind == "ConfigMap" {
		c, presence := objects.Get[*corev1.ConfigMap](v, ref.Namespace, ref.Name)
		if presence != objects.Present {
			return nil, false
		}
		out := &secret.Material{Type: "ConfigMap", Data: map[string]secret.Value{}}
		for k, s := range c.Data {
			out.Data[k] = secret.New([]byte(s))
		}
		return out, false
	}
	s, presence := objects.Get[*objects.Secret](v, ref.Namespace, ref.Name)
	if presence != objects.Present {
		return nil, presence == objects.Pending
	}
	return &s.Material, false
}

// Secrets is the material of those of handles that are there, and the objects whose bodies are not known yet.
func Secrets(v *objects.View, handles []string) (set secret.Set, pend []objects.Key) {
	set = secret.Set{}
	for _, h := range handles {
		m, isPending := material(v, h)
		if m != nil {
			set[h] = m
		} else if isPending {
			ref, _ := parseKey(h)
			pend = append(pend, objects.Key{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name})
		}
	}
	return set, pend
}
