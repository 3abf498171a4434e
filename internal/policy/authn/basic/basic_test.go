package basic

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// store is a SecretStore of one Secret.
type store struct{ m *secret.Material }

func (s *store) Lookup(string) *secret.Material { return s.m }

func (s *store) put(kv ...string) {
	s.m = &secret.Material{Data: map[string]secret.Value{}}
	for i := 0; i < len(kv); i += 2 {
		s.m.Data[kv[i]] = secret.New([]byte(kv[i+1]))
	}
}

// hashed makes a bcrypt line as htpasswd -B does.
func hashed(t testing.TB, user, password string) string {
	t.Helper()
	b, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return user + ":$2y$" + string(b[4:]) + "\n"
}

// argon makes an argon2id line.
func argon(user, password string) string {
	salt := []byte("saltsaltsaltsalt")
	sum := argon2.IDKey([]byte(password), salt, 1, 64, 1, 32)
	b := base64.RawStdEncoding
	return user + ":$argon2id$v=19$m=64,t=1,p=1$" + b.EncodeToString(salt) + "$" + b.EncodeToString(sum) + "\n"
}

func compiled(t testing.TB, s *store, spec v1alpha1.BasicAuth) method.Handler {
	t.Helper()
	spec.SecretRef.Name = "users"
	h, err := Compile("staff", &spec, policy.Env{Secret: s, Refs: map[string]string{refSecret: "Secret/shop/users"}})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func request(values ...string) *exchange.Exchange {
	x := &exchange.Exchange{Start: time.Unix(1_700_000_000, 0)}
	for _, v := range values {
		x.Request.Header.Append([]byte("Authorization"), []byte(v))
	}
	return x
}

func credential(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// judge runs a method to its end; waited says whether something was hashed beside.
func judge(h *method.Handler, x *exchange.Exchange) (o method.Outcome, waited bool) {
	for o = h.Authenticate(x); o.State == method.Waiting; waited = true {
		o = o.Wait(context.Background())(x)
	}
	return o, waited
}

func TestCredentials(t *testing.T) {
	var s store
	s.put("auth", "# staff\r\n\n"+hashed(t, "ann", "open: sesame")+argon("böb", "pässword")+argon("ann", "second line")+
		"old:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\nmd:$apr1$abc$def\n"+"nocolon\n"+hashed(t, "note", "x")[:len("note:")+bcryptLen]+":a comment\n")
	h := compiled(t, &s, v1alpha1.BasicAuth{})
	long := strings.Repeat("p", maxBcrypt+1)
	for _, tt := range []struct {
		name, value string
		state       method.State
		reason, who string
	}{
		{"none", "", method.Absent, "", ""},
		{"another scheme", "Bearer abc", method.Absent, "", ""},
		{"bcrypt", credential("ann", "open: sesame"), method.Accepted, "", "ann"},
		{"scheme in other case", "bAsIc " + credential("ann", "open: sesame")[6:], method.Accepted, "", "ann"},
		{"argon2id, not ASCII", credential("böb", "pässword"), method.Accepted, "", "böb"},
		{"a comment behind the hash", credential("note", "x"), method.Accepted, "", "note"},
		{"wrong password", credential("ann", "open sesame"), method.Refused, "credentials_invalid", ""},
		{"empty password", credential("ann", ""), method.Refused, "credentials_invalid", ""},
		{"the second line of a user", credential("ann", "second line"), method.Refused, "credentials_invalid", ""},
		{"unknown user", credential("eve", "x"), method.Refused, "credentials_invalid", ""},
		{"unknown user with the password of the first", credential("eve", "open: sesame"), method.Refused, "credentials_invalid", ""},
		{"no user", credential("", "x"), method.Refused, "credentials_invalid", ""},
		{"user in other case", credential("Ann", "open: sesame"), method.Refused, "credentials_invalid", ""},
		{"SHA-1 is refused", credential("old", "password"), method.Refused, "credentials_invalid", ""},
		{"unusable, with the password of the first", credential("md", "open: sesame"), method.Refused, "credentials_invalid", ""},
		{"longer than bcrypt reads", credential("ann", long), method.Refused, "credentials_invalid", ""},
		{"not base64", "Basic ann:open", method.Refused, "credential_malformed", ""},
		{"no colon", "Basic " + base64.StdEncoding.EncodeToString([]byte("ann")), method.Refused, "credential_malformed", ""},
		{"control character", credential("ann\x00", "x"), method.Refused, "credential_malformed", ""},
		{"long user", credential(strings.Repeat("u", maxUser+1), "x"), method.Refused, "credential_malformed", ""},
		{"long password", credential("ann", strings.Repeat("p", maxPassword+1)), method.Refused, "credential_malformed", ""},
		{"very long", credential(strings.Repeat("u", 1<<16), "x"), method.Refused, "credential_malformed", ""},
		{"at the bounds", credential(strings.Repeat("u", maxUser), strings.Repeat("p", maxBcrypt)), method.Refused, "credentials_invalid", ""},
	} {
		x := request()
		if tt.value != "" {
			x = request(tt.value)
		}
		o, _ := judge(&h, x)
		if o.State != tt.state || o.Reason != tt.reason || o.Identity.Subject != tt.who {
			t.Errorf("%s: %v %q %q (%s), want %v %q %q", tt.name, o.State, o.Reason, o.Identity.Subject, o.Detail, tt.state, tt.reason, tt.who)
		}
		if strings.Contains(o.Detail, "sesame") || strings.Contains(o.Detail, "pässword") {
			t.Errorf("%s: the detail holds a password: %s", tt.name, o.Detail)
		}
	}
	o, _ := judge(&h, request(credential("ann", "x"), credential("eve", "x")))
	if o.Reason != "credential_repeated" {
		t.Errorf("two credentials: %v", o)
	}
	o, _ = judge(&h, request(credential("ann", "open: sesame")))
	want := exchange.Identity{Subject: "ann", CredentialID: "Secret/shop/users/ann", Method: "staff"}
	if d := cmp.Diff(want, o.Identity); d != "" {
		t.Errorf("identity (-want +got):\n%s", d)
	}
	x := request(credential("md", "x"))
	x.Dry = true
	if o := h.Authenticate(x); o.State != method.Refused || o.Detail != "the hash is neither bcrypt nor argon2id" {
		t.Errorf("explained: %+v", o)
	}
	x = request(credential("ann", "open: sesame"))
	x.Dry = true
	if o := h.Authenticate(x); o.State != method.Accepted {
		t.Errorf("explained: %+v", o)
	}
}

func TestSecretMissing(t *testing.T) {
	var s store
	h := compiled(t, &s, v1alpha1.BasicAuth{})
	ask := func() method.Outcome { o, _ := judge(&h, request(credential("ann", "x"))); return o }
	if o := ask(); o.State != method.Unavailable || o.Reason != "users_unavailable" {
		t.Errorf("without the Secret: %+v", o)
	}
	s.put("a", hashed(t, "ann", "x"), "b", "")
	if o := ask(); o.State != method.Refused || !strings.Contains(o.Detail, "no key auth") {
		t.Errorf("with two keys: %+v", o)
	}
	s.put("a", "ann:x\n")
	if o := ask(); o.State != method.Refused || !strings.Contains(o.Detail, "no line") {
		t.Errorf("without a usable line: %+v", o)
	}
	s.put("users", hashed(t, "ann", "x"))
	if o := ask(); o.State != method.Accepted {
		t.Errorf("with one key: %+v", o)
	}
	s.put("other", "", "auth", hashed(t, "ann", "x"))
	if o := ask(); o.State != method.Accepted {
		t.Errorf("with the key auth: %+v", o)
	}
}

func TestRightPasswordsAreRememberedForAMinute(t *testing.T) {
	var s store
	s.put("auth", hashed(t, "ann", "x"))
	h := compiled(t, &s, v1alpha1.BasicAuth{})
	at := func(d time.Duration, user, password string) (method.State, bool) {
		x := request(credential(user, password))
		x.Start = x.Start.Add(d)
		o, waited := judge(&h, x)
		return o.State, waited
	}
	steps := []struct {
		after          time.Duration
		user, password string
		state          method.State
		waited         bool
	}{
		{0, "ann", "x", method.Accepted, true},
		{0, "ann", "x", method.Accepted, false},
		{59 * time.Second, "ann", "x", method.Accepted, false},
		{60 * time.Second, "ann", "x", method.Accepted, true},
		{60 * time.Second, "ann", "y", method.Refused, true},
		{60 * time.Second, "ann", "y", method.Refused, true}, // wrong ones are not remembered
		{60 * time.Second, "eve", "x", method.Refused, true},
	}
	for i, st := range steps {
		if state, waited := at(st.after, st.user, st.password); state != st.state || waited != st.waited {
			t.Errorf("step %d: %v, waited %v, want %v, %v", i, state, waited, st.state, st.waited)
		}
	}
	s.put("auth", hashed(t, "ann", "z"))
	if state, _ := at(time.Minute, "ann", "x"); state != method.Refused {
		t.Errorf("the old password after a change: %v", state)
	}
	s.put("auth", "")
	if state, _ := at(time.Minute, "ann", "z"); state != method.Refused {
		t.Errorf("a user that is gone: %v", state)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	g, _ := openGate()
	var digest [32]byte
	for i := range 3 * maxKept {
		tag := g.desk().tag([]byte("ann"), fmt.Appendf(nil, "%d", i), &digest)
		g.remember(&tag, 0)
		if n := len(g.young) + len(g.old); n > maxKept {
			t.Fatalf("%d are kept, want at most %d", n, maxKept)
		}
		if !g.seen(&tag, 1) {
			t.Fatalf("the last of %d is forgotten", i)
		}
	}
	// A colon more in the user is not a colon less in the password.
	if g.desk().tag([]byte("a"), []byte("b:c"), &digest) == g.desk().tag([]byte("a:b"), []byte("c"), &digest) {
		t.Error("two users share a tag")
	}
}

func TestHashesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := openGate()
		release := make(chan struct{})
		var mu sync.Mutex
		count := map[string]int{}
		running, most := 0, 0
		ctx, cancel := context.WithCancel(t.Context())
		extra := 10
		for range cap(g.turns) + maxWaiting + extra {
			go func() {
				o := g.hash(ctx, func() method.Outcome {
					mu.Lock()
					running++
					most = max(most, running)
					mu.Unlock()
					<-release
					mu.Lock()
					running--
					mu.Unlock()
					return method.Outcome{State: method.Accepted}
				})
				mu.Lock()
				count[o.Reason+o.Detail]++
				mu.Unlock()
			}()
			synctest.Wait()
		}
		if n := count["auth_overloadedtoo many passwords wait to be hashed"]; n != extra {
			t.Errorf("%d were refused, want %d: %v", n, extra, count)
		}
		cancel()
		synctest.Wait()
		if n := count["auth_overloadedthe request ended before its password was hashed"]; n != maxWaiting {
			t.Errorf("%d gave up with their context, want %d: %v", n, maxWaiting, count)
		}
		close(release)
		synctest.Wait()
		if most != cap(g.turns) || count[""] != most || g.waiting.Load() != 0 || most > maxAtOnce {
			t.Errorf("%d at once, %v, %d waiting, want %d", most, count, g.waiting.Load(), cap(g.turns))
		}
	})
}

