package upstream

import (
	"time"

	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// budget counts further tries against requests. The requests themselves are counted with the endpoint that is chosen for them, and
// summed up when a try asks: a request that does not fail pays nothing for it.
type budget struct {
	before, now window
	minStart    time.Time
	minCount    int
}

// window is half of the budget's interval.
type window struct {
	start    time.Time
	requests uint64 // that the cluster had had at the start
	retries  int
}

// MayRetry reports whether a failed request may be tried again, and counts the try if so: below a percentage of the requests of the
// interval, or below the lowest rate. A failing backend thus gets little more than its usual load.
func (c *Cluster) MayRetry(now time.Time) bool {
	s := c.settings.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.budget.take(&s.budget, now, c.tries())
}

func (b *budget) take(of *ir.Budget, now time.Time, total uint64) bool {
	half := time.Duration(of.Interval) / 2
	if age := now.Sub(b.now.start); age >= half {
		b.before = b.now
		if age > 2*half { // nothing failed for long: what the last interval had is taken from the average since
			had := uint64(float64(total-b.now.requests) * float64(of.Interval) / float64(age))
			b.before = window{start: now, requests: total - had}
		}
		b.now = window{start: now, requests: total}
	}
	if now.Sub(b.minStart) >= time.Duration(of.MinInterval) {
		b.minStart, b.minCount = now, 0
	}
	retries := b.before.retries + b.now.retries
	// Further tries are counted at their endpoints too, a little later than here.
	requests := max(int64(total-b.before.requests)-int64(retries), 0)
	if b.minCount >= of.MinCount && int64(retries+1)*100 > requests*int64(of.Percent) {
		return false
	}
	b.now.retries++
	b.minCount++
	return true
}
