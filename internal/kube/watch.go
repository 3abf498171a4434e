package kube

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/objects"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// Times of a watch that cannot go on.
const (
	firstPause   = 100 * time.Millisecond // doubled up to longestPause
	longestPause = 3 * time.Second        // a server that comes back is seen soon; what a refused connection costs is little
	lookAgain    = 5 * time.Second        // whether a kind that was not installed is now
	deniedPause  = 30 * time.Second
)

// An API server that has just begun may deny what it allows, and not know kinds that it serves, until it has read its own objects. So a
// denial is believed when it was repeated (over some 5 s), and what was read of a kind is dropped when it was not there several times.
const (
	timesDenied  = 6
	timesMissing = 3
)

// watch follows one kind, in one namespace or in all.
type watch struct {
	s         *source
	kind      objects.Kind
	namespace string // "": all; of kind Namespace: the one Namespace that is followed
	have      map[objects.Key]version
	gone      int // of have
}

// version is the newest version of an object that was seen. What is gone stays a while, so that a late event does not bring it
// back.
type version struct {
	uid  types.UID
	rv   string
	gone bool
}

// behind says whether o is the same version or an older one. Versions of one kind are ordered, also those of several objects that had
// one name in turn.
func (v version) behind(o objects.Object) bool {
	c, err := resourceversion.CompareResourceVersion(o.GetResourceVersion(), v.rv)
	return err == nil && c <= 0 || v.rv == o.GetResourceVersion()
}

// mostGone is how many deleted objects are remembered.
const mostGone = 4096

// run follows the kind until ctx ends: while it is not installed it looks for it, while it may not be read it asks again.
func (w *watch) run(ctx context.Context) {
	pause, missing := firstPause, 0
	for ctx.Err() == nil {
		gv, found, err := w.s.c.find(w.kind)
		switch {
		case err != nil:
			w.log().Warn("the API server cannot be asked what it serves; it is tried again", "kind", w.kind.Name, "err", err)
			pause = w.sleep(ctx, pause)
			continue
		case !found:
			if missing++; missing >= timesMissing || len(w.have) == 0 {
				w.absent()
				w.s.synced(w, w.missing())
			}
			wait(ctx, lookAgain)
			continue
		}
		pause, missing = firstPause, 0
		w.follow(ctx, gv)
	}
}

func (w *watch) log() *slog.Logger { return w.s.c.o.Log }

func (w *watch) missing() diag.Fault {
	f := diag.Fault{Severity: diag.Warning, Reason: "NotInstalled", Object: diag.Ref{Kind: "CustomResourceDefinition", Name: w.kind.Plural + "." + w.kind.Group},
		Message: "is not installed, so no " + w.kind.Name + " is read"}
	if w.kind.Group == "gatehouse.dev" {
		f.Hint = "install the CRDs of the chart"
	} else {
		f.Hint = "install the Gateway API's CRDs if you use it, v1.6 or newer"
	}
	return f
}

// follow lists and watches one version of the kind. It returns when that version seems to be gone, or ctx ends.
func (w *watch) follow(ctx context.Context, gv schema.GroupVersion) {
	lw, expected, err := w.listWatch(gv)
	if err != nil { // of our own making: nothing that trying again would mend
		w.s.synced(w, diag.Fault{Message: err.Error()})
		<-ctx.Done()
		return
	}
	r := cache.NewReflectorWithOptions(lw, expected, w, cache.ReflectorOptions{Name: w.String()})
	pause, denied := firstPause, 0
	for ctx.Err() == nil {
		began := time.Now()
		err := r.ListAndWatchWithContext(ctx)
		if ctx.Err() != nil {
			return
		}
		w.s.c.stats.relists.Add(1)
		if time.Since(began) > 2*longestPause {
			pause, denied = firstPause, 0
		}
		switch {
		case apierrors.IsNotFound(err):
			w.s.c.forget(gv)
			wait(ctx, firstPause)
			return
		case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err):
			if denied++; denied < timesDenied {
				pause = w.sleep(ctx, pause)
				continue
			}
			w.log().Warn("a kind may not be read", "what", w.String(), "err", err)
			w.s.synced(w, w.denied(err))
			wait(ctx, deniedPause)
		case err != nil:
			w.log().Warn("a watch broke off and begins anew; what was read stands", "what", w.String(), "err", err)
			pause = w.sleep(ctx, pause)
		}
	}
}

