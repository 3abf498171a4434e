//go:build linux

package lab

import (
	"os"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	const line = "4242 (a (b) c) S 17 4242 4242 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 5 0 1000 9999 512 18446744073709551615 1"
	got, err := parseStat(line)
	want := stat{pid: 4242, parent: 17, cpu: 3 * time.Second, rss: int64(512 * os.Getpagesize())}
	if err != nil || got != want {
		t.Errorf("parseStat = %+v, %v, want %+v", got, err, want)
	}
	for _, bad := range []string{"", "1 sh S", "1 (sh) S 1 2"} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("parseStat(%q) = nil error, want one", bad)
		}
	}
}

func TestCoreBusy(t *testing.T) {
	const text = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 1 1 1 1 1 1 1 0 0\ncpu1 100 20 30 4000 50 6 7 8 9 10\n"
	if got, err := CoreBusy(text, "1"); err != nil || got != 1710*time.Millisecond {
		t.Errorf("CoreBusy(1) = %v, %v, want 1.71s", got, err)
	}
	if _, err := CoreBusy(text, "2"); err == nil {
		t.Error("CoreBusy(2) = nil error, want one")
	}
}

// TestPeak holds a program's peak to what it uses, before and after it has been reset.
func TestPeak(t *testing.T) {
	p, err := Start("", "sleep", "60")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	for range 2 {
		peak, err := p.Peak()
		if err != nil || peak < 64<<10 || peak > 1<<30 {
			t.Errorf("Peak = %d, %v, want that of a small program", peak, err)
		}
		if err := p.ResetPeak(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPeakOf(t *testing.T) {
	if got, err := peakOf("VmPeak:\t  9 kB\nVmHWM:\t   4242 kB\nVmRSS:\t 1 kB\n"); err != nil || got != 4242 {
		t.Errorf("peakOf = %d, %v, want 4242", got, err)
	}
	if _, err := peakOf("VmRSS:\t 1 kB\n"); err == nil {
		t.Error("peakOf without VmHWM = nil error, want one")
	}
}
