package edgetest_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
)

const (
	fromLoopback = "trustedCIDRs: [127.0.0.0/8]"
	fromNobody   = "trustedCIDRs: [192.0.2.0/24]"
)

// TestClientAddress: whom a backend is told the client is, by each way to know it, however the policy is attached.
func TestClientAddress(t *testing.T) {
	backend := head(t)
	for _, a := range attachments {
		for _, x := range []struct {
			name, spec   string
			before, head string // what the peer sends before its request, and in its head
			want         string // the client, "": the connection ends without an answer
		}{
			{"no policy", "", "", "X-Forwarded-For: 203.0.113.7\nCF-Connecting-IP: 203.0.113.8\n", "127.0.0.1"},
			{"X-Forwarded-For", "clientAddress: {source: {type: XForwardedFor}, " + fromLoopback + "}", "",
				"X-Forwarded-For: 198.51.100.1, 203.0.113.7, 127.0.0.9\nCF-Connecting-IP: 203.0.113.8\n", "203.0.113.7"},
			{"no X-Forwarded-For", "clientAddress: {source: {type: XForwardedFor}, " + fromLoopback + "}", "", "", "127.0.0.1"},
			{"X-Forwarded-For, not trusted", "clientAddress: {source: {type: XForwardedFor}, " + fromNobody + "}", "", "X-Forwarded-For: 203.0.113.7\n", "127.0.0.1"},
			{"a header", "clientAddress: {source: {type: Header, header: CF-Connecting-IP}, " + fromLoopback + "}", "",
				"X-Forwarded-For: 203.0.113.7\nCF-Connecting-IP: 203.0.113.8\n", "203.0.113.8"},
			{"a header, not trusted", "clientAddress: {source: {type: Header, header: CF-Connecting-IP}, " + fromNobody + "}", "", "CF-Connecting-IP: 203.0.113.8\n", "127.0.0.1"},
			{"PROXY protocol", "clientAddress: {source: {type: ProxyProtocol}, " + fromLoopback + "}", "PROXY TCP4 203.0.113.9 127.0.0.1 1000 80\n",
				"X-Forwarded-For: 203.0.113.7\n", "203.0.113.9"},
			{"PROXY protocol, no header", "clientAddress: {source: {type: ProxyProtocol}, " + fromLoopback + "}", "", "", ""},
			{"PROXY protocol, not trusted", "clientAddress: {source: {type: ProxyProtocol}, " + fromNobody + "}", "PROXY TCP4 203.0.113.9 127.0.0.1 1000 80\n", "", ""},
		} {
			t.Run(a.name+"/"+x.name, func(t *testing.T) {
				s := serve(t, backend, a, false, x.spec)
				c := edgetest.DialTo(t, s.web)
				c.Send(x.before + "GET / HTTP/1.1\nHost: a\n" + x.head + "\n")
				if x.want == "" {
					c.Closed()
					return
				}
				if res, body := c.Read("GET"); res.StatusCode != 200 || !strings.Contains(body, "real="+x.want+" ") {
					t.Errorf("got %d %q, want real=%s", res.StatusCode, body, x.want)
				}
				if a.beside || x.spec == "" {
					return
				}
				c = edgetest.DialTo(t, s.beside)
				c.Send("GET / HTTP/1.1\nHost: a\n" + x.head + "\n")
				if res, body := c.Read("GET"); res.StatusCode != 200 || !strings.Contains(body, "real=127.0.0.1 ") {
					t.Errorf("beside: got %d %q, want real=127.0.0.1", res.StatusCode, body)
				}
			})
		}
	}
}

// TestTLSMinVersion: 1.2 is the least by default, what a policy says else.
func TestTLSMinVersion(t *testing.T) {
	backend := head(t)
	for _, a := range attachments {
		for spec, least := range map[string]uint16{"": tls.VersionTLS12, `tls: {minVersion: "1.2"}`: tls.VersionTLS12, `tls: {minVersion: "1.3"}`: tls.VersionTLS13} {
			s := serve(t, backend, a, true, spec)
			for _, v := range []uint16{tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
				c := edgetest.DialTo(t, s.web)
				conn := tls.Client(c.Conn, &tls.Config{RootCAs: s.pair.Pool, ServerName: "shop.example", MinVersion: tls.VersionTLS10, MaxVersion: v})
				err := conn.Handshake()
				if (err == nil) != (v >= least) {
					t.Errorf("%s, %q: a client of at most %s: %v", a.name, spec, tls.VersionName(v), err)
				}
				if err != nil {
					continue
				}
				c.Conn, c.R = conn, bufio.NewReader(conn)
				c.Send("GET / HTTP/1.1\nHost: shop.example\n\n")
				if res, _ := c.Read("GET"); res.StatusCode != 200 {
					t.Errorf("%s, %q, %s: got %d, want 200", a.name, spec, tls.VersionName(v), res.StatusCode)
				}
			}
		}
	}
}

