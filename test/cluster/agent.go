package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// agent is scheduler and kubelet for all nodes: it binds pods, and has a pod for each that is bound.
type agent struct {
	c       *Cluster
	log     *slog.Logger
	backoff time.Duration

	factory    informers.SharedInformerFactory
	podLister  corelisters.PodLister
	nodeLister corelisters.NodeLister
	secrets    corelisters.SecretLister
	configMaps corelisters.ConfigMapLister
	unbound    workqueue.TypedRateLimitingInterface[types.NamespacedName]

	mu   sync.Mutex
	pods map[types.UID]*pod
	turn int // whose turn it is to get a pod

	running sync.WaitGroup
}

func newAgent(c *Cluster) *agent {
	a := &agent{
		c: c, log: c.log, backoff: c.options.Backoff,
		factory: informers.NewSharedInformerFactory(c.node, 0),
		pods:    map[types.UID]*pod{},
		unbound: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](100*time.Millisecond, 5*time.Second)),
	}
	if a.backoff == 0 {
		a.backoff = 500 * time.Millisecond
	}
	core := a.factory.Core().V1()
	a.podLister, a.nodeLister = core.Pods().Lister(), core.Nodes().Lister()
	a.secrets, a.configMaps = core.Secrets().Lister(), core.ConfigMaps().Lister()
	return a
}

// start returns when the nodes are registered and the agent knows the cluster. It ends with ctx.
func (a *agent) start(ctx context.Context) error {
	for _, n := range a.c.nodes {
		if err := a.register(ctx, n); err != nil {
			return err
		}
		if err := a.serveKubelet(ctx, n); err != nil {
			return err
		}
	}
	core := a.factory.Core().V1()
	handlers := []struct {
		informer cache.SharedIndexInformer
		handler  cache.ResourceEventHandler
	}{
		{core.Pods().Informer(), cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { a.saw(ctx, o.(*corev1.Pod)) },
			UpdateFunc: func(_, o any) { a.saw(ctx, o.(*corev1.Pod)) },
			DeleteFunc: func(o any) { a.lost(o) },
		}},
		{core.Nodes().Informer(), cache.ResourceEventHandlerFuncs{UpdateFunc: func(any, any) { a.retryUnbound() }}},
		{core.Secrets().Informer(), a.volumeSource()},
		{core.ConfigMaps().Informer(), a.volumeSource()},
	}
	for _, h := range handlers {
		if _, err := h.informer.AddEventHandler(h.handler); err != nil {
			return fmt.Errorf("watching: %w", err)
		}
	}
	a.factory.Start(ctx.Done())
	a.running.Go(func() { a.schedule(ctx) })
	a.running.Go(func() { <-ctx.Done(); a.unbound.ShutDown() })
	for kind, ok := range a.factory.WaitForCacheSync(ctx.Done()) {
		if !ok {
			return fmt.Errorf("the agent did not get the list of %v", kind)
		}
	}
	return nil
}

// wait returns when all pods have ended, after the context of start has.
func (a *agent) wait() {
	a.running.Wait()
	a.factory.Shutdown()
}

// saw takes in the newest state of a pod.
func (a *agent) saw(ctx context.Context, o *corev1.Pod) {
	if o.Spec.NodeName == "" {
		a.unbound.Add(types.NamespacedName{Namespace: o.Namespace, Name: o.Name})
		return
	}
	a.mu.Lock()
	p := a.pods[o.UID]
	if p == nil {
		i := slices.IndexFunc(a.c.nodes, func(n *node) bool { return n.name == o.Spec.NodeName })
		if i < 0 || ctx.Err() != nil {
			a.mu.Unlock()
			return
		}
		p = newPod(ctx, a, a.c.nodes[i], o)
		a.pods[o.UID] = p
		a.running.Go(p.run)
	}
	a.mu.Unlock()
	p.update(o)
}

// lost hears that a pod's object is gone, so whatever still runs of it must be too.
func (a *agent) lost(o any) {
	if t, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = t.Obj
	}
	if o, ok := o.(*corev1.Pod); ok {
		a.mu.Lock()
		p := a.pods[o.UID]
		a.mu.Unlock()
		if p != nil {
			p.kill()
		}
	}
}

// forget is called by a pod that has ended and left nothing behind.
func (a *agent) forget(p *pod) {
	a.mu.Lock()
	delete(a.pods, p.uid)
	a.mu.Unlock()
}

// find returns the pod of this name that has a process or had one.
func (a *agent) find(namespace, name string) (*pod, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.pods {
		if p.namespace == namespace && p.name == name {
			return p, nil
		}
	}
	return nil, fmt.Errorf("no pod %s/%s on a node", namespace, name)
}

