package limiter

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain ignores a pause of the client of a cluster, which ends by itself within a second after Close.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1"))
}

// server is a real redis-server on loopback, ended with the test.
type server struct {
	t    testing.TB
	addr string
	args []string
	cmd  *exec.Cmd
}

func redisServer(t testing.TB, args ...string) *server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		if slices.Contains(strings.Split(os.Getenv("GATEHOUSE_REQUIRE"), ","), "redis") {
			t.Fatal("GATEHOUSE_REQUIRE names redis, but there is no redis-server: install it")
		}
		t.Skip("no redis-server on this machine: install it to run this test")
	}
	n, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, addr: n.Addr().String()}
	n.Close()
	_, port, _ := net.SplitHostPort(s.addr)
	s.args = append([]string{"--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", t.TempDir()}, args...)
	s.start()
	t.Cleanup(s.kill)
	return s
}

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command("redis-server", s.args...)
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, "redis-server answers", func() bool { return s.do("PING") != "" })
}

func (s *server) kill() {
	s.cmd.Process.Signal(syscall.SIGCONT)
	s.cmd.Process.Kill()
	s.cmd.Wait()
}

func (s *server) signal(sig syscall.Signal) {
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// do is the first line of what a command answers, "" if there is no server.
func (s *server) do(command string) string {
	c, err := net.DialTimeout("tcp", s.addr, time.Second)
	if err != nil {
		return ""
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Second))
	fmt.Fprintf(c, "%s\r\n", command)
	line, _ := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line)
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not within 10 s: %s", what)
}

