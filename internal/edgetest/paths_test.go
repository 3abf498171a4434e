package edgetest_test

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/manifest"
	"github.com/gatehouse-io/gatehouse/internal/objects"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/builtin"
	"github.com/gatehouse-io/gatehouse/internal/translate"
)

var accept = flag.Bool("update", false, "accept what the edge now does as the golden table")

// spellings are the paths that are asked for, by the class of hole that each tries to open.
var spellings = []struct {
	class string
	paths []string
}{
	{"plain", []string{"/a", "/a/b", "/a/b/c", "/ab", "/x", "/A/b"}},
	{"trailing slash", []string{"/a/", "/a/b/"}},
	{"encoded unreserved", []string{"/%61/b", "/a/%7Eb", "/a/%7eb", "/%41/b"}},
	{"hex case", []string{"/a/%c3%a9", "/a/%C3%A9"}},
	{"dot segments", []string{"/a/./b", "/a/../b", "/x/../a/b", "/../a/b", "/a/b/..", "/a/b/.", "/a/.../b"}},
	{"encoded dots", []string{"/x/%2e%2e/a/b", "/x/%2E./a/b", "/a/%2e/b", "/x/%252e%252e/a/b", "/a/%252e%252e/x", "/a/%25252e%25252e/x"}},
	{"escaped slash", []string{"/a%2fb", "/a%2Fb", "/x%2f..%2fa/b", "/x/..%2fa/b", "/a/..%2fx", "/a/%2e%2e%2fx", "/a%252fb"}},
	{"backslash", []string{"/a\\b", "/a%5cb", "/x/..\\a/b", "/a/..%5Cx"}},
	{"NUL", []string{"/a%00/b", "/a/b%00"}},
	{"empty segments", []string{"//a/b", "/a//b", "/a/b//", "//x/../a/b", "/a//../x"}},
	{"parameters", []string{"/a;v=1/b", "/a/b;v=1", "/a/..;/x", "/x/..;v=1/a/b", "/a/.;/b"}},
	{"question mark", []string{"/a/b?x=/../y", "/a%3Fb", "/a/b%3fx"}},
	{"malformed", []string{"/a/b%", "/a/b%zz", "/a/\xc3\xa9", "/a/b#c", "a/b"}},
}

// columns are the hosts: how the route "a" is matched and rewritten. A route "rest" takes what is left.
var columns = []struct{ name, title, match, filter string }{
	{"exact", "Exact /a/b", "{type: Exact, value: /a/b}", ""},
	{"prefix", "Prefix /a", "{type: PathPrefix, value: /a}", ""},
	{"regex", "Regex /a/[^/]+", `{type: RegularExpression, value: "/a/[^/]+"}`, ""},
	{"ingress", "Ingress /a", "", ""},
	{"full", "Prefix /a to full /new", "{type: PathPrefix, value: /a}", "{type: ReplaceFullPath, replaceFullPath: /new}"},
	{"replaced", "Prefix /a to prefix /p/q", "{type: PathPrefix, value: /a}", "{type: ReplacePrefixMatch, replacePrefixMatch: /p/q}"},
}

// hygienes are the settings of a listener.
var hygienes = []struct{ title, slashes, empty string }{
	{"default", "", ""}, {"escapedSlashes: Reject", "Reject", ""}, {"escapedSlashes: Keep", "Keep", ""},
	{"emptySegments: Merge", "", "Merge"}, {"emptySegments: Keep", "", "Keep"},
}

