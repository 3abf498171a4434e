package route

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestExplainGolden reads testdata/explain/*.txtar: a table (lines "listener KEY HOSTNAME", "host LISTENER HOSTNAME [one]",
// and below a host its routes as JSON of ir.Match), then files named "METHOD HOST PATH?QUERY [name: value]..." that hold
// what Explain says.
func TestExplainGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/explain/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c := readTable(t, string(a.Files[0].Data))
			table, faults := Build(nil, c, self)
			var b strings.Builder
			for _, f := range faults {
				b.WriteString(faultLine(f) + "\n")
			}
			got := &txtar.Archive{Comment: a.Comment, Files: []txtar.File{a.Files[0]}}
			for _, f := range a.Files[1:] {
				if f.Name == "faults" {
					got.Files = append(got.Files, txtar.File{Name: f.Name, Data: []byte(b.String())})
					continue
				}
				q := readRequest(f.Name).to(&Query{})
				x := table.Site("g", 80).Explain(q)
				if m := table.Site("g", 80).Match(q); m.Route != x.Route {
					t.Errorf("%s: Match says %v, Explain %v", f.Name, m.Route, x.Route)
				}
				got.Files = append(got.Files, txtar.File{Name: f.Name, Data: []byte(x.String())})
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(string(txtar.Format(a)), string(txtar.Format(got))); d != "" {
				t.Errorf("%s (-want +got; go test ./internal/route -update accepts it):\n%s", file, d)
			}
		})
	}
}

func faultLine(f Fault) string {
	switch {
	case f.Route != nil:
		return f.Route.Name + " " + f.Path + ": " + f.Message
	case f.Host != nil:
		return "host " + f.Host.Hostname + " " + f.Path + ": " + f.Message
	}
	return "listener " + f.Listener.Key + " " + f.Path + ": " + f.Message
}

func readTable(t *testing.T, text string) *ir.Config {
	c := &ir.Config{}
	for line := range strings.Lines(text) {
		f := append(strings.Fields(line), "", "", "")
		for i := range f {
			if f[i] == "*" {
				f[i] = ""
			}
		}
		switch f[0] {
		case "listener":
			c.Listeners = append(c.Listeners, &ir.Listener{Key: f[1], Group: "g", Port: 80, Hostname: f[2]})
		case "host":
			c.Hosts = append(c.Hosts, &ir.Host{Listener: f[1], Hostname: f[2], OneLabel: f[3] == "one"})
		case "":
		default:
			h := c.Hosts[len(c.Hosts)-1]
			r := &ir.Route{Name: f[0], Source: ir.Source{Kind: "HTTPRoute", Namespace: "shop", Name: f[0]}}
			_, match, _ := strings.Cut(strings.TrimSpace(line), " ")
			if err := json.Unmarshal([]byte(match), &r.Match); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			h.Routes = append(h.Routes, r)
		}
	}
	return c
}

func readRequest(line string) request {
	f := strings.SplitN(line, " ", 4)
	path, query, _ := strings.Cut(f[2], "?")
	r := request{method: f[0], host: f[1], path: path, query: query}
	if len(f) == 4 {
		for _, h := range strings.Split(f[3], "; ") {
			name, value, _ := strings.Cut(h, ": ")
			r.header = append(r.header, [2]string{name, value})
		}
	}
	return r
}
