package upstream

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Endpoint is one address of a cluster, with its idle connections.
type Endpoint struct {
	Addr netip.AddrPort
	Text string // Addr as text, for dialling and the log
	// Restricted says that backends may not lie at the address in general: only a listener that makes an exception may use it.
	Restricted bool

	cluster *Cluster
	counts  *counts      // of the cluster, in which it is counted too
	active  atomic.Int64 // exchanges that use it now
	left    atomic.Bool  // no longer among the cluster's endpoints

	// Health. What is not atomic is under the cluster's mu.
	failures  atomic.Int32 // in a row
	until     atomic.Int64 // it is ejected until then, Unix nanoseconds; 0: it is not
	unhealthy atomic.Bool  // by active checks
	out       atomic.Bool  // one of the two, as the list in use has it
	joined    atomic.Int64 // when it joined others, Unix nanoseconds; 0: it is warm
	chosen    bool         // one of list.base
	ejections int
	back      time.Time // when its last ejection ends or ended
	checkedOK bool
	checks    int // with that outcome, in a row

	// Under the cluster's build.
	ready  bool
	round  uint64 // of the last SetEndpoints that named it
	token  uint64 // 0: not made yet
	places int    // copies of it on the ring
	wanted int    // copies that are to be there

	mu   sync.Mutex
	idle []*Conn // newest last
}

// Conn is a connection to an endpoint. Whoever took it owns it until Put or Close.
type Conn struct {
	Net      net.Conn     // what carries HTTP: TCP, or TLS over it
	TCP      *net.TCPConn // beneath
	Endpoint *Endpoint
	Reused   bool // it has carried a whole exchange before
	// Deadline is the read deadline that is set on the socket, kept so that drive need not set it anew each time.
	Deadline time.Time
	// WriteDeadline is the same for writes.
	WriteDeadline time.Time
	// KeepAlive is how long the backend said it keeps an idle connection, 0: it did not say.
	KeepAlive time.Duration
	// IO is drive's own state for the connection.
	IO any

	settings *Settings
	expires  time.Time
	closed   atomic.Bool
	outside  bool // the circuit breaker does not count it
	spare    bool // while it is idle: it is among those that the cluster counts as such
}

// NewConn wraps a connection that was dialled for e under s, and counted by the cluster's Reserve.
func NewConn(e *Endpoint, s *Settings, tcp *net.TCPConn, carrier net.Conn) *Conn {
	return &Conn{Net: carrier, TCP: tcp, Endpoint: e, settings: s}
}

// Close closes the connection and uncounts it. It may be called more than once, and while another goroutine uses Net.
func (c *Conn) Close() {
	if c.closed.CompareAndSwap(false, true) {
		if !c.outside {
			c.Endpoint.cluster.Unreserve()
		}
		_ = c.Net.Close()
	}
}

// Exempt says of a connection that was dialled without Reserve that the circuit breaker does not count it: one of a health check.
func (c *Conn) Exempt() { c.outside = true }

// spared counts an idle connection that can give way, where there is a bound, and taken uncounts it. They are called under e.mu.
func (e *Endpoint) spared(c *Conn) {
	if c.spare = e.cluster.settings.Load().breaker.MaxConnections > 0; c.spare {
		e.cluster.spare.Add(1)
	}
}

func (e *Endpoint) taken(c *Conn) {
	if c.spare {
		c.spare = false
		e.cluster.spare.Add(-1)
	}
}

// exempt takes an idle connection out of what the circuit breaker counts, under e.mu. It gives its place up before it stops to be one
// that can give way: who looks in between finds one or the other.
func (e *Endpoint) exempt(c *Conn) {
	c.outside = true
	e.cluster.Unreserve()
	e.taken(c)
}

