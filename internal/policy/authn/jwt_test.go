package authn_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn"
)

// TestJWT is the method within the step, from what users write to what clients and backends see.
func TestJWT(t *testing.T) {
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	b64 := base64.RawURLEncoding.EncodeToString
	sign := func(claims string) string {
		text := b64([]byte(`{"alg":"EdDSA"}`)) + "." + b64([]byte(claims))
		return text + "." + b64(ed25519.Sign(key, []byte(text)))
	}
	inline, _ := json.Marshal(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"` + b64(key.Public().(ed25519.PublicKey)) + `"}]}`)
	compile := func(jwks string) policy.Handler {
		step := authn.Step()
		spec, err := step.Decode([]byte(`{"methods":[{"name":"idp","jwt":{"issuers":[{"issuer":"https://idp.example"` + jwks + `}],
			"claimsToHeaders":[{"claim":"sub","header":"X-User"}],"strip":true,"dpop":{}}}]}`))
		if err != nil {
			t.Fatal(err)
		}
		h, err := spec.Compile(policy.Env{})
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	h, remote := compile(`,"jwks":{"inline":`+string(inline)+`}`), compile("")
	const challenge = `Bearer realm="idp", DPoP algs="RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA"`
	for _, c := range []struct {
		name, claims     string
		handler          policy.Handler
		status           int
		reason, tellsThe string
	}{
		{"good", `{"iss":"https://idp.example","sub":"ann","exp":1700000001}`, h, 0, "", ""},
		{"expired", `{"iss":"https://idp.example","sub":"ann","exp":1700000000}`, h, 401, "token_expired", challenge + `, error="invalid_token"`},
		{"no token", "", h, 401, "credentials_missing", challenge},
		{"no keys", `{"iss":"https://idp.example","exp":1700000001}`, remote, 503, "jwks_unavailable", "1"},
	} {
		x := &exchange.Exchange{Start: time.Unix(1_700_000_000, 0)}
		if c.claims != "" {
			x.Request.Header.Append([]byte("Authorization"), []byte("Bearer "+sign(c.claims)))
		}
		v := c.handler.Request(x)
		if v.Status != c.status || v.Reason != c.reason {
			t.Errorf("%s: %d %s (%s), want %d %s", c.name, v.Status, v.Reason, v.Detail, c.status, c.reason)
		}
		got := ""
		for _, f := range v.Header {
			got += string(f.Value)
		}
		if got != c.tellsThe {
			t.Errorf("%s: the client is told %s, want %s", c.name, got, c.tellsThe)
		}
		if c.status == 0 && (x.Identity.Subject != "ann" || x.Identity.Method != "idp" || string(x.Request.Header.Get("X-User")) != "ann" || x.Request.Header.Len() != 1) {
			t.Errorf("%s: identity %+v, the backend gets %q", c.name, x.Identity, x.Request.Header.All())
		}
	}
}
