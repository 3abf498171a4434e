package database

import (
	"encoding/binary"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"
)

const (
	// shardCount keeps the work of a growing table short: a shard of a million keys has 4,000, copied in a fraction of a millisecond while
	// readers go on in the old copy.
	shardCount = 256
	idSize     = 12
	// gone marks a slot whose key was removed; a search goes on behind it.
	gone = ^uint32(0)
)

// table is a hash table from SHA-256 to what a lookup wants to know. Any number of goroutines may read while one writes. Nothing in it
// but the names of applications and the few kinds of keys has a pointer, so that a million keys cost the garbage collector nothing.
type table struct {
	shards [shardCount]shard
	names  interned[string] // of applications
	kinds  interned[kind]
	live   atomic.Int64
}

type shard struct {
	view atomic.Pointer[view]
	dead int // entries of view that are gone; the writer's
}

// view is a shard at one size: open addressing with linear probing. Entries are added and marked as gone in place; for more room a new
// view takes its place.
type view struct {
	slots   []atomic.Uint64 // 0: free; else 32 bits of the hash, and the entry's index + 1 or gone
	entries []entry
	touched []atomic.Uint64 // one bit an entry: used was set since it was last collected
	n       int             // entries in use; the writer's
}

// entry is not changed once a slot leads to it, but for the atomics. It has 64 bytes, a line of the cache, so that a lookup waits for
// two of them: the slot's and the entry's.
type entry struct {
	hash    [32]byte
	id      [idSize]byte
	name    uint32
	kind    uint32
	used    atomic.Uint32 // seconds since 1970
	expires atomic.Int64  // microseconds, 0: never
}

// kind is what many keys have in common.
type kind struct {
	env    string
	scopes []string
}

// interned keeps one copy of each value, by number. The writer adds, readers read.
type interned[T any] struct {
	values  atomic.Pointer[[]T]
	numbers map[string]uint32
}

// add returns the number of the value that has a name; value is called for one that is new, with a copy of the name.
func (n *interned[T]) add(name string, value func(string) T) uint32 {
	if i, ok := n.numbers[name]; ok {
		return i
	}
	if n.numbers == nil {
		n.numbers = map[string]uint32{}
	}
	var values []T
	if p := n.values.Load(); p != nil {
		values = *p
	}
	i := uint32(len(values))
	name = strings.Clone(name)
	// Readers see the length of their own copy of the header: what is appended behind it disturbs none.
	values = append(values, value(name))
	n.values.Store(&values)
	n.numbers[name] = i
	return i
}

func (n *interned[T]) at(i uint32) *T { return &(*n.values.Load())[i] }

func tag(h *[32]byte) uint32   { return binary.LittleEndian.Uint32(h[4:]) }
func start(h *[32]byte) uint32 { return binary.LittleEndian.Uint32(h[8:]) }

// find returns the view of h's shard, the slot and the entry of h, or a nil entry.
func (t *table) find(h *[32]byte) (v *view, slot, index uint32, e *entry) {
	v = t.shards[h[0]].view.Load()
	if v == nil {
		return nil, 0, 0, nil
	}
	want, mask := tag(h), uint32(len(v.slots)-1)
	for slot = start(h) & mask; ; slot = (slot + 1) & mask {
		s := v.slots[slot].Load()
		if s == 0 {
			return v, 0, 0, nil
		}
		if uint32(s>>32) != want || uint32(s) == gone {
			continue
		}
		index = uint32(s) - 1
		if e = &v.entries[index]; e.hash == *h {
			return v, slot, index, e
		}
	}
}

