// Package limit says how often something may be called: limits of RateLimitPolicy. Limits that read nothing of the caller's identity
// run before authentication, the others behind authorisation. The arithmetic is package limiter's; here it is decided what counts under
// which key, and what the client is told.
package limit

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/expression"
	"github.com/gatehouse-io/gatehouse/internal/fact"
	"github.com/gatehouse-io/gatehouse/internal/limiter"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// Names of the two steps.
const (
	EarlyName = "limitEarly"
	LateName  = "limit"
)

// Early describes the step of the limits that read no identity.
func Early() policy.Step { return step(EarlyName, policy.LimitEarly) }

// Late describes the step of the limits that do.
func Late() policy.Step { return step(LateName, policy.Limit) }

// step is one of the two: both read the same field, and each keeps to the limits of its phase.
func step(name string, phase policy.Phase) policy.Step {
	return policy.Step{
		Name:     name,
		Sources:  []policy.Source{{Kind: "RateLimitPolicy", Field: "limits"}},
		Phase:    func(policy.Spec) policy.Phase { return phase },
		New:      func() policy.Spec { return &Spec{phase: phase} },
		Merge:    merge,
		Enforces: func(s policy.Spec) bool { return s.(*Spec).enforces() },
		Facts:    func(s policy.Spec) []fact.Fact { return s.(*Spec).facts() },
	}
}

// Spec is the field limits of RateLimitPolicy.
type Spec struct {
	limits map[string]v1alpha1.RateLimit
	phase  policy.Phase
}

// MarshalJSON writes the limits.
func (s *Spec) MarshalJSON() ([]byte, error) { return json.Marshal(s.limits) }

// UnmarshalJSON reads the limits.
func (s *Spec) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, &s.limits) }

// merge is the union by name: of two of one name the outermost under overrides holds, else the innermost.
func merge(layers []policy.Layer) (policy.Spec, policy.Origins) {
	out, origins := &Spec{limits: map[string]v1alpha1.RateLimit{}, phase: layers[0].Spec.(*Spec).phase}, policy.Origins{}
	for _, i := range policy.Rising(layers) {
		for name, l := range layers[i].Spec.(*Spec).limits {
			out.limits[name] = l
			origins[name] = policy.Origin{Layer: i}
		}
	}
	return out, origins
}

func (s *Spec) enforces() bool {
	for _, l := range s.limits {
		if l.Mode == "" || l.Mode == policy.Enforce {
			return true
		}
	}
	return false
}

// Compile checks every limit, also those of the other phase.
func (s *Spec) Compile(env policy.Env) (policy.Handler, error) {
	var faults []error
	r := &rules{name: LateName, limiter: env.Limiter}
	if s.phase == policy.LimitEarly {
		r.name = EarlyName
	}
	reads := false
	for _, name := range slices.Sorted(maps.Keys(s.limits)) {
		in := s.limits[name]
		c := compiler{at: name}
		l := c.limit(name, &in, env.Source(name))
		if len(env.Sources) > 1 {
			l.from = " (" + strings.TrimPrefix(env.Source(name), "RateLimitPolicy ") + ")"
		}
		faults = append(faults, c.faults...)
		if in.Mode != policy.Disabled && l.phase == s.phase {
			reads = reads || c.readsPath
			if in.Quota != nil && in.Scope != "Shared" && env.Limiter != nil {
				env.Limiter.Durable()
			}
			r.add(l)
		}
	}
	if len(s.limits) == 0 {
		faults = append(faults, &diag.Problem{Msg: "is empty", Hint: "write at least one limit by name"})
	}
	if len(faults) > 0 {
		return policy.Handler{}, errors.Join(faults...)
	}
	if len(r.limits)+len(r.shadows) == 0 {
		return policy.Handler{}, nil
	}
	r.states.New = func() any { return &state{} }
	return policy.Handler{Request: r.request, Response: r.response, Done: r.done, ReadsPath: reads}, nil
}

// compiler compiles one limit and collects what is wrong with it.
type compiler struct {
	at        string
	faults    []error
	identity  bool
	readsPath bool
}

func (c *compiler) fault(path, hint, format string, args ...any) {
	c.faults = append(c.faults, &diag.Problem{Path: diag.Join(c.at, path), Msg: fmt.Sprintf(format, args...), Hint: hint})
}

