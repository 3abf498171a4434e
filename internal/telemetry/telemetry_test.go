package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// example is a finished exchange as the driver hands it over.
func example() *exchange.Exchange {
	x := &exchange.Exchange{
		ID: []byte("0123456789abcdef0123456789abcdef"), Client: netip.MustParseAddrPort("198.51.100.4:40000"),
		Peer: netip.MustParseAddrPort("10.0.0.9:50001"), Scheme: "https", Listener: "Gateway/shop/public/https",
		Route: "HTTPRoute/shop/cart/0/1", Cluster: "Service/shop/cart/8080", Backend: netip.MustParseAddrPort("10.0.0.7:8080"),
		Tries: 1, BytesIn: 12, BytesOut: 3456, Waited: 1234 * time.Microsecond,
		Start: time.Date(2026, 10, 1, 12, 0, 5, 67_000_000, time.UTC),
	}
	x.Request.Method, x.Request.Host = []byte("GET"), []byte("shop.example")
	x.Request.Path, x.Request.Query, x.Request.HasQuery = []byte("/cart/7"), []byte("a=1&b=two"), true
	x.Response.Status = 200
	x.Request.Header.Append([]byte("Accept"), []byte("*/*"))
	x.Request.Header.Append([]byte("User-Agent"), []byte("Mozilla/5.0 (X11; Linux x86_64) like Gecko"))
	x.Request.Header.Append([]byte("Accept-Language"), []byte("en"))
	return x
}

// sink is an output that tests read.
type sink struct {
	mu   sync.Mutex
	b    bytes.Buffer
	err  error
	gate chan struct{} // if not nil, each write waits for it
}

func (s *sink) Write(p []byte) (int, error) {
	if s.gate != nil {
		<-s.gate
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	return s.b.Write(p)
}

func (s *sink) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newRecorder(t testing.TB, o Options) *Recorder {
	t.Helper()
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil && !errors.Is(err, errClosed) {
			t.Errorf("Close: %v", err)
		}
		goleak.VerifyNone(t)
	})
	return r
}

