package translate

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// parameters are what GatewayParameters say, the nearest first.
type parameters struct {
	Redirect    *bool
	RedirectBy  ir.Source
	HSTS        *lowered
	Certificate string // handle, "" none
	Exposure    string // "" not said
	Unknown     bool   // some could not be read: what they say of the Service may be costly to miss
	Service     v1alpha1.ServiceParameters
	Backends    []netip.Prefix // nil: not said
	Required    []required     // of all parameters together: the nearest cannot lift what others demand
}

// required is a kind of policy that has to reach every route, and who says so.
type required struct {
	Kind string
	By   ir.Source
}

// lay fills what q, which is farther away, says and p does not.
func (q *parameters) lay(far *parameters) {
	if q.Redirect == nil {
		q.Redirect, q.RedirectBy = far.Redirect, far.RedirectBy
	}
	if q.HSTS == nil {
		q.HSTS = far.HSTS
	}
	if q.Certificate == "" {
		q.Certificate = far.Certificate
	}
	q.Unknown = q.Unknown || far.Unknown
	q.Exposure = cmp.Or(q.Exposure, far.Exposure)
	q.Service.Type = cmp.Or(q.Service.Type, far.Service.Type)
	q.Service.LoadBalancerClass = cmp.Or(q.Service.LoadBalancerClass, far.Service.LoadBalancerClass)
	q.Service.ExternalTrafficPolicy = cmp.Or(q.Service.ExternalTrafficPolicy, far.Service.ExternalTrafficPolicy)
	if q.Backends == nil {
		q.Backends = far.Backends
	}
	for _, r := range far.Required {
		if !slices.ContainsFunc(q.Required, func(have required) bool { return have.Kind == r.Kind }) {
			q.Required = append(slices.Clip(q.Required), r)
		}
	}
	if q.Service.Annotations == nil {
		q.Service.Annotations = far.Service.Annotations
	}
}

// parametersOf reads what a parametersRef names. Parameters with a fault are not applied; their own verdict says so.
func (p *pass) parametersOf(from diag.Ref, field string, to diag.Ref) (*parameters, *refusal) {
	p.say(topic{kind: parametersTopic, ref: to}, true)
	if r := p.resolve(from, field, to); r != nil {
		return nil, r
	}
	o, presence := objects.Get[*v1alpha1.GatewayParameters](p.view, to.Namespace, to.Name)
	if presence != objects.Present {
		names := namesIn[*v1alpha1.GatewayParameters](p.view, to.Namespace)
		return nil, &refusal{invalidParameters, "there is no " + to.String(), didYouMean(to.Name, names)}
	}
	out, faults := p.read(o)
	for _, f := range faults {
		if f.Severity == diag.Error && f.Reason != invalidCertificateRef {
			return &parameters{Required: out.Required}, nil // not applied, but for what keeps routes closed
		}
	}
	return out, nil
}

// read checks GatewayParameters and returns what they say.
func (p *pass) read(o *v1alpha1.GatewayParameters) (*parameters, []diag.Fault) {
	ref := refOf("GatewayParameters", o.Namespace, o.Name)
	v := newVerdict(ref, o)
	out := &parameters{Redirect: o.Spec.HTTPSRedirect}
	if out.Redirect != nil {
		out.RedirectBy = sourceOf(ref, "spec.httpsRedirect")
	}
	for i, kind := range o.Spec.RequirePolicies {
		at := fmt.Sprintf("spec.requirePolicies[%d]", i)
		if v.enum(at, kind, bundleKinds()...) != "" {
			out.Required = append(out.Required, required{kind, sourceOf(ref, at)})
		}
	}
	if h := o.Spec.HSTS; h != nil {
		out.HSTS = p.hsts(v, h)
	}
	if c := o.Spec.DefaultCertificateRef; c != nil {
		handle, r := p.certificate(ref, "spec.defaultCertificateRef", *c)
		if r != nil {
			v.fault("spec.defaultCertificateRef", invalidCertificateRef, r.hint, "%s", r.message)
		}
		out.Certificate = handle
	}
	if i := o.Spec.Infrastructure; i != nil {
		v.enum("spec.infrastructure.mode", i.Mode, "Shared")
		out.Exposure = v.enum("spec.infrastructure.exposure", i.Exposure, ExposureService, ExposureHost)
		if i.Service != nil {
			out.Service = *i.Service
			out.Service.Type = v.enum("spec.infrastructure.service.type", i.Service.Type, "LoadBalancer", "NodePort", "ClusterIP")
			out.Service.ExternalTrafficPolicy = v.enum("spec.infrastructure.service.externalTrafficPolicy", i.Service.ExternalTrafficPolicy, "Cluster", "Local")
		}
		if p.t.o.Namespace == "" && out.Exposure == ExposureService {
			v.warn("spec.infrastructure.exposure", "", "sockets are bound as with Host", "Service has no effect without a cluster")
			out.Exposure = ""
		}
	}
	if b := o.Spec.BackendAddresses; b != nil {
		out.Backends = []netip.Prefix{}
		for i, n := range b.Allow {
			net, err := netip.ParsePrefix(n)
			if err != nil {
				v.fault(fmt.Sprintf("spec.backendAddresses.allow[%d]", i), invalid, "write 169.254.20.10/32", "%q is not a network", n)
				continue
			}
			out.Backends = append(out.Backends, net.Masked())
		}
	}
	v.annotations(o)
	return out, v.Faults
}

