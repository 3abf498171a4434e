package route

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/ir"
	"pgregory.net/rapid"
)

// Small alphabets, so that the random parts of a table and of a request meet.
var (
	someNames = []string{"", "example", "shop.example", "a.shop.example", "b.a.shop.example", "x.y.z.example", "other"}
	somePats  = []string{"", "example", "shop.example", "a.shop.example", "*.example", "*.shop.example", "*.a.shop.example", "*.y.z.example"}
	somePaths = []string{"/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/c", "/ab", "/b", "//a", "/a//b", "*", ""}
	someRegex = []string{"/a.*", "/[ab]", ".*", "/a/b|/b", "(", "a)(b", "/A"}
	someValue = []string{"", "1", "2", "1, 2", "a b"}
)

func drawMatch(t *rapid.T) ir.Match {
	m := ir.Match{Method: rapid.SampledFrom([]string{"", "", "GET", "POST"}).Draw(t, "method")}
	switch m.Path.Kind = rapid.SampledFrom([]string{"", ir.PathPrefix, ir.PathPrefix, ir.PathExact, ir.PathExact, ir.PathRegex}).Draw(t, "kind"); m.Path.Kind {
	case ir.PathRegex:
		m.Path.Value = rapid.SampledFrom(someRegex).Draw(t, "regex")
	case "":
		m.Path.Value = ""
	default:
		m.Path.Value = rapid.SampledFrom(somePaths[:10]).Draw(t, "path")
	}
	fields := func(what string) (out []ir.FieldMatch) {
		for _, n := range []string{"x", "y"} {
			if rapid.IntRange(0, 5).Draw(t, what) == 0 {
				out = append(out, ir.FieldMatch{Name: n, Value: rapid.SampledFrom(someValue).Draw(t, "value"), Regex: rapid.Bool().Draw(t, "regex")})
			}
		}
		return out
	}
	m.Headers, m.Query = fields("headers"), fields("query")
	return m
}

func drawHost(t *rapid.T, listener string) *ir.Host {
	h := &ir.Host{Listener: listener, Hostname: rapid.SampledFrom(somePats).Draw(t, "hostname")}
	if len(h.Hostname) > 0 && h.Hostname[0] == '*' {
		h.OneLabel = rapid.Bool().Draw(t, "one label")
	}
	for i := range rapid.IntRange(0, 12).Draw(t, "routes") {
		h.Routes = append(h.Routes, &ir.Route{Name: fmt.Sprint(i), Match: drawMatch(t)})
	}
	return h
}

// drawConfig draws some listeners, and hosts that name them (or one that is not there), sorted as the IR has them. Hosts
// of old are kept now and then.
func drawConfig(t *rapid.T, old *ir.Config) *ir.Config {
	c := &ir.Config{}
	if old != nil && rapid.IntRange(0, 3).Draw(t, "keep listeners") > 0 {
		c.Listeners = old.Listeners
	} else {
		for _, n := range rapid.SliceOfNDistinct(rapid.SampledFrom(somePats), 0, 5, rapid.ID[string]).Draw(t, "listeners") {
			c.Listeners = append(c.Listeners, &ir.Listener{Key: "g/" + n, Group: "g", Port: 80, Hostname: n})
		}
		c.Listeners = append(c.Listeners, &ir.Listener{Key: "h/", Group: "h", Port: 80}, &ir.Listener{Key: "g/443", Group: "g", Port: 443})
	}
	seen := map[hostKey]bool{}
	add := func(h *ir.Host) {
		k := keyOf(h)
		k.name = h.Listener + " " + k.name
		if !seen[k] {
			seen[k] = true
			c.Hosts = append(c.Hosts, h)
		}
	}
	if old != nil {
		for _, h := range old.Hosts {
			if rapid.IntRange(0, 4).Draw(t, "keep host") > 0 {
				add(h)
			}
		}
	}
	for range rapid.IntRange(0, 8).Draw(t, "hosts") {
		key := "nowhere"
		if i := rapid.IntRange(0, len(c.Listeners)).Draw(t, "of listener"); i < len(c.Listeners) {
			key = c.Listeners[i].Key
		}
		add(drawHost(t, key))
	}
	slices.SortFunc(c.Hosts, compareHosts)
	slices.SortFunc(c.Listeners, func(a, b *ir.Listener) int { return cmp.Compare(a.Key, b.Key) })
	return c
}

