package limit

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/expression"
	"github.com/gatehouse-io/gatehouse/internal/limiter"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// limit is one compiled limit.
type limit struct {
	name                     string
	from                     string       // the policy that wrote it, for an explanation; "" where there is only one
	seed                     limiter.Seed // of the policy and the limit's name: what was counted outlives every other change
	phase                    policy.Phase
	when, cost, responseCost *expression.Program
	key                      []*expression.Program
	counted                  *limiter.Limit // rates and quota; nil: none
	flying                   *limiter.Limit // concurrency; nil: none
	shadow, failures, strict bool
	rates                    []told
	quota                    told
}

// rules are the limits of one phase, the enforced ones first.
type rules struct {
	name    string // of the step
	limiter policy.Limiter
	limits  []*limit
	shadows []*limit
	strict  bool // one of limits asks the store each time
	states  sync.Pool
}

func (r *rules) add(l *limit) {
	if l.shadow {
		r.shadows = append(r.shadows, l)
		return
	}
	r.limits = append(r.limits, l)
	r.strict = r.strict || l.strict
}

// state is what one exchange took.
type state struct {
	asks    []limiter.Ask
	answers []limiter.Answer
	of      []*limit      // of each ask
	taken   bool          // asks are counted
	charged bool          // the answer is paid for
	watched []limiter.Ask // what limits in shadow mode counted
	later   []asked       // what is charged once the answer is there
	key     []byte
}

type asked struct {
	limit *limit
	ask   limiter.Ask
}

// reset keeps the room.
func (s *state) reset() {
	clear(s.of)
	clear(s.later)
	*s = state{asks: s.asks[:0], answers: s.answers[:0], of: s.of[:0], watched: s.watched[:0], later: s.later[:0], key: s.key[:0]}
}

// Reason words of refusals.
const (
	rateLimited = "rate_limited"
	quotaUsed   = "quota_exceeded"
	tooMany     = "concurrency_exceeded"
	storeAway   = "limit_store_unavailable"
)

// byLimit reports whether an exchange was refused by a limit: what the others counted is given back then.
func byLimit(reason string) bool {
	return reason == rateLimited || reason == quotaUsed || reason == tooMany || reason == storeAway
}

// request asks the limits that the request is for.
func (r *rules) request(x *exchange.Exchange) policy.Verdict {
	s := r.states.Get().(*state)
	x.Local().V = s
	for _, l := range r.limits {
		r.ask(s, l, x, false)
	}
	if x.Dry || r.limiter == nil {
		return r.dry(s, x)
	}
	r.look(s, x)
	if len(s.asks) == 0 {
		s.taken = true // what limits in shadow mode charge for the response
		return policy.Verdict{}
	}
	s.answers = append(s.answers[:0], make([]limiter.Answer, len(s.asks))...)
	if r.strict && s.strictly() {
		return r.wait(s, x)
	}
	if r.limiter.Decide(x.Start, s.asks, s.answers) {
		s.taken = true
		r.passed(s, x)
		return policy.Verdict{}
	}
	return refusal(s, x)
}

// ask adds the questions to one limit, if the request is for it.
func (r *rules) ask(s *state, l *limit, x *exchange.Exchange, peek bool) {
	if l.when != nil {
		if on, err := l.when.Bool(x); err == nil && !on {
			return
		}
	}
	a := limiter.Ask{Key: r.keyOf(s, l, x), Cost: 1, Peek: peek || l.failures || x.Dry}
	if l.cost != nil {
		if n, err := l.cost.Int(x); err == nil {
			a.Cost = max(n, 0)
		}
	}
	if l.failures || l.responseCost != nil {
		later := a
		later.Limit, later.Peek = l.counted, false
		s.later = append(s.later, asked{l, later})
	}
	if l.counted != nil {
		a.Limit = l.counted
		s.asks, s.of = append(s.asks, a), append(s.of, l)
	}
	if l.flying != nil {
		a.Limit = l.flying
		s.asks, s.of = append(s.asks, a), append(s.of, l)
	}
}

// maxParts is how many expressions a key has at most.
const maxParts = 8

// keyOf is the key of a request. The client's address stands in it as its network: who has a /64 has all its addresses.
func (r *rules) keyOf(s *state, l *limit, x *exchange.Exchange) limiter.Key {
	if len(l.key) == 0 {
		return limiter.KeyOf(l.seed)
	}
	client := x.Client
	if a := client.Addr(); a.Is6() && !a.Is4In6() {
		if p, err := a.WithZone("").Prefix(64); err == nil {
			x.Client = netip.AddrPortFrom(p.Addr(), client.Port())
		}
	}
	var parts [maxParts][]byte
	room := s.key[:0]
	for i, p := range l.key {
		n := len(room)
		room, _ = p.Append(room, x) // what cannot be evaluated counts as ""
		parts[i] = room[n:]
	}
	x.Client = client
	s.key = room
	// Appending may have moved the room: the parts are taken from where it lies now.
	n := 0
	for i := range l.key {
		end := n + len(parts[i])
		parts[i] = room[n:end]
		n = end
	}
	return limiter.KeyOf(l.seed, parts[:len(l.key)]...)
}

