package expression

import (
	"encoding/json"
	"strconv"
	"unicode/utf8"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// text compiles an expression of type string.
func (b *builder) text(e ast.Expr) (text, bool) {
	if b.kindOf(e) != types.StringKind {
		return nil, false
	}
	if s, ok := literal(e); ok {
		v := []byte(s)
		return func(*frame) ([]byte, error) { return v, nil }, true
	}
	if a := attr(e); a != nil {
		return attributeText(a)
	}
	if a, key, ok := entry(e); ok && a.header != nil {
		get := a.header
		return func(f *frame) ([]byte, error) { return f.header(get(f.x), key) }, true
	}
	name, args := callOf(e)
	switch name {
	case operators.Conditional:
		return conditional(b, args, func(e ast.Expr) (func(*frame) ([]byte, error), bool) { return b.text(e) })
	case operators.Add:
		return b.concat(e)
	case "string":
		if n, ok := b.integer(args[0]); ok {
			return func(f *frame) ([]byte, error) {
				v, err := n(f)
				if err != nil {
					return nil, err
				}
				start := len(f.buf)
				f.buf = strconv.AppendInt(f.buf, v, 10)
				return f.since(start)
			}, true
		}
		return b.text(args[0])
	case "lowerAscii":
		return b.cased(args[0], 'A', 'Z')
	case "upperAscii":
		return b.cased(args[0], 'a', 'z')
	}
	return nil, false
}

func attributeText(a *attribute) (text, bool) {
	switch {
	case a.bytes != nil:
		get := a.bytes
		return func(f *frame) ([]byte, error) { return get(f.x), nil }, true
	case a.str != nil:
		get := a.str
		return func(f *frame) ([]byte, error) {
			start := len(f.buf)
			f.buf = append(f.buf, get(f.x)...)
			return f.since(start)
		}, true
	case a.name == clientAddress:
		return func(f *frame) ([]byte, error) {
			start := len(f.buf)
			f.buf = appendAddress(f.buf, f.x)
			return f.since(start)
		}, true
	}
	return nil, false
}

// fits reports whether n more bytes may be put together. It is asked before they are: an error of one side of || does not keep the next
// side from running.
func (f *frame) fits(n int) bool { return len(f.buf)+n <= maxBuilt }

// since is what was put together from start on. Its capacity ends with it, so that nothing is appended over what follows.
func (f *frame) since(start int) ([]byte, error) {
	if len(f.buf) > maxBuilt {
		return nil, errTooLarge
	}
	return f.buf[start:len(f.buf):len(f.buf)], nil
}

// header is the value of all fields of that name, joined only if there are several.
func (f *frame) header(h *exchange.Header, name string) ([]byte, error) {
	all := h.All()
	for i := range all {
		if !exchange.EqualFold(all[i].Name, name) {
			continue
		}
		for j := i + 1; j < len(all); j++ {
			if exchange.EqualFold(all[j].Name, name) {
				n := 0
				for k := range all {
					n += len(all[k].Value)
				}
				if !f.fits(n) { // more than it will be: other fields count too
					return nil, errTooLarge
				}
				start := len(f.buf)
				f.buf, _ = h.Joined(f.buf, name)
				return f.since(start)
			}
		}
		return all[i].Value, nil
	}
	return nil, nil
}

// concat compiles a + b + c as one: parts are all evaluated before the first is copied, because they use the same room.
func (b *builder) concat(e ast.Expr) (text, bool) {
	var parts []text
	for {
		name, args := callOf(e)
		if name != operators.Add {
			break
		}
		p, ok := b.text(args[1])
		if !ok {
			return nil, false
		}
		parts = append([]text{p}, parts...)
		e = args[0]
	}
	p, ok := b.text(e)
	if !ok {
		return nil, false
	}
	parts = append([]text{p}, parts...)
	return func(f *frame) ([]byte, error) {
		base, n := len(f.parts), 0
		for _, p := range parts {
			v, err := p(f)
			if err != nil {
				f.parts = f.parts[:base]
				return nil, err
			}
			f.parts = append(f.parts, v)
			n += len(v)
		}
		if !f.fits(n) {
			f.parts = f.parts[:base]
			return nil, errTooLarge
		}
		start := len(f.buf)
		for _, v := range f.parts[base:] {
			f.buf = append(f.buf, v...)
		}
		f.parts = f.parts[:base]
		return f.since(start)
	}, true
}

// cased swaps the case of the ASCII letters from first to last. Bytes that are not UTF-8 become U+FFFD, as in cel.
func (b *builder) cased(e ast.Expr, first, last byte) (text, bool) {
	t, ok := b.text(e)
	if !ok {
		return nil, false
	}
	return func(f *frame) ([]byte, error) {
		v, err := t(f)
		if err != nil {
			return nil, err
		}
		if !f.fits(len(v)) {
			return nil, errTooLarge
		}
		start := len(f.buf)
		for i := 0; i < len(v); {
			if c := v[i]; c < utf8.RuneSelf {
				if first <= c && c <= last {
					c ^= 0x20
				}
				f.buf = append(f.buf, c)
				i++
				continue
			}
			r, n := utf8.DecodeRune(v[i:])
			f.buf = utf8.AppendRune(f.buf, r)
			i += n
		}
		return f.since(start)
	}, true
}

// claim compiles identity.claims.name: its value, which is nil if it is missing.
func (b *builder) claim(e ast.Expr) (func(*frame) any, bool) {
	a, key, ok := entry(e)
	if !ok || a.name != identityClaims {
		return nil, false
	}
	return func(f *frame) any { return f.x.Identity.Claims[key] }, true
}

// claimText compiles a claim that is the whole of an expression of kind String.
func (b *builder) claimText(e ast.Expr) (text, bool) {
	get, ok := b.claim(e)
	if !ok {
		return nil, false
	}
	return func(f *frame) ([]byte, error) {
		switch v := get(f).(type) {
		case nil:
			return nil, nil
		case json.Number:
		case string:
			start := len(f.buf)
			f.buf = append(f.buf, v...)
			return f.since(start)
		}
		return nil, errClaim
	}, true
}
