package expression

import (
	"fmt"
	"math"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// eval runs the program in cel's interpreter.
func (p *Program) eval(x *exchange.Exchange) (ref.Val, error) {
	if p.slow == nil {
		return nil, fmt.Errorf("evaluating %q: it was compiled for kind %s and asked for another", p.source, p.kind)
	}
	v, _, err := p.slow.Eval(activation{x})
	if err != nil {
		return nil, fmt.Errorf("evaluating %q: %w", p.source, err)
	}
	return v, nil
}

// wrong is the error for a claim, whose type nobody knew before, that is of another type than wanted.
func (p *Program) wrong(v ref.Val) error {
	return fmt.Errorf("evaluating %q: the value is of type %s, wanted is %s", p.source, v.Type().TypeName(), p.kind)
}

// A claim that is missing reads as null; where it is the whole value, that is false, 0 or "".

func (p *Program) slowBool(x *exchange.Exchange) (bool, error) {
	v, err := p.eval(x)
	if err != nil {
		return false, err
	}
	switch v := v.(type) {
	case types.Bool:
		return bool(v), nil
	case types.Null:
		return false, nil
	}
	return false, p.wrong(v)
}

func (p *Program) slowInt(x *exchange.Exchange) (int64, error) {
	v, err := p.eval(x)
	if err != nil {
		return 0, err
	}
	switch v := v.(type) {
	case types.Int:
		return int64(v), nil
	case types.Null:
		return 0, nil
	case types.Double: // a number in JSON
		if f := float64(v); f == math.Trunc(f) && math.Abs(f) < 1<<53 {
			return int64(f), nil
		}
	}
	return 0, p.wrong(v)
}

func (p *Program) slowAppend(dst []byte, x *exchange.Exchange) ([]byte, error) {
	v, err := p.eval(x)
	if err != nil {
		return dst, err
	}
	switch v := v.(type) {
	case types.String:
		return append(dst, v...), nil
	case types.Null:
		return dst, nil
	}
	return dst, p.wrong(v)
}
