package listener

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// TestOneAddressTakesNoMoreThanItsShare: a limit holds by address, by /64 in IPv6, and what ends is given back.
func TestOneAddressTakesNoMoreThanItsShare(t *testing.T) {
	ln, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	k := &socket{set: New(Options{Log: slog.New(slog.DiscardHandler)}), ln: ln, conns: map[*Conn]struct{}{}, from: map[netip.Addr]int{}}
	place := func(addr string) (*Conn, error) {
		a, b := net.Pipe()
		t.Cleanup(func() { _ = b.Close() })
		c := &Conn{nc: a, peer: netip.AddrPortFrom(netip.MustParseAddr(addr), 1)}
		return c, k.place(c, 2)
	}
	var last *Conn
	for _, x := range []struct {
		addr string
		want error
	}{{"192.0.2.1", nil}, {"192.0.2.1", nil}, {"192.0.2.1", errCrowded}, {"192.0.2.2", nil},
		{"2001:db8::1", nil}, {"2001:db8::2", nil}, {"2001:db8::3", errCrowded}, {"2001:db8:0:1::1", nil}} {
		c, err := place(x.addr)
		if err != x.want {
			t.Errorf("%s: got %v, want %v", x.addr, err, x.want)
		}
		if err == nil {
			last = c
			if x.addr != "192.0.2.1" {
				continue
			}
		}
	}
	if n := k.set.Stats().Crowded; n != 2 {
		t.Errorf("%d were counted, want 2", n)
	}
	before := len(k.from)
	k.remove(last)
	if len(k.from) != before-1 {
		t.Errorf("%d addresses are kept after the last connection of one ended, want %d", len(k.from), before-1)
	}
}

// TestStrictestListenerBoundsAnAddress: listeners that share a socket share the strictest limit; one without says nothing.
func TestStrictestListenerBoundsAnAddress(t *testing.T) {
	bind := []ir.Bind{{Port: 80}}
	limit := func(n int) *ir.Client { return &ir.Client{ConnectionsPerAddress: n} }
	wanted, _ := Sockets(nil, []*ir.Listener{{Key: "a", Binds: bind, Client: limit(5)}, {Key: "b", Binds: bind, Client: limit(3)},
		{Key: "c", Binds: bind}, {Key: "d", Binds: bind, Client: limit(4)}}, nil, nil)
	if len(wanted) != 1 || wanted[0].PerAddress != 3 {
		t.Errorf("got %+v, want one socket with 3 connections for an address", wanted)
	}
}
