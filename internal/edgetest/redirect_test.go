package edgetest_test

import (
	"net/http"
	"net/netip"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/policy/builtin"
)

// TestRedirectBehindAProxyThatEndsTLS: a client that the proxy served over https is not sent to https again, in a loop; who is not
// trusted cannot say so.
func TestRedirectBehindAProxyThatEndsTLS(t *testing.T) {
	for _, tt := range []struct {
		trusted, header string
		status          int
	}{
		{"127.0.0.0/8", "X-Forwarded-Proto: https\n", 200},
		{"127.0.0.0/8", "X-Forwarded-Proto: http\n", 308},
		{"127.0.0.0/8", "", 308},
		{"192.0.2.0/24", "X-Forwarded-Proto: https\n", 308},
	} {
		b := edgetest.HTTPBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
		c := edgetest.Simple()
		c.Hosts[0].Routes[0].Steps = []*ir.Step{step("redirect", "transform request", `{"scheme":"https","statusCode":308,"unlessSecure":true}`)}
		r := edgetest.New(t, edgetest.Options{Config: c, Steps: builtin.Steps(), Clusters: map[string][]string{"c": {b}}, Listener: func(l *ir.Listener) {
			l.Client = &ir.Client{Address: "XForwardedFor", Trusted: []netip.Prefix{netip.MustParsePrefix(tt.trusted)}}
		}})
		cl := r.Dial()
		cl.Send("GET /a HTTP/1.1\nHost: shop.example\n" + tt.header + "\n")
		res, _ := cl.Read("GET")
		if res.StatusCode != tt.status || tt.status == 308 && res.Header.Get("Location") != "https://shop.example/a" {
			t.Errorf("trusted %s, %q: %d to %q, want %d", tt.trusted, tt.header, res.StatusCode, res.Header.Get("Location"), tt.status)
		}
	}
}
