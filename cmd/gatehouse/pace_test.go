package main

import "testing"

// TestSmallHeapsCollectSeldom: a small heap may grow fivefold before it is collected, a large one twofold, as Go has it.
func TestSmallHeapsCollectSeldom(t *testing.T) {
	for live, want := range map[uint64]int{0: 400, 4 << 20: 400, 16 << 20: 400, 32 << 20: 200, 64 << 20: 100, 1 << 30: 100} {
		if got := garbagePercent(live); got != want {
			t.Errorf("with %d bytes alive the percentage is %d, want %d", live, got, want)
		}
	}
}
