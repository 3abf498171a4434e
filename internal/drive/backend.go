package drive

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/http1"
	"github.com/gatehouse-io/gatehouse/internal/proxy"
	"github.com/gatehouse-io/gatehouse/internal/upstream"
)

// connect gets a connection to the endpoint: the newest idle one, else a new one. Whether an idle one is still silent shows
// when it is used.
func (w *work) connect() proxy.Action {
	if w.expired() { // while a step waited
		return w.step(proxy.EventExpired)
	}
	if !w.Fresh {
		if c := w.Endpoint.Take(w.Start); c != nil {
			w.take(c)
			return w.step(proxy.EventConnected)
		}
	} else {
		w.d.stats.Replays.Add(1)
	}
	return w.connectNew()
}

func (w *work) connectNew() proxy.Action {
	limit, _, _ := w.Limits()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	calm := w.watchSoon(cancel)
	c, err := w.d.dial(ctx, w.To, w.Endpoint, limit, w.Expires)
	w.from = time.Now()
	if gone := calm(); gone {
		if err == nil {
			c.Close()
		}
		return w.step(proxy.EventClientGone)
	}
	if err != nil {
		w.Problem = err.Error()
		w.Timeout = errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
		w.Refused, w.Full = errors.Is(err, errForbidden), errors.Is(err, errFull)
		if w.expired() {
			return w.step(proxy.EventExpired)
		}
		return w.step(proxy.EventConnectFailed)
	}
	w.take(c)
	return w.step(proxy.EventConnected)
}

// replace drops a kept connection that turned out not to be silent, and goes on with the next one.
func (w *work) replace() proxy.Action {
	w.drop()
	if c := w.Endpoint.Take(w.Start); c != nil {
		w.take(c)
		return w.step(proxy.EventConnected)
	}
	return w.connectNew()
}

func (w *work) take(c *upstream.Conn) {
	w.up = c
	w.ur, w.uw = 0, 0
	if w.vigil != nil {
		w.vigil.on(c)
	}
	c.Endpoint.Begin()
}

// keep gives the connection back after a whole exchange, unless the backend wrote more than it said: that would be the next response.
func (w *work) keep() {
	w.unwatch()
	if w.ur != w.uw || !w.up.IO.(*wire).quiet() {
		w.drop()
		return
	}
	c := w.up
	w.up = nil
	c.Endpoint.End()
	c.Endpoint.Put(c, time.Now())
}

// drop closes the connection: something of an exchange is left on it.
func (w *work) drop() {
	c := w.up
	w.up = nil
	if w.vigil != nil {
		w.vigil.on(nil)
	}
	c.Endpoint.End()
	c.Close()
}

var (
	errForbidden = errors.New("address may not be dialled")
	errFull      = errors.New("no connection left")
)

// dial makes a new connection to an endpoint of c, TLS included, within limit (0: without end) and before expires (zero: never).
func (d *Driver) dial(ctx context.Context, c *upstream.Cluster, e *upstream.Endpoint, limit time.Duration, expires time.Time) (*upstream.Conn, error) {
	if !d.Clusters.Allowed(e.Addr) {
		return nil, errForbidden
	}
	if !c.Reserve() {
		return nil, errFull
	}
	conn, err := d.dialReserved(ctx, e, c.Settings(), limit, expires)
	if err != nil {
		c.Unreserve()
	}
	return conn, err
}

func (d *Driver) dialReserved(ctx context.Context, e *upstream.Endpoint, s *upstream.Settings, limit time.Duration, expires time.Time) (*upstream.Conn, error) {
	d.stats.BackendDials.Add(1)
	if limit > 0 {
		if at := time.Now().Add(limit); expires.IsZero() || at.Before(expires) {
			expires = at
		}
	}
	if !expires.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, expires)
		defer cancel()
	}
	var dialer net.Dialer
	nc, err := dialer.DialContext(ctx, "tcp", e.Text)
	if err != nil {
		return nil, err
	}
	tcp := nc.(*net.TCPConn)
	carrier, x := nc, newWire(tcp)
	if s.TLS != nil {
		t := x.client(tcp, s.TLS)
		if err := t.HandshakeContext(ctx); err != nil {
			_ = tcp.Close()
			return nil, err
		}
		carrier = t
	}
	c := upstream.NewConn(e, s, tcp, carrier)
	c.IO = x
	return c, nil
}

