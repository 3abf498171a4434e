package expression

import (
	"bytes"
	"slices"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// boolean compiles an expression of type bool.
func (b *builder) boolean(e ast.Expr) (boolean, bool) {
	if b.kindOf(e) != types.BoolKind {
		return nil, false
	}
	switch e.Kind() {
	case ast.LiteralKind:
		v, ok := e.AsLiteral().(types.Bool)
		return func(*frame) (bool, error) { return bool(v), nil }, ok
	case ast.SelectKind:
		return b.present(e.AsSelect())
	}
	name, args := callOf(e)
	switch name {
	case operators.Conditional:
		return conditional(b, args, func(e ast.Expr) (func(*frame) (bool, error), bool) { return b.boolean(e) })
	case operators.LogicalNot:
		v, ok := b.boolean(args[0])
		return not(v), ok
	case operators.LogicalAnd, operators.LogicalOr:
		return b.logic(args, name == operators.LogicalOr)
	case operators.Equals:
		return b.equal(args[0], args[1])
	case operators.NotEquals:
		v, ok := b.equal(args[0], args[1])
		return not(v), ok
	case operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals:
		return b.order(name, args)
	case operators.In:
		return b.in(args[0], args[1])
	case "startsWith":
		return b.texts(args, bytes.HasPrefix)
	case "endsWith":
		return b.texts(args, bytes.HasSuffix)
	case "contains":
		return b.texts(args, bytes.Contains)
	case "matches":
		return b.matches(args)
	case inNetwork:
		return b.network(args)
	}
	return nil, false
}

func not(v boolean) boolean {
	return func(f *frame) (bool, error) {
		t, err := v(f)
		return !t, err
	}
}

// logic compiles && and ||. As in cel, a side that decides makes good an error of the other.
func (b *builder) logic(args []ast.Expr, decides bool) (boolean, bool) {
	sides := make([]boolean, len(args))
	for i, e := range args {
		var ok bool
		if sides[i], ok = b.boolean(e); !ok {
			return nil, false
		}
	}
	return func(f *frame) (bool, error) {
		var failed error
		for _, s := range sides {
			v, err := s(f)
			if err == nil && v == decides {
				return v, nil
			}
			if failed == nil {
				failed = err
			}
		}
		return !decides, failed
	}, true
}

// present compiles has(request.headers.name).
func (b *builder) present(s ast.SelectExpr) (boolean, bool) {
	a := attr(s.Operand())
	if a == nil || !s.IsTestOnly() {
		return nil, false
	}
	return b.key(a, s.FieldName())
}

// key compiles whether a map has a key.
func (b *builder) key(a *attribute, key string) (boolean, bool) {
	switch {
	case a.header != nil:
		get := a.header
		return func(f *frame) (bool, error) { return get(f.x).Has(key), nil }, true
	case a.name == identityClaims:
		return func(f *frame) (bool, error) {
			_, ok := f.x.Identity.Claims[key]
			return ok, nil
		}, true
	}
	return nil, false
}

func (b *builder) texts(args []ast.Expr, do func(a, b []byte) bool) (boolean, bool) {
	l, ok := b.text(args[0])
	if !ok {
		return nil, false
	}
	r, ok := b.text(args[1])
	return two(l, r, do), ok
}

func (b *builder) equal(l, r ast.Expr) (boolean, bool) {
	if get, ok := b.claim(l); ok {
		return b.claimEqual(get, r)
	}
	if get, ok := b.claim(r); ok {
		return b.claimEqual(get, l)
	}
	switch b.kindOf(l) {
	case types.StringKind:
		return b.texts([]ast.Expr{l, r}, bytes.Equal)
	case types.IntKind:
		l, ok := b.integer(l)
		if !ok {
			return nil, false
		}
		r, ok := b.integer(r)
		return two(l, r, func(a, b int64) bool { return a == b }), ok
	case types.BoolKind:
		l, ok := b.boolean(l)
		if !ok {
			return nil, false
		}
		r, ok := b.boolean(r)
		return two(l, r, func(a, b bool) bool { return a == b }), ok
	}
	return nil, false
}

// claimEqual compiles the comparison of a claim with a text or a truth: one of another type is not equal.
func (b *builder) claimEqual(get func(*frame) any, e ast.Expr) (boolean, bool) {
	if t, ok := b.text(e); ok {
		return func(f *frame) (bool, error) {
			want, err := t(f)
			if err != nil {
				return false, err
			}
			got, ok := get(f).(string)
			return ok && got == string(want), nil
		}, true
	}
	v, ok := b.boolean(e)
	return func(f *frame) (bool, error) {
		want, err := v(f)
		if err != nil {
			return false, err
		}
		got, ok := get(f).(bool)
		return ok && got == want, nil
	}, ok
}

func (b *builder) order(name string, args []ast.Expr) (boolean, bool) {
	holds := map[string]func(int) bool{
		operators.Less:          func(c int) bool { return c < 0 },
		operators.LessEquals:    func(c int) bool { return c <= 0 },
		operators.Greater:       func(c int) bool { return c > 0 },
		operators.GreaterEquals: func(c int) bool { return c >= 0 },
	}[name]
	if b.kindOf(args[0]) == types.StringKind {
		return b.texts(args, func(x, y []byte) bool { return holds(bytes.Compare(x, y)) })
	}
	l, ok := b.integer(args[0])
	if !ok {
		return nil, false
	}
	r, ok := b.integer(args[1])
	return two(l, r, func(x, y int64) bool {
		switch {
		case x < y:
			return holds(-1)
		case x > y:
			return holds(1)
		}
		return holds(0)
	}), ok
}

// in compiles "in" for a list of constants, the scopes, a claim that is a list, and the keys of headers and claims.
func (b *builder) in(l, r ast.Expr) (boolean, bool) {
	if a := attr(r); a != nil && a.isMap() {
		key, ok := literal(l)
		if !ok {
			return nil, false
		}
		return b.key(a, key)
	}
	if b.kindOf(l) == types.IntKind {
		return b.inNumbers(l, r)
	}
	t, ok := b.text(l)
	if !ok {
		return nil, false
	}
	if a := attr(r); a != nil && a.name == identityScopes {
		return func(f *frame) (bool, error) {
			v, err := t(f)
			if err != nil {
				return false, err
			}
			for _, s := range f.x.Identity.Scopes {
				if s == string(v) {
					return true, nil
				}
			}
			return false, nil
		}, true
	}
	if get, ok := b.claim(r); ok {
		return inClaim(t, get), true
	}
	return inTexts(t, r)
}

func inTexts(t text, list ast.Expr) (boolean, bool) {
	if list.Kind() != ast.ListKind {
		return nil, false
	}
	set := map[string]struct{}{}
	for _, e := range list.AsList().Elements() {
		s, ok := literal(e)
		if !ok {
			return nil, false
		}
		set[s] = struct{}{}
	}
	return func(f *frame) (bool, error) {
		v, err := t(f)
		if err != nil {
			return false, err
		}
		_, ok := set[string(v)]
		return ok, nil
	}, true
}

func (b *builder) inNumbers(l, list ast.Expr) (boolean, bool) {
	n, ok := b.integer(l)
	if !ok || list.Kind() != ast.ListKind {
		return nil, false
	}
	var set []int64
	for _, e := range list.AsList().Elements() {
		if e.Kind() != ast.LiteralKind {
			return nil, false
		}
		v, ok := e.AsLiteral().(types.Int)
		if !ok {
			return nil, false
		}
		set = append(set, int64(v))
	}
	return func(f *frame) (bool, error) {
		v, err := n(f)
		return err == nil && slices.Contains(set, v), err
	}, true
}

// inClaim is whether a claim, a list or an object, holds a text. Of another type, or missing, it is an error, as in cel.
func inClaim(t text, get func(*frame) any) boolean {
	return func(f *frame) (bool, error) {
		v, err := t(f)
		if err != nil {
			return false, err
		}
		switch c := get(f).(type) {
		case []any:
			for _, e := range c {
				if s, ok := e.(string); ok && s == string(v) {
					return true, nil
				}
			}
			return false, nil
		case []string:
			for _, s := range c {
				if s == string(v) {
					return true, nil
				}
			}
			return false, nil
		case map[string]any:
			_, ok := c[string(v)]
			return ok, nil
		}
		return false, errClaim
	}
}

func (b *builder) matches(args []ast.Expr) (boolean, bool) {
	t, ok := b.text(args[0])
	if !ok {
		return nil, false
	}
	s, ok := literal(args[1])
	p := b.patterns[s]
	return func(f *frame) (bool, error) {
		v, err := t(f)
		if err != nil {
			return false, err
		}
		return f.match(p, v)
	}, ok && p != nil
}

// network compiles inNetwork for constant networks. The client's address need not become a text for it.
func (b *builder) network(args []ast.Expr) (boolean, bool) {
	nets, ok := networks(args[1])
	if !ok {
		return nil, false
	}
	if a := attr(args[0]); a == nil || a.name != clientAddress {
		return nil, false
	}
	return func(f *frame) (bool, error) {
		a := f.x.Client.Addr().Unmap().WithZone("")
		if !a.IsValid() {
			return false, errAddress
		}
		for _, n := range nets {
			if n.Contains(a) {
				return true, nil
			}
		}
		return false, nil
	}, true
}
