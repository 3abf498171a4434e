package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const tasks = "../../docs/tasks"

// fenced is the text of each block of one language in a page, and where it begins.
func fenced(page, language string) (blocks []string, at []int) {
	open := "\n```" + language + "\n"
	for from := 0; ; {
		i := strings.Index(page[from:], open)
		if i < 0 {
			return blocks, at
		}
		from += i + len(open)
		block, _, _ := strings.Cut(page[from:], "```\n")
		blocks, at = append(blocks, block), append(at, from)
		from += len(block)
	}
}

// TestTaskPages: what a page of docs/tasks shows as YAML is one configuration without a fault, in the file PAGE.yaml, and its console
// sessions print what they are shown to print. A session is lines of commands after "$ ", each with its output below it; one shell
// runs all of a page, in a folder of its own. Of a command that ends in & (gatehouse run) the test waits until it is ready. Where a page
// says 127.0.0.1:9101 there is a sample backend of examples/shop.
func TestTaskPages(t *testing.T) {
	files, err := filepath.Glob(tasks + "/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages := map[string]string{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if documents, _ := fenced(string(b), "yaml"); len(documents) > 0 {
			pages[strings.TrimSuffix(filepath.Base(f), ".md")] = string(b)
		}
	}
	if len(pages) == 0 {
		t.Fatal("no page has a configuration")
	}
	for name, text := range pages {
		t.Run(name, func(t *testing.T) {
			now := newStage(t, name, text).play(text)
			if d := cmp.Diff(text, now); d != "" && !*update {
				t.Errorf("(-page +now), accept it with: go test ./cmd/gatehouse -run TaskPages -update\n%s", d)
			}
			if *update && !t.Failed() {
				if err := os.WriteFile(filepath.Join(tasks, name+".md"), []byte(now), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// stage is where one page's sessions run: a folder with PAGE.yaml and the program.
type stage struct {
	t          *testing.T
	dir        string
	health     string            // address, of the gatehouse that the page runs
	flags      string            // what it is run with beside those of the page
	real, page *strings.Replacer // from the page's ports to those here, and back
}

func newStage(t *testing.T, name, text string) *stage {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the sessions are for a POSIX shell")
	}
	s := &stage{t: t, dir: t.TempDir(), real: strings.NewReplacer(), page: strings.NewReplacer()}
	if strings.Contains(text, "\n$ gatehouse run ") {
		if _, err := exec.LookPath("curl"); err != nil {
			t.Skip("there is no curl, which the page's sessions need")
		}
		ports := freePorts(t, 5)
		s.health = "127.0.0.1:" + ports[1]
		s.flags = " --bind 127.0.0.1 --admin off --drain-grace 0s --health " + s.health + " --http-port " + ports[2] + " --https-port " + ports[3]
		pairs := []string{":8000", ":" + ports[0], "port: 8000", "port: " + ports[0], ":8001", ":" + ports[4], "port: 8001", "port: " + ports[4], ":9902", ":" + ports[1]}
		back := []string{":" + ports[0], ":8000", ":" + ports[4], ":8001", ":" + ports[1], ":9902"}
		if strings.Contains(text, "port: 9101") {
			port := s.backend()
			pairs, back = append(pairs, "port: 9101", "port: "+port), append(back, "127.0.0.1:"+port, "127.0.0.1:9101")
		}
		s.real, s.page = strings.NewReplacer(pairs...), strings.NewReplacer(back...)
	}
	documents, _ := fenced(text, "yaml")
	s.write(name+".yaml", s.real.Replace(strings.Join(documents, "---\n")), 0o644)
	s.write("bin/gatehouse", fmt.Sprintf("#!/bin/sh\n%s=1 exec '%s' \"$@\"\n", asProgram, os.Args[0]), 0o755)
	if out, err := s.shell("gatehouse check -f " + name + ".yaml").CombinedOutput(); err != nil {
		t.Fatalf("check: %v\n%s", err, out)
	}
	return s
}

func (s *stage) write(name, text string, mode os.FileMode) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		s.t.Fatal(err)
	}
}

// shell is a command for a script. What it leaves behind in the background is no longer waited for once its own output ended.
func (s *stage) shell(script string) *exec.Cmd {
	c := exec.CommandContext(s.t.Context(), "sh", "-c", script)
	c.Dir, c.WaitDelay = s.dir, time.Second
	c.Env = append(os.Environ(), "PATH="+filepath.Join(s.dir, "bin")+":"+os.Getenv("PATH"), "TZ=UTC")
	return c
}

// backend runs a sample backend until the test ends, and returns its port.
func (s *stage) backend() string {
	s.t.Helper()
	program := filepath.Join(s.dir, "bin", "backend")
	if out, err := exec.Command("go", "build", "-o", program, "../../examples/shop/backend").CombinedOutput(); err != nil {
		s.t.Fatalf("building the sample backend: %v\n%s", err, out)
	}
	c := exec.Command(program, "web=127.0.0.1:0")
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = c.Process.Kill() // it may be gone
		_ = c.Wait()
	})
	var line [200]byte
	n, err := out.Read(line[:])
	if err != nil {
		s.t.Fatal(err)
	}
	text := strings.TrimSpace(string(line[:n]))
	return text[strings.LastIndexByte(text, ':')+1:]
}

// step is one command of a session, as the page has it, and the output below it.
type step struct{ command, output string }

