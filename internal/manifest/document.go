package manifest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf16"

	yaml "go.yaml.in/yaml/v3"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// reader holds what reading needs: tables, and caches that goroutines share.
type reader struct {
	kinds   map[string]objects.Kind
	schemas map[string]*schema
	types   sync.Map // reflect.Type -> map[string]reflect.Type
	regexps sync.Map // string -> *regexp.Regexp
	roots   bool     // keep document.root
}

func newReader() *reader {
	r := &reader{kinds: map[string]objects.Kind{}, schemas: loadSchemas()}
	for _, k := range objects.Kinds() {
		r.kinds[k.Name] = k
	}
	return r
}

// document is one YAML document, decoded. Its items and their faults do not know where in the file it stands.
type document struct {
	sum    [sha256.Size]byte // of its bytes
	line   int               // of its first byte in the file, 1-based
	items  []*item
	faults []diag.Fault // of the document itself; lines relative, 1-based
	syntax bool         // it is not YAML
	root   *yaml.Node   // kept only where it is needed, by Locate
}

// item is one object of a document, or what is known of one that has faults.
type item struct {
	ref    diag.Ref
	key    objects.Key // zero if the kind is not read or the name not known
	obj    objects.Object
	guard  bool              // obj stands in for one that has faults
	sum    [sha256.Size]byte // of its decoded content
	line   int               // relative to the document, 1-based
	index  []int             // place in a List, in a List ...
	faults []diag.Fault      // lines relative to the document
}

func (d *document) appendFaults(dst []diag.Fault, file string) []diag.Fault {
	add := func(fs []diag.Fault) {
		for _, f := range fs {
			f.File, f.Line = file, f.Line+d.line-1
			dst = append(dst, f)
		}
	}
	add(d.faults)
	for _, it := range d.items {
		add(it.faults)
	}
	return dst
}

// text is a file to decode, and what was read of it before, if anything.
type text struct {
	name string
	data []byte
	old  *file
}

// files decodes the documents of some files; those that stand in the old file already are taken from there. All processors share the
// work: when a large configuration is first read, this is most of the time until it serves.
func (r *reader) files(texts ...text) []*file {
	out := make([]*file, len(texts))
	var todo []*document
	var parts []part
	for i, t := range texts {
		known := map[[sha256.Size]byte]*document{}
		if t.old != nil {
			for _, d := range t.old.documents {
				known[d.sum] = d
			}
		}
		out[i] = &file{name: t.name}
		for _, p := range split(t.data) {
			d := &document{}
			sum := sha256.Sum256(p.data)
			if k := known[sum]; k != nil {
				*d = *k
			} else {
				todo, parts = append(todo, d), append(parts, p)
			}
			d.sum, d.line = sum, p.line
			out[i].documents = append(out[i].documents, d)
		}
	}
	var wg sync.WaitGroup
	var next atomic.Int64
	for range min(runtime.GOMAXPROCS(0), len(todo)) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(todo)); i = next.Add(1) - 1 {
				r.decode(todo[i], parts[i].data)
			}
		})
	}
	wg.Wait()
	return out
}

// decode fills in d from its bytes.
func (r *reader) decode(d *document, data []byte) {
	var n yaml.Node
	if err := yaml.Unmarshal(joinSurrogates(data), &n); err != nil {
		d.syntax = true
		d.faults = []diag.Fault{syntaxFault(err)}
		return
	}
	if len(n.Content) == 0 || isNull(n.Content[0]) {
		return
	}
	r.flatten(d, deref(n.Content[0]), "", "", nil)
	if r.roots {
		d.root = deref(n.Content[0])
	}
}

// part is the bytes of one document.
type part struct {
	line int
	data []byte
}

