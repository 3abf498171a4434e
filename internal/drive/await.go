package drive

import (
	"errors"
	"os"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/http1"
	"github.com/gatehouse-io/gatehouse/internal/proxy"
)

// readResponse reads until a final response's head is there and passes interim responses on.
func (w *work) readResponse() proxy.Action {
	sent := w.from
	first := w.first
	w.reply.Reset()
	interims := 0
	for {
		for w.ur < w.uw {
			w.Response.Header.Reset()
			n, h, fault := w.reply.ParseResponse(w.ub[w.ur:w.uw], w.Request.Method, &w.Response)
			if fault != nil {
				w.blame(fault)
				w.drop()
				w.Kept = false // it did answer, so it is not asked again
				return w.decide(proxy.EventBackendFailed)
			}
			if n == 0 {
				break
			}
			w.ur += n
			if s := w.Response.Status; s >= 200 || s == 101 {
				return w.final(h)
			}
			if interims++; interims > maxInterims {
				return w.failed(errInterims)
			}
			if a, gone := w.interim(); gone {
				return a
			}
			w.reply.Reset()
		}
		if w.uw == len(w.ub) && !w.growBackend() {
			return w.failed(errHeadTooLong)
		}
		if a, ended := w.fillBackend(sent, first); ended {
			return a
		}
	}
}

// What a response head can do wrong that the codec does not see.
var (
	errHeadTooLong = &http1.Fault{Status: 502, Reason: "upstream_header_too_large", Detail: "response head over the limit"}
	errInterims    = &http1.Fault{Status: 502, Reason: "upstream_bad_header", Detail: "too many interim responses"}
)

func (w *work) growBackend() bool {
	if w.ur > 0 {
		w.uw = copy(w.ub, w.ub[w.ur:w.uw])
		w.ur = 0
		w.reply.Reset()
		return true
	}
	if len(w.ub) >= 8*bufferSize {
		return false
	}
	b := make([]byte, 2*len(w.ub))
	w.uw = copy(b, w.ub[:w.uw])
	w.ub = b
	w.reply.Reset()
	return true
}

// fillBackend reads once from the backend while a head is awaited. A time that is over, a client that has left and a body that has
// ended end its read: what they set is looked at after the read's own deadline was.
func (w *work) fillBackend(sent time.Time, first time.Duration) (proxy.Action, bool) {
	now, began := sent, sent
	for {
		sent = w.sentAt(sent)
		w.setDeadline(now, sent, first)
		if a, ended := w.bodyEnded(); ended {
			return a, true
		}
		if w.clientGone() {
			w.letGo()
			return w.decide(proxy.EventClientGone), true
		}
		n, err := w.up.Net.Read(w.ub[w.uw:])
		w.uw += n
		if n > 0 {
			return 0, false
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			if a, ended := w.bodyEnded(); ended {
				return a, true
			}
			return w.failed(err), true
		}
		now = time.Now()
		w.up.Deadline = time.Time{}
		if w.pump.running && !w.pump.over() && !w.expects.Load() {
			sent = now // the time for the first byte begins when the request is sent, or when the backend is to ask for it
		}
		if a, ended := w.waited(now, w.sentAt(sent), first, began); ended {
			return a, true
		}
	}
}

// sentAt is when the request was sent, where its body ended later than at a time.
func (w *work) sentAt(t time.Time) time.Time {
	if p := &w.pump; p.running && p.over() && p.at.After(t) {
		return p.at
	}
	return t
}

// bodyEnded looks whether the request's body has come to a bad end.
func (w *work) bodyEnded() (proxy.Action, bool) {
	p := &w.pump
	if p.running && p.over() && (p.client != nil || p.refused) {
		return w.pumpFailed(), true
	}
	return 0, false
}

// waited looks, while a head is awaited, whether a time is over or the client has left.
func (w *work) waited(now, sent time.Time, first time.Duration, began time.Time) (proxy.Action, bool) {
	event := proxy.EventClientGone
	switch {
	case w.expired():
		event = proxy.EventExpired
	case first > 0 && now.Sub(sent) >= first || w.tryOver(now):
		event = proxy.EventTimeout
	default:
		if !w.left(now, began) {
			return 0, false
		}
	}
	w.letGo()
	return w.decide(event), true
}

// left reports whether the client has left, and has it watched if the exchange has waited for some time.
func (w *work) left(now, began time.Time) bool {
	switch {
	case w.pump.running && !w.pump.over(): // it notices while it reads, but not while the backend takes nothing
		closed, half := w.c.Gone()
		return closed || half && !w.limits.waitHalf
	case w.vigil == nil && now.Sub(began) >= patience:
		w.watch()
	}
	return w.clientGone()
}

// tryOver reports whether the time for the try that is on has passed.
func (w *work) tryOver(now time.Time) bool { return !w.over.IsZero() && !now.Before(w.over) }

// setDeadline makes the next read end at the nearest of the first byte's time and the exchange's end, or when it is time to look at the
// client. That last one is coarse, so that a busy connection seldom sets a deadline.
func (w *work) setDeadline(now, sent time.Time, first time.Duration) {
	least, most := patience, 2*patience
	if w.vigil != nil {
		least, most = longWait/2, longWait
	}
	at := now.Add(most)
	exact := false
	if first > 0 {
		if t := sent.Add(first); t.Before(at) {
			at, exact = t, true
		}
	}
	for _, t := range [...]time.Time{w.Expires, w.over} {
		if !t.IsZero() && t.Before(at) {
			at, exact = t, true
		}
	}
	d := w.up.Deadline
	if exact && d.Equal(at) || !exact && !d.Before(now.Add(least)) && !d.After(at) {
		return
	}
	w.up.Deadline = at
	_ = w.up.Net.SetReadDeadline(at)
}

// longWait is a deadline where there is none: whoever ends the wait moves it.
const longWait = time.Hour

// pumpFailed ends an exchange whose request body failed before the backend answered.
func (w *work) pumpFailed() proxy.Action {
	<-w.pump.done
	w.pump.running = false
	w.drop()
	w.Close = true
	if w.pump.refused {
		return w.Refuse()
	}
	return w.bodyFailed(w.pump.client)
}

// interim passes a 1xx response on, to a client that can read it (RFC 9110 section 15.2).
func (w *work) interim() (proxy.Action, bool) {
	if w.Request.Version == 0 {
		return 0, false
	}
	if w.Response.Status != 100 { // hints of an attempt that failed have been passed on: those of the next would be the same again
		if w.hintsOf != 0 && w.hintsOf != w.Tries {
			return 0, false
		}
		w.hintsOf = w.Tries
	}
	w.out = http1.AppendResponse(w.out[:0], &w.Response, http1.None, false)
	if err := w.toClient(); err != nil {
		w.drop()
		return w.step(proxy.EventClientGone), true
	}
	if w.Response.Status == 100 {
		w.Request.Continue = false
		w.expects.Store(false)
	}
	return 0, false
}

// final takes a final response's head.
func (w *work) final(h http1.Head) proxy.Action {
	w.uhead = h
	if h.KeepAlive > 0 {
		w.up.KeepAlive = time.Duration(h.KeepAlive) * time.Second
	}
	w.ubody.begin(w)
	w.Now = time.Now()
	w.Waited = w.Now.Sub(w.Start)
	if w.Response.Status >= 400 {
		w.Kept = !w.upgrading() && w.canResend()
	}
	return w.decide(proxy.EventBackendHead)
}
