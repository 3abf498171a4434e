package listener

import (
	"net"
	"net/netip"
)

// Owns reports whether an address is that of one of the set's sockets: a request sent there would come back to this process.
func (s *Set) Owns(a netip.AddrPort) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	to := a.Addr().Unmap()
	for _, k := range s.live {
		at, ok := k.ln.Addr().(*net.TCPAddr)
		if !ok || at.Port != int(a.Port()) {
			continue
		}
		if bound := at.AddrPort().Addr().Unmap(); bound == to || bound.IsUnspecified() && ofThisMachine(to) {
			return true
		}
	}
	return false
}

// ofThisMachine reports whether an address belongs to an interface of the machine, as its network namespace sees it.
func ofThisMachine(a netip.Addr) bool {
	if a.IsLoopback() {
		return true
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return true // fail closed: the port is one of ours
	}
	for _, i := range all {
		if n, ok := i.(*net.IPNet); ok {
			if own, ok := netip.AddrFromSlice(n.IP); ok && own.Unmap() == a {
				return true
			}
		}
	}
	return false
}
