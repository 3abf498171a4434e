package oidc_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/policy/builtin"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// missing ends the test: a real provider could not be had.
func missing(t *testing.T, why string) {
	t.Helper()
	if slices.Contains(strings.Split(os.Getenv("GATEHOUSE_REQUIRE"), ","), "oidc") {
		t.Fatal("GATEHOUSE_REQUIRE names oidc, but " + why)
	}
	t.Skip(why)
}

// program builds the provider of test/oidc once.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "gatehouse-oidc-*")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "provider")
	build := exec.Command("go", "build", "-o", file, ".")
	build.Dir = filepath.Join("..", "..", "..", "..", "test", "oidc")
	if out, err := build.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("test/oidc does not build: %w: %s", err, out)
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if built {
		dir, _ := program()
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

var built bool

// provider starts a real OpenID provider and returns its issuer. It ends with the test.
func provider(t *testing.T, args ...string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("building the provider takes a while")
	}
	built = true
	dir, err := program()
	if err != nil {
		missing(t, err.Error())
	}
	c := exec.Command(filepath.Join(dir, "provider"), args...)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // it ends with its standard input
		in.Close()
		_ = c.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the provider said no issuer: %v", err)
	}
	return strings.TrimSpace(line)
}

// world is a provider, an edge before a backend, and a browser.
type world struct {
	*testing.T
	issuer  string
	browser *http.Client
	trail   []string // where the browser went, without queries
}

const site = "https://shop.example"

func newWorld(t *testing.T, spec map[string]any, args ...string) *world {
	t.Helper()
	w := &world{T: t, issuer: provider(t, append([]string{"-client", "web", "-secret", "s3cret+/"}, args...)...)}
	w.tell("/test/client", "redirect", site+"/oauth2/callback", "logout", site+"/")
	backend := edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=60")
		_ = json.NewEncoder(w).Encode(map[string]any{"path": r.RequestURI, "user": r.Header.Get("X-User"), "groups": r.Header.Get("X-Groups"),
			"cookie": r.Header.Get("Cookie"), "authorization": r.Header.Get("Authorization")})
	}))
	oidc := map[string]any{"issuer": w.issuer, "clientID": "web", "clientSecretRef": map[string]any{"name": "oidc"}, "scopes": []string{"profile", "groups", "offline_access"},
		"claimsToHeaders": []any{map[string]any{"claim": "sub", "header": "X-User"}, map[string]any{"claim": "groups", "header": "X-Groups"}}}
	for k, v := range spec {
		oidc[k] = v
	}
	programs := map[string]any{"url": w.issuer + "/oauth/introspect", "clientSecretRef": map[string]any{"name": "oidc"}, "audiences": []string{"web"},
		"claimsToHeaders": []any{map[string]any{"claim": "sub", "header": "X-User"}}}
	text, err := json.Marshal(map[string]any{"methods": []any{map[string]any{"name": "people", "oidc": oidc}, map[string]any{"name": "programs", "introspection": programs}}})
	if err != nil {
		t.Fatal(err)
	}
	c := edgetest.Simple()
	c.Hosts[0].Routes[0].Steps = []*ir.Step{{Name: "authn", Phase: "authenticate", Spec: text, Target: ir.Source{Kind: "HTTPRoute", Namespace: "test", Name: "r"},
		Refs: map[string]string{"methods[0].oidc.clientSecretRef": "Secret/test/oidc", "methods[1].introspection.clientSecretRef": "Secret/test/oidc"}}}
	pair := edgetest.Certificate(t, "shop.example")
	rig := edgetest.New(t, edgetest.Options{Steps: builtin.Steps(), Config: c, Clusters: map[string][]string{"c": {backend}},
		Listener: func(l *ir.Listener) {
			l.Protocol, l.TLS = ir.HTTPS, &ir.TLS{Certificates: []ir.Certificate{{Handle: "tls"}}}
		},
		Secrets: secret.Set{"tls": pair.Material, "Secret/test/oidc": {Data: map[string]secret.Value{"client_id": secret.New([]byte("web")), "client_secret": secret.New([]byte("s3cret+/\n"))}}}})
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pair.Pool}, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == "shop.example:443" {
			address = rig.Addr
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	w.ready(transport)
	w.browser = &http.Client{Jar: jar, Transport: transport, Timeout: 3 * edgetest.Wait, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		w.trail = append(w.trail, r.URL.Scheme+"://"+r.URL.Host+r.URL.Path)
		if len(w.trail) > 20 {
			return fmt.Errorf("sent round in a circle: %v", w.trail)
		}
		return nil
	}}
	return w
}