func TestUnknownUserCostsAHash(t *testing.T) {
	var s store
	s.put("auth", "old:{SHA}x\n"+hashed(t, "ann", "x"))
	h := compiled(t, &s, v1alpha1.BasicAuth{})
	for _, user := range []string{"ann", "eve", "old"} {
		o, waited := judge(&h, request(credential(user, "wrong")))
		if !waited || o.State != method.Refused || o.Reason != "credentials_invalid" {
			t.Errorf("%s: waited %v, %v %s", user, waited, o.State, o.Reason)
		}
	}
}

func TestHashesThatAreNotUsed(t *testing.T) {
	good := strings.TrimSpace(strings.TrimPrefix(argon("a", "x"), "a:"))
	if e := newEntry(good); e.kind != argon2idHash {
		t.Fatalf("%s: %s", good, e.problem)
	}
	for _, hash := range []string{
		"", "x", "$1$abc$def", "$apr1$a$b", "$5$a$b", "$2x$10$" + strings.Repeat("a", 53), "$2y$15$" + strings.Repeat("a", 53),
		"$2y$10$short", "$2y$10$" + strings.Repeat("a", 54), "$2y$10$" + strings.Repeat("!", 53), "$2y$xx$" + strings.Repeat("a", 53),
		"$argon2i$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdA", strings.Replace(good, "m=64", "m=65537", 1),
		strings.Replace(good, "t=1", "t=11", 1), strings.Replace(good, "p=1", "p=5", 1), strings.Replace(good, "t=1", "t=0", 1),
		strings.Replace(good, "p=1", "p=0", 1), strings.Replace(good, "m=64", "m=7", 1), strings.Replace(good, "v=19", "v=16", 1),
		strings.Replace(good, "m=64,t=1", "t=1,m=64", 1), good + "=", good + "$", strings.Replace(good, "m=64", "m=99999999999", 1),
		strings.Replace(good, "m=64", "m=-1", 1),
	} {
		if e := newEntry(hash); e.kind != unusable || e.problem == "" || e.matches([]byte("x")) {
			t.Errorf("%s is taken for %v", hash, e.kind)
		}
	}
}

