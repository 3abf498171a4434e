package kube

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// source gathers what all watches bring. A change is handed on as soon as the one before it has been taken, so that a lone one
// waits for nothing and a burst comes as few changes.
type source struct {
	c     *Cluster
	kinds map[string]objects.Kind
	wake  chan struct{} // capacity 1

	mu      sync.Mutex
	pending map[objects.Key]objects.Object // since the last hand-over; nil: deleted
	seen    map[objects.Key]objects.Object // the newest of what the writer compares with
	waiting map[*watch]bool                // not synced yet
	faults  map[*watch]diag.Fault
	told    bool // faults changed since the last hand-over
	changed func(objects.Key)

	bodies bodies
}

func newSource(c *Cluster) *source {
	s := &source{c: c, kinds: map[string]objects.Kind{}, wake: make(chan struct{}, 1), pending: map[objects.Key]objects.Object{},
		seen: map[objects.Key]objects.Object{}, waiting: map[*watch]bool{}, faults: map[*watch]diag.Fault{}}
	for _, k := range objects.Kinds() {
		s.kinds[k.Name] = k
	}
	s.bodies = newBodies(s)
	return s
}

// Run watches until ctx ends, and returns nil then. It calls apply with all there is once every kind was read, or is known not to
// be readable, then with each change and all faults that there are then; apply is called by one goroutine at a time and may keep
// what it gets. While the API server cannot be reached it goes on trying, and says so in the log.
func (c *Cluster) Run(ctx context.Context, apply func(objects.Change, []diag.Fault)) error {
	s := c.source
	var wg sync.WaitGroup
	defer wg.Wait()
	watches := s.watches()
	for _, w := range watches {
		wg.Go(func() { w.run(ctx) })
	}
	wg.Go(func() { s.bodies.run(ctx) })
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		}
		if change, faults, ok := s.take(); ok {
			apply(change, faults)
		}
	}
}

// Waiting names the kinds that were not read yet, sorted.
func (c *Cluster) Waiting() []string {
	s := c.source
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for w := range s.waiting {
		out = append(out, w.String())
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// watches makes a watch of every kind in every namespace that is watched, and has hand-over wait for all of them.
func (s *source) watches() []*watch {
	var out []*watch
	for _, k := range objects.Kinds() {
		namespaces := []string{""}
		if len(s.c.o.Namespaces) > 0 && (!k.Cluster || k.Name == "Namespace") {
			namespaces = slices.Clone(s.c.o.Namespaces)
			if k.Name == "Service" && s.c.o.Namespace != "" {
				namespaces = append(namespaces, s.c.o.Namespace)
			}
			slices.Sort(namespaces)
			namespaces = slices.Compact(namespaces)
		}
		for _, ns := range namespaces {
			w := &watch{s: s, kind: k, namespace: ns, have: map[objects.Key]version{}}
			out = append(out, w)
			s.waiting[w] = true
		}
	}
	return out
}

// take returns what came since the last time, false if there is nothing to hand on.
func (s *source) take() (objects.Change, []diag.Fault, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) > 0 || len(s.pending) == 0 && !s.told {
		return objects.Change{}, nil, false
	}
	var c objects.Change
	for k, o := range s.pending {
		if o == nil {
			c.Deletes = append(c.Deletes, k)
		} else {
			c.Upserts = append(c.Upserts, o)
		}
	}
	s.pending, s.told = map[objects.Key]objects.Object{}, false
	faults := slices.Collect(maps.Values(s.faults))
	diag.SortFaults(faults)
	return c, faults, true
}

// put takes a new version of an object, nil if it was deleted.
func (s *source) put(k objects.Key, o objects.Object) {
	s.mu.Lock()
	s.pending[k] = o
	watched := s.writes(k)
	if watched {
		if o == nil {
			delete(s.seen, k)
		} else if !older(o, s.seen[k]) {
			s.seen[k] = o
		}
	}
	changed := s.changed
	s.mu.Unlock()
	s.c.stats.events.Add(1)
	if watched && changed != nil {
		changed(k)
	}
	s.poke()
}

// writes says whether the writer compares with objects of this kind.
func (s *source) writes(k objects.Key) bool {
	switch k.Kind {
	case "GatewayClass", "Gateway", "HTTPRoute", "BackendTLSPolicy", "Ingress", "Backend", "ProtectionPolicy", "ClientTrafficPolicy", "BackendTrafficPolicy",
		"GatewayParameters", "AuthPolicy", "RateLimitPolicy":
		return true
	case "Service":
		return k.Namespace == s.c.o.Namespace
	}
	return false
}

// wrote takes the version that a write returned, so that the next comparison is with it even if its event is late.
func (s *source) wrote(k objects.Key, o objects.Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.seen[k]; ok && !older(o, old) {
		s.seen[k] = o
	}
}

// object is the newest version of an object that the writer compares with, nil if there is none.
func (s *source) object(k objects.Key) objects.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[k]
}

// older says whether a is an older version of the object that b is.
func older(a, b objects.Object) bool {
	if a == nil || b == nil || a.GetUID() != b.GetUID() {
		return false
	}
	c, err := resourceversion.CompareResourceVersion(a.GetResourceVersion(), b.GetResourceVersion())
	return err == nil && c < 0
}

func (s *source) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// synced notes that a watch has read its kind, or cannot; fault says why it cannot, zero if it could.
func (s *source) synced(w *watch, fault diag.Fault) {
	s.mu.Lock()
	old, had := s.faults[w]
	if fault == (diag.Fault{}) {
		delete(s.faults, w)
		s.told = s.told || had
	} else {
		s.faults[w] = fault
		s.told = s.told || old != fault
	}
	waited := s.waiting[w]
	delete(s.waiting, w)
	read, faults := waited && len(s.waiting) == 0, len(s.faults)
	s.told = s.told || read // hand over even if the cluster is empty
	s.mu.Unlock()
	if read {
		s.c.o.Log.Info("cluster read", "faults", faults)
	}
	s.poke()
}

func (w *watch) String() string {
	if w.namespace == "" {
		return w.kind.Plural
	}
	return fmt.Sprintf("%s in %s", w.kind.Plural, w.namespace)
}
