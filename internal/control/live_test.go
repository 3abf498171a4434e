package control_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/feed"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// live is what is told now, as people read it.
func (w *world) live() string {
	synctest.Wait()
	r, _ := w.loop.Live()
	return diag.StatusText(r)
}

// ack acknowledges all that is published.
func (w *world) ack(listeners map[string]feed.ListenerState, faults ...diag.Fault) {
	s, _ := w.feed.Latest()
	w.feed.Acknowledge(feed.Ack{ConfigVersion: s.ConfigVersion, EndpointsVersion: s.EndpointsVersion, SecretsVersion: s.SecretsVersion,
		Listeners: listeners, Faults: faults})
}

// TestPolicyThatTheDataSideRefuses: nothing is said to be programmed of a policy that the data side cannot compile.
func TestPolicyThatTheDataSideRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go w.loop.Run(ctx)
		w.loop.Apply(parse(t, shop+`---
apiVersion: gatehouse.dev/v1alpha1
kind: ProtectionPolicy
metadata: {name: p, namespace: shop}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}]
  defaults: {sizes: {requestBody: 1Mi}}
`, "web"), nil)
		w.ack(nil)
		if got := w.live(); !strings.Contains(got, "ProtectionPolicy shop/p at HTTPRoute shop/r: Accepted, Programmed\n") {
			t.Errorf("live:\n%s", got)
		}
		w.ack(nil, diag.Fault{Object: diag.Ref{Group: "gatehouse.dev", Kind: "ProtectionPolicy", Namespace: "shop", Name: "p"}, Message: "cannot be compiled"})
		if got := w.live(); !strings.Contains(got, "ProtectionPolicy shop/p at HTTPRoute shop/r: Accepted=False Invalid: cannot be compiled\n") || strings.Count(got, "ProtectionPolicy") != 1 {
			t.Errorf("live:\n%s", got)
		}
	})
}

// TestWarningOfTheDataSideIsInTheCondition: a certificate that does not fit leaves its listener programmed, and its condition tells.
// The data side knows objects without their groups.
func TestWarningOfTheDataSideIsInTheCondition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go w.loop.Run(ctx)
		w.loop.Apply(parse(t, shop, "web"), nil)
		states := map[string]feed.ListenerState{"Gateway/shop/g/http": {Bound: ":80"}}
		gateway := diag.Ref{Kind: "Gateway", Namespace: "shop", Name: "g"}
		w.ack(states, diag.Fault{Object: gateway, Severity: diag.Warning, Path: "spec.listeners[0].tls.certificateRefs[0]", Message: "the certificate does not name a.test"},
			diag.Fault{Object: diag.Ref{Kind: "HTTPRoute", Namespace: "shop", Name: "r"}, Severity: diag.Warning, Message: "odd"})
		w.live()
		r, _ := w.loop.Live()
		gateway.Group = "gateway.networking.k8s.io"
		got := diag.Find(r.Object(gateway).Listeners[0].Conditions, "Programmed")
		if want := "spec.listeners[0].tls.certificateRefs[0]: the certificate does not name a.test"; !got.Status || got.Reason != "Programmed" || got.Message != want {
			t.Errorf("condition = %+v, want Programmed=True with %q", got, want)
		}
		if got := w.live(); !strings.Contains(got, "HTTPRoute shop/r at Gateway shop/g: Accepted") {
			t.Errorf("a warning made a route not accepted:\n%s", got)
		}
		w.ack(states)
		w.live()
		r, _ = w.loop.Live()
		if got := diag.Find(r.Object(gateway).Listeners[0].Conditions, "Programmed"); got.Message != "" {
			t.Errorf("the warning outlived its cause: %+v", got)
		}
	})
}

