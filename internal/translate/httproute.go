package translate

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// routePass is the work on one HTTPRoute.
type routePass struct {
	*pass
	verdict
	r          *gatewayv1.HTTPRoute
	rules      []rule
	dropped    []dropped
	unresolved *refusal
	namespace  labels.Set // of the route, read when a selector asks for it
	attached   map[diag.Ref][]string
	identities map[diag.Ref]string // handles of the certificates that Gateways show to backends
	fragments  map[topic]*fragment
}

// dropped is a rule that is not served because of an invalid value.
type dropped struct {
	rule    int
	reason  string
	message string // with the path
}

// httpRoute is the unit for one HTTPRoute.
func (p *pass) httpRoute() {
	ref := p.u.key.ref
	o, presence := objects.Get[*gatewayv1.HTTPRoute](p.view, ref.Namespace, ref.Name)
	if presence != objects.Present {
		p.gone = true
		return
	}
	r := &routePass{pass: p, verdict: newVerdict(ref, o), r: o, attached: map[diag.Ref][]string{}, identities: map[diag.Ref]string{}, fragments: map[topic]*fragment{}}
	for i := range o.Spec.ParentRefs {
		r.parent(i)
	}
	r.annotations(o)
	for gw, names := range r.attached {
		p.say(topic{kind: attachedTopic, ref: gw}, names)
	}
	for tp, f := range r.fragments {
		p.keepEntries(tp, f)
		p.say(tp, f)
	}
	if len(r.fragments) > 0 {
		r.sayClusters()
	}
	r.Ours = len(r.Parents) > 0
	if len(r.Parents)+len(r.Faults) > 0 {
		p.verdict(r.verdict)
	}
}

func (r *routePass) sayClusters() {
	var gateways []diag.Ref
	var identities []string
	for gw := range r.attached {
		gateways = append(gateways, gw)
		identities = append(identities, r.identities[gw])
	}
	slices.Sort(identities)
	identities = slices.Compact(identities)
	slices.SortFunc(gateways, func(a, b diag.Ref) int { return cmp.Compare(a.String(), b.String()) })
	for i := range r.rules {
		if r.rules[i].dropped {
			continue
		}
		for _, b := range r.rules[i].backends {
			if b.Cluster != "" {
				r.reaches(b.Cluster, gateways, identities)
			}
		}
		for _, key := range r.rules[i].mirrors {
			r.reaches(key, gateways, identities)
		}
	}
}

// reaches says that the route sends requests to a cluster, through Gateways that show these identities.
func (r *routePass) reaches(cluster string, gateways []diag.Ref, identities []string) {
	for _, id := range identities {
		r.pass.say(topic{kind: clusterTopic, name: as(cluster, id)}, true)
	}
	ref, _ := parseKey(cluster)
	r.pass.say(topic{kind: reachTopic, ref: ref}, gateways)
}

// parent attaches the route to what one parentRef names.
func (r *routePass) parent(i int) {
	ref := &r.r.Spec.ParentRefs[i]
	path := fmt.Sprintf("spec.parentRefs[%d]", i)
	to := parentOf(r.r.Namespace, ref)
	if bad := r.resolve(r.Ref, "spec.parentRefs", to); bad != nil {
		r.warn(path, bad.reason, bad.hint, "%s", bad.message)
		return
	}
	all := hearAll[*attachment](r.pass, topic{kind: attachTopic, ref: to})
	if len(all) == 0 {
		if _, presence := objects.Get[*gatewayv1.Gateway](r.view, to.Namespace, to.Name); presence != objects.Present {
			r.fault(path, "NoMatchingParent", didYouMean(to.Name, namesIn[*gatewayv1.Gateway](r.view, to.Namespace)), "there is no %s", to)
		}
		return
	}
	r.lowerRules()
	parent := diag.Parent{Ref: to}
	if ref.SectionName != nil {
		parent.SectionName = string(*ref.SectionName)
	}
	if ref.Port != nil {
		parent.Port = *ref.Port
	}
	points, bad := r.accept(to, &parent, all[0].Listeners, path)
	if bad != nil {
		r.fault(path, bad.reason, bad.hint, "%s", bad.message)
		r.conclude(&parent, bad)
		return
	}
	if len(r.dropped) == len(r.rules) {
		d := r.dropped[0]
		r.conclude(&parent, &refusal{d.reason, d.message, ""})
		return
	}
	r.conclude(&parent, nil)
	for _, l := range points {
		if !slices.Contains(r.attached[to], l.Name) {
			r.attached[to] = append(r.attached[to], l.Name)
			r.identities[to] = l.Identity
			r.emit(to, l)
		}
	}
}

