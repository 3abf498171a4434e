package translate

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// policyVerdict is the unit for the verdict about one policy: what became of it at each of its targets. The ancestor that
// stands in its status is the target.
func (p *pass) policyVerdict() {
	ref := p.u.key.ref
	var o objects.Object
	var v verdict
	var btp *v1alpha1.BackendTrafficPolicy
	presence := objects.Absent
	switch ref.Kind {
	case "BackendTLSPolicy":
		if t, presence := objects.Get[*gatewayv1.BackendTLSPolicy](p.view, ref.Namespace, ref.Name); presence == objects.Present {
			p.verdict(p.tlsVerdict(t))
		} else {
			p.gone = true
		}
		return
	case "BackendTrafficPolicy":
		if btp, presence = objects.Get[*v1alpha1.BackendTrafficPolicy](p.view, ref.Namespace, ref.Name); presence == objects.Present {
			o = btp
			v = newVerdict(ref, o)
			_, v.Faults = trafficOf(btp)
		}
	case "ProtectionPolicy", "AuthPolicy", "RateLimitPolicy":
		if found, bad := p.bundlePolicy(ref); bad == nil {
			o, presence = found, objects.Present
			v = newVerdict(ref, o)
			for _, f := range p.bundle(o).Invalid {
				v.fault(f.Path, invalid, f.Hint, "%s", f.Msg)
			}
		}
	case "ClientTrafficPolicy":
		var cp *v1alpha1.ClientTrafficPolicy
		if cp, presence = objects.Get[*v1alpha1.ClientTrafficPolicy](p.view, ref.Namespace, ref.Name); presence == objects.Present {
			o = cp
			v = newVerdict(ref, o)
			_, v.Faults = clientOf(cp)
		}
	}
	if presence != objects.Present {
		p.gone = true
		return
	}
	problem := "" // what is wrong with it wherever it is attached
	if len(v.Faults) > 0 {
		problem = v.Faults[0].Text()
	}
	v.annotations(o)
	if cp, ok := o.(*v1alpha1.ClientTrafficPolicy); ok {
		v.notYet(cp)
	}
	for i, r := range objects.TargetRefs(o) {
		if btp != nil && r.Kind != "Service" && r.Kind != "Backend" {
			for _, f := range onlyService(btp) {
				v.warn("spec."+f, "", "attach it to the Service or Backend", "has no effect on %s %s", r.Kind, r.Name)
			}
		}
		p.policyAt(v, i, r, o.GetNamespace(), problem)
	}
	v.Ours = true
	p.verdict(v)
}

// policyAt concludes about a policy at one target.
func (p *pass) policyAt(v verdict, i int, r v1alpha1.TargetRef, namespace, problem string) {
	path := fmt.Sprintf("spec.targetRefs[%d]", i)
	to := diag.Ref{Group: r.Group, Kind: r.Kind, Name: r.Name, Namespace: namespace}
	if r.Kind == "IngressClass" || r.Kind == "GatewayClass" {
		to.Namespace = ""
	}
	at := diag.Parent{Ref: to, SectionName: r.SectionName}
	conclude := func(status bool, reason, message string) {
		at.Conditions = []diag.Condition{v.condition(accepted, status, reason, message)}
		v.Parents = append(v.Parents, at)
	}
	bad := p.resolve(v.Ref, "spec.targetRefs", to)
	if bad != nil && bad.reason == invalidKind {
		bad.reason = targetNotFound // the only reason of GEP-713 that fits a kind which is not served
	}
	if bad == nil {
		bad = p.findTarget(to, r.SectionName)
	}
	if bad != nil {
		v.fault(path, bad.reason, bad.hint, "%s", bad.message)
		conclude(false, bad.reason, text(path, bad.message, bad.hint))
		return
	}
	if p.foreign(to) {
		return
	}
	winner := v.Ref
	if t := hear[*target](p, topic{kind: targetTopic, name: targetNameOf(to)}); t != nil {
		if a := t.Bundles[v.Ref.Kind][r.SectionName]; a != nil {
			winner = a.Policy
		}
		if c := t.Client[r.SectionName]; c != nil && v.Ref.Kind == "ClientTrafficPolicy" {
			winner = c.Policy
		}
		if x := t.Traffic[r.SectionName]; x != nil && v.Ref.Kind == "BackendTrafficPolicy" {
			winner = x.Policy
		}
	}
	switch {
	case winner != v.Ref:
		message := fmt.Sprintf("%s is attached to the same target and comes first", winner)
		v.fault(path, conflicted, "", "%s", message)
		conclude(false, conflicted, path+": "+message)
	case problem != "":
		conclude(false, invalid, problem)
	default:
		conclude(true, accepted, "")
		if slices.Contains(bundleKinds(), v.Ref.Kind) {
			last := &v.Parents[len(v.Parents)-1]
			last.Conditions = append(last.Conditions, p.programmedAt(v, to, r.SectionName))
		}
	}
}

