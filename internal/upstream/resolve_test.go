package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// zone is a fake DNS.
type zone struct {
	mu    sync.Mutex
	names map[string]record
	asked map[string]int
}

type record struct {
	addrs  string
	ttl    time.Duration
	err    error
	silent bool
	delay  time.Duration
	panics bool
}

var errAbsent = &net.DNSError{Err: "no such host", IsNotFound: true}

func (z *zone) set(name string, r record) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.names == nil {
		z.names, z.asked = map[string]record{}, map[string]int{}
	}
	z.names[name] = r
}

func (z *zone) count(name string) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.asked[name]
}

func (z *zone) lookup(ctx context.Context, name string) (as []netip.Addr, ttl time.Duration, err error) {
	z.mu.Lock()
	z.asked[name]++
	r := z.names[name]
	z.mu.Unlock()
	switch {
	case r.panics:
		panic("a resolver's fault")
	case r.silent:
		<-ctx.Done()
		return nil, 0, ctx.Err()
	case r.delay > 0:
		time.Sleep(r.delay)
	}
	for _, a := range strings.Fields(r.addrs) {
		as = append(as, netip.MustParseAddr(a))
	}
	return as, r.ttl, r.err
}

// resolving is a resolver of a zone that runs, in a bubble of synctest.
type resolving struct {
	*Resolver
	z   *zone
	c   *Cluster
	t   *testing.T
	log bytes.Buffer
}

func resolver(t *testing.T) *resolving {
	t.Helper()
	r := &resolving{z: &zone{}, t: t}
	r.z.set("", record{})
	set := NewSet(Rules{})
	r.c = set.Acquire("c")
	r.Resolver = NewResolver(set, r.z.lookup, slog.New(slog.NewTextHandler(&r.log, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	go r.Run(ctx)
	return r
}

// apply is a change that brings endpoints of c: addresses, and names.
func (r *resolving) apply(hosts ...string) {
	var es []ir.Endpoint
	for _, h := range hosts {
		es = append(es, ir.Endpoint{Host: h, Port: 80, Ready: true, Serving: true})
	}
	r.Apply(r.t.Context(), r.c, es)
}

func (r *resolving) want(when string, addrs ...string) {
	r.t.Helper()
	synctest.Wait()
	for i, a := range addrs {
		addrs[i] = a + ":80"
	}
	if d := cmp.Diff(addrs, texts(r.c.Endpoints())); d != "" {
		r.t.Errorf("%s:\n%s", when, d)
	}
}

// TestTTL: a name is looked up again when its answer no longer holds, within bounds, and not before.
func TestTTL(t *testing.T) {
	for _, x := range []struct{ ttl, want time.Duration }{
		{20 * time.Second, 20 * time.Second}, {0, 5 * time.Second}, {time.Second, 5 * time.Second}, {time.Hour, 5 * time.Minute},
	} {
		t.Run(x.ttl.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := resolver(t)
				r.z.set("a", record{addrs: "192.0.2.2 192.0.2.1", ttl: x.ttl})
				r.apply("a", "::ffff:192.0.2.9")
				r.want("applied", "192.0.2.1", "192.0.2.2", "192.0.2.9")
				r.z.set("a", record{addrs: "192.0.2.1 192.0.2.3", ttl: x.ttl})
				time.Sleep(x.want - time.Millisecond)
				r.want("before its time", "192.0.2.1", "192.0.2.2", "192.0.2.9")
				time.Sleep(time.Millisecond)
				r.want("after it", "192.0.2.1", "192.0.2.3", "192.0.2.9")
			})
		})
	}
}

