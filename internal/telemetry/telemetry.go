// Package telemetry writes the access log and counts what the edge does. It never blocks an exchange: a log line for which
// there is no room is dropped and counted, and a count is an addition to an atomic. The number of time series is bounded
// at any number of routes and listeners, and nothing that a client sends becomes a label or a line of its own.
package telemetry

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
)

// How many series of each kind there are at most; what comes later is counted under "other".
const (
	MaxListeners = 256
	MaxRoutes    = 1000
	MaxReasons   = 64 // per listener
)

const other = "other"

// Format of the access log.
type Format uint8

// The formats: one JSON object, or key=value pairs (logfmt), on a line.
const (
	JSON Format = iota
	Text
)

// Options of a Recorder.
type Options struct {
	// AccessLog is "stdout", "off" (also ""), or the path of a file, which is made with mode 0640 and appended to.
	AccessLog string
	Format    Format
	Stdout    io.Writer    // for "stdout"
	Log       *slog.Logger // for the log's own troubles; nil: none
	// Shards is how many copies of each counter there are, so that processors do not wait for each other's cache lines; a
	// power of two. 0: as many as processors, at most 16.
	Shards int
}

// Recorder counts and logs exchanges. All its methods may be called by many at once.
type Recorder struct {
	shards    int
	registry  *prometheus.Registry
	access    *access // nil: off
	ids       ids
	mu        sync.Mutex
	listeners map[string]*Listener
	routes    map[string]*Route
	restL     *Listener
	restR     *Route
}

// New opens the access log. Close it.
func New(o Options) (*Recorder, error) {
	r := &Recorder{shards: shardCount(o.Shards), registry: prometheus.NewRegistry(),
		listeners: map[string]*Listener{}, routes: map[string]*Route{}}
	r.restL, r.restR = newListener(other, r.shards), newRoute(other, r.shards)
	if err := r.ids.seed(); err != nil {
		return nil, err
	}
	if o.AccessLog != "" && o.AccessLog != "off" {
		a, err := openAccess(o, r.shards)
		if err != nil {
			return nil, fmt.Errorf("opening the access log: %w", err)
		}
		r.access = a
	}
	r.registry.MustRegister(collector{r}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r, nil
}

// Listener returns the counters of a listener, by ir.Listener.Key. Keep it in the snapshot; nil counts as "other".
func (r *Recorder) Listener(key string) *Listener {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.listeners[key]; l != nil {
		return l
	}
	if len(r.listeners) >= MaxListeners {
		return r.restL
	}
	l := newListener(key, r.shards)
	r.listeners[key] = l
	return l
}

// Route returns the counters of a route, by ir.Route.Name; object is ir.Source.Object, for the log. Beyond MaxRoutes all
// routes share one set of counters and keep their own object.
func (r *Recorder) Route(name, object string) *Route {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rt := r.routes[name]; rt != nil && rt.object == object {
		return rt
	}
	rt := &Route{name: name, object: object, cells: r.restR.cells}
	if r.access != nil {
		rt.line = r.access.format.route(name, object)
	}
	old := r.routes[name]
	switch {
	case old != nil:
		rt.cells = old.cells
	case len(r.routes) < MaxRoutes:
		rt.cells = make([]routeCells, r.shards)
	default:
		return rt
	}
	r.routes[name] = rt
	return rt
}

// Retain drops the counters of the listeners and routes that are not live any more. What still holds them may go on counting,
// unseen.
func (r *Recorder) Retain(listener, route func(name string) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k := range r.listeners {
		if !listener(k) {
			delete(r.listeners, k)
		}
	}
	for k := range r.routes {
		if !route(k) {
			delete(r.routes, k)
		}
	}
}

// Record counts a finished exchange and writes its line. took is from x.Start to its end. l and rt are what Listener and Route
// returned, nil where none is known. of is a number that connections have in turn. It keeps nothing of x and does not allocate.
func (r *Recorder) Record(of uint32, x *exchange.Exchange, l *Listener, rt *Route, took time.Duration) {
	shard := int(of) & (r.shards - 1)
	if l == nil {
		l = r.restL
	}
	l.count(shard, x, took)
	line := ""
	if rt != nil {
		rt.count(shard, x.Response.Status, took)
		line = rt.line
	}
	if r.access != nil {
		r.access.write(shard, x, line, took)
	}
}

// Gauge shows what f returns at each scrape under "gatehouse_"+name. labels are fixed for this series; f must be safe to call
// at any time.
func (r *Recorder) Gauge(name, help string, labels map[string]string, f func() float64) {
	r.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "gatehouse", Name: name, Help: help, ConstLabels: labels}, f))
}

// Counter is Gauge for a value that only grows; name ends in "_total".
func (r *Recorder) Counter(name, help string, labels map[string]string, f func() float64) {
	r.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Namespace: "gatehouse", Name: name, Help: help, ConstLabels: labels}, f))
}

// Metrics answers a scrape, in the Prometheus text format or OpenMetrics.
func (r *Recorder) Metrics() http.Handler {
	return promhttp.HandlerFor(r.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 30 * time.Second})
}

// Dropped is how many log lines there was no room for, or that could not be written.
func (r *Recorder) Dropped() uint64 {
	if r.access == nil {
		return 0
	}
	return r.access.dropped.Load()
}

// Reopen closes and opens the access log's file again, after it was moved away (SIGHUP). If it cannot be opened, the old one
// stays.
func (r *Recorder) Reopen() error {
	if r.access == nil {
		return nil
	}
	return r.access.reopen()
}

// Close writes the lines still held and closes the log. Record may still be called; its lines are dropped.
func (r *Recorder) Close() error {
	if r.access == nil {
		return nil
	}
	return r.access.close()
}

var errClosed = errors.New("the access log is closed")
