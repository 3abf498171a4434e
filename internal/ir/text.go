package ir

import "strings"

// MatchText is a match as people read it: `prefix /cart`, `exact /a, GET, header x-env "canary"`.
func MatchText(m *Match) string {
	kind, value := m.Path.Kind, m.Path.Value
	if kind == "" {
		kind = PathPrefix
	}
	if value == "" {
		value = "/"
	}
	parts := []string{kind + " " + value}
	if m.Method != "" {
		parts = append(parts, m.Method)
	}
	for _, h := range m.Headers {
		parts = append(parts, "header "+fieldText(&h))
	}
	for _, q := range m.Query {
		parts = append(parts, "query "+fieldText(&q))
	}
	return strings.Join(parts, ", ")
}

func fieldText(f *FieldMatch) string {
	if f.Regex {
		return f.Name + "~" + f.Value
	}
	return f.Name + "=" + f.Value
}