func (w *watch) denied(err error) diag.Fault {
	return diag.Fault{Reason: "Forbidden", Message: fmt.Sprintf("%s cannot be read: %v", w, err), Object: diag.Ref{Kind: "ServiceAccount", Namespace: w.s.c.o.Namespace},
		Hint: "give the ServiceAccount the rights in the chart, or narrow --watch-namespaces"}
}

// sleep waits for about pause and returns the next one.
func (w *watch) sleep(ctx context.Context, pause time.Duration) time.Duration {
	wait(ctx, pause/2+rand.N(pause))
	return min(2*pause, longestPause)
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// listWatch is how the kind is read, and as which type.
func (w *watch) listWatch(gv schema.GroupVersion) (*cache.ListWatch, runtime.Object, error) {
	namespace, narrow := w.namespace, func(*metav1.ListOptions) {}
	if w.kind.Name == "Namespace" && w.namespace != "" {
		namespace, narrow = "", func(o *metav1.ListOptions) { o.FieldSelector = "metadata.name=" + w.namespace }
	}
	if w.kind.Name == "Secret" {
		r := w.s.c.metadata.Resource(gv.WithResource(w.kind.Plural)).Namespace(namespace)
		return &cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				return r.List(ctx, o)
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
				return r.Watch(ctx, o)
			},
		}, &metav1.PartialObjectMetadata{}, nil
	}
	client, err := w.s.c.client(gv)
	if err != nil {
		return nil, nil, err
	}
	expected, err := w.s.c.scheme.New(gv.WithKind(w.kind.Name))
	if err != nil {
		return nil, nil, fmt.Errorf("kind %s: %w", w.kind.Name, err)
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			narrow(&o)
			return client.Get().NamespaceIfScoped(namespace, namespace != "").Resource(w.kind.Plural).VersionedParams(&o, w.s.c.params).Do(ctx).Get()
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
			narrow(&o)
			o.Watch = true
			return client.Get().NamespaceIfScoped(namespace, namespace != "").Resource(w.kind.Plural).VersionedParams(&o, w.s.c.params).Watch(ctx)
		},
	}, expected, nil
}

// Add, Update, Delete, Replace and Resync make a watch the store of its reflector (cache.ReflectorStore). Events that come twice
// or late change nothing: the newest version of an object counts.
func (w *watch) Add(in any) error {
	o, err := w.object(in)
	if err == nil {
		w.upsert(o, false)
	}
	return err
}

func (w *watch) Update(in any) error { return w.Add(in) }
func (w *watch) Resync() error       { return nil }

// upsert takes a version of an object; listed says that it stands in a list of all, which knows best what is there.
func (w *watch) upsert(o objects.Object, listed bool) {
	k := objects.KeyOf(o)
	old, ok := w.have[k]
	same := old.uid == o.GetUID() && old.rv == o.GetResourceVersion() && !old.gone
	if ok && (same || !listed && old.behind(o)) { // a list is right even where it goes back: after a restored backup it does
		return
	}
	if ok && old.gone {
		w.gone--
	}
	w.have[k] = version{uid: o.GetUID(), rv: o.GetResourceVersion()}
	if s, ok := o.(*objects.Secret); ok {
		w.s.bodies.seen(k, s)
	} else {
		w.s.put(k, o)
	}
}