// guarded gives one of the paths a policy: then the spelling of a path decides who may do what, and odd ones are refused.
func guarded(a attachment) string {
	if a.class {
		return `---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: guarded, namespace: d}
spec:
  ingressClassName: k
  rules: [{http: {paths: [{path: /guarded, pathType: Prefix, backend: {service: {name: s, port: {number: 80}}}}]}}]
---
` + fmt.Sprintf(guard, "{group: networking.k8s.io, kind: Ingress, name: guarded}")
	}
	return `---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: guarded, namespace: d}
spec:
  parentRefs: [{name: g}]
  rules: [{matches: [{path: {value: /guarded}}], backendRefs: [{name: s, port: 80}]}]
---
` + fmt.Sprintf(guard, "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: guarded}")
}

const guard = `apiVersion: gatehouse.dev/v1alpha1
kind: ProtectionPolicy
metadata: {name: guarded, namespace: d}
spec:
  targetRefs: [%s]
  defaults: {maintenance: {allow: [192.0.2.0/24]}}
`

// TestPathHygiene: what becomes of an odd spelling on a host where nothing hangs on it, and on one where a policy does.
func TestPathHygiene(t *testing.T) {
	backend := head(t)
	for _, a := range attachments {
		for _, x := range []struct {
			spec, path string
			want       string // path that the backend gets, or a status
			sensitive  string // the same where another route is guarded
		}{
			{"", "/a%2Fb", "/a%2Fb", "400"},
			{"path: {escapedSlashes: Reject}", "/a%2Fb", "400", "400"},
			{"path: {escapedSlashes: Keep}", "/a%2Fb", "/a%2Fb", "/a%2Fb"},
			{"", "/a//b", "/a//b", "/a/b"},
			{"path: {emptySegments: Merge}", "/a//b", "/a/b", "/a/b"},
			{"path: {emptySegments: Keep}", "/a//b", "/a//b", "/a//b"},
			{"path: {emptySegments: Keep}", "/a//../b", "400", "400"},
			{"", "/guarded", "/guarded", "503"},
			{"", "//guarded", "//guarded", "503"},
		} {
			for _, sensitive := range []bool{false, true} {
				want, b := x.want, a
				if sensitive {
					b.more, want = guarded(a), x.sensitive
				}
				s := serve(t, backend, b, false, x.spec)
				c := edgetest.DialTo(t, s.web)
				c.Send("GET " + x.path + " HTTP/1.1\nHost: a\n\n")
				res, body := c.Read("GET")
				if got, _, _ := strings.Cut(body, " real="); res.StatusCode != 200 && want != fmt.Sprint(res.StatusCode) || res.StatusCode == 200 && got != want {
					t.Errorf("%s, %q, guarded %v: %s gives %d %.60q, want %s", a.name, x.spec, sensitive, x.path, res.StatusCode, got, want)
				}
			}
		}
	}
}

// TestClientTimes: the times of a policy hold, however it is attached: a head and the next request that come in time are answered, and
// what does not come ends the connection not before its time.
func TestClientTimes(t *testing.T) {
	backend := head(t)
	for _, a := range attachments {
		for _, x := range []struct {
			name, spec string
			first      string // sent at once
			rest       string // sent after half of the time, or never
			status     int    // of the answer where it never comes, 0: none
		}{
			{"head", "timeouts: {header: 1s, idle: 1h}", "GET / HTTP/1.1\n", "Host: a\n\n", 408},
			{"idle", "timeouts: {header: 1h, idle: 1s}", "", "GET / HTTP/1.1\nHost: a\n\n", 0},
		} {
			for _, comes := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s/%s, comes %v", a.name, x.name, comes), func(t *testing.T) {
					t.Parallel()
					s := serve(t, backend, a, false, x.spec)
					start := time.Now()
					c := edgetest.DialTo(t, s.web)
					c.Send(x.first)
					want := x.status
					if comes {
						time.Sleep(500 * time.Millisecond)
						c.Send(x.rest)
						want = 200
					}
					if want == 0 {
						c.Closed()
					} else if res, body := c.Read("GET"); res.StatusCode != want {
						t.Errorf("got %d %q, want %d", res.StatusCode, body, want)
					}
					if took := time.Since(start); !comes && took < time.Second {
						t.Errorf("it ended after %v, want 1s", took)
					}
				})
			}
		}
	}
}
