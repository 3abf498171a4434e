package proxy

import (
	"net/netip"
	"testing"
	"time"
)

// TestForwardedReadInTwoWays: what a trusted peer says of its client is decided once: scheme, cookies, redirects and the backend get the
// same, however often and in which spelling it was said.
func TestForwardedReadInTwoWays(t *testing.T) {
	trust := Listener{Trusted: func(a netip.Addr) bool { return a.Is4() && a.As4()[0] == 10 }}
	for _, x := range []struct {
		name                                        string
		fields                                      []string
		scheme, proto, host, port, publicHost, list string
		publicPort                                  uint16
	}{
		{name: "nothing", scheme: "http", proto: "http", host: "a", port: "80"},
		{name: "a field twice", fields: []string{"X-Forwarded-Proto: http", "X-Forwarded-Proto: https"}, scheme: "https", proto: "https", host: "a", port: "443"},
		{name: "a field twice, the other way", fields: []string{"X-Forwarded-Proto: https", "X-Forwarded-Proto: http"}, scheme: "http", proto: "http", host: "a", port: "80"},
		{name: "list", fields: []string{"X-Forwarded-Proto: http,  https "}, scheme: "https", proto: "https", host: "a", port: "443"},
		{name: "list with an empty end", fields: []string{"X-Forwarded-Proto: https, ,"}, scheme: "https", proto: "https", host: "a", port: "443"},
		{name: "case", fields: []string{"x-forwarded-proto: HTTPS"}, scheme: "https", proto: "https", host: "a", port: "443"},
		{name: "WebSocket", fields: []string{"X-Forwarded-Proto: wss"}, scheme: "https", proto: "https", host: "a", port: "443"},
		{name: "WebSocket in the clear", fields: []string{"X-Forwarded-Proto: WS"}, scheme: "http", proto: "http", host: "a", port: "80"},
		{name: "rightmost that is one", fields: []string{"X-Forwarded-Proto: https, junk"}, scheme: "https", proto: "https", host: "a", port: "443"},
		{name: "none that is one", fields: []string{"X-Forwarded-Proto: junk"}, scheme: "http", proto: "http", host: "a", port: "80"},
		{name: "other spelling", fields: []string{"X_Forwarded_Proto: https"}, scheme: "http", proto: "http", host: "a", port: "80"},
		{name: "port said", fields: []string{"X-Forwarded-Proto: https", "X-Forwarded-Port: 08443"}, scheme: "https", proto: "https", host: "a", port: "8443", publicPort: 8443},
		{name: "port out of bounds", fields: []string{"X-Forwarded-Proto: https", "X-Forwarded-Port: 65536"}, scheme: "https", proto: "https", host: "a", port: "443"},
		{name: "port list", fields: []string{"X-Forwarded-Port: 1, 8443,x,"}, scheme: "http", proto: "http", host: "a", port: "8443", publicPort: 8443},
		{name: "host", fields: []string{"X-Forwarded-Host: x, Pub.Example.:0444"}, scheme: "http", proto: "http", host: "pub.example:444", port: "444", publicHost: "pub.example", publicPort: 444},
		{name: "host without port", fields: []string{"X-Forwarded-Host: pub.example"}, scheme: "http", proto: "http", host: "pub.example", port: "80", publicHost: "pub.example"},
		{name: "host that is none", fields: []string{"X-Forwarded-Host: pub/example"}, scheme: "http", proto: "http", host: "a", port: "80"},
		{name: "port beside a host with one", fields: []string{"X-Forwarded-Port: 1444", "X-Forwarded-Host: p:444"}, scheme: "http", proto: "http", host: "p:444", port: "1444", publicHost: "p", publicPort: 1444},
		{name: "empty list of addresses", fields: []string{"X-Forwarded-For: "}, scheme: "http", proto: "http", host: "a", port: "80", list: "10.0.0.1"},
		{name: "empty elements", fields: []string{"X-Forwarded-For: ,203.0.113.7 ,, 10.0.0.2,"}, scheme: "http", proto: "http", host: "a", port: "80", list: "203.0.113.7, 10.0.0.2, 10.0.0.1"},
	} {
		t.Run(x.name, func(t *testing.T) {
			got, f := headWith(t, trust, "10.0.0.1:1", x.fields...)
			if x.list == "" {
				x.list = "10.0.0.1"
			}
			for k, want := range map[string]string{"x-forwarded-proto": x.proto, "x-forwarded-host": x.host, "x-forwarded-port": x.port, "x-forwarded-for": x.list} {
				if got[k] != want {
					t.Errorf("%s = %q, want %q", k, got[k], want)
				}
			}
			if f.Scheme != x.scheme || string(f.PublicHost) != x.publicHost || f.PublicPort != x.publicPort {
				t.Errorf("scheme %s, public %s:%d, want %s, %s:%d", f.Scheme, f.PublicHost, f.PublicPort, x.scheme, x.publicHost, x.publicPort)
			}
			got, f = headWith(t, Listener{}, "10.0.0.1:1", x.fields...)
			if f.Scheme != "http" || f.PublicHost != nil || f.PublicPort != 0 || got["x-forwarded-proto"] != "http" || got["x-forwarded-host"] != "a" ||
				got["x-forwarded-port"] != "80" || got["x-forwarded-for"] != "10.0.0.1" {
				t.Errorf("of a peer that is not trusted: %v, %s, %s:%d", got, f.Scheme, f.PublicHost, f.PublicPort)
			}
		})
	}
}

