package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

const token = "0123456789abcdef-token"

func values() Values {
	return Values{
		Routes: func(asJSON bool) ([]byte, error) {
			if asJSON {
				return []byte(`{"routes":[]}`), nil
			}
			return []byte("LISTENER  HOST\n"), nil
		},
		Explain: func(q Query, asJSON bool) ([]byte, error) {
			if q.URL == "bad" {
				return nil, &BadRequest{"bad is not a URL"}
			}
			return json.Marshal(q)
		},
		Config: func() (any, error) { return nil, errors.New("no snapshot yet") },
	}
}

// ask sends one request to h; header is "Name: value" lines.
func ask(h http.Handler, method, target, host string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	r.Host = host
	for _, l := range header {
		name, value, _ := strings.Cut(l, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// reason is the reason word of a problem document, or "" if the answer is none.
func reason(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	if w.Header().Get("Content-Type") != "application/problem+json" {
		return ""
	}
	var p struct {
		Status int
		Reason string
	}
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Status != w.Code {
		t.Errorf("problem document %q of an answer %d: %v", w.Body, w.Code, err)
	}
	return p.Reason
}

func TestHealth(t *testing.T) {
	missing, draining := []string{"caches", "first snapshot"}, false
	h := Health{Waiting: func() []string { return missing }, Draining: func() bool { return draining },
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "up 1\n") })}.Handler()
	check := func(method, path string, status int, word, body string) {
		t.Helper()
		w := ask(h, method, path, "10.0.0.1:9902")
		if w.Code != status || reason(t, w) != word || !strings.Contains(w.Body.String(), body) {
			t.Errorf("%s %s = %d %q, want %d %s %q", method, path, w.Code, w.Body, status, word, body)
		}
	}
	check("GET", "/healthz", 200, "", "ok")
	check("GET", "/readyz", 503, "not_ready", "waiting for caches, first snapshot")
	missing = nil
	check("GET", "/readyz", 200, "", "ok")
	check("HEAD", "/readyz", 200, "", "")
	check("GET", "/metrics", 200, "", "up 1")
	draining = true
	check("GET", "/readyz", 503, "draining", "")
	check("GET", "/healthz", 200, "", "ok")
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		check("POST", path, 405, "method_not_allowed", "")
		check("DELETE", path, 405, "method_not_allowed", "")
	}
	for _, path := range []string{"/", "/debug/config", "/debug/pprof/", "/debug/routes", "/healthz/x", "/metrics/"} {
		check("GET", path, 404, "not_found", "")
	}
}

func TestAdminPages(t *testing.T) {
	h := New(values(), Options{})
	for _, c := range []struct {
		method, target string
		status         int
		word, body     string
	}{
		{"GET", "/debug/routes", 200, "", "LISTENER  HOST"},
		{"GET", "/debug/routes?o=json", 200, "", `{"routes":[]}`},
		{"POST", "/debug/routes", 405, "method_not_allowed", ""},
		{"GET", "/debug/explain", 400, "bad_request", "url is missing"},
		{"GET", "/debug/explain?url=bad", 400, "bad_request", "bad is not a URL"},
		{"GET", "/debug/explain?url=http://a/&from=nowhere", 400, "bad_request", "not an IP address"},
		{"GET", "/debug/explain?url=http://a/&header=Nocolon", 400, "bad_request", "Name: value"},
		{"GET", "/debug/config", 500, "internal_error", "no snapshot yet"},
		{"GET", "/debug/pprof/", 200, "", "goroutine"},
		{"GET", "/debug/pprof/goroutine?debug=1", 200, "", "goroutine profile"},
		{"GET", "/debug/pprof/cmdline", 404, "not_found", ""},
		{"GET", "/healthz", 404, "not_found", ""},
		{"GET", "/debug/", 404, "not_found", ""},
	} {
		w := ask(h, c.method, c.target, "localhost:9901")
		if w.Code != c.status || reason(t, w) != c.word || !strings.Contains(w.Body.String(), c.body) {
			t.Errorf("%s %s = %d %q, want %d %s %q", c.method, c.target, w.Code, w.Body, c.status, c.word, c.body)
		}
	}
	w := ask(h, "GET", "/debug/explain?method=POST&url=http://shop.example/cart%3Fa=1&from=198.51.100.4&header=X-A:+1&header=X-B:2", "127.0.0.1")
	var got Query
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := Query{Method: "POST", URL: "http://shop.example/cart?a=1", From: netip.MustParseAddr("198.51.100.4"),
		Header: []Field{{"X-A", "1"}, {"X-B", "2"}}}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Errorf("explain was asked (-want +got):\n%s", d)
	}
	if w := ask(New(Values{}, Options{}), "GET", "/debug/routes", "localhost"); w.Code != 404 {
		t.Errorf("/debug/routes without a function = %d, want 404", w.Code)
	}
}

