package limit

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// counter is the model of one limit whose buckets never refill.
type counter struct {
	name                     string
	shadow, off, failures    bool
	rate, places, cost, late int64 // 0: none
	used, flying             int64
}

func (c *counter) refuses() bool {
	return c.rate > 0 && c.used+c.cost > c.rate || c.places > 0 && c.flying >= c.places
}

// passed is one exchange of the model on its way.
type passed struct {
	x      *exchange.Exchange
	took   []*counter // that counted it
	charge []*counter // that its answer is charged to
	judges []*counter // that a wrong credential counts in
}

// TestModel: requests that overlap, that are answered or aborted, that other limits refuse, whose credentials are wrong: what passes is what
// a simple model says, and in the end exactly what passed is counted and no place is held.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := openBooks()
		defer b.Close()
		spec, model := map[string]v1alpha1.RateLimit{}, []*counter{}
		for i := range rapid.IntRange(1, 4).Draw(t, "limits") {
			c, in := drawLimit(t, fmt.Sprintf("l%d", i))
			spec[c.name], model = in, append(model, c)
		}
		raw, err := json.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		var s Spec
		s.phase = policy.LimitEarly
		if err := json.Unmarshal(raw, &s); err != nil {
			t.Fatal(err)
		}
		h, err := s.Compile(policy.Env{Limiter: b, Sources: map[string]string{"": owner}})
		if err != nil {
			t.Fatal(err)
		}
		if h.Request == nil {
			if slices.ContainsFunc(model, func(c *counter) bool { return !c.off }) {
				t.Fatalf("%s does nothing", raw)
			}
			return
		}
		var open []*passed
		for range rapid.IntRange(1, 30).Draw(t, "requests") {
			if len(open) > 0 && rapid.Bool().Draw(t, "end one") {
				i := rapid.IntRange(0, len(open)-1).Draw(t, "which")
				open[i].end(t, h)
				open = slices.Delete(open, i, i+1)
				continue
			}
			open = append(open, begin(t, h, model, raw))
		}
		for _, p := range open {
			p.end(t, h)
		}
		var used int64
		for _, c := range model {
			used += c.used
		}
		if b.held() != 0 || b.total() != used || len(b.faults) > 0 {
			t.Errorf("%s: %d places are held, %d counted, want 0, %d; %q", raw, b.held(), b.total(), used, b.faults)
		}
	})
}

func drawLimit(t *rapid.T, name string) (*counter, v1alpha1.RateLimit) {
	c := &counter{name: name, cost: rapid.Int64Range(0, 2).Draw(t, "cost")}
	in := v1alpha1.RateLimit{Cost: fmt.Sprint(c.cost), Mode: rapid.SampledFrom([]string{"", "Enforce", "Shadow", "Disabled"}).Draw(t, "mode")}
	c.shadow, c.off = in.Mode == "Shadow", in.Mode == "Disabled"
	c.rate = rapid.Int64Range(0, 5).Draw(t, "rate")
	if c.failures = rapid.Bool().Draw(t, "failures"); c.failures {
		in.Count = "AuthenticationFailures"
		c.rate = max(c.rate, 1)
	} else {
		c.places = rapid.Int64Range(0, 2).Draw(t, "places")
		if c.late = rapid.Int64Range(0, 2).Draw(t, "late"); c.late > 0 {
			in.ResponseCost = fmt.Sprint(c.late)
			c.rate = max(c.rate, 1)
		}
		if c.rate == 0 {
			c.places = max(c.places, 1)
		}
	}
	if c.rate > 0 {
		in.Rates = []v1alpha1.Rate{{Limit: c.rate, Period: "24h"}}
	}
	if c.places > 0 {
		in.Concurrency = &c.places
	}
	return c, in
}

// begin passes a request through both.
func begin(t *rapid.T, h policy.Handler, model []*counter, raw []byte) *passed {
	p := &passed{x: request(ann)}
	v := h.Request(p.x)
	var shadows []string
	refused := false
	for _, c := range model {
		refused = refused || !c.off && !c.shadow && c.refuses()
	}
	for _, c := range model {
		switch {
		case c.off:
		case c.shadow && c.refuses():
			if c.rate > 0 && c.used+c.cost > c.rate { // which lasts longer than a place being taken
				shadows = append(shadows, rateLimited)
			} else {
				shadows = append(shadows, tooMany)
			}
		case c.shadow || !refused:
			if !c.failures {
				p.took = append(p.took, c)
				c.flying++
				if c.rate > 0 {
					c.used += c.cost
				}
			}
			if c.failures {
				p.judges = append(p.judges, c)
			}
			if c.late > 0 {
				p.charge = append(p.charge, c)
			}
		}
	}
	var noted []string
	for _, s := range p.x.Shadow {
		noted = append(noted, s.Reason)
	}
	if (v.Status != 0) != refused || v.Status != 0 && v.Status != 429 || !cmp.Equal(shadows, noted) {
		t.Fatalf("%s: answered %d, in shadow %q; the model refuses: %v, in shadow %q", raw, v.Status, noted, refused, shadows)
	}
	if refused {
		p.x.Reason = v.Reason
	}
	return p
}

