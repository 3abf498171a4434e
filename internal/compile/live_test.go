package compile_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/gatehouse-io/gatehouse/internal/compile"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/policy/invalid"
	"github.com/gatehouse-io/gatehouse/internal/proxy"
	"github.com/gatehouse-io/gatehouse/internal/upstream"
)

// keeper is a step that opens live values.
type keeper struct {
	w           *workshop
	Keys        []string `json:"keys"`
	Broken      bool     `json:"broken"`
	Fields      []string `json:"fields"`
	Certificate bool     `json:"certificate"`
	Path        bool     `json:"path"`
}

// value is a live value that knows whether its work is under way.
type value struct{ running atomic.Bool }

func (k *keeper) Compile(env policy.Env) (policy.Handler, error) {
	k.w.compiled.Add(1)
	for _, key := range k.Keys {
		v := policy.Open(env, key, func() (*value, func(policy.Work)) {
			k.w.opened.Add(1)
			v := &value{}
			v.running.Store(true)
			return v, func(w policy.Work) {
				for w.Sleep(time.Second, nil) {
					k.w.turns.Add(1)
				}
				time.Sleep(k.w.slow)
				v.running.Store(false)
			}
		})
		k.w.mu.Lock()
		k.w.last[key] = v
		k.w.mu.Unlock()
	}
	if k.Broken {
		return policy.Handler{}, diag.Errorf("broken", "is broken")
	}
	return policy.Handler{Request: func(*exchange.Exchange) policy.Verdict { return policy.Verdict{} },
		Identity: k.Fields, ClientCertificate: k.Certificate, ReadsPath: k.Path}, nil
}

// workshop compiles steps that open live values, and counts.
type workshop struct {
	*compile.Compiler
	opened, compiled, turns atomic.Int64
	slow                    time.Duration // how long work takes to end
	mu                      sync.Mutex
	last                    map[string]*value
}

func newWorkshop() *workshop {
	w := &workshop{last: map[string]*value{}}
	steps := []policy.Step{invalid.Step(), {Name: "keeper", New: func() policy.Spec { return &keeper{w: w} }}}
	w.Compiler = compile.New(steps, upstream.NewSet(upstream.Rules{}), policy.Env{Live: compile.RunLive{}}, proxy.NoRecorder())
	return w
}

// runs reports whether the value of a key that was opened last is running.
func (w *workshop) runs(key string) bool {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last[key] != nil && w.last[key].running.Load()
}

func keep(spec string) *ir.Step { return step("keeper", spec) }

// end closes the workshop and lets timers that are left fire.
func (w *workshop) end() {
	w.Close()
	time.Sleep(time.Minute)
	synctest.Wait()
}

// TestLiveShared: one value for all hosts, steps and snapshots with its key; a step is compiled once for all hosts that share it.
func TestLiveShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorkshop()
		defer w.end()
		shared := keep(`{"keys":["a","a"]}`)
		one, two := host("one", prefix("/", shared), prefix("/x", shared)), host("two", prefix("/", shared, keep(`{"keys":["a","b"]}`)))
		first, _ := w.Compile(config(one, two))
		if w.compiled.Load() != 2 || w.opened.Load() != 2 {
			t.Fatalf("%d steps compiled, %d values opened, want 2 and 2", w.compiled.Load(), w.opened.Load())
		}
		second, _ := w.Compile(config(one, host("three", prefix("/", keep(`{"keys":["a"]}`)))))
		first.Release()
		time.Sleep(31 * time.Second)
		if w.opened.Load() != 2 || !w.runs("a") || w.runs("b") {
			t.Errorf("%d values opened; a runs: %v, b runs: %v", w.opened.Load(), w.runs("a"), w.runs("b"))
		}
		second.Release()
	})
}

// TestLiveLingers: a value ends 30 s after the last snapshot that opened it, counted from the last time that happened.
func TestLiveLingers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorkshop()
		defer w.end()
		with, without := func() *ir.Config { return config(host("one", prefix("/", keep(`{"keys":["a"]}`)))) }, config(host("one", prefix("/")))
		s, _ := w.Compile(with())
		after := func(c *ir.Config) {
			next, _ := w.Compile(c)
			s.Release()
			s = next
		}
		after(without) // at 0 s: a has no user
		time.Sleep(20 * time.Second)
		after(with()) // and at 20 s one again
		time.Sleep(5 * time.Second)
		after(without) // but not since 25 s
		time.Sleep(29 * time.Second)
		if !w.runs("a") || w.opened.Load() != 1 {
			t.Errorf("after 29 s it runs: %v, %d were opened", w.runs("a"), w.opened.Load())
		}
		time.Sleep(2 * time.Second)
		if w.runs("a") {
			t.Error("after 31 s it still runs")
		}
		after(with())
		if !w.runs("a") || w.opened.Load() != 2 {
			t.Error("a value that ended is not opened anew")
		}
		s.Release()
	})
}

// TestLiveOld: a snapshot that exchanges still use holds what it opened.
func TestLiveOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorkshop()
		defer w.end()
		old, _ := w.Compile(config(host("one", prefix("/", keep(`{"keys":["a"]}`)))))
		next, _ := w.Compile(config(host("one", prefix("/"))))
		time.Sleep(time.Hour)
		if !w.runs("a") {
			t.Error("it ended under a snapshot that is in use")
		}
		old.Release()
		time.Sleep(31 * time.Second)
		if w.runs("a") {
			t.Error("it outlives its last snapshot")
		}
		next.Release()
	})
}

