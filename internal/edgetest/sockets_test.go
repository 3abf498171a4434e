package edgetest_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/feed"
	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// TestSocketsComeAndGo: listeners are added, refused and removed without a word to connections of the others.
func TestSocketsComeAndGo(t *testing.T) {
	r := rig(t, says(t, "x"))
	c := r.Dial()
	get(t, c, "a", "/")
	first := r.Edge.Snapshot().Config
	old := *first.Listeners[0]
	old.Created = time.Unix(1, 0)
	port := edgetest.FreePort(t)
	second := ir.Listener{Key: "second", Group: "Other", Port: port, Protocol: ir.HTTP, Created: time.Unix(2, 0),
		Binds: []ir.Bind{{Address: netip.AddrFrom4([4]byte{127, 0, 0, 1}), Port: port}}}
	younger := ir.Listener{Key: "younger", Group: "Third", Port: old.Port, Protocol: ir.HTTP, Created: time.Unix(3, 0), Binds: old.Binds}
	set := func(ls ...*ir.Listener) feed.Ack {
		return update(t, r, func(s *feed.State) (bool, bool, bool) {
			cfg := *first
			cfg.Listeners = ls
			cfg.Hosts = []*ir.Host{first.Hosts[0], {Listener: "second", Routes: first.Hosts[0].Routes}}
			s.Config = &cfg
			return true, false, false
		})
	}
	a := set(&younger, &second, &old)
	if p := a.Listeners["younger"].Problem; !strings.Contains(p, "Gateway test/test") || a.Listeners["younger"].Bound != "" {
		t.Errorf("the younger's state = %+v, want one that names Gateway test/test", a.Listeners["younger"])
	}
	if a.Listeners["test"].Problem != "" || a.Listeners["second"].Problem != "" {
		t.Errorf("states = %+v, want no other problem", a.Listeners)
	}
	d := edgetest.DialTo(t, a.Listeners["second"].Bound)
	if status, _ := get(t, d, "a", "/"); status != 200 {
		t.Errorf("the new listener answers %d, want 200", status)
	}
	set(&old)
	d.Closed() // its listener is gone
	if status, _ := get(t, c, "a", "/"); status != 200 {
		t.Errorf("a connection of the listener that stayed: %d, want 200", status)
	}
}
