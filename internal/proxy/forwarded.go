package proxy

import (
	"bytes"
	"strconv"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

var (
	schemeHTTP  = []byte("http")
	schemeHTTPS = []byte("https")
	portHTTP    = []byte("80")
	portHTTPS   = []byte("443")
)

// forwarded is what a trusted peer says of how the client reached it. Of several values, in one field or in many, the rightmost that is
// well formed counts: it was written by the peer itself, those to its left by others.
type forwarded struct {
	id     []byte
	scheme []byte // "http" or "https"; nil: it does not say
	host   exchange.Authority
	port   []byte // 1 to 65535 without leading zeros
	number uint16 // port
}

// hear takes over the field of a kind that the peer sent.
func (f *Flow) hear(said *forwarded, kind fieldKind, value []byte) {
	for rest := value; len(rest) > 0; {
		var e []byte
		if e, rest = lastElement(rest); len(e) == 0 {
			continue
		}
		switch kind {
		case fieldProto:
			if scheme := schemeOf(e); scheme != nil {
				said.scheme = scheme
				return
			}
		case fieldHost:
			a, grown, ok := exchange.ParseAuthority(f.scratch, e)
			if f.scratch = grown; ok {
				said.host = a
				return
			}
		case fieldPort:
			if n, err := strconv.ParseUint(string(e), 10, 16); err == nil && n > 0 {
				said.port, said.number = bytes.TrimLeft(e, "0"), uint16(n)
				return
			}
		}
	}
}

// schemeOf reads a scheme, which has no case (RFC 3986 section 3.1); those of WebSocket are the ones that they begin as (RFC 6455
// section 3). nil: it is another.
func schemeOf(e []byte) []byte {
	switch {
	case exchange.EqualFold(e, "https"), exchange.EqualFold(e, "wss"):
		return schemeHTTPS
	case exchange.EqualFold(e, "http"), exchange.EqualFold(e, "ws"):
		return schemeHTTP
	}
	return nil
}

// lastElement cuts the last element off a comma-separated list; it may be empty.
func lastElement(list []byte) (element, rest []byte) {
	if i := bytes.LastIndexByte(list, ','); i >= 0 {
		return bytes.Trim(list[i+1:], " \t"), list[:i]
	}
	return bytes.Trim(list, " \t"), nil
}

// setForwarded decides what is known of the client's side and appends the edge's own fields, which say the same.
func (f *Flow) setForwarded(said *forwarded) {
	h := &f.Request.Header
	if f.ID = said.id; f.ID == nil {
		f.newID()
	}
	scheme, host, port := schemeHTTP, f.Request.Authority, f.conn.PortText
	if f.TLS {
		scheme = schemeHTTPS
	}
	if said.scheme != nil && !bytes.Equal(said.scheme, scheme) { // the listener's port is not what the client saw
		scheme, port = said.scheme, portHTTP
		if f.Scheme = "http"; len(scheme) == len("https") {
			f.Scheme, port = "https", portHTTPS
		}
	}
	if said.host.Host != nil {
		host, f.PublicHost = said.host.Text, said.host.Host
		if said.port == nil && said.host.Port != nil {
			n, _ := strconv.ParseUint(string(said.host.Port), 10, 16) // ParseAuthority has checked it
			said.port, said.number = said.host.Port, uint16(n)
		}
	}
	if said.port != nil {
		port, f.PublicPort = said.port, said.number
	}
	f.forwardedFor()
	h.Append(nameProto, scheme)
	h.Append(nameHost, host)
	h.Append(namePort, port)
	h.Append(nameRequestID, f.ID)
	f.realIP()
}

// newID gives the exchange an id of its own.
func (f *Flow) newID() {
	n := len(f.scratch)
	f.scratch = f.edge.recorder.NewID(f.scratch)
	f.ID = f.scratch[n:]
}

// realIP says who the client is, in a field of one address: that of a trusted peer stays.
func (f *Flow) realIP() {
	h := &f.Request.Header
	if !f.Exchange.Trusted {
		h.Append(nameRealIP, f.conn.PeerText)
		return
	}
	if h.Count("X-Real-Ip") == 1 {
		if _, ok := parseClient(h.Get("X-Real-Ip")); ok {
			return
		}
	}
	h.Del("X-Real-Ip")
	n := len(f.scratch)
	f.scratch = f.Client.Addr().AppendTo(f.scratch)
	h.Append(nameRealIP, f.scratch[n:])
}

// forwardedFor adds the peer to the list that a trusted peer sent, without its empty elements (RFC 9110 section 5.6.1.2), or begins one.
func (f *Flow) forwardedFor() {
	h := &f.Request.Header
	n := len(f.scratch)
	if f.Exchange.Trusted {
		for _, field := range h.All() {
			if !exchange.EqualFold(field.Name, "X-Forwarded-For") {
				continue
			}
			for e, rest, more := []byte(nil), field.Value, true; more; {
				e, rest, more = bytes.Cut(rest, comma)
				if e = bytes.Trim(e, " \t"); len(e) > 0 {
					f.scratch = append(append(f.scratch, e...), ", "...)
				}
			}
		}
	}
	if n == len(f.scratch) {
		h.Set(nameFor, f.conn.PeerText)
		return
	}
	f.scratch = append(f.scratch, f.conn.PeerText...)
	h.Set(nameFor, f.scratch[n:])
}

var comma = []byte(",")