// TestLiveBroken: a policy that breaks and is mended finds its value where it was; what a broken one opened ends too.
func TestLiveBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorkshop()
		defer w.end()
		good, _ := w.Compile(config(host("one", prefix("/", keep(`{"keys":["a"]}`)))))
		bad, faults := w.Compile(config(host("one", prefix("/", keep(`{"keys":["b"],"broken":true}`)))))
		good.Release()
		if len(faults) != 1 {
			t.Fatalf("%v", faults)
		}
		time.Sleep(29 * time.Second)
		mended, _ := w.Compile(config(host("one", prefix("/", keep(`{"keys":["a"]}`)))))
		bad.Release()
		time.Sleep(time.Minute)
		if !w.runs("a") || w.runs("b") || w.opened.Load() != 2 {
			t.Errorf("a runs: %v, b runs: %v, %d opened", w.runs("a"), w.runs("b"), w.opened.Load())
		}
		mended.Release()
	})
}

// TestLiveClose: Close ends all work and waits for it, and nothing is started afterwards.
func TestLiveClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorkshop()
		w.slow = 5 * time.Second
		s, _ := w.Compile(config(host("one", prefix("/", keep(`{"keys":["a","b"]}`)))))
		synctest.Wait()
		began := time.Now()
		w.Close()
		if took := time.Since(began); took < 5*time.Second || took > 6*time.Second {
			t.Errorf("Close took %v", took)
		}
		if w.runs("a") || w.runs("b") {
			t.Error("work goes on")
		}
		late, _ := w.Compile(config(host("one", prefix("/", keep(`{"keys":["c"]}`)))))
		turns := w.turns.Load()
		time.Sleep(time.Minute)
		if w.turns.Load() != turns {
			t.Error("work began after Close")
		}
		s.Release()
		late.Release()
		w.Close()
	})
}

// TestLiveRace compiles while older snapshots are let go of elsewhere.
func TestLiveRace(t *testing.T) {
	defer goleak.VerifyNone(t)
	w := newWorkshop()
	var wg sync.WaitGroup
	for i := range 200 {
		s, _ := w.Compile(config(host("one", prefix("/", keep(fmt.Sprintf(`{"keys":["k%d","all"],"broken":%v}`, i%3, i%5 == 0))))))
		wg.Go(s.Release)
	}
	s, _ := w.Compile(config(host("one", prefix("/", keep(`{"keys":["all"]}`)))))
	wg.Wait()
	if n := w.opened.Load(); n != 4 {
		t.Errorf("%d values were opened, want 4", n)
	}
	w.Close()
	s.Release()
}

// TestGuarded: what one route's steps need of clients is asked on the whole listener, and on no other; also of hosts that were compiled
// earlier.
func TestGuarded(t *testing.T) {
	w := newWorkshop()
	defer w.Close()
	cfg := func(hosts ...*ir.Host) *ir.Config {
		c := config(hosts...)
		c.Listeners = append(c.Listeners, &ir.Listener{Key: "m", Group: "g", Port: 81, Protocol: ir.HTTP})
		return c
	}
	one := host("one", prefix("/"), prefix("/x", keep(`{"fields":["X-User","x_Role"]}`)))
	two := host("two", prefix("/", keep(`{"fields":["X_USER","X-Plan"],"certificate":true}`)))
	other := &ir.Host{Listener: "m", Hostname: "one", Routes: []*ir.Route{prefix("/", keep(`{"fields":["X-Other"]}`))}}
	s, _ := w.Compile(cfg(one, two, other))
	for range 2 {
		l, m := s.Listeners["l"], s.Listeners["m"]
		if !slices.Equal(l.Identity, []string{"x-plan", "x-role", "x-user"}) || !l.ClientCertificate || !slices.Equal(m.Identity, []string{"x-other"}) || m.ClientCertificate {
			t.Errorf("l: %v %v; m: %v %v", l.Identity, l.ClientCertificate, m.Identity, m.ClientCertificate)
		}
		s, _ = w.Compile(cfg(one, two, other)) // nothing changed
	}
	if s, _ = w.Compile(cfg(one, other)); s.Listeners["l"].ClientCertificate || !slices.Equal(s.Listeners["l"].Identity, []string{"x-role", "x-user"}) {
		t.Errorf("without two: %+v", s.Listeners["l"])
	}
	if n := w.compiled.Load(); n != 3 {
		t.Errorf("%d steps were compiled, want 3", n)
	}
}

// TestPathReaders: one route whose guard reads the path makes its whole host path-sensitive; a step behind the guards does not.
func TestPathReaders(t *testing.T) {
	w := newWorkshop()
	defer w.Close()
	reads, behind := keep(`{"path":true}`), keep(`{"path":true}`)
	behind.Phase = policy.TransformRequest.String()
	for i, x := range []struct {
		routes []*ir.Route
		want   bool
	}{
		{[]*ir.Route{prefix("/", reads)}, true},
		{[]*ir.Route{prefix("/"), prefix("/x", reads)}, true},
		{[]*ir.Route{prefix("/", behind)}, false},
		{[]*ir.Route{prefix("/", keep(`{"fields":["X-A"]}`))}, false},
	} {
		s, _ := w.Compile(config(host("h", x.routes...)))
		if got := find(t, s, "h", "/").PathSensitive; got != x.want {
			t.Errorf("%d: path-sensitive %v, want %v", i, got, x.want)
		}
		s.Release()
	}
}
