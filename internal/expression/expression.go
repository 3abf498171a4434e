// Package expression is CEL over an exchange: conditions, keys and costs that users write into policies. An expression is compiled
// once, with its type, its size and its worst case checked, and is evaluated for each request. Evaluating never blocks, never
// changes the exchange and never keeps a byte of it; what it may cost is bounded, whoever wrote the expression. The package
// starts no goroutine, reads no clock and decides nothing: what an error counts as is the caller's business.
package expression

import (
	"slices"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// Kind is the type that an expression has to have.
type Kind uint8

// The kinds of expressions.
const (
	Bool   Kind = iota // a condition
	String             // a key
	Int                // a cost
)

func (k Kind) String() string { return [...]string{"bool", "string", "int"}[k] }

// Options say what an expression is for.
type Options struct {
	Kind Kind
	// Response lets it read response.*, because it runs when there is a response.
	Response bool
}

// Program is a compiled expression. It is immutable, and safe for use by many goroutines.
type Program struct {
	source string
	kind   Kind
	reads  []string // attributes, sorted; "request.headers.host" if only that one header is read

	// What is not nil of these is the fast path; else slow runs.
	truth  boolean
	text   text
	number integer
	slow   cel.Program

	frames sync.Pool // *frame
}

// Compile checks and compiles src. Its error is a *Fault. It takes at most some milliseconds, whatever src is.
func Compile(src string, o Options) (*Program, error) { return compile(src, o, true) }

// compile is Compile; without fast, everything runs in cel, which tests hold the fast path against.
func compile(src string, o Options, fast bool) (*Program, error) {
	c, err := check(src, o)
	if err != nil {
		return nil, err
	}
	p := &Program{source: src, kind: o.Kind, reads: c.reads()}
	p.frames.New = func() any { return new(frame) }
	// Also for the fast path: cel folds constants here, and so finds int("x").
	slow, err := c.program()
	if err != nil {
		return nil, err
	}
	if !fast || !p.plan(c) {
		p.slow = slow
	}
	return p, nil
}

// plan compiles the fast path and reports whether there is one.
func (p *Program) plan(c *checked) bool {
	b := builder{checked: c}
	e := c.ast.Expr()
	var ok bool
	switch p.kind {
	case Bool:
		p.truth, ok = b.boolean(e)
	case String:
		if p.text, ok = b.text(e); !ok {
			p.text, ok = b.claimText(e)
		}
	case Int:
		p.number, ok = b.integer(e)
	}
	if !ok { // with false comes a closure that must not run
		p.truth, p.text, p.number = nil, nil, nil
	}
	return ok
}

// String is the source.
func (p *Program) String() string { return p.source }

// Fast reports whether the program runs without cel's interpreter, and so without allocation.
func (p *Program) Fast() bool { return p.slow == nil }

// Reads reports whether the value can depend on an attribute: on it, on something below it, or on something that it is a part of.
// Attributes are named as users write them: "identity", "request.path", "request.headers.host".
func (p *Program) Reads(attribute string) bool {
	return slices.ContainsFunc(p.reads, func(r string) bool { return within(r, attribute) || within(attribute, r) })
}

// within reports whether the attribute name is outer or lies below it.
func within(name, outer string) bool {
	rest, ok := strings.CutPrefix(name, outer)
	return ok && (rest == "" || rest[0] == '.')
}

// Bool is the value of an expression of kind Bool. An error says why there is none.
func (p *Program) Bool(x *exchange.Exchange) (bool, error) {
	if p.truth == nil {
		return p.slowBool(x)
	}
	f := p.enter(x)
	v, err := p.truth(f)
	p.leave(f)
	return v, err
}

// Int is the value of an expression of kind Int. An error says why there is none.
func (p *Program) Int(x *exchange.Exchange) (int64, error) {
	if p.number == nil {
		return p.slowInt(x)
	}
	f := p.enter(x)
	v, err := p.number(f)
	p.leave(f)
	return v, err
}

// Append appends the value of an expression of kind String to dst. With an error it returns dst as it was.
func (p *Program) Append(dst []byte, x *exchange.Exchange) ([]byte, error) {
	if p.text == nil {
		return p.slowAppend(dst, x)
	}
	f := p.enter(x)
	v, err := p.text(f)
	if err == nil {
		dst = append(dst, v...)
	}
	p.leave(f)
	return dst, err
}

// frame is what one evaluation on the fast path works on.
type frame struct {
	x     *exchange.Exchange
	buf   []byte   // texts that had to be put together; they stay as they are until leave
	parts [][]byte // stack of the texts that a "+" joins
	steps int      // of regular expressions: see maxSteps
}

// maxKept is how much room a frame keeps for the next evaluation, in bytes.
const maxKept = 16 << 10

func (p *Program) enter(x *exchange.Exchange) *frame {
	f := p.frames.Get().(*frame)
	f.x = x
	return f
}

func (p *Program) leave(f *frame) {
	f.x, f.steps = nil, 0
	f.buf = f.buf[:0]
	if cap(f.buf) > maxKept {
		f.buf = nil
	}
	clear(f.parts[:cap(f.parts)])
	f.parts = f.parts[:0]
	p.frames.Put(f)
}
