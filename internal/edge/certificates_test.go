package edge

import (
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/cert"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/proxy"
)

// A configuration whose listeners, certificates and demands for certificates are as before leaves the sockets alone.
func TestRouteChangeMakesNoSockets(t *testing.T) {
	l := &ir.Listener{Key: "l", Protocol: ir.HTTPS, Port: 1, Binds: []ir.Bind{{Port: 1}}, TLS: &ir.TLS{}}
	config := func(ls ...*ir.Listener) *ir.Config { return &ir.Config{Listeners: ls} }
	snapshot := func(asks bool) *proxy.Snapshot {
		return &proxy.Snapshot{Listeners: map[string]*proxy.Listener{"l": {Config: l, ClientCertificate: asks}}}
	}
	e := &Edge{}
	old := (*ir.Config)(nil)
	for _, c := range []struct {
		what   string
		config *ir.Config
		asks   bool
		stores bool
		want   bool
	}{
		{"the first", config(l), false, true, true},
		{"a route", config(l), false, false, false},
		{"a certificate", config(l), false, true, true},
		{"clients are asked for a certificate", config(l), true, false, true},
		{"a route again", config(l), true, false, false},
		{"a listener more", config(l, &ir.Listener{Key: "m", Protocol: ir.HTTP, Port: 2, Binds: []ir.Bind{{Port: 2}}}), true, false, true},
	} {
		next := snapshot(c.asks)
		if got := e.sockets(old, c.config, next, c.stores); got != c.want {
			t.Errorf("%s: sockets = %v, want %v", c.what, got, c.want)
		}
		old, e.snapshot = c.config, next
	}
	if len(e.wanted) != 2 || e.wanted[0].TLS == nil {
		t.Errorf("wanted = %+v, want two sockets, the first with TLS", e.wanted)
	}
}

func TestCertificateWarningsAreWarnings(t *testing.T) {
	got := CertificateFaults([]cert.Fault{{Message: "a", Warning: true}, {Message: "b", Source: ir.Source{Kind: "Ingress", Name: "i", Field: "spec.tls[0]"}}})
	if got[0].Severity != diag.Warning || got[1].Severity != diag.Error || got[1].Path != "spec.tls[0]" || got[1].Object.Name != "i" {
		t.Errorf("faults = %+v, want a warning, then an error of Ingress i at spec.tls[0]", got)
	}
}
