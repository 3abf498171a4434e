package manifest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/gatehouse-io/gatehouse/internal/diag"
)

const (
	maxDepth = 50      // levels of one object, aliases followed
	maxNodes = 1 << 18 // nodes of one object, aliases expanded: stops what doubles itself
)

// decoder turns the nodes of one object into plain JSON values, held to a Go type and a schema, and collects faults. Lines
// are relative to the document, so that a result can be kept while the document moves in its file.
type decoder struct {
	reader *reader
	ref    diag.Ref
	secret bool // no value may come into a fault's text
	faults []diag.Fault
	failed map[string]bool // paths that have a fault
	nodes  int
	depth  int
}

func (d *decoder) fault(n *yaml.Node, at, message, hint string) {
	line := 1
	if n != nil && n.Line > 0 {
		line = n.Line
	}
	d.failed[at] = true
	d.faults = append(d.faults, diag.Fault{Object: d.ref, Path: at, Line: line, Message: message, Hint: hint})
}

// show is how a value appears in a fault: quoted if it is a string, short, and never that of a Secret.
func (d *decoder) show(v any) string {
	if d.secret {
		return "the value"
	}
	switch v := v.(type) {
	case *yaml.Node:
		if v.ShortTag() == "!!str" {
			return d.show(v.Value)
		}
		return v.Value
	case string:
		if r := []rune(v); len(r) > 60 {
			v = string(r[:60]) + "..."
		}
		return fmt.Sprintf("%q", v)
	}
	return fmt.Sprint(v)
}

// join is the path of a field below at.
func join(at, name string) string {
	switch {
	case strings.ContainsAny(name, "./[] \"") || name == "":
		return fmt.Sprintf("%s[%q]", at, name)
	case at == "":
		return name
	}
	return at + "." + name
}

func deref(n *yaml.Node) *yaml.Node {
	for i := 0; n.Kind == yaml.AliasNode && n.Alias != nil && i < maxDepth; i++ {
		n = n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool {
	n = deref(n)
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// child is the i-th item of a list, or the list itself if there is none.
func child(n *yaml.Node, i int) *yaml.Node {
	if n.Kind == yaml.SequenceNode && i < len(n.Content) {
		return n.Content[i]
	}
	return n
}

// value decodes n as a t. ok is false if there is a fault because of which there is no value.
func (d *decoder) value(n *yaml.Node, t reflect.Type, s *schema, at string) (v any, ok bool) {
	n = deref(n)
	d.depth++
	defer func() { d.depth-- }()
	if d.excessive(n, at) {
		return nil, false
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return d.own(n, t, at)
	}
	switch t.Kind() {
	case reflect.Struct:
		return d.structure(n, t, s, at)
	case reflect.Map:
		return d.mapping(n, t, s, at)
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return d.bytes(n, at)
		}
		return d.list(n, t, s, at)
	case reflect.String:
		return d.text(n, s, at)
	case reflect.Bool:
		return d.boolean(n, at)
	case reflect.Int, reflect.Int32, reflect.Int64:
		return d.integer(n, t, s, at)
	}
	return d.plain(n, at)
}

// excessive says that the object is not worth going on with, and tells so once: whatever is left is then excessive too.
func (d *decoder) excessive(n *yaml.Node, at string) bool {
	if d.nodes > maxNodes {
		return true
	}
	d.nodes++
	if d.nodes <= maxNodes && d.depth <= maxDepth {
		return false
	}
	d.nodes = maxNodes + 1
	d.fault(n, at, "is nested too deeply or too large", "look for anchors and aliases (&a, *a) that contain themselves")
	return true
}

// pair is one entry of a mapping.
type pair struct {
	name       string
	key, value *yaml.Node
}

// pairs are the entries of a mapping, those of merge keys (<<) after its own. A key that stands twice is a fault.
func (d *decoder) pairs(n *yaml.Node, at string) []pair {
	d.depth++
	defer func() { d.depth-- }()
	if d.excessive(n, at) {
		return nil
	}
	var out []pair
	var merged []*yaml.Node
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := deref(n.Content[i]), n.Content[i+1]
		if k.Kind != yaml.ScalarNode {
			d.fault(k, at, "a key must be a plain word", "")
			continue
		}
		if k.ShortTag() == "!!merge" {
			if v = deref(v); v.Kind != yaml.SequenceNode {
				merged = append(merged, v)
				continue
			}
			for _, m := range v.Content {
				merged = append(merged, deref(m))
			}
			continue
		}
		if line, twice := lines[k.Value]; twice {
			where := fmt.Sprintf("%d lines above", k.Line-line)
			switch k.Line - line {
			case 0:
				where = "in this line"
			case 1:
				where = "in the line above"
			}
			d.fault(k, join(at, k.Value), "is already written "+where, "remove one of the two")
			continue
		}
		lines[k.Value] = k.Line
		out = append(out, pair{k.Value, k, v})
	}
	for _, m := range merged {
		if m.Kind != yaml.MappingNode {
			d.fault(m, at, "a merge key (<<) takes a mapping or a list of mappings", "")
			continue
		}
		for _, p := range d.pairs(m, at) {
			if _, own := lines[p.name]; !own {
				lines[p.name] = p.key.Line
				out = append(out, p)
			}
		}
	}
	return out
}

// fields returns the fields of a struct type by JSON name.
func (r *reader) fields(t reflect.Type) map[string]reflect.Type {
	if f, ok := r.types.Load(t); ok {
		return f.(map[string]reflect.Type)
	}
	out := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case f.Anonymous && (name == "" || strings.Contains(options, "inline")):
			for n, ft := range r.fields(f.Type) {
				out[n] = ft
			}
		case name != "":
			out[name] = f.Type
		}
	}
	r.types.Store(t, out)
	return out
}

