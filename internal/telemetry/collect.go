package telemetry

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("gatehouse_"+name, help, labels, nil)
}

// The families, made once: a Desc is not changed.
var (
	descRequests = desc("requests_total",
		"Exchanges that ended, by listener, method and class of the status.", "listener", "method", "code")
	descReasons = desc("decisions_total",
		"Exchanges that the edge itself decided, by listener and reason.", "listener", "reason")
	descShadows = desc("shadow_decisions_total",
		"Answers that policies in shadow mode would have given, by listener and reason.", "listener", "reason")
	descTook = desc("request_duration_seconds",
		"From the arrival of the request's head to the end of the answer.", "listener")
	descWaited = desc("backend_wait_seconds",
		"From the arrival of the request's head to the backend's head.", "listener")
	descIn = desc("request_body_bytes_total",
		"Body bytes from clients.", "listener")
	descOut = desc("response_body_bytes_total",
		"Body bytes to clients.", "listener")
	descRoute = desc("route_requests_total",
		"Exchanges that ended, by route and class of the status; 1000 routes of the configuration have a series of their own.", "route", "code")
	descRouteTime = desc("route_seconds_total",
		"Time of the exchanges of a route, summed.", "route")
	descDropped = desc("access_log_dropped_total",
		"Lines of the access log for which there was no room, or that could not be written.")
)

// collector reads the counters at each scrape. Series that never counted are left out.
type collector struct{ r *Recorder }

func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descRequests, descReasons, descShadows, descTook, descWaited, descIn, descOut, descRoute,
		descRouteTime, descDropped} {
		ch <- d
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	r := c.r
	r.mu.Lock()
	listeners := []*Listener{r.restL}
	for _, l := range r.listeners {
		listeners = append(listeners, l)
	}
	routes := []*Route{r.restR}
	for _, rt := range r.routes {
		routes = append(routes, rt)
	}
	r.mu.Unlock()
	for _, l := range listeners {
		l.collect(ch)
	}
	for _, rt := range routes {
		rt.collect(ch)
	}
	ch <- counter(descDropped, float64(r.Dropped()))
}

func counter(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

func (l *Listener) collect(ch chan<- prometheus.Metric) {
	for m := range methods {
		for k := range classes {
			var n uint64
			for _, s := range l.shards {
				n += s.requests[m][k].Load()
			}
			if n > 0 {
				ch <- counter(descRequests, float64(n), l.name, methods[m], classes[k])
			}
		}
	}
	words := l.reasons.all()
	for _, w := range append(words[:len(words):len(words)], &l.reasons.rest) {
		if n := w.n.Load(); n > 0 {
			ch <- counter(descReasons, float64(n), l.name, w.name)
		}
	}
	shadows := l.shadows.all()
	for _, w := range append(shadows[:len(shadows):len(shadows)], &l.shadows.rest) {
		if n := w.n.Load(); n > 0 {
			ch <- counter(descShadows, float64(n), l.name, w.name)
		}
	}
	took, waited := make([]*histogram, len(l.shards)), make([]*histogram, len(l.shards))
	var in, out int64
	for i, s := range l.shards {
		took[i], waited[i] = &s.took, &s.waited
		in += s.in.Load()
		out += s.out.Load()
	}
	merge(ch, descTook, took, l.name)
	merge(ch, descWaited, waited, l.name)
	if l.name != other || in > 0 {
		ch <- counter(descIn, float64(in), l.name)
	}
	if l.name != other || out > 0 {
		ch <- counter(descOut, float64(out), l.name)
	}
}

func merge(ch chan<- prometheus.Metric, d *prometheus.Desc, shards []*histogram, label string) {
	var count uint64
	var sum int64
	buckets := make(map[float64]uint64, nBuckets)
	for i := range nBuckets + 1 {
		for _, h := range shards {
			count += h.cells[i].Load()
		}
		if i < nBuckets {
			buckets[bound(i).Seconds()] = count
		}
	}
	for _, h := range shards {
		sum += h.sum.Load()
	}
	if count > 0 {
		ch <- prometheus.MustNewConstHistogram(d, count, time.Duration(sum).Seconds(), buckets, label)
	}
}

func (r *Route) collect(ch chan<- prometheus.Metric) {
	var sum int64
	used := false
	for k := range classes {
		var n uint64
		for i := range r.cells {
			n += r.cells[i].requests[k].Load()
		}
		if n > 0 {
			used = true
			ch <- counter(descRoute, float64(n), r.name, classes[k])
		}
	}
	for i := range r.cells {
		sum += r.cells[i].sum.Load()
	}
	if used {
		ch <- counter(descRouteTime, time.Duration(sum).Seconds(), r.name)
	}
}
