package policy

import (
	"fmt"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// PathModifier is HTTPPathModifier of the Gateway API, in a filter that redirects or rewrites.
type PathModifier struct {
	Type               string  `json:"type"`
	ReplaceFullPath    *string `json:"replaceFullPath,omitempty"`
	ReplacePrefixMatch *string `json:"replacePrefixMatch,omitempty"`
}

// Replacement is a path modifier whose every part was checked.
type Replacement struct {
	Text   string        // as it was written, "/" for nothing
	Path   exchange.Path // what it means
	Prefix bool          // it takes the matched prefix's place, else the whole path's
}

// Replacement checks the modifier. A fault is a *diag.Problem whose path begins with "path".
func (m *PathModifier) Replacement() (Replacement, error) {
	value, at, prefix := m.ReplaceFullPath, "path.replaceFullPath", false
	switch m.Type {
	case "ReplaceFullPath":
	case "ReplacePrefixMatch":
		value, at, prefix = m.ReplacePrefixMatch, "path.replacePrefixMatch", true
	default:
		return Replacement{}, &diag.Problem{Path: "path.type", Msg: fmt.Sprintf("%q is not a path modifier", m.Type),
			Hint: "write ReplaceFullPath or ReplacePrefixMatch"}
	}
	if value == nil {
		return Replacement{}, diag.Errorf(at, "is missing, and the type is %s", m.Type)
	}
	text := *value
	if text == "" {
		text = "/"
	}
	p, _, ok := exchange.CanonicalPath(nil, []byte(text))
	if !ok {
		return Replacement{}, &diag.Problem{Path: at, Msg: fmt.Sprintf("%q is not a path", text),
			Hint: "write /new, without query; other characters as %XX"}
	}
	return Replacement{Text: text, Path: p, Prefix: prefix}, nil
}