// process is a limiter as another process would have it.
func (s *server) process(o Options) *Limiter {
	s.t.Helper()
	r, err := ParseRedisURL("redis://" + s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	o.Redis = r
	if o.StoreTimeout == 0 {
		o.StoreTimeout = 500 * time.Millisecond // a busy machine is no fault of the store
	}
	l := New(o)
	s.t.Cleanup(l.Close)
	return l
}

func (s *server) processes(n int) []*Limiter {
	var ls []*Limiter
	for range n {
		ls = append(ls, s.process(Options{}))
	}
	return ls
}

// offer lets each process ask at a pace of its own for a time, and counts what passed.
func offer(ls []*Limiter, a Ask, perSecond []int, during time.Duration) (passed, refused int64, took time.Duration) {
	var mu sync.Mutex
	var g sync.WaitGroup
	start := time.Now()
	for i, l := range ls {
		if perSecond[i] == 0 {
			continue
		}
		g.Go(func() {
			var yes, no int64
			out := make([]Answer, 1)
			for n := int64(0); ; n++ {
				since := time.Since(start)
				if since > during {
					break
				}
				if due := time.Duration(n) * time.Second / time.Duration(perSecond[i]); due > since {
					time.Sleep(due - since)
				}
				ok := false
				if a.Limit.Strict {
					ok = l.DecideStrict(context.Background(), time.Now(), []Ask{a}, out)
				} else {
					ok = l.Decide(time.Now(), []Ask{a}, out)
				}
				if ok {
					yes++
				} else {
					no++
				}
			}
			mu.Lock()
			passed, refused = passed+yes, refused+no
			mu.Unlock()
		})
	}
	g.Wait()
	return passed, refused, time.Since(start)
}

func TestSharedBy3Processes(t *testing.T) {
	s := redisServer(t)
	const during = 5 * time.Second
	var g sync.WaitGroup
	for _, tt := range []struct {
		name   string
		rate   Rate
		strict bool
		offer  []int
	}{
		{"leased-even", Rate{Limit: 300, Period: time.Second}, false, []int{500, 500, 500}},
		{"leased-uneven", Rate{Limit: 300, Period: time.Second}, false, []int{1000, 60, 60}},
		{"leased-small-burst", Rate{Limit: 1000, Period: time.Second, Burst: 50}, false, []int{1000, 1000, 1000}},
		{"leased-slow", Rate{Limit: 20, Period: time.Second}, false, []int{200, 200, 200}},
		{"leased-flood", Rate{Limit: 500, Period: time.Second, Burst: 500}, false, []int{20_000, 20_000, 20_000}},
		{"strict", Rate{Limit: 200, Period: time.Second, Burst: 100}, true, []int{300, 300, 300}},
	} {
		ls := s.processes(3)
		a := Ask{Limit: &Limit{Rates: []Rate{tt.rate}, Shared: true, Strict: tt.strict}, Key: KeyOf(SeedOf(tt.name)), Cost: 1}
		for _, l := range ls { // let it connect
			p := a
			p.Peek = true
			l.DecideStrict(t.Context(), time.Now(), []Ask{p}, make([]Answer, 1))
		}
		g.Go(func() {
			passed, refused, took := offer(ls, a, tt.offer, during)
			want := float64(tt.rate.burst()) + float64(tt.rate.Limit)*float64(took)/float64(tt.rate.Period)
			off := (float64(passed) - want) / want * 100
			t.Logf("%-18s %d passed, %d refused, want %.0f: off by %+.2f %%", tt.name, passed, refused, want, off)
			if off > 5 || off < -5 || tt.strict && float64(passed) > want {
				t.Errorf("%s: %d passed, want %.0f", tt.name, passed, want)
			}
		})
	}
	g.Wait()
}

// TestSharedOneProcessGetsAll offers one of three processes nearly all that the limit allows: nothing may be refused.
func TestSharedOneProcessGetsAll(t *testing.T) {
	s := redisServer(t)
	ls := s.processes(3)
	a := Ask{Limit: &Limit{Rates: []Rate{{Limit: 500, Period: time.Second, Burst: 100}}, Shared: true}, Key: KeyOf(SeedOf("all")), Cost: 1}
	for turn := range 3 {
		perSecond := make([]int, 3)
		perSecond[turn] = 450
		passed, refused, _ := offer(ls, a, perSecond, time.Second)
		if refused != 0 {
			t.Errorf("process %d was refused %d of %d", turn, refused, passed+refused)
		}
	}
	// A burst that is just the limit's, on a key of which all know already that nothing was taken.
	time.Sleep(300 * time.Millisecond)
	out := make([]Answer, 1)
	for n := range 100 {
		if !ls[0].Decide(time.Now(), []Ask{a}, out) {
			t.Fatalf("request %d of a burst of 100 was refused: %+v", n, out[0])
		}
	}
}

func TestSharedQuota(t *testing.T) {
	s := redisServer(t)
	ls := s.processes(3)
	q := &Quota{Limit: 400, Window: Year}
	leased := Ask{Limit: &Limit{Quota: q, Shared: true}, Key: KeyOf(SeedOf("leased")), Cost: 1}
	passed, _, _ := offer(ls, leased, []int{200, 200, 200}, 2*time.Second)
	t.Logf("leased: %d of 400 passed", passed)
	if passed < 400 || passed > 420 {
		t.Errorf("leased: %d passed, want 400", passed)
	}
	strict := Ask{Limit: &Limit{Quota: q, Shared: true, Strict: true}, Key: KeyOf(SeedOf("strict")), Cost: 1}
	if passed, _, _ := offer(ls, strict, []int{200, 200, 200}, 2*time.Second); passed != 400 {
		t.Errorf("strict: %d passed, want 400", passed)
	}
	// What one gives back the others have.
	for range 3 {
		ls[0].Refund(time.Now(), strict)
	}
	out := make([]Answer, 1)
	eventually(t, "others may use what was given back", func() bool {
		p := strict
		p.Cost, p.Peek = 3, true
		return ls[1].DecideStrict(t.Context(), time.Now(), []Ask{p}, out)
	})
	if next := ls[2].DecideStrict(t.Context(), time.Now(), []Ask{{Limit: strict.Limit, Key: strict.Key, Cost: 4}}, out); next {
		t.Error("more passed than was given back")
	} else if out[0].Rate != ByQuota || out[0].Remaining != 3 {
		t.Errorf("%+v, want a refusal by the quota with 3 left", out[0])
	}
}

// TestStrictAllOrNothing: one script decides all, local limits go with it.
func TestStrictAllOrNothing(t *testing.T) {
	s := redisServer(t)
	l := s.process(Options{})
	rate := func(n int64) *Limit {
		return &Limit{Rates: []Rate{{Limit: n, Period: time.Hour}}, Shared: true, Strict: true, Concurrency: 5}
	}
	wide, narrow := rate(10), rate(2)
	local := &Limit{Rates: []Rate{{Limit: 10, Period: time.Hour}}, Concurrency: 5}
	asks := []Ask{{Limit: wide, Key: Key{1}, Cost: 1}, {Limit: narrow, Key: Key{2}, Cost: 1}, {Limit: local, Key: Key{3}, Cost: 1}}
	out := make([]Answer, 3)
	now := time.Now()
	for i, want := range []bool{true, true, false, false} {
		if got := l.DecideStrict(t.Context(), now, asks, out); got != want {
			t.Fatalf("ask %d: %v %+v, want %v", i, got, out, want)
		}
	}
	if out[1].Allowed || out[1].Rate != 0 || out[1].RetryAfter < 29*time.Minute || out[1].RetryAfter > 30*time.Minute {
		t.Errorf("the narrow limit says %+v, want half an hour", out[1])
	}
	peek := []Ask{asks[0], asks[2]}
	peek[0].Peek, peek[1].Peek = true, true
	peek[0].Cost, peek[1].Cost = 8, 8
	if !l.DecideStrict(t.Context(), now, peek, out[:2]) {
		t.Errorf("refused batches were counted: %+v", out[:2])
	}
	peek[0].Cost = 9
	if l.DecideStrict(t.Context(), now, peek, out[:2]) {
		t.Errorf("allowed batches were not counted: %+v", out[:2])
	}
	for range 2 {
		l.Release(asks[0])
		l.Release(asks[2])
	}
	for _, i := range []int{0, 2} {
		if e := l.shards[asks[i].Key.shard()].find(asks[i].Key); e.flight != 0 {
			t.Errorf("ask %d: %d places taken, want 0", i, e.flight)
		}
	}
	// The same key twice in a batch counts twice.
	twice := []Ask{{Limit: narrow, Key: Key{9}, Cost: 1}, {Limit: narrow, Key: Key{9}, Cost: 2}}
	if l.DecideStrict(t.Context(), now, twice, out[:2]) {
		t.Error("1+2 passed a limit of 2")
	}
	none := []Ask{{Limit: &Limit{Rates: []Rate{{Limit: 0, Period: time.Second}}, Shared: true, Strict: true}, Cost: 1}}
	if l.DecideStrict(t.Context(), now, none, out[:1]) || out[0].RetryAfter != 0 {
		t.Errorf("a limit of 0: %+v", out[0])
	}
}

// TestReportTwice sends a batch again, as after a timeout of which nobody knows whether it was counted.
func TestReportTwice(t *testing.T) {
	s := redisServer(t)
	l := s.process(Options{})
	a := Ask{Limit: &Limit{Rates: []Rate{{Limit: 100, Period: time.Hour}}, Quota: &Quota{Limit: 100, Window: Year}, Shared: true}, Cost: 7}
	l.Charge(time.Now(), a)
	eventually(t, "the charge is told", func() bool { return l.shared.Load() == 0 })
	l.Close()
	key := l.store.prefix + strings.Repeat("00", 16)
	start, end := Year.bounds(time.Now(), nil)
	window := fmt.Sprintf("%s:%d", key, start)
	if got := s.do("GET " + window); got != "$1" {
		t.Fatalf("GET %s = %q", window, got)
	}
	again := New(Options{Redis: l.store.redis})
	defer again.Close()
	again.store.me, again.store.batch = l.store.me, 1
	again.store.outbox = []report{{pend: pend{limit: a.Limit, shared: true, rates: 7, quota: 7, end: end}, start: start}}
	again.store.connect(again)
	defer (*again.store.client.Load()).Close()
	again.store.tell(t.Context(), again, false)
	if len(again.store.outbox) != 0 {
		t.Fatal("the batch was not taken")
	}
	if got := s.do("INCRBY " + window + " 0"); got != ":7" {
		t.Errorf("the window has %s, want :7", got)
	}
	e := again.shards[0].find(a.Key)
	if owed := time.Duration(e.at[0] - again.nanos(time.Now())); owed > 7*36*time.Second || owed < 6*36*time.Second || e.count != 7 {
		t.Errorf("learnt: %v owed and %d used, want 7*36s and 7", owed, e.count)
	}
}

// TestCloseTells: what was counted right before Close is told.
func TestCloseTells(t *testing.T) {
	s := redisServer(t)
	lim := &Limit{Rates: []Rate{{Limit: 1000, Period: time.Hour}}, Shared: true}
	l := s.process(Options{})
	out := make([]Answer, 1)
	ask := []Ask{{Limit: lim, Cost: 1}}
	l.Decide(time.Now(), ask, out)
	eventually(t, "the first ask is told", func() bool { return l.shared.Load() == 0 })
	for range 9 {
		l.Decide(time.Now(), ask, out)
	}
	l.Close()
	peek := *lim
	peek.Strict = true
	other := s.process(Options{})
	if other.DecideStrict(t.Context(), time.Now(), []Ask{{Limit: &peek, Peek: true}}, out); out[0].Remaining != 990 || out[0].Degraded {
		t.Errorf("%+v, want 990 left", out[0])
	}
}

func TestRedisCluster(t *testing.T) {
	s := redisServer(t, "--cluster-enabled", "yes")
	if got := s.do("CLUSTER ADDSLOTSRANGE 0 16383"); got != "+OK" {
		t.Skipf("this redis-server makes no cluster: %s", got)
	}
	eventually(t, "the cluster is up", func() bool { return strings.HasPrefix(s.do("SET x y"), "+OK") })
	l := s.process(Options{})
	lim := &Limit{Rates: []Rate{{Limit: 2, Period: time.Hour}}, Shared: true, Strict: true}
	asks, out := []Ask{{Limit: lim, Key: KeyOf(SeedOf("a")), Cost: 1}, {Limit: lim, Key: KeyOf(SeedOf("b")), Cost: 1}}, make([]Answer, 2)
	for i, want := range []bool{true, true, false} {
		if got := l.DecideStrict(t.Context(), time.Now(), asks, out); got != want || out[0].Degraded {
			t.Fatalf("ask %d: %v %+v, want %v", i, got, out, want)
		}
	}
}

// BenchmarkDecideStrict asks a real server, from two goroutines a processor.
func BenchmarkDecideStrict(b *testing.B) {
	l := redisServer(b).process(Options{})
	lim := &Limit{Rates: []Rate{{Limit: 1_000_000, Period: time.Second}}, Shared: true, Strict: true}
	l.DecideStrict(b.Context(), time.Now(), []Ask{{Limit: lim, Peek: true}}, make([]Answer, 1))
	b.SetParallelism(2)
	b.RunParallel(func(pb *testing.PB) {
		out := make([]Answer, 1)
		for pb.Next() {
			if !l.DecideStrict(b.Context(), time.Now(), []Ask{{Limit: lim, Key: key("b"), Cost: 1}}, out) {
				b.Fatalf("%+v", out[0])
			}
		}
	})
}