// line is what one exchange writes.
func line(t *testing.T, f Format, x *exchange.Exchange, object string, took time.Duration) string {
	t.Helper()
	out := &sink{}
	r := newRecorder(t, Options{AccessLog: "stdout", Stdout: out, Format: f})
	var rt *Route
	if x.Route != "" {
		rt = r.Route(x.Route, object)
	}
	r.Record(0, x, nil, rt, took)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestAccessLogLines(t *testing.T) {
	refused := &exchange.Exchange{Reason: "route_not_found", Start: example().Start, Client: netip.MustParseAddrPort("[2001:db8::4]:1")}
	refused.Request.Method, refused.Request.Path, refused.Response.Status = []byte("GET"), []byte("/"), 404
	traced := example()
	traced.Request.Header.Append([]byte("traceparent"), []byte("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"))
	for _, c := range []struct {
		name string
		f    Format
		x    *exchange.Exchange
		want string
	}{
		{"json", JSON, example(), `{"time":"2026-10-01T12:00:05.067Z","id":"0123456789abcdef0123456789abcdef",` +
			`"client":"198.51.100.4","method":"GET","host":"shop.example","path":"/cart/7","query":"a=1&b=two","scheme":"https",` +
			`"status":200,"listener":"Gateway/shop/public/https","route":"HTTPRoute/shop/cart/0/1","object":"HTTPRoute shop/cart",` +
			`"cluster":"Service/shop/cart/8080","backend":"10.0.0.7:8080","tries":1,"bytesIn":12,"bytesOut":3456,"ms":1.500,` +
			`"waitedMs":1.234,"userAgent":"Mozilla/5.0 (X11; Linux x86_64) like Gecko"}` + "\n"},
		{"text", Text, example(), `time=2026-10-01T12:00:05.067Z id=0123456789abcdef0123456789abcdef client=198.51.100.4 method=GET ` +
			`host=shop.example path=/cart/7 query="a=1&b=two" scheme=https status=200 listener=Gateway/shop/public/https ` +
			`route=HTTPRoute/shop/cart/0/1 object="HTTPRoute shop/cart" cluster=Service/shop/cart/8080 backend=10.0.0.7:8080 ` +
			`tries=1 bytesIn=12 bytesOut=3456 ms=1.500 waitedMs=1.234 userAgent="Mozilla/5.0 (X11; Linux x86_64) like Gecko"` + "\n"},
		{"refused", JSON, refused, `{"time":"2026-10-01T12:00:05.067Z","client":"2001:db8::4","method":"GET","path":"/",` +
			`"status":404,"reason":"route_not_found","bytesIn":0,"bytesOut":0,"ms":1.500}` + "\n"},
	} {
		got := line(t, c.f, c.x, "HTTPRoute shop/cart", 1500*time.Microsecond)
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
	}
	if got := line(t, JSON, traced, "", 0); !strings.Contains(got, `"trace":"4bf92f3577b34da6a3ce929d0e0e4736"`) {
		t.Errorf("line with a traceparent = %s, want its trace id", got)
	}
}

// Nothing a client sends can begin a line, end a value, or reach a terminal as a control.
func TestLogInjection(t *testing.T) {
	for _, evil := range []string{
		"/a\n{\"status\":200}", "/a\r\nb", `/a","status":200,"x":"`, `/a\`, "/a\x00\x1b[2Jb", "/a\x7f", "/\xff\xfe", "/\u2028\u2029",
		"/\u202egnp.exe", "/\u0085", "/\u00e4\u4e16", "/\U0001f600", "/\U000e0001", "/a b=c status=200", `/" status=200 x="`, "/\xed\xa0\x80",
	} {
		x := example()
		x.Request.Path, x.Request.Host = []byte(evil), []byte(evil)
		x.Request.Header.Set([]byte("user-agent"), []byte(evil))
		for _, f := range []Format{JSON, Text} {
			got := line(t, f, x, "o", 0)
			if strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, "\n") {
				t.Errorf("%q made %d lines: %q", evil, strings.Count(got, "\n"), got)
			}
			for _, r := range strings.TrimSuffix(got, "\n") {
				if r < 0x20 || (r >= 0x7f && r < 0xa0) || r == '\u2028' || r == '\u2029' || r == '\u202e' || r == 0xe0001 {
					t.Errorf("%q left %U in the line", evil, r)
				}
			}
			if f == Text {
				if strings.Count(got, " status=") != 1+strings.Count(got, "b=c status=")+strings.Count(got, `\" status=`) {
					t.Errorf("%q forged a field: %s", evil, got)
				}
				continue
			}
			var v struct {
				Path   string `json:"path"`
				Host   string `json:"host"`
				Agent  string `json:"userAgent"`
				Status int    `json:"status"`
			}
			if err := json.Unmarshal([]byte(got), &v); err != nil {
				t.Errorf("%q: the line is not JSON: %v: %s", evil, err, got)
				continue
			}
			want := strings.ToValidUTF8(string([]rune(evil)), "\ufffd")
			if v.Path != want || v.Host != want || v.Agent != want || v.Status != 200 {
				t.Errorf("%q: logged as %+v", evil, v)
			}
		}
	}
}

func TestLongFieldsAreCut(t *testing.T) {
	x := example()
	x.Request.Path = bytes.Repeat([]byte("x"), 16<<10)
	x.Request.Query = bytes.Repeat([]byte("\x01"), 16<<10)
	x.Request.Header.Set([]byte("user-agent"), bytes.Repeat([]byte("u"), 60<<10))
	got := line(t, JSON, x, "", 0)
	if len(got) > 20<<10 {
		t.Errorf("the line has %d bytes", len(got))
	}
	var v map[string]any
	if err := json.Unmarshal([]byte(got), &v); err != nil {
		t.Fatal(err)
	}
	if want := strings.Repeat("x", maxTarget) + "..."; v["path"] != want {
		t.Errorf("path has %d bytes, want %d and ...", len(v["path"].(string)), maxTarget)
	}
}

// An output that does not move costs lines, which are counted, never time.
func TestLogThatBlocksDropsAndCounts(t *testing.T) {
	out := &sink{gate: make(chan struct{})}
	r := newRecorder(t, Options{AccessLog: "stdout", Stdout: out, Shards: 1})
	x := example()
	const n = 30_000 // at about 500 bytes each: more than two buffers
	for range n {
		r.Record(0, x, nil, nil, time.Millisecond)
	}
	dropped := r.Dropped()
	close(out.gate)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if dropped == 0 {
		t.Error("nothing was dropped")
	}
	if written := strings.Count(out.String(), "\n"); written+int(r.Dropped()) != n {
		t.Errorf("%d written and %d dropped of %d", written, r.Dropped(), n)
	}
	r.Record(0, x, nil, nil, time.Millisecond)
	if r.Dropped() != dropped+1 {
		t.Errorf("a line after Close is not counted as dropped")
	}
}

