// Package proxy is the life of an exchange: Flow.Step takes what happened (an Event) and says what to do next (an
// Action). It decides everything and does nothing: no I/O, no clock, no goroutine. A driver (package drive) owns
// sockets and timers, reports events and carries out actions.
package proxy

import (
	"net/netip"
	"slices"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/route"
	"github.com/gatehouse-io/gatehouse/internal/telemetry"
	"github.com/gatehouse-io/gatehouse/internal/upstream"
)

// Event is what happened to an exchange.
type Event uint8

// The events that a driver reports.
const (
	EventHead            Event = iota // the request's head is in Flow.Request
	EventMalformed                    // the request's head or body is refused: Flow.Fault says why
	EventResumed                      // what Flow.Verdict.Wait returned is in Flow.Resume
	EventBody                         // the whole request body is in Flow.Request.Body
	EventBodyTooLarge                 // the request body did not fit the limit that was asked for
	EventConnected                    // a connection to Flow.Endpoint is there
	EventConnectFailed                // it could not be made: Flow.Problem says why
	EventBackendFailed                // the connection failed before a response head came: Flow.Problem, Flow.Sent, Flow.Reused
	EventBackendHead                  // a final response's head is in Flow.Response
	EventRetry                        // what was left of the try before is let go of, and Flow.Backoff is over
	EventBackendBody                  // the whole response body is in Flow.Response.Body
	EventBackendTooLarge              // the response body did not fit the limit that was asked for
	EventTimeout                      // no response head within the time for its first byte
	EventExpired                      // the route's time for the whole exchange is over
	EventClientGone                   // the client went away
	EventOverloaded                   // Shedding while a whole body was collected
	EventPanicked                     // a step panicked on the request's body
)

// Action is what a driver does next.
type Action uint8

// The actions that Step asks for.
const (
	ActionWait    Action = iota // run Flow.Verdict.Wait where waiting is allowed, then EventResumed
	ActionBuffer                // read the whole request body, at most Flow.Limit bytes, then EventBody
	ActionConnect               // get a connection to Flow.Endpoint, an idle one unless Flow.Fresh, then EventConnected
	ActionSend                  // write the request, let its body flow, read a response head
	ActionHold                  // read the whole response body, at most Flow.Limit bytes, then EventBackendBody
	ActionRetry                 // let go of the try that failed, wait for Flow.Backoff, then EventRetry
	ActionRespond               // write the response and let the backend's body flow
	ActionRelay                 // write the 101 response and pass bytes both ways until both are done
	ActionAnswer                // write the response whose body is Flow.Response.Body: the edge's own, or a buffered one
	ActionAbort                 // end both connections without a further byte
)

// Flow is one exchange on its way, reused for the next one of its connection.
type Flow struct {
	exchange.Exchange

	// From the driver.
	Fault   Fault     // with EventMalformed
	Problem string    // with EventConnectFailed, EventBackendFailed: for the log
	Broken  string    // with EventBackendFailed: the reason word of the rule that its response broke, "": none
	Sent    bool      // with EventBackendFailed: a byte of the request was written
	Reused  bool      // with EventBackendFailed: the connection had carried an exchange before
	Kept    bool      // the whole request can be sent again: it has no body, or what has passed of it is still there
	Full    bool      // with EventConnectFailed: the cluster's circuit breaker has no connection left
	Now     time.Time // when the event happened; Begin sets it, then every event about a backend
	Timeout bool      // with EventConnectFailed: the time for connecting was over
	Refused bool      // with EventConnectFailed: the address may not be dialled
	Resume  func(*exchange.Exchange) policy.Verdict

	// For the driver.
	Verdict  policy.Verdict // with ActionWait: its Wait is to be run
	Limit    int64
	Endpoint *upstream.Endpoint
	To       *upstream.Cluster
	Fresh    bool
	Backoff  time.Duration // with ActionRetry
	Expires  time.Time     // when the exchange must be over, zero: never
	Matched  *Route        // nil: none
	Close    bool          // the client's connection ends after this exchange

	edge      *Edge
	snapshot  *Snapshot
	shard     uint32
	site      *route.Site[*Route]
	siteOf    siteOf
	conn      *ConnInfo
	query     route.Query
	backend   *Backend
	stage     stage
	listener  *Listener
	identity  []string // the listener's
	canonical bool     // the backend gets the canonical path
	at        int      // the next step of the stage
	ran       int      // steps of the route, then of the backend, whose Request hook ran or was passed
	replays   int
	answered  bool // the endpoint of this attempt was judged by the head of its response
	retries   int
	session   session
	entered   *upstream.Cluster // that counts this exchange
	random    uint64
	date      date
	ended     bool
	scratch   []byte // room for what is written into this exchange's head
	body      []byte // room for an answer's body
	trace     *Explanation
}