// pathRoutes is the configuration: of each column a host that is open, and one where "a" is guarded, which makes it path-sensitive.
func pathRoutes(t *testing.T) *ir.Config {
	t.Helper()
	var b strings.Builder
	b.WriteString(manyRoutes + `---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: gatehouse, annotations: {ingressclass.kubernetes.io/is-default-class: "true"}}
spec: {controller: gatehouse.dev/ingress}
---
apiVersion: v1
kind: Service
metadata: {name: c, namespace: d}
spec: {ports: [{port: 80}]}
---
apiVersion: gatehouse.dev/v1alpha1
kind: ProtectionPolicy
metadata: {name: guard, namespace: d}
spec:
  targetRefs: [{group: networking.k8s.io, kind: Ingress, name: a-guarded}]
  defaults: {sizes: {requestBody: 1Mi}}
`)
	for _, kind := range []string{"open", "guarded"} {
		for _, c := range columns {
			host := c.name + "." + kind
			if c.match == "" {
				for _, rule := range [][2]string{{"a", "/a"}, {"rest", "/"}} {
					fmt.Fprintf(&b, `---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: %s-%s, namespace: d}
spec: {rules: [{host: %s, http: {paths: [{path: %s, pathType: ImplementationSpecific, backend: {service: {name: c, port: {number: 80}}}}]}}]}
`, rule[0], kind, host, rule[1])
				}
				continue
			}
			filters := ""
			if kind == "guarded" {
				filters = "{type: ExtensionRef, extensionRef: {group: gatehouse.dev, kind: ProtectionPolicy, name: guard}}"
			}
			if c.filter != "" {
				filters += ", {type: URLRewrite, urlRewrite: {path: " + c.filter + "}}"
			}
			fmt.Fprintf(&b, `---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: %s-%s, namespace: d}
spec:
  parentRefs: [{name: g}]
  hostnames: [%s]
  rules:
  - {name: a, matches: [{path: %s}], filters: [%s], backendRefs: [{name: c, port: 80}]}
  - {name: rest, matches: [{path: {value: /}}], backendRefs: [{name: c, port: 80}]}
`, c.name, kind, host, c.match, strings.TrimPrefix(filters, ", "))
		}
	}
	return lowered(t, b.String())
}

// lowered is what translate makes of objects, with all hosts on the listener of a Rig, all requests to the cluster "c", and a step before
// all others that tells the path that policies see.
func lowered(t *testing.T, text string) *ir.Config {
	t.Helper()
	all, faults := manifest.Parse("in.yaml", []byte(text))
	store := objects.NewStore()
	store.Apply(objects.Change{Upserts: all})
	res := translate.New(translate.Options{GatewayController: "gatehouse.dev/gateway", IngressController: "gatehouse.dev/ingress",
		HTTPPort: 8080, HTTPSPort: 8443, Loopback: true, Steps: builtin.Steps()}).Update(store, nil)
	for _, f := range append(faults, res.Report.Faults()...) {
		t.Fatalf("%s", f)
	}
	out := edgetest.Simple()
	out.Hosts = nil
	for _, h := range res.Config.Hosts {
		if strings.HasSuffix(h.Listener, "/https") {
			continue
		}
		own := &ir.Host{Listener: "test", Hostname: h.Hostname, OneLabel: h.OneLabel}
		for _, r := range h.Routes {
			c := *r
			c.Steps = append([]*ir.Step{step("spy", "protect", "{}")}, r.Steps...)
			c.Backends = []ir.Backend{{Cluster: "c", Weight: 1}}
			own.Routes = append(own.Routes, &c)
		}
		out.Hosts = append(out.Hosts, own)
	}
	slices.SortFunc(out.Hosts, func(a, b *ir.Host) int { return cmp.Compare(a.Hostname, b.Hostname) })
	return out
}

// spy tells in the answer's head which path a policy sees.
func spy() policy.Step {
	return policy.Step{Name: "spy", New: func() policy.Spec { return &spySpec{} }, Phase: func(policy.Spec) policy.Phase { return policy.Protect }}
}

type spySpec struct{}

func (*spySpec) Compile(policy.Env) (policy.Handler, error) {
	return policy.Handler{
		Request: func(x *exchange.Exchange) policy.Verdict {
			_, x.Local().N = x.Keep(x.Request.Path)
			return policy.Verdict{}
		},
		Response: func(x *exchange.Exchange) policy.Verdict {
			x.Response.Header.Append([]byte("X-Policy"), x.Kept(x.Local().N))
			return policy.Verdict{}
		},
	}, nil
}

