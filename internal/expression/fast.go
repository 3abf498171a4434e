package expression

import (
	"errors"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// The fast path: closures over an exchange's bytes for the part of the language that most expressions keep to. Each closure means
// exactly what cel means; a property test holds them together. What a text closure returns stays as it is until leave.
type (
	boolean func(*frame) (bool, error)
	text    func(*frame) ([]byte, error)
	integer func(*frame) (int64, error)
)

var (
	errOverflow = errors.New("a number beyond 64 bits")
	errDivide   = errors.New("division by zero")
	errNumber   = errors.New("int(): the text is not a number")
	errClaim    = errors.New("a claim of a type that this cannot be done with")
)

// builder compiles a checked expression. Its methods report false for what is not on the fast path.
type builder struct{ *checked }

func (b *builder) kindOf(e ast.Expr) types.Kind { return b.ast.GetType(e.ID()).Kind() }

// call is the name and the arguments of a call.
func callOf(e ast.Expr) (string, []ast.Expr) {
	if e.Kind() != ast.CallKind {
		return "", nil
	}
	c := e.AsCall()
	return c.FunctionName(), arguments(c)
}

// entry takes apart what looks up a constant key in a map of attributes: request.headers["a"], request.headers.a.
func entry(e ast.Expr) (a *attribute, key string, ok bool) {
	var of ast.Expr
	switch e.Kind() {
	case ast.SelectKind:
		s := e.AsSelect()
		of, key, ok = s.Operand(), s.FieldName(), !s.IsTestOnly()
	case ast.CallKind:
		name, args := callOf(e)
		if name != operators.Index {
			return nil, "", false
		}
		of = args[0]
		key, ok = literal(args[1])
	}
	if !ok {
		return nil, "", false
	}
	a = attr(of)
	return a, key, a != nil && a.isMap()
}

// choice is c ? a : b, for any type of value.
func choice[T any](c boolean, a, b func(*frame) (T, error)) func(*frame) (T, error) {
	return func(f *frame) (T, error) {
		v, err := c(f)
		if err != nil {
			var none T
			return none, err
		}
		if v {
			return a(f)
		}
		return b(f)
	}
}

// conditional compiles c ? a : b with the given way to compile its branches.
func conditional[T any](b *builder, args []ast.Expr, branch func(ast.Expr) (func(*frame) (T, error), bool)) (func(*frame) (T, error), bool) {
	c, ok := b.boolean(args[0])
	if !ok {
		return nil, false
	}
	yes, ok := branch(args[1])
	if !ok {
		return nil, false
	}
	no, ok := branch(args[2])
	if !ok {
		return nil, false
	}
	return choice(c, yes, no), true
}

// two makes a closure of two others, whose values are both needed.
func two[A, T any](l, r func(*frame) (A, error), do func(A, A) T) func(*frame) (T, error) {
	return func(f *frame) (T, error) {
		a, err := l(f)
		if err != nil {
			var none T
			return none, err
		}
		b, err := r(f)
		if err != nil {
			var none T
			return none, err
		}
		return do(a, b), nil
	}
}
