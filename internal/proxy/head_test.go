package proxy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// headWith runs the head of a request with fields "Name: value" through a listener and returns what the backend would get,
// and who the client is.
func headWith(t *testing.T, l Listener, peer string, fields ...string) (map[string]string, *Flow) {
	t.Helper()
	w := newWorld(t, 1, nil, nil)
	s := w.edge.Snapshot()
	l.Config = s.Listeners["l"].Config
	s.Listeners["l"] = &l
	f := &Flow{}
	w.begin(f, "GET", "/app")
	f.Peer = netip.MustParseAddrPort(peer)
	f.Client = f.Peer
	f.conn.PeerText = []byte(f.Peer.Addr().String())
	for _, h := range fields {
		name, value, _ := strings.Cut(h, ": ")
		f.Request.Header.Append([]byte(name), []byte(value))
	}
	if a := f.Step(EventHead); a != ActionConnect {
		t.Fatalf("action %s, want connect", actionNames[a])
	}
	got := map[string]string{}
	for _, h := range f.Request.Header.All() {
		k := strings.ToLower(string(h.Name))
		if old, ok := got[k]; ok {
			got[k] = old + " | " + string(h.Value)
		} else {
			got[k] = string(h.Value)
		}
	}
	return got, f
}

// TestIdentityHeaderSpoofing: no spelling of a field that only the edge may write comes through from a client.
func TestIdentityHeaderSpoofing(t *testing.T) {
	for _, name := range []string{"X-Gatehouse-Subject", "x-gatehouse-subject", "X_Gatehouse_Subject", "X-GATEHOUSE_Plan", "x_gatehouse-a",
		"X_Forwarded_For", "x-forwarded_proto", "X_Real_IP", "Forwarded", "X-Forwarded-Client-Cert", "X_Request_Id"} {
		got, _ := headWith(t, Listener{}, "192.0.2.1:1", name+": evil", name+": evil")
		for k, v := range got {
			if strings.Contains(v, "evil") {
				t.Errorf("%s came through as %s: %s", name, k, v)
			}
		}
	}
	trust := Listener{Trusted: func(netip.Addr) bool { return true }}
	for _, name := range []string{"X-Gatehouse-Subject", "X_Forwarded_For", "x_gatehouse-a"} {
		got, _ := headWith(t, trust, "192.0.2.1:1", name+": evil")
		if v := fmt.Sprint(got); strings.Contains(v, "evil") {
			t.Errorf("%s came through from a trusted peer: %v", name, v)
		}
	}
}

func TestForwardedFields(t *testing.T) {
	inside := func(a netip.Addr) bool { return a.Is4() && a.As4()[0] == 10 }
	for _, x := range []struct {
		name   string
		l      Listener
		peer   string
		fields []string
		client string
		want   map[string]string
	}{
		{name: "nobody is trusted", peer: "192.0.2.1:1", client: "192.0.2.1", fields: []string{"X-Forwarded-For: 1.1.1.1", "X-Forwarded-Proto: https"},
			want: map[string]string{"x-forwarded-for": "192.0.2.1", "x-forwarded-proto": "http", "x-forwarded-host": "a", "x-forwarded-port": "80", "x-real-ip": "192.0.2.1"}},
		{name: "peer is not trusted", l: Listener{Trusted: inside}, peer: "192.0.2.1:1", client: "192.0.2.1", fields: []string{"X-Forwarded-For: 10.0.0.9"},
			want: map[string]string{"x-forwarded-for": "192.0.2.1"}},
		{name: "rightmost untrusted", l: Listener{Trusted: inside}, peer: "10.0.0.1:1", client: "203.0.113.7", fields: []string{"X-Forwarded-For: 1.1.1.1, 203.0.113.7", "X-Forwarded-For: 10.0.0.2", "X-Forwarded-Proto: https"},
			want: map[string]string{"x-forwarded-for": "1.1.1.1, 203.0.113.7, 10.0.0.2, 10.0.0.1", "x-forwarded-proto": "https", "x-real-ip": "203.0.113.7"}},
		{name: "all trusted: leftmost", l: Listener{Trusted: inside}, peer: "10.0.0.1:1", client: "10.0.0.3", fields: []string{"X-Forwarded-For: 10.0.0.3,10.0.0.2"}},
		{name: "junk ends the walk", l: Listener{Trusted: inside}, peer: "10.0.0.1:1", client: "10.0.0.2", fields: []string{"X-Forwarded-For: 1.1.1.1, junk, 10.0.0.2"}},
		{name: "IPv6 and ports", l: Listener{Trusted: inside}, peer: "10.0.0.1:1", client: "2001:db8::1", fields: []string{"X-Forwarded-For: [2001:db8::1]:4711"}},
		{name: "another header", l: Listener{Trusted: inside, Header: "CF-Connecting-IP"}, peer: "10.0.0.1:1", client: "203.0.113.9", fields: []string{"X-Forwarded-For: 1.1.1.1", "CF-Connecting-IP: 203.0.113.9"}},
		{name: "request id of a trusted peer", l: Listener{Trusted: inside}, peer: "10.0.0.1:1", client: "10.0.0.1", fields: []string{"X-Request-Id: abc-1"}, want: map[string]string{"x-request-id": "abc-1"}},
		{name: "request id that could break a log", l: Listener{Trusted: inside}, peer: "10.0.0.1:1", client: "10.0.0.1", fields: []string{"X-Request-Id: a\"b"}, want: map[string]string{"x-request-id": "explained"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			got, f := headWith(t, x.l, x.peer, x.fields...)
			if c := f.Client.Addr().String(); c != x.client {
				t.Errorf("client = %s, want %s", c, x.client)
			}
			for k, v := range x.want {
				if got[k] != v {
					t.Errorf("%s = %q, want %q", k, got[k], v)
				}
			}
		})
	}
}

