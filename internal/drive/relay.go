package drive

import (
	"errors"
	"io"
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
	_ = up.Net.SetReadDeadline(time.Time{})
	w.c.ReadWithin(time.Time{}, 0)
	w.c.WriteWithin(time.Time{}, 0)
	if _, err := w.c.Write(w.out); err != nil {
		return w.lost()
	}
	first := w.in[w.r:w.w]
	w.r = w.w
	w.LetGo()
	toBackend := make(chan int64, 1)
	go func() {
		var n int64
		if len(first) > 0 {
			k, err := up.Net.Write(first)
			n += int64(k)
			if err != nil {
				toBackend <- n
				_ = up.Net.Close()
				return
			}
		}
		n += copyHalf(up.Net, w.c, nil)
		toBackend <- n
	}()
	w.BytesOut += copyHalf(w.c, up.Net, w.ub)
	w.BytesIn += <-toBackend
	w.drop()
	return false
}

// half is one end of a relay.
type half interface {
	Read([]byte) (int, error)
	Write([]byte) (int, error)
	Close() error
}

type closeWriter interface{ CloseWrite() error }

// copyHalf copies from src to dst until src ends, then tells dst that nothing follows. A failed direction ends the other one too.
func copyHalf(dst, src half, buf []byte) (n int64) {
	if buf == nil {
		buf = make([]byte, bufferSize)
	}
	for {
		k, err := src.Read(buf)
		if k > 0 {
			j, werr := dst.Write(buf[:k])
			n += int64(j)
			if werr != nil {
				_, _ = dst.Close(), src.Close()
				return n
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				if c, ok := dst.(closeWriter); ok && c.CloseWrite() == nil {
					return n
				}
			}
			_, _ = dst.Close(), src.Close()
			return n
		}
	}
}
