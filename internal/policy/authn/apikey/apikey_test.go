package apikey

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/database"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// store is a policy.KeyStore that counts.
type store struct {
	keys          map[[32]byte]policy.IssuedKey
	notReady      bool
	opened, asked int
}

func (s *store) Open() policy.Keys { s.opened++; return s }
func (s *store) Ready() bool       { return !s.notReady }
func (s *store) Lookup(hash *[32]byte, _ time.Time) (policy.IssuedKey, bool) {
	s.asked++
	k, ok := s.keys[*hash]
	return k, ok
}

// issue makes a key of an environment, known to s.
func (s *store) issue(t testing.TB, env string) string {
	t.Helper()
	k, err := secret.NewIssued(env, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if s.keys == nil {
		s.keys = map[[32]byte]policy.IssuedKey{}
	}
	s.keys[k.Hash()] = policy.IssuedKey{ID: k.ID(), Application: "shop/app", Env: env, Scopes: []string{"read"}}
	return string(k.Reveal())
}

func material(pairs ...string) *secret.Material {
	m := &secret.Material{Data: map[string]secret.Value{}}
	for i := 0; i < len(pairs); i += 2 {
		m.Data[pairs[i]] = secret.New([]byte(pairs[i+1]))
	}
	return m
}

const handle = "Secret/shop/keys"

// with compiles a method over a Secret of keys and a store of issued ones; either may be nil.
func with(t testing.TB, spec v1alpha1.APIKeyAuth, secrets *secret.Store, keys policy.KeyStore) method.Handler {
	t.Helper()
	env := policy.Env{Keys: keys, Refs: map[string]string{"secretRefs[0]": handle, "secretRefs[1]": handle + "-more"}}
	if secrets != nil {
		env.Secret = secrets
	}
	h, err := Compile("keys", &spec, env)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func judge(h method.Handler, key string) method.Outcome {
	x := &exchange.Exchange{Start: time.Now()}
	if key != "" {
		x.Request.Header.Append([]byte("X-API-Key"), []byte(key))
	}
	return h.Authenticate(x)
}

// mine names one Secret.
var mine = []v1alpha1.LocalSecretRef{{Name: "keys"}}

func TestSecret(t *testing.T) {
	hash := secret.HashOf([]byte("hashed"))
	digest := hex.EncodeToString(hash[:])
	secrets := &secret.Store{}
	secrets.Swap(secret.Set{handle: material("plain", "hunter2", "lines", " padded\n", "hash", "sha256:"+digest, "upper", "sha256:"+strings.ToUpper(hexOf("UP")),
		"bad", "sha256:zz", "short", "sha256:"+digest[:62], "long", "sha256:"+digest+"00", "none", "", "blank", " \n", "b", "same", "a", "same", "issued", "gh_mine")})
	h := with(t, v1alpha1.APIKeyAuth{SecretRefs: mine}, secrets, nil)
	for key, want := range map[string]string{
		"hunter2": "shop/plain", "padded": "shop/lines", "hashed": "shop/hash", "UP": "shop/upper", "same": "shop/a",
		"sha256:" + digest: "key_unknown", "sha256:zz": "key_unknown", digest: "key_unknown", "Hunter2": "key_unknown", "hunter2 ": "key_unknown", " ": "key_unknown",
		"gh_mine": "key_malformed", "": "", strings.Repeat("x", 1025): "key_malformed", strings.Repeat("x", 1024): "key_unknown",
	} {
		o := judge(h, key)
		got := o.Reason
		if o.State == method.Accepted {
			got = o.Identity.Application
			name := strings.TrimPrefix(got, "shop/")
			if d := cmp.Diff(exchange.Identity{Subject: got, Application: got, CredentialID: handle + "/" + name, Method: "keys"}, o.Identity); d != "" {
				t.Errorf("%q: %s", key, d)
			}
		}
		if got != want || (o.State == method.Absent) != (want == "") {
			t.Errorf("%.20q: state %d, %q, want %q", key, o.State, got, want)
		}
		if strings.Contains(o.Detail, key) && key != "" && key != " " {
			t.Errorf("the detail shows the key: %s", o.Detail)
		}
	}
}

func hexOf(s string) string {
	h := secret.HashOf([]byte(s))
	return hex.EncodeToString(h[:])
}

// TestSwapped: other material counts with the next request, and none is nobody's.
func TestSwapped(t *testing.T) {
	secrets := &secret.Store{}
	h := with(t, v1alpha1.APIKeyAuth{SecretRefs: append(mine, v1alpha1.LocalSecretRef{Name: "keys-more"})}, secrets, nil)
	for i, step := range []struct {
		set  secret.Set
		want map[string]string
	}{
		{nil, map[string]string{"one": "key_unknown"}},
		{secret.Set{handle: material("a", "one")}, map[string]string{"one": "shop/a", "two": "key_unknown"}},
		{secret.Set{handle: material("a", "two")}, map[string]string{"one": "key_unknown", "two": "shop/a"}},
		{secret.Set{handle: material("a", "two"), handle + "-more": material("b", "two", "c", "three")}, map[string]string{"two": "shop/a", "three": "shop/c"}},
		{secret.Set{handle + "-more": material("b", "two")}, map[string]string{"two": "shop/b", "three": "key_unknown"}},
		{secret.Set{}, map[string]string{"two": "key_unknown"}},
	} {
		secrets.Swap(step.set)
		for range 2 {
			for key, want := range step.want {
				o := judge(h, key)
				if got := o.Reason + o.Identity.Application; got != want {
					t.Errorf("step %d, %s: %s, want %s", i, key, got, want)
				}
			}
		}
	}
}

func TestIssued(t *testing.T) {
	yes, no := true, false
	s := &store{}
	live, test := s.issue(t, "live"), s.issue(t, "test")
	unknown := (&store{}).issue(t, "live")
	mangled := live[:len(live)-1] + map[bool]string{true: "B", false: "A"}[live[len(live)-1] == 'A']
	secrets := &secret.Store{}
	secrets.Swap(secret.Set{handle: material("own", "hunter2")})
	for _, tt := range []struct {
		name     string
		spec     v1alpha1.APIKeyAuth
		key      string
		notReady bool
		state    method.State
		reason   string
		asked    int
	}{
		{"good", v1alpha1.APIKeyAuth{}, live, false, method.Accepted, "", 1},
		{"good, while keys are read", v1alpha1.APIKeyAuth{}, live, true, method.Accepted, "", 1},
		{"unknown", v1alpha1.APIKeyAuth{}, unknown, false, method.Refused, "key_unknown", 1},
		{"unknown, while keys are read", v1alpha1.APIKeyAuth{}, unknown, true, method.Unavailable, "keys_unavailable", 1},
		{"a wrong checksum", v1alpha1.APIKeyAuth{}, mangled, false, method.Refused, "key_malformed", 0},
		{"junk", v1alpha1.APIKeyAuth{}, "gh_junk", true, method.Refused, "key_malformed", 0},
		{"junk that is long", v1alpha1.APIKeyAuth{}, "gh_" + strings.Repeat("x", 2000), false, method.Refused, "key_malformed", 0},
		{"no key of ours", v1alpha1.APIKeyAuth{}, "hunter2", true, method.Refused, "key_unknown", 0},
		{"none", v1alpha1.APIKeyAuth{}, "", true, method.Absent, "", 0},
		{"its environment", v1alpha1.APIKeyAuth{Environments: []string{"live", "test"}}, test, false, method.Accepted, "", 1},
		{"another environment", v1alpha1.APIKeyAuth{Environments: []string{"live"}}, test, true, method.Refused, "key_unknown", 0},
		{"with Secrets they are not", v1alpha1.APIKeyAuth{SecretRefs: mine}, live, false, method.Refused, "key_unknown", 0},
		{"with Secrets, asked for", v1alpha1.APIKeyAuth{SecretRefs: mine, Issued: &yes}, live, false, method.Accepted, "", 1},
		{"with Secrets, own", v1alpha1.APIKeyAuth{SecretRefs: mine, Issued: &yes}, "hunter2", true, method.Accepted, "", 0},
		{"off", v1alpha1.APIKeyAuth{Issued: &no}, live, false, method.Refused, "key_unknown", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.asked, s.opened, s.notReady = 0, 0, tt.notReady
			h := with(t, tt.spec, secrets, s)
			o := judge(h, tt.key)
			if o.State != tt.state || o.Reason != tt.reason || s.asked != tt.asked {
				t.Errorf("state %d, %q, %d lookups, want %d, %q, %d", o.State, o.Reason, s.asked, tt.state, tt.reason, tt.asked)
			}
			if wants := tt.spec.Issued == nil && tt.spec.SecretRefs == nil || tt.spec.Issued == &yes; (s.opened > 0) != wants {
				t.Errorf("the store was opened %d times", s.opened)
			}
			if o.State == method.Accepted && tt.key != "hunter2" && (o.Identity.Application != "shop/app" || o.Identity.CredentialID == "" || len(o.Identity.Scopes) != 1) {
				t.Errorf("%+v", o.Identity)
			}
		})
	}
}

// TestNoStore: where there is no database, nothing is known of an issued key; of another one all is.
func TestNoStore(t *testing.T) {
	h := with(t, v1alpha1.APIKeyAuth{}, nil, nil)
	o := judge(h, new(store).issue(t, "live"))
	if o.State != method.Waiting || o.Asks == "" {
		t.Fatalf("%+v", o)
	}
	if o = o.Wait(t.Context())(nil); o.State != method.Unavailable || o.Reason != "keys_unavailable" {
		t.Errorf("%+v", o)
	}
	if o = judge(h, "other"); o.Reason != "key_unknown" {
		t.Errorf("%+v", o)
	}
}

func TestStrip(t *testing.T) {
	no := false
	for _, tt := range []struct {
		spec v1alpha1.APIKeyAuth
		left int
	}{{v1alpha1.APIKeyAuth{}, 1}, {v1alpha1.APIKeyAuth{Strip: &no}, 2}} {
		h := with(t, tt.spec, nil, nil)
		x := &exchange.Exchange{}
		x.Request.Header.Append([]byte("x-api-key"), []byte("k"))
		x.Request.Header.Append([]byte("A"), []byte("1"))
		if h.Admit != nil {
			h.Admit(x)
		}
		if x.Request.Header.Len() != tt.left {
			t.Errorf("%q", x.Request.Header.All())
		}
	}
	h := with(t, v1alpha1.APIKeyAuth{}, nil, nil)
	x := &exchange.Exchange{}
	x.Request.Header.Append([]byte("X-API-Key"), []byte("k"))
	x.Request.Header.Append([]byte("X-API-Key"), []byte("l"))
	if o := h.Authenticate(x); o.State != method.Refused || o.Reason != "credential_repeated" {
		t.Errorf("two keys: %+v", o)
	}
	if want := `ApiKey realm="keys"`; h.Challenge != want {
		t.Errorf("challenge %s, want %s", h.Challenge, want)
	}
}

// followed is a store over the real database.
type followed struct{ keys *database.Keys }

func (f followed) Open() policy.Keys { return f }
func (f followed) Ready() bool {
	select {
	case <-f.keys.Ready():
		return true
	default:
		return false
	}
}
func (f followed) Lookup(hash *[32]byte, now time.Time) (policy.IssuedKey, bool) {
	e, ok := f.keys.Lookup(hash, now)
	return policy.IssuedKey{ID: e.ID, Application: e.Application, Env: e.Env, Scopes: e.Scopes}, ok
}

// TestDatabase: a key is good once the database has it, until it expires or is revoked.
func TestDatabase(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	db, err := database.Open(ctx, database.Options{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	f := followed{database.NewKeys()}
	h := with(t, v1alpha1.APIKeyAuth{Environments: []string{"live"}}, nil, f)
	n := database.NewKey{Env: "live", Application: "shop/app", Scopes: []string{"read"}, ExpiresAt: time.Now().Add(time.Hour)}
	text, key, err := db.CreateKey(ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	if o := judge(h, string(text.Reveal())); o.State != method.Unavailable {
		t.Errorf("before the keys are read: %+v", o)
	}
	over := make(chan error)
	go func() { over <- f.keys.Follow(ctx, db) }()
	<-f.keys.Ready()
	o := judge(h, string(text.Reveal()))
	if d := cmp.Diff(exchange.Identity{Subject: "shop/app", Application: "shop/app", CredentialID: key.ID, Scopes: []string{"read"}, Method: "keys"}, o.Identity); d != "" {
		t.Error(d)
	}
	late := &exchange.Exchange{Start: n.ExpiresAt}
	late.Request.Header.Append([]byte("X-API-Key"), text.Reveal())
	if o := h.Authenticate(late); o.Reason != "key_unknown" {
		t.Errorf("expired: %+v", o)
	}
	if err := db.RevokeKey(ctx, key.ID); err != nil {
		t.Fatal(err)
	}
	for revoked := time.Now(); judge(h, string(text.Reveal())).State == method.Accepted; time.Sleep(time.Millisecond) {
		if time.Since(revoked) > 10*time.Second {
			t.Fatal("a revoked key still works")
		}
	}
	stop()
	if err := <-over; err != nil {
		t.Error(err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// TestAlloc: what is accepted or refused costs no allocation.
func TestAlloc(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates; make test runs this without it too")
	}
	s, secrets := &store{}, &secret.Store{}
	secrets.Swap(secret.Set{handle: material("own", "hunter2")})
	yes := true
	spec := v1alpha1.APIKeyAuth{SecretRefs: mine, Issued: &yes, From: []v1alpha1.CredentialSource{{Cookie: "key"}, {Query: "key"}, {Header: "X-API-Key"}}}
	h := with(t, spec, secrets, s)
	x := &exchange.Exchange{}
	for name, prepare := range map[string]func(){
		"own":     func() { x.Request.Header.Append([]byte("X-API-Key"), []byte("hunter2")) },
		"unknown": func() { x.Request.Header.Append([]byte("X-API-Key"), []byte("hunter3")) },
		"issued":  func() { x.Request.Header.Append([]byte("X-API-Key"), []byte(s.issue(t, "live"))) },
		"cookie":  func() { x.Request.Header.Append([]byte("Cookie"), []byte("a=1; key=hunter2; b=2")) },
		"query":   func() { x.Request.Query, x.Request.HasQuery = []byte("a=1&k%65y=hunter%32&b=2"), true },
	} {
		x.Reset()
		prepare()
		request := x.Request
		fields := append([]exchange.Field(nil), x.Request.Header.All()...)
		if n := testing.AllocsPerRun(100, func() {
			x.Reset()
			header := x.Request.Header
			x.Request = request
			x.Request.Header = header
			for _, f := range fields {
				x.Request.Header.Append(f.Name, f.Value)
			}
			o := h.Authenticate(x)
			if (o.State == method.Accepted) != (name != "unknown") {
				t.Fatalf("%s: %+v", name, o)
			}
			h.Admit(x)
		}); n != 0 {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
}
