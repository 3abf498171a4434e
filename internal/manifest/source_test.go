package manifest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// configMap is a document with one value.
func configMap(name, value string) string {
	return fmt.Sprintf("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {v: %q}\n", name, value)
}

type applied struct {
	change objects.Change
	faults []diag.Fault
}

// follower runs a Source and follows what it applies.
type follower struct {
	t       testing.TB
	applies chan applied
	state   map[string]string // name -> value
	faults  []diag.Fault
	last    objects.Change
	log     *safeBuffer
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func follow(t testing.TB, paths ...string) *follower {
	t.Helper()
	f := &follower{t: t, applies: make(chan applied, 100), state: map[string]string{}, log: &safeBuffer{}}
	s, err := Open(paths, slog.New(slog.NewTextHandler(f.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- s.Run(ctx, func(c objects.Change, faults []diag.Fault) { f.applies <- applied{c, faults} })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	f.next()
	return f
}

func (f *follower) take(a applied) {
	for _, k := range a.change.Deletes {
		delete(f.state, k.Name)
	}
	for _, o := range a.change.Upserts {
		f.state[o.GetName()] = o.(*corev1.ConfigMap).Data["v"]
	}
	f.faults, f.last = a.faults, a.change
}

func (f *follower) next() {
	f.t.Helper()
	select {
	case a := <-f.applies:
		f.take(a)
	case <-time.After(20 * time.Second):
		f.t.Fatalf("nothing was applied; state %v, faults %s", f.state, faultText(f.faults))
	}
}

// until follows until the state is as wanted and each fault wanted is there, or the time is up.
func (f *follower) until(state map[string]string, faults ...string) {
	f.t.Helper()
	for !maps.Equal(f.state, state) || !f.has(faults) {
		f.next()
	}
}

func (f *follower) has(parts []string) bool {
	text := string(faultText(f.faults))
	if len(parts) == 0 {
		return len(f.faults) == 0
	}
	return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(text, p) })
}

func write(t testing.TB, name string, text ...string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(strings.Join(text, "")), 0o644); err != nil {
		t.Fatal(err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// swap makes link point to target as kubelet does it: a new link renamed over the old one.
func swap(t testing.TB, target, link string) {
	t.Helper()
	must(t, os.Symlink(target, link+"_tmp"))
	must(t, os.Rename(link+"_tmp", link))
}

type is = map[string]string

func TestFilesComeChangeAndGo(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("", func(t *testing.T) {
		dir := t.TempDir()
		a, b := filepath.Join(dir, "a.yaml"), filepath.Join(dir, "b.yml")
		write(t, a, configMap("one", "1"), configMap("two", "1"))
		write(t, filepath.Join(dir, "notes.txt"), "not read")
		write(t, filepath.Join(dir, ".hidden.yaml"), configMap("hidden", "1"))
		f := follow(t, dir)
		f.until(is{"one": "1", "two": "1"})
		write(t, b, configMap("three", "1"))
		f.until(is{"one": "1", "two": "1", "three": "1"})
		write(t, a, configMap("zero", "1"), "# moved down\n", configMap("one", "1"), configMap("two", "2"))
		f.until(is{"zero": "1", "one": "1", "two": "2", "three": "1"})
		var names []string
		for _, o := range f.last.Upserts {
			names = append(names, o.GetName())
		}
		if slices.Contains(names, "one") || slices.Contains(names, "three") {
			t.Errorf("what did not change was applied again: %v", names)
		}
		must(t, os.Remove(a))
		f.until(is{"three": "1"})
		must(t, os.Rename(b, filepath.Join(dir, "c.json.off")))
		f.until(is{})
	})
}

func TestEditors(t *testing.T) {
	dir := t.TempDir()
	a := filepath.Join(dir, "a.yaml")
	write(t, a, configMap("a", "1"))
	f := follow(t, dir)
	f.until(is{"a": "1"})
	write(t, filepath.Join(dir, ".a.yaml.swp"), configMap("a", "2"))
	must(t, os.Rename(filepath.Join(dir, ".a.yaml.swp"), a)) // vim, most others: rename over
	f.until(is{"a": "2"})
	must(t, os.Rename(a, a+"~")) // emacs: move away, write anew
	write(t, a, configMap("a", "3"))
	f.until(is{"a": "3"})
	for i := range 20 { // same size, within the clock's grain
		write(t, a, configMap("a", fmt.Sprint(i%10)))
	}
	f.until(is{"a": "9"})
}

func TestNamedFile(t *testing.T) {
	dir := t.TempDir()
	a := filepath.Join(dir, "gatehouse.conf")
	write(t, a, configMap("a", "1"))
	write(t, filepath.Join(dir, "other.yaml"), configMap("other", "1"))
	f := follow(t, a, a)
	f.until(is{"a": "1"})
	write(t, a+".new", configMap("a", "2"))
	must(t, os.Rename(a+".new", a))
	f.until(is{"a": "2"})
	must(t, os.Remove(a))
	f.until(is{}, "gatehouse.conf: cannot be read: no such file")
	write(t, a, configMap("a", "3"))
	f.until(is{"a": "3"})
}

// A mounted ConfigMap: files are links into ..data, which is a link that is swapped.
func TestConfigMapSwap(t *testing.T) {
	dir := t.TempDir()
	generation := func(n int, names ...string) string {
		g := filepath.Join(dir, fmt.Sprintf("..2026_11_23_%d", n))
		must(t, os.Mkdir(g, 0o755))
		for _, name := range names {
			write(t, filepath.Join(g, name+".yaml"), configMap(name, fmt.Sprint(n)))
		}
		return filepath.Base(g)
	}
	must(t, os.Symlink(generation(1, "a", "b"), filepath.Join(dir, "..data")))
	for _, name := range []string{"a.yaml", "b.yaml"} {
		must(t, os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)))
	}
	single := filepath.Join(dir, "a.yaml")
	f, g := follow(t, dir), follow(t, single)
	f.until(is{"a": "1", "b": "1"})
	g.until(is{"a": "1"})
	for n := 2; n < 5; n++ {
		swap(t, generation(n, "a", "b"), filepath.Join(dir, "..data"))
		must(t, os.RemoveAll(filepath.Join(dir, fmt.Sprintf("..2026_11_23_%d", n-1))))
		f.until(is{"a": fmt.Sprint(n), "b": fmt.Sprint(n)})
		g.until(is{"a": fmt.Sprint(n)})
	}
	swap(t, generation(5, "a"), filepath.Join(dir, "..data"))
	must(t, os.Remove(filepath.Join(dir, "b.yaml")))
	f.until(is{"a": "5"})
}

// A folder that is itself reached by a link, as git-sync makes it.
func TestLinkedFolderSwap(t *testing.T) {
	top := t.TempDir()
	for _, rev := range []string{"1", "2"} {
		must(t, os.MkdirAll(filepath.Join(top, rev, "manifests", "deep"), 0o755))
		write(t, filepath.Join(top, rev, "manifests", "deep", "a.yaml"), configMap("a", rev))
	}
	must(t, os.Symlink("1", filepath.Join(top, "current")))
	f := follow(t, filepath.Join(top, "current", "manifests"))
	f.until(is{"a": "1"})
	swap(t, "2", filepath.Join(top, "current"))
	f.until(is{"a": "2"})
	write(t, filepath.Join(top, "2", "manifests", "deep", "a.yaml"), configMap("a", "3"))
	f.until(is{"a": "3"})
}

func TestFoldersComeAndGo(t *testing.T) {
	top := t.TempDir()
	root := filepath.Join(top, "root")
	must(t, os.Mkdir(root, 0o755))
	f := follow(t, root)
	must(t, os.MkdirAll(filepath.Join(root, "x", "y"), 0o755))
	write(t, filepath.Join(root, "x", "y", "a.yaml"), configMap("a", "1"))
	f.until(is{"a": "1"})
	write(t, filepath.Join(root, "x", "y", "a.yaml"), configMap("a", "2"))
	f.until(is{"a": "2"})
	must(t, os.Symlink("..", filepath.Join(root, "x", "y", "loop")))
	write(t, filepath.Join(root, "x", "b.yaml"), configMap("b", "1"))
	f.until(is{"a": "2", "b": "1"})
	must(t, os.RemoveAll(filepath.Join(root, "x", "y")))
	f.until(is{"b": "1"})
	// The whole folder away: nobody meant to take down everything.
	must(t, os.Rename(root, root+".old"))
	f.until(is{"b": "1"}, "root: cannot be read: no such file", "is served until it is back")
	must(t, os.Mkdir(root, 0o755))
	write(t, filepath.Join(root, "b.yaml"), configMap("b", "2"))
	f.until(is{"b": "2"})
}

func TestSyntaxErrorKeepsTheLastGoodObjects(t *testing.T) {
	dir := t.TempDir()
	a := filepath.Join(dir, "a.yaml")
	write(t, a, configMap("a", "1"), configMap("b", "1"))
	f := follow(t, dir)
	f.until(is{"a": "1", "b": "1"})
	write(t, a, configMap("a", "2"), "---\na: [\n")
	f.until(is{"a": "1", "b": "1"}, "a.yaml:7: is not YAML", "the objects read before 20", "are served until it is mended")
	since := f.faults[0].Message
	write(t, filepath.Join(dir, "c.yaml"), configMap("c", "1"))
	f.until(is{"a": "1", "b": "1", "c": "1"}, "is not YAML")
	if got := f.faults[0].Message; got != since {
		t.Errorf("the fault told\n%s\nand then\n%s", since, got)
	}
	write(t, a, configMap("a", "3"))
	f.until(is{"a": "3", "c": "1"})
	for _, line := range []string{"manifest file cannot be read", "manifest file is readable again"} {
		if !strings.Contains(f.log.String(), line) {
			t.Errorf("the log lacks %q:\n%s", line, f.log.String())
		}
	}
	write(t, a)
	f.until(is{"a": "3", "c": "1"}, "is empty; the objects read before")
	write(t, a, "# nothing any more\n")
	f.until(is{"c": "1"})
}

func TestFaultyObjectKeepsItsLastGoodVersion(t *testing.T) {
	dir := t.TempDir()
	a := filepath.Join(dir, "a.yaml")
	write(t, a, configMap("a", "1"), configMap("b", "1"))
	f := follow(t, dir)
	f.until(is{"a": "1", "b": "1"})
	write(t, a, strings.Replace(configMap("a", "2"), "\ndata:", "\ndta:", 1), configMap("b", "2"), "---\nkind: ConfigMap\nmetadata: {name: new}\n")
	f.until(is{"a": "1", "b": "2"}, "dta: unknown field (did you mean data?)", "warning: ConfigMap default/a: the version read before 20",
		"ConfigMap new: apiVersion: is required")
	write(t, a, configMap("b", "3"))
	f.until(is{"b": "3"})
	write(t, a, strings.Replace(configMap("a", "2"), "\ndata:", "\ndta:", 1))
	f.until(is{}, "dta: unknown field")
	write(t, a, configMap("a", "4"))
	f.until(is{"a": "4"})
}

func TestTwinsFollowTheFirst(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a.yaml"), filepath.Join(dir, "b.yaml")
	write(t, b, configMap("x", "b"))
	f := follow(t, dir)
	f.until(is{"x": "b"})
	write(t, a, configMap("x", "a"))
	f.until(is{"x": "a"}, "b.yaml:2: ConfigMap default/x: is already in "+a+":2")
	must(t, os.Remove(a))
	f.until(is{"x": "b"})
}

// Of several changes the fastest shows what the machinery takes; the others show what else the machine did.
func TestAChangeIsLiveWithin100Milliseconds(t *testing.T) {
	dir := t.TempDir()
	a := filepath.Join(dir, "a.yaml")
	write(t, a, configMap("a", "start"))
	f := follow(t, dir)
	best := time.Hour
	for i := range 5 {
		start := time.Now()
		write(t, a, configMap("a", fmt.Sprint(i)))
		f.until(is{"a": fmt.Sprint(i)})
		best = min(best, time.Since(start))
	}
	if best > 100*time.Millisecond {
		t.Errorf("the fastest of 5 changes took %v, want at most 100ms", best)
	}
}

func TestOpenAndLoadTellEveryMissingPath(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.yaml"), configMap("a", "1"))
	paths := []string{filepath.Join(dir, "x"), dir, filepath.Join(dir, "y.yaml")}
	_, err := Open(paths, slog.Default())
	objs, _, loadErr := Load(paths)
	for _, err := range []error{err, loadErr} {
		if err == nil || !strings.Contains(err.Error(), "/x:") || !strings.Contains(err.Error(), "y.yaml") {
			t.Errorf("error = %v, want both missing paths", err)
		}
	}
	if len(objs) != 1 {
		t.Errorf("Load returned %d objects beside the error, want 1", len(objs))
	}
}

func TestLocate(t *testing.T) {
	dir := t.TempDir()
	a := filepath.Join(dir, "a.yaml")
	write(t, a, configMap("a", "1"), "---\nkind: List\napiVersion: v1\nitems:\n", `- apiVersion: v1
  kind: Service
  metadata: {name: web, namespace: shop}
  spec:
    selector:
      a.b/c: x
    ports:
    - name: http
      port: 80
    - port: 81
      name: more
`)
	web := diag.Ref{Kind: "Service", Namespace: "shop", Name: "web"}
	for path, want := range map[string]int{
		"": 10, "metadata.name": 12, "spec": 13, "spec.selector": 14, `spec.selector["a.b/c"]`: 15, "spec.ports": 16, "spec.ports[0]": 17,
		"spec.ports[0].port": 18, "spec.ports[1].targetPort": 19, "spec.ports[1].name": 20, "spec.ports[7]": 16, "status.x": 10, "spec.ports[": 16,
	} {
		f := []diag.Fault{{Object: web, Path: path}, {Message: "of nothing"}, {Object: diag.Ref{Kind: "Service", Name: "absent"}}}
		Locate([]string{dir}, f)
		if f[0].File != a || f[0].Line != want {
			t.Errorf("Locate(%q) = %s:%d, want line %d", path, f[0].File, f[0].Line, want)
		}
		if f[1].File != "" || f[2].File != "" {
			t.Errorf("located what is not there: %v", f[1:])
		}
	}
}

// After any history of files, what was applied adds up to what a fresh Load finds.
func TestHistoriesAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "manifest")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		s, err := Open([]string{dir}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		state := map[objects.Key]objects.Object{}
		few := rapid.SampledFrom([]string{"a", "b", "c"})
		for range rapid.IntRange(1, 5).Draw(t, "steps") {
			for range rapid.IntRange(0, 3).Draw(t, "writes") {
				name := filepath.Join(dir, few.Draw(t, "file")+".yaml")
				switch rapid.IntRange(0, 3).Draw(t, "what") {
				case 0:
					_ = os.Remove(name)
				case 1:
					_ = os.Rename(name, filepath.Join(dir, few.Draw(t, "to")+".yaml"))
				default:
					text := "# objects\n"
					for range rapid.IntRange(0, 3).Draw(t, "objects") {
						text += configMap(few.Draw(t, "name"), few.Draw(t, "value"))
					}
					if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			_, c, faults := s.scan()
			for _, k := range c.Deletes {
				if _, ok := state[k]; !ok {
					t.Fatalf("%v was deleted twice", k)
				}
				delete(state, k)
			}
			for _, o := range c.Upserts {
				if cmp.Equal(state[objects.KeyOf(o)], o) {
					t.Fatalf("%v was applied again without a change", objects.KeyOf(o))
				}
				state[objects.KeyOf(o)] = o
			}
			objs, fresh, err := Load([]string{dir})
			if err != nil {
				t.Fatal(err)
			}
			want := map[objects.Key]objects.Object{}
			for _, o := range objs {
				want[objects.KeyOf(o)] = o
			}
			if d := cmp.Diff(want, state); d != "" {
				t.Fatalf("state (-loaded +applied):\n%s", d)
			}
			if d := cmp.Diff(fresh, faults); d != "" {
				t.Fatalf("faults (-loaded +applied):\n%s", d)
			}
		}
	})
}