// put adds a key or, if it is there, changes when it expires. An id has its 12 bytes always: the rows of a database that has others were
// written by hand, and are left out.
func (t *table) put(k *Key) {
	if len(k.ID) != idSize {
		return
	}
	var id [idSize]byte
	copy(id[:], k.ID)
	name := t.names.add(k.Application, func(s string) string { return s })
	what := t.kinds.add(k.Env+" "+strings.Join(k.Scopes, " "), func(string) kind { return kind{strings.Clone(k.Env), slices.Clone(k.Scopes)} })
	if _, _, _, e := t.find(&k.Hash); e != nil {
		if e.id == id && e.name == name && e.kind == what {
			e.expires.Store(micros(k.ExpiresAt))
			return
		}
		t.remove(&k.Hash)
	}
	s := &t.shards[k.Hash[0]]
	v := s.view.Load()
	if v == nil || v.n == len(v.entries) {
		v = s.rebuild(v)
	}
	e := &v.entries[v.n]
	e.hash, e.id, e.name, e.kind = k.Hash, id, name, what
	e.expires.Store(micros(k.ExpiresAt))
	v.add()
	t.live.Add(1)
}

// add makes the entry behind the last one visible.
func (v *view) add() {
	e := &v.entries[v.n]
	mask := uint32(len(v.slots) - 1)
	slot := start(&e.hash) & mask
	for v.slots[slot].Load() != 0 {
		slot = (slot + 1) & mask
	}
	v.n++
	v.slots[slot].Store(uint64(tag(&e.hash))<<32 | uint64(v.n))
}

// remove takes a key out.
func (t *table) remove(h *[32]byte) {
	v, slot, _, e := t.find(h)
	if e == nil {
		return
	}
	v.slots[slot].Store(uint64(tag(h))<<32 | uint64(gone))
	t.live.Add(-1)
	s := &t.shards[h[0]]
	if s.dead++; s.dead > 64+v.n/2 {
		s.rebuild(v)
	}
}

// rebuild makes a view of the entries of old that are not gone, with room for a quarter more, and puts it in old's place. A use that is
// noted in old meanwhile may be lost: it is a note of when a key was last used, and the next use makes it again.
func (s *shard) rebuild(old *view) *view {
	live := 0
	if old != nil {
		live = old.n - s.dead
	}
	room := live + live/4 + 16
	slots := 32
	for slots < room+room/2 {
		slots *= 2
	}
	v := &view{slots: make([]atomic.Uint64, slots), entries: make([]entry, room), touched: make([]atomic.Uint64, (room+63)/64)}
	if old != nil {
		for i := range old.slots {
			slot := old.slots[i].Load()
			if slot == 0 || uint32(slot) == gone {
				continue
			}
			from, to := &old.entries[uint32(slot)-1], &v.entries[v.n]
			to.hash, to.id, to.name, to.kind = from.hash, from.id, from.name, from.kind
			to.expires.Store(from.expires.Load())
			to.used.Store(from.used.Load())
			if index := uint32(slot) - 1; old.touched[index/64].Load()&(1<<(index%64)) != 0 {
				v.touched[v.n/64].Or(1 << (v.n % 64))
			}
			v.add()
		}
	}
	s.dead = 0
	s.view.Store(v)
	return v
}

// collect yields, in pieces of about size, the keys that were used since they were last collected.
func (t *table) collect(size int, yield func(map[string]time.Time) bool) {
	used := map[string]time.Time{}
	for i := range t.shards {
		v := t.shards[i].view.Load()
		if v == nil {
			continue
		}
		for w := range v.touched {
			if v.touched[w].Load() == 0 {
				continue
			}
			bits := v.touched[w].Swap(0)
			for b := range 64 {
				if bits&(1<<b) != 0 {
					e := &v.entries[w*64+b]
					used[string(e.id[:])] = time.Unix(int64(e.used.Load()), 0).UTC()
				}
			}
		}
		if len(used) >= size {
			if !yield(used) {
				return
			}
			used = map[string]time.Time{}
		}
	}
	if len(used) > 0 {
		yield(used)
	}
}

// text is the id as a string, without a copy: the bytes are never written again, and the string keeps them.
func (e *entry) text() string { return unsafe.String(&e.id[0], idSize) }