// ready waits until the edge has read the provider's keys: until then it answers 503.
func (w *world) ready(t http.RoundTripper) {
	w.Helper()
	for limit := time.Now().Add(edgetest.Wait); ; time.Sleep(5 * time.Millisecond) {
		req, err := http.NewRequestWithContext(w.Context(), "GET", site, nil)
		if err != nil {
			w.Fatal(err)
		}
		req.Header.Set("Accept", "text/html")
		res, err := t.RoundTrip(req)
		if err != nil {
			w.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode == 302 {
			return
		}
		if time.Now().After(limit) {
			w.Fatalf("without a session: %s", res.Status)
		}
	}
}

// tell has the provider change.
func (w *world) tell(path string, pairs ...string) {
	w.Helper()
	form := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	res, err := http.PostForm(w.issuer+path, form)
	if err != nil {
		w.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 200 {
		w.Fatalf("POST %s: %d", path, res.StatusCode)
	}
}

// get opens a page and follows where it leads.
func (w *world) get(target string, header ...string) (*http.Response, map[string]string) {
	w.Helper()
	w.trail = nil
	req, err := http.NewRequestWithContext(w.Context(), "GET", site+target, nil)
	if err != nil {
		w.Fatal(err)
	}
	req.Header.Set("Accept", "text/html,*/*;q=0.8")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := w.browser.Do(req)
	if err != nil {
		w.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		w.Fatal(err)
	}
	said := map[string]string{}
	_ = json.Unmarshal(body, &said)
	return res, said
}

// TestRealProvider: a browser without a session comes back with one to the page it asked for, by way of a real provider.
func TestRealProvider(t *testing.T) {
	for _, args := range [][]string{{"-alg", "RS256"}, {"-alg", "ES256"}, {"-post"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			w := newWorld(t, map[string]any{"forwardAccessToken": true}, args...)
			res, said := w.get("/cart?a=1", "Cookie", "mine=1", "X-User", "eve")
			if res.StatusCode != 200 || said["path"] != "/cart?a=1" || said["user"] != "ann" || said["groups"] != "staff" {
				t.Fatalf("%d %v by way of %v", res.StatusCode, said, w.trail)
			}
			if strings.Contains(said["cookie"], "gh_session") || !strings.HasPrefix(said["authorization"], "Bearer ") {
				t.Errorf("the backend sees the cookies %q and Authorization %.10q", said["cookie"], said["authorization"])
			}
			if want := []string{w.issuer + "/authorize", w.issuer + "/login", w.issuer + "/authorize/callback", site + "/oauth2/callback", site + "/cart"}; !slices.Equal(w.trail, want) {
				t.Errorf("the browser went\n%v, want\n%v", w.trail, want)
			}
			if res, said = w.get("/again", "Authorization", "Basic eve"); res.StatusCode != 200 || len(w.trail) != 0 || !strings.HasPrefix(said["authorization"], "Bearer ") {
				t.Errorf("with a session: %d by way of %v", res.StatusCode, w.trail)
			}
			token := said["authorization"]
			jar := w.browser.Jar
			w.browser.Jar = nil // a program: the token alone, of which introspection asks the same provider
			if res, said = w.get("/", "Authorization", token); res.StatusCode != 200 || said["user"] != "ann" || len(w.trail) != 0 {
				t.Errorf("with the access token: %d %v by way of %v", res.StatusCode, said, w.trail)
			}
			if res, _ = w.get("/", "Authorization", "Bearer eve"); res.StatusCode != 401 {
				t.Errorf("with a made-up token: %d", res.StatusCode)
			}
			w.browser.Jar = jar
			if res, _ = w.get("/logout"); res.StatusCode != 200 || !slices.Contains(w.trail, w.issuer+"/end_session") || !slices.Contains(w.trail, site+"/") {
				t.Errorf("logging out: %d by way of %v", res.StatusCode, w.trail)
			}
		})
	}
}

// TestRealRenewal: short tokens are renewed with refresh tokens that are good once, also by many requests at a time; once the provider has
// taken them back, people log in anew.
func TestRealRenewal(t *testing.T) {
	w := newWorld(t, nil, "-lifetime", "3s", "-alg", "ES256")
	w.get("/")
	var renewed atomic.Int64
	began := time.Now()
	for time.Since(began) < 4*time.Second { // past the end of the first tokens, and of those that took their place
		var wg sync.WaitGroup
		for range 8 {
			c := *w
			browser := *w.browser
			browser.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			c.browser = &browser
			wg.Go(func() {
				res, said := c.get("/many")
				if res.StatusCode != 200 || said["user"] != "ann" {
					t.Errorf("after %s: %d %v", time.Since(began), res.StatusCode, said)
				}
				if cookies := len(res.Cookies()); cookies > 0 {
					renewed.Add(1)
					if res.Header.Get("Cache-Control") != "no-store" {
						t.Errorf("an answer with %d cookies has Cache-Control %q", cookies, res.Header.Get("Cache-Control"))
					}
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		time.Sleep(200 * time.Millisecond) // real time passes: the provider's clock is its own
	}
	if renewed.Load() == 0 {
		t.Error("no session was renewed")
	}
	w.tell("/test/revoke")
	time.Sleep(3 * time.Second)
	if res, _ := w.get("/x", "Accept", "application/json"); res.StatusCode != 401 {
		t.Errorf("a script, once the refresh token was taken back: %d", res.StatusCode)
	}
	if res, said := w.get("/x"); res.StatusCode != 200 || said["user"] != "ann" || len(w.trail) == 0 {
		t.Errorf("a page, once the refresh token was taken back: %d %v", res.StatusCode, said)
	}
}

// TestRealDenial: who does not get in at the provider gets 403 here, and may try again.
func TestRealDenial(t *testing.T) {
	w := newWorld(t, nil)
	at, _ := url.Parse(w.issuer)
	w.browser.Jar.SetCookies(at, []*http.Cookie{{Name: "person", Value: "denied"}})
	if res, _ := w.get("/"); res.StatusCode != 403 || res.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("who is denied gets %d by way of %v", res.StatusCode, w.trail)
	}
	w.browser.Jar.SetCookies(at, []*http.Cookie{{Name: "person", Value: "bob"}})
	if res, said := w.get("/"); res.StatusCode != 200 || said["user"] != "bob" {
		t.Errorf("on trying again: %d %v", res.StatusCode, said)
	}
	w = newWorld(t, map[string]any{"clientID": "other"})
	if res, _ := w.get("/"); res.StatusCode != 400 || !strings.HasPrefix(w.trail[len(w.trail)-1], w.issuer) {
		t.Errorf("a client that the provider does not know: %d by way of %v", res.StatusCode, w.trail)
	}
}

// TestRealRotation: a token signed with a key that is new says nothing about who logs in: keys are fetched twice a minute at most, and the
// first were fetched a moment ago. Sessions go on.
func TestRealRotation(t *testing.T) {
	w := newWorld(t, nil)
	w.get("/")
	w.tell("/test/rotate")
	if res, said := w.get("/"); res.StatusCode != 200 || said["user"] != "ann" || len(w.trail) != 0 {
		t.Errorf("a session after a rotation: %d %v", res.StatusCode, said)
	}
	jar, _ := cookiejar.New(nil)
	w.browser.Jar = jar
	if res, _ := w.get("/"); res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("a login after a rotation: %d", res.StatusCode)
	}
}