// volumeSource wakes the pods whose volumes may come from the object that changed.
func (a *agent) volumeSource() cache.ResourceEventHandler {
	wake := func(o any) {
		if t, ok := o.(cache.DeletedFinalStateUnknown); ok {
			o = t.Obj
		}
		m, ok := o.(metav1.Object)
		if !ok {
			return
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, p := range a.pods {
			if p.namespace == m.GetNamespace() {
				poke(p.refresh)
			}
		}
	}
	return cache.ResourceEventHandlerFuncs{AddFunc: wake, UpdateFunc: func(_, o any) { wake(o) }, DeleteFunc: wake}
}

// poke wakes whoever waits on a channel of capacity one, now or next.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// register makes a ready node, without the taint that a real one has until its network works.
func (a *agent) register(ctx context.Context, n *node) error {
	amounts := corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI),
		corev1.ResourceMemory: resource.MustParse("8Gi"),
		corev1.ResourcePods:   resource.MustParse("250"),
	}
	o := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.name, Labels: map[string]string{
		corev1.LabelHostname:     n.name,
		corev1.LabelTopologyZone: n.zone,
		corev1.LabelOSStable:     "linux",
		corev1.LabelArchStable:   runtime.GOARCH,
	}}}
	nodes := a.c.node.CoreV1().Nodes()
	o, err := nodes.Create(ctx, o, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("registering %s: %w", n.name, err)
	}
	if o.Spec.Taints != nil {
		o.Spec.Taints = nil
		if o, err = nodes.Update(ctx, o, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("registering %s: %w", n.name, err)
		}
	}
	now := metav1.Now()
	o.Status = corev1.NodeStatus{
		Capacity: amounts, Allocatable: amounts,
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: kubeletPort}},
		Conditions: []corev1.NodeCondition{{
			Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "LabReady", Message: "the lab is always ready",
			LastHeartbeatTime: now, LastTransitionTime: now,
		}},
		NodeInfo: corev1.NodeSystemInfo{
			OperatingSystem: "linux", Architecture: runtime.GOARCH, ContainerRuntimeVersion: "gatehouse://lab",
			KubeletVersion: "v1.37.2",
		},
	}
	for _, addr := range n.addrs {
		o.Status.Addresses = append(o.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: addr.String()})
	}
	o.Status.Addresses = append(o.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: n.name})
	if _, err := nodes.UpdateStatus(ctx, o, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("registering %s: %w", n.name, err)
	}
	return nil
}

// schedule binds pods, one after the other, until the queue shuts down.
func (a *agent) schedule(ctx context.Context) {
	for {
		key, stop := a.unbound.Get()
		if stop {
			return
		}
		if err := a.bind(ctx, key); err != nil {
			if ctx.Err() == nil {
				a.log.Warn("cannot bind a pod", "pod", key.String(), "err", err)
			}
			a.unbound.AddRateLimited(key)
		} else {
			a.unbound.Forget(key)
		}
		a.unbound.Done(key)
	}
}

// retryUnbound looks again at pods that no node would take.
func (a *agent) retryUnbound() {
	all, err := a.podLister.List(everything)
	if err != nil {
		return
	}
	for _, o := range all {
		if o.Spec.NodeName == "" {
			a.unbound.Add(types.NamespacedName{Namespace: o.Namespace, Name: o.Name})
		}
	}
}

func (a *agent) bind(ctx context.Context, key types.NamespacedName) error {
	o, err := a.podLister.Pods(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) || err == nil && (o.Spec.NodeName != "" || len(o.Spec.SchedulingGates) > 0) {
		return nil
	}
	if err != nil {
		return err
	}
	n, err := a.choose(o)
	if err != nil {
		return err
	}
	err = a.c.node.CoreV1().Pods(o.Namespace).Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name, UID: o.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: n.Name},
	}, metav1.CreateOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // gone, or bound already and the news not here yet
	}
	return err
}

// choose takes the nodes in turn, but those that are cordoned, that the pod's node selector excludes, or that are tainted.
func (a *agent) choose(o *corev1.Pod) (*corev1.Node, error) {
	nodes, err := a.nodeLister.List(everything)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(nodes, func(x, y *corev1.Node) int { return slices.Compare([]byte(x.Name), []byte(y.Name)) })
	a.mu.Lock()
	defer a.mu.Unlock()
	for range nodes {
		n := nodes[a.turn%len(nodes)]
		a.turn++
		fits := !n.Spec.Unschedulable
		for k, v := range maps.All(o.Spec.NodeSelector) {
			fits = fits && n.Labels[k] == v
		}
		for _, t := range n.Spec.Taints {
			fits = fits && (t.Effect == corev1.TaintEffectPreferNoSchedule || tolerates(o, t))
		}
		if fits {
			return n, nil
		}
	}
	return nil, errors.New("no node takes it: all are cordoned, tainted or not selected")
}

func tolerates(o *corev1.Pod, t corev1.Taint) bool {
	return slices.ContainsFunc(o.Spec.Tolerations, func(x corev1.Toleration) bool {
		return (x.Key == t.Key || x.Key == "" && x.Operator == corev1.TolerationOpExists) &&
			(x.Effect == "" || x.Effect == t.Effect) &&
			(x.Operator == corev1.TolerationOpExists || x.Value == t.Value)
	})
}