// Fault is why a message was refused before it could be routed.
type Fault struct {
	Status         int
	Reason, Detail string
}

// ConnInfo is what is known of a client's connection; it does not change between its exchanges.
type ConnInfo struct {
	Group    string // of the listener
	Port     uint16 // as clients see it
	Peer     netip.AddrPort
	PeerText []byte // the address of Peer as text
	PortText []byte // Port as text
	TLS      bool
	SNI      string
	Name     []byte // SNI in lower case
	// Certificate is what the client showed; Asked, whether it was asked for one.
	Certificate *exchange.ClientCertificate
	Asked       bool
	Shard       uint32
}

type stage uint8

const (
	stageRoute   stage = iota // hooks of the route's steps
	stageBackend              // hooks of the backendRef's steps
	stageForward              // with a backend
	stageAnswer               // the response is decided
)

// Begin makes f ready for the next request of a connection; false: there is no snapshot yet. now is when the first byte
// of its head was there.
func (f *Flow) Begin(e *Edge, c *ConnInfo, now time.Time) bool {
	f.Exchange.Reset()
	f.edge, f.conn, f.shard = e, c, c.Shard
	f.snapshot = e.acquire(c.Shard)
	f.Fault, f.Problem, f.Broken = Fault{}, "", ""
	f.Sent, f.Reused, f.Kept, f.Timeout, f.Refused, f.Full, f.Fresh = false, false, true, false, false, false, false
	f.Resume, f.Verdict = nil, policy.Verdict{}
	f.Endpoint, f.To, f.Matched, f.backend, f.entered = nil, nil, nil, nil, nil
	f.Close, f.ended, f.canonical, f.answered = false, false, false, false
	f.listener, f.identity = nil, nil
	f.stage, f.at, f.ran, f.replays, f.retries, f.Limit = stageRoute, 0, 0, 0, 0, 0
	f.session, f.Backoff, f.Now, f.Expires = session{}, 0, now, time.Time{}
	f.scratch, f.body = f.scratch[:0], f.body[:0]
	f.trace = nil
	f.Start = now
	f.Peer, f.Client, f.TLS, f.SNI, f.Port = c.Peer, c.Peer, c.TLS, c.SNI, c.Port
	f.Certificate = c.Certificate
	f.Scheme = "http"
	if c.TLS {
		f.Scheme = "https"
	}
	return f.snapshot != nil
}

