package proxy

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/route"
	"github.com/gatehouse-io/gatehouse/internal/upstream"
)

// world is a snapshot of one route, prefix "/app" of host "a", with steps.
type world struct {
	edge     *Edge
	released int
	clusters *upstream.Set
	cluster  *upstream.Cluster
}

func newWorld(t testing.TB, endpoints int, steps []Step, change func(*Route)) *world {
	t.Helper()
	w := &world{edge: NewEdge(NoRecorder()), clusters: upstream.NewSet(upstream.Rules{})}
	w.cluster = w.clusters.Acquire("c")
	var rs []upstream.Resolved
	for i := range endpoints {
		rs = append(rs, upstream.Resolved{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 80), Ready: true})
	}
	w.cluster.SetEndpoints(rs)
	c := &ir.Config{
		Listeners: []*ir.Listener{{Key: "l", Group: "G", Port: 80, Protocol: ir.HTTP}},
		Hosts: []*ir.Host{{Listener: "l", Hostname: "a", Routes: []*ir.Route{{Name: "r",
			Match: ir.Match{Path: ir.PathMatch{Kind: ir.PathPrefix, Value: "/app"}}, Backends: []ir.Backend{{Cluster: "c", Weight: 1}}}}}},
	}
	table, faults := route.Build(nil, c, func(h *ir.Host, r *ir.Route) *Route {
		p := &Route{Config: r, Name: r.Name, Prefix: "/app", Steps: steps, Total: 1,
			Backends: []Backend{{Config: &r.Backends[0], Cluster: w.cluster, Weight: 1}}}
		if change != nil {
			change(p)
		}
		return p
	})
	if len(faults) > 0 {
		t.Fatalf("faults: %v", faults)
	}
	w.edge.Swap(&Snapshot{Config: c, Table: table, Listeners: map[string]*Listener{"l": {Config: c.Listeners[0]}},
		Release: func() { w.released++ }})
	return w
}

// begin starts an exchange for a request.
func (w *world) begin(f *Flow, method, path string) {
	f.Begin(w.edge, &ConnInfo{Group: "G", Port: 80, Peer: netip.MustParseAddrPort("192.0.2.1:1000"), PeerText: []byte("192.0.2.1"),
		PortText: []byte("80")}, time.Unix(1, 0))
	f.Request.Method, f.Request.Host, f.Request.Authority = []byte(method), []byte("a"), []byte("a")
	f.Request.Path, f.Request.RawPath = []byte(path), []byte(path)
	f.Request.Version = exchange.HTTP11
}

var actionNames = map[Action]string{ActionWait: "wait", ActionBuffer: "buffer", ActionConnect: "connect", ActionSend: "send",
	ActionHold: "hold", ActionRetry: "retry", ActionRespond: "respond", ActionRelay: "relay", ActionAnswer: "answer", ActionAbort: "abort"}

