package edgetest_test

import (
	"context"
	"fmt"
	"iter"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/database"
	"github.com/gatehouse-io/gatehouse/internal/edge"
	"github.com/gatehouse-io/gatehouse/internal/edgetest"
	"github.com/gatehouse-io/gatehouse/internal/limiter"
)

// redisServer is a real redis-server on loopback. stop ends it before the test does.
func redisServer(t testing.TB) (addr string, stop func()) {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		if slices.Contains(strings.Split(os.Getenv("GATEHOUSE_REQUIRE"), ","), "redis") {
			t.Fatal("GATEHOUSE_REQUIRE names redis, but there is no redis-server: install it")
		}
		t.Skip("no redis-server on this machine: install it to run this test")
	}
	port := edgetest.FreePort(t)
	c := exec.Command("redis-server", "--bind", "127.0.0.1", "--port", fmt.Sprint(port), "--save", "", "--appendonly", "no", "--dir", t.TempDir())
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	stop = func() {
		if !ended {
			ended = true
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	}
	t.Cleanup(stop)
	addr = fmt.Sprintf("127.0.0.1:%d", port)
	for end := time.Now().Add(edgetest.Wait); ; time.Sleep(5 * time.Millisecond) {
		if nc, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
			_ = nc.Close()
			return addr, stop
		}
		if time.Now().After(end) {
			t.Fatal("redis-server does not answer")
		}
	}
}

// sharing gives an edge a limiter with a store.
func sharing(t *testing.T, addr, namespace string) func(*edge.Options) {
	return func(o *edge.Options) {
		r, err := limiter.ParseRedisURL("redis://" + addr)
		if err != nil {
			t.Fatal(err)
		}
		l := limiter.New(limiter.Options{Redis: r, Namespace: namespace, StoreTimeout: 500 * time.Millisecond}) // a busy machine is no fault of the store
		t.Cleanup(l.Close)
		o.Limiter = l
	}
}

// TestPolicyLimitShared: two edges count together: strictly never more than the limit, leased soon no more.
func TestPolicyLimitShared(t *testing.T) {
	addr, _ := redisServer(t)
	for i, v := range wires() {
		t.Run(v.name, func(t *testing.T) {
			namespace := fmt.Sprint("wire", i)
			one, two := newStage(t, v, sharing(t, addr, namespace)), newStage(t, v, sharing(t, addr, namespace))
			for _, w := range []*stage{one, two} {
				w.apply(limits("strict: {when: \"request.path == '/strict'\", scope: Shared, consistency: Strict, rates: [{limit: 6, period: 1h}]}, " +
					"leased: {when: \"request.path == '/leased'\", scope: Shared, rates: [{limit: 10, period: 1h}]}"))
			}
			passed := 0
			for range 5 {
				for _, w := range []*stage{one, two} {
					if a := w.ask("/strict"); a.seen != nil {
						passed++
						if name, left, _, _, _ := w.told(a.header); name != "strict" || left != int64(6-passed) {
							w.Errorf("the client is told %q after %d", a.header["Ratelimit"], passed)
						}
					} else {
						w.limited(a, "rate_limited", "strict")
					}
				}
			}
			if passed != 6 {
				t.Errorf("%d strictly limited requests passed two edges, want 6", passed)
			}
			for range 10 {
				one.passed(one.ask("/leased"))
			}
			one.limited(one.ask("/leased"), "rate_limited", "leased")
			passed = 0
			two.eventually("the other edge knows", func() bool {
				a := two.ask("/leased")
				if a.seen != nil {
					passed++
				}
				return a.status == 429
			})
			t.Logf("%d of 10 passed the other edge before it knew", passed)
		})
	}
}

