package expression

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// largest is a request that reaches the edge's limits: nobody can send more.
func largest() *exchange.Exchange {
	x := &exchange.Exchange{}
	x.Request.Method, x.Request.Host, x.Scheme = []byte("GET"), []byte("shop.example"), "https"
	x.Request.Path = append([]byte("/"), bytes.Repeat([]byte("a"), 8<<10)...)
	x.Request.Query = bytes.Repeat([]byte("a=b&"), 2<<10)
	x.Client = netip.MustParseAddrPort("192.0.2.7:1")
	for i := range 127 {
		x.Request.Header.Append([]byte("x-"+strings.Repeat("n", i%30)+string(rune('a'+i%26))), bytes.Repeat([]byte("a"), 200))
	}
	x.Request.Header.Append([]byte("x-long"), bytes.Repeat([]byte("a"), 32<<10))
	roles := make([]any, 500)
	for i := range roles {
		roles[i] = strings.Repeat("r", 20)
	}
	x.Identity = exchange.Identity{Method: "jwt", Subject: "s", Claims: map[string]any{"roles": roles, "deep": map[string]any{"roles": roles}}}
	for range 300 {
		x.Identity.Scopes = append(x.Identity.Scopes, "read:things")
	}
	return x
}

// slowest is how long anything hostile may take here, with room for a busy machine and the race detector. What it takes on an idle one
// stands in docs/design/expression.md.
const slowest = 500 * time.Millisecond