// play feeds events, written as words, and returns the actions with the status and reason of answers.
func play(f *Flow, words string) string {
	var out []string
	for word := range strings.FieldsSeq(words) {
		var a Action
		switch word {
		case "head":
			a = f.Step(EventHead)
		case "malformed":
			f.Fault = Fault{400, "bad", ""}
			a = f.Step(EventMalformed)
		case "connected":
			a = f.Step(EventConnected)
		case "noconn":
			f.Problem = "refused"
			a = f.Step(EventConnectFailed)
		case "noconn-late":
			f.Problem, f.Timeout = "late", true
			a = f.Step(EventConnectFailed)
		case "forbidden":
			f.Refused = true
			a = f.Step(EventConnectFailed)
		case "died-fresh":
			f.Sent, f.Reused, f.Kept = true, false, true
			a = f.Step(EventBackendFailed)
		case "died-reused":
			f.Sent, f.Reused, f.Kept = true, true, true
			a = f.Step(EventBackendFailed)
		case "died-unsent":
			f.Sent, f.Reused, f.Kept = false, true, true
			a = f.Step(EventBackendFailed)
		case "died-streamed":
			f.Sent, f.Reused, f.Kept = true, true, false
			a = f.Step(EventBackendFailed)
		case "200", "101", "500", "503", "999":
			f.Response.Status, _ = strconv.Atoi(word)
			if word == "101" {
				f.Response.Header.Append([]byte("Upgrade"), []byte("WebSocket"))
			}
			a = f.Step(EventBackendHead)
		case "again":
			a = f.Step(EventRetry)
		case "full":
			f.Full = true
			a = f.Step(EventConnectFailed)
		case "timeout":
			a = f.Step(EventTimeout)
		case "expired":
			a = f.Step(EventExpired)
		case "gone":
			a = f.Step(EventClientGone)
		case "resumed":
			f.Resume = f.Verdict.Wait(context.Background())
			a = f.Step(EventResumed)
		case "body":
			a = f.Step(EventBody)
		case "body-large":
			a = f.Step(EventBodyTooLarge)
		default:
			panic(word)
		}
		s := actionNames[a]
		if a == ActionAnswer || a == ActionAbort {
			s = fmt.Sprintf("%s(%d %s)", s, f.Response.Status, f.Reason)
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

func TestStep(t *testing.T) {
	deny := policy.Handler{Request: func(*exchange.Exchange) policy.Verdict { return policy.Verdict{Status: 403, Reason: "denied"} }}
	ask := policy.Handler{Request: func(*exchange.Exchange) policy.Verdict {
		return policy.Verdict{Wait: func(context.Context) func(*exchange.Exchange) policy.Verdict {
			return func(*exchange.Exchange) policy.Verdict { return policy.Verdict{} }
		}}
	}}
	whole := policy.Handler{Body: 10, Request: func(*exchange.Exchange) policy.Verdict { return policy.Verdict{} }}
	opens := policy.Handler{Response: func(*exchange.Exchange) policy.Verdict { return policy.Verdict{Status: 200} }}
	for _, x := range []struct {
		name           string
		method, path   string
		endpoints      int
		hooks          []policy.Handler
		change         func(*Route)
		length         int64
		upgrade        string
		events, expect string
	}{
		{name: "forwarded", events: "head connected 200", expect: "connect send respond"},
		{name: "no route", path: "/other", events: "head", expect: "answer(404 route_not_found)"},
		{name: "malformed", events: "malformed", expect: "answer(400 bad)"},
		{name: "no endpoint", endpoints: -1, events: "head", expect: "answer(503 no_endpoint)"},
		{name: "every weight 0", change: func(r *Route) { r.Total = 0 }, events: "head", expect: "answer(503 no_backend)"},
		{name: "no backendRefs", change: func(r *Route) { r.Backends = nil }, events: "head", expect: "answer(500 no_backend)"},
		{name: "invalid backend", change: func(r *Route) { r.Backends[0].Cluster = nil }, events: "head", expect: "answer(500 backend_invalid)"},
		{name: "connect elsewhere", events: "head noconn again connected 200", expect: "connect retry connect send respond"},
		{name: "connect nowhere", events: "head noconn again noconn again noconn", expect: "connect retry connect retry connect answer(502 backend_connect_failed)"},
		{name: "connect late", events: "head noconn again noconn again noconn-late", expect: "connect retry connect retry connect answer(504 backend_connect_timeout)"},
		{name: "forbidden address", events: "head forbidden", expect: "connect answer(502 backend_address_forbidden)"},
		{name: "circuit open", events: "head full", expect: "connect answer(503 circuit_open)"},
		{name: "GET replayed once, then by the rule", events: "head connected died-reused connected died-reused again connected 200",
			expect: "connect send connect send retry connect send respond"},
		{name: "GET tried three times by default", events: "head connected died-fresh again connected died-fresh again connected died-fresh",
			expect: "connect send retry connect send retry connect send answer(502 backend_failed)"},
		{name: "no retry by the route", change: rule(ir.Retry{}), events: "head connected died-fresh", expect: "connect send answer(502 backend_failed)"},
		{name: "a status that the rule names", change: rule(ir.Retry{Attempts: 1, Codes: []int{503}}), events: "head connected 503 again connected 503",
			expect: "connect send retry connect send respond"},
		{name: "a status that it does not", change: rule(ir.Retry{Attempts: 1, Codes: []int{503}}), events: "head connected 500", expect: "connect send respond"},
		{name: "a status of no class counts as 500", change: rule(ir.Retry{Attempts: 1, Codes: []int{500}}), events: "head connected 999 again connected 200",
			expect: "connect send retry connect send respond"},
		{name: "a status of no class passes", change: rule(ir.Retry{Attempts: 1, Codes: []int{503}}), events: "head connected 999", expect: "connect send respond"},
		{name: "a POST is not tried again on a status", method: "POST", change: rule(ir.Retry{Attempts: 1, Codes: []int{503}}),
			events: "head connected 503", expect: "connect send respond"},
		{name: "a POST that no connection was found for is", method: "POST", events: "head noconn again connected 200", expect: "connect retry connect send respond"},
		{name: "a slow backend", change: rule(ir.Retry{Attempts: 1, Conditions: []string{ir.FirstByte}}), events: "head connected timeout again connected timeout",
			expect: "connect send retry connect send answer(504 backend_timeout)"},
		{name: "POST not replayed", method: "POST", events: "head connected died-reused", expect: "connect send answer(502 backend_failed)"},
		{name: "POST of which nothing was sent", method: "POST", events: "head connected died-unsent connected 200", expect: "connect send connect send respond"},
		{name: "streamed body not replayed", method: "PUT", events: "head connected died-streamed", expect: "connect send answer(502 backend_failed)"},
		{name: "first byte", events: "head connected timeout", expect: "connect send answer(504 backend_timeout)"},
		{name: "route's time", events: "head connected expired", expect: "connect send answer(504 request_timeout)"},
		{name: "client gone", events: "head connected gone", expect: "connect send abort(499 client_gone)"},
		{name: "upgrade", upgrade: "websocket", events: "head connected 101", expect: "connect send relay"},
		{name: "another upgrade", upgrade: "chat", events: "head connected 101", expect: "connect send answer(502 backend_failed)"},
		{name: "upgrade not asked for", events: "head connected 101", expect: "connect send answer(502 backend_failed)"},
		{name: "upgrade that no connection was found for", upgrade: "websocket", events: "head noconn again connected 101",
			expect: "connect retry connect send relay"},
		{name: "upgrade that a backend may have seen", upgrade: "websocket", events: "head connected died-fresh",
			expect: "connect send answer(502 backend_failed)"},
		{name: "denied", hooks: []policy.Handler{deny}, events: "head", expect: "answer(403 denied)"},
		{name: "deny is terminal", hooks: []policy.Handler{opens, deny}, events: "head", expect: "answer(403 denied)"},
		{name: "asked", hooks: []policy.Handler{ask, whole}, length: 3, events: "head resumed body connected 200", expect: "wait buffer connect send respond"},
		{name: "announced body too large", hooks: []policy.Handler{whole}, length: 11, events: "head", expect: "answer(413 body_too_large)"},
		{name: "body at its limit", hooks: []policy.Handler{whole}, length: 10, events: "head body connected 200", expect: "buffer connect send respond"},
		{name: "body too large", hooks: []policy.Handler{whole}, length: exchange.Unknown, events: "head body-large", expect: "buffer answer(413 body_too_large)"},
	} {
		t.Run(x.name, func(t *testing.T) {
			var steps []Step
			for _, h := range x.hooks {
				steps = append(steps, Step{Config: &ir.Step{Name: "s"}, Handler: h})
			}
			n := 2
			if x.endpoints < 0 {
				n = 0
			}
			w := newWorld(t, n, steps, x.change)
			var f Flow
			w.begin(&f, or(x.method, "GET"), or(x.path, "/app/x"))
			f.Request.ContentLength = x.length
			if x.upgrade != "" {
				f.Request.Upgrade = []byte(x.upgrade)
			}
			if got := play(&f, x.events); got != x.expect {
				t.Errorf("%s:\n got %s\nwant %s", x.events, got, x.expect)
			}
			f.End(time.Unix(2, 0))
		})
	}
}

// rule gives the route a rule for further tries.
func rule(r ir.Retry) func(*Route) { return func(p *Route) { p.Config.Retry = &r } }

func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

// TestSimulation plays exchanges with faults at random and holds what must be true of every one: it comes to an end, each
// Done runs as often as its Request, nothing that was sent is sent again unless that is safe, and the snapshot is released
// when it was swapped out and its last exchange is over.
func TestSimulation(t *testing.T) {
	for seed := range uint64(3000) {
		simulate(t, seed)
	}
}

func simulate(t *testing.T, seed uint64) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 7))
	var began, done int
	random := func() policy.Handler {
		h := policy.Handler{
			Request: func(*exchange.Exchange) policy.Verdict {
				began++
				switch rnd.IntN(8) {
				case 0:
					return policy.Verdict{Status: 429, Reason: "limited"}
				case 1:
					return policy.Verdict{Wait: func(context.Context) func(*exchange.Exchange) policy.Verdict {
						return func(*exchange.Exchange) policy.Verdict { return policy.Verdict{} }
					}}
				}
				return policy.Verdict{}
			},
			Done: func(*exchange.Exchange) { done++ },
		}
		if rnd.IntN(4) == 0 {
			h.Body = 5
		}
		if rnd.IntN(4) == 0 {
			h.ResponseBody = 5
		}
		return h
	}
	w := newWorld(t, rnd.IntN(4), []Step{{Config: &ir.Step{}, Handler: random()}, {Config: &ir.Step{}, Handler: random()}}, func(r *Route) {
		if rnd.IntN(2) == 0 {
			r.Config.Retry = &ir.Retry{Attempts: rnd.IntN(4), Codes: []int{503}, Conditions: []string{ir.ConnectFailure, ir.Reset, ir.FirstByte}}
		}
	})
	var f Flow
	method := []string{"GET", "POST", "PUT"}[rnd.IntN(3)]
	w.begin(&f, method, "/app")
	f.Request.ContentLength = []int64{0, 3, 9, exchange.Unknown}[rnd.IntN(4)]
	swapped := false
	sends, sentBefore := 0, false
	a := f.Step(EventHead)
	for steps := 0; ; steps++ {
		if steps > 40 {
			t.Fatalf("seed %d: no end after %d steps", seed, steps)
		}
		if rnd.IntN(10) == 0 && !swapped {
			swapped = true
			w.edge.Swap(&Snapshot{})
		}
		if a == ActionSend {
			if sends++; sentBefore && method == "POST" {
				t.Fatalf("seed %d: a POST was sent again", seed)
			}
		}
		end := false
		switch a {
		case ActionWait:
			f.Resume = f.Verdict.Wait(context.Background())
			a = f.Step(EventResumed)
		case ActionBuffer:
			a = f.Step([]Event{EventBody, EventBodyTooLarge, EventClientGone, EventMalformed}[rnd.IntN(4)])
		case ActionConnect:
			a = f.Step([]Event{EventConnected, EventConnected, EventConnectFailed, EventExpired}[rnd.IntN(4)])
		case ActionSend:
			f.Sent, f.Reused, f.Kept = rnd.IntN(2) == 0, rnd.IntN(2) == 0, rnd.IntN(2) == 0
			sentBefore = sentBefore || f.Sent
			f.Response.Status, f.Response.ContentLength = []int{200, 404, 101, 503}[rnd.IntN(4)], []int64{0, 3, 9, exchange.Unknown}[rnd.IntN(4)]
			a = f.Step([]Event{EventBackendHead, EventBackendHead, EventBackendFailed, EventTimeout, EventExpired, EventClientGone}[rnd.IntN(6)])
		case ActionHold:
			f.Kept = false
			a = f.Step([]Event{EventBackendBody, EventBackendTooLarge, EventBackendFailed}[rnd.IntN(3)])
		case ActionRetry:
			a = f.Step([]Event{EventRetry, EventRetry, EventExpired, EventClientGone}[rnd.IntN(4)])
		default:
			end = true
		}
		if end {
			break
		}
	}
	f.End(time.Unix(2, 0))
	f.End(time.Unix(2, 0)) // a second one changes nothing
	if began != done {
		t.Errorf("seed %d: %d Request hooks ran, %d Done hooks", seed, began, done)
	}
	if !swapped {
		w.edge.Swap(&Snapshot{})
	}
	if !swapped && w.released != 1 {
		t.Errorf("seed %d: the snapshot was released %d times by the swap that followed its last exchange, want 1", seed, w.released)
	}
	w.edge.Collect()
	if w.released != 1 {
		t.Errorf("seed %d: the snapshot was released %d times, want 1", seed, w.released)
	}
}
