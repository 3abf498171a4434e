package edgetest_test

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/edge"
	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/proxy"
)

// whole is a step that wants the whole body of the request and of the response.
type whole struct{}

func (whole) Compile(policy.Env) (policy.Handler, error) {
	return policy.Handler{Body: 1 << 20, ResponseBody: 1 << 20}, nil
}

// fill is a rig with a memory of 1000 bytes, and how to set what is used of it.
func fill(t *testing.T, backend string, steps ...*ir.Step) (*edgetest.Rig, func(used int64, want proxy.Load)) {
	t.Helper()
	var used atomic.Int64
	cfg := edgetest.Simple()
	cfg.Hosts[0].Routes[0].Steps = steps
	r := edgetest.New(t, edgetest.Options{Config: cfg, Clusters: map[string][]string{"c": {backend}},
		Steps: append(edgetest.Steps(), policy.Step{Name: "whole", New: func() policy.Spec { return &whole{} },
			Phase: func(policy.Spec) policy.Phase { return policy.Protect }}),
		Edge: func(o *edge.Options) { o.MemoryLimit, o.Memory = 1000, used.Load }})
	return r, func(n int64, want proxy.Load) {
		t.Helper()
		used.Store(n)
		for limit := time.Now().Add(edgetest.Wait); r.Edge.Load() != want; runtime.Gosched() {
			if time.Now().After(limit) {
				t.Fatalf("with %d of 1000 used the load is %d, want %d", n, r.Edge.Load(), want)
			}
		}
	}
}

// TestOverload: from 90 % on, and not before, exchanges that begin are refused, on new connections and old ones, and counted.
func TestOverload(t *testing.T) {
	r, set := fill(t, says(t, "x"))
	for _, x := range []struct {
		used int64
		load proxy.Load
	}{{899, proxy.LoadNormal}, {900, proxy.LoadRefusing}, {899, proxy.LoadNormal}, {950, proxy.LoadShedding}, {949, proxy.LoadRefusing}, {0, proxy.LoadNormal}} {
		old := r.Dial() // young enough that it is not shed
		set(x.used, x.load)
		for _, c := range []*edgetest.Client{old, r.Dial()} {
			c.Send("GET / HTTP/1.1\nHost: a\n\n")
			res, body := c.Read("GET")
			if x.load == proxy.LoadNormal {
				if res.StatusCode != 200 || body != "x" {
					t.Errorf("%d of 1000: got %d %q, want 200", x.used, res.StatusCode, body)
				}
				continue
			}
			if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || !strings.Contains(body, `"reason":"overloaded"`) {
				t.Errorf("%d of 1000: got %d %v %q, want 503 overloaded with Retry-After", x.used, res.StatusCode, res.Header, body)
			}
		}
	}
	rec := recorded(t, r)
	if want := `gatehouse_decisions_total{listener="test",reason="overloaded"} 6`; !strings.Contains(rec, want) {
		t.Errorf("the metrics do not say %s", want)
	}
}

func recorded(t *testing.T, r *edgetest.Rig) string {
	t.Helper()
	rec := &response{header: http.Header{}}
	req, err := http.NewRequest("GET", "/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Recorder.Metrics().ServeHTTP(rec, req)
	return rec.String()
}

// response is what a handler writes.
type response struct {
	strings.Builder
	header http.Header
}

func (r *response) Header() http.Header { return r.header }
func (r *response) WriteHeader(int)     {}

// TestOverloadEndsWholeBodies: from 95 % on, exchanges that are collecting a body are ended; at 90 % they are let finish, and so is always
// one whose body only streams.
func TestOverloadEndsWholeBodies(t *testing.T) {
	asked := make(chan chan struct{}, 4)
	b := edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		_, _ = io.WriteString(w, "first")
		_ = http.NewResponseController(w).Flush()
		if r.Method == "GET" {
			next := make(chan struct{})
			asked <- next
			<-next
		}
		_, _ = io.WriteString(w, ", second")
	}))
	r, set := fill(t, b, &ir.Step{Name: "whole", Phase: policy.Protect.String(), Spec: []byte("{}")})
	streams, setStreams := fill(t, b)
	for _, x := range []struct {
		rig    *edgetest.Rig
		set    func(int64, proxy.Load)
		used   int64
		load   proxy.Load
		status int
	}{{r, set, 949, proxy.LoadRefusing, 200}, {r, set, 950, proxy.LoadShedding, 503}, {streams, setStreams, 950, proxy.LoadShedding, 200}} {
		for _, method := range []string{"POST", "GET"} {
			t.Run(fmt.Sprintf("%s at %d, want %d", method, x.used, x.status), func(t *testing.T) {
				x.set(0, proxy.LoadNormal)
				c := x.rig.Dial()
				goOn := func() { c.Send("tail") }
				if method == "POST" {
					c.Send("POST / HTTP/1.1\nHost: a\nExpect: 100-continue\nContent-Length: 8\n\n")
					if res, err := http.ReadResponse(c.R, nil); err != nil || res.StatusCode != 100 { // the body is being read
						t.Fatalf("got %v, %v; want 100", res, err)
					}
					c.Send("head")
				} else {
					c.Send("GET / HTTP/1.1\nHost: a\n\n")
					next := <-asked
					goOn = func() { close(next) }
				}
				x.set(x.used, x.load)
				goOn()
				res, body := c.Read(method)
				if res.StatusCode != x.status || (x.status == 503) != strings.Contains(body, "overloaded") {
					t.Errorf("got %d %q, want %d", res.StatusCode, body, x.status)
				}
				if x.status == 503 && res.Header.Get("Retry-After") == "" {
					t.Error("there is no Retry-After")
				}
			})
		}
	}
}