func (d *decoder) structure(n *yaml.Node, t reflect.Type, s *schema, at string) (any, bool) {
	if n.Kind != yaml.MappingNode {
		return d.wrong(n, "a mapping", at)
	}
	fields, out := d.reader.fields(t), map[string]any{}
	for _, p := range d.pairs(n, at) {
		ft, known := fields[p.name]
		if !known {
			d.unknown(p, fields, at)
			continue
		}
		if isNull(p.value) || (at == "" && p.name == "status") { // status in a file tells of another day
			continue
		}
		if v, ok := d.value(p.value, ft, s.property(p.name), join(at, p.name)); ok {
			out[p.name] = v
		}
	}
	d.fill(n, out, s, at)
	return out, true
}

// moved are fields of older or neighbouring kinds that people still write.
var moved = []struct{ name, hint string }{
	{"serviceName", "networking.k8s.io/v1 writes service: {name: NAME, port: {number: PORT}}"},
	{"servicePort", "networking.k8s.io/v1 writes service: {name: NAME, port: {number: PORT}}"},
	{"targetRef", "write targetRefs: a list"},
	{"parentRef", "write parentRefs: a list"},
}

func (d *decoder) unknown(p pair, fields map[string]reflect.Type, at string) {
	names := make([]string, 0, len(fields))
	for n := range fields {
		names = append(names, n)
	}
	slices.Sort(names)
	hint := ""
	for _, m := range moved {
		if m.name == p.name {
			hint = m.hint
		}
	}
	if near := diag.Nearest(p.name, names); hint == "" && near != "" {
		hint = fmt.Sprintf("did you mean %s?", near)
		d.failed[join(at, near)] = true // no need to say that it is required
	}
	if hint == "" && len(names) <= 12 {
		hint = "known here: " + strings.Join(names, ", ")
	}
	d.fault(p.key, join(at, p.name), "unknown field", hint)
}