func TestCompile(t *testing.T) {
	h, err := Compile("staff", &v1alpha1.BasicAuth{SecretRef: v1alpha1.LocalSecretRef{Name: "u"}}, policy.Env{})
	if err != nil || h.Challenge != `Basic realm="staff", charset="UTF-8"` {
		t.Errorf("%q, %v", h.Challenge, err)
	}
	if o := h.Authenticate(request(credential("a", "b"))); o.State != method.Unavailable {
		t.Errorf("with nothing of the world: %+v", o)
	}
	h, err = Compile("staff", &v1alpha1.BasicAuth{SecretRef: v1alpha1.LocalSecretRef{Name: "u"}, Realm: `a "b" \c`}, policy.Env{})
	if err != nil || h.Challenge != `Basic realm="a \"b\" \\c", charset="UTF-8"` {
		t.Errorf("%q, %v", h.Challenge, err)
	}
	_, err = Compile("staff", &v1alpha1.BasicAuth{Realm: "a\r\nSet-Cookie: x"}, policy.Env{})
	var paths []string
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		var p *diag.Problem
		if errors.As(e, &p) {
			paths = append(paths, p.Path)
		}
	}
	if d := cmp.Diff([]string{"secretRef.name", "realm"}, paths); d != "" {
		t.Errorf("faults (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]policy.Ref{{Path: "secretRef", Kind: "Secret", Name: "u"}}, Refs(&v1alpha1.BasicAuth{SecretRef: v1alpha1.LocalSecretRef{Name: "u"}})); d != "" {
		t.Error(d)
	}
}

