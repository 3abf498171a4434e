package drive_test

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/edge"
	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// healthy is a backend with a number for its name, whose checks are counted.
func healthy(t *testing.T, name string, checks *atomic.Int32, serve http.HandlerFunc) string {
	return edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			checks.Add(1)
			return
		}
		if serve != nil {
			serve(w, r)
		}
		_, _ = io.WriteString(w, name)
	}))
}

func bounded(most int, active bool) *ir.Traffic {
	t := &ir.Traffic{Breaker: &ir.Breaker{MaxConnections: most}}
	if active {
		t.Active = &ir.Active{Path: "/healthz", Interval: ir.Duration(2 * time.Millisecond), Timeout: ir.Duration(5 * time.Second), Healthy: 1, Unhealthy: 1}
	}
	return t
}

// TestIdleConnectionGivesWay: with several endpoints and room for one connection, requests one after the other are all answered: what
// idles at one endpoint is closed for another. Health checks meanwhile take none of that room.
func TestIdleConnectionGivesWay(t *testing.T) {
	for _, active := range []bool{false, true} {
		t.Run(fmt.Sprintf("checks %v", active), func(t *testing.T) {
			var checks atomic.Int32
			var as []string
			for i := range 3 {
				as = append(as, healthy(t, fmt.Sprint(i), &checks, nil))
			}
			r := one(t, as[0], func(o *edgetest.Options) {
				o.Clusters["c"] = as
				o.Config.Clusters[0].Traffic = bounded(1, active)
			})
			c, k := r.Dial(), r.Edge.Clusters().All()[0]
			got := map[string]int{}
			for i := range 60 {
				c.Send("GET / HTTP/1.1\nHost: a\n\n")
				res, body := c.Read("GET")
				if res.StatusCode != 200 {
					t.Fatalf("request %d: %d %s", i, res.StatusCode, body)
				}
				got[body]++
				if n := k.Connections(); n > 1 {
					t.Errorf("%d connections are counted, want 1 at most", n)
				}
			}
			if len(got) != 3 {
				t.Errorf("answered by %v, want all three", got)
			}
		})
	}
}

// TestFullBreakerSaysNothingOfHealth: checks go on and pass while requests use all connections that the breaker lets through.
func TestFullBreakerSaysNothingOfHealth(t *testing.T) {
	var checks atomic.Int32
	arrived, end := make(chan struct{}, 4), make(chan struct{})
	serve := func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-end
	}
	as := []string{healthy(t, "a", &checks, serve), healthy(t, "b", &checks, serve)}
	r := one(t, as[0], func(o *edgetest.Options) {
		o.Clusters["c"] = as
		o.Config.Clusters[0].Traffic = bounded(4, true)
	})
	var clients []*edgetest.Client
	for range 4 {
		c := r.Dial()
		clients = append(clients, c)
		c.Send("GET / HTTP/1.1\nHost: a\n\n")
		<-arrived
	}
	k, before := r.Edge.Clusters().All()[0], checks.Load()
	waitFor(t, func() bool { return checks.Load() >= before+10 })
	if n := k.Out(); n != 0 || k.Connections() != 4 {
		t.Errorf("%d endpoints are out, %d connections; want none out, and the 4 of requests", n, k.Connections())
	}
	close(end)
	for _, c := range clients {
		if res, _ := c.Read("GET"); res.StatusCode != 200 {
			t.Errorf("got %d, want 200", res.StatusCode)
		}
	}
}

// TestForbiddenAddressSaysNothingOfHealth: an endpoint that no check may ask is neither healthy nor sick by it.
func TestForbiddenAddressSaysNothingOfHealth(t *testing.T) {
	var checks, asked atomic.Int32
	r := one(t, healthy(t, "a", &checks, nil), func(o *edgetest.Options) {
		o.Config.Clusters[0].Traffic = bounded(4, true)
		o.Edge = func(o *edge.Options) {
			o.Allow = func(netip.Addr) bool {
				asked.Add(1)
				return false
			}
		}
	})
	waitFor(t, func() bool { return asked.Load() >= 10 })
	if n := r.Edge.Clusters().All()[0].Out(); n != 0 || checks.Load() != 0 {
		t.Errorf("%d endpoints are out after %d checks, want none", n, checks.Load())
	}
}

// TestFullMirrorIsDropped: a mirror whose breaker is full loses the copy, which is counted as dropped and disturbs nobody.
func TestFullMirrorIsDropped(t *testing.T) {
	arrived, end := make(chan struct{}, 1), make(chan struct{})
	defer close(end)
	slow := edgetest.HTTPBackend(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-end
	}))
	r := mirrorRig(t, flaky(t, nil, "200"), map[string][]string{"copy": {slow}})
	cfg := *r.Edge.Snapshot().Config
	cfg.Clusters = append([]*ir.Cluster{}, cfg.Clusters...)
	for i, k := range cfg.Clusters {
		if k.Key == "copy" {
			cfg.Clusters[i] = &ir.Cluster{Key: "copy", Traffic: bounded(1, false)}
		}
	}
	all := map[string][]string{}
	for _, k := range r.Edge.Clusters().All() {
		for _, e := range k.All() {
			all[k.Key] = append(all[k.Key], e.Text)
		}
	}
	r.Publish(&cfg, all, nil)
	c := r.Dial()
	for i := range 2 {
		c.Send("GET / HTTP/1.1\nHost: a\n\n")
		if res, _ := c.Read("GET"); res.StatusCode != 200 {
			t.Fatalf("got %d, want 200", res.StatusCode)
		}
		if i == 0 {
			<-arrived
		}
	}
	s := r.Edge.Driver().Stats()
	waitFor(t, func() bool { return s.MirrorsDropped.Load() == 1 })
	if n := s.MirrorsFailed.Load(); n != 0 {
		t.Errorf("%d mirrors failed, want none", n)
	}
}
