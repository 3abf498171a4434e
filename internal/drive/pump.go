package drive

import (
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/http1"
	"github.com/gatehouse-io/gatehouse/internal/upstream"
)

// maxKept is how much of a request's body is kept for a further try or for mirrors.
const maxKept = 64 << 10

// kept is what has passed of a request's body, as the backend got it, in case that it has to go again.
type kept struct {
	data  []byte
	room  []byte // data's own, unless it lies in the client's buffer
	begun bool   // some of the body has passed
	whole bool   // data is all of it
	lost  bool   // more has passed than is kept
}

func (k *kept) reset() { *k = kept{room: k.room[:0]} }

// hold keeps a whole body that lies in the client's buffer until the exchange ends.
func (k *kept) hold(p []byte) { k.data, k.begun, k.whole = p, true, true }

// add keeps what passes, if there is room for it.
func (k *kept) add(p []byte, end bool) {
	k.begun = true
	if k.lost || len(k.room)+len(p) > maxKept {
		k.lost = true
		return
	}
	k.room = append(k.room, p...)
	k.data, k.whole = k.room, end
}

// canResend reports whether the whole request can be sent again. Where it can while its body still flows, the pump is held: nothing
// passes it, and so nothing is lost, until again or thaw.
func (w *work) canResend() bool {
	if w.Request.Buffered || w.head.Framing == http1.None {
		return true
	}
	p := &w.pump
	if !p.running {
		return !w.kept.begun || w.kept.whole
	}
	if w.up == nil {
		p.mu.Lock() // one that writes is about to fail: its connection is closed
	} else {
		for n := 0; !p.mu.TryLock(); n++ { // it writes to a backend that has answered already and may never take it
			if n == 20 {
				return false
			}
			time.Sleep(time.Millisecond)
		}
	}
	defer p.mu.Unlock()
	p.frozen = !w.kept.lost
	return p.frozen
}

// pump carries a request body to the backend beside the goroutine that waits for the response.
type pump struct {
	done    chan struct{} // closed when its goroutine has ended and touches nothing any more
	running bool          // for the owner alone
	last    atomic.Bool   // nothing more is read from the client: the last bytes are being written
	ended   atomic.Bool   // nothing more will pass: client, refused and finished say why. Set before the owner is woken.

	mu     sync.Mutex     // for what passes: where to, what is kept, and that it failed
	thawed sync.Cond      // on mu: frozen or stopped has changed
	up     *upstream.Conn // what it writes to: the owner may drop work.up before the pump ends
	failed bool           // the backend takes no more, and the pump ends
	frozen bool           // a further attempt may begin: what comes next waits for its connection
	broken bool           // by stop: nothing passes any more

	// The rest is the pump's until ended is set.
	finished bool      // the whole body was sent
	at       time.Time // when nothing more passed
	client   error
	refused  bool // by a step
	out, raw []byte
}

// over reports whether nothing more will pass.
func (p *pump) over() bool { return p.ended.Load() }

// settled waits for a pump that only has to see its last write return, and reports whether the whole body was sent. The
// backend has answered, so it is not waited for long.
func (p *pump) settled() bool {
	if !p.last.Load() && !p.over() {
		return false
	}
	t := time.NewTimer(time.Second)
	defer t.Stop()
	select {
	case <-p.done:
		return p.finished
	case <-t.C:
		return false
	}
}

// startPump lets the body flow to the backend in a goroutine of its own, until it ends or fails.
func (w *work) startPump(framing http1.Framing, sees bool) {
	p := &w.pump
	p.up, p.running, p.finished, p.client, p.refused, p.frozen, p.broken = w.up, true, false, nil, false, false, false
	p.thawed.L = &p.mu
	p.last.Store(false)
	w.kept.lost = !w.Repeatable() && w.job == nil
	p.start(w, framing, sees)
}

func (p *pump) start(w *work, framing http1.Framing, sees bool) {
	w.unwatch() // it reads from the client itself, and notices if that leaves
	p.done, p.failed = make(chan struct{}), false
	p.ended.Store(false)
	go p.run(w, framing, sees)
}

func (p *pump) run(w *work, framing http1.Framing, sees bool) {
	defer close(p.done)
	defer p.end()
	defer func() {
		if v := recover(); v != nil {
			w.spoiled.Store(true)
			w.d.Log.Error("request body panicked", "peer", w.c.Peer(), "panic", v, "stack", string(debug.Stack()))
			p.client = errPanicked
		}
	}()
	for {
		data, end, err := p.gather(w, sees)
		if err != nil {
			p.client = err
			return
		}
		if p.refused || !p.pass(w, data, framing, end) {
			return // a backend that takes no more may have answered already: its response is still read
		}
		if end {
			p.finished = true
			return
		}
	}
}

