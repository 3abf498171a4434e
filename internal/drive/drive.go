// Package drive owns the sockets, timers and goroutines of exchanges and relays and does what proxy says. It is the
// only room that blocks. It decides nothing: what to send, where to and what to answer comes from proxy.Flow.
package drive

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/http1"
	"github.com/gatehouse-io/gatehouse/internal/listener"
	"github.com/gatehouse-io/gatehouse/internal/proxy"
	"github.com/gatehouse-io/gatehouse/internal/upstream"
)

const (
	bufferSize  = 16 << 10 // of a connection's buffers; a head may grow its own up to the limits of http1
	probe       = time.Second
	maxInterims = 64 // 1xx responses to one request
)

// Driver serves client connections. Its fields are set before the first Serve and not changed.
type Driver struct {
	Edge     *proxy.Edge
	Clusters *upstream.Set
	Limits   http1.Limits
	Log      *slog.Logger
	// Header is the time for a request's head, Idle how long a connection waits for the next request, WriteStall how long the client
	// may take nothing of what is written to it. 0: without end.
	Header, Idle, WriteStall time.Duration
	// TrustedIdle is Idle for a peer that is trusted to tell the client's address: a proxy keeps connections for other clients' requests,
	// and one that is closed while it sends the next costs that request.
	TrustedIdle time.Duration
	// BodyRate is how many bytes of a request body a client must send in each BodyWindow while the edge reads. 0: no limit.
	BodyRate   int64
	BodyWindow time.Duration
	// HeadMemory is how many bytes the heads that are not complete may take in all beyond a buffer each; a head that would need more is
	// answered 503 overloaded. 0: without end.
	HeadMemory int64
	// Upgrades are protocols that clients may change to beside websocket.
	Upgrades []string

	works   sync.Pool // *work
	buffers sync.Pool // *[bufferSize]byte
	heads   atomic.Int64
	tight   atomic.Bool
	shards  atomic.Uint32
	mirrors atomic.Int64 // that are on their way
	stats   Stats
}

// Tighten says whether memory is short: then no incomplete head gets more than a buffer.
func (d *Driver) Tighten(short bool) { d.tight.Store(short) }

// Stats are counts for metrics.
type Stats struct {
	ClientConns, BackendDials, BackendReuses, Replays, Retries atomic.Int64
	// Mirrors by what became of them: sent and answered; sent in vain; not sent, because too many were on their way or the request's
	// body was too long to keep.
	MirrorsSent, MirrorsFailed, MirrorsDropped atomic.Int64
}

// Stats returns the counters, which go on counting.
func (d *Driver) Stats() *Stats { return &d.stats }

// work is what an exchange needs and an idle connection does not: it comes from a pool when a request arrives.
type work struct {
	proxy.Flow

	d      *Driver
	c      *listener.Conn
	limits *limits
	parser http1.Parser
	reply  http1.Parser // for responses
	in     []byte       // unread bytes from the client are in[r:w]
	r, w   int
	out    []byte // heads, and bodies that fit behind them
	head   http1.Head
	body   clientBody
	pump   pump

	up     *upstream.Conn
	ub     []byte // unread bytes from the backend are ub[ur:uw]
	ur, uw int
	held   []byte // where the head of a response lies whose body is held
	uhead  http1.Head
	ubody  backendBody
	first  time.Duration // for the head of the response to the try that is on, 0: none
	over   time.Time     // when that try must be over, zero: none
	kept   kept
	job    *mirrorJob // mirrors that wait for the request's body
	from   time.Time  // when the backend's time begins: the request's start, or the end of the last wait
	vigil  *vigil     // nil: the client is not watched
	mu     sync.Mutex // for the flow's hooks, while a pump runs

	expects atomic.Bool // the client waits for 100 (Continue) before it sends its body
	spoiled atomic.Bool // something panicked: what is left of it serves no other exchange
	begun   bool        // some of the final response was written
	packed  bool        // in is as small as the head
	relays  *relay      // what the connection becomes
	grown   int64       // what the head has of Driver.heads
	linger  bool        // the connection ends, and the client may still be sending
	hintsOf int         // the attempt whose 1xx responses were passed on, 0: none
}

func (d *Driver) work() *work {
	w, _ := d.works.Get().(*work)
	if w == nil {
		w = &work{d: d}
		w.parser.Upgrades = d.Upgrades
	}
	return w
}

// free puts w back, unless a panic has left it in a state that nobody knows.
func (d *Driver) free(w *work) {
	if w.spoiled.Load() {
		return
	}
	d.Give(w.in)
	w.unready()
	w.relays, w.linger = nil, false
	w.in, w.c, w.limits, w.up, w.r, w.w, w.ur, w.uw = nil, nil, nil, nil, 0, 0, 0, 0
	d.works.Put(w)
}

// ready takes the buffers that an exchange needs once its head is complete, and not before: a client that sends half a head holds none.
func (w *work) ready() {
	if w.ub == nil {
		w.out, w.ub = w.d.Take()[:0], w.d.Take()
	}
}

// unready gives them back. Buffers that grew are left to the collector.
func (w *work) unready() {
	w.d.Give(w.out[:cap(w.out)])
	w.d.Give(w.ub)
	w.out, w.ub = nil, nil
}
