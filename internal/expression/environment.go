package expression

import (
	"fmt"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"
)

// Limits of what is compiled. They bound what checking costs, whoever wrote the expression.
const (
	maxSource   = 4 << 10 // bytes
	maxDepth    = 32      // of nested parts
	maxNodes    = 2000
	maxNesting  = 4   // loops within loops, or one after the other on the same list
	maxPattern  = 512 // bytes of a regular expression
	maxProgram  = 512 // instructions of a compiled regular expression
	maxRunCost  = 10_000
	maxEstimate = 50_000
)

// The two environments are made once: that costs more than compiling an expression.
var (
	withoutResponse = sync.OnceValues(func() (*cel.Env, error) { return newEnv(false) })
	withResponse    = sync.OnceValues(func() (*cel.Env, error) { return newEnv(true) })
)

func environment(response bool) (*cel.Env, error) {
	if response {
		return withResponse()
	}
	return withoutResponse()
}

func newEnv(response bool) (*cel.Env, error) {
	o := []cel.EnvOption{
		cel.CustomTypeAdapter(adapter{}),
		cel.ParserExpressionSizeLimit(maxSource),
		cel.ParserRecursionLimit(maxDepth),
		cel.ParserErrorRecoveryLimit(4),
		cel.ExpressionNodeLimit(maxNodes),
		cel.CrossTypeNumericComparisons(true),
		cel.EagerlyValidateDeclarations(true),
		cel.ASTValidators(cel.ValidateComprehensionNestingLimit(maxNesting)),
		ext.Strings(ext.StringsVersion(5), ext.StringsValidateFormatCalls(false)),
		ext.Sets(),
		networkFunction(),
	}
	for _, a := range attributes {
		if response || !isResponse(a.name) {
			o = append(o, cel.Variable(a.name, a.typeOf()))
		}
	}
	return cel.NewEnv(o...)
}

func isResponse(name string) bool { return strings.HasPrefix(name, "response.") }

// refused are functions of cel and of its extensions that no expression may call, and why.
var refused = map[string]string{
	"format":        `it makes texts of any length: write "a" + b`,
	"strings.quote": `write "a" + b`,
	"dyn":           "values have their types here",
	"timestamp":     "expressions have no clock",
	"duration":      "expressions have no clock",
}

// checked is an expression that is well formed, well typed and bounded.
type checked struct {
	env      *cel.Env
	checked  *cel.Ast
	ast      *ast.AST
	patterns map[string]*pattern // regular expressions by their text
	names    map[string]bool     // attributes that it reads
}

// check parses src and finds every fault in it.
func check(src string, o Options) (*checked, error) {
	if len(src) > maxSource {
		return nil, &Fault{Msg: fmt.Sprintf("expression of %d bytes", len(src)),
			Hint: fmt.Sprintf("write at most %d, or split it into several rules", maxSource)}
	}
	if strings.TrimSpace(src) == "" {
		return nil, &Fault{Msg: "empty expression", Hint: "leave the field out, or write one of type " + o.Kind.String()}
	}
	env, err := environment(o.Response)
	if err != nil {
		return nil, fmt.Errorf("building the environment of expressions: %w", err) // never: a test compiles in both
	}
	parsed, issues := env.Parse(src)
	if issues.Err() != nil {
		return nil, syntaxFault(issues)
	}
	if err := refusedCall(parsed.NativeRep()); err != nil {
		return nil, err
	}
	a, issues := env.Check(parsed)
	if issues.Err() != nil {
		// Only the parsed tree is whole, and says in whose place an unknown name stands.
		if f := nameFault(env, parsed, o); f != nil {
			return nil, f
		}
		return nil, typeFault(issues)
	}
	c := &checked{env: env, checked: a, ast: a.NativeRep(), patterns: map[string]*pattern{}, names: map[string]bool{}}
	if err := c.rules(); err != nil {
		return nil, err
	}
	if err := wantKind(a.OutputType(), o.Kind); err != nil {
		return nil, err
	}
	return c, c.affordable()
}

// wantKind refuses an expression of another type. A claim's type is only known when there is one.
func wantKind(got *cel.Type, want Kind) error {
	wanted := [...]*cel.Type{cel.BoolType, cel.StringType, cel.IntType}[want]
	if got.IsExactType(wanted) || got.Kind() == types.DynKind {
		return nil
	}
	f := &Fault{Msg: fmt.Sprintf("the expression is of type %s, wanted is %s", got, want)}
	switch {
	case want == Bool:
		f.Hint = "compare it with something"
	case want == String && (got.Kind() == types.IntKind || got.Kind() == types.BoolKind):
		f.Hint = "write string(...)"
	case want == Int && got.Kind() == types.StringKind:
		f.Hint = "write int(...) or size(...)"
	}
	return f
}
