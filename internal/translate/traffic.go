package translate

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// traffic is one BackendTrafficPolicy at one target.
type traffic struct {
	Policy  diag.Ref
	Traffic *ir.Traffic // nil: the policy is invalid
}

// defaultConditions are those that a request is tried again on where only codes or attempts are written.
var defaultConditions = []string{ir.ConnectFailure, ir.Reset}

// defaultAttempts beside the first.
const defaultAttempts = 2

// trafficOf turns a BackendTrafficPolicy into the IR's terms. With a fault, nothing of it is applied.
func trafficOf(o *v1alpha1.BackendTrafficPolicy) (*ir.Traffic, []diag.Fault) {
	ref := refOf("BackendTrafficPolicy", o.Namespace, o.Name)
	v := newVerdict(ref, o)
	t := &ir.Traffic{Source: sourceOf(ref, "spec")}
	if l := o.Spec.LoadBalancer; l != nil {
		t.Balancer = v.balancer(l)
	}
	if a := o.Spec.Affinity; a != nil && a.Cookie != nil {
		t.Affinity = &ir.Affinity{Cookie: a.Cookie.Name, MaxAge: v.seconds("spec.affinity.cookie.maxAge", a.Cookie.MaxAge), Source: sourceOf(ref, "spec.affinity")}
	}
	if s := o.Spec.Timeouts; s != nil {
		t.Connect = v.duration("spec.timeouts.connect", s.Connect)
		t.First = v.duration("spec.timeouts.firstByte", s.FirstByte)
		t.Total = v.duration("spec.timeouts.total", s.Total)
	}
	if r := o.Spec.Retry; r != nil {
		t.Retry = v.retry(r)
	}
	if c := o.Spec.RetryConstraint; c != nil {
		t.Budget = v.budget(c)
	}
	if b := o.Spec.CircuitBreaker; b != nil {
		t.Breaker = &ir.Breaker{MaxConnections: v.count("spec.circuitBreaker.maxConnections", b.MaxConnections),
			MaxRequests: v.count("spec.circuitBreaker.maxRequests", b.MaxRequests)}
	}
	if h := o.Spec.Health; h != nil {
		v.health(t, h)
	}
	v.annotations(o)
	var faults []diag.Fault
	for _, f := range v.Faults {
		if f.Severity == diag.Error {
			faults = append(faults, f)
		}
	}
	return t, faults
}

func (v verdict) balancer(l *v1alpha1.LoadBalancer) *ir.Balancer {
	const path = "spec.loadBalancer"
	out := &ir.Balancer{Algorithm: v.enum(path+".algorithm", l.Algorithm, ir.RoundRobin, ir.LeastRequest, ir.ConsistentHash)}
	if d := v.duration(path+".slowStart", l.SlowStart); d != nil {
		out.SlowStart = *d
	}
	h := l.ConsistentHash
	if (out.Algorithm == ir.ConsistentHash) != (h != nil) {
		v.fault(path+".consistentHash", invalid, "", "goes with algorithm ConsistentHash, and only with it")
	}
	if h == nil {
		return out
	}
	out.Hash = &ir.Hash{By: v.enum(path+".consistentHash.type", h.Type, ir.HashHeader, ir.HashCookie, ir.HashAddress), Name: h.Name}
	if (h.Type != ir.HashAddress) != (h.Name != "") {
		v.fault(path+".consistentHash.name", invalid, "", "goes with types Header and Cookie, and only with them")
	}
	if n := h.MaxLoadPercent; n != nil {
		if out.Hash.Load = int(*n); out.Hash.Load <= 100 {
			v.fault(path+".consistentHash.maxLoadPercent", invalid, "write 125", "%d is not above 100: an endpoint must be able to have its share", *n)
		}
	}
	return out
}

