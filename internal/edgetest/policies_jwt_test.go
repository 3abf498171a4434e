package edgetest_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
)

// keyPair signs tokens and proofs.
type keyPair struct {
	kid string
	key *ecdsa.PrivateKey
}

func newKeyPair(t testing.TB, kid string) *keyPair {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &keyPair{kid, k}
}

func (k *keyPair) public() jose.JSONWebKey {
	return jose.JSONWebKey{Key: k.key.Public(), KeyID: k.kid, Algorithm: "ES256", Use: "sig"}
}

// thumb is the key's thumbprint (RFC 7638).
func (k *keyPair) thumb(t testing.TB) string {
	p := k.public()
	sum, err := p.Thumbprint(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(sum)
}

// jwks is the set of the public halves of keys.
func jwks(t testing.TB, keys ...*keyPair) string {
	var set jose.JSONWebKeySet
	for _, k := range keys {
		set.Keys = append(set.Keys, k.public())
	}
	b, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// sign signs a header and claims as they are.
func (k *keyPair) sign(t testing.TB, header, claims map[string]any) string {
	b64 := base64.RawURLEncoding.EncodeToString
	one, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	two, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	text := b64(one) + "." + b64(two)
	digest := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, k.key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + b64(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

const (
	issuer   = "https://idp.example"
	audience = "https://shop.example"
)

// token is a good token, with pairs of claims changed; nil takes one away.
func (k *keyPair) token(t testing.TB, pairs ...any) string {
	claims := map[string]any{"iss": issuer, "aud": audience, "sub": "u1", "exp": time.Now().Add(time.Hour).Unix(), "scope": "read write",
		"realm": map[string]any{"roles": []string{"admin", "ops"}}}
	for i := 0; i < len(pairs); i += 2 {
		claims[pairs[i].(string)] = pairs[i+1]
	}
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	return k.sign(t, map[string]any{"alg": "ES256", "kid": k.kid, "typ": "JWT"}, claims)
}

func bearer(token string) string { return "Authorization: Bearer " + token }

// keyServer publishes a set of keys.
type keyServer struct {
	url   string
	set   atomic.Pointer[string]
	asked atomic.Int64
}

func newKeyServer(t testing.TB) *keyServer {
	k := &keyServer{}
	k.url = "http://" + edgetest.HTTPBackend(t, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		k.asked.Add(1)
		rw.Header().Set("Content-Type", "application/jwk-set+json")
		_, _ = rw.Write([]byte(*k.set.Load()))
	})) + "/keys"
	return k
}

func (k *keyServer) publish(set string) { k.set.Store(&set) }

// TestPolicyJWTRotates: a key that its issuer adds is fetched when a token names it, and one that it took back ends with that. An issuer
// is asked twice a minute at most, so this takes half a minute.
func TestPolicyJWTRotates(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	t.Parallel()
	var rest []func()
	for _, v := range wires() { // which all wait at once
		w := newStage(t, v)
		one, two := newKeyPair(w, "one"), newKeyPair(w, "two")
		keys := newKeyServer(w)
		keys.publish(jwks(w, one))
		w.apply(authn(fmt.Sprintf("{name: jwt, jwt: {issuers: [{issuer: '%s', jwks: {url: '%s'}}]}}", issuer, keys.url)))
		w.eventually("the keys are there", func() bool { return w.ask("/", bearer(one.token(w))).seen != nil })
		old, young := one.token(w), two.token(w)
		w.refused(w.ask("/", bearer(young)), 401, "key_unknown")
		keys.publish(jwks(w, two))
		rest = append(rest, func() {
			w.eventually(v.name+": the new key is known", func() bool { return w.ask("/", bearer(young)).seen != nil })
			w.refused(w.ask("/", bearer(old)), 401, "key_unknown")
		})
	}
	time.Sleep(30 * time.Second) // the clock is real: the edge asks a real server
	for _, f := range rest {
		f()
	}
}

// TestPolicyJWT: tokens by keys at a URL and by keys in the policy: whose, for whom, until when; and what backends are told.
func TestPolicyJWT(t *testing.T) {
	overEach(t, func(w *stage) {
		one, evil := newKeyPair(w, "one"), newKeyPair(w, "one")
		keys := newKeyServer(w)
		keys.publish(jwks(w, one))
		const rest = `claimsToHeaders: [{claim: sub, header: X-User}, {claim: realm.roles, header: X-Roles}]`
		where := map[string]string{"url": "url: '" + keys.url + "'", "inline": "inline: '" + jwks(w, one) + "'"}
		for _, kind := range []string{"inline", "url"} {
			w.apply(authn(fmt.Sprintf("{name: jwt, jwt: {issuers: [{issuer: '%s', audiences: ['%s'], jwks: {%s}}], %s}}", issuer, audience, where[kind], rest)))
			good := one.token(w)
			w.eventually(kind+": the keys are there", func() bool { return w.ask("/", bearer(good)).status != 503 })
			s := w.passed(w.ask("/", bearer(good), "X-User: root", "x_user: root", "X-Roles: root"))
			if got := fmt.Sprint(s.Header["X-User"], s.Header["X-Roles"], s.Header["X_user"]); got != "[u1] [admin,ops] []" {
				w.Errorf("%s: the backend is told %s", kind, got)
			}
			if s.Header.Get("Authorization") == "" {
				w.Errorf("%s: the token was stripped", kind)
			}
			for _, x := range []struct{ what, token, reason string }{
				{"nothing", "", "credentials_missing"},
				{"expired", one.token(w, "exp", time.Now().Add(-time.Minute).Unix()), "token_expired"},
				{"no exp", one.token(w, "exp", nil), "expiry_missing"},
				{"of the future", one.token(w, "nbf", time.Now().Add(time.Hour).Unix()), "token_not_yet_valid"},
				{"another audience", one.token(w, "aud", "https://bank.example"), "audience_wrong"},
				{"no audience", one.token(w, "aud", nil), "audience_wrong"},
				{"another issuer", one.token(w, "iss", "https://evil.example"), "issuer_unknown"},
				{"another key of the same kid", evil.token(w), "signature_invalid"},
				{"alg none", strings.Join(strings.Split(evil.sign(w, map[string]any{"alg": "none"}, map[string]any{"iss": issuer}), ".")[:2], ".") + ".", ""},
				{"junk", "junk", ""},
			} {
				fields := []string{"X: y"}
				if x.token != "" {
					fields = []string{bearer(x.token)}
				}
				a := w.ask("/", fields...)
				if a.status != 401 || a.seen != nil || x.reason != "" && a.reason != x.reason {
					w.Errorf("%s: %s: got %d %s, want 401 %s", kind, x.what, a.status, a.reason, x.reason)
				}
				ch := strings.Join(a.header["Www-Authenticate"], "|")
				if !strings.HasPrefix(ch, `Bearer realm="jwt"`) || strings.Contains(ch, `error="invalid_token"`) != (x.token != "") {
					w.Errorf("%s: %s: WWW-Authenticate %s", kind, x.what, ch)
				}
			}
		}
		if n := keys.asked.Load(); n != 1 {
			w.Errorf("the set was fetched %d times, want once", n)
		}
	})
}

// TestPolicyJWTWithoutKeys: while the keys of an issuer were never there, nobody passes, and the fault is not the client's.
func TestPolicyJWTWithoutKeys(t *testing.T) {
	overEach(t, func(w *stage) {
		down := edgetest.HTTPBackend(w, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(500) }))
		w.apply(authn(fmt.Sprintf("{name: jwt, jwt: {issuers: [{issuer: '%s', jwks: {url: 'http://%s/keys'}}]}}", issuer, down)))
		w.refused(w.ask("/", bearer(newKeyPair(w, "one").token(w))), 503, "jwks_unavailable")
		w.refused(w.ask("/"), 401, "credentials_missing")
	})
}

