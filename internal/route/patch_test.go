package route

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// edited is h with some routes gone, some new, some twice and some elsewhere.
func edited(t *rapid.T, h *ir.Host, draw func(*rapid.T) ir.Match) *ir.Host {
	routes := slices.Clone(h.Routes)
	for range rapid.IntRange(1, 4).Draw(t, "edits") {
		i := rapid.IntRange(0, len(routes)).Draw(t, "where")
		r := &ir.Route{Name: fmt.Sprint("new ", i), Match: draw(t)}
		switch what := rapid.IntRange(0, 6).Draw(t, "edit"); {
		case what <= 1 || len(routes) == 0:
			routes = slices.Insert(routes, i, r)
		case what == 2:
			routes[i%len(routes)] = r
		case what == 3:
			routes = slices.Insert(routes, i, routes[rapid.IntRange(0, len(routes)-1).Draw(t, "twice")])
		case what == 4:
			j := rapid.IntRange(0, len(routes)-1).Draw(t, "from")
			r := routes[j]
			routes = slices.Insert(slices.Delete(routes, j, j+1), min(i, len(routes)-1), r)
		default:
			i %= len(routes)
			routes = slices.Delete(routes, i, min(i+1, len(routes)))
		}
	}
	return &ir.Host{Listener: h.Listener, Hostname: h.Hostname, Routes: routes}
}

// TestEditsEqualAFreshBuild holds a host that is edited again and again against one built at once: matches, values, explanations and
// faults. Tables of before still answer as before.
func TestEditsEqualAFreshBuild(t *testing.T) {
	deep := []string{"/", "/v1", "/v1/a", "/v1/an-element-too-long-for-the-node-of-a-trie", "/v1/an-element-too-long-for-the-node-of-a-trie/b",
		"/v1/a/b/c/d/e/f/g/h/i", "/v1/a/b/c/d/e/f/g/h/i/j", "/v1/a/b/c/d/e/f/g/h", "/a", "/a/", "/a//b", "/b/c", "/b"}
	draw := func(t *rapid.T) ir.Match {
		if rapid.Bool().Draw(t, "any kind") {
			return drawMatch(t)
		}
		kind := rapid.SampledFrom([]string{ir.PathPrefix, ir.PathExact}).Draw(t, "kind")
		return ir.Match{Path: ir.PathMatch{Kind: kind, Value: rapid.SampledFrom(deep).Draw(t, "deep")}}
	}
	rapid.Check(t, func(t *rapid.T) {
		table := hashed(rapid.SampledFrom(someLost).Draw(t, "lost bits"))
		c := &ir.Config{Listeners: []*ir.Listener{{Key: "g/", Group: "g", Port: 80}}}
		h := &ir.Host{Listener: "g/"}
		for i := range rapid.IntRange(0, 120).Draw(t, "routes") { // enough that an edit is a patch
			m := ir.Match{Path: ir.PathMatch{Kind: ir.PathPrefix, Value: fmt.Sprintf("/v1/r%d", i%90)}}
			if i%7 == 0 {
				m = draw(t)
			}
			h.Routes = append(h.Routes, &ir.Route{Name: fmt.Sprint(i), Match: m})
		}
		made := 0
		attach := func(h *ir.Host, r *ir.Route) *ir.Route { made++; return r }
		type version struct {
			table *Table[*ir.Route]
			host  *ir.Host
		}
		var versions []version
		for range rapid.IntRange(1, 6).Draw(t, "versions") {
			next := &ir.Config{Listeners: c.Listeners, Hosts: []*ir.Host{h}}
			made = 0
			var faults []Fault
			table, faults = Build(table, next, attach)
			if n := came(versions == nil, c, h); made != n {
				t.Fatalf("%d values made, want %d: those of new routes", made, n)
			}
			fresh, want := Build(nil, next, self)
			if d := cmp.Diff(want, faults); d != "" {
				t.Fatalf("faults:\n%s", d)
			}
			versions = append(versions, version{table, h})
			for range 10 {
				r := drawRequest(t)
				r.host = ""
				if rapid.Bool().Draw(t, "deep path") {
					r.path = rapid.SampledFrom(deep).Draw(t, "deep") + rapid.SampledFrom([]string{"", "/x", "x"}).Draw(t, "more")
				}
				q := &Query{}
				was, is := fresh.Site("g", 80).Explain(r.to(q)), table.Site("g", 80).Explain(r.to(q))
				if was.String() != is.String() || was.Route != is.Route {
					t.Fatalf("Explain(%+v) = %v, want %v", r, is, was)
				}
				for _, v := range versions {
					_, _, want := reference(&ir.Config{Listeners: c.Listeners, Hosts: []*ir.Host{v.host}}, "g", 80, r)
					if got := v.table.Site("g", 80).Match(r.to(q)); got.Route != want || got.Value != want {
						t.Fatalf("Match(%+v) = %v, want %v", r, got.Route, want)
					}
				}
			}
			c, h = next, edited(t, h, draw)
		}
	})
}

// came is how many routes of h the configuration before did not have, by place.
func came(first bool, c *ir.Config, h *ir.Host) (n int) {
	if first {
		return len(h.Routes)
	}
	for _, k := range Diff(c.Hosts[0].Routes, h.Routes) {
		n += k.End - k.Start
	}
	return n
}

func TestDiff(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := make([]*ir.Route, 6)
		for i := range all {
			all[i] = &ir.Route{}
		}
		lists := rapid.SliceOfN(rapid.SampledFrom(all), 0, 12)
		was, is := lists.Draw(t, "was"), lists.Draw(t, "is")
		var got []*ir.Route
		i := 0
		for _, k := range Diff(was, is) {
			got = append(append(got, was[i:k.From]...), is[k.Start:k.End]...)
			i = k.To
		}
		if got = append(got, was[i:]...); !slices.Equal(got, is) {
			t.Fatalf("the difference leads elsewhere: %v", Diff(was, is))
		}
	})
	many := make([]*ir.Route, 1000)
	for i := range many {
		many[i] = &ir.Route{}
	}
	other := slices.Clone(many)
	other[500], other[900] = &ir.Route{}, &ir.Route{}
	other = slices.Delete(other, 100, 101)
	if d := cmp.Diff([]Hunk{{100, 101, 100, 100}, {500, 501, 499, 500}, {900, 901, 899, 900}}, Diff(many, other)); d != "" {
		t.Error(d)
	}
}

// BenchmarkChangeInOneHost is the cost of one route of a large host that changes.
func BenchmarkChangeInOneHost(b *testing.B) {
	for _, routes := range []int{1000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("routes=%d", routes), func(b *testing.B) {
			c := spread(1, routes)
			t, _ := Build(nil, c, self)
			var hosts [2]*ir.Host
			for i := range hosts {
				h := *c.Hosts[0]
				h.Routes = slices.Clone(h.Routes)
				h.Routes[routes/2] = &ir.Route{Name: "new", Match: ir.Match{Path: ir.PathMatch{Kind: ir.PathPrefix, Value: fmt.Sprint("/new-", i)}}}
				hosts[i] = &h
			}
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				t, _ = Build(t, &ir.Config{Listeners: c.Listeners, Hosts: []*ir.Host{hosts[n%2]}}, self)
				n++
			}
		})
	}
}