// TestVerdictsWaitForTheDataSide: a verdict is told when what it is about is live, with what the data side says of it.
func TestVerdictsWaitForTheDataSide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go w.loop.Run(ctx)
		w.loop.Apply(parse(t, shop, "web"), nil)
		if got := w.live(); got != "" {
			t.Errorf("told before the data side had it:\n%s", got)
		}
		const key = "Gateway/shop/g/http"
		w.ack(map[string]feed.ListenerState{key: {Bound: ":80"}})
		if got := w.live(); !strings.Contains(got, "Gateway shop/g: Accepted, Programmed\nGateway shop/g listener http: Accepted, ResolvedRefs, Programmed, 1 route\n") {
			t.Errorf("live:\n%s", got)
		}
		w.ack(map[string]feed.ListenerState{key: {Problem: ":80 is taken by Gateway shop/f, which is older"}})
		got := w.live()
		for _, want := range []string{"Gateway shop/g: Programmed=False AddressNotUsable: listener http: :80 is taken by Gateway shop/f, which is older",
			"Gateway shop/g listener http: Programmed=False PortUnavailable: :80 is taken by Gateway shop/f, which is older"} {
			if !strings.Contains(got, want) {
				t.Errorf("live has no %q:\n%s", want, got)
			}
		}
		r1, _ := w.loop.Live()
		w.ack(map[string]feed.ListenerState{key: {Problem: ":80 is taken by Gateway shop/f, which is older"}})
		synctest.Wait()
		if r2, _ := w.loop.Live(); r1 != r2 {
			t.Error("an acknowledgement that says the same made a new report")
		}
		w.ack(map[string]feed.ListenerState{key: {Bound: ":80"}}, diag.Fault{Object: diag.Ref{Group: "gateway.networking.k8s.io", Kind: "HTTPRoute", Namespace: "shop", Name: "r"},
			Message: "cannot be compiled", Hint: "write less"})
		got = w.live()
		for _, want := range []string{"Gateway shop/g: Accepted, Programmed", "HTTPRoute shop/r at Gateway shop/g: Accepted=False Invalid: cannot be compiled (write less)\n"} {
			if !strings.Contains(got, want) {
				t.Errorf("live has no %q:\n%s", want, got)
			}
		}
		w.ack(map[string]feed.ListenerState{key: {Bound: ":80"}})
		if got := w.live(); !strings.Contains(got, "HTTPRoute shop/r at Gateway shop/g: Accepted, ResolvedRefs") {
			t.Errorf("a mended fault is still told:\n%s", got)
		}
		w.ack(map[string]feed.ListenerState{key: {Bound: ":10080", Note: "bound 10080"}})
		synctest.Wait()
		r, _ := w.loop.Live()
		l := r.Object(diag.Ref{Group: "gateway.networking.k8s.io", Kind: "Gateway", Namespace: "shop", Name: "g"}).Listeners[0]
		if c := diag.Find(l.Conditions, "Programmed"); !c.Status || c.Message != "bound 10080" {
			t.Errorf("a listener that is bound elsewhere is told as %+v", c)
		}
		w.ack(map[string]feed.ListenerState{key: {Bound: ":80"}})
		synctest.Wait()
		before, _ := w.loop.Live()
		w.loop.Apply(objects.Change{Deletes: []objects.Key{{Kind: "HTTPRoute", Namespace: "shop", Name: "r"}}}, nil)
		if after, _ := w.loop.Live(); after != before {
			t.Error("told before the data side had it")
		}
		w.ack(map[string]feed.ListenerState{key: {Bound: ":80"}})
		if got := w.live(); strings.Contains(got, "HTTPRoute") || !strings.Contains(got, "Programmed, 0 routes") {
			t.Errorf("live:\n%s", got)
		}
	})
}

// TestNothingIsPublishedOnPendingSecrets: the first configuration waits for the bodies it needs; a later one is published, but its
// verdicts are told when the bodies are there.
func TestNothingIsPublishedOnPendingSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var asked []objects.Key
		w.loop.Fetch(func(ks []objects.Key) { asked = ks })
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go w.loop.Run(ctx)
		tls := strings.Replace(shop, "{name: http, port: 80, protocol: HTTP}", "{name: s, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: c}]}}", 1)
		c := parse(t, tls, "web")
		pending := &objects.Secret{Pending: true}
		pending.Namespace, pending.Name = "shop", "c"
		c.Upserts = append(c.Upserts, pending)
		w.loop.Apply(c, nil)
		if s, _ := w.feed.Latest(); s.ConfigVersion != 0 || len(asked) != 1 || asked[0].Name != "c" {
			t.Fatalf("version %d is published, asked for %v", s.ConfigVersion, asked)
		}
		body := &objects.Secret{Problem: "may not be read"}
		body.Namespace, body.Name = "shop", "c"
		w.loop.Apply(objects.Change{Upserts: []objects.Object{body}}, nil)
		if s, _ := w.feed.Latest(); s.ConfigVersion != 1 || len(asked) != 0 {
			t.Fatalf("version %d is published, asked for %v", s.ConfigVersion, asked)
		}
		w.ack(map[string]feed.ListenerState{"Gateway/shop/g/s": {Bound: ":443"}})
		if got := w.live(); !strings.Contains(got, "Secret shop/c may not be read") {
			t.Errorf("live:\n%s", got)
		}
		w.loop.Apply(objects.Change{Upserts: []objects.Object{pending}}, nil)
		w.ack(map[string]feed.ListenerState{"Gateway/shop/g/s": {Bound: ":443"}})
		if got := w.live(); !strings.Contains(got, "Secret shop/c may not be read") {
			t.Errorf("a verdict was made on a Secret that is not read:\n%s", got)
		}
	})
}
