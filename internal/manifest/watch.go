package manifest

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	settle    = 20 * time.Millisecond // without an event, after which a change counts as whole
	settleMax = 60 * time.Millisecond // after the first event, though more come
	poll      = time.Second           // between looks where there are no events
)

// watcher tells that something has happened in folders. Without inotify, or where a folder cannot be watched, it polls.
type watcher struct {
	log     *slog.Logger
	fs      *fsnotify.Watcher // nil: not available
	folders map[string]fs.FileInfo
	polls   bool // some folder is not watched
}

func newWatcher(log *slog.Logger) *watcher {
	w := &watcher{log: log, folders: map[string]fs.FileInfo{}}
	var err error
	if w.fs, err = fsnotify.NewWatcher(); err != nil {
		log.Warn("file events are not available; looking each second", "error", err)
		w.fs, w.polls = nil, true
	}
	return w
}

func (w *watcher) close() {
	if w.fs != nil {
		w.fs.Close()
	}
}

// watch replaces the folders that are watched. It says whether one came that was not watched before.
func (w *watcher) watch(folders []string) bool {
	if w.fs == nil {
		return false
	}
	came, failed := false, false
	now, watching := map[string]fs.FileInfo{}, w.fs.WatchList() // a folder that went has gone from the list
	for _, f := range folders {
		// Added even if it is watched: another folder may have taken its name.
		info, err := os.Stat(f)
		if err == nil {
			err = w.fs.Add(f)
		}
		if err != nil {
			if !w.polls && !errors.Is(err, fs.ErrNotExist) {
				w.log.Warn("a folder cannot be watched; looking each second", "folder", f, "error", err)
			}
			failed = true
			continue
		}
		now[f] = info
		if before, ok := w.folders[f]; !ok || !os.SameFile(before, info) || !slices.Contains(watching, f) {
			came = true
		}
	}
	for f := range w.folders {
		if _, ok := now[f]; !ok {
			_ = w.fs.Remove(f) // it may have gone by itself
		}
	}
	w.folders, w.polls = now, failed
	return came
}

// wait returns true once something has happened and settled, false when ctx ends. missing asks for a look each second as well.
func (w *watcher) wait(ctx context.Context, missing bool) bool {
	var events <-chan fsnotify.Event
	var problems <-chan error
	if w.fs != nil {
		events, problems = w.fs.Events, w.fs.Errors
	}
	var tick <-chan time.Time
	if missing || w.polls {
		t := time.NewTimer(poll)
		defer t.Stop()
		tick = t.C
	}
	var quiet, enough <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return false
		case <-events:
		case err := <-problems: // an overflow: events are lost, so look
			w.log.Debug("file events were lost", "error", err)
		case <-tick:
			return true
		case <-quiet:
			return true
		case <-enough:
			return true
		}
		quiet = time.After(settle)
		if enough == nil {
			enough = time.After(settleMax)
		}
	}
}
