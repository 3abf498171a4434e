package manifest

import (
	"embed"
	"encoding/json"
	"fmt"
	"math"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v3"

	"github.com/gatehouse-io/gatehouse/internal/diag"
)

// schema is what an API server would hold a field to, in the words of OpenAPI (structural schemas of CRDs). Which fields
// there are and of what type they are is told by the Go types; a schema says what is required, allowed and defaulted.
type schema struct {
	Properties    map[string]*schema `json:"properties,omitempty"`
	Items         *schema            `json:"items,omitempty"`
	Values        *schema            `json:"additionalProperties,omitempty"` // of a map
	Required      []string           `json:"required,omitempty"`
	Default       json.RawMessage    `json:"default,omitempty"`
	Enum          []any              `json:"enum,omitempty"`
	Pattern       string             `json:"pattern,omitempty"`
	MinLength     *int               `json:"minLength,omitempty"`
	MaxLength     *int               `json:"maxLength,omitempty"`
	Minimum       *float64           `json:"minimum,omitempty"`
	Maximum       *float64           `json:"maximum,omitempty"`
	MinItems      *int               `json:"minItems,omitempty"`
	MaxItems      *int               `json:"maxItems,omitempty"`
	MinProperties *int               `json:"minProperties,omitempty"`
	MaxProperties *int               `json:"maxProperties,omitempty"`
	Keys          []string           `json:"x-kubernetes-list-map-keys,omitempty"` // no two items have the same
	Unique        bool               `json:"uniqueItems,omitempty"`
}

// The schemas of the Gateway API, of AuthPolicy and of RateLimitPolicy are taken from their CRDs (schema_test.go writes them); those of
// the built-in kinds and of our others are written by hand.
//
//go:embed schema
var schemaFiles embed.FS

// loadSchemas returns the schemas by kind.
func loadSchemas() map[string]*schema {
	out := map[string]*schema{}
	entries, err := schemaFiles.ReadDir("schema")
	if err != nil {
		panic("manifest: embedded schemas: " + err.Error())
	}
	for _, e := range entries {
		data, err := schemaFiles.ReadFile(path.Join("schema", e.Name()))
		if err == nil && strings.HasSuffix(e.Name(), ".yaml") {
			var v any
			if err = yaml.Unmarshal(data, &v); err == nil {
				data, err = json.Marshal(v)
			}
		}
		part := map[string]*schema{}
		if err == nil {
			err = json.Unmarshal(data, &part)
		}
		if err != nil {
			panic(fmt.Sprintf("manifest: embedded schema %s: %v", e.Name(), err))
		}
		for kind, s := range part {
			out[kind] = s
		}
	}
	return out
}

func (s *schema) property(name string) *schema {
	if s == nil {
		return nil
	}
	if p := s.Properties[name]; p != nil {
		return p
	}
	return s.Values
}

func (s *schema) items() *schema {
	if s == nil {
		return nil
	}
	return s.Items
}

// patterns says in words what the regular expressions of the schemas ask for.
var patterns = []struct{ pattern, message, hint string }{
	{`^([0-9]{1,5}(h|m|s|ms)){1,4}$`, "is not a duration", "write whole numbers with units, as in 500ms, 10s or 1h30m"},
	{`^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`, "is not a host name",
		"write lower-case labels such as shop.example.com, or *.example.com; no port, no scheme"},
	{`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`, "is not a DNS name",
		"write lower-case letters, digits, '-' and '.', as in shop.example.com"},
	{`^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`, "is not an API group",
		`write the group alone, as in gateway.networking.k8s.io, or "" for the core group`},
	{`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`, "is not a DNS label", "write lower-case letters, digits and '-'"},
	{`^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$`, "is not a header name", "write a token such as X-Request-Id, without a colon"},
	{`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$`,
		"is not a controller's name", "write a domain and a path, as in gatehouse.dev/gateway"},
	{`^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]*$`, "is not a name", "write a token such as X-Client-Cert or gh_session"},
	{`^https?://`, "is not a URL", "write https://login.example.com/path"},
	{`^/`, "is not a path", `write a path that begins with "/"`},
	{`^[A-Z]{2}$`, "is not a country", "write two capital letters, such as DE (ISO 3166-1)"},
	{`^[a-z0-9]{1,16}$`, "is not an environment", "write at most 16 lower-case letters and digits, such as live"},
	{`^[!-~]+([\t ]?[!-~]+)*$`, "is not a header value", "write printable ASCII without spaces at the ends"},
	{`(^\*$)|(^(http(s)?):\/\/(((\*\.)?([a-zA-Z0-9\-]+\.)*[a-zA-Z0-9-]+|\*)(:([0-9]{1,5}))?)$)`, "is not an origin",
		`write https://shop.example.com, https://*.example.com or "*"; no path`},
}

// pattern compiles the patterns of schemas and keeps them.
func (r *reader) pattern(p string) *regexp.Regexp {
	re, ok := r.regexps.Load(p)
	if !ok {
		re, _ = r.regexps.LoadOrStore(p, regexp.MustCompile(p))
	}
	return re.(*regexp.Regexp)
}