// TestEmptyElementHidesClient: an empty element of a list is none.
func TestEmptyElementHidesClient(t *testing.T) {
	trust := Listener{Trusted: func(a netip.Addr) bool { return a.Is4() && a.As4()[0] == 10 }}
	for list, want := range map[string]string{"203.0.113.7,": "203.0.113.7", " , 203.0.113.7 ,\t, 10.0.0.2": "203.0.113.7", "": "10.0.0.1", ",": "10.0.0.1"} {
		got, f := headWith(t, trust, "10.0.0.1:1", "X-Forwarded-For: "+list)
		if c := f.Client.Addr().String(); c != want || got["x-real-ip"] != want {
			t.Errorf("of %q: client %s, X-Real-Ip %s, want %s", list, c, got["x-real-ip"], want)
		}
	}
}

// TestTwoRealAddresses: X-Real-Ip is one address.
func TestTwoRealAddresses(t *testing.T) {
	trust := Listener{Trusted: func(netip.Addr) bool { return true }}
	for _, x := range []struct{ name, a, b, want string }{
		{"one", "X-Real-Ip: 203.0.113.7", "X: y", "203.0.113.7"},
		{"two", "X-Real-Ip: 203.0.113.7", "X-Real-Ip: 203.0.113.8", "198.51.100.1"},
		{"none that is one", "X-Real-Ip: junk", "X: y", "198.51.100.1"},
		{"other spelling", "X_Real_Ip: 203.0.113.7", "X: y", "198.51.100.1"},
	} {
		got, _ := headWith(t, trust, "10.0.0.1:1", "X-Forwarded-For: 198.51.100.1", x.a, x.b)
		if got["x-real-ip"] != x.want || got["x_real_ip"] != "" {
			t.Errorf("%s: %v, want %s", x.name, got, x.want)
		}
	}
}

// TestMalformedHeadWithoutID: also what could not be read can be found in the log.
func TestMalformedHeadWithoutID(t *testing.T) {
	w := newWorld(t, 1, nil, nil)
	var f Flow
	f.Begin(w.edge, &ConnInfo{Group: "G", Port: 80}, time.Unix(1, 0))
	if got := play(&f, "malformed"); got != "answer(400 bad)" {
		t.Fatal(got)
	}
	if want := `{"type":"about:blank","title":"Bad Request","status":400,"reason":"bad","requestId":"explained"}` + "\n"; string(f.Response.Body) != want {
		t.Errorf("got %s, want %s", f.Response.Body, want)
	}
	if string(f.ID) != "explained" {
		t.Errorf("the log's id is %q, want the problem document's", f.ID)
	}
}
