package kube

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// events tells verdicts as Events of their objects: an Ingress has no conditions, and `kubectl describe` shows Events of all kinds. The
// zero pointer tells nothing.
type events struct {
	c           *Cluster
	broadcaster record.EventBroadcaster
	recorder    record.EventRecorder

	mu       sync.Mutex
	failures map[failure]string // what was told last
}

// failure is what could not be written for an object: its status, or its Service.
type failure struct {
	of   diag.Ref
	what string
}

const (
	ofStatus  = "status"
	ofService = "Service"
)

func newEvents(c *Cluster) (*events, error) {
	client, err := typedcorev1.NewForConfigAndClient(c.o.Config, c.http)
	if err != nil {
		return nil, fmt.Errorf("setting up events: %w", err)
	}
	b := record.NewBroadcaster()
	b.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.Events("")})
	return &events{c: c, broadcaster: b, recorder: b.NewRecorder(c.scheme, corev1.EventSource{Component: "gatehouse", Host: c.o.Identity}), failures: map[failure]string{}}, nil
}

func (e *events) stop() {
	if e != nil {
		e.broadcaster.Shutdown()
	}
}

// tell makes an Event of each error that o has and was had not.
func (e *events) tell(o, was *diag.Object) {
	if e == nil || !o.Ours && o.Ref.Kind != "Ingress" {
		return
	}
	for _, f := range o.Faults {
		if f.Severity != diag.Error || was != nil && slices.Contains(was.Faults, f) {
			continue
		}
		e.recorder.Event(e.object(o.Ref), corev1.EventTypeWarning, cmp.Or(f.Reason, "Invalid"), f.Text())
	}
}

// failed tells that something could not be written for an object, once for each reason.
func (e *events) failed(ref diag.Ref, what string, err error) {
	if e == nil || ref == services() {
		return
	}
	e.mu.Lock()
	f := failure{ref, what}
	again := e.failures[f] == err.Error()
	e.failures[f] = err.Error()
	e.mu.Unlock()
	if !again {
		e.recorder.Event(e.object(ref), corev1.EventTypeWarning, "NotWritten", err.Error())
	}
}

// done forgets that something failed for an object, so that it is told when it fails again.
func (e *events) done(ref diag.Ref, what string) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.failures, failure{ref, what})
}

func (e *events) object(ref diag.Ref) *corev1.ObjectReference {
	k := e.c.source.kinds[ref.Kind]
	out := &corev1.ObjectReference{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name, APIVersion: k.Version}
	if k.Group != "" {
		out.APIVersion = k.Group + "/" + k.Version
	}
	if o := e.c.source.object(objects.Key{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name}); o != nil {
		out.UID, out.ResourceVersion = o.GetUID(), o.GetResourceVersion()
	}
	return out
}