func (w *work) expired() bool { return !w.Expires.IsZero() && !time.Now().Before(w.Expires) }

// send writes the request and waits for the response's head. A body that is at hand goes with the head; another one
// flows beside, so that an early response is seen.
func (w *work) send() proxy.Action {
	w.Sent, w.Reused = false, w.up.Reused
	var try time.Duration
	_, w.first, try = w.Limits()
	w.over = time.Time{}
	if try > 0 {
		w.over = w.from.Add(try)
		if w.first == 0 || try < w.first {
			w.first = try
		}
	}
	if w.pump.running {
		return w.resend()
	}
	r := &w.Request
	framing, sees := w.requestFraming()
	w.out = http1.AppendRequest(w.out[:0], r, w.Target(), framing)
	head := len(w.out)
	flows := false
	switch {
	case r.Buffered:
		w.out = append(w.out, r.Body...)
	case framing == http1.None || w.upgrading():
	case w.kept.whole: // it has gone before
		w.out = w.appendRequestBody(w.out, w.kept.data, framing, true)
	case framing == http1.Length && !sees && w.body.whole() && !r.Continue:
		p, _, _ := w.body.Offer()
		w.out = append(w.out, p...)
		w.kept.hold(p)
		w.BytesIn = int64(len(p))
	default:
		flows = true
	}
	if len(w.Mirrors) > 0 {
		w.mirror(w.out[:head], w.out[head:], flows)
		w.Mirrors = w.Mirrors[:0] // once, however many tries there are
	}
	x := w.up.IO.(*wire)
	if !flows && w.up.Net == net.Conn(w.up.TCP) && x.raw != nil {
		return w.roundTrip(x)
	}
	if w.Reused && !x.usable() {
		return w.replace()
	}
	w.count()
	n, err := w.d.writeBackend(w.up, w.out)
	w.Sent = n > 0
	if flows && err == nil {
		w.startPump(framing, sees)
	}
	if err != nil && n == 0 && w.Reused {
		return w.failed(err)
	}
	return w.readResponse() // after a failed write too: the backend may have said why before it closed
}

// requestFraming decides how the body goes to the backend, and whether steps see its bytes pass.
func (w *work) requestFraming() (framing http1.Framing, sees bool) {
	framing = w.head.Framing
	sees, changes := w.SeesRequestData()
	switch {
	case w.Request.Buffered && len(w.Request.Body) == 0 && framing == http1.None:
		return http1.None, false
	case w.Request.Buffered:
		return http1.Length, false
	case framing == http1.Length && changes:
		return http1.Chunked, sees
	}
	return framing, sees
}

// resend begins a further try while the client still sends: what has passed goes again, and the pump goes on from there.
func (w *work) resend() proxy.Action {
	framing, sees := w.requestFraming()
	if x := w.up.IO.(*wire); w.Reused && !x.usable() {
		return w.replace()
	}
	w.count()
	w.out = http1.AppendRequest(w.out[:0], &w.Request, w.Target(), framing)
	n, err := w.pump.again(w, framing, sees)
	w.Sent = n > 0
	if err != nil && n == 0 && w.Reused {
		return w.failed(err)
	}
	return w.readResponse()
}

// roundTrip sends a request that is at hand and waits for the first bytes of its response.
func (w *work) roundTrip(x *wire) proxy.Action {
	first := w.first
	var err error
	for now := w.from; ; now = time.Now() {
		w.setDeadline(now, w.from, first)
		if w.clientGone() {
			w.letGo()
			return w.decide(proxy.EventClientGone)
		}
		if err = x.roundTrip(w.out, w.ub, w.Reused); x.began || !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		w.up.Deadline = time.Time{} // it had passed before anything was sent: the process had no time for it
		if a, ended := w.waited(time.Now(), w.from, first, w.from); ended {
			return a
		}
	}
	if x.stale {
		return w.replace()
	}
	w.count()
	w.Sent = x.wrote > 0
	switch {
	case x.full:
		if _, err := w.d.writeBackend(w.up, w.out[x.wrote:]); err != nil {
			w.Problem = err.Error()
		}
	case x.writeErr != nil:
		if x.wrote == 0 && w.Reused {
			return w.failed(x.writeErr)
		}
	case x.readErr != nil:
		return w.failed(x.readErr)
	case err == nil:
		w.uw = x.n
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return w.failed(err)
	default:
		w.up.Deadline = time.Time{}
		if a, ended := w.waited(time.Now(), w.from, first, w.from); ended {
			return a
		}
	}
	return w.readResponse()
}

