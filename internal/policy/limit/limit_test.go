package limit

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/dunglas/httpsfv"
	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/limiter"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// TestRequests passes requests one after the other, each over before the next: the reasons of their refusals, "" for none.
func TestRequests(t *testing.T) {
	for _, tt := range []struct {
		name, limits string
		want         []string
	}{
		{"a rate", `{"a":{"rates":[{"limit":2,"period":"24h"}]}}`, []string{"", "", rateLimited}},
		{"a burst", `{"a":{"rates":[{"limit":100,"period":"24h","burst":1}]}}`, []string{"", rateLimited}},
		{"two rates", `{"a":{"rates":[{"limit":2,"period":"24h"},{"limit":100,"period":"24h","burst":1}]}}`, []string{"", rateLimited}},
		{"a quota", `{"a":{"quota":{"limit":1,"window":"Year"}}}`, []string{"", quotaUsed}},
		{"a place alone", `{"a":{"concurrency":1}}`, []string{"", "", ""}},
		{"a place and a rate", `{"a":{"concurrency":1,"rates":[{"limit":2,"period":"24h"}]}}`, []string{"", "", rateLimited}},
		{"a cost", `{"a":{"cost":"2","rates":[{"limit":3,"period":"24h"}]}}`, []string{"", rateLimited}},
		{"a cost that is negative", `{"a":{"cost":"-2","rates":[{"limit":1,"period":"24h"}]}}`, []string{"", "", ""}},
		{"a cost that fails", `{"a":{"cost":"int(request.path)","rates":[{"limit":1,"period":"24h"}]}}`, []string{"", rateLimited}},
		{"a cost above all", `{"a":{"cost":"4","rates":[{"limit":3,"period":"24h"}]}}`, []string{rateLimited}},
		{"when true", `{"a":{"when":"request.method == 'GET'","rates":[{"limit":1,"period":"24h"}]}}`, []string{"", rateLimited}},
		{"when false", `{"a":{"when":"request.method == 'PUT'","rates":[{"limit":1,"period":"24h"}]}}`, []string{"", ""}},
		{"when fails", `{"a":{"when":"int(request.path) == 1","rates":[{"limit":1,"period":"24h"}]}}`, []string{"", rateLimited}},
		{"the cost of answers", `{"a":{"responseCost":"response.status","rates":[{"limit":300,"period":"24h"}]}}`, []string{"", "", rateLimited}},
		{"the cost of answers that fails", `{"a":{"responseCost":"int(request.path)","rates":[{"limit":2,"period":"24h"}]}}`, []string{"", "", rateLimited}},
		{"disabled", `{"a":{"mode":"Disabled","rates":[{"limit":1,"period":"24h"}]},"b":{"rates":[{"limit":2,"period":"24h"}]}}`, []string{"", "", rateLimited}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBooks(t)
			h := compile(t, Early(), tt.limits, policy.Env{Limiter: b})
			for i, want := range tt.want {
				x := request(ann)
				x.Response.Status = 200
				if v := ask(t, h, x); v.Reason != want || (v.Status == 429) != (want != "") {
					t.Errorf("request %d: %d %q (%s), want %q", i, v.Status, v.Reason, v.Detail, want)
				}
				end(h, x)
			}
			if b.held() != 0 || len(b.faults) > 0 {
				t.Errorf("%d places are held, %q", b.held(), b.faults)
			}
		})
	}
}

