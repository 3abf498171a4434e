package drive

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/http1"
	"github.com/gatehouse-io/gatehouse/internal/proxy"
)

// clientBody is the body of a request by credit. Bytes that came with the head lie in work.in; what follows is read
// into a buffer of its own, so that the head stays where it is.
type clientBody struct {
	w      *work
	chunks http1.Chunks
	left   int64 // of a body with a length
	data   []byte
	end    bool // nothing follows data
	err    error
	fault  *http1.Fault // err is one of the body's framing
	slow   bool         // err is that the client was too slow

	extra  []byte // nil: bytes lie in w.in
	er, ew int
	since  time.Time // of the current rate window
	window int64     // bytes in it
	until  time.Time // when the body must be there, zero: no matter
}

var (
	errSlow     = errors.New("request body below the lowest rate")
	errPanicked = errors.New("a step panicked on the request body")
)

func (b *clientBody) begin(w *work) {
	*b = clientBody{w: w, chunks: b.chunks}
	b.chunks.Reset()
	b.left = max(w.Request.ContentLength, 0)
	b.end = w.head.Framing == http1.None || w.head.Framing == http1.Length && b.left == 0
}

// reset moves what was read past the body to where the next head is looked for.
func (b *clientBody) reset(w *work) {
	if b.ew > b.er {
		n := b.ew - b.er
		if n > len(w.in) {
			w.in = make([]byte, max(n, 2*len(w.in)))
		}
		w.r, w.w = 0, copy(w.in, b.extra[b.er:b.ew])
	}
	b.er, b.ew = 0, 0
	b.data, b.end, b.err = nil, true, nil
	if b.extra != nil {
		w.d.Give(b.extra)
		b.extra = nil
	}
}

// whole reports whether the rest of the body lies in the buffer, for a body with a length.
func (b *clientBody) whole() bool {
	return b.w.head.Framing == http1.Length && b.extra == nil && b.left <= int64(b.w.w-b.w.r)
}

// Offer implements exchange.Body.
func (b *clientBody) Offer() ([]byte, bool, error) {
	for {
		if len(b.data) > 0 || b.end {
			return b.data, b.end, nil
		}
		if b.err != nil {
			return nil, false, b.err
		}
		if b.next() {
			continue
		}
		if b.err == nil {
			b.err = b.fill()
		}
	}
}

// Take implements exchange.Body.
func (b *clientBody) Take(n int) {
	b.data = b.data[n:]
	b.w.BytesIn += int64(n)
}

// ready is Offer without waiting: it reports whether bytes or the end are there.
func (b *clientBody) ready() bool {
	for len(b.data) == 0 && !b.end {
		if b.err != nil || len(b.unread()) == 0 || !b.next() {
			return false
		}
	}
	return true
}

// next takes the next bytes out of the buffer and reports whether it got any, or the end.
func (b *clientBody) next() bool {
	buf := b.unread()
	if b.w.head.Framing == http1.Length {
		n := int(min(b.left, int64(len(buf))))
		b.data = buf[:n]
		b.consume(n)
		b.left -= int64(n)
		b.end = b.left == 0
		return n > 0 || b.end
	}
	data, n, done, fault := b.chunks.Next(buf, &b.w.Request.Trailer)
	if fault != nil {
		b.fault, b.err = fault, fault
		return false
	}
	b.consume(n)
	b.data, b.end = data, done
	return len(data) > 0 || done || n > 0
}

func (b *clientBody) unread() []byte {
	if b.extra != nil {
		return b.extra[b.er:b.ew]
	}
	return b.w.in[b.w.r:b.w.w]
}

func (b *clientBody) consume(n int) {
	if b.extra != nil {
		b.er += n
	} else {
		b.w.r += n
	}
}