func drawRequest(t *rapid.T) request {
	r := request{
		host:   rapid.SampledFrom(someNames).Draw(t, "host"),
		path:   rapid.SampledFrom(somePaths).Draw(t, "path"),
		method: rapid.SampledFrom([]string{"GET", "POST"}).Draw(t, "method"),
		query:  rapid.SampledFrom([]string{"", "x=1", "y=2&x=2", "x=2&x=1", "%78=a+b", "x=a%20b&&y=1", "x"}).Draw(t, "query"),
	}
	for range rapid.IntRange(0, 3).Draw(t, "headers") {
		r.header = append(r.header, [2]string{
			rapid.SampledFrom([]string{"X", "x", "y"}).Draw(t, "name"), rapid.SampledFrom(someValue).Draw(t, "value")})
	}
	return r
}

// someLost are bits that hashes lose: none, all (every hash collides with every other), those of the tags, those of the places.
var someLost = []uint64{0, 0, 1<<64 - 1, 1<<64 - 1<<32, 1<<32 - 1, 0xfffffffefffffffe}

// hashed returns an empty table whose successors hash so.
func hashed(lost uint64) *Table[*ir.Route] {
	return &Table[*ir.Route]{seed: hasher{maphash.MakeSeed(), lost}, plan: newPlan(nil), twice: true}
}

// TestTableIsALinearScan holds tables, after any history of changes, against the reference matcher, and Explain against
// Match.
func TestTableIsALinearScan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := hashed(rapid.SampledFrom(someLost).Draw(t, "lost bits"))
		var c *ir.Config
		q := &Query{}
		for range rapid.IntRange(1, 3).Draw(t, "builds") {
			old := c
			c = drawConfig(t, old)
			fresh := map[*ir.Host]bool{}
			for _, h := range c.Hosts {
				fresh[h] = old == nil || !slices.Contains(old.Hosts, h)
			}
			table, _ = Build(table, c, func(h *ir.Host, r *ir.Route) *ir.Route {
				if !fresh[h] {
					// A host that no listener of the last table took has no compiled form.
					if slices.ContainsFunc(old.Listeners, func(l *ir.Listener) bool { return l.Key == h.Listener }) {
						t.Fatalf("host %q of %s did not change, but its route %s was made again", h.Hostname, h.Listener, r.Name)
					}
				}
				return r
			})
			for range 10 {
				r := drawRequest(t)
				port := rapid.SampledFrom([]uint16{80, 443}).Draw(t, "port")
				wantL, wantH, want := reference(c, "g", port, r)
				s := table.Site("g", port)
				got := s.Match(r.to(q))
				if got.Listener != wantL || got.Host != wantH || got.Route != want || got.Value != want {
					t.Fatalf("Match(%+v) = %v, %v, %v, want %v, %v, %v", r, got.Listener, got.Host, got.Route, wantL, wantH, want)
				}
				if x := s.Explain(q); x.Route != want || x.Host != wantH || x.Listener != wantL {
					t.Fatalf("Explain(%+v) = %+v, want the route %v", r, x, want)
				}
				if l := s.Listener([]byte(r.host)); l != wantL {
					t.Fatalf("Listener(%q) = %v, want %v", r.host, l, wantL)
				}
			}
		}
	})
}

// TestDepths does the same for paths of up to 40 elements, of few texts, short and too long for a node.
func TestDepths(t *testing.T) {
	drawPath := func(t *rapid.T) string {
		var b strings.Builder
		long := rapid.IntRange(0, 40).Draw(t, "elements")
		other := rapid.IntRange(0, 80).Draw(t, "where it differs")
		for i := range long {
			b.WriteString([]string{"/a", "/an-element-too-long-for-the-node-of-a-trie", "/"}[i%3])
			if i == other {
				b.WriteString("b")
			}
		}
		return b.String()
	}
	rapid.Check(t, func(t *rapid.T) {
		h := &ir.Host{Listener: "g/"}
		c := &ir.Config{Listeners: []*ir.Listener{{Key: "g/", Group: "g", Port: 80}}, Hosts: []*ir.Host{h}}
		for i := range rapid.IntRange(0, 12).Draw(t, "routes") {
			m := ir.PathMatch{Kind: ir.PathPrefix, Value: drawPath(t)}
			if m.Value != "" && rapid.Bool().Draw(t, "exact") {
				m.Kind = ir.PathExact
			}
			h.Routes = append(h.Routes, &ir.Route{Name: fmt.Sprint(i), Match: ir.Match{Path: m}})
		}
		table, _ := Build(hashed(rapid.SampledFrom(someLost).Draw(t, "lost bits")), c, self)
		for range 10 {
			r := request{path: drawPath(t)}
			_, _, want := reference(c, "g", 80, r)
			if got := table.Site("g", 80).Match(r.to(&Query{})); got.Route != want || got.Value != want {
				t.Fatalf("Match(%q) = %v, want %v", r.path, got.Route, want)
			}
		}
	})
}
