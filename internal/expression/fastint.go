package expression

import (
	"math"
	"strconv"
	"unicode/utf8"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// integer compiles an expression of type int.
func (b *builder) integer(e ast.Expr) (integer, bool) {
	if b.kindOf(e) != types.IntKind {
		return nil, false
	}
	if e.Kind() == ast.LiteralKind {
		n, ok := e.AsLiteral().(types.Int)
		return func(*frame) (int64, error) { return int64(n), nil }, ok
	}
	if a := attr(e); a != nil {
		return func(f *frame) (int64, error) { return int64(f.x.Response.Status), nil }, a.name == responseStatus
	}
	name, args := callOf(e)
	switch name {
	case operators.Conditional:
		return conditional(b, args, func(e ast.Expr) (func(*frame) (int64, error), bool) { return b.integer(e) })
	case "size":
		return b.size(args[0])
	case "int":
		return b.convert(args[0])
	case operators.Negate:
		n, ok := b.integer(args[0])
		return func(f *frame) (int64, error) {
			v, err := n(f)
			if err == nil && v == math.MinInt64 {
				return 0, errOverflow
			}
			return -v, err
		}, ok
	case operators.Add, operators.Subtract, operators.Multiply, operators.Divide, operators.Modulo:
		return b.arithmetic(name, args)
	}
	return nil, false
}

func (b *builder) size(e ast.Expr) (integer, bool) {
	if a := attr(e); a != nil && a.name == identityScopes {
		return func(f *frame) (int64, error) { return int64(len(f.x.Identity.Scopes)), nil }, true
	}
	t, ok := b.text(e)
	return func(f *frame) (int64, error) {
		v, err := t(f)
		return int64(utf8.RuneCount(v)), err
	}, ok
}

// convert compiles int(text).
func (b *builder) convert(e ast.Expr) (integer, bool) {
	if n, ok := b.integer(e); ok {
		return n, true
	}
	t, ok := b.text(e)
	return func(f *frame) (int64, error) {
		v, err := t(f)
		if err != nil {
			return 0, err
		}
		if len(v) > 32 { // ParseInt's error would keep it
			v = v[:0:0]
		}
		n, err := strconv.ParseInt(string(v), 10, 64)
		if err != nil {
			return 0, errNumber
		}
		return n, nil
	}, ok
}

func (b *builder) arithmetic(name string, args []ast.Expr) (integer, bool) {
	l, ok := b.integer(args[0])
	if !ok {
		return nil, false
	}
	r, ok := b.integer(args[1])
	if !ok {
		return nil, false
	}
	do := map[string]func(a, b int64) (int64, error){
		operators.Add: add, operators.Subtract: subtract, operators.Multiply: multiply,
		operators.Divide: divide, operators.Modulo: modulo,
	}[name]
	return func(f *frame) (int64, error) {
		a, err := l(f)
		if err != nil {
			return 0, err
		}
		b, err := r(f)
		if err != nil {
			return 0, err
		}
		return do(a, b)
	}, true
}

func add(a, b int64) (int64, error) {
	if c := a + b; (c > a) == (b > 0) {
		return c, nil
	}
	return 0, errOverflow
}

func subtract(a, b int64) (int64, error) {
	if c := a - b; (c < a) == (b > 0) {
		return c, nil
	}
	return 0, errOverflow
}

func multiply(a, b int64) (int64, error) {
	if a == 0 || b == 0 {
		return 0, nil
	}
	c := a * b
	if (c < 0) != ((a < 0) != (b < 0)) || c/b != a {
		return 0, errOverflow
	}
	return c, nil
}

func divide(a, b int64) (int64, error) {
	switch {
	case b == 0:
		return 0, errDivide
	case a == math.MinInt64 && b == -1:
		return 0, errOverflow
	}
	return a / b, nil
}

func modulo(a, b int64) (int64, error) {
	switch {
	case b == 0:
		return 0, errDivide
	case a == math.MinInt64 && b == -1:
		return 0, errOverflow
	}
	return a % b, nil
}
