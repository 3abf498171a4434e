package edge

import (
	"context"
	"runtime"
	"runtime/metrics"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/proxy"
)

// Parts of the memory limit, in percent, from which on exchanges are refused, and those that collect whole bodies ended.
const (
	refuseAt = 90
	shedAt   = 95
)

const (
	memoryEvery  = 100 * time.Millisecond
	collectEvery = time.Second
)

// watchMemory sets the load of the data side by the memory in use, until ctx ends. What is in use is known from the last garbage
// collection. One comes by itself before the limit is reached; but after it, as long as everything is refused, hardly anything is
// allocated and the next one would be minutes away: so under load it is asked for.
func (e *Edge) watchMemory(ctx context.Context) {
	used := e.o.Memory
	if used == nil {
		used = Memory
	}
	tick := time.NewTicker(memoryEvery)
	defer tick.Stop()
	var collected time.Time
	for {
		n := used()
		old, now := e.proxy.Load(), load(n, e.o.MemoryLimit)
		if old != now {
			e.proxy.SetLoad(now)
			words := []any{"used", n, "limit", e.o.MemoryLimit}
			switch {
			case now == proxy.LoadNormal:
				e.o.Log.Info("memory suffices again", words...)
			case now > old:
				e.o.Log.Warn("memory is short: new requests are answered 503", append(words, "shedding", now == proxy.LoadShedding)...)
			}
		}
		select {
		case <-ctx.Done():
			return
		case at := <-tick.C:
			if now != proxy.LoadNormal && at.Sub(collected) >= collectEvery {
				collected = at
				runtime.GC()
			}
		}
	}
}

// load is what used bytes of limit mean.
func load(used, limit int64) proxy.Load {
	switch percent := float64(used) * 100 / float64(limit); {
	case percent >= shedAt:
		return proxy.LoadShedding
	case percent >= refuseAt:
		return proxy.LoadRefusing
	}
	return proxy.LoadNormal
}

// Memory is the memory of the process that a garbage collection would not give back, in bytes: what GOMEMLIMIT counts, less the heap, plus
// what of the heap was alive at the last collection. The heap as it is would tell nothing, since it may grow up to the limit
// before garbage is collected.
func Memory() int64 {
	s := [...]metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s[:])
	n := int64(s[0].Value.Uint64()) + int64(s[5].Value.Uint64())
	for _, heap := range s[1:5] {
		n -= int64(heap.Value.Uint64())
	}
	return n
}
