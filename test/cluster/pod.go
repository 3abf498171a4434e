package cluster

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// everything selects all objects of a lister.
var everything = labels.Everything()

// pod is one pod on a node, from binding until nothing is left of it. One goroutine, run, leads it; each container has its own.
type pod struct {
	a         *agent
	node      *node
	namespace string
	name      string
	uid       types.UID
	dir       string
	started   metav1.Time

	ctx  context.Context // ends when nothing of the pod may be left: its object is gone, or the cluster closes
	kill context.CancelFunc

	latest  atomic.Pointer[corev1.Pod]
	ending  chan struct{} // closed when the pod is to end
	endOnce sync.Once
	refresh chan struct{} // volumes may be stale
	changed chan struct{} // the status may be stale

	space   *netSpace // nil: the node's network
	addrs   []netip.Addr
	volumes map[string]*volume

	mu         sync.Mutex // guards what follows, and the containers' states
	containers []*container
	initDone   bool
	problem    corev1.ContainerStateWaiting // why no container can be made yet
	conditions map[corev1.PodConditionType]corev1.PodCondition
	sent       string // the status last written

	flushing sync.Mutex
}

func newPod(ctx context.Context, a *agent, n *node, o *corev1.Pod) *pod {
	p := &pod{
		a: a, node: n, namespace: o.Namespace, name: o.Name, uid: o.UID,
		dir:        filepath.Join(a.c.dir, "pods", string(o.UID)),
		started:    metav1.Now(),
		ending:     make(chan struct{}),
		refresh:    make(chan struct{}, 1),
		changed:    make(chan struct{}, 1),
		conditions: map[corev1.PodConditionType]corev1.PodCondition{},
	}
	p.ctx, p.kill = context.WithCancel(ctx)
	p.latest.Store(o)
	for i := range o.Spec.InitContainers {
		spec := &o.Spec.InitContainers[i]
		sidecar := spec.RestartPolicy != nil && *spec.RestartPolicy == corev1.ContainerRestartPolicyAlways
		p.containers = append(p.containers, newContainer(p, spec, !sidecar, sidecar))
	}
	for i := range o.Spec.Containers {
		p.containers = append(p.containers, newContainer(p, &o.Spec.Containers[i], false, false))
	}
	return p
}

// update takes in the newest state of the object.
func (p *pod) update(o *corev1.Pod) {
	p.latest.Store(o)
	if o.DeletionTimestamp != nil {
		p.end()
	}
	poke(p.refresh)
	poke(p.changed)
}

func (p *pod) end() { p.endOnce.Do(func() { close(p.ending) }) }

func (p *pod) isEnding() bool {
	select {
	case <-p.ending:
		return true
	case <-p.ctx.Done():
		return true
	default:
		return false
	}
}

// run leads the pod through its life and returns when nothing is left of it.
func (p *pod) run() {
	defer p.a.forget(p)
	defer p.kill()
	defer os.RemoveAll(p.dir)

	if o := p.latest.Load(); o.DeletionTimestamp == nil && !finished(o) {
		p.live()
	}
	// The object stays until somebody deletes it; logs can be read until then.
	select {
	case <-p.ending:
	case <-p.ctx.Done():
		return
	}
	p.remove()
}

func finished(o *corev1.Pod) bool {
	return o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed
}

// live makes the pod's network and volumes and runs its containers until they have ended for good. Then it has written so.
func (p *pod) live() {
	var background sync.WaitGroup
	alive, stop := context.WithCancel(p.ctx)
	background.Go(func() { p.keepStatus(alive) })
	if err := p.setup(); err != nil {
		p.setProblem("ContainerCreating", err)
		p.event("FailedCreatePodSandBox", err.Error())
		select {
		case <-p.ending:
		case <-p.ctx.Done():
		}
	} else if p.mountVolumes() {
		background.Go(func() { p.keepVolumes(alive) })
		background.Go(func() { p.terminate(alive) })
		p.runContainers()
	}
	stop()
	background.Wait()
	p.flush(p.ctx)
	if p.space != nil {
		p.a.c.net.release(p.space)
	}
}

