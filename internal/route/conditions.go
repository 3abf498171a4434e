package route

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"

	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// conditions are what a route asks of a request beside a literal path.
type conditions struct {
	path    *regexp.Regexp // nil: the path is literal
	method  string         // "" any
	headers []field
	query   []field
}

type field struct {
	name, value string
	regex       *regexp.Regexp // nil: the value is literal
}

// compileConditions checks a route's match and compiles what is not in the trie; nil if all of it is.
func compileConditions(h *ir.Host, r *ir.Route) (*conditions, []Fault) {
	m := &r.Match
	if m.Path.Kind != ir.PathRegex && m.Method == "" && len(m.Headers)+len(m.Query) == 0 {
		return nil, checkPath(h, r)
	}
	c := &conditions{method: m.Method}
	faults := checkPath(h, r)
	fault := func(path, format string, args ...any) {
		faults = append(faults, Fault{Host: h, Route: r, Path: path, Message: fmt.Sprintf(format, args...)})
	}
	if m.Path.Kind == ir.PathRegex {
		re, err := anchored(m.Path.Value)
		if err != nil {
			fault("match.path.value", "%v", err)
		}
		c.path = re
	}
	fields := func(path string, in []ir.FieldMatch) []field {
		var out []field
		for i, f := range in {
			o := field{name: f.Name, value: f.Value}
			if f.Name == "" {
				fault(fmt.Sprintf("%s[%d].name", path, i), "is empty")
			}
			if f.Regex {
				re, err := anchored(f.Value)
				if err != nil {
					fault(fmt.Sprintf("%s[%d].value", path, i), "%v", err)
				}
				o.regex = re
			}
			out = append(out, o)
		}
		return out
	}
	c.headers = fields("match.headers", m.Headers)
	c.query = fields("match.query", m.Query)
	return c, faults
}

// checkPath says what is wrong with a literal path.
func checkPath(h *ir.Host, r *ir.Route) []Fault {
	p := &r.Match.Path
	switch p.Kind {
	case ir.PathRegex:
	case ir.PathExact, ir.PathPrefix, "":
		if !strings.HasPrefix(p.Value, "/") && (p.Kind == ir.PathExact || p.Value != "") {
			return []Fault{{Host: h, Route: r, Path: "match.path.value", Message: fmt.Sprintf("%q does not begin with /", p.Value)}}
		}
	default:
		return []Fault{{Host: h, Route: r, Path: "match.path.kind", Message: fmt.Sprintf("%q is no kind of path match", p.Kind)}}
	}
	return nil
}

// anchored compiles an RE2 expression that must match the whole of its input.
func anchored(expr string) (*regexp.Regexp, error) {
	_, err := regexp.Compile(expr) // by itself: "a)(b" must not become valid in its brackets
	if err != nil {
		return nil, badRegexp(expr, err)
	}
	re, err := regexp.Compile(`\A(?:` + expr + `)\z`)
	if err != nil {
		return nil, badRegexp(expr, err)
	}
	return re, nil
}

func badRegexp(expr string, err error) error {
	return fmt.Errorf("%q is not a regular expression (RE2): %s", expr, strings.TrimPrefix(err.Error(), "error parsing regexp: "))
}

// checkHostname says what is wrong with a host's pattern, "" if nothing is.
func checkHostname(h *ir.Host) string {
	name := strings.TrimPrefix(h.Hostname, "*.")
	switch {
	case h.Hostname == "":
		return ""
	case name == "" || strings.Contains(name, "*"):
		return fmt.Sprintf("%q: a wildcard stands for the first label and nothing else", h.Hostname)
	case strings.ToLower(name) != name:
		return fmt.Sprintf("%q is not in lower case: no request matches it", h.Hostname)
	}
	return ""
}

// hold reports whether the method, headers and query of a request are as asked.
func (c *conditions) hold(q *Query) bool {
	if c.method != "" && c.method != string(q.Method) {
		return false
	}
	for i := range c.headers {
		f := &c.headers[i]
		v, ok := q.header(f.name)
		if !ok || !f.matches(v) {
			return false
		}
	}
	for i := range c.query {
		if !q.parameter(&c.query[i]) {
			return false
		}
	}
	return true
}

func (f *field) matches(v []byte) bool {
	if f.regex != nil {
		return f.regex.Match(v)
	}
	return f.value == string(v)
}

// header returns the joined value of a field. Routes that differ in the value of one header ask for it again and again:
// the last one is kept.
func (q *Query) header(name string) ([]byte, bool) {
	if q.Header == nil {
		return nil, false
	}
	if q.joined != name {
		q.room, q.found = q.Header.Joined(q.room[:0], name)
		q.joined = name
	}
	return q.room, q.found
}

// parameter reports whether the first query parameter of the field's name matches it.
func (q *Query) parameter(f *field) bool {
	v, ok := firstParameter(q.RawQuery, f.name)
	if !ok {
		return false
	}
	if f.regex == nil {
		return decodesTo(v, f.value)
	}
	q.joined = "" // its room is taken
	q.room = decode(q.room[:0], v)
	return f.regex.Match(q.room)
}

// firstParameter returns the value, not yet decoded, of the first parameter whose decoded name is name.
func firstParameter(raw []byte, name string) ([]byte, bool) {
	for len(raw) > 0 {
		pair := raw
		if i := bytes.IndexByte(raw, '&'); i >= 0 {
			pair, raw = raw[:i], raw[i+1:]
		} else {
			raw = nil
		}
		key, value, _ := bytes.Cut(pair, []byte{'='})
		if len(pair) > 0 && decodesTo(key, name) {
			return value, true
		}
	}
	return nil, false
}

// decodesTo reports whether b, percent-decoded and with "+" as space, is want.
func decodesTo(b []byte, want string) bool {
	for len(b) > 0 {
		c, n := decodeByte(b)
		if want == "" || want[0] != c {
			return false
		}
		b, want = b[n:], want[1:]
	}
	return want == ""
}

// decode appends b, percent-decoded and with "+" as space, to dst.
func decode(dst, b []byte) []byte {
	for len(b) > 0 {
		c, n := decodeByte(b)
		dst = append(dst, c)
		b = b[n:]
	}
	return dst
}

// decodeByte decodes the first octet of b and says how many bytes it took. A "%" that no two hex digits follow stands for
// itself.
func decodeByte(b []byte) (byte, int) {
	switch {
	case b[0] == '+':
		return ' ', 1
	case b[0] == '%' && len(b) > 2:
		hi, lo := unhex(b[1]), unhex(b[2])
		if hi < 16 && lo < 16 {
			return hi<<4 | lo, 3
		}
	}
	return b[0], 1
}

func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}
