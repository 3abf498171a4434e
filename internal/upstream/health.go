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
	out, n := 1, 0
	seen := map[*Endpoint]bool{}
	for _, o := range l.base {
		if seen[o] {
			continue
		}
		seen[o] = true
		n++
		if o != e && o.out.Load() {
			out++
		}
	}
	if out*100 > n*p.MaxOut {
		return
	}
	e.failures.Store(0)
	if now.Sub(e.back) > time.Duration(p.EjectFor) { // it has done well since the last time
		e.ejections = 0
	}
	e.ejections = min(e.ejections+1, maxEjections)
	e.back = now.Add(time.Duration(p.EjectFor) * time.Duration(e.ejections))
	e.until.Store(e.back.UnixNano())
	c.store(l, now)
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
	c.store(c.list.Load(), now)
	return true
}

// refresh looks again which endpoints are usable.
func (c *Cluster) refresh(now time.Time) *list {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.store(c.list.Load(), now)
}

// store puts a copy of l in place, filtered anew. The caller holds mu.
func (c *Cluster) store(l *list, now time.Time) *list {
	n := &list{base: l.base, all: l.all, ring: l.ring, tokens: l.tokens}
	n.filter(now)
	c.list.Store(n)
	return n
}

// filter fills usable and recheck. If no endpoint is healthy, all are used: an edge that knows nothing better does not
// make an outage of a check that fails.
func (l *list) filter(now time.Time) {
	l.usable, l.recheck = l.base, 0
	var healthy []*Endpoint
	t := now.UnixNano()
	out := false
	for _, e := range l.base {
		until := e.until.Load()
		if until != 0 && until <= t {
			e.until.Store(0)
			until = 0
		}
		is := until != 0 || e.unhealthy.Load()
		e.out.Store(is)
		out = out || is
		if !is {
			healthy = append(healthy, e)
		}
		if until != 0 && (l.recheck == 0 || until < l.recheck) {
			l.recheck = until
		}
	}
	if out && len(healthy) > 0 {
		l.usable = healthy
	}
}
