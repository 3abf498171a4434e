package drive

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/http1"
	"github.com/gatehouse-io/gatehouse/internal/listener"
	"github.com/gatehouse-io/gatehouse/internal/proxy"
)

// backendBody is the body of a response by credit: its bytes lie in work.ub.
type backendBody struct {
	w      *work
	chunks http1.Chunks
	left   int64
	data   []byte
	end    bool
	err    error
}

var _ exchange.Body = (*backendBody)(nil)

func (b *backendBody) begin(w *work) {
	b.w, b.data, b.err = w, nil, nil
	b.chunks.Reset()
	b.chunks.Response = true
	b.left = max(w.Response.ContentLength, 0)
	b.end = w.uhead.Framing == http1.None || w.uhead.Framing == http1.Length && b.left == 0
}

// Offer implements exchange.Body.
func (b *backendBody) Offer() ([]byte, bool, error) {
	for {
		if len(b.data) > 0 || b.end {
			return b.data, b.end, nil
		}
		if b.err != nil {
			return nil, false, b.err
		}
		if b.next() || b.err != nil {
			continue
		}
		b.fill()
	}
}

// Take implements exchange.Body.
func (b *backendBody) Take(n int) { b.data = b.data[n:] }

// ready is Offer without waiting: it reports whether bytes or the end are there.
func (b *backendBody) ready() bool {
	for len(b.data) == 0 && !b.end {
		if b.err != nil || b.w.ur == b.w.uw || !b.next() {
			return false
		}
	}
	return true
}

// poll is ready, after a look at what has come meanwhile.
func (b *backendBody) poll() bool {
	if b.ready() {
		return true
	}
	w := b.w
	if b.err != nil || !b.room() {
		return false
	}
	n := w.up.IO.(*wire).poll(w.ub[w.uw:])
	w.uw += n
	return n > 0 && b.ready()
}

func (b *backendBody) next() bool {
	w := b.w
	buf := w.ub[w.ur:w.uw]
	switch w.uhead.Framing {
	case http1.Length:
		n := int(min(b.left, int64(len(buf))))
		b.data = buf[:n]
		w.ur += n
		b.left -= int64(n)
		b.end = b.left == 0
		return n > 0 || b.end
	case http1.UntilClose:
		b.data = buf
		w.ur = w.uw
		return len(buf) > 0
	}
	data, n, done, fault := b.chunks.Next(buf, &w.Response.Trailer)
	if fault != nil {
		b.err = fault
		return false
	}
	w.ur += n
	b.data, b.end = data, done
	return n > 0 || done
}

// room makes room for more, and fails if there is none.
func (b *backendBody) room() bool {
	w := b.w
	switch {
	case w.ur == w.uw:
		w.ur, w.uw = 0, 0
	case w.uw == len(w.ub):
		w.uw = copy(w.ub, w.ub[w.ur:w.uw])
		w.ur = 0
	}
	if w.uw == len(w.ub) {
		b.err = io.ErrShortBuffer
	}
	return b.err == nil
}

// fill reads more from the backend. Between the bytes of a body only the exchange's own time runs.
func (b *backendBody) fill() {
	w := b.w
	if !b.room() {
		return
	}
	for began := time.Now(); ; {
		now := time.Now()
		w.setDeadline(now, now, 0)
		if w.clientGone() {
			b.err = errGone
			return
		}
		n, err := w.up.Net.Read(w.ub[w.uw:])
		w.uw += n
		switch {
		case n > 0:
			return
		case errors.Is(err, io.EOF) && w.uhead.Framing == http1.UntilClose:
			b.end = true
			return
		case errors.Is(err, io.EOF):
			b.err = io.ErrUnexpectedEOF
			return
		case !errors.Is(err, os.ErrDeadlineExceeded):
			b.err = err
			return
		}
		w.up.Deadline = time.Time{}
		switch now = time.Now(); {
		case w.expired():
			b.err = errExpired
		case w.tryOver(now):
			b.err = errTryOver
		case w.left(now, began):
			b.err = errGone
		default:
			continue
		}
		return
	}
}

var (
	errExpired = errors.New("the route's time for a request is over")
	errTryOver = errors.New("the time for a response of the backend is over")
	errGone    = errors.New("client gone")
)

// hold reads the whole response body, because a step wants it.
func (w *work) hold() proxy.Action {
	// The head stays where it is, for the steps and the client have yet to see it: the body is read elsewhere.
	w.held = w.ub
	w.ub = w.d.Take()
	if len(w.held) > len(w.ub) {
		w.ub = make([]byte, len(w.held))
	}
	w.ur, w.uw = 0, copy(w.ub, w.held[w.ur:w.uw])
	body := w.Response.Body[:0]
	for {
		p, end, err := w.ubody.Offer()
		if err != nil {
			return w.holdFailed(err)
		}
		if int64(len(body)+len(p)) > w.Limit {
			w.drop()
			return w.step(proxy.EventBackendTooLarge)
		}
		if w.Shedding() {
			w.drop()
			return w.step(proxy.EventOverloaded)
		}
		body = append(body, p...)
		w.ubody.Take(len(p))
		if end {
			w.Response.Body = body
			w.settle()
			return w.step(proxy.EventBackendBody)
		}
	}
}

