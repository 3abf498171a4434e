package limiter

import (
	"cmp"
	"context"
	"iter"
	"sync"
	"sync/atomic"
	"time"
)

// Delta is what one process counted in a window.
type Delta struct {
	Key     Key
	Start   time.Time // of the window
	Expires time.Time // its end: nobody asks for it afterwards
	N       int64     // may be negative, after refunds
}

// Total is what all processes counted in a window.
type Total struct {
	Key     Key
	Start   time.Time
	Expires time.Time // not needed in what Add returns
	Count   int64
}

// Ledger keeps counts of quotas for ever and for all processes. The limiter calls it from one goroutine.
type Ledger interface {
	// Load yields every window that is not over. It is called once, and again if it yields an error: soon at first, then each second.
	Load(ctx context.Context) iter.Seq2[Total, error]
	// Add adds deltas, all or none, and returns the totals then, in any order. After an error the same deltas come again, with what was
	// counted meanwhile: an Add that fails must have added nothing. It gives up when ctx ends.
	Add(ctx context.Context, deltas []Delta) ([]Total, error)
}

const (
	ledgerBatch   = 4096 // deltas at most in one Add
	ledgerTimeout = 10 * time.Second
	firstPause    = 20 * time.Millisecond // before the ledger is read again; doubled up to a second
	loadWithin    = time.Second           // how long Durable waits
)

// ledgerKeeper tells a ledger what was counted.
type ledgerKeeper struct {
	ledger Ledger
	every  time.Duration
	turn   int // the shard to begin with
	err    atomic.Pointer[error]
	once   sync.Once
	wanted chan struct{} // closed by Durable
	loaded chan struct{} // closed when all windows were read
}

func newLedgerKeeper(o Options) *ledgerKeeper {
	return &ledgerKeeper{wanted: make(chan struct{}), loaded: make(chan struct{}), ledger: o.Ledger, every: min(cmp.Or(o.FlushEvery, 500*time.Millisecond), time.Second)}
}

// Durable has the ledger read, and written from then on: a quota is there. It may be called again. The first call waits until all is read,
// for a second at most: a process that was started anew would let through a quota once more before it knows.
func (l *Limiter) Durable() {
	k := l.ledger
	if k == nil {
		return
	}
	k.once.Do(func() {
		close(k.wanted)
		t := time.NewTimer(loadWithin)
		defer t.Stop()
		select {
		case <-k.loaded:
		case <-t.C:
		case <-l.ctx.Done():
		}
	})
}

func (k *ledgerKeeper) run(l *Limiter) {
	select {
	case <-l.ctx.Done():
		return
	case <-k.wanted:
	}
	// The database may just be opening: until it is read, quotas count from 0.
	for pause := firstPause; !k.load(l); pause = min(2*pause, time.Second) {
		select {
		case <-l.ctx.Done():
			k.last(l, nil)
			return
		case <-time.After(pause):
		}
	}
	close(k.loaded)
	t := time.NewTicker(k.every)
	defer t.Stop()
	var kept []Delta
	for {
		select {
		case <-l.ctx.Done():
			k.last(l, kept)
			return
		case <-t.C:
			ctx, cancel := context.WithTimeout(l.ctx, ledgerTimeout)
			kept = k.flush(ctx, l, kept)
			cancel()
		}
	}
}

// last is the flush before the end.
func (k *ledgerKeeper) last(l *Limiter, kept []Delta) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	k.flush(ctx, l, kept)
}

// load reads all windows once. Those of keys that were used meanwhile are added, others wait for their key.
func (k *ledgerKeeper) load(l *Limiter) bool {
	var all []Total
	for t, err := range k.ledger.Load(l.ctx) {
		if err != nil {
			k.err.Store(&err)
			return false
		}
		all = append(all, t)
	}
	for _, t := range all {
		s := &l.shards[t.Key.shard()]
		s.mu.Lock()
		if e := s.find(t.Key); e != nil && e.end == t.Expires.Unix() {
			e.count += t.Count
		} else {
			if s.loaded == nil {
				s.loaded = map[Key]Total{}
			}
			if t.Start.After(s.loaded[t.Key].Start) {
				s.loaded[t.Key] = t
			}
		}
		s.mu.Unlock()
	}
	k.err.Store(new(error))
	return true
}

// flush adds what was counted, and returns the deltas that are to be tried again.
func (k *ledgerKeeper) flush(ctx context.Context, l *Limiter, deltas []Delta) []Delta {
	for {
		if len(deltas) < ledgerBatch {
			reports := l.collect(nil, &k.turn, false, l.nanos(time.Now()), ledgerBatch-len(deltas))
			for i := range reports {
				r := &reports[i]
				if r.quota != 0 {
					deltas = append(deltas, Delta{Key: r.key, Start: time.Unix(r.start, 0), Expires: time.Unix(r.end, 0), N: r.quota})
				}
			}
		}
		if len(deltas) == 0 {
			return nil
		}
		totals, err := k.ledger.Add(ctx, deltas)
		k.err.Store(&err)
		if err != nil {
			return deltas
		}
		newest := make(map[Key]*Delta, len(deltas))
		for i := range deltas {
			if d := newest[deltas[i].Key]; d == nil || d.Start.Before(deltas[i].Start) {
				newest[deltas[i].Key] = &deltas[i]
			}
		}
		for _, t := range totals {
			if d := newest[t.Key]; d != nil && d.Start.Equal(t.Start) {
				l.learn(t.Key, d.Expires.Unix(), t.Count)
			}
		}
		if len(deltas) < ledgerBatch {
			return nil
		}
		deltas = deltas[:0]
	}
}
