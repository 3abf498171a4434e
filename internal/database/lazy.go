package database

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"
)

// Lazy is a database that is opened when somebody first wants something of it: who configured neither keys nor quotas needs none. Nothing
// of it waits for the database to answer.
type Lazy struct {
	options Options
	db      atomic.Pointer[DB]
	err     atomic.Pointer[error]

	mu     sync.Mutex
	begun  bool  // opening, or open
	keys   *Keys // nil: nobody wants them
	closed bool
	want   chan struct{} // closed when keys is set
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}
	last   error // what ending returned
}

// NewLazy opens nothing yet. Close ends what it starts.
func NewLazy(o Options) *Lazy {
	ctx, cancel := context.WithCancel(context.Background())
	return &Lazy{options: o, want: make(chan struct{}), ctx: ctx, cancel: cancel, done: make(chan struct{})}
}

// Keys returns the table of keys, which is filled when the database is open: see its Ready.
func (l *Lazy) Keys() *Keys {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.keys == nil {
		l.keys = NewKeys()
		close(l.want)
	}
	l.begin()
	return l.keys
}

// Ledger returns the counters of quotas. Until the database is open they answer with ErrNotOpen.
func (l *Lazy) Ledger() *Ledger {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin()
	return &Ledger{l}
}

// Err is why the database could not be opened, or not be followed; nil while there is nothing wrong, also before it is first wanted.
func (l *Lazy) Err() error {
	if p := l.err.Load(); p != nil && *p != nil {
		return *p
	}
	if k := l.wanted(); k != nil {
		return k.Err()
	}
	return nil
}

// Stale is that of the keys, and 0 if nobody wants them.
func (l *Lazy) Stale() time.Duration {
	if k := l.wanted(); k != nil {
		return k.Stale()
	}
	return 0
}

func (l *Lazy) wanted() *Keys {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.keys
}

// begin starts opening, once. l.mu is held.
func (l *Lazy) begin() {
	if l.begun || l.closed {
		return
	}
	l.begun = true
	go func() {
		defer close(l.done)
		l.last = l.live()
	}()
}

// live opens the database and serves it until Close.
func (l *Lazy) live() error {
	d := l.open()
	if d == nil {
		return nil
	}
	l.db.Store(d)
	select {
	case <-l.ctx.Done():
	case <-l.want:
		err := l.wanted().Follow(l.ctx, d)
		return errors.Join(err, d.Close())
	}
	return d.Close()
}

// open tries until it succeeds, with pauses of 100 ms to 5 s; nil: there was a Close first.
func (l *Lazy) open() *DB {
	for wait := firstWait; ; wait = min(2*wait, longWait) {
		d, err := Open(l.ctx, l.options)
		if err == nil {
			l.err.Store(nil)
			return d
		}
		l.err.Store(&err)
		if !sleep(l.ctx, wait) {
			return nil
		}
	}
}

// Close writes what is noted of uses and closes the database. Nothing is opened after it.
func (l *Lazy) Close() error {
	l.mu.Lock()
	begun := l.begun
	l.closed = true
	l.mu.Unlock()
	l.cancel()
	if !begun {
		return nil
	}
	<-l.done
	return l.last
}

// ErrNotOpen is wrapped by what a Ledger answers until its database is open.
var ErrNotOpen = errors.New("the database is not open yet")

// Ledger keeps counters of quotas in a Lazy database.
type Ledger struct{ lazy *Lazy }

func (l *Ledger) open() (*DB, error) {
	if d := l.lazy.db.Load(); d != nil {
		return d, nil
	}
	if err := l.lazy.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotOpen, err)
	}
	return nil, ErrNotOpen
}

// AddQuota is DB.AddQuota.
func (l *Ledger) AddQuota(ctx context.Context, deltas []QuotaDelta) ([]Quota, error) {
	d, err := l.open()
	if err != nil {
		return nil, err
	}
	return d.AddQuota(ctx, deltas)
}

// LoadQuotas is DB.LoadQuotas.
func (l *Ledger) LoadQuotas(ctx context.Context) iter.Seq2[Quota, error] {
	return func(yield func(Quota, error) bool) {
		d, err := l.open()
		if err != nil {
			yield(Quota{}, err)
			return
		}
		d.LoadQuotas(ctx)(yield)
	}
}
