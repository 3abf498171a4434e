package drive

import (
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/upstream"
)

// TestCheckersFinishARound: a round of checks of dead endpoints takes no longer than the interval, as far as the bound lets it.
func TestCheckersFinishARound(t *testing.T) {
	for _, x := range []struct {
		endpoints         int
		interval, timeout time.Duration
		want              int
	}{
		{3, 5 * time.Second, time.Second, 64},
		{1000, 5 * time.Second, time.Second, 200},
		{1001, 5 * time.Second, time.Second, 201},
		{10_000, 10 * time.Second, time.Second, 1000},
		{10_000, time.Second, time.Second, 1024},
	} {
		if got := checkers(x.endpoints, &upstream.Checks{Interval: x.interval, Timeout: x.timeout}); got != x.want {
			t.Errorf("%d endpoints every %v, %v each: %d at a time, want %d", x.endpoints, x.interval, x.timeout, got, x.want)
		}
	}
}
