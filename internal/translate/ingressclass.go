package translate

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// The listeners of an IngressClass.
const (
	httpListener  = "http"
	httpsListener = "https"
)

// classDetail is what the listeners of an IngressClass need beside the certificates of its Ingresses.
type classDetail struct {
	Created     time.Time
	Certificate string // the default one's handle
	HTTP, HTTPS []ir.Bind
	Backends    []netip.Prefix
}

// classCertificate is a certificate that an Ingress wants, and what its order depends on.
type classCertificate struct {
	Created     time.Time
	Certificate ir.Certificate
}

// ingressClass is the unit for one IngressClass: to Ingresses it is what a Gateway is to routes.
func (p *pass) ingressClass() {
	ref := p.u.key.ref
	class, presence := objects.Get[*networkingv1.IngressClass](p.view, "", ref.Name)
	if presence != objects.Present {
		p.gone = true
		return
	}
	if class.Spec.Controller != p.t.o.IngressController {
		if r := class.Spec.Parameters; r != nil {
			p.say(topic{kind: parametersTopic, ref: parametersOfIngressClass(r)}, false)
		}
		return
	}
	v := newVerdict(ref, class)
	params := &parameters{}
	if r := class.Spec.Parameters; r != nil {
		read, bad := p.ingressParameters(ref, r)
		if bad != nil {
			v.fault("spec.parameters", bad.reason, bad.hint, "%s", bad.message)
			params.Unknown = true
		} else {
			params = read
		}
	}
	v.annotations(class)
	v.Ours = true
	e := p.expose(ref, params)
	e.wantPort(int32(p.t.o.HTTPPort))
	e.wantPort(int32(p.t.o.HTTPSPort))
	v.Exposure, v.Addresses = e.wanted(), e.addresses(nil)
	p.verdict(v)
	http := attachPoint{Key: keyOf(ref, httpListener), Name: httpListener, Protocol: ir.HTTP, Port: int32(p.t.o.HTTPPort), Live: true, Required: params.Required}
	https := attachPoint{Key: keyOf(ref, httpsListener), Name: httpsListener, Protocol: ir.HTTPS, Port: int32(p.t.o.HTTPSPort), Live: true, HSTS: params.HSTS,
		Required: params.Required}
	if params.Redirect == nil || *params.Redirect {
		by := sourceOf(ref, "httpsRedirect by default")
		if params.Redirect != nil {
			by = params.RedirectBy
		}
		http.Redirect = &redirect{p.t.o.HTTPSPort, by}
	}
	p.say(topic{kind: attachTopic, ref: ref}, &attachment{Listeners: []attachPoint{http, https}, Addresses: v.Addresses})
	p.say(topic{kind: classTopic, name: ref.Name}, &classDetail{class.CreationTimestamp.UTC(), params.Certificate,
		e.binds(p.t.o.HTTPPort), e.binds(p.t.o.HTTPSPort), params.Backends})
	if params.Certificate != "" {
		p.say(topic{kind: secretTopic, name: params.Certificate}, true)
	}
}

// parametersOfIngressClass is what spec.parameters of an IngressClass names.
func parametersOfIngressClass(r *networkingv1.IngressClassParametersReference) diag.Ref {
	to := diag.Ref{Kind: r.Kind, Name: r.Name}
	if r.APIGroup != nil {
		to.Group = *r.APIGroup
	}
	if r.Namespace != nil {
		to.Namespace = *r.Namespace
	}
	return to
}

// ingressParameters follows spec.parameters of an IngressClass.
func (p *pass) ingressParameters(from diag.Ref, r *networkingv1.IngressClassParametersReference) (*parameters, *refusal) {
	to := parametersOfIngressClass(r)
	if to.Namespace == "" {
		return nil, &refusal{invalidParameters, "the namespace is missing", "GatewayParameters have a namespace: write scope: Namespace and namespace"}
	}
	return p.parametersOf(from, "spec.parameters", to)
}

// classListeners is the unit for the two listeners of an IngressClass.
func (p *pass) classListeners() {
	name := p.u.key.name
	details := hearAll[*classDetail](p, topic{kind: classTopic, name: name})
	if len(details) == 0 {
		p.gone = true
		return
	}
	d := details[0]
	ref := refOf("IngressClass", "", name)
	http := &ir.Listener{Key: keyOf(ref, httpListener), Source: sourceOf(ref, ""), Group: keyOf(ref), Port: p.t.o.HTTPPort,
		Binds: d.HTTP, Protocol: ir.HTTP, Created: d.Created,
		Client: p.clientPolicy(ref, httpListener), Backends: d.Backends, Steps: p.unmatched(ref, httpListener)}
	https := &ir.Listener{Key: keyOf(ref, httpsListener), Source: sourceOf(ref, ""), Group: keyOf(ref), Port: p.t.o.HTTPSPort,
		Binds: d.HTTPS, Protocol: ir.HTTPS, Created: d.Created,
		Client: p.clientPolicy(ref, httpsListener), TLS: &ir.TLS{Certificates: p.classCertificates(name), Default: d.Certificate},
		Backends: d.Backends, Steps: p.unmatched(ref, httpsListener)}
	p.say(topic{kind: listenerSink, name: http.Key}, http)
	p.say(topic{kind: listenerSink, name: https.Key}, https)
}

// classCertificates lists the certificates that Ingresses of a class want, those of the oldest Ingress first.
func (p *pass) classCertificates(name string) []ir.Certificate {
	var all []classCertificate
	for _, some := range hearAll[[]classCertificate](p, topic{kind: certificateTopic, name: name}) {
		all = append(all, some...)
	}
	slices.SortFunc(all, func(a, b classCertificate) int {
		sa, sb := a.Certificate.Source, b.Certificate.Source
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(sa.Namespace, sb.Namespace), cmp.Compare(sa.Name, sb.Name),
			cmp.Compare(len(sa.Field), len(sb.Field)), cmp.Compare(sa.Field, sb.Field))
	})
	out := []ir.Certificate{}
	have := map[string]bool{}
	for _, c := range all {
		k := c.Certificate.Handle + " " + strings.Join(c.Certificate.Hosts, " ")
		if c.Certificate.Handle == "" || !have[k] {
			have[k] = true
			out = append(out, c.Certificate)
		}
	}
	return out
}
