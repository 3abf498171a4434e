// Package control is the control loop: changes of objects go through translate to the feed, and what the data side
// acknowledges comes back as faults beside the verdicts of translate. One goroutine does it all; it reads no file and no cluster.
package control

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/feed"
	"github.com/gatehouse-io/gatehouse/internal/objects"
	"github.com/gatehouse-io/gatehouse/internal/translate"
)

// Loop holds the objects and what was made of them.
type Loop struct {
	translator *translate.Translator
	feed       *feed.Memory
	log        *slog.Logger

	mu     sync.Mutex // one change at a time
	store  *objects.Store
	first  bool // nothing was published yet
	begun  bool // the translator has seen everything
	logged map[string]bool
	fetch  func([]objects.Key)
	live   live

	view atomic.Pointer[View]
}

// View is what the loop last concluded. It is not changed once published.
type View struct {
	Report *diag.Report
	Input  []diag.Fault // what could not be read
}

// New returns a loop over an empty store.
func New(t *translate.Translator, f *feed.Memory, log *slog.Logger) *Loop {
	return &Loop{translator: t, feed: f, log: log, store: objects.NewStore(), first: true, logged: map[string]bool{}, live: newLive()}
}

// Fetch has f called, before the first Apply, with the objects whose bodies something needs, whenever these change: f must not
// block, and brings each of them by a later Apply. Nothing is published before the bodies that the first configuration needs are
// there.
func (l *Loop) Fetch(f func([]objects.Key)) { l.fetch = f }

// Apply takes a change of objects and all faults of the source, and publishes what follows from them before it returns.
func (l *Loop) Apply(c objects.Change, input []diag.Fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	touched := l.store.Apply(c)
	if !l.begun {
		touched = nil
	}
	l.begun = true
	r := l.translator.Update(l.store, touched)
	if l.fetch != nil {
		l.fetch(r.Pending)
	}
	if l.first && len(r.Pending) > 0 && l.fetch != nil {
		return
	}
	first := l.first
	l.first = false
	old := l.view.Load()
	if old == nil {
		old = &View{}
	}
	l.view.Store(&View{Report: r.Report, Input: input})
	l.feed.Update(func(s *feed.State) (config, endpoints, secrets bool) {
		s.Config, s.Endpoints, s.Secrets = r.Config, r.Endpoints, r.Secrets
		return r.ConfigChanged || first, r.EndpointsChanged || first, r.SecretsChanged || first
	})
	st, _ := l.feed.Latest()
	l.live.published(r.Report, st, len(r.Pending) == 0)
	l.tell(old.Input, input)
	for ref, o := range r.Report.Since(old.Report) {
		var was, is []diag.Fault
		if before := old.Report.Object(ref); before != nil {
			was = before.Faults
		}
		if o != nil {
			is = o.Faults
		}
		l.tell(was, is)
	}
}

// View returns what was last concluded, nil before the first change.
func (l *Loop) View() *View { return l.view.Load() }

// Run tells faults that only the data side finds, until ctx ends.
func (l *Loop) Run(ctx context.Context) {
	var seen []diag.Fault
	for {
		a, changed := l.feed.Acked()
		l.live.acked(a)
		l.mu.Lock()
		l.tell(seen, a.Faults)
		seen = a.Faults
		for k, s := range a.Listeners {
			if s.Problem != "" {
				l.once("listener "+k+" is not serving: "+s.Problem, func() { l.log.Warn("listener not serving", "listener", k, "problem", s.Problem) })
			}
		}
		l.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// tell logs the faults that there are, each once until it is mended: one that was there and is no longer is told again when it
// comes back.
func (l *Loop) tell(was, is []diag.Fault) {
	for _, f := range was {
		if !slices.Contains(is, f) {
			delete(l.logged, f.String())
		}
	}
	for _, f := range is {
		what := f.String()
		l.once(what, func() { l.log.Warn("fault", "what", what) })
	}
}

// once runs do unless it was run for the same key.
func (l *Loop) once(key string, do func()) {
	if l.logged[key] {
		return
	}
	if len(l.logged) > 10000 {
		clear(l.logged)
	}
	l.logged[key] = true
	do()
}

// Faults returns every fault known now: of reading, of translating and of the data side.
func (l *Loop) Faults() []diag.Fault {
	v := l.view.Load()
	if v == nil {
		return nil
	}
	a, _ := l.feed.Acked()
	out := append(slices.Clone(v.Input), v.Report.Faults()...)
	out = append(out, a.Faults...)
	diag.SortFaults(out)
	return slices.Compact(out)
}