func TestLogThatFailsCountsItsLines(t *testing.T) {
	out := &sink{err: errors.New("disk full")}
	r := newRecorder(t, Options{AccessLog: "stdout", Stdout: out})
	for range 7 {
		r.Record(0, example(), nil, nil, 0)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if r.Dropped() != 7 {
		t.Errorf("Dropped() = %d, want 7", r.Dropped())
	}
}

func TestReopenAfterRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	r := newRecorder(t, Options{AccessLog: path})
	r.Record(0, example(), nil, nil, 0)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := r.Reopen(); err != nil {
		t.Fatal(err)
	}
	r.Record(0, example(), nil, nil, 0)
	r.Record(0, example(), nil, nil, 0)
	if err := os.Chmod(filepath.Dir(path), 0o500); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.Reopen(); !errors.Is(err, errClosed) {
		t.Errorf("Reopen after Close = %v", err)
	}
	for name, want := range map[string]int{path + ".1": 1, path: 2} {
		b, err := os.ReadFile(name)
		if err != nil || bytes.Count(b, []byte("\n")) != want {
			t.Errorf("%s holds %d lines (%v), want %d", filepath.Base(name), bytes.Count(b, []byte("\n")), err, want)
		}
		if st, err := os.Stat(name); err == nil && st.Mode().Perm()&0o007 != 0 {
			t.Errorf("%s has mode %v: others may read it", name, st.Mode())
		}
	}
}

func TestReopenThatFailsKeepsTheOldFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r := newRecorder(t, Options{AccessLog: filepath.Join(dir, "access.log")})
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	if err := r.Reopen(); err == nil {
		t.Error("Reopen in a folder that is gone succeeded")
	}
	r.Record(0, example(), nil, nil, 0)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir+".old", "access.log")); err != nil || bytes.Count(b, []byte("\n")) != 1 {
		t.Errorf("the old file holds %q, %v, want the line", b, err)
	}
}

func TestAccessLogIsFlushedWithoutMoreTraffic(t *testing.T) {
	got := make(chan string, 1)
	r := newRecorder(t, Options{AccessLog: "stdout", Stdout: writer(func(p []byte) { got <- string(p) })})
	r.Record(0, example(), nil, nil, 0)
	if s := <-got; !strings.Contains(s, "shop.example") {
		t.Errorf("wrote %q", s)
	}
}

type writer func([]byte)

func (w writer) Write(p []byte) (int, error) { w(p); return len(p), nil }

// scrape returns the lines of our own families.
func scrape(t *testing.T, r *Recorder) []string {
	t.Helper()
	w := httptest.NewRecorder()
	r.Metrics().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("scrape: %d %s", w.Code, w.Body)
	}
	var out []string
	for l := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(l, "gatehouse_") {
			out = append(out, strings.TrimSuffix(l, "\n"))
		}
	}
	return out
}

