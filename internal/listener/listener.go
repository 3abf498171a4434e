// Package listener owns the sockets that clients connect to: it binds them by address, accepts, reads the PROXY protocol,
// speaks TLS, and holds the deadlines and the drain of client connections. A socket that stays wanted is never closed, so
// that no reload drops a connection, and a bind that fails never stops the others. It reads no HTTP, and it does not
// accept before Start.
package listener

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gatehouse-io/gatehouse/internal/ir"
)

const (
	retryEvery   = time.Second // for binds that failed
	fallbackPort = 10000       // added to a port below 1024 that may not be bound
	// abortTime is how long Drain waits for those whose connections it closed: one that waits for a backend may notice late.
	abortTime = 200 * time.Millisecond
	// finishTime is the default of Options.Finish: what a drain of the process gives, too.
	finishTime = 40 * time.Second
)

// Options of a Set.
type Options struct {
	// Serve owns the connection until it returns, in a goroutine of its own; it calls Handshake first. What it leaves open is
	// closed.
	Serve func(*Conn)
	Log   *slog.Logger // nil: no log
	// Changed is called, in a goroutine of its own, when a bind that had failed came up by a retry; nil: not called.
	Changed func()
	// MaxConns is how many connections may be open in all, over all sockets and with those of sockets that are gone; 0: half the
	// descriptor limit, because a connection to a backend may go with each. One more is accepted, closed at once with a reset and
	// counted in Stats.Limited: in the backlog its client would wait for nothing, and nobody would see it. Other servers of the
	// process, health and admin, have sockets of their own, to which this does not apply.
	MaxConns int
	// Finish is how long connections may go on whose socket was closed, or was given to another group, port or protocol; 0: 40 s.
	Finish time.Duration
}

// Set is the sockets of a process.
type Set struct {
	opt      Options
	draining atomic.Bool
	stats    counters

	mu      sync.Mutex
	live    map[ir.Bind]*socket
	left    map[*socket]struct{} // closed by Apply; their connections may finish
	failed  map[ir.Bind]string   // why, for wanted binds without a socket
	wanted  []Socket
	started bool
	closed  bool // no socket is opened any more
	retry   *time.Timer
	conns   sync.WaitGroup // one for each connection being served
}

type counters struct {
	open, accepted, limited, proxy atomic.Int64
	tls                            handshakes
	crowded                        atomic.Int64
	shed                           [holdings]atomic.Int64
}

// Stats is what a Set counted.
type Stats struct {
	Open              int64 // connections now
	Accepted          int64 // since the start; the following are among them
	Limited           int64 // closed because too many were open
	Crowded           int64 // closed because their address had too many
	ProxyRefused      int64 // closed because of the PROXY protocol: header missing, malformed, late or from a peer not trusted
	HandshakeFailures int64 // TLS; Set.HandshakeFailures has them by reason
}

// New returns a set without sockets.
func New(o Options) *Set {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MaxConns == 0 {
		o.MaxConns = descriptorLimit() / 2
	}
	if o.Finish == 0 {
		o.Finish = finishTime
	}
	return &Set{opt: o, live: map[ir.Bind]*socket{}, left: map[*socket]struct{}{}, failed: map[ir.Bind]string{}}
}

func descriptorLimit() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 1024
	}
	return int(min(l.Cur, math.MaxInt32))
}

// Stats returns the counters.
func (s *Set) Stats() Stats {
	return Stats{
		Open:              s.stats.open.Load(),
		Accepted:          s.stats.accepted.Load(),
		Limited:           s.stats.limited.Load(),
		Crowded:           s.stats.crowded.Load(),
		ProxyRefused:      s.stats.proxy.Load(),
		HandshakeFailures: s.stats.tls.total(),
	}
}

// State is how one ir.Listener fares.
type State struct {
	Bound   string // address of its first socket, "" if it has none
	Problem string // why a bind failed, "" if none did
	Note    string // what an operator should know though it serves: another port was bound
}

// Apply makes wanted the sockets of the set: what left is closed, with its connections told to end, finishing the exchange they
// are in, and closed when Options.Finish is over; what stays keeps its socket and its connections and takes over its settings; what is new is bound. A bind that
// fails is told in the state, does not stop the others, and is tried again every second. The states are by ir.Listener.Key.
func (s *Set) Apply(wanted []Socket) map[string]State {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted = slices.Clone(wanted)
	keep := map[ir.Bind]bool{}
	for i := range wanted {
		keep[wanted[i].Bind] = true
	}
	for b, k := range s.live {
		if !keep[b] { // before anything is bound: the new may need what the old held
			k.close()
			delete(s.live, b)
			s.left[k] = struct{}{}
			k.finish(func() {
				s.mu.Lock()
				delete(s.left, k)
				s.mu.Unlock()
			})
			s.opt.Log.Info("socket closed", "bind", bindText(b))
		}
	}
	for i := range s.wanted {
		w := &s.wanted[i]
		if k := s.live[w.Bind]; k != nil {
			k.update(w)
		}
	}
	s.bindMissing()
	return s.states()
}

