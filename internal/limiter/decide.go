package limiter

import (
	"math"
	"math/bits"
	"time"
)

// Decide answers asks[i] in out[i], which must be as long, and reports whether all passed. If so all are counted, else none.
// It never waits. Limits that are Shared are decided by what the store said last, Strict ones too.
func (l *Limiter) Decide(now time.Time, asks []Ask, out []Answer) bool {
	b := batch{l: l, now: now, instant: l.instant(now), down: l.down()}
	return b.decide(asks, out)
}

// scope is which parts of a batch are decided here.
type scope uint8

const (
	whole   scope = iota
	ours          // all but the rates and quotas of strict limits, which the store is asked for
	without       // only those, as the store did not answer
)

// decide answers and counts.
func (b *batch) decide(asks []Ask, out []Answer) bool {
	b.lock(asks)
	allowed := true
	for i := range asks {
		if b.scope != without || asks[i].strict() {
			out[i] = b.check(asks, i)
		}
		allowed = allowed && out[i].Allowed
	}
	for i := range asks {
		a := &asks[i]
		if b.scope == without && !a.strict() {
			continue
		}
		s := &b.l.shards[a.Key.shard()]
		if b.scope != ours || !a.strict() || !out[i].Allowed {
			s.decisions++
		}
		switch {
		case !out[i].Allowed:
			b.refused(s, a, &out[i])
		case allowed && !a.Peek:
			b.take(s, a, &out[i])
		}
	}
	b.unlock()
	if b.wake {
		b.l.wake()
	}
	return allowed
}

func (a *Ask) strict() bool { return a.Limit.Shared && a.Limit.Strict }

// batch is one call: its shards are locked in their order, so that two batches never wait for each other.
type batch struct {
	l   *Limiter
	now time.Time
	instant
	scope scope
	mask  uint64 // shards that are locked
	down  bool   // no store, or its breaker is open
	wake  bool   // the store is to be told something
}

func (b *batch) lock(asks []Ask) {
	for i := range asks {
		b.mask |= 1 << asks[i].Key.shard()
	}
	for m := b.mask; m != 0; m &= m - 1 {
		b.l.shards[bits.TrailingZeros64(m)].mu.Lock()
	}
}

func (b *batch) unlock() {
	for m := b.mask; m != 0; m &= m - 1 {
		b.l.shards[bits.TrailingZeros64(m)].mu.Unlock()
	}
}

// check answers asks[i] and counts nothing. Earlier asks of the batch for the same key count as taken.
func (b *batch) check(asks []Ask, i int) Answer {
	a := &asks[i]
	s := &b.l.shards[a.Key.shard()]
	var prior, priorFlight int64
	for j := range asks[:i] {
		if asks[j].Key == a.Key && !asks[j].Peek {
			prior += max(asks[j].Cost, 0)
			if asks[j].Limit.Concurrency > 0 {
				priorFlight++
			}
		}
	}
	var y tally
	lim := a.Limit
	e := s.find(a.Key)
	switch {
	case lim.Shared && b.down && lim.OnFailure == Deny:
		return Answer{RetryAfter: time.Second, Rate: ByStore, Degraded: true}
	case lim.Shared && b.down && lim.OnFailure == Allow, b.scope == ours && a.strict():
	default:
		b.parts(s, e, a, prior, &y)
	}
	if lim.Concurrency > 0 && b.scope != without {
		if e != nil {
			priorFlight += int64(e.flight)
		}
		y.concurrency(lim.Concurrency, priorFlight)
	}
	out := y.answer()
	out.Degraded = lim.Shared && b.down
	return out
}

