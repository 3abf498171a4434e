package hmac

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/dunglas/httpsfv"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
)

const (
	maxComponents = 64
	maxParametric = 8 // components that have a parameter: each reads a whole query or field anew
	maxBase       = 128 << 10
)

// digestComponent identifies Content-Digest.
const digestComponent = `"content-digest"`

// base is the signature base of a request (RFC 9421 section 2.5).
type base struct {
	x    *exchange.Exchange
	ids  []string // of the covered components, as they are serialised
	text []byte
	rich int // components with a parameter
}

// build makes the text that was signed. Refused: a component is not there, not known, or covered twice; else Absent.
func (b *base) build(list *httpsfv.InnerList) method.Outcome {
	if len(list.Items) > maxComponents {
		return malformed("more than 64 components")
	}
	for i := range list.Items {
		if o := b.add(&list.Items[i]); o.State != method.Absent {
			return o
		}
		if len(b.text) > maxBase {
			return malformed("more than 128 KiB are covered")
		}
	}
	params, err := httpsfv.Marshal(*list)
	if err != nil {
		return malformed("the components cannot be written down again")
	}
	b.text = append(b.text, `"@signature-params": `...)
	b.text = append(b.text, params...)
	return method.Outcome{}
}

func (b *base) add(item *httpsfv.Item) method.Outcome {
	name, ok := item.Value.(string)
	id, err := httpsfv.Marshal(*item)
	if !ok || err != nil {
		return malformed("a component is not a string")
	}
	for _, other := range b.ids {
		if other == id {
			return malformed("a component is covered twice")
		}
	}
	b.ids = append(b.ids, id)
	if len(item.Params.Names()) > 0 {
		if b.rich++; b.rich > maxParametric {
			return malformed("more than 8 components with a parameter")
		}
	}
	if problem := known(name, item.Params); problem != "" {
		return method.Refuse("component_unsupported", short(id)+" "+problem)
	}
	b.text = append(append(b.text, id...), ": "...)
	if problem := b.value(name, item.Params); problem != "" {
		return method.Refuse("component_missing", short(id)+" "+problem)
	}
	b.text = append(b.text, '\n')
	return method.Outcome{}
}

// short keeps what a client wrote from filling a log.
func short(id string) string {
	const most = 64
	if len(id) > most {
		return id[:most] + "..."
	}
	return id
}

// requirement is the identifier of a component as users write it: @method, content-type, @query-param;name="id". problem says why it
// can never be covered.
func requirement(text string) (id, problem string) {
	name, params, _ := strings.Cut(text, ";")
	if params != "" {
		params = ";" + params
	}
	item, err := httpsfv.UnmarshalItem([]string{`"` + strings.Trim(name, `"`) + `"` + params})
	if err != nil {
		return "", "is not a component"
	}
	if id, err = httpsfv.Marshal(item); err != nil {
		return "", "is not a component"
	}
	return id, known(item.Value.(string), item.Params)
}

// known says why a component is none that we can compute, "" if it is one. The parameters sf, bs, req and tr are not supported: sf needs
// to know the type of every field, bs and tr are of no use to clients here, and req belongs to responses.
func known(name string, params *httpsfv.Params) (problem string) {
	names := params.Names()
	if strings.HasPrefix(name, "@") {
		switch name {
		case "@method", "@target-uri", "@authority", "@scheme", "@request-target", "@path", "@query":
			if len(names) > 0 {
				return "takes no parameter"
			}
			return ""
		case "@query-param":
			if _, ok := text(params, "name"); ok && len(names) == 1 {
				return ""
			}
			return "needs the parameter name, and no other"
		}
		return "is not a component of requests that is known"
	}
	if !exchange.IsToken([]byte(name)) || strings.ToLower(name) != name {
		return "is not a header name in lower case"
	}
	if len(names) == 0 {
		return ""
	}
	if _, ok := text(params, "key"); ok && len(names) == 1 {
		return ""
	}
	return "has a parameter other than key, which is not supported"
}

func text(params *httpsfv.Params, name string) (string, bool) {
	v, _ := params.Get(name)
	s, ok := v.(string)
	return s, ok
}

// value appends the value of a known component; problem says why there is none.
func (b *base) value(name string, params *httpsfv.Params) (problem string) {
	r := &b.x.Request
	switch name {
	case "@method":
		b.text = append(b.text, r.Method...)
	case "@scheme":
		b.text = append(b.text, b.x.Scheme...)
	case "@authority":
		b.text = appendAuthority(b.text, r.Authority, b.x.Scheme)
	case "@target-uri":
		b.text = b.targetURI(b.text)
	case "@request-target":
		b.text = append(b.text, b.target()...)
	case "@path":
		path, _, _ := split(b.target())
		b.text = append(b.text, path...)
	case "@query":
		_, query, _ := split(b.target())
		b.text = append(append(b.text, '?'), query...)
	case "@query-param":
		want, _ := text(params, "name")
		return b.parameter(want)
	default:
		if key, ok := text(params, "key"); ok {
			return b.member(name, key)
		}
		return b.field(name)
	}
	return ""
}

// target is the request target as the client wrote it. A request that was made by nobody has only its path, which is never longer than
// what would have been signed: then nothing verifies.
func (b *base) target() []byte {
	r := &b.x.Request
	if r.Target != nil {
		return r.Target
	}
	t := append([]byte(nil), r.RawPath...)
	if r.HasQuery {
		t = append(append(t, '?'), r.Query...)
	}
	return t
}