// bindMissing tries every wanted bind that has no socket and reports whether one came up.
func (s *Set) bindMissing() bool {
	up := false
	failed := map[ir.Bind]string{}
	for i := range s.wanted {
		w := &s.wanted[i]
		if s.closed || s.live[w.Bind] != nil {
			continue
		}
		k, err := s.open(w)
		if err != nil {
			failed[w.Bind] = problemText(w.Bind, err, s.overlapping(w.Bind))
			if s.failed[w.Bind] != failed[w.Bind] {
				s.opt.Log.Error("bind failed", "bind", bindText(w.Bind), "error", err)
			}
			continue
		}
		s.live[w.Bind] = k
		up = true
		bound := []any{"address", k.ln.Addr().String()}
		if k.note != "" {
			bound = append(bound, "note", k.note)
		}
		s.opt.Log.Info("socket bound", bound...)
		if s.started {
			go k.accept()
		}
	}
	s.failed = failed
	if s.retry != nil {
		s.retry.Stop()
		s.retry = nil
	}
	if len(failed) > 0 && !s.closed {
		s.retry = time.AfterFunc(retryEvery, s.again)
	}
	return up
}

func (s *Set) again() {
	s.mu.Lock()
	up := !s.closed && s.bindMissing()
	s.mu.Unlock()
	if up && s.opt.Changed != nil {
		s.opt.Changed()
	}
}

// States returns what Apply last returned, with what retries changed since.
func (s *Set) States() map[string]State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.states()
}

func (s *Set) states() map[string]State {
	out := map[string]State{}
	for i := range s.wanted {
		w := &s.wanted[i]
		for _, key := range w.Listeners {
			st := out[key]
			if k := s.live[w.Bind]; k != nil {
				if st.Bound == "" {
					st.Bound = k.ln.Addr().String()
				}
				st.Note = join(st.Note, k.note)
			} else {
				st.Problem = join(st.Problem, s.failed[w.Bind])
			}
			out[key] = st
		}
	}
	return out
}

func join(a, b string) string {
	switch {
	case a == "" || a == b:
		return b
	case b == "":
		return a
	}
	return a + "; " + b
}

// Start begins to accept, on the sockets there are and on those to come.
func (s *Set) Start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started {
		return
	}
	s.started = true
	for _, k := range s.live {
		go k.accept()
	}
}

// Drain ends the set without losing what is in flight. For the time of grace it still accepts, and every connection is
// closing (Conn.Closing): its answers say so. Then the sockets are closed, idle connections end, relays are told (Conn.Told), and
// what is active may finish until ctx ends, when it is closed. It returns how many had to be.
func (s *Set) Drain(ctx context.Context, grace time.Duration) int {
	s.draining.Store(true)
	if grace > 0 {
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	s.mu.Lock()
	s.closed = true
	if s.retry != nil {
		s.retry.Stop()
	}
	sockets := slices.AppendSeq(slices.Collect(maps.Values(s.live)), maps.Keys(s.left))
	s.mu.Unlock()
	for _, k := range sockets {
		k.close()
		k.retire()
	}
	done := make(chan struct{})
	go func() {
		s.conns.Wait()
		close(done)
	}()
	select {
	case <-done:
		return 0
	case <-ctx.Done():
	}
	n := 0
	for _, k := range sockets {
		n += k.abort()
	}
	select {
	case <-done:
	case <-time.After(abortTime):
	}
	return n
}

// Close closes every socket and every connection at once.
func (s *Set) Close() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s.Drain(ctx, 0)
}

// Draining reports whether Drain was called.
func (s *Set) Draining() bool { return s.draining.Load() }

func bindText(b ir.Bind) string {
	if !b.Address.IsValid() {
		return fmt.Sprintf(":%d", b.Port)
	}
	return netip.AddrPortFrom(b.Address, b.Port).String()
}

// overlapping is the socket of another bind that keeps b from being bound: at the same port, where one of the two is every address. Nil:
// there is none. s.mu is held.
func (s *Set) overlapping(b ir.Bind) *Socket {
	every := func(a netip.Addr) bool { return !a.IsValid() || a.IsUnspecified() }
	for other, k := range s.live {
		if other.Port == b.Port && other != b && (every(other.Address) || every(b.Address)) {
			return k.meta.Load()
		}
	}
	return nil
}

func problemText(b ir.Bind, err error, other *Socket) string {
	switch {
	case errors.Is(err, unix.EADDRINUSE) && other != nil:
		return fmt.Sprintf("%s overlaps with %s, which listener %s has; tried again every second", bindText(b), bindText(other.Bind), other.Listeners[0])
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Sprintf("%s is in use by another process or listener; tried again every second", bindText(b))
	case errors.Is(err, unix.EACCES):
		return fmt.Sprintf("no permission to bind %s", bindText(b))
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Sprintf("%s: this machine does not have the address", bindText(b))
	}
	return fmt.Sprintf("%s: %v", bindText(b), err)
}
