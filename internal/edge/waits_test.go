package edge

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/feed"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/secret"
	"github.com/gatehouse-io/gatehouse/internal/telemetry"
)

// TestHowLongAChangeWaitsForNames, by a clock of the test's own: two seconds in all before the first snapshot, 50 ms for names that a later
// change brings, and no time for those of other clusters.
func TestHowLongAChangeWaitsForNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec, err := telemetry.New(telemetry.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = rec.Close() }()
		f := &feed.Memory{}
		e := New(Options{Feed: f, Recorder: rec, Log: slog.New(slog.DiscardHandler),
			Lookup: func(ctx context.Context, _ string) ([]netip.Addr, time.Duration, error) {
				<-ctx.Done()
				return nil, 0, ctx.Err()
			}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			e.Run(ctx)
		}()
		defer func() {
			cancel()
			<-done
		}()
		clusters, endpoints := []*ir.Cluster{{Key: "c"}}, ir.Endpoints{}
		live := func(host string) time.Duration {
			endpoints["c"] = []ir.Endpoint{{Host: host, Port: 80, Ready: true}}
			start := time.Now()
			f.Update(func(s *feed.State) (bool, bool, bool) {
				s.Config, s.Secrets, s.Endpoints = &ir.Config{Clusters: clusters}, secret.Set{}, ir.Endpoints{}
				for k, v := range endpoints {
					s.Endpoints[k] = v
				}
				return true, true, true
			})
			for {
				a, changed := f.Acked()
				if st, _ := f.Latest(); a.ConfigVersion == st.ConfigVersion {
					return time.Since(start)
				}
				<-changed
			}
		}
		for i := range 50 {
			key := fmt.Sprintf("dead%d", i)
			clusters = append(clusters, &ir.Cluster{Key: key})
			endpoints[key] = []ir.Endpoint{{Host: key + ".example", Port: 80, Ready: true}}
		}
		for i, x := range []struct {
			host string
			want time.Duration
		}{{"192.0.2.1", 2 * time.Second}, {"192.0.2.2", 0}, {"late.example", 50 * time.Millisecond}, {"192.0.2.3", 0}} {
			if took := live(x.host); took != x.want {
				t.Errorf("change %d (%s): live after %v, want %v", i, x.host, took, x.want)
			}
		}
	})
}
