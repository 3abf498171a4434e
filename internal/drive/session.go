package drive

import (
	"context"
	"errors"
	"math"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/http1"
	"github.com/gatehouse-io/gatehouse/internal/listener"
	"github.com/gatehouse-io/gatehouse/internal/proxy"
)

// session is one client connection. Between two requests it holds no buffer: work comes when bytes do.
type session struct {
	d      *Driver
	c      *listener.Conn
	info   proxy.ConnInfo
	w      *work
	limits limits
	of     uint64 // version of the snapshot that limits come from: a relay keeps no old one alive
}

// limits are what holds for a connection: the socket's settings, or the driver's defaults.
type limits struct {
	head                     http1.Limits
	header, idle, streamIdle time.Duration
	waitHalf                 bool // a client that says that it sends no more is waited for, for halfClosed
}

// refresh looks the limits up when the snapshot has changed.
func (s *session) refresh() {
	now := s.d.Edge.Snapshot()
	if now.Version == s.of && s.of != 0 {
		return
	}
	s.of = now.Version
	s.limits = limits{head: s.d.Limits, header: s.d.Header, idle: s.d.Idle}
	set := now.Sockets[proxy.SocketKey{Group: s.c.Group, Port: s.c.Port}]
	if set == nil {
		return
	}
	l := &s.limits
	l.head = http1.Limits{RequestLine: set.RequestLine, HeaderBytes: set.HeaderBytes, HeaderCount: set.HeaderCount}
	for _, x := range []struct {
		to   *time.Duration
		from *time.Duration
	}{{&l.header, set.Header}, {&l.idle, set.Idle}, {&l.streamIdle, set.StreamIdle}} {
		if x.from != nil {
			*x.to = *x.from
		}
	}
	l.waitHalf = set.WaitHalf
	if set.Idle == nil && set.Trusts(s.info.Peer.Addr()) {
		l.idle = s.d.TrustedIdle
	}
}

// Serve carries the exchanges of one client connection until it ends, and closes it, or becomes a relay.
func (d *Driver) Serve(c *listener.Conn) {
	if r := d.serve(c); r != nil {
		c.Continue(r.run)
		return
	}
	_ = c.Close()
}

func (d *Driver) serve(c *listener.Conn) (becomes *relay) {
	defer d.recover(c)
	if err := c.Handshake(); err != nil {
		d.Log.Debug("handshake failed", "peer", c.Peer(), "err", err)
		return nil
	}
	d.stats.ClientConns.Add(1)
	defer d.stats.ClientConns.Add(-1)
	s := session{d: d, c: c}
	s.info = proxy.ConnInfo{Group: c.Group, Port: c.Port, Peer: c.Peer(), TLS: c.TLS() != nil, SNI: c.SNI(), Shard: d.shards.Add(1)}
	if st := c.TLS(); st != nil {
		s.info.Certificate, s.info.Asked = exchange.NewClientCertificate(st.PeerCertificates), c.Asked()
	}
	s.info.PeerText = s.info.Peer.Addr().AppendTo(nil)
	s.info.Name = []byte(strings.ToLower(s.info.SNI))
	s.info.PortText = proxy.AppendPort(nil, c.Port)
	for {
		s.refresh()
		if s.w == nil {
			if !c.Hold(listener.Waiting, 0) || !c.Idle(time.Now(), s.limits.idle) {
				return nil
			}
			buf, n, err := c.ReadPooled(d)
			if err != nil {
				return nil
			}
			s.w = d.work()
			s.w.c, s.w.in, s.w.w = c, buf, n
			c.Busy()
		}
		s.w.limits = &s.limits
		if !s.w.exchange(&s.info) {
			linger, r := s.w.linger, s.w.relays
			d.free(s.w)
			s.w = nil   // a relay's flow points to s.info, and so to s
			if linger { // without what an exchange needs
				c.Linger()
			}
			return r
		}
		if s.w.r == s.w.w {
			d.free(s.w)
			s.w = nil
		} else {
			s.w.shift()
		}
	}
}

// recover keeps a fault in the program to the connection that met it.
func (d *Driver) recover(c *listener.Conn) {
	if p := recover(); p != nil {
		d.Log.Error("exchange panicked", "peer", c.Peer(), "panic", p, "stack", string(debug.Stack()))
	}
}

// Take and Give make a Driver the pool that client connections read from: a buffer is taken when bytes are there.
func (d *Driver) Take() []byte {
	if p, ok := d.buffers.Get().(*[bufferSize]byte); ok {
		return p[:]
	}
	return make([]byte, bufferSize)
}

// Give takes a buffer back. One that grew for a long head is left to the collector.
func (d *Driver) Give(b []byte) {
	if len(b) == bufferSize {
		d.buffers.Put((*[bufferSize]byte)(b))
	}
}

// shift moves what was read of the next request to the front of the buffer.
func (w *work) shift() {
	w.w = copy(w.in, w.in[w.r:w.w])
	w.r = 0
}

