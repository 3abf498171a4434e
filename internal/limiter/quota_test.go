package limiter

import (
	"testing"
	"time"
	_ "time/tzdata"

	"pgregory.net/rapid"
)

func TestBounds(t *testing.T) {
	const local = "2006-01-02 15:04:05 -0700"
	for _, tt := range []struct {
		zone       string
		window     Window
		at         string // UTC
		start, end string // by the zone's clocks
	}{
		{"Europe/Berlin", Day, "2026-03-29T12:00:00Z", "2026-03-29 00:00:00 +0100", "2026-03-30 00:00:00 +0200"},
		{"Europe/Berlin", Day, "2026-10-25T12:00:00Z", "2026-10-25 00:00:00 +0200", "2026-10-26 00:00:00 +0100"},
		{"Europe/Berlin", Hour, "2026-10-25T00:30:00Z", "2026-10-25 02:00:00 +0200", "2026-10-25 02:00:00 +0100"},
		{"Europe/Berlin", Hour, "2026-10-25T01:30:00Z", "2026-10-25 02:00:00 +0100", "2026-10-25 03:00:00 +0100"},
		{"Europe/Berlin", Month, "2026-01-31T22:59:59Z", "2026-01-01 00:00:00 +0100", "2026-02-01 00:00:00 +0100"},
		{"Europe/Berlin", Month, "2026-01-31T23:00:00Z", "2026-02-01 00:00:00 +0100", "2026-03-01 00:00:00 +0100"},
		{"Europe/Berlin", Month, "2028-02-29T10:00:00Z", "2028-02-01 00:00:00 +0100", "2028-03-01 00:00:00 +0100"},
		{"Europe/Berlin", Month, "2026-03-31T10:00:00Z", "2026-03-01 00:00:00 +0100", "2026-04-01 00:00:00 +0200"},
		{"Europe/Berlin", Week, "2026-03-29T21:00:00Z", "2026-03-23 00:00:00 +0100", "2026-03-30 00:00:00 +0200"},
		{"Europe/Berlin", Week, "2026-01-01T12:00:00Z", "2025-12-29 00:00:00 +0100", "2026-01-05 00:00:00 +0100"},
		{"Europe/Berlin", Year, "2025-12-31T23:30:00Z", "2026-01-01 00:00:00 +0100", "2027-01-01 00:00:00 +0100"},
		// Midnight did not exist: clocks went from 23:59:59 to 01:00.
		{"America/Sao_Paulo", Day, "2018-11-04T12:00:00Z", "2018-11-04 01:00:00 -0200", "2018-11-05 00:00:00 -0200"},
		{"America/Sao_Paulo", Day, "2018-11-04T02:59:59Z", "2018-11-03 00:00:00 -0300", "2018-11-04 01:00:00 -0200"},
		// The hour before midnight came twice.
		{"America/Sao_Paulo", Day, "2018-02-18T02:30:00Z", "2018-02-17 00:00:00 -0200", "2018-02-18 00:00:00 -0300"},
		{"America/Sao_Paulo", Month, "2026-03-01T02:59:59Z", "2026-02-01 00:00:00 -0300", "2026-03-01 00:00:00 -0300"},
		// Midnight came twice.
		{"America/Havana", Day, "2026-11-01T12:00:00Z", "2026-11-01 00:00:00 -0400", "2026-11-02 00:00:00 -0500"},
		{"Asia/Kolkata", Hour, "2026-05-01T10:29:00Z", "2026-05-01 15:00:00 +0530", "2026-05-01 16:00:00 +0530"},
		{"Australia/Lord_Howe", Hour, "2026-04-04T15:10:00Z", "2026-04-05 01:30:00 +1030", "2026-04-05 02:00:00 +1030"},
		{"Pacific/Apia", Day, "2011-12-30T09:00:00Z", "2011-12-29 00:00:00 -1000", "2011-12-31 00:00:00 +1400"},
		{"", Minute, "2026-05-01T10:29:31Z", "2026-05-01 10:29:00 +0000", "2026-05-01 10:30:00 +0000"},
	} {
		zone, err := time.LoadLocation(tt.zone)
		if err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse(time.RFC3339, tt.at)
		if err != nil {
			t.Fatal(err)
		}
		start, end := tt.window.bounds(at, zone)
		gotStart, gotEnd := time.Unix(start, 0).In(zone).Format(local), time.Unix(end, 0).In(zone).Format(local)
		if gotStart != tt.start || gotEnd != tt.end {
			t.Errorf("window %d of %s in %q: %s to %s, want %s to %s", tt.window, tt.at, tt.zone, gotStart, gotEnd, tt.start, tt.end)
		}
	}
}

// TestBoundsTile: windows follow each other without gap, and all of a window says the same.
func TestBoundsTile(t *testing.T) {
	zones := []string{"Europe/Berlin", "America/Sao_Paulo", "America/Havana", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu",
		"Africa/Casablanca", "America/St_Johns", "UTC"}
	rapid.Check(t, func(t *rapid.T) {
		zone, err := time.LoadLocation(rapid.SampledFrom(zones).Draw(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
		w := Window(rapid.IntRange(0, 5).Draw(t, "window"))
		at := rapid.Int64Range(0, 2_500_000_000).Draw(t, "at")
		if rapid.Bool().Draw(t, "near a change of time") {
			if _, until := time.Unix(at, 0).In(zone).ZoneBounds(); !until.IsZero() {
				at = until.Unix() + rapid.Int64Range(-90_000, 90_000).Draw(t, "off")
			}
		}
		start, end := w.bounds(time.Unix(at, 0), zone)
		if start > at || end <= at {
			t.Fatalf("the window %d to %d has not %d in it", start, end, at)
		}
		for _, other := range []int64{start, end - 1, start + (end-start)/3} {
			if s, e := w.bounds(time.Unix(other, 0), zone); s != start || e != end {
				t.Fatalf("at %d the window is %d to %d, at %d it is %d to %d", at, start, end, other, s, e)
			}
		}
		if s, _ := w.bounds(time.Unix(end, 0), zone); s != end {
			t.Fatalf("after the window that ends at %d comes one that begins at %d", end, s)
		}
		if _, e := w.bounds(time.Unix(start-1, 0), zone); e != start {
			t.Fatalf("before the window that begins at %d is one that ends at %d", start, e)
		}
	})
}

func TestQuotaOverADay(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	l := New(Options{})
	defer l.Close()
	lim := &Limit{Quota: &Quota{Limit: 10, Window: Day, Zone: berlin}}
	out := make([]Answer, 1)
	passed := map[string]int{}
	// From before a day of 23 hours to after it, an ask in each 20 minutes.
	now := time.Date(2027, 3, 27, 12, 0, 0, 0, berlin)
	for end := now.Add(72 * time.Hour); now.Before(end); now = now.Add(20 * time.Minute) {
		if l.Decide(now, []Ask{{Limit: lim, Cost: 1}}, out) {
			passed[now.In(berlin).Format("01-02")]++
			continue
		}
		y, m, d := now.In(berlin).Date()
		if want := time.Date(y, m, d+1, 0, 0, 0, 0, berlin).Sub(now); out[0].RetryAfter != want || out[0].Rate != ByQuota || out[0].Remaining != 0 {
			t.Fatalf("at %v: %+v, want a retry after %v", now, out[0], want)
		}
	}
	for day, n := range passed {
		if n != 10 {
			t.Errorf("%d passed on %s, want 10", n, day)
		}
	}
	if len(passed) != 4 {
		t.Errorf("days: %v, want 4", passed)
	}
}
