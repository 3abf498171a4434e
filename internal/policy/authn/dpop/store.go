package dpop

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/policy"
)

const (
	parts   = 16
	perPart = 1 << 18
	inAll   = 1 << 20
)

// store remembers proofs. A part forgets by generations: whole ones, so that nothing has to be looked through.
type store struct {
	period time.Duration // how long a proof is remembered at least: as long as it could be accepted
	n      atomic.Int64
	parts  [parts]part
}

type part struct {
	sync.Mutex
	young, old map[[16]byte]struct{}
	since      time.Time // when the young began
}

type answer uint8

const (
	fresh answer = iota
	again
	full
)

// openStore returns the memory of proofs that may have an age. Ages have stores of their own, because those of a long one would fill
// that of a short one.
func openStore(env policy.Env, age time.Duration) *store {
	return policy.Open(env, "dpop proofs "+age.String(), func() (*store, func(policy.Work)) { return newStore(age), nil })
}

func newStore(age time.Duration) *store { return &store{period: age + ahead} }

// add remembers a proof of a key whose thumbprint begins with key.
func (s *store) add(key byte, proof [16]byte, now time.Time) answer {
	p := &s.parts[key%parts]
	p.Lock()
	defer p.Unlock()
	if since := now.Sub(p.since); p.young == nil || since >= s.period {
		s.n.Add(-int64(len(p.old)))
		if since >= 2*s.period {
			s.n.Add(-int64(len(p.young)))
			p.young = nil
		}
		p.old, p.young, p.since = p.young, map[[16]byte]struct{}{}, now
	}
	if _, ok := p.young[proof]; ok {
		return again
	}
	if _, ok := p.old[proof]; ok {
		return again
	}
	if len(p.young)+len(p.old) >= perPart || s.n.Load() >= inAll {
		return full
	}
	p.young[proof] = struct{}{}
	s.n.Add(1)
	return fresh
}