// foreign says whether a target that is there belongs to another controller, or to nobody: what a policy does there is not ours to say.
func (p *pass) foreign(to diag.Ref) bool {
	ours := func(ref diag.Ref) bool { return hear[*attachment](p, topic{kind: attachTopic, ref: ref}) != nil }
	switch to.Kind {
	case "Gateway", "IngressClass":
		return !ours(to)
	case "Ingress":
		ing, _ := objects.Get[*networkingv1.Ingress](p.view, to.Namespace, to.Name)
		return !ours(refOf("IngressClass", "", p.classOf(ing, newVerdict(to, ing))))
	case "HTTPRoute":
		r, _ := objects.Get[*gatewayv1.HTTPRoute](p.view, to.Namespace, to.Name)
		return !slices.ContainsFunc(r.Spec.ParentRefs, func(ref gatewayv1.ParentReference) bool {
			return ours(parentOf(r.Namespace, &ref))
		})
	}
	return false
}

// findTarget says why a target is not there.
func (p *pass) findTarget(to diag.Ref, section string) *refusal {
	var names, sections []string
	found := false
	switch to.Kind {
	case "Gateway":
		gw, presence := objects.Get[*gatewayv1.Gateway](p.view, to.Namespace, to.Name)
		if found = presence == objects.Present; found {
			for _, l := range gw.Spec.Listeners {
				sections = append(sections, string(l.Name))
			}
		} else {
			names = namesIn[*gatewayv1.Gateway](p.view, to.Namespace)
		}
	case "HTTPRoute":
		r, presence := objects.Get[*gatewayv1.HTTPRoute](p.view, to.Namespace, to.Name)
		if found = presence == objects.Present; found {
			for _, rule := range r.Spec.Rules {
				if rule.Name != nil {
					sections = append(sections, string(*rule.Name))
				}
			}
		} else {
			names = namesIn[*gatewayv1.HTTPRoute](p.view, to.Namespace)
		}
	case "IngressClass":
		_, presence := objects.Get[*networkingv1.IngressClass](p.view, "", to.Name)
		if found = presence == objects.Present; found {
			sections = []string{httpListener, httpsListener}
		} else {
			names = namesIn[*networkingv1.IngressClass](p.view, "")
		}
	case "Service":
		s, presence := objects.Get[*corev1.Service](p.view, to.Namespace, to.Name)
		if found = presence == objects.Present; found {
			for _, sp := range s.Spec.Ports {
				sections = append(sections, sp.Name)
			}
		} else {
			names = namesIn[*corev1.Service](p.view, to.Namespace)
		}
	case "Backend":
		_, presence := objects.Get[*v1alpha1.Backend](p.view, to.Namespace, to.Name)
		if found = presence == objects.Present; !found {
			names = namesIn[*v1alpha1.Backend](p.view, to.Namespace)
		}
	case "Ingress":
		_, presence := objects.Get[*networkingv1.Ingress](p.view, to.Namespace, to.Name)
		if found = presence == objects.Present; !found {
			names = namesIn[*networkingv1.Ingress](p.view, to.Namespace)
		}
	}
	if !found {
		return &refusal{targetNotFound, "there is no " + to.String(), didYouMean(to.Name, names)}
	}
	if section != "" && !slices.Contains(sections, section) {
		return &refusal{targetNotFound, fmt.Sprintf("%s has no section %s", to, section), hintFor(section, "it has", sections)}
	}
	return nil
}
