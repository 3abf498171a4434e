package token

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// How often keys are fetched, and how long a request waits for that.
const (
	minGap     = 30 * time.Second // from the start of one fetch to that of the next
	minAge     = 60 * time.Second
	maxAge     = 24 * time.Hour
	defaultAge = 10 * time.Minute
	maxBackoff = 2 * time.Minute
	patience   = 40 * time.Millisecond
)

// Set gives the keys of an issuer, which may change.
type Set struct {
	inline *Keys
	fetch  *fetcher // nil: the keys are inline
	wait   *gates
}

// Inline is a set that never changes.
func Inline(k *Keys) *Set { return &Set{inline: k} }

// Keys are those that count now; nil: they were never fetched.
func (s *Set) Keys() *Keys {
	if s.fetch != nil {
		return s.fetch.keys.Load()
	}
	return s.inline
}

// Document is the last good discovery document of an issuer, nil if there is none. It is shared and never changed. What its other URLs
// are good for is for the caller to check.
func (s *Set) Document() map[string]any {
	if s.fetch != nil {
		if m := s.fetch.whole.Load(); m != nil {
			return *m
		}
	}
	return nil
}

// From says where the keys come from: the URL of the keys or of the issuer, "" for those that are inline.
func (s *Set) From() string {
	if s.fetch == nil {
		return ""
	}
	return s.fetch.from
}

// Why says why there are no keys, or no newer ones.
func (s *Set) Why() string {
	if s.fetch != nil {
		if p := s.fetch.why.Load(); p != nil {
			return *p
		}
	}
	return "not fetched yet"
}

// CheckURL refuses what keys cannot be fetched from.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return fmt.Errorf("%q is not a URL that can be fetched", text)
	}
	return nil
}

// OpenURL is the set at a URL, fetched in the background and shared by all that name that URL.
func OpenURL(env policy.Env, from string) *Set { return open(env, from, false) }

// OpenIssuer is the set that an issuer's discovery document names (OpenID Connect Discovery section 4, RFC 8414 section 3).
func OpenIssuer(env policy.Env, issuer string) *Set { return open(env, issuer, true) }

func open(env policy.Env, from string, discover bool) *Set {
	key := "keys " + from
	if discover {
		key = "keys of issuer " + from
	}
	f := policy.Open(env, key, func() (*fetcher, func(policy.Work)) {
		f := &fetcher{from: from, discover: discover, call: env.Call, wake: make(chan struct{}, 1)}
		if f.call == nil {
			return f, nil
		}
		return f, f.run
	})
	// Who waits for keys is let go by a value of its own, because the fetcher cannot watch a clock while it asks. It belongs to this
	// opening, not to the fetcher: the two may outlive each other.
	g := policy.Open(env, "key waiters", func() (*gates, func(policy.Work)) {
		g := &gates{wake: make(chan struct{}, 1)}
		return g, g.run
	})
	return &Set{fetch: f, wait: g}
}

// round is one fetch of keys, and the requests that wait for it.
type round struct {
	gate   chan struct{} // closed when the round is over, or when the first request has waited long enough
	once   sync.Once
	joined bool // somebody waits
}

func (r *round) open() { r.once.Do(func() { close(r.gate) }) }

func newRound() *round { return &round{gate: make(chan struct{})} }

// Refresh asks for newer keys, for a token whose key is not known at the time now. It returns what closes when waiting has an end, within
// 40 ms; nil: there is nothing to wait for, because keys were fetched a moment ago or cannot be fetched.
func (s *Set) Refresh(now time.Time) <-chan struct{} {
	if s.fetch == nil {
		return nil
	}
	return s.fetch.join(now, s.wait)
}

// fetcher is the running value behind sets of one URL.
type fetcher struct {
	keys     atomic.Pointer[Keys]
	why      atomic.Pointer[string]         // the last fetch failed
	whole    atomic.Pointer[map[string]any] // the last good discovery document
	from     string
	discover bool
	call     policy.Caller
	wake     chan struct{}

	mu      sync.Mutex
	running bool
	asked   bool      // a round waits to be begun
	started time.Time // of the last round
	round   *round    // the last

	document document // of discovery; the run's own
}