// parentOf is what a parentRef of a route in namespace names.
func parentOf(namespace string, ref *gatewayv1.ParentReference) diag.Ref {
	to := refOf("Gateway", namespace, string(ref.Name))
	if ref.Kind != nil {
		to.Kind = string(*ref.Kind)
	}
	if ref.Group != nil {
		to.Group = string(*ref.Group)
	}
	if ref.Namespace != nil {
		to.Namespace = string(*ref.Namespace)
	}
	return to
}

// conclude adds the conditions for one parent; bad is why it does not take the route.
func (r *routePass) conclude(parent *diag.Parent, bad *refusal) {
	v := r.verdict
	if bad == nil {
		parent.Conditions = append(parent.Conditions, v.condition(accepted, true, accepted, ""))
	} else {
		parent.Conditions = append(parent.Conditions, v.condition(accepted, false, bad.reason, text("", bad.message, bad.hint)))
	}
	if r.unresolved == nil {
		parent.Conditions = append(parent.Conditions, v.condition(resolvedRefs, true, resolvedRefs, ""))
	} else {
		parent.Conditions = append(parent.Conditions, v.condition(resolvedRefs, false, r.unresolved.reason, r.unresolved.message))
	}
	if bad == nil && len(r.dropped) > 0 {
		var texts []string
		for _, d := range r.dropped {
			texts = append(texts, fmt.Sprintf("Dropped Rule %d: %s", d.rule, d.message))
		}
		parent.Conditions = append(parent.Conditions, v.condition(partlyInvalid, true, r.dropped[0].reason, strings.Join(texts, "; ")))
	}
	r.Parents = append(r.Parents, *parent)
}

// accept picks the listeners of a Gateway that take the route: those that the parentRef names, of those the ones that allow
// it, of those the ones whose hostname meets one of the route's.
func (r *routePass) accept(gw diag.Ref, parent *diag.Parent, all []attachPoint, path string) ([]attachPoint, *refusal) {
	var named, allowed, met []attachPoint
	var names []string
	for _, l := range all {
		names = append(names, l.Name)
		if (parent.SectionName == "" || parent.SectionName == l.Name) && (parent.Port == 0 || parent.Port == l.Port) {
			named = append(named, l)
		}
	}
	if len(named) == 0 {
		message, hint := fmt.Sprintf("%s has no listener", gw), ""
		switch {
		case parent.SectionName != "" && slices.Contains(names, parent.SectionName):
			message = fmt.Sprintf("listener %s of %s is not on port %d", parent.SectionName, gw, parent.Port)
		case parent.SectionName != "":
			message, hint = fmt.Sprintf("%s has no listener %s", gw, parent.SectionName), hintFor(parent.SectionName, "it has", names)
		case parent.Port != 0:
			message = fmt.Sprintf("%s has no listener on port %d", gw, parent.Port)
		}
		return nil, &refusal{"NoMatchingParent", message, hint}
	}
	for _, l := range named {
		if l.Routes && r.namespaceAllowed(gw, &l) {
			allowed = append(allowed, l)
		}
	}
	if len(allowed) == 0 {
		return nil, &refusal{"NotAllowedByListeners", fmt.Sprintf("%s: no listener allows an HTTPRoute from namespace %s", gw, r.r.Namespace),
			"see allowedRoutes of its listeners"}
	}
	for _, l := range allowed {
		if len(r.hostnames(&l)) > 0 {
			met = append(met, l)
		}
	}
	if len(met) == 0 {
		var hosts []string
		for _, l := range allowed {
			hosts = append(hosts, l.Hostname)
		}
		return nil, &refusal{"NoMatchingListenerHostname", fmt.Sprintf("no hostname of the route meets that of a listener (%s)", strings.Join(hosts, ", ")), ""}
	}
	return met, nil
}

// namespaceAllowed says whether a listener takes routes from the route's namespace.
func (r *routePass) namespaceAllowed(gw diag.Ref, l *attachPoint) bool {
	switch l.From {
	case gatewayv1.NamespacesFromAll:
		return true
	case gatewayv1.NamespacesFromSelector:
		if l.Selector == nil {
			return false
		}
		s, err := metav1.LabelSelectorAsSelector(l.Selector)
		return err == nil && s.Matches(r.namespaceLabels())
	}
	return gw.Namespace == r.r.Namespace
}

// namespaceLabels are the labels of the route's namespace. In files it may have no object: then it has the one that the API
// server gives every namespace.
func (r *routePass) namespaceLabels() labels.Set {
	if r.namespace == nil {
		r.namespace = labels.Set{corev1.LabelMetadataName: r.r.Namespace}
		if ns, presence := objects.Get[*corev1.Namespace](r.view, "", r.r.Namespace); presence == objects.Present {
			for k, v := range ns.Labels {
				r.namespace[k] = v
			}
		}
	}
	return r.namespace
}