// end has the one who waits for the response learn that nothing more will pass. The flag comes first: whoever sets a deadline after
// the one set here looks at it before it waits.
func (p *pump) end() {
	p.at = time.Now()
	p.ended.Store(true)
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.up.Net.SetReadDeadline(time.Unix(1, 0))
}

// gather waits for the next bytes and takes all that came with them, up to a buffer: however small the chunks are, what was read at
// once is written at once.
func (p *pump) gather(w *work, sees bool) (data []byte, end bool, err error) {
	b := &w.body
	if data, end, err = b.Offer(); err != nil {
		return nil, false, err
	}
	for n := 0; ; n++ {
		b.Take(len(b.data))
		if sees {
			if data = p.hooks(w, data, end); p.refused {
				return nil, false, nil
			}
		}
		if n > 0 {
			p.raw = append(p.raw, data...)
			data = p.raw
		}
		if end || len(data) >= bufferSize || !b.ready() {
			return data, end, nil
		}
		if n == 0 {
			p.raw = append(p.raw[:0], data...)
		}
		data, end = b.data, b.end
	}
}

// hooks lets the steps see what passes.
func (p *pump) hooks(w *work, data []byte, end bool) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	out, ok := w.RequestData(data, end)
	p.refused = !ok
	return out
}

// pass keeps and writes what comes next, and reports whether the backend took it.
func (p *pump) pass(w *work, data []byte, framing http1.Framing, end bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.frozen && !p.broken {
		p.thawed.Wait()
	}
	if p.broken {
		return false
	}
	w.kept.add(data, end)
	p.last.Store(end)
	if end && w.job != nil {
		w.job.send(&w.kept)
	}
	p.out = w.appendRequestBody(p.out[:0], data, framing, end)
	if len(p.out) == 0 {
		return true
	}
	_, err := w.d.writeBackend(p.up, p.out)
	p.failed = err != nil
	return err == nil
}

// again writes a head and what has passed of the body to the connection of a further attempt, and has the rest go there too. canResend
// has held the pump since it said that all of it is kept.
func (p *pump) again(w *work, framing http1.Framing, sees bool) (n int, err error) {
	failed, whole, n, err := p.redirect(w, framing)
	if !failed { // it goes on by itself, or has ended well
		return n, err
	}
	<-p.done
	switch {
	case err != nil:
	case whole: // its last write failed; this one has taken its place
		p.finished, p.failed = true, false
	default:
		p.start(w, framing, sees)
	}
	return n, err
}

func (p *pump) redirect(w *work, framing http1.Framing) (failed, whole bool, n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.frozen || w.kept.lost {
		panic("drive: a body that is not kept as a whole was to be sent again")
	}
	w.out = w.appendRequestBody(w.out, w.kept.data, framing, w.kept.whole)
	n, err = w.d.writeBackend(w.up, w.out)
	p.up = w.up
	if err == nil { // else canResend, which follows, finds it held still
		p.release()
	}
	return p.failed, w.kept.whole, n, err
}

// thaw lets the body flow on: no further attempt is made.
func (p *pump) thaw() {
	if p.running {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.release()
	}
}

// release is thaw under the lock.
func (p *pump) release() {
	p.frozen = false
	p.thawed.Broadcast()
}

func (w *work) appendRequestBody(out, data []byte, framing http1.Framing, end bool) []byte {
	if !end {
		return appendBody(out, data, framing, false, nil)
	}
	return appendBody(out, data, framing, true, w.Trailer())
}

func appendBody(out, data []byte, framing http1.Framing, end bool, trailer *exchange.Header) []byte {
	if framing != http1.Chunked {
		return append(out, data...)
	}
	if len(data) > 0 {
		out = http1.AppendChunkHead(out, len(data))
		out = append(append(out, data...), '\r', '\n')
	}
	if end {
		out = http1.AppendTrailer(out, trailer)
	}
	return out
}

// stop ends a pump that still runs and closes what it writes to: half a request is on that connection.
func (w *work) stop() {
	w.unwatch()
	p := &w.pump
	if p.running {
		p.running = false
		if !p.over() {
			w.c.Interrupt()
			if w.up != nil {
				_ = w.up.Net.Close()
			}
			p.breakOff()
			w.Close = true
		}
		<-p.done
		if !p.finished {
			w.Close = true
		}
	}
	if w.up != nil {
		w.drop()
	}
}

// breakOff keeps anything more from passing. A write that holds the lock fails, because its connection was closed.
func (p *pump) breakOff() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken = true
	p.thawed.Broadcast()
}
