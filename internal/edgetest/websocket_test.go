package edgetest_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"runtime"
	"slices"
	"testing"
	"time"
	"weak"

	"github.com/gatehouse-io/gatehouse/internal/edge"
	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/feed"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/proxy"
	"github.com/gatehouse-io/gatehouse/internal/route"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// world is a configuration in which everything is made anew.
type world struct {
	config    *ir.Config
	secrets   secret.Set
	endpoints ir.Endpoints
}

// socket is a relayed WebSocket over TLS in a rig whose world can be changed.
type socket struct {
	t               *testing.T
	r               *edgetest.Rig
	backend         string
	pairs           [2]*edgetest.Pair
	client, service *edgetest.Peer
	said            int
}

// newWorld makes what s began with: one listener, one route with a step that sees the end of its exchanges, one cluster.
func (s *socket) newWorld() *world {
	old := s.r.Edge.Snapshot().Config.Listeners[0]
	c := edgetest.Simple()
	c.Listeners = []*ir.Listener{{Key: old.Key, Group: old.Group, Port: old.Port, Protocol: ir.HTTPS, Binds: []ir.Bind{old.Binds[0]}, Source: ir.Source{Kind: "Gateway"},
		TLS: &ir.TLS{Certificates: []ir.Certificate{{Handle: "tls"}}}}}
	c.Hosts[0].Routes[0].Steps = []*ir.Step{{Name: "ends", Phase: policy.Protect.String(), Spec: []byte("{}")}}
	c.Hosts[0].Routes[0].Affinity = &ir.Affinity{Cookie: "session"}
	return &world{config: c, secrets: secret.Set{"tls": {Type: s.pairs[0].Material.Type, Data: s.pairs[0].Material.Data}},
		endpoints: ir.Endpoints{"c": endpoints(s.backend)}}
}

func (s *socket) publish(w *world) feed.Ack {
	s.t.Helper()
	return update(s.t, s.r, func(st *feed.State) (bool, bool, bool) {
		st.Config, st.Secrets, st.Endpoints = w.config, w.secrets, w.endpoints
		return true, true, true
	})
}

// works sends a frame each way.
func (s *socket) works(after string) {
	s.t.Helper()
	s.said++
	f := edgetest.Text(fmt.Sprintf("%d %s", s.said, after))
	s.client.Send(s.t, s.client.Bytes(f))
	s.service.Expect(s.t, f)
	s.service.Send(s.t, s.service.Bytes(f))
	s.client.Expect(s.t, f)
}

// ends is a step whose Done tells.
type ends struct{ done chan string }

func (e *ends) Compile(policy.Env) (policy.Handler, error) {
	return policy.Handler{Request: func(*exchange.Exchange) policy.Verdict { return policy.Verdict{} },
		Done: func(x *exchange.Exchange) { e.done <- x.Reason }}, nil
}

func newSocket(t *testing.T, change ...func(*edge.Options)) (*socket, <-chan string) {
	t.Helper()
	done := make(chan string, 1)
	addr, conns := edgetest.Upgraded(t, "websocket")
	s := &socket{t: t, backend: addr, pairs: [2]*edgetest.Pair{edgetest.Certificate(t, "shop.example"), edgetest.Certificate(t, "shop.example")}}
	o := edgetest.Options{Config: edgetest.Simple(), Clusters: map[string][]string{"c": {addr}}, Secrets: secret.Set{"tls": s.pairs[0].Material},
		Steps: append(edgetest.Steps(), policy.Step{Name: "ends", New: func() policy.Spec { return &ends{done} },
			Phase: func(policy.Spec) policy.Phase { return policy.Protect }}),
		Listener: func(l *ir.Listener) {
			l.Protocol, l.TLS = ir.HTTPS, &ir.TLS{Certificates: []ir.Certificate{{Handle: "tls"}}}
		},
		Edge: func(e *edge.Options) {
			for _, f := range change {
				f(e)
			}
		}}
	s.r = edgetest.New(t, o)
	s.publish(s.newWorld())
	c := s.r.Dial()
	c.Conn = tls.Client(c.Conn, &tls.Config{RootCAs: s.pairs[0].Pool, ServerName: "shop.example"})
	c.R = bufio.NewReader(c.Conn)
	s.client, s.service = edgetest.Open(t, c, "websocket", conns)
	s.works("at first")
	return s, done
}

