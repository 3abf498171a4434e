package main

import (
	"bytes"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/database"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// flagsOf are store flags with values by name.
func flagsOf(values map[string]string) storeFlags {
	at := func(name string) *string { v := values[name]; return &v }
	return storeFlags{database: &databaseFlags{data: at("data"), url: at("database"), file: at("database-file")},
		redis: at("redis"), redisFile: at("redis-file"), geoip: at("geoip")}
}

func TestStoreFlags(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	good, empty, junk := write("good", "redis://user:hunter2@127.0.0.1:6379/1\n"), write("empty", " \n"), write("junk", "http://user:hunter2@host")
	for _, tt := range []struct {
		flags map[string]string
		want  string // "" is no error
		usage bool
	}{
		{nil, "", false},
		{map[string]string{"redis-file": good, "data": filepath.Join(dir, "none")}, "", false},
		{map[string]string{"redis": "redis://h", "redis-file": good}, "write --redis or --redis-file, not both", true},
		{map[string]string{"redis-file": empty}, "is empty: write the URL into it", false},
		{map[string]string{"redis-file": filepath.Join(dir, "missing")}, "--redis-file: open", false},
		{map[string]string{"redis-file": junk}, `--redis-file: the URL of Redis has the scheme "http"`, true},
		{map[string]string{"redis": "redis://user:hunter2@h:x"}, "--redis: the URL of Redis", true},
		{map[string]string{"redis": "redis://user:hunter2%zz@h"}, "--redis: the URL of Redis", true},
		{map[string]string{"redis": "redis://user:hunter2@h/a"}, "which is no number", true},
		{map[string]string{"data": dir, "database": "postgres://u:hunter2@h/d"}, "", true},
		{map[string]string{"database": "postgres://u:hunter2@h/d", "database-file": good}, "not both", true},
		{map[string]string{"geoip": filepath.Join(dir, "missing")}, "--geoip: open", false},
		{map[string]string{"geoip": junk}, "is no MaxMind database", false},
	} {
		s, err := newStores(flagsOf(tt.flags), slog.New(slog.DiscardHandler))
		if s != nil {
			s.close()
		}
		var u *usageError
		if tt.want == "" && !tt.usage {
			if err != nil {
				t.Errorf("%v: %v", tt.flags, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) || errors.As(err, &u) != tt.usage {
			t.Errorf("%v: %v (of usage: %v), want %s", tt.flags, err, errors.As(err, &u), tt.want)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v shows the password: %v", tt.flags, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "none")); !os.IsNotExist(err) {
		t.Errorf("--data was made without a policy: %v", err)
	}
}

func TestCountries(t *testing.T) {
	var db tree
	db.put("192.0.2.0/24", "DE")
	db.put("192.0.3.0/25", "")
	db.put("2001:db8::/32", "FR")
	file := db.file(t)
	s, err := newStores(flagsOf(map[string]string{"geoip": file}), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if err := os.Truncate(file, 0); err != nil { // somebody writes a new one over it
		t.Fatal(err)
	}
	for address, want := range map[string]string{"192.0.2.7": "DE", "192.0.2.255": "DE", "192.0.1.7": "", "192.0.3.7": "", "192.0.3.200": "", "2001:db8::1": "FR", "2001:db9::1": ""} {
		if got, ok := s.country(netip.MustParseAddr(address)); got != want || !ok {
			t.Errorf("%s is in %q (%v), want %q", address, got, ok, want)
		}
	}
}

// TestNoDatabase: without one, nothing is known of issued keys, and the log says once what to write.
func TestNoDatabase(t *testing.T) {
	var log bytes.Buffer
	s, err := newStores(flagsOf(nil), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for range 2 {
		k := s.Open()
		if _, ok := k.Lookup(&[32]byte{}, time.Now()); ok || k.Ready() {
			t.Error("knows keys")
		}
	}
	if n := strings.Count(log.String(), "--data DIR"); n != 1 {
		t.Errorf("said %d times: %s", n, log.String())
	}
}

// TestKeysAdapter: what the database knows of a key arrives.
func TestKeysAdapter(t *testing.T) {
	o := database.Options{Data: t.TempDir()}
	db, err := database.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	issued, key, err := db.CreateKey(t.Context(), database.NewKey{Env: "test", Application: "shop/app", Scopes: []string{"read"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := newStores(flagsOf(map[string]string{"data": o.Data}), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	var keys policy.Keys = s.Open()
	<-s.lazy.Keys().Ready()
	hash := issued.Hash()
	got, ok := keys.Lookup(&hash, time.Now())
	if !ok || !keys.Ready() || got.ID != key.ID || got.Application != "shop/app" || got.Env != "test" || len(got.Scopes) != 1 {
		t.Errorf("%v %+v", ok, got)
	}
}

const onGateway = `
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: shop}]
`

const yearly = `apiVersion: gatehouse.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: year, namespace: shop}
spec:` + onGateway + `  defaults: {limits: {year: {quota: {limit: 5, window: Year}}}}
`

const keysOnly = `apiVersion: gatehouse.dev/v1alpha1
kind: AuthPolicy
metadata: {name: keys, namespace: shop}
spec:` + onGateway + `  defaults: {authentication: {methods: [{name: keys, apiKey: {}}]}}
`

// serveWith starts a process on the shop with one more manifest.
func serveWith(t *testing.T, manifest string, args ...string) *server {
	t.Helper()
	s := prepare(t)
	if manifest != "" {
		s.write("policy.yaml", manifest)
	}
	s.start(args...)
	s.eventually("readyz is 200", func() bool { return s.status(s.health, "/readyz") == 200 })
	return s
}

// again starts a process after the one before, or beside it on ports of its own.
func (s *server) again(beside bool, args ...string) *server {
	s.t.Helper()
	n := &server{t: s.t, dir: s.dir, httpPort: s.httpPort, httpsPort: s.httpsPort, gateway: s.gateway, gatewayTLS: s.gatewayTLS, health: s.health, admin: s.admin,
		web: s.web, api: s.api, canary: s.canary, ended: make(chan struct{})}
	if beside {
		ports := freePorts(s.t, 6)
		n.dir = s.t.TempDir()
		if err := os.CopyFS(n.dir, os.DirFS(s.dir)); err != nil {
			s.t.Fatal(err)
		}
		n.httpPort, n.httpsPort, n.health, n.admin = ports[0], ports[1], "127.0.0.1:"+ports[4], "127.0.0.1:"+ports[5]
		n.gateway, n.gatewayTLS = ports[2], ports[3]
		n.edit("gateway.yaml", "port: "+s.gateway, "port: "+n.gateway, "port: "+s.gatewayTLS, "port: "+n.gatewayTLS)
	}
	n.start(args...)
	n.eventually("readyz is 200", func() bool { return n.status(n.health, "/readyz") == 200 })
	return n
}

// passes counts the requests that pass until one does not, at most 20; reason is of the first that does not.
func (s *server) passes() (n int) {
	s.t.Helper()
	for ; n < 20; n++ {
		if a := s.get(request{port: s.gateway, path: "/"}); a.status != 200 {
			if a.status != 429 {
				s.t.Fatalf("%d %s", a.status, a.body)
			}
			return n
		}
	}
	return n
}

// TestDataUntouched: nothing is opened that no policy asks for.
func TestDataUntouched(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing")
	limits := strings.ReplaceAll(yearly, "quota: {limit: 5, window: Year}", "rates: [{limit: 5, period: 1h}]")
	for data, manifest := range map[string]string{missing: "", dir: limits} {
		s := serveWith(t, manifest, "--data", data, "--redis", "redis://127.0.0.1:1")
		if a := s.get(request{port: s.gateway, path: "/"}); a.status != 200 {
			t.Errorf("%d %s", a.status, a.body)
		}
		s.signal(syscall.SIGTERM)
		if code := s.exit(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v in --data, %v", left, err)
	}
}

// TestQuotaSurvives: what a quota counted is there after the process ended, as it should or not.
func TestQuotaSurvives(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			data := []string{"--data", t.TempDir()}
			s := serveWith(t, yearly, data...)
			for range 3 {
				if a := s.get(request{port: s.gateway, path: "/"}); a.status != 200 {
					t.Fatalf("%d %s", a.status, a.body)
				}
			}
			if sig == syscall.SIGKILL {
				time.Sleep(1100 * time.Millisecond) // what it may lose is the last second
			}
			s.signal(sig)
			s.exit()
			s = s.again(false, data...)
			if n := s.passes(); n != 2 {
				t.Errorf("%d more passed, want 2", n)
			}
		})
	}
}

// key runs the command key and returns what it prints.
func key(t *testing.T, args ...string) string {
	t.Helper()
	c := exec.Command(os.Args[0], append([]string{"key"}, args...)...)
	c.Env = append(os.Environ(), asProgram+"=1")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("key %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// issuedKey makes a key; it returns its text and id.
func issuedKey(t *testing.T, where ...string) (text, id string) {
	t.Helper()
	out := key(t, append([]string{"create", "--application", "shop/app"}, where...)...)
	for w := range strings.FieldsSeq(out) {
		if parts := strings.Split(w, "_"); len(parts) == 5 && parts[0] == "gh" {
			return w, parts[2]
		}
	}
	t.Fatalf("no key in %s", out)
	return "", ""
}

// reach sends requests until they are answered so, and returns how long that took.
func (s *server) reach(text string, status int) time.Duration {
	s.t.Helper()
	began := time.Now()
	s.eventually("a key is answered", func() bool {
		return s.get(request{port: s.gateway, path: "/", header: [2]string{"X-API-Key", text}}).status == status
	})
	return time.Since(began)
}

// TestKeyRevoked: a key works once it is made, and no more within a second of its revocation; on all processes of a database.
func TestKeyRevoked(t *testing.T) {
	for name, where := range map[string]func(*testing.T) []string{
		"sqlite":   func(t *testing.T) []string { return []string{"--data", t.TempDir()} },
		"postgres": func(t *testing.T) []string { return []string{"--database", newPostgres(t)} },
	} {
		t.Run(name, func(t *testing.T) {
			at := where(t)
			processes := []*server{serveWith(t, keysOnly, at...)}
			if name == "postgres" {
				processes = append(processes, processes[0].again(true, at...))
			}
			text, id := issuedKey(t, at...)
			for _, s := range processes {
				s.reach(text, 200)
			}
			key(t, append([]string{"revoke", id}, at...)...)
			for _, s := range processes {
				if took := s.reach(text, 401); took > time.Second {
					t.Errorf("the key worked %v after it was revoked", took)
				}
			}
		})
	}
}

// TestQuotaTogether: two processes on one database count a quota together, in time.
func TestQuotaTogether(t *testing.T) {
	at := []string{"--database", newPostgres(t)}
	one := serveWith(t, yearly, at...)
	two := one.again(true, at...)
	for _, s := range []*server{one, one, one, two} {
		if a := s.get(request{port: s.gateway, path: "/"}); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	for _, s := range []*server{one, two} { // each has told the database what it counted
		s.signal(syscall.SIGTERM)
		s.exit()
	}
	if n := one.again(false, at...).passes(); n != 1 {
		t.Errorf("%d more passed, want 1", n)
	}
}

// TestCountryPolicy: the real process tells the country of a client.
func TestCountryPolicy(t *testing.T) {
	var db tree
	db.put("127.0.0.0/8", "DE")
	only := func(country string) string {
		return strings.ReplaceAll(keysOnly, "authentication: {methods: [{name: keys, apiKey: {}}]}", "authorization: {rules: {home: {require: {countries: ["+country+"]}}}}")
	}
	s := serveWith(t, only("DE"), "--geoip", db.file(t))
	if a := s.get(request{port: s.gateway, path: "/"}); a.status != 200 {
		t.Errorf("from home: %d %s", a.status, a.body)
	}
	s.write("policy.yaml", only("FR"))
	s.eventually("another country is refused", func() bool { return s.get(request{port: s.gateway, path: "/"}).status == 403 })
}