// TestKeys: which requests share a limit of one.
func TestKeys(t *testing.T) {
	const six, sixToo, other = "[2001:db8::1]:1", "[2001:db8::ffff:0:1]:2", "[2001:db8:0:1::1]:1"
	header := func(x *exchange.Exchange, vs ...string) *exchange.Exchange {
		for _, v := range vs {
			n, v, _ := strings.Cut(v, ":")
			x.Request.Header.Append([]byte(n), []byte(v))
		}
		return x
	}
	address, parts := []string{"client.address"}, []string{"request.headers['a']", "request.headers['b']"}
	for _, tt := range []struct {
		name   string
		key    []string
		a, b   *exchange.Exchange
		shared bool
	}{
		{"no key", nil, request(ann), request(six), true},
		{"ports do not count", address, request(ann), request("192.0.2.7:1"), true},
		{"two addresses", address, request(ann), request("192.0.2.8:4711"), false},
		{"an IPv4 address in an IPv6 one", address, request(ann), request("[::ffff:192.0.2.7]:1"), true},
		{"two IPv4 addresses in IPv6 ones", address, request("[::ffff:192.0.2.7]:1"), request("[::ffff:192.0.2.8]:1"), false},
		{"one /64", address, request(six), request(sixToo), true},
		{"two /64", address, request(six), request(other), false},
		{"a zone", address, request("[fe80::1%eth0]:1"), request("[fe80::2%eth1]:1"), true},
		{"parts", parts, header(request(ann), "a:1", "b:2"), header(request(six), "a:1", "b:2"), true},
		{"parts that differ", parts, header(request(ann), "a:1", "b:2"), header(request(ann), "a:2", "b:1"), false},
		{"parts are not one text", parts, header(request(ann), "a:12", "b:3"), header(request(ann), "a:1", "b:23"), false},
		{"a part that is empty", parts, header(request(ann), "a:1"), header(request(ann), "b:1"), false},
		{"a part that fails counts as empty", []string{"string(int(request.headers['a']))", "request.headers['b']"}, header(request(ann), "a:x", "b:1"), header(request(ann), "a:y", "b:1"), true},
		{"a part that fails leaves the others", []string{"request.headers['b']", "string(int(request.headers['a']))", "request.headers['b']"},
			header(request(ann), "a:x", "b:1"), header(request(ann), "a:x", "b:2"), false},
		{"long parts", parts, header(request(ann), "a:"+strings.Repeat("x", 5000), "b:1"), header(request(ann), "a:"+strings.Repeat("x", 5000), "b:2"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			key, _ := json.Marshal(tt.key)
			h := compile(t, Early(), fmt.Sprintf(`{"a":{"key":%s,"rates":[{"limit":1,"period":"24h"}]}}`, key), policy.Env{Limiter: newBooks(t)})
			client := tt.a.Client
			ask(t, h, tt.a)
			if v := ask(t, h, tt.b); (v.Status == 429) != tt.shared {
				t.Errorf("the second is answered %d, and they share a limit: %v", v.Status, tt.shared)
			}
			if tt.a.Client != client {
				t.Errorf("the client became %v", tt.a.Client)
			}
		})
	}
}

// TestOwner: a limit is known by its policy and its name, whatever else changes.
func TestOwner(t *testing.T) {
	b := newBooks(t)
	use := func(limits string, sources map[string]string) string {
		h := compile(t, Early(), limits, policy.Env{Limiter: b, Sources: sources})
		x := request(ann)
		defer func() { end(h, x) }()
		return ask(t, h, x).Reason
	}
	const one = `{"a":{"rates":[{"limit":1,"period":"24h"}]}}`
	mine := map[string]string{"": owner}
	for i, tt := range []struct {
		limits  string
		sources map[string]string
		want    string
	}{
		{one, mine, ""},
		{one, mine, rateLimited},
		{`{"a":{"mode":"Enforce","rates":[{"limit":1,"period":"24h"}]}}`, mine, rateLimited},
		{`{"b":{"rates":[{"limit":1,"period":"24h"}]}}`, mine, ""},
		{one, map[string]string{"": "RateLimitPolicy shop/carts"}, ""},
		{one, map[string]string{"": "RateLimitPolicy shop/others", "a": owner}, rateLimited}, // merged: the limit is still of its policy
		{one, map[string]string{"": owner, "a": "RateLimitPolicy shop/third"}, ""},
	} {
		if got := use(tt.limits, tt.sources); got != tt.want {
			t.Errorf("use %d: %q, want %q", i, got, tt.want)
		}
	}
}

// TestFailures: wrong credentials count, right ones do not, and who had too many is not even asked.
func TestFailures(t *testing.T) {
	h := compile(t, Early(), `{"a":{"count":"AuthenticationFailures","key":["client.address"],"rates":[{"limit":2,"period":"24h"}]}}`, policy.Env{Limiter: newBooks(t)})
	for i, tt := range []struct {
		from   string
		failed bool
		status int
	}{
		{ann, false, 0}, {ann, false, 0}, {ann, true, 0}, {ann, false, 0}, {ann, true, 0}, {ann, false, 429}, {ann, true, 429}, {"192.0.2.8:1", false, 0},
	} {
		x := request(tt.from)
		v := ask(t, h, x)
		if x.AuthFailed = tt.failed && v.Status == 0; v.Status != tt.status {
			t.Errorf("request %d: %d, want %d", i, v.Status, tt.status)
		}
		end(h, x)
	}
}

