package translate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// ingressPass is the work on one Ingress.
type ingressPass struct {
	*pass
	verdict
	ing      *networkingv1.Ingress
	points   []attachPoint
	redirect *redirect // of hosts with TLS; nil: none
	steps    [][]*ir.Step
	hosts    []string        // in the order of the rules
	tls      map[string]bool // hosts in spec.tls, see tlsHosts
	entries  map[string][]entry
}

// ingress is the unit for one Ingress.
func (p *pass) ingress() {
	ref := p.u.key.ref
	ing, presence := objects.Get[*networkingv1.Ingress](p.view, ref.Namespace, ref.Name)
	if presence != objects.Present {
		p.gone = true
		return
	}
	v := newVerdict(ref, ing)
	class := p.classOf(ing, v)
	a := hear[*attachment](p, topic{kind: attachTopic, ref: refOf("IngressClass", "", class)})
	if class == "" || a == nil {
		if len(v.Faults) > 0 {
			p.verdict(v)
		}
		return
	}
	i := &ingressPass{pass: p, verdict: v, ing: ing, points: a.Listeners, tls: map[string]bool{}, entries: map[string][]entry{}}
	i.redirectByAnnotation()
	i.protectAll(refOf("IngressClass", "", class))
	i.certificates(class)
	for n := range ing.Spec.Rules {
		i.rule(n)
	}
	i.defaultBackend()
	i.emit()
	i.annotations(ing, httpsRedirectAnnotation)
	i.Ours, i.Addresses = true, a.Addresses
	p.verdict(i.verdict)
}

// classOf is the name of an Ingress's class: the field, the older annotation, or the default class; "" for none. A class that
// does not exist is a warning, since it may be meant for another controller that reads the annotation alone.
func (p *pass) classOf(ing *networkingv1.Ingress, v verdict) string {
	name, path := ing.Annotations[objects.IngressClassAnnotation], "metadata.annotations["+objects.IngressClassAnnotation+"]"
	if ing.Spec.IngressClassName != nil {
		name, path = *ing.Spec.IngressClassName, "spec.ingressClassName"
	}
	if name == "" {
		return p.defaultClass()
	}
	if _, presence := objects.Get[*networkingv1.IngressClass](p.view, "", name); presence != objects.Present {
		hint := didYouMean(name, namesIn[*networkingv1.IngressClass](p.view, ""))
		if hint != "" || ing.Spec.IngressClassName != nil {
			v.warn(path, "", hint, "there is no IngressClass %s", name)
		}
		return ""
	}
	return name
}

// defaultClass is the IngressClass for Ingresses that name none: of several marked so the newest, as the API server has it.
func (p *pass) defaultClass() string {
	var best *networkingv1.IngressClass
	for _, c := range objects.List[*networkingv1.IngressClass](p.view, "", "") {
		if c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] != "true" {
			continue
		}
		if best == nil || c.CreationTimestamp.After(best.CreationTimestamp.Time) {
			best = c
		}
	}
	if best == nil {
		return ""
	}
	return best.Name
}

func (i *ingressPass) redirectByAnnotation() {
	i.redirect = i.points[0].Redirect
	value, ok := i.ing.Annotations[httpsRedirectAnnotation]
	if !ok {
		return
	}
	path := "metadata.annotations[" + httpsRedirectAnnotation + "]"
	switch value {
	case "false":
		i.redirect = nil
	case "true":
		i.redirect = &redirect{uint16(i.points[1].Port), sourceOf(i.Ref, path)}
	default:
		i.fault(path, invalid, `write "true" or "false"`, "%q is neither", value)
	}
}

// protectAll lowers the policies that reach the Ingress through each of its listeners.
func (i *ingressPass) protectAll(class diag.Ref) {
	for _, l := range i.points {
		layers := i.layers(class, l.Name, i.Ref, "")
		steps, effects := i.merge(layers)
		i.sayEffects(layers, effects)
		if l.HSTS != nil {
			steps = append(steps, *l.HSTS)
		}
		i.steps = append(i.steps, order(demand(l.Required, steps, sourceOf(i.Ref, ""))))
	}
}