// TestLastGood: what a lookup that failed leaves is the last good addresses, for a day; that there is no such name leaves nothing.
func TestLastGood(t *testing.T) {
	for name, fails := range map[string]record{"SERVFAIL": {err: errors.New("server failure")}, "timeout": {silent: true}, "panic": {panics: true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := resolver(t)
				r.z.set("a", record{addrs: "192.0.2.1 2001:db8::1", ttl: time.Minute})
				r.apply("a")
				r.want("first", "192.0.2.1", "[2001:db8::1]")
				r.z.set("a", fails)
				time.Sleep(23 * time.Hour)
				r.want("after 23 hours", "192.0.2.1", "[2001:db8::1]")
				if n := strings.Count(r.log.String(), "cannot be looked up"); n != 1 || r.Stats().Stale != 1 || r.Stats().Failed < 2 {
					t.Errorf("told %d times, %+v; want once, and a stale name\n%s", n, r.Stats(), r.log.String()[:min(r.log.Len(), 500)])
				}
				time.Sleep(2 * time.Hour)
				r.want("after a day")
				if d := cmp.Diff(map[string][]string{"c": {`"a" cannot be looked up`}}, r.Problems()); d != "" {
					t.Error(d)
				}
				r.z.set("a", record{addrs: "192.0.2.2", ttl: time.Minute})
				time.Sleep(lookupTime + lastRetry)
				r.want("back", "192.0.2.2")
				if p := r.Problems(); len(p) > 0 {
					t.Errorf("problems %v, want none", p)
				}
			})
		})
	}
	for name, none := range map[string]record{"NXDOMAIN": {err: errAbsent, ttl: 10 * time.Second}, "no addresses": {ttl: 10 * time.Second}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := resolver(t)
				r.z.set("a", record{addrs: "192.0.2.1", ttl: time.Minute})
				r.apply("a")
				r.want("first", "192.0.2.1")
				r.z.set("a", none)
				time.Sleep(time.Minute)
				r.want("gone")
				if d := cmp.Diff(map[string][]string{"c": {`there is no name "a", or it has no address`}}, r.Problems()); d != "" {
					t.Error(d)
				}
				if s := r.Stats(); s.Unresolved != 1 || s.Absent != 1 || strings.Count(r.log.String(), "does not exist") != 1 {
					t.Errorf("%+v\n%s", s, r.log.String())
				}
				r.z.set("a", record{addrs: "192.0.2.1", ttl: time.Minute})
				time.Sleep(10 * time.Second) // the negative TTL
				r.want("back", "192.0.2.1")
			})
		})
	}
}

// TestOneFamilyFails: that AAAA is not answered costs neither the new IPv4 addresses nor the last good IPv6 ones.
func TestOneFamilyFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := resolver(t)
		r.z.set("a", record{addrs: "192.0.2.1 2001:db8::1", ttl: time.Minute})
		r.apply("a")
		r.want("first", "192.0.2.1", "[2001:db8::1]")
		r.z.set("a", record{addrs: "192.0.2.2", ttl: time.Minute, err: errors.New("AAAA: timeout")})
		time.Sleep(time.Minute)
		r.want("half an answer", "192.0.2.2", "[2001:db8::1]")
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if n := strings.Count(r.log.String(), "of one family"); n != 1 {
			t.Errorf("told %d times, want once\n%s", n, r.log.String())
		}
		r.z.set("a", record{addrs: "192.0.2.2", ttl: time.Minute})
		time.Sleep(time.Minute)
		r.want("a whole one", "192.0.2.2")
	})
}