// parts asks all rates and the quota of a limit.
func (b *batch) parts(s *shard, e *entry, a *Ask, prior int64, y *tally) {
	lim, cost := a.Limit, max(a.Cost, 0)
	for i := range lim.Rates {
		if i&1 == 0 {
			if i > 0 {
				e = s.find(a.Key.sub(i / 2))
			}
			b.fit(e, lim, i/2)
		}
		var t point
		if e != nil {
			t = e.point(i)
		}
		p, _ := lim.Rates[i].ask(t, b.ns, prior, cost)
		p.index = i
		y.add(p)
	}
	if lim.Quota == nil {
		return
	}
	if len(lim.Rates) > 2 {
		e = s.find(a.Key)
	} else if len(lim.Rates) == 0 {
		b.fit(e, lim, 0)
	}
	var count, end int64
	if e != nil && !e.windowOver(b.instant) {
		count, end = e.count, e.end
	} else {
		var start int64
		start, end = lim.Quota.Window.bounds(b.now, lim.Quota.Zone)
		count = s.loadedCount(a.Key, start)
	}
	y.add(lim.Quota.ask(count, end, b.wall, prior, cost))
}

// group is the part of a limit that the entry under Key.sub(g) holds.
func (lim *Limit) group(g int) (rates []Rate, q *Quota) {
	n := len(lim.Rates)
	rates = lim.Rates[min(2*g, n):min(2*g+2, n)]
	if g == 0 {
		q = lim.Quota
	}
	return rates, q
}

// fit makes an entry that counted for another limit count for this one: it owes at most a whole bucket, and its window is that of
// the quota now.
func (b *batch) fit(e *entry, lim *Limit, g int) {
	if e == nil {
		return
	}
	rates, q := lim.group(g)
	sh := shape(rates, q)
	if e.shape == sh {
		return
	}
	e.shape = sh
	e.rem = [2]uint32{}
	for i := range e.at {
		if i < len(rates) {
			e.at[i] = min(e.at[i], rates[i].empty(b.ns))
		} else {
			e.at[i] = 0
		}
	}
	if q != nil {
		if _, end := q.Window.bounds(b.now, q.Zone); end == e.end {
			return
		}
	}
	e.count, e.end = 0, 0
}

// take counts an ask that passed.
func (b *batch) take(s *shard, a *Ask, out *Answer) {
	lim := a.Limit
	if b.scope != ours || !a.strict() {
		// Of what passes for want of a store only the quota is counted: somebody may pay for it. A rate is over when the store is back.
		b.count(s, a, max(a.Cost, 0), !(lim.Shared && b.down && lim.OnFailure == Allow))
	}
	if lim.Concurrency > 0 && b.scope != without {
		rates, q := lim.group(0)
		e, _ := s.touch(a.Key, shape(rates, q), b.instant)
		e.flight++
		if len(lim.Rates) == 0 && lim.Quota == nil {
			out.Remaining = max(out.Remaining-1, 0)
		}
	}
}

// count moves rates and quota by n events, whatever they are then; n may be negative.
func (b *batch) count(s *shard, a *Ask, n int64, rates bool) {
	lim := a.Limit
	if n == 0 {
		return
	}
	made, half := false, false
	for i := 0; rates && i < len(lim.Rates); i += 2 {
		group, q := lim.group(i / 2)
		e, m := s.touch(a.Key.sub(i/2), shape(group, q), b.instant)
		b.fit(e, lim, i/2)
		made = made || m
		for j := range group {
			r := &group[j]
			if r.Limit <= 0 {
				continue
			}
			p, l := r.interval()
			t := e.point(j).from(b.ns).plus(n, p, l)
			e.set(j, t)
			half = half || lim.Shared && t.at-b.ns > (r.empty(b.ns)-b.ns)/2
		}
	}
	var start, end int64
	left := int64(math.MaxInt64)
	if q := lim.Quota; q != nil {
		group, _ := lim.group(0)
		e, m := s.touch(a.Key, shape(group, q), b.instant)
		b.fit(e, lim, 0)
		made = made || m
		if e.end == 0 || e.windowOver(b.instant) {
			start, e.end = q.Window.bounds(b.now, q.Zone)
			e.count = s.takeLoaded(a.Key, start)
		}
		e.count = max(e.count+n, 0)
		end, left = e.end, q.Limit-e.count
	}
	switch {
	case lim.Shared && b.l.store != nil && !rates && lim.Quota == nil: // nothing was counted
	case lim.Shared && b.l.store != nil:
		due := b.ns + relaxed
		if made {
			due = b.ns
		} else if half {
			due = b.ns + urgent
		}
		moved := n
		if !rates {
			moved = 0
		}
		// What passes too much of a quota is never made up for: the nearer its end, the sooner all are told.
		if p := s.pend(b, a, moved, n, end, due, true); p != nil && p.quota > left/16 {
			p.due, s.due = b.ns, min(s.due, b.ns)
		}
		b.wake = true
	case lim.Quota != nil && b.l.ledger != nil:
		s.pend(b, a, 0, n, end, 0, false)
	}
}

