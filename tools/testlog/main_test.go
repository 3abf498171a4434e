package main

import (
	"strings"
	"testing"
)

func TestSummarise(t *testing.T) {
	cases := []struct {
		name, in, want string
		failed         bool
		err            string
	}{
		{"pass", `{"Action":"start","Package":"p"}
{"Action":"output","Package":"p","Test":"TestA","Output":"chatter\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}
`, "ok  \tp\t0.1s\n", false, ""},
		{"skip", `{"Action":"start","Package":"p"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:7: no redis: installed?\n"}
{"Action":"skip","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}
`, "ok  \tp\t0.1s\n\nskipped:\n  p TestA: no redis: installed?\n", false, ""},
		{"fail", `{"Action":"start","Package":"p"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:7: got 1, want 2\n"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}
`, "    a_test.go:7: got 1, want 2\nFAIL\tp\t0.1s\n", true, ""},
		{"does not build", `{"ImportPath":"p","Action":"build-output","Output":"p.go:1: undefined: x\n"}
{"ImportPath":"p","Action":"build-fail"}
`, "p.go:1: undefined: x\n", true, ""},
		{"no test files", `{"Action":"start","Package":"p"}
{"Action":"output","Package":"p","Output":"?   \tp\t[no test files]\n"}
{"Action":"skip","Package":"p"}
`, "", false, ""},
		{"not JSON", "go: cannot find module\n", "go: cannot find module\n", false, ""},
		{"cut off", `{"Action":"start","Package":"p"}
`, "", false, "no result of p"},
	}
	for _, c := range cases {
		var w strings.Builder
		failed, err := summarise(strings.NewReader(c.in), &w)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if w.String() != c.want || failed != c.failed || got != c.err {
			t.Errorf("%s: summarise = %q, %v, %q, want %q, %v, %q", c.name, w.String(), failed, got, c.want, c.failed, c.err)
		}
	}
}
