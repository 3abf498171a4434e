package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// dockerfile is the last stage of the Dockerfile by instruction, and its whole text with continued lines joined.
func dockerfile(t *testing.T) (map[string][]string, string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`\\\n\s*`).ReplaceAllString(string(b), "")
	last := map[string][]string{}
	for line := range strings.Lines(text) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if word == "FROM" {
			clear(last)
		}
		if word != "" && word != "#" {
			last[word] = append(last[word], rest)
		}
	}
	return last, text
}

// TestDockerfile holds the Dockerfile to what this program makes.
func TestDockerfile(t *testing.T) {
	last, text := dockerfile(t)
	want := map[string][]string{
		"FROM": {"scratch"}, "COPY": {"--from=build /root-of-image/ /"}, "WORKDIR": {"/"}, "USER": {user}, "EXPOSE": {port},
		"STOPSIGNAL": {"SIGTERM"}, "ENTRYPOINT": {fmt.Sprintf("[%q]", entrypoint)},
	}
	labels := last["LABEL"]
	delete(last, "LABEL")
	delete(last, "ARG")
	if d := cmp.Diff(want, last); d != "" {
		t.Errorf("the last stage (-want +got):\n%s", d)
	}
	o := options{version: "$VERSION", revision: "$REVISION", created: time.Unix(0, 0).UTC()}
	wantLabels := o.labels()
	delete(wantLabels, "org.opencontainers.image.created") // a Dockerfile cannot tell the commit's time
	got := map[string]string{}
	for _, m := range regexp.MustCompile(`(\S+)="([^"]*)"`).FindAllStringSubmatch(strings.Join(labels, " "), -1) {
		got[m[1]] = m[2]
	}
	if d := cmp.Diff(wantLabels, got); d != "" {
		t.Errorf("labels (-want +got):\n%s", d)
	}

	var files []string
	for _, m := range regexp.MustCompile(`/root-of-image/([a-z./-]*[a-z])\b`).FindAllStringSubmatch(text, -1) {
		files = append(files, m[1])
	}
	slices.Sort(files)
	if d := cmp.Diff([]string{"etc/group", "etc/passwd", "etc/ssl/certs", "etc/ssl/certs/ca-certificates.crt", "gatehouse"}, files); d != "" {
		t.Errorf("files (-want +got):\n%s", d)
	}
	for _, s := range []string{
		"echo '" + passwd + "' >/root-of-image/etc/passwd", "echo '" + group + "' >/root-of-image/etc/group",
		`CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION"`,
	} {
		if !strings.Contains(text, s) {
			t.Errorf("it does not say %s", s)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^FROM (?:--\S+ )?(\S+)`).FindAllStringSubmatch(text, -1) {
		if strings.Contains(m[1], "/") {
			t.Errorf("FROM %s names a registry: engines are set to theirs", m[1])
		}
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if m := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(mod); m == nil || !strings.Contains(text, "golang:"+string(m[1])+" ") {
		t.Errorf("FROM golang: another version than go.mod's")
	}
}

// sent copies what a container engine sends to the build: what .dockerignore, of the simple form that ours has, lets through.
func sent(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, ".dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "context")
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if !slices.Contains(lines, "*") {
		t.Fatal(".dockerignore does not begin with nothing")
	}
	for _, line := range lines {
		name, ok := strings.CutPrefix(line, "!")
		if !ok {
			continue
		}
		from, to := filepath.Join(root, name), filepath.Join(dir, name)
		if info, err := os.Stat(from); err != nil {
			t.Fatal(err)
		} else if info.IsDir() {
			if err := os.CopyFS(to, os.DirFS(from)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	remove(t, dir)
	return dir
}

// remove takes away what .dockerignore ignores in any folder.
func remove(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "testdata":
			if err := os.RemoveAll(p); err != nil {
				return err
			}
			return filepath.SkipDir
		case strings.HasSuffix(p, "_test.go"):
			return os.Remove(p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
