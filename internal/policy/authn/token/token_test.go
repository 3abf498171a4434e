package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"pgregory.net/rapid"
)

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// signRaw signs a header and a payload as they are, with the key's own algorithm named alg.
func signRaw(t testing.TB, key any, alg, header, payload string) string {
	t.Helper()
	text := b64([]byte(header)) + "." + b64([]byte(payload))
	a, ok := byName(alg)
	if !ok {
		t.Fatalf("no algorithm %q", alg)
	}
	var digest []byte
	if a != EdDSA {
		h := a.hash().New()
		h.Write([]byte(text))
		digest = h.Sum(nil)
	}
	var signature []byte
	var err error
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if strings.HasPrefix(alg, "PS") {
			signature, err = rsa.SignPSS(rand.Reader, k, a.hash(), digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		} else {
			signature, err = rsa.SignPKCS1v15(nil, k, a.hash(), digest)
		}
	case *ecdsa.PrivateKey:
		r, s, e := ecdsa.Sign(rand.Reader, k, digest)
		n := (k.Params().BitSize + 7) / 8
		signature = append(r.FillBytes(make([]byte, n)), s.FillBytes(make([]byte, n))...)
		err = e
	case ed25519.PrivateKey:
		signature, err = k.Sign(nil, []byte(text), crypto.Hash(0))
	case []byte:
		mac := hmac.New(a.hash().New, k)
		mac.Write([]byte(text))
		signature = mac.Sum(nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + b64(signature)
}

func sign(t testing.TB, key any, alg, kid string, claims any) string {
	t.Helper()
	header := map[string]any{"alg": alg, "typ": "JWT"}
	if kid != "" {
		header["kid"] = kid
	}
	h, _ := json.Marshal(header)
	c, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return signRaw(t, key, alg, string(h), string(c))
}

// jwk is the JSON of a key, public unless it is a secret.
func jwk(t testing.TB, key any, kid string, more ...string) string {
	t.Helper()
	if s, ok := key.(interface{ Public() crypto.PublicKey }); ok {
		key = s.Public()
	}
	b, err := json.Marshal(jose.JSONWebKey{Key: key, KeyID: kid})
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(string(b), "}") + strings.Join(append([]string{""}, more...), ",") + "}"
}

func setOf(keys ...string) string { return `{"keys":[` + strings.Join(keys, ",") + `]}` }

func parseSet(t testing.TB, symmetric bool, keys ...string) *Keys {
	t.Helper()
	s, _, err := ParseKeys([]byte(setOf(keys...)), symmetric)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newEC(t testing.TB, c elliptic.Curve) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newRSA(t testing.TB, bits int) *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// reason is the word of a fault, "" for none.
func reason(f *Fault) string {
	if f == nil {
		return ""
	}
	return f.Reason
}

func verdict(s *Keys, text string, allowed Algorithms) string {
	j, f := Parse([]byte(text))
	if f == nil {
		f = s.Verify(j, allowed)
	}
	return reason(f)
}

// The examples of RFC 7515 appendix A and RFC 8037 appendix A.
func TestExamplesOfRFCs(t *testing.T) {
	const claims = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
	for _, c := range []struct{ name, key, text string }{
		{"RFC 7515 A.1", `{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}`,
			"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." + claims + ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"},
		{"RFC 7515 A.3", `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`,
			"eyJhbGciOiJFUzI1NiJ9." + claims + ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"},
		{"RFC 8037 A.4", `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`,
			"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"},
	} {
		symmetric := strings.Contains(c.key, "oct")
		allowed := Asymmetric
		if symmetric {
			allowed = Symmetric
		}
		s := parseSet(t, symmetric, c.key)
		if got := verdict(s, c.text, allowed); got != "" {
			t.Errorf("%s: %s, want it accepted", c.name, got)
		}
		if got := verdict(s, c.text[:len(c.text)-6]+"AAAAAA", allowed); got != BadSignature && got != Malformed {
			t.Errorf("%s with another signature: %q, want a refusal", c.name, got)
		}
	}
}

func TestEveryAlgorithm(t *testing.T) {
	r := newRSA(t, 2048)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	keys := map[string]any{"ES256": newEC(t, elliptic.P256()), "ES384": newEC(t, elliptic.P384()), "ES512": newEC(t, elliptic.P521()), "EdDSA": ed}
	for _, a := range []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"} {
		keys[a] = r
	}
	for alg, key := range keys {
		s := parseSet(t, false, jwk(t, key, "k"))
		text := sign(t, key, alg, "k", map[string]any{})
		if got := verdict(s, text, Asymmetric); got != "" {
			t.Errorf("%s: %s, want it accepted", alg, got)
		}
		a, _ := byName(alg)
		if got := verdict(s, text, Asymmetric&^a); got != BadAlgorithm {
			t.Errorf("%s, which is not allowed: %q, want %s", alg, got, BadAlgorithm)
		}
		for _, other := range names { // what the token calls it changes nothing
			if other == alg {
				continue
			}
			forged := b64([]byte(`{"alg":"`+other+`","kid":"k"}`)) + text[strings.IndexByte(text, '.'):]
			if got := verdict(s, forged, Asymmetric|Symmetric); got != BadAlgorithm && got != BadSignature {
				t.Errorf("%s called %s: %q, want a refusal", alg, other, got)
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	p := "." + b64([]byte(`{}`)) + "."
	s := b64([]byte("signature"))
	with := func(header string) string { return b64([]byte(header)) + p + s }
	deep := strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1)
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", Malformed},
		{"two parts", "a.b", Malformed},
		{"four parts", "a.b.c.d", Malformed},
		{"encrypted", "a.b.c.d.e", Malformed},
		{"flattened JSON", `{"protected":"eyJhbGciOiJIUzI1NiJ9","payload":"e30","signature":"AA"}`, Malformed},
		{"general JSON, two signatures", `{"payload":"e30","signatures":[{"protected":"eyJhbGciOiJIUzI1NiJ9","signature":"AA"},{"protected":"eyJhbGciOiJIUzI1NiJ9","signature":"AA"}]}`, Malformed},
		{"padding", b64([]byte(`{"alg":"ES256"}`)) + "=" + p + s, Malformed},
		{"line end", b64([]byte(`{"alg":"ES256"}`)) + "\n" + p + s, Malformed},
		{"carriage return", with(`{"alg":"ES256"}`) + "\r", Malformed},
		{"plain base64", "+/+/" + p + s, Malformed},
		{"stray bits", "eyJhbGciOiJFUzI1NiJ" + "." + "e31" + "." + s, Malformed},
		{"no header", p[:0] + p + s, Malformed},
		{"header no JSON", with(`{alg:"ES256"}`), Malformed},
		{"header a list", with(`["alg","ES256"]`), Malformed},
		{"header null", with(`null`), Malformed},
		{"two values", with(`{"alg":"ES256"}{}`), Malformed},
		{"not UTF-8", with("{\"alg\":\"ES256\",\"x\":\"\xff\"}"), Malformed},
		{"alg twice", with(`{"alg":"ES256","alg":"none"}`), Malformed},
		{"alg twice, escaped", with(`{"alg":"ES256","\u0061lg":"none"}`), Malformed},
		{"member twice, deep", with(`{"alg":"ES256","x":{"a":[{"b":1,"b":2}]}}`), Malformed},
		{"deep", with(`{"alg":"ES256","x":` + deep + `}`), Malformed},
		{"number too large", with(`{"alg":"ES256","x":1e999}`), Malformed},
		{"no alg", with(`{}`), BadAlgorithm},
		{"alg null", with(`{"alg":null}`), BadAlgorithm},
		{"alg a number", with(`{"alg":256}`), BadAlgorithm},
		{"alg a list", with(`{"alg":["ES256"]}`), BadAlgorithm},
		{"none", with(`{"alg":"none"}`), BadAlgorithm},
		{"None", with(`{"alg":"None"}`), BadAlgorithm},
		{"NONE", with(`{"alg":"NONE"}`), BadAlgorithm},
		{"nOnE", with(`{"alg":"nOnE"}`), BadAlgorithm},
		{"none, escaped", with(`{"alg":"n\u006fne"}`), BadAlgorithm},
		{"none with spaces", with(`{"alg":" none "}`), BadAlgorithm},
		{"none without signature", b64([]byte(`{"alg":"none"}`)) + p, BadAlgorithm},
		{"alg empty", with(`{"alg":""}`), BadAlgorithm},
		{"alg in lower case", with(`{"alg":"es256"}`), BadAlgorithm},
		{"ES256K", with(`{"alg":"ES256K"}`), BadAlgorithm},
		{"of encryption", with(`{"alg":"RSA-OAEP","enc":"A128GCM"}`), BadAlgorithm},
		{"crit", with(`{"alg":"ES256","crit":["exp"],"exp":1}`), BadHeader},
		{"crit empty", with(`{"alg":"ES256","crit":[]}`), BadHeader},
		{"crit null", with(`{"alg":"ES256","crit":null}`), BadHeader},
		{"b64 false", with(`{"alg":"ES256","b64":false,"crit":["b64"]}`), BadHeader},
		{"b64 false without crit", with(`{"alg":"ES256","b64":false}`), BadHeader},
		{"kid a number", with(`{"alg":"ES256","kid":1}`), Malformed},
		{"kid null", with(`{"alg":"ES256","kid":null}`), Malformed},
		{"typ a list", with(`{"alg":"ES256","typ":[]}`), Malformed},
		{"long", with(`{"alg":"ES256","x":"` + strings.Repeat("x", MaxToken) + `"}`), TooLarge},
	} {
		if _, f := Parse([]byte(c.text)); reason(f) != c.want {
			t.Errorf("%s: %v, want %s", c.name, f, c.want)
		}
	}
}

// A public key is no secret, however its bytes are written (RFC 8725 section 2.1).
func TestPublicKeyIsNoSecret(t *testing.T) {
	key := newRSA(t, 2048)
	public := jwk(t, key, "k")
	s := parseSet(t, false, public)
	pem := "-----BEGIN PUBLIC KEY-----\n" + base64.StdEncoding.EncodeToString(key.N.Bytes()) + "\n-----END PUBLIC KEY-----\n"
	for name, secret := range map[string][]byte{"JWK": []byte(public), "modulus": key.N.Bytes(), "PEM": []byte(pem)} {
		text := sign(t, secret, "HS256", "k", map[string]any{"sub": "root"})
		for allowed, want := range map[Algorithms]string{Asymmetric: BadAlgorithm, Asymmetric | Symmetric: BadAlgorithm, Symmetric: BadAlgorithm} {
			if got := verdict(s, text, allowed); got != want {
				t.Errorf("HS256 with the %s as secret, allowed %s: %q, want %s", name, allowed, got, want)
			}
		}
	}
	for _, mixed := range [][]string{{"HS256", "RS256"}, {"ES256", "HS512"}} {
		if _, faults := ParseAlgorithms(mixed); len(faults) == 0 {
			t.Errorf("ParseAlgorithms(%v) accepts, want a fault", mixed)
		}
	}
}

// A token's own keys, and names of keys that look like something else, are just names.
func TestKeysComeFromTheSetAlone(t *testing.T) {
	good, evil := newEC(t, elliptic.P256()), newEC(t, elliptic.P256())
	s := parseSet(t, false, jwk(t, good, "good"))
	for _, kid := range []string{"", "good", "evil", "../../dev/null", "good' OR '1'='1", "http://evil.example/key", "good\x00", "GOOD", "../good"} {
		k, _ := json.Marshal(kid)
		header := fmt.Sprintf(`{"alg":"ES256","kid":%s,"jwk":%s,"jku":"https://evil.example/keys","x5u":"https://evil.example/c","x5c":["AAAA"]}`, k, jwk(t, evil, kid))
		want := KeyUnknown
		if kid == "" || kid == "good" {
			want = BadSignature
		}
		if got := verdict(s, signRaw(t, evil, "ES256", header, `{}`), Asymmetric); got != want {
			t.Errorf("kid %q, signed with the token's own key: %q, want %s", kid, got, want)
		}
	}
}

// A token without kid is tried with a few keys, not with a hundred.
func TestTokenWithoutKeyID(t *testing.T) {
	var keys []string
	k := newEC(t, elliptic.P256())
	for range maxTries - 1 {
		keys = append(keys, jwk(t, newEC(t, elliptic.P256()), "k"+fmt.Sprint(len(keys))))
	}
	keys = append(keys, jwk(t, k, "last"))
	text := sign(t, k, "ES256", "", map[string]any{})
	if got := verdict(parseSet(t, false, keys...), text, Asymmetric); got != "" {
		t.Errorf("the last of four keys: %q, want it accepted", got)
	}
	keys = append([]string{jwk(t, newEC(t, elliptic.P256()), "more")}, keys...)
	if got := verdict(parseSet(t, false, keys...), text, Asymmetric); got != NoKeyID {
		t.Errorf("the last of five keys: %q, want %s", got, NoKeyID)
	}
	if got := verdict(parseSet(t, false, jwk(t, k, "")), sign(t, k, "ES256", "any", map[string]any{}), Asymmetric); got != "" {
		t.Errorf("a key without kid for a token with one: %q, want it accepted", got)
	}
}

func TestParseKeysDrops(t *testing.T) {
	ec := newEC(t, elliptic.P256())
	other := newEC(t, elliptic.P256())
	private, _ := json.Marshal(jose.JSONWebKey{Key: ec})
	small := newRSA(t, 1024)
	for _, c := range []struct {
		name string
		keys []string
		want int
	}{
		{"good", []string{jwk(t, ec, "a"), jwk(t, other, "b")}, 2},
		{"use sig", []string{jwk(t, ec, "a", `"use":"sig"`)}, 1},
		{"use enc", []string{jwk(t, ec, "a", `"use":"enc"`)}, 0},
		{"key_ops verify", []string{jwk(t, ec, "a", `"key_ops":["sign","verify"]`)}, 1},
		{"key_ops sign", []string{jwk(t, ec, "a", `"key_ops":["sign"]`)}, 0},
		{"key_ops a text", []string{jwk(t, ec, "a", `"key_ops":"verify"`)}, 0},
		{"alg of another curve", []string{jwk(t, ec, "a", `"alg":"ES384"`)}, 0},
		{"alg none", []string{jwk(t, ec, "a", `"alg":"none"`)}, 0},
		{"alg of encryption", []string{jwk(t, ec, "a", `"alg":"ECDH-ES"`)}, 0},
		{"private", []string{string(private)}, 0},
		{"secret", []string{`{"kty":"oct","k":"` + b64(make([]byte, 64)) + `"}`}, 0},
		{"small RSA", []string{jwk(t, small, "a")}, 0},
		{"unknown kind", []string{`{"kty":"XYZ"}`, jwk(t, ec, "a")}, 1},
		{"secp256k1", []string{`{"kty":"EC","crv":"secp256k1","x":"AA","y":"AA"}`}, 0},
		{"not on the curve", []string{`{"kty":"EC","crv":"P-256","x":"` + b64(make([]byte, 32)) + `","y":"` + b64(make([]byte, 32)) + `"}`}, 0},
		{"no object", []string{`1`, `null`, `"x"`}, 0},
		{"kid of two keys", []string{jwk(t, ec, "a"), jwk(t, other, "a")}, 0},
		{"kid of a key, twice", []string{jwk(t, ec, "a"), jwk(t, ec, "a")}, 1},
		{"certificates are not read", []string{jwk(t, ec, "a", `"x5c":["AAAA"]`, `"x5t":"x"`, `"x5u":"::"`)}, 1},
		{"RSA with e 1", []string{`{"kty":"RSA","n":"` + b64(newRSA(t, 2048).N.Bytes()) + `","e":"AQ"}`}, 0},
		{"RSA with a huge e", []string{`{"kty":"RSA","n":"` + b64(newRSA(t, 2048).N.Bytes()) + `","e":"AQABAQAB"}`}, 0},
		{"RSA of 16384 bits", []string{`{"kty":"RSA","n":"` + b64([]byte(strings.Repeat("\xff", 2048))) + `","e":"AQAB"}`}, 0},
	} {
		s, _, err := ParseKeys([]byte(setOf(c.keys...)), false)
		if err != nil || s.Len() != c.want {
			t.Errorf("%s: %d keys, %v, want %d", c.name, s.Len(), err, c.want)
		}
	}
	many := make([]string, maxKeys+1)
	for i := range many {
		many[i] = "{}"
	}
	for name, text := range map[string]string{"empty": "", "no keys": "{}", "keys null": `{"keys":null}`, "a list": "[]", "keys twice": `{"keys":[],"keys":[]}`,
		"HTML": "<html>", "many": setOf(many...), "long": `{"keys":[],"x":"` + strings.Repeat("x", maxSet) + `"}`} {
		if _, _, err := ParseKeys([]byte(text), false); err == nil {
			t.Errorf("%s: a set, want an error", name)
		}
	}
	if _, _, err := ParseKeys([]byte(setOf(jwk(t, ec, ""), `{"kty":"oct","k":"`+b64(make([]byte, 64))+`"}`)), true); err == nil {
		t.Error("secrets and public keys in one set: accepted, want an error")
	}
}

// TestRules compares Check with a simple model over random claims, leeways and times.
func TestRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1_700_000_000, 0)
		r := Rules{Issuer: "a", Algorithms: ES256,
			Audiences:      rapid.SliceOfDistinct(rapid.SampledFrom([]string{"x", "y"}), func(s string) string { return s }).Draw(t, "audiences"),
			Leeway:         time.Duration(rapid.IntRange(0, 300).Draw(t, "leeway")) * time.Second,
			OptionalExpiry: rapid.Bool().Draw(t, "optional"),
		}
		claims := map[string]any{}
		iss := rapid.SampledFrom([]any{nil, "a", "A", "a/", int64(1), []any{"a"}}).Draw(t, "iss")
		aud := rapid.SampledFrom([]any{nil, "x", "z", "", []any{}, []any{"z", "x"}, []any{"z"}, int64(5), []any{int64(1), "x"}}).Draw(t, "aud")
		date := rapid.OneOf(rapid.Just[any](nil), rapid.Just[any]("soon"), rapid.Just[any](true),
			rapid.Map(rapid.Int64Range(-400, 400), func(d int64) any { return now.Unix() + d }),
			rapid.Map(rapid.Float64Range(-400, 400), func(d float64) any { return float64(now.Unix()) + d }),
			rapid.SampledFrom([]any{int64(-1), -0.5, int64(1) << 62, 1e300, uint64(1) << 63}))
		exp, nbf := date.Draw(t, "exp"), date.Draw(t, "nbf")
		for name, v := range map[string]any{"iss": iss, "aud": aud, "exp": exp, "nbf": nbf} {
			if v != nil {
				claims[name] = v
			}
		}
		at := func(v any) (float64, bool) {
			switch v := v.(type) {
			case int64:
				return float64(v), v >= 0
			case uint64:
				return float64(v), true
			case float64:
				return v, v >= 0
			}
			return 0, false
		}
		good := iss == "a"
		switch a := aud.(type) {
		case nil:
			good = good && len(r.Audiences) == 0
		case string:
			good = good && (len(r.Audiences) == 0 || contains(r.Audiences, a))
		case []any:
			hit := len(r.Audiences) == 0
			for _, e := range a {
				s, ok := e.(string)
				good = good && ok
				hit = hit || contains(r.Audiences, s)
			}
			good = good && hit
		default:
			good = false
		}
		s, leeway := float64(now.Unix()), r.Leeway.Seconds()
		if e, ok := at(exp); exp == nil {
			good = good && r.OptionalExpiry
		} else {
			good = good && ok && s < e+leeway
		}
		if n, ok := at(nbf); nbf != nil {
			good = good && ok && s >= n-leeway
		}
		f := r.Check(&JWS{Algorithm: ES256, Type: "JWT"}, claims, now)
		if (f == nil) != good {
			t.Fatalf("Check(%v) with %+v: %v, want accepted %v", claims, r, f, good)
		}
	})
}

func contains(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}

func TestTypes(t *testing.T) {
	for _, c := range []struct {
		header map[string]any
		types  []string
		want   bool
	}{
		{map[string]any{}, nil, true},
		{map[string]any{"typ": "JWT"}, nil, true},
		{map[string]any{"typ": "jwt"}, nil, true},
		{map[string]any{"typ": "at+jwt"}, nil, true},
		{map[string]any{"typ": "application/at+jwt"}, nil, true},
		{map[string]any{"typ": ""}, nil, false},
		{map[string]any{"typ": "dpop+jwt"}, nil, false},
		{map[string]any{"typ": "logout+jwt"}, nil, false},
		{map[string]any{}, []string{"at+jwt"}, false},
		{map[string]any{"typ": "JWT"}, []string{"at+jwt"}, false},
		{map[string]any{"typ": "Application/AT+JWT"}, []string{"at+jwt"}, true},
	} {
		j := &JWS{Header: c.header}
		j.Type, _ = c.header["typ"].(string)
		r := Rules{Types: c.types}
		if got := r.allowsType(j); got != c.want {
			t.Errorf("typ %v with types %v: %v, want %v", c.header, c.types, got, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg")
	f.Add("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJhIjpbMSx7ImIiOiJcdTAwNjEifV19.AA")
	f.Add("..")
	key, _, _ := ParseKeys([]byte(setOf(`{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`)), false)
	f.Fuzz(func(t *testing.T, text string) {
		j, fault := Parse([]byte(text))
		if fault != nil {
			return
		}
		_, err := jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512"})
		if alg, _ := j.Header["alg"].(string); err != nil && alg != "Ed25519" && len(j.signature) > 0 && !strings.Contains(err.Error(), "jwk") && !strings.Contains(err.Error(), "nonce") {
			t.Errorf("Parse(%q) accepts what go-jose refuses: %v", text, err)
		}
		if claims, fault := j.Claims(); fault == nil {
			var other map[string]any
			if err := json.Unmarshal(j.Payload, &other); err != nil || len(other) != len(claims) {
				t.Errorf("claims of %q: %v, encoding/json has %v, %v", j.Payload, claims, other, err)
			}
		}
		if key.Verify(j, Asymmetric) == nil && !strings.HasPrefix(text, "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.") {
			t.Errorf("%q is accepted", text)
		}
	})
}
