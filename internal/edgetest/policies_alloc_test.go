package edgetest_test

import (
	"io"
	"net"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/database"
	"github.com/gatehouse-io/gatehouse/internal/edge"
	"github.com/gatehouse-io/gatehouse/internal/edgetest"
)

// TestPolicyAlloc holds the path of a request with an API key and a limit to no allocation: through the driver, proxy.Flow and the steps,
// on connections that are kept.
func TestPolicyAlloc(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nServer: b\r\n\r\nhello")
	b := edgetest.Backend(t, func(c net.Conn) {
		p := make([]byte, 4096)
		for {
			if n, err := c.Read(p); err != nil || n == 0 {
				return
			}
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	})
	dir := t.TempDir()
	db, err := database.Open(t.Context(), database.Options{Data: dir})
	if err != nil {
		t.Fatal(err)
	}
	issued, _, err := db.CreateKey(t.Context(), database.NewKey{Application: "d/shop", Env: "live", Scopes: []string{"read"}})
	if err != nil {
		t.Fatal(err)
	}
	_ = db.Close()
	lazy := database.NewLazy(database.Options{Data: dir})
	t.Cleanup(func() { _ = lazy.Close() })
	w := newStage(t, wire{name: "HTTP/1.1"}, func(o *edge.Options) { o.Keys = keyStore{lazy} })
	w.apply(service("s", b) + secretOf("keys", "app", keyOfShop) + authn("{name: keys, apiKey: {issued: true, secretRefs: [{name: keys}]}}") +
		limits("early: {key: [client.address], rates: [{limit: 1000000000, period: 1s}]}, late: {key: [identity.application], rates: [{limit: 1000000000, period: 1m}]}"))
	w.eventually("the issued keys are there", func() bool { return w.ask("/", "X-API-Key: "+string(issued.Reveal())).status == 200 })
	for what, key := range map[string]string{"a key in a Secret": keyOfShop, "an issued key": string(issued.Reveal())} {
		if n := allocations(t, w.dial(call{}), key); n != 0 {
			t.Errorf("%s: %v allocations for a request, want 0", what, n)
		}
	}
}

// allocations counts those of a request with a key.
func allocations(t *testing.T, c *edgetest.Client, key string) float64 {
	in, out := []byte("GET /some/path?x=y HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: test\r\nAccept: */*\r\nX-API-Key: "+key+"\r\n\r\n"), make([]byte, 4096)
	return testing.AllocsPerRun(2000, func() {
		if _, err := c.Write(in); err != nil {
			t.Fatal(err)
		}
		got := 0
		for got < 5 || string(out[got-5:got]) != "hello" {
			n, err := c.Conn.Read(out[got:])
			if err != nil && err != io.EOF {
				t.Fatal(err)
			}
			if got += n; n == 0 {
				t.Fatalf("got %q", out[:got])
			}
		}
	})
}