// hostnames lists the virtual hosts of a listener that the route's rules go to. They are the route's own patterns, also
// where the listener's is narrower (it lets nothing else through), because precedence goes by them.
func (r *routePass) hostnames(l *attachPoint) []string {
	if len(r.r.Spec.Hostnames) == 0 {
		return []string{""}
	}
	var out []string
	for i := range r.r.Spec.Hostnames {
		h := hostnameOf(&r.r.Spec.Hostnames[i])
		if hostnameProblem(h) == "" && (covers(l.Hostname, h) || covers(h, l.Hostname)) && !slices.Contains(out, h) {
			out = append(out, h)
		}
	}
	return out
}

// as is the key of a cluster for a Gateway that shows a certificate of its own; id "": it shows none.
func as(cluster, id string) string {
	if id == "" || cluster == "" {
		return cluster
	}
	return cluster + "@" + id
}

// identified are a rule's backends and filters for a Gateway that shows a certificate of its own to backends. Servers that policies ask
// are not shown it, whether the policy is attached or named by the rule.
func (rl *rule) identified(id string) (backends []ir.Backend, filters []lowered) {
	if id == "" {
		return rl.backends, rl.filters
	}
	backends, filters = slices.Clone(rl.backends), slices.Clone(rl.filters)
	for i := range backends {
		backends[i].Cluster = as(backends[i].Cluster, id)
		backends[i].Steps = identifiedSteps(backends[i].Steps, id)
	}
	for i := range filters {
		if slices.Contains(bundleKinds(), filters[i].Step.Source().Kind) {
			continue
		}
		filters[i].Step = identifiedSteps([]*ir.Step{filters[i].Step}, id)[0]
	}
	return backends, filters
}

// identifiedSteps are steps whose references to clusters go to those of the identity.
func identifiedSteps(steps []*ir.Step, id string) []*ir.Step {
	out := slices.Clone(steps)
	for i, s := range out {
		if len(s.Refs) == 0 {
			continue
		}
		own := *s
		own.Refs = map[string]string{}
		for k, v := range s.Refs {
			if strings.HasPrefix(v, "Service/") || strings.HasPrefix(v, "Backend/") {
				v = as(v, id)
			}
			own.Refs[k] = v
		}
		out[i] = &own
	}
	return out
}

// emit adds the rules to the virtual hosts of one listener.
func (r *routePass) emit(gw diag.Ref, l attachPoint) {
	if !l.Live {
		return
	}
	f := &fragment{Owner: r.Ref, Created: r.r.CreationTimestamp.UTC()}
	for i := range r.rules {
		rl := &r.rules[i]
		if rl.dropped {
			continue
		}
		layers := r.layers(gw, l.Name, r.Ref, rl.name)
		steps, effects := r.merge(layers)
		r.sayEffects(layers, effects)
		if l.HSTS != nil {
			steps = append(steps, *l.HSTS)
		}
		backends, filters := rl.identified(l.Identity)
		steps = demand(l.Required, append(steps, beside(steps, filters)...), sourceOf(r.Ref, fmt.Sprintf("spec.rules[%d]", i)))
		shared, noBackend := order(steps), rl.noBackend
		if slices.ContainsFunc(steps, func(l lowered) bool { return l.Answers }) {
			noBackend = ""
		}
		for m := range rl.matches {
			source := sourceOf(r.Ref, fmt.Sprintf("spec.rules[%d].matches[%d]", i, m))
			if len(r.r.Spec.Rules) == 0 {
				source.Field = "spec"
			} else if len(r.r.Spec.Rules[i].Matches) == 0 {
				source.Field = fmt.Sprintf("spec.rules[%d]", i)
			}
			f.Entries = append(f.Entries, entry{Rule: i, Match: m, Redirect: l.Redirect, Route: &ir.Route{
				Name: keyOf(r.Ref, fmt.Sprint(i), fmt.Sprint(m)), Source: source, Match: rl.matches[m], Created: f.Created, Steps: shared,
				Backends: backends, NoBackend: noBackend, Timeouts: rl.timeouts, Retry: rl.retry, Affinity: rl.affinity}})
		}
	}
	for _, h := range r.hostnames(&l) {
		own := *f
		own.Entries = slices.Clone(f.Entries)
		r.fragments[topic{kind: hostTopic, name: l.Key, host: h}] = &own
	}
}

// drop has a rule not served.
func (r *routePass) drop(rule int, path, reason, hint, format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	r.fault(path, reason, hint, "%s", message)
	if r.rules[rule].dropped {
		return
	}
	r.rules[rule].dropped = true
	r.dropped = append(r.dropped, dropped{rule, reason, text(path, message, hint)})
}

// refuse records a reference that does not resolve.
func (r *routePass) refuse(path string, bad *refusal) {
	r.fault(path, bad.reason, bad.hint, "%s", bad.message)
	r.unresolved = cmp.Or(r.unresolved, &refusal{bad.reason, text(path, bad.message, bad.hint), ""})
}
