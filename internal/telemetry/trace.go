package telemetry

import "bytes"

// Traceparent reads a traceparent field (W3C Trace Context, section 3.2) and returns the parts of p that are the trace id (32
// hex digits) and the parent id (16). Versions above 00 may carry more fields, which are not looked at. A field that is
// not ok is no trace context: it and tracestate are not to be passed on.
func Traceparent(p []byte) (trace, parent []byte, sampled, ok bool) {
	const size = 55 // 2 + 1 + 32 + 1 + 16 + 1 + 2
	if len(p) < size || p[2] != '-' || p[35] != '-' || p[52] != '-' {
		return nil, nil, false, false
	}
	version, trace, parent, flags := p[:2], p[3:35], p[36:52], p[53:55]
	switch {
	case !lowerHex(version) || !lowerHex(trace) || !lowerHex(parent) || !lowerHex(flags),
		string(version) == "ff",
		string(version) == "00" && len(p) != size,
		len(p) > size && p[size] != '-',
		zeros(trace), zeros(parent):
		return nil, nil, false, false
	}
	return trace, parent, unhex(flags[1])&1 == 1, true
}

// ValidTracestate reports whether a tracestate field, its lines joined by commas, may be passed on (W3C Trace Context,
// section 3.3): at most 512 bytes and 32 members, each key=value of the allowed characters, no key twice. An empty one may not: it
// says nothing.
func ValidTracestate(s []byte) bool {
	if len(s) == 0 || len(s) > 512 {
		return false
	}
	var keys [32][]byte
	n := 0
	for len(s) > 0 {
		var m []byte
		if i := bytes.IndexByte(s, ','); i >= 0 {
			m, s = s[:i], s[i+1:]
		} else {
			m, s = s, nil
		}
		m = bytes.Trim(m, " \t")
		if len(m) == 0 {
			continue // empty members are allowed
		}
		eq := bytes.IndexByte(m, '=')
		if eq <= 0 || n == len(keys) || !stateKey(m[:eq]) || !stateValue(m[eq+1:]) {
			return false
		}
		for _, k := range keys[:n] {
			if bytes.Equal(k, m[:eq]) {
				return false
			}
		}
		keys[n] = m[:eq]
		n++
	}
	return n > 0
}

// stateKey checks a key: up to 256 of a-z 0-9 _ - * / @, beginning with a letter or digit.
func stateKey(k []byte) bool {
	if len(k) > 256 || !(('a' <= k[0] && k[0] <= 'z') || ('0' <= k[0] && k[0] <= '9')) {
		return false
	}
	for _, c := range k {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case c == '_' || c == '-' || c == '*' || c == '/' || c == '@':
		default:
			return false
		}
	}
	return true
}

// stateValue checks a value: 1 to 256 printable ASCII characters without , and =, not ending in a space.
func stateValue(v []byte) bool {
	if len(v) == 0 || len(v) > 256 || v[len(v)-1] == ' ' {
		return false
	}
	for _, c := range v {
		if c < 0x20 || c > 0x7e || c == '=' {
			return false
		}
	}
	return true
}

func lowerHex(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func zeros(b []byte) bool {
	for _, c := range b {
		if c != '0' {
			return false
		}
	}
	return true
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c - 'a' + 10
}
