// Package limiter holds the arithmetic of limits: rates (GCRA), quotas of calendar windows, and concurrency, in process and
// shared through Redis or Valkey. It promises that a batch of limits is all or nothing, that Decide never waits, allocates
// nothing in steady state and never refuses because its table is full, and that a store which is away costs a request at most
// one short wait. It never logs, never opens a connection before a shared limit is asked for, and knows nothing of requests
// or policies: what it counts are costs under keys.
package limiter

import (
	"cmp"
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Rate lets Limit events through in each Period, evenly refilled, and Burst of them at once after a pause. Period must be above
// 0; a Limit of 0 lets nothing pass.
type Rate struct {
	Limit  int64
	Period time.Duration
	Burst  int64 // 0: as Limit
}

// Quota lets Limit events through in each calendar window.
type Quota struct {
	Limit  int64
	Window Window
	Zone   *time.Location // where days begin; nil: UTC
}

// Failure says what a shared limit does while the store does not answer.
type Failure uint8

// The ways to go on without the store: the same limit in this process alone, let everything pass, refuse everything.
const (
	Local Failure = iota
	Allow
	Deny
)

// Limit is one limit of a policy. It is made once and never changed; a changed limit under the same key keeps what was counted,
// but no more debt than an empty bucket of its own.
type Limit struct {
	Rates       []Rate // all must hold
	Quota       *Quota // nil: none
	Concurrency int64  // how many may be under way at once, in each process, also if Shared; 0: any number
	Shared      bool   // rates and quota are counted in the store, for all processes
	Strict      bool   // if Shared: ask the store for each request (DecideStrict); else decide by what it said last
	OnFailure   Failure
}

// Ask is a question to one limit: may Cost (below 0: 0) be counted under Key? A limit's concurrency is taken by 1, whatever Cost
// is. A cost of 0 passes unless more than the limit was charged.
type Ask struct {
	Limit *Limit
	Key   Key
	Cost  int64
	Peek  bool // count nothing
}

// Which part of a limit decided, where it was no rate.
const (
	ByQuota       = -1
	ByConcurrency = -2
	ByStore       = -3 // the store did not answer, and OnFailure is Allow or Deny
)

// Answer is what one limit says. An Answer of a refused batch may itself be Allowed; nothing is counted then.
type Answer struct {
	Allowed   bool
	Remaining int64         // of the part of which least is left, at least 0; with concurrency alone, its free places
	Reset     time.Duration // until that rate's bucket is full again, or the window ends
	// RetryAfter, when refused, is how long until the same cost passes if nobody else comes: 0 is never, as the cost is above what
	// the limit lets through at once. It is 1 s where nobody can know: concurrency, and a store that does not answer.
	RetryAfter time.Duration
	Rate       int  // index of the rate that decided (or has least left), ByQuota, ByConcurrency, ByStore
	Degraded   bool // the store did not answer: OnFailure decided
}

// Options of a Limiter. The zero value is a limiter without store and ledger.
type Options struct {
	Redis        Redis         // of ParseRedisURL; zero: no store
	StoreTimeout time.Duration // how long DecideStrict waits; 0: 20 ms
	Namespace    string        // of keys in the store, for several installations on one; "": limits
	Ledger       Ledger        // nil: quotas that are not shared live in memory alone
	FlushEvery   time.Duration // how often the ledger is told, at most 1 s; 0: 500 ms
	MaxKeys      int           // keys in memory at most; 0: 1,000,000
}

// Limiter counts. All its methods may be called by many at once.
type Limiter struct {
	base   time.Time // times are counted from here by the monotonic clock, so that a clock that is set changes no bucket
	baseNS int64
	shards [shardCount]shard
	store  *store // nil: none
	ledger *ledgerKeeper
	stop   context.CancelFunc
	ctx    context.Context
	tasks  sync.WaitGroup
	once   sync.Once // starts the store's goroutine
	begun  atomic.Bool

	shared      atomic.Int64 // keys with something to tell the store
	storeErrors atomic.Uint64
}

// New makes a limiter. It never blocks and never fails; Close it.
func New(o Options) *Limiter {
	now := time.Now()
	l := &Limiter{base: now, baseNS: now.UnixNano()}
	l.ctx, l.stop = context.WithCancel(context.Background())
	perShard := max(cmp.Or(o.MaxKeys, 1_000_000)/shardCount, 1)
	for i := range l.shards {
		l.shards[i].limit = perShard
	}
	if o.Redis.set() {
		l.store = newStore(o)
	}
	if o.Ledger != nil {
		l.ledger = newLedgerKeeper(o)
		l.tasks.Go(func() { l.ledger.run(l) })
	}
	l.tasks.Go(l.sweep)
	return l
}

// Close tells store and ledger what was counted (for a second at most) and ends all goroutines. Nothing may be decided after it.
func (l *Limiter) Close() {
	l.once.Do(func() {}) // no store goroutine begins any more
	l.stop()
	l.tasks.Wait()
}

// nanos is now in ns since 1970, by the monotonic clock where now has one.
func (l *Limiter) nanos(now time.Time) int64 { return l.baseNS + int64(now.Sub(l.base)) }

// Refusals counts asks that were refused, by what refused them.
type Refusals struct{ Rate, Quota, Concurrency, Store uint64 }

// Stats is a count of everything, for metrics.
type Stats struct {
	Keys        int      // entries in memory
	Decisions   uint64   // asks that were answered
	Refusals    Refusals // of them
	StoreErrors uint64   // calls of the store that failed or took too long
	StoreOpen   bool     // the breaker is open: the store is not asked
	Evicted     uint64   // entries dropped because there were too many
	StoreError  string   // why the last of them failed, while the breaker is open
	LedgerError string   // why the last flush or load failed; "": it did not
}

// Stats sums up. It takes each shard's lock for some nanoseconds.
func (l *Limiter) Stats() Stats {
	s := Stats{StoreErrors: l.storeErrors.Load(), StoreOpen: l.store != nil && l.store.open.Load()}
	for i := range l.shards {
		h := &l.shards[i]
		h.mu.Lock()
		s.Keys += h.n
		s.Decisions += h.decisions
		s.Evicted += h.evicted
		s.Refusals.Rate += h.refusals.Rate
		s.Refusals.Quota += h.refusals.Quota
		s.Refusals.Concurrency += h.refusals.Concurrency
		s.Refusals.Store += h.refusals.Store
		h.mu.Unlock()
	}
	if s.StoreOpen {
		if err := l.store.err.Load(); err != nil {
			s.StoreError = (*err).Error()
		}
	}
	if l.ledger != nil {
		if err := l.ledger.err.Load(); err != nil && *err != nil {
			s.LedgerError = (*err).Error()
		}
	}
	return s
}
