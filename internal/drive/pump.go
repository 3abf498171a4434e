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

// canResend reports whether the whole request can be sent again.
func (w *work) canResend() bool {
	if w.Request.Buffered || w.head.Framing == http1.None {
		return true
	}
	p := &w.pump
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
	return !w.kept.begun && !w.pump.running || w.kept.whole || w.pump.running && !w.kept.lost
}

// pump carries a request body to the backend beside the goroutine that waits for the response.
type pump struct {
	done    chan struct{}
	running bool        // for the owner alone
	last    atomic.Bool // nothing more is read from the client: the last bytes are being written

	mu     sync.Mutex     // for what passes: where to, what is kept, and that it failed
	up     *upstream.Conn // what it writes to: the owner may drop work.up before the pump ends
	failed bool           // the backend takes no more, and the pump ends

	// The rest is the pump's until done is closed.
	finished bool // the whole body was sent
	client   error
	refused  bool // by a step
	out      []byte
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
	p.up, p.running, p.finished, p.client, p.refused = w.up, true, false, nil, false
	p.last.Store(false)
	w.kept.lost = !w.Repeatable() && w.job == nil
	p.start(w, framing, sees)
}

func (p *pump) start(w *work, framing http1.Framing, sees bool) {
	p.done, p.failed = make(chan struct{}), false
	go w.runPump(framing, sees)
}

func (w *work) runPump(framing http1.Framing, sees bool) {
	p := &w.pump
	defer close(p.done)
	defer func() {
		if v := recover(); v != nil {
			w.d.Log.Error("request body panicked", "peer", w.c.Peer(), "panic", v, "stack", string(debug.Stack()))
			p.client = errPanicked
			p.wake()
		}
	}()
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
		passed := p.pass(w, data, framing, end)
		w.body.Take(n)
		if !passed {
			return // the backend may have answered already: its response is still read
		}
		if end {
			p.finished = true
			return
		}
	}
	p.wake()
}

// wake has the one who waits for the response learn now that the body failed.
func (p *pump) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.up.Net.SetReadDeadline(time.Unix(1, 0))
}

// pass keeps and writes what comes next, and reports whether the backend took it.
func (p *pump) pass(w *work, data []byte, framing http1.Framing, end bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
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

// again writes a head and what has passed of the body to the connection of a further try, and has the rest go there too.
func (p *pump) again(w *work, framing http1.Framing, sees bool) (n int, err error) {
	p.mu.Lock()
	w.out = w.appendRequestBody(w.out, w.kept.data, framing, w.kept.whole)
	n, err = w.d.writeBackend(w.up, w.out)
	p.up = w.up
	failed, whole := p.failed, w.kept.whole
	p.mu.Unlock()
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