// refused counts a refusal. A shared quota that is used up is looked at again now and then: another process may give back.
func (b *batch) refused(s *shard, a *Ask, out *Answer) {
	switch out.Rate {
	case ByQuota:
		s.refusals.Quota++
		if a.Limit.Shared && b.l.store != nil && !b.down {
			if e := s.find(a.Key); e != nil {
				s.pend(b, a, 0, 0, e.end, b.ns+int64(time.Second), true)
				b.wake = true
			}
		}
	case ByConcurrency:
		s.refusals.Concurrency++
	case ByStore:
		s.refusals.Store++
	default:
		s.refusals.Rate++
	}
}

// Charge counts a.Cost without asking: the cost of a response, a failed login. What it owes may exceed the limit: then nothing passes until
// that is over.
func (l *Limiter) Charge(now time.Time, a Ask) { l.adjust(now, &a, max(a.Cost, 0)) }

// Refund gives back the rates and quota of an ask that was allowed, because something after it refused. Its place in a concurrency limit
// stays taken until Release.
func (l *Limiter) Refund(now time.Time, a Ask) { l.adjust(now, &a, -max(a.Cost, 0)) }

func (l *Limiter) adjust(now time.Time, a *Ask, n int64) {
	b := batch{l: l, now: now, instant: l.instant(now)}
	s := &l.shards[a.Key.shard()]
	s.mu.Lock()
	b.count(s, a, n, true)
	s.mu.Unlock()
	if b.wake {
		l.wake()
	}
}

// Release gives the place of a request that is over back. Each allowed ask to a limit with Concurrency needs one.
func (l *Limiter) Release(a Ask) {
	if a.Limit.Concurrency <= 0 || a.Peek {
		return
	}
	s := &l.shards[a.Key.shard()]
	s.mu.Lock()
	if e := s.find(a.Key); e != nil && e.flight > 0 {
		e.flight--
	}
	s.mu.Unlock()
}

// tally makes one answer of what the parts of a limit say.
type tally struct {
	worst   part
	any     bool // worst is set
	refused bool
	free    int64 // of concurrency, if any
	limited bool  // there is a concurrency
}

func (y *tally) add(p part) {
	take := !y.any
	switch {
	case !p.ok:
		take = !y.refused || p.retry > y.worst.retry
		y.refused = true
	case !y.refused && y.any:
		take = p.remaining < y.worst.remaining || p.remaining == y.worst.remaining && p.reset > y.worst.reset
	}
	if take {
		y.worst, y.any = p, true
	}
}

func (y *tally) concurrency(limit, flight int64) {
	y.limited, y.free = true, max(limit-flight, 0)
	if flight >= limit {
		y.add(part{index: ByConcurrency, retry: int64(time.Second)})
	}
}

func (y *tally) answer() Answer {
	if !y.any {
		if y.limited {
			return Answer{Allowed: true, Remaining: y.free, Rate: ByConcurrency}
		}
		return Answer{Allowed: true, Remaining: math.MaxInt64}
	}
	w := &y.worst
	return Answer{Allowed: !y.refused, Remaining: w.remaining, Reset: span(w.reset), RetryAfter: span(w.retry), Rate: w.index}
}
