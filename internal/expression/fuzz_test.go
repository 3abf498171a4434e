package expression

import (
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// FuzzCompile: no text makes Compile panic or take long, what compiles runs, in bounded time, and both paths agree.
func FuzzCompile(f *testing.F) {
	for _, c := range realistic {
		f.Add(c.src, uint8(c.kind))
	}
	for _, s := range []string{"", "(", "request", "request.headers", "a.b(c)", "[1].map(x, x)", "{'a': 1}.a", "'\\xff' == b'\\xff'", "1u + 1u",
		"identity.claims.a.b[0]", "has(request.path)", ".request.path == ''", "type(1) == int", "request.headers[identity.claims.a]"} {
		f.Add(s, uint8(0))
	}
	empty, full := &exchange.Exchange{}, sample()
	f.Fuzz(func(t *testing.T, src string, kind uint8) {
		o := Options{Kind: Kind(kind % 3), Response: kind > 100}
		start := time.Now()
		p, err := Compile(src, o)
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("compiling took %v", d)
		}
		if err != nil {
			if fault, ok := err.(*Fault); !ok || fault.Msg == "" {
				t.Errorf("Compile: %#v, want a fault with a message", err)
			}
			return
		}
		slow, err := compile(src, o, false)
		if err != nil {
			t.Fatalf("without the fast path: %v", err)
		}
		for _, x := range []*exchange.Exchange{empty, full} {
			start := time.Now()
			got, gotErr := outcome(p, x)
			if d := time.Since(start); d > time.Second {
				t.Errorf("running took %v", d)
			}
			if want, wantErr := outcome(slow, x); got != want || (gotErr == nil) != (wantErr == nil) {
				t.Errorf("fast %q, %v; cel %q, %v", got, gotErr, want, wantErr)
			}
		}
	})
}
