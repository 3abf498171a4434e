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
	Addr    netip.AddrPort
	Text    string // Addr as text, for dialling and the log
	cluster *Cluster
	active  atomic.Int64 // exchanges that use it now
	left    atomic.Bool  // no longer among the cluster's endpoints

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
}

// NewConn wraps a connection that was dialled for e under s.
func NewConn(e *Endpoint, s *Settings, tcp *net.TCPConn, carrier net.Conn) *Conn {
	return &Conn{Net: carrier, TCP: tcp, Endpoint: e, settings: s}
}

// Begin counts an exchange on the endpoint, End uncounts it.
func (e *Endpoint) Begin() { e.active.Add(1) }

// End uncounts an exchange.
func (e *Endpoint) End() { e.active.Add(-1) }

// Active is how many exchanges use the endpoint now.
func (e *Endpoint) Active() int64 { return e.active.Load() }

// Left reports whether the endpoint is no longer one of its cluster's.
func (e *Endpoint) Left() bool { return e.left.Load() }

// Take removes the newest idle connection that has not expired, or returns nil.
func (e *Endpoint) Take(now time.Time) *Conn {
	e.mu.Lock()
	for n := len(e.idle); n > 0; n = len(e.idle) {
		c := e.idle[n-1]
		e.idle[n-1] = nil
		e.idle = e.idle[:n-1]
		if now.Before(c.expires) && c.settings.TLS == e.cluster.settings.Load().TLS {
			e.mu.Unlock()
			c.Reused = true
			return c
		}
		_ = c.Net.Close()
	}
	e.mu.Unlock()
	return nil
}

// Put gives back a connection after a whole request and a whole response. It is closed if it cannot be kept.
func (e *Endpoint) Put(c *Conn, now time.Time) {
	keep := DefaultIdle
	if c.KeepAlive > 0 {
		keep = c.KeepAlive - time.Second
	}
	if keep <= 0 || e.left.Load() {
		_ = c.Net.Close()
		return
	}
	c.expires = now.Add(keep)
	e.mu.Lock()
	if len(e.idle) >= maxIdle {
		e.mu.Unlock()
		_ = c.Net.Close()
		return
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
	e.mu.Unlock()
	for _, c := range idle {
		_ = c.Net.Close()
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
			dead = append(dead, c)
		}
	}
	clear(e.idle[len(keep):])
	e.idle = keep
	e.mu.Unlock()
	for _, c := range dead {
		_ = c.Net.Close()
	}
}

// Idle is how many connections are kept.
func (e *Endpoint) Idle() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.idle)
}
