package expression

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// TestAgree holds the fast path against cel: for random expressions of the subset and random exchanges both give the same value, or
// both an error. It is what lets the fast path exist.
func TestAgree(t *testing.T) {
	fast, all, failed := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		kind := rapid.SampledFrom([]Kind{Bool, Bool, Bool, String, Int}).Draw(t, "kind")
		src := source(t, kind, rapid.IntRange(1, 4).Draw(t, "depth"))
		if kind == String && rapid.IntRange(0, 9).Draw(t, "claim") == 0 {
			src = pick(t, "identity.claims.a", `identity.claims["z"]`)
		}
		o := Options{Kind: kind, Response: true}
		slow, err := compile(src, o, false)
		if err != nil {
			if strings.Contains(err.Error(), "cannot be compiled: type conversion") || strings.Contains(err.Error(), "cost too much") {
				t.Skip("int of a constant that is no number, or too expensive")
			}
			t.Fatalf("compiling %s: %v", src, err)
		}
		p, err := compile(src, o, true)
		if err != nil {
			t.Fatalf("compiling %s: %v", src, err)
		}
		all++
		if !p.Fast() {
			t.Fatalf("%s is of the subset and is not on the fast path", src)
		}
		fast++
		for range 4 {
			x := randomExchange(t)
			want, wantErr := outcome(slow, x)
			got, gotErr := outcome(p, x)
			if (gotErr == nil) != (wantErr == nil) || got != want {
				t.Fatalf("%s\n fast: %q, %v\n cel:  %q, %v\n of %s", src, got, gotErr, want, wantErr, describe(x))
			}
			if again, _ := outcome(p, x); again != got {
				t.Fatalf("%s: %q, the second time %q", src, got, again)
			}
			if gotErr != nil {
				failed++
			}
		}
	})
	t.Logf("%d of %d on the fast path; %d evaluations were errors on both", fast, all, failed)
}

// outcome is the value of any kind as text.
func outcome(p *Program, x *exchange.Exchange) (string, error) {
	switch p.kind {
	case Bool:
		v, err := p.Bool(x)
		if err != nil {
			return "", err
		}
		return strconv.FormatBool(v), nil
	case Int:
		v, err := p.Int(x)
		if err != nil {
			return "", err
		}
		return strconv.FormatInt(v, 10), nil
	}
	v, err := p.Append([]byte("|"), x)
	return string(v), err
}

func describe(x *exchange.Exchange) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q %q %q %q %s %+v %d", x.Request.Method, x.Request.Path, x.Request.Query, x.Request.Host, x.Client, x.Identity,
		x.Response.Status)
	for _, f := range x.Request.Header.All() {
		fmt.Fprintf(&b, " %q:%q", f.Name, f.Value)
	}
	return b.String()
}

var texts = []string{"", "a", "b", "ab", "/a", "/a/b", "A", "é", "aé", "7", "-3", "9223372036854775807", "a, b"}

func pick[T any](t *rapid.T, from ...T) T { return rapid.SampledFrom(from).Draw(t, "pick") }

func sub(t *rapid.T, depth int, format string, kinds ...Kind) string {
	args := make([]any, len(kinds))
	for i, k := range kinds {
		args[i] = source(t, k, depth-1)
	}
	return "(" + fmt.Sprintf(format, args...) + ")"
}

// source is a random expression of the subset.
func source(t *rapid.T, k Kind, depth int) string {
	switch {
	case k == Bool && depth > 0:
		return boolSource(t, depth)
	case k == Bool:
		return pick(t, "true", "false", "has(request.headers.a)", `("b" in request.headers)`, `has(identity.claims.a)`,
			`("b" in identity.claims)`, `inNetwork(client.address, "10.0.0.0/8")`,
			`inNetwork(client.address, ["10.1.0.0/16", "2001:db8::/32", "192.0.2.7"])`, `(identity.claims.a == identity.method)`)
	case k == String && depth > 0 && rapid.IntRange(0, 2).Draw(t, "deeper") > 0:
		switch rapid.IntRange(0, 6).Draw(t, "text") {
		case 0, 1, 2:
			return sub(t, depth, "%s + %s", String, String)
		case 3:
			return sub(t, depth, "%s ? %s : %s", Bool, String, String)
		case 4:
			return sub(t, depth, "string(%s)", Int)
		case 5:
			return sub(t, depth, "%s.lowerAscii()", String)
		}
		return sub(t, depth, "%s.upperAscii()", String)
	case k == String:
		return pick(t, strconv.Quote(pick(t, texts...)), "request.method", "request.path", "request.query", "request.host", "request.scheme",
			`request.headers["a"]`, "request.headers.b", `request.headers["c-d"]`, "response.headers.a", "client.address", "identity.subject",
			"identity.application", "identity.plan", "identity.credentialID", "identity.issuer", "identity.method")
	case depth > 0 && rapid.IntRange(0, 2).Draw(t, "deeper") > 0:
		switch rapid.IntRange(0, 4).Draw(t, "number") {
		case 0:
			return sub(t, depth, "size(%s)", String)
		case 1:
			return sub(t, depth, "int(%s)", String)
		case 2:
			return sub(t, depth, "%s ? %s : %s", Bool, Int, Int)
		case 3:
			return sub(t, depth, "-%s", Int)
		}
		return sub(t, depth, "%s "+pick(t, "+", "-", "*", "/", "%%")+" %s", Int, Int)
	}
	return pick(t, "0", "1", "-1", "2", "7", "9223372036854775807", "(-9223372036854775807 - 1)", "response.status", "size(identity.scopes)")
}

