package proxy

import (
	"bytes"
	"net/url"
	"slices"
	"strconv"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

var (
	nameFor       = []byte("X-Forwarded-For")
	nameHost      = []byte("X-Forwarded-Host")
	nameProto     = []byte("X-Forwarded-Proto")
	namePort      = []byte("X-Forwarded-Port")
	nameRealIP    = []byte("X-Real-Ip")
	nameRequestID = []byte("X-Request-Id")
	schemeHTTP    = []byte("http")
	schemeHTTPS   = []byte("https")
)

// protectHead takes away what only the edge may say about a client, before any hook or match sees it, and says it: fields
// that begin with X-Gatehouse- in every spelling, and X-Forwarded-*, Forwarded, X-Real-Ip and X-Request-Id unless the peer is trusted.
func (f *Flow) protectHead() {
	h := &f.Request.Header
	trusted := f.Exchange.Trusted
	var id, proto, host, port []byte
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
				if trusted && id == nil && validID(fields[i].Value) {
					id = fields[i].Value
				}
			case fieldFor:
				keep = trusted
			case fieldProto:
				keep, proto = false, fields[i].Value
			case fieldHost:
				keep, host = false, fields[i].Value
			case fieldPort:
				keep, port = false, fields[i].Value
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
	if !trusted {
		proto, host, port = nil, nil, nil
	}
	f.setForwarded(id, proto, host, port)
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

// setForwarded appends the edge's own fields. Values of a trusted peer stay where it gave one.
func (f *Flow) setForwarded(id, proto, host, port []byte) {
	h := &f.Request.Header
	if id == nil {
		n := len(f.scratch)
		f.scratch = f.edge.recorder.NewID(f.scratch)
		id = f.scratch[n:]
	}
	f.ID = id
	if proto == nil {
		proto = schemeHTTP
		if f.TLS {
			proto = schemeHTTPS
		}
	}
	if host == nil {
		host = f.Request.Authority
	}
	peer := f.conn.PeerText
	f.forwardedFor(peer)
	h.Append(nameProto, proto)
	h.Append(nameHost, host)
	if port == nil {
		port = f.conn.PortText
	}
	h.Append(namePort, port)
	h.Append(nameRequestID, id)
	if !f.Exchange.Trusted {
		h.Append(nameRealIP, peer)
	} else if !h.Has("X-Real-Ip") {
		n := len(f.scratch)
		f.scratch = f.Client.Addr().AppendTo(f.scratch)
		h.Append(nameRealIP, f.scratch[n:])
	}
}

// forwardedFor adds the peer to the list that a trusted peer sent, or begins one.
func (f *Flow) forwardedFor(peer []byte) {
	h := &f.Request.Header
	if f.Exchange.Trusted {
		n := len(f.scratch)
		if list, ok := h.Joined(f.scratch, "X-Forwarded-For"); ok {
			f.scratch = append(append(list, ", "...), peer...)
			h.Set(nameFor, f.scratch[n:])
			return
		}
	}
	h.Append(nameFor, peer)
}

type fieldKind uint8

const (
	fieldOther fieldKind = iota
	fieldIdentity
	fieldForwarded // other fields that say where a request comes from
	fieldFor
	fieldProto
	fieldHost
	fieldPort
	fieldRequestID
)

// edgeField tells a field that speaks about the client from one that is the client's own. "-" and "_" are the same here,
// because many backends take them for the same (CGI variables).
func edgeField(name []byte) fieldKind {
	switch {
	case hasPrefix(name, "x-gatehouse-"):
		return fieldIdentity
	case hasPrefix(name, "x-forwarded"):
		switch {
		case !bytes.ContainsRune(name, '_') && exchange.EqualFold(name, "x-forwarded-for"):
			return fieldFor
		case same(name, "x-forwarded-proto"):
			return fieldProto
		case same(name, "x-forwarded-host"):
			return fieldHost
		case same(name, "x-forwarded-port"):
			return fieldPort
		case same(name, "x-forwarded-for"):
			return fieldIdentity // the other spelling: never kept
		}
		return fieldForwarded
	case same(name, "forwarded"), same(name, "x-real-ip"):
		return fieldForwarded
	case same(name, "x-request-id"):
		return fieldRequestID
	}
	return fieldOther
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

// validID accepts ids that can stand in a log line or a JSON string as they are.
func validID(v []byte) bool {
	if len(v) == 0 || len(v) > 128 {
		return false
	}
	for _, c := range v {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.' || c == ':' || c == '/' || c == '+' || c == '=') {
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
