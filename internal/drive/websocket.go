package drive

import "crypto/rand"

// The Close frames that an end has had and given, as bits of end.closes.
const (
	closeSent = 1 << iota
	closeRead
)

// pass sends p on and adds to n what dst got of it. Of a WebSocket that is to end dst gets the frames that are whole, then a Close
// frame, then nothing: an end takes anything behind a Close frame, even another one, for a fault (RFC 6455 section 5.5.1), and a
// browser would report an abnormal closure. So the answer to our own Close frame goes no further, unless the other end has had none.
func (d *direction) pass(p []byte, n *int64) error {
	if !d.websocket {
		return d.write(p, n)
	}
	answered, drop := d.frames.closed, d.leaving && d.over
	whole := d.frames.pass(p)
	if d.frames.off {
		d.garbage.Store(true)
	}
	switch {
	case drop:
	case d.leaving && whole >= 0 && !d.frames.closed && !d.garbage.Load():
		if err := d.write(p[:whole], n); err != nil {
			return err
		}
		if err := d.sayClose(); err != nil {
			return err
		}
	default:
		if err := d.write(p, n); err != nil {
			return err
		}
		if d.frames.closed && !answered {
			d.over = true
			d.closes(d.dst, closeSent)
		}
	}
	if d.frames.closed && !answered {
		d.closes(d.src, closeRead)
	}
	return nil
}

// leave notices that the tunnel is told to end. In the middle of a frame dst has to wait for the Close frame.
func (d *direction) leave() error {
	d.leaving = true
	d.closes(d.src, 0)
	d.closes(d.dst, 0)
	if d.over || d.garbage.Load() || !d.frames.between() {
		return nil
	}
	return d.sayClose()
}

// sayClose puts a Close frame in, as if src had sent it.
func (d *direction) sayClose() error {
	var room [16]byte
	var key []byte
	if d.frames.masked {
		key = make([]byte, keySize)
		_, _ = rand.Read(key) // it never fails
	}
	if _, err := d.dst.conn.Write(appendClose(room[:0], key)); err != nil {
		return err
	}
	d.over = true
	d.tunnel.left.Store(true)
	d.closes(d.dst, closeSent)
	return nil
}

// closes notes a Close frame. An end that has had one and given one has nothing to expect any more: once the tunnel is told to end it
// need not wait for the other end (section 7.1.1: it is the server that closes first).
func (d *direction) closes(e *end, what uint32) {
	if e.closes.Or(what)|what == closeSent|closeRead && d.told.Load() {
		_ = e.finish() // fails only on a closed connection
	}
}
