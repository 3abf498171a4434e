package manifest

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const maxFile = 256 << 20

// found is one file to read.
type found struct {
	name string // as written or joined from what was written
	info fs.FileInfo
}

// walk lists the files of paths: a file itself, whatever it is called, and in folders, at any depth, *.yaml, *.yml and *.json.
// Links are followed; names beginning with "." are left out, so that in a mounted ConfigMap, where file -> ..data/file and
// ..data -> ..2026_11_23, each file is seen once. Problems are those of paths that cannot be read.
func walk(paths []string) (files []found, problems []error) {
	seen := map[string]bool{}
	add := func(name string, info fs.FileInfo) {
		if !seen[filepath.Clean(name)] {
			seen[filepath.Clean(name)] = true
			files = append(files, found{name, info})
		}
	}
	var folder func(dir string, above []fs.FileInfo)
	folder = func(dir string, above []fs.FileInfo) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			problems = append(problems, err)
		}
		for _, e := range entries {
			name := filepath.Join(dir, e.Name())
			if strings.HasPrefix(e.Name(), ".") {
				continue
			}
			info, err := os.Stat(name)
			switch {
			case err != nil && !isManifest(name): // a link to nowhere that would not be read anyway
			case err != nil:
				problems = append(problems, err)
			case info.IsDir() && !slices.ContainsFunc(above, func(a fs.FileInfo) bool { return os.SameFile(a, info) }):
				folder(name, append(above[:len(above):len(above)], info))
			case info.Mode().IsRegular() && isManifest(name):
				add(name, info)
			}
		}
	}
	for _, p := range paths {
		p = filepath.Clean(p)
		info, err := os.Stat(p)
		switch {
		case err != nil:
			problems = append(problems, err)
		case info.IsDir():
			folder(p, []fs.FileInfo{info})
		default:
			add(p, info)
		}
	}
	return files, problems
}

func isManifest(name string) bool {
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

func readFile(f found) ([]byte, error) {
	if f.info.Size() > maxFile {
		return nil, fmt.Errorf("%s: has %d bytes, at most %d are read", f.name, f.info.Size(), maxFile)
	}
	return os.ReadFile(f.name)
}

// watched lists the folders whose events can change what walk finds below paths: their folders, the ones they lie in, and the one
// of each link on the way to a file, since a link may be swapped. No folder is listed under two names.
func watched(paths []string, files []found) []string {
	dirs := map[string]bool{}
	for _, f := range files {
		dirs[filepath.Dir(f.name)] = true
		if real, err := filepath.EvalSymlinks(f.name); err == nil {
			dirs[filepath.Dir(real)] = true
		}
	}
	for _, p := range paths {
		p = filepath.Clean(p)
		if info, err := os.Stat(p); err == nil && info.IsDir() {
			subfolders(p, 0, dirs, map[string]bool{})
		}
		abs, err := filepath.Abs(p)
		if err != nil {
			continue
		}
		dirs[filepath.Dir(abs)] = true
		for ; filepath.Dir(abs) != abs; abs = filepath.Dir(abs) {
			if info, err := os.Lstat(abs); err == nil && info.Mode()&fs.ModeSymlink != 0 {
				dirs[filepath.Dir(abs)] = true
			}
		}
	}
	real := map[string]bool{}
	for d := range dirs {
		if abs, err := filepath.Abs(d); err == nil {
			if r, err := filepath.EvalSymlinks(abs); err == nil {
				real[r] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(real))
}

// subfolders adds dir and the folders below it, those without manifests too: one may come.
func subfolders(dir string, depth int, dirs, seen map[string]bool) {
	if depth > 32 || seen[dir] {
		return
	}
	dirs[dir], seen[dir] = true, true
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if info, err := os.Stat(name); err == nil && info.IsDir() {
			subfolders(name, depth+1, dirs, seen)
		}
	}
}
