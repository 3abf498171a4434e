package drive

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/http1"
)

// relay passes the 101 response on and then bytes both ways, until both directions have ended (RFC 9110 section 7.8).
func (w *work) relay() bool {
	w.out = http1.AppendUpgrade(w.out[:0], &w.Response)
	// What the backend sent behind its head belongs to the new protocol, and so does what the client sent behind its own.
	w.out = append(w.out, w.ub[w.ur:w.uw]...)
	w.BytesOut = int64(w.uw - w.ur)
	w.ur = w.uw
	up := w.up
	_ = up.Net.SetDeadline(time.Time{}) // fails only on a closed connection, which the relay will tell
	w.c.ReadWithin(time.Time{}, 0)
	w.c.WriteWithin(time.Time{}, 0)
	if _, err := w.c.Write(w.out); err != nil {
		return w.lost()
	}
	first := w.in[w.r:w.w]
	w.r = w.w
	w.LetGo()
	t := &tunnel{idle: w.limits.streamIdle}
	t.moved()
	client := end{w.c, func(at time.Time) { w.c.ReadWithin(at, t.idle) }}
	backend := end{up.Net.(halfCloser), func(at time.Time) { _ = up.Net.SetReadDeadline(at.Add(t.idle)) }}
	toBackend := make(chan int64, 1)
	go func() { toBackend <- t.copy(backend, client, first, make([]byte, bufferSize)) }()
	w.BytesOut += t.copy(client, backend, nil, w.ub)
	w.BytesIn += <-toBackend
	if t.timedOut.Load() {
		w.Reason = "stream_idle"
	}
	w.drop()
	return false
}

// tunnel is two directions of bytes. It ends when both have, when one fails, or when nothing moved for idle (0: never).
type tunnel struct {
	idle     time.Duration
	last     atomic.Int64 // when something moved, Unix nanoseconds
	timedOut atomic.Bool
}

// halfCloser is a connection whose directions end one by one: TCP, or TLS over it.
type halfCloser interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// end is one end of a tunnel. within makes its next read end at idle after a time.
type end struct {
	conn   halfCloser
	within func(from time.Time)
}

func (t *tunnel) moved() { t.last.Store(time.Now().UnixNano()) }

// copy copies first and then what src sends to dst until src ends, then tells dst that nothing follows. When it fails, it closes
// both ends, so that the other direction ends too.
func (t *tunnel) copy(dst, src end, first, buf []byte) (n int64) {
	if len(first) > 0 {
		k, err := dst.conn.Write(first)
		n += int64(k)
		if err != nil {
			closeBoth(dst, src)
			return n
		}
	}
	for {
		if t.idle > 0 {
			src.within(time.Unix(0, t.last.Load()))
		}
		k, err := src.conn.Read(buf)
		if k > 0 {
			t.moved()
			j, werr := dst.conn.Write(buf[:k])
			n += int64(j)
			if werr != nil {
				closeBoth(dst, src)
				return n
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF) && dst.conn.CloseWrite() == nil:
			return n
		case errors.Is(err, os.ErrDeadlineExceeded) && t.idle > 0 && time.Since(time.Unix(0, t.last.Load())) < t.idle:
			// the other direction moved meanwhile
		default:
			if errors.Is(err, os.ErrDeadlineExceeded) && t.idle > 0 {
				t.timedOut.Store(true)
			}
			closeBoth(dst, src)
			return n
		}
	}
}

func closeBoth(a, b end) { _, _ = a.conn.Close(), b.conn.Close() }
