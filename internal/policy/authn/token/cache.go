package token

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/maphash"
	"sync"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// Bounds of the cache.
const (
	// Remember is how long a verified token is believed without a new look at its signature.
	Remember   = 60 * time.Second
	shards     = 16
	maxEntries = 10_000
	maxText    = 10 << 20 // bytes of the remembered tokens' text; what is decoded from a token may take some ten times its text
)

// Verified is what is known of a token whose signature and claims are good. It is shared and never changed.
type Verified struct {
	Claims   map[string]any
	Identity exchange.Identity
	Header   []exchange.Field // for the backend
	Issuer   int              // which of the method's issuers
	Keys     *Keys            // that it was verified with
}

// Sum stands for a token in the eyes of one set of rules. Both halves are whole SHA-256 sums, so that no token can pass for another.
type Sum struct{ rules, token [sha256.Size]byte }

// SumOf hashes a token; rules is the hash of everything that decides about it.
func SumOf(rules [sha256.Size]byte, token []byte) Sum {
	return Sum{rules, sha256.Sum256(token)}
}

// Cache remembers verified tokens, those of all policies together.
type Cache struct {
	seed  maphash.Seed // so that nobody can aim at one shard
	shard [shards]shard
}

// shard forgets by generations: when the young one is full it becomes the old one, and what nobody asked for since is gone.
type shard struct {
	sync.Mutex
	young, old map[Sum]entry
	text       int // bytes of text of the young
}

type entry struct {
	v     *Verified
	until int64 // ns since 1970
	text  int
}

// OpenCache returns the one cache of the process.
func OpenCache(env policy.Env) *Cache {
	return policy.Open(env, "verified tokens", func() (*Cache, func(policy.Work)) { return NewCache(), nil })
}

// NewCache returns an empty cache.
func NewCache() *Cache { return &Cache{seed: maphash.MakeSeed()} }

func (c *Cache) of(s *Sum) *shard {
	// The sum is even already; the seed keeps others from choosing tokens by it.
	return &c.shard[maphash.Bytes(c.seed, s.token[:])%shards]
}

// Find returns what is known of a token at the time now, nil if nothing is. current gives the keys that count now for an issuer: what was
// verified with others is no longer known.
func (c *Cache) Find(s *Sum, now time.Time, current func(issuer int) *Keys) *Verified {
	h := c.of(s)
	h.Lock()
	e, ok := h.young[*s]
	if !ok {
		if e, ok = h.old[*s]; ok {
			delete(h.old, *s)
			h.put(s, e)
		}
	}
	h.Unlock()
	if !ok || now.UnixNano() >= e.until {
		return nil
	}
	if k := current(e.v.Issuer); k != e.v.Keys && (k == nil || k.digest != e.v.Keys.digest) {
		return nil
	}
	return e.v
}

// Add remembers a token of n bytes until a time.
func (c *Cache) Add(s *Sum, v *Verified, n int, until time.Time) {
	h := c.of(s)
	h.Lock()
	h.put(s, entry{v, until.UnixNano(), n})
	h.Unlock()
}

func (h *shard) put(s *Sum, e entry) {
	if len(h.young) >= maxEntries/shards/2 || h.text+e.text > maxText/shards/2 {
		h.old, h.young, h.text = h.young, nil, 0
	}
	if h.young == nil {
		h.young = map[Sum]entry{}
	}
	if _, again := h.young[*s]; !again {
		h.text += e.text
	}
	h.young[*s] = e
}

// Len is how many tokens are remembered.
func (c *Cache) Len() int {
	n := 0
	for i := range c.shard {
		h := &c.shard[i]
		h.Lock()
		n += len(h.young) + len(h.old)
		h.Unlock()
	}
	return n
}

// HashOf hashes texts, each with its length, to one sum.
func HashOf(texts ...[]byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, t := range texts {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(t)))
		h.Write(n[:])
		h.Write(t)
	}
	h.Sum(sum[:0])
	return sum
}