func (c *compiler) expression(path, src string, o expression.Options) *expression.Program {
	if src == "" {
		return nil
	}
	p, err := expression.Compile(src, o)
	if err != nil {
		var f *expression.Fault
		if errors.As(err, &f) {
			c.fault(path, f.Hint, "%s", f.Msg)
		} else {
			c.fault(path, "", "%v", err)
		}
		return nil
	}
	c.identity = c.identity || p.Reads("identity")
	c.readsPath = c.readsPath || p.Reads("request.path")
	return p
}

// choice checks a word against a list whose first is the default.
func (c *compiler) choice(path, value string, words ...string) string {
	if value == "" {
		return words[0]
	}
	if !slices.Contains(words, value) {
		c.fault(path, "write "+strings.Join(words, " or "), "%q is not known", value)
	}
	return value
}

func (c *compiler) limit(name string, in *v1alpha1.RateLimit, owner string) *limit {
	if !isName(name) {
		c.fault("", "write lower-case letters, digits and - in names", "%q is not a name", name)
	}
	if err := policy.CheckMode(diag.Join(c.at, "mode"), in.Mode); err != nil {
		c.faults = append(c.faults, err)
	}
	l := &limit{name: name, seed: limiter.SeedOf(owner, name), shadow: in.Mode == policy.Shadow}
	l.when = c.expression("when", in.When, expression.Options{Kind: expression.Bool})
	if len(in.Key) > maxParts {
		c.fault("key", "put some together with +", "has more than %d parts", maxParts)
	}
	for i, k := range in.Key {
		l.key = append(l.key, c.expression(fmt.Sprintf("key[%d]", i), k, expression.Options{Kind: expression.String}))
		if k == "" {
			c.fault(fmt.Sprintf("key[%d]", i), "write client.address, identity.application or another expression", "is empty")
		}
	}
	l.cost = c.expression("cost", in.Cost, expression.Options{Kind: expression.Int})
	identity := c.identity
	l.responseCost = c.expression("responseCost", in.ResponseCost, expression.Options{Kind: expression.Int, Response: true})
	l.failures = c.choice("count", in.Count, "Requests", "AuthenticationFailures") == "AuthenticationFailures"
	l.phase = policy.LimitEarly
	if identity {
		l.phase = policy.Limit
	}
	if l.failures {
		c.failures(in, identity)
	}
	shared := c.choice("scope", in.Scope, "Local", "Shared") == "Shared"
	strict := c.choice("consistency", in.Consistency, "Leased", "Strict") == "Strict"
	failure := c.choice("onStoreFailure", in.OnStoreFailure, "Local", "Allow", "Deny")
	if !shared && (in.Consistency != "" || in.OnStoreFailure != "") {
		c.fault("scope", "write scope: Shared, or leave consistency and onStoreFailure out", "is Local: no store is asked")
	}
	counted := limiter.Limit{Shared: shared, Strict: strict && shared, OnFailure: failureOf(failure), Rates: c.rates(in), Quota: c.quota(in)}
	if len(counted.Rates) > 0 || counted.Quota != nil {
		l.counted = &counted
	}
	if n := in.Concurrency; n != nil {
		if *n < 1 {
			c.fault("concurrency", "", "%d is below 1", *n)
		}
		l.flying = &limiter.Limit{Concurrency: *n}
	}
	if l.counted == nil && l.flying == nil && in.Mode != policy.Disabled {
		c.fault("", "write at least one of rates, quota and concurrency", "limits nothing")
	}
	l.strict = strict && shared && l.counted != nil
	l.tell(&counted, in.Quota)
	return l
}

// failures checks a limit that counts wrong credentials.
func (c *compiler) failures(in *v1alpha1.RateLimit, identity bool) {
	if identity {
		c.fault("count", "use client.address or another part of the request as key", "AuthenticationFailures has no identity to read: nobody is known")
	}
	if in.Concurrency != nil {
		c.fault("concurrency", "", "does not go with count AuthenticationFailures")
	}
	if in.ResponseCost != "" {
		c.fault("responseCost", "", "does not go with count AuthenticationFailures")
	}
}

func (c *compiler) rates(in *v1alpha1.RateLimit) []limiter.Rate {
	var out []limiter.Rate
	for i, r := range in.Rates {
		at := fmt.Sprintf("rates[%d]", i)
		d, err := policy.ParseDuration(string(r.Period))
		switch {
		case err != nil:
			c.fault(at+".period", policy.DurationHint, "%v", err)
			continue
		case d < time.Millisecond:
			c.fault(at+".period", "write 1s, 1m or 1h", "%q is below a millisecond", r.Period)
			continue
		case r.Limit < 1:
			c.fault(at+".limit", "", "%d is below 1", r.Limit)
			continue
		}
		rate := limiter.Rate{Limit: r.Limit, Period: d}
		if r.Burst != nil {
			if rate.Burst = *r.Burst; rate.Burst < 1 {
				c.fault(at+".burst", "", "%d is below 1", rate.Burst)
			}
		}
		out = append(out, rate)
	}
	return out
}

