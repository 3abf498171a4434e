package expression

import (
	"fmt"
	"testing"
)

// realistic are expressions as users write them into policies: conditions, keys and costs.
var realistic = []struct {
	src  string
	kind Kind
	slow bool // runs in cel
}{
	{src: `request.path.startsWith("/admin")`},
	{src: `request.method in ["POST", "PUT", "PATCH", "DELETE"]`},
	{src: `request.method == "GET" || "write" in identity.scopes`},
	{src: `request.method != "OPTIONS" && request.path.startsWith("/api/")`},
	{src: `identity.plan == "gold"`},
	{src: `identity.application == "team/shop" && !request.path.startsWith("/internal/")`},
	{src: `identity.subject != ""`},
	{src: `identity.method == "jwt" && identity.issuer == "https://id.example"`},
	{src: `"admin" in identity.claims.roles`},
	{src: `has(identity.claims.roles) && "admin" in identity.claims.roles`},
	{src: `identity.claims.tenant == request.headers["x-tenant"]`},
	{src: `identity.claims.admin == true`},
	{src: `request.path.startsWith("/tenants/" + identity.subject + "/")`},
	{src: `inNetwork(client.address, ["10.0.0.0/8", "192.168.0.0/16", "2001:db8::/32"])`},
	{src: `!inNetwork(client.address, "192.0.2.0/24") && identity.plan == ""`},
	{src: `request.headers["x-debug"] != "" && request.host.endsWith(".example")`},
	{src: `has(request.headers.authorization) || "x-api-key" in request.headers`},
	{src: `request.headers["user-agent"].contains("bot")`},
	{src: `request.path.matches("^/cart/[0-9]+(/items)?$")`},
	{src: `size(request.query) > 1024`},
	{src: `request.headers["content-type"].lowerAscii().startsWith("application/json")`},
	{src: `identity.subject != "" ? "s:" + identity.subject : "a:" + client.address`, kind: String},
	{src: `client.address`, kind: String},
	{src: `identity.application`, kind: String},
	{src: `identity.application + "|" + request.method`, kind: String},
	{src: `identity.claims.tenant`, kind: String},
	{src: `request.method == "POST" ? 5 : 1`, kind: Int},
	{src: `"x-cost" in request.headers ? int(request.headers["x-cost"]) : 1`, kind: Int},
	{src: `identity.scopes.exists(s, s.startsWith("orders:"))`, slow: true},
	{src: `request.query.split("&").exists(p, p == "debug=1")`, slow: true},
}

// TestRealistic counts what takes the fast path.
func TestRealistic(t *testing.T) {
	fast := 0
	for _, c := range realistic {
		p, err := Compile(c.src, Options{Kind: c.kind})
		if err != nil {
			t.Errorf("Compile(%s): %v", c.src, err)
			continue
		}
		if p.Fast() == c.slow {
			t.Errorf("%s: on the fast path is %v", c.src, p.Fast())
		}
		if p.Fast() {
			fast++
		}
	}
	t.Logf("%d of %d on the fast path", fast, len(realistic))
}

// TestAllocFastPath: nothing on the fast path allocates.
func TestAllocFastPath(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	x := sample()
	dst := make([]byte, 0, 256)
	for _, c := range realistic {
		if c.slow {
			continue
		}
		p, err := Compile(c.src, Options{Kind: c.kind})
		if err != nil {
			t.Fatal(err)
		}
		n := testing.AllocsPerRun(1000, func() {
			switch c.kind {
			case Bool:
				_, _ = p.Bool(x)
			case Int:
				_, _ = p.Int(x)
			case String:
				_, _ = p.Append(dst, x)
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations, want 0", c.src, n)
		}
	}
}

func Benchmark(b *testing.B) {
	for _, path := range []string{"fast", "cel"} {
		b.Run(path, func(b *testing.B) {
			for i, c := range realistic {
				b.Run(fmt.Sprintf("%02d", i), func(b *testing.B) {
					p, err := compile(c.src, Options{Kind: c.kind}, path == "fast")
					if err != nil {
						b.Fatal(err)
					}
					x := sample()
					dst := make([]byte, 0, 256)
					b.ReportAllocs()
					for b.Loop() {
						switch c.kind {
						case Bool:
							_, _ = p.Bool(x)
						case Int:
							_, _ = p.Int(x)
						case String:
							_, _ = p.Append(dst, x)
						}
					}
				})
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		if _, err := Compile(realistic[9].src, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
