// Command testlog turns the output of `go test -json` on its standard input into what people want to read: a line for each package,
// everything a failing test printed, and at the end what was skipped and why. It never swallows a failure: its exit status is 1 if
// anything failed or the input does not end as it should.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	failed, err := summarise(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testlog:", err)
	}
	if failed || err != nil {
		os.Exit(1)
	}
}

// event is one line of `go test -json` (go doc test2json).
type event struct {
	Action, Package, Test, Output string
	ImportPath                    string
}

// summarise copies what matters of r to w and says whether anything failed.
func summarise(r io.Reader, w io.Writer) (failed bool, err error) {
	type key struct{ pkg, test string }
	output := map[key]*strings.Builder{}
	open := map[string]bool{} // packages whose result is not in yet
	var skipped []string
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Fprintln(w, lines.Text()) // not JSON: a message of the go command
			continue
		}
		k := key{e.Package, e.Test}
		switch e.Action {
		case "build-output":
			fmt.Fprint(w, e.Output)
		case "build-fail":
			failed = true
		case "start":
			open[e.Package] = true
		case "output":
			if output[k] == nil {
				output[k] = &strings.Builder{}
			}
			output[k].WriteString(e.Output)
		case "skip":
			if e.Test != "" {
				skipped = append(skipped, fmt.Sprintf("%s %s: %s", e.Package, e.Test, reason(output[k].String())))
				delete(output, k)
				break
			}
			delete(open, e.Package) // no test files
		case "pass":
			if e.Test == "" {
				delete(open, e.Package)
				fmt.Fprint(w, resultLine(output[k].String()))
			}
			delete(output, k)
		case "fail":
			failed = true
			if e.Test == "" {
				delete(open, e.Package)
			}
			if b := output[k]; b != nil {
				fmt.Fprint(w, b.String())
				delete(output, k)
			}
		}
	}
	if err := lines.Err(); err != nil {
		return failed, fmt.Errorf("reading: %w", err)
	}
	if len(skipped) > 0 {
		fmt.Fprintln(w, "\nskipped:")
		for _, s := range skipped {
			fmt.Fprintln(w, "  "+s)
		}
	}
	for p := range open {
		return failed, fmt.Errorf("no result of %s", p)
	}
	return failed, nil
}

// resultLine is the last line that begins with "ok": the rest of what a passing package printed is left out.
func resultLine(s string) string {
	out := ""
	for line := range strings.Lines(s) {
		if strings.HasPrefix(line, "ok ") || strings.HasPrefix(line, "ok\t") {
			out = line
		}
	}
	return out
}

// reason finds what t.Skip said in the output of a skipped test: "    x_test.go:7: why".
func reason(s string) string {
	for line := range strings.Lines(s) {
		if _, why, ok := strings.Cut(strings.TrimSpace(line), ".go:"); ok {
			if _, why, ok = strings.Cut(why, ": "); ok {
				return strings.TrimSpace(why)
			}
		}
	}
	return "no reason given"
}