// TestPolicyLimitStoreStopped: what holds while the store does not answer is what the policy says.
func TestPolicyLimitStoreStopped(t *testing.T) {
	for i, v := range wires() {
		t.Run(v.name, func(t *testing.T) {
			addr, stop := redisServer(t)
			w := newStage(t, v, sharing(t, addr, fmt.Sprint("wire", i)))
			var all []string
			for _, c := range []string{"Strict", "Leased"} {
				for _, f := range []string{"Local", "Allow", "Deny"} {
					name := strings.ToLower(c + "-" + f)
					all = append(all, fmt.Sprintf("%s: {when: \"request.path == '/%s'\", scope: Shared, consistency: %s, onStoreFailure: %s, rates: [{limit: 3, period: 1h}]}", name, name, c, f))
				}
			}
			w.apply(limits(strings.Join(all, ", ")))
			for _, c := range []string{"/strict", "/leased"} {
				for _, f := range []string{"-local", "-allow", "-deny"} {
					w.passed(w.ask(c + f))
				}
			}
			stop()
			w.eventually("the store is known to be away", func() bool { return w.ask("/strict-deny").status == 503 })
			w.eventually("leased limits know it too", func() bool { return w.ask("/leased-deny").status == 503 })
			for _, c := range []string{"/strict", "/leased"} {
				w.refused(w.ask(c+"-deny"), 503, "limit_store_unavailable")
				passed := 0
				for range 6 {
					w.passed(w.ask(c + "-allow"))
					if w.ask(c+"-local").seen != nil {
						passed++
					}
				}
				if passed < 2 || passed > 3 { // the last picture of the store may lack the one that it counted
					w.Errorf("%s-local: %d of 6 passed, want 2 or 3", c, passed)
				}
				w.limited(w.ask(c+"-local"), "rate_limited", c[1:]+"-local")
			}
		})
	}
}

// quotaLedger keeps quotas in a database, as cmd does.
type quotaLedger struct{ lazy *database.Lazy }

func (l quotaLedger) Load(ctx context.Context) iter.Seq2[limiter.Total, error] {
	return func(yield func(limiter.Total, error) bool) {
		for q, err := range l.lazy.Ledger().LoadQuotas(ctx) {
			if !yield(limiter.Total{Key: q.Key, Start: q.Start, Expires: q.Expires, Count: q.Count}, err) {
				return
			}
		}
	}
}

func (l quotaLedger) Add(ctx context.Context, deltas []limiter.Delta) ([]limiter.Total, error) {
	in := make([]database.QuotaDelta, len(deltas))
	for i, d := range deltas {
		in[i] = database.QuotaDelta{Key: d.Key, Start: d.Start, Expires: d.Expires, N: d.N}
	}
	qs, err := l.lazy.Ledger().AddQuota(ctx, in)
	out := make([]limiter.Total, len(qs))
	for i, q := range qs {
		out[i] = limiter.Total{Key: q.Key, Start: q.Start, Expires: q.Expires, Count: q.Count}
	}
	return out, err
}

// TestPolicyLimitQuota: an allowance for a calendar window, which a restart does not give back.
func TestPolicyLimitQuota(t *testing.T) {
	for _, v := range wires() {
		t.Run(v.name, func(t *testing.T) {
			dir := t.TempDir()
			start := func() (w *stage, end func()) {
				lazy := database.NewLazy(database.Options{Data: dir})
				l := limiter.New(limiter.Options{Ledger: quotaLedger{lazy}})
				w = newStage(t, v, func(o *edge.Options) { o.Limiter = l })
				w.apply(limits("plan: {quota: {limit: 10, window: Year}, cost: \"int(request.headers['x-cost'])\"}, plenty: {rates: [{limit: 1000, period: 1s}]}"))
				w.eventually("the database is open", func() bool {
					for _, err := range lazy.Ledger().LoadQuotas(t.Context()) {
						return err == nil
					}
					return true
				})
				return w, func() {
					l.Close()
					if err := lazy.Close(); err != nil {
						t.Error(err)
					}
				}
			}
			left := func(w *stage, cost int) int64 {
				a := w.ask("/", fmt.Sprint("X-Cost: ", cost))
				w.passed(a)
				name, left, reset, quota, _ := w.told(a.header)
				if name != "plan" || reset < 1 || quota != 10 {
					w.Errorf("the client is told %q and %q", a.header["Ratelimit"], a.header["Ratelimit-Policy"])
				}
				return left
			}
			w, end := start()
			if n := left(w, 9); n != 1 {
				t.Errorf("%d left, want 1", n)
			}
			end()
			w, end = start()
			defer end()
			w.eventually("what was counted is read", func() bool { return left(w, 0) == 1 })
			w.limited(w.ask("/", "X-Cost: 2"), "quota_exceeded", "plan")
			if n := left(w, 1); n != 0 {
				t.Errorf("%d left, want 0", n)
			}
			w.limited(w.ask("/"), "quota_exceeded", "plan")
		})
	}
}
