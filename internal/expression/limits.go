package expression

import (
	"errors"
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"
)

// maxSteps bounds "matches": bytes of the text times instructions of the pattern, which is how many steps RE2 takes at worst. On the fast
// path it is for all of one evaluation; in cel for one call, and the cost limit for all.
const maxSteps = 128 << 10

// stepsPerCost is how many of those steps cost as much as one of cel's units.
const stepsPerCost = 8

// maxBuilt bounds the texts that one evaluation on the fast path puts together, in bytes: joined fields, sums, texts in another case. It has
// room for the largest header section twice. In cel the cost limit does that.
const maxBuilt = 128 << 10

var errTooLarge = fmt.Errorf("the texts that are put together are too large")

var errTooLong = fmt.Errorf("matches: the text is too long for this pattern")

// match is "matches" on the fast path.
func (f *frame) match(p *pattern, b []byte) (bool, error) {
	f.steps += len(b) * p.size
	if f.steps > maxSteps {
		return false, errTooLong
	}
	return p.re.Match(b), nil
}

// affordable refuses an expression whose worst case is out of reach of the limit at run time: it would only ever fail.
func (c *checked) affordable() error {
	est, err := c.env.EstimateCost(c.checked, estimator{c.patterns})
	if err != nil {
		return &Fault{Msg: fmt.Sprintf("the cost of the expression cannot be estimated: %v", err), Hint: "write it more simply"}
	}
	if est.Max > maxEstimate {
		return &Fault{Msg: fmt.Sprintf("the expression may cost too much: %s units for a large request, at most %d", units(est.Max), maxEstimate),
			Hint: "loop over less, avoid loops in loops, and do not put texts together in them"}
	}
	return nil
}

func units(n uint64) string {
	if n > 1e15 {
		return "countless"
	}
	return fmt.Sprint(n)
}

// estimator tells cel how large what it does not know may be, and what "matches" costs.
type estimator struct{ patterns map[string]*pattern }

// EstimateSize implements cost.Estimator. The path begins with an attribute.
func (estimator) EstimateSize(n cost.AstNode) *cost.SizeEstimate {
	path := n.Path()
	if len(path) == 0 {
		return nil
	}
	a := find(path[0])
	if a == nil {
		return nil
	}
	inside := 0 // how many lists and maps of unknown depth the path has gone into
	for _, p := range path {
		if strings.HasPrefix(p, "@") {
			inside++
		}
	}
	var most uint64
	switch last := path[len(path)-1]; {
	case inside > 3:
		return nil
	case len(path) == 1:
		most = a.size
	case last == "@keys":
		most = sizeName
	case a.header != nil:
		most = sizeValue
	case a.name == identityScopes:
		most = sizeWord
	default:
		most = sizeClaim
	}
	return &cost.SizeEstimate{Max: most}
}

// EstimateCallCost implements cost.Estimator.
func (e estimator) EstimateCallCost(_, overload string, target *cost.AstNode, args []cost.AstNode) *cost.CallEstimate {
	switch overload {
	case overloads.Matches, overloads.MatchesString:
		all := args
		if target != nil {
			all = append([]cost.AstNode{*target}, args...)
		}
		if len(all) != 2 {
			return nil
		}
		text, _ := literal(all[1].Expr())
		p := e.patterns[text]
		if p == nil {
			return nil
		}
		size := uint64(maxSteps)
		if s := all[0].ComputedSize(); s != nil {
			size = s.Max
		} else if s := e.EstimateSize(all[0]); s != nil {
			size = s.Max
		}
		most := min(size, uint64(maxSteps/p.size)) * uint64(p.size) / stepsPerCost
		return &cost.CallEstimate{CostEstimate: cost.Estimate{Min: 1, Max: 1 + most}}
	case "in_network_string":
		return &cost.CallEstimate{CostEstimate: cost.FixedCostEstimate(8)}
	case "in_network_list":
		return &cost.CallEstimate{CostEstimate: cost.Estimate{Min: 8, Max: 8 * 256}}
	}
	return nil
}

// CallCost implements cost.ActualCostEstimator.
func (e estimator) CallCost(_, overload string, args []ref.Val, _ ref.Val) *uint64 {
	n := uint64(8)
	switch overload {
	case overloads.Matches, overloads.MatchesString:
		text, _ := args[0].(types.String)
		re, _ := args[1].(types.String)
		p := e.patterns[string(re)]
		if p == nil {
			return nil
		}
		n = 1 + uint64(len(text)*p.size/stepsPerCost)
	case "in_network_string":
	case "in_network_list":
		n += 8 * cost.ActualSize(args[1])
	default:
		return nil
	}
	return &n
}

// program makes what runs in cel's interpreter.
func (c *checked) program() (cel.Program, error) {
	p, err := c.env.Program(c.checked,
		cel.EvalOptions(cel.OptOptimize),
		cel.OptimizeRegex(c.matcher(overloads.Matches), c.matcher(overloads.MatchesString)),
		cel.CostTracking(estimator{c.patterns}), cel.CostLimit(maxRunCost))
	if err != nil {
		return nil, &Fault{Msg: fmt.Sprintf("the expression cannot be compiled: %v", err)}
	}
	return p, nil
}

// matcher puts our "matches", which looks at the length of the text first, in the place of cel's.
func (c *checked) matcher(overload string) *interpreter.RegexOptimization {
	return &interpreter.RegexOptimization{Function: overloads.Matches, OverloadID: overload, RegexIndex: 1,
		Factory: func(call interpreter.InterpretableCall, text string) (interpreter.InterpretableCall, error) {
			p := c.patterns[text]
			if p == nil {
				return nil, errors.New("a pattern that was not checked")
			}
			return interpreter.NewCall(call.ID(), call.Function(), call.OverloadID(), call.Args(), func(args ...ref.Val) ref.Val {
				s, ok := args[0].(types.String)
				if !ok {
					return types.MaybeNoSuchOverloadErr(args[0])
				}
				if len(s)*p.size > maxSteps {
					return types.WrapErr(errTooLong)
				}
				return types.Bool(p.re.MatchString(string(s)))
			}), nil
		}}
}
