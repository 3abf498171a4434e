package edge

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/feed"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/policy/builtin"
	"github.com/gatehouse-io/gatehouse/internal/proxy"
	"github.com/gatehouse-io/gatehouse/internal/telemetry"
)

// TestTheApplyLoopReleasesSnapshots: a cluster that is no longer configured goes after the last exchange of the snapshot that names it,
// without another change, and in a drain too.
func TestTheApplyLoopReleasesSnapshots(t *testing.T) {
	for _, draining := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			rec, err := telemetry.New(telemetry.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer rec.Close()
			f := &feed.Memory{}
			e := New(Options{Feed: f, Steps: builtin.Steps(), Recorder: rec, Log: slog.New(slog.DiscardHandler)})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			publish := func(clusters ...*ir.Cluster) {
				f.Update(func(s *feed.State) (config, endpoints, secrets bool) {
					s.Config = &ir.Config{Clusters: clusters}
					return true, true, true
				})
				synctest.Wait()
			}
			ended := make(chan struct{})
			go func() { e.Run(ctx); close(ended) }()
			publish(&ir.Cluster{Key: "c"})
			var x proxy.Flow
			x.Begin(e.proxy, &proxy.ConnInfo{Group: "g", Port: 80}, time.Now())
			publish()
			if n := len(e.Clusters().All()); n != 1 {
				t.Fatalf("%d clusters while an exchange is under way, want 1", n)
			}
			if draining {
				cancel()
				<-ended
			}
			x.End(time.Now())
			if draining {
				e.Drain(ctx, 0)
			}
			synctest.Wait()
			if n := len(e.Clusters().All()); n != 0 {
				t.Errorf("draining %v: %d clusters after the last exchange, want none", draining, n)
			}
			cancel()
			<-ended
		})
	}
}