func TestMetrics(t *testing.T) {
	r := newRecorder(t, Options{Shards: 4})
	l := r.Listener("Gateway/shop/public/https")
	rt := r.Route("HTTPRoute/shop/cart/0/1", "HTTPRoute shop/cart")
	x := example()
	for shard := range uint32(10) {
		r.Record(shard, x, l, rt, 2*time.Millisecond)
	}
	for i, c := range l.shards { // each is used, though ports of clients are even
		if n := c.requests[0][1].Load(); n < 2 {
			t.Errorf("shard %d counted %d of 10 requests", i, n)
		}
	}
	x.Reason, x.Response.Status, x.Tries = "ip_not_allowed", 403, 0
	x.Request.Method = []byte("BREW")
	r.Record(0, x, l, rt, 100*time.Microsecond)
	x.Reason, x.Response.Status = "client_gone", 0
	r.Record(0, x, nil, nil, 2*time.Minute)
	r.Gauge("connections", "Open connections.", map[string]string{"side": "client"}, func() float64 { return 7 })
	r.Counter("reload_faults_total", "Faults.", nil, func() float64 { return 3 })

	got := strings.Join(scrape(t, r), "\n")
	for _, want := range []string{
		`gatehouse_requests_total{code="2xx",listener="Gateway/shop/public/https",method="GET"} 10`,
		`gatehouse_requests_total{code="4xx",listener="Gateway/shop/public/https",method="other"} 1`,
		`gatehouse_requests_total{code="none",listener="other",method="other"} 1`,
		`gatehouse_decisions_total{listener="Gateway/shop/public/https",reason="ip_not_allowed"} 1`,
		`gatehouse_decisions_total{listener="other",reason="client_gone"} 1`,
		`gatehouse_request_duration_seconds_bucket{listener="Gateway/shop/public/https",le="0.00025"} 1`,
		`gatehouse_request_duration_seconds_bucket{listener="Gateway/shop/public/https",le="0.001"} 1`,
		`gatehouse_request_duration_seconds_bucket{listener="Gateway/shop/public/https",le="0.002"} 11`,
		`gatehouse_request_duration_seconds_sum{listener="Gateway/shop/public/https"} 0.0201`,
		`gatehouse_request_duration_seconds_bucket{listener="other",le="60"} 0`,
		`gatehouse_request_duration_seconds_bucket{listener="other",le="+Inf"} 1`,
		`gatehouse_backend_wait_seconds_count{listener="Gateway/shop/public/https"} 10`,
		`gatehouse_request_body_bytes_total{listener="Gateway/shop/public/https"} 132`,
		`gatehouse_response_body_bytes_total{listener="Gateway/shop/public/https"} 38016`,
		`gatehouse_route_requests_total{code="2xx",route="HTTPRoute/shop/cart/0/1"} 10`,
		`gatehouse_route_seconds_total{route="HTTPRoute/shop/cart/0/1"} 0.0201`,
		`gatehouse_connections{side="client"} 7`,
		`gatehouse_reload_faults_total 3`,
		`gatehouse_access_log_dropped_total 0`,
	} {
		if !strings.Contains(got+"\n", want+"\n") {
			t.Errorf("no line %s", want)
		}
	}
	if t.Failed() {
		t.Logf("got:\n%s", got)
	}
}

// Routes, listeners, methods, statuses and reasons without end make a bounded number of series.
func TestCardinalityIsBounded(t *testing.T) {
	r := newRecorder(t, Options{Shards: 1})
	x := example()
	for i := range 20_000 {
		l := r.Listener(fmt.Sprintf("l%d", i%1000))
		rt := r.Route(fmt.Sprintf("r%d", i), "o")
		if rt.object != "o" {
			t.Fatal("a route beyond the limit lost its object")
		}
		x.Request.Method = fmt.Appendf(nil, "M%d", i)
		x.Response.Status = i
		x.Reason = fmt.Sprintf("reason%d", i)
		r.Record(0, x, l, rt, time.Duration(i)*time.Millisecond)
	}
	routes, reasons := map[string]bool{}, map[string]int{}
	for _, l := range scrape(t, r) {
		if strings.HasPrefix(l, "gatehouse_route_seconds_total") {
			routes[l] = true
		}
		if strings.HasPrefix(l, "gatehouse_decisions_total") {
			listener, _, _ := strings.Cut(strings.TrimPrefix(l, `gatehouse_decisions_total{listener="`), `"`)
			reasons[listener]++
		}
	}
	if len(routes) != MaxRoutes+1 {
		t.Errorf("%d series of routes, want %d and \"other\"", len(routes), MaxRoutes)
	}
	if len(reasons) != MaxListeners+1 {
		t.Errorf("%d listeners, want %d and \"other\"", len(reasons), MaxListeners)
	}
	for l, n := range reasons {
		if n > MaxReasons+1 {
			t.Errorf("listener %s has %d reasons, want at most %d and \"other\"", l, n, MaxReasons)
		}
	}
	r.Retain(func(string) bool { return false }, func(name string) bool { return name == "r1" })
	kept := 0
	for _, l := range scrape(t, r) {
		if strings.HasPrefix(l, "gatehouse_route_seconds_total") {
			kept++
		}
	}
	if kept != 2 {
		t.Errorf("%d series of routes after Retain, want r1 and \"other\"", kept)
	}
}

func TestBuckets(t *testing.T) {
	for i := range nBuckets {
		if got := bucket(bound(i)); got != i {
			t.Errorf("bucket(%v) = %d, want %d", bound(i), got, i)
		}
		if got := bucket(bound(i) + 1); got != i+1 {
			t.Errorf("bucket(%v) = %d, want %d", bound(i)+1, got, i+1)
		}
	}
	if bucket(0) != 0 {
		t.Error("bucket(0) is not the first")
	}
}

