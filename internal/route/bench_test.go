package route

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// spread is a table of hosts x routes: of each host's routes one is the prefix "/", two are exact, the others
// prefixes of two or three elements.
func spread(hosts, routes int) *ir.Config {
	c := &ir.Config{Listeners: []*ir.Listener{{Key: "g/http", Group: "g", Port: 80}}}
	for i := range hosts {
		c.Hosts = append(c.Hosts, spreadHost(i, routes))
	}
	return c
}

func spreadHost(i, routes int) *ir.Host {
	h := &ir.Host{Listener: "g/http", Hostname: fmt.Sprintf("tenant-%05d.shop.example", i)}
	for j := range routes {
		m := ir.PathMatch{Kind: ir.PathPrefix, Value: fmt.Sprintf("/v1/team-%d/service-%05d", j%100, j)}
		switch {
		case j == routes-1:
			m.Value = "/"
		case j < 2:
			m.Kind = ir.PathExact
		case j%3 == 0:
			m.Value = fmt.Sprintf("/service-%05d", j)
		}
		h.Routes = append(h.Routes, &ir.Route{Name: fmt.Sprintf("HTTPRoute/team/route-%d/%d", i, j), Match: ir.Match{Path: m}})
	}
	return h
}

type asking struct{ host, path string }

// asked makes requests for random routes of a table, each route's path with an element more where it is a prefix.
func asked(c *ir.Config, n int) []asking {
	rnd := rand.New(rand.NewPCG(1, 2))
	out := make([]asking, 0, n)
	var text strings.Builder
	for range n {
		h := c.Hosts[rnd.IntN(len(c.Hosts))]
		p := h.Routes[rnd.IntN(len(h.Routes))].Match.Path
		path := p.Value
		if p.Kind == ir.PathPrefix {
			path = prefixOf(&p) + "/item"
		}
		out = append(out, asking{h.Hostname, path})
		text.WriteString(h.Hostname + path)
	}
	all := text.String() // side by side, so that reading them costs no cache misses
	for i := range out {
		r := &out[i]
		n := len(r.host) + len(r.path)
		r.host, r.path, all = all[:len(r.host)], all[len(r.host):n], all[n:]
	}
	return out
}

func self(_ *ir.Host, r *ir.Route) *ir.Route { return r }

func BenchmarkMatch(b *testing.B) {
	for _, size := range []struct{ hosts, routes int }{{1, 10}, {10_000, 10}, {1, 100_000}, {100_000, 1}} {
		b.Run(fmt.Sprintf("hosts=%d/routes=%d", size.hosts, size.routes), func(b *testing.B) {
			c := spread(size.hosts, size.routes)
			t, faults := Build(nil, c, self)
			if len(faults) > 0 {
				b.Fatalf("faults: %v", faults)
			}
			rs := asked(c, 1<<14)
			site := t.Site("g", 80)
			q := &Query{Method: []byte("GET"), Header: &exchange.Header{}}
			buf := make([]byte, 0, 256)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				// The bytes of a request that was just read are in the cache: so they are here.
				r := &rs[i&(1<<14-1)]
				buf = append(append(buf[:0], r.host...), r.path...)
				q.Host, q.Path = buf[:len(r.host)], buf[len(r.host):]
				if r := site.Match(q); r.Value == nil {
					b.Fatalf("no match for %s%s", q.Host, q.Path)
				}
			}
		})
	}
}

func BenchmarkSite(b *testing.B) {
	t, _ := Build(nil, spread(10, 10), self)
	b.ReportAllocs()
	for range b.N {
		if t.Site("g", 80) == nil {
			b.Fatal("no site")
		}
	}
}

// BenchmarkBuildHost is the cost of compiling one host of 5,000 routes.
func BenchmarkBuildHost(b *testing.B) {
	c := spread(1, 5_000)
	b.ReportAllocs()
	for range b.N {
		Build(nil, c, self)
	}
}

// BenchmarkBuildOneHost is the cost of one changed host among 10,000 of ten routes each.
func BenchmarkBuildOneHost(b *testing.B) {
	c := spread(10_000, 10)
	t, _ := Build(nil, c, self)
	changed := spreadHost(5_000, 10)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		next := &ir.Config{Listeners: c.Listeners, Hosts: append([]*ir.Host(nil), c.Hosts...)}
		changed, next.Hosts[5_000] = next.Hosts[5_000], changed
		t, _ = Build(t, next, self)
		c = next
	}
}

// BenchmarkBuildNewHost is the cost of one host that comes or goes.
func BenchmarkBuildNewHost(b *testing.B) {
	c := spread(10_000, 10)
	without := &ir.Config{Listeners: c.Listeners, Hosts: append(append([]*ir.Host(nil), c.Hosts[:5_000]...), c.Hosts[5_001:]...)}
	t, _ := Build(nil, c, self)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		t, _ = Build(t, without, self)
		t, _ = Build(t, c, self)
	}
}

// TestMatchAllocates holds a lookup to no allocation, with every kind of condition.
func TestMatchAllocates(t *testing.T) {
	c := &ir.Config{
		Listeners: []*ir.Listener{{Key: "g/http", Group: "g", Port: 80}, {Key: "g/wild", Group: "g", Port: 80, Hostname: "*.example"}},
		Hosts: []*ir.Host{{Listener: "g/wild", Hostname: "*.example", Routes: []*ir.Route{
			{Name: "0", Match: ir.Match{Path: ir.PathMatch{Kind: ir.PathRegex, Value: "/[b-z]+"}}},
			{Name: "1", Match: ir.Match{Headers: []ir.FieldMatch{{Name: "x", Value: "2"}}}},
			{Name: "2", Match: ir.Match{Headers: []ir.FieldMatch{{Name: "x", Value: "[0-9], .*", Regex: true}},
				Query: []ir.FieldMatch{{Name: "v", Value: "a b"}, {Name: "w", Value: "a.b", Regex: true}}}},
		}}},
	}
	table, _ := Build(nil, c, self)
	h := &exchange.Header{}
	h.Append([]byte("X"), []byte("1"))
	h.Append([]byte("x"), []byte("2"))
	q := &Query{Host: []byte("a.b.example"), Path: []byte("/a/b"), RawQuery: []byte("v=a+b&w=a%20b"), Header: h}
	if n := testing.AllocsPerRun(1000, func() {
		if r := table.Site("g", 80).Match(q); r.Route != c.Hosts[0].Routes[2] {
			t.Fatalf("Match = %v, want route 2", r.Route)
		}
	}); n != 0 {
		t.Errorf("Match makes %v allocations, want 0", n)
	}
}

// TestMemory holds 100,000 routes over 10,000 hosts to 150 MiB for the table, with room to spare.
func TestMemory(t *testing.T) {
	c := spread(10_000, 10)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	table, _ := Build(nil, c, self)
	runtime.GC()
	runtime.ReadMemStats(&after)
	mib := float64(int64(after.HeapAlloc)-int64(before.HeapAlloc)) / (1 << 20)
	t.Logf("100,000 routes over 10,000 hosts: %.1f MiB", mib)
	if mib > 40 {
		t.Errorf("the table takes %.1f MiB, want at most 40", mib)
	}
	runtime.KeepAlive(table)
	runtime.KeepAlive(c)
}
