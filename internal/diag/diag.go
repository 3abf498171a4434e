// Package diag holds what Gatehouse concluded about each object: the faults a user can mend, and the
// conditions, counts and addresses that status shows. It is plain data: it never reads an object and never
// writes status.
package diag

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Ref names one object. Group is empty for the core group.
type Ref struct {
	Group     string `json:"group,omitempty"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// String is the form people read: "HTTPRoute shop/cart", or "GatewayClass gatehouse".
func (r Ref) String() string {
	if r.Namespace == "" {
		return r.Kind + " " + r.Name
	}
	return r.Kind + " " + r.Namespace + "/" + r.Name
}

// Compare orders by kind, namespace, name, group.
func (r Ref) Compare(o Ref) int {
	return cmp.Or(cmp.Compare(r.Kind, o.Kind), cmp.Compare(r.Namespace, o.Namespace),
		cmp.Compare(r.Name, o.Name), cmp.Compare(r.Group, o.Group))
}

// Severity says whether a fault changes what is served.
type Severity uint8

const (
	// Error is a fault because of which something written is not served as written.
	Error Severity = iota
	// Warning is a finding beside which everything is served as written.
	Warning
)

func (s Severity) String() string {
	if s == Warning {
		return "warning"
	}
	return "error"
}

// MarshalText writes the word, "error" or "warning".
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Fault is one thing that a user can mend: which object, which field, what is wrong and what to write instead.
type Fault struct {
	Object   Ref      `json:"object"`
	Path     string   `json:"path,omitempty"` // field path, "spec.rules[0].backendRefs[0].name"
	Message  string   `json:"message"`        // what is wrong, no capital, no full stop
	Hint     string   `json:"hint,omitempty"` // what to write instead
	Reason   string   `json:"reason,omitempty"`
	Severity Severity `json:"severity"`
	File     string   `json:"file,omitempty"` // where the object was read, if from a file
	Line     int      `json:"line,omitempty"` // 1-based; 0: not known
}

// String is one line: "shop.yaml:12: HTTPRoute shop/cart: spec.rules[0]: message (hint)".
func (f Fault) String() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File)
		if f.Line > 0 {
			fmt.Fprintf(&b, ":%d", f.Line)
		}
		b.WriteString(": ")
	}
	if f.Severity == Warning {
		b.WriteString("warning: ")
	}
	if f.Object.Kind != "" {
		b.WriteString(f.Object.String())
		b.WriteString(": ")
	}
	b.WriteString(f.Text())
	return b.String()
}

// Text is the fault beside the object that it is about: "spec.rules[0]: message (hint)", for conditions and Events.
func (f Fault) Text() string { return text(f.Path, f.Message, f.Hint) }

func text(path, message, hint string) string {
	if path != "" {
		message = path + ": " + message
	}
	if hint != "" {
		message += " (" + hint + ")"
	}
	return message
}

// SortFaults orders by file, line, object, path, message.
func SortFaults(fs []Fault) {
	slices.SortStableFunc(fs, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), a.Object.Compare(b.Object),
			cmp.Compare(a.Path, b.Path), cmp.Compare(a.Message, b.Message))
	})
}

// Problem is a fault in a spec, found where the object that holds it is not known. Path is relative to the spec.
type Problem struct {
	Path string
	Msg  string
	Hint string
}

func (p *Problem) Error() string { return text(p.Path, p.Msg, p.Hint) }

// Join is the path of a field within another: "spec.cors" and "[0].name" make "spec.cors[0].name".
func Join(path, within string) string {
	if path != "" && within != "" && within[0] != '[' {
		path += "."
	}
	return path + within
}

// Errorf returns a *Problem at path.
func Errorf(path, format string, args ...any) error {
	return &Problem{Path: path, Msg: fmt.Sprintf(format, args...)}
}
