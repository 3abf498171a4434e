package expression

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// sample is an exchange in which every attribute has a value.
func sample() *exchange.Exchange {
	x := &exchange.Exchange{}
	x.Request.Method, x.Request.Path, x.Request.Query = []byte("GET"), []byte("/rewritten"), []byte("page=2&q=a%20b")
	x.ClientPath = []byte("/cart/7")
	x.Request.Host, x.Request.Authority, x.Scheme = []byte("shop.example"), []byte("Shop.Example:8443"), "https"
	x.Client = netip.MustParseAddrPort("[::ffff:192.0.2.7]:4711")
	for _, f := range [][2]string{{"X-Team", "red"}, {"Accept", "text/html"}, {"ACCEPT", "*/*"}, {"X-Empty", ""}, {"X-Cost", "12"}} {
		x.Request.Header.Append([]byte(f[0]), []byte(f[1]))
	}
	x.Response.Status = 404
	x.Response.Header.Append([]byte("Cache-Control"), []byte("no-store"))
	x.Identity = exchange.Identity{Subject: "ann", Application: "team/shop", Plan: "gold", CredentialID: "k1", Issuer: "https://id.example",
		Method: "jwt", Scopes: []string{"read", "write"}, Claims: map[string]any{"tenant": "acme", "level": 3.0, "admin": true, "none": nil,
			"roles": []any{"editor", "admin"}, "realm": map[string]any{"roles": []any{"x"}}}}
	return x
}

// TestAttributes: each attribute with a value, and in an exchange in which nothing is known.
func TestAttributes(t *testing.T) {
	for _, c := range []struct{ src, there, missing string }{
		{`request.method`, "GET", ""},
		{`request.path`, "/cart/7", ""},
		{`request.query`, "page=2&q=a%20b", ""},
		{`request.host`, "shop.example", ""},
		{`request.scheme`, "https", ""},
		{`request.headers["x-team"]`, "red", ""},
		{`request.headers.accept`, "text/html, */*", ""},
		{`request.headers["x-" + "team"]`, "red", ""},
		{`request.headers[request.headers["x-team"].replace("red", "X-TEAM")]`, "red", ""},
		{`string(size(request.headers))`, "4", "0"},
		{`request.headers.map(n, n).join(" ")`, "accept x-cost x-empty x-team", ""},
		{`"x-empty" in request.headers && has(request.headers.accept) ? "both" : "no"`, "both", "no"},
		{`has(request.headers.other) ? "yes" : "no" + request.headers.other`, "no", "no"},
		{`client.address`, "192.0.2.7", ""},
		{`identity.subject`, "ann", ""},
		{`identity.application`, "team/shop", ""},
		{`identity.plan`, "gold", ""},
		{`identity.credentialID`, "k1", ""},
		{`identity.issuer`, "https://id.example", ""},
		{`identity.method`, "jwt", ""},
		{`identity.scopes.join(" ")`, "read write", ""},
		{`string(size(identity.scopes))`, "2", "0"},
		{`identity.claims.tenant`, "acme", ""},
		{`identity.claims["none"]`, "", ""},
		{`identity.claims.tenant == null ? "null" : "text"`, "text", "null"},
		{`has(identity.claims.tenant) && "none" in identity.claims ? "both" : "no"`, "both", "no"},
		{`has(identity.claims.realm.roles) ? identity.claims.realm.roles[0] : "-"`, "x", "-"},
		{`identity.claims.map(n, n).join(" ")`, "admin level none realm roles tenant", ""},
		{`string(response.status)`, "404", "0"},
		{`response.headers["cache-control"]`, "no-store", ""},
	} {
		for _, fast := range []bool{true, false} {
			src := c.src
			p, err := compile(src, Options{Kind: String, Response: true}, fast)
			if err != nil {
				t.Errorf("Compile(%s): %v", src, err)
				continue
			}
			for _, v := range []struct {
				x    *exchange.Exchange
				want string
			}{{sample(), c.there}, {&exchange.Exchange{}, c.missing}} {
				got, err := p.Append(nil, v.x)
				if err != nil || string(got) != v.want {
					t.Errorf("%s (fast path %v) = %q, %v, want %q", src, p.Fast(), got, err, v.want)
				}
			}
		}
	}
}