// fill reads more from the client. It waits; the rate of a body is watched only here, while the edge reads, and not before a client
// that waits for 100 (Continue) has got it.
func (b *clientBody) fill() error {
	w := b.w
	if !b.room() { // a chunk head or trailer longer than the buffer: http1 refuses before this
		return io.ErrShortBuffer
	}
	for {
		limit := w.d.BodyWindow
		if limit > 0 && b.since.IsZero() {
			b.since, b.window = time.Now(), 0
		}
		b.limitRead(limit)
		n, err := w.c.Read(b.extra[b.ew:])
		b.ew += n
		b.window += int64(n)
		if n > 0 {
			return nil
		}
		if err == nil {
			return io.ErrNoProgress
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || w.c.Interrupted() {
			return err
		}
		now := time.Now()
		switch {
		case !b.until.IsZero() && !now.Before(b.until):
			return errExpired
		case limit <= 0 || now.Sub(b.since) < limit: // a deadline of something else
			w.c.ReadOn()
		case w.expects.Load() || b.window >= w.d.BodyRate*int64(limit/time.Second):
			b.since = time.Time{}
		default:
			b.slow = true
			return errSlow
		}
	}
}

// limitRead has the next read end with the window of the rate, or when the body must be there.
func (b *clientBody) limitRead(limit time.Duration) {
	c := b.w.c
	if !b.until.IsZero() && (limit <= 0 || b.until.Before(b.since.Add(limit))) {
		c.ReadUntil(b.until)
		return
	}
	c.ReadWithin(b.since, limit)
}

// room makes room behind what is there, in a buffer of the body's own: the head stays where it is.
func (b *clientBody) room() bool {
	w := b.w
	if b.extra == nil {
		b.extra = w.d.Take()
		if w.w-w.r >= len(b.extra) { // the head's buffer had grown
			b.extra = make([]byte, 2*len(w.in))
		}
		b.er, b.ew = 0, copy(b.extra, w.in[w.r:w.w])
		w.r = w.w
	} else {
		b.ew = copy(b.extra, b.extra[b.er:b.ew])
		b.er = 0
	}
	return b.ew < len(b.extra)
}

// skip consumes what is left of the body if all of it is at hand, and reports whether the body is over.
func (b *clientBody) skip() bool {
	if b.w == nil || b.w.head.Framing == http1.None {
		return true
	}
	if b.w.Request.Continue && !b.end && len(b.unread()) == 0 {
		return false
	}
	for b.err == nil {
		if b.end {
			b.data = nil
			return true
		}
		b.data = nil
		if !b.next() {
			return false
		}
	}
	return false
}

// What is left of a body that nobody wants.
type rest uint8

const (
	restNone    rest = iota // nothing
	restShort               // so little that it is read off, and the connection goes on
	restEndless             // more than that, or nobody knows whether it comes at all
)

// maxDiscard is how much of a body is read off for nothing, so that a refusal does not cost the connection.
const maxDiscard = 64 << 10

// rest says what is left of the body. What is at hand is taken.
func (b *clientBody) rest() rest {
	switch {
	case b.skip():
		return restNone
	case b.err != nil || b.w.expects.Load(): // a client that has got no 100 (Continue) may send its body or leave it (RFC 9110 section 10.1.1)
		return restEndless
	case b.w.head.Framing == http1.Length && b.left > maxDiscard:
		return restEndless
	}
	return restShort
}

// discard reads the rest of the body off, within the time for a head, and reports whether it ended there.
func (b *clientBody) discard() bool {
	w := b.w
	if w.limits.header > 0 {
		b.until = time.Now().Add(w.limits.header)
	}
	for taken := 0; taken <= maxDiscard; {
		p, end, err := b.Offer()
		if err != nil {
			return false
		}
		taken += len(p)
		b.data = nil
		if end {
			return true
		}
	}
	return false
}

// bufferRequest reads the whole body, because a step wants it.
func (w *work) bufferRequest() proxy.Action {
	w.unwatch()
	if w.Request.Continue {
		w.out = append(w.out[:0], "HTTP/1.1 100 Continue\r\n\r\n"...)
		if err := w.toClient(); err != nil {
			return w.Step(proxy.EventClientGone)
		}
		w.Request.Continue = false
		w.expects.Store(false)
	}
	w.body.until = w.Expires
	body := w.Request.Body[:0]
	for {
		p, end, err := w.body.Offer()
		if err != nil {
			return w.bodyFailed(err)
		}
		switch {
		case int64(len(body)+len(p)) > w.Limit:
			return w.Step(proxy.EventBodyTooLarge)
		case w.Shedding():
			return w.Step(proxy.EventOverloaded)
		}
		body = append(body, p...)
		w.body.Take(len(p))
		if end {
			w.Request.Body, w.from = body, time.Now()
			w.Now = w.from
			return w.Step(proxy.EventBody)
		}
	}
}

// bodyFailed turns a failed body into the event for it.
func (w *work) bodyFailed(err error) proxy.Action {
	b := &w.body
	w.Now = time.Now()
	switch {
	case b.fault != nil:
		w.Fault = proxy.Fault{Status: b.fault.Status, Reason: b.fault.Reason, Detail: b.fault.Detail}
	case b.slow:
		w.Fault = proxy.Fault{Status: 408, Reason: "body_timeout", Detail: err.Error()}
	case errors.Is(err, errExpired):
		return w.Step(proxy.EventExpired)
	case errors.Is(err, errPanicked):
		return w.Step(proxy.EventPanicked)
	default:
		return w.Step(proxy.EventClientGone)
	}
	return w.Step(proxy.EventMalformed)
}
