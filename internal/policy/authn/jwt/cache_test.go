package jwt

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/token"
)

func specOf(set string) *v1alpha1.JWTAuth {
	return &v1alpha1.JWTAuth{Issuers: []v1alpha1.JWTIssuer{{Issuer: idp, Audiences: []string{"shop"}, JWKS: &v1alpha1.JWKS{Inline: set}}},
		ClaimsToHeaders: []v1alpha1.ClaimToHeader{{Claim: "sub", Header: "X-User"}}}
}

// What is remembered is believed for no rules but those it was verified by, and never beyond exp.
func TestRememberedTokens(t *testing.T) {
	k := newKey(t)
	env := policy.Env{Live: newLive(t)}
	set := setOf(t, "k", k)
	h := compiled(t, specOf(set), env)
	x := bearer(sign(t, k, nil, claims("exp", start.Unix()+20)))
	if o := run(t, h, x); o.State != method.Accepted {
		t.Fatal(o.Reason)
	}
	cache := token.OpenCache(env)
	if n := cache.Len(); n != 1 {
		t.Fatalf("%d tokens are remembered, want 1", n)
	}
	strict := specOf(set)
	strict.Issuers[0].Audiences = []string{"cart"}
	if o := run(t, compiled(t, strict, env), x); o.Reason != token.BadAudience {
		t.Errorf("rules with another audience: %q, want %s", o.Reason, token.BadAudience)
	}
	if o := run(t, compiled(t, specOf(setOf(t, "k", newKey(t))), env), x); o.Reason != token.BadSignature {
		t.Errorf("rules with other keys: %q, want %s", o.Reason, token.BadSignature)
	}
	x.Start = start.Add(20 * time.Second)
	if o := run(t, h, x); o.Reason != token.Expired {
		t.Errorf("at exp: %q, want %s", o.Reason, token.Expired)
	}
	x.Start, x.Dry = start, true
	x.Request.Header.Set([]byte("Authorization"), []byte("Bearer "+sign(t, k, nil, claims())))
	if run(t, h, x); cache.Len() != 1 {
		t.Error("a token that was only explained is remembered")
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := token.NewCache()
	rules := token.HashOf([]byte("rules"))
	v := &token.Verified{Keys: &token.Keys{}}
	current := func(int) *token.Keys { return v.Keys }
	for i := range 50_000 {
		s := token.SumOf(rules, fmt.Append(nil, i))
		c.Add(&s, v, 100, start.Add(time.Minute))
		if c.Find(&s, start, current) != v {
			t.Fatalf("token %d is forgotten at once", i)
		}
	}
	if n := c.Len(); n > 10_000 || n < 4_000 {
		t.Errorf("%d tokens are remembered, want at most 10,000 and no less than half", n)
	}
	for i := range 5_000 {
		s := token.SumOf(rules, fmt.Append(nil, "long", i))
		c.Add(&s, v, token.MaxToken, start.Add(time.Minute))
	}
	if n := c.Len(); n > 10<<20/token.MaxToken+16 {
		t.Errorf("%d tokens of 16 KiB are remembered, want at most 10 MiB of them", n)
	}
	others, _, err := token.ParseKeys([]byte(`{"keys":[]}`), false)
	if err != nil {
		t.Fatal(err)
	}
	s := token.SumOf(rules, []byte("x"))
	c.Add(&s, v, 100, start.Add(time.Minute))
	for _, f := range []struct {
		at   time.Duration
		keys *token.Keys
		want bool
	}{{0, v.Keys, true}, {time.Minute - 1, v.Keys, true}, {time.Minute, v.Keys, false}, {0, nil, false}, {0, others, false}, {0, &token.Keys{}, true}} {
		if got := c.Find(&s, start.Add(f.at), func(int) *token.Keys { return f.keys }) != nil; got != f.want {
			t.Errorf("after %s with keys %v: %v, want %v", f.at, f.keys, got, f.want)
		}
	}
}

func TestRememberedTokenAllocates(t *testing.T) {
	k := newKey(t)
	h := compiled(t, specOf(setOf(t, "k", k)), policy.Env{})
	x := bearer(sign(t, k, nil, claims()))
	run(t, h, x)
	if n := testing.AllocsPerRun(100, func() { h.Authenticate(x) }); n != 0 {
		t.Errorf("%v allocations for a remembered token, want 0", n)
	}
}

func benchmark(b *testing.B, key any, remembered bool) {
	spec := specOf(setOf(b, "k", key))
	text := sign(b, key, map[string]any{"kid": "k"}, claims("roles", []string{"admin", "user"}, "email", "ann@shop.example", "name", "Ann Example"))
	h := compiled(b, spec, policy.Env{})
	x := bearer(text)
	if o := h.Authenticate(x); o.State != method.Accepted {
		b.Fatal(o.Reason, o.Detail)
	}
	if !remembered {
		h = compiled(b, spec, policy.Env{})
		x.Dry = true // is not remembered
	}
	b.ReportAllocs()
	for b.Loop() {
		if o := h.Authenticate(x); o.State != method.Accepted {
			b.Fatal(o.Reason)
		}
	}
	b.ReportMetric(float64(len(text)), "token-bytes")
}

func BenchmarkRemembered(b *testing.B) { benchmark(b, newKey(b), true) }
func BenchmarkES256(b *testing.B)      { benchmark(b, newKey(b), false) }
func BenchmarkRS256(b *testing.B) {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	benchmark(b, k, false)
}

func BenchmarkRefusedSignature(b *testing.B) {
	h := compiled(b, specOf(setOf(b, "", newKey(b))), policy.Env{})
	x := bearer(sign(b, newKey(b), nil, claims()))
	b.ReportAllocs()
	for b.Loop() {
		if o := h.Authenticate(x); o.Reason != token.BadSignature {
			b.Fatal(o.Reason)
		}
	}
}
