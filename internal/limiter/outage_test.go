package limiter

import (
	"context"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"
)

func failing(f Failure, strict bool) *Limit {
	return &Limit{Rates: []Rate{{Limit: 3, Period: time.Hour}}, Shared: true, Strict: strict, OnFailure: f}
}

func key(name string) Key { return KeyOf(SeedOf(name)) }

// checkOutage holds each OnFailure to what it says, while the breaker is open.
func checkOutage(t *testing.T, l *Limiter) {
	t.Helper()
	if !l.Stats().StoreOpen {
		t.Fatal("the breaker is closed")
	}
	for _, strict := range []bool{false, true} {
		for _, tt := range []struct {
			name string
			on   Failure
			want []bool
		}{
			{"local", Local, []bool{true, true, true, false, false}},
			{"allow", Allow, []bool{true, true, true, true, true}},
			{"deny", Deny, []bool{false, false, false, false, false}},
		} {
			ask := []Ask{{Limit: failing(tt.on, strict), Key: key(tt.name + t.Name() + time.Now().String()), Cost: 1}}
			out := make([]Answer, 1)
			for i, want := range tt.want {
				start := time.Now()
				got := l.DecideStrict(t.Context(), start, ask, out)
				if got != want || !out[0].Degraded {
					t.Errorf("%s, strict %v, ask %d: %v %+v, want %v and degraded", tt.name, strict, i, got, out[0], want)
				}
				if took := time.Since(start); took > 10*time.Millisecond {
					t.Errorf("%s, strict %v, ask %d waited %v with the breaker open", tt.name, strict, i, took)
				}
			}
			if tt.on == Deny && (out[0].RetryAfter != time.Second || out[0].Rate != ByStore) {
				t.Errorf("deny: %+v, want a retry in 1 s and ByStore", out[0])
			}
		}
	}
}

func TestWithoutStore(t *testing.T) {
	l := New(Options{})
	defer l.Close()
	out := make([]Answer, 1)
	for _, tt := range []struct {
		on   Failure
		want []bool
	}{{Local, []bool{true, true, true, false}}, {Allow, []bool{true, true, true, true}}, {Deny, []bool{false}}} {
		for i, want := range tt.want {
			a := []Ask{{Limit: failing(tt.on, i%2 == 0), Key: Key{byte(tt.on)}, Cost: 1}}
			if got := l.DecideStrict(t.Context(), time.Now(), a, out); got != want || !out[0].Degraded {
				t.Errorf("OnFailure %d, ask %d: %v %+v, want %v and degraded", tt.on, i, got, out[0], want)
			}
		}
	}
}

// TestNothingListens: the first strict ask does not wait longer than the timeout, and New does not wait at all.
func TestNothingListens(t *testing.T) {
	n, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := n.Addr().String()
	n.Close()
	r, _ := ParseRedisURL("redis://" + addr)
	l := New(Options{Redis: r})
	defer l.Close()
	out := make([]Answer, 1)
	start := time.Now()
	if !l.DecideStrict(t.Context(), start, []Ask{{Limit: failing(Local, true), Cost: 1}}, out) {
		t.Errorf("%+v, want the local limit to decide", out[0])
	}
	if took := time.Since(start); took > 200*time.Millisecond {
		t.Errorf("the first ask waited %v", took)
	}
	eventually(t, "the breaker opens", func() bool { return l.Stats().StoreOpen })
	checkOutage(t, l)
}

// TestNoConnectionBeforeUse: local limits open no connection, the first shared one does.
func TestNoConnectionBeforeUse(t *testing.T) {
	n, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	accepted := make(chan struct{}, 100)
	go func() {
		for {
			c, err := n.Accept()
			if err != nil {
				return
			}
			c.Close()
			accepted <- struct{}{}
		}
	}()
	r, _ := ParseRedisURL("redis://" + n.Addr().String())
	l := New(Options{Redis: r})
	defer l.Close()
	out := make([]Answer, 1)
	l.Decide(time.Now(), []Ask{{Limit: &Limit{Rates: []Rate{{Limit: 1, Period: time.Second}}}, Cost: 1}}, out)
	if l.begun.Load() {
		t.Error("a local limit began the store")
	}
	if !l.Decide(time.Now(), []Ask{{Limit: failing(Deny, false), Cost: 1}}, out) || out[0].Degraded {
		t.Errorf("%+v: an unknown key is decided as if nothing was taken", out[0])
	}
	select {
	case <-accepted:
	case <-time.After(10 * time.Second):
		t.Error("no connection after a shared limit was asked for")
	}
}