func (d *decoder) mapping(n *yaml.Node, t reflect.Type, s *schema, at string) (any, bool) {
	if n.Kind != yaml.MappingNode {
		return d.wrong(n, "a mapping", at)
	}
	out := map[string]any{}
	for _, p := range d.pairs(n, at) {
		if truth, odd := oddBoolean(p.key); odd {
			d.fault(p.key, join(at, p.name), fmt.Sprintf("the key %s without quotes is the boolean %v to Kubernetes", p.name, truth), fmt.Sprintf("write %q", p.name))
			continue
		}
		if isNull(p.value) {
			if t.Elem().Kind() == reflect.String { // an API server reads it so
				out[p.name] = ""
			}
			continue
		}
		if v, ok := d.value(p.value, t.Elem(), s.property(p.name), join(at, p.name)); ok {
			out[p.name] = v
		}
	}
	d.fill(n, out, s, at)
	return out, true
}

func (d *decoder) list(n *yaml.Node, t reflect.Type, s *schema, at string) (any, bool) {
	if n.Kind != yaml.SequenceNode {
		return d.wrong(n, "a list", at)
	}
	out := make([]any, 0, len(n.Content))
	for i, c := range n.Content {
		here := fmt.Sprintf("%s[%d]", at, i)
		if isNull(c) {
			d.fault(c, here, "is empty", "remove the item, or write its value")
			out = append(out, nil)
			continue
		}
		v, ok := d.value(c, t.Elem(), s.items(), here)
		if !ok {
			v = nil
		}
		out = append(out, v)
	}
	d.checkList(n, out, s, at)
	return out, true
}

// own decodes types that have a JSON form of their own.
func (d *decoder) own(n *yaml.Node, t reflect.Type, at string) (any, bool) {
	v, ok := d.plain(n, at)
	if !ok {
		return nil, false
	}
	b, err := json.Marshal(v)
	if err == nil && json.Unmarshal(b, reflect.New(t).Interface()) == nil {
		return v, true
	}
	switch t {
	case reflect.TypeFor[resource.Quantity]():
		d.fault(n, at, d.show(n)+" is not a quantity", "write a number of bytes such as 1500, 64Ki or 1Mi")
	case reflect.TypeFor[intstr.IntOrString]():
		return d.wrong(n, "a number or a name", at)
	case reflect.TypeFor[metav1.Time](), reflect.TypeFor[metav1.MicroTime]():
		d.fault(n, at, d.show(n)+" is not a time", "write 2026-11-23T00:00:00Z (RFC 3339)")
	default:
		return d.wrong(n, "a "+t.Name(), at)
	}
	return nil, false
}

// plain decodes without a type to hold n to.
func (d *decoder) plain(n *yaml.Node, at string) (any, bool) {
	switch n.Kind {
	case yaml.MappingNode:
		return d.mapping(n, reflect.TypeFor[map[string]any](), nil, at)
	case yaml.SequenceNode:
		return d.list(n, reflect.TypeFor[[]any](), nil, at)
	case yaml.ScalarNode:
		switch n.ShortTag() {
		case "!!str", "!!timestamp":
			return n.Value, true
		case "!!int", "!!float", "!!bool":
			var v any
			if err := n.Decode(&v); err == nil {
				if f, ok := v.(float64); !ok || (!math.IsNaN(f) && !math.IsInf(f, 0)) {
					return v, true
				}
			}
		}
	}
	return d.wrong(n, "a plain value", at)
}

func (d *decoder) bytes(n *yaml.Node, at string) (any, bool) {
	v, ok := d.text(n, nil, at)
	if !ok {
		return nil, false
	}
	if _, err := base64.StdEncoding.DecodeString(v.(string)); err != nil {
		hint := "encode the value (base64 -w0)"
		if d.secret {
			hint += ", or write it under stringData as it is"
		}
		d.fault(n, at, "is not base64", hint)
		return nil, false
	}
	return v, true
}
