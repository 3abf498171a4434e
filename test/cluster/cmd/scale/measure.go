package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// atRest is how long nothing may be written after everything has settled.
const atRest = 10 * time.Second

// Names of the processes whose processor time is told.
const (
	gatehouse    = "gatehouse"
	controlPlane = "controlplane"
)

// attach creates many routes as fast as the API server takes them, and counts what is written for it.
func (s *settings) attach(ctx context.Context, w *world, out io.Writer) error {
	progress("attaching %d routes", s.routes)
	watch, err := w.gateways.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=public"})
	if err != nil {
		return err
	}
	defer watch.Stop()
	var writes atomic.Int64
	done := make(chan time.Time, 1)
	go func() {
		for e := range watch.ResultChan() {
			g, ok := e.Object.(*unstructured.Unstructured)
			if !ok || e.Type != "MODIFIED" {
				continue
			}
			writes.Add(1)
			if attached(g) == int64(s.routes) {
				select {
				case done <- time.Now():
				default:
				}
			}
		}
	}()
	begin, cpu, others := time.Now(), cpuOf(gatehouse), cpuOf(controlPlane)
	if err := s.create(ctx, w); err != nil {
		return err
	}
	created := time.Since(begin)
	var end time.Time
	select {
	case end = <-done:
	case <-time.After(2 * time.Minute):
		return fmt.Errorf("not all routes were attached within two minutes")
	}
	if err := w.statusesSettled(ctx, s.routes); err != nil {
		return err
	}
	row(out, fmt.Sprintf("%d HTTPRoutes attached, from the first create", s.routes), "<= 3 s", "%.2f s (%.2f s to create)", end.Sub(begin).Seconds(), created.Seconds())
	row(out, "  processor time until every status is written", "", "%.2f s (control plane %.2f s)", (cpuOf(gatehouse) - cpu).Seconds(), (cpuOf(controlPlane) - others).Seconds())
	row(out, "  writes of the Gateway's status meanwhile", "<= 60", "%d", writes.Load())
	before, err := w.versions(ctx)
	if err != nil {
		return err
	}
	select {
	case <-time.After(atRest):
	case <-ctx.Done():
		return ctx.Err()
	}
	after, err := w.versions(ctx)
	if err != nil {
		return err
	}
	changed := 0
	for k, v := range before {
		if after[k] != v {
			changed++
		}
	}
	row(out, fmt.Sprintf("  objects written in %s at rest", atRest), "0", "%d", changed)
	return w.clear(ctx)
}

func (s *settings) create(ctx context.Context, w *world) error {
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	next := make(chan int)
	for range 8 {
		wg.Go(func() {
			for n := range next {
				if _, err := w.routes.Create(ctx, route(fmt.Sprintf("r-%d", n), "web"), metav1.CreateOptions{}); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	for n := range s.routes {
		next <- n
	}
	close(next)
	wg.Wait()
	if e := failed.Load(); e != nil {
		return *e
	}
	return nil
}

// statusesSettled waits until every route has a status.
func (w *world) statusesSettled(ctx context.Context, routes int) error {
	return w.Wait(ctx, "the status of every route", func(ctx context.Context) error {
		l, err := w.routes.List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		n := 0
		for i := range l.Items {
			if ps, _, _ := unstructured.NestedSlice(l.Items[i].Object, "status", "parents"); len(ps) > 0 {
				n++
			}
		}
		if n != routes {
			return fmt.Errorf("%d of %d have one", n, routes)
		}
		return nil
	})
}

// versions are the resource versions of all objects that Gatehouse writes.
func (w *world) versions(ctx context.Context) (map[string]string, error) {
	out := map[string]string{}
	for kind, r := range map[string]interface {
		List(context.Context, metav1.ListOptions) (*unstructured.UnstructuredList, error)
	}{"HTTPRoute": w.routes, "Gateway": w.gateways} {
		l, err := r.List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		for _, o := range l.Items {
			out[kind+"/"+o.GetName()] = o.GetResourceVersion()
		}
	}
	return out, nil
}

// probe creates routes one after the other and asks each of them every 5 ms until it answers 200.
func (s *settings) probe(ctx context.Context, w *world, out io.Writer) error {
	progress("creating %d routes one after the other", s.probes)
	c := client()
	var took []time.Duration
	wrong := map[int]int{}
	for n := range s.probes {
		name := fmt.Sprintf("p-%d", n)
		begin := time.Now()
		if _, err := w.routes.Create(ctx, route(name, "web"), metav1.CreateOptions{}); err != nil {
			return err
		}
		pace := time.NewTicker(5 * time.Millisecond)
		for {
			status, err := w.get(c, name+".example")
			if err == nil && status == http.StatusOK {
				break
			}
			if status != http.StatusNotFound {
				wrong[status]++
			}
			if time.Since(begin) > time.Minute {
				return fmt.Errorf("route %s did not answer within a minute: status %d, %w", name, status, err)
			}
			<-pace.C
		}
		pace.Stop()
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	sum := time.Duration(0)
	for _, t := range took {
		sum += t
	}
	ms := func(d time.Duration) float64 { return d.Seconds() * 1000 }
	row(out, fmt.Sprintf("%d routes one by one, create to first 200: mean", s.probes), "<= 20 ms", "%.1f ms", ms(sum)/float64(len(took)))
	row(out, "  median", "", "%.1f ms", ms(took[len(took)/2]))
	row(out, "  99th percentile", "<= 75 ms", "%.1f ms", ms(took[len(took)*99/100]))
	row(out, "  slowest", "", "%.1f ms", ms(took[len(took)-1]))
	row(out, "  answers other than 404, then 200", "0", "%v", total(wrong))
	return w.clear(ctx)
}

func total(m map[int]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

// flip changes the backend of a route again and again while clients ask for it.
func (s *settings) flip(ctx context.Context, w *world, out io.Writer) error {
	progress("changing a route %d times under load", s.flips)
	if _, err := w.routes.Create(ctx, route("flip", "web"), metav1.CreateOptions{}); err != nil {
		return err
	}
	first := client()
	if err := w.Wait(ctx, "the route to answer", func(context.Context) error {
		status, err := w.get(first, "flip.example")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("status %d", status)
		}
		return err
	}); err != nil {
		return err
	}
	load, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var asked, wrong atomic.Int64
	for range 8 {
		wg.Go(func() {
			c := client()
			for load.Err() == nil {
				status, err := w.get(c, "flip.example")
				asked.Add(1)
				if err != nil || status != http.StatusOK {
					wrong.Add(1)
					progress("not 200: %d %v", status, err)
				}
			}
		})
	}
	pace := time.NewTicker(s.every)
	defer pace.Stop()
	var failed error
	for n := range s.flips {
		<-pace.C
		patch := fmt.Sprintf(`{"spec":{"rules":[{"backendRefs":[{"name":%q,"port":80}]}]}}`, []string{"web-2", "web"}[n%2])
		if _, failed = w.routes.Patch(ctx, "flip", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); failed != nil {
			break
		}
	}
	end()
	wg.Wait()
	row(out, fmt.Sprintf("a route flipped every %s, %d times: not 200", s.every, s.flips), "0", "%d of %d", wrong.Load(), asked.Load())
	return failed
}
