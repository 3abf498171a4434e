package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/infra"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

const (
	// routeWriters is how many statuses of routes, Ingresses and policies are written at once. Few: a Gateway's status goes before, and
	// what the API server does for us it does not do for whoever creates routes (1,000 routes: 3.2-4.2 s with 6, 2.5-3.9 s with 2).
	routeWriters = 2
	// restBetween is how long the status of one Gateway rests after it was written: routes that come in a row change its counts each
	// time.
	restBetween = 500 * time.Millisecond
	firstRetry  = 20 * time.Millisecond
	lastRetry   = 30 * time.Second
	fieldOwner  = "gatehouse"
)

// A Live returns the newest report of which everything is live, nil if there is none yet, and a channel that is closed when there is
// a newer one.
type Live func() (*diag.Report, <-chan struct{})

// writer writes what a report says while this process leads.
type writer struct {
	c    *Cluster
	fast workqueue.TypedRateLimitingInterface[diag.Ref] // Gateways, classes, Services: few, and others wait for them
	slow workqueue.TypedRateLimitingInterface[diag.Ref]
	ev   *events

	mu     sync.Mutex
	report *diag.Report
	owners map[diag.Ref]*diag.Object // of report, those with an Exposure
	wrote  map[diag.Ref]time.Time    // Gateways
}

// services is the one entry in the fast queue that stands for all Services.
func services() diag.Ref { return diag.Ref{Kind: "Services"} }

func newWriter(c *Cluster) *writer {
	queue := func() workqueue.TypedRateLimitingInterface[diag.Ref] {
		return workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[diag.Ref](firstRetry, lastRetry))
	}
	return &writer{c: c, fast: queue(), slow: queue(), owners: map[diag.Ref]*diag.Object{}, wrote: map[diag.Ref]time.Time{}}
}

// run writes until ctx ends. It begins by comparing everything with what is there.
func (w *writer) run(ctx context.Context, live Live) {
	ev, err := newEvents(w.c)
	if err != nil {
		w.c.o.Log.Error("events cannot be written", "err", err)
	}
	w.ev = ev
	defer ev.stop()
	var wg sync.WaitGroup
	wg.Go(func() { w.work(ctx, w.fast) })
	for range routeWriters {
		wg.Go(func() { w.work(ctx, w.slow) })
	}
	w.c.source.follow(func(k objects.Key) { w.add(w.ref(k)) })
	defer wg.Wait()
	defer w.fast.ShutDown()
	defer w.slow.ShutDown()
	defer w.c.source.follow(nil)
	for {
		report, changed := live()
		if report != nil {
			w.take(report)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// follow has f called with the key of each object that changes and that the writer compares with; nil ends it.
func (s *source) follow(f func(objects.Key)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed = f
}

func (w *writer) ref(k objects.Key) diag.Ref {
	if k.Kind == "Service" {
		return services()
	}
	return refOf(w.c.source.kinds[k.Kind], k)
}

// take notes what a newer report changes.
func (w *writer) take(r *diag.Report) {
	w.mu.Lock()
	old := w.report
	w.report = r
	var changed []diag.Ref
	infra := old == nil
	for ref, o := range r.Since(old) {
		changed = append(changed, ref)
		was := w.owners[ref]
		switch {
		case o != nil && o.Exposure != nil:
			w.owners[ref] = o
			infra = true
		case was != nil:
			delete(w.owners, ref)
			infra = true
		}
		if o != nil {
			w.ev.tell(o, old.Object(ref))
		}
		w.ev.opened(o, old.Object(ref), r)
	}
	w.mu.Unlock()
	for _, ref := range changed {
		w.add(ref)
	}
	if infra {
		w.add(services())
	}
	if old == nil { // also what no verdict is about: what is left there of ours goes
		for _, k := range w.c.source.keys() {
			w.add(w.ref(k))
		}
	}
}

// keys are those of all objects that the writer compares with.
func (s *source) keys() []objects.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]objects.Key, 0, len(s.seen))
	for k := range s.seen {
		out = append(out, k)
	}
	return out
}

func (w *writer) add(ref diag.Ref) {
	switch ref.Kind {
	case "Gateway":
		w.mu.Lock()
		rest := restBetween - time.Since(w.wrote[ref])
		w.mu.Unlock()
		w.fast.AddAfter(ref, rest)
	case "GatewayClass", "Services":
		w.fast.Add(ref)
	case "IngressClass": // it has no status
	default:
		w.slow.Add(ref)
	}
}

