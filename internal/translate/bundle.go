package translate

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/objects"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// bundleKinds are the kinds of policy whose spec is a bundle of fields, as defaults or as overrides (GEP-713). Each field is one step.
func bundleKinds() []string { return []string{"ProtectionPolicy", "AuthPolicy", "RateLimitPolicy"} }

// attached is one policy of a bundle kind at one target.
type attached struct {
	Policy    diag.Ref
	Target    ir.Source
	Overrides bool
	Path      string                       // of the bundle: "spec.defaults"
	Fields    map[string]json.RawMessage   // the bundle's fields that are set
	Handles   map[string]map[string]string // of what a field refers to, by its path in the field
	Invalid   []diag.Problem               // what is wrong with it; empty: nothing
}

// bundleOf is the bundle of a policy, nil if it has none.
func bundleOf(o objects.Object) (defaults, overrides any) {
	switch o := o.(type) {
	case *v1alpha1.ProtectionPolicy:
		return present(o.Spec.Defaults), present(o.Spec.Overrides)
	case *v1alpha1.AuthPolicy:
		return present(o.Spec.Defaults), present(o.Spec.Overrides)
	case *v1alpha1.RateLimitPolicy:
		return present(o.Spec.Defaults), present(o.Spec.Overrides)
	}
	return nil, nil
}

// present keeps a nil pointer from becoming a value that is not nil.
func present[T any](v *T) any {
	if v == nil {
		return nil
	}
	return v
}

// bundle takes from a policy as much as does not depend on where it is attached.
func (p *pass) bundle(o objects.Object) *attached {
	k := objects.KeyOf(o)
	a := &attached{Policy: refOf(k.Kind, k.Namespace, k.Name), Path: "spec.defaults"}
	bundle, overrides := bundleOf(o)
	switch {
	case bundle != nil && overrides != nil:
		a.Invalid = []diag.Problem{{Path: "spec", Msg: "both defaults and overrides are set", Hint: "exactly one must be"}}
		return a
	case overrides != nil:
		a.Overrides, a.Path, bundle = true, "spec.overrides", overrides
	case bundle == nil:
		a.Invalid = []diag.Problem{{Path: "spec", Msg: "has neither defaults nor overrides that can be read", Hint: "write exactly one of the two"}}
		return a
	}
	a.Fields = map[string]json.RawMessage{}
	if err := json.Unmarshal(mustJSON(bundle), &a.Fields); err != nil {
		a.Invalid = diag.Problems(a.Path, err)
		return a
	}
	for _, name := range sortedKeys(a.Fields) {
		step := p.t.steps.field(k.Kind, name)
		if step == nil {
			a.Invalid = append(a.Invalid, diag.Problem{Path: a.Path + "." + name, Msg: "is not supported"})
			continue
		}
		if _, err := lower(step, a.Fields[name], ir.Source{}, ir.Source{}, 0); err != nil {
			a.Invalid = append(a.Invalid, diag.Problems(a.Path+"."+name, err)...)
			continue
		}
		p.handles(a, name, specRefs(step, a.Fields[name]))
	}
	return a
}

// handles resolves what a field of a policy refers to. A reference that cannot be followed is a fault of the policy: it cannot do what it
// is there for.
func (p *pass) handles(a *attached, field string, refs []policy.Ref) {
	for _, r := range refs {
		at := a.Path + "." + field + "." + r.Path
		to := diag.Ref{Group: r.Group, Kind: r.Kind, Namespace: cmp.Or(r.Namespace, a.Policy.Namespace), Name: r.Name}
		bad := p.resolve(a.Policy, unindexed(at), to)
		handle := ""
		if bad == nil {
			handle, bad = p.handle(to, r.Port)
		}
		if bad != nil {
			a.Invalid = append(a.Invalid, diag.Problem{Path: at, Msg: bad.message, Hint: bad.hint})
			continue
		}
		if a.Handles == nil {
			a.Handles = map[string]map[string]string{}
		}
		if a.Handles[field] == nil {
			a.Handles[field] = map[string]string{}
		}
		a.Handles[field][r.Path] = handle
	}
}

