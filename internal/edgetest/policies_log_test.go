package edgetest_test

import (
	"strings"
	"testing"
)

// TestHoleCredentialsInLog: a key in the query or in a cookie does not get into the access log, whatever becomes of the request.
func TestHoleCredentialsInLog(t *testing.T) {
	const from = "from: [{query: key}, {cookie: key}, {header: X-API-Key}], secretRefs: [{name: keys}]"
	overEach(t, func(w *stage) {
		for what, yaml := range map[string]string{
			"stripped": authn("{name: keys, apiKey: {" + from + "}}"),
			"kept":     authn("{name: keys, apiKey: {strip: false, " + from + "}}"),
			"shadow":   pol("AuthPolicy", "p", toAPI, "{authentication: {mode: Shadow, methods: [{name: keys, apiKey: {"+from+"}}]}}"),
			"limited":  authn("{name: keys, apiKey: {"+from+"}}") + limits("none: {when: \"request.path == '/limited'\", rates: [{limit: 1, period: 24h}]}"),
		} {
			w.apply(secretOf("keys", "app", keyOfShop) + yaml)
			path := "/" + what
			for range 2 {
				w.ask(path + "?a=b&key=" + keyOfShop + "&c=d")
			}
			w.ask(path + "?key=" + keyOfShop + "x")
			w.ask(path + "?k%65y=" + keyOfShop + "&key")
			w.ask("/open" + path + "?key=" + keyOfShop) // of another route, where nobody asks for it
			w.ask(path+"?key=1&key="+keyOfShop, "Cookie: key="+keyOfShop)
			w.ask(path, "Cookie: key="+keyOfShop)
			w.eventuallyIdle()
			for l := range strings.Lines(w.log.String()) {
				if strings.Contains(l, path) && strings.Contains(l, keyOfShop) {
					w.Errorf("%s: the log has the key: %s", what, l)
				}
			}
		}
	})
}
