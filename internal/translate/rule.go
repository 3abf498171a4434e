package translate

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/objects"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// rule is an HTTPRoute's rule as far as it is the same on every listener.
type rule struct {
	name      string
	matches   []ir.Match
	filters   []lowered
	backends  []ir.Backend
	mirrors   []string // clusters
	noBackend string
	timeouts  ir.Timeouts
	retry     *ir.Retry
	affinity  *ir.Affinity
	dropped   bool
}

// lowerRules translates the rules, once.
func (r *routePass) lowerRules() {
	if r.rules != nil {
		return
	}
	rules := r.r.Spec.Rules
	if len(rules) == 0 {
		rules = []gatewayv1.HTTPRouteRule{{}} // what the API server's default says
	}
	r.rules = make([]rule, len(rules))
	for i, h := range r.r.Spec.Hostnames {
		if problem := hostnameProblem(strings.ToLower(string(h))); problem != "" {
			r.fault(fmt.Sprintf("spec.hostnames[%d]", i), invalid, "", "%q %s", h, problem)
		}
	}
	for i := range rules {
		r.lowerRule(i, &rules[i])
	}
}

func (r *routePass) lowerRule(i int, in *gatewayv1.HTTPRouteRule) {
	path := fmt.Sprintf("spec.rules[%d]", i)
	out := &r.rules[i]
	if in.Name != nil {
		out.name = string(*in.Name)
	}
	for m := range in.Matches {
		if match, ok := r.match(i, fmt.Sprintf("%s.matches[%d]", path, m), &in.Matches[m]); ok {
			out.matches = append(out.matches, match)
		}
	}
	if len(in.Matches) == 0 {
		out.matches = []ir.Match{{Path: ir.PathMatch{Kind: ir.PathPrefix, Value: "/"}}}
	}
	out.filters = r.filters(i, path, "spec.rules.filters", in.Filters, in)
	redirects := slices.ContainsFunc(in.Filters, func(f gatewayv1.HTTPRouteFilter) bool { return f.Type == gatewayv1.HTTPRouteFilterRequestRedirect })
	if redirects && len(in.BackendRefs) > 0 {
		r.drop(i, path+".backendRefs", "IncompatibleFilters", "", "a rule with a RequestRedirect filter has no backendRefs")
	}
	r.backends(i, path, in)
	r.timeouts(i, path, in.Timeouts)
	r.retry(i, path+".retry", in.Retry)
	r.sessionPersistence(i, path+".sessionPersistence", in.SessionPersistence)
	r.traffic(i)
}

// match translates one match, false if a value in it is invalid.
func (r *routePass) match(rule int, path string, in *gatewayv1.HTTPRouteMatch) (ir.Match, bool) {
	out := ir.Match{Path: ir.PathMatch{Kind: ir.PathPrefix, Value: "/"}}
	ok := true
	bad := func(at, hint, format string, args ...any) {
		r.drop(rule, path+at, unsupportedValue, hint, format, args...)
		ok = false
	}
	if in.Path != nil {
		var problem, hint string
		if out.Path, problem, hint = pathMatch(in.Path); problem != "" {
			bad(".path", hint, "%s", problem)
		}
	}
	if in.Method != nil {
		out.Method = string(*in.Method)
		known := []string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
		if !slices.Contains(known, out.Method) {
			bad(".method", didYouMean(out.Method, known), "%q is not a method", out.Method)
		}
	}
	for i, h := range in.Headers {
		f := ir.FieldMatch{Name: strings.ToLower(string(h.Name)), Value: h.Value}
		if h.Type != nil {
			f.Regex = *h.Type == gatewayv1.HeaderMatchRegularExpression
			if !f.Regex && *h.Type != gatewayv1.HeaderMatchExact {
				bad(fmt.Sprintf(".headers[%d].type", i), "write Exact or RegularExpression", "%q is not supported", *h.Type)
			}
		}
		if problem := fieldProblem(f); problem != "" {
			bad(fmt.Sprintf(".headers[%d]", i), "", "%s", problem)
		}
		out.Headers = appendField(out.Headers, f)
	}
	for i, q := range in.QueryParams {
		f := ir.FieldMatch{Name: string(q.Name), Value: q.Value}
		if q.Type != nil {
			f.Regex = *q.Type == gatewayv1.QueryParamMatchRegularExpression
			if !f.Regex && *q.Type != gatewayv1.QueryParamMatchExact {
				bad(fmt.Sprintf(".queryParams[%d].type", i), "write Exact or RegularExpression", "%q is not supported", *q.Type)
			}
		}
		if problem := fieldProblem(f); problem != "" {
			bad(fmt.Sprintf(".queryParams[%d]", i), "", "%s", problem)
		}
		out.Query = appendField(out.Query, f)
	}
	return out, ok
}

