package kube

import (
	"context"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// Times of the lease: another replica takes over leaseDuration after the last renewal, at once after an orderly end.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
)

// Write stands for the lease until ctx ends, and writes status, Services and events for what live says while it holds it. Losing
// the lease ends the writing and nothing else.
func (c *Cluster) Write(ctx context.Context, live Live) error {
	leases, err := coordinationv1.NewForConfigAndClient(c.o.Config, c.http)
	if err != nil {
		return fmt.Errorf("setting up the lease: %w", err)
	}
	name := c.o.LeaseNamespace + "/" + c.o.LeaseName
	lock := &resourcelock.LeaseLock{LeaseMeta: metav1.ObjectMeta{Namespace: c.o.LeaseNamespace, Name: c.o.LeaseName}, Client: leases,
		LockConfig: resourcelock.ResourceLockConfig{Identity: c.o.Identity}}
	var one sync.Mutex // a term ends wholly before the next begins
	for ctx.Err() == nil {
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: lock, LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod, ReleaseOnCancel: true, Name: name,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(ctx context.Context) {
					one.Lock()
					defer one.Unlock()
					if ctx.Err() != nil {
						return
					}
					c.o.Log.Info("leading: this process writes status", "lease", name)
					c.stats.leading.Store(true)
					newWriter(c).run(ctx, live)
				},
				OnStoppedLeading: func() {
					if c.stats.leading.Swap(false) {
						c.o.Log.Info("no longer leading; serving goes on", "lease", name)
					}
				},
				OnNewLeader: func(id string) {
					if id != c.o.Identity {
						c.o.Log.Info("another replica leads", "lease", name, "leader", id)
					}
				},
			},
		})
		if err != nil {
			return fmt.Errorf("setting up the lease: %w", err)
		}
		elector.Run(ctx)
	}
	return nil
}
