package cluster

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// The lab's addresses. None of them exists outside of it.
var (
	podNet4     = netip.MustParsePrefix("10.244.0.0/16")
	podNet6     = netip.MustParsePrefix("fd00:10:244::/64")
	serviceNet4 = netip.MustParsePrefix("10.96.0.0/16")
	serviceNet6 = netip.MustParsePrefix("fd00:10:96::/112")
	poolNet4    = netip.MustParsePrefix("172.30.0.0/16")
	poolNet6    = netip.MustParsePrefix("fd00:172:30::/112")
	nodeNet4    = netip.MustParsePrefix("172.29.0.0/24")
	nodeNet6    = netip.MustParsePrefix("fd00:172:29::/64")
)

// Of the pods' network the first addresses are taken: the node's end of the bridge, the control plane, the services' proxy.
const (
	bridgeName       = "pods"
	hostNode         = 1
	hostControlPlane = 2
	hostServices     = 3
	dnsHost          = 10 // in the services' network
	firstPod         = 256
)

// nth is the address n places after the start of a network.
func nth(p netip.Prefix, n uint32) netip.Addr {
	a := p.Addr().AsSlice()
	for i := len(a) - 1; n > 0; i-- {
		n += uint32(a[i])
		a[i] = byte(n)
		n >>= 8
	}
	addr, _ := netip.AddrFromSlice(a)
	return addr
}

// network is the lab's bridge and the network namespaces on it.
type network struct {
	ip6  bool
	mu   sync.Mutex
	next uint32
	used map[uint32]bool
	veth int
}

// netSpace is a network namespace with one interface, eth0, on the bridge.
type netSpace struct {
	handle netns.NsHandle
	veth   string
	host   uint32 // place of its addresses in the pods' network
	addrs  []netip.Addr
}

func newNetwork() (*network, error) {
	n := &network{next: firstPod, used: map[uint32]bool{}}
	if _, err := os.Stat("/proc/sys/net/ipv6"); err == nil {
		n.ip6 = true
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName}}
	if err := netlink.LinkAdd(bridge); err != nil {
		return nil, fmt.Errorf("making the bridge: %w", err)
	}
	for _, a := range n.addresses(hostNode) {
		if err := addAddress(bridge, a, podNet(a).Bits()); err != nil {
			return nil, err
		}
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		return nil, fmt.Errorf("setting the bridge up: %w", err)
	}
	for _, p := range n.virtual() {
		via := nth(podNet(p.Addr()), hostServices)
		if err := netlink.RouteAdd(&netlink.Route{Dst: ipNet(p), Gw: via.AsSlice()}); err != nil {
			return nil, fmt.Errorf("routing %s to the services' proxy: %w", p, err)
		}
	}
	return n, nil
}

// virtual lists the networks whose addresses belong to services.
func (n *network) virtual() []netip.Prefix {
	if n.ip6 {
		return []netip.Prefix{serviceNet4, poolNet4, serviceNet6, poolNet6}
	}
	return []netip.Prefix{serviceNet4, poolNet4}
}

func (n *network) addresses(host uint32) []netip.Addr {
	if n.ip6 {
		return []netip.Addr{nth(podNet4, host), nth(podNet6, host)}
	}
	return []netip.Addr{nth(podNet4, host)}
}

// podNet is the pods' network of the family of a.
func podNet(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return podNet4
	}
	return podNet6
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func addAddress(l netlink.Link, a netip.Addr, bits int) error {
	addr := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(a, bits))}
	if a.Is6() {
		// No duplicate address detection: the address would not be usable for a second.
		addr.Flags = 0x02
	}
	if err := netlink.AddrAdd(l, addr); err != nil {
		return fmt.Errorf("giving %s the address %s: %w", l.Attrs().Name, a, err)
	}
	return nil
}

// pod makes a namespace with fresh addresses.
func (n *network) pod() (*netSpace, error) {
	n.mu.Lock()
	host := n.next
	for n.used[host] || host&0xff == 0 || host&0xff == 0xff {
		host++
		if host >= 1<<16-1 {
			host = firstPod
		}
	}
	n.used[host], n.next = true, host+1
	n.mu.Unlock()
	return n.space(host)
}

// space makes a namespace whose eth0 has the host-th addresses of the pods' network and routes everything to the node.
func (n *network) space(host uint32) (*netSpace, error) {
	n.mu.Lock()
	n.veth++
	name := fmt.Sprintf("veth%d", n.veth)
	n.mu.Unlock()

	s := &netSpace{handle: netns.None(), veth: name, host: host, addrs: n.addresses(host)}
	bridge, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return nil, fmt.Errorf("finding the bridge: %w", err)
	}
	if s.handle, err = newNamespace(); err != nil {
		return nil, err
	}
	veth := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: name, MasterIndex: bridge.Attrs().Index},
		PeerName:      "eth0",
		PeerNamespace: netlink.NsFd(int(s.handle)),
	}
	if err := netlink.LinkAdd(veth); err != nil {
		s.handle.Close()
		return nil, fmt.Errorf("making a veth pair: %w", err)
	}
	if err := s.do(func() error { return n.furnish(s) }); err != nil {
		n.release(s)
		return nil, err
	}
	if err := netlink.LinkSetUp(veth); err != nil {
		n.release(s)
		return nil, fmt.Errorf("setting %s up: %w", name, err)
	}
	return s, nil
}

