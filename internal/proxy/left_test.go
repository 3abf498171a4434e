package proxy

import (
	"net/netip"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/upstream"
)

// TestEndpointLeft: what an endpoint fails after it has left its cluster goes once to another one, if that is safe.
func TestEndpointLeft(t *testing.T) {
	at := func(port uint16) upstream.Resolved {
		return upstream.Resolved{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 1}), port), Ready: true}
	}
	for _, x := range []struct {
		method, died string
		sent, again  bool
	}{{"GET", "died-fresh", true, true}, {"GET", "died-reused", true, true}, {"POST", "died-fresh", true, false}, {"PUT", "died-streamed", true, false}} {
		c := upstream.NewSet(upstream.Rules{}).Acquire("c")
		c.SetEndpoints([]upstream.Resolved{at(1)})
		f := &Flow{backend: &Backend{Cluster: c}, To: c, Matched: &Route{Config: &ir.Route{}}}
		f.Request.Method = []byte(x.method)
		f.Endpoint = c.Endpoints()[0]
		c.SetEndpoints([]upstream.Resolved{at(2)})
		f.Sent, f.Reused, f.Kept = x.sent, x.died == "died-reused", x.died != "died-streamed"
		if !x.again {
			if a := f.backendFailed(); a == ActionConnect || f.replays != 0 {
				t.Errorf("%s %s: action %v, %d replays; want none", x.method, x.died, a, f.replays)
			}
			continue
		}
		if a := f.backendFailed(); a != ActionConnect || !f.Fresh || f.Endpoint != c.Endpoints()[0] || f.replays != 1 {
			t.Errorf("%s %s: action %v, fresh %v, %d replays, to %s; want one fresh connection to the endpoint that stays", x.method, x.died, a,
				f.Fresh, f.replays, f.Endpoint.Text)
		}
	}
}
