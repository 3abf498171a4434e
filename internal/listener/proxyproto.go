package listener

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// The PROXY protocol (haproxy, proxy-protocol.txt, versions 1 and 2).
const (
	v1Max = 107 // bytes of the longest line, with its CR LF
	// v2Max is how many bytes after the fixed part are taken; addresses need 36, the rest is TLVs, which are not read.
	v2Max   = 4096
	v2Fixed = 16
	v2Sign  = "\r\n\r\n\x00\r\nQUIT\n"
)

var errProxyHeader = errors.New("no PROXY protocol header")

// readProxy reads a header from r. What came after it in the same segment stays in c.stage.
func (c *Conn) readProxy(r io.Reader) error {
	if !c.trusted() {
		return fmt.Errorf("%s may not connect here: it is not a trusted PROXY protocol sender", c.rawPeer.Addr())
	}
	buf := make([]byte, 0, 512)
	for {
		if len(buf) == cap(buf) {
			buf = append(make([]byte, 0, v2Fixed+v2Max+512), buf...)
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if n > 0 {
			used, src, perr := parseProxy(buf)
			if perr != nil {
				return perr
			}
			if used > 0 {
				if src.IsValid() {
					c.peer = src
				}
				c.stage = buf[used:]
				return nil
			}
		}
		if err != nil {
			return fmt.Errorf("reading the PROXY protocol header: %w", err)
		}
	}
}

func (c *Conn) trusted() bool {
	for _, p := range c.meta.Trusted {
		if p.Contains(c.rawPeer.Addr()) {
			return true
		}
	}
	return false
}

// parseProxy parses a header at the beginning of b. used 0 without an error means that more bytes are needed. src is
// invalid when the sender speaks for itself (LOCAL, UNKNOWN) or for something that is not TCP.
func parseProxy(b []byte) (used int, src netip.AddrPort, err error) {
	if n := min(len(b), len(v2Sign)); string(b[:n]) == v2Sign[:n] {
		return parseV2(b)
	}
	if n := min(len(b), len("PROXY ")); string(b[:n]) == "PROXY "[:n] {
		return parseV1(b)
	}
	return 0, src, errProxyHeader
}

func parseV1(b []byte) (int, netip.AddrPort, error) {
	var none netip.AddrPort
	end := bytes.IndexByte(b[:min(len(b), v1Max)], '\n')
	if end < 0 {
		if len(b) >= v1Max {
			return 0, none, fmt.Errorf("%w: the line is longer than %d bytes", errProxyHeader, v1Max)
		}
		return 0, none, nil
	}
	line, ok := strings.CutSuffix(string(b[:end]), "\r")
	if !ok {
		return 0, none, fmt.Errorf("%w: the line does not end with CR LF", errProxyHeader)
	}
	f := strings.Split(line, " ")
	if len(f) >= 2 && f[1] == "UNKNOWN" {
		return end + 1, none, nil // the rest of the line must be ignored
	}
	if len(f) != 6 || (f[1] != "TCP4" && f[1] != "TCP6") {
		return 0, none, fmt.Errorf("%w: not PROXY TCP4|TCP6 source destination port port", errProxyHeader)
	}
	src, err := endpointV1(f[2], f[4], f[1] == "TCP4")
	if err != nil {
		return 0, none, err
	}
	if _, err := endpointV1(f[3], f[5], f[1] == "TCP4"); err != nil {
		return 0, none, err
	}
	return end + 1, src, nil
}

func endpointV1(addr, port string, v4 bool) (netip.AddrPort, error) {
	a, err := netip.ParseAddr(addr)
	if err != nil || a.Is4() != v4 || a.Zone() != "" {
		return netip.AddrPort{}, fmt.Errorf("%w: malformed address", errProxyHeader)
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil || (len(port) > 1 && port[0] == '0') || port[0] == '+' {
		return netip.AddrPort{}, fmt.Errorf("%w: malformed port", errProxyHeader)
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), nil
}

func parseV2(b []byte) (int, netip.AddrPort, error) {
	var none netip.AddrPort
	if len(b) < v2Fixed {
		return 0, none, nil
	}
	version, command, family := b[12]>>4, b[12]&0xf, b[13]
	size := int(binary.BigEndian.Uint16(b[14:16]))
	switch {
	case version != 2:
		return 0, none, fmt.Errorf("%w: version %d", errProxyHeader, version)
	case command > 1:
		return 0, none, fmt.Errorf("%w: command %d", errProxyHeader, command)
	case size > v2Max:
		return 0, none, fmt.Errorf("%w: %d bytes, more than %d", errProxyHeader, size, v2Max)
	case len(b) < v2Fixed+size:
		return 0, none, nil
	}
	used, p := v2Fixed+size, b[v2Fixed:v2Fixed+size]
	if command == 0 {
		return used, none, nil
	}
	switch family {
	case 0x11: // TCP over IPv4
		if len(p) < 12 {
			return 0, none, fmt.Errorf("%w: %d bytes of address", errProxyHeader, len(p))
		}
		return used, netip.AddrPortFrom(netip.AddrFrom4([4]byte(p[:4])), binary.BigEndian.Uint16(p[8:])), nil
	case 0x21: // TCP over IPv6
		if len(p) < 36 {
			return 0, none, fmt.Errorf("%w: %d bytes of address", errProxyHeader, len(p))
		}
		return used, netip.AddrPortFrom(netip.AddrFrom16([16]byte(p[:16])).Unmap(), binary.BigEndian.Uint16(p[32:])), nil
	case 0x00, 0x12, 0x22, 0x31, 0x32:
		// UNSPEC, and UDP and UNIX, which section 2.2 has treated as UNSPEC where they are not supported: the sender's own address counts.
		return used, none, nil
	}
	return 0, none, fmt.Errorf("%w: address family and protocol %#02x", errProxyHeader, family)
}
