package drive

import (
	"errors"
	"io"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/http1"
	"github.com/gatehouse-io/gatehouse/internal/proxy"
	"github.com/gatehouse-io/gatehouse/internal/upstream"
)

// clientBody is the body of a request by credit. Bytes that came with the head lie in work.in; what follows is read
// into a buffer of its own, so that the head stays where it is.
type clientBody struct {
	w      *work
	chunks http1.Chunks
	left   int64 // of a body with a length
	data   []byte
	sent   []byte // what went with the head, in case that it has to go again
	end    bool   // nothing follows data
	err    error
	fault  *http1.Fault // err is one of the body's framing
	slow   bool         // err is that the client was too slow

	extra  []byte // nil: bytes lie in w.in
	er, ew int
	since  time.Time // of the current rate window
	window int64     // bytes in it
}

var (
	errSlow     = errors.New("request body below the lowest rate")
	errPanicked = errors.New("a step panicked on the request body")
)

func (b *clientBody) begin(w *work) {
	*b = clientBody{w: w, chunks: b.chunks}
	b.chunks.Reset()
	b.left = max(w.Request.ContentLength, 0)
	b.end = w.head.Framing == http1.None
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
	b.data, b.sent, b.end, b.err = nil, nil, true, nil
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

// fill reads more from the client. It waits; the rate of a body is watched only here, while the edge reads.
func (b *clientBody) fill() error {
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
	if b.ew == len(b.extra) { // a chunk head or trailer longer than the buffer: http1 refuses before this
		return io.ErrShortBuffer
	}
	for {
		limit := w.d.BodyWindow
		if limit > 0 && b.since.IsZero() {
			b.since, b.window = time.Now(), 0
			w.c.ReadWithin(b.since, limit)
		}
		n, err := w.c.Read(b.extra[b.ew:])
		b.ew += n
		b.window += int64(n)
		if n > 0 {
			return nil
		}
		if limit > 0 && errors.Is(err, os.ErrDeadlineExceeded) {
			if b.window >= w.d.BodyRate*int64(limit/time.Second) {
				b.since = time.Time{}
				continue
			}
			b.slow = true
			return errSlow
		}
		if err == nil {
			err = io.ErrNoProgress
		}
		return err
	}
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

// bufferRequest reads the whole body, because a step wants it.
func (w *work) bufferRequest() proxy.Action {
	if w.Request.Continue {
		w.out = append(w.out[:0], "HTTP/1.1 100 Continue\r\n\r\n"...)
		if _, err := w.c.Write(w.out); err != nil {
			return w.Step(proxy.EventClientGone)
		}
		w.Request.Continue = false
	}
	body := w.Request.Body[:0]
	for {
		p, end, err := w.body.Offer()
		if err != nil {
			return w.bodyFailed(err)
		}
		if int64(len(body)+len(p)) > w.Limit {
			return w.Step(proxy.EventBodyTooLarge)
		}
		body = append(body, p...)
		w.body.Take(len(p))
		if end {
			w.Request.Body, w.from = body, time.Now()
			return w.Step(proxy.EventBody)
		}
	}
}

// bodyFailed turns a failed body into the event for it.
func (w *work) bodyFailed(err error) proxy.Action {
	b := &w.body
	switch {
	case b.fault != nil:
		w.Fault = proxy.Fault{Status: b.fault.Status, Reason: b.fault.Reason, Detail: b.fault.Detail}
	case b.slow:
		w.Fault = proxy.Fault{Status: 408, Reason: "body_timeout", Detail: err.Error()}
	default:
		return w.Step(proxy.EventClientGone)
	}
	return w.Step(proxy.EventMalformed)
}

// pump carries a request body to the backend beside the goroutine that waits for the response.
type pump struct {
	up      *upstream.Conn // what it writes to: the owner may drop work.up before the pump ends
	done    chan struct{}
	running bool        // for the owner alone
	last    atomic.Bool // nothing more is read from the client: the last bytes are being written
	// The rest is the pump's until done is closed.
	finished bool // the whole body was sent
	client   error
	backend  error
	refused  bool // by a step
}

// over reports whether the pump has ended.
func (p *pump) over() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// settled waits for a pump that only has to see its last write return, and reports whether the whole body was sent. The
// backend has answered, so it is not waited for long.
func (p *pump) settled() bool {
	if !p.over() {
		if !p.last.Load() {
			return false
		}
		t := time.NewTimer(time.Second)
		defer t.Stop()
		select {
		case <-p.done:
		case <-t.C:
			return false
		}
	}
	return p.finished
}

// startPump lets the body flow to the backend in a goroutine of its own, until it ends or fails.
func (w *work) startPump(framing http1.Framing, sees bool) {
	p := &w.pump
	p.up = w.up
	p.done, p.running, p.finished, p.client, p.backend, p.refused = make(chan struct{}), true, false, nil, nil, false
	p.last.Store(false)
	go w.runPump(framing, sees)
}

func (w *work) runPump(framing http1.Framing, sees bool) {
	p := &w.pump
	defer close(p.done)
	defer func() {
		if v := recover(); v != nil {
			w.d.Log.Error("request body panicked", "peer", w.c.Peer(), "panic", v, "stack", string(debug.Stack()))
			p.client = errPanicked
			_ = p.up.Net.SetReadDeadline(time.Unix(1, 0))
		}
	}()
	var out []byte
	for {
		data, end, err := w.body.Offer()
		if err != nil {
			p.client = err
			break
		}
		n := len(data)
		if sees {
			w.mu.Lock()
			var ok bool
			data, ok = w.RequestData(data, end)
			w.mu.Unlock()
			if !ok {
				p.refused = true
				break
			}
		}
		out = w.appendRequestBody(out[:0], data, framing, end)
		p.last.Store(end)
		if len(out) > 0 {
			if _, p.backend = w.d.writeBackend(p.up, out); p.backend != nil {
				return // the backend may have answered already: its response is still read
			}
		}
		w.body.Take(n)
		if end {
			p.finished = true
			return
		}
	}
	// The one who waits for the response must learn of it now.
	_ = p.up.Net.SetReadDeadline(time.Unix(1, 0))
}

func (w *work) appendRequestBody(out, data []byte, framing http1.Framing, end bool) []byte {
	if framing != http1.Chunked {
		return append(out, data...)
	}
	if len(data) > 0 {
		out = http1.AppendChunkHead(out, len(data))
		out = append(append(out, data...), '\r', '\n')
	}
	if end {
		out = http1.AppendTrailer(out, &w.Request.Trailer)
	}
	return out
}

// stop ends a pump that still runs and closes what it writes to: half a request is on that connection.
func (w *work) stop() {
	p := &w.pump
	if p.running {
		p.running = false
		if !p.over() {
			w.c.Interrupt()
			if w.up != nil {
				_ = w.up.Net.Close()
			}
			<-p.done
			w.Close = true
		}
		if !p.finished {
			w.Close = true
		}
	}
	if w.up != nil {
		w.drop()
	}
}