// join makes a request part of a round that has just begun, or begins one if the last began long enough ago.
func (f *fetcher) join(now time.Time, g *gates) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.running {
		return nil
	}
	r := f.round
	if r == nil || isOpen(r.gate) {
		if r != nil && now.Sub(f.started) < minGap {
			return nil
		}
		r = newRound()
		f.round, f.started, f.asked = r, now, true
		poke(f.wake)
	}
	if !r.joined {
		if r.joined = g.add(r); !r.joined {
			return nil // nobody would end the waiting
		}
	}
	return r.gate
}

func isOpen(gate <-chan struct{}) bool {
	select {
	case <-gate:
		return true
	default:
		return false
	}
}

func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run fetches the keys whenever they are old or somebody asks, until the work is over.
func (f *fetcher) run(w policy.Work) {
	f.mu.Lock()
	f.running = true
	f.mu.Unlock()
	var due time.Time
	for failures := 0; ; {
		if r := f.begin(w.Now(), due); r != nil {
			age, err := f.refresh(w)
			if err != nil {
				failures++
				text := err.Error()
				f.why.Store(&text)
				age = f.backoff(failures)
			} else {
				failures = 0
				f.why.Store(nil)
			}
			r.open()
			due = w.Now().Add(age)
		}
		if !w.Sleep(max(due.Sub(w.Now()), time.Second), f.wake) {
			break
		}
	}
	f.mu.Lock()
	f.running = false
	if f.round != nil {
		f.round.open()
	}
	f.mu.Unlock()
}

// begin is the round that is to be fetched now, nil if it is not time.
func (f *fetcher) begin(now, due time.Time) *round {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-f.wake: // what it was about is seen here
	default:
	}
	switch {
	case f.asked:
		f.asked = false
	case now.Before(due) || f.round != nil && now.Sub(f.started) < minGap:
		return nil
	default:
		f.round, f.started = newRound(), now
	}
	return f.round
}

// backoff is how long to wait after so many failures. While there are no keys at all every try counts.
func (f *fetcher) backoff(failures int) time.Duration {
	if f.keys.Load() == nil {
		return minGap
	}
	return min(minGap<<min(failures-1, 8), maxBackoff)
}

// gates opens the gates of rounds after patience.
type gates struct {
	wake chan struct{}

	mu      sync.Mutex
	running bool
	rounds  []*round
}

// add has a gate opened in a while; false: nobody would do it.
func (g *gates) add(r *round) bool {
	if g == nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.running {
		return false
	}
	g.rounds = append(g.rounds, r)
	poke(g.wake)
	return true
}

func (g *gates) run(w policy.Work) {
	g.mu.Lock()
	g.running = true
	g.mu.Unlock()
	type waiting struct {
		*round
		until time.Time
	}
	var all []waiting
	for {
		now := w.Now()
		g.mu.Lock()
		for _, r := range g.rounds {
			all = append(all, waiting{r, now.Add(patience)})
		}
		g.rounds = nil
		g.mu.Unlock()
		for len(all) > 0 && !now.Before(all[0].until) { // they are in the order of their times
			all[0].open()
			all = all[1:]
		}
		sleep := time.Hour
		if len(all) > 0 {
			sleep = all[0].until.Sub(now)
		}
		if !w.Sleep(sleep, g.wake) {
			break
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running = false
	for _, r := range g.rounds {
		r.open()
	}
	for _, r := range all {
		r.open()
	}
}

// Wait waits until a gate opens or ctx is over.
func Wait(ctx context.Context, gate <-chan struct{}) {
	select {
	case <-gate:
	case <-ctx.Done():
	}
}

// wellKnown are where the discovery document of an issuer may be.
func wellKnown(issuer string) []string {
	const oidc, oauth = "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"
	base := strings.TrimSuffix(issuer, "/")
	host := base
	path := ""
	if i := strings.Index(base, "://"); i >= 0 {
		if j := strings.IndexByte(base[i+3:], '/'); j >= 0 {
			host, path = base[:i+3+j], base[i+3+j:]
		}
	}
	return []string{base + oidc, host + oauth + path}
}
