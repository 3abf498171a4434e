package proxy

import (
	"cmp"
	"slices"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/upstream"
)

// choose takes one of the route's backends: that of the client's session, else by weight.
func (f *Flow) choose() (Action, bool) {
	r := f.Matched
	if a, ended := f.lastHop(); ended {
		return a, false
	}
	f.stage, f.at = stageBackend, 0
	if a := r.Config.Affinity; a != nil {
		f.readSession(a)
	}
	switch {
	case len(r.Backends) == 0:
		return f.refuse(500, "no_backend", r.Config.NoBackend), false
	case r.Total == 0:
		return f.refuse(503, "no_backend", "every backendRef has weight 0"), false
	case f.resume(): // the session's
	case len(r.Backends) == 1:
		f.backend = &r.Backends[0]
	default:
		n := f.next() % r.Total
		for i := range r.Backends {
			if b := &r.Backends[i]; n < b.Weight {
				f.backend = b
				break
			} else {
				n -= b.Weight
			}
		}
	}
	if f.backend.Cluster == nil {
		return f.refuse(500, "backend_invalid", f.backend.Config.Invalid), false
	}
	return 0, true
}

// pick chooses an endpoint of the cluster, another one than avoid if there is one.
func (f *Flow) pick(avoid *upstream.Endpoint) Action {
	c := f.backend.Cluster
	s := c.Settings()
	f.Cluster = c.Key
	if s.Problem != "" {
		return f.refuse(503, "backend_unusable", s.Problem)
	}
	if m := f.Matched; s.Total > 0 && m.Config.Timeouts.Request == nil && !m.Unlimited {
		f.Expires = f.Start.Add(s.Total)
	}
	if f.entered == nil && !f.Dry {
		ok, counted := c.Enter()
		if !ok {
			return f.refuse(503, "circuit_open", c.Key+" has as many requests as its circuit breaker lets through")
		}
		if counted {
			f.entered = c
		}
	}
	q := upstream.Choice{Now: f.Now, Avoid: avoid}
	if s.Hash != nil {
		q.Hash = f.hash(s.Hash)
	}
	if f.Matched.Config.Affinity == nil && s.Affinity != nil && f.session.of == nil {
		f.readSession(s.Affinity)
		f.session.endpoint = c.ByToken(f.session.token, f.Now)
	}
	e := f.session.endpoint
	if e == nil || e == avoid {
		e = c.Pick(q)
	}
	if e == nil {
		return f.refuse(503, "no_endpoint", "no endpoint of "+c.Key+" is ready")
	}
	f.Endpoint, f.To = e, c
	if !mayUse(f.listener, e) {
		return f.refuse(502, "backend_address_forbidden", e.Text+" is an address where no backend may lie; GatewayParameters backendAddresses can allow it")
	}
	f.Exchange.Backend = e.Addr
	f.Tries++
	if !f.Dry {
		e.Tried()
	}
	return ActionConnect
}

// mayUse reports whether a listener's requests may go to an endpoint: one that is restricted needs an exception.
func mayUse(l *Listener, e *upstream.Endpoint) bool {
	return !e.Restricted || l != nil && l.Backend != nil && l.Backend(e.Addr.Addr().Unmap())
}

// Limits are how long the driver may take for one try: to connect, until the response's head (from when the request is sent), and until
// the whole response is there. 0: without end.
func (f *Flow) Limits() (connect, first, try time.Duration) {
	m, s := f.Matched, f.To.Settings()
	if m.Unlimited {
		return 0, 0, 0
	}
	connect, first, try = s.Connect, s.FirstByte, m.Backend
	if d := m.Config.Timeouts.Connect; d != nil {
		connect = time.Duration(*d)
	}
	if d := m.Config.Timeouts.First; d != nil {
		first = time.Duration(*d)
	}
	if r := f.retryRule(); try == 0 && m.Config.Timeouts.Backend == nil && r.PerTry != nil {
		try = time.Duration(*r.PerTry)
	}
	return connect, first, try
}

// hash is the key of a consistent hash, 0 if the request has none.
func (f *Flow) hash(h *ir.Hash) uint64 {
	var v []byte
	switch h.By {
	case ir.HashHeader:
		v = f.Request.Header.Get(h.Name)
	case ir.HashCookie:
		v = f.Request.Header.Cookie(h.Name)
	default:
		b := f.Client.Addr().As16()
		return upstream.HashBytes(0, b[:])
	}
	if len(v) == 0 {
		return 0
	}
	return upstream.HashBytes(0, v)
}

// retryRule is what holds for this exchange: the route's, else the cluster's.
func (f *Flow) retryRule() *ir.Retry {
	if r := f.Matched.Config.Retry; r != nil {
		return r
	}
	return f.To.Settings().Retry
}

// mayRetry says whether the try that failed may be followed by another, and sets Backoff. sent says that a byte of it may have reached
// the backend: then only a method that may be repeated is (RFC 9110 section 9.2.2), and a request to upgrade is not, because the backend
// may speak the other protocol already. A budget keeps tries from adding to the load of a cluster that fails.
func (f *Flow) mayRetry(r *ir.Retry, sent bool) bool {
	if f.retries >= r.Attempts || !f.Kept || sent && (f.upgrades() || !idempotent(f.Request.Method)) {
		return false
	}
	if !f.To.MayRetry(f.Now) {
		f.Detail = "retry budget used up"
		return false
	}
	f.Backoff = f.backoff(r)
	f.retries++
	return true
}

// leastBackoff is waited where a retry would go to the endpoint that has just failed, and the rule names no time.
const leastBackoff = 25 * time.Millisecond

