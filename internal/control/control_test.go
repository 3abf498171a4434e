package control_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/gatehouse-io/gatehouse/internal/control"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/feed"
	"github.com/gatehouse-io/gatehouse/internal/manifest"
	"github.com/gatehouse-io/gatehouse/internal/objects"
	"github.com/gatehouse-io/gatehouse/internal/policy/builtin"
	"github.com/gatehouse-io/gatehouse/internal/translate"
)

const shop = `apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: gatehouse}
spec: {controllerName: gatehouse.dev/gateway}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g, namespace: shop}
spec: {gatewayClassName: gatehouse, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80}]}
---
` + route + "---\n" + slice

const route = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec:
  parentRefs: [{name: g}]
  rules: [{backendRefs: [{name: BACKEND, port: 80}]}]
`

const slice = `apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 9000}]
endpoints: [{addresses: [192.0.2.1]}]
`

// buffer is a log that several goroutines write.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) count(s string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.b.String(), s)
}

type world struct {
	loop *control.Loop
	feed *feed.Memory
	log  *buffer
}

func newWorld() *world {
	w := &world{feed: &feed.Memory{}, log: &buffer{}}
	w.loop = control.New(translate.New(translate.Options{GatewayController: "gatehouse.dev/gateway", IngressController: "gatehouse.dev/ingress",
		HTTPPort: 8080, HTTPSPort: 8443, Steps: builtin.Steps()}), w.feed, slog.New(slog.NewTextHandler(w.log, nil)))
	return w
}

func parse(t *testing.T, y, backend string) objects.Change {
	t.Helper()
	os, faults := manifest.Parse("shop.yaml", []byte(strings.ReplaceAll(y, "BACKEND", backend)))
	if len(faults) > 0 {
		t.Fatal(faults[0])
	}
	return objects.Change{Upserts: os}
}

func (w *world) versions() string {
	s, _ := w.feed.Latest()
	return fmt.Sprintf("config %d endpoints %d secrets %d", s.ConfigVersion, s.EndpointsVersion, s.SecretsVersion)
}

// TestPartsMoveAlone: the first change publishes all parts; a later one only those that it changes.
func TestPartsMoveAlone(t *testing.T) {
	w := newWorld()
	if w.loop.View() != nil || w.loop.Faults() != nil {
		t.Error("there is a view before the first change")
	}
	w.loop.Apply(objects.Change{}, nil)
	for _, x := range []struct{ name, yaml, backend, want string }{
		{"the shop", shop, "web", "config 2 endpoints 2 secrets 1"},
		{"the same again", shop, "web", "config 2 endpoints 2 secrets 1"},
		{"a rollout", strings.ReplaceAll(slice, "192.0.2.1", "192.0.2.2"), "", "config 2 endpoints 3 secrets 1"},
		{"a route", strings.ReplaceAll(route, "rules: [{", "rules: [{matches: [{path: {value: /a}}], "), "web", "config 3 endpoints 3 secrets 1"},
	} {
		before, _ := w.feed.Latest()
		w.loop.Apply(parse(t, x.yaml, x.backend), nil)
		if got := w.versions(); got != x.want {
			t.Errorf("%s: %s, want %s", x.name, got, x.want)
		}
		if after, _ := w.feed.Latest(); after.ConfigVersion == before.ConfigVersion && after.Config != before.Config {
			t.Errorf("%s: another configuration under the same version", x.name)
		}
	}
}

// TestCoalesced: a reader that was away sees the last of many changes, in one step.
func TestCoalesced(t *testing.T) {
	w := newWorld()
	w.loop.Apply(parse(t, shop, "web"), nil)
	_, changed := w.feed.Latest()
	for i := range 50 {
		w.loop.Apply(parse(t, strings.ReplaceAll(slice, "192.0.2.1", fmt.Sprintf("192.0.2.%d", i+2)), ""), nil)
	}
	<-changed
	st, changed := w.feed.Latest()
	for _, es := range st.Endpoints {
		if len(es) != 1 || es[0].Host != "192.0.2.51" {
			t.Errorf("endpoints = %v, want the last", es)
		}
	}
	if len(st.Endpoints) != 1 {
		t.Errorf("%d clusters, want 1", len(st.Endpoints))
	}
	select {
	case <-changed:
		t.Error("told of a change that Latest had returned")
	default:
	}
}

func TestFaultsAreToldOnceAndGo(t *testing.T) {
	w := newWorld()
	unread := diag.Fault{Object: diag.Ref{Kind: "File", Name: "broken.yaml"}, Message: "a tab where spaces belong"}
	for range 3 {
		w.loop.Apply(parse(t, shop, "wbe"), []diag.Fault{unread})
	}
	w.loop.Apply(parse(t, strings.ReplaceAll(slice, "192.0.2.1", "192.0.2.2"), ""), []diag.Fault{unread})
	var about string
	for _, f := range w.loop.Faults() {
		if f.Object.Kind == "HTTPRoute" {
			about = f.Message
		}
	}
	if !strings.Contains(about, "wbe") {
		t.Fatalf("Faults() = %v, want one of the HTTPRoute about wbe", w.loop.Faults())
	}
	for _, s := range []string{about, unread.Message} {
		if n := w.log.count(s); n != 1 {
			t.Errorf("%q was logged %d times, want once", s, n)
		}
	}
	view := w.loop.View()
	if len(view.Input) != 1 || len(view.Report.Faults()) == 0 {
		t.Errorf("view has %d input faults and %d of the report", len(view.Input), len(view.Report.Faults()))
	}
	w.loop.Apply(parse(t, shop, "web"), nil)
	if got := w.loop.Faults(); len(got) != 0 {
		t.Errorf("all is put right; Faults() = %v", got)
	}
	if len(view.Input) != 1 || len(view.Report.Faults()) == 0 {
		t.Error("a view that was handed out changed")
	}
	w.loop.Apply(parse(t, shop, "wbe"), []diag.Fault{unread}) // mended and broken again: told again
	for _, s := range []string{about, unread.Message} {
		if n := w.log.count(s); n != 2 {
			t.Errorf("%q came back and was logged %d times in all, want twice", s, n)
		}
	}
}

// TestDataSideFaults: what only the data side finds is among the faults while it lasts, and is logged once.
func TestDataSideFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.loop.Apply(parse(t, shop, "web"), nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { w.loop.Run(ctx); close(done) }()
		f := diag.Fault{Object: diag.Ref{Kind: "ProtectionPolicy", Namespace: "shop", Name: "p"}, Message: "cannot be compiled"}
		for i := range uint64(3) {
			w.feed.Acknowledge(feed.Ack{ConfigVersion: i + 1, Faults: []diag.Fault{f},
				Listeners: map[string]feed.ListenerState{"Gateway/shop/g/http": {Problem: "port 80 is in use"}}})
			synctest.Wait()
		}
		for _, s := range []string{"cannot be compiled", "port 80 is in use"} {
			if n := w.log.count(s); n != 1 {
				t.Errorf("%q was logged %d times, want once", s, n)
			}
		}
		if got := w.loop.Faults(); len(got) != 1 || got[0] != f {
			t.Errorf("Faults() = %v, want %v", got, f)
		}
		w.feed.Acknowledge(feed.Ack{ConfigVersion: 4})
		if got := w.loop.Faults(); len(got) != 0 {
			t.Errorf("the fault is gone; Faults() = %v", got)
		}
		cancel()
		<-done
	})
}