// TestPathConfusion: on a path-sensitive host a path has one reading, or is refused.
func TestPathConfusion(t *testing.T) {
	for _, x := range []struct {
		name      string
		l         Listener
		sensitive bool
		raw       string
		status    int
		target    string
	}{
		{"plain", Listener{}, true, "/app/x", 0, "/app/x"},
		{"client's spelling elsewhere", Listener{}, false, "/app/%7euser", 0, "/app/%7euser"},
		{"canonical where it matters", Listener{}, true, "/app/%7euser", 0, "/app/~user"},
		{"escaped slash that matches nothing", Listener{}, true, "/app%2fx", 404, ""},
		{"escaped slash behind the prefix", Listener{}, true, "/app/a%2Fb", 400, ""},
		{"escaped slash where it does not matter", Listener{}, false, "/app/a%2fb", 0, "/app/a%2fb"},
		{"escaped slash refused by the listener", Listener{RejectEscapes: true}, false, "/app/a%2fb", 400, ""},
		{"escaped slash kept by the listener", Listener{KeepEscapes: true}, true, "/app/a%2fb", 0, "/app/a%2Fb"},
		{"backslash", Listener{}, true, `/app/..\x`, 400, ""},
		{"double-encoded dots", Listener{}, true, "/app/%252e%252e/x", 400, ""},
		{"empty segments merged", Listener{}, true, "/app///x", 0, "/app/x"},
		{"empty segments kept", Listener{KeepEmpty: true}, true, "/app///x", 0, "/app///x"},
		{"empty segments elsewhere", Listener{}, false, "/app//x", 0, "/app//x"},
		{"empty segments merged by the listener", Listener{MergeEmpty: true}, false, "//app//x", 0, "/app/x"},
	} {
		t.Run(x.name, func(t *testing.T) {
			w := newWorld(t, 1, nil, func(r *Route) { r.PathSensitive = x.sensitive })
			s := w.edge.Snapshot()
			x.l.Config = s.Listeners["l"].Config
			s.Listeners["l"] = &x.l
			var f Flow
			w.begin(&f, "GET", "/")
			p, _, ok := exchange.CanonicalPath(nil, []byte(x.raw))
			if !ok {
				t.Fatalf("CanonicalPath(%q) refused", x.raw)
			}
			f.Request.Path, f.Request.RawPath, f.Request.PathFlags = p.Canonical, p.Raw, p.Flags
			a := f.Step(EventHead)
			if x.status != 0 {
				if a != ActionAnswer || f.Response.Status != x.status {
					t.Errorf("%s %d, want answer %d", actionNames[a], f.Response.Status, x.status)
				}
			} else if got := string(f.Target()); a != ActionConnect || got != x.target {
				t.Errorf("%s, target %q, want connect, %q (status %d %s)", actionNames[a], got, x.target, f.Response.Status, f.Reason)
			}
			f.End(time.Unix(2, 0))
		})
	}
}