// backoff doubles from try to try and adds up to a quarter, so that those who failed together do not come back together.
func (f *Flow) backoff(r *ir.Retry) time.Duration {
	d := time.Duration(r.Backoff)
	if d == 0 {
		if len(f.To.Endpoints()) > 1 {
			return 0
		}
		d = leastBackoff
	}
	d <<= min(f.retries, 6)
	return d + time.Duration(f.next()%uint64(d/4+1))
}

// Repeatable reports whether the request may go out again after some of it has: what passes of its body is worth keeping.
func (f *Flow) Repeatable() bool { return idempotent(f.Request.Method) && f.retryRule().Attempts > 0 }

// upgrades reports whether the request asks for another protocol: what follows its head is not kept.
func (f *Flow) upgrades() bool { return f.Request.Upgrade != nil }

// again: the next try begins.
func (f *Flow) again() Action {
	f.Response.Header.Reset()
	f.Response.Trailer.Reset()
	f.Response.Status, f.Response.Buffered = 0, false
	f.Fresh, f.answered = false, false
	return f.pick(f.Endpoint)
}

// connectFailed: nothing was sent, so another endpoint may be tried whatever the method.
func (f *Flow) connectFailed() Action {
	f.Detail = f.Problem
	switch {
	case f.Refused:
		return f.refuse(502, "backend_address_forbidden", f.Problem)
	case f.Full:
		return f.refuse(503, "circuit_open", f.To.Key+" has as many connections as its circuit breaker lets through")
	}
	f.Endpoint.Failed(f.Now)
	if r := f.retryRule(); slices.Contains(r.Conditions, ir.ConnectFailure) && f.mayRetry(r, false) {
		return ActionRetry
	}
	if f.Timeout {
		return f.refuse(504, "backend_connect_timeout", f.Problem)
	}
	return f.refuse(502, "backend_connect_failed", f.Problem)
}

// backendFailed: a connection that was kept may have been closed by the backend in the moment it was taken again
// (RFC 9112 section 9.3.1), and an endpoint that has left its cluster meanwhile may have ended any connection: neither says anything of
// the backend, so the request goes out once more on a new one, to an endpoint that has not left, whatever the rule. Else the rule
// decides.
func (f *Flow) backendFailed() Action {
	left := f.Endpoint.Left()
	safe := f.Kept && (!f.Sent || idempotent(f.Request.Method))
	if (f.Reused || left) && safe && f.replays == 0 {
		f.replays++
		f.Fresh = true
		if left {
			return f.pick(f.Endpoint)
		}
		return ActionConnect
	}
	if !left && !f.Reused && !f.answered {
		f.Endpoint.Failed(f.Now)
	}
	f.Detail = f.Problem
	if r := f.retryRule(); slices.Contains(r.Conditions, ir.Reset) && f.mayRetry(r, f.Sent) {
		return ActionRetry
	}
	return f.refuse(502, cmp.Or(f.Broken, "backend_failed"), f.Problem)
}

// timedOut: the backend took too long for its head.
func (f *Flow) timedOut() Action {
	if !f.answered {
		f.Endpoint.Failed(f.Now)
	}
	f.Detail = "no response head in time"
	if r := f.retryRule(); slices.Contains(r.Conditions, ir.FirstByte) && f.mayRetry(r, true) {
		return ActionRetry
	}
	return f.refuse(504, "backend_timeout", f.Detail)
}

// backendHead: the backend answered. Unless the answer is one to try again on, the steps see the head, then it goes to the client.
func (f *Flow) backendHead() Action {
	f.answered = true
	f.Endpoint.Answered(f.Response.Status, f.Now)
	if f.Response.Status == 101 && !exchange.EqualFold(f.Response.Header.Get("Upgrade"), string(f.Request.Upgrade)) {
		return f.refuse(502, "backend_failed", "it changed to a protocol that the client did not ask for") // RFC 9110 section 7.8
	}
	if f.Response.Status >= 400 {
		if r := f.retryRule(); slices.Contains(r.Codes, exchange.Judged(f.Response.Status)) && f.mayRetry(r, true) {
			return ActionRetry
		}
	}
	if n := f.holdLimit(); n > 0 && f.Response.ContentLength != 0 && f.hasBody() {
		if f.Response.ContentLength > n {
			return f.refuse(502, "response_too_large", "")
		}
		f.Limit = n
		return ActionHold
	}
	return f.respond()
}

// hasBody reports whether a body follows the response's head, whatever length that tells (RFC 9110 section 6.4.1).
func (f *Flow) hasBody() bool {
	switch s := f.Response.Status; {
	case s < 200, s == 204, s == 304:
		return false
	}
	return string(f.Request.Method) != "HEAD"
}

// idempotent methods may be repeated (RFC 9110 section 9.2.2): those that the IANA registry of methods calls so. Of the registered ones
// that leaves CONNECT, LOCK, PATCH and POST, and PRI, which is no request.
func idempotent(m []byte) bool {
	switch string(m) {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY", "PROPFIND", "REPORT", "SEARCH", // the first and the safe ones
		"ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "COPY", "LABEL", "LINK", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL",
		"MKREDIRECTREF", "MKWORKSPACE", "MOVE", "ORDERPATCH", "PROPPATCH", "REBIND", "UNBIND", "UNCHECKOUT", "UNLINK", "UNLOCK", "UPDATE",
		"UPDATEREDIRECTREF", "VERSION-CONTROL":
		return true
	}
	return false
}

// MirrorClusters are the clusters that get a copy of the request, and which of their endpoints may: also after the exchange.
func (f *Flow) MirrorClusters() (out []*upstream.Cluster, may func(*upstream.Endpoint) bool) {
	l := f.listener
	for _, key := range f.Mirrors {
		if c := f.snapshot.Clusters[key]; c != nil {
			out = append(out, c)
		}
	}
	return out, func(e *upstream.Endpoint) bool { return mayUse(l, e) }
}
