package drive

import "encoding/binary"

// frames finds where the frames of one direction of a WebSocket connection end (RFC 6455 section 5.2). It sees the bytes as they pass,
// split anyhow, and reads headers only: no payload is unmasked. The zero value, with masked set, is ready.
type frames struct {
	masked bool // frames of this direction are masked: the client sends them (section 5.1)
	off    bool // what passed was no WebSocket framing: nothing more is known
	closed bool // a Close frame has passed: no frame follows (section 5.5.1)
	open   bool // a message in fragments is not complete
	head   [14]byte
	got    uint8  // bytes of the next frame's header that have passed
	need   uint8  // how many it has, once two are there
	left   uint64 // bytes of the payload that are still to come
}

const (
	opContinue = 0
	opBinary   = 2
	opClose    = 8
	opPong     = 10
	maxControl = 125 // bytes in a control frame (section 5.5)
	keySize    = 4
)

// between reports whether the last frame has ended and the next has not begun. Only here another one may be put in.
func (f *frames) between() bool { return !f.off && f.got == 0 && f.left == 0 }

// pass takes the next bytes and returns how many of them lie before the last end of a frame among them, -1 if none ends there. A Close
// frame is the last that is looked at; in garbage nothing ends.
func (f *frames) pass(p []byte) int {
	end := -1
	for i := 0; i < len(p) && !f.closed && !f.off; {
		if f.left > 0 {
			n := min(f.left, uint64(len(p)-i))
			i += int(n)
			f.left -= n
		} else {
			f.header(p[i])
			i++
		}
		if f.between() {
			end = i
			f.closed = f.head[0]&0xf == opClose
		}
	}
	if f.off {
		return -1
	}
	return end
}

// header takes the next byte of a frame's header.
func (f *frames) header(b byte) {
	f.head[f.got] = b
	f.got++
	switch {
	case f.got < 2:
		return
	case f.got == 2:
		f.begin()
	}
	if f.got < f.need || f.off {
		return
	}
	f.got = 0
	switch n := f.head[1] & 0x7f; n {
	case 126:
		f.left = uint64(binary.BigEndian.Uint16(f.head[2:]))
		f.off = f.left < 126 // a length has one form: the shortest
	case 127:
		f.left = binary.BigEndian.Uint64(f.head[2:])
		f.off = f.left < 1<<16 || f.left >= 1<<63
	default:
		f.left = uint64(n)
	}
}

// begin judges a header by its first two bytes.
func (f *frames) begin() {
	op, final, n := f.head[0]&0xf, f.head[0]&0x80 != 0, f.head[1]&0x7f
	switch {
	case op >= opClose:
		f.off = op > opPong || !final || n > maxControl || f.head[0]&0x40 != 0
	default:
		f.off = op > opBinary || (op == opContinue) != f.open
		f.open = !final
	}
	// Of the reserved bits one has a meaning, that of compression (RFC 7692).
	f.off = f.off || f.head[0]&0x30 != 0 || (f.head[1]&0x80 != 0) != f.masked || op == opClose && n == 1
	f.need = 2
	if f.masked {
		f.need += keySize
	}
	switch n {
	case 126:
		f.need += 2
	case 127:
		f.need += 8
	}
}

const goingAway = 1001 // section 7.4.1

// appendClose appends a Close frame with the status 1001, masked by key unless key is nil.
func appendClose(dst []byte, key []byte) []byte {
	var status [2]byte
	binary.BigEndian.PutUint16(status[:], goingAway)
	if key == nil {
		return append(dst, 0x80|opClose, 2, status[0], status[1])
	}
	dst = append(append(dst, 0x80|opClose, 0x80|2), key...)
	return append(dst, status[0]^key[0], status[1]^key[1])
}