// Step takes an event and returns what to do next. After ActionAnswer, ActionRespond, ActionRelay and ActionAbort the
// driver calls End, once; a failure on the way there is no event but ends in End.
func (f *Flow) Step(e Event) Action {
	switch e {
	case EventHead:
		return f.head()
	case EventMalformed:
		f.Close = true
		if f.ID == nil { // the head itself is malformed
			f.newID()
		}
		return f.refuse(f.Fault.Status, f.Fault.Reason, f.Fault.Detail)
	case EventResumed:
		resume := f.Resume
		f.Enter(f.ran - 1)
		f.Resume = nil
		return f.resumed(resume(&f.Exchange))
	case EventBody:
		f.Request.Buffered = true
		f.Request.ContentLength = int64(len(f.Request.Body))
		return f.advance()
	case EventBodyTooLarge:
		f.Close = true
		return f.refuse(413, "body_too_large", "")
	case EventConnected:
		return ActionSend
	case EventConnectFailed:
		return f.connectFailed()
	case EventBackendFailed:
		return f.backendFailed()
	case EventBackendHead:
		return f.backendHead()
	case EventBackendBody:
		f.Response.Buffered = true
		f.Response.ContentLength = int64(len(f.Response.Body))
		return f.respond()
	case EventBackendTooLarge:
		return f.refuse(502, "response_too_large", "")
	case EventRetry:
		return f.again()
	case EventTimeout:
		return f.timedOut()
	case EventExpired:
		return f.refuse(504, "request_timeout", "the route's time for a request is over")
	case EventClientGone:
		f.Reason = "client_gone"
		f.Response.Status = 499
		return ActionAbort
	case EventOverloaded:
		f.Close = true
		return f.overloaded()
	case EventPanicked:
		f.Close = true
		return f.refuse(500, "internal_error", "a step panicked on the request's body")
	}
	panic("proxy: unknown event")
}

// head: the request's head is there. Find its route and begin with the steps.
func (f *Flow) head() Action {
	l := f.listen()
	f.listener = l
	if l != nil {
		f.identity = l.Identity
	}
	f.protectHead()
	if l != nil && len(l.QuerySecrets) > 0 && f.Request.HasQuery {
		f.hideQuery(l.QuerySecrets)
	}
	if f.edge.Load() != LoadNormal {
		return f.overloaded()
	}
	if f.site == nil {
		return f.refuse(404, "no_listener", "no listener serves this address")
	}
	asks := l != nil && l.ClientCertificate && f.TLS
	if f.TLS && f.misdirected() {
		return f.refuse(421, "misdirected_request", "the TLS handshake was made for another listener")
	}
	if asks && !f.conn.Asked {
		f.Close = true // the connection is from before clients were asked: on the next one they are
	}
	if l != nil && l.MergeEmpty && f.Request.PathFlags&exchange.EmptySegment != 0 {
		f.merge()
	}
	for {
		f.query.Host, f.query.Path, f.query.Method = f.Request.Host, f.Request.Path, f.Request.Method
		f.query.RawQuery, f.query.Header = f.Request.Query, &f.Request.Header
		m := f.site.Match(&f.query)
		f.query.Header = nil
		if m.Host != nil {
			f.RouteHost = m.Host.Hostname
		}
		if m.Route == nil {
			return f.refuse(404, "route_not_found", "")
		}
		r := m.Value
		if f.refusesTrace(r) {
			return f.notAllowed()
		}
		a, refused, again := f.spelling(l, r)
		if refused {
			return a
		}
		if again {
			continue
		}
		f.Matched, f.Route, f.Exchange.Matched, f.ClientPath = r, r.Name, r.Prefix, f.Request.Path
		if r.Request > 0 {
			f.Expires = f.Start.Add(r.Request)
		}
		break
	}
	return f.advance()
}

// misdirected reports whether the handshake was made for another listener than the one the request belongs to: its
// certificate, and the client's, would say nothing about this host (RFC 9110 section 15.5.20). A handshake without a server name was made
// for the listener of any name, or the only one, and is no way into the others.
func (f *Flow) misdirected() bool {
	return f.listener != nil && f.site.Handshake(f.conn.Name) != f.listener.Config
}

// advance runs the steps that have not run yet, then chooses a backend, until something has to be done outside.
func (f *Flow) advance() Action {
	for {
		steps := f.steps()
		for f.at < len(steps) {
			s := &steps[f.at]
			if s.Handler.Body > 0 && !f.Request.Buffered && f.Request.ContentLength != 0 {
				if f.Request.ContentLength > s.Handler.Body {
					f.Close = true
					return f.refuse(413, "body_too_large", "")
				}
				f.Limit = s.Handler.Body
				return ActionBuffer
			}
			f.Enter(f.ran)
			f.at++
			f.ran++
			if s.Handler.Request == nil {
				f.traced(s, policy.Verdict{})
				continue
			}
			v := s.Handler.Request(&f.Exchange)
			f.traced(s, v)
			if v.Shadow {
				f.shadow(s, v)
				continue
			}
			if v.Status == 0 && v.Wait == nil {
				continue
			}
			return f.decided(v)
		}
		switch f.stage {
		case stageRoute:
			if a, ok := f.choose(); !ok {
				return a
			}
		default:
			f.stage = stageForward
			if f.Request.Buffered { // the steps that watch bytes see them here: nothing streams past any more
				var ok bool
				if f.Request.Body, ok = f.RequestData(f.Request.Body, true); !ok {
					return f.Refuse()
				}
				f.Request.ContentLength = int64(len(f.Request.Body))
			}
			return f.pick(nil)
		}
	}
}

