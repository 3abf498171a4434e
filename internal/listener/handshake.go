package listener

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Failure is why a TLS handshake failed.
type Failure uint8

// The failures.
const (
	UnrecognizedName Failure = iota // no certificate for the server name
	Protocol                        // no TLS, or no version or cipher in common
	ClientAlert                     // the client broke it off, say because it does not trust the certificate
	Timeout
	Closed // by the client, without a word
	OtherFailure
	failures int = iota
)

var failureNames = [...]string{"unrecognized_name", "protocol", "client_alert", "timeout", "closed", "other"}

func (f Failure) String() string { return failureNames[f] }

// Failures are all failures.
func Failures() []Failure {
	out := make([]Failure, failures)
	for i := range out {
		out[i] = Failure(i)
	}
	return out
}

// sayEvery is how often a refused server name is logged at most: anybody can send one.
const sayEvery = 10 * time.Second

// sayBytes is how much of a refused server name is logged.
const sayBytes = 100

// handshakes counts what failed.
type handshakes struct {
	n      [failures]atomic.Int64
	said   atomic.Int64 // when a refused name was last logged, in Unix nanoseconds
	unsaid atomic.Int64 // how many were not, since
}

func (h *handshakes) total() (n int64) {
	for i := range h.n {
		n += h.n[i].Load()
	}
	return n
}

// HandshakeFailures is how many TLS handshakes failed for a reason, since the start.
func (s *Set) HandshakeFailures(f Failure) int64 { return s.stats.tls.n[f].Load() }

// shakeFailed counts a handshake that failed, and logs a refused name.
func (c *Conn) shakeFailed(err error) {
	if c.sock == nil {
		return
	}
	s := c.sock.set
	f := failureOf(err)
	if c.refused {
		f = UnrecognizedName
	}
	h := &s.stats.tls
	h.n[f].Add(1)
	if f != UnrecognizedName {
		return
	}
	now, last := time.Now().UnixNano(), h.said.Load()
	if last != 0 && now-last < int64(sayEvery) || !h.said.CompareAndSwap(last, now) {
		h.unsaid.Add(1)
		return
	}
	s.opt.Log.Info("TLS handshake refused: no certificate for the server name",
		"name", shortened(c.refusedName), "port", c.Port, "peer", c.peer.Addr(), "more_not_logged", h.unsaid.Swap(0))
}

// shortened is a name from a client made short; the log escapes what is not printable.
func shortened(name string) string {
	if len(name) > sayBytes {
		return name[:sayBytes] + "..."
	}
	return name
}

func failureOf(err error) Failure {
	var op *net.OpError
	var record tls.RecordHeaderError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return Timeout
	case errors.As(err, &record):
		return Protocol
	case errors.As(err, &op) && op.Op == "remote error":
		return ClientAlert
	case errors.As(err, &op) && op.Op == "local error" && op.Err.Error() == "tls: bad record MAC":
		// OpenSSL's clients send the alert that they do not trust a certificate in clear text also with TLS 1.3, where crypto/tls has
		// begun to decrypt.
		return ClientAlert
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return Closed
	case strings.HasPrefix(err.Error(), "tls: "), errors.As(err, &op) && op.Op == "local error":
		return Protocol
	}
	return OtherFailure
}