// count notes that a kept connection was of use.
func (w *work) count() {
	if w.Reused {
		w.d.stats.BackendReuses.Add(1)
	}
}

// writeBackend writes to the backend, which must take each piece within the time for a stalled write. Its deadline too is set
// about once a second.
func (d *Driver) writeBackend(up *upstream.Conn, p []byte) (n int, err error) {
	for {
		if now := time.Now(); d.WriteStall > 0 && up.WriteDeadline.Sub(now) < d.WriteStall {
			up.WriteDeadline = now.Add(d.WriteStall + probe)
			if err := up.Net.SetWriteDeadline(up.WriteDeadline); err != nil {
				return n, err
			}
		}
		k, err := up.Net.Write(p[n:min(len(p), n+writePiece)])
		if n += k; err != nil || n == len(p) {
			return n, err
		}
	}
}

// upgrading requests have no body; what follows the head waits for the backend's answer.
func (w *work) upgrading() bool { return w.Request.Upgrade != nil }

func (w *work) failed(err error) proxy.Action {
	w.blame(err)
	w.letGo()
	return w.decide(proxy.EventBackendFailed)
}

// blame says what was wrong with a backend, with the word for a rule of the protocol if it broke one.
func (w *work) blame(err error) {
	w.Problem, w.Broken = err.Error(), ""
	var broken *http1.Fault
	if errors.As(err, &broken) {
		w.Problem, w.Broken = broken.Detail, broken.Reason
	}
}

// decide is step for an event after which another attempt may follow. If none does, a body that was held for one flows on.
func (w *work) decide(e proxy.Event) proxy.Action {
	a := w.step(e)
	if a != proxy.ActionRetry && a != proxy.ActionConnect {
		w.pump.thaw()
	}
	return a
}

// letGo drops the connection of a try that came to nothing, and says whether another try can follow.
func (w *work) letGo() {
	w.drop()
	w.Kept = !w.upgrading() && w.canResend()
}

// retry waits for the time before a further try. Of the try before, a response that is there as a whole leaves its connection in order.
func (w *work) retry() proxy.Action {
	w.d.stats.Retries.Add(1)
	if w.up != nil {
		w.discard()
	}
	if w.Backoff > 0 && w.pause(w.Backoff) {
		return w.step(proxy.EventClientGone)
	}
	if w.expired() {
		return w.step(proxy.EventExpired)
	}
	w.from = time.Now() // the times of a try are its own, also on a kept connection
	return w.step(proxy.EventRetry)
}

// pause waits for the time between two attempts, or for the end of the exchange's, and reports whether the client has left meanwhile.
func (w *work) pause(d time.Duration) (gone bool) {
	end := time.Now().Add(d)
	if !w.Expires.IsZero() && w.Expires.Before(end) {
		end = w.Expires
	}
	for w.pumping() { // it is held, and so does not notice either
		left := time.Until(end)
		if left <= 0 {
			return false
		}
		time.Sleep(min(left, patience))
		if closed, half := w.c.Gone(); closed || half && !w.limits.waitHalf {
			return true
		}
	}
	ctx, cancel := context.WithDeadline(context.Background(), end)
	defer cancel()
	calm := w.watchSoon(cancel)
	<-ctx.Done()
	return calm()
}

// discard lets go of a response that is not passed on.
func (w *work) discard() {
	if w.pump.running {
		w.drop()
		return
	}
	if w.uhead.Framing == http1.None || w.uhead.Framing == http1.Length && w.Response.ContentLength <= int64(w.uw-w.ur) {
		for !w.ubody.end {
			w.ubody.next()
		}
		w.settle()
		return
	}
	w.drop()
}

// step is Flow.Step, for an event about a backend, under the lock that a running pump's hooks take too.
func (w *work) step(e proxy.Event) proxy.Action {
	if e != proxy.EventConnected && e != proxy.EventBackendHead { // for a head it is set already
		w.Now = time.Now()
	}
	if !w.pump.running {
		return w.Step(e)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.Step(e)
}
