package manifest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// Source is a set of files and folders that is watched. What cannot be read keeps what was last read of it: a file that
// is not YAML all its objects, a faulty object its last good version, as an API server would refuse an update. A fault says
// so and since when. What is deleted is gone.
type Source struct {
	paths   []string
	log     *slog.Logger
	set     *set
	stats   map[string]stat
	since   map[string]time.Time      // file -> when it stopped being readable
	stale   map[objects.Key]time.Time // object -> when its faults came
	good    map[objects.Key]object    // what was handed on
	told    []diag.Fault              // what was handed on
	now     func() time.Time
	missing bool // a path is not there: events may not tell when it comes back
}

// stat tells whether a file has to be read again.
type stat struct {
	info fs.FileInfo
	read time.Time
}

// Open prepares to watch paths. An error names each path that is not there.
func Open(paths []string, log *slog.Logger) (*Source, error) {
	var problems []error
	for _, p := range paths {
		if _, err := os.Stat(p); err != nil {
			problems = append(problems, err)
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("opening manifests: %w", err)
	}
	return &Source{
		paths: slices.Clone(paths), log: log, set: newSet(newReader()), stats: map[string]stat{}, since: map[string]time.Time{},
		stale: map[objects.Key]time.Time{}, good: map[objects.Key]object{}, now: time.Now,
	}, nil
}

// Run reads all and calls apply with it, then once for each settled change with what changed and all faults that there are
// then; apply is called by one goroutine at a time and may keep what it gets. Run returns when ctx ends, with nil.
func (s *Source) Run(ctx context.Context, apply func(objects.Change, []diag.Fault)) error {
	w := newWatcher(s.log)
	defer w.close()
	w.watch(watched(s.paths, nil))
	for first := true; ; first = false {
		files, change, faults := s.scan()
		if first || len(change.Upserts)+len(change.Deletes) > 0 || !slices.Equal(faults, s.told) {
			s.told = faults
			apply(change, slices.Clone(faults))
		}
		// A folder that came with this scan may have been written to before it was watched.
		if w.watch(watched(s.paths, files)) {
			continue
		}
		if !w.wait(ctx, s.missing) {
			return nil
		}
	}
}

// scan reads what has changed on disk since the last scan, and returns what that changes.
func (s *Source) scan() ([]found, objects.Change, []diag.Fault) {
	now := s.now()
	files, problems := walk(s.paths)
	there := map[string]bool{}
	var texts []text
	for _, f := range files {
		there[f.name] = true
		if t, ok := s.read(f, now); ok {
			texts = append(texts, t)
		}
	}
	for i, f := range s.set.reader.files(texts...) {
		s.take(f, texts[i], now)
	}
	s.missing = len(problems) > 0
	lost := s.lost(problems)
	for name := range s.set.files {
		if !there[name] && !lost(name) {
			delete(s.set.files, name)
			delete(s.stats, name)
			delete(s.since, name)
		}
	}
	current, faults := s.set.current(len(s.good))
	faults = append(faults, problemFaults(problems, len(s.good) > 0)...)
	faults = s.keepGood(current, faults, now)
	diag.SortFaults(faults)
	return files, s.change(current), faults
}

// read reads one file again if it may have changed; false: there is nothing to decode.
func (s *Source) read(f found, now time.Time) (text, bool) {
	old := s.stats[f.name]
	if old.info != nil && same(old, f.info) {
		return text{}, false
	}
	data, err := readFile(f)
	before := s.set.files[f.name]
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) && before == nil {
			return text{}, false
		}
		s.unreadable(f.name, before, diag.Fault{File: f.name, Message: "cannot be read: " + reason(err)}, now)
		delete(s.stats, f.name)
		return text{}, false
	}
	s.stats[f.name] = stat{f.info, now}
	return text{f.name, data, before}, true
}

// take puts what was read in the place of what was there before, unless it is no YAML or nothing.
func (s *Source) take(next *file, t text, now time.Time) {
	before := t.old
	syntax := slices.IndexFunc(next.documents, func(d *document) bool { return d.syntax })
	switch {
	case syntax >= 0 && before != nil && holdsObjects(before):
		d := next.documents[syntax]
		s.unreadable(t.name, before, d.appendFaults(nil, t.name)[0], now)
	case len(t.data) == 0 && before != nil && holdsObjects(before):
		s.unreadable(t.name, before, diag.Fault{File: t.name, Line: 1, Message: "is empty", Hint: "delete the file to remove its objects"}, now)
	default:
		if _, was := s.since[t.name]; was {
			s.log.Info("manifest file is readable again", "file", t.name)
		}
		delete(s.since, t.name)
		s.set.files[t.name] = next
	}
}

