package expression

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
)

// Fault is what is wrong with an expression, for the user who wrote it. Msg begins with the place, if there is one.
type Fault struct {
	Msg  string
	Hint string // what to write instead; may be empty
}

// Error is the message, and the hint in parentheses.
func (f *Fault) Error() string {
	if f.Hint == "" {
		return f.Msg
	}
	return f.Msg + " (" + f.Hint + ")"
}

// at puts the place of an expression before a message. Columns count from 1.
func at(a *ast.AST, e ast.Expr, format string, args ...any) string {
	l := a.SourceInfo().GetStartLocation(e.ID())
	column := l.Column()
	// The parser notes where the last dot of a.b.c is.
	if chain, ok := chainOf(e); ok {
		name := strings.Join(chain, ".")
		column = max(0, column-max(0, strings.LastIndexByte(name, '.')))
	}
	return place(l.Line(), column) + fmt.Sprintf(format, args...)
}

func place(line, column int) string {
	if line < 1 || column < 0 {
		return ""
	}
	return fmt.Sprintf("line %d, column %d: ", line, column+1)
}

// syntaxFault is the first thing that the parser found.
func syntaxFault(issues *cel.Issues) error {
	e := issues.Errors()[0]
	msg := strings.TrimPrefix(e.Message, "Syntax error: ")
	f := &Fault{Msg: place(e.Location.Line(), e.Location.Column()) + msg}
	switch {
	case strings.Contains(msg, "recursion limit") || strings.Contains(msg, "recursion depth"):
		f.Msg, f.Hint = "the expression is nested too deeply", fmt.Sprintf("at most %d levels; split it into several rules", maxDepth)
	case strings.Contains(msg, "node count") || strings.Contains(msg, "node limit"):
		f.Msg, f.Hint = "the expression has too many parts", fmt.Sprintf("at most %d; split it into several rules", maxNodes)
	case strings.Contains(msg, "lookahead limit"):
		f.Msg, f.Hint = "the expression cannot be read: too many mistakes", "write the first part alone, then add to it"
	case strings.Contains(msg, "mismatched input '='") || strings.Contains(msg, "token recognition error at: '= '"):
		f.Hint = "equality is =="
	case strings.Contains(msg, "token recognition error at: '& '"):
		f.Hint = "and is &&"
	case strings.Contains(msg, "token recognition error at: '| '"):
		f.Hint = "or is ||"
	}
	return f
}

var undeclared = regexp.MustCompile(`^undeclared reference to '([^']+)'`)

var noOverload = regexp.MustCompile(`^found no matching overload for '([^']+)' applied to '(?:([^']+)\.)?\(([^']*)\)'`)

// typeFault is the first thing that the checker found, in words that do not need cel's vocabulary.
func typeFault(issues *cel.Issues) error {
	e := issues.Errors()[0]
	f := &Fault{Msg: place(e.Location.Line(), e.Location.Column())}
	switch m := noOverload.FindStringSubmatch(e.Message); {
	case m != nil && m[2] != "":
		f.Msg += fmt.Sprintf("%s.%s(%s): there is no such function of these types", m[2], m[1], m[3])
	case m != nil:
		f.Msg += fmt.Sprintf("%s does not take %s", operator(m[1]), strings.ReplaceAll(m[3], ", ", " and "))
		f.Hint = "convert one with int(...) or string(...)"
	case undeclared.MatchString(e.Message):
		name := undeclared.FindStringSubmatch(e.Message)[1]
		f.Msg += "unknown function " + name
		if n := nearest(name, functions()); n != "" {
			f.Hint = "did you mean " + n + "?"
		}
	default:
		f.Msg += e.Message
	}
	return f
}

// operator is how users write a function that the parser names: "_==_" is "==", "_[_]" is "[]".
func operator(name string) string {
	switch name {
	case "_[_]":
		return "[ ]"
	case "_?_:_":
		return "? :"
	case "@in":
		return "in"
	}
	return strings.Trim(name, "_")
}

// functions are the names that a misspelt one may have meant.
func functions() []string {
	return []string{"all", "charAt", "contains", "endsWith", "exists", "exists_one", "filter", "has", "inNetwork", "indexOf", "int", "join",
		"lastIndexOf", "lowerAscii", "map", "matches", "replace", "size", "split", "startsWith", "string", "substring", "trim",
		"upperAscii", "sets.contains", "sets.equivalent", "sets.intersects"}
}

