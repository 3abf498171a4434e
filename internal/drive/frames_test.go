package drive

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// frame is a frame as a client (masked) or a server sends it. first is its first byte.
func frame(masked bool, first byte, payload int) []byte {
	b := []byte{first}
	mask := byte(0)
	if masked {
		mask = 0x80
	}
	switch {
	case payload < 126:
		b = append(b, mask|byte(payload))
	case payload < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, mask|126), uint16(payload))
	default:
		b = binary.BigEndian.AppendUint64(append(b, mask|127), uint64(payload))
	}
	if masked {
		b = append(b, 1, 2, 3, 4)
	}
	return append(b, bytes.Repeat([]byte{0x81}, payload)...) // looks like headers
}

func join(parts ...[]byte) []byte { return slices.Concat(parts...) }

// ends are the offsets at which a frame ends, as pass tells them of bytes that come n at a time.
func ends(f *frames, p []byte, n int) (out []int) {
	at := 0
	for c := range slices.Chunk(p, n) {
		if e := f.pass(c); e >= 0 {
			out = append(out, at+e)
		}
		at += len(c)
	}
	return out
}

func TestFrames(t *testing.T) {
	server := func(first byte, n int) []byte { return frame(false, first, n) }
	for _, x := range []struct {
		name   string
		masked bool
		in     []byte
		want   []int // where frames end
		off    bool
		closed bool
	}{
		{name: "nothing"},
		{name: "text", in: server(0x81, 5), want: []int{7}},
		{name: "empty", in: join(server(0x82, 0), server(0x81, 0)), want: []int{2, 4}},
		{name: "from a client", masked: true, in: join(frame(true, 0x81, 5), frame(true, 0x82, 0)), want: []int{11, 17}},
		{name: "16 bit", in: join(server(0x82, 126), server(0x82, 65535)), want: []int{130, 65669}},
		{name: "64 bit", masked: true, in: frame(true, 0x82, 65536), want: []int{65550}},
		{name: "the largest has not ended", in: []byte{0x82, 127, 0x7f, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3}},
		{name: "fragments with a ping between", in: join(server(0x01, 3), server(0x89, 2), server(0x00, 1), server(0x80, 1)), want: []int{5, 9, 12, 15}},
		{name: "compressed", in: server(0xc1, 3), want: []int{5}},
		{name: "close ends it", in: join(server(0x88, 2), []byte("anything")), want: []int{4}, closed: true},
		{name: "close without a status", in: server(0x88, 0), want: []int{2}, closed: true},
		{name: "half a header", in: []byte{0x82, 126, 1}},
		{name: "text of another protocol", in: []byte("SSH-2.0-OpenSSH\r\n"), off: true},
		{name: "masked by a server", in: frame(true, 0x81, 1), off: true},
		{name: "not masked by a client", masked: true, in: server(0x81, 1), off: true},
		{name: "opcode 3", in: server(0x83, 1), off: true},
		{name: "opcode 11", in: server(0x8b, 1), off: true},
		{name: "reserved bit 2", in: server(0xa1, 1), off: true},
		{name: "reserved bit 3", in: server(0x91, 1), off: true},
		{name: "ping in fragments", in: server(0x09, 1), off: true},
		{name: "long ping", in: server(0x89, 126), off: true},
		{name: "close with half a status", in: server(0x88, 1), off: true},
		{name: "continues nothing", in: server(0x80, 1), off: true},
		{name: "a message in a message", in: join(server(0x01, 1), server(0x81, 1)), want: []int{3}, off: true},
		{name: "not the shortest length", in: append([]byte{0x81, 126, 0, 125}, make([]byte, 125)...), off: true},
		{name: "not the shortest long length", in: append([]byte{0x81, 127, 0, 0, 0, 0, 0, 0, 255, 255}, make([]byte, 65535)...), off: true},
		{name: "2^63 bytes", in: []byte{0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0}, off: true},
	} {
		t.Run(x.name, func(t *testing.T) {
			f := frames{masked: x.masked}
			if got := ends(&f, x.in, 1); !slices.Equal(got, x.want) || f.off != x.off || f.closed != x.closed {
				t.Errorf("ends at %v, off %v, closed %v; want %v, %v, %v", got, f.off, f.closed, x.want, x.off, x.closed)
			}
			last := -1
			if n := len(x.want); n > 0 && !x.off {
				last = x.want[n-1]
			}
			f = frames{masked: x.masked}
			if got := f.pass(x.in); got != last || f.off != x.off {
				t.Errorf("in one piece: pass = %d, off %v; want %d, %v", got, f.off, last, x.off)
			}
		})
	}
}

