package limiter

import (
	"sync"
	"time"
)

const (
	shardCount = 64  // each with its own lock
	chunkSize  = 128 // entries that are allocated together, 8 KiB
	sweepEvery = 10 * time.Second
)

// entry is what is known of one key: 64 bytes, one cache line, without a pointer that the garbage collector would have to follow. A limit of
// more than two rates has further entries, under Key.sub.
type entry struct {
	key    Key
	at     [2]int64 // of the points of two rates
	count  int64    // of the quota's window
	end    int64    // of that window, in seconds since 1970
	rem    [2]uint32
	flight int32  // under way
	shape  uint32 // of the limit that it counts for
}

func (e *entry) point(i int) point  { return point{e.at[i&1], e.rem[i&1]} }
func (e *entry) set(i int, t point) { e.at[i&1], e.rem[i&1] = t.at, t.rem }

func (e *entry) dead(at instant) bool {
	return e.flight == 0 && max(e.at[0], e.at[1]) <= at.ns && (e.count == 0 || e.windowOver(at))
}

func (e *entry) windowOver(at instant) bool { return e.end*1e9 <= at.wall }

// instant is a time in ns since 1970, twice: by the monotonic clock, for rates, and by the one on the wall, for windows. They
// part when the wall's is set.
type instant struct{ ns, wall int64 }

func (l *Limiter) instant(now time.Time) instant {
	return instant{ns: l.nanos(now), wall: now.UnixNano()}
}

// horizon is about when the entry holds nothing any more, if nobody comes.
func (e *entry) horizon() int64 {
	h := max(e.at[0], e.at[1])
	if e.count > 0 {
		h = max(h, e.end*1e9)
	}
	return h
}

// shard is a 64th of the keys: entries lie dense in chunks, and index finds them by linear probing. A chunk never moves, so a growing
// table copies no entries.
type shard struct {
	mu     sync.Mutex
	index  []uint32 // position+1 of an entry; 0: free. Its length is a power of two
	chunks []*[chunkSize]entry
	n      int // entries
	limit  int
	hand   int // where the next sweep begins

	pending            map[Key]*pend // what store or ledger are still to be told
	free               []*pend       // for reuse
	due                int64         // when the first of pending is to be told, or earlier
	late               []report      // of windows that ended before they were told
	loaded             map[Key]Total // of the ledger, for keys that nobody used yet
	decisions, evicted uint64
	refusals           Refusals
	_                  [64]byte // the next shard's lock lies in a cache line of its own
}

func (s *shard) at(pos int) *entry { return &s.chunks[pos/chunkSize][pos%chunkSize] }

// find is the entry of key, or nil. It is good until the next insertion or removal.
func (s *shard) find(key Key) *entry {
	if len(s.index) == 0 {
		return nil
	}
	mask := uint32(len(s.index) - 1)
	for i := key.hash() & mask; s.index[i] != 0; i = (i + 1) & mask {
		if e := s.at(int(s.index[i] - 1)); e.key == key {
			return e
		}
	}
	return nil
}

// touch finds or makes the entry of key.
func (s *shard) touch(key Key, shape uint32, now instant) (e *entry, made bool) {
	if e := s.find(key); e != nil {
		return e, false
	}
	s.clean(2, now) // twice as fast as it grows
	if s.n >= s.limit {
		s.evict()
	}
	if (s.n+1)*4 > len(s.index)*3 {
		s.reindex(max(2*len(s.index), 16))
	}
	if s.n == len(s.chunks)*chunkSize {
		s.chunks = append(s.chunks, new([chunkSize]entry))
	}
	e = s.at(s.n)
	*e = entry{key: key, shape: shape}
	s.n++
	s.link(key, uint32(s.n))
	return e, true
}

func (s *shard) link(key Key, v uint32) {
	mask := uint32(len(s.index) - 1)
	i := key.hash() & mask
	for s.index[i] != 0 {
		i = (i + 1) & mask
	}
	s.index[i] = v
}

func (s *shard) reindex(size int) {
	s.index = make([]uint32, size)
	for pos := range s.n {
		s.link(s.at(pos).key, uint32(pos+1))
	}
}