// changes are all that can become of a configuration while its listener stays, each against what it was in the beginning.
var changes = []struct {
	name   string
	change func(*socket, *world)
}{
	{"nothing but the version", func(*socket, *world) {}},
	{"its route goes elsewhere", func(s *socket, w *world) {
		w.config.Hosts[0].Routes[0].Backends[0].Cluster = "other"
		w.config.Clusters = append(w.config.Clusters, &ir.Cluster{Key: "other"})
	}},
	{"its route matches something else", func(s *socket, w *world) {
		w.config.Hosts[0].Routes[0].Match = ir.Match{Path: ir.PathMatch{Kind: ir.PathExact, Value: "/other"}}
	}},
	{"its route has a time limit", func(s *socket, w *world) {
		d := ir.Duration(time.Millisecond)
		w.config.Hosts[0].Routes[0].Timeouts.Request = &d
	}},
	{"its route is gone", func(s *socket, w *world) { w.config.Hosts[0].Routes = nil }},
	{"its host is gone", func(s *socket, w *world) { w.config.Hosts = nil }},
	{"a policy refuses everybody", func(s *socket, w *world) {
		w.config.Hosts[0].Routes[0].Steps = []*ir.Step{{Name: "invalid", Phase: policy.Protect.String(), Spec: []byte("{}")}}
	}},
	{"its policy is gone", func(s *socket, w *world) { w.config.Hosts[0].Routes[0].Steps = nil }},
	{"its endpoint is gone", func(s *socket, w *world) { w.endpoints = ir.Endpoints{"c": {}} }},
	{"another endpoint", func(s *socket, w *world) { w.endpoints = ir.Endpoints{"c": endpoints("127.0.0.1:9")} }},
	{"its cluster is gone", func(s *socket, w *world) {
		w.config.Clusters, w.endpoints = nil, ir.Endpoints{}
		w.config.Hosts[0].Routes[0].Backends = nil
	}},
	{"its cluster speaks TLS", func(s *socket, w *world) {
		w.config.Clusters[0].TLS = &ir.BackendTLS{Hostname: "shop.example", System: true}
	}},
	{"another certificate", func(s *socket, w *world) { w.secrets = secret.Set{"tls": s.pairs[1].Material} }},
	{"a broken certificate", func(s *socket, w *world) {
		w.secrets = secret.Set{"tls": {Type: "kubernetes.io/tls", Data: map[string]secret.Value{"tls.crt": secret.New([]byte("no"))}}}
	}},
	{"no certificate", func(s *socket, w *world) { w.secrets = secret.Set{} }},
	{"its listener has another hostname", func(s *socket, w *world) { w.config.Listeners[0].Hostname = "other.example" }},
	{"its listener has another name", func(s *socket, w *world) {
		w.config.Listeners[0].Key, w.config.Hosts[0].Listener = "renamed", "renamed"
	}},
	{"its listener wants PROXY headers", func(s *socket, w *world) { w.config.Listeners[0].Client = &ir.Client{Address: "ProxyProtocol"} }},
	{"its listener's limits", func(s *socket, w *world) {
		d := ir.Duration(time.Millisecond)
		w.config.Listeners[0].Client = &ir.Client{HeaderTimeout: &d, IdleTimeout: &d, StreamIdle: &d, RequestLine: 1, HeaderBytes: 1, TLSMinVersion: "1.3"}
	}},
	{"a listener beside it", func(s *socket, w *world) {
		port := edgetest.FreePort(s.t)
		l := *w.config.Listeners[0]
		l.Key, l.Port, l.Binds = "beside", port, []ir.Bind{{Address: l.Binds[0].Address, Port: port}}
		w.config.Listeners = append(w.config.Listeners, &l)
	}},
}

// TestWebSocketOutlivesEveryChange: nothing that becomes of the configuration reaches a relay whose listener stays.
func TestWebSocketOutlivesEveryChange(t *testing.T) {
	s, done := newSocket(t)
	for _, c := range changes {
		w := s.newWorld()
		c.change(s, w)
		s.publish(w)
		s.works(c.name)
		s.publish(s.newWorld())
		s.works("back from: " + c.name)
	}
	s.client.Close()
	s.service.Close()
	if reason := <-done; reason != "" {
		t.Errorf("the step was told %q at the end, want nothing", reason)
	}
}

