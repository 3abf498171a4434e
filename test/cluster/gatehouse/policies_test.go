package gatehouse_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// policies: who may call, and how often.
func policies(s *site, t *testing.T) {
	for _, x := range []struct {
		name string
		run  func(*scene)
	}{
		{"callers", callers},
		{"required", requiredPolicies},
	} {
		t.Run(x.name, func(t *testing.T) { x.run(s.scene(t)) })
	}
}

const guardedGateway = `
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: $NS}
spec: {controllerName: gatehouse.dev/gateway}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: $NS
  infrastructure: {parametersRef: {group: gatehouse.dev, kind: GatewayParameters, name: rules}}
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: gatehouse.dev/v1alpha1
kind: GatewayParameters
metadata: {name: rules}
spec: {requirePolicies: [$REQUIRED]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: gw}]
  hostnames: [web.example]
  rules:
  - backendRefs: [{name: web, port: 80}]
`

const callersPolicy = `
apiVersion: gatehouse.dev/v1alpha1
kind: AuthPolicy
metadata: {name: callers}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: web}]
  defaults:
    authentication: {methods: [{name: keys, apiKey: {secretRefs: [{name: keys}]}}]}
    authorization: {rules: {mobile: {when: 'request.path.startsWith("/mobile")', require: {cel: 'identity.application == "$NS/mobile"'}}}}
`

const keysSecret = `
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {mobile: $MOBILE, desk: desk-0123456789}
`

// accepted waits until what the status of a policy says about its one target is so.
func (s *scene) accepted(kind, name, status, message string) {
	s.Helper()
	s.concluded(kind, name, "Accepted", status, message)
}

// programmed waits until the status of a policy says at its one target what becomes of it.
func (s *scene) programmed(kind, name, status, message string) {
	s.Helper()
	s.concluded(kind, name, "Programmed", status, message)
}

func (s *scene) concluded(kind, name, condition, status, message string) {
	s.Helper()
	s.eventually(kind+" "+name, func(ctx context.Context) error {
		o, err := s.of(kind).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		list, _ := at(o, "status", "ancestors").([]any)
		if len(list) != 1 {
			return fmt.Errorf("there are %d ancestors", len(list))
		}
		return hasCondition(list[0].(map[string]any)["conditions"], condition, status, message)
	})
}

// with is the request with an API key.
func (r request) with(key string) request {
	r.header = http.Header{"X-Api-Key": {key}}
	return r
}

