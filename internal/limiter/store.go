package limiter

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

const (
	breakAfter  = 5                    // calls in a row that failed, until nobody waits any more
	probeEvery  = time.Second          // while it is so
	cycle       = 5 * time.Millisecond // between two batches of reports
	reportBatch = 128                  // keys in one
	maxWaiting  = 1024                 // strict batches that wait for the store at once; more are decided without it
)

// store is the connection to Redis, its breaker, and what is being reported. One goroutine connects, probes and reports; strict batches call
// from theirs.
type store struct {
	redis   Redis
	timeout time.Duration // of a strict batch
	prefix  string
	me      string // key of the last batch of reports of this process
	ask     *rueidis.Lua
	report  *rueidis.Lua

	client    atomic.Pointer[rueidis.Client]
	connected chan struct{} // closed when client is set
	once      sync.Once
	open      atomic.Bool
	failed    atomic.Int32
	err       atomic.Pointer[error] // of the last call that failed
	waiting   atomic.Int32
	bell      chan struct{}

	batch  uint64
	turn   int      // the shard to begin with
	outbox []report // the batch that is being told; it is told again until the store has answered
}

func newStore(o Options) *store {
	var id [16]byte
	_, _ = rand.Read(id[:]) // it does not fail
	s := &store{redis: o.Redis, timeout: cmp.Or(o.StoreTimeout, 20*time.Millisecond),
		prefix: "gatehouse:{" + cmp.Or(o.Namespace, "limits") + "}:",
		ask:    rueidis.NewLuaScript(luaAsk), report: rueidis.NewLuaScript(luaReport),
		connected: make(chan struct{}), bell: make(chan struct{}, 1)}
	s.me = s.prefix + "from:" + hex.EncodeToString(id[:])
	return s
}

// down says whether shared limits are decided without a store now.
func (l *Limiter) down() bool { return l.store == nil || l.store.open.Load() }

// wake lets the store's goroutine look for what is to be told, and begins it at the first call.
func (l *Limiter) wake() {
	if !l.begun.Load() {
		l.once.Do(func() {
			l.tasks.Go(func() { l.store.run(l) })
			l.begun.Store(true)
		})
	}
	select {
	case l.store.bell <- struct{}{}:
	default:
	}
}

// done notes how a call of the store went.
func (s *store) done(l *Limiter, err error) {
	if err == nil {
		s.failed.Store(0)
		return
	}
	l.storeErrors.Add(1)
	s.err.Store(&err)
	if s.failed.Add(1) >= breakAfter && !s.open.Swap(true) {
		l.wake()
	}
}

func (s *store) run(l *Limiter) {
	defer s.finish(l)
	for l.ctx.Err() == nil {
		switch {
		case s.client.Load() == nil:
			if !s.connect(l) {
				s.pause(l, probeEvery)
			}
		case s.open.Load():
			s.pause(l, probeEvery)
			s.probe(l)
		case l.shared.Load() > 0 || len(s.outbox) > 0:
			if !s.tell(l.ctx, l, false) {
				s.pause(l, cycle)
			}
		default:
			select {
			case <-l.ctx.Done():
			case <-s.bell:
			}
		}
	}
}

func (s *store) pause(l *Limiter, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-l.ctx.Done():
	case <-t.C:
	}
}

// connect opens the connection. A server that cannot be reached at all opens the breaker at once.
func (s *store) connect(l *Limiter) bool {
	c, err := rueidis.NewClient(s.redis.options())
	if err != nil {
		l.storeErrors.Add(1)
		s.err.Store(&err)
		s.open.Store(true)
		return false
	}
	s.client.Store(&c)
	s.once.Do(func() { close(s.connected) })
	s.failed.Store(0)
	s.open.Store(false)
	return true
}

// probe closes the breaker if the server answers.
func (s *store) probe(l *Limiter) {
	c := *s.client.Load()
	ctx, cancel := context.WithTimeout(l.ctx, s.patience())
	defer cancel()
	if err := c.Do(ctx, c.B().Ping().Build()).Error(); err != nil {
		l.storeErrors.Add(1)
		s.err.Store(&err)
		return
	}
	s.failed.Store(0)
	s.open.Store(false)
}