// steps are those of the current stage.
func (f *Flow) steps() []Step {
	if f.stage == stageRoute {
		return f.Matched.Steps
	}
	return f.backend.Steps
}

// resumed goes on with what a wait concluded.
func (f *Flow) resumed(v policy.Verdict) Action {
	if v.Shadow {
		f.shadow(f.step(f.ran-1), v)
		return f.advance()
	}
	if v.Status == 0 && v.Wait == nil {
		return f.advance()
	}
	return f.decided(v)
}

// shadow notes what a step in shadow mode would have answered.
func (f *Flow) shadow(s *Step, v policy.Verdict) {
	f.Exchange.Shadow = append(f.Exchange.Shadow, exchange.Shadowed{Step: s.Config.Name, Reason: v.Reason, Status: v.Status})
}

// shadowOnce is shadow for a hook that says the same of every piece of a body.
func (f *Flow) shadowOnce(s *Step, v policy.Verdict) {
	was := exchange.Shadowed{Step: s.Config.Name, Reason: v.Reason, Status: v.Status}
	if !slices.Contains(f.Exchange.Shadow, was) {
		f.Exchange.Shadow = append(f.Exchange.Shadow, was)
	}
}

// decided ends the exchange with a step's answer, or waits for one.
func (f *Flow) decided(v policy.Verdict) Action {
	if v.Status == 0 {
		f.Verdict = v
		return ActionWait
	}
	return f.answer(v)
}

// respond runs the response hooks over a backend's response.
func (f *Flow) respond() Action {
	f.stage = stageAnswer
	f.keepSession()
	f.responseHooks()
	if f.Response.Status != 101 {
		f.setDate()
	}
	switch {
	case f.Response.Edge || f.Response.Written: // a step refused the response, or wrote another body
		return ActionAnswer
	case f.Response.Status == 101:
		f.Close = true
		return ActionRelay
	case f.Response.Buffered:
		var ok bool
		if f.Response.Body, ok = f.ResponseData(f.Response.Body, true); !ok {
			return f.refuse(502, f.Reason, f.Detail)
		}
		f.Response.ContentLength = int64(len(f.Response.Body))
		return ActionAnswer
	}
	return ActionRespond
}

// RequestData passes body bytes of the request through the steps and returns what goes on instead. ok is false when a step
// refuses: then the driver stops the body and goes on with Refuse.
func (f *Flow) RequestData(p []byte, end bool) (out []byte, ok bool) {
	for i := range f.ran {
		if h := f.step(i).Handler.RequestData; h != nil {
			f.Enter(i)
			var v policy.Verdict
			if p, v = h(&f.Exchange, p, end); v.Shadow {
				f.shadowOnce(f.step(i), v)
			} else if v.Status != 0 {
				f.Verdict = v
				return nil, false
			}
		}
	}
	return p, true
}

// ResponseData passes body bytes of the response through the steps, in reverse order. ok is false when a step refuses: the
// response is cut off, because its head is already on its way.
func (f *Flow) ResponseData(p []byte, end bool) (out []byte, ok bool) {
	for i := f.ran - 1; i >= 0; i-- {
		if h := f.step(i).Handler.ResponseData; h != nil {
			f.Enter(i)
			var v policy.Verdict
			if p, v = h(&f.Exchange, p, end); v.Shadow {
				f.shadowOnce(f.step(i), v)
			} else if v.Status != 0 {
				f.Reason, f.Detail = v.Reason, v.Detail
				return nil, false
			}
		}
	}
	return p, true
}