func TestKinds(t *testing.T) {
	x, nobody := sample(), &exchange.Exchange{}
	for _, c := range []struct {
		src           string
		kind          Kind
		want, missing string // "!": an error
	}{
		{`int(request.headers["x-cost"])`, Int, "12", "!"},
		{`"x-cost" in request.headers ? int(request.headers["x-cost"]) : 1`, Int, "12", "1"},
		{`identity.claims.level`, Int, "3", "0"},
		{`identity.claims.level + 1`, Int, "!", "!"}, // 3.0 + 1: JSON knows no int
		{`int(identity.claims.level) + 1`, Int, "4", "!"},
		{`identity.claims.admin`, Bool, "true", "false"},
		{`identity.claims.tenant`, Bool, "!", "false"},
		{`identity.claims.level == 3`, Bool, "true", "false"},
		{`identity.claims.level > 2`, Bool, "true", "!"},
		{`"admin" in identity.claims.roles`, Bool, "true", "!"},
		{`has(identity.claims.roles) && "admin" in identity.claims.roles`, Bool, "true", "false"},
		{`identity.claims.level`, String, "!", ""},
		{`sets.contains(identity.scopes, ["read", "write"])`, Bool, "true", "false"},
		{`identity.scopes.exists(s, s == "write")`, Bool, "true", "false"},
		{`request.query.split("&").exists(p, p == "page=2")`, Bool, "true", "false"},
		{`request.headers.all(n, size(request.headers[n]) < 100)`, Bool, "true", "true"},
		{`inNetwork(client.address, "192.0.2.0/24")`, Bool, "true", "!"},
		{`inNetwork(client.address, ["10.0.0.0/8", "192.0.2.7"])`, Bool, "true", "!"},
		{`inNetwork(request.headers["x-team"], "192.0.2.0/24")`, Bool, "!", "!"},
		{`inNetwork(client.address, request.headers.accept)`, Bool, "!", "!"},
		{`1 / response.status == 0 || true`, Bool, "true", "true"},
		{`1 / response.status == 0`, Bool, "true", "!"},
		{`["request.path"].exists(request, request == "request.path")`, Bool, "true", "true"}, // the loop's own variable
	} {
		p, err := Compile(c.src, Options{Kind: c.kind, Response: true})
		if err != nil {
			t.Errorf("Compile(%s): %v", c.src, err)
			continue
		}
		for _, v := range []struct {
			x    *exchange.Exchange
			want string
		}{{x, c.want}, {nobody, c.missing}} {
			got, err := outcome(p, v.x)
			got = strings.TrimPrefix(got, "|")
			if err != nil {
				got = "!"
			}
			if got != v.want {
				t.Errorf("%s = %q (%v), want %q", c.src, got, err, v.want)
			}
		}
	}
}

// TestFaults: what users read when something is wrong.
func TestFaults(t *testing.T) {
	for _, c := range []struct {
		src  string
		kind Kind
		want string
	}{
		{"", Bool, `empty expression (leave the field out, or write one of type bool)`},
		{`request.path`, Bool, `the expression is of type string, wanted is bool (compare it with something)`},
		{`response.status`, Int, `line 1, column 1: unknown attribute response.status (this expression runs before there is a response: ` +
			`only request, client and identity are known)`},
		{`size(request.path)`, String, `the expression is of type int, wanted is string (write string(...))`},
		{`request.path`, Int, `the expression is of type string, wanted is int (write int(...) or size(...))`},
		{"request.path == \"/a\" &&\n  identity.aplication == \"x\"", Bool,
			`line 2, column 3: unknown attribute identity.aplication (did you mean identity.application?)`},
		{`request.header["a"] == "b"`, Bool, `line 1, column 1: unknown attribute request.header (did you mean request.headers?)`},
		{`request.path.startWith("/a")`, Bool, `line 1, column 23: unknown function startWith (did you mean startsWith?)`},
		{`identity.scopes.exists(s, t == "a")`, Bool, `line 1, column 27: unknown attribute t (known are request.method, request.path, ` +
			`request.query, request.host, request.scheme, request.headers, client.address, identity.subject, identity.application, ` +
			`identity.plan, identity.credentialID, identity.issuer, identity.method, identity.scopes, identity.claims)`},
		{`request.path + 1 == "a"`, Bool, `line 1, column 14: + does not take string and int (convert one with int(...) or string(...))`},
		{`request.path = "a"`, Bool, `line 1, column 14: token recognition error at: '= ' (equality is ==)`},
		{`request.headers["X-Team"] == "a"`, Bool, `line 1, column 1: names of header fields are in lower case, not "X-Team" (write "x-team")`},
		{`"X-Team" in request.headers`, Bool, `line 1, column 13: names of header fields are in lower case, not "X-Team" (write "x-team")`},
		{`request.headers == {"a": "b"}`, Bool, `line 1, column 1: request.headers cannot be used as a whole (write request.headers["name"], ` +
			`"name" in request.headers, size(request.headers) or a loop such as request.headers.exists(n, ...))`},
		{`inNetwork(client.address, "10.0.0.0/33")`, Bool, `line 1, column 27: "10.0.0.0/33" is not a network (write 10.0.0.0/8, 2001:db8::/32 ` +
			`or 192.0.2.7)`},
		{`int("x") == 1`, Bool, `the expression cannot be compiled: type conversion error from 'string' to 'int'`},
		{`request.path.matches("a(?=b)")`, Bool, "line 1, column 22: regular expression \"a(?=b)\": invalid or unsupported Perl syntax: `(?=` " +
			`(the syntax is RE2: no look-around, no back references)`},
		{`timestamp("2026-01-01T00:00:00Z") == null`, Bool, `line 1, column 10: timestamp is not to be had here (expressions have no clock)`},
	} {
		_, err := Compile(c.src, Options{Kind: c.kind})
		f, ok := err.(*Fault)
		if !ok {
			t.Errorf("Compile(%q): %v, want a fault", c.src, err)
			continue
		}
		if d := cmp.Diff(c.want, f.Error()); d != "" {
			t.Errorf("Compile(%q): (-want +got)\n%s", c.src, d)
		}
	}
}

