// Package gatehouse_test holds the rules of the repository as tests: who may import whom, what pure rooms may not do,
// what files look like. It is policy, after Go's own go/build/deps_test.go: a rule is not changed to make a build
// pass without ARCHITECTURE.md changing too.
package gatehouse_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// imports is the table of rooms: a room, a colon, the rooms of ours that it may import. "-" is none; "*" is every room but
// edgetest. "policy/*" stands for each folder below internal/policy that has no row of its own. Only files that are not tests
// are held to it. A room is listed before it exists, so that its place is known.
const imports = `
api             : -
cmd             : *
diag            : -
ir              : -
exchange        : -
expression      : exchange
secret          : -
fact            : -
objects         : api diag secret
manifest        : api diag objects secret
kube            : api diag infra objects secret
infra           : api diag objects
policy          : diag exchange fact limiter secret
policy/*        : api diag exchange expression fact limiter policy secret
policy/builtin  : policy policy/*
translate       : api diag ir objects policy secret
feed            : diag ir secret
control         : diag feed infra ir objects policy secret translate
edge            : cert compile diag drive feed ir listener policy proxy secret telemetry upstream
route           : ir
compile         : cert diag ir policy proxy route secret upstream
cert            : ir secret
http1           : exchange
http2           : exchange
http3           : exchange
listener        : cert exchange ir
dns             : -
upstream        : cert exchange ir secret
proxy           : exchange ir policy route telemetry upstream
drive           : exchange http1 http2 http3 listener proxy upstream
limiter         : -
database        : secret
telemetry       : exchange
analytics       : database telemetry
audit           : diag fact ir policy route
portal          : analytics database ir
admin           : database diag proxy telemetry
edgetest        : *
examples        : -
`

// pure rooms start no goroutine, open no file or socket and read no clock. Time, bytes and names come in as arguments.
var pure = []string{
	"ir", "diag", "fact", "exchange", "expression", "objects", "translate", "infra", "route", "audit", "proxy", "http1", "http2",
	"policy", "policy/*",
}

// outside says which rooms may import a module (or a folder of it) of others. The longest prefix counts; what has no row is
// free to all. Kubernetes types stop at translate; its clients live in kube alone.
var outside = []struct {
	prefix string
	rooms  []string // nil: none
	why    string
}{
	{"k8s.io/", kubernetes, "Kubernetes types stop at translate: the data side reads ir"},
	{"sigs.k8s.io/", kubernetes, "Kubernetes types stop at translate: the data side reads ir"},
	{"k8s.io/client-go", []string{"kube"}, "only kube talks to a cluster"},
	{"sigs.k8s.io/controller-runtime", []string{"kube"}, "only kube talks to a cluster"},
}

var kubernetes = []string{
	"api", "objects", "manifest", "kube", "infra", "translate", "control", "policy/*", "cmd", "edgetest",
}

// noNetHTTP are the rooms of the data path that must not come to depend on net/http's ideas of a message.
var noNetHTTP = []string{"exchange", "http1", "http2", "route", "proxy"}

const maxLines = 600

// badFolders say nothing about what is in them.
var badFolders = []string{"util", "utils", "common", "helper", "helpers", "misc", "base", "shared", "types"}

func TestArchitecture(t *testing.T) {
	tr, err := load(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			for _, f := range c.run(tr) {
				t.Error(f)
			}
		})
	}
}

// checks are all rules, each a function from the tree to its faults: "file:line: what is wrong. What to do."
var checks = []struct {
	name string
	run  func(*tree) []string
}{
	{"imports", checkImports},
	{"outside", checkOutside},
	{"net-http", checkNetHTTP},
	{"pure", checkPure},
	{"init", checkInit},
	{"variables", checkVariables},
	{"comments", checkComments},
	{"folders", checkFolders},
	{"lines", checkLines},
}

// TestArchitecturePage holds ARCHITECTURE.md to the table above, so that one does not change without the other.
func TestArchitecturePage(t *testing.T) {
	b, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	if n := strings.Count(page, "\n"); n > 200 {
		t.Errorf("ARCHITECTURE.md has %d lines, want at most 200: move details to docs/design", n)
	}
	for _, f := range pageFaults(page, table()) {
		t.Error(f)
	}
}

// pageFaults compares the page's room table, rows of the form "| `room` | what | imports |", with rows.
func pageFaults(page string, rows map[string][]string) []string {
	var faults []string
	seen := map[string]bool{}
	for line := range strings.Lines(page) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 {
			continue
		}
		first := strings.TrimSpace(cells[1])
		room := strings.Trim(first, "`")
		if first != "`"+room+"`" {
			continue
		}
		want, ok := rows[room]
		if !ok {
			faults = append(faults, fmt.Sprintf("ARCHITECTURE.md has a row for %q, arch_test.go has none: make them agree", room))
			continue
		}
		seen[room] = true
		got := strings.FieldsFunc(cells[3], func(r rune) bool { return r == ',' || r == ' ' || r == '`' || r == '\n' })
		if !slices.Equal(got, want) {
			faults = append(faults, fmt.Sprintf("ARCHITECTURE.md lets %s import %q, arch_test.go %q: make them agree", room, got, want))
		}
	}
	for room := range rows {
		if !seen[room] {
			faults = append(faults, fmt.Sprintf("ARCHITECTURE.md has no row for %s: add | `%s` | ... | %s |",
				room, room, strings.Join(rows[room], ", ")))
		}
	}
	slices.Sort(faults)
	return faults
}

// table parses imports: room -> rooms it may import, in the order of the table ("-" stays).
func table() map[string][]string {
	rows := map[string][]string{}
	for line := range strings.Lines(imports) {
		room, allowed, ok := strings.Cut(line, ":")
		if ok {
			rows[strings.TrimSpace(room)] = strings.Fields(allowed)
		}
	}
	return rows
}
