package drive

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/listener"
	"github.com/gatehouse-io/gatehouse/internal/upstream"
)

const (
	// patience is how long an exchange waits before it has its client watched. Most backends answer sooner, and cost nothing for it. A
	// deadline that ends it is coarse: it falls within twice that time.
	patience = 50 * time.Millisecond
	// halfClosed is how long a backend may take for a client that sends no more, where halfClose is Wait.
	halfClosed = 5 * time.Second
)

// vigil is how an exchange that waits learns that its client is gone. Whoever wants to read from the client, or to let others have the
// connection to the backend, ends it first (unwatch).
type vigil struct {
	w    *work
	gone atomic.Bool // set before the owner is woken

	begun bool // the response is under way: nothing else can be said to the client, so it is not shed

	mu     sync.Mutex
	stop   func() // nil: nobody looks yet
	over   bool
	late   *time.Timer
	up     *upstream.Conn     // whose read is to be ended; nil: none
	cancel context.CancelFunc // of what else the owner waits for; nil: nothing
}

// watch has the client watched from now on.
func (w *work) watch() {
	if w.vigil != nil || w.pumping() {
		return
	}
	w.vigil = &vigil{w: w, up: w.up, begun: w.begun}
	if w.Sent && !w.begun { // a wait that is long enough to be watched needs no buffer for what was sent
		w.d.Give(w.out[:cap(w.out)])
		w.out = nil
	}
	w.vigil.begin()
}

// watchSoon has the client watched after some patience, while the owner waits for something that cancel ends. calm says that the wait is
// over.
func (w *work) watchSoon(cancel context.CancelFunc) (calm func() (gone bool)) {
	if w.pumping() {
		return func() bool { return false }
	}
	v := w.vigil
	if v == nil {
		v = &vigil{w: w}
		w.vigil = v
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.up, v.cancel = nil, cancel
	if v.gone.Load() {
		cancel()
	}
	var t *time.Timer
	if v.stop == nil {
		t = time.AfterFunc(patience, v.begin)
	}
	return func() bool {
		if t != nil {
			t.Stop()
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		v.cancel = nil
		if v.stop == nil { // begin may still be about to run
			v.over, w.vigil = true, nil
		}
		return v.gone.Load()
	}
}

// pumping reports whether a pump reads from the client: it notices by itself if that is gone.
func (w *work) pumping() bool {
	if !w.pump.running {
		return false
	}
	if !w.pump.over() {
		return true
	}
	<-w.pump.done
	return false
}

// unwatch ends the vigil: nobody but the owner reads from the client or touches its deadlines after it.
func (w *work) unwatch() {
	v := w.vigil
	if v == nil {
		return
	}
	w.vigil = nil
	v.mu.Lock()
	stop := v.stop
	v.over = true
	if v.late != nil {
		v.late.Stop()
	}
	v.mu.Unlock()
	if stop != nil {
		stop()
		w.c.Hold(listener.Exchanging, 3*bufferSize)
	}
	if w.up != nil {
		w.up.Deadline = time.Time{} // it may have been set to wake the owner
	}
}

// clientGone reports whether the client is known to be gone.
func (w *work) clientGone() bool { return w.vigil != nil && w.vigil.gone.Load() }

func (v *vigil) begin() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.over && v.stop == nil {
		if !v.begun {
			v.w.c.Hold(listener.Stalled, 3*bufferSize)
		}
		v.stop = v.w.c.Watch(v.w.d, v.left)
	}
}

// left is called when the client has ended its connection. One that only says that it sends no more may still wait for its answer, but a
// program that is gone says no more than that: as other servers do, it is taken for gone, unless a policy has it believed for a while.
func (v *vigil) left(closed bool) {
	if closed || !v.w.limits.waitHalf {
		v.end()
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.over {
		v.late = time.AfterFunc(halfClosed, v.end)
	}
}

// end wakes the owner, because the client is gone.
func (v *vigil) end() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.over {
		return
	}
	v.gone.Store(true)
	if v.up != nil {
		_ = v.up.Net.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed connection
	}
	if v.cancel != nil {
		v.cancel()
	}
}

// on makes up the connection whose read is ended when the client is gone.
func (v *vigil) on(up *upstream.Conn) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.up = up
}