// pathMatch translates a path match and says what is wrong with it, "" if nothing is.
func pathMatch(in *gatewayv1.HTTPPathMatch) (out ir.PathMatch, problem, hint string) {
	out = ir.PathMatch{Kind: ir.PathPrefix, Value: "/"}
	if in.Value != nil {
		out.Value = *in.Value
	}
	kind := gatewayv1.PathMatchPathPrefix
	if in.Type != nil {
		kind = *in.Type
	}
	switch kind {
	case gatewayv1.PathMatchRegularExpression:
		out.Kind = ir.PathRegex
		return out, regexProblem(out.Value), ""
	case gatewayv1.PathMatchExact:
		out.Kind = ir.PathExact
	case gatewayv1.PathMatchPathPrefix:
		out.Value = trimSlashes(out.Value)
	default:
		return out, fmt.Sprintf("type %q is not supported", kind), "write Exact, PathPrefix or RegularExpression"
	}
	if !strings.HasPrefix(out.Value, "/") {
		return out, fmt.Sprintf("%q does not begin with /", out.Value), ""
	}
	never := []string{"//", "/./", "/../", "%2f", "%2F", "#"}
	for _, s := range never {
		if strings.Contains(out.Value, s) {
			return out, fmt.Sprintf("%q matches no request: it contains %s", out.Value, s), ""
		}
	}
	if strings.HasSuffix(out.Value, "/..") || strings.HasSuffix(out.Value, "/.") {
		return out, fmt.Sprintf("%q matches no request: it ends in a dot segment", out.Value), ""
	}
	return out, "", ""
}