// TestChangedName: the endpoints of before serve until the new name is known, and two seconds at most.
func TestChangedName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := resolver(t)
		r.z.set("a", record{addrs: "192.0.2.1", ttl: time.Minute})
		r.z.set("b", record{addrs: "192.0.2.2", ttl: time.Minute, delay: time.Second})
		r.z.set("dead", record{silent: true})
		r.z.set("absent", record{err: errAbsent, delay: time.Second})
		r.apply("a")
		r.want("a", "192.0.2.1")
		r.apply("b", "192.0.2.8")
		r.want("b is looked up: a stays", "192.0.2.1", "192.0.2.8")
		time.Sleep(time.Second)
		r.want("b is known", "192.0.2.2", "192.0.2.8")
		r.apply("dead")
		r.want("a dead name: b stays", "192.0.2.2", "192.0.2.8")
		time.Sleep(2*time.Second - time.Millisecond)
		r.want("for two seconds", "192.0.2.2", "192.0.2.8")
		time.Sleep(time.Millisecond)
		r.want("no longer")
		r.apply("192.0.2.7")
		r.want("an address", "192.0.2.7")
		r.apply("absent")
		r.want("a name instead of an address", "192.0.2.7")
		time.Sleep(time.Second)
		r.want("that does not exist")
		r.apply("192.0.2.7")
		r.apply("a")
		r.want("and back", "192.0.2.1")
	})
}

// TestForgottenNames: nobody looks up what no cluster names any more.
func TestForgottenNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := resolver(t)
		r.z.set("a", record{addrs: "192.0.2.1", ttl: 5 * time.Second})
		r.apply("a", "a")
		time.Sleep(time.Minute)
		synctest.Wait()
		r.apply("192.0.2.7")
		n := r.z.count("a")
		if n != 13 {
			t.Errorf("%d lookups in a minute at a TTL of 5 s, want 13", n)
		}
		time.Sleep(time.Minute)
		r.apply("a")
		synctest.Wait()
		r.Forget("c")
		time.Sleep(time.Minute)
		if got := r.z.count("a"); got != n+1 || len(r.byName) != 0 || len(r.due) != 0 {
			t.Errorf("%d lookups, want %d; %d names left", got, n+1, len(r.byName))
		}
	})
}

// TestDeadNames: names that nobody answers for hold up no change that does not bring them, are waited for together where one does,
// and do not make a good name late.
func TestDeadNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := resolver(t)
		r.z.set("good", record{addrs: "192.0.2.1", ttl: 5 * time.Second})
		took := func(limit time.Duration, apply func()) time.Duration {
			start := time.Now()
			apply()
			r.Wait(t.Context(), limit)
			return time.Since(start)
		}
		dead := func(n int) {
			for i := range n {
				name := fmt.Sprintf("dead%d", i)
				r.z.set(name, record{silent: true})
				c := r.set.Acquire(name)
				r.Apply(t.Context(), c, []ir.Endpoint{{Host: name, Port: 80, Ready: true}})
			}
		}
		if d := took(2*time.Second, func() { dead(50); r.apply("good") }); d != 2*time.Second {
			t.Errorf("the first change took %v, want 2s for 50 dead names together", d)
		}
		r.want("a good name beside 50 dead ones", "192.0.2.1")
		if d := took(50*time.Millisecond, func() { r.apply("good", "192.0.2.7") }); d != 0 {
			t.Errorf("a change without a new name took %v, want no time", d)
		}
		r.z.set("another", record{addrs: "192.0.2.3", ttl: time.Minute, delay: 3 * time.Millisecond})
		if d := took(50*time.Millisecond, func() { r.apply("good", "another") }); d != 3*time.Millisecond {
			t.Errorf("a change with a new good name took %v, want the 3ms of its lookup", d)
		}
		dead(1000)
		before := r.z.count("good")
		time.Sleep(10 * time.Minute)
		if n := r.z.count("good") - before; n != 120 {
			t.Errorf("the good name was looked up %d times in ten minutes beside 1000 dead ones, want 120", n)
		}
		r.z.set("good", record{addrs: "192.0.2.2", ttl: 5 * time.Second})
		time.Sleep(5 * time.Second)
		r.want("and it follows", "192.0.2.2", "192.0.2.3")
		r.mu.Lock()
		running := r.running
		r.mu.Unlock()
		for in, n := range running {
			if n > laneSize[in] {
				t.Errorf("lane %d: %d lookups at once, want %d at most", in, n, laneSize[in])
			}
		}
		synctest.Wait()
	})
}
