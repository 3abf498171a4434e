package upstream

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
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
	names map[string][]netip.Addr
	asked int
}

func (z *zone) set(name string, as ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.names == nil {
		z.names = map[string][]netip.Addr{}
	}
	z.names[name] = nil
	for _, a := range as {
		z.names[name] = append(z.names[name], netip.MustParseAddr(a))
	}
}

func (z *zone) lookup(_ context.Context, network, host string) ([]netip.Addr, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked++
	as, ok := z.names[host]
	if !ok || network != "ip" {
		return nil, errors.New("no such host")
	}
	return append([]netip.Addr(nil), as...), nil
}

func named1(host string) []ir.Endpoint {
	return []ir.Endpoint{{Host: host, Port: 8080, Ready: true, Serving: true}}
}

func TestResolver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{}
		z.set("a.example", "192.0.2.2", "192.0.2.1")
		set := NewSet(Rules{})
		c := set.Acquire("c")
		r := NewResolver(set, z.lookup, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go r.Run(ctx)
		want := func(when string, addrs ...string) {
			t.Helper()
			if d := cmp.Diff(addrs, texts(c.Endpoints())); d != "" {
				t.Errorf("%s:\n%s", when, d)
			}
		}
		r.Apply(ctx, c, append(named1("a.example"), ir.Endpoint{Host: "::ffff:192.0.2.9", Port: 8080, Ready: true}))
		want("Apply", "192.0.2.1:8080", "192.0.2.2:8080", "192.0.2.9:8080")

		z.set("a.example", "192.0.2.1", "192.0.2.3")
		time.Sleep(refresh)
		synctest.Wait()
		want("looked up again", "192.0.2.1:8080", "192.0.2.3:8080", "192.0.2.9:8080")

		z.set("a.example") // an answer without addresses
		time.Sleep(refresh)
		synctest.Wait()
		want("no address: the last good ones", "192.0.2.1:8080", "192.0.2.3:8080", "192.0.2.9:8080")
		z.mu.Lock()
		delete(z.names, "a.example")
		z.mu.Unlock()
		time.Sleep(refresh)
		synctest.Wait()
		want("an error: the last good ones", "192.0.2.1:8080", "192.0.2.3:8080", "192.0.2.9:8080")

		r.Apply(ctx, c, named1("a.example"))
		want("applied while DNS fails", "192.0.2.1:8080", "192.0.2.3:8080")
		r.Apply(ctx, c, []ir.Endpoint{{Host: "192.0.2.7", Port: 1, Ready: true}})
		want("no names left", "192.0.2.7:1")
		asked := z.asked
		time.Sleep(3 * refresh)
		synctest.Wait()
		if z.asked != asked {
			t.Errorf("%d queries for a cluster without names", z.asked-asked)
		}
		r.Apply(ctx, c, named1("a.example"))
		r.Forget("c")
		asked = z.asked
		time.Sleep(3 * refresh)
		synctest.Wait()
		if z.asked != asked {
			t.Errorf("%d queries for a cluster that was forgotten", z.asked-asked)
		}
	})
}

// TestResolverSlowName: Apply waits two seconds for a name and no longer.
func TestResolverSlowName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := NewSet(Rules{})
		c := set.Acquire("c")
		r := NewResolver(set, func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, slog.New(slog.DiscardHandler))
		start := time.Now()
		r.Apply(t.Context(), c, named1("slow.example"))
		if took := time.Since(start); took != 2*time.Second || c.Pick(Choice{}) != nil {
			t.Errorf("Apply took %v, want 2s and no endpoint", took)
		}
	})
}
