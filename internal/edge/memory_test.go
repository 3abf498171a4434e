package edge

import (
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/gatehouse-io/gatehouse/internal/proxy"
)

func TestLoad(t *testing.T) {
	for used, want := range map[int64]proxy.Load{0: proxy.LoadNormal, 899: proxy.LoadNormal, 900: proxy.LoadRefusing, 949: proxy.LoadRefusing,
		950: proxy.LoadShedding, 2000: proxy.LoadShedding} {
		if got := load(used, 1000); got != want {
			t.Errorf("load(%d, 1000) = %d, want %d", used, got, want)
		}
	}
}

// TestMemoryCountsWhatIsAlive: what is held counts, garbage does not, and the count falls when it is let go.
func TestMemoryCountsWhatIsAlive(t *testing.T) {
	const size = 64 << 20
	runtime.GC()
	before := Memory()
	if before <= 0 {
		t.Fatalf("Memory() = %d, want more than nothing", before)
	}
	held := make([]byte, size)
	runtime.GC()
	if grown := Memory() - before; grown < size*9/10 || grown > size*3/2 {
		t.Errorf("with %d bytes more alive Memory grew by %d", size, grown)
	}
	// Without a collection meanwhile: what is allocated while one runs counts as alive until the next.
	percent := debug.SetGCPercent(-1)
	for range 256 {
		garbage := make([]byte, size/64)
		garbage[0] = held[0]
	}
	if grown := Memory() - before; grown > size*3/2 {
		t.Errorf("with garbage beside %d bytes alive Memory grew by %d", size, grown)
	}
	debug.SetGCPercent(percent)
	runtime.KeepAlive(held) // and from here on it is garbage
	runtime.GC()
	if grown := Memory() - before; grown > size/4 {
		t.Errorf("with nothing more alive Memory grew by %d", grown)
	}
}

// TestOverloadCountsWhatIsResident: buffers that nothing was written to do not count, unless the collector could not keep up with them;
// garbage does not either.
func TestOverloadCountsWhatIsResident(t *testing.T) {
	for _, x := range []struct {
		what                           string
		counted, resident, limit, want int64
	}{
		{"untouched buffers", 900, 850, 1000, 850},
		{"many untouched buffers", 1050, 300, 1000, 950},
		{"garbage", 500, 950, 1000, 500},
		{"another system", 700, 0, 1000, 700},
	} {
		if got := inUse(x.counted, x.resident, x.limit); got != x.want {
			t.Errorf("%s: inUse(%d, %d, %d) = %d, want %d", x.what, x.counted, x.resident, x.limit, got, x.want)
		}
	}
	if n := resident(); runtime.GOOS == "linux" && (n < 1<<20 || n > 1<<40) {
		t.Errorf("resident() = %d, want what this process has", n)
	}
}
