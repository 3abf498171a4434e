package basic

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
)

const (
	maxAtOnce  = 8   // hashes; also no more than processors
	maxWaiting = 256 // for their turn
	keepFor    = 60 * time.Second
	maxKept    = 10_000 // right passwords that are remembered
)

// gate is what all methods of the process share: whose turn it is to hash, and which passwords were right a moment ago.
type gate struct {
	turns   chan struct{}
	waiting atomic.Int32
	desks   sync.Pool // of *desk

	mu sync.RWMutex
	// young and old are tags of right passwords and when they end, in Unix nanoseconds. When young is half of what may be kept it
	// becomes old, and what was old is forgotten: nothing has to be searched for what may go.
	young, old map[[sha256.Size]byte]int64
}

// desk is where one credential is read and its tag computed, so that neither allocates.
type desk struct {
	room   [maxCredential / 4 * 3]byte // user:password
	mac    hash.Hash
	length [4]byte
	sum    [sha256.Size]byte
}

// openGate makes a gate whose key only this process knows.
func openGate() (*gate, func(policy.Work)) {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // never fails: it ends the program instead
	g := &gate{turns: make(chan struct{}, min(runtime.GOMAXPROCS(0), maxAtOnce)), young: map[[sha256.Size]byte]int64{}}
	g.desks.New = func() any { return &desk{mac: hmac.New(sha256.New, key)} }
	return g, nil
}

// desk takes one, which goes back with leave.
func (g *gate) desk() *desk { return g.desks.Get().(*desk) }

// leave leaves no password behind.
func (g *gate) leave(d *desk) {
	clear(d.room[:])
	g.desks.Put(d)
}

// tag is a digest of a user, a password and the digest of a hash that they have to match: a user's new hash makes the old tag worthless.
func (d *desk) tag(user, password []byte, digest *[sha256.Size]byte) [sha256.Size]byte {
	d.mac.Reset()
	binary.BigEndian.PutUint32(d.length[:], uint32(len(user))) //nolint:gosec // at most maxUser
	d.mac.Write(d.length[:])
	d.mac.Write(user)
	d.mac.Write(digest[:])
	d.mac.Write(password)
	d.mac.Sum(d.sum[:0])
	return d.sum
}

// seen reports whether the password of a tag was right less than keepFor ago.
func (g *gate) seen(tag *[sha256.Size]byte, now int64) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	end, ok := g.young[*tag]
	if !ok {
		end = g.old[*tag]
	}
	return now < end
}

// remember says that the password of a tag was right.
func (g *gate) remember(tag *[sha256.Size]byte, now int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.young) >= maxKept/2 {
		g.old, g.young = g.young, make(map[[sha256.Size]byte]int64)
	}
	g.young[*tag] = now + int64(keepFor)
}

// hash runs f when it is its turn. Too many that wait, and a context that ends, are Unavailable.
func (g *gate) hash(ctx context.Context, f func() method.Outcome) method.Outcome {
	if g.waiting.Add(1) > maxWaiting {
		g.waiting.Add(-1)
		return method.Outcome{State: method.Unavailable, Reason: "auth_overloaded", Detail: "too many passwords wait to be hashed"}
	}
	select {
	case g.turns <- struct{}{}:
		g.waiting.Add(-1)
	case <-ctx.Done():
		g.waiting.Add(-1)
		return method.Outcome{State: method.Unavailable, Reason: "auth_overloaded", Detail: "the request ended before its password was hashed"}
	}
	defer func() { <-g.turns }()
	return f()
}
