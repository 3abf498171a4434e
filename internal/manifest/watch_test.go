package manifest

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
)

func TestWaitSettles(t *testing.T) {
	for _, c := range []struct {
		name   string
		events []time.Duration // after the start
		want   time.Duration
	}{
		{"one event", []time.Duration{0}, settle},
		{"a burst", []time.Duration{0, 5 * time.Millisecond, 20 * time.Millisecond}, 40 * time.Millisecond},
		{"events without end", every(time.Millisecond, 300), settleMax},
		{"a late event", []time.Duration{3 * time.Second}, 3*time.Second + settle},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &watcher{log: slog.New(slog.DiscardHandler), fs: &fsnotify.Watcher{Events: make(chan fsnotify.Event), Errors: make(chan error)}}
				ctx, cancel := context.WithCancel(t.Context())
				start := time.Now()
				go func() {
					for _, after := range c.events {
						time.Sleep(after - time.Since(start)) // the bubble's clock
						select {
						case w.fs.Events <- fsnotify.Event{}:
						case <-ctx.Done():
							return
						}
					}
				}()
				if !w.wait(ctx, false) {
					t.Error("wait = false, want true")
				}
				if got := time.Since(start); got != c.want {
					t.Errorf("waited %v, want %v", got, c.want)
				}
				cancel()
			})
		})
	}
}

func every(d time.Duration, n int) []time.Duration {
	out := make([]time.Duration, n)
	for i := range out {
		out[i] = time.Duration(i) * d
	}
	return out
}

func TestWaitPollsWithoutEvents(t *testing.T) {
	for _, c := range []struct {
		name    string
		w       *watcher
		missing bool
	}{
		{"no inotify", &watcher{polls: true}, false},
		{"a path is missing", &watcher{fs: &fsnotify.Watcher{}}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				if !c.w.wait(t.Context(), c.missing) {
					t.Error("wait = false, want true")
				}
				if got := time.Since(start); got != poll {
					t.Errorf("waited %v, want %v", got, poll)
				}
			})
		})
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if (&watcher{}).wait(ctx, false) {
		t.Error("wait = true after the context's end")
	}
}

func TestAFolderThatCannotBeWatchedIsPolled(t *testing.T) {
	w := newWatcher(slog.New(slog.DiscardHandler))
	defer w.close()
	dir := t.TempDir()
	if !w.watch([]string{dir}) || w.polls {
		t.Errorf("a new folder: polls %v", w.polls)
	}
	if w.watch([]string{dir}) {
		t.Error("a folder that is watched came again")
	}
	if w.watch([]string{dir, dir + "/absent"}); !w.polls {
		t.Error("a folder that cannot be watched is not polled")
	}
}
