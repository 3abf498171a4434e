// Package exchange is one request and its response, neutral of the protocol version. An Exchange is reused for
// the next request of its connection and its byte slices lie in that connection's buffers: whoever wants to keep
// something past the hook it was called with copies it. The package does no I/O.
package exchange

import (
	"net/netip"
	"time"
)

// Version of HTTP.
type Version uint8

// The versions, in the order of their age.
const (
	HTTP10 Version = iota
	HTTP11
	HTTP2
	HTTP3
)

func (v Version) String() string {
	return [...]string{"HTTP/1.0", "HTTP/1.1", "HTTP/2", "HTTP/3"}[v]
}

// Unknown is a content length that the head does not tell (chunked, or until close).
const Unknown = -1

// Request is the request as the client sent it, then, as hooks change it, as the backend gets it.
type Request struct {
	Method []byte
	// Host is the authority's host in lower case without port; Authority is host[:port] in the one spelling of ParseAuthority.
	Host, Authority []byte
	// RawAuthority is what the client wrote: what a signature covers.
	RawAuthority []byte
	// Path is the one canonical path: dot segments resolved, percent-encoded unreserved octets decoded and others in upper
	// case hex. Matching, policies and the log use it.
	Path []byte
	// RawPath is the client's spelling with dot segments resolved. A backend gets it unless the host is path-sensitive
	// or a hook rewrote the path.
	RawPath []byte
	// PathFlags says what in the path servers read differently; a path-sensitive host refuses those in Ambiguous.
	PathFlags PathFlags
	// Query is what stands after "?", HasQuery whether there was a "?".
	Query    []byte
	HasQuery bool
	Version  Version
	Header   Header
	Trailer  Header
	// ContentLength is the number of body bytes, 0 for none, Unknown if only the end tells.
	ContentLength int64
	// Upgrade is the protocol the client wants to change to, if it is one that is let through; else nil.
	Upgrade []byte
	// Continue says that the client waits for 100 (Continue) before it sends the body.
	Continue bool
	// Body holds the whole body if a step asked for it (Handler.Body); a hook may put another in its place.
	Body     []byte
	Buffered bool // Body holds it
	// Target is the request target as the client wrote it (RFC 9112 section 3.2), whatever becomes of the path: what a signature covers.
	Target []byte
}

// Response is what goes to the client.
type Response struct {
	Status        int
	Header        Header
	Trailer       Header
	ContentLength int64 // Unknown: chunked or until close
	Version       Version
	// Edge is true for an answer that the edge made itself; Body holds it then.
	Edge     bool
	Body     []byte
	Buffered bool // Body holds a backend's whole body, because a step asked for it (Handler.ResponseBody), or what takes its place
	Written  bool // Body was written by a user for this answer: nothing that is meant for many takes its place
}

// Identity is who calls, written once by authentication. The zero value is an anonymous caller.
type Identity struct {
	Subject, Application, Plan, CredentialID, Issuer, Method string
	Scopes                                                   []string
	Claims                                                   map[string]any
}

// Local is the state that one step keeps for one exchange, between its own hooks. It is zero when Request is called.
type Local struct {
	N int64
	V any // a pointer kept here allocates: use N on the hot path
}

// Limit is a rate limit's state, as draft-ietf-httpapi-ratelimit-headers tells it.
type Limit struct {
	Name      string // quoted: "per-client"
	Policy    string // "per-client";q=10;w=1
	Remaining int64
	Reset     time.Duration
	Told      bool // the response says it already
}

// Shadowed is an answer that a policy in shadow mode would have given.
type Shadowed struct {
	Step, Reason string
	Status       int
}

// MaxSteps is how many steps with hooks can run for one exchange: those of a route and those of a backendRef together.
const MaxSteps = 64

// localsAtOnce is how many locals are made together: most exchanges pass few steps.
const localsAtOnce = 8