// furnish runs inside of s.
func (n *network) furnish(s *netSpace) error {
	for _, name := range []string{"lo", "eth0"} {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("finding %s: %w", name, err)
		}
		if name == "eth0" {
			for _, a := range s.addrs {
				if err := addAddress(l, a, podNet(a).Bits()); err != nil {
					return err
				}
			}
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return fmt.Errorf("setting %s up: %w", name, err)
		}
	}
	for _, p := range n.virtual() {
		if s.host == hostServices {
			continue
		}
		via := nth(podNet(p.Addr()), hostServices)
		if err := netlink.RouteAdd(&netlink.Route{Dst: ipNet(p), Gw: via.AsSlice()}); err != nil {
			return fmt.Errorf("routing %s to the services' proxy: %w", p, err)
		}
	}
	for _, a := range n.addresses(hostNode) {
		if err := netlink.RouteAdd(&netlink.Route{Gw: a.AsSlice()}); err != nil {
			return fmt.Errorf("routing to the node: %w", err)
		}
	}
	return nil
}

// release removes a namespace; processes that still hold it keep it without its interface.
func (n *network) release(s *netSpace) {
	if l, err := netlink.LinkByName(s.veth); err == nil {
		_ = netlink.LinkDel(l) // it goes with its namespace anyway
	}
	s.handle.Close()
	n.mu.Lock()
	delete(n.used, s.host)
	n.mu.Unlock()
}

// newNamespace makes a network namespace that lives as long as its handle. The thread that made it ends with the goroutine, since a
// locked thread is not reused.
func newNamespace() (netns.NsHandle, error) {
	type result struct {
		h   netns.NsHandle
		err error
	}
	c := make(chan result)
	go func() {
		runtime.LockOSThread()
		h, err := netns.New()
		c <- result{h, err}
	}()
	r := <-c
	if r.err != nil {
		return netns.None(), fmt.Errorf("making a network namespace: %w", r.err)
	}
	return r.h, nil
}

// do runs f on a thread inside of s. Sockets that f opens stay in s.
func (s *netSpace) do(f func() error) error {
	if s == nil {
		return f()
	}
	c := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(s.handle); err != nil {
			c <- fmt.Errorf("entering a network namespace: %w", err)
			return
		}
		c <- f()
	}()
	return <-c
}

// start starts a command inside of s; s nil is the node's own network.
func (s *netSpace) start(cmd *exec.Cmd) error { return s.do(cmd.Start) }

// sysctl sets a kernel setting of the network of s.
func (s *netSpace) sysctl(name, value string) error {
	return s.do(func() error {
		path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
		if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
			return fmt.Errorf("setting sysctl %s: %w", name, err)
		}
		return nil
	})
}

// serveVirtual makes every address of services local to s, so that listeners can be opened on any of them without adding it first.
func (n *network) serveVirtual(s *netSpace) error {
	if n.ip6 {
		// For IPv6 a local route does not suffice to bind to an address.
		if err := s.sysctl("net.ipv6.ip_nonlocal_bind", "1"); err != nil {
			return err
		}
	}
	return s.do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("finding the loopback: %w", err)
		}
		for _, p := range n.virtual() {
			route := &netlink.Route{Dst: ipNet(p), LinkIndex: lo.Attrs().Index, Type: 2, Table: 255, Scope: netlink.SCOPE_HOST}
			if err := netlink.RouteAdd(route); err != nil {
				return fmt.Errorf("making %s local: %w", p, err)
			}
		}
		return nil
	})
}

// addNode gives the lab's own network an address by which a node is known. There is no dummy interface to put it on everywhere; on
// the loopback it is as reachable, since the lab's network is the router of all others.
func (n *network) addNode(to *node, place uint32) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding the loopback: %w", err)
	}
	to.addrs = []netip.Addr{nth(nodeNet4, place)}
	if n.ip6 {
		to.addrs = append(to.addrs, nth(nodeNet6, place))
	}
	for _, a := range to.addrs {
		if err := addAddress(lo, a, a.BitLen()); err != nil {
			return err
		}
	}
	return nil
}

// close removes all that newNetwork and addNode made, so that the lab can hold another cluster.
func (n *network) close(c *Cluster) {
	for _, s := range []*netSpace{c.plane.space, c.services} {
		if s != nil {
			n.release(s)
		}
	}
	if l, err := netlink.LinkByName(bridgeName); err == nil {
		_ = netlink.LinkDel(l) // if it stays, the next cluster fails to make it and says so
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return
	}
	for _, node := range c.nodes {
		for _, a := range node.addrs {
			_ = netlink.AddrDel(lo, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(a, a.BitLen()))})
		}
	}
}