func boolSource(t *rapid.T, depth int) string {
	order := func() string { return pick(t, "==", "!=", "<", "<=", ">", ">=") }
	list := `["a", "b", "/a", ""]`
	switch rapid.IntRange(0, 17).Draw(t, "truth") {
	case 0, 1:
		return sub(t, depth, "%s && %s", Bool, Bool)
	case 2, 3:
		return sub(t, depth, "%s || %s", Bool, Bool)
	case 4:
		return sub(t, depth, "!%s", Bool)
	case 5:
		return sub(t, depth, "%s ? %s : %s", Bool, Bool, Bool)
	case 6, 7:
		return sub(t, depth, "%s "+order()+" %s", String, String)
	case 8:
		return sub(t, depth, "%s "+order()+" %s", Int, Int)
	case 9:
		return sub(t, depth, "%s "+pick(t, "==", "!=")+" %s", Bool, Bool)
	case 10:
		return sub(t, depth, "%s in "+list, String)
	case 11:
		return sub(t, depth, "%s in [0, 1, 7, -1]", Int)
	case 12:
		return sub(t, depth, "%s in identity.scopes", String)
	case 13:
		return sub(t, depth, "%s in identity.claims."+pick(t, "a", "b", "z"), String)
	case 14:
		return sub(t, depth, "%s "+pick(t, "==", "!=")+` identity.claims["`+pick(t, "a", "b", "z")+`"]`, pick(t, String, Bool))
	case 15:
		return sub(t, depth, "identity.claims."+pick(t, "a", "b", "z")+pick(t, "==", "!=")+"%s", pick(t, String, Bool))
	case 16:
		return sub(t, depth, "%s.matches("+pick(t, `"^/a"`, `"a$"`, `"[^a-z]"`, `"(?i)A"`, `"."`, `""`)+")", String)
	}
	return sub(t, depth, "%s."+pick(t, "startsWith", "endsWith", "contains")+"(%s)", String, String)
}

func randomExchange(t *rapid.T) *exchange.Exchange {
	text := func() string { return pick(t, append(texts[:len(texts):len(texts)], "\xff", "a\xffB", "É\x80")...) }
	x := &exchange.Exchange{}
	x.Request.Method = []byte(pick(t, "GET", "a"))
	x.Request.Path = []byte(text())
	if rapid.Bool().Draw(t, "rewritten") {
		x.ClientPath = []byte(text())
	}
	x.Request.Query, x.Request.Host, x.Scheme = []byte(text()), []byte(text()), pick(t, "http", "https", "")
	x.Client = pick(t, netip.AddrPort{}, netip.MustParseAddrPort("10.1.2.3:5"), netip.MustParseAddrPort("[::ffff:10.1.2.3]:5"),
		netip.MustParseAddrPort("[2001:db8::7]:5"), netip.MustParseAddrPort("[fe80::1%eth0]:5"), netip.MustParseAddrPort("192.0.2.7:1"))
	for _, h := range []*exchange.Header{&x.Request.Header, &x.Response.Header} {
		for range rapid.IntRange(0, 4).Draw(t, "fields") {
			h.Append([]byte(pick(t, "a", "A", "b", "C-d", "x")), []byte(text()))
		}
	}
	x.Response.Status = pick(t, 0, 7, 200)
	if rapid.Bool().Draw(t, "known") {
		x.Identity = exchange.Identity{Subject: text(), Application: text(), Plan: text(), CredentialID: text(), Issuer: text(), Method: text(),
			Scopes: pick(t, nil, []string{"a"}, []string{"b", "/a", ""})}
		x.Identity.Claims = map[string]any{}
		for _, name := range []string{"a", "b"} {
			if v, ok := claim(t, 2); ok {
				x.Identity.Claims[name] = v
			}
		}
	}
	return x
}

func claim(t *rapid.T, depth int) (any, bool) {
	switch rapid.IntRange(0, 8).Draw(t, "claim") {
	case 0:
		return nil, true
	case 1:
		return rapid.Bool().Draw(t, "flag"), true
	case 2:
		return pick(t, 0.0, 7, 1.5), true
	case 3:
		return json.Number(pick(t, "7", "1.5", "1e3")), true
	case 4:
		return pick(t, []string{}, []string{"a", "b"}), true
	case 5:
		if depth > 0 {
			v, _ := claim(t, depth-1)
			w, _ := claim(t, depth-1)
			return []any{v, w}, true
		}
	case 6:
		if depth > 0 {
			v, _ := claim(t, depth-1)
			return map[string]any{pick(t, texts...): v}, true
		}
	case 7:
		return nil, false
	}
	return pick(t, texts...), true
}
