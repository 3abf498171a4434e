package oidc

import (
	"context"
	"crypto/sha256"
	"errors"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/policy/authn/method"
)

// renewed is what became of a renewal: a new session, or why there is none.
type renewed struct {
	*renewal        // nil: there is none
	over     string // the session is over: the provider, or what it gave, says so
	failed   string // nothing is known
}

// renew asks the provider for newer tokens. While the old ones are good the session goes on when that fails.
func (m *login) renew(x *exchange.Exchange, key [sha256.Size]byte, k *known) method.Outcome {
	now := x.Start.Unix()
	valid := now < k.expires
	d, why := m.provider.known()
	switch {
	case x.Dry:
		return method.Outcome{State: method.Waiting, Asks: m.issuer}
	case d == nil && valid:
		return m.accept(k)
	case d == nil:
		return m.patient(x, why, func(x *exchange.Exchange) method.Outcome { return m.renew(x, key, k) })
	case now < m.provider.rest.Load() && valid:
		return m.accept(k)
	case now < m.provider.rest.Load():
		return unavailable(noProvider, "the provider failed a moment ago")
	}
	g := &grant{m: m, document: d, ring: k.ring, now: now, place: m.place(m.names.of(x).session, x.Request.Host)}
	jar, start := m.names.jar(x), x.Start
	return method.Outcome{State: method.Waiting, Asks: d.token, Wait: func(ctx context.Context) func(*exchange.Exchange) method.Outcome {
		n := m.newer(ctx, g, &key, k, func(ctx context.Context) (*session, error) { return g.renewed(ctx, k.session, start) })
		return func(x *exchange.Exchange) method.Outcome {
			switch {
			case n.renewal != nil:
				o := m.accept(n.known)
				o.Cookies, _ = jar.write(n.sealed, max(1, n.started+int64(m.lifetime.Seconds())-now))
				return o
			case n.over != "":
				return m.without(x, method.Refuse(expiredSession, n.over))
			case valid:
				return m.accept(k)
			}
			return unavailable(noProvider, n.failed)
		}
	}}
}

// newer is the session's renewal: one that was made a moment ago, one that is on its way, or its own.
func (m *login) newer(ctx context.Context, g *grant, key *[sha256.Size]byte, k *known, ask func(context.Context) (*session, error)) *renewed {
	for {
		done, f, mine := m.store.join(key, k.ring, g.now)
		switch {
		case done != nil:
			return &renewed{renewal: done}
		case mine:
			// A refresh token may be good only once. Once it is sent the answer is waited for, even if the client who asked is gone: else
			// the session would be lost. The call has its own end.
			return m.lead(context.WithoutCancel(ctx), g, key, f, ask)
		}
		select {
		case <-f.done:
			if f.result != nil {
				return f.result
			}
		case <-ctx.Done():
			return &renewed{failed: "the request's time was over while another renewed the session"}
		}
	}
}

func (m *login) lead(ctx context.Context, g *grant, key *[sha256.Size]byte, f *flight, ask func(context.Context) (*session, error)) (n *renewed) {
	defer func() { m.store.land(key, f, n, g.now) }()
	s, err := ask(ctx)
	var no errNo
	var bad errBad
	switch {
	case errors.As(err, &no) || errors.As(err, &bad):
		return &renewed{over: err.Error()}
	case err != nil:
		m.provider.rest.Store(g.now + restTime)
		return &renewed{failed: err.Error()}
	}
	sealed, fresh, ok := m.pack(s, g.ring, g.place)
	if !ok {
		return &renewed{over: "the renewed session does not fit into its cookies"}
	}
	return &renewed{renewal: &renewal{known: fresh, sealed: sealed, until: g.now + graceTime}}
}
