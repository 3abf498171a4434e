package limiter

import (
	"math/bits"
	"time"
)

// A rate is held by virtual scheduling (GCRA, ITU-T I.371 annex A): per key one point in time, at which the bucket is full again.
// An event moves it by Period/Limit; it passes if the point then is at most Burst*Period/Limit from now. Period/Limit is mostly no
// whole number of ns, so a point has a fraction in units of 1/Limit ns, and nothing is ever rounded.

// point is a time in ns since 1970 plus rem/Limit ns.
type point struct {
	at  int64
	rem uint32
}

// never is more ns than any wait, and small enough that a time of this millennium plus never does not overflow.
const never = 1 << 61

// burst is how many may come at once.
func (r *Rate) burst() int64 {
	if r.Burst > 0 {
		return r.Burst
	}
	return r.Limit
}

// interval is Period/Limit as p ns for l events. l is below 2^32: above, both are cut by a common divisor, and if there is none by
// a power of two, for an error of 2^-32.
func (r *Rate) interval() (p, l uint64) {
	p, l = uint64(max(r.Period, 1)), uint64(max(r.Limit, 1))
	if l < 1<<32 {
		return p, l
	}
	a, b := p, l
	for b != 0 {
		a, b = b, a%b
	}
	p, l = p/a, l/a
	for l >= 1<<32 {
		p, l = max(p>>1, 1), l>>1
	}
	return p, l
}

// scale is n*p/l as whole part and remainder; never if that is too much.
func scale(n int64, p, l uint64) (q int64, rem uint32) {
	hi, lo := bits.Mul64(uint64(n), p)
	if hi == 0 {
		if v := lo / l; v < never {
			return int64(v), uint32(lo % l)
		}
		return never, 0
	}
	if hi >= l {
		return never, 0
	}
	v, r := bits.Div64(hi, lo, l)
	if v >= never {
		return never, 0
	}
	return int64(v), uint32(r)
}

// plus moves a point by n events; n may be negative.
func (t point) plus(n int64, p, l uint64) point {
	if n >= 0 {
		q, rem := scale(n, p, l)
		t.at = min(t.at+q, 2*never)
		if sum := uint64(t.rem) + uint64(rem); sum >= l {
			t.at, t.rem = t.at+1, uint32(sum-l)
		} else {
			t.rem = uint32(sum)
		}
		return t
	}
	q, rem := scale(-n, p, l)
	t.at -= q
	if rem > t.rem {
		t.at--
		t.rem = uint32(uint64(t.rem) + l - uint64(rem))
	} else {
		t.rem -= rem
	}
	return t
}

// from is the point, or now if that is later: a full bucket gets no fuller.
func (t point) from(now int64) point {
	if t.at < now {
		return point{at: now}
	}
	return t
}

// part is what one rate, quota or the concurrency of a limit says about an ask.
type part struct {
	index     int
	ok        bool
	remaining int64
	reset     int64 // ns
	retry     int64 // ns; never; for those that are not ok
}

// ask tells whether cost passes at now on a key at point t, after prior was taken by the same batch, and where t is then.
func (r *Rate) ask(t point, now, prior, cost int64) (part, point) {
	b := r.burst()
	if r.Limit <= 0 {
		return part{retry: never}, t
	}
	p, l := r.interval()
	full, fullRem := int64(p), uint32(0) // as most limits have it, and a division less
	if uint64(b) != l {
		full, fullRem = scale(b, p, l)
	}
	t = t.from(now)
	if prior > 0 {
		t = t.plus(prior, p, l)
	}
	next := t.plus(cost, p, l)
	d := next.at - now
	a := part{ok: d < full || d == full && next.rem <= fullRem}
	if a.ok {
		t = next
	} else if cost > b {
		a.retry = never
	} else if a.retry = d - full; next.rem > fullRem {
		a.retry++
	}
	d = t.at - now
	a.reset = d
	if t.rem > 0 {
		a.reset++
	}
	// What is left: (full - d) ns plus a fraction, of p/l ns for each event.
	if d < full || d == full && t.rem <= fullRem {
		a.remaining = left(full-d, int64(fullRem)-int64(t.rem), p, l)
	}
	return a, next
}

// left is (ns + rem/l) / (p/l), rounded down.
func left(ns, rem int64, p, l uint64) int64 {
	if rem < 0 {
		ns, rem = ns-1, rem+int64(l)
	}
	hi, lo := bits.Mul64(uint64(ns), l)
	lo, carry := bits.Add64(lo, uint64(rem), 0)
	hi += carry
	if hi == 0 {
		return int64(lo / p)
	}
	if hi >= p {
		return 1<<63 - 1
	}
	q, _ := bits.Div64(hi, lo, p)
	return int64(min(q, 1<<63-1))
}

// empty is the latest point that a bucket can reach by asking.
func (r *Rate) empty(now int64) int64 {
	p, l := r.interval()
	q, _ := scale(max(r.burst(), 0), p, l)
	return now + q
}

func span(ns int64) time.Duration {
	if ns >= never {
		return 0
	}
	return time.Duration(ns)
}