// exchange carries one request, part of which has arrived, to its end and reports whether the connection goes on.
func (w *work) exchange(info *proxy.ConnInfo) (again bool) {
	now := time.Now()
	if !w.Begin(w.d.Edge, info, now) {
		return false
	}
	defer w.finish()
	defer w.recover(&again)
	w.from = now
	event, ok := w.readHead(now)
	if !ok {
		return false
	}
	act := w.Step(event) // not in readHead, whose frame would be in the way of a small stack
	for {
		switch act {
		case proxy.ActionWait:
			act = w.wait()
		case proxy.ActionBuffer:
			act = w.collect(w.Request.ContentLength, w.bufferRequest)
		case proxy.ActionConnect:
			act = w.connect()
		case proxy.ActionSend:
			act = w.send()
		case proxy.ActionRetry:
			act = w.retry()
		case proxy.ActionHold:
			act = w.collect(w.Response.ContentLength, w.hold)
		case proxy.ActionRespond:
			return w.respond()
		case proxy.ActionAnswer:
			return w.answer()
		case proxy.ActionRelay:
			return w.relay()
		case proxy.ActionAbort:
			w.stop()
			return false
		default:
			panic("drive: unknown action")
		}
	}
}

// recover ends an exchange in which something panicked. The client is told, if nothing else was said to it yet; the connection ends.
func (w *work) recover(again *bool) {
	p := recover()
	if p == nil {
		return
	}
	*again = false
	w.spoiled.Store(true)
	w.Reason, w.Detail = "internal_error", "the exchange panicked"
	w.d.Log.Error("exchange panicked", "peer", w.c.Peer(), "panic", p, "stack", string(debug.Stack()))
	if w.begun { // what was written must not look whole
		w.c.Reset()
	} else {
		w.Panicked()
		w.appendHead(http1.Length, true)
		if string(w.Request.Method) != "HEAD" {
			w.out = append(w.out, w.Response.Body...)
		}
		_ = w.toClient() // who is gone misses nothing
		w.linger = true
	}
}

// collect is do, while the connection counts as one that collects a body of a length, which may be unknown.
func (w *work) collect(length int64, do func() proxy.Action) proxy.Action {
	if length < 0 || length > w.Limit {
		length = w.Limit
	}
	w.c.Hold(listener.Collecting, int(min(3*bufferSize+length, math.MaxInt32)))
	defer w.c.Hold(listener.Exchanging, 3*bufferSize)
	return do()
}

// Step is Flow.Step. A client whose connection is shed has not left: it can be told.
func (w *work) Step(e proxy.Event) proxy.Action {
	if e == proxy.EventClientGone && w.c.Shed() {
		e = proxy.EventOverloaded
	}
	return w.Flow.Step(e)
}

// finish gives back what the exchange held. It runs last, whatever happened, and all of it whatever happens on the way.
func (w *work) finish() {
	defer w.clear()
	if w.c.Shed() {
		w.Reason = "overloaded"
	}
	defer func() {
		if w.relays == nil {
			w.End(time.Now())
		}
	}()
	w.stop()
}

// clear makes w ready for the next request.
func (w *work) clear() {
	w.body.reset(w)
	w.over = time.Time{}
	w.begun, w.packed, w.hintsOf = false, false, 0
	w.expects.Store(false)
	w.kept.reset()
	w.job = nil
	w.d.Give(w.held)
	w.held = nil
	w.head, w.uhead = http1.Head{}, http1.Head{}
}

// readHead reads until the head of a request is there. false: the connection ends without an answer.
func (w *work) readHead(start time.Time) (proxy.Event, bool) {
	defer w.headDone()
	w.parser.Reset()
	w.parser.Limits = w.limits.head
	for waited := false; ; waited = true {
		n, h, fault := w.parser.ParseRequest(w.in[w.r:w.w], &w.Request)
		switch {
		case fault != nil:
			return w.malformed(proxy.Fault{Status: fault.Status, Reason: fault.Reason, Detail: fault.Detail})
		case n > 0 && len(w.in) < bufferSize && !w.packed: // what follows needs a whole buffer, and the head must lie still
			w.move(w.d.Take())
			continue
		case n > 0 && len(w.Request.Upgrade) > 0 && h.Framing == http1.None && !w.packed && w.w-w.r <= smallHead:
			w.packed = true
			w.move(make([]byte, max(w.w-w.r, packedSize)))
			continue
		case n > 0:
			w.r += n
			if waited { // the backend's time does not begin while the client still sends its head
				w.from = time.Now()
				w.Now = w.from
			}
			w.head = h
			w.expects.Store(w.Request.Continue)
			if !w.c.Hold(listener.Exchanging, 3*bufferSize) {
				return w.shed()
			}
			w.ready()
			w.body.begin(w)
			return proxy.EventHead, true
		}
		if !w.room() {
			w.Now = time.Now()
			return w.malformed(proxy.Fault{Status: 503, Reason: "overloaded", Detail: "incomplete heads take too much memory"})
		}
		w.c.Hold(listener.Heading, workSize+len(w.in))
		if !waited {
			w.c.ReadWithin(start, w.limits.header)
		}
		k, err := w.c.Read(w.in[w.w:])
		w.w += k
		if k == 0 && err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && w.w > w.r {
				w.Now = time.Now()
				return w.malformed(proxy.Fault{Status: 408, Reason: "header_timeout", Detail: "the head was not there in time"})
			}
			return w.shed()
		}
	}
}

