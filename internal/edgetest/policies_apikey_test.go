package edgetest_test

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/database"
	"github.com/gatehouse-io/gatehouse/internal/edge"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

const keyOfShop = "k-of-the-shop-0123456789"

// TestPolicyAPIKey: keys in Secrets, plain and hashed, wherever they may stand; the backend does not see them.
func TestPolicyAPIKey(t *testing.T) {
	hash := sha256.Sum256([]byte("hashed-key"))
	overEach(t, func(w *stage) {
		w.apply(secretOf("keys", "shop", keyOfShop, "hashed", "sha256:"+hex.EncodeToString(hash[:])) +
			authn("{name: keys, apiKey: {from: [{header: X-API-Key}, {header: Authorization, scheme: ApiKey}, {query: key}, {cookie: key}], secretRefs: [{name: keys}]}}"))
		for _, x := range []struct{ target, field string }{
			{"/", "X-API-Key: " + keyOfShop},
			{"/", "x-api-key: hashed-key"},
			{"/", "Authorization: apikey " + keyOfShop},
			{"/a?b=c&key=" + keyOfShop + "&d=e", "X: y"},
			{"/", "Cookie: a=b; key=" + keyOfShop + "; c=d"},
		} {
			s := w.passed(w.ask(x.target, x.field))
			for name, values := range s.Header {
				if text := strings.Join(values, ","); strings.Contains(text, keyOfShop) || strings.Contains(text, "hashed-key") {
					w.Errorf("%s %s: the backend sees %s: %s", x.target, x.field, name, text)
				}
			}
			if strings.Contains(s.URI, keyOfShop) {
				w.Errorf("the backend sees %s", s.URI)
			}
			if strings.HasPrefix(x.target, "/a") && s.URI != "/a?b=c&d=e" {
				w.Errorf("the backend sees %s, want the rest of the query", s.URI)
			}
			if strings.HasPrefix(x.field, "Cookie") && s.Header.Get("Cookie") != "a=b; c=d" {
				w.Errorf("the backend sees Cookie: %s, want the other cookies", s.Header.Get("Cookie"))
			}
		}
		for _, x := range []struct{ target, field, reason string }{
			{"/", "X: y", "credentials_missing"},
			{"/", "X-API-Key: " + keyOfShop + "x", "key_unknown"},
			{"/", "X-API-Key: sha256:" + hex.EncodeToString(hash[:]), "key_unknown"},
			{"/", "X-API-Key: " + strings.Repeat("k", 5000), "key_malformed"},
			{"/", "X-API-Key: gh_live_junk", "key_malformed"},
			{"/", "X-API-Key: " + keyOfShop + "\nx-api-key: " + keyOfShop, "credential_repeated"},
			{"/?key=a&key=" + keyOfShop, "X: y", "credential_repeated"},
			{"/", "Cookie: key=a; key=" + keyOfShop, "credential_repeated"},
		} {
			a := w.ask(x.target, x.field)
			w.refused(a, 401, x.reason)
			if got, want := a.header["Www-Authenticate"], `ApiKey realm="keys"`; len(got) != 1 || got[0] != want {
				w.Errorf("%s: WWW-Authenticate %q, want %q", x.reason, got, want)
			}
		}
		w.passed(w.ask("/open"))
		// Another key in the Secret: the old one ends at once.
		w.apply(secretOf("keys", "shop", "another-key-0123456789"))
		w.refused(w.ask("/", "X-API-Key: "+keyOfShop), 401, "key_unknown")
		w.passed(w.ask("/", "X-API-Key: another-key-0123456789"))
	})
}

// keyStore hands the keys of a database to the edge, as cmd does.
type keyStore struct{ lazy *database.Lazy }

func (s keyStore) Open() policy.Keys { return issuedKeys{s.lazy.Keys()} }

type issuedKeys struct{ keys *database.Keys }

func (k issuedKeys) Lookup(hash *[32]byte, now time.Time) (policy.IssuedKey, bool) {
	e, ok := k.keys.Lookup(hash, now)
	return policy.IssuedKey{ID: e.ID, Application: e.Application, Env: e.Env, Scopes: e.Scopes}, ok
}

func (k issuedKeys) Ready() bool {
	select {
	case <-k.keys.Ready():
		return true
	default:
		return false
	}
}

// TestPolicyIssuedKey: keys of a database that whoever issues and revokes them shares with the edge.
func TestPolicyIssuedKey(t *testing.T) {
	dir := t.TempDir()
	lazy := database.NewLazy(database.Options{Data: dir})
	t.Cleanup(func() { _ = lazy.Close() })
	overEach(t, func(w *stage) {
		w.apply(pol("AuthPolicy", "p", toAPI, `{
			authentication: {methods: [{name: keys, apiKey: {environments: [live]}}]},
			authorization: {rules: {write: {when: "request.path == '/write'", require: {scopes: [write]}}, app: {require: {cel: "identity.application == 'd/shop'"}}}}}`))
		db, err := database.Open(w.Context(), database.Options{Data: dir}) // as another process would
		if err != nil {
			w.Fatal(err)
		}
		defer func() { _ = db.Close() }()
		issue := func(n database.NewKey) (field, id string) {
			issued, k, err := db.CreateKey(w.Context(), n)
			if err != nil {
				w.Fatal(err)
			}
			return "X-API-Key: " + string(issued.Reveal()), k.ID
		}
		live, id := issue(database.NewKey{Application: "d/shop", Env: "live", Scopes: []string{"read"}})
		test, _ := issue(database.NewKey{Application: "d/shop", Env: "test"})
		foreign, _ := issue(database.NewKey{Application: "d/other", Env: "live"})
		w.eventually("the key works", func() bool { return w.ask("/", live).seen != nil })
		if w.passed(w.ask("/", live)).Header.Get("X-Api-Key") != "" {
			w.Error("the backend sees the key")
		}
		w.refused(w.ask("/write", live), 403, "access_denied")
		w.refused(w.ask("/", test), 401, "key_unknown")
		w.eventually("the other key is known", func() bool { return w.ask("/", foreign).status == 403 })
		last := live[len(live)-1]
		w.refused(w.ask("/", live[:len(live)-1]+string(rune('a'+(last-'a'+1)%2))), 401, "key_malformed")
		if err := db.RevokeKey(w.Context(), id); err != nil {
			w.Fatal(err)
		}
		revoked := time.Now()
		for w.ask("/", live).seen != nil {
			if time.Since(revoked) > 5*time.Second {
				w.Fatal("a revoked key works after 5 s")
			}
			time.Sleep(5 * time.Millisecond)
		}
		w.Logf("a revoked key was refused after %v", time.Since(revoked).Round(time.Millisecond))
		if d := time.Since(revoked); d > time.Second && !raceEnabled {
			w.Errorf("a revoked key worked for %v, want 1 s at most", d)
		}
		w.refused(w.ask("/", live), 401, "key_unknown")
	}, func(o *edge.Options) { o.Keys = keyStore{lazy} })
}