// nameFault finds the first name that stands for nothing, or nil.
func nameFault(env *cel.Env, parsed *cel.Ast, o Options) error {
	n := &names{env: env, ast: parsed.NativeRep(), response: o.Response, local: map[string]int{}}
	n.visit(n.ast.Expr())
	if n.fault == nil {
		return nil
	}
	return n.fault
}

// names walks a parsed tree with the variables of its loops.
type names struct {
	env      *cel.Env
	ast      *ast.AST
	response bool
	local    map[string]int
	fault    *Fault
}

func (n *names) visit(e ast.Expr) {
	if n.fault != nil {
		return
	}
	if chain, ok := chainOf(e); ok {
		n.name(e, chain)
		return
	}
	switch e.Kind() {
	case ast.SelectKind:
		n.visit(e.AsSelect().Operand())
	case ast.CallKind:
		c := e.AsCall()
		if c.IsMemberFunction() {
			if chain, ok := chainOf(c.Target()); !ok || !n.env.HasFunction(strings.Join(chain, ".")+"."+c.FunctionName()) {
				n.visit(c.Target())
			}
		}
		n.all(c.Args())
	case ast.ListKind:
		n.all(e.AsList().Elements())
	case ast.MapKind:
		for _, entry := range e.AsMap().Entries() {
			n.all([]ast.Expr{entry.AsMapEntry().Key(), entry.AsMapEntry().Value()})
		}
	case ast.ComprehensionKind:
		n.loop(e.AsComprehension())
	}
}

func (n *names) all(es []ast.Expr) {
	for _, e := range es {
		n.visit(e)
	}
}

func (n *names) loop(c ast.ComprehensionExpr) {
	n.all([]ast.Expr{c.IterRange(), c.AccuInit()})
	n.local[c.IterVar()]++
	n.local[c.AccuVar()]++
	n.all([]ast.Expr{c.LoopCondition(), c.LoopStep(), c.Result()})
	n.local[c.IterVar()]--
	n.local[c.AccuVar()]--
}

// name checks "a.b.c".
func (n *names) name(e ast.Expr, chain []string) {
	if n.local[chain[0]] > 0 {
		return
	}
	name := strings.Join(chain, ".")
	var known []string
	for i := range attributes {
		a := &attributes[i]
		if isResponse(a.name) && !n.response {
			continue
		}
		if within(name, a.name) {
			return
		}
		known = append(known, a.name)
	}
	if _, isType := n.env.CELTypeProvider().FindIdent(name); isType {
		return
	}
	n.fault = &Fault{Msg: at(n.ast, e, "unknown attribute %s", name)}
	switch near := nearest(name, known); {
	case isResponse(name+".") && !n.response:
		n.fault.Hint = "this expression runs before there is a response: only request, client and identity are known"
	case near != "":
		n.fault.Hint = "did you mean " + near + "?"
	default:
		n.fault.Hint = "known are " + strings.Join(known, ", ")
	}
}

// chainOf takes "a.b.c" apart.
func chainOf(e ast.Expr) ([]string, bool) {
	switch e.Kind() {
	case ast.IdentKind:
		return []string{strings.TrimPrefix(e.AsIdent(), ".")}, true
	case ast.SelectKind:
		chain, ok := chainOf(e.AsSelect().Operand())
		return append(chain, e.AsSelect().FieldName()), ok
	}
	return nil, false
}

// nearest is the name at the smallest edit distance from word, if that is small beside its length; else "". Where several are
// equally near, the first in the alphabet.
func nearest(word string, known []string) string {
	best, least := "", max(1, min(3, len(word)/3))+1
	for _, n := range slices.Sorted(slices.Values(known)) {
		if d := distance(strings.ToLower(word), strings.ToLower(n), least); d < least {
			best, least = n, d
		}
	}
	return best
}

// distance is the Levenshtein distance of a and b, or something not below limit.
func distance(a, b string, limit int) int {
	if max(len(a), len(b))-min(len(a), len(b)) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		left := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := left
			if a[i] != b[j] {
				d++
			}
			left = row[j+1]
			row[j+1] = min(d, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