// hsts lowers the field of that name.
func (p *pass) hsts(v verdict, h *v1alpha1.HSTS) *lowered {
	step := p.t.steps.field("GatewayParameters", "hsts")
	if step == nil {
		v.fault("spec.hsts", invalid, "", "is not supported")
		return nil
	}
	l, err := lower(step, mustJSON(h), ir.Source{}, sourceOf(v.Ref, "spec.hsts"), gatewayLevel)
	if err != nil {
		for _, bad := range diag.Problems("spec.hsts", err) {
			v.fault(bad.Path, invalid, bad.Hint, "%s", bad.Msg)
		}
		return nil
	}
	return &l
}

// parameters is the unit for the verdict about GatewayParameters. Those that only objects of other controllers name are not ours to judge:
// two installations that see different things would write the same condition in turn.
func (p *pass) parameters() {
	ref := p.u.key.ref
	o, presence := objects.Get[*v1alpha1.GatewayParameters](p.view, ref.Namespace, ref.Name)
	if presence != objects.Present {
		p.gone = true
		return
	}
	v := newVerdict(ref, o)
	_, v.Faults = p.read(o)
	named := hearAll[bool](p, topic{kind: parametersTopic, ref: ref})
	if v.Ours = len(named) == 0 || slices.Contains(named, true); v.Ours {
		v.acceptIfFaultless()
	}
	p.verdict(v)
}

// acceptIfFaultless adds the condition Accepted of an object that attaches to nothing.
func (v verdict) acceptIfFaultless() {
	for _, f := range v.Faults {
		if f.Severity == diag.Error {
			v.add(accepted, false, invalid, f.Text())
			return
		}
	}
	v.add(accepted, true, accepted, "")
}

// handleOf names a Secret or ConfigMap on the data side.
func handleOf(r diag.Ref) string { return r.Kind + "/" + r.Namespace + "/" + r.Name }

// pairState is what is known about a Secret as a certificate with its key.
type pairState struct {
	Pending bool
	Problem string // "" it holds a pair
}

// pair is the unit that looks into one Secret, so that one that changes its pair wakes nobody who only names it.
func (p *pass) pair() {
	ref := p.u.key.ref
	s, presence := objects.Get[*objects.Secret](p.view, ref.Namespace, ref.Name)
	if presence == objects.Absent {
		p.gone = true
		return
	}
	st := pairState{Pending: presence == objects.Pending}
	if !st.Pending {
		crt, key := s.Material.Data["tls.crt"], s.Material.Data["tls.key"]
		switch {
		case s.Problem != "":
			st.Problem = s.Problem
		case crt.Len() == 0:
			st.Problem = "has no tls.crt"
		case key.Len() == 0:
			st.Problem = "has no tls.key"
		default:
			if _, err := tls.X509KeyPair(crt.Reveal(), key.Reveal()); err != nil {
				st.Problem = "holds no usable pair: " + strings.TrimPrefix(err.Error(), "tls: ")
			}
		}
	}
	p.say(topic{kind: pairTopic, name: handleOf(ref)}, st)
}

// certificate follows a reference to a Secret of type kubernetes.io/tls. A Secret that is there has a handle even if its
// pair does not parse: the data side keeps the one that it has.
func (p *pass) certificate(from diag.Ref, field string, c gatewayv1.SecretObjectReference) (handle string, r *refusal) {
	to := diag.Ref{Kind: "Secret", Namespace: from.Namespace, Name: string(c.Name)}
	if c.Kind != nil {
		to.Kind = string(*c.Kind)
	}
	if c.Group != nil {
		to.Group = string(*c.Group)
	}
	if c.Namespace != nil {
		to.Namespace = string(*c.Namespace)
	}
	if r := p.resolve(from, field, to); r != nil {
		if r.reason == invalidKind {
			r.reason = invalidCertificateRef
		}
		return "", r
	}
	return p.pairOf(to)
}

func (p *pass) pairOf(to diag.Ref) (handle string, r *refusal) {
	handle = handleOf(to)
	states := hearAll[pairState](p, topic{kind: pairTopic, name: handle})
	if len(states) == 0 {
		hint := didYouMean(to.Name, namesIn[*objects.Secret](p.view, to.Namespace))
		return "", &refusal{invalidCertificateRef, "there is no " + to.String(), hint}
	}
	if states[0].Problem != "" {
		return handle, &refusal{invalidCertificateRef, to.String() + " " + states[0].Problem, ""}
	}
	return handle, nil
}