func (v verdict) retry(r *v1alpha1.Retry) *ir.Retry {
	const path = "spec.retry"
	out := &ir.Retry{Attempts: defaultAttempts, Conditions: r.Conditions, Source: sourceOf(v.Ref, path), PerTry: v.duration(path+".perTryTimeout", r.PerTryTimeout)}
	if r.Conditions == nil {
		out.Conditions = defaultConditions
	}
	for i, c := range r.Conditions {
		v.enum(fmt.Sprintf("%s.conditions[%d]", path, i), c, ir.ConnectFailure, ir.Reset, ir.FirstByte)
	}
	if r.Attempts != nil {
		out.Attempts = v.between(path+".attempts", *r.Attempts, 0, 10)
	}
	out.Codes = v.statuses(path+".codes", r.Codes, 400)
	if d := v.duration(path+".backoff", r.Backoff); d != nil {
		out.Backoff = *d
	}
	return out
}

func (v verdict) budget(c *v1alpha1.RetryConstraint) *ir.Budget {
	const path = "spec.retryConstraint"
	out := &ir.Budget{Percent: 20, Interval: ir.Duration(10 * time.Second), MinCount: 10, MinInterval: ir.Duration(time.Second)}
	interval := func(path string, d *gatewayv1.Duration, to *ir.Duration) {
		n := v.duration(path, d)
		if n == nil {
			return
		}
		if *to = *n; time.Duration(*n) < time.Second || time.Duration(*n) > time.Hour {
			v.fault(path, invalid, "write 10s", "%s is not between 1s and 1h", *d)
		}
	}
	if b := c.Budget; b != nil {
		if b.Percent != nil {
			out.Percent = v.between(path+".budget.percent", *b.Percent, 0, 100)
		}
		interval(path+".budget.interval", b.Interval, &out.Interval)
	}
	if m := c.MinRetryRate; m != nil {
		if m.Count != nil {
			out.MinCount = v.between(path+".minRetryRate.count", *m.Count, 0, 1_000_000)
		}
		interval(path+".minRetryRate.interval", m.Interval, &out.MinInterval)
	}
	return out
}

func (v verdict) health(t *ir.Traffic, h *v1alpha1.Health) {
	const path = "spec.health"
	if a := h.Active; a != nil {
		out := &ir.Active{Path: a.Path, Host: a.Host, Interval: ir.Duration(5 * time.Second), Timeout: ir.Duration(time.Second), Healthy: 2, Unhealthy: 3}
		v.positive(path+".active.interval", a.Interval, 100*time.Millisecond, &out.Interval)
		v.positive(path+".active.timeout", a.Timeout, time.Millisecond, &out.Timeout)
		if a.HealthyThreshold != nil {
			out.Healthy = v.between(path+".active.healthyThreshold", *a.HealthyThreshold, 1, 100)
		}
		if a.UnhealthyThreshold != nil {
			out.Unhealthy = v.between(path+".active.unhealthyThreshold", *a.UnhealthyThreshold, 1, 100)
		}
		out.Statuses = v.statuses(path+".active.statuses", a.Statuses, 200)
		if !wellFormedPath(a.Path) {
			v.fault(path+".active.path", invalid, "write /healthz", "%q is not a path", a.Path)
		}
		if !wellFormedHost(a.Host) {
			v.fault(path+".active.host", invalid, "write shop.example", "%q is not a host", a.Host)
		}
		t.Active = out
	}
	if p := h.Passive; p != nil {
		out := &ir.Passive{Failures: 5, Codes: []int{500, 502, 503, 504}, EjectFor: ir.Duration(30 * time.Second), MaxOut: 50}
		if p.ConsecutiveFailures != nil {
			out.Failures = v.between(path+".passive.consecutiveFailures", *p.ConsecutiveFailures, 0, 10_000)
		}
		if p.Codes != nil {
			out.Codes = v.statuses(path+".passive.codes", p.Codes, 500)
		}
		v.positive(path+".passive.ejectFor", p.EjectFor, time.Second, &out.EjectFor)
		if p.MaxEjectedPercent != nil {
			out.MaxOut = v.between(path+".passive.maxEjectedPercent", *p.MaxEjectedPercent, 0, 100)
		}
		t.Passive = out
	}
}

// wellFormedPath and wellFormedHost keep what would break a request's head out of one.
func wellFormedPath(s string) bool {
	return len(s) > 0 && s[0] == '/' && !slices.ContainsFunc([]byte(s), func(c byte) bool { return c <= ' ' || c >= 0x7f })
}