// steps takes a block apart. A command goes on in the next line after a backslash.
func steps(block string) (out []step) {
	for lines := strings.SplitAfter(block, "\n"); len(lines) > 0; lines = lines[1:] {
		if !strings.HasPrefix(lines[0], "$ ") {
			if len(out) > 0 {
				out[len(out)-1].output += lines[0]
			}
			continue
		}
		command := lines[0]
		for strings.HasSuffix(command, "\\\n") && len(lines) > 1 {
			lines = lines[1:]
			command += lines[0]
		}
		out = append(out, step{command: command})
	}
	return out
}

// mark stands alone on a line behind what a command printed, before its exit code.
const mark = "gatehouse-task-page-mark "

// play runs the sessions of a page and returns the page with what they print now.
func (s *stage) play(text string) string {
	s.t.Helper()
	blocks, at := fenced(text, "console")
	var script strings.Builder
	script.WriteString("exec 2>&1\ncurl() { command curl --no-progress-meter \"$@\"; }\ntrap 'kill $background 2>/dev/null; wait' EXIT\n")
	for _, b := range blocks {
		for _, st := range steps(b) {
			script.WriteString(s.line(st.command) + "echo \"" + mark + "$?\"\n")
		}
	}
	out, err := s.shell(script.String()).Output()
	if err != nil {
		s.t.Errorf("the shell ends with %v", err)
	}
	printed := strings.Split(s.page.Replace(string(out)), mark)
	var now strings.Builder
	from := 0
	for i, b := range blocks {
		now.WriteString(text[from:at[i]])
		from = at[i] + len(b)
		for _, st := range steps(b) {
			if len(printed) < 2 {
				s.t.Fatalf("%s never ended:\n%s", st.command, printed[0])
			}
			code, rest, _ := strings.Cut(printed[1], "\n")
			if code != "0" {
				s.t.Errorf("%s ends with %s:\n%s", st.command, code, printed[0])
			}
			if o := printed[0]; o != "" && !strings.HasSuffix(o, "\n") {
				printed[0] += "\n"
			}
			now.WriteString(st.command + strings.ReplaceAll(printed[0], "\r", ""))
			printed = append([]string{rest}, printed[2:]...)
		}
	}
	now.WriteString(text[from:])
	return like(text, now.String())
}

// line is a command as the shell gets it.
func (s *stage) line(command string) string {
	command = s.real.Replace(strings.TrimPrefix(command, "$ "))
	before, background := strings.CutSuffix(strings.TrimSpace(command), " &")
	if !background {
		return command
	}
	return fmt.Sprintf("%s >log 2>&1 &\nbackground=\"$background $!\"\n", before+s.flags) +
		fmt.Sprintf("for i in $(seq 200); do curl -sf -o ready http://%s/readyz && break; sleep 0.1; done; test -e ready || cat log\n", s.health)
}

// fresh is what differs each time: keys, their ids, ids of requests, times.
var fresh = regexp.MustCompile(`gh_[a-z0-9]+_\w+|\b[0-9a-hjkmnp-tv-z]{12}\b|\b\w{4} +shop/|"requestId":"[^"]*"|\d{4}-\d\d-\d\dT[\d:.]+Z|[Dd]ate: .*|;t=\d+|[Rr]etry-[Aa]fter: \d+`)

// like is the page as it would be now, or as it is if they differ only in what is new each time.
func like(page, now string) string {
	if fresh.ReplaceAllString(page, "<>") == fresh.ReplaceAllString(now, "<>") {
		return page
	}
	return now
}

func TestSteps(t *testing.T) {
	got := steps("$ a \\\n  b\nc\n$ d &\n$ e\nf\ng\n")
	want := []step{{"$ a \\\n  b\n", "c\n"}, {"$ d &\n", ""}, {"$ e\n", "f\ng\n"}}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(step{})); d != "" {
		t.Errorf("steps (-want +got):\n%s", d)
	}
	if got := like("date: a\nx\n", "date: b\nx\n"); got != "date: a\nx\n" {
		t.Errorf("like = %q, want what the page has: only the date differs", got)
	}
	if got := like("date: a\nx\n", "date: b\ny\n"); got != "date: b\ny\n" {
		t.Errorf("like = %q, want what was printed: a line differs", got)
	}
}

// TestReasonsPage: the page about authentication explains every reason word that a method gives.
func TestReasonsPage(t *testing.T) {
	b, err := os.ReadFile(tasks + "/authentication.md")
	if err != nil {
		t.Fatal(err)
	}
	given := regexp.MustCompile(`(?:Refuse|InvalidToken|\.no)\("(\w+)"|Reason: +"(\w+)"|(?m:^\t\w+ += "([a-z]+(?:_[a-z]+)+)"(?: //.*)?$)|return "(certificate_\w+)"`)
	n := 0
	err = fs.WalkDir(os.DirFS("../../internal/policy/authn"), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return err
		}
		text, err := os.ReadFile(filepath.Join("../../internal/policy/authn", p))
		for _, m := range given.FindAllStringSubmatch(string(text), -1) {
			n++
			reason := strings.Join(m[1:], "")
			if slices.Contains([]string{"client_secret", "session_keys", "gh_session"}, reason) {
				continue // names of something else
			}
			if !strings.Contains(string(b), "`"+reason+"`") {
				t.Errorf("docs/tasks/authentication.md does not explain %s, which internal/policy/authn/%s gives: add a row", reason, p)
			}
		}
		return err
	})
	if err != nil || n < 50 {
		t.Errorf("%d reason words were found, %v", n, err)
	}
}
