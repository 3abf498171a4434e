package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// page is a page of docs/reference.
func page(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/reference/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// rows are the rows of the tables of a text, without their headings.
func rows(text string) (out []string) {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "| `") {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

// withRows is a section with other rows below the heading of its table.
func withRows(section string, rows []string) string {
	i := strings.Index(section, "\n|---")
	if i < 0 {
		return section
	}
	head := i + 1 + strings.IndexByte(section[i+1:], '\n') + 1
	tail := section[head:]
	for strings.HasPrefix(tail, "|") {
		_, tail, _ = strings.Cut(tail, "\n")
	}
	return section[:head] + strings.Join(rows, "\n") + "\n" + tail
}

// accept writes a page anew if the test was asked to.
func accept(t *testing.T, name, old, text string) {
	t.Helper()
	if !*update || old == text {
		return
	}
	if err := os.WriteFile("../../docs/reference/"+name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestFlagsPage holds docs/reference/cli.md to the commands and their flags, both ways.
func TestFlagsPage(t *testing.T) {
	text := page(t, "cli.md")
	updated := text
	var sections []string
	for _, s := range strings.Split(text, "\n## ")[1:] {
		heading, _, _ := strings.Cut(s, "\n")
		sections = append(sections, heading)
	}
	var names []string
	for _, c := range commands() {
		names = append(names, c.name)
		k := &call{command: c, argv: []string{"-h"}, stdout: io.Discard, stderr: io.Discard, getenv: func(string) string { return "" }}
		if code := dispatch(context.Background(), k); code != 0 {
			t.Fatalf("%s -h: exit code %d", c.name, code)
		}
		var want []string
		k.flags.VisitAll(func(f *flag.Flag) { want = append(want, flagRow(f)) })
		_, section, _ := strings.Cut(text, "\n## "+c.name+"\n")
		section, _, _ = strings.Cut(section, "\n## ")
		updated = strings.Replace(updated, section, withRows(section, want), 1)
		if d := cmp.Diff(want, rows(section)); !*update && d != "" {
			t.Errorf("docs/reference/cli.md, section %s (-flags +page); go test ./cmd/gatehouse -update accepts the flags:\n%s", c.name, d)
		}
		if !strings.Contains(section, c.usage()) {
			t.Errorf("docs/reference/cli.md, section %s has no line %q", c.name, c.usage())
		}
	}
	accept(t, "cli.md", text, updated)
	sections = slices.DeleteFunc(sections, func(s string) bool { return s == "Exit codes" })
	if d := cmp.Diff(names, sections); d != "" {
		t.Errorf("docs/reference/cli.md (-commands +sections):\n%s", d)
	}
}

func flagRow(f *flag.Flag) string {
	name := "--" + f.Name
	if len(f.Name) == 1 {
		name = "-" + f.Name
	}
	def := ""
	if f.DefValue != "" {
		def = "`" + f.DefValue + "`"
	}
	return strings.ReplaceAll(fmt.Sprintf("| `%s` | %s | %s |", name, def, f.Usage), "|  |", "| |")
}

// TestMetricsPage holds docs/reference/metrics.md to what /metrics shows after some traffic, both ways.
func TestMetricsPage(t *testing.T) {
	t.Parallel()
	s := prepare(t)
	s.write("shadow.yaml", `
apiVersion: gatehouse.dev/v1alpha1
kind: AuthPolicy
metadata: {name: trial, namespace: shop}
spec:
  targetRefs: [{group: networking.k8s.io, kind: Ingress, name: shop}]
  defaults: {authentication: {mode: Shadow, methods: [{name: key, apiKey: {}}]}}
`)
	s.start()
	s.eventually("readyz is 200", func() bool { return s.status(s.health, "/readyz") == 200 })
	s.get(request{port: s.httpPort, path: "/"})
	s.get(request{host: "nowhere.example", port: s.httpPort, path: "/"})
	var want []string
	s.eventually("both exchanges are counted", func() bool {
		_, text := s.fetch(s.health, "/metrics")
		want = metricRows(text)
		return strings.Contains(text, `code="2xx"`) && strings.Contains(text, `reason="route_not_found"`) &&
			strings.Contains(text, "gatehouse_route_seconds_total{") && strings.Contains(text, "gatehouse_shadow_decisions_total{") && strings.Contains(text, "gatehouse_backend_wait_seconds_count{")
	})
	text := page(t, "metrics.md")
	accept(t, "metrics.md", text, withRows(text, want))
	if d := cmp.Diff(want, rows(text)); !*update && d != "" {
		t.Errorf("docs/reference/metrics.md (-/metrics +page); go test ./cmd/gatehouse -update accepts them:\n%s", d)
	}
}

// metricRows makes a row of each family of ours: name, type, labels, help.
func metricRows(text string) (out []string) {
	help, kind := map[string]string{}, map[string]string{}
	var names []string
	labels := map[string][]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		f := strings.SplitN(line, " ", 4)
		switch {
		case strings.HasPrefix(line, "# HELP gatehouse_"):
			names = append(names, f[2])
			help[f[2]] = f[3]
		case strings.HasPrefix(line, "# TYPE gatehouse_"):
			kind[f[2]] = f[3]
		case strings.HasPrefix(line, "gatehouse_") && labels[names[len(names)-1]] == nil:
			labels[names[len(names)-1]] = labelNames(line)
		}
	}
	for _, n := range names {
		cell := ""
		if len(labels[n]) > 0 {
			cell = "`" + strings.Join(labels[n], "`, `") + "`"
		}
		out = append(out, strings.ReplaceAll(fmt.Sprintf("| `%s` | %s | %s | %s |", n, kind[n], cell, help[n]), "|  |", "| |"))
	}
	return out
}

// labelNames are those of a sample, without a bucket's bound.
func labelNames(sample string) []string {
	out := []string{}
	_, inside, _ := strings.Cut(sample, "{")
	inside, _, _ = strings.Cut(inside, "}")
	for part := range strings.SplitSeq(inside, ",") {
		if name, _, ok := strings.Cut(part, "="); ok && name != "le" {
			out = append(out, name)
		}
	}
	return out
}
