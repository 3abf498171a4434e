package hmac

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"hash"
	"sync"
	"sync/atomic"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// minSecret is the shortest shared secret in bytes that is a key: one that is empty or short can be guessed.
const minSecret = 16

// key is one shared secret, ready to compute with.
type key struct {
	identity exchange.Identity
	macs     sync.Pool // of hash.Hash
}

func newKey(b []byte, id exchange.Identity) *key {
	k := &key{identity: id}
	k.macs.New = func() any { return hmac.New(sha256.New, b) }
	return k
}

// randomKey is a key that nobody has.
func randomKey() *key {
	b := make([]byte, sha256.Size)
	_, _ = rand.Read(b) // never fails: it ends the program instead
	return newKey(b, exchange.Identity{})
}

func (k *key) sum(text []byte) (sum [sha256.Size]byte) {
	m := k.macs.Get().(hash.Hash)
	m.Reset()
	m.Write(text)
	m.Sum(sum[:0])
	k.macs.Put(m)
	return sum
}

// index finds a key by its id.
type index struct {
	of   *secret.Material
	keys map[string]*key
}

// keys are those of a Secret, read anew when its material is another.
type keys struct {
	method string
	secret method.Material
	dummy  *key
	read   atomic.Pointer[index]
}

// index returns the keys, nil when the Secret is not there.
func (k *keys) index() *index {
	m := k.secret.Now()
	if m == nil {
		return nil
	}
	i := k.read.Load()
	if i == nil || i.of != m {
		i = &index{of: m, keys: make(map[string]*key, len(m.Data))}
		for id, v := range m.Data {
			if v.Len() >= minSecret {
				i.keys[id] = newKey(v.Reveal(), exchange.Identity{Subject: id, CredentialID: k.secret.Handle + "/" + id, Method: k.method})
			}
		}
		k.read.Store(i)
	}
	return i
}

const (
	maxNonces    = 100_000 // of one key
	maxAllNonces = 400_000
	slot         = 16 // seconds: signatures that were made together are forgotten together
)

// mark stands for a signature: half of it.
type mark [16]byte

// replays are the signatures with a nonce that were accepted, of all methods of the process, until they are too old anyway. When there is
// no room for one more it is not accepted: nothing is forgotten early.
type replays struct {
	mu  sync.Mutex
	of  map[string]*used // by the key's credential id
	all int
	age int64 // the longest of all methods, in seconds: what one method finds too old another must not accept twice
}

// used are the signatures of one key.
type used struct {
	slots map[int64]map[mark]struct{} // by when they were made
	n     int
}

func openReplays() (*replays, func(policy.Work)) { return &replays{of: map[string]*used{}}, nil }

// until says that signatures are accepted for age seconds.
func (r *replays) until(age int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.age = max(r.age, age)
}

// use takes a right signature made at created, at the time now, both in Unix seconds. Absent: it was not used before.
func (r *replays) use(credential string, sum *[sha256.Size]byte, created, now int64) method.Outcome {
	m := mark(sum[:len(mark{})])
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.of[credential]
	if u == nil {
		u = &used{slots: map[int64]map[mark]struct{}{}}
		r.of[credential] = u
	}
	r.forget(u, now)
	if _, ok := u.slots[created/slot][m]; ok {
		return method.Refuse("signature_replayed", "a signature with a nonce came twice")
	}
	if u.n >= maxNonces || r.all >= maxAllNonces {
		for id, other := range r.of { // those of keys that are silent are looked at only now
			if r.forget(other, now); other.n == 0 && other != u {
				delete(r.of, id)
			}
		}
		if u.n >= maxNonces || r.all >= maxAllNonces {
			return method.Outcome{State: method.Unavailable, Reason: "nonces_exhausted", Detail: "too many nonces within maxAge"}
		}
	}
	if u.slots[created/slot] == nil {
		u.slots[created/slot] = map[mark]struct{}{}
	}
	u.slots[created/slot][m] = struct{}{}
	u.n++
	r.all++
	return method.Outcome{}
}

// forget drops what is too old to be accepted again.
func (r *replays) forget(u *used, now int64) {
	for at, marks := range u.slots {
		if (at+1)*slot+r.age <= now {
			u.n -= len(marks)
			r.all -= len(marks)
			delete(u.slots, at)
		}
	}
}
