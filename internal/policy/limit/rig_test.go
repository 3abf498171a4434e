package limit

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/limiter"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// books is a real limiter whose every move is written down: what is counted, and which places are taken.
type books struct {
	*limiter.Limiter
	mu      sync.Mutex
	places  map[limiter.Key]int
	counted map[limiter.Key]int64
	durable bool
	faults  []string
	strict  func(context.Context) // runs before DecideStrict decides
	away    bool                  // DecideStrict finds no store
}

func openBooks() *books {
	return &books{Limiter: limiter.New(limiter.Options{}), places: map[limiter.Key]int{}, counted: map[limiter.Key]int64{}}
}

func newBooks(t testing.TB) *books {
	b := openBooks()
	t.Cleanup(b.Close)
	return b
}

func (b *books) note(asks []limiter.Ask, sign int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range asks {
		switch {
		case a.Peek:
		case a.Limit.Concurrency > 0:
			if b.places[a.Key] += int(sign); b.places[a.Key] < 0 {
				b.faults = append(b.faults, "a place was given back twice")
			}
		default:
			b.counted[a.Key] += sign * a.Cost
		}
	}
}

func (b *books) Decide(now time.Time, asks []limiter.Ask, out []limiter.Answer) bool {
	ok := b.Limiter.Decide(now, asks, out)
	if ok {
		b.note(asks, 1)
	}
	return ok
}

func (b *books) DecideStrict(ctx context.Context, now time.Time, asks []limiter.Ask, out []limiter.Answer) bool {
	if b.strict != nil {
		b.strict(ctx)
	}
	for _, a := range asks {
		if a.Limit.Concurrency > 0 {
			b.faults = append(b.faults, "the store was asked for a place")
		}
	}
	if b.away {
		for i := range out {
			out[i] = limiter.Answer{Rate: limiter.ByStore, RetryAfter: time.Second, Degraded: true}
		}
		return false
	}
	return b.Decide(now, asks, out)
}

func (b *books) Charge(now time.Time, a limiter.Ask) {
	b.Limiter.Charge(now, a)
	b.note([]limiter.Ask{a}, 1)
}

func (b *books) Refund(now time.Time, a limiter.Ask) {
	b.Limiter.Refund(now, a)
	b.note([]limiter.Ask{a}, -1)
}

func (b *books) Release(a limiter.Ask) {
	b.Limiter.Release(a)
	b.note([]limiter.Ask{a}, -1)
}

func (b *books) Durable() { b.durable = true }

// held is how many places are taken, and total what is counted.
func (b *books) held() (n int) {
	for _, p := range b.places {
		n += p
	}
	return n
}

func (b *books) total() (n int64) {
	for _, c := range b.counted {
		n += c
	}
	return n
}

// start is when every request of a test comes: nothing refills.
var start = time.Now()

const owner = "RateLimitPolicy shop/orders"

func compile(t testing.TB, step policy.Step, limits string, env policy.Env) policy.Handler {
	t.Helper()
	spec, err := step.Decode([]byte(limits))
	if err != nil {
		t.Fatal(err)
	}
	if env.Sources == nil {
		env.Sources = map[string]string{"": owner}
	}
	h, err := spec.Compile(env)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// request is one from an address.
func request(from string) *exchange.Exchange {
	x := &exchange.Exchange{Start: start, Client: netip.MustParseAddrPort(from)}
	x.Request.Method, x.Request.Path, x.Request.RawPath = []byte("GET"), []byte("/orders"), []byte("/orders")
	return x
}

const ann = "192.0.2.7:4711"

// ask passes a request through the Request hook, and answers it with the verdict's reason as proxy does.
func ask(t testing.TB, h policy.Handler, x *exchange.Exchange) policy.Verdict {
	t.Helper()
	v := h.Request(x)
	for v.Wait != nil {
		v = v.Wait(t.Context())(x)
	}
	if v.Status != 0 {
		x.Reason, x.Response.Status = v.Reason, v.Status
	}
	return v
}

// end passes it through the others.
func end(h policy.Handler, x *exchange.Exchange) {
	h.Response(x)
	h.Done(x)
}