// TestFramesOfMessages: whatever frames a peer may send, each end is found.
func TestFramesOfMessages(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		masked := rapid.Bool().Draw(t, "masked")
		var in []byte
		var want []int
		open := false
		for range rapid.IntRange(0, 12).Draw(t, "frames") {
			first, n := byte(0x89), rapid.IntRange(0, 125).Draw(t, "size")
			if rapid.Bool().Draw(t, "data") {
				n = rapid.SampledFrom([]int{0, 1, 125, 126, 127, 65535, 65536, 70000}).Draw(t, "size")
				first = 0x80
				if !open {
					first = 0x82
				}
				if open = rapid.Bool().Draw(t, "more"); open {
					first &^= 0x80
				}
			}
			in = append(in, frame(masked, first, n)...)
			want = append(want, len(in))
		}
		f := frames{masked: masked}
		at := 0
		for at < len(in) {
			n := min(rapid.IntRange(1, 80000).Draw(t, "piece"), len(in)-at)
			got := f.pass(in[at : at+n])
			last := -1
			for _, e := range want {
				if e > at && e <= at+n {
					last = e - at
				}
			}
			if got != last {
				t.Fatalf("pass of bytes %d to %d = %d, want %d", at, at+n, got, last)
			}
			at += n
		}
		if len(want) > 0 && !f.between() {
			t.Fatal("not between frames at the end")
		}
	})
}

// FuzzFrames: any split of the bytes gives the same boundaries and the same judgement.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x81\x05hello\x89\x00\x01\x01a\x80\x01b\x88\x02\x03\xe9"), uint8(3), false)
	f.Add(join(frame(true, 0x82, 300), frame(true, 0x88, 2)), uint8(7), true)
	f.Add([]byte("\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xffdata"), uint8(4), false)
	f.Add([]byte("\x01\x00\x81\x00"), uint8(2), false)
	f.Fuzz(func(t *testing.T, p []byte, n uint8, masked bool) {
		one, some, all := frames{masked: masked}, frames{masked: masked}, frames{masked: masked}
		bytewise := ends(&one, p, 1)
		pieces := ends(&some, p, int(n)+1)
		whole := all.pass(p)
		for _, e := range pieces {
			if !slices.Contains(bytewise, e) {
				t.Errorf("in pieces of %d a frame ends at %d, by bytes at %v", int(n)+1, e, bytewise)
			}
		}
		last := -1
		if len(bytewise) > 0 {
			last = bytewise[len(bytewise)-1]
		}
		if !one.off && (whole != last || len(pieces) > 0 && pieces[len(pieces)-1] != last) {
			t.Errorf("the last frame ends at %d, in pieces at %v, by bytes at %v", whole, pieces, bytewise)
		}
		if one != some || one != all {
			t.Errorf("states differ: %+v, %+v, %+v", one, some, all)
		}
		if one.closed && !one.between() {
			t.Errorf("closed in the middle of a frame: %+v", one)
		}
	})
}

func TestAppendClose(t *testing.T) {
	if got, want := appendClose(nil, nil), []byte{0x88, 2, 3, 0xe9}; !bytes.Equal(got, want) {
		t.Errorf("appendClose without a key = %x, want %x", got, want)
	}
	got, want := appendClose(nil, []byte{1, 2, 3, 4}), []byte{0x88, 0x82, 1, 2, 3, 4, 3 ^ 1, 0xe9 ^ 2}
	if !bytes.Equal(got, want) {
		t.Errorf("appendClose with a key = %x, want %x", got, want)
	}
	for _, masked := range []bool{false, true} {
		f := frames{masked: masked}
		var key []byte
		if masked {
			key = []byte{9, 9, 9, 9}
		}
		if p := appendClose(nil, key); f.pass(p) != len(p) || !f.closed {
			t.Errorf("masked %v: not a Close frame for frames itself: %+v", masked, f)
		}
	}
}

func BenchmarkFrames(b *testing.B) {
	p := bytes.Repeat(frame(true, 0x82, 200), bufferSize/208)
	f := frames{masked: true}
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		f.pass(p)
	}
}