// A page whose own name resolves to 127.0.0.1 sends its own name as Host.
func TestDNSRebinding(t *testing.T) {
	for host, want := range map[string]int{
		"localhost": 200, "localhost:9901": 200, "LOCALHOST.": 200, "127.0.0.1:9901": 200, "127.9.9.9": 200, "[::1]:9901": 200,
		"[::ffff:127.0.0.1]": 200, "admin.internal:9901": 200, "10.0.0.1": 200,
		"evil.example": 421, "evil.example:9901": 421, "localhost.evil.example": 421, "127.0.0.1.evil.example": 421, "": 421,
		"10.0.0.2": 421, "0.0.0.0:9901": 421, "127.0.0.1@evil.example": 421,
	} {
		if w := ask(New(values(), Options{Hosts: []string{"admin.internal", "10.0.0.1"}}), "GET", "/debug/routes", host); w.Code != want {
			t.Errorf("Host %q = %d, want %d", host, w.Code, want)
		}
	}
	for _, c := range []struct {
		addr, token string
		want        int // for Host 192.0.2.1
	}{{"127.0.0.1:9901", "", 421}, {"0.0.0.0:9901", token, 200}, {":9901", token, 200}, {"[::]:9901", token, 200},
		{"0.0.0.0:9901", "", 421}, {"192.0.2.1:9901", token, 200}, {"192.0.2.2:9901", token, 421}, {"unix:/run/a.sock", "", 200}} {
		h := New(values(), OptionsFor(c.addr, c.token))
		if w := ask(h, "GET", "/debug/routes", "192.0.2.1:9901", "Authorization: Bearer "+token); w.Code != c.want {
			t.Errorf("server at %q with token %v: Host 192.0.2.1 = %d, want %d", c.addr, c.token != "", w.Code, c.want)
		}
	}
}

func TestCrossOriginPage(t *testing.T) {
	h := New(values(), Options{})
	for header, want := range map[string]int{
		"Origin: http://evil.example": 403, "Origin: null": 403, "Origin: http://localhost:9901": 403,
		"Sec-Fetch-Site: cross-site": 403, "Sec-Fetch-Site: same-site": 403, "Sec-Fetch-Site: none": 200, "X-Other: 1": 200,
	} {
		w := ask(h, "GET", "/debug/routes", "localhost", header)
		if w.Code != want {
			t.Errorf("%s = %d, want %d", header, w.Code, want)
		}
		if w.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: the answer allows an origin", header)
		}
	}
}

func TestMissingToken(t *testing.T) {
	h := New(values(), Options{Token: token})
	for _, c := range []struct {
		header []string
		want   int
	}{
		{nil, 401},
		{[]string{"Authorization: Bearer " + token}, 200},
		{[]string{"Authorization: bearer " + token}, 200},
		{[]string{"Authorization: Bearer " + token + "x"}, 401},
		{[]string{"Authorization: Bearer " + token[:5]}, 401},
		{[]string{"Authorization: Bearer "}, 401},
		{[]string{"Authorization: Basic " + token}, 401},
		{[]string{"Authorization: " + token}, 401},
		{[]string{"Authorization: Bearer x", "Authorization: Bearer " + token}, 401},
	} {
		for _, path := range []string{"/debug/routes", "/debug/pprof/heap", "/nothing"} {
			w := ask(h, "GET", path, "localhost", c.header...)
			if (w.Code == 401) != (c.want == 401) {
				t.Errorf("%s with %q = %d, want %d", path, c.header, w.Code, c.want)
			}
			if w.Code == 401 && (w.Header().Get("WWW-Authenticate") == "" || strings.Contains(w.Body.String(), token)) {
				t.Errorf("%s: 401 without a challenge, or with the token", path)
			}
		}
	}
}

func TestOpenAdminAddress(t *testing.T) {
	for _, c := range []struct {
		addr  string
		token bool
		ok    bool
	}{
		{"127.0.0.1:9901", false, true}, {"[::1]:9901", false, true}, {"localhost:9901", false, true}, {"127.5.5.5:1", false, true},
		{"[::ffff:127.0.0.1]:1", false, true}, {"unix:/run/gatehouse.sock", false, true},
		{":9901", false, false}, {"0.0.0.0:9901", false, false}, {"[::]:9901", false, false}, {"10.0.0.1:9901", false, false},
		{"admin.internal:9901", false, false}, {"localhost.evil.example:1", false, false},
		{":9901", true, true}, {"10.0.0.1:9901", true, true},
		{"9901", true, false}, {"unix:", true, false}, {"", false, false},
	} {
		if err := CheckAddress(c.addr, c.token); (err == nil) != c.ok {
			t.Errorf("CheckAddress(%q, %v) = %v, want ok %v", c.addr, c.token, err, c.ok)
		}
	}
}

func TestUnixSocketIsForItsOwnerAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "admin.sock")
	ln, err := Listen("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode of the socket = %v, %v, want 0600", st.Mode(), err)
	}
	if _, err := Listen("unix:" + path); err == nil {
		t.Error("a socket in use was taken over")
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, ln, New(values(), OptionsFor("unix:"+path, "")), nil) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}}}
	resp, err := client.Get("http://admin/debug/routes")
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.StatusCode != 200 || string(b) != "LISTENER  HOST\n" {
		t.Errorf("over the socket: %d %q, %v", resp.StatusCode, b, err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Errorf("Serve = %v, want nil after its context ended", err)
	}
	goleak.VerifyNone(t)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestSocketLeftBehindIsReplacedAndAFileIsNot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	old.Close()
	ln, err := Listen("unix:" + path)
	if err != nil {
		t.Fatalf("over a socket left behind: %v", err)
	}
	ln.Close()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen("unix:" + path); err == nil {
		t.Error("a file was replaced by the socket")
	}
}

func TestReadToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	for content, want := range map[string]string{token + "\n": token, "short\n": "", "two words in one file\n": "", "": ""} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ReadToken(path)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("ReadToken of %q = %q, %v, want %q", content, got, err, want)
		}
		if err != nil && strings.TrimSpace(content) != "" && strings.Contains(err.Error(), strings.TrimSpace(content)) {
			t.Errorf("the error shows the token: %v", err)
		}
	}
	if _, err := ReadToken(path + ".none"); err == nil {
		t.Error("ReadToken of no file succeeded")
	}
}
