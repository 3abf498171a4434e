package listener

import (
	"cmp"
	"slices"
	"time"
)

// Holding is what a connection is at, for which it takes memory.
type Holding uint32

// What connections are at. Handshaking is the first.
const (
	Handshaking Holding = iota
	Waiting             // for a request: kept alive
	Heading             // in a head that is not complete
	Exchanging          // an exchange is under way that something moves on
	Collecting          // a whole body is read, because a step wants it
	Stalled             // an exchange waits for its backend
	Relaying            // bytes pass both ways, as on a WebSocket
	Lingering           // the answer was given; what the client still sends is read off
	holdings
	shed // taken for closing: nothing changes it any more
)

func (h Holding) String() string {
	return [...]string{"handshake", "idle", "head", "exchange", "body", "waiting", "relay", "lingering"}[h]
}

// Holdings are those that Shed can close.
func Holdings() []Holding {
	return []Holding{Handshaking, Waiting, Heading, Collecting, Stalled, Relaying, Lingering}
}

// connSize is about what any connection takes: a goroutine's stack, the kernel's and Go's records of it.
const connSize = 6 << 10

// newFor is how long a new connection is spared that has sent no part of a request yet: it may be about to.
const newFor = time.Second

// Hold says what the connection is at from now on, and about how many bytes it takes for that. false: it is shed, that is, closed.
func (c *Conn) Hold(h Holding, bytes int) bool {
	for now := uint64(h)<<32 | uint64(uint32(bytes)); ; {
		old := c.holds.Load()
		if old>>32 == uint64(shed) {
			return false
		}
		if old == now || c.holds.CompareAndSwap(old, now) {
			return true
		}
	}
}

// Shed reports whether the connection was closed because memory is short.
func (c *Conn) Shed() bool { return c.holds.Load()>>32 == uint64(shed) }

// Shed ends connections that are at one of what, those that take most first, of equals the oldest, until they took want bytes, and returns
// how many it ended and what they took. Exchanges notice by a read that fails and can still be answered; the others are closed.
func (s *Set) Shed(want int64, what ...Holding) (closed int, bytes int64) {
	type candidate struct {
		c    *Conn
		seen uint64
	}
	var all []candidate
	now := time.Now()
	s.each(func(c *Conn) {
		seen := c.holds.Load()
		if h := Holding(seen >> 32); (h == Waiting || h == Handshaking) && now.Sub(c.since) < newFor {
			return
		}
		if slices.Contains(what, Holding(seen>>32)) {
			all = append(all, candidate{c, seen})
		}
	})
	slices.SortFunc(all, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(uint32(b.seen), uint32(a.seen)), a.c.since.Compare(b.c.since))
	})
	for _, x := range all {
		if bytes >= want {
			break
		}
		if !x.c.holds.CompareAndSwap(x.seen, uint64(shed)<<32) {
			continue // it has moved on
		}
		h := Holding(x.seen >> 32)
		switch h {
		case Collecting, Stalled:
			x.c.Interrupt()
		case Waiting, Lingering: // an answer that was just written must not be lost
			_ = x.c.tcp.Close() // not tls.Conn.Close, which may wait to send an alert
		default:
			x.c.Reset()
		}
		s.stats.shed[h].Add(1)
		closed++
		bytes += connSize + int64(uint32(x.seen))
	}
	return closed, bytes
}

// ShedCount is how many connections were shed at h.
func (s *Set) ShedCount(h Holding) int64 { return s.stats.shed[h].Load() }

// each calls f for every connection.
func (s *Set) each(f func(*Conn)) {
	s.mu.Lock()
	sockets := make([]*socket, 0, len(s.live)+len(s.left))
	for _, k := range s.live {
		sockets = append(sockets, k)
	}
	for k := range s.left {
		sockets = append(sockets, k)
	}
	s.mu.Unlock()
	for _, k := range sockets {
		k.mu.Lock()
		for c := range k.conns {
			f(c)
		}
		k.mu.Unlock()
	}
}
