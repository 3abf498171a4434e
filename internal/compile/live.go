package compile

import (
	"context"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// linger is how long a running value goes on after the last snapshot that opened it: a policy that is broken and mended, or a route
// that is deleted and written again, finds its keys and caches where they were.
const linger = 30 * time.Second

// RunLive says, as policy.Env.Live of New, that live values are to run. It is never asked itself.
type RunLive struct{}

// Open is not called: compile puts its own in its place.
func (RunLive) Open(_ string, open func() (any, func(policy.Work))) any {
	v, _ := open()
	return v
}

// lives are the running values of all snapshots, by key.
type lives struct {
	mu     sync.Mutex
	values map[string]*live
	opened []*live // by the compilation that is under way, each counted once more
	closed bool
	work   sync.WaitGroup
}

// live is one value and how many hold it: snapshots, and the compilation that is under way.
type live struct {
	key   string
	v     any
	users int
	turns int // how often the last user left
	stop  context.CancelFunc
}

// opener is the LiveStore of one compilation: it notes which step opened what.
type opener struct {
	lives *lives
	kept  *kept
}

func (o opener) Open(key string, open func() (any, func(policy.Work))) any {
	l := o.lives.open(key, open)
	o.kept.lives = append(o.kept.lives, l)
	return l.v
}

func (s *lives) open(key string, open func() (any, func(policy.Work))) *live {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.values[key]; l != nil {
		l.users++
		s.opened = append(s.opened, l)
		return l
	}
	v, run := open()
	ctx, stop := context.WithCancel(context.Background())
	l := &live{key: key, v: v, users: 1, stop: stop}
	s.values[key] = l
	s.opened = append(s.opened, l)
	if run == nil || s.closed {
		return l
	}
	s.work.Add(1)
	go func() {
		defer s.work.Done()
		run(policy.Work{Context: ctx, Now: time.Now, Sleep: func(d time.Duration, wake <-chan struct{}) bool { return sleep(ctx, d, wake) }})
	}()
	return l
}

func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
	case <-wake:
	}
	return ctx.Err() == nil
}

// hold counts one more user of every value that a host opened, for one snapshot. With it the compilation is over.
func (s *lives) hold(opened iter.Seq[*live]) []*live {
	held := map[*live]bool{}
	for l := range opened {
		held[l] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range held {
		l.users++
	}
	done := s.opened
	s.opened = nil
	s.drop(done)
	return slices.Collect(maps.Keys(held))
}

// release gives back what hold counted.
func (s *lives) release(held []*live) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(held)
}

// drop counts one user less. A value without users ends after a while. s.mu is held.
func (s *lives) drop(held []*live) {
	for _, l := range held {
		if l.users--; l.users > 0 {
			continue
		}
		if s.closed {
			s.end(l)
			continue
		}
		l.turns++
		turn := l.turns
		time.AfterFunc(linger, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if l.users == 0 && l.turns == turn { // nobody came back and left again, later
				s.end(l)
			}
		})
	}
}

// end stops a value's work.
func (s *lives) end(l *live) {
	l.stop()
	if s.values[l.key] == l {
		delete(s.values, l.key)
	}
}

// Close ends the background work of all live values and waits for it. Snapshots may still be used: their keys and caches stay as they are.
func (c *Compiler) Close() {
	c.lives.mu.Lock()
	c.lives.closed = true
	for _, l := range c.lives.values {
		l.stop()
	}
	c.lives.mu.Unlock()
	c.lives.work.Wait()
}
