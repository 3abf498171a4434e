package oidc

import (
	"crypto/sha256"
	"sync"
)

const (
	shards     = 16
	maxEntries = 8192
	maxText    = 16 << 20 // bytes of text; what is decoded from it may take some ten times that
	maxRenewed = 16384
	graceTime  = 60 // seconds in which a session that was renewed is taken for the new one
)

// store is what outlives snapshots: opened sessions by the hash of their cookies, and renewals that are on their way. Only what opened gets
// in, so nobody fills it with made-up cookies.
type store struct {
	shard [shards]shard
}

// shard forgets by generations: when the young one is full it becomes the old one, and what nobody asked for since is gone.
type shard struct {
	sync.Mutex
	young, old map[[sha256.Size]byte]*known
	renewed    map[[sha256.Size]byte]*renewal // by the cookie that was renewed
	flights    map[[sha256.Size]byte]*flight
	text       int // bytes of text of the young
	again      int // bytes of text of the renewed
}

// renewal is the session in the place of another one. Browsers send the old cookies with what is on its way already, and a refresh token
// may be good only once: until a while after, they get the new session again.
type renewal struct {
	*known
	sealed []byte
	until  int64 // seconds since 1970
}

// flight is a renewal on its way. result is set before done is closed; nil: whoever asked was cut short.
type flight struct {
	done   chan struct{}
	result *renewed
}

func newStore() *store {
	s := &store{}
	for i := range s.shard {
		s.shard[i].renewed, s.shard[i].flights = map[[sha256.Size]byte]*renewal{}, map[[sha256.Size]byte]*flight{}
	}
	return s
}

func (s *store) of(k *[sha256.Size]byte) *shard { return &s.shard[k[0]%shards] }

// find returns a session that was opened with the ring, nil if there is none: what was opened with a key that is gone is not known.
func (s *store) find(key *[sha256.Size]byte, r *ring) *known {
	h := s.of(key)
	h.Lock()
	defer h.Unlock()
	k, ok := h.young[*key]
	if !ok {
		if k, ok = h.old[*key]; ok {
			delete(h.old, *key)
			h.put(key, k)
		}
	}
	if !ok || k.ring != r {
		return nil
	}
	return k
}

func (s *store) add(key *[sha256.Size]byte, k *known) {
	h := s.of(key)
	h.Lock()
	h.put(key, k)
	h.Unlock()
}

func (h *shard) put(key *[sha256.Size]byte, k *known) {
	if len(h.young) >= maxEntries/shards/2 || h.text+k.size > maxText/shards/2 {
		h.old, h.young, h.text = h.young, nil, 0
	}
	if h.young == nil {
		h.young = map[[sha256.Size]byte]*known{}
	}
	if _, again := h.young[*key]; !again {
		h.text += k.size
	}
	h.young[*key] = k
}

// join returns what a session was renewed to at a time before now, the renewal on its way, or a new one that is the caller's to make: then
// land is due.
func (s *store) join(key *[sha256.Size]byte, r *ring, now int64) (done *renewal, f *flight, mine bool) {
	h := s.of(key)
	h.Lock()
	defer h.Unlock()
	if n := h.renewed[*key]; n != nil && now < n.until && n.ring == r {
		return n, nil, false
	}
	if f = h.flights[*key]; f == nil {
		f = &flight{done: make(chan struct{})}
		h.flights[*key] = f
		mine = true
	}
	return nil, f, mine
}

// land ends a renewal.
func (s *store) land(key *[sha256.Size]byte, f *flight, result *renewed, now int64) {
	h := s.of(key)
	h.Lock()
	delete(h.flights, *key)
	if result != nil && result.renewal != nil {
		h.remember(key, result.renewal, now)
	}
	h.Unlock()
	f.result = result
	close(f.done)
}

// remember keeps a renewal. When there is no room those that are over go, and then all of them.
func (h *shard) remember(key *[sha256.Size]byte, n *renewal, now int64) {
	full := func() bool { return len(h.renewed) >= maxRenewed/shards || h.again+len(n.sealed) > maxText/shards }
	if full() {
		for old, o := range h.renewed {
			if now >= o.until {
				delete(h.renewed, old)
				h.again -= len(o.sealed)
			}
		}
	}
	if full() {
		clear(h.renewed)
		h.again = 0
	}
	if old := h.renewed[*key]; old != nil {
		h.again -= len(old.sealed)
	}
	h.renewed[*key] = n
	h.again += len(n.sealed)
}