// TestPolicyDPoP: a token that is bound to a key needs a proof of that key, for this request, once.
func TestPolicyDPoP(t *testing.T) {
	overEach(t, func(w *stage) {
		idp, client, thief := newKeyPair(w, "one"), newKeyPair(w, ""), newKeyPair(w, "")
		w.apply(authn(fmt.Sprintf("{name: jwt, jwt: {strip: true, dpop: {}, issuers: [{issuer: '%s', audiences: ['%s'], jwks: {inline: '%s'}}]}}", issuer, audience, jwks(w, idp))))
		scheme := "http"
		if w.secure {
			scheme = "https"
		}
		bound := idp.token(w, "cnf", map[string]any{"jkt": client.thumb(w)})
		count := 0
		proof := func(k *keyPair, token, method, path, id string) string {
			if id == "" {
				count++
				id = fmt.Sprint("id-", count)
			}
			sum := sha256.Sum256([]byte(token))
			return "DPoP: " + k.sign(w, map[string]any{"alg": "ES256", "typ": "dpop+jwt", "jwk": k.public()}, map[string]any{"jti": id, "htm": method,
				"htu": scheme + "://shop.example" + path, "iat": time.Now().Unix(), "ath": base64.RawURLEncoding.EncodeToString(sum[:])})
		}
		auth := "Authorization: DPoP " + bound
		s := w.passed(w.ask("/a?b=c", auth, proof(client, bound, "GET", "/a", "")))
		if s.Header.Get("Authorization") != "" || s.Header.Get("Dpop") != "" {
			w.Errorf("the backend sees Authorization %q, DPoP %q", s.Header.Get("Authorization"), s.Header.Get("Dpop"))
		}
		w.passed(w.ask("/", bearer(idp.token(w)))) // not bound
		once := proof(client, bound, "GET", "/", "")
		w.passed(w.ask("/", auth, once))
		other := idp.token(w, "jti", "other", "cnf", map[string]any{"jkt": client.thumb(w)})
		for _, x := range []struct {
			what, reason string
			fields       []string
		}{
			{"again", "dpop_proof_replayed", []string{auth, once}},
			{"without a proof", "dpop_proof_missing", []string{auth}},
			{"as Bearer", "token_needs_dpop", []string{bearer(bound), proof(client, bound, "GET", "/", "")}},
			{"another key", "dpop_key_wrong", []string{auth, proof(thief, bound, "GET", "/", "")}},
			{"another method", "dpop_proof_invalid", []string{auth, proof(client, bound, "POST", "/", "")}},
			{"another path", "dpop_proof_invalid", []string{auth, proof(client, bound, "GET", "/b", "")}},
			{"another token", "dpop_proof_invalid", []string{auth, proof(client, other, "GET", "/", "")}},
			{"two proofs", "dpop_proof_repeated", []string{auth, proof(client, bound, "GET", "/", ""), proof(client, bound, "GET", "/", "")}},
			{"two tokens", "credential_repeated", []string{auth, bearer(bound), proof(client, bound, "GET", "/", "")}},
		} {
			a := w.ask("/", x.fields...)
			if a.status != 401 || a.reason != x.reason || a.seen != nil {
				w.Errorf("%s: got %d %s, want 401 %s", x.what, a.status, a.reason, x.reason)
			}
			if ch := strings.Join(a.header["Www-Authenticate"], "|"); !strings.Contains(ch, `DPoP algs="`) {
				w.Errorf("%s: WWW-Authenticate %s", x.what, ch)
			}
		}
	})
}