// seen is what became of one request.
type seen struct {
	status               int
	reason, route        string // route is "a" or "rest"
	logged, policy, wire string // the path in the log, in policies, and as the backend got it
}

func (s seen) String() string {
	if s.status != 200 {
		return fmt.Sprintf("%d %s", s.status, s.reason)
	}
	return s.route + " " + s.wire
}

// askPath sends one request, which its number marks in the log, on a connection of its own.
func askPath(t *testing.T, r *edgetest.Rig, host, target string, n int) seen {
	t.Helper()
	c := r.Dial()
	defer c.Close()
	c.Send(fmt.Sprintf("GET %s HTTP/1.1\nHost: %s\nUser-Agent: %d\n\n", target, host, n))
	res, body := c.Read("GET")
	s := seen{status: res.StatusCode, policy: res.Header.Get("X-Policy"), wire: res.Header.Get("X-Wire")}
	if s.status != 200 {
		var problem struct{ Reason string }
		if err := json.Unmarshal([]byte(body), &problem); err != nil {
			t.Fatalf("%s: %d %q: %v", target, s.status, body, err)
		}
		s.reason = problem.Reason
	}
	return s
}

// logged adds to what became of requests what the log says of them. It is written in bursts, so it is read when all were asked.
func logged(t *testing.T, r *edgetest.Rig, all []seen) {
	t.Helper()
	for range all {
		var line struct{ Path, Route, UserAgent string }
		text := r.Log.Next(t)
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("log %s: %v", text, err)
		}
		n, err := strconv.Atoi(line.UserAgent)
		if err != nil {
			continue // refused before its head was read
		}
		s := &all[n]
		s.logged = line.Path
		switch {
		case strings.HasPrefix(line.Route, "Ingress/d/a-") || strings.HasSuffix(line.Route, "/0/0") && strings.HasPrefix(line.Route, "HTTPRoute"):
			s.route = "a"
		case line.Route != "":
			s.route = "rest"
		}
	}
}

