package proxy

import (
	"bytes"
	"net/url"
	"slices"
	"strconv"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/telemetry"
)

var (
	nameFor       = []byte("X-Forwarded-For")
	nameHost      = []byte("X-Forwarded-Host")
	nameProto     = []byte("X-Forwarded-Proto")
	namePort      = []byte("X-Forwarded-Port")
	nameRealIP    = []byte("X-Real-Ip")
	nameRequestID = []byte("X-Request-Id")
)

// protectHead takes away what only the edge may say about a client, before any hook or match sees it, and says it: fields
// that begin with X-Gatehouse- in every spelling, and X-Forwarded-*, Forwarded, X-Real-Ip and X-Request-Id unless the peer is trusted
// (their spellings with "_" also then).
func (f *Flow) protectHead() {
	h := &f.Request.Header
	trusted := f.Exchange.Trusted
	var said forwarded
	fields := h.All()
	j := 0
	for i := range fields {
		keep := true
		switch c := fields[i].Name[0]; c {
		case 'x', 'X', 'f', 'F':
			switch kind := edgeField(fields[i].Name); kind {
			case fieldOther:
			case fieldIdentity:
				keep = false
			case fieldRequestID:
				keep = false
				if trusted && said.id == nil && telemetry.ValidID(fields[i].Value) {
					said.id = fields[i].Value
				}
			case fieldProto, fieldHost, fieldPort:
				if keep = false; trusted {
					f.hear(&said, kind, fields[i].Value)
				}
			default:
				keep = trusted
			}
		}
		if keep {
			if i != j {
				fields[j] = fields[i]
			}
			j++
		}
	}
	h.Truncate(j)
	if len(f.identity) > 0 {
		h.DelFunc(f.tellsIdentity)
	}
	f.setForwarded(&said)
}

// tellsIdentity reports whether a field is one in which a policy tells who calls.
func (f *Flow) tellsIdentity(h exchange.Field) bool {
	for _, name := range f.identity {
		if same(h.Name, name) {
			return true
		}
	}
	return false
}

// Trailer is the request's trailer section, once it was read, without what only the edge may say.
func (f *Flow) Trailer() *exchange.Header {
	t := &f.Request.Trailer
	if t.Len() > 0 {
		t.DelFunc(func(h exchange.Field) bool { return edgeField(h.Name) != fieldOther || f.tellsIdentity(h) })
	}
	return t
}

type fieldKind uint8

const (
	fieldOther     fieldKind = iota
	fieldIdentity            // that no peer may send
	fieldForwarded           // other fields that say where a request comes from
	fieldProto
	fieldHost
	fieldPort
	fieldRequestID
)

// edgeField tells a field that speaks about the client from one that is the client's own. "-" and "_" are the same here,
// because many backends take them for the same (CGI variables): the other spelling comes from nobody who means well.
func edgeField(name []byte) fieldKind {
	kind := fieldOther
	switch {
	case hasPrefix(name, "x-gatehouse-"):
		return fieldIdentity
	case hasPrefix(name, "x-forwarded"):
		switch {
		case same(name, "x-forwarded-proto"):
			kind = fieldProto
		case same(name, "x-forwarded-host"):
			kind = fieldHost
		case same(name, "x-forwarded-port"):
			kind = fieldPort
		default:
			kind = fieldForwarded
		}
	case same(name, "forwarded"), same(name, "x-real-ip"):
		kind = fieldForwarded
	case same(name, "x-request-id"):
		kind = fieldRequestID
	}
	if kind != fieldOther && bytes.IndexByte(name, '_') >= 0 {
		return fieldIdentity
	}
	return kind
}

func same(name []byte, want string) bool { return len(name) == len(want) && hasPrefix(name, want) }

// hasPrefix compares ASCII case and "-"/"_" blind; want is in lower case with "-".
func hasPrefix(name []byte, want string) bool {
	if len(name) < len(want) {
		return false
	}
	for i := range len(want) {
		c := exchange.Lower(name[i])
		if c == '_' {
			c = '-'
		}
		if c != want[i] {
			return false
		}
	}
	return true
}

// AppendPort is the text of a port, for ConnInfo.
func AppendPort(dst []byte, port uint16) []byte { return strconv.AppendUint(dst, uint64(port), 10) }

var hidden = []byte("=[redacted]")

// hideQuery makes the query that is logged: without the values of the parameters that hold credentials, however their names are written.
func (f *Flow) hideQuery(names []string) {
	var out []byte
	query, copied := f.Request.Query, 0
	for at := 0; at < len(query); {
		pair := query[at:]
		if i := bytes.IndexByte(pair, '&'); i >= 0 {
			pair = pair[:i]
		}
		if name, value, ok := bytes.Cut(pair, equals); ok && len(value) > 0 && namesSecret(name, names) {
			out = append(append(out, query[copied:at+len(name)]...), hidden...)
			copied = at + len(pair)
		}
		at += len(pair) + 1
	}
	if out != nil {
		f.LoggedQuery, _ = f.Keep(out, query[copied:])
	}
}

var equals = []byte("=")

// namesSecret reports whether the name of a parameter, decoded, is one of names.
func namesSecret(name []byte, names []string) bool {
	if slices.Contains(names, string(name)) {
		return true
	}
	if bytes.IndexByte(name, '%') < 0 && bytes.IndexByte(name, '+') < 0 {
		return false
	}
	decoded, err := url.QueryUnescape(string(name))
	return err != nil || slices.Contains(names, decoded)
}