// Panicked makes the response of an exchange in which something panicked, without asking any step.
func (f *Flow) Panicked() {
	f.Close = true
	f.compose(policy.Verdict{Status: 500, Reason: "internal_error"})
	f.setDate()
}

// Refuse ends an exchange whose request body a step refused.
func (f *Flow) Refuse() Action {
	f.Close = true
	return f.answer(f.Verdict)
}

// step is the n-th step that ran: those of the route come first.
func (f *Flow) step(n int) *Step {
	if r := f.Matched.Steps; n < len(r) {
		return &r[n]
	} else {
		return &f.backend.Steps[n-len(r)]
	}
}

// SeesRequestData and SeesResponseData say whether bytes have to pass through the steps at all, and Changes whether their
// number may change on the way.
func (f *Flow) SeesRequestData() (sees, changes bool) {
	for i := range f.ran {
		if h := &f.step(i).Handler; h.RequestData != nil {
			sees, changes = true, changes || !h.KeepsLength
		}
	}
	return sees, changes
}

// SeesResponseData is SeesRequestData for the response.
func (f *Flow) SeesResponseData() (sees, changes bool) {
	for i := range f.ran {
		if h := &f.step(i).Handler; h.ResponseData != nil {
			sees, changes = true, changes || !h.KeepsLength
		}
	}
	return sees, changes
}

func (f *Flow) holdLimit() (n int64) {
	for i := range f.ran {
		if b := f.step(i).Handler.ResponseBody; b > 0 && (n == 0 || b < n) {
			n = b
		}
	}
	return n
}

// End closes the exchange, at the time now: the steps learn that it is over, the recorder writes it down, the snapshot is
// let go of.
func (f *Flow) End(now time.Time) {
	if f.ended {
		return
	}
	f.ended = true
	if f.entered != nil {
		f.entered.Leave()
	}
	defer f.letGo() // whatever panics: a snapshot that is not given back keeps all of its clusters
	defer f.record(now)
	f.done(f.ran - 1)
}

// done tells the steps up to i that the exchange is over, the last one first. One that panics takes nothing from the others.
func (f *Flow) done(i int) {
	if i < 0 {
		return
	}
	defer f.done(i - 1)
	if h := &f.step(i).Handler; h.Done != nil && h.Request != nil {
		f.Enter(i)
		h.Done(&f.Exchange)
	}
}

func (f *Flow) record(now time.Time) {
	var l *telemetry.Listener
	var r *telemetry.Route
	if f.listener != nil {
		l = f.listener.Counters
	}
	if f.Matched != nil {
		r = f.Matched.Counters
	}
	f.edge.recorder.Record(f.shard, &f.Exchange, l, r, now.Sub(f.Start))
}

// LetGo gives the snapshot back; a relay does so once it is routed, so that a long-lived one keeps nothing old alive: of its
// route, its backend and its listener stays what End needs.
func (f *Flow) LetGo() {
	f.letGo()
	f.site, f.siteOf, f.session = nil, siteOf{}, session{}
	if m := f.Matched; m != nil {
		f.Matched = &Route{Steps: m.Steps, Counters: m.Counters}
	}
	if b := f.backend; b != nil {
		f.backend = &Backend{Steps: b.Steps}
	}
	if l := f.listener; l != nil {
		f.listener = &Listener{Counters: l.Counters}
	}
}

func (f *Flow) letGo() {
	if f.snapshot != nil {
		s := f.snapshot
		f.snapshot = nil
		s.release(f.shard)
	}
}

// next is a xorshift generator (Marsaglia, 2003): weights need no more.
func (f *Flow) next() uint64 {
	x := f.random
	if x == 0 {
		x = uint64(f.Start.UnixNano())<<1 | 1
	}
	x ^= x << 13
	x ^= x >> 7
	x ^= x << 17
	f.random = x
	return x
}
