package dpop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
	"github.com/go-jose/go-jose/v4"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// holder has a key.
type holder struct {
	key any
	alg string
}

func newHolder(t testing.TB) *holder {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &holder{k, "ES256"}
}

func (h *holder) public() jose.JSONWebKey {
	return jose.JSONWebKey{Key: h.key.(interface{ Public() crypto.PublicKey }).Public()}
}

func (h *holder) thumb(t testing.TB) string {
	k := h.public()
	sum, err := k.Thumbprint(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return b64(sum)
}

// sign signs a header and claims as they are.
func (h *holder) sign(t testing.TB, header, claims map[string]any) string {
	t.Helper()
	one, _ := json.Marshal(header)
	two, _ := json.Marshal(claims)
	text := b64(one) + "." + b64(two)
	digest := sha256.Sum256([]byte(text))
	var signature []byte
	var err error
	switch k := h.key.(type) {
	case *ecdsa.PrivateKey:
		r, s, e := ecdsa.Sign(rand.Reader, k, digest[:])
		signature, err = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...), e
	case *rsa.PrivateKey:
		signature, err = rsa.SignPKCS1v15(nil, k, crypto.SHA256, digest[:])
	}
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + b64(signature)
}

const accessToken = "an.access.token"

var start = time.Unix(1_700_000_000, 0)

// proof makes a good proof, after change had its way with it.
func (h *holder) proof(t testing.TB, change func(header, claims map[string]any)) string {
	t.Helper()
	sum := sha256.Sum256([]byte(accessToken))
	var jwk map[string]any
	text, _ := json.Marshal(h.public())
	json.Unmarshal(text, &jwk)
	header := map[string]any{"typ": "dpop+jwt", "alg": h.alg, "jwk": jwk}
	claims := map[string]any{"jti": rand.Text(), "htm": "GET", "htu": "https://shop.example/cart", "iat": start.Unix(), "ath": b64(sum[:])}
	if change != nil {
		change(header, claims)
	}
	return h.sign(t, header, claims)
}

func request(fields ...string) *exchange.Exchange {
	x := &exchange.Exchange{Start: start, Scheme: "https"}
	x.Request.Method = []byte("GET")
	x.Request.Authority = []byte("shop.example")
	x.Request.Path = []byte("/cart")
	for i := 0; i+1 < len(fields); i += 2 {
		x.Request.Header.Append([]byte(fields[i]), []byte(fields[i+1]))
	}
	return x
}

func (h *holder) claims(t testing.TB) map[string]any {
	return map[string]any{"sub": "ann", "cnf": map[string]any{"jkt": h.thumb(t)}}
}