// setup gives the pod its folder, its network and its kernel settings.
func (p *pod) setup() error {
	o := p.latest.Load()
	if o.Spec.HostPID || o.Spec.HostIPC {
		return fmt.Errorf("the test cluster has no hostPID and no hostIPC")
	}
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return err
	}
	if o.Spec.HostNetwork {
		p.place(nil, p.node.addrs)
		return nil
	}
	space, err := p.a.c.net.pod()
	if err != nil {
		return err
	}
	p.place(space, space.addrs)
	settings := []corev1.Sysctl{{Name: "net.ipv4.ip_unprivileged_port_start", Value: "1024"}}
	if sc := o.Spec.SecurityContext; sc != nil {
		settings = append(settings, sc.Sysctls...)
	}
	for _, s := range settings {
		if err := space.sysctl(s.Name, s.Value); err != nil {
			return err
		}
	}
	return nil
}

// place says where the pod is. The status is written meanwhile; what else reads it starts later.
func (p *pod) place(s *netSpace, addrs []netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.space, p.addrs = s, addrs
}

// runContainers runs the init containers one after the other, then all others at once, and waits for them all.
func (p *pod) runContainers() {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, c := range p.containers {
		switch {
		case c.init:
			if !c.loop() {
				p.retireSidecars()
				return
			}
		case c.sidecar:
			wg.Go(func() { c.loop() })
			if !c.awaitStarted() {
				p.retireSidecars()
				return
			}
		}
	}
	p.mu.Lock()
	p.initDone = true
	p.mu.Unlock()
	var main sync.WaitGroup
	for _, c := range p.containers {
		if !c.init && !c.sidecar {
			main.Go(func() { c.loop() })
		}
	}
	main.Wait()
	p.retireSidecars()
}

// retireSidecars ends what would run on for ever after the other containers have completed. A pod that ends does so itself.
func (p *pod) retireSidecars() {
	for _, c := range slices.Backward(p.containers) {
		if c.sidecar {
			c.retire()
		}
	}
}

// terminate waits until the pod is to end and ends its containers with grace.
func (p *pod) terminate(ctx context.Context) {
	select {
	case <-p.ending:
	case <-ctx.Done():
	}
	if ctx.Err() != nil && p.ctx.Err() == nil {
		return // all containers have ended by themselves
	}
	var wg sync.WaitGroup
	seen := time.Now()
	for _, c := range p.containers {
		if !c.sidecar {
			wg.Go(func() { c.terminate(seen) })
		}
	}
	wg.Wait()
	for _, c := range slices.Backward(p.containers) {
		if c.sidecar {
			c.terminate(seen)
		}
	}
}

// grace is how long after seeing its end a pod may live. It can shrink when the object is deleted again with less.
func (p *pod) grace() time.Duration {
	o := p.latest.Load()
	if p.ctx.Err() != nil {
		return 0
	}
	if s := o.DeletionGracePeriodSeconds; s != nil {
		return time.Duration(*s) * time.Second
	}
	return time.Duration(ptr.Deref(o.Spec.TerminationGracePeriodSeconds, 30)) * time.Second
}

// remove deletes the object of a pod of which nothing runs any more.
func (p *pod) remove() {
	ctx := p.ctx
	for ctx.Err() == nil {
		err := p.a.c.node.CoreV1().Pods(p.namespace).Delete(ctx, p.name, metav1.DeleteOptions{
			GracePeriodSeconds: ptr.To(int64(0)),
			Preconditions:      &metav1.Preconditions{UID: &p.uid},
		})
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return
		}
		pause(ctx, 300*time.Millisecond)
	}
}

// pause waits before a call to the API server is tried again.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// event tells users what the node could not do.
func (p *pod) event(reason, message string) {
	p.a.log.Info("pod event", "pod", p.namespace+"/"+p.name, "reason", reason, "message", message)
	now := metav1.Now()
	e := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.namespace, GenerateName: p.name + "."},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "v1", Kind: "Pod", Namespace: p.namespace, Name: p.name, UID: p.uid,
		},
		Reason: reason, Message: message, Type: corev1.EventTypeWarning, Count: 1, FirstTimestamp: now, LastTimestamp: now,
		Source: corev1.EventSource{Component: "kubelet", Host: p.node.name},
	}
	ctx, cancel := context.WithTimeout(p.ctx, 2*time.Second)
	defer cancel()
	if _, err := p.a.c.node.CoreV1().Events(p.namespace).Create(ctx, e, metav1.CreateOptions{}); err != nil {
		p.a.log.Debug("cannot write an event", "err", err)
	}
}