// work takes one entry after the other.
func (w *writer) work(ctx context.Context, q workqueue.TypedRateLimitingInterface[diag.Ref]) {
	for {
		ref, ended := q.Get()
		if ended {
			return
		}
		err := w.write(ctx, ref)
		switch {
		case err == nil:
			q.Forget(ref)
			w.ev.done(ref, ofStatus)
		case ctx.Err() != nil:
		case apierrors.IsConflict(err):
			w.c.stats.conflicts.Add(1)
			q.AddRateLimited(ref)
		default:
			w.c.stats.failed.Add(1)
			w.c.o.Log.Warn("not written; it is tried again", "what", ref.String(), "err", err)
			w.ev.failed(ref, ofStatus, err)
			q.AddRateLimited(ref)
		}
		q.Done(ref)
	}
}

func (w *writer) write(ctx context.Context, ref diag.Ref) error {
	w.mu.Lock()
	report := w.report
	w.mu.Unlock()
	if report == nil {
		return nil
	}
	if ref == services() {
		return w.writeServices(ctx)
	}
	return w.writeStatus(ctx, ref, report.Object(ref))
}

// writeStatus makes the status of one object what d says, if it is not.
func (w *writer) writeStatus(ctx context.Context, ref diag.Ref, d *diag.Object) error {
	key := objects.Key{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name}
	o := w.c.source.object(key)
	if o == nil {
		w.mu.Lock()
		delete(w.wrote, ref)
		w.mu.Unlock()
	}
	if o == nil || d != nil && d.Generation != o.GetGeneration() && d.Generation != 0 {
		return nil // gone; or the verdict is about another version than the one at hand: the next one is on its way
	}
	sw := statusWriter{controller: w.c.o.GatewayController, now: metav1.Now().Rfc3339Copy()}
	status, differs := sw.status(o, d)
	if !differs {
		return nil
	}
	data, err := patch(o, status)
	if err != nil {
		return fmt.Errorf("encoding the status of %s: %w", ref, err)
	}
	k := w.c.source.kinds[ref.Kind]
	client, err := w.c.client(schema.GroupVersion{Group: k.Group, Version: k.Version})
	if err != nil {
		return err
	}
	out, err := client.Patch(types.MergePatchType).NamespaceIfScoped(ref.Namespace, !k.Cluster).Resource(k.Plural).Name(ref.Name).
		SubResource("status").Param("fieldManager", fieldOwner).Body(data).Do(ctx).Get()
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		if apierrors.IsConflict(err) {
			w.refresh(ctx, k, key)
		}
		return fmt.Errorf("writing the status of %s: %w", ref, err)
	}
	w.c.stats.writes.Add(1)
	if ref.Kind == "Gateway" {
		w.mu.Lock()
		w.wrote[ref] = time.Now()
		w.mu.Unlock()
	}
	w.keep(key, out)
	return nil
}

// refresh reads the newest version of an object that somebody else has changed.
func (w *writer) refresh(ctx context.Context, k objects.Kind, key objects.Key) {
	client, err := w.c.client(schema.GroupVersion{Group: k.Group, Version: k.Version})
	if err != nil {
		return
	}
	if out, err := client.Get().NamespaceIfScoped(key.Namespace, !k.Cluster).Resource(k.Plural).Name(key.Name).Do(ctx).Get(); err == nil {
		w.keep(key, out)
	}
}

func (w *writer) keep(key objects.Key, out runtime.Object) {
	if o, ok := out.(objects.Object); ok {
		slim(o)
		w.c.source.wrote(key, o)
	}
}

