package limiter

import (
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// bucket is the exact model of a rate: tokens as a fraction, refilled continuously.
type bucket struct {
	r      Rate
	tokens *big.Rat
	at     time.Time
}

func newBucket(r Rate, at time.Time) *bucket {
	return &bucket{r: r, tokens: new(big.Rat).SetInt64(r.burst()), at: at}
}

func (b *bucket) refill(now time.Time) {
	add := new(big.Rat).SetFrac(new(big.Int).Mul(big.NewInt(int64(now.Sub(b.at))), big.NewInt(b.r.Limit)), big.NewInt(int64(b.r.Period)))
	b.give(add)
	b.at = now
}

func (b *bucket) give(n *big.Rat) {
	b.tokens.Add(b.tokens, n)
	if top := new(big.Rat).SetInt64(b.r.burst()); b.tokens.Cmp(top) > 0 {
		b.tokens = top
	}
}

func (b *bucket) has(cost int64) bool { return b.tokens.Cmp(new(big.Rat).SetInt64(cost)) >= 0 }

// until is how long it takes to have n tokens, rounded up to ns.
func (b *bucket) until(n int64) time.Duration {
	d := new(big.Rat).SetInt64(n)
	d.Sub(d, b.tokens)
	if d.Sign() <= 0 {
		return 0
	}
	d.Mul(d, new(big.Rat).SetFrac(big.NewInt(int64(b.r.Period)), big.NewInt(b.r.Limit)))
	q, m := new(big.Int).DivMod(d.Num(), d.Denom(), new(big.Int))
	if m.Sign() > 0 {
		q.Add(q, big.NewInt(1))
	}
	return time.Duration(q.Int64())
}

func (b *bucket) whole() int64 {
	if b.tokens.Sign() < 0 {
		return 0
	}
	return new(big.Int).Div(b.tokens.Num(), b.tokens.Denom()).Int64()
}

func rates(t *rapid.T) Rate {
	return Rate{
		Limit:  rapid.Int64Range(1, 2_000_000).Draw(t, "limit"),
		Period: time.Duration(rapid.SampledFrom([]int64{1e6, 1e9, 60e9, 3600e9, 86400e9}).Draw(t, "period")),
		Burst:  rapid.Int64Range(0, 50).Draw(t, "burst"),
	}
}

func TestRateAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := New(Options{MaxKeys: 1000})
		defer l.Close()
		lim := &Limit{}
		now := l.base
		var model []*bucket
		for range rapid.IntRange(1, 5).Draw(t, "rates") {
			r := rates(t)
			lim.Rates = append(lim.Rates, r)
			model = append(model, newBucket(r, now))
		}
		key := KeyOf(Seed{}, []byte("k"))
		var out [1]Answer
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			step := lim.Rates[0].Period / time.Duration(lim.Rates[0].Limit)
			now = now.Add(time.Duration(rapid.Int64Range(0, 3*int64(step)+2).Draw(t, "wait")))
			a := Ask{Limit: lim, Key: key, Cost: rapid.Int64Range(0, 5).Draw(t, "cost")}
			what := rapid.SampledFrom([]string{"ask", "ask", "ask", "peek", "charge", "refund"}).Draw(t, "what")
			for _, m := range model {
				m.refill(now)
			}
			n := new(big.Rat).SetInt64(a.Cost)
			switch what {
			case "charge":
				l.Charge(now, a)
				for _, m := range model {
					m.give(new(big.Rat).Neg(n))
				}
				continue
			case "refund":
				l.Refund(now, a)
				for _, m := range model {
					m.give(n)
				}
				continue
			}
			a.Peek = what == "peek"
			got := l.Decide(now, []Ask{a}, out[:])
			compare(t, model, a, got, out[0])
		}
	})
}

