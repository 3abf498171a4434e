package gatehouse_test

import (
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// pages returns the text of every Markdown page of the repository by its path.
func pages(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := fs.WalkDir(os.DirFS("."), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (p != "." && strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || p == "bin") {
			return fs.SkipDir
		}
		if strings.HasSuffix(p, ".md") {
			b, err := os.ReadFile(p)
			out[p] = string(b)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// brokenLinks finds the relative links of a page that lead nowhere; exists tells of a path in the repository.
func brokenLinks(page, text string, exists func(string) bool) []string {
	var broken []string
	for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(text, -1) {
		to, _, _ := strings.Cut(m[1], "#")
		if to == "" || strings.Contains(to, "://") {
			continue
		}
		if !exists(path.Join(path.Dir(page), to)) {
			broken = append(broken, m[1])
		}
	}
	return broken
}

func TestLinks(t *testing.T) {
	exists := func(p string) bool { _, err := os.Stat(p); return err == nil }
	for page, text := range pages(t) {
		for _, l := range brokenLinks(page, text, exists) {
			t.Errorf("%s: the link to %s leads nowhere", page, l)
		}
	}
	got := brokenLinks("docs/a.md", "[a](b.md#x) [c](../d.md) [e](#f) [g](https://h.example/i)", func(p string) bool { return p == "docs/b.md" })
	if !slices.Equal(got, []string{"../d.md"}) {
		t.Errorf("brokenLinks = %q, want only ../d.md", got)
	}
}

// TestDependencyList holds docs/reference/dependencies.md to go.mod, both ways.
func TestDependencyList(t *testing.T) {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("docs/reference/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	want := required(string(mod))
	var got []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(string(doc), -1) {
		got = append(got, m[1])
	}
	for _, m := range want {
		if !slices.Contains(got, m) {
			t.Errorf("docs/reference/dependencies.md does not list %s: add a row that says why it is there", m)
		}
	}
	for _, m := range got {
		if !slices.Contains(want, m) {
			t.Errorf("docs/reference/dependencies.md lists %s, which go.mod does not require directly: remove the row", m)
		}
	}
}

// required lists the modules that a go.mod requires directly.
func required(mod string) []string {
	var out []string
	for _, m := range regexp.MustCompile(`(?m)^(?:require )?\s*(\S+\.\S+/\S+|\S+\.\S+) v\S+(.*)$`).FindAllStringSubmatch(mod, -1) {
		if !strings.Contains(m[2], "// indirect") {
			out = append(out, m[1])
		}
	}
	return out
}

func TestRequired(t *testing.T) {
	got := required("module a.example/b\n\ngo 1.26.0\n\nrequire (\n\tc.example/d v1.0.0\n\te.example/f v1.0.0 // indirect\n)\n\nrequire g.example v0.1.0\n")
	if want := []string{"c.example/d", "g.example"}; !slices.Equal(got, want) {
		t.Errorf("required = %q, want %q", got, want)
	}
}

// TestChanges holds the changelog's entries to the form that their README gives.
func TestChanges(t *testing.T) {
	entries, err := os.ReadDir("changes/unreleased")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == "README.md" {
			continue
		}
		b, err := os.ReadFile("changes/unreleased/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		kind, _, _ := strings.Cut(e.Name(), "-")
		head, rest, _ := strings.Cut(string(b), "\n\n")
		if !slices.Contains([]string{"new", "change", "fix", "security"}, kind) || !strings.HasPrefix(head, kind+": ") ||
			strings.Contains(head, "\n") || strings.TrimSpace(rest) == "" || !strings.HasSuffix(e.Name(), ".md") {
			t.Errorf("changes/unreleased/%s is not of the form that README.md there gives", e.Name())
		}
	}
}