// TestPlaces: a place in flight is given back exactly once on every way out.
func TestPlaces(t *testing.T) {
	const place, strict = `{"a":{"concurrency":1,"rates":[{"limit":9,"period":"24h"}]}}`,
		`{"a":{"concurrency":1,"scope":"Shared","consistency":"Strict","rates":[{"limit":9,"period":"24h"}]}}`
	for _, tt := range []struct {
		name, limits string
		do           func(*testing.T, *books, policy.Handler, *exchange.Exchange)
		counted      int64
	}{
		{"passed", place, func(t *testing.T, _ *books, h policy.Handler, x *exchange.Exchange) { ask(t, h, x); end(h, x) }, 1},
		{"passed, and the client went away", place, func(t *testing.T, _ *books, h policy.Handler, x *exchange.Exchange) { ask(t, h, x); h.Done(x) }, 1},
		{"refused by another limit later", place, func(t *testing.T, _ *books, h policy.Handler, x *exchange.Exchange) {
			ask(t, h, x)
			x.Reason = quotaUsed
			end(h, x)
		}, 0},
		{"refused by something else", place, func(t *testing.T, _ *books, h policy.Handler, x *exchange.Exchange) {
			ask(t, h, x)
			x.Reason = "access_denied"
			end(h, x)
		}, 1},
		{"strict, passed", strict, func(t *testing.T, _ *books, h policy.Handler, x *exchange.Exchange) { ask(t, h, x); end(h, x) }, 1},
		{"strict, aborted before the wait", strict, func(_ *testing.T, _ *books, h policy.Handler, x *exchange.Exchange) { h.Request(x); h.Done(x) }, 0},
		{"strict, aborted during the wait", strict, func(t *testing.T, b *books, h policy.Handler, x *exchange.Exchange) {
			v := h.Request(x)
			ctx, cancel := context.WithCancel(t.Context())
			b.strict = func(ctx context.Context) { cancel(); <-ctx.Done() }
			v.Wait(ctx) // what it returns is never run
			h.Done(x)
		}, 1}, // the store may have counted it
		{"strict, the exchange is over before the wait returns", strict, func(t *testing.T, b *books, h policy.Handler, x *exchange.Exchange) {
			v := h.Request(x)
			b.strict = func(context.Context) {
				h.Done(x)
				y := request(ann) // which gets the room of the first
				h.Request(y)
				h.Done(y)
			}
			v.Wait(t.Context())
		}, 1},
		{"strict, the store is away", strict, func(t *testing.T, b *books, h policy.Handler, x *exchange.Exchange) {
			b.away = true
			if v := ask(t, h, x); v.Status != 503 || v.Reason != storeAway {
				t.Errorf("%d %s", v.Status, v.Reason)
			}
			end(h, x)
		}, 0},
		{"strict, no place", strict, func(t *testing.T, b *books, h policy.Handler, x *exchange.Exchange) {
			ask(t, h, x)
			y := request(ann)
			if v := h.Request(y); v.Reason != tooMany || v.Wait != nil {
				t.Errorf("%+v", v)
			}
			y.Reason = tooMany
			end(h, y)
			end(h, x)
		}, 1},
		{"shadow", `{"a":{"mode":"Shadow","concurrency":1,"rates":[{"limit":1,"period":"24h"}]}}`, func(t *testing.T, b *books, h policy.Handler, x *exchange.Exchange) {
			ask(t, h, x)
			if b.held() != 1 {
				t.Errorf("holds %d places, want one, as if it were enforced", b.held())
			}
			end(h, x)
			y := request(ann)
			if v := ask(t, h, y); v.Status != 0 {
				t.Errorf("%+v", v)
			}
			end(h, y)
			if d := cmp.Diff([]exchange.Shadowed{{Step: "limitEarly", Reason: rateLimited, Status: 429}}, y.Shadow); d != "" {
				t.Error(d)
			}
		}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBooks(t)
			h := compile(t, Early(), tt.limits, policy.Env{Limiter: b})
			tt.do(t, b, h, request(ann))
			if b.held() != 0 || b.total() != tt.counted || len(b.faults) > 0 {
				t.Errorf("%d places are held, %d counted, want 0, %d; %q", b.held(), b.total(), tt.counted, b.faults)
			}
		})
	}
}