// handle is what the data side knows an object by, once resolve allowed the reference to it.
func (p *pass) handle(to diag.Ref, port int32) (handle string, bad *refusal) {
	switch to.Kind {
	case "Secret":
		if _, presence := objects.Get[*objects.Secret](p.view, to.Namespace, to.Name); presence == objects.Absent {
			return "", &refusal{backendNotFound, "there is no " + to.String(), didYouMean(to.Name, namesIn[*objects.Secret](p.view, to.Namespace))}
		}
		return handleOf(to), nil
	case "ConfigMap":
		if _, presence := objects.Get[*corev1.ConfigMap](p.view, to.Namespace, to.Name); presence == objects.Absent {
			return "", &refusal{backendNotFound, "there is no " + to.String(), didYouMean(to.Name, namesIn[*corev1.ConfigMap](p.view, to.Namespace))}
		}
		return handleOf(to), nil
	}
	return p.backendCluster(to, portRef{number: port})
}

// unindexed is a path without its indexes.
func unindexed(path string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(path, "[")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		_, path, _ = strings.Cut(rest, "]")
	}
}

// sayRefs has the secrets and clusters that a policy refers to be there on the data side.
func (p *pass) sayRefs(a *attached) {
	for _, field := range a.Handles {
		for _, h := range field {
			if strings.HasPrefix(h, "Secret/") || strings.HasPrefix(h, "ConfigMap/") {
				p.say(topic{kind: secretTopic, name: h}, true)
			} else {
				p.say(topic{kind: clusterTopic, name: h}, true)
			}
		}
	}
}

// layer is a policy that reaches a route at one level.
type layer struct {
	*attached
	level int
}

// layers lists the policies of bundle kinds that reach one rule, from the outer level to the inner. section is the listener's name.
func (p *pass) layers(parent diag.Ref, section string, route diag.Ref, rule string) []layer {
	var out []layer
	add := func(level int, t *target, section string) {
		if t == nil {
			return
		}
		for _, kind := range bundleKinds() {
			if a := t.Bundles[kind][section]; a != nil {
				out = append(out, layer{a, level})
			}
		}
	}
	outer := hear[*target](p, topic{kind: targetTopic, name: targetNameOf(parent)})
	inner := hear[*target](p, topic{kind: targetTopic, name: targetNameOf(route)})
	add(gatewayLevel, outer, "")
	if section != "" {
		add(listenerLevel, outer, section)
	}
	add(routeLevel, inner, "")
	if rule != "" {
		add(ruleLevel, inner, rule)
	}
	return out
}

// merge merges layers, field by field, and lowers what comes of it (GEP-713). Defaults: the innermost wins; overrides: the
// outermost, over all defaults; where a step can merge, it says how. A step that cannot runs once for each layer. One policy with a fault
// closes what it reaches. What many routes have in common, a Gateway's policies, is made once in a run. effects say what becomes of each
// layer.
func (p *pass) merge(layers []layer) (steps []lowered, effects []effect) {
	if len(layers) == 0 {
		return nil, nil
	}
	var key mergeKey
	if copy(key[:], layers) < len(layers) {
		return p.mergeLayers(layers)
	}
	out, done := p.merged[key]
	if !done {
		out.steps, out.effects = p.mergeLayers(layers)
		p.merged[key] = out
	}
	return slices.Clone(out.steps), out.effects
}

// mergeKey are layers that were merged: at most one of each kind at each level. It holds them, so that no others can lie where they lay.
type mergeKey [3 * (ruleLevel + 1)]layer

// mergedLayers is what came of merging layers. Its parts are shared: who adds to the steps adds to a copy.
type mergedLayers struct {
	steps   []lowered
	effects []effect
}

func (p *pass) mergeLayers(layers []layer) (out []lowered, effects []effect) {
	effects = make([]effect, len(layers))
	for i, l := range layers {
		effects[i].Kept = len(l.Fields) == 0 || len(l.Invalid) > 0
		if len(l.Invalid) > 0 {
			out = append(out, invalidStep("policy_invalid", fmt.Sprintf("%s: %s", l.Policy, problemsText(l.Invalid)), l.Target, sourceOf(l.Policy, "spec"), l.level))
		}
	}
	if len(out) > 0 {
		for i := range effects {
			effects[i].Kept = true // the rule is closed: nothing is let past any of them
		}
		return out, effects
	}
	for _, kind := range bundleKinds() {
		for _, f := range p.t.steps.fields[kind] {
			set := setting(layers, kind, f.field)
			steps, became := mergeField(f, set)
			out = append(out, steps...)
			for i, l := range set {
				at := slices.IndexFunc(layers, func(o layer) bool { return o.attached == l.attached })
				effects[at] = effects[at].with(became[i])
			}
		}
	}
	return out, effects
}