// patience is how long what nobody waits for may take.
func (s *store) patience() time.Duration { return max(5*s.timeout, 100*time.Millisecond) }

// tell reports what is due (or all) and learns what others counted. It is true if there may be more.
func (s *store) tell(ctx context.Context, l *Limiter, all bool) bool {
	now := l.nanos(time.Now())
	if len(s.outbox) == 0 {
		due := now
		if all {
			due = math.MaxInt64
		}
		if s.outbox = l.collect(s.outbox, &s.turn, true, due, reportBatch); len(s.outbox) == 0 {
			return false
		}
		s.batch++
	}
	c := call{keys: []string{s.me}, args: []string{number(int64(s.batch))}}
	for i := range s.outbox {
		c.report(s.prefix, &s.outbox[i], now)
	}
	ctx, cancel := context.WithTimeout(ctx, s.patience())
	defer cancel()
	v, err := s.report.Exec(ctx, *s.client.Load(), c.keys, c.args).AsIntSlice()
	if err == nil {
		err = l.adoptAll(s.outbox, v)
	}
	s.done(l, err)
	if err != nil {
		return false
	}
	full := len(s.outbox) == reportBatch
	clear(s.outbox)
	s.outbox = s.outbox[:0]
	return full
}

// finish tells the rest, if the store is there, and closes.
func (s *store) finish(l *Limiter) {
	c := s.client.Load()
	if c == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for !s.open.Load() && ctx.Err() == nil && (l.shared.Load() > 0 || len(s.outbox) > 0) {
		failed := s.failed.Load()
		if s.tell(ctx, l, true); s.failed.Load() > failed {
			break
		}
	}
	(*c).Close()
}

var errAnswer = errors.New("the store's answer is not what the script returns")

// adoptAll takes what the store said about each report into the table.
func (l *Limiter) adoptAll(reports []report, v []int64) error {
	for i := range reports {
		r := &reports[i]
		n := len(r.limit.Rates)
		hasQuota := r.limit.Quota != nil && r.end != 0
		if len(v) < n || hasQuota && len(v) < n+1 {
			return fmt.Errorf("%w: %d numbers too few", errAnswer, n+1-len(v))
		}
		rates, total := v[:n], int64(-1)
		v = v[n:]
		if hasQuota {
			total, v = v[0], v[1:]
		}
		l.adopt(r.key, r.limit, rates, r.end, total)
	}
	return nil
}

// adopt sets a key to what the store says all processes together counted, and what this one counted since: us until each bucket
// is full, and the total of the window that ends at end (below 0: none).
func (l *Limiter) adopt(key Key, lim *Limit, us []int64, end, total int64) {
	now := time.Now()
	b := batch{l: l, now: now, instant: l.instant(now)}
	s := &l.shards[key.shard()]
	s.mu.Lock()
	defer s.mu.Unlock()
	var since pend
	if p := s.pending[key]; p != nil && p.shared {
		since = *p
	}
	for g := 0; 2*g < len(us); g++ {
		group, q := lim.group(g)
		sh := shape(group, q)
		e := s.find(key.sub(g))
		if e == nil {
			e, _ = s.touch(key.sub(g), sh, b.instant)
		}
		if e.shape != sh {
			continue // the limit was changed meanwhile
		}
		for j := range group {
			if group[j].Limit > 0 {
				p, r := group[j].interval()
				e.set(j, point{at: b.ns + min(us[2*g+j], never/1000)*1000}.plus(since.rates, p, r))
			}
		}
	}
	if total < 0 || lim.Quota == nil {
		return
	}
	group, q := lim.group(0)
	e, _ := s.touch(key, shape(group, q), b.instant)
	if e.windowOver(b.instant) {
		e.end = end
	}
	if e.end == end {
		if since.end == end {
			total += since.quota
		}
		e.count = max(total, 0)
	}
}