func TestStrip(t *testing.T) {
	off := false
	var s store
	if h := compiled(t, &s, v1alpha1.BasicAuth{Strip: &off}); h.Admit != nil {
		t.Error("strip: false strips")
	}
	h := compiled(t, &s, v1alpha1.BasicAuth{})
	x := request(credential("a", "b"), "Bearer kept")
	h.Admit(x)
	if n := x.Request.Header.Len(); n != 1 || string(x.Request.Header.Get("Authorization")) != "Bearer kept" {
		t.Errorf("%d fields are left: %s", n, x.Request.Header.Get("Authorization"))
	}
}

func TestRememberedPasswordAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("under the race detector a sync.Pool forgets at random")
	}
	var s store
	s.put("auth", hashed(t, "ann", "x"))
	h := compiled(t, &s, v1alpha1.BasicAuth{})
	x := request(credential("ann", "x"))
	judge(&h, x)
	if n := testing.AllocsPerRun(100, func() { h.Authenticate(x) }); n > 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func FuzzCredential(f *testing.F) {
	f.Add([]byte("ann:x"))
	f.Add([]byte(":"))
	f.Add([]byte("\xff:\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		user, password, problem := split(b)
		if problem == "" && string(user)+":"+string(password) != string(b) {
			t.Fatalf("split(%q) = %q, %q", b, user, password)
		}
	})
}

func FuzzHash(f *testing.F) {
	f.Add("$2y$04$" + strings.Repeat("a", 53))
	f.Add(strings.TrimSpace(strings.TrimPrefix(argon("a", "x"), "a:")))
	f.Fuzz(func(t *testing.T, hash string) {
		e := newEntry(hash)
		if (e.kind == unusable) != (e.problem != "") || e.memory > maxMemory || e.passes > maxPasses || e.lanes > maxLanes {
			t.Fatalf("newEntry(%q) = %+v", hash, e)
		}
	})
}

func BenchmarkRemembered(b *testing.B) {
	var s store
	s.put("auth", hashed(b, "ann", "x"))
	h := compiled(b, &s, v1alpha1.BasicAuth{})
	x := request(credential("ann", "x"))
	judge(&h, x)
	b.ReportAllocs()
	for b.Loop() {
		h.Authenticate(x)
	}
}

// BenchmarkHash measures what a guess costs, for docs/design/basic.md.
func BenchmarkHash(b *testing.B) {
	salt := base64.RawStdEncoding.EncodeToString(make([]byte, 16))
	sum := base64.RawStdEncoding.EncodeToString(make([]byte, 32))
	for name, hash := range map[string]string{
		"bcrypt 10": "$2y$10$" + strings.Repeat("a", 53), "bcrypt 14": "$2y$14$" + strings.Repeat("a", 53),
		"argon2id 64MiB,3,4": "$argon2id$v=19$m=65536,t=3,p=4$" + salt + "$" + sum,
	} {
		b.Run(name, func(b *testing.B) {
			e := newEntry(hash)
			for b.Loop() {
				e.matches([]byte("guess"))
			}
		})
	}
}
