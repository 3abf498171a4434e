package upstream

import (
	"crypto/tls"
	"slices"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/cert"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// Settings are what a cluster's configuration says, defaults filled in. They are swapped whole; the endpoints stay.
type Settings struct {
	Config    *ir.Cluster
	TLS       *tls.Config // nil: cleartext
	Problem   string      // why the cluster cannot be used ("CA bundle ... is missing"): its requests are answered 503
	Connect   time.Duration
	FirstByte time.Duration // 0: none
	Total     time.Duration // of an exchange whose route says nothing of it, 0: none
	Retry     *ir.Retry
	Affinity  *ir.Affinity // nil: none
	Hash      *ir.Hash     // nil: another balancer
	Active    *Checks      // nil: none

	least     bool
	slowStart time.Duration
	budget    ir.Budget
	breaker   ir.Breaker
	passive   ir.Passive
}

// The defaults of a cluster that no policy speaks of. A failed request is tried on other endpoints twice, if that is safe. An
// endpoint that fails again and again before it answers (its node is gone, and the cluster has not noticed yet) is left out for a
// while, so that not every request waits for it in vain; statuses count only where a policy says so.
func defaultRetry() *ir.Retry {
	return &ir.Retry{Attempts: 2, Conditions: []string{ir.ConnectFailure, ir.Reset}}
}

var (
	defaultBudget  = ir.Budget{Percent: 20, Interval: ir.Duration(10 * time.Second), MinCount: 10, MinInterval: ir.Duration(time.Second)}
	defaultPassive = ir.Passive{Failures: 5, EjectFor: ir.Duration(10 * time.Second), MaxOut: 50}
)

// NewSettings takes the defaults for what c leaves open. c may be nil.
func NewSettings(c *ir.Cluster, t *tls.Config, problem string) *Settings {
	s := &Settings{Config: c, TLS: t, Problem: problem, Connect: DefaultConnect, FirstByte: DefaultFirstByte,
		Retry: defaultRetry(), budget: defaultBudget, passive: defaultPassive}
	if c == nil || c.Traffic == nil {
		return s
	}
	t0 := c.Traffic
	for _, x := range []struct {
		to   *time.Duration
		from *ir.Duration
	}{{&s.Connect, t0.Connect}, {&s.FirstByte, t0.First}, {&s.Total, t0.Total}} {
		if x.from != nil {
			*x.to = time.Duration(*x.from)
		}
	}
	s.Affinity = t0.Affinity
	if t0.Active != nil {
		s.Active = &Checks{Interval: time.Duration(t0.Active.Interval), Timeout: time.Duration(t0.Active.Timeout), of: t0.Active}
	}
	if t0.Retry != nil {
		s.Retry = t0.Retry
	}
	if b := t0.Balancer; b != nil {
		s.least, s.slowStart = b.Algorithm == ir.LeastRequest, time.Duration(b.SlowStart)
		if b.Algorithm == ir.ConsistentHash {
			s.Hash = b.Hash
		}
	}
	if t0.Budget != nil {
		s.budget = *t0.Budget
	}
	if t0.Breaker != nil {
		s.breaker = *t0.Breaker
	}
	if t0.Passive != nil {
		s.passive = *t0.Passive
	}
	return s
}

// SettingsOf are the settings of a cluster with the secrets that it names. One whose TLS cannot be made cannot be used: it is never
// spoken to in clear text instead.
func SettingsOf(c *ir.Cluster, secrets secret.Set) *Settings {
	if c.TLS == nil {
		return NewSettings(c, nil, "")
	}
	t, err := cert.Backend(c.TLS, secrets)
	if err != nil {
		return NewSettings(c, nil, err.Error())
	}
	return NewSettings(c, t, "")
}

// counts reports whether a response's status is a failure of its endpoint.
func (s *Settings) counts(status int) bool {
	return status >= 500 && slices.Contains(s.passive.Codes, exchange.Judged(status))
}
