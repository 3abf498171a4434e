package expression

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// rules checks what types do not tell, and notes what the expression reads.
func (c *checked) rules() error {
	var first error
	ast.PreOrderVisit(ast.NavigateAST(c.ast), ast.NewExprVisitor(func(e ast.Expr) {
		if first == nil {
			first = c.rule(e.(ast.NavigableExpr))
		}
	}))
	return first
}

func (c *checked) rule(e ast.NavigableExpr) error {
	switch e.Kind() {
	case ast.IdentKind:
		return c.identRule(e)
	case ast.CallKind:
		return c.callRule(e)
	}
	return nil
}

// attr is the attribute that e names, or nil. A variable of a loop has no dot in it, an attribute always has.
func attr(e ast.Expr) *attribute {
	if e.Kind() != ast.IdentKind {
		return nil
	}
	return find(strings.TrimPrefix(e.AsIdent(), "."))
}

func (c *checked) identRule(e ast.NavigableExpr) error {
	a := attr(e)
	if a == nil {
		return nil
	}
	if !a.isMap() {
		c.names[a.name] = true
		return nil
	}
	key, constant, ok := c.mapUse(e)
	if !ok {
		return &Fault{Msg: at(c.ast, e, "%s cannot be used as a whole", a.name),
			Hint: fmt.Sprintf(`write %[1]s["name"], "name" in %[1]s, size(%[1]s) or a loop such as %[1]s.exists(n, ...)`, a.name)}
	}
	if !constant {
		c.names[a.name] = true
		return nil
	}
	c.names[a.name+"."+key] = true
	if a.header == nil {
		return nil
	}
	if low := strings.ToLower(key); low != key {
		return &Fault{Msg: at(c.ast, e, "names of header fields are in lower case, not %q", key), Hint: fmt.Sprintf("write %q", low)}
	}
	return nil
}

// mapUse says whether the map e is used in a way that does not need all of it, and which key is looked up, if it is a constant.
func (c *checked) mapUse(e ast.NavigableExpr) (key string, constant, ok bool) {
	p, ok := e.Parent()
	if !ok {
		return "", false, false
	}
	switch p.Kind() {
	case ast.SelectKind:
		return p.AsSelect().FieldName(), true, true
	case ast.ComprehensionKind:
		return "", false, p.AsComprehension().IterRange().ID() == e.ID()
	case ast.CallKind:
		call := p.AsCall()
		switch call.FunctionName() {
		case operators.Index:
			key, constant = literal(call.Args()[1])
			return key, constant, call.Args()[0].ID() == e.ID()
		case operators.In:
			key, constant = literal(call.Args()[0])
			return key, constant, call.Args()[1].ID() == e.ID()
		case "size":
			return "", false, true
		}
	}
	return "", false, false
}

// literal is the text of a constant.
func literal(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	s, ok := e.AsLiteral().(types.String)
	return string(s), ok
}

func (c *checked) callRule(e ast.NavigableExpr) error {
	switch call := e.AsCall(); call.FunctionName() {
	case "matches":
		return c.patternRule(arguments(call)[1])
	case inNetwork:
		return c.networkRule(call.Args()[1])
	}
	return nil
}

// refusedCall finds the first call of a function that is not to be had, in the parsed tree: before the checker looks at it.
func refusedCall(a *ast.AST) error {
	var first error
	ast.PreOrderVisit(a.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if first != nil || e.Kind() != ast.CallKind {
			return
		}
		call := e.AsCall()
		name := call.FunctionName()
		if call.IsMemberFunction() && call.Target().Kind() == ast.IdentKind && call.Target().AsIdent() == "strings" {
			name = "strings." + name
		}
		if why, ok := refused[name]; ok {
			first = &Fault{Msg: at(a, e, "%s is not to be had here", name), Hint: why}
		}
	}))
	return first
}

// arguments are those of a call, what stands before the dot first.
func arguments(call ast.CallExpr) []ast.Expr {
	if call.IsMemberFunction() {
		return append([]ast.Expr{call.Target()}, call.Args()...)
	}
	return call.Args()
}

// pattern is a compiled regular expression.
type pattern struct {
	re   *regexp.Regexp
	size int // instructions: what one byte costs at worst
}

// patternRule refuses what could make "matches" expensive: a pattern that comes with the request, and one that is small only as text.
func (c *checked) patternRule(e ast.Expr) error {
	text, ok := literal(e)
	if !ok {
		return &Fault{Msg: at(c.ast, e, "the pattern of matches has to be a constant"), Hint: `write it as a text: matches("^/v[0-9]+/")`}
	}
	if len(text) > maxPattern {
		return &Fault{Msg: at(c.ast, e, "regular expression of %d bytes", len(text)), Hint: fmt.Sprintf("write at most %d", maxPattern)}
	}
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return &Fault{Msg: at(c.ast, e, "regular expression %q: %s", text, strings.TrimPrefix(err.Error(), "error parsing regexp: ")),
			Hint: "the syntax is RE2: no look-around, no back references"}
	}
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil || len(prog.Inst) > maxProgram {
		return &Fault{Msg: at(c.ast, e, "regular expression %q is too large once its repetitions are written out", text),
			Hint: fmt.Sprintf("repeat fewer times, so that it has at most %d steps", maxProgram)}
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return &Fault{Msg: at(c.ast, e, "regular expression %q: %v", text, err)}
	}
	c.patterns[text] = &pattern{re: re, size: len(prog.Inst)}
	return nil
}

// reads lists the attributes, sorted.
func (c *checked) reads() []string {
	names := make([]string, 0, len(c.names))
	for n := range c.names {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