func (w *watch) Delete(in any) error {
	if d, ok := in.(cache.DeletedFinalStateUnknown); ok {
		in = d.Obj
	}
	o, err := w.object(in)
	if err != nil {
		return err
	}
	k := objects.KeyOf(o)
	old, ok := w.have[k]
	if ok && old.behind(o) && (old.gone || old.uid != o.GetUID()) {
		return nil // gone already, or another object has taken the name
	}
	if ok && old.gone {
		w.gone--
		ok = false
	}
	w.have[k] = version{uid: o.GetUID(), rv: o.GetResourceVersion(), gone: true}
	if w.gone++; w.gone > mostGone {
		maps.DeleteFunc(w.have, func(_ objects.Key, v version) bool { return v.gone })
		w.gone = 0
	}
	if ok {
		w.remove(k)
	}
	return nil
}

func (w *watch) remove(k objects.Key) {
	if k.Kind == "Secret" {
		w.s.bodies.gone(k)
	} else {
		w.s.put(k, nil)
	}
}

// Replace takes the list of all there is.
func (w *watch) Replace(list []any, _ string) error {
	there := make(map[objects.Key]bool, len(list))
	for _, in := range list {
		o, err := w.object(in)
		if err != nil {
			return err
		}
		there[objects.KeyOf(o)] = true
		w.upsert(o, true)
	}
	for k, v := range w.have {
		if there[k] {
			continue
		}
		if !v.gone {
			w.remove(k)
		}
		delete(w.have, k)
	}
	w.gone = 0
	w.s.synced(w, diag.Fault{})
	return nil
}

// absent takes away all there was: the kind is no longer installed.
func (w *watch) absent() {
	for k, v := range w.have {
		if !v.gone {
			w.remove(k)
		}
	}
	clear(w.have)
	w.gone = 0
}

// object turns what the API server sent into what Gatehouse keeps of it.
func (w *watch) object(in any) (objects.Object, error) {
	if m, ok := in.(*metav1.PartialObjectMetadata); ok {
		slim(&m.ObjectMeta)
		return &objects.Secret{ObjectMeta: m.ObjectMeta, Pending: true, Material: secret.Material{}}, nil
	}
	o, ok := in.(objects.Object)
	if !ok || objects.KindOf(o) != w.kind.Name {
		return nil, fmt.Errorf("a watch of %s brought a %T", w.kind.Plural, in)
	}
	slim(o)
	return o, nil
}

// lastApplied is what kubectl apply keeps for itself: a second copy of the object.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

func slim(o metav1.Object) {
	o.SetManagedFields(nil)
	delete(o.GetAnnotations(), lastApplied)
}

// served is what the API server said it serves of one group and version.
type served struct {
	resources map[string]bool
	at        time.Time
}

// find is the version under which the cluster serves a kind, the newest that is known here. An error is of asking.
func (c *Cluster) find(k objects.Kind) (schema.GroupVersion, bool, error) {
	for _, v := range append([]string{k.Version}, olderVersions(k.Name)...) {
		gv := schema.GroupVersion{Group: k.Group, Version: v}
		s, err := c.serves(gv)
		if err != nil {
			return gv, false, err
		}
		if s.resources[k.Plural] {
			return gv, true, nil
		}
	}
	return schema.GroupVersion{}, false, nil
}

// serves asks what there is of a group and version; the answer is kept for a moment, since many kinds share one.
func (c *Cluster) serves(gv schema.GroupVersion) (served, error) {
	c.asking.Lock()
	defer c.asking.Unlock()
	if s, ok := c.served[gv]; ok && time.Since(s.at) < lookAgain/2 {
		return s, nil
	}
	list, err := c.discovery.ServerResourcesForGroupVersion(gv.String())
	if err != nil && !apierrors.IsNotFound(err) {
		return served{}, err
	}
	s := served{resources: map[string]bool{}, at: time.Now()}
	if err == nil {
		for _, r := range list.APIResources {
			s.resources[r.Name] = true
		}
	}
	c.served[gv] = s
	return s, nil
}

func (c *Cluster) forget(gv schema.GroupVersion) {
	c.asking.Lock()
	defer c.asking.Unlock()
	delete(c.served, gv)
}