// writeServices makes the Services what the report wants. If anything is to be done it looks at what is there now first, so that no
// target port is given twice.
func (w *writer) writeServices(ctx context.Context) error {
	o := infra.Options{Namespace: w.c.o.Namespace, Installation: w.c.o.Installation, Selector: w.c.o.Selector}
	if o.Namespace == "" {
		return nil
	}
	w.mu.Lock()
	var wanted []*diag.Object
	for _, d := range w.owners {
		wanted = append(wanted, d)
	}
	w.mu.Unlock()
	var have []*corev1.Service
	for _, k := range w.c.source.keys() {
		if s, ok := w.c.source.object(k).(*corev1.Service); ok && ours(s, &o) {
			have = append(have, s)
		}
	}
	if apply, remove := infra.Services(wanted, have, o); len(apply)+len(remove) == 0 {
		return nil
	}
	client, err := w.c.client(schema.GroupVersion{Version: "v1"})
	if err != nil {
		return err
	}
	var list corev1.ServiceList
	if err := client.Get().Namespace(o.Namespace).Resource("services").
		VersionedParams(&metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(metav1.SetAsLabelSelector(o.Labels()))}, w.c.params).
		Do(ctx).Into(&list); err != nil {
		return fmt.Errorf("listing Services: %w", err)
	}
	have = have[:0]
	for i := range list.Items {
		have = append(have, &list.Items[i])
	}
	apply, remove := infra.Services(wanted, have, o)
	var failed []error
	for _, name := range remove {
		err := client.Delete().Namespace(o.Namespace).Resource("services").Name(name).Do(ctx).Error()
		if err != nil && !apierrors.IsNotFound(err) {
			failed = append(failed, fmt.Errorf("removing Service %s/%s: %w", o.Namespace, name, err))
			continue
		}
		w.c.stats.writes.Add(1)
		w.c.o.Log.Info("Service removed", "service", o.Namespace+"/"+name)
	}
	for _, s := range apply {
		owner := slices.IndexFunc(wanted, func(d *diag.Object) bool { return d.Exposure.Service == s.Name })
		if err := w.apply(ctx, s); err != nil {
			failed = append(failed, err)
			w.ev.failed(wanted[owner].Ref, ofService, err) // its status can only say that the Service is not there
		} else {
			w.ev.done(wanted[owner].Ref, ofService)
		}
	}
	return errors.Join(failed...)
}

func ours(s *corev1.Service, o *infra.Options) bool {
	for k, v := range o.Labels() {
		if s.Labels[k] != v {
			return false
		}
	}
	return true
}

// apply writes one Service by server-side apply: what others own of it stays, but for ports, which would lead to nobody.
func (w *writer) apply(ctx context.Context, s *corev1.Service) error {
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encoding Service %s: %w", s.Name, err)
	}
	out, err := w.patchService(ctx, s, types.ApplyPatchType, data)
	if apierrors.IsInvalid(err) || err == nil && len(out.Spec.Ports) > len(s.Spec.Ports) {
		if err = w.takePortsOut(ctx, s); err == nil {
			_, err = w.patchService(ctx, s, types.ApplyPatchType, data)
		}
	}
	if err != nil {
		return fmt.Errorf("applying Service %s/%s for %s %s: %w", s.Namespace, s.Name, s.Labels[infra.LabelOwnerKind], s.Labels[infra.LabelOwnerName], err)
	}
	w.c.stats.writes.Add(1)
	var ports []int32
	for _, p := range s.Spec.Ports {
		ports = append(ports, p.Port)
	}
	slices.Sort(ports)
	w.c.o.Log.Info("Service applied", "service", s.Namespace+"/"+s.Name, "ports", ports)
	return nil
}

func (w *writer) patchService(ctx context.Context, s *corev1.Service, how types.PatchType, data []byte) (*corev1.Service, error) {
	client, err := w.c.client(schema.GroupVersion{Version: "v1"})
	if err != nil {
		return nil, err
	}
	r := client.Patch(how).Namespace(s.Namespace).Resource("services").Name(s.Name).Param("fieldManager", fieldOwner).Body(data)
	if how == types.ApplyPatchType {
		r = r.Param("force", "true")
	}
	var out corev1.Service
	return &out, r.Do(ctx).Into(&out)
}

// takePortsOut makes the ports of a Service those of s: ports that somebody else added stay when s is applied, and one of theirs that
// has the name of one of ours makes applying impossible.
func (w *writer) takePortsOut(ctx context.Context, s *corev1.Service) error {
	ports := []any{map[string]string{"$patch": "replace"}} // a strategic merge would keep them too
	for _, p := range s.Spec.Ports {
		ports = append(ports, p)
	}
	data, err := json.Marshal(map[string]any{"spec": map[string]any{"ports": ports}})
	if err != nil {
		return err
	}
	_, err = w.patchService(ctx, s, types.StrategicMergePatchType, data)
	return err
}