// unmatched lists the steps that hold for answers to requests that match no route of a listener, which is section of an object.
func (p *pass) unmatched(of diag.Ref, section string) []*ir.Step {
	layers := p.layers(of, section, diag.Ref{}, "")
	steps, _ := p.merge(layers)
	steps = slices.DeleteFunc(steps, func(l lowered) bool { return !l.EveryAnswer })
	p.sayUnmatched(layers, steps)
	return order(steps)
}

// setting lists the layers of a kind that set a field, from the outermost to the innermost.
func setting(layers []layer, kind, field string) []layer {
	var out []layer
	for _, l := range layers {
		if _, ok := l.Fields[field]; ok && l.Policy.Kind == kind {
			out = append(out, l)
		}
	}
	return out
}

// mergeField lowers one field of layers that set it. Every field was decoded once before.
func mergeField(f stepField, layers []layer) (out []lowered, effects []effect) {
	if f.step.Merge == nil || len(layers) < 2 {
		for _, l := range layers {
			out = appendLowered(out, f, l, l.Fields[f.field], nil, nil)
			effects = append(effects, effect{Kept: true})
		}
		return out, effects
	}
	specs := make([]policy.Layer, len(layers))
	for i, l := range layers {
		spec, err := f.step.Decode(l.Fields[f.field])
		if err != nil {
			return appendLowered(nil, f, l, l.Fields[f.field], nil, nil), make([]effect, len(layers))
		}
		specs[i] = policy.Layer{Spec: spec, Overrides: l.Overrides}
	}
	merged, origins := f.step.Merge(specs)
	raw := mustJSON(merged)
	return appendLowered(nil, f, layers[policy.Strongest(specs)], raw, layers, origins), fieldEffects(f, layers, specs, raw, origins)
}

// appendLowered lowers raw, which l gives its place, and says for each of its fields which of layers wrote it, and what it refers to. A
// step that does nothing is left out.
func appendLowered(out []lowered, f stepField, l layer, raw []byte, layers []layer, origins policy.Origins) []lowered {
	at := func(l layer, more string) ir.Source { return sourceOf(l.Policy, diag.Join(l.Path+"."+f.field, more)) }
	low, err := lower(f.step, raw, l.Target, at(l, ""), l.level)
	if err != nil {
		return append(out, invalidStep("policy_invalid", problemsText(diag.Problems(l.Path+"."+f.field, err)), l.Target, at(l, ""), l.level))
	}
	if low.Nothing {
		return out
	}
	low.Step.Refs = l.Handles[f.field]
	for path, o := range origins {
		low.Step.Sources[path] = at(layers[o.Layer], cmp.Or(o.Path, path))
	}
	if origins == nil && len(layers) > 1 {
		specs := make([]policy.Layer, len(layers))
		for i := range layers {
			specs[i].Overrides = layers[i].Overrides
		}
		for k, o := range topLevel(f, layers, specs, low.Step.Spec) {
			low.Step.Sources[k] = at(layers[o.Layer], k)
		}
	}
	return append(out, low)
}

// beside lists the steps of filters that are not among those of attached policies already: a rule may name a policy that reaches it
// anyway, and neither would its limits count twice, nor its methods look for a credential that they took away.
func beside(attached, filters []lowered) []lowered {
	var out []lowered
	for _, f := range filters {
		if !slices.ContainsFunc(attached, func(a lowered) bool {
			return a.Step.Name == f.Step.Name && a.Step.Source() == f.Step.Source() && bytes.Equal(a.Step.Spec, f.Step.Spec)
		}) {
			out = append(out, f)
		}
	}
	return out
}

// demand adds the step that refuses every request if no policy of a kind that GatewayParameters demand reaches a rule. One that only looks
// on (mode Shadow) does not count.
func demand(all []required, steps []lowered, target ir.Source) []lowered {
	for _, r := range all {
		if !meets(r.Kind, steps) {
			return append(steps, invalidStep("policy_missing", "no "+r.Kind+" that is in force reaches it", target, r.By, gatewayLevel))
		}
	}
	return steps
}

// meets says whether a policy of a kind that is in force is among steps. Where callers are asked who they are in shadow mode alone, rules
// about what they may do do not make up for it: those mostly say nothing of who is not known.
func meets(kind string, steps []lowered) bool {
	force, asks, asksInForce := false, false, false
	for _, l := range steps {
		if l.Step.Source().Kind != kind {
			continue
		}
		if l.Step.Name == "invalid" {
			return true
		}
		force = force || l.Enforces
		if l.Step.Name == "authn" {
			asks, asksInForce = true, asksInForce || l.Enforces
		}
	}
	return force && (!asks || asksInForce)
}