// TestPaths asks for every spelling through every matcher and rewrite, on open and path-sensitive hosts, under every hygiene of a
// listener. testdata/paths.txt is what becomes of it, for people; the properties hold over all of it.
func TestPaths(t *testing.T) {
	b := edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X-Wire", r.RequestURI) }))
	config := pathRoutes(t)
	var text strings.Builder
	text.WriteString("What becomes of a path: the route that takes it, \"a\" or \"rest\", and the path that its backend gets; or the refusal. A host is path-sensitive if \"a\" is guarded.\n")
	sections := map[string]string{}
	for _, h := range hygienes {
		c := *config
		r := edgetest.New(t, edgetest.Options{Config: &c, Steps: append(builtin.Steps(), spy()), Clusters: map[string][]string{"c": {b}},
			Listener: func(l *ir.Listener) { l.Client = &ir.Client{EscapedSlashes: h.slashes, EmptySegments: h.empty} }})
		for _, kind := range []string{"open", "guarded"} {
			title := h.title + ", " + kind
			table := pathTable(t, r, h.slashes, h.empty, kind)
			fmt.Fprintf(&text, "\n## %s\n", title)
			if as := sections[table]; as != "" {
				fmt.Fprintf(&text, "\nas under %s\n", as)
				continue
			}
			sections[table] = title
			text.WriteString("\n" + table)
		}
	}
	const golden = "testdata/paths.txt"
	if *accept {
		if err := os.WriteFile(golden, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := gocmp.Diff(string(want), text.String()); d != "" {
		t.Errorf("(-want +got), accept it with: go test ./internal/edgetest -run TestPaths -update\n%s", d)
	}
}

// pathTable is one section of the table, whose properties it checks.
func pathTable(t *testing.T, r *edgetest.Rig, slashes, empty, kind string) string {
	t.Helper()
	head := []string{"PATH"}
	for _, c := range columns {
		head = append(head, c.title)
	}
	var all []seen
	for _, class := range spellings {
		for _, p := range class.paths {
			for _, c := range columns {
				all = append(all, askPath(t, r, c.name+"."+kind, p, len(all)))
			}
		}
	}
	logged(t, r, all)
	rows := [][]string{head}
	for _, class := range spellings {
		for _, p := range class.paths {
			row := []string{strings.ReplaceAll(strings.Trim(strconv.QuoteToASCII(p), `"`), `\\`, `\`)}
			for _, c := range columns {
				s := all[0]
				all = all[1:]
				row = append(row, s.String())
				if class.class == "plain" && s.status != 200 {
					t.Errorf("%s of %q: %s", c.title, p, s)
				}
				for _, hole := range holes(s, c.name, kind == "guarded" && slashes != "Keep" && empty != "Keep") {
					t.Errorf("%s: %s host, slashes %q, empty %q, %s of %q: %s (%+v)", class.class, kind, slashes, empty, c.title, p, hole, s)
				}
			}
			rows = append(rows, row)
		}
	}
	return columnsOf(rows)
}

// matchesA is the route "a" of a column, written down a second time.
func matchesA(column, p string) bool {
	switch column {
	case "exact":
		return p == "/a/b"
	case "regex":
		return regexp.MustCompile(`^/a/[^/]+$`).MatchString(p)
	}
	return p == "/a" || strings.HasPrefix(p, "/a/")
}

// holes says which property what became of a request breaks.
func holes(s seen, column string, strict bool) (out []string) {
	if s.status != 200 {
		return nil
	}
	if s.logged != s.policy {
		out = append(out, "the log and the policies saw different paths")
	}
	if matchesA(column, s.policy) != (s.route == "a") {
		out = append(out, "policies saw a path that belongs to the other route")
	}
	wire, _, _ := strings.Cut(s.wire, "?")
	switch {
	case s.route == "a" && column == "full":
		if wire != "/new" {
			out = append(out, "the rewrite left its path")
		}
	case s.route == "a" && column == "replaced":
		for _, p := range readings(wire, true) {
			if p != "/p/q" && !strings.HasPrefix(p, "/p/q/") {
				out = append(out, "the rewrite left its prefix, read as "+p)
			}
		}
	case strict:
		for _, p := range readings(wire, false) {
			if matchesA(column, p) != (s.route == "a") {
				out = append(out, "the backend may read a path of the other route, "+p)
			}
		}
	}
	return out
}

// readings are what a server may take a path for: as it is, and decoded once, each also with its dot segments resolved; with loose also
// decoded again, with "\" for "/", and without parameters.
func readings(wire string, loose bool) []string {
	out := []string{wire}
	if decoded, err := url.PathUnescape(wire); err == nil {
		out = append(out, decoded)
		if again, err := url.PathUnescape(decoded); loose && err == nil {
			out = append(out, again)
		}
	}
	for _, p := range slices.Clone(out) {
		if loose {
			out = append(out, strings.ReplaceAll(p, `\`, "/"), parameters.ReplaceAllString(p, ""))
		}
	}
	for _, p := range slices.Clone(out) {
		clean := path.Clean(p)
		if strings.HasSuffix(p, "/") && clean != "/" {
			clean += "/"
		}
		out = append(out, clean)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

var parameters = regexp.MustCompile(`;[^/]*`)

// columnsOf aligns rows.
func columnsOf(rows [][]string) string {
	var width []int
	for _, r := range rows {
		for i, c := range r {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], len(c))
		}
	}
	var b strings.Builder
	for _, r := range rows {
		var line strings.Builder
		for i, c := range r {
			fmt.Fprintf(&line, "%-*s  ", width[i], c)
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}