func wellFormedHost(s string) bool {
	return !slices.ContainsFunc([]byte(s), func(c byte) bool { return c <= ' ' || c >= 0x7f || c == '/' || c == '@' || c == '?' || c == '#' })
}

func (v verdict) between(path string, n int32, least, most int32) int {
	if n < least || n > most {
		v.fault(path, invalid, "", "%d is not between %d and %d", n, least, most)
	}
	return int(n)
}

func (v verdict) statuses(path string, in []int32, least int32) (out []int) {
	for i, n := range in {
		out = append(out, v.between(fmt.Sprintf("%s[%d]", path, i), n, least, 599))
	}
	return out
}

// positive reads a duration of at least least.
func (v verdict) positive(path string, d *gatewayv1.Duration, least time.Duration, to *ir.Duration) {
	n := v.duration(path, d)
	if n == nil {
		return
	}
	if *to = *n; time.Duration(*n) < least {
		v.fault(path, invalid, "", "%s is shorter than %s", *d, least)
	}
}

// seconds reads a duration that is told in whole seconds.
func (v verdict) seconds(path string, d *gatewayv1.Duration) ir.Duration {
	n := v.duration(path, d)
	if n == nil {
		return 0
	}
	if time.Duration(*n) < time.Second {
		v.fault(path, invalid, "write 1h", "%s is shorter than a second", *d)
	}
	return *n
}

// clusterTraffic is what a policy of the Service or Backend says about a cluster; one for the port, by its name, beats one for the whole.
func (p *pass) clusterTraffic(ref diag.Ref, key, port string) *ir.Traffic {
	t := hear[*target](p, topic{kind: targetTopic, name: targetNameOf(ref)})
	if t == nil {
		return nil
	}
	x := cmp.Or(t.Traffic[port], t.Traffic[""])
	if x == nil {
		return nil
	}
	out := x.Traffic
	if out == nil || out.Affinity == nil || out.Affinity.Cookie != "" {
		return out
	}
	named := *out
	named.Affinity = nameCookie(out.Affinity, key)
	return &named
}

// nameCookie gives an affinity that has no name one of its own: two that shared a name would undo each other's.
func nameCookie(a *ir.Affinity, key string) *ir.Affinity {
	out := *a
	sum := sha256.Sum256([]byte(key))
	out.Cookie = "gh_" + hex.EncodeToString(sum[:4])
	return &out
}

// routeTraffic lists the policies of a route and of one of its rules, the nearest first.
func (p *pass) routeTraffic(route diag.Ref, rule string) (out []*ir.Traffic) {
	t := hear[*target](p, topic{kind: targetTopic, name: targetNameOf(route)})
	if t == nil {
		return nil
	}
	sections := []string{rule, ""}
	if rule == "" {
		sections = sections[1:]
	}
	for _, s := range sections {
		if x := t.Traffic[s]; x != nil && x.Traffic != nil {
			out = append(out, x.Traffic)
		}
	}
	return out
}

// routed is what of a route's own words and of its policies decides about its requests.
type routed struct {
	timeouts ir.Timeouts
	retry    *ir.Retry
	affinity *ir.Affinity
}

// lay fills what the route itself leaves open, field by field, the nearest policy first. What is left open then is the Service's to say.
func (r *routed) lay(policies []*ir.Traffic, key string) {
	first := func(to **ir.Duration, from *ir.Duration) {
		if *to == nil {
			*to = from
		}
	}
	for _, t := range policies {
		first(&r.timeouts.Request, t.Total)
		first(&r.timeouts.Connect, t.Connect)
		first(&r.timeouts.First, t.First)
		if r.retry == nil {
			r.retry = t.Retry
		}
		if r.affinity == nil && t.Affinity != nil {
			if r.affinity = t.Affinity; r.affinity.Cookie == "" {
				r.affinity = nameCookie(r.affinity, key)
			}
		}
	}
}

