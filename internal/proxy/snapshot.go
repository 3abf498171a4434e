package proxy

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/route"
	"github.com/gatehouse-io/gatehouse/internal/telemetry"
	"github.com/gatehouse-io/gatehouse/internal/upstream"
)

// Snapshot is everything that decides about exchanges, compiled and immutable. An exchange reads one snapshot from its
// head to its end.
type Snapshot struct {
	Config  *ir.Config
	Version uint64
	Table   *route.Table[*Route]
	// Listeners by key.
	Listeners map[string]*Listener
	// Clusters that the snapshot holds, by key.
	Clusters map[string]*upstream.Cluster
	// Sockets are the settings that differ from the defaults.
	Sockets map[SocketKey]*Settings
	Release func() // gives back what the snapshot holds; called once, after its last exchange, by Collect

	uses    [shards]shard
	retired atomic.Bool
	unused  atomic.Bool     // after retirement
	left    chan<- struct{} // of the Edge that retired it
}

// Route is a compiled ir.Route.
type Route struct {
	Config *ir.Route
	// Name, Prefix are Config's, at hand.
	Name, Prefix string
	Counters     *telemetry.Route
	Steps        []Step
	Backends     []Backend
	Total        uint64 // sum of the backends' weights
	// PathSensitive says that on this host the spelling of a path can decide who may do what: odd spellings are refused
	// and the backend gets the canonical path.
	PathSensitive bool
	Request       time.Duration // time limit of the whole exchange, 0: none
	Backend       time.Duration // time limit of one try, 0: none
	Unlimited     bool          // the route's own "0s": first-byte limits are off too
}

// Step is a compiled step: its hooks and where it comes from.
type Step struct {
	Config  *ir.Step
	Phase   policy.Phase
	Handler policy.Handler
}

// Backend is a compiled ir.Backend.
type Backend struct {
	Config  *ir.Backend
	Cluster *upstream.Cluster // nil: answered 500
	Weight  uint64
	Steps   []Step
}

// shards spreads the count of uses over cache lines: connections on different processors do not share one.
const shards = 16

type shard struct {
	n atomic.Int64
	_ [56]byte
}

// Edge is what all exchanges of a process share: the snapshot in use.
type Edge struct {
	snapshot atomic.Pointer[Snapshot]
	load     atomic.Uint32
	recorder Recorder

	left    chan struct{}
	mu      sync.Mutex
	retired []*Snapshot // that were not released
}

// Recorder learns of every exchange. Its methods never block and keep nothing of the exchange. *telemetry.Recorder is one.
type Recorder interface {
	// NewID appends an id that no other exchange has.
	NewID(dst []byte) []byte
	// Record is called once for each exchange, when it is over. Exchanges with different shards do not wait for each other.
	Record(shard uint32, x *exchange.Exchange, l *telemetry.Listener, r *telemetry.Route, took time.Duration)
	// Listener and Route return the counters that compile attaches to a listener and a route.
	Listener(key string) *telemetry.Listener
	Route(name, object string) *telemetry.Route
	// Retain drops the counters of what is not live any more. Exchanges under way go on counting, unseen.
	Retain(listener, route func(name string) bool)
}

// NewEdge returns an Edge without a snapshot: Flow.Begin reports false until Swap was called.
func NewEdge(r Recorder) *Edge { return &Edge{recorder: r, left: make(chan struct{}, 1)} }

// Swap makes s the snapshot of all exchanges that begin from now on. The one before is released by a Collect after its last exchange.
func (e *Edge) Swap(s *Snapshot) {
	old := e.snapshot.Swap(s)
	if old == nil {
		return
	}
	old.left = e.left
	e.mu.Lock()
	e.retired = append(e.retired, old)
	e.mu.Unlock()
	old.retired.Store(true)
	old.settle()
	e.Collect()
}

// Left is sent to when a snapshot lost its last exchange: then Collect is due. That is not for the exchange to do: it can take long.
func (e *Edge) Left() <-chan struct{} { return e.left }

// Collect releases the snapshots that no exchange uses any more.
func (e *Edge) Collect() {
	e.mu.Lock()
	var unused []*Snapshot
	e.retired = slices.DeleteFunc(e.retired, func(s *Snapshot) bool {
		if s.unused.Load() {
			unused = append(unused, s)
			return true
		}
		return false
	})
	e.mu.Unlock()
	for _, s := range unused {
		if s.Release != nil {
			s.Release()
		}
	}
}

// Snapshot returns the one in use, nil before the first, without holding it: what it holds may be released meanwhile.
func (e *Edge) Snapshot() *Snapshot { return e.snapshot.Load() }

// acquire returns the snapshot in use and counts one use on a shard.
func (e *Edge) acquire(i uint32) *Snapshot {
	for {
		s := e.snapshot.Load()
		if s == nil {
			return nil
		}
		s.uses[i%shards].n.Add(1)
		if e.snapshot.Load() == s {
			return s
		}
		s.release(i) // it was swapped out between the two loads: its release may already have looked at the counts
	}
}

func (s *Snapshot) release(i uint32) {
	s.uses[i%shards].n.Add(-1)
	if s.retired.Load() {
		s.settle()
	}
}

// settle notes that nobody uses a retired snapshot any more. No use can begin after retirement: acquire looks again.
func (s *Snapshot) settle() {
	var n int64
	for i := range s.uses {
		n += s.uses[i].n.Load()
	}
	if n == 0 && s.unused.CompareAndSwap(false, true) {
		select {
		case s.left <- struct{}{}:
		default: // Collect is due already
		}
	}
}