// Exchange is one request and its response on their way through the edge.
type Exchange struct {
	Request  Request
	Response Response
	Identity Identity

	ID      []byte         // request id, as the log and problem documents show it
	Client  netip.AddrPort // who calls: behind trusted proxies, the rightmost address that is not trusted
	Peer    netip.AddrPort // the other end of the connection
	Trusted bool           // Peer is a trusted proxy: its X-Forwarded-* and Forwarded are kept
	TLS     bool           // the client speaks TLS to the edge
	SNI     string
	// Certificate is what the client showed in the TLS handshake of its connection; nil: nothing, or it was not asked. Nobody has
	// verified it but for the proof that the client holds its key.
	Certificate *ClientCertificate
	Port        uint16 // of the listener, as clients see it
	// PublicHost and PublicPort are where a trusted proxy says that the client reached it; nil and 0 where it does not say.
	PublicHost []byte
	PublicPort uint16
	Listener   string // key
	Scheme     string // "http" or "https", as the client used it (behind a trusted proxy: as that says)
	Route      string // name of the matched route, "" before and without
	Matched    string // the path prefix that the route matched, for ReplacePrefixMatch; "" if it is not a prefix match
	RouteHost  string // hostname pattern of the virtual host that matched

	// Rewritten is set by a step that changed Request.Path (then the backend gets Path); HostRewritten by one that
	// changed Request.Authority.
	Rewritten, HostRewritten bool
	// ClientPath is Request.Path as it was matched, whatever a step made of it since: the log's. nil before and without a route.
	ClientPath []byte
	// LoggedQuery is what the access log has in the place of Request.Query, nil: that itself. It has no credentials in it.
	LoggedQuery []byte
	// Dry is set when nothing may be counted, written or called: the exchange is only explained.
	Dry bool

	// Limit is what the client is told about the strictest limit that the request met; without a Name there was none.
	Limit Limit
	// AuthFailed says that the caller showed a credential that is not good, and none that is.
	AuthFailed bool
	// Shadow are the answers that policies in shadow mode would have given.
	Shadow []Shadowed

	// Mirrors are the keys of the clusters that get a copy of the request; a step adds to it.
	Mirrors []string

	Reason  string // the stable word of the decision that ended it: "route_not_found", "body_too_large"; "" for forwarded
	Detail  string // what it was about, for explain and the log, never for the client
	Start   time.Time
	Cluster string // that answered or was tried last
	Backend netip.AddrPort
	Tries   int

	BytesIn, BytesOut int64         // body bytes from and to the client
	Waited            time.Duration // from the head's arrival until the backend's head

	locals [MaxSteps / localsAtOnce]*[localsAtOnce]Local // made when they are used, and kept
	used   int                                           // locals that are not zero lie below
	step   int
	room   []byte // see Keep
}

// Local is the state of the step whose hook now runs.
func (x *Exchange) Local() *Local {
	some := &x.locals[x.step/localsAtOnce]
	if *some == nil {
		*some = new([localsAtOnce]Local)
	}
	return &(*some)[x.step%localsAtOnce]
}

// Enter makes i the step whose hook runs next; only proxy calls it.
func (x *Exchange) Enter(i int) {
	x.step = i
	if i >= x.used {
		x.used = i + 1
	}
}

// Reset makes x ready for the next request and keeps its room.
func (x *Exchange) Reset() {
	rh, rt := x.Request.Header, x.Request.Trailer
	sh, st := x.Response.Header, x.Response.Trailer
	for i := 0; i < x.used; i += localsAtOnce {
		if some := x.locals[i/localsAtOnce]; some != nil {
			clear(some[:])
		}
	}
	x.Request = Request{Header: rh, Trailer: rt}
	x.Response = Response{Header: sh, Trailer: st}
	x.Request.Header.Reset()
	x.Request.Trailer.Reset()
	x.Response.Header.Reset()
	x.Response.Trailer.Reset()
	if x.Identity.Method != "" {
		x.Identity = Identity{}
	}
	x.ID, x.ClientPath, x.LoggedQuery, x.Certificate = nil, nil, nil, nil
	x.Client, x.Peer = netip.AddrPort{}, netip.AddrPort{}
	x.Trusted, x.TLS, x.Dry, x.Rewritten, x.HostRewritten = false, false, false, false, false
	x.SNI, x.Listener, x.Scheme, x.Route, x.Matched, x.RouteHost = "", "", "", "", "", ""
	x.Port, x.PublicHost, x.PublicPort = 0, nil, 0
	x.Reason, x.Detail, x.Cluster = "", "", ""
	x.Mirrors, x.Shadow = x.Mirrors[:0], x.Shadow[:0]
	x.AuthFailed, x.Limit = false, Limit{}
	x.Backend = netip.AddrPort{}
	x.Start = time.Time{}
	x.Tries = 0
	x.BytesIn, x.BytesOut, x.Waited = 0, 0, 0
	x.used, x.step = 0, 0
	x.room = x.room[:0]
}