func holdsObjects(f *file) bool {
	return slices.ContainsFunc(f.documents, func(d *document) bool { return len(d.items) > 0 })
}

// unreadable keeps what was last read of a file, and tells so in its fault. A file of which nothing was read yet has only the fault.
func (s *Source) unreadable(name string, before *file, fault diag.Fault, now time.Time) {
	since, was := s.since[name]
	if !was {
		since = now
		s.since[name] = since
	}
	next := &file{name: name}
	if before != nil {
		next.documents = before.documents
		if holdsObjects(before) {
			fault.Message += fmt.Sprintf("; the objects read before %s are served until it is mended", since.UTC().Format(time.RFC3339))
		}
	}
	next.faults = []diag.Fault{fault}
	s.set.files[name] = next
	if !was {
		s.log.Warn("manifest file cannot be read", "file", name, "fault", fault.String())
	}
}

// same says that a file has not changed since it was read. A file that was written in the last moment before it was read may
// have been written again within the clock's grain, so it counts as changed.
func same(old stat, info fs.FileInfo) bool {
	return os.SameFile(old.info, info) && old.info.Size() == info.Size() && old.info.ModTime().Equal(info.ModTime()) &&
		old.read.Sub(info.ModTime()).Abs() > time.Second
}

// lost says of which files it cannot be told whether they are gone, because a path above them cannot be read: a folder that
// vanished whole, as in the middle of a swap, or a share that is away. A file that was named itself and is gone is gone.
func (s *Source) lost(problems []error) func(name string) bool {
	var dirs []string
	for _, p := range problems {
		var pe *fs.PathError
		if errors.As(p, &pe) {
			dirs = append(dirs, pe.Path)
		}
	}
	return func(name string) bool {
		return slices.ContainsFunc(dirs, func(dir string) bool { return below(name, dir) })
	}
}

func below(name, dir string) bool {
	return len(name) > len(dir) && name[:len(dir)] == dir && (name[len(dir)] == os.PathSeparator || dir[len(dir)-1] == os.PathSeparator)
}

func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

func problemFaults(problems []error, serving bool) []diag.Fault {
	var out []diag.Fault
	for _, p := range problems {
		f := diag.Fault{Message: "cannot be read: " + reason(p)}
		var pe *fs.PathError
		if errors.As(p, &pe) {
			f.File = pe.Path
		}
		if serving {
			f.Hint = "what was last read of a folder is served until it is back"
		}
		out = append(out, f)
	}
	return out
}

// keepGood puts the last good version of an object in the place of one with faults, and says so in those.
func (s *Source) keepGood(current map[objects.Key]object, faults []diag.Fault, now time.Time) []diag.Fault {
	kept := map[objects.Key]time.Time{}
	for k, o := range current {
		if o.item.obj != nil && !o.item.guard {
			continue
		}
		last, ok := s.good[k]
		if !ok || last.item.guard {
			continue
		}
		since, was := s.stale[k]
		if !was {
			since = now
			s.log.Warn("manifest object has faults; its last good version is served", "object", k.String(), "file", o.file)
		}
		kept[k] = since
		current[k] = object{last.item, o.file, o.line}
		faults = append(faults, diag.Fault{
			Object: o.item.ref, File: o.file, Line: o.line, Severity: diag.Warning,
			Message: fmt.Sprintf("the version read before %s is served until its faults are mended", since.UTC().Format(time.RFC3339)),
		})
	}
	s.stale = kept
	return faults
}

// change compares what counts now with what was handed on.
func (s *Source) change(current map[objects.Key]object) objects.Change {
	var c objects.Change
	var upserts []object
	stayed := 0
	for k, o := range current {
		if o.item.obj == nil {
			delete(current, k)
			continue
		}
		last, ok := s.good[k]
		if ok {
			stayed++
		}
		if !ok || !bytes.Equal(last.item.sum[:], o.item.sum[:]) {
			upserts = append(upserts, o)
		}
	}
	slices.SortFunc(upserts, func(a, b object) int {
		return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.line, b.line), a.item.ref.Compare(b.item.ref))
	})
	for _, o := range upserts {
		c.Upserts = append(c.Upserts, o.item.obj)
	}
	for k := range s.good {
		if stayed == len(s.good) { // as nearly always: nothing went
			break
		}
		if _, ok := current[k]; !ok {
			c.Deletes = append(c.Deletes, k)
		}
	}
	slices.SortFunc(c.Deletes, func(a, b objects.Key) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	s.good = current
	return c
}
