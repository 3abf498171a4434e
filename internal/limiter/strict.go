package limiter

import (
	"context"
	"errors"
	"time"
)

var (
	errBusy   = errors.New("too many requests wait for the store")
	errNotYet = errors.New("not connected yet")
)

// DecideStrict is Decide for a batch with limits that are Shared and Strict: it asks the store, with one script for all of them and by
// the server's clock, and waits for it at most Options.StoreTimeout or until ctx ends. What is not strict in the batch is counted
// first and given back if the store refuses, so others may see it taken for as long as that takes. When the store does not answer, each
// limit's OnFailure decides; an ask that was on its way may have been counted there.
func (l *Limiter) DecideStrict(ctx context.Context, now time.Time, asks []Ask, out []Answer) bool {
	n := 0
	for i := range asks {
		if asks[i].strict() {
			n++
		}
	}
	if n == 0 || l.down() {
		return l.Decide(now, asks, out)
	}
	b := batch{l: l, now: now, instant: l.instant(now), scope: ours}
	if !b.decide(asks, out) {
		return false
	}
	allowed, err := l.askStore(ctx, now, asks, out)
	if err != nil {
		b := batch{l: l, now: now, instant: l.instant(now), scope: without, down: true}
		allowed = b.decide(asks, out)
	}
	if !allowed {
		l.giveBack(now, asks)
	}
	return allowed
}

// giveBack undoes what scope ours counted.
func (l *Limiter) giveBack(now time.Time, asks []Ask) {
	for i := range asks {
		if a := asks[i]; !a.Peek {
			if !a.strict() {
				l.Refund(now, a)
			}
			l.Release(a)
		}
	}
}

// askStore lets the store decide all strict asks of a batch.
func (l *Limiter) askStore(ctx context.Context, now time.Time, asks []Ask, out []Answer) (bool, error) {
	s := l.store
	var c call
	for i := range asks {
		if a := &asks[i]; a.strict() {
			var start, end int64
			if q := a.Limit.Quota; q != nil {
				start, end = q.Window.bounds(now, q.Zone)
			}
			c.ask(s.prefix, a, start, end)
		}
	}
	v, err := s.strict(ctx, l, c)
	if err != nil {
		return false, err
	}
	allowed, err := l.readAnswers(now, asks, out, v)
	s.done(l, err)
	return allowed, err
}

// strict runs the script, in time.
func (s *store) strict(ctx context.Context, l *Limiter, c call) ([]int64, error) {
	if s.waiting.Add(1) > maxWaiting {
		s.waiting.Add(-1)
		l.storeErrors.Add(1)
		return nil, errBusy
	}
	defer s.waiting.Add(-1)
	limited, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	client := s.client.Load()
	if client == nil {
		l.wake()
		select {
		case <-s.connected:
			client = s.client.Load()
		case <-limited.Done():
			s.done(l, errNotYet)
			return nil, errNotYet
		}
	}
	v, err := s.ask.Exec(limited, *client, c.keys, c.args).AsIntSlice()
	switch {
	case err == nil:
	case ctx.Err() != nil: // the client went away: that says nothing about the store
	default:
		s.done(l, err)
	}
	return v, err
}

// readAnswers makes answers of what the script returned, and keeps what it says in the table, for when the store is away.
func (l *Limiter) readAnswers(now time.Time, asks []Ask, out []Answer, v []int64) (bool, error) {
	if len(v) == 0 {
		return false, errAnswer
	}
	allowed := v[0] == 1
	v = v[1:]
	for i := range asks {
		a := &asks[i]
		if !a.strict() {
			continue
		}
		lim := a.Limit
		var y tally
		var backlog [8]int64
		us := backlog[:0]
		if len(v) < 4*len(lim.Rates) {
			return false, errAnswer
		}
		for j := range lim.Rates {
			p := part{index: j, ok: v[0] == 1, remaining: v[1], reset: min(v[2], never/1000) * 1000, retry: min(v[3], never/1000) * 1000}
			if v[3] < 0 {
				p.retry = never
			}
			us = append(us, v[2])
			y.add(p)
			v = v[4:]
		}
		end, total := int64(0), int64(-1)
		if q := lim.Quota; q != nil {
			if len(v) < 1 {
				return false, errAnswer
			}
			_, end = q.Window.bounds(now, q.Zone)
			y.add(q.ask(v[0], end, now.UnixNano(), 0, max(a.Cost, 0)))
			total = v[0]
			v = v[1:]
		}
		out[i] = y.answer()
		if allowed && !a.Peek {
			if total >= 0 {
				total += max(a.Cost, 0)
			}
			l.adopt(a.Key, lim, us, end, total)
		}
		l.countStrict(a, &out[i])
	}
	return allowed, nil
}

func (l *Limiter) countStrict(a *Ask, out *Answer) {
	s := &l.shards[a.Key.shard()]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.decisions++
	switch {
	case out.Allowed:
	case out.Rate == ByQuota:
		s.refusals.Quota++
	default:
		s.refusals.Rate++
	}
}
