package manifest

import (
	"fmt"
	"math"
	"reflect"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// oddBoolean says whether n is a word that YAML 1.1, and so Kubernetes, reads as a boolean where it stands without quotes, though
// YAML 1.2 does not; truth is what it is read as.
func oddBoolean(n *yaml.Node) (truth, odd bool) {
	if n.Kind != yaml.ScalarNode || n.Style&^yaml.FlowStyle != 0 || n.ShortTag() != "!!str" {
		return false, false
	}
	switch n.Value {
	case "y", "Y", "yes", "Yes", "YES", "on", "On", "ON":
		return true, true
	case "n", "N", "no", "No", "NO", "off", "Off", "OFF":
		return false, true
	}
	return false, false
}

// describe says what n is, without its value if that is secret.
func (d *decoder) describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		what := map[string]string{
			"!!str": "the string", "!!int": "the number", "!!float": "the number", "!!bool": "the boolean",
			"!!null": "null", "!!timestamp": "the time",
		}[n.ShortTag()]
		switch {
		case what == "":
			return "a value with the tag " + n.ShortTag()
		case what == "null":
			return "empty"
		case d.secret:
			return strings.Replace(what, "the ", "a ", 1)
		}
		return what + " " + d.show(n)
	}
	return "nothing"
}

// wrong is the fault of a wrong type.
func (d *decoder) wrong(n *yaml.Node, want, at string) (any, bool) {
	hint := ""
	switch {
	case want == "a list" && n.Kind == yaml.MappingNode:
		hint = `begin each item with "- "`
	case want == "a list" && n.Kind == yaml.ScalarNode && !d.secret:
		hint = fmt.Sprintf("write [%s]", d.show(n))
	case want == "a mapping" && n.Kind == yaml.SequenceNode:
		hint = `write fields, without "- "`
	case want == "a string" && n.Kind == yaml.ScalarNode && d.secret:
		hint = "put quotes around it"
	case want == "a string" && n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null":
		hint = fmt.Sprintf("write %q, with quotes", n.Value)
	case want == "a whole number" && n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" && digits(n.Value):
		hint = fmt.Sprintf("write %s, without quotes", n.Value)
	case want == "true or false" && n.Kind == yaml.ScalarNode && (n.Value == "true" || n.Value == "false"):
		hint = fmt.Sprintf("write %s, without quotes", n.Value)
	}
	d.fault(n, at, fmt.Sprintf("must be %s, is %s", want, d.describe(n)), hint)
	return nil, false
}

func digits(s string) bool {
	return s != "" && len(s) < 12 && strings.Trim(s, "0123456789") == ""
}

func (d *decoder) text(n *yaml.Node, s *schema, at string) (any, bool) {
	if n.Kind != yaml.ScalarNode {
		return d.wrong(n, "a string", at)
	}
	if truth, odd := oddBoolean(n); odd {
		hint := "put quotes around it"
		if !d.secret {
			hint = fmt.Sprintf("write %q, with quotes", n.Value)
		}
		read := fmt.Sprintf("is read as the boolean %v by Kubernetes", truth)
		if d.secret {
			read = "is read as a boolean by Kubernetes"
		}
		d.fault(n, at, fmt.Sprintf("must be a string, but %s without quotes %s", d.show(n.Value), read), hint)
		return nil, false
	}
	switch n.ShortTag() {
	case "!!str", "!!timestamp": // Kubernetes reads times as strings
		d.checkString(n, n.Value, s, at)
		return n.Value, true
	}
	return d.wrong(n, "a string", at)
}

func (d *decoder) boolean(n *yaml.Node, at string) (any, bool) {
	if truth, odd := oddBoolean(n); odd {
		return truth, true
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!bool" {
		var v bool
		if n.Decode(&v) == nil {
			return v, true
		}
	}
	return d.wrong(n, "true or false", at)
}

func (d *decoder) integer(n *yaml.Node, t reflect.Type, s *schema, at string) (any, bool) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" {
		return d.wrong(n, "a whole number", at)
	}
	low, high := int64(math.MinInt64), int64(math.MaxInt64)
	if t.Kind() == reflect.Int32 {
		low, high = math.MinInt32, math.MaxInt32
	}
	var v int64
	if err := n.Decode(&v); err != nil || v < low || v > high {
		d.fault(n, at, d.show(n)+" is out of range", fmt.Sprintf("write a number from %d to %d", low, high))
		return nil, false
	}
	d.checkNumber(n, float64(v), s, at)
	return v, true
}