// giveWay closes the connection that has been idle for longest, if there is one.
func (e *Endpoint) giveWay() bool {
	e.mu.Lock()
	if len(e.idle) == 0 {
		e.mu.Unlock()
		return false
	}
	c := e.idle[0]
	copy(e.idle, e.idle[1:])
	e.idle[len(e.idle)-1] = nil
	e.idle = e.idle[:len(e.idle)-1]
	e.exempt(c)
	e.mu.Unlock()
	c.Close()
	return true
}

// Tried counts a try at the endpoint, whether or not a connection can be made: what the budget of further tries is measured by.
func (e *Endpoint) Tried() { e.counts.tries.Add(1) }

// Begin counts an exchange on the endpoint, End uncounts it.
func (e *Endpoint) Begin() {
	e.active.Add(1)
	e.counts.active.Add(1)
}

// End uncounts an exchange.
func (e *Endpoint) End() {
	e.active.Add(-1)
	e.counts.active.Add(-1)
}

// Active is how many exchanges use the endpoint now.
func (e *Endpoint) Active() int64 { return e.active.Load() }

// Left reports whether the endpoint is no longer one of its cluster's.
func (e *Endpoint) Left() bool { return e.left.Load() }

// Take removes the newest idle connection that has not expired, or returns nil.
func (e *Endpoint) Take(now time.Time) *Conn { return e.take(now, false) }

// TakeExempt is Take for a health check: the circuit breaker does not count the connection until it is Put back.
func (e *Endpoint) TakeExempt(now time.Time) *Conn { return e.take(now, true) }

func (e *Endpoint) take(now time.Time, exempt bool) *Conn {
	e.mu.Lock()
	for n := len(e.idle); n > 0; n = len(e.idle) {
		c := e.idle[n-1]
		e.idle[n-1] = nil
		e.idle = e.idle[:n-1]
		usable := now.Before(c.expires) && c.settings.TLS == e.cluster.settings.Load().TLS
		if exempt || !usable {
			e.exempt(c)
		} else {
			e.taken(c)
		}
		if usable {
			e.mu.Unlock()
			c.Reused = true
			return c
		}
		c.Close()
	}
	e.mu.Unlock()
	return nil
}

// Put gives back a connection after a whole request and a whole response. It is closed if it cannot be kept, as one that the circuit
// breaker does not count if that has no room for it.
func (e *Endpoint) Put(c *Conn, now time.Time) {
	keep := DefaultIdle
	if c.KeepAlive > 0 {
		keep = c.KeepAlive - time.Second
	}
	if keep <= 0 || e.left.Load() {
		c.Close()
		return
	}
	c.expires = now.Add(keep)
	e.mu.Lock()
	if len(e.idle) >= maxIdle {
		e.mu.Unlock()
		c.Close()
		return
	}
	e.spared(c) // before it is counted: see exempt
	if c.outside {
		if !e.cluster.tryReserve() {
			e.taken(c)
			e.mu.Unlock()
			c.Close()
			return
		}
		c.outside = false
	}
	e.idle = append(e.idle, c)
	e.mu.Unlock()
	if e.left.Load() { // it left between the check and the append
		e.closeIdle()
	}
}

func (e *Endpoint) closeIdle() {
	e.mu.Lock()
	idle := e.idle
	e.idle = nil
	for _, c := range idle {
		e.exempt(c)
	}
	e.mu.Unlock()
	for _, c := range idle {
		c.Close()
	}
}

// sweep closes what has expired. The oldest lie first, but their times may differ: all are looked at.
func (e *Endpoint) sweep(now time.Time) {
	var dead []*Conn
	e.mu.Lock()
	keep := e.idle[:0]
	for _, c := range e.idle {
		if now.Before(c.expires) {
			keep = append(keep, c)
		} else {
			e.exempt(c)
			dead = append(dead, c)
		}
	}
	clear(e.idle[len(keep):])
	e.idle = keep
	e.mu.Unlock()
	for _, c := range dead {
		c.Close()
	}
}

// Idle is how many connections are kept.
func (e *Endpoint) Idle() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.idle)
}
