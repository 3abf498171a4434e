package upstream

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"sort"
	"time"
)

// Choice is what an endpoint is picked by.
type Choice struct {
	Now   time.Time
	Avoid *Endpoint // left out unless there is no other
	Hash  uint64    // of the request's key; 0: it has none
}

// Pick chooses an endpoint by the cluster's balancer: by turns; of two random ones that with fewer requests; or by a consistent
// hash. nil: no endpoint takes requests.
func (c *Cluster) Pick(q Choice) *Endpoint {
	l := c.current(q.Now)
	n := uint64(len(l.usable))
	switch n {
	case 0:
		return nil
	case 1:
		return l.usable[0]
	}
	s := c.settings.Load()
	switch {
	case s.Hash != nil && q.Hash != 0 && len(l.ring) > 0: // it may have come between the list and the settings
		return c.pickHash(l, q, s.Hash.Load)
	case len(l.usable) < large:
		return c.pick(l, q, s)
	}
	var e *Endpoint
	for range redraws {
		if e = c.pick(l, q, s); !l.skip(e) {
			break
		}
	}
	return e
}

// redraws is how often an endpoint of a large cluster is picked again that has been ejected since they were listed.
const redraws = 8

func (c *Cluster) pick(l *list, q Choice, s *Settings) *Endpoint {
	switch {
	case s.slowStart > 0:
		return c.pickWarm(l, q, s)
	case s.least:
		return pickLeast(l.usable, q.Avoid)
	}
	return c.pickNext(l, q.Avoid)
}

func (c *Cluster) pickNext(l *list, avoid *Endpoint) *Endpoint {
	n := uint64(len(l.usable))
	for range n {
		e := l.usable[(c.next.Add(1)-1)%n]
		if e != avoid {
			return e
		}
	}
	return avoid
}

// pickWarm picks again, now and then, where an endpoint has just come: its share grows from a tenth to the whole while it warms
// up. What it declines is drawn at random, so that all others get their part of it and not the next in turn. Of four draws the last one
// counts whatever it is.
func (c *Cluster) pickWarm(l *list, q Choice, s *Settings) *Endpoint {
	var e *Endpoint
	for i := range 4 {
		switch {
		case s.least:
			e = pickLeast(l.usable, q.Avoid)
		case i == 0:
			e = c.pickNext(l, q.Avoid)
		default:
			e = firstOther(l.usable, rand.Uint64N(uint64(len(l.usable))), q.Avoid)
		}
		joined := e.joined.Load()
		if joined == 0 {
			return e
		}
		age := time.Duration(q.Now.UnixNano() - joined)
		if age >= s.slowStart {
			e.joined.CompareAndSwap(joined, 0)
			return e
		}
		if share := 0.1 + 0.9*float64(max(age, 0))/float64(s.slowStart); rand.Float64() < share {
			return e
		}
	}
	return e
}

// pickLeast is the power of two choices (Mitzenmacher, 2001).
func pickLeast(es []*Endpoint, avoid *Endpoint) *Endpoint {
	n := uint64(len(es))
	r := rand.Uint64()
	i := (r & 0xffffffff) % n
	j := (r >> 32) % (n - 1)
	if j >= i {
		j++
	}
	a, b := es[i], es[j]
	if a == avoid && b == avoid { // one endpoint twice, by its weight
		return firstOther(es, i, avoid)
	}
	if a == avoid {
		return b
	}
	if b != avoid && b.active.Load() < a.active.Load() {
		return b
	}
	return a
}

// firstOther returns the first endpoint from i on, around the end, that is not avoid; avoid if there is no other.
func firstOther(es []*Endpoint, i uint64, avoid *Endpoint) *Endpoint {
	n := uint64(len(es))
	for k := range n {
		if e := es[(i+k)%n]; e != avoid {
			return e
		}
	}
	return avoid
}

// pickHash walks the ring from the key's place on to the first endpoint that is healthy, not to be avoided and, with a bound, not
// busier than load percent of the average (consistent hashing with bounded loads, Mirrokni and others, 2018).
func (c *Cluster) pickHash(l *list, q Choice, load int) *Endpoint {
	ring := l.ring
	start := sort.Search(len(ring), func(i int) bool { return ring[i].at >= q.Hash })
	most := int64(-1)
	if load > 0 {
		most = (c.active()+1)*int64(load)/int64(100*len(l.usable)) + 1
	}
	var fallback *Endpoint
	for i := range ring {
		e := ring[(start+i)%len(ring)].e
		if l.skip(e) || e == q.Avoid {
			continue
		}
		if most < 0 || e.active.Load() < most {
			return e
		}
		if fallback == nil {
			fallback = e
		}
	}
	if fallback == nil {
		return q.Avoid
	}
	return fallback
}

// ByToken returns the endpoint that a client's affinity names, nil if it takes no requests now.
func (c *Cluster) ByToken(token uint64, now time.Time) *Endpoint {
	l := c.current(now)
	if l.tokens == nil {
		l = c.stick()
	}
	e := l.tokens[token]
	if e == nil || l.skip(e) {
		return nil
	}
	return e
}

// Token stands for the endpoint in a client's cookie: the same in every process, without telling the address.
func (e *Endpoint) Token() uint64 {
	sum := sha256.Sum256([]byte("gatehouse affinity\x00" + e.cluster.Key + "\x00" + e.Text))
	return binary.BigEndian.Uint64(sum[:8]) | 1 // never 0
}

// HashBytes is FNV-1a over b, begun with h (0: anew), then mixed: the same in every process.
func HashBytes(h uint64, b []byte) uint64 {
	if h == 0 {
		h = 0xcbf29ce484222325
	}
	for _, c := range b {
		h = (h ^ uint64(c)) * 0x100000001b3
	}
	return mix(h) | 1
}

// HashText is HashBytes of a string.
func HashText(h uint64, s string) uint64 { return HashBytes(h, []byte(s)) }

// mix is the finalizer of SplitMix64 (Steele and others, 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
