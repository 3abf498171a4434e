package translate

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/objects"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

func targetNameOf(r diag.Ref) string { return r.Kind + "/" + r.Namespace + "/" + r.Name }

// target is what policies say about one object and its sections (listeners, rules): of several policies of one kind for
// one section the oldest.
type target struct {
	Protection map[string]*attached // by section, "" the whole object
	Client     map[string]*client
	Traffic    map[string]*traffic
	TLS        map[string]*backendTLS // of a Service, by the port's name
}

// attached is one policy at one target.
type attached struct {
	Policy    diag.Ref
	Target    ir.Source
	Overrides bool
	Path      string                     // of the bundle: "spec.defaults"
	Fields    map[string]json.RawMessage // the bundle's fields that are set
	Invalid   []diag.Problem             // what is wrong with it; empty: nothing
}

// client is one ClientTrafficPolicy at one target.
type client struct {
	Policy diag.Ref
	Client *ir.Client // nil: the policy is invalid
}

// target is the unit that reads the policies of one target.
func (p *pass) target() {
	name := p.u.key.name
	kind, rest, _ := strings.Cut(name, "/")
	namespace, object, _ := strings.Cut(rest, "/")
	to := ir.Source{Kind: kind, Namespace: namespace, Name: object}
	out := &target{Protection: map[string]*attached{}, Client: map[string]*client{}, Traffic: map[string]*traffic{}, TLS: map[string]*backendTLS{}}
	oldest(p, name, out.Protection, func(o *v1alpha1.ProtectionPolicy, section string) *attached {
		a := p.protection(o)
		a.Target = to
		a.Target.Field = section
		return a
	})
	oldest(p, name, out.Client, func(o *v1alpha1.ClientTrafficPolicy, _ string) *client {
		c, faults := clientOf(o)
		if len(faults) > 0 {
			c = nil
		}
		return &client{refOf("ClientTrafficPolicy", o.Namespace, o.Name), c}
	})
	oldest(p, name, out.Traffic, func(o *v1alpha1.BackendTrafficPolicy, _ string) *traffic {
		t, faults := trafficOf(o)
		if len(faults) > 0 {
			t = nil
		}
		return &traffic{refOf("BackendTrafficPolicy", o.Namespace, o.Name), t}
	})
	oldest(p, name, out.TLS, func(o *gatewayv1.BackendTLSPolicy, _ string) *backendTLS {
		t, _ := p.tlsOf(o)
		return &backendTLS{refOf("BackendTLSPolicy", o.Namespace, o.Name), t}
	})
	if len(out.Protection)+len(out.Client)+len(out.Traffic)+len(out.TLS) == 0 {
		p.gone = true
		return
	}
	p.say(topic{kind: targetTopic, name: name}, out)
}

// oldest fills into, by section, with what make makes of the policies of one kind at a target: of several for a section, of the first,
// since the view lists the oldest first.
func oldest[T objects.Object, X any](p *pass, name string, into map[string]X, make func(o T, section string) X) {
	for _, o := range objects.List[T](p.view, objects.ByTarget, name) {
		for _, s := range sectionsOf(o, name) {
			if _, taken := into[s]; !taken {
				into[s] = make(o, s)
			}
		}
	}
}

// sectionsOf lists the sections of a target that o is attached to.
func sectionsOf(o objects.Object, name string) []string {
	var out []string
	for _, r := range objects.TargetRefs(o) {
		if objects.TargetName(o.GetNamespace(), r) == name && r.Group == group(r.Kind) && !slices.Contains(out, r.SectionName) {
			out = append(out, r.SectionName)
		}
	}
	return out
}

// protection lowers as much of a ProtectionPolicy as does not depend on where it is attached.
func (p *pass) protection(o *v1alpha1.ProtectionPolicy) *attached {
	a := &attached{Policy: refOf("ProtectionPolicy", o.Namespace, o.Name), Path: "spec.defaults"}
	bundle := o.Spec.Defaults
	switch {
	case o.Spec.Defaults != nil && o.Spec.Overrides != nil:
		a.Invalid = []diag.Problem{{Path: "spec", Msg: "both defaults and overrides are set", Hint: "exactly one must be"}}
		return a
	case o.Spec.Overrides != nil:
		a.Overrides, a.Path, bundle = true, "spec.overrides", o.Spec.Overrides
	case bundle == nil:
		a.Invalid = []diag.Problem{{Path: "spec", Msg: "neither defaults nor overrides is set", Hint: "exactly one must be"}}
		return a
	}
	a.Fields = map[string]json.RawMessage{}
	if err := json.Unmarshal(mustJSON(bundle), &a.Fields); err != nil {
		a.Invalid = problems(a.Path, err)
		return a
	}
	for _, name := range sortedKeys(a.Fields) {
		step := p.t.steps.field("ProtectionPolicy", name)
		if step == nil {
			a.Invalid = append(a.Invalid, diag.Problem{Path: a.Path + "." + name, Msg: "is not supported"})
			continue
		}
		if _, err := lower(step, a.Fields[name], ir.Source{}, ir.Source{}, 0); err != nil {
			a.Invalid = append(a.Invalid, problems(a.Path+"."+name, err)...)
		}
	}
	return a
}