func regexProblem(expr string) string {
	if _, err := regexp.Compile(expr); err != nil {
		return fmt.Sprintf("%q is not a regular expression (RE2): %s", expr, strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	return ""
}

func fieldProblem(f ir.FieldMatch) string {
	if f.Name == "" {
		return "name is empty"
	}
	if f.Regex {
		return regexProblem(f.Value)
	}
	return ""
}

// appendField adds a field, sorted by name. Of several with one name the first counts (Gateway API).
func appendField(fs []ir.FieldMatch, f ir.FieldMatch) []ir.FieldMatch {
	i, found := slices.BinarySearchFunc(fs, f.Name, func(a ir.FieldMatch, name string) int { return strings.Compare(a.Name, name) })
	if found {
		return fs
	}
	return slices.Insert(fs, i, f)
}

// filters lowers the filters of a rule or of one backendRef, in listed order.
func (r *routePass) filters(rule int, path, field string, in []gatewayv1.HTTPRouteFilter, of *gatewayv1.HTTPRouteRule) []lowered {
	var out []lowered
	seen := map[gatewayv1.HTTPRouteFilterType]bool{}
	for i := range in {
		f := &in[i]
		at := fmt.Sprintf("%s.filters[%d]", path, i)
		if seen[f.Type] && f.Type != gatewayv1.HTTPRouteFilterExtensionRef && f.Type != gatewayv1.HTTPRouteFilterRequestMirror {
			r.drop(rule, at, "IncompatibleFilters", "", "%s stands twice", f.Type)
			continue
		}
		seen[f.Type] = true
		if f.Type == gatewayv1.HTTPRouteFilterExtensionRef {
			out = append(out, r.extension(rule, at, field+".extensionRef", f.ExtensionRef)...)
			continue
		}
		name, spec, path := filterField(f)
		step := r.t.steps.filters[string(f.Type)]
		switch {
		case step == nil || name == "" || f.Type == gatewayv1.HTTPRouteFilterExternalAuth && field != "spec.rules.filters":
			r.drop(rule, at+".type", unsupportedValue, "", "filter %s is not supported", f.Type)
			continue
		case spec == nil:
			r.drop(rule, at, unsupportedValue, "", "%s is missing", name)
			continue
		case path != nil && path.Type == gatewayv1.PrefixMatchHTTPPathModifier && !allPrefixes(of):
			r.drop(rule, at+"."+name+".path", unsupportedValue, "", "ReplacePrefixMatch needs matches of type PathPrefix only")
			continue
		}
		raw := mustJSON(spec)
		l, err := lower(step, raw, sourceOf(r.Ref, fmt.Sprintf("spec.rules[%d]", rule)), sourceOf(r.Ref, at+"."+name), filterLevel)
		if err != nil {
			for _, bad := range diag.Problems(at+"."+name, err) {
				r.drop(rule, bad.Path, unsupportedValue, bad.Hint, "%s", bad.Msg)
			}
			continue
		}
		switch {
		case r.follow(rule, at+"."+name, field+"."+name, specRefs(step, raw), l.Step):
			out = append(out, l)
		case f.Type == gatewayv1.HTTPRouteFilterExternalAuth: // nobody is let in by a service that cannot be asked
			out = append(out, invalidStep("policy_invalid", "its backendRef cannot be followed", sourceOf(r.Ref, fmt.Sprintf("spec.rules[%d]", rule)), sourceOf(r.Ref, at+"."+name), filterLevel))
		}
	}
	if seen[gatewayv1.HTTPRouteFilterRequestRedirect] && seen[gatewayv1.HTTPRouteFilterURLRewrite] {
		r.drop(rule, path+".filters", "IncompatibleFilters", "", "RequestRedirect and URLRewrite exclude each other")
	}
	return out
}

// follow resolves what a filter refers to, at path, and puts the handles into its step. false: something cannot be followed; the
// filter is left out then, and the route's references are not resolved (Gateway API: such a mirror is dropped).
func (r *routePass) follow(rule int, path, field string, refs []policy.Ref, step *ir.Step) bool {
	ok := true
	for _, ref := range refs {
		to := diag.Ref{Group: ref.Group, Kind: ref.Kind, Namespace: cmp.Or(ref.Namespace, r.r.Namespace), Name: ref.Name}
		bad := r.resolve(r.Ref, field+"."+ref.Path, to)
		key := ""
		if bad == nil {
			key, bad = r.backendCluster(to, portRef{number: ref.Port})
		}
		if bad != nil {
			r.refuse(path+"."+ref.Path, bad)
			ok = false
			continue
		}
		if step.Refs == nil {
			step.Refs = map[string]string{}
		}
		step.Refs[ref.Path] = key
		r.rules[rule].mirrors = append(r.rules[rule].mirrors, key)
	}
	return ok
}

// filterField is the field that belongs to a filter's type, its value (nil if it is not set) and the path modifier in it.
func filterField(f *gatewayv1.HTTPRouteFilter) (name string, spec any, path *gatewayv1.HTTPPathModifier) {
	switch f.Type {
	case gatewayv1.HTTPRouteFilterRequestHeaderModifier:
		return set("requestHeaderModifier", f.RequestHeaderModifier, nil)
	case gatewayv1.HTTPRouteFilterResponseHeaderModifier:
		return set("responseHeaderModifier", f.ResponseHeaderModifier, nil)
	case gatewayv1.HTTPRouteFilterRequestRedirect:
		if f.RequestRedirect != nil {
			path = f.RequestRedirect.Path
		}
		return set("requestRedirect", f.RequestRedirect, path)
	case gatewayv1.HTTPRouteFilterURLRewrite:
		if f.URLRewrite != nil {
			path = f.URLRewrite.Path
		}
		return set("urlRewrite", f.URLRewrite, path)
	case gatewayv1.HTTPRouteFilterRequestMirror:
		return set("requestMirror", f.RequestMirror, nil)
	case gatewayv1.HTTPRouteFilterExternalAuth:
		return set("externalAuth", f.ExternalAuth, nil)
	case gatewayv1.HTTPRouteFilterCORS:
		return set("cors", f.CORS, nil)
	}
	return "", nil, nil
}

// set keeps a nil pointer from becoming a value that is not nil.
func set[T any](name string, v *T, path *gatewayv1.HTTPPathModifier) (string, any, *gatewayv1.HTTPPathModifier) {
	if v == nil {
		return name, nil, path
	}
	return name, v, path
}

// allPrefixes says whether every match of a rule is a path prefix.
func allPrefixes(in *gatewayv1.HTTPRouteRule) bool {
	return !slices.ContainsFunc(in.Matches, func(m gatewayv1.HTTPRouteMatch) bool {
		return m.Path != nil && m.Path.Type != nil && *m.Path.Type != gatewayv1.PathMatchPathPrefix
	})
}

// extension lowers what an ExtensionRef names. One that cannot be followed answers 503: it is never left out.
func (r *routePass) extension(rule int, at, field string, ref *gatewayv1.LocalObjectReference) []lowered {
	source := sourceOf(r.Ref, at+".extensionRef")
	target := sourceOf(r.Ref, fmt.Sprintf("spec.rules[%d]", rule))
	if ref == nil {
		r.drop(rule, at, unsupportedValue, "", "extensionRef is missing")
		return nil
	}
	to := diag.Ref{Group: string(ref.Group), Kind: string(ref.Kind), Namespace: r.r.Namespace, Name: string(ref.Name)}
	bad := r.resolve(r.Ref, field, to)
	if bad == nil {
		var o objects.Object
		if o, bad = r.bundlePolicy(to); bad == nil {
			a := r.bundle(o)
			r.sayRefs(a)
			return r.extensionSteps(a, target)
		}
	}
	r.refuse(at+".extensionRef", bad)
	return []lowered{invalidStep("policy_invalid", bad.message, target, source, filterLevel)}
}

// bundlePolicy finds a policy of one of bundleKinds.
func (p *pass) bundlePolicy(to diag.Ref) (objects.Object, *refusal) {
	switch to.Kind {
	case "AuthPolicy":
		return found[*v1alpha1.AuthPolicy](p, to)
	case "RateLimitPolicy":
		return found[*v1alpha1.RateLimitPolicy](p, to)
	}
	return found[*v1alpha1.ProtectionPolicy](p, to)
}

func found[T objects.Object](p *pass, to diag.Ref) (objects.Object, *refusal) {
	o, presence := objects.Get[T](p.view, to.Namespace, to.Name)
	if presence != objects.Present {
		return nil, &refusal{backendNotFound, "there is no " + to.String(), didYouMean(to.Name, namesIn[T](p.view, to.Namespace))}
	}
	return o, nil
}

func (r *routePass) extensionSteps(a *attached, target ir.Source) []lowered {
	if len(a.Invalid) > 0 {
		return []lowered{invalidStep("policy_invalid", fmt.Sprintf("%s: %s", a.Policy, problemsText(a.Invalid)), target, sourceOf(a.Policy, "spec"), filterLevel)}
	}
	a.Target = target
	var out []lowered
	for _, f := range r.t.steps.fields[a.Policy.Kind] {
		if _, ok := a.Fields[f.field]; ok {
			out = appendLowered(out, f, layer{a, filterLevel}, a.Fields[f.field], nil, nil)
		}
	}
	return out
}

// backends follows the backendRefs of a rule.
func (r *routePass) backends(rule int, path string, in *gatewayv1.HTTPRouteRule) {
	out := &r.rules[rule]
	total := int64(0)
	for i := range in.BackendRefs {
		b := &in.BackendRefs[i]
		at := fmt.Sprintf("%s.backendRefs[%d]", path, i)
		weight := int32(1)
		if b.Weight != nil {
			weight = *b.Weight
		}
		if weight < 0 || weight > 1_000_000 {
			r.drop(rule, at+".weight", unsupportedValue, "", "%d is not between 0 and 1000000", weight)
			continue
		}
		total += int64(weight)
		steps := r.filters(rule, at, "spec.rules.backendRefs.filters", b.Filters, in)
		out.backends = append(out.backends, r.backend(at, &b.BackendObjectReference, uint32(weight), steps))
	}
	switch {
	case len(in.BackendRefs) == 0:
		out.noBackend = "no backendRefs"
	case len(in.BackendRefs) > 0 && total == 0:
		out.backends, out.noBackend = nil, "every weight is 0"
	}
}

// backend follows one backendRef.
func (r *routePass) backend(path string, b *gatewayv1.BackendObjectReference, weight uint32, steps []lowered) ir.Backend {
	out := ir.Backend{Weight: weight, Source: sourceOf(r.Ref, path), Steps: order(steps)}
	to := diag.Ref{Kind: "Service", Namespace: r.r.Namespace, Name: string(b.Name)}
	if b.Kind != nil {
		to.Kind = string(*b.Kind)
	}
	if b.Group != nil {
		to.Group = string(*b.Group)
	}
	if b.Namespace != nil {
		to.Namespace = string(*b.Namespace)
	}
	var port portRef
	if b.Port != nil {
		port.number = *b.Port
	}
	bad := r.resolve(r.Ref, "spec.rules.backendRefs", to)
	if bad == nil {
		out.Cluster, bad = r.backendCluster(to, port)
	}
	if bad != nil {
		r.refuse(path, bad)
		out.Invalid = bad.message
	}
	return out
}

// timeouts reads a rule's time limits (GEP-1742). "0s" turns one off.
func (r *routePass) timeouts(rule int, path string, in *gatewayv1.HTTPRouteTimeouts) {
	if in == nil {
		return
	}
	t := ir.Timeouts{Request: r.ruleDuration(rule, path+".timeouts.request", in.Request),
		Backend: r.ruleDuration(rule, path+".timeouts.backendRequest", in.BackendRequest)}
	if t.Request != nil && t.Backend != nil && *t.Request != 0 && *t.Backend > *t.Request {
		r.drop(rule, path+".timeouts.backendRequest", unsupportedValue, "", "is longer than request")
	}
	r.rules[rule].timeouts = t
}

// ruleDuration reads a duration of a rule, which is dropped if it is none.
func (r *routePass) ruleDuration(rule int, path string, d *gatewayv1.Duration) *ir.Duration {
	if d == nil {
		return nil
	}
	v, err := policy.ParseDuration(string(*d))
	if err != nil {
		r.drop(rule, path, unsupportedValue, policy.DurationHint, "%v", err)
		return nil
	}
	out := ir.Duration(v)
	return &out
}
