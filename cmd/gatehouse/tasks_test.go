package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
// sessions, each one command, print what they are shown to print.
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
			now := sessions(t, name, text)
			if d := cmp.Diff(text, now); d != "" && !*update {
				t.Errorf("(-page +now), accept it with: go test ./cmd/gatehouse -run TaskPages -update\n%s", d)
			}
			if *update {
				if err := os.WriteFile(filepath.Join(tasks, name+".md"), []byte(now), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// sessions is a page with what its commands print now.
func sessions(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name+".yaml")
	documents, _ := fenced(text, "yaml")
	if err := os.WriteFile(file, []byte(strings.Join(documents, "---\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	program := func(args ...string) (string, int) {
		var out bytes.Buffer
		code := run(t.Context(), args, func(string) string { return "" }, &out, &out)
		return out.String(), code
	}
	if out, code := program("check", "-f", file); code != 0 {
		t.Fatalf("check ends with %d:\n%s", code, out)
	}
	blocks, at := fenced(text, "console")
	for i := len(blocks) - 1; i >= 0; i-- {
		command, _, _ := strings.Cut(blocks[i], "\n")
		args, ok := strings.CutPrefix(command, "$ gatehouse ")
		if !ok {
			t.Errorf("%q is not a command of gatehouse", command)
			continue
		}
		got, code := program(strings.Fields(strings.ReplaceAll(args, name+".yaml", file))...)
		if code != 0 {
			t.Errorf("%s ends with %d:\n%s", command, code, got)
		}
		text = text[:at[i]] + command + "\n" + got + text[at[i]+len(blocks[i]):]
	}
	return text
}