// end answers or aborts it.
func (p *passed) end(t *rapid.T, h policy.Handler) {
	x := p.x
	if x.Reason == "" {
		x.Reason = rapid.SampledFrom([]string{"", "", "access_denied", rateLimited, quotaUsed, tooMany, storeAway}).Draw(t, "reason")
	}
	if x.Reason == "" {
		x.AuthFailed = rapid.Bool().Draw(t, "wrong credential")
	}
	refused := byLimit(x.Reason)
	if rapid.Bool().Draw(t, "answered") {
		h.Response(x)
		for _, c := range p.charge {
			if !refused {
				c.used += c.late
			}
		}
	}
	h.Done(x)
	for _, c := range p.took {
		c.flying--
		if refused && c.rate > 0 {
			c.used -= c.cost
		}
	}
	for _, c := range p.judges {
		if x.AuthFailed {
			c.used += c.cost
		}
	}
}

// TestMerge: the union of all names; the outermost overrides win, else the innermost defaults.
func TestMerge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"a", "b", "c"}
		var layers []policy.Layer
		have := map[string]bool{}
		for i := range rapid.IntRange(1, 4).Draw(t, "layers") {
			s := &Spec{phase: policy.Limit, limits: map[string]v1alpha1.RateLimit{}}
			for _, n := range names {
				if rapid.Bool().Draw(t, n) {
					s.limits[n] = v1alpha1.RateLimit{When: fmt.Sprint(i)}
					have[n] = true
				}
			}
			layers = append(layers, policy.Layer{Spec: s, Overrides: rapid.Bool().Draw(t, "overrides")})
		}
		merged, origins := merge(layers)
		got := merged.(*Spec)
		if got.phase != policy.Limit || len(got.limits) != len(have) {
			t.Fatalf("%v of %v", slices.Collect(maps.Keys(got.limits)), have)
		}
		for n := range have {
			want := -1
			for i, l := range layers {
				_, has := l.Spec.(*Spec).limits[n]
				if has && (want < 0 || !layers[want].Overrides) {
					want = i
				}
			}
			if got.limits[n].When != fmt.Sprint(want) || origins[n].Layer != want {
				t.Errorf("%s is of layer %s (%d), want %d", n, got.limits[n].When, origins[n].Layer, want)
			}
		}
	})
}

// TestPhases: a limit that reads who calls runs behind authentication, every other one before.
func TestPhases(t *testing.T) {
	for limits, late := range map[string]bool{
		`{"a":{"rates":[{"limit":1,"period":"1h"}]}}`:                                                                 true,
		`{"a":{"key":["identity.subject"],"rates":[{"limit":1,"period":"1h"}]}}`:                                      false,
		`{"a":{"when":"has(identity.claims.x)","rates":[{"limit":1,"period":"1h"}]}}`:                                 false,
		`{"a":{"cost":"size(identity.scopes)","rates":[{"limit":1,"period":"1h"}]}}`:                                  false,
		`{"a":{"responseCost":"size(identity.scopes)","rates":[{"limit":1,"period":"1h"}]}}`:                          true,
		`{"a":{"key":["client.address"],"mode":"Shadow","rates":[{"limit":1,"period":"1h"}]}}`:                        true,
		`{"a":{"count":"AuthenticationFailures","key":["request.headers['x']"],"rates":[{"limit":1,"period":"1h"}]}}`: true,
	} {
		early, behind := compile(t, Early(), limits, policy.Env{}), compile(t, Late(), limits, policy.Env{})
		if (early.Request != nil) != late || (behind.Request != nil) == late {
			t.Errorf("%s: early %v, late %v", limits, early.Request != nil, behind.Request != nil)
		}
	}
	for limits, want := range map[string]bool{
		`{"a":{"key":["request.path"],"rates":[{"limit":1,"period":"1h"}]}}`:                      true,
		`{"a":{"key":["request.method"],"rates":[{"limit":1,"period":"1h"}]}}`:                    false,
		`{"a":{"responseCost":"size(request.path)","rates":[{"limit":1,"period":"1h"}]}}`:         true,
		`{"a":{"mode":"Disabled","key":["request.path"]},"b":{"concurrency":1}}`:                  false,
		`{"a":{"key":["request.path + identity.subject"],"concurrency":1},"b":{"concurrency":1}}`: false, // of the other step
	} {
		if h := compile(t, Early(), limits, policy.Env{}); h.ReadsPath != want {
			t.Errorf("%s: reads the path: %v", limits, h.ReadsPath)
		}
	}
}