// TestCharges: what a response costs is charged once, and not if a limit refused.
func TestCharges(t *testing.T) {
	for _, mode := range []string{"Enforce", "Shadow"} {
		for _, tt := range []struct {
			reason string
			times  int
			want   int64
		}{{"", 1, 6}, {"", 2, 6}, {"access_denied", 1, 6}, {rateLimited, 1, 0}, {storeAway, 2, 0}} {
			b := newBooks(t)
			h := compile(t, Early(), `{"a":{"mode":"`+mode+`","responseCost":"5","rates":[{"limit":9,"period":"24h"}]}}`, policy.Env{Limiter: b})
			x := request(ann)
			ask(t, h, x)
			x.Reason = tt.reason
			for range tt.times {
				h.Response(x)
			}
			h.Done(x)
			if b.total() != tt.want {
				t.Errorf("%s, %q: %d counted, want %d", mode, tt.reason, b.total(), tt.want)
			}
		}
	}
	b := newBooks(t)
	h := compile(t, Early(), `{"a":{"concurrency":1},"b":{"scope":"Shared","consistency":"Strict","responseCost":"5","rates":[{"limit":1,"period":"24h"}]}}`, policy.Env{Limiter: b})
	for i, want := range []int64{6, 6} { // the second is refused by the store, after a place was taken
		x := request(ann)
		ask(t, h, x)
		end(h, x)
		if b.total() != want || b.held() != 0 {
			t.Errorf("after request %d: %d counted, %d places", i, b.total(), b.held())
		}
	}
}

// TestTold: the client is told of the strictest limit of both steps, in structured fields.
func TestTold(t *testing.T) {
	b := newBooks(t)
	const early = `{"wide":{"rates":[{"limit":10,"period":"1h"}]},"day":{"quota":{"limit":4,"window":"Day"}},
		"huge":{"rates":[{"limit":9223372036854775807,"period":"100ms","burst":9223372036854775807}]}}`
	const late = `{"each":{"key":["identity.subject"],"rates":[{"limit":5,"period":"1m"},{"limit":3,"period":"90s"}]}}`
	first, second := compile(t, Early(), early, policy.Env{Limiter: b}), compile(t, Late(), late, policy.Env{Limiter: b})
	var got []string
	for range 4 {
		x := request(ann)
		x.Enter(0)
		v := ask(t, first, x)
		x.Enter(1)
		if v.Status == 0 {
			v = ask(t, second, x)
		}
		second.Response(x)
		x.Enter(0)
		first.Response(x)
		item, err := httpsfv.UnmarshalItem([]string{string(x.Response.Header.Get("RateLimit"))})
		if err != nil {
			t.Fatal(err)
		}
		p, err := httpsfv.UnmarshalItem([]string{string(x.Response.Header.Get("RateLimit-Policy"))})
		if err != nil || p.Value != item.Value {
			t.Fatalf("%v %v", err, p)
		}
		r, _ := item.Params.Get("r")
		q, _ := p.Params.Get("q")
		w, _ := p.Params.Get("w")
		got = append(got, fmt.Sprint(v.Status, " ", item.Value, " r=", r, " q=", q, " w=", w))
		if x.Response.Header.Len() != 2 {
			t.Errorf("%q", x.Response.Header.All())
		}
		// A response that takes this one's place is told too.
		x.Response.Header.Reset()
		if first.Response(x); !x.Response.Header.Has("RateLimit") {
			t.Error("the second answer says nothing")
		}
	}
	want := []string{"0 each-2 r=2 q=3 w=90", "0 each-2 r=1 q=3 w=90", "0 each-2 r=0 q=3 w=90", "429 each-2 r=0 q=3 w=90"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}

	h := compile(t, Early(), `{"huge":{"rates":[{"limit":9223372036854775807,"period":"1h"}]}}`, policy.Env{Limiter: newBooks(t)})
	x := request(ann)
	ask(t, h, x)
	h.Response(x)
	for _, name := range []string{"RateLimit", "RateLimit-Policy"} {
		if _, err := httpsfv.UnmarshalItem([]string{string(x.Response.Header.Get(name))}); err != nil {
			t.Errorf("%s: %s: %v", name, x.Response.Header.Get(name), err)
		}
	}
}

