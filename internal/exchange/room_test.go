package exchange

import (
	"bytes"
	"testing"
)

func TestKeep(t *testing.T) {
	var x Exchange
	var kept [][]byte
	var handles []int64
	for i := range 100 {
		p, h := x.Keep(bytes.Repeat([]byte{byte(i)}, i/2), bytes.Repeat([]byte{byte(i)}, i-i/2))
		kept, handles = append(kept, p), append(handles, h)
	}
	for i := range kept {
		want := bytes.Repeat([]byte{byte(i)}, i)
		if got := x.Kept(handles[i]); !bytes.Equal(kept[i], want) || !bytes.Equal(got, want) || handles[i] <= 0 || handles[i]>>62 != 0 {
			t.Errorf("Keep(%v) = %v, and then Kept(%d) = %v", want, kept[i], handles[i], got)
		}
	}
	part := []byte("abc")
	if n := testing.AllocsPerRun(100, func() {
		x.Reset()
		x.Keep(part, part)
	}); n != 0 {
		t.Errorf("Keep in room that is there makes %v allocations, want 0", n)
	}
}