// TestDurable: the store of quotas is asked for by those that need it alone.
func TestDurable(t *testing.T) {
	for limits, want := range map[string]bool{
		`{"a":{"quota":{"limit":1,"window":"Day"}}}`:                            true,
		`{"a":{"mode":"Shadow","quota":{"limit":1,"window":"Day"}}}`:            true,
		`{"a":{"mode":"Disabled","quota":{"limit":1,"window":"Day"}}}`:          false,
		`{"a":{"scope":"Shared","quota":{"limit":1,"window":"Day"}}}`:           false,
		`{"a":{"key":["identity.subject"],"quota":{"limit":1,"window":"Day"}}}`: false, // of the other step
		`{"a":{"rates":[{"limit":1,"period":"1h"}]}}`:                           false,
	} {
		b := newBooks(t)
		compile(t, Early(), limits, policy.Env{Limiter: b})
		if b.durable != want {
			t.Errorf("%s: durable %v", limits, b.durable)
		}
	}
}

func TestFaults(t *testing.T) {
	var many []string
	for range 9 {
		many = append(many, `"request.path"`)
	}
	for limits, want := range map[string]string{
		`{}`:                                  "is empty",
		`null`:                                "is empty",
		`{"A":{"concurrency":1}}`:             `A: "A" is not a name`,
		`{"a\"":{"concurrency":1}}`:           `is not a name`,
		`{"a":{}}`:                            "a: limits nothing",
		`{"a":{"concurrency":0}}`:             "a.concurrency: 0 is below 1",
		`{"a":{"concurrency":1,"mode":"On"}}`: `a.mode: "On" is not a mode`,
		`{"a":{"concurrency":1,"when":"nothing"}}`:                                                                "a.when: ",
		`{"a":{"concurrency":1,"key":["request.path",""]}}`:                                                       "a.key[1]: is empty",
		`{"a":{"concurrency":1,"key":[` + strings.Join(many, ",") + `]}}`:                                         "a.key: has more than 8 parts",
		`{"a":{"rates":[{"limit":0,"period":"1s"}]}}`:                                                             "a.rates[0].limit: 0 is below 1",
		`{"a":{"rates":[{"limit":1,"period":"1"}]}}`:                                                              "a.rates[0].period: ",
		`{"a":{"rates":[{"limit":1,"period":"0s"}]}}`:                                                             "a.rates[0].period: ",
		`{"a":{"rates":[{"limit":1,"period":"1s","burst":-1}]}}`:                                                  "a.rates[0].burst: -1 is below 1",
		`{"a":{"quota":{"limit":0,"window":"Day"}}}`:                                                              "a.quota.limit: 0 is below 1",
		`{"a":{"quota":{"limit":1,"window":"Decade"}}}`:                                                           "a.quota.window: ",
		`{"a":{"quota":{"limit":1,"window":"Day","timeZone":"Local"}}}`:                                           "a.quota.timeZone: ",
		`{"a":{"quota":{"limit":1,"window":"Day","timeZone":"../etc/passwd"}}}`:                                   "a.quota.timeZone: ",
		`{"a":{"concurrency":1,"consistency":"Strict"}}`:                                                          "a.scope: is Local",
		`{"a":{"count":"AuthenticationFailures","concurrency":1}}`:                                                "a.concurrency: does not go with",
		`{"a":{"count":"AuthenticationFailures","key":["identity.subject"],"rates":[{"limit":1,"period":"1s"}]}}`: "a.count: ",
		`{"a":{"count":"AuthenticationFailures","responseCost":"1","rates":[{"limit":1,"period":"1s"}]}}`:         "a.responseCost: ",
		`{"a":{"mode":"Disabled","concurrency":0},"b":{"concurrency":1}}`:                                         "a.concurrency: ",
	} {
		var s Spec
		if err := json.Unmarshal([]byte(limits), &s); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Compile(policy.Env{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", limits, err, want)
		}
	}
}
