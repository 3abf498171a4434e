package upstream

import (
	"fmt"
	"slices"
	"time"

	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// Checks is how a cluster's endpoints are asked for their health.
type Checks struct {
	Interval, Timeout time.Duration
	of                *ir.Active
}

// Request is what an endpoint is asked.
func (c *Checks) Request(e *Endpoint) []byte {
	host := c.of.Host
	if host == "" {
		host = e.Text
	}
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: gatehouse-health\r\n\r\n", c.of.Path, host)
}

// Passes reports whether a status is that of a healthy endpoint: one of those that the policy names, else any below 400.
func (c *Checks) Passes(status int) bool {
	if len(c.of.Statuses) > 0 {
		return slices.Contains(c.of.Statuses, status)
	}
	return status >= 200 && status < 400
}

// maxEjections bounds how many times its time an endpoint is left out that fails again as soon as it is back.
const maxEjections = 10

// Failed notes that a request failed at the endpoint: no connection, no response head, or a status that the cluster's settings
// count. So many in a row eject it for a time, from every route.
func (e *Endpoint) Failed(now time.Time) {
	c := e.cluster
	p := &c.settings.Load().passive
	if p.Failures == 0 || e.failures.Add(1) < int32(p.Failures) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.list.Load()
	if e.until.Load() > now.UnixNano() || e.left.Load() {
		return // by another request, while it waited
	}
	out := c.outs + 1
	if e.chosen && e.out.Load() {
		out--
	}
	if out*100 > l.distinct*p.MaxOut {
		return
	}
	e.failures.Store(0)
	if now.Sub(e.back) > time.Duration(p.EjectFor) { // it has done well since the last time
		e.ejections = 0
	}
	e.ejections = min(e.ejections+1, maxEjections)
	e.back = now.Add(time.Duration(p.EjectFor) * time.Duration(e.ejections))
	e.until.Store(e.back.UnixNano())
	c.changed(e, now)
}

// Worked notes that the endpoint answered.
func (e *Endpoint) Worked() {
	if e.failures.Load() != 0 {
		e.failures.Store(0)
	}
}

// Answered is Worked or Failed, by the status of a response.
func (e *Endpoint) Answered(status int, now time.Time) {
	if e.cluster.settings.Load().counts(status) {
		e.Failed(now)
		return
	}
	e.Worked()
}

// Checked notes the outcome of one active check. It reports whether the endpoint's health changed by it.
func (e *Endpoint) Checked(ok bool, now time.Time) (changed bool) {
	c := e.cluster
	a := c.settings.Load().Active
	if a == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if ok != e.checkedOK {
		e.checkedOK, e.checks = ok, 0
	}
	e.checks++
	if ok == !e.unhealthy.Load() || ok && e.checks < a.of.Healthy || !ok && e.checks < a.of.Unhealthy {
		return false
	}
	e.unhealthy.Store(!ok)
	c.changed(e, now)
	return true
}

// changed takes in that an endpoint's health changed. Where there are few, they are listed anew at once; among many it is only marked,
// which Pick looks at, until they are. The caller holds mu.
func (c *Cluster) changed(e *Endpoint, now time.Time) {
	l := c.list.Load()
	if len(l.base) < large {
		c.relist(l, now)
		return
	}
	until := e.until.Load()
	if is := until != 0 || e.unhealthy.Load(); e.chosen && is != e.out.Load() {
		e.out.Store(is)
		if is {
			c.outs++
		} else {
			c.outs--
		}
		if c.outs == l.distinct { // none is left: then all are used
			c.relist(l, now)
			return
		}
	}
	if next := c.recheck.Load(); until != 0 && (next == 0 || until < next) {
		c.recheck.Store(until)
	}
	c.later()
}

// settling is how long changes of a large cluster's health gather before its endpoints are listed anew.
const settling = 20 * time.Millisecond

// later has a large cluster's usable endpoints listed anew soon, not by who asks.
func (c *Cluster) later() {
	if c.due.CompareAndSwap(false, true) {
		time.AfterFunc(settling, func() {
			c.due.Store(false)
			c.refresh(time.Now())
		})
	}
}

// current returns the list, looked through again if an ejection has ended.
func (c *Cluster) current(now time.Time) *list {
	l := c.list.Load()
	at := c.recheck.Load()
	switch {
	case at == 0 || now.UnixNano() < at:
	case len(l.base) < large:
		return c.refresh(now)
	default:
		c.later()
	}
	return l
}

// refresh looks again which endpoints are usable.
func (c *Cluster) refresh(now time.Time) *list {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.relist(c.list.Load(), now)
}

// relist puts a copy of l in place, filtered anew. The caller holds mu.
func (c *Cluster) relist(l *list, now time.Time) *list {
	n := *l
	return c.store(&n, now)
}

// store puts l in place, filtered. If no endpoint is healthy, all are used: an edge that knows nothing better does not make an outage of
// a check that fails. The caller holds mu.
func (c *Cluster) store(l *list, now time.Time) *list {
	healthy := make([]*Endpoint, 0, len(l.base))
	t, next := now.UnixNano(), int64(0)
	for _, e := range l.base {
		until := e.until.Load()
		if until != 0 && until <= t {
			e.until.Store(0)
			until = 0
		}
		is := until != 0 || e.unhealthy.Load()
		e.out.Store(is)
		if !is {
			healthy = append(healthy, e)
		}
		if until != 0 && (next == 0 || until < next) {
			next = until
		}
	}
	l.usable, l.hopeless, c.outs = l.base, false, 0
	if len(healthy) < len(l.base) {
		c.outs = l.out()
		if l.hopeless = len(healthy) == 0; !l.hopeless {
			l.usable = healthy
		}
	}
	c.recheck.Store(next)
	c.list.Store(l)
	return l
}

// out counts the endpoints of base that are out. One that stands there several times, by its weight, stands once in the first places.
func (l *list) out() (n int) {
	for _, e := range l.base[:l.distinct] {
		if e.out.Load() {
			n++
		}
	}
	return n
}

// skip reports whether e is out although l, which may be a little old, lists it.
func (l *list) skip(e *Endpoint) bool { return e.out.Load() && !l.hopeless }
