package edge

import (
	"maps"
	"slices"

	"github.com/gatehouse-io/gatehouse/internal/cert"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/feed"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/listener"
	"github.com/gatehouse-io/gatehouse/internal/proxy"
)

// certificates makes the certificate stores of HTTPS listeners those of a state and reports whether one changed.
func (e *Edge) certificates(st feed.State) bool {
	if !e.stores.Update(st.Config.Listeners, st.Secrets) {
		return false
	}
	e.certFault = CertificateFaults(e.stores.Faults())
	return true
}

// CertificateFaults are faults of certificates as their objects' authors read them.
func CertificateFaults(faults []cert.Fault) []diag.Fault {
	out := make([]diag.Fault, 0, len(faults))
	for _, f := range faults {
		d := diag.Fault{Object: diag.Ref{Kind: f.Source.Kind, Namespace: f.Source.Namespace, Name: f.Source.Name}, Path: f.Source.Field,
			Message: f.Message, Hint: f.Hint, Reason: "InvalidCertificateRef"}
		if f.Warning {
			d.Severity, d.Reason = diag.Warning, "CertificateMismatch"
		}
		out = append(out, d)
	}
	return out
}

// sockets brings up to date which sockets are wanted and reports whether that changed: not if neither the listeners nor their
// certificates did, nor whose clients are asked for one.
func (e *Edge) sockets(old, now *ir.Config, next *proxy.Snapshot, stores bool) bool {
	if next != e.snapshot {
		asks := map[string]bool{}
		for key, l := range next.Listeners {
			if l.ClientCertificate {
				asks[key] = true
			}
		}
		stores = stores || !maps.Equal(asks, e.asks)
		e.asks = asks
	}
	if !stores && old != nil && slices.Equal(old.Listeners, now.Listeners) {
		return false
	}
	e.wanted, e.refused = listener.Sockets(e.wanted, now.Listeners, e.stores.ByListener(), func(key string) bool { return e.asks[key] })
	return true
}
