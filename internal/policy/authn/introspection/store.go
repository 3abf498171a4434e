package introspection

import (
	"container/list"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
)

const (
	maxEntries = 10_000
	maxBytes   = 16 << 20
	overhead   = 256 // of an entry, beside what was said
)

// store is what outlives snapshots: answers by the SHA-256 of their token, and the questions that are on their way. Answers yes and no
// are kept apart: made-up tokens push no good ones out.
type store struct {
	mu      sync.Mutex
	yes, no shelf
	flights map[[sha256.Size]byte]*flight
	breaker breaker
}

// flight is a question on its way. answer is set before done is closed; nil: there is none.
type flight struct {
	done   chan struct{}
	answer *answer
}

func newStore() *store {
	s := &store{flights: map[[sha256.Size]byte]*flight{}}
	for _, f := range []*shelf{&s.yes, &s.no} {
		f.entries, f.order = map[[sha256.Size]byte]*list.Element{}, list.New()
	}
	return s
}

// find returns the answer about a token that is still good, or nil.
func (s *store) find(hash *[sha256.Size]byte, now time.Time) *answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.look(hash, now)
}

func (s *store) look(hash *[sha256.Size]byte, now time.Time) *answer {
	if a := s.yes.find(hash, now); a != nil {
		return a
	}
	return s.no.find(hash, now)
}

// join returns an answer, the question that is on its way, or a new one that is the caller's to ask: then land is due.
func (s *store) join(hash *[sha256.Size]byte, now time.Time) (a *answer, f *flight, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.look(hash, now); a != nil {
		return a, nil, false
	}
	f = s.flights[*hash]
	if f == nil {
		f = &flight{done: make(chan struct{})}
		s.flights[*hash] = f
		mine = true
	}
	return nil, f, mine
}

// land ends a question; a is nil if there is no answer that others may use.
func (s *store) land(hash *[sha256.Size]byte, f *flight, a *answer) {
	s.mu.Lock()
	delete(s.flights, *hash)
	if a != nil && !a.until.IsZero() {
		if a.State == method.Accepted {
			s.yes.put(hash, a)
		} else {
			s.no.put(hash, a)
		}
	}
	s.mu.Unlock()
	f.answer = a
	close(f.done)
}

// shelf is a bounded store; what was used longest ago goes first.
type shelf struct {
	entries map[[sha256.Size]byte]*list.Element
	order   *list.List // of *entry, the newest first
	bytes   int
}

type entry struct {
	hash [sha256.Size]byte
	*answer
}

func (f *shelf) find(hash *[sha256.Size]byte, now time.Time) *answer {
	e := f.entries[*hash]
	if e == nil {
		return nil
	}
	a := e.Value.(*entry).answer
	if !now.Before(a.until) {
		f.drop(e)
		return nil
	}
	f.order.MoveToFront(e)
	return a
}

func (f *shelf) put(hash *[sha256.Size]byte, a *answer) {
	if e := f.entries[*hash]; e != nil {
		f.drop(e)
	}
	f.entries[*hash] = f.order.PushFront(&entry{*hash, a})
	f.bytes += a.size + overhead
	for f.order.Len() > maxEntries || f.bytes > maxBytes {
		f.drop(f.order.Back())
	}
}

func (f *shelf) drop(e *list.Element) {
	v := f.order.Remove(e).(*entry)
	delete(f.entries, v.hash)
	f.bytes -= v.size + overhead
}

const (
	mostFailures = 5
	rest         = time.Second
)

// breaker keeps requests from a server that fails. It has no clock: the time of its rest begins with the first request that comes after
// the last failure.
type breaker struct {
	mu       sync.Mutex
	failures int // in a row
	until    time.Time
}

// lets reports whether a request of that time may ask. After a rest one request finds out for the others, which rest once more.
func (b *breaker) lets(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures < mostFailures {
		return true
	}
	if b.until.IsZero() {
		b.until = now.Add(rest)
		return false
	}
	if now.Before(b.until) {
		return false
	}
	b.until = now.Add(rest)
	return true
}

func (b *breaker) failed() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures++
	if b.failures == mostFailures {
		b.until = time.Time{}
	}
}

func (b *breaker) worked() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures, b.until = 0, time.Time{}
}
