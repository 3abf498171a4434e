package gatehouse_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// exchange is one command of a session and what it prints.
type exchange struct{ command, output string }

// session is the first session of a page: a code block of commands after "$ ", each with its output below it.
func session(page string) (out []exchange) {
	_, rest, _ := strings.Cut(page, "\n```\n$ ")
	text, _, _ := strings.Cut(rest, "\n```\n")
	for part := range strings.SplitSeq(text, "\n$ ") {
		command, output, _ := strings.Cut(part+"\n", "\n")
		out = append(out, exchange{command, output})
	}
	return out
}

func TestSession(t *testing.T) {
	got := session("# X\n\n```\nmake\n```\n\n```\n$ a -b\nc\nd\n$ e\n```\n\n```\n$ f\n```\n")
	want := []exchange{{"a -b", "c\nd\n"}, {"e", ""}}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(exchange{})); d != "" {
		t.Errorf("session (-want +got):\n%s", d)
	}
}

// TestReadme runs the sessions of the README and of the first five minutes with programs built from this tree and compares what
// they print. Only ports differ, so that the test needs none that others may have.
func TestReadme(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the session is for a POSIX shell")
	}
	var steps []exchange
	for _, p := range []string{"README.md", "docs/start/README.md"} {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		s := session(string(b))
		if s[0].command == "" {
			t.Fatalf("%s has no session", p)
		}
		steps = append(steps, s...)
	}
	dir := t.TempDir()
	for _, p := range []string{"bin/gatehouse ./cmd/gatehouse", "bin/shop-backend ./examples/shop/backend"} {
		name, source, _ := strings.Cut(p, " ")
		build := exec.Command("go", "build", "-o", filepath.Join(dir, name), source)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("building %s: %v\n%s", source, err, out)
		}
	}
	if err := os.CopyFS(filepath.Join(dir, "examples/shop"), os.DirFS("examples/shop")); err != nil {
		t.Fatal(err)
	}
	port := openShop(t, dir)
	for _, s := range steps {
		if _, err := exec.LookPath("curl"); err != nil && strings.HasPrefix(s.command, "curl ") {
			t.Logf("not run, because there is no curl: %s", s.command)
			continue
		}
		c := exec.Command("sh", "-c", strings.ReplaceAll(s.command, "127.0.0.1:8080", "127.0.0.1:"+port))
		c.Dir = dir
		out, err := c.CombinedOutput()
		if d := cmp.Diff(s.output, string(out)); d != "" || err != nil {
			t.Errorf("$ %s\n%v (-page +real):\n%s", s.command, err, d)
		}
	}
}

// openShop serves the shop with its sample backends, on free ports, until the test ends; it returns the port of the Ingress.
func openShop(t *testing.T, dir string) string {
	t.Helper()
	backends := program(t, dir, "bin/shop-backend", "web-service=127.0.0.1:0", "api-service=127.0.0.1:0", "web-canary=127.0.0.1:0")
	stdout, err := backends.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, backends)
	ports := freePorts(t, 5)
	replace := []string{"ort: 8000", "ort: " + ports[0], "ort: 8444", "ort: " + ports[1]}
	lines := bufio.NewScanner(stdout)
	for _, old := range []string{"9101", "9102", "9103"} {
		if !lines.Scan() {
			t.Fatalf("the backends ended: %v", lines.Err())
		}
		_, p, err := net.SplitHostPort(regexp.MustCompile(`\S+$`).FindString(lines.Text()))
		if err != nil {
			t.Fatal(err)
		}
		replace = append(replace, "ort: "+old, "ort: "+p)
	}
	files, err := filepath.Glob("examples/shop/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d manifests, %v", len(files), err)
	}
	served := filepath.Join(dir, "served")
	if err := os.Mkdir(served, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil {
			err = os.WriteFile(filepath.Join(served, filepath.Base(f)), []byte(strings.NewReplacer(replace...).Replace(string(b))), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	health := "127.0.0.1:" + ports[4]
	gatehouse := program(t, dir, "bin/gatehouse", "run", "-f", "served", "--bind", "127.0.0.1", "--http-port", ports[2], "--https-port", ports[3],
		"--health", health, "--admin", "off")
	var log bytes.Buffer
	gatehouse.Stderr = &log
	start(t, gatehouse)
	t.Cleanup(func() {
		if t.Failed() { // it has ended by now: this runs first, so end it here
			_ = gatehouse.Process.Kill()
			_ = gatehouse.Wait()
			t.Logf("gatehouse said:\n%s", log.String())
		}
	})
	waitReady(t, "http://"+health+"/readyz")
	return ports[2]
}

func program(t *testing.T, dir, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(t.Context(), filepath.Join(dir, name), args...)
	c.Dir = dir
	return c
}

// start runs a program; it is ended with the test.
func start(t *testing.T, c *exec.Cmd) {
	t.Helper()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill() // it may be gone
		_ = c.Wait()
	})
}

func waitReady(t *testing.T, url string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode == 200 {
				return
			}
		}
		select {
		case <-ctx.Done():
			t.Fatal("gatehouse did not become ready")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// freePorts are ports of loopback on which nobody listened a moment ago.
func freePorts(t *testing.T, n int) (out []string) {
	t.Helper()
	for p := 21000 + os.Getpid()%10000; len(out) < n; p++ {
		if p > 32000 {
			t.Fatal("there are no free ports")
		}
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(p))
		if err != nil {
			continue
		}
		defer l.Close()
		out = append(out, strconv.Itoa(p))
	}
	return out
}