// shed ends a request whose head will never be complete.
func (w *work) shed() (proxy.Event, bool) {
	w.Reason = "client_gone" // unless finish knows better
	w.Response.Status = 499
	return 0, false
}

// workSize is about what a work takes without buffers.
const workSize = 4 << 10

func (w *work) malformed(f proxy.Fault) (proxy.Event, bool) {
	w.Fault = f
	w.head = http1.Head{Close: true}
	w.ready()
	return proxy.EventMalformed, true
}

const (
	smallHead  = 4 << 10 // an upgrade's head that is no longer is packed: the buffer would be held as long as the relay lives
	packedSize = 512
	tinyHead   = 512 // so few bytes of a head wait for the rest in a small buffer
)

// room makes room for more of a head that is not complete, unless all such heads have too much already.
func (w *work) room() bool {
	have := w.w - w.r
	switch {
	case len(w.in) == bufferSize && have < tinyHead:
		w.move(make([]byte, 2*tinyHead))
	case w.w < len(w.in):
	case len(w.in) < bufferSize:
		w.move(w.d.Take())
	default:
		n := int64(len(w.in))
		w.grown += n
		if all := w.d.heads.Add(n); w.d.tight.Load() || w.d.HeadMemory > 0 && all > w.d.HeadMemory {
			return false
		}
		w.move(make([]byte, 2*n)) // http1's limits bound it: a head over them is refused
	}
	return true
}

func (w *work) headDone() {
	w.d.heads.Add(-w.grown)
	w.grown = 0
}

// move has the bytes of the head lie in b, where they are parsed anew.
func (w *work) move(b []byte) {
	old := w.in
	w.w = copy(b, old[w.r:w.w])
	w.r, w.in = 0, b
	w.d.Give(old)
	w.parser.Reset()
}

// wait runs a step's wait. The connection's goroutine is allowed to block; the wait ends when the client leaves meanwhile.
func (w *work) wait() proxy.Action {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if !w.Expires.IsZero() {
		ctx, cancel = context.WithDeadline(ctx, w.Expires)
		defer cancel()
	}
	calm := w.watchSoon(cancel)
	w.Resume = w.Verdict.Wait(ctx)
	w.from = time.Now()
	w.Now = w.from
	if gone := calm(); gone {
		return w.Step(proxy.EventClientGone)
	}
	return w.Step(proxy.EventResumed)
}

// answer writes a response whose body is at hand, and says whether the connection goes on.
func (w *work) answer() bool {
	if w.Response.Written && !w.Response.Edge {
		w.drain()
	}
	w.stop()
	rest := w.body.rest()
	r := &w.Response
	end := w.Close || w.head.Close || rest == restEndless || w.c.Closing()
	framing := http1.Length
	if bodiless(r.Status) {
		framing = http1.None
	}
	w.appendHead(framing, end)
	if framing == http1.Length && string(w.Request.Method) != "HEAD" {
		w.out = append(w.out, r.Body...)
		w.BytesOut = int64(len(r.Body))
	}
	if err := w.toClient(); err != nil {
		return false
	}
	if rest == restShort && !end { // what is read off now is no part of the exchange: it holds no place, and no time of its log line
		w.End(time.Now())
	}
	switch {
	case w.Fault.Status != 0 || end && rest != restNone || rest == restShort && !w.body.discard():
		w.linger = true
		return false
	}
	return !end
}

// toClient writes out. The client has WriteStall to take each piece of it, however long the exchange took until here.
func (w *work) toClient() error {
	w.begun = w.begun || w.Response.Status >= 200
	for out := w.out; ; {
		n := min(len(out), writePiece)
		w.c.WriteWithin(time.Now(), w.d.WriteStall)
		if _, err := w.c.Write(out[:n]); err != nil {
			return err
		}
		if out = out[n:]; len(out) == 0 {
			return nil
		}
	}
}

// writePiece is how much a peer may take WriteStall for: one that takes a large body slowly is not one that takes nothing.
const writePiece = 64 << 10

var keepAlive = exchange.Field{Name: []byte("Connection"), Value: []byte("keep-alive")}

// appendHead begins the output with the response's head.
func (w *work) appendHead(framing http1.Framing, end bool) {
	if w.out == nil { // given back while the backend was waited for
		w.out = w.d.Take()[:0]
	}
	if w.Request.Version == exchange.HTTP10 && !end { // it asked for it, and takes the end for granted unless told
		w.out = http1.AppendResponse(w.out[:0], &w.Response, framing, end, keepAlive)
		return
	}
	w.out = http1.AppendResponse(w.out[:0], &w.Response, framing, end)
}

// bodiless responses have no body whatever their head says (RFC 9110 section 6.4.1).
func bodiless(status int) bool { return status < 200 || status == 204 || status == 304 }

var _ exchange.Body = (*clientBody)(nil)