// layer is a policy that reaches a route at one level.
type layer struct {
	*attached
	level int
}

// layers lists the protection that reaches one rule, from the outer level to the inner. section is the listener's name.
func (p *pass) layers(parent diag.Ref, section string, route diag.Ref, rule string) []layer {
	var out []layer
	add := func(level int, t *target, section string) {
		if t != nil && t.Protection[section] != nil {
			out = append(out, layer{t.Protection[section], level})
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

// protect merges layers, field by field, and lowers what comes of it (GEP-713). Defaults: the innermost wins; overrides: the
// outermost, over all defaults; where a step can merge, the winner is laid over the others. A step that cannot runs once for
// each layer.
func (p *pass) protect(layers []layer) []lowered {
	if len(layers) == 0 {
		return nil
	}
	var out []lowered
	for _, l := range layers {
		if len(l.Invalid) > 0 {
			out = append(out, invalidStep(fmt.Sprintf("%s: %s", l.Policy, problemsText(l.Invalid)), l.Target, sourceOf(l.Policy, "spec"), l.level))
		}
	}
	if len(out) > 0 {
		return out
	}
	for _, f := range p.t.steps.fields["ProtectionPolicy"] {
		out = append(out, mergeField(f, rising(layers, f.field))...)
	}
	return out
}

// unmatched lists the steps that hold for answers to requests that match no route of a listener, which is section of an object.
func (p *pass) unmatched(of diag.Ref, section string) []*ir.Step {
	steps := p.protect(p.layers(of, section, diag.Ref{}, ""))
	return order(slices.DeleteFunc(steps, func(l lowered) bool { return !l.EveryAnswer }))
}

// rising lists the layers that set a field, from the weakest to the strongest.
func rising(layers []layer, field string) []layer {
	var defaults, overrides []layer
	for _, l := range layers {
		if _, ok := l.Fields[field]; !ok {
			continue
		}
		if l.Overrides {
			overrides = append(overrides, l)
		} else {
			defaults = append(defaults, l)
		}
	}
	slices.Reverse(overrides)
	return append(defaults, overrides...)
}

// mergeField lowers one field of layers that are in rising order. Every field was decoded once before.
func mergeField(f stepField, layers []layer) []lowered {
	var out []lowered
	if f.step.Merge == nil {
		for _, l := range layers {
			out = appendLowered(out, f, l, l.Fields[f.field], nil)
		}
		return out
	}
	if len(layers) == 0 {
		return nil
	}
	top := layers[len(layers)-1]
	raw := []byte(top.Fields[f.field])
	if len(layers) > 1 {
		var merged policy.Spec
		for _, l := range layers {
			spec, err := f.step.Decode(l.Fields[f.field])
			if err != nil {
				return appendLowered(nil, f, l, l.Fields[f.field], nil)
			}
			if merged == nil {
				merged = spec
			} else {
				merged = f.step.Merge(merged, spec)
			}
		}
		raw = mustJSON(merged)
	}
	return appendLowered(nil, f, top, raw, layers)
}

// appendLowered lowers raw, which l gives its place, and says for each of its fields which of layers wrote it.
func appendLowered(out []lowered, f stepField, l layer, raw []byte, layers []layer) []lowered {
	at := func(l layer, more string) ir.Source { return sourceOf(l.Policy, l.Path+"."+f.field+more) }
	low, err := lower(f.step, raw, l.Target, at(l, ""), l.level)
	if err != nil {
		return append(out, invalidStep(problemsText(problems(l.Path+"."+f.field, err)), l.Target, at(l, ""), l.level))
	}
	var have map[string]json.RawMessage
	if len(layers) > 1 && json.Unmarshal(raw, &have) == nil {
		for _, l := range layers {
			var written map[string]json.RawMessage
			if json.Unmarshal(l.Fields[f.field], &written) != nil {
				continue
			}
			for k := range written {
				if _, ok := have[k]; ok {
					low.Step.Sources[k] = at(l, "."+k)
				}
			}
		}
	}
	return append(out, low)
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
