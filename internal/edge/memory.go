package edge

import (
	"context"
	"runtime"
	"runtime/metrics"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/listener"
	"github.com/gatehouse-io/gatehouse/internal/proxy"
)

// Parts of the memory limit, in percent: from which on connections without a request are closed, down to which, from which on exchanges are
// refused, and from which on those that collect whole bodies, wait, or are relays are ended.
const (
	spareAt  = 80
	spareTo  = 75
	refuseAt = 90
	shedAt   = 95
)

// headPart is the part of the limit that incomplete heads may take beyond a buffer each: a tenth.
const headPart = 10

const (
	memoryEvery  = 100 * time.Millisecond
	collectEvery = time.Second
)

// watchMemory sets the load of the data side by the memory in use, until ctx ends. What is in use is known from the last garbage
// collection. One comes by itself before the limit is reached; but after it, as long as everything is refused, hardly anything is
// allocated and the next one would be minutes away: so under load it is asked for.
func (e *Edge) watchMemory(ctx context.Context) {
	used, filled := e.o.Memory, func() int64 { return 0 }
	if used == nil {
		used, filled = func() int64 { return inUse(Memory(), resident(), e.o.MemoryLimit) }, resident
	}
	tick := time.NewTicker(memoryEvery)
	defer tick.Stop()
	var collected time.Time
	cut := false
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
		short := n*100 >= e.o.MemoryLimit*spareAt
		e.driver.Tighten(short)
		select {
		case <-ctx.Done():
			return
		case at := <-tick.C:
			// What came since the last collection may be garbage or not. When memory fills with it, it is time to know.
			if (short || filled()*100 >= e.o.MemoryLimit*spareAt) && at.Sub(collected) >= collectEvery {
				collected = at
				// What is used is known from a collection: one before, so that no garbage costs a connection; the next one tells what it gave.
				runtime.GC()
				cut = e.shed(used(), cut)
			}
		}
	}
}

// shed closes connections that take memory for nothing yet, and under pressure those that take it for long, by what used bytes exceed. cut
// says that the last look did, too: a burst is one line of the log.
func (e *Edge) shed(used int64, cut bool) bool {
	limit := e.o.MemoryLimit
	if used*100 < limit*spareAt {
		return false
	}
	want := used - limit/100*spareTo
	closed, bytes := e.listeners.Shed(want, listener.Heading, listener.Lingering, listener.Waiting, listener.Handshaking)
	if used*100 >= limit*shedAt && bytes < want {
		n, _ := e.listeners.Shed(want-bytes, listener.Collecting, listener.Relaying, listener.Stalled)
		closed += n
	}
	if closed > 0 && !cut {
		e.o.Log.Warn("memory is short: connections are closed", "used", used, "limit", limit, "connections", closed)
	}
	return closed > 0
}

// inUse is the bytes in use by what Go counts as alive and by what is resident (0: not known). Go counts buffers that nothing was ever
// written to; what is resident has garbage in it: so it is the lesser of the two. But what Go counts is what it collects garbage by,
// without end when that alone is above the limit.
func inUse(counted, resident, limit int64) int64 {
	if resident == 0 || resident > counted {
		return counted
	}
	return max(resident, counted-limit/10)
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