func TestIDs(t *testing.T) {
	a, b := newRecorder(t, Options{}), newRecorder(t, Options{})
	seen := map[string]bool{}
	for range 10_000 {
		for _, r := range []*Recorder{a, b} {
			id := string(r.NewID([]byte("x")))[1:]
			if seen[id] || len(id) != IDLen || !ValidID([]byte(id)) {
				t.Fatalf("NewID = %q: seen %v", id, seen[id])
			}
			seen[id] = true
		}
	}
	for id, want := range map[string]bool{"a": true, "3f2a-44:b/c+d=@~._": true, "": false, "a b": false, "a\n": false, "a\"": false,
		"\u00e4": false, strings.Repeat("x", MaxID): true, strings.Repeat("x", MaxID+1): false, "a,b": false} {
		if got := ValidID([]byte(id)); got != want {
			t.Errorf("ValidID(%q) = %v, want %v", id, got, want)
		}
	}
}

func TestRecordAllocatesNothing(t *testing.T) {
	r := newRecorder(t, Options{AccessLog: "stdout", Stdout: io.Discard})
	l, rt := r.Listener("l"), r.Route("r", "HTTPRoute shop/cart")
	x := example()
	x.Reason = "ip_not_allowed"
	x.Request.Query = []byte("name=J%C3%B6rg&x=\"\u00e4\"\x00")
	for range 50_000 { // the buffers grow to their room
		r.Record(0, x, l, rt, time.Millisecond)
	}
	if n := testing.AllocsPerRun(1000, func() { r.Record(0, x, l, rt, time.Millisecond) }); n != 0 {
		t.Errorf("Record allocates %v times, want 0", n)
	}
	dst := make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() { r.NewID(dst) }); n != 0 {
		t.Errorf("NewID allocates %v times, want 0", n)
	}
}

func TestAccessLogThatCannotBeOpened(t *testing.T) {
	if _, err := New(Options{AccessLog: filepath.Join(t.TempDir(), "no", "such", "folder")}); err == nil ||
		!strings.Contains(err.Error(), "opening the access log") {
		t.Errorf("New = %v, want an error about the access log", err)
	}
	if _, err := New(Options{AccessLog: "stdout"}); err == nil {
		t.Error("New without a standard output succeeded")
	}
}

func BenchmarkRecord(b *testing.B) {
	for _, c := range []struct {
		name string
		o    Options
	}{{"metrics", Options{}}, {"json", Options{AccessLog: "stdout", Stdout: io.Discard}},
		{"text", Options{AccessLog: "stdout", Stdout: io.Discard, Format: Text}}} {
		b.Run(c.name, func(b *testing.B) {
			r, err := New(c.o)
			if err != nil {
				b.Fatal(err)
			}
			defer r.Close()
			l, rt, x := r.Listener("l"), r.Route("r", "HTTPRoute shop/cart"), example()
			b.ReportAllocs()
			for b.Loop() {
				r.Record(0, x, l, rt, 1500*time.Microsecond)
			}
			b.ReportMetric(100*float64(r.Dropped())/float64(b.N), "%dropped")
		})
	}
}

func BenchmarkNewID(b *testing.B) {
	r, err := New(Options{})
	if err != nil {
		b.Fatal(err)
	}
	dst := make([]byte, 0, 64)
	for b.Loop() {
		r.NewID(dst)
	}
}

func BenchmarkLine(b *testing.B) {
	for _, f := range []Format{JSON, Text} {
		b.Run(map[Format]string{JSON: "json", Text: "text"}[f], func(b *testing.B) {
			x, c, line := example(), &clock{}, []byte(nil)
			route := f.route(x.Route, "HTTPRoute shop/cart")
			b.ReportAllocs()
			for b.Loop() {
				line = f.exchange(line[:0], c, x, route, 1500*time.Microsecond)
			}
		})
	}
}

// TestStatusOfNoClass: a backend's status above 599 is a class of its own, not an exchange without an answer.
func TestStatusOfNoClass(t *testing.T) {
	r := newRecorder(t, Options{})
	l, rt := r.Listener("l"), r.Route("rt", "HTTPRoute shop/cart")
	for _, status := range []int{600, 999, 599, 0} {
		x := example()
		x.Response.Status = status
		r.Record(0, x, l, rt, time.Millisecond)
	}
	got := strings.Join(scrape(t, r), "\n")
	for _, want := range []string{
		`gatehouse_requests_total{code="other",listener="l",method="GET"} 2`,
		`gatehouse_requests_total{code="5xx",listener="l",method="GET"} 1`,
		`gatehouse_requests_total{code="none",listener="l",method="GET"} 1`,
		`gatehouse_route_requests_total{code="other",route="rt"} 2`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
}
