package edgetest_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
)

// TestHolePolicyReplacedUnderLoad: while policies are replaced, broken, mended and deleted one for another, no request without a
// credential gets an answer of the backend, and no request with one is refused while the policies are whole.
func TestHolePolicyReplacedUnderLoad(t *testing.T) {
	const clients = 50
	overEach(t, func(w *stage) {
		const key = "X-API-Key: " + keyOfShop
		w.apply("apiVersion: gatehouse.dev/v1alpha1\nkind: GatewayParameters\nmetadata: {name: params, namespace: d}\nspec: {requirePolicies: [AuthPolicy]}\n---\n" +
			secretOf("keys", "app", keyOfShop) + secretOf("others", "app", "other-key") + authn(keysAuth) +
			pol("AuthPolicy", "q", strings.Replace(toAPI, "name: api", "name: open", 1), "{authentication: {methods: ["+keysAuth+"]}}"))
		var open, refused, passed, lost atomic.Int64
		var stop atomic.Bool
		var wg sync.WaitGroup
		for i := range clients {
			q := call{target: "/"}
			if i%5 == 0 {
				q.fields = []string{key}
			}
			text := strings.ReplaceAll(w.text(q), "\n", "\r\n")
			c := w.dial(q) // on the test's goroutine: it may fail
			wg.Go(func() { hammer(c, text, len(q.fields) > 0, &stop, &open, &refused, &passed, &lost) })
		}
		snapshots := w.changes(t)
		stop.Store(true)
		wg.Wait()
		w.Logf("%d snapshots, %d requests with a key passed, %d refused", snapshots, passed.Load(), refused.Load())
		if n := open.Load(); n > 0 {
			w.Errorf("%d requests without a credential passed", n)
		}
		if !w.upgrade && (refused.Load() == 0 || passed.Load() == 0 || lost.Load() > 0) {
			w.Errorf("%d refused, %d passed, %d connections lost: the load was not what it should be", refused.Load(), passed.Load(), lost.Load())
		}
	})
}

// hammer sends one request after the other. One to change the protocol ends its connection when it passes.
func hammer(c *edgetest.Client, text string, known bool, stop *atomic.Bool, open, refused, passed, lost *atomic.Int64) {
	for !stop.Load() {
		_ = c.SetDeadline(time.Now().Add(edgetest.Wait))
		if _, err := c.Write([]byte(text)); err != nil {
			lost.Add(1)
			return
		}
		res, err := http.ReadResponse(c.R, nil)
		if err != nil {
			lost.Add(1)
			return
		}
		ok := res.StatusCode < 400 || res.Header.Get("Seen") != ""
		if res.StatusCode != http.StatusSwitchingProtocols {
			_ = res.Write(discard{})
		}
		_ = res.Body.Close()
		switch {
		case ok && !known:
			open.Add(1)
		case ok:
			passed.Add(1)
		default:
			refused.Add(1)
		}
		if res.StatusCode == http.StatusSwitchingProtocols {
			return
		}
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// changes brings one configuration after the other for a while, all of which ask for a credential or refuse everybody.
func (w *stage) changes(t *testing.T) (snapshots uint64) {
	before, _ := w.feed.Latest()
	named := ", filters: [{type: ExtensionRef, extensionRef: {group: gatehouse.dev, kind: AuthPolicy, name: named}}]"
	steps := []string{
		authn("{name: other, apiKey: {secretRefs: [{name: others}]}}"),
		authn(keysAuth + ", {name: other, apiKey: {from: [{header: X-Other}], secretRefs: [{name: others}]}}"),
		authn("{name: keys, apiKey: {secretRefs: [{name: nowhere}]}}"),
		authn("{name: keys, apiKey: {nothing: true}}"),
		pol("AuthPolicy", "p", toAPI, "{authentication: {mode: Shadow, methods: ["+keysAuth+"]}}"),   // requirePolicies refuses everybody
		pol("AuthPolicy", "p", toAPI, "{authentication: {mode: Disabled, methods: ["+keysAuth+"]}}"), // so it does here
		pol("AuthPolicy", "named", "", "{authentication: {methods: ["+keysAuth+"]}}") + routeTo("api", "/", named),
		authn(keysAuth),
		routeTo("api", "/", ""),
		limits("per-client: {key: [client.address], rates: [{limit: 1000000, period: 1s}]}"),
		pol("AuthPolicy", "outer", toGateway, "{authentication: {methods: ["+keysAuth+"]}}"),
		authn(keysAuth),
	}
	end := time.Now().Add(700 * time.Millisecond)
	for i := 0; time.Now().Before(end) || i < 2*len(steps); i++ {
		w.publish(steps[i%len(steps)])
		if i%3 == 0 {
			w.await()
		}
		switch i % len(steps) {
		case 3:
			w.remove("AuthPolicy", "p")
		case 6:
			w.remove("AuthPolicy", "named")
		case 10:
			w.remove("AuthPolicy", "p") // the Gateway's is left
		case 11:
			w.remove("AuthPolicy", "outer")
			w.remove("RateLimitPolicy", "l")
		}
		if t.Failed() {
			break
		}
	}
	w.publish(authn(keysAuth) + routeTo("api", "/", ""))
	w.await()
	after, _ := w.feed.Latest()
	w.passed(w.ask("/", fmt.Sprint("X-API-Key: ", keyOfShop)))
	return after.ConfigVersion - before.ConfigVersion
}