// look asks the limits in shadow mode, each for itself, and notes those that would refuse. They count, and hold places in flight, as if they
// were enforced.
func (r *rules) look(s *state, x *exchange.Exchange) {
	for _, l := range r.shadows {
		n, m := len(s.asks), len(s.later)
		r.ask(s, l, x, false)
		asks := s.asks[n:]
		s.asks, s.of = s.asks[:n], s.of[:n]
		if len(asks) == 0 {
			continue
		}
		s.answers = append(s.answers[:0], make([]limiter.Answer, len(asks))...)
		if r.limiter.Decide(x.Start, asks, s.answers) {
			s.watched = append(s.watched, asks...)
			continue
		}
		s.later = s.later[:m] // a request that is refused costs nothing more
		v := exchange.Shadowed{Step: r.name, Reason: reasonOf(&s.answers[worst(s.answers)]), Status: 429}
		if v.Reason == storeAway {
			v.Status = 503
		}
		x.Shadow = append(x.Shadow, v)
	}
}

// strictly reports whether one of the questions goes to the store.
func (s *state) strictly() bool {
	for _, l := range s.of {
		if l.strict {
			return true
		}
	}
	return false
}

// wait asks the store. What is asked of this process is asked first, so that a place in flight is held by the exchange, whatever becomes
// of the wait; the questions to the store are copied, because the exchange may end meanwhile.
func (r *rules) wait(s *state, x *exchange.Exchange) policy.Verdict {
	var here, there []int
	for i := range s.asks {
		if s.of[i].strict && s.asks[i].Limit == s.of[i].counted {
			there = append(there, i)
		} else {
			here = append(here, i)
		}
	}
	pick := func(is []int) (asks []limiter.Ask, of []*limit) {
		for _, i := range is {
			asks, of = append(asks, s.asks[i]), append(of, s.of[i])
		}
		return asks, of
	}
	asks, of := pick(there)
	s.asks, s.of = pick(here)
	s.answers = make([]limiter.Answer, len(s.asks))
	if len(s.asks) > 0 {
		if !r.limiter.Decide(x.Start, s.asks, s.answers) {
			return refusal(s, x)
		}
		s.taken = true
	}
	start := x.Start
	return policy.Verdict{Wait: func(ctx context.Context) func(*exchange.Exchange) policy.Verdict {
		answers := make([]limiter.Answer, len(asks))
		ok := r.limiter.DecideStrict(ctx, start, asks, answers)
		return func(x *exchange.Exchange) policy.Verdict {
			if !ok {
				asked := state{asks: asks, answers: answers, of: of}
				return refusal(&asked, x)
			}
			s.asks, s.answers, s.of = append(s.asks, asks...), append(s.answers, answers...), append(s.of, of...)
			s.taken = true
			r.passed(s, x)
			return policy.Verdict{}
		}
	}}
}

// passed remembers the strictest limit that counts requests, for the client. One that lets everything pass, as its store is away, has nothing to tell.
func (r *rules) passed(s *state, x *exchange.Exchange) {
	for i := range s.answers {
		a := &s.answers[i]
		t := s.of[i].part(a)
		if s.of[i].failures || // it took nothing of this request, and who passes need not know of it
			t.name == "" || a.Remaining == math.MaxInt64 || x.Limit.Name != "" && a.Remaining >= x.Limit.Remaining {
			continue
		}
		x.Limit = exchange.Limit{Name: t.name, Policy: t.policy, Remaining: a.Remaining, Reset: a.Reset}
	}
}

// part is how the part of a limit that an answer is about is named to clients; concurrency has no name.
func (l *limit) part(a *limiter.Answer) told {
	switch {
	case a.Rate >= 0 && a.Rate < len(l.rates):
		return l.rates[a.Rate]
	case a.Rate == limiter.ByQuota:
		return l.quota
	}
	return told{}
}

func reasonOf(a *limiter.Answer) string {
	switch a.Rate {
	case limiter.ByQuota:
		return quotaUsed
	case limiter.ByConcurrency:
		return tooMany
	case limiter.ByStore:
		return storeAway
	}
	return rateLimited
}

// quotaExceeded is the problem type of the draft's section on problem types.
const quotaExceeded = "https://iana.org/assignments/http-problem-types#quota-exceeded"

// worst is the index of the refusal that lasts longest: one without RetryAfter lasts for ever.
func worst(answers []limiter.Answer) int {
	at := -1
	for i := range answers {
		if a := &answers[i]; !a.Allowed && (at < 0 || answers[at].RetryAfter > 0 && (a.RetryAfter == 0 || a.RetryAfter > answers[at].RetryAfter)) {
			at = i
		}
	}
	return max(at, 0)
}

