package translate

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// backendTLS is one BackendTLSPolicy at one target.
type backendTLS struct {
	Policy diag.Ref
	TLS    *ir.BackendTLS // of a faulty policy it trusts nobody: requests are refused, never sent in the clear
}

const (
	invalidCACertificateRef = "InvalidCACertificateRef"
	noValidCACertificate    = "NoValidCACertificate"
)

// backendTLS turns a Backend's TLS into the IR's terms. What cannot be resolved is left out, so that no chain verifies.
func (p *pass) backendTLS(ref diag.Ref, b *v1alpha1.Backend) (*ir.BackendTLS, []diag.Fault) {
	t := b.Spec.TLS
	if t == nil {
		return nil, nil
	}
	v := newVerdict(ref, b)
	out := &ir.BackendTLS{Hostname: t.Hostname}
	if t.Hostname == "" {
		v.fault("spec.tls.hostname", invalid, "it is sent as server name and must be in the certificate", "is missing")
	}
	out.System = v.enum("spec.tls.wellKnownCACertificates", t.WellKnownCACertificates, "System") != ""
	out.CAs = p.authorities(v, "spec.tls.caCertificateRefs", t.CACertificateRefs)
	if !out.System && len(t.CACertificateRefs) == 0 {
		v.fault("spec.tls", invalid, "set wellKnownCACertificates: System, or caCertificateRefs", "nobody is trusted")
	}
	if c := t.ClientCertificateRef; c != nil {
		handle, r := p.certificate(ref, "spec.tls.clientCertificateRef", *c)
		if r != nil {
			v.fault("spec.tls.clientCertificateRef", r.reason, r.hint, "%s", r.message)
		}
		out.ClientID = handle
	}
	return out, v.Faults
}

// tlsOf turns a BackendTLSPolicy (GEP-1897) into the IR's terms. What cannot be resolved is left out, so that no chain verifies.
func (p *pass) tlsOf(o *gatewayv1.BackendTLSPolicy) (*ir.BackendTLS, []diag.Fault) {
	ref := refOf("BackendTLSPolicy", o.Namespace, o.Name)
	v := newVerdict(ref, o)
	s := &o.Spec.Validation
	out := &ir.BackendTLS{Hostname: string(s.Hostname)}
	if s.Hostname == "" {
		v.fault("spec.validation.hostname", invalid, "it is sent as server name and, without subjectAltNames, must be in the certificate", "is missing")
	}
	if w := s.WellKnownCACertificates; w != nil {
		out.System = v.enum("spec.validation.wellKnownCACertificates", string(*w), "System") != ""
	}
	out.CAs = p.authorities(v, "spec.validation.caCertificateRefs", s.CACertificateRefs)
	if !out.System && len(s.CACertificateRefs) == 0 && s.WellKnownCACertificates == nil {
		v.fault("spec.validation", invalid, "set wellKnownCACertificates: System, or caCertificateRefs", "nobody is trusted")
	}
	for i, n := range s.SubjectAltNames {
		path := fmt.Sprintf("spec.validation.subjectAltNames[%d]", i)
		switch {
		case n.Type == gatewayv1.HostnameSubjectAltNameType && n.Hostname != "":
			out.Names = append(out.Names, strings.ToLower(string(n.Hostname)))
		case n.Type == gatewayv1.URISubjectAltNameType && n.URI != "":
			out.URIs = append(out.URIs, string(n.URI))
		default:
			v.fault(path, invalid, "write {type: Hostname, hostname: a.example} or {type: URI, uri: spiffe://...}", "has no name of its type")
		}
	}
	if len(s.SubjectAltNames) > 0 && len(out.Names)+len(out.URIs) == 0 {
		out.CAs, out.System = nil, false // not one name would do: trust nobody, rather than the hostname that is not meant
	}
	for _, k := range sortedKeys(o.Spec.Options) {
		v.warn(fmt.Sprintf("spec.options[%s]", k), "", "", "is not known and has no effect")
	}
	v.annotations(o)
	return out, v.Faults
}

// authorities follows references to CA bundles and returns the handles of those that hold one.
func (p *pass) authorities(v verdict, field string, refs []gatewayv1.LocalObjectReference) (handles []string) {
	for i, c := range refs {
		path := fmt.Sprintf("%s[%d]", field, i)
		to := diag.Ref{Group: string(c.Group), Kind: string(c.Kind), Namespace: v.Ref.Namespace, Name: string(c.Name)}
		if r := p.resolve(v.Ref, field, to); r != nil {
			v.fault(path, r.reason, r.hint, "%s", r.message)
			continue
		}
		m, pend := material(p.view, handleOf(to))
		switch {
		case pend:
		case m == nil:
			v.fault(path, invalidCACertificateRef, "", "there is no %s", to)
			continue
		case m.Data["ca.crt"].Len() == 0:
			v.fault(path, invalidCACertificateRef, "", "%s has no ca.crt", to)
			continue
		case !x509.NewCertPool().AppendCertsFromPEM(m.Data["ca.crt"].Reveal()):
			v.fault(path, invalidCACertificateRef, "", "ca.crt of %s holds no certificate in PEM", to)
			continue
		}
		handles = append(handles, handleOf(to))
	}
	return handles
}