func (c *compiler) quota(in *v1alpha1.RateLimit) *limiter.Quota {
	q := in.Quota
	if q == nil {
		return nil
	}
	if q.Limit < 1 {
		c.fault("quota.limit", "", "%d is below 1", q.Limit)
	}
	window, _, ok := windowOf(q.Window)
	out := &limiter.Quota{Limit: q.Limit, Window: window}
	if !ok {
		c.fault("quota.window", "write Minute, Hour, Day, Week, Month or Year", "%q is not a window", q.Window)
	}
	if q.TimeZone != "" {
		zone, err := time.LoadLocation(q.TimeZone)
		if err != nil || q.TimeZone == "Local" {
			c.fault("quota.timeZone", "write UTC or Europe/Berlin", "%q is not a time zone", q.TimeZone)
		}
		out.Zone = zone
	}
	return out
}

func failureOf(word string) limiter.Failure {
	switch word {
	case "Allow":
		return limiter.Allow
	case "Deny":
		return limiter.Deny
	}
	return limiter.Local
}

// windowOf is the window of a word, and its length in seconds, 0 where windows differ.
func windowOf(word string) (w limiter.Window, seconds int64, ok bool) {
	switch word {
	case "Minute":
		return limiter.Minute, 60, true
	case "Hour":
		return limiter.Hour, 3600, true
	case "Day":
		return limiter.Day, 86400, true
	case "Week":
		return limiter.Week, 7 * 86400, true
	case "Month":
		return limiter.Month, 0, true
	case "Year":
		return limiter.Year, 0, true
	}
	return 0, 0, false
}

// isName reports whether a limit's name can stand in a header field as it is.
func isName(s string) bool {
	if s == "" || len(s) > 63 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' && i > 0 && i < len(s)-1) {
			return false
		}
	}
	return true
}

// tell makes what clients are told of the limit and its parts (draft-ietf-httpapi-ratelimit-headers section 3): the quota policy of each
// rate and of the quota, each under a name of its own, which stands in both fields.
func (l *limit) tell(c *limiter.Limit, q *v1alpha1.RateQuota) {
	item := func(part string, alone bool, quota, window int64) told {
		name := l.name
		if !alone {
			name += "-" + part
		}
		t := told{name: `"` + name + `"`}
		t.policy = t.name + ";q=" + strconv.FormatInt(min(quota, maxInteger), 10)
		if window > 0 {
			t.policy += ";w=" + strconv.FormatInt(window, 10)
		}
		return t
	}
	for i, r := range c.Rates {
		l.rates = append(l.rates, item(strconv.Itoa(i+1), len(c.Rates) == 1, r.Limit, int64((r.Period+time.Second-1)/time.Second)))
	}
	if q != nil {
		_, seconds, _ := windowOf(q.Window)
		l.quota = item("quota", len(c.Rates) == 0, q.Limit, seconds)
	}
}

// maxInteger is the largest integer of a structured field (RFC 9651 section 3.3.1).
const maxInteger = 999_999_999_999_999

// told is how a part of a limit is named to clients.
type told struct{ name, policy string }

func (s *Spec) facts() []fact.Fact {
	var out []fact.Fact
	for _, name := range slices.Sorted(maps.Keys(s.limits)) {
		l := s.limits[name]
		if l.Mode == policy.Disabled {
			continue
		}
		key := strings.Join(l.Key, ", ")
		for _, r := range l.Rates {
			out = append(out, fact.Fact{Effect: "limits", Object: "rate by " + key, Value: fmt.Sprintf("%d per %s", r.Limit, r.Period)})
		}
		if l.Quota != nil {
			out = append(out, fact.Fact{Effect: "limits", Object: "quota by " + key, Value: fmt.Sprintf("%d per %s", l.Quota.Limit, l.Quota.Window)})
		}
		if l.Concurrency != nil {
			out = append(out, fact.Fact{Effect: "limits", Object: "concurrency by " + key, Value: strconv.FormatInt(*l.Concurrency, 10)})
		}
	}
	return out
}
