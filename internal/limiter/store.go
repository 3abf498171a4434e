package limiter

import "sync/atomic"

// Redis is where a store is; made by ParseRedisURL.
type Redis struct{ addr string }

func (r Redis) set() bool { return r.addr != "" }

type store struct{ open atomic.Bool }

func newStore(Options) *store { return &store{} }
func (s *store) wake()        {}

func (l *Limiter) down() bool { return l.store == nil || l.store.open.Load() }
