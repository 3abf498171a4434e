package telemetry

import (
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// Methods that are labels; any other is "other", the last.
var methods = [...]string{"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE", other}

// Classes of status codes: what is above 599 is "other", and what is none (an exchange that ended before an answer) is "none", the last.
var classes = [...]string{"1xx", "2xx", "3xx", "4xx", "5xx", other, "none"}

const (
	nMethods = len(methods)
	nClasses = len(classes)
	nBuckets = 17
)

// Upper bounds of the buckets of durations: 250 µs doubled 15 times (8.192 s), then 60 s; the last cell is above. Powers of two make
// the bucket a matter of counting bits.
const firstBound = 250 * time.Microsecond

func bound(i int) time.Duration {
	if i == nBuckets-1 {
		return 60 * time.Second
	}
	return firstBound << i
}

// bucket is the index of the first bound that is not below d; nBuckets: above all.
func bucket(d time.Duration) int {
	if d <= firstBound {
		return 0
	}
	i := bits.Len64(uint64((d - 1) / firstBound))
	if i < nBuckets-1 {
		return i
	}
	if d <= 60*time.Second {
		return nBuckets - 1
	}
	return nBuckets
}

type histogram struct {
	cells [nBuckets + 1]atomic.Uint64
	sum   atomic.Int64 // nanoseconds
}

func (h *histogram) observe(d time.Duration) {
	if d < 0 {
		d = 0
	}
	h.cells[bucket(d)].Add(1)
	h.sum.Add(int64(d))
}

// listenerCells is one shard. Shards lie in allocations of their own, padded, so that two never share a cache line.
type listenerCells struct {
	requests [nMethods][nClasses]atomic.Uint64
	took     histogram
	waited   histogram
	in, out  atomic.Int64
	_        [128]byte
}

// Listener is the counters of one listener.
type Listener struct {
	name    string
	shards  []*listenerCells
	reasons reasons
	shadows reasons // of answers that policies in shadow mode would have given
}

func newListener(name string, shards int) *Listener {
	l := &Listener{name: name, shards: make([]*listenerCells, shards)}
	for i := range l.shards {
		l.shards[i] = new(listenerCells)
	}
	l.reasons.rest.name, l.shadows.rest.name = other, other
	return l
}

func (l *Listener) count(shard int, x *exchange.Exchange, took time.Duration) {
	c := l.shards[shard]
	c.requests[method(x.Request.Method)][class(x.Response.Status)].Add(1)
	c.took.observe(took)
	if x.Tries > 0 && x.Waited > 0 {
		c.waited.observe(x.Waited)
	}
	if x.BytesIn != 0 {
		c.in.Add(x.BytesIn)
	}
	if x.BytesOut != 0 {
		c.out.Add(x.BytesOut)
	}
	if x.Reason != "" {
		l.reasons.add(x.Reason)
	}
	for i := range x.Shadow {
		l.shadows.add(x.Shadow[i].Reason)
	}
}

func class(status int) int {
	if status < 100 {
		return nClasses - 1
	}
	return min(status/100-1, nClasses-2)
}

func method(m []byte) int {
	switch string(m) {
	case "GET":
		return 0
	case "HEAD":
		return 1
	case "POST":
		return 2
	case "PUT":
		return 3
	case "DELETE":
		return 4
	case "PATCH":
		return 5
	case "OPTIONS":
		return 6
	case "CONNECT":
		return 7
	case "TRACE":
		return 8
	}
	return nMethods - 1
}

type reason struct {
	name string
	n    atomic.Uint64
}

// reasons counts the words of decisions: few, so a list that is copied when a word is new. It is not sharded: exchanges that
// are forwarded have no reason.
type reasons struct {
	mu   sync.Mutex
	list atomic.Pointer[[]*reason]
	rest reason
}

func (r *reasons) all() []*reason {
	if p := r.list.Load(); p != nil {
		return *p
	}
	return nil
}

func (r *reasons) add(word string) {
	for _, c := range r.all() {
		if c.name == word {
			c.n.Add(1)
			return
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.all()
	for _, c := range old {
		if c.name == word {
			c.n.Add(1)
			return
		}
	}
	if len(old) >= MaxReasons {
		r.rest.n.Add(1)
		return
	}
	c := &reason{name: word}
	c.n.Add(1)
	list := append(append(make([]*reason, 0, len(old)+1), old...), c)
	r.list.Store(&list)
}

type routeCells struct {
	requests [nClasses]atomic.Uint64
	sum      atomic.Int64
	_        [72]byte // to two cache lines
}

// Route is the counters of one route, and the object it comes from.
type Route struct {
	name, object string
	line         string // its part of the access log's lines
	cells        []routeCells
}

func newRoute(name string, shards int) *Route {
	return &Route{name: name, cells: make([]routeCells, shards)}
}

func (r *Route) count(shard, status int, took time.Duration) {
	c := &r.cells[shard]
	c.requests[class(status)].Add(1)
	c.sum.Add(int64(took))
}

func shardCount(n int) int {
	if n <= 0 {
		n = min(runtime.GOMAXPROCS(0), 16)
	}
	p := 1
	for p < n {
		p *= 2
	}
	return p
}