// TestWebSocketKeepsNothingOld: thousands of snapshots come and go under a relay, and none of them, nor their hosts, listeners and
// certificates, is kept by it: the first ones, under which it began, no more than the others.
func TestWebSocketKeepsNothingOld(t *testing.T) {
	s, _ := newSocket(t)
	var snapshots []weak.Pointer[proxy.Snapshot]
	var hosts []weak.Pointer[ir.Host]
	var routes []weak.Pointer[proxy.Route]
	var affinities []weak.Pointer[ir.Affinity]
	var listeners []weak.Pointer[ir.Listener]
	var material []weak.Pointer[secret.Material]
	note := func() {
		st, _ := s.r.Feed.Latest()
		now := s.r.Edge.Snapshot()
		snapshots = append(snapshots, weak.Make(now))
		hosts = append(hosts, weak.Make(st.Config.Hosts[0]))
		affinities = append(affinities, weak.Make(st.Config.Hosts[0].Routes[0].Affinity))
		listeners = append(listeners, weak.Make(st.Config.Listeners[0]))
		material = append(material, weak.Make(st.Secrets["tls"]))
		q := &route.Query{Host: []byte("shop.example"), Path: []byte("/"), Method: []byte("GET")}
		if m := now.Table.Site("Test", now.Config.Listeners[0].Port).Match(q); m.Value != nil {
			routes = append(routes, weak.Make(m.Value))
		}
	}
	note()
	n := 2000
	if testing.Short() || raceEnabled {
		n = 200
	}
	for i := range n {
		s.publish(s.newWorld())
		if note(); i%100 == 0 {
			s.works("swap")
		}
	}
	s.works("the last swap")
	s.publish(s.newWorld())
	if len(routes) != n+1 {
		t.Fatalf("%d routes noted, want %d", len(routes), n+1)
	}
	for try := 0; ; try++ {
		runtime.GC()
		kept := []int{left(snapshots), left(hosts), left(routes), left(listeners), left(material), left(affinities)}
		if slices.Max(kept) == 0 {
			break
		}
		if try == 20 { // pools are emptied by the second collection, cleanups run beside
			t.Fatalf("kept of %d: %d snapshots, %d hosts, %d routes, %d listeners, %d certificates, %d sessions' settings",
				n+1, kept[0], kept[1], kept[2], kept[3], kept[4], kept[5])
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.works("the end")
}

func left[T any](ps []weak.Pointer[T]) (n int) {
	for _, p := range ps {
		if p.Value() != nil {
			n++
		}
	}
	return n
}

// TestWebSocketEndsWithItsListener: when the listener is deleted, moved, or replaced by that of another Gateway, both sides hear 1001, and
// what does not end then is cut when its time is over.
func TestWebSocketEndsWithItsListener(t *testing.T) {
	for name, change := range map[string]func(*world){
		"deleted":         func(w *world) { w.config.Listeners, w.config.Hosts = nil, nil },
		"another Gateway": func(w *world) { w.config.Listeners[0].Group = "Other" },
		"no TLS":          func(w *world) { w.config.Listeners[0].Protocol, w.config.Listeners[0].TLS = ir.HTTP, nil },
		"another port":    func(w *world) { w.config.Listeners[0].Port++ },
	} {
		for _, silent := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, silent %v", name, silent), func(t *testing.T) {
				finish := edgetest.Wait
				if silent {
					finish = 100 * time.Millisecond
				}
				s, done := newSocket(t, func(o *edge.Options) { o.Finish = finish })
				w := s.newWorld()
				change(w)
				s.publish(w)
				for _, p := range []*edgetest.Peer{s.client, s.service} {
					p.Expect(t, edgetest.GoingAway())
				}
				for _, p := range []*edgetest.Peer{s.client, s.service} {
					if silent {
						_, _ = io.Copy(io.Discard, p.R)
						continue
					}
					p.Send(t, p.Bytes(edgetest.GoingAway()))
					p.Ends(t)
					p.Close()
				}
				if reason := <-done; reason != "going_away" {
					t.Errorf("the step was told %q at the end, want going_away", reason)
				}
			})
		}
	}
}
