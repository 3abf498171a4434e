package translate

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// effect says what becomes of a policy on routes that it reaches.
type effect struct {
	Kept bool   // some of what it says holds somewhere
	Lost bool   // some of it is replaced somewhere, by what others say
	By   string // one of these others; "" none
}

func (e effect) with(o effect) effect {
	by := e.By
	if by == "" || o.By != "" && o.By < by {
		by = o.By
	}
	return effect{e.Kept || o.Kept, e.Lost || o.Lost, by}
}

// sayEffects tells policies what becomes of them on a rule that layers reach.
func (p *pass) sayEffects(layers []layer, effects []effect) {
	for i, l := range layers {
		tp := topic{kind: effectTopic, ref: l.Policy, name: l.Target.Kind + "/" + l.Target.Namespace + "/" + l.Target.Name + "#" + l.Target.Field}
		old, _ := p.said[tp].(effect)
		p.say(tp, old.with(effects[i]))
	}
}

// sayUnmatched tells policies that something of theirs holds for answers to requests that match no route.
func (p *pass) sayUnmatched(layers []layer, steps []lowered) {
	for i, l := range layers {
		if slices.ContainsFunc(steps, func(s lowered) bool {
			for _, src := range s.Step.Sources {
				if src.Kind == l.Policy.Kind && src.Namespace == l.Policy.Namespace && src.Name == l.Policy.Name {
					return true
				}
			}
			return false
		}) {
			p.sayEffects(layers[i:i+1], []effect{{Kept: true}})
		}
	}
}

// programmedAt concludes what becomes of a policy that is accepted at a target, from what the routes say. Nobody tells of targets that no
// route has.
func (p *pass) programmedAt(v verdict, to diag.Ref, section string) diag.Condition {
	var e effect
	routes := hearAll[effect](p, topic{kind: effectTopic, ref: v.Ref, name: targetNameOf(to) + "#" + section})
	for _, o := range routes {
		e = e.with(o)
	}
	switch {
	case len(routes) == 0:
		return v.condition(programmed, true, programmed, "it reaches no route")
	case !e.Lost:
		return v.condition(programmed, true, programmed, "")
	case !e.Kept:
		return v.condition(programmed, false, overridden, "what it says is replaced wherever it reaches, as by "+e.By)
	}
	return v.condition(programmed, true, partlyProgrammed, "some of what it says is replaced, or all of it on some routes, as by "+e.By)
}

// fieldEffects says what becomes of one field of layers that set it and are merged: of each part of it, the top-level fields and what
// origins tell apart below them.
func fieldEffects(f stepField, layers []layer, specs []policy.Layer, merged []byte, origins policy.Origins) []effect {
	out := make([]effect, len(layers))
	strongest := policy.Strongest(specs)
	if origins == nil {
		origins = topLevel(f, layers, specs, merged)
	}
	for i, l := range layers {
		parts := partsOf(l.Fields[f.field], origins)
		if len(parts) == 0 {
			parts = []string{""}
			if i == strongest {
				out[i].Kept = true
				continue
			}
		}
		for _, part := range parts {
			if isKept(part, i, origins) {
				out[i].Kept = true
				continue
			}
			by := strongest
			if o, ok := origins[part]; ok {
				by = o.Layer
			}
			if layers[by].Policy == l.Policy { // it is attached at two levels
				out[i].Kept = true
				continue
			}
			out[i] = out[i].with(effect{Lost: true, By: layers[by].Policy.String()})
		}
	}
	return out
}

// isKept says whether a part that a layer wrote stands in the merged spec, under whichever name.
func isKept(part string, layer int, origins policy.Origins) bool {
	for path, o := range origins {
		if o.Layer == layer && cmp.Or(o.Path, path) == part {
			return true
		}
	}
	return false
}

// partsOf lists the paths of what a spec says, as deep as origins go.
func partsOf(raw []byte, origins policy.Origins) []string {
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return nil
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		var within map[string]json.RawMessage
		deep := false
		for path := range origins {
			deep = deep || strings.HasPrefix(path, k+".")
		}
		if !deep || json.Unmarshal(fields[k], &within) != nil {
			out = append(out, k)
			continue
		}
		for _, sub := range slices.Sorted(maps.Keys(within)) {
			out = append(out, k+"."+sub)
		}
	}
	return out
}

// topLevel are the origins of the fields of a merged spec where the step does not say them: the strongest layer that has one.
func topLevel(f stepField, layers []layer, specs []policy.Layer, merged []byte) policy.Origins {
	var have map[string]json.RawMessage
	if json.Unmarshal(merged, &have) != nil {
		return nil
	}
	out := policy.Origins{}
	for _, i := range policy.Rising(specs) {
		var written map[string]json.RawMessage
		if json.Unmarshal(layers[i].Fields[f.field], &written) != nil {
			continue
		}
		for k := range written {
			if _, ok := have[k]; ok {
				out[k] = policy.Origin{Layer: i}
			}
		}
	}
	return out
}
