package exchange

// Climbs reports whether a server may take rest, what stands in a canonical path behind a prefix, for something above that
// prefix: one that decodes escapes, once or again, takes "\" for "/", or cuts parameters (";x") before it resolves dot segments.
func Climbs(rest []byte) bool {
	var room [512]byte
	b := append(room[:0], rest...)
	for {
		if climbs(b) {
			return true
		}
		n := decode(b)
		if n == len(b) {
			return false
		}
		b = b[:n]
	}
}

// climbs resolves dot segments and reports whether that leads above the start.
func climbs(b []byte) bool {
	depth := 0
	for start := 0; start <= len(b); {
		end, cut := start, -1
		for end < len(b) && b[end] != '/' && b[end] != '\\' {
			if b[end] == ';' && cut < 0 {
				cut = end
			}
			end++
		}
		if cut < 0 {
			cut = end
		}
		switch string(b[start:cut]) {
		case "", ".":
		case "..":
			if depth--; depth < 0 {
				return true
			}
		default:
			depth++
		}
		start = end + 1
	}
	return false
}

// decode takes one layer of escapes off b, in place, and returns how long it is then.
func decode(b []byte) int {
	n := 0
	for i := 0; i < len(b); i++ {
		c, ok := unescape(b, i)
		if b[i] == '%' && ok {
			i += 2
		} else {
			c = b[i]
		}
		b[n] = c
		n++
	}
	return n
}