// compare holds an answer against the model, and lets the model take what was allowed.
func compare(t *rapid.T, model []*bucket, a Ask, got bool, out Answer) {
	want := true
	var retry time.Duration
	forever := false
	for _, m := range model {
		if !m.has(a.Cost) {
			want = false
			forever = forever || a.Cost > m.r.burst()
			retry = max(retry, m.until(a.Cost))
		}
	}
	if forever {
		retry = 0
	}
	if got != want || out.Allowed != want || out.RetryAfter != retry {
		t.Fatalf("Decide(cost %d) = %v %+v, the model says %v, retry %v", a.Cost, got, out, want, retry)
	}
	least := int64(1 << 62)
	for _, m := range model {
		if want {
			m.tokens.Sub(m.tokens, new(big.Rat).SetInt64(a.Cost))
		}
		least = min(least, m.whole())
	}
	of := model[out.Rate]
	if want && out.Remaining != least || out.Remaining != of.whole() {
		t.Fatalf("Remaining = %d of rate %d, the model says %d, the least is %d", out.Remaining, out.Rate, of.whole(), least)
	}
	if reset := of.until(of.r.burst()); out.Reset != reset {
		t.Fatalf("Reset = %v, the model says %v", out.Reset, reset)
	}
	for _, m := range model {
		if want && a.Peek {
			m.tokens.Add(m.tokens, new(big.Rat).SetInt64(a.Cost))
		}
	}
}

// TestRateOverAnHour asks far more often than allowed, for an hour of given time, and counts.
func TestRateOverAnHour(t *testing.T) {
	for _, r := range []Rate{
		{Limit: 7, Period: time.Second}, {Limit: 3, Period: time.Second, Burst: 1}, {Limit: 100_003, Period: time.Hour, Burst: 10},
		{Limit: 977, Period: time.Minute}, {Limit: 1, Period: 7 * time.Second}, {Limit: 1<<40 + 9, Period: 1000 * time.Hour, Burst: 1 << 33},
	} {
		l := New(Options{})
		now, end := l.base, l.base.Add(time.Hour)
		a := []Ask{{Limit: &Limit{Rates: []Rate{r}}, Cost: max(r.Limit/10_000_000_000*100, 1)}}
		out := make([]Answer, 1)
		passed := int64(0)
		for !now.After(end) {
			if l.Decide(now, a, out) {
				passed += a[0].Cost
			} else {
				now = now.Add(out[0].RetryAfter)
			}
		}
		exact := new(big.Int).Div(new(big.Int).Mul(big.NewInt(r.Limit), big.NewInt(int64(time.Hour))), big.NewInt(int64(r.Period)))
		want := r.burst() + exact.Int64()
		if d := passed - want; d < -max(want/10_000, a[0].Cost) || d > max(want/10_000, 0) {
			t.Errorf("%+v: %d passed in an hour, want %d", r, passed, want)
		}
		l.Close()
	}
}

func TestRateEdges(t *testing.T) {
	l := New(Options{})
	defer l.Close()
	for _, tt := range []struct {
		rate Rate
		cost int64
		want Answer
	}{
		{Rate{Limit: 0, Period: time.Second}, 1, Answer{}},
		{Rate{Limit: 5, Period: time.Second}, 6, Answer{Remaining: 5}},
		{Rate{Limit: 5, Period: time.Second}, 1 << 62, Answer{Remaining: 5}},
		{Rate{Limit: 5, Period: time.Second}, 5, Answer{Allowed: true, Reset: time.Second}},
		{Rate{Limit: 5, Period: time.Second}, -3, Answer{Allowed: true, Remaining: 5}},
		{Rate{Limit: 1 << 62, Period: time.Nanosecond}, 1, Answer{Allowed: true, Remaining: 1<<62 - 1}},
		{Rate{Limit: 1, Period: 1<<63 - 1, Burst: 1 << 62}, 1, Answer{Allowed: true}},
	} {
		out := make([]Answer, 1)
		key := KeyOf(SeedOf(tt.rate.Period.String()), []byte{byte(tt.cost), byte(tt.rate.Limit)})
		l.Decide(l.base, []Ask{{Limit: &Limit{Rates: []Rate{tt.rate}}, Key: key, Cost: tt.cost}}, out)
		if tt.rate.Limit < 1<<30 && tt.rate.Period < time.Hour && out[0] != tt.want || out[0].Allowed != tt.want.Allowed {
			t.Errorf("%+v cost %d: %+v, want %+v", tt.rate, tt.cost, out[0], tt.want)
		}
	}
}
