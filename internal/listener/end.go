package listener

// Interrupt makes a read that waits in another goroutine, and every later one, fail with os.ErrDeadlineExceeded. Any goroutine may
// call it; the connection is to be closed afterwards.
func (c *Conn) Interrupt() { c.wake() }