// checkString holds a string to s.
func (d *decoder) checkString(n *yaml.Node, v string, s *schema, at string) {
	length := utf8.RuneCountInString(v)
	switch {
	case s == nil:
	case len(s.Enum) > 0 && !slices.Contains(s.Enum, any(v)):
		d.enum(n, v, s.Enum, at)
	case s.MinLength != nil && length < *s.MinLength:
		if length == 0 {
			d.fault(n, at, "must not be empty", "")
		} else {
			d.fault(n, at, fmt.Sprintf("is shorter than %d characters", *s.MinLength), "")
		}
	case s.MaxLength != nil && length > *s.MaxLength:
		d.fault(n, at, fmt.Sprintf("has %d characters, at most %d are allowed", length, *s.MaxLength), "")
	case s.Pattern != "" && !d.reader.pattern(s.Pattern).MatchString(v):
		for _, p := range patterns {
			if p.pattern == s.Pattern {
				d.fault(n, at, d.show(v)+" "+p.message, p.hint)
				return
			}
		}
		d.fault(n, at, fmt.Sprintf("%s does not match %s", d.show(v), s.Pattern), "")
	}
}

func (d *decoder) enum(n *yaml.Node, v any, enum []any, at string) {
	names := make([]string, len(enum))
	for i, e := range enum {
		names[i] = fmt.Sprint(e)
	}
	hint := "write " + orList(names)
	word, _ := v.(string)
	if near := diag.Nearest(word, names); near != "" {
		hint = fmt.Sprintf("did you mean %s?", near)
	}
	d.fault(n, at, fmt.Sprintf("%s is not one of %s", d.show(v), strings.Join(names, ", ")), hint)
}

// checkNumber holds a number to s.
func (d *decoder) checkNumber(n *yaml.Node, v float64, s *schema, at string) {
	if s == nil {
		return
	}
	if len(s.Enum) > 0 && !slices.Contains(s.Enum, any(v)) {
		d.enum(n, v, s.Enum, at)
		return
	}
	low, high := -math.MaxFloat64, math.MaxFloat64
	if s.Minimum != nil {
		low = *s.Minimum
	}
	if s.Maximum != nil {
		high = *s.Maximum
	}
	switch {
	case v >= low && v <= high:
	case s.Minimum != nil && s.Maximum != nil:
		d.fault(n, at, d.show(v)+" is out of range", fmt.Sprintf("write a number from %v to %v", int64(low), int64(high)))
	case s.Minimum != nil:
		d.fault(n, at, d.show(v)+" is too small", fmt.Sprintf("write %v or more", int64(low)))
	default:
		d.fault(n, at, d.show(v)+" is too large", fmt.Sprintf("write at most %v", int64(high)))
	}
}

// checkList holds a list to s. Items that could not be decoded are nil.
func (d *decoder) checkList(n *yaml.Node, v []any, s *schema, at string) {
	if s == nil {
		return
	}
	if s.MinItems != nil && len(v) < *s.MinItems {
		d.fault(n, at, fmt.Sprintf("has %d items, at least %d are needed", len(v), *s.MinItems), "")
	}
	if s.MaxItems != nil && len(v) > *s.MaxItems {
		d.fault(n, at, fmt.Sprintf("has %d items, at most %d are allowed", len(v), *s.MaxItems), "")
	}
	if len(s.Keys) == 0 && !s.Unique {
		return
	}
	seen := map[string]int{}
	for i, item := range v {
		id := fmt.Sprint(item)
		if fields, ok := item.(map[string]any); ok {
			var parts []string
			for _, k := range s.Keys {
				parts = append(parts, fmt.Sprintf("%s %s", k, d.show(fields[k])))
			}
			id = strings.Join(parts, ", ")
		} else if item == nil || !s.Unique {
			continue
		} else {
			id = d.show(id)
		}
		if first, twice := seen[id]; twice {
			d.fault(child(n, i), fmt.Sprintf("%s[%d]", at, i), fmt.Sprintf("repeats %s of item %d", id, first), "remove or rename one of the two")
			continue
		}
		seen[id] = i
	}
}

// fill adds to a mapping the defaults of fields that are not there, and tells of required ones that are not.
func (d *decoder) fill(n *yaml.Node, fields map[string]any, s *schema, at string) {
	if s == nil {
		return
	}
	for name, p := range s.Properties {
		if _, there := fields[name]; !there && p.Default != nil {
			var v any
			if err := json.Unmarshal(p.Default, &v); err != nil {
				panic("manifest: default of " + at + "." + name + ": " + err.Error())
			}
			fields[name] = v
			if sub, ok := v.(map[string]any); ok {
				d.fill(n, sub, p, join(at, name))
			}
		}
	}
	if s.MinProperties != nil && len(fields) < *s.MinProperties {
		d.fault(n, at, "is empty", "write at least one entry by name")
	}
	if s.MaxProperties != nil && len(fields) > *s.MaxProperties {
		d.fault(n, at, fmt.Sprintf("has %d entries, at most %d are allowed", len(fields), *s.MaxProperties), "")
	}
	for _, name := range s.Required {
		if _, there := fields[name]; !there && !d.failed[join(at, name)] {
			d.fault(n, join(at, name), "is required", "")
		}
	}
}
