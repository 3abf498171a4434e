package edge_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/dns"
	"github.com/gatehouse-io/gatehouse/internal/edge"
	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/feed"
	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// TestDeadNamesDelayNoChange: 50 clusters whose names no server answers for, by a resolver as in production. The change that brings them
// waits 50 ms, and those after it not at all. Bounds are such as no noise reaches: one dead name that was waited for is a second.
func TestDeadNamesDelayNoChange(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	client := dns.New(dns.Options{Config: conf, Hosts: conf, Port: uint16(silent.LocalAddr().(*net.UDPAddr).Port)})
	cfg := edgetest.Simple()
	for i := range 50 {
		cfg.Clusters = append(cfg.Clusters, &ir.Cluster{Key: fmt.Sprintf("dead%d", i)})
	}
	endpoints := ir.Endpoints{"c": {{Host: "192.0.2.1", Port: 80, Ready: true}}}
	for _, c := range cfg.Clusters {
		if c.Key != "c" {
			endpoints[c.Key] = []ir.Endpoint{{Host: c.Key + ".example", Port: 80, Ready: true}}
		}
	}
	r := edgetest.New(t, edgetest.Options{Config: &ir.Config{}, Steps: edgetest.Steps(), Edge: func(o *edge.Options) { o.Lookup = client.Lookup }})
	publish := func(c *ir.Config, es ir.Endpoints) time.Duration {
		t.Helper()
		start := time.Now()
		var want uint64
		r.Feed.Update(func(s *feed.State) (bool, bool, bool) {
			c.Listeners = s.Config.Listeners
			s.Config, s.Endpoints = c, es
			want = s.ConfigVersion + 1
			return true, true, false
		})
		for limit := time.After(edgetest.Wait); ; {
			a, changed := r.Feed.Acked()
			if a.ConfigVersion >= want {
				return time.Since(start)
			}
			select {
			case <-changed:
			case <-limit:
				t.Fatal("the configuration did not become live")
			}
		}
	}
	if took := publish(cfg, endpoints); took > 2*time.Second {
		t.Errorf("50 dead names: live after %v", took)
	}
	for limit := time.After(6 * edgetest.Wait); ; { // told in the acknowledgement, once the lookups have failed
		a, changed := r.Feed.Acked()
		if n := len(a.Faults); n == 50 && a.Faults[0].Reason == "NameNotResolved" && a.Faults[0].Message == `"dead0.example" cannot be looked up` {
			break
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("faults that were acknowledged: %v", a.Faults)
		}
	}
	begin := time.Now()
	for i := range 20 {
		es := ir.Endpoints{}
		for k, v := range endpoints {
			es[k] = v
		}
		es["c"] = []ir.Endpoint{{Host: fmt.Sprintf("192.0.2.%d", i+2), Port: 80, Ready: true}}
		next := *cfg
		if i == 0 {
			next.Clusters = append(next.Clusters, &ir.Cluster{Key: "late"})
			es["late"] = []ir.Endpoint{{Host: "late.example", Port: 80, Ready: true}}
		}
		took := publish(&next, es)
		t.Logf("change %d: %v", i, took)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("20 changes beside 50 dead names took %v, less than the wait for one of them is due", took)
	}
}
