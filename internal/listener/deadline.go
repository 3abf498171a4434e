package listener

import "time"

// Deadlines are coarse: the one set on the socket falls at most one second after the one wanted and never before it. As long as
// that holds nothing is set anew, so that a busy keep-alive connection sets a deadline about once a second, not with
// every request.

// ReadWithin wants every read to end within d of now; d <= 0: no deadline.
func (c *Conn) ReadWithin(now time.Time, d time.Duration) {
	if set, at := later(c.readEnd, now, d); set {
		c.readEnd = at
		_ = c.low().SetReadDeadline(at) // fails only on a closed connection, which the read will tell
		if c.state.Load()&interrupted != 0 {
			c.wake()
		}
	}
}

// ReadUntil wants every read to end at a time, exactly.
func (c *Conn) ReadUntil(at time.Time) {
	if !c.readEnd.Equal(at) {
		c.readEnd = at
		_ = c.low().SetReadDeadline(at) // fails only on a closed connection, which the read will tell
		if c.state.Load()&interrupted != 0 {
			c.wake()
		}
	}
}

// WriteWithin wants every write to end within d of now; d <= 0: no deadline. After a write that ran into it a TLS connection
// can only be closed.
func (c *Conn) WriteWithin(now time.Time, d time.Duration) {
	if set, at := later(c.writeEnd, now, d); set {
		c.writeEnd = at
		_ = c.low().SetWriteDeadline(at)
	}
}

// later says whether the deadline that is set must change for one wanted d after now, and to what.
func later(set, now time.Time, d time.Duration) (bool, time.Time) {
	if d <= 0 {
		return !set.IsZero(), time.Time{}
	}
	want := now.Add(d)
	if !set.IsZero() {
		if over := set.Sub(want); over >= 0 && over <= slack {
			return false, set
		}
	}
	return true, want.Add(slack)
}

// Idle says that the connection now waits for its next request, at most d (d <= 0: without end), and reports whether it may
// wait: after false, the next ReadPooled only looks whether a request is there already, and fails if not. It is called
// before the read for each request, the first one too.
func (c *Conn) Idle(now time.Time, d time.Duration) bool {
	c.state.Or(idle)
	c.ReadWithin(now, d)
	// Looked at last: stop sets the bit before it looks for idle, so one of the two sees the other.
	if c.state.Load()&stopping == 0 {
		return true
	}
	c.wake()
	return false
}

// Busy says that a request has begun: a drain lets it finish. A connection is idle when it is accepted.
func (c *Conn) Busy() { c.state.And(^uint32(idle)) }

// Closing reports whether the next answer must be the last, and say so: the set drains, or the socket is gone.
func (c *Conn) Closing() bool {
	return c.state.Load()&stopping != 0 || (c.sock != nil && c.sock.set.draining.Load())
}

// stop tells the connection to end. An idle one is woken, its read runs into a deadline; so is one that asked by Told.
func (c *Conn) stop() {
	if c.state.Or(stopping)&idle != 0 {
		c.wake()
	}
	c.tell()
}

// Told is for a connection that carries no exchanges any more but lives on. When it is told to end, or at once if it was already, f is
// called, by another goroutine, and then the read that waits fails with os.ErrDeadlineExceeded, and so does every one until
// ReadOn. That happens once; f must not block.
func (c *Conn) Told(f func()) {
	c.told.Store(&f)
	if c.state.Load()&stopping != 0 { // looked at last, as in Idle
		c.tell()
	}
}

func (c *Conn) tell() {
	if f := c.told.Swap(nil); f != nil {
		(*f)()
		c.wake()
	}
}

// ReadOn lets reads wait again, without a deadline. It belongs to the goroutine that reads.
func (c *Conn) ReadOn() {
	c.readEnd = time.Time{}
	_ = c.low().SetReadDeadline(time.Time{}) // fails only on a closed connection, which the read will tell
}

// Interrupt makes a read that waits in another goroutine, and every later one, fail with os.ErrDeadlineExceeded. Any goroutine may
// call it, after Handshake; the connection is to be closed afterwards.
func (c *Conn) Interrupt() {
	c.state.Or(interrupted)
	c.wake()
}

// Interrupted reports whether Interrupt was called.
func (c *Conn) Interrupted() bool { return c.state.Load()&interrupted != 0 }

func (c *Conn) wake() {
	_ = c.low().SetReadDeadline(time.Unix(1, 0)) // fails only on a closed connection
}
