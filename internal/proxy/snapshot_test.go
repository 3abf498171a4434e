package proxy

import (
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/telemetry"
)

// TestAnExchangeReleasesNoSnapshot: the last exchange of a retired snapshot says so, and whoever collects releases it, once.
func TestAnExchangeReleasesNoSnapshot(t *testing.T) {
	w := newWorld(t, 1, nil, nil)
	var f Flow
	w.begin(&f, "GET", "/app")
	w.edge.Swap(&Snapshot{})
	if w.edge.Collect(); w.released != 0 {
		t.Fatal("a snapshot in use was released")
	}
	f.End(time.Unix(2, 0))
	if w.released != 0 {
		t.Error("the last exchange released its snapshot")
	}
	select {
	case <-w.edge.Left():
	default:
		t.Fatal("nobody was told that a snapshot lost its last exchange")
	}
	w.edge.Collect()
	w.edge.Collect()
	if w.released != 1 {
		t.Errorf("released %d times, want 1", w.released)
	}
}

// TestEverySnapshotIsReleased, whatever swaps, exchanges and collections race.
func TestEverySnapshotIsReleased(t *testing.T) {
	e := NewEdge(NoRecorder())
	released := 0
	const n = 500
	e.Swap(&Snapshot{Release: func() { released++ }})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range uint32(4) {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					e.acquire(i).release(i)
				}
			}
		})
	}
	for range n {
		e.Swap(&Snapshot{Release: func() { released++ }})
		select {
		case <-e.Left():
			e.Collect()
		default:
		}
	}
	close(stop)
	wg.Wait()
	if e.Collect(); released != n || len(e.retired) != 0 {
		t.Errorf("%d of %d retired snapshots released, %d still known", released, n, len(e.retired))
	}
}

// sharded is a Recorder that notes the shards of exchanges.
type sharded struct {
	silent
	seen []uint32
}

func (s *sharded) Record(shard uint32, _ *exchange.Exchange, _ *telemetry.Listener, _ *telemetry.Route, _ time.Duration) {
	s.seen = append(s.seen, shard)
}

// TestExchangesAreCountedByConnection, not by the client's port, which Linux chooses even.
func TestExchangesAreCountedByConnection(t *testing.T) {
	r := &sharded{}
	e := NewEdge(r)
	e.Swap(&Snapshot{})
	var f Flow
	for shard := range uint32(4) {
		f.Begin(e, &ConnInfo{Group: "G", Port: 80, Shard: shard}, time.Unix(1, 0))
		f.Step(EventHead)
		f.End(time.Unix(2, 0))
	}
	for i, got := range r.seen {
		if got != uint32(i) {
			t.Errorf("connection %d counted in shard %d", i, got)
		}
	}
	if len(r.seen) != 4 {
		t.Errorf("%d exchanges recorded, want 4", len(r.seen))
	}
}