func TestRedisStopped(t *testing.T) {
	s := redisServer(t)
	l := s.process(Options{StoreTimeout: 20 * time.Millisecond})
	strict := []Ask{{Limit: &Limit{Rates: []Rate{{Limit: 1 << 30, Period: time.Hour}}, Shared: true, Strict: true}, Key: key("strict"), Cost: 1}}
	leased := Ask{Limit: &Limit{Rates: []Rate{{Limit: 1 << 30, Period: time.Hour}}, Shared: true}, Key: key("leased"), Cost: 1}
	out := make([]Answer, 1)
	eventually(t, "the store decides", func() bool {
		l.DecideStrict(t.Context(), time.Now(), strict, out)
		return !out[0].Degraded
	})
	p99 := func() time.Duration {
		var took []time.Duration
		for range 2000 {
			start := time.Now()
			l.Decide(start, []Ask{leased}, out)
			took = append(took, time.Since(start))
			time.Sleep(100 * time.Microsecond)
		}
		slices.Sort(took)
		return took[len(took)*99/100]
	}
	before := p99()
	s.signal(syscall.SIGSTOP)
	during := p99()
	t.Logf("p99 of Decide, leased: %v, with the store stopped %v", before, during)
	if during > before+5*time.Millisecond {
		t.Errorf("p99 of Decide grew from %v to %v", before, during)
	}
	s.signal(syscall.SIGCONT)
	eventually(t, "the breaker closes", func() bool { return !l.Stats().StoreOpen })
	eventually(t, "the store decides again", func() bool {
		l.DecideStrict(t.Context(), time.Now(), strict, out)
		return !out[0].Degraded
	})

	s.signal(syscall.SIGSTOP)
	waited := 0
	for range 50 {
		start := time.Now()
		l.DecideStrict(t.Context(), start, strict, out)
		took := time.Since(start)
		if took > 500*time.Millisecond {
			t.Errorf("a strict ask waited %v, the timeout is 20 ms", took)
		}
		if took > 15*time.Millisecond {
			waited++
		}
		if !out[0].Degraded || !out[0].Allowed {
			t.Errorf("%+v, want it allowed by the local limit, and degraded", out[0])
		}
	}
	if waited > breakAfter+2 { // a busy machine may hold up one or two
		t.Errorf("%d asks waited, want at most %d until the breaker opens", waited, breakAfter)
	}
	checkOutage(t, l)
	s.signal(syscall.SIGCONT)
	eventually(t, "the store decides again", func() bool {
		l.DecideStrict(t.Context(), time.Now(), strict, out)
		return !out[0].Degraded
	})
}

func TestRedisKilled(t *testing.T) {
	s := redisServer(t)
	l := s.process(Options{StoreTimeout: 50 * time.Millisecond})
	strict := []Ask{{Limit: failing(Deny, true), Key: key("killed"), Cost: 1}}
	counted := Ask{Limit: &Limit{Quota: &Quota{Limit: 1000, Window: Year}, Shared: true}, Key: key("quota"), Cost: 1}
	out := make([]Answer, 1)
	eventually(t, "the store decides", func() bool { return l.DecideStrict(t.Context(), time.Now(), strict, out) })
	s.kill()
	eventually(t, "the breaker opens", func() bool {
		l.DecideStrict(t.Context(), time.Now(), strict, out)
		if !out[0].Degraded || out[0].Allowed {
			t.Fatalf("%+v, want it denied and degraded", out[0])
		}
		return l.Stats().StoreOpen
	})
	checkOutage(t, l)
	for range 100 {
		l.Decide(time.Now(), []Ask{counted}, out)
	}
	s.start()
	eventually(t, "a restarted server, which has no script, decides", func() bool {
		l.DecideStrict(t.Context(), time.Now(), strict, out)
		return !out[0].Degraded
	})
	other := s.process(Options{})
	eventually(t, "what was counted meanwhile is told", func() bool {
		q := *counted.Limit
		q.Strict = true
		other.DecideStrict(t.Context(), time.Now(), []Ask{{Limit: &q, Key: counted.Key, Peek: true}}, out)
		return out[0].Remaining == 900
	})
}

// TestClientGone: that the client of a request goes away is no failure of the store.
func TestClientGone(t *testing.T) {
	s := redisServer(t)
	l := s.process(Options{})
	strict := []Ask{{Limit: failing(Deny, true), Key: key("gone"), Cost: 1}}
	out := make([]Answer, 1)
	eventually(t, "the store decides", func() bool { return l.DecideStrict(t.Context(), time.Now(), strict, out) })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 2 * breakAfter {
		l.DecideStrict(ctx, time.Now(), strict, out)
	}
	if st := l.Stats(); st.StoreOpen || st.StoreErrors != 0 {
		t.Errorf("%+v: a client that goes away opened the breaker", st)
	}
}