// refusal is the answer for the refusal that lasts longest.
func refusal(s *state, x *exchange.Exchange) policy.Verdict {
	at := worst(s.answers)
	var violated []byte
	for i := range s.answers {
		if s.answers[i].Allowed {
			continue
		}
		name := s.of[i].part(&s.answers[i]).name
		if name == "" {
			name = `"` + s.of[i].name + `"`
		}
		if violated != nil {
			violated = append(violated, ',')
		}
		violated = append(violated, name...)
	}
	a, l := &s.answers[at], s.of[at]
	v := policy.Verdict{Status: 429, Reason: reasonOf(a), Detail: "limit " + l.name}
	if a.Rate == limiter.ByStore {
		v.Status = 503
	} else {
		v.Type, v.Members = quotaExceeded, append(append([]byte(`"violated-policies":[`), violated...), ']')
	}
	if a.RetryAfter > 0 {
		v.Header = []exchange.Field{{Name: nameRetryAfter, Value: strconv.AppendInt(nil, ceil(a.RetryAfter), 10)}}
	}
	if t := l.part(a); t.name != "" {
		x.Limit = exchange.Limit{Name: t.name, Policy: t.policy, Remaining: 0, Reset: max(a.Reset, a.RetryAfter)}
	}
	return v
}

// ceil is a duration in whole seconds, rounded up.
func ceil(d time.Duration) int64 { return int64(math.Ceil(d.Seconds())) }

var (
	nameRetryAfter = []byte("Retry-After")
	nameLimit      = []byte("RateLimit")
	namePolicy     = []byte("RateLimit-Policy")
)

// response tells the client about the strictest limit, and charges what the answer costs: nothing if a limit refused the request. It runs
// again when a step refuses a response that was already on its way.
func (r *rules) response(x *exchange.Exchange) policy.Verdict {
	if s, ok := x.Local().V.(*state); ok && r.limiter != nil && !x.Dry && !s.charged && !byLimit(x.Reason) {
		s.charged = true
		for _, a := range s.later {
			if !a.limit.failures && (s.taken || a.limit.shadow) {
				r.charge(x, a)
			}
		}
	}
	if x.Limit.Name == "" || x.Limit.Told && x.Response.Header.Has("RateLimit") {
		return policy.Verdict{}
	}
	x.Limit.Told = true
	var room [96]byte
	b := append(append(room[:0], x.Limit.Name...), ";r="...)
	b = append(strconv.AppendInt(b, min(x.Limit.Remaining, maxInteger), 10), ";t="...)
	b = strconv.AppendInt(b, ceil(x.Limit.Reset), 10)
	value, _ := x.Keep(b)
	x.Response.Header.Set(nameLimit, value)
	b = append(room[:0], x.Limit.Policy...)
	value, _ = x.Keep(b)
	x.Response.Header.Set(namePolicy, value)
	return policy.Verdict{}
}

// charge counts what a response costs beside its request.
func (r *rules) charge(x *exchange.Exchange, a asked) {
	if n, err := a.limit.responseCost.Int(x); err == nil && n > 0 {
		a.ask.Cost = n
		r.limiter.Charge(x.Start, a.ask)
	}
}

// done gives back places in flight, and everything if another limit refused; it counts a wrong credential.
func (r *rules) done(x *exchange.Exchange) {
	s, ok := x.Local().V.(*state)
	if !ok {
		return
	}
	x.Local().V = nil
	refused := byLimit(x.Reason)
	for _, a := range s.watched {
		switch {
		case a.Peek:
		case a.Limit.Concurrency > 0:
			r.limiter.Release(a)
		case refused:
			r.limiter.Refund(x.Start, a)
		}
	}
	if s.taken {
		for _, a := range s.asks {
			switch {
			case a.Peek:
			case a.Limit.Concurrency > 0:
				r.limiter.Release(a)
			case refused:
				r.limiter.Refund(x.Start, a)
			}
		}
	}
	if x.AuthFailed && r.limiter != nil && !x.Dry {
		for _, a := range s.later {
			if a.limit.failures {
				r.limiter.Charge(x.Start, a.ask)
			}
		}
	}
	s.reset()
	r.states.Put(s)
}

// dry says what would be asked. Nothing is counted: where there is a limiter it is only looked at.
func (r *rules) dry(s *state, x *exchange.Exchange) policy.Verdict {
	var out []string
	for _, l := range r.shadows {
		r.ask(s, l, x, true)
	}
	for i, a := range s.asks {
		l := s.of[i]
		text := l.name + l.from + " applies"
		if l.shadow {
			text += " (shadow)"
		}
		if r.limiter != nil {
			var answer [1]limiter.Answer
			if r.limiter.Decide(x.Start, []limiter.Ask{a}, answer[:]) {
				text += fmt.Sprintf(", %d left", answer[0].Remaining)
			} else {
				text += ", would refuse: " + reasonOf(&answer[0])
			}
		}
		out = append(out, text)
	}
	if len(out) == 0 {
		out = append(out, "no limit is for this request")
	}
	return policy.Verdict{Detail: strings.Join(out, "; ")}
}
