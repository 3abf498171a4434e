// Package manifest reads Kubernetes YAML and JSON from files and folders into objects, and watches them. It stands where
// an API server stands in a cluster: it decodes strictly, refuses what the kind's schema refuses, and fills in the
// schema's defaults, so that nobody behind it can tell where an object came from. Every fault has a file, a line and a
// field path, and all are found at once. It never writes, and never shows the value of a Secret.
package manifest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// Parse decodes all documents of one file. Faults carry file, line, path, message and hint, sorted by line. An object with a
// fault of severity error is left out, the others are returned. One exception: a ProtectionPolicy, AuthPolicy or RateLimitPolicy
// whose name and targets can be read is returned without its bundle, which is invalid by itself: a guard that cannot be read must
// not open what it guards. Of two objects of one kind, namespace and name the first stays.
func Parse(file string, data []byte) ([]objects.Object, []diag.Fault) {
	s := newSet(newReader())
	s.files[file] = s.reader.files(text{name: file, data: data})[0]
	return s.merge()
}

// Load reads files and folders (recursively *.yaml, *.yml and *.json, symbolic links followed, names beginning with "."
// left out) and returns all objects and all faults. The error tells of paths that are not there or cannot be read.
func Load(paths []string) ([]objects.Object, []diag.Fault, error) {
	files, problems := walk(paths)
	s := newSet(newReader())
	var texts []text
	for _, f := range files {
		data, err := readFile(f)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		texts = append(texts, text{name: f.name, data: data})
	}
	for _, f := range s.reader.files(texts...) {
		s.files[f.name] = f
	}
	objs, faults := s.merge()
	if err := errors.Join(problems...); err != nil {
		return objs, faults, fmt.Errorf("reading manifests: %w", err)
	}
	return objs, faults, nil
}

// Locate fills in File and Line of faults that others found in objects that were read from paths. It reads the files
// again, and leaves alone what it cannot find.
func Locate(paths []string, faults []diag.Fault) {
	wanted := map[objects.Key][]int{}
	for i, f := range faults {
		if f.File == "" && f.Object.Kind != "" {
			k := objects.Key{Kind: f.Object.Kind, Namespace: f.Object.Namespace, Name: f.Object.Name}
			wanted[k] = append(wanted[k], i)
		}
	}
	if len(wanted) == 0 {
		return
	}
	files, _ := walk(paths)
	r := newReader()
	r.roots = true
	for _, f := range files {
		data, err := readFile(f)
		if err != nil {
			continue
		}
		for _, d := range r.files(text{name: f.name, data: data})[0].documents {
			for _, it := range d.items {
				for _, i := range wanted[it.key] {
					faults[i].File, faults[i].Line = f.name, r.locate(d, it, faults[i].Path)
				}
				delete(wanted, it.key)
			}
		}
	}
}

// set is what was read, by file.
type set struct {
	reader *reader
	files  map[string]*file
}

func newSet(r *reader) *set { return &set{r, map[string]*file{}} }

// file is one file as it was last read.
type file struct {
	name      string
	documents []*document
	faults    []diag.Fault // of the file as a whole: it cannot be read, or is not served as it stands
}

// object is one object and where it stands.
type object struct {
	item *item
	file string
	line int
}

// current returns the objects that count, by key, and all faults, sorted. Of two objects of one key the first by file name
// and line stays.
func (s *set) current(about int) (map[objects.Key]object, []diag.Fault) {
	names := make([]string, 0, len(s.files))
	for n := range s.files {
		names = append(names, n)
	}
	slices.Sort(names)
	now := make(map[objects.Key]object, about)
	var faults []diag.Fault
	for _, n := range names {
		f := s.files[n]
		faults = append(faults, f.faults...)
		for _, d := range f.documents {
			if len(f.faults) == 0 { // else they are those of a version that is no longer there
				faults = d.appendFaults(faults, f.name)
			}
			for _, it := range d.items {
				if it.key == (objects.Key{}) {
					continue
				}
				o := object{it, f.name, d.line + it.line - 1}
				first, twice := now[it.key]
				if !twice {
					now[it.key] = o
					continue
				}
				faults = append(faults, twin(first, o))
			}
		}
	}
	diag.SortFaults(faults)
	return now, faults
}

// twin is the fault of an object that stands in two places.
func twin(first, second object) diag.Fault {
	message := fmt.Sprintf("is already in %s:%d, which stays; this one is left out", first.file, first.line)
	if bytes.Equal(first.item.sum[:], second.item.sum[:]) {
		message = fmt.Sprintf("is already in %s:%d with the same content", first.file, first.line)
	}
	return diag.Fault{
		Object: second.item.ref, File: second.file, Line: second.line, Message: message,
		Hint: "remove one of the two, or give one another name or namespace",
	}
}

func (s *set) merge() ([]objects.Object, []diag.Fault) {
	now, faults := s.current(0)
	list := make([]object, 0, len(now))
	for _, o := range now {
		if o.item.obj != nil {
			list = append(list, o)
		}
	}
	slices.SortFunc(list, func(a, b object) int {
		return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.line, b.line), a.item.ref.Compare(b.item.ref))
	})
	out := make([]objects.Object, len(list))
	for i, o := range list {
		out[i] = o.item.obj
	}
	return out, faults
}