// told waits for an Event about an object, which says so.
func (s *scene) told(kind, name, reason, words string) {
	s.Helper()
	s.eventually("an Event about "+kind+" "+name, func(ctx context.Context) error {
		l, err := s.Client().CoreV1().Events(s.namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.kind=" + kind + ",involvedObject.name=" + name})
		if err != nil {
			return err
		}
		for _, e := range l.Items {
			if e.Reason == reason && strings.Contains(e.Message, words) {
				return nil
			}
		}
		return fmt.Errorf("%d other Events", len(l.Items))
	})
}

// callers: keys open a route, a limit closes it for a while, and whatever is wrong with the policy closes it too. Only without a policy is it
// open, and an Event says so.
func callers(s *scene) {
	s.backends("web")
	s.apply(strings.ReplaceAll(guardedGateway, "$REQUIRED", ""))
	r := request{address: s.address("Gateway", "gw"), host: "web.example"}
	s.serves(r, "web")

	s.apply(strings.ReplaceAll(keysSecret, "$MOBILE", "mobile-0123456789"), callersPolicy)
	s.accepted("AuthPolicy", "callers", "True/Accepted", "")
	s.refuses(r, http.StatusUnauthorized)
	s.refuses(r.with("nonsense"), http.StatusUnauthorized)
	s.serves(r.with("desk-0123456789"), "web")
	mobile := r
	mobile.path = "/mobile/home"
	s.refuses(mobile.with("desk-0123456789"), http.StatusForbidden)
	s.serves(mobile.with("mobile-0123456789"), "web")
	a, err := r.with("desk-0123456789").do(s.Context())
	if s.must(err); a.seen.Headers.Get("X-Api-Key") != "" {
		s.Errorf("the backend sees the key")
	}

	s.apply(strings.ReplaceAll(keysSecret, "$MOBILE", "other-0123456789")) // another key, no other object
	s.refuses(mobile.with("mobile-0123456789"), http.StatusUnauthorized)
	s.serves(mobile.with("other-0123456789"), "web")

	s.apply(`
apiVersion: gatehouse.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: often}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw}]
  defaults: {limits: {each: {key: [identity.application], rates: [{limit: 3, period: 1h}]}}}
`)
	s.accepted("RateLimitPolicy", "often", "True/Accepted", "")
	s.eventually("desk to be limited", func(ctx context.Context) error {
		return r.with("desk-0123456789").answers(ctx, http.StatusTooManyRequests, "")
	})
	s.serves(r.with("other-0123456789"), "web") // a caller of its own
	a, err = r.with("desk-0123456789").do(s.Context())
	if s.must(err); a.header.Get("Retry-After") == "" || a.header.Get("Ratelimit") == "" {
		s.Errorf("429 with %v, want Retry-After and RateLimit", a.header)
	}
	s.remove("RateLimitPolicy", "often")
	s.serves(r.with("desk-0123456789"), "web")
	s.told("Gateway", "gw", "PolicyRemoved", "RateLimitPolicy "+s.namespace+"/often is deleted: what it refused here may pass, on HTTPRoute "+s.namespace+"/web")

	s.remove("Secret", "keys")
	s.accepted("AuthPolicy", "callers", "False/Invalid", "spec.defaults.authentication.methods[0].apiKey.secretRefs[0]: there is no Secret "+s.namespace+"/keys")
	s.refuses(r.with("desk-0123456789"), http.StatusServiceUnavailable)
	s.apply(strings.ReplaceAll(keysSecret, "$MOBILE", "mobile-0123456789"))
	s.accepted("AuthPolicy", "callers", "True/Accepted", "")
	s.serves(r.with("desk-0123456789"), "web")

	s.patch("AuthPolicy", "callers", `{"spec": {"defaults": {"authorization": {"rules": {"mobile": {"when": "request.path =="}}}}}}`) // the CRD cannot read CEL
	s.accepted("AuthPolicy", "callers", "False/Invalid", "spec.defaults.authorization.rules.mobile.when")
	s.refuses(r.with("desk-0123456789"), http.StatusServiceUnavailable)
	s.apply(callersPolicy)
	s.serves(r.with("desk-0123456789"), "web")

	s.programmed("AuthPolicy", "callers", "True/Programmed", "")
	s.apply(strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(callersPolicy, "name: callers", "name: must"), "HTTPRoute, name: web", "Gateway, name: gw"), "defaults:", "overrides:"))
	s.programmed("AuthPolicy", "callers", "True/PartiallyProgrammed", "AuthPolicy "+s.namespace+"/must") // authorization adds up
	s.remove("AuthPolicy", "must")
	s.programmed("AuthPolicy", "callers", "True/Programmed", "")

	s.remove("AuthPolicy", "callers")
	s.serves(r, "web")
	s.told("HTTPRoute", "web", "PolicyRemoved", "AuthPolicy "+s.namespace+"/callers is deleted")
}

// requiredPolicies: where an AuthPolicy is demanded, a route is closed until one reaches it, and never open in between.
func requiredPolicies(s *scene) {
	s.backends("web")
	s.apply(strings.ReplaceAll(guardedGateway, "$REQUIRED", "AuthPolicy"))
	r := request{address: s.address("Gateway", "gw"), host: "web.example"}
	s.refuses(r, http.StatusServiceUnavailable)
	a, err := r.do(s.Context())
	if s.must(err); !strings.Contains(a.body, "policy_missing") {
		s.Errorf("503 says %s, want policy_missing", a.body)
	}
	closed := func(ctx context.Context) error {
		a, err := r.do(ctx)
		if err == nil && a.seen.Service != "" {
			err = errors.New("a request without a key was served")
		}
		return err
	}
	s.apply(strings.ReplaceAll(keysSecret, "$MOBILE", "mobile-0123456789"), callersPolicy)
	s.during(2*time.Second, closed)
	s.serves(r.with("desk-0123456789"), "web")
	s.patch("AuthPolicy", "callers", `{"spec": {"defaults": {"authentication": {"mode": "Shadow"}, "authorization": null}}}`)
	s.during(2*time.Second, closed)
	s.refuses(r.with("desk-0123456789"), http.StatusServiceUnavailable)
	// What the patch wrote would stay: another field manager owns it.
	s.patch("AuthPolicy", "callers", `{"spec": {"defaults": {"authentication": {"mode": "Enforce"}}}}`)
	s.apply(callersPolicy)
	s.serves(r.with("desk-0123456789"), "web")
	s.remove("AuthPolicy", "callers")
	s.during(2*time.Second, closed)
	s.refuses(r.with("desk-0123456789"), http.StatusServiceUnavailable)
}