func TestReads(t *testing.T) {
	for _, c := range []struct {
		src      string
		yes, not []string
	}{
		{`request.path == "/a"`, []string{"request.path", "request"}, []string{"identity", "request.method", "response", "request.pa"}},
		{`identity.claims.tenant == "a"`, []string{"identity", "identity.claims", "identity.claims.tenant", "identity.claims.tenant.a"},
			[]string{"identity.scopes", "identity.claims.other"}},
		{`request.headers["x-a"] == "" || has(request.headers.b) || "c" in request.headers`,
			[]string{"request.headers", "request.headers.x-a", "request.headers.b", "request.headers.c"}, []string{"request.headers.d", "request.path"}},
		{`request.headers.exists(n, n == "a")`, []string{"request.headers.d"}, []string{"response.headers"}},
		{`request.headers[identity.plan] == "a"`, []string{"request.headers.d", "identity.plan"}, []string{"identity.claims"}},
		{`true ? true : inNetwork(client.address, "10.0.0.0/8")`, []string{"client", "client.address"}, []string{"request"}},
		{`["a"].exists(identity, identity == "a")`, nil, []string{"identity", "request"}},
		{`response.status == 200`, []string{"response"}, []string{"response.headers"}},
	} {
		p, err := Compile(c.src, Options{Response: true})
		if err != nil {
			t.Errorf("Compile(%s): %v", c.src, err)
			continue
		}
		for _, a := range c.yes {
			if !p.Reads(a) {
				t.Errorf("%s: Reads(%q) is false", c.src, a)
			}
		}
		for _, a := range c.not {
			if p.Reads(a) {
				t.Errorf("%s: Reads(%q) is true", c.src, a)
			}
		}
		if p.String() != c.src {
			t.Errorf("String() = %q, want %q", p.String(), c.src)
		}
	}
}

// TestOtherKind: asking for another kind than was compiled is an error, no panic.
func TestOtherKind(t *testing.T) {
	p, err := Compile("true", Options{Kind: Bool})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Int(&exchange.Exchange{}); err == nil {
		t.Error("Int of a bool: no error")
	}
	if b, err := p.Append([]byte("a"), &exchange.Exchange{}); err == nil || string(b) != "a" {
		t.Errorf("Append of a bool = %q, %v", b, err)
	}
}

// TestKeepsNothing: what Append gave does not change when the exchange's buffers do.
func TestKeepsNothing(t *testing.T) {
	for _, src := range []string{"request.path", "request.path + client.address", `request.headers["x-team"]`, "request.path.trim()"} {
		p, err := Compile(src, Options{Kind: String})
		if err != nil {
			t.Fatal(err)
		}
		x := sample()
		a, err := p.Append(nil, x)
		if err != nil {
			t.Fatal(err)
		}
		before := string(a)
		for _, b := range [][]byte{x.ClientPath, x.Request.Header.All()[0].Value} {
			for i := range b {
				b[i] = '#'
			}
		}
		if _, err := p.Append(nil, x); err != nil || string(a) != before {
			t.Errorf("%s: %q became %q", src, before, a)
		}
	}
}
