package route

import (
	"fmt"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/ir"
)

func rootHost(listener, hostname string) *ir.Host {
	return &ir.Host{Listener: listener, Hostname: hostname, Routes: []*ir.Route{{Name: hostname, Match: ir.Match{Path: ir.PathMatch{Kind: ir.PathPrefix, Value: "/"}}}}}
}

// made counts the routes that a Build makes values for.
func made(n *int) func(*ir.Host, *ir.Route) *ir.Route {
	return func(_ *ir.Host, r *ir.Route) *ir.Route {
		*n++
		return r
	}
}

// TestBuildKeeps checks, for each kind of change, how many values are made anew and that the old table still answers as before.
func TestBuildKeeps(t *testing.T) {
	http := &ir.Listener{Key: "g/http", Group: "g", Port: 80}
	wild := &ir.Listener{Key: "g/wild", Group: "g", Port: 80, Hostname: "*.example"}
	a, b, bad := rootHost("g/http", "a.test"), rootHost("g/http", "b.test"), rootHost("g/http", "*.c.test")
	bad.Routes = append(bad.Routes, &ir.Route{Name: "bad", Match: ir.Match{Path: ir.PathMatch{Kind: ir.PathRegex, Value: "("}}})
	base := &ir.Config{Listeners: []*ir.Listener{http}, Hosts: []*ir.Host{bad, a, b}}
	http2 := *http
	http2.Port = 81
	http3 := *http
	http3.Client = &ir.Client{HeaderCount: 7}
	a2 := rootHost("g/http", "a.test")
	tests := []struct {
		name   string
		next   *ir.Config
		made   int
		faults int
		aRoute *ir.Route // of http://a.test/ on port 80
	}{
		{"nothing", &ir.Config{Listeners: base.Listeners, Hosts: base.Hosts}, 0, 1, a.Routes[0]},
		{"one host", &ir.Config{Listeners: base.Listeners, Hosts: []*ir.Host{bad, a2, b}}, 1, 1, a2.Routes[0]},
		{"one host goes", &ir.Config{Listeners: base.Listeners, Hosts: []*ir.Host{bad, b}}, 0, 1, nil},
		{"the faulty host goes", &ir.Config{Listeners: base.Listeners, Hosts: []*ir.Host{a, b}}, 0, 0, a.Routes[0]},
		{"one host comes", &ir.Config{Listeners: base.Listeners, Hosts: []*ir.Host{bad, a, b, rootHost("g/http", "")}}, 1, 1, a.Routes[0]},
		{"a hostname stands twice", &ir.Config{Listeners: base.Listeners, Hosts: []*ir.Host{bad, a, a2, b}}, 0, 2, a.Routes[0]},
		{"not sorted", &ir.Config{Listeners: base.Listeners, Hosts: []*ir.Host{b, a, bad}}, 0, 1, a.Routes[0]},
		{"a listener comes", &ir.Config{Listeners: []*ir.Listener{http, wild}, Hosts: base.Hosts}, 0, 1, a.Routes[0]},
		{"a listener's port", &ir.Config{Listeners: []*ir.Listener{&http2}, Hosts: base.Hosts}, 0, 1, nil},
		{"a listener's settings", &ir.Config{Listeners: []*ir.Listener{&http3}, Hosts: base.Hosts}, 0, 1, a.Routes[0]},
		{"no listener", &ir.Config{Hosts: base.Hosts}, 0, 3, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := 0
			old, _ := Build(nil, base, made(&n))
			if n != 4 {
				t.Fatalf("the first build makes %d values, want 4", n)
			}
			n = 0
			table, faults := Build(old, tt.next, made(&n))
			if n != tt.made || len(faults) != tt.faults {
				t.Errorf("Build makes %d values and reports %v, want %d values and %d faults", n, faults, tt.made, tt.faults)
			}
			q := request{host: "a.test", path: "/x", method: "GET"}.to(&Query{})
			if r := table.Site("g", 80).Match(q); r.Route != tt.aRoute || r.Value != tt.aRoute {
				t.Errorf("Match = %v, want %v", r.Route, tt.aRoute)
			} else if r.Listener != nil && r.Listener != tt.next.Listeners[0] {
				t.Errorf("Match finds listener %p, want the new %p", r.Listener, tt.next.Listeners[0])
			}
			if r := old.Site("g", 80).Match(q); r.Route != a.Routes[0] || r.Listener != http {
				t.Errorf("the old table now says %v", r.Route)
			}
			n = 0
			if _, faults = Build(table, tt.next, made(&n)); n != 0 || len(faults) != tt.faults && tt.name != "no listener" {
				t.Errorf("building the same again makes %d values and reports %v", n, faults)
			}
		})
	}
}

// TestBuildMany adds and takes away hosts until the index has grown and shrunk.
func TestBuildMany(t *testing.T) {
	c := &ir.Config{Listeners: []*ir.Listener{{Key: "g/http", Group: "g", Port: 80}}}
	var table *Table[*ir.Route]
	all := make([]*ir.Host, 500)
	for i := range all {
		all[i] = rootHost("g/http", fmt.Sprintf("host-%d-with-a-long-name-that-fits-no-node.example", i))
	}
	check := func(lo, hi int) {
		c = &ir.Config{Listeners: c.Listeners, Hosts: all[lo:hi]}
		n := 0
		table, _ = Build(table, c, made(&n))
		for i, h := range all {
			q := request{host: h.Hostname, path: "/"}.to(&Query{})
			if got, want := table.Site("g", 80).Match(q).Route != nil, lo <= i && i < hi; got != want {
				t.Fatalf("hosts %d to %d: Match finds host %d: %v, want %v", lo, hi, i, got, want)
			}
		}
	}
	for i := 0; i <= 500; i += 25 {
		check(0, i)
	}
	for i := 0; i <= 500; i += 25 {
		check(i, 500)
	}
}

func TestNoTable(t *testing.T) {
	var table *Table[int]
	s := table.Site("g", 80)
	if r := s.Match(&Query{Host: []byte("a.test"), Path: []byte("/")}); r.Listener != nil || r.Route != nil {
		t.Errorf("Match without a table = %v", r)
	}
	if x := s.Explain(&Query{Host: []byte("a.test")}); x.Why != `no listener takes host "a.test": there is no listener` {
		t.Errorf("Explain without a table = %q", x.Why)
	}
}
