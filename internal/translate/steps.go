package translate

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// stepTable finds the step of a place where users write one.
type stepTable struct {
	steps   []policy.Step
	filters map[string]*policy.Step
	fields  map[string][]stepField // policy kind -> its fields, in the order of the steps
}

type stepField struct {
	field string
	step  *policy.Step
}

func newStepTable(steps []policy.Step) stepTable {
	t := stepTable{steps: steps, filters: map[string]*policy.Step{}, fields: map[string][]stepField{}}
	for i := range steps {
		s := &steps[i]
		for _, src := range s.Sources {
			if src.Filter != "" {
				t.filters[src.Filter] = s
			} else {
				t.fields[src.Kind] = append(t.fields[src.Kind], stepField{src.Field, s})
			}
		}
	}
	return t
}

func (t *stepTable) field(kind, field string) *policy.Step {
	for _, f := range t.fields[kind] {
		if f.field == field {
			return f.step
		}
	}
	return nil
}

// Levels at which a policy is attached, from the outermost to the innermost; a filter stands behind them all.
const (
	gatewayLevel = iota
	listenerLevel
	routeLevel
	ruleLevel
	filterLevel
)

// lowered is a step and what its place in the order depends on.
type lowered struct {
	Step  *ir.Step
	Phase policy.Phase
	Level int
	// EveryAnswer and Answers are those of policy.Step.
	EveryAnswer, Answers bool
	Enforces             bool // it does more than look on
	Nothing              bool // it has no hook: nothing is to be done
}

// lower makes the IR's step of a spec that was written at source. An error is about the spec: a *diag.Problem, or several
// joined.
//
// Its references are for the caller to follow: see specRefs.
func lower(s *policy.Step, raw []byte, target, source ir.Source, level int) (lowered, error) {
	spec, err := s.Decode(raw)
	if err != nil {
		return lowered{}, specError(err)
	}
	h, err := spec.Compile(policy.Env{Target: target.Object()})
	if err != nil {
		return lowered{}, err
	}
	phase := s.Phase(spec)
	nothing := h.Request == nil && h.Response == nil && h.RequestData == nil && h.ResponseData == nil
	enforces := s.Enforces == nil || s.Enforces(spec)
	return lowered{Level: level, Phase: phase, EveryAnswer: s.EveryAnswer, Answers: s.Answers, Enforces: enforces, Nothing: nothing, Step: &ir.Step{
		Name: s.Name, Phase: phase.String(), Target: target, Spec: raw, Sources: map[string]ir.Source{"": source},
	}}, nil
}

// specRefs lists what the spec of a step refers to. raw was lowered before.
func specRefs(s *policy.Step, raw []byte) []policy.Ref {
	if s.Refs == nil {
		return nil
	}
	spec, err := s.Decode(raw)
	if err != nil {
		return nil
	}
	return s.Refs(spec)
}

// problemsText is problems in one line: the first, and how many more there are.
func problemsText(ps []diag.Problem) string {
	text := ps[0].Error()
	if len(ps) > 1 {
		text += fmt.Sprintf(" and %d more", len(ps)-1)
	}
	return text
}

// specError makes an error of encoding/json one that speaks of the field.
func specError(err error) error {
	var p *diag.Problem
	if errors.As(err, &p) {
		return err
	}
	var t *json.UnmarshalTypeError
	if errors.As(err, &t) {
		return diag.Errorf(t.Field, "%s is not a %s", t.Value, t.Type)
	}
	return diag.Errorf("", "%v", err)
}

// invalidStep answers every request with 503 and a reason: policy_invalid, policy_missing.
func invalidStep(reason, detail string, target, source ir.Source, level int) lowered {
	raw := mustJSON(struct {
		Reason string `json:"reason"`
		Detail string `json:"detail"`
	}{reason, detail})
	return lowered{Level: level, Phase: policy.Protect, Step: &ir.Step{
		Name: "invalid", Phase: policy.Protect.String(), Target: target, Spec: raw, Sources: map[string]ir.Source{"": source},
	}}
}

// mustJSON encodes a value whose type has no way to fail.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("translate: encoding a %T: %v", v, err))
	}
	return b
}

// order sorts steps as they run: what is for every answer first, then by phase, what refuses everything first, then from the outer
// to the inner level, then as they stand.
func order(steps []lowered) []*ir.Step {
	if len(steps) == 0 {
		return nil
	}
	s := slices.Clone(steps)
	slices.SortStableFunc(s, func(a, b lowered) int {
		return cmp.Or(compareBool(a.EveryAnswer, b.EveryAnswer), cmp.Compare(a.Phase, b.Phase), cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Level, b.Level))
	})
	out := make([]*ir.Step, len(s))
	for i := range s {
		out[i] = s[i].Step
	}
	return out
}

// rank puts what refuses everything before what looks closer.
func rank(l lowered) int {
	switch l.Step.Name {
	case "invalid":
		return 0
	case "maintenance":
		return 1
	}
	return 2
}