// certificates reads spec.tls.
func (i *ingressPass) certificates(class string) {
	var out []classCertificate
	for n, t := range i.ing.Spec.TLS {
		path := fmt.Sprintf("spec.tls[%d]", n)
		hosts := i.tlsHosts(&t)
		for _, h := range hosts {
			i.tls[h] = true
		}
		if t.SecretName == "" { // another certificate or the default serves; the data side says where there is none
			if len(hosts) > 0 {
				out = append(out, classCertificate{i.ing.CreationTimestamp.UTC(), ir.Certificate{Hosts: hosts, Source: sourceOf(i.Ref, path)}})
			}
			continue
		}
		to := refOf("Secret", i.ing.Namespace, t.SecretName)
		r := i.resolve(i.Ref, "spec.tls.secretName", to)
		handle := ""
		if r == nil {
			handle, r = i.pairOf(to)
		}
		if r != nil {
			i.fault(path+".secretName", r.reason, r.hint, "%s", r.message)
		}
		if handle == "" {
			continue
		}
		if len(hosts) > 0 {
			c := ir.Certificate{Handle: handle, Hosts: hosts, Source: sourceOf(i.Ref, path)}
			out = append(out, classCertificate{i.ing.CreationTimestamp.UTC(), c})
		}
		i.pass.say(topic{kind: secretTopic, name: handle}, true)
	}
	if len(out) > 0 {
		i.pass.say(topic{kind: certificateTopic, name: class}, out)
	}
}

// tlsHosts are the hosts of an entry of spec.tls, in lower case. One without hosts means those of the rules; "" is any host.
func (i *ingressPass) tlsHosts(t *networkingv1.IngressTLS) []string {
	var out []string
	for _, h := range t.Hosts {
		out = append(out, strings.ToLower(h))
	}
	if len(t.Hosts) == 0 {
		for n := range i.ing.Spec.Rules {
			if h := strings.ToLower(i.ing.Spec.Rules[n].Host); hostnameProblem(h) == "" {
				out = append(out, h)
			}
		}
		if len(i.ing.Spec.Rules) == 0 {
			out = append(out, "")
		}
	}
	seen := make(map[string]bool, len(out))
	return slices.DeleteFunc(out, func(h string) bool {
		twice := seen[h]
		seen[h] = true
		return twice
	})
}

// hasTLS says whether spec.tls covers a host of a rule.
func (i *ingressPass) hasTLS(host string) bool {
	_, rest, _ := strings.Cut(host, ".")
	return i.tls[host] || host != "" && i.tls["*."+rest]
}

func (i *ingressPass) rule(n int) {
	r := &i.ing.Spec.Rules[n]
	path := fmt.Sprintf("spec.rules[%d]", n)
	host := strings.ToLower(r.Host)
	if problem := hostnameProblem(host); problem != "" {
		i.fault(path+".host", invalid, "", "%q %s", r.Host, problem)
		return
	}
	i.host(host)
	if r.HTTP == nil || len(r.HTTP.Paths) == 0 {
		if i.ing.Spec.DefaultBackend == nil {
			i.warn(path, "", "", "has neither paths nor a default backend: nothing is served")
		}
		return
	}
	for m := range r.HTTP.Paths {
		i.path(host, n, m)
	}
}

func (i *ingressPass) host(host string) {
	if !slices.Contains(i.hosts, host) {
		i.hosts = append(i.hosts, host)
	}
}

// hostnameProblem says what is wrong with a hostname of a rule or listener, "" if nothing is.
func hostnameProblem(h string) string {
	name := strings.TrimPrefix(h, "*.")
	switch {
	case h == "":
		return ""
	case strings.Contains(name, "*"):
		return "is no hostname: a wildcard stands for the first label alone"
	case name == "" || strings.ContainsAny(name, "/: \t@?#[]%") || strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") || strings.Contains(name, ".."):
		return "is no hostname"
	}
	return ""
}