// TestRefusal: of several refusals the one that lasts longest is told, and all are named.
func TestRefusal(t *testing.T) {
	h := compile(t, Early(), `{"a":{"rates":[{"limit":1,"period":"1m"}]},"b":{"rates":[{"limit":1,"period":"1h"},{"limit":1,"period":"1s"}]},
		"c":{"when":"request.method == 'PUT'","cost":"7","rates":[{"limit":6,"period":"1s"}]},"d":{"concurrency":1}}`, policy.Env{Limiter: newBooks(t)})
	ask(t, h, request(ann))
	x := request(ann)
	v := ask(t, h, x)
	if v.Detail != "limit b" || v.Type != quotaExceeded || string(v.Members) != `"violated-policies":["a","b-1","d"]` || string(v.Header[0].Value) != "3600" || x.Limit.Name != `"b-1"` {
		t.Errorf("%s %s %s %v %+v", v.Detail, v.Type, v.Members, v.Header, x.Limit)
	}
	if !json.Valid([]byte("{" + string(v.Members) + "}")) {
		t.Errorf("%s", v.Members)
	}
	x = request(ann)
	x.Request.Method = []byte("PUT")
	if v = ask(t, h, x); v.Detail != "limit c" || len(v.Header) > 0 { // it never passes: nobody is told to come again
		t.Errorf("%s %v", v.Detail, v.Header)
	}
	for _, as := range [][]limiter.Answer{nil, {{Allowed: true}}} {
		if got := worst(as); got != 0 {
			t.Errorf("worst(%v) = %d", as, got)
		}
	}
}

// TestUntold: a limit that lets everything pass, as its store is away, has no number to tell.
func TestUntold(t *testing.T) {
	h := compile(t, Early(), `{"a":{"scope":"Shared","onStoreFailure":"Allow","rates":[{"limit":1,"period":"1m"}]}}`, policy.Env{Limiter: newBooks(t)})
	x := request(ann)
	if v := ask(t, h, x); v.Status != 0 || x.Limit.Name != "" {
		t.Errorf("%d, told %+v", v.Status, x.Limit)
	}
	if math.MaxInt64 <= maxInteger {
		t.Error("a structured field could say it")
	}
}

// TestDry: what is explained counts nothing, holds nothing and says what would be.
func TestDry(t *testing.T) {
	const limits = `{"a":{"rates":[{"limit":2,"period":"24h"}]},"b":{"concurrency":3},"c":{"mode":"Shadow","responseCost":"3","rates":[{"limit":5,"period":"24h"}]},
		"d":{"when":"request.method == 'PUT'","rates":[{"limit":5,"period":"24h"}]},"e":{"count":"AuthenticationFailures","rates":[{"limit":7,"period":"24h"}]}}`
	b := newBooks(t)
	h := compile(t, Early(), limits, policy.Env{Limiter: b})
	for range 3 {
		x := request(ann)
		x.Dry = true
		v := ask(t, h, x)
		x.AuthFailed = true
		end(h, x)
		if want := "a applies, 1 left; b applies, 3 left; e applies, 6 left; c applies (shadow), 4 left"; v.Detail != want || v.Status != 0 {
			t.Errorf("%d %s, want %s", v.Status, v.Detail, want)
		}
	}
	if b.total() != 0 || b.held() != 0 {
		t.Errorf("%d counted, %d places", b.total(), b.held())
	}
	x := request(ann)
	h = compile(t, Early(), limits, policy.Env{})
	if v := ask(t, h, x); v.Detail != "a applies; b applies; e applies; c applies (shadow)" {
		t.Errorf("without a limiter: %s", v.Detail)
	}
	x.AuthFailed = true
	end(h, x)
}

// TestAlloc: one and two local limits cost no allocation.
func TestAlloc(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates; make test runs this without it too")
	}
	l := limiter.New(limiter.Options{})
	defer l.Close()
	for _, limits := range []string{
		`{"a":{"key":["client.address"],"rates":[{"limit":1000000000,"period":"1s"}]}}`,
		`{"a":{"key":["client.address","request.method"],"rates":[{"limit":1000000000,"period":"1s"}],"concurrency":9},"b":{"rates":[{"limit":1000000000,"period":"1s"}]}}`,
	} {
		h := compile(t, Early(), limits, policy.Env{Limiter: l})
		x := request("[2001:db8::1]:1")
		client := x.Client
		if n := testing.AllocsPerRun(1000, func() {
			x.Reset()
			x.Start, x.Client = start, client
			x.Enter(0)
			if v := h.Request(x); v.Status != 0 {
				t.Fatal(v.Reason)
			}
			end(h, x)
		}); n != 0 {
			t.Errorf("%s: %v allocations, want 0", limits, n)
		}
	}
}
