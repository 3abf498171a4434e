package edgetest_test

import (
	"bufio"
	"crypto/tls"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/feed"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// TestCertificateRotates: a new certificate serves new handshakes and leaves open connections alone; a broken one is a fault and
// changes nothing.
func TestCertificateRotates(t *testing.T) {
	one, two := edgetest.Certificate(t, "shop.example"), edgetest.Certificate(t, "shop.example")
	r := rig(t, says(t, "x"), func(o *edgetest.Options) {
		o.Listener = func(l *ir.Listener) {
			l.Protocol, l.TLS = ir.HTTPS, &ir.TLS{Certificates: []ir.Certificate{{Handle: "tls"}}}
		}
		o.Secrets = secret.Set{"tls": one.Material}
	})
	dial := func(p *edgetest.Pair) *edgetest.Client {
		t.Helper()
		nc, err := tls.Dial("tcp", r.Addr, &tls.Config{RootCAs: p.Pool, ServerName: "shop.example"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		return &edgetest.Client{Conn: nc, T: t, R: bufio.NewReader(nc)}
	}
	rotate := func(m *secret.Material) feed.Ack {
		return update(t, r, func(s *feed.State) (bool, bool, bool) {
			s.Secrets = secret.Set{"tls": m}
			return false, false, true
		})
	}
	open := dial(one)
	before := r.Edge.Snapshot()
	if a := rotate(two.Material); len(a.Faults) != 0 {
		t.Errorf("faults of a good certificate: %v", a.Faults)
	}
	dial(two)
	broken := &secret.Material{Type: "kubernetes.io/tls", Data: map[string]secret.Value{"tls.crt": secret.New([]byte("no")), "tls.key": secret.New([]byte("no"))}}
	if a := rotate(broken); len(a.Faults) != 1 {
		t.Errorf("faults of a broken certificate = %v, want one", a.Faults)
	}
	dial(two)
	if status, _ := get(t, open, "shop.example", "/"); status != 200 {
		t.Errorf("the connection that was open: %d, want 200", status)
	}
	if r.Edge.Snapshot() != before {
		t.Error("another certificate made another snapshot")
	}
}