// holdFailed ends an exchange whose response broke off while it was held. The backend did answer, so it is not asked again.
func (w *work) holdFailed(err error) proxy.Action {
	switch {
	case errors.Is(err, errExpired):
		w.drop()
		return w.step(proxy.EventExpired)
	case errors.Is(err, errTryOver):
		w.letGo()
		return w.decide(proxy.EventTimeout)
	case errors.Is(err, errGone):
		w.drop()
		return w.step(proxy.EventClientGone)
	}
	w.blame(err)
	w.drop()
	w.Kept = false
	return w.decide(proxy.EventBackendFailed)
}

// drain takes a response's body, which goes nowhere, as far as it is here already. A short one then leaves its connection free.
func (w *work) drain() {
	b := &w.ubody
	for !b.end && b.next() && b.err == nil {
	}
	if b.data = nil; b.end && b.err == nil {
		w.settle()
	}
}

// settle gives the connection to the backend back if a whole request and a whole response have passed and nothing follows.
func (w *work) settle() {
	if w.up == nil {
		return
	}
	sent := true
	if w.pump.running {
		sent = w.pump.settled()
		w.pump.running = !sent
		w.up.Deadline = time.Time{} // the pump has set another one, to wake who waits
	}
	if sent && !w.uhead.Close && w.ubody.end && w.ubody.err == nil && w.ur == w.uw {
		w.keep()
		return
	}
	w.stop()
}

// respond writes the response and lets its body flow, and says whether the client's connection goes on. What there is leaves before
// the backend is waited for: the head does not wait for the body.
func (w *work) respond() bool {
	w.c.Hold(listener.Exchanging, 3*bufferSize) // it may still be watched, but waits no more
	framing, end := w.responseFraming()
	w.appendHead(framing, end)
	sees, _ := w.SeesResponseData()
	if w.uhead.Framing == http1.None || framing == http1.None {
		return w.lastWrite(end)
	}
	for at := w.ubody.poll(); ; at = w.ubody.ready() {
		if len(w.out) > 0 && (!at || len(w.out) >= bufferSize) {
			if err := w.toClient(); err != nil {
				return w.lost()
			}
			w.out = w.out[:0]
		}
		p, last, err := w.ubody.Offer()
		if err != nil {
			return w.cut(err)
		}
		n := len(p)
		if sees {
			if w.responseData(&p, last) {
				return w.cut(errRefused)
			}
		}
		w.BytesOut += int64(len(p))
		w.appendResponseBody(p, framing, last)
		w.ubody.Take(n)
		if last {
			return w.lastWrite(end)
		}
	}
}

var errRefused = errors.New("a step refused the body")

func (w *work) responseData(p *[]byte, last bool) (refused bool) {
	if w.pump.running {
		w.mu.Lock()
		defer w.mu.Unlock()
	}
	out, ok := w.ResponseData(*p, last)
	*p = out
	return !ok
}

// responseFraming decides how the body goes to the client, and whether the connection ends after it.
func (w *work) responseFraming() (http1.Framing, bool) {
	r := &w.Response
	_, changes := w.SeesResponseData()
	end := w.Close || w.head.Close || w.c.Closing() || w.upgrading() || (w.pump.running && r.Status >= 400 && !w.pump.over())
	switch {
	case bodiless(r.Status) || string(w.Request.Method) == "HEAD":
		if r.ContentLength >= 0 && !bodiless(r.Status) {
			return http1.Length, end // the length that a GET would have
		}
		return http1.None, end
	case w.uhead.Framing == http1.None:
		return http1.Length, end
	case w.uhead.Framing == http1.Length && !changes:
		return http1.Length, end
	case w.Request.Version == exchange.HTTP10:
		return http1.UntilClose, true
	}
	return http1.Chunked, end
}

func (w *work) appendResponseBody(p []byte, framing http1.Framing, last bool) {
	if framing != http1.Chunked {
		w.out = append(w.out, p...)
		return
	}
	if len(p) > 0 {
		w.out = http1.AppendChunkHead(w.out, len(p))
		w.out = append(append(w.out, p...), '\r', '\n')
	}
	if last {
		w.out = http1.AppendTrailer(w.out, &w.Response.Trailer)
	}
}

// lastWrite ends the response and settles both connections.
func (w *work) lastWrite(end bool) bool {
	early := w.pump.running && !w.pump.over() // its last write may be stuck: the answer does not wait for that
	if !early {
		w.settle()
	}
	if err := w.toClient(); err != nil {
		return w.lost()
	}
	if early {
		w.settle()
	}
	if w.Close && !end || !w.body.skip() || w.upgrading() { // something of the request, or behind it, was not read
		w.linger = true
		return false
	}
	return !end
}

// lost: the client is gone while it was written to.
func (w *work) lost() bool {
	w.Reason = "client_gone"
	w.stop()
	return false
}

// cut ends a response that cannot be completed, so that the client sees that it is not whole: with a reset where nothing
// else could tell.
func (w *work) cut(err error) bool {
	var broken *http1.Fault
	switch {
	case errors.As(err, &broken):
		w.Reason = broken.Reason
	case errors.Is(err, errGone):
		w.Reason = "client_gone"
	case errors.Is(err, errExpired):
		w.Reason = "request_timeout"
	case errors.Is(err, errTryOver):
		w.Reason = "backend_timeout"
	case errors.Is(err, errRefused): // the step gave its reason
	default:
		w.Reason = "backend_cut"
	}
	if w.Detail == "" {
		w.Detail = err.Error()
	}
	w.stop()
	if len(w.out) > 0 {
		_ = w.toClient()
	}
	w.c.Reset()
	return false
}
