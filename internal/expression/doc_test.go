package expression

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// TestReference holds docs/reference/expressions.md to the code: its examples compile and run, its table lists every attribute with its
// type, its limits are ours.
func TestReference(t *testing.T) {
	b, err := os.ReadFile("../../docs/reference/expressions.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	kinds := map[string]Kind{"bool": Bool, "string": String, "int": Int}
	examples := 0
	for _, m := range regexp.MustCompile("(?s)```cel (\\w+)( response)?\n(.*?)```").FindAllStringSubmatch(page, -1) {
		for src := range strings.Lines(m[3]) {
			examples++
			src = strings.TrimSpace(src)
			p, err := Compile(src, Options{Kind: kinds[m[1]], Response: m[2] != ""})
			if err != nil {
				t.Errorf("%s: %v", src, err)
				continue
			}
			for _, x := range []*exchange.Exchange{sample(), {}} {
				if _, err := outcome(p, x); err != nil && !strings.Contains(src, "inNetwork") {
					t.Errorf("%s: %v", src, err)
				}
			}
		}
	}
	if examples < 10 {
		t.Errorf("%d examples were found", examples)
	}
	for i := range attributes {
		a := &attributes[i]
		if row := fmt.Sprintf("| `%s` | %s |", a.name, a.typeOf()); !strings.Contains(page, row) {
			t.Errorf("the page has no row %s", row)
		}
	}
	for _, f := range functions() {
		if !strings.Contains(page, f) {
			t.Errorf("the page does not tell of %s", f)
		}
	}
	for what, n := range map[string]int{"source": maxSource, "nesting": maxDepth, "parts, once loops are written out": maxNodes,
		"loops in loops, or one after the other on a list": maxNesting, "regular expression": maxPattern,
		"estimated worst case for a large request": maxEstimate, "what it may cost for one request": maxRunCost,
		"texts that are put together, for one request": maxBuilt} {
		if row := fmt.Sprintf("| %s | %d", what, n); !strings.Contains(page, row) {
			t.Errorf("the page has no row that begins %s", row)
		}
	}
	if !strings.Contains(page, fmt.Sprintf("instructions of the pattern: %d,", maxSteps)) || !strings.Contains(page,
		fmt.Sprintf(", %d instructions once compiled", maxProgram)) {
		t.Error("the page does not tell the limits of regular expressions")
	}
}

// TestConcurrent: one program serves many exchanges at once, on both paths, while others are compiled.
func TestConcurrent(t *testing.T) {
	for _, c := range realistic {
		p, err := Compile(c.src, Options{Kind: c.kind})
		if err != nil {
			t.Fatal(err)
		}
		want, _ := outcome(p, sample())
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				x := sample()
				if _, err := Compile(c.src, Options{Kind: c.kind}); err != nil {
					t.Error(err)
				}
				for range 50 {
					if got, _ := outcome(p, x); got != want {
						t.Errorf("%s = %q, want %q", c.src, got, want)
						return
					}
				}
			})
		}
		wg.Wait()
	}
}