// policyTLS is what a BackendTLSPolicy says about a port of a Service: one for the port, by its name, beats one for the whole.
func (p *pass) policyTLS(ref diag.Ref, s *corev1.Service, port int32) *ir.BackendTLS {
	t := hear[*target](p, topic{kind: targetTopic, name: targetNameOf(ref)})
	if t == nil || s == nil {
		return nil
	}
	if x := cmp.Or(t.TLS[portName(s, port)], t.TLS[""]); x != nil {
		return x.TLS
	}
	return nil
}

// portName is the name of a port of a Service, as policies name it in sectionName; "" if it has none.
func portName(s *corev1.Service, port int32) string {
	for _, sp := range s.Spec.Ports {
		if sp.Port == port {
			return sp.Name
		}
	}
	return ""
}

// mostAncestors is how many entries a policy's status may have.
const mostAncestors = 16

// tlsVerdict concludes about a BackendTLSPolicy. Its ancestors are the Gateways through which a route reaches a target.
func (p *pass) tlsVerdict(o *gatewayv1.BackendTLSPolicy) verdict {
	ref := refOf("BackendTLSPolicy", o.Namespace, o.Name)
	v := newVerdict(ref, o)
	t, faults := p.tlsOf(o)
	v.Faults = faults
	lost := map[diag.Ref][]string{} // by Gateway: why it does not hold for a target that the Gateway reaches
	reached := map[diag.Ref]int{}
	for i, r := range objects.TargetRefs(o) {
		path := fmt.Sprintf("spec.targetRefs[%d]", i)
		to := diag.Ref{Group: r.Group, Kind: r.Kind, Namespace: o.Namespace, Name: r.Name}
		bad := p.resolve(ref, "spec.targetRefs", to)
		if bad == nil {
			bad = p.findTarget(to, r.SectionName)
		}
		if bad == nil {
			if x := hear[*target](p, topic{kind: targetTopic, name: targetNameOf(to)}); x != nil && x.TLS[r.SectionName] != nil && x.TLS[r.SectionName].Policy != ref {
				bad = &refusal{conflicted, fmt.Sprintf("%s is attached to the same target and comes first", x.TLS[r.SectionName].Policy), ""}
			}
		}
		if bad != nil {
			v.fault(path, bad.reason, bad.hint, "%s", bad.message)
		}
		for _, gs := range hearAll[[]diag.Ref](p, topic{kind: reachTopic, ref: to}) {
			for _, g := range gs {
				reached[g] |= 1 << i
				if bad != nil {
					lost[g] = append(lost[g], bad.reason+"\x00"+text(path, bad.message, bad.hint))
				}
			}
		}
	}
	accept, resolved := p.tlsConditions(v, t)
	for g, targets := range reached {
		at := diag.Parent{Ref: g, Conditions: []diag.Condition{accept, resolved}}
		if why := compactSorted(lost[g]); len(why) > 0 && len(why) == ones(targets) {
			reason, message, _ := strings.Cut(why[0], "\x00")
			at.Conditions[0] = v.condition(accepted, false, reason, message)
		}
		v.Parents = append(v.Parents, at)
	}
	slices.SortFunc(v.Parents, func(a, b diag.Parent) int { return cmp.Compare(a.Ref.String(), b.Ref.String()) })
	if len(v.Parents) > mostAncestors {
		v.warn("spec.targetRefs", "", "", "is reached through %d Gateways: status tells of the first %d", len(v.Parents), mostAncestors)
		v.Parents = v.Parents[:mostAncestors]
	}
	v.Ours = true
	return v
}

// tlsConditions are Accepted and ResolvedRefs by what the policy itself says.
func (p *pass) tlsConditions(v verdict, t *ir.BackendTLS) (accept, resolved diag.Condition) {
	accept, resolved = v.condition(accepted, true, accepted, ""), v.condition(resolvedRefs, true, resolvedRefs, "")
	for _, f := range v.Faults {
		text := f.Text()
		switch {
		case f.Severity != diag.Error || strings.HasPrefix(f.Path, "spec.targetRefs"):
		case strings.HasPrefix(f.Path, "spec.validation.caCertificateRefs"):
			if resolved.Status {
				resolved = v.condition(resolvedRefs, false, f.Reason, text)
			}
			if accept.Status && len(t.CAs) == 0 {
				accept = v.condition(accepted, false, noValidCACertificate, text)
			}
		case accept.Status:
			accept = v.condition(accepted, false, invalid, text)
		}
	}
	return accept, resolved
}

func compactSorted(s []string) []string {
	slices.Sort(s)
	return slices.Compact(s)
}

func ones(bits int) (n int) {
	for ; bits != 0; bits &= bits - 1 {
		n++
	}
	return n
}
