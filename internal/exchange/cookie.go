package exchange

import "bytes"

// Cookie returns the value of the first cookie called name (RFC 6265 section 4.2), without the quotes around it, or nil.
func (h *Header) Cookie(name string) []byte {
	for i := range h.fields {
		if !EqualFold(h.fields[i].Name, "cookie") {
			continue
		}
		rest := h.fields[i].Value
		for len(rest) > 0 {
			var pair []byte
			pair, rest, _ = bytes.Cut(rest, []byte{';'})
			pair = bytes.TrimLeft(pair, " \t")
			if len(pair) <= len(name) || pair[len(name)] != '=' || string(pair[:len(name)]) != name {
				continue
			}
			v := bytes.TrimRight(pair[len(name)+1:], " \t")
			if n := len(v); n >= 2 && v[0] == '"' && v[n-1] == '"' {
				v = v[1 : n-1]
			}
			return v
		}
	}
	return nil
}