// onlyService lists the fields that have no effect where a policy is attached to a route.
func onlyService(o *v1alpha1.BackendTrafficPolicy) (fields []string) {
	s := &o.Spec
	for _, f := range []struct {
		name string
		set  bool
	}{{"loadBalancer", s.LoadBalancer != nil}, {"retryConstraint", s.RetryConstraint != nil}, {"circuitBreaker", s.CircuitBreaker != nil}, {"health", s.Health != nil}} {
		if f.set {
			fields = append(fields, f.name)
		}
	}
	return fields
}

// traffic lays what policies say under a rule's own words.
func (r *routePass) traffic(rule int) {
	rl := &r.rules[rule]
	x := routed{rl.timeouts, rl.retry, rl.affinity}
	x.lay(r.routeTraffic(r.Ref, rl.name), keyOf(r.Ref, fmt.Sprint(rule)))
	rl.timeouts, rl.retry, rl.affinity = x.timeouts, x.retry, x.affinity
}

// retry reads a rule's retry (GEP-1731). Connection errors and time limits are tried again as well as the codes.
func (r *routePass) retry(rule int, path string, in *gatewayv1.HTTPRouteRetry) {
	if in == nil {
		return
	}
	out := &ir.Retry{Attempts: defaultAttempts, Conditions: []string{ir.ConnectFailure, ir.Reset, ir.FirstByte}, Source: sourceOf(r.Ref, path)}
	for i, c := range in.Codes {
		if c < 400 || c > 599 {
			r.drop(rule, fmt.Sprintf("%s.codes[%d]", path, i), unsupportedValue, "", "%d is not between 400 and 599", c)
		}
		out.Codes = append(out.Codes, int(c))
	}
	if in.Attempts != nil {
		if out.Attempts = *in.Attempts; out.Attempts < 1 {
			r.drop(rule, path+".attempts", unsupportedValue, "write 1 or more", "%d is not a number of attempts", out.Attempts)
		}
	}
	if d := r.ruleDuration(rule, path+".backoff", in.Backoff); d != nil {
		out.Backoff = *d
	}
	r.rules[rule].retry = out
}

// sessionPersistence reads a rule's sessionPersistence (GEP-1619).
func (r *routePass) sessionPersistence(rule int, path string, in *gatewayv1.SessionPersistence) {
	if in == nil {
		return
	}
	out := &ir.Affinity{Source: sourceOf(r.Ref, path)}
	name := ""
	if in.SessionName != nil {
		name = *in.SessionName
		if name == "" || !isToken(name) {
			r.drop(rule, path+".sessionName", unsupportedValue, "letters, digits, - and _ will do", "%q cannot be the name of a cookie or header", name)
			return
		}
	}
	if d := r.ruleDuration(rule, path+".absoluteTimeout", in.AbsoluteTimeout); d != nil {
		out.Absolute = *d
	}
	permanent := in.CookieConfig != nil && in.CookieConfig.LifetimeType != nil && *in.CookieConfig.LifetimeType == gatewayv1.PermanentCookieLifetimeType
	switch {
	case in.Type != nil && *in.Type == gatewayv1.HeaderBasedSessionPersistence:
		if out.Header = name; name == "" {
			out.Header = "Gatehouse-Session"
		}
		if hint, owned, _ := policy.OwnedField(name); owned {
			r.drop(rule, path+".sessionName", unsupportedValue, "write X-Session, or a name of your own", "%q cannot tell a session: %s", name, hint)
			return
		}
		if in.CookieConfig != nil {
			r.warn(path+".cookieConfig", "", "", "has no effect with type Header")
		}
	case permanent && out.Absolute == 0:
		r.drop(rule, path+".absoluteTimeout", unsupportedValue, "write 1h", "is missing: a Permanent cookie needs it")
		return
	default:
		if permanent {
			out.MaxAge = out.Absolute
		}
		if out.Cookie = name; name == "" {
			out = nameCookie(out, keyOf(r.Ref, fmt.Sprint(rule)))
		}
	}
	r.rules[rule].affinity = out
}

// isToken says whether s is a token (RFC 9110 section 5.6.2), as names of headers and cookies are.
func isToken(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', slices.Contains([]byte("!#$%&'*+-.^_`|~"), c):
		default:
			return false
		}
	}
	return true
}
