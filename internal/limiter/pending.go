package limiter

import (
	"math"
	"time"
)

// How long what was counted under a shared limit waits at most until the store is told: while more than half of the limit is left, and
// below that. What other processes count is learnt by the same call, so this bounds how old the picture is that Decide works with.
const (
	relaxed = int64(100 * time.Millisecond)
	urgent  = int64(10 * time.Millisecond)
)

// pend is what was counted under a key since the store or the ledger was told last.
type pend struct {
	limit  *Limit
	shared bool
	rates  int64 // events
	quota  int64 // events in the window that ends at end
	end    int64
	since  int64 // ns, when it was made
	due    int64 // ns, when it is to be told
}

// report is what one key has to tell.
type report struct {
	pend
	key   Key
	start int64 // of the window
}

// pend notes that events were counted under the ask's key, in the window that ends at end. It is nil if there are too many such keys.
func (s *shard) pend(b *batch, a *Ask, rates, quota, end, due int64, shared bool) *pend {
	p := s.pending[a.Key]
	if p == nil {
		if len(s.pending) >= s.limit {
			s.evicted++ // the store has been away for long
			return nil
		}
		if n := len(s.free); n > 0 {
			p, s.free = s.free[n-1], s.free[:n-1]
		} else {
			p = new(pend)
		}
		*p = pend{limit: a.Limit, shared: shared, end: end, since: b.ns, due: due}
		if s.pending == nil {
			s.pending = map[Key]*pend{}
		}
		s.pending[a.Key] = p
		if shared {
			b.l.shared.Add(1)
		}
	}
	if p.end != end && p.quota != 0 {
		s.late = append(s.late, s.report(a.Key, &pend{limit: p.limit, shared: p.shared, quota: p.quota, end: p.end}))
		p.quota = 0
		if p.shared {
			b.l.shared.Add(1)
		}
	}
	p.limit, p.end, p.due = a.Limit, end, min(p.due, due)
	s.due = min(s.due, p.due)
	p.rates += rates
	p.quota += quota
	return p
}

func (s *shard) report(key Key, p *pend) report {
	r := report{pend: *p, key: key}
	if p.limit.Quota != nil && p.end != 0 {
		r.start, _ = p.limit.Quota.Window.bounds(time.Unix(p.end-1, 0), p.limit.Quota.Zone)
	}
	return r
}

// collect moves what is due for the store (or for the ledger) out of the shards, until there are most reports. It begins with shard turn,
// and leaves there where to go on, so that none waits longer than the others.
func (l *Limiter) collect(to []report, turn *int, shared bool, due int64, most int) []report {
	for range l.shards {
		s := &l.shards[*turn]
		s.mu.Lock()
		to = s.collect(to, shared, due, most)
		s.mu.Unlock()
		if len(to) >= most {
			break
		}
		*turn = (*turn + 1) % shardCount
	}
	if shared {
		l.shared.Add(-int64(len(to)))
	}
	return to
}

func (s *shard) collect(to []report, shared bool, due int64, most int) []report {
	kept := s.late[:0]
	for _, r := range s.late {
		if r.shared == shared && len(to) < most {
			to = append(to, r)
		} else {
			kept = append(kept, r)
		}
	}
	s.late = kept
	if s.due > due {
		return to
	}
	next := int64(math.MaxInt64)
	for k, p := range s.pending {
		switch {
		case p.shared == shared && p.due <= due && len(to) < most:
			to = append(to, s.report(k, p))
			delete(s.pending, k)
			s.free = append(s.free, p)
		default:
			next = min(next, p.due)
		}
	}
	s.due = next
	return to
}

// loadedCount is what the ledger had for a key that nobody used yet, in the window that begins at start.
func (s *shard) loadedCount(key Key, start int64) int64 {
	if t, ok := s.loaded[key]; ok && t.Start.Unix() == start {
		return t.Count
	}
	return 0
}

func (s *shard) takeLoaded(key Key, start int64) int64 {
	n := s.loadedCount(key, start)
	delete(s.loaded, key)
	return n
}

// learn sets the count of a window to what the ledger or the store has, and what was counted since.
func (l *Limiter) learn(key Key, end, total int64) {
	s := &l.shards[key.shard()]
	s.mu.Lock()
	if e := s.find(key); e != nil && e.end == end {
		if p := s.pending[key]; p != nil && p.end == end {
			total += p.quota
		}
		e.count = max(total, 0)
	}
	s.mu.Unlock()
}