// slot is where the index holds position pos.
func (s *shard) slot(pos int) uint32 {
	mask := uint32(len(s.index) - 1)
	i := s.at(pos).key.hash() & mask
	for s.index[i] != uint32(pos+1) {
		i = (i + 1) & mask
	}
	return i
}

// remove drops the entry at pos; the last one takes its place.
func (s *shard) remove(pos int) {
	mask := uint32(len(s.index) - 1)
	hole := s.slot(pos)
	s.index[hole] = 0
	// Entries behind the hole that were pushed past it move up, so that probing never stops early (Knuth 6.4, algorithm R).
	for i := (hole + 1) & mask; s.index[i] != 0; i = (i + 1) & mask {
		home := s.at(int(s.index[i]-1)).key.hash() & mask
		if (i-home)&mask >= (i-hole)&mask {
			s.index[hole], s.index[i] = s.index[i], 0
			hole = i
		}
	}
	last := s.n - 1
	if pos != last {
		s.index[s.slot(last)] = uint32(pos + 1)
		*s.at(pos) = *s.at(last)
	}
	s.n = last
}

// clean looks at the next n entries and drops those that hold nothing.
func (s *shard) clean(n int, now instant) {
	for range min(n, s.n) {
		if s.hand >= s.n {
			s.hand = 0
		}
		if s.n > 0 && s.at(s.hand).dead(now) {
			s.remove(s.hand)
		} else {
			s.hand++
		}
	}
}

// evict drops, of the next 16 entries, the one that is nearest to holding nothing: a flood of keys that come once does not drive
// out quotas and those who are refused. Entries of requests under way go last.
func (s *shard) evict() {
	best, bestAt := -1, int64(0)
	for range min(16, s.n) {
		if s.hand >= s.n {
			s.hand = 0
		}
		e := s.at(s.hand)
		h := e.horizon()
		if e.flight > 0 {
			h = max(h, 0) + never
		}
		if best < 0 || h < bestAt {
			best, bestAt = s.hand, h
		}
		s.hand++
	}
	if best >= 0 {
		s.remove(best)
		s.evicted++
	}
}

// shrink gives memory back when at most a quarter of it is in use.
func (s *shard) shrink() {
	need := (s.n + chunkSize - 1) / chunkSize
	if len(s.chunks) <= 4*need+1 {
		return
	}
	s.chunks = append([]*[chunkSize]entry(nil), s.chunks[:need]...)
	size := 16
	for size*3 < (s.n+1)*8 {
		size *= 2
	}
	s.reindex(size)
}

// sweep drops entries that hold nothing, so that a table that nobody adds to gets small too.
func (l *Limiter) sweep() {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-t.C:
		}
		for i := range l.shards {
			l.shards[i].sweep(l.instant(time.Now()))
		}
	}
}

// sweep holds the lock for 1024 entries at a time, some 10 us.
func (s *shard) sweep(now instant) {
	s.mu.Lock()
	for left := s.n; left > 0; left -= 1024 {
		s.clean(1024, now)
		s.mu.Unlock()
		s.mu.Lock()
	}
	for k, t := range s.loaded {
		if t.Expires.UnixNano() <= now.wall {
			delete(s.loaded, k)
		}
	}
	s.shrink()
	s.mu.Unlock()
}

// shape is a fingerprint of rates and window: when it changes under a key, what was counted is fitted to the new limit.
// It is the same in all processes, as the store holds it too.
func shape(rates []Rate, q *Quota) uint32 {
	h := uint64(0x9e3779b97f4a7c15)
	for i := range rates {
		r := &rates[i]
		h = (h ^ uint64(r.Limit)) * 0xff51afd7ed558ccd
		h = (h ^ h>>32 ^ uint64(r.Period)) * 0xc4ceb9fe1a85ec53
		h = (h ^ h>>32 ^ uint64(r.Burst)) * 0xff51afd7ed558ccd
	}
	if q != nil {
		h = (h ^ h>>32 ^ (uint64(q.Window) + 1)) * 0xc4ceb9fe1a85ec53
	}
	return uint32(h>>32) | 1
}