func newChecker(t testing.TB, s v1alpha1.DPoP) *Checker {
	c, err := New(&s, policy.Env{Target: "HTTPRoute shop/cart"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func check(c *Checker, x *exchange.Exchange, claims map[string]any) string {
	if ok, o := c.Check(x, []byte(accessToken), claims); !ok {
		if o.State == method.Absent || o.State == method.Accepted {
			return "not ok, and no refusal"
		}
		return o.Reason
	}
	return ""
}

// The example of RFC 9449 section 7.1.
func TestExampleOfRFC(t *testing.T) {
	c := newChecker(t, v1alpha1.DPoP{})
	const text = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
	const proof = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
	x := request("Authorization", "DPoP "+text, "DPoP", proof)
	x.Request.Authority, x.Request.Path = []byte("resource.example.org"), []byte("/protectedresource")
	x.Start = time.Unix(1562262618, 0)
	claims := map[string]any{"cnf": map[string]any{"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}
	if ok, o := c.Check(x, []byte(text), claims); !ok {
		t.Errorf("the example: %s %s, want it accepted", o.Reason, o.Detail)
	}
	if ok, o := c.Check(x, []byte(text), claims); ok || o.Reason != replayed {
		t.Errorf("the example again: %v %s, want %s", ok, o.Reason, replayed)
	}
}

func TestProofs(t *testing.T) {
	h, other := newHolder(t), newHolder(t)
	weak, _ := rsa.GenerateKey(rand.Reader, 1024)
	r2048, _ := rsa.GenerateKey(rand.Reader, 2048)
	claim := func(name string, v any) func(_, c map[string]any) {
		return func(_, c map[string]any) {
			if v == nil {
				delete(c, name)
			} else {
				c[name] = v
			}
		}
	}
	head := func(name string, v any) func(h, _ map[string]any) { return func(h, _ map[string]any) { h[name] = v } }
	ago := func(d time.Duration) int64 { return start.Add(-d).Unix() }
	for _, c := range []struct {
		name   string
		holder *holder
		change func(header, claims map[string]any)
		want   string
	}{
		{"good", h, nil, ""},
		{"RSA", &holder{r2048, "RS256"}, nil, ""},
		{"typ JWT", h, head("typ", "JWT"), invalid},
		{"typ in upper case", h, head("typ", "DPOP+JWT"), invalid},
		{"alg none", h, head("alg", "none"), invalid},
		{"alg HS256", h, head("alg", "HS256"), invalid},
		{"alg of another curve", h, head("alg", "ES384"), invalid},
		{"crit", h, head("crit", []string{"x"}), invalid},
		{"no jwk", h, head("jwk", nil), invalid},
		{"secret", h, head("jwk", map[string]any{"kty": "oct", "k": b64(make([]byte, 64))}), invalid},
		{"private key", h, func(h, _ map[string]any) { h["jwk"].(map[string]any)["d"] = "AA" }, invalid},
		{"key of another", h, func(h, _ map[string]any) { h["jwk"] = other.public() }, wrongKey},
		{"weak key", &holder{weak, "RS256"}, nil, invalid},
		{"no jti", h, claim("jti", nil), invalid},
		{"jti a number", h, claim("jti", 1), invalid},
		{"long jti", h, claim("jti", strings.Repeat("j", maxID+1)), invalid},
		{"another method", h, claim("htm", "POST"), invalid},
		{"method in lower case", h, claim("htm", "get"), invalid},
		{"no htm", h, claim("htm", nil), invalid},
		{"no iat", h, claim("iat", nil), invalid},
		{"iat a text", h, claim("iat", "now"), invalid},
		{"just new enough", h, claim("iat", ago(60*time.Second)), ""},
		{"too old", h, claim("iat", ago(61*time.Second)), old},
		{"a little ahead", h, claim("iat", ago(-10*time.Second)), ""},
		{"of the future", h, claim("iat", ago(-11*time.Second)), old},
		{"no ath", h, claim("ath", nil), invalid},
		{"ath of another token", h, claim("ath", b64(make([]byte, 32))), invalid},
		{"ath with padding", h, func(_, c map[string]any) { c["ath"] = c["ath"].(string) + "=" }, invalid},
		{"query is ignored", h, claim("htu", "https://shop.example/cart?x=1#y"), ""},
		{"default port", h, claim("htu", "https://shop.example:443/cart"), ""},
		{"upper case host", h, claim("htu", "HTTPS://SHOP.example/cart"), ""},
		{"dots", h, claim("htu", "https://shop.example/a/../cart"), ""},
		{"escapes", h, claim("htu", "https://shop.example/c%61rt"), ""},
		{"http", h, claim("htu", "http://shop.example/cart"), invalid},
		{"another port", h, claim("htu", "https://shop.example:8443/cart"), invalid},
		{"another host", h, claim("htu", "https://evil.example/cart"), invalid},
		{"longer host", h, claim("htu", "https://shop.example.evil.example/cart"), invalid},
		{"user", h, claim("htu", "https://shop.example@evil.example/cart"), invalid},
		{"another path", h, claim("htu", "https://shop.example/cart/1"), invalid},
		{"path in upper case", h, claim("htu", "https://shop.example/Cart"), invalid},
		{"host alone", h, claim("htu", "https://shop.example"), invalid},
		{"path alone", h, claim("htu", "/cart"), invalid},
		{"htu a list", h, claim("htu", []string{"https://shop.example/cart"}), invalid},
	} {
		x := request("Authorization", "DPoP "+accessToken, "DPoP", c.holder.proof(t, c.change))
		if got := check(newChecker(t, v1alpha1.DPoP{}), x, c.holder.claims(t)); got != c.want && (c.name != "weak key" || got == "") {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestBinding(t *testing.T) {
	h := newHolder(t)
	bound, loose := h.claims(t), map[string]any{"sub": "ann"}
	proof := h.proof(t, nil)
	bearer, scheme := []string{"Authorization", "Bearer " + accessToken}, []string{"Authorization", "DPoP " + accessToken}
	with := func(fields []string, more ...string) []string { return append(append([]string{}, fields...), more...) }
	for _, c := range []struct {
		name    string
		require string
		fields  []string
		claims  map[string]any
		want    string
	}{
		{"bound, proof", "", with(scheme, "DPoP", proof), bound, ""},
		{"bound, no proof", "", scheme, bound, missing},
		{"bound, two proofs", "", with(scheme, "DPoP", proof, "dpop", proof), bound, repeated},
		{"bound, long proof", "", with(scheme, "DPoP", strings.Repeat("a", maxProof+1)), bound, invalid},
		{"bound as Bearer", "", bearer, bound, asBearer},
		{"bound as Bearer, proof", "", with(bearer, "DPoP", proof), bound, asBearer},
		{"bound in another place, proof", "", []string{"X-Token", accessToken, "DPoP", proof}, bound, ""},
		{"bound in another place", "", []string{"X-Token", accessToken}, bound, missing},
		{"loose as Bearer", "", bearer, loose, ""},
		{"loose as Bearer, Always", "Always", bearer, loose, unbound},
		{"loose as DPoP", "", with(scheme, "DPoP", proof), loose, unbound},
		{"bound to a certificate", "", bearer, map[string]any{"cnf": map[string]any{"x5t#S256": "x"}}, ""},
		{"bound to a certificate, Always", "Always", bearer, map[string]any{"cnf": map[string]any{"x5t#S256": "x"}}, unbound},
		{"cnf a text", "", bearer, map[string]any{"cnf": "x"}, "token_malformed"},
		{"jkt a number", "", scheme, map[string]any{"cnf": map[string]any{"jkt": int64(1)}}, "token_malformed"},
		{"jkt short", "", scheme, map[string]any{"cnf": map[string]any{"jkt": "AAAA"}}, "token_malformed"},
	} {
		if got := check(newChecker(t, v1alpha1.DPoP{Require: c.require}), request(c.fields...), c.claims); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestProofIsAcceptedOnce(t *testing.T) {
	h, other := newHolder(t), newHolder(t)
	c := newChecker(t, v1alpha1.DPoP{})
	same := func(_, c map[string]any) { c["jti"] = "same" }
	send := func(h *holder, proof string, at time.Duration, dry bool) string {
		x := request("Authorization", "DPoP "+accessToken, "DPoP", proof)
		x.Start, x.Dry = start.Add(at), dry
		return check(c, x, h.claims(t))
	}
	proof := h.proof(t, same)
	forged := proof[:len(proof)-4] + "AAAA"
	for _, step := range []struct {
		name, got, want string
	}{
		{"only explained", send(h, proof, 0, true), ""},
		{"with another signature", send(h, forged, 0, false), invalid},
		{"first", send(h, proof, 0, false), ""},
		{"second", send(h, proof, 0, false), replayed},
		{"at its end", send(h, proof, 60*time.Second, false), replayed},
		{"signed anew with the same jti", send(h, h.proof(t, same), time.Second, false), replayed},
		{"the same jti of another key", send(other, other.proof(t, same), time.Second, false), ""},
		{"too late", send(h, proof, 61*time.Second, false), old},
	} {
		if step.got != step.want {
			t.Errorf("%s: %q, want %q", step.name, step.got, step.want)
		}
	}
}

func TestStore(t *testing.T) {
	s := newStore(time.Minute)
	id := func(i int) [16]byte { return [16]byte{byte(i), byte(i >> 8), byte(i >> 16)} }
	for i := range perPart {
		if got := s.add(0, id(i), start); got != fresh {
			t.Fatalf("proof %d: %v, want fresh", i, got)
		}
	}
	if got := s.add(16, id(perPart), start); got != full {
		t.Errorf("one more in a full part: %v, want full", got)
	}
	if got := s.add(1, id(0), start); got != fresh {
		t.Errorf("another part: %v, want fresh", got)
	}
	for _, at := range []time.Duration{0, time.Second, 69 * time.Second, 70 * time.Second, 139 * time.Second} {
		if got := s.add(0, id(7), start.Add(at)); got != again {
			t.Errorf("a proof after %s: %v, want again", at, got)
		}
	}
	if got := s.add(0, id(7), start.Add(140*time.Second)); got != fresh {
		t.Errorf("a proof after two periods: %v, want fresh", got)
	}
	if n := s.n.Load(); n != 2 {
		t.Errorf("%d proofs are counted, want 2", n)
	}
}

func TestNewFaults(t *testing.T) {
	age := func(s string) *gatewayv1.Duration { d := gatewayv1.Duration(s); return &d }
	for _, c := range []struct {
		spec v1alpha1.DPoP
		want string
	}{
		{v1alpha1.DPoP{Require: "bound", MaxAge: age("60")}, "require: \"bound\" is not known (write Bound or Always)\nmaxAge: \"60\" is not a duration (write 30s, 1m30s or 500ms)"},
		{v1alpha1.DPoP{MaxAge: age("6m")}, "maxAge: 6m0s is not between 1s and 5m (write 60s)"},
		{v1alpha1.DPoP{MaxAge: age("0s")}, "maxAge: 0s is not between 1s and 5m (write 60s)"},
	} {
		if _, err := New(&c.spec, policy.Env{}); err == nil || err.Error() != c.want {
			t.Errorf("New(%+v): %v, want %s", c.spec, err, errors.New(c.want))
		}
	}
}

func BenchmarkProofES256(b *testing.B) {
	h := newHolder(b)
	c := newChecker(b, v1alpha1.DPoP{})
	x := request("Authorization", "DPoP "+accessToken, "DPoP", h.proof(b, nil))
	x.Dry = true
	claims := h.claims(b)
	b.ReportAllocs()
	for b.Loop() {
		if got := check(c, x, claims); got != "" {
			b.Fatal(got)
		}
	}
}

// FuzzURL compares sameURL with net/url: what is taken for https://shop.example/cart is that for everybody.
func FuzzURL(f *testing.F) {
	for _, s := range []string{"https://shop.example/cart", "HTTPS://SHOP.EXAMPLE:443/a/../c%61rt?x#y", "https://a@shop.example/cart", "https://shop.example\\@evil/cart", "//shop.example/cart"} {
		f.Add(s)
	}
	x := request()
	f.Fuzz(func(t *testing.T, htu string) {
		if !sameURL(x, htu) {
			return
		}
		cut, _, _ := strings.Cut(htu, "#")
		cut, _, _ = strings.Cut(cut, "?")
		u, err := url.Parse(cut)
		if err != nil || u.Scheme != "https" || strings.TrimSuffix(strings.ToLower(u.Hostname()), ".") != "shop.example" || u.User != nil ||
			u.Port() != "" && u.Port() != "443" || path.Clean(u.Path) != "/cart" {
			t.Errorf("%q is taken for https://shop.example/cart, and is %v, %v", htu, u, err)
		}
	})
}

// TestHoleBoundTokenAsBearer: where no proofs are asked for, a token that is bound to a key is of no use to who stole it.
func TestHoleBoundTokenAsBearer(t *testing.T) {
	for _, x := range []struct {
		claims map[string]any
		ok     bool
	}{
		{map[string]any{"sub": "a"}, true},
		{map[string]any{"cnf": map[string]any{"x5t#S256": "of a certificate"}}, true},
		{map[string]any{"cnf": map[string]any{"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}, false},
		{map[string]any{"cnf": map[string]any{"jkt": 7}}, false},
		{map[string]any{"cnf": "jkt"}, false},
	} {
		if ok, o := Unproven(x.claims); ok != x.ok || !ok && (o.State != method.Refused || o.Reason != asBearer) {
			t.Errorf("%v: %v, %+v", x.claims, ok, o)
		}
	}
}
