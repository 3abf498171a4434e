package exchange

import "net/netip"

// Authority is the two parts of host[:port].
type Authority struct {
	// Host is in lower case and without port. A trailing dot ("example.com.") is cut, because both spellings name the same
	// host and must not be routed apart. An IPv6 literal keeps its brackets and is in its shortest spelling.
	Host []byte
	// Port is the digits after the colon, 1 to 65535, without the leading zeros that RFC 3986 section 3.2.3 allows; nil if there is none.
	Port []byte
	// Text is host[:port] of these parts: the one spelling that is compared, forwarded and put into a Location.
	Text []byte
}

// maxHost is the length of the longest host name, its trailing dot included (RFC 1035 section 2.3.4).
const maxHost = 254

// ParseAuthority takes host[:port] apart, strictly: a host is letters, digits, "-", "_" and "." without an empty label, or an
// IPv6 literal without zone; an empty host, userinfo, percent-escapes and a port above 65535 are refused (ok is false). A colon
// without a port counts as none (RFC 3986 section 6.2.3). What has to be spelt anew is appended to room, whose grown slice is
// returned for the next use; else the parts lie in raw. Only an IPv6 literal allocates.
func ParseAuthority(room, raw []byte) (a Authority, grown []byte, ok bool) {
	if len(raw) > 0 && raw[0] == '[' {
		return parseLiteral(room, raw)
	}
	end, upper := 0, false
	for end < len(raw) && raw[end] != ':' {
		switch class := hostClass[raw[end]]; class {
		case hostPlain:
		case hostUpper:
			upper = true
		case hostDot:
			if end == 0 || raw[end-1] == '.' {
				return a, room, false
			}
		default:
			return a, room, false
		}
		end++
	}
	if end == 0 || end > maxHost {
		return a, room, false
	}
	same := !upper // what is written is what Text has to be
	if end < len(raw) {
		var ok bool
		if a.Port, ok = portOf(raw[end+1:]); !ok {
			return a, room, false
		}
		same = same && len(a.Port) == len(raw)-end-1 && a.Port != nil
	}
	a.Host = raw[:end:end]
	if a.Host[end-1] == '.' {
		a.Host = a.Host[: end-1 : end-1]
		same = same && end == len(raw)
	}
	if same {
		a.Text = raw[:len(raw):len(raw)]
		if end == len(raw) {
			a.Text = a.Host
		}
		return a, room, true
	}
	start := len(room)
	for _, c := range a.Host {
		room = append(room, lower[c])
	}
	room = a.spell(room, start)
	return a, room, true
}

// spell completes the host that stands in room from start on.
func (a *Authority) spell(room []byte, start int) []byte {
	end := len(room)
	if a.Port != nil {
		room = append(append(room, ':'), a.Port...)
	}
	a.Host, a.Text = room[start:end:end], room[start:len(room):len(room)]
	return room
}

func parseLiteral(room, raw []byte) (a Authority, grown []byte, ok bool) {
	end := 1
	for end < len(raw) && raw[end] != ']' {
		end++
	}
	const longest = len("[0000:0000:0000:0000:0000:0000:255.255.255.255")
	if end == len(raw) || end > longest {
		return a, room, false
	}
	addr, err := netip.ParseAddr(string(raw[1:end]))
	if err != nil || !addr.Is6() || addr.Zone() != "" {
		return a, room, false
	}
	if rest := raw[end+1:]; len(rest) > 0 {
		var ok bool
		if a.Port, ok = portOf(rest[1:]); rest[0] != ':' || !ok {
			return a, room, false
		}
	}
	start := len(room)
	room = append(room, '[')
	room = addr.AppendTo(room)
	room = append(room, ']')
	room = a.spell(room, start)
	return a, room, true
}

// portOf is a port without leading zeros, nil if there is none.
func portOf(b []byte) (port []byte, ok bool) {
	if len(b) == 0 {
		return nil, true
	}
	for len(b) > 1 && b[0] == '0' {
		b = b[1:]
	}
	if len(b) > 5 || b[0] == '0' {
		return nil, false
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return nil, false
		}
		n = n*10 + int(c-'0')
	}
	return b[:len(b):len(b)], n <= 65535
}

const (
	hostPlain = iota + 1
	hostUpper
	hostDot
)

// hostClass says what a byte is in a host name; 0 cannot stand there.
var hostClass = func() (t [256]uint8) {
	for c := 'a'; c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = hostPlain, hostUpper
	}
	for c := '0'; c <= '9'; c++ {
		t[c] = hostPlain
	}
	t['-'], t['_'], t['.'] = hostPlain, hostPlain, hostDot
	return t
}()
