package translate

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// Values of Options.Exposure and of GatewayParameters' infrastructure.exposure.
const (
	ExposureService = "Service"
	ExposureHost    = "Host"
)

// exposure is how clients reach one Gateway or IngressClass.
type exposure struct {
	p       *pass
	params  *parameters
	Want    *diag.Exposure  // nil: exposure Host
	service *corev1.Service // as it is now, nil: not made yet
}

// expose reads how ref is reached. A Service is wanted in the namespace of the installation; which port of the pods stands behind
// a port of it is read from the Service as it is: infra allocates it once.
func (p *pass) expose(ref diag.Ref, params *parameters) *exposure {
	e := &exposure{p: p, params: params}
	if p.t.o.Namespace == "" || cmp.Or(params.Exposure, p.t.o.Exposure) != ExposureService {
		return e
	}
	s := &params.Service
	e.Want = &diag.Exposure{Service: serviceName(ref), Type: cmp.Or(s.Type, string(corev1.ServiceTypeLoadBalancer)), Class: s.LoadBalancerClass,
		TrafficPolicy: s.ExternalTrafficPolicy, Annotations: maps.Clone(s.Annotations)}
	if e.Want.Type == string(corev1.ServiceTypeClusterIP) {
		e.Want.TrafficPolicy = ""
	}
	if found, presence := objects.Get[*corev1.Service](p.view, p.t.o.Namespace, e.Want.Service); presence == objects.Present {
		e.service = found
	}
	return e
}

// serviceName is short, so that the names which load balancers make of it are too, and the same for ever.
func serviceName(ref diag.Ref) string {
	sum := sha256.Sum256([]byte(ref.Kind + "/" + ref.Namespace + "/" + ref.Name))
	return "gh-" + hex.EncodeToString(sum[:5])
}

// wanted is the Service for infra to make: nil for none, and one to be left as it is while the parameters are not known. A load balancer
// made by default because its parameters come a moment later, or have a typing error in their name, costs money and has an address.
func (e *exposure) wanted() *diag.Exposure {
	switch {
	case e.Want == nil || len(e.Want.Ports) == 0: // a Service without ports cannot be
		return nil
	case e.params.Unknown:
		return &diag.Exposure{Service: e.Want.Service, Keep: true}
	}
	return e.Want
}

// infrastructure adds what a Gateway asks of what is made for it (spec.infrastructure).
func (e *exposure) infrastructure(i *gatewayv1.GatewayInfrastructure) {
	if e.Want == nil || i == nil {
		return
	}
	for k, v := range i.Labels {
		if e.Want.Labels == nil {
			e.Want.Labels = map[string]string{}
		}
		e.Want.Labels[string(k)] = string(v)
	}
	for k, v := range i.Annotations {
		if e.Want.Annotations == nil {
			e.Want.Annotations = map[string]string{}
		}
		e.Want.Annotations[string(k)] = string(v)
	}
}

// wantPort adds a port that clients use.
func (e *exposure) wantPort(port int32) {
	if e.Want != nil && !slices.Contains(e.Want.Ports, port) {
		e.Want.Ports = append(e.Want.Ports, port)
		slices.Sort(e.Want.Ports)
	}
}

// binds are the sockets for a port that clients use; none while the Service does not say which.
func (e *exposure) binds(port uint16) []ir.Bind {
	address := e.p.t.o.BindAddress
	if e.Want == nil {
		return []ir.Bind{{Address: address, Port: port}}
	}
	if e.service == nil {
		return nil
	}
	for _, sp := range e.service.Spec.Ports {
		if sp.Port == int32(port) && sp.Protocol != corev1.ProtocolUDP && sp.TargetPort.Type == intstr.Int && sp.TargetPort.IntVal > 0 && sp.TargetPort.IntVal <= 65535 {
			return []ir.Bind{{Address: address, Port: uint16(sp.TargetPort.IntVal)}}
		}
	}
	return nil
}

// addresses are those at which clients reach it, own those that it was given itself.
func (e *exposure) addresses(own []diag.Address) []diag.Address {
	switch {
	case e.service != nil:
		return serviceAddresses(e.service)
	case e.Want != nil:
		return nil
	case len(own) > 0:
		return own
	}
	o := &e.p.t.o
	if o.Publish != "" {
		namespace, name, _ := strings.Cut(o.Publish, "/")
		if s, presence := objects.Get[*corev1.Service](e.p.view, namespace, name); presence == objects.Present {
			return serviceAddresses(s)
		}
		return nil
	}
	var out []diag.Address
	for _, a := range o.HostAddresses {
		out = append(out, diag.Address{Type: string(gatewayv1.IPAddressType), Value: a})
	}
	return out
}

// serviceAddresses are the addresses at which a Service can be reached.
func serviceAddresses(s *corev1.Service) []diag.Address {
	var out []diag.Address
	add := func(kind gatewayv1.AddressType, value string) {
		a := diag.Address{Type: string(kind), Value: value}
		if value != "" && value != corev1.ClusterIPNone && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	for _, ip := range s.Spec.ExternalIPs {
		add(gatewayv1.IPAddressType, ip)
	}
	if s.Spec.Type == corev1.ServiceTypeLoadBalancer {
		for _, i := range s.Status.LoadBalancer.Ingress {
			add(gatewayv1.IPAddressType, i.IP)
			add(gatewayv1.HostnameAddressType, i.Hostname)
		}
		return out
	}
	for _, ip := range s.Spec.ClusterIPs {
		add(gatewayv1.IPAddressType, ip)
	}
	return out
}

// unreached says why clients cannot reach it yet, "" if nothing is known that hinders them.
func (e *exposure) unreached() (reason, message string) {
	if e.Want == nil {
		return "", ""
	}
	name := "Service " + e.p.t.o.Namespace + "/" + e.Want.Service
	if e.service == nil {
		return pending, name + " is not made yet"
	}
	have := serviceAddresses(e.service)
	if len(have) == 0 {
		hint := ""
		if e.Want.Type == string(corev1.ServiceTypeLoadBalancer) {
			hint = " (if no load balancer serves this cluster, GatewayParameters can set infrastructure.service.type: NodePort, or exposure: Host)"
		}
		return "AddressNotAssigned", fmt.Sprintf("%s of type %s has no address yet%s", name, e.service.Spec.Type, hint)
	}
	if a := e.Want.Address; a != "" && !slices.ContainsFunc(have, func(h diag.Address) bool { return h.Value == a }) {
		return "AddressNotUsable", fmt.Sprintf("%s was given %s, not %s", name, have[0].Value, a)
	}
	return "", ""
}