// split cuts a stream at its document markers. A marker line begins the document after it, "..." ends the one before it.
func split(data []byte) []part {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	var out []part
	start, first, line := 0, 1, 0
	content, marked := false, false // anything but comments and directives; a marker
	cut := func(end, next int) {
		if content || marked {
			out = append(out, part{first, data[start:end]})
		}
		start, first, content, marked = end, next, false, false
	}
	for at := 0; at < len(data); {
		end := len(data)
		if i := bytes.IndexByte(data[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		text := data[at:end]
		line++
		switch {
		case isMarker(text, "---"):
			if content || marked {
				cut(at, line)
			}
			marked = true
			content = len(bytes.TrimSpace(text)) > 3
		case isMarker(text, "..."):
			cut(end, line+1)
		default:
			trimmed := bytes.TrimSpace(text)
			content = content || (len(trimmed) > 0 && trimmed[0] != '#' && (text[0] != '%' || marked))
		}
		at = end
	}
	cut(len(data), line+1)
	return out
}

func isMarker(line []byte, mark string) bool {
	rest, ok := bytes.CutPrefix(line, []byte(mark))
	return ok && (len(rest) == 0 || rest[0] == ' ' || rest[0] == '\t' || rest[0] == '\r' || rest[0] == '\n')
}

var (
	surrogates = regexp.MustCompile(`\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}`)
	yamlLine   = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?`)
)

// joinSurrogates writes the surrogate pairs of JSON's strings as the characters they mean, which YAML's escapes cannot.
func joinSurrogates(data []byte) []byte {
	if t := bytes.TrimSpace(data); len(t) == 0 || t[0] != '{' {
		return data
	}
	return surrogates.ReplaceAllFunc(data, func(m []byte) []byte {
		if len(m) != 12 {
			return m
		}
		high, _ := strconv.ParseUint(string(m[2:6]), 16, 32)
		low, _ := strconv.ParseUint(string(m[8:12]), 16, 32)
		return []byte(string(utf16.DecodeRune(rune(high), rune(low))))
	})
}

// syntaxHints are keyed by a part of the parser's message.
var syntaxHints = []struct{ part, hint string }{
	{"cannot start any token", "YAML indents with spaces, not tabs; a value that begins with @, ` or % needs quotes"},
	{"mapping values are not allowed", `check the indentation; a value that holds ": " needs quotes`},
	{"did not find expected key", "check the indentation of this line and the ones above it"},
	{"could not find expected ':'", "check the lines above: a key needs a colon, a text of several lines an indentation"},
	{"did not find expected ',' or", "check the brackets, braces and commas"},
	{"found unexpected end of stream", "a quote or bracket is not closed"},
	{"did not find expected '-' indicator", "check the indentation of this list"},
	{"unknown anchor", "a value that begins with * needs quotes"},
}

func syntaxFault(err error) diag.Fault {
	f := diag.Fault{Line: 1}
	text := err.Error()
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil {
			f.Line = max(1, n)
		}
		text = text[len(m[0]):]
	}
	for _, h := range syntaxHints {
		if strings.Contains(text, h.part) {
			f.Hint = h.hint
		}
	}
	if strings.Contains(text, "unknown anchor") { // its name may be a secret that lacks its quotes
		text = "unknown anchor"
	}
	f.Message = "is not YAML: " + text
	return f
}

// flatten decodes the object at n, or the objects of a List at n. group and kind are those of the List around it, if it has one kind.
func (r *reader) flatten(d *document, n *yaml.Node, apiVersion, kind string, index []int) {
	n = deref(n)
	fault := func(at, message, hint string) {
		d.faults = append(d.faults, diag.Fault{Line: max(1, n.Line), Path: at, Message: message, Hint: hint})
	}
	if n.Kind != yaml.MappingNode {
		fault(listPath(index), "an object must be a mapping", "write apiVersion, kind, metadata and what the kind has")
		return
	}
	list := deref(field(n, "items"))
	listKind := scalar(n, "kind")
	if !strings.HasSuffix(listKind, "List") || list.Kind == 0 {
		d.items = append(d.items, r.item(n, apiVersion, kind, index))
		return
	}
	switch {
	case isNull(list):
		return
	case list.Kind != yaml.SequenceNode:
		fault("items", "must be a list", "")
		return
	case len(index) > 1:
		fault(listPath(index), "a List in a List in a List", "")
		return
	}
	inner, innerVersion := strings.TrimSuffix(listKind, "List"), scalar(n, "apiVersion")
	if inner == "" {
		innerVersion = ""
	}
	for i, c := range list.Content {
		r.flatten(d, c, innerVersion, inner, append(index[:len(index):len(index)], i))
	}
}

func listPath(index []int) string {
	var b strings.Builder
	for i, n := range index {
		if i > 0 {
			b.WriteByte('.')
		}
		fmt.Fprintf(&b, "items[%d]", n)
	}
	return b.String()
}

// field is the value of a key, an empty node if there is none.
func field(n *yaml.Node, name string) *yaml.Node {
	if n = deref(n); n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == name {
				return n.Content[i+1]
			}
		}
	}
	return &yaml.Node{}
}

// scalar is the text of a key's value, "" if it is no scalar.
func scalar(n *yaml.Node, name string) string {
	if v := deref(field(n, name)); v.Kind == yaml.ScalarNode && v.ShortTag() != "!!null" {
		return v.Value
	}
	return ""
}

// lineOf is the line of the field at path below n, or of the nearest there is above it.
func lineOf(n *yaml.Node, path string) int {
	line := n.Line
	for path != "" {
		n = deref(n)
		var name string
		if path[0] == '[' {
			end := strings.IndexByte(path, ']')
			if end < 0 {
				return line
			}
			name, path = path[1:end], strings.TrimPrefix(path[end+1:], ".")
			if i, err := strconv.Atoi(name); err == nil && n.Kind == yaml.SequenceNode && i < len(n.Content) && i >= 0 {
				n = n.Content[i]
				line = n.Line
				continue
			}
			name, _ = strconv.Unquote(name)
		} else if i := strings.IndexAny(path, ".["); i < 0 {
			name, path = path, ""
		} else {
			name, path = path[:i], strings.TrimPrefix(path[i:], ".")
		}
		next := -1
		if n.Kind == yaml.MappingNode {
			for i := 0; i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == name {
					next = i
				}
			}
		}
		if next < 0 {
			return line
		}
		line, n = n.Content[next].Line, n.Content[next+1]
	}
	return line
}

// locate is the line in the file of a field of an item that was just decoded.
func (r *reader) locate(d *document, it *item, path string) int {
	n := d.root
	for _, i := range it.index {
		n = child(deref(field(n, "items")), i)
	}
	return d.line + lineOf(deref(n), path) - 1
}