// split takes a target apart. The path of an absolute form without one is "/" (RFC 9421 section 2.2.6).
func split(target []byte) (path, query []byte, has bool) {
	path, query, has = bytes.Cut(target, []byte("?"))
	if i := bytes.Index(path, []byte("://")); i >= 0 && target[0] != '/' {
		rest := path[i+3:]
		if j := bytes.IndexByte(rest, '/'); j >= 0 {
			path = rest[j:]
		} else {
			path = []byte("/")
		}
	}
	return path, query, has
}

// targetURI appends the whole URI (RFC 9110 section 7.1), with the authority as the client wrote it.
func (b *base) targetURI(dst []byte) []byte {
	t := b.target()
	if len(t) > 0 && t[0] != '/' && t[0] != '*' {
		return append(dst, t...)
	}
	dst = append(append(dst, b.x.Scheme...), "://"...)
	dst = append(dst, b.authority()...)
	if len(t) == 1 && t[0] == '*' {
		return dst
	}
	return append(dst, t...)
}

// authority is host[:port] as the client wrote it, if it came from a peer.
func (b *base) authority() []byte {
	r := &b.x.Request
	if r.RawAuthority == nil {
		return r.Authority
	}
	return r.RawAuthority
}

// appendAuthority appends host and port in lower case, without the port of the scheme (RFC 9421 section 2.2.3).
func appendAuthority(dst, authority []byte, scheme string) []byte {
	port := ":80"
	if scheme == "https" {
		port = ":443"
	}
	for _, c := range bytes.TrimSuffix(authority, []byte(port)) {
		dst = append(dst, exchange.Lower(c))
	}
	return dst
}

// field appends the values of a field (RFC 9421 section 2.1). Host and Content-Length do not lie among the fields any more.
func (b *base) field(name string) (problem string) {
	r := &b.x.Request
	switch name {
	case "host":
		if t := b.target(); len(t) > 0 && t[0] != '/' && t[0] != '*' {
			return "is not looked at when the target is absolute"
		}
		b.text = append(b.text, b.authority()...)
		return ""
	case "content-length":
		if r.ContentLength <= 0 {
			return "is not there"
		}
		b.text = strconv.AppendInt(b.text, r.ContentLength, 10)
		return ""
	}
	found := false
	for _, f := range r.Header.All() {
		if !exchange.EqualFold(f.Name, name) {
			continue
		}
		if found {
			b.text = append(b.text, ", "...)
		}
		b.text = append(b.text, bytes.Trim(f.Value, " \t")...)
		if found = true; len(b.text) > maxBase {
			return "is too long"
		}
	}
	if !found {
		return "is not there"
	}
	return ""
}

// member appends one member of a field that is a dictionary (RFC 9421 section 2.1.2).
func (b *base) member(name, key string) (problem string) {
	v, ok := b.x.Request.Header.Joined(nil, name)
	if !ok {
		return "is not there"
	}
	d, err := httpsfv.UnmarshalDictionary([]string{string(v)})
	if err != nil {
		return "is not a dictionary"
	}
	m, ok := d.Get(key)
	if !ok {
		return "has no such key"
	}
	s, ok := m.(httpsfv.StructuredFieldValue)
	if !ok {
		return "has no such key"
	}
	out, err := httpsfv.Marshal(s)
	if err != nil {
		return "cannot be written down again"
	}
	b.text = append(b.text, out...)
	return ""
}

// parameter appends one parameter of the query, decoded as a form and encoded again (RFC 9421 section 2.2.8). One that stands twice
// cannot be signed by its name.
func (b *base) parameter(want string) (problem string) {
	_, query, _ := split(b.target())
	found := false
	for len(query) > 0 {
		var pair []byte
		pair, query, _ = bytes.Cut(query, []byte("&"))
		if len(pair) == 0 {
			continue
		}
		k, v, _ := bytes.Cut(pair, []byte("="))
		name, ok := encoded(k)
		if !ok || name != want {
			continue
		}
		value, ok := encoded(v)
		if found || !ok {
			return "stands twice, or is not UTF-8"
		}
		found = true
		b.text = append(b.text, value...)
	}
	if !found {
		return "is not there"
	}
	return ""
}

// encoded decodes a name or value of a form and encodes it in the one way that is signed: every byte but letters, digits and *-._ as
// %XX. ok is false for bytes that are not UTF-8, which decoders repair, each in its way.
func encoded(b []byte) (s string, ok bool) {
	plain := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		switch {
		case b[i] == '+':
			plain = append(plain, ' ')
		case b[i] == '%' && i+2 < len(b) && isHex(b[i+1]) && isHex(b[i+2]):
			n, _ := strconv.ParseUint(string(b[i+1:i+3]), 16, 8)
			plain = append(plain, byte(n)) //nolint:gosec // eight bits
			i += 2
		default:
			plain = append(plain, b[i])
		}
	}
	if !utf8.Valid(plain) {
		return "", false
	}
	const upper = "0123456789ABCDEF"
	out := make([]byte, 0, len(plain))
	for _, c := range plain {
		if c-'0' < 10 || c|0x20-'a' < 26 || c == '*' || c == '-' || c == '.' || c == '_' {
			out = append(out, c)
		} else {
			out = append(out, '%', upper[c>>4], upper[c&15])
		}
	}
	return string(out), true
}

func isHex(c byte) bool { return c-'0' < 10 || c|0x20-'a' < 6 }
