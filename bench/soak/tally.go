//go:build linux

package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
)

// tally counts what became of the requests of one kind.
type tally struct {
	mu      sync.Mutex
	good    int
	bad     map[string]int // by reason
	buckets [128]int       // of durations, four to an octave of microseconds
	longest time.Duration
}

func (t *tally) ok(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.good++
	t.buckets[min(len(t.buckets)-1, int(4*math.Log2(1+float64(d.Microseconds()))))]++
	t.longest = max(t.longest, d)
}

func (t *tally) fail(reason string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bad == nil {
		t.bad = map[string]int{}
	}
	t.bad[reason]++
}

// quantile is an upper bound of the duration under which a share q of the good requests stayed; a bucket is 19 % wide.
func (t *tally) quantile(q float64) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	left := int(math.Ceil(q * float64(t.good)))
	for i, n := range t.buckets {
		if left -= n; left <= 0 {
			return min(t.longest, time.Duration(math.Exp2(float64(i+1)/4)*float64(time.Microsecond)))
		}
	}
	return t.longest
}

// counts are the numbers of good and failed requests.
func (t *tally) counts() (good, bad int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.bad {
		bad += n
	}
	return t.good, bad
}

// reasons lists why requests failed, the most frequent first.
func (t *tally) reasons() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	names := slices.SortedFunc(maps.Keys(t.bad), func(a, b string) int {
		if d := t.bad[b] - t.bad[a]; d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	var out []string
	for _, n := range names {
		out = append(out, fmt.Sprintf("%d %s", t.bad[n], n))
	}
	return strings.Join(out, ", ")
}
