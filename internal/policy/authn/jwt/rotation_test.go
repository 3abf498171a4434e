package jwt

import (
	"context"
	"crypto/ecdsa"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/token"
)

// served is a Caller that answers with a set of keys.
type served struct{ set atomic.Pointer[string] }

func (s *served) Call(context.Context, *policy.Call) (*policy.Reply, error) {
	return &policy.Reply{Status: 200, Header: map[string][]string{"Cache-Control": {"max-age=60"}}, Body: []byte(*s.set.Load())}, nil
}

// A key that its issuer took back stops working with the next fetch, also for tokens that are remembered; the same set again changes nothing.
func TestRememberedTokensFollowTheKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newKey(t), newKey(t)
		s := &served{}
		serve := func(kid string, k *ecdsa.PrivateKey) {
			set := setOf(t, kid, k)
			s.set.Store(&set)
		}
		serve("a", a)
		env := policy.Env{Live: newLive(t), Call: s}
		spec := &v1alpha1.JWTAuth{Issuers: []v1alpha1.JWTIssuer{{Issuer: idp, Expiry: "Optional", JWKS: &v1alpha1.JWKS{URL: idp + "/keys"}}}}
		h := compiled(t, spec, env)
		synctest.Wait()
		old, young := sign(t, a, map[string]any{"kid": "a"}, claims("exp", nil)), sign(t, b, map[string]any{"kid": "b"}, claims("exp", nil))
		send := func(text string) string {
			x := bearer(text)
			x.Start = time.Now()
			o := run(t, h, x)
			if d := time.Since(x.Start); d > 50*time.Millisecond {
				t.Errorf("a request was held for %s, want at most 50ms", d)
			}
			if o.State != method.Accepted && o.Reason == "" {
				t.Fatalf("state %d without a reason", o.State)
			}
			return o.Reason
		}
		for range 10 {
			if got := send(old); got != "" {
				t.Fatalf("%q, want it accepted", got)
			}
			time.Sleep(30 * time.Second)
		}
		serve("b", b)
		taken := time.Now()
		for send(old) == "" {
			time.Sleep(time.Second)
		}
		if d := time.Since(taken); d > time.Minute+time.Second { // it looks once a second
			t.Errorf("a key that was taken back worked for %s, with max-age=60", d)
		}
		if got := send(old); got != token.KeyUnknown {
			t.Errorf("the old key: %q, want %s", got, token.KeyUnknown)
		}
		if got := send(young); got != "" {
			t.Errorf("the new key: %q, want it accepted", got)
		}
		h = compiled(t, spec, env) // another snapshot has the same keys and memory
		if got := send(young); got != "" {
			t.Errorf("the new key in another snapshot: %q, want it accepted", got)
		}
		// A request that waits for a new key is judged with it.
		serve("a", a)
		time.Sleep(31 * time.Second)
		if got := send(old); got != "" {
			t.Errorf("a key that is new again: %q, want it fetched and accepted", got)
		}
	})
}