func (i *ingressPass) path(host string, n, m int) {
	hp := &i.ing.Spec.Rules[n].HTTP.Paths[m]
	path := fmt.Sprintf("spec.rules[%d].http.paths[%d]", n, m)
	kind := networkingv1.PathTypeImplementationSpecific
	if hp.PathType != nil {
		kind = *hp.PathType
	}
	match := ir.PathMatch{Kind: ir.PathPrefix, Value: trimSlashes(hp.Path)}
	switch kind {
	case networkingv1.PathTypeExact:
		match = ir.PathMatch{Kind: ir.PathExact, Value: hp.Path}
	case networkingv1.PathTypePrefix:
	case networkingv1.PathTypeImplementationSpecific:
		if strings.ContainsAny(hp.Path, `()[]{}*^$|\`) {
			i.warn(path+".path", "", "for regular expressions use an HTTPRoute", "%q is matched literally, as a prefix", hp.Path)
		}
		if hp.Path == "" {
			match.Value = "/"
		}
	default:
		i.fault(path+".pathType", unsupportedValue, "write Exact, Prefix or ImplementationSpecific", "%q is not supported", kind)
		return
	}
	if !strings.HasPrefix(match.Value, "/") {
		i.fault(path+".path", invalid, "", "%q does not begin with /", hp.Path)
		return
	}
	r := i.route(strconv.Itoa(n)+"/"+strconv.Itoa(m), path, match, i.backend(path+".backend", "spec.rules.http.paths.backend", &hp.Backend))
	i.add(host, entry{Route: r, Rule: n, Match: m})
}

// trimSlashes takes trailing slashes off a prefix: they have no meaning in one.
func trimSlashes(p string) string {
	t := strings.TrimRight(p, "/")
	if t == "" && p != "" {
		return "/"
	}
	return t
}

func (i *ingressPass) route(name, path string, match ir.PathMatch, b ir.Backend) *ir.Route {
	var x routed
	x.lay(i.routeTraffic(i.Ref, ""), keyOf(i.Ref))
	return &ir.Route{Name: keyOf(i.Ref, name), Source: sourceOf(i.Ref, path), Match: ir.Match{Path: match},
		Created: i.ing.CreationTimestamp.UTC(), Backends: []ir.Backend{b}, Timeouts: x.timeouts, Retry: x.retry, Affinity: x.affinity}
}

func (i *ingressPass) add(host string, e entry) {
	if i.redirect != nil && i.hasTLS(host) {
		e.Redirect = i.redirect
	}
	i.entries[host] = append(i.entries[host], e)
}

// backend follows a backend at path; field is the path without indexes.
func (i *ingressPass) backend(path, field string, b *networkingv1.IngressBackend) ir.Backend {
	out := ir.Backend{Weight: 1, Source: sourceOf(i.Ref, path)}
	bad := func(at string, r *refusal) ir.Backend {
		i.fault(at, r.reason, r.hint, "%s", r.message)
		out.Invalid = r.message
		return out
	}
	var to diag.Ref
	var port portRef
	switch {
	case b.Service != nil:
		field, path = field+".service", path+".service"
		to, port = refOf("Service", i.ing.Namespace, b.Service.Name), portRef{b.Service.Port.Number, b.Service.Port.Name}
	case b.Resource != nil:
		field, path = field+".resource", path+".resource"
		to = diag.Ref{Kind: b.Resource.Kind, Namespace: i.ing.Namespace, Name: b.Resource.Name}
		if b.Resource.APIGroup != nil {
			to.Group = *b.Resource.APIGroup
		}
	default:
		return bad(path, &refusal{backendNotFound, "names neither a service nor a resource", ""})
	}
	if r := i.resolve(i.Ref, field, to); r != nil {
		return bad(path, r)
	}
	key, r := i.backendCluster(to, port)
	if r != nil {
		return bad(path, r)
	}
	out.Cluster = key
	i.pass.say(topic{kind: clusterTopic, name: key}, true)
	return out
}

// defaultBackend adds what requests get that match no path: on the hosts of the rules, and on hosts that nobody has.
func (i *ingressPass) defaultBackend() {
	b := i.ing.Spec.DefaultBackend
	if b == nil {
		if len(i.ing.Spec.Rules) == 0 {
			i.fault("spec", invalid, "", "has neither rules nor a default backend")
		}
		return
	}
	r := i.route("default", "spec.defaultBackend", ir.PathMatch{Kind: ir.PathPrefix, Value: "/"},
		i.backend("spec.defaultBackend", "spec.defaultBackend", b))
	for _, h := range i.hosts {
		i.add(h, entry{Route: r, Behind: aDefault})
	}
	if !slices.Contains(i.hosts, "") {
		behind := aDefault
		if len(i.ing.Spec.Rules) > 0 {
			behind = anybodysDefault
		}
		i.host("")
		i.add("", entry{Route: r, Behind: behind})
	}
}

// emit says the routes to the virtual hosts of both listeners. Only the HTTP listener redirects.
func (i *ingressPass) emit() {
	for _, host := range i.hosts {
		if len(i.entries[host]) == 0 {
			continue
		}
		for n, l := range i.points {
			f := &fragment{Owner: i.Ref, Created: i.ing.CreationTimestamp.UTC()}
			for _, e := range i.entries[host] {
				if l.Protocol != ir.HTTP {
					e.Redirect = nil
				}
				if len(i.steps[n]) > 0 {
					r := *e.Route
					r.Steps = i.steps[n]
					e.Route = &r
				}
				f.Entries = append(f.Entries, e)
			}
			tp := topic{kind: hostTopic, name: l.Key, host: host, one: strings.HasPrefix(host, "*.")}
			i.keepEntries(tp, f)
			i.pass.say(tp, f)
		}
	}
}

// keepEntries puts the old pointer of each route that did not change into f.
func (p *pass) keepEntries(tp topic, f *fragment) {
	old := before[*fragment](p, tp)
	if old == nil {
		return
	}
	was, is := make([]*ir.Route, len(old.Entries)), make([]*ir.Route, len(f.Entries))
	for i := range old.Entries {
		was[i] = old.Entries[i].Route
	}
	for i := range f.Entries {
		is[i] = f.Entries[i].Route
	}
	keepRoutes(was, is)
	for i := range f.Entries {
		f.Entries[i].Route = is[i]
	}
}