// TestHostile: each of these is refused with a reason, or is bounded when it runs.
func TestHostile(t *testing.T) {
	list := "[" + strings.TrimSuffix(strings.Repeat("1,", 200), ",") + "]"
	for _, c := range []struct {
		name, src string
		kind      Kind
		refused   string // part of the message; "": it compiles
		fails     string // part of the error when it runs on the largest request; "": it has a value
	}{
		{name: "too long", src: `"` + strings.Repeat("a", maxSource) + `" == ""`, refused: "expression of 4104 bytes"},
		{name: "parentheses", src: strings.Repeat("(", 4000), refused: "nested too deeply"},
		{name: "lists", src: strings.Repeat("[", 2000) + strings.Repeat("]", 2000), refused: "nested too deeply"},
		{name: "nots", src: strings.Repeat("!", 3000) + "true"},
		{name: "conditions", src: strings.Repeat("true ? true : ", 280) + "true", refused: "nested too deeply"},
		{name: "sum", src: strings.Repeat("1+", 2000) + "1", kind: Int, refused: "nested too deeply"},
		{name: "alternatives", src: strings.Repeat("true||", 600) + "true"},
		{name: "selections", src: "identity.claims" + strings.Repeat(".a", 1900) + " == 1", refused: "nested too deeply"},
		{name: "errors", src: strings.Repeat("? ", 2000), refused: "too many mistakes"},
		{name: "loops in loops", src: list + ".all(a, " + list + ".all(b, a + b > 0))", refused: "may cost too much"},
		{name: "five loops", src: "[1].all(a, [1].all(b, [1].all(c, [1].all(d, [1].all(e, a + b + c + d + e > 0)))))", refused: "nesting limit"},
		{name: "loops over headers", src: "request.headers.exists(a, request.headers.exists(b, a + b == request.path))", refused: "may cost too much"},
		{name: "doubling", src: "[request.path]" + strings.Repeat(".map(a, a + a)", 20) + "[0]", kind: String, refused: "nesting limit"},
		{name: "doubling four times", src: "[request.path].map(a, a+a+a+a+a+a).map(a, a+a+a+a+a+a).map(a, a+a+a+a+a+a).map(a, a+a+a+a+a+a)[0]", kind: String,
			refused: "may cost too much"},
		{name: "long sum of texts", src: strings.TrimSuffix(strings.Repeat("request.path+", 300), "+"), kind: String, refused: "nested too deeply"},
		{name: "sum of texts", src: strings.TrimSuffix(strings.Repeat("request.path+", 28), "+"), kind: String, refused: "may cost too much"},
		{name: "replacing", src: `request.path.replace("", "` + strings.Repeat("a", 3000) + `")`, kind: String, refused: "may cost too much"},
		{name: "replacing often", src: "request.path" + strings.Repeat(`.replace("", "aaaaaaaa")`, 20), kind: String, refused: "may cost too much"},
		{name: "joining", src: `request.path.split("").join("` + strings.Repeat("a", 1000) + `")`, kind: String, refused: "may cost too much"},
		{name: "format", src: `"%.999999999f".format([1.0])`, kind: String, refused: "format is not to be had here"},
		{name: "quote", src: `strings.quote(request.path)`, kind: String, refused: "strings.quote is not to be had here"},
		{name: "pattern of a request", src: "request.path.matches(request.query)", refused: "has to be a constant"},
		{name: "pattern with repetitions", src: `request.path.matches("((a{0,30}){0,30})b")`, refused: "too large once"},
		{name: "long pattern", src: `request.path.matches("` + strings.Repeat("a", 600) + `")`, refused: "regular expression of 600 bytes"},
		{name: "not RE2", src: `request.path.matches("(a)\\1")`, refused: "RE2"},
		{name: "slow pattern", src: `request.path.matches("(a|aa)+(a|aa)+(a|aa)+$b")`, fails: "too long"},
		{name: "slow pattern, text that it may look at", src: `request.path.substring(0, 4000).matches("(a|aa)+(a|aa)+(a|aa)+$b")`, fails: "cost limit"},
		{name: "slowest on the fast path", src: `request.path.matches("(a|a)+b")`},
		{name: "slow patterns", src: strings.TrimSuffix(strings.Repeat(`request.path.matches("(a|aa)+(a|aa)+$b")||`, 90), "||"), refused: "may cost too much"},
		{name: "fewer slow patterns", src: strings.TrimSuffix(strings.Repeat(`request.path.matches("(a|aa)+(a|aa)+$b")||`, 9), "||"), fails: "too long"},
		{name: "slow pattern, long text", src: `request.headers["x-long"].matches("(a|aa)+(a|aa)+(a|aa)+$b")`, fails: "too long"},
		{name: "pattern in a loop", src: `request.headers.exists(n, request.headers[n].matches("(a|aa)+(a|aa)+$b"))`, refused: "may cost too much"},
		{name: "pattern in a loop over scopes", src: `identity.scopes.exists(s, s.matches("(a|aa)+$b"))`},
		{name: "loop over headers", src: `request.headers.exists(n, request.headers[n].contains("ab"))`},
		{name: "loop over a loop", src: `request.headers.map(n, request.headers[n]).exists(v, v.contains("ab"))`},
		{name: "loop over scopes twice", src: `identity.scopes.exists(a, identity.scopes.exists(b, a != b))`, refused: "may cost too much"},
		{name: "loop over claims", src: `identity.claims.deep.roles.exists(r, identity.claims.roles.exists(s, r != s))`, refused: "may cost too much"},
		{name: "splitting", src: `request.query.split("&").exists(p, p == "x")`, fails: "cost limit"},
		{name: "splitting into bytes", src: `request.headers["x-long"].split("").exists(c, c == "b")`, fails: "cost limit"},
		{name: "lower case often", src: strings.TrimSuffix(strings.Repeat(`request.headers["x-long"].lowerAscii()=="a"||`, 40), "||"), fails: "too large"},
		{name: "looking often", src: strings.TrimSuffix(strings.Repeat(`request.headers["x-long"].contains("b")||`, 90), "||")},
		{name: "reversing", src: `request.headers["x-long"].reverse().contains("b")`, fails: "cost limit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			start := time.Now()
			p, err := Compile(c.src, Options{Kind: c.kind})
			compiled := time.Since(start)
			if c.refused != "" {
				if err == nil || !strings.Contains(err.Error(), c.refused) {
					t.Errorf("Compile: %v, want %q in it", err, c.refused)
				}
				t.Logf("refused in %v: %v", compiled, err)
			} else if err != nil {
				t.Fatalf("Compile: %v", err)
			}
			if compiled > slowest {
				t.Errorf("compiling took %v", compiled)
			}
			if err != nil {
				return
			}
			x := largest()
			ran := time.Hour // the fastest of some: the machine does other things as well
			for range 8 {
				start = time.Now()
				_, err = outcome(p, x)
				ran = min(ran, time.Since(start))
			}
			if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
				t.Errorf("running: %v, want %q", err, c.fails)
			}
			if ran > slowest {
				t.Errorf("running took %v", ran)
			}
			t.Logf("fast path %v, compiled in %v, ran in %v: %v", p.Fast(), compiled, ran, err)
		})
	}
}
