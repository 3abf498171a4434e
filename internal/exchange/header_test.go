package exchange

import "testing"

// TestCookieFieldsJoinedByComma: several Cookie fields are one list of pairs, which ", " would break (RFC 9113 section 8.2.3).
func TestCookieFieldsJoinedByComma(t *testing.T) {
	var h Header
	for _, f := range [][2]string{{"Cookie", "a=b"}, {"Accept", "x"}, {"COOKIE", "canary=1"}, {"accept", "y"}} {
		h.Append([]byte(f[0]), []byte(f[1]))
	}
	for name, want := range map[string]string{"cookie": "a=b; canary=1", "Cookie": "a=b; canary=1", "Accept": "x, y"} {
		if got, ok := h.Joined(nil, name); !ok || string(got) != want {
			t.Errorf("Joined(%q) = %q, %v, want %q", name, got, ok, want)
		}
	}
}
