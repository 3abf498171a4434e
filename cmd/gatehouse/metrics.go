package main

import (
	"encoding/json"
	"sync/atomic"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/kube"
	"github.com/gatehouse-io/gatehouse/internal/listener"
	"github.com/gatehouse-io/gatehouse/internal/upstream"
)

func marshal(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	return append(b, '\n'), err
}

// metrics registers what is read when it is scraped.
func (p *process) metrics() {
	r, d, l := p.recorder, p.edge.Driver().Stats(), p.edge.Listeners()
	gauge := func(name, help string, f func() float64) { r.Gauge(name, help, nil, f) }
	counter := func(name, help string, f func() float64) { r.Counter(name, help, nil, f) }
	gauge("client_connections", "Client connections open now.", func() float64 { return float64(l.Stats().Open) })
	counter("client_connections_accepted_total", "Client connections accepted.", func() float64 { return float64(l.Stats().Accepted) })
	for reason, f := range map[string]func(listener.Stats) int64{
		"total": func(x listener.Stats) int64 { return x.Limited }, "address": func(x listener.Stats) int64 { return x.Crowded }} {
		r.Counter("client_connections_limited_total", "Client connections closed because too many were open: total, or address (limits.connectionsPerAddress of ClientTrafficPolicy).",
			map[string]string{"reason": reason}, func() float64 { return float64(f(l.Stats())) })
	}
	for _, h := range listener.Holdings() {
		r.Counter("client_connections_shed_total", "Client connections closed because memory was short, by what they were at: handshake, idle, head (of a request, incomplete), body (collected whole for a policy), waiting (for a backend), relay (WebSocket), lingering (after the last answer).",
			map[string]string{"state": h.String()}, func() float64 { return float64(l.ShedCount(h)) })
	}
	for _, f := range listener.Failures() {
		r.Counter("tls_handshake_failures_total", "TLS handshakes with clients that failed, by reason: unrecognized_name (no certificate for the server name), protocol (no TLS, or no version or cipher in common), client_alert (the client refused, say because it does not trust the certificate), timeout, closed (by the client, without a word), other.", map[string]string{"reason": f.String()},
			func() float64 { return float64(l.HandshakeFailures(f)) })
	}
	counter("proxy_protocol_refused_total", "Client connections closed because of the PROXY protocol.", func() float64 { return float64(l.Stats().ProxyRefused) })
	counter("backend_dials_total", "Connections made to backends.", func() float64 { return float64(d.BackendDials.Load()) })
	counter("backend_reuses_total", "Exchanges on a kept connection to a backend.", func() float64 { return float64(d.BackendReuses.Load()) })
	counter("backend_replays_total", "Requests sent again because a kept connection had died.", func() float64 { return float64(d.Replays.Load()) })
	counter("backend_retries_total", "Further tries of requests that a backend failed.", func() float64 { return float64(d.Retries.Load()) })
	for outcome, n := range map[string]*atomic.Int64{"answered": &d.MirrorsSent, "failed": &d.MirrorsFailed, "dropped": &d.MirrorsDropped} {
		r.Counter("mirrors_total", "Copies of requests for mirrors, by what became of them; dropped: too many at once, too long a body, or a full circuit breaker.",
			map[string]string{"outcome": outcome}, func() float64 { return float64(n.Load()) })
	}
	gauge("backend_connections", "Connections to backends open now.", func() float64 { return p.sumClusters((*upstream.Cluster).Connections) })
	gauge("backend_endpoints_out", "Endpoints that get no requests because they failed, or failed a health check.", func() float64 { return p.sumClusters((*upstream.Cluster).Out) })
	names := func(f func(upstream.NameStats) int64) func() float64 {
		return func() float64 { return float64(f(p.edge.Names())) }
	}
	for outcome, n := range map[string]func(upstream.NameStats) int64{"answered": func(s upstream.NameStats) int64 { return s.Answered },
		"absent": func(s upstream.NameStats) int64 { return s.Absent }, "failed": func(s upstream.NameStats) int64 { return s.Failed }} {
		r.Counter("dns_lookups_total", "Lookups of names of backends; absent: there is no such name, or no address of it; failed: no server knew, or none answered.",
			map[string]string{"outcome": outcome}, names(n))
	}
	gauge("dns_names_stale", "Names of backends whose last lookup failed, so that their last good addresses are used.", names(func(s upstream.NameStats) int64 { return s.Stale }))
	gauge("dns_names_unresolved", "Names of backends without an address.", names(func(s upstream.NameStats) int64 { return s.Unresolved }))
	gauge("overload_level", "How short memory is: 1 from 90 % of the limit on, where requests are refused, 2 from 95 % on, where those that collect whole bodies are ended.",
		func() float64 { return float64(p.edge.Load()) })
	gauge("listeners_bound", "Listeners that serve in this process.", func() float64 { return p.countListeners(true) })
	gauge("listeners_unbound", "Listeners that do not serve in this process, for want of an address or port.", func() float64 { return p.countListeners(false) })
	for _, s := range []diag.Severity{diag.Error, diag.Warning} {
		r.Gauge("configuration_faults", "Faults in the configuration known now.", map[string]string{"severity": s.String()},
			func() float64 { return float64(p.countFaults(s)) })
	}
	p.kubeMetrics()
	gauge("configuration_unread_files", "Files that cannot be read, or not whole, now; what was read of them before is served.", p.unread)
	for part, version := range map[string]func() uint64{
		"config":    func() uint64 { a, _ := p.feed.Acked(); return a.ConfigVersion },
		"endpoints": func() uint64 { a, _ := p.feed.Acked(); return a.EndpointsVersion },
		"secrets":   func() uint64 { a, _ := p.feed.Acked(); return a.SecretsVersion },
	} {
		r.Gauge("live_version", "Version of each part of the configuration that is live.", map[string]string{"part": part},
			func() float64 { return float64(version()) })
	}
}

// kubeMetrics registers what is counted of the cluster: nothing, where files are the source.
func (p *process) kubeMetrics() {
	stats := func() (s kube.Stats) {
		if p.kube != nil {
			s = p.kube.Stats()
		}
		return s
	}
	counter := func(name, help string, f func(kube.Stats) int64) {
		p.recorder.Counter(name, help, nil, func() float64 { return float64(f(stats())) })
	}
	counter("kubernetes_objects_received_total", "Versions of objects that watches brought.", func(s kube.Stats) int64 { return s.Events })
	counter("kubernetes_watch_restarts_total", "Watches that broke off and began anew.", func(s kube.Stats) int64 { return s.Relists })
	counter("kubernetes_writes_total", "Writes of status and Services that succeeded.", func(s kube.Stats) int64 { return s.Writes })
	counter("kubernetes_write_conflicts_total", "Writes that met a newer version and were made again.", func(s kube.Stats) int64 { return s.Conflicts })
	counter("kubernetes_write_failures_total", "Writes that failed and were tried again.", func(s kube.Stats) int64 { return s.Failed })
	p.recorder.Gauge("kubernetes_leader", "1 while this process holds the lease and writes status.", nil, func() float64 {
		if stats().Leading {
			return 1
		}
		return 0
	})
}

func (p *process) sumClusters(of func(*upstream.Cluster) int64) (n float64) {
	for _, c := range p.edge.Clusters().All() {
		n += float64(of(c))
	}
	return n
}

func (p *process) countListeners(bound bool) (n float64) {
	a, _ := p.feed.Acked()
	for _, l := range a.Listeners {
		if (l.Problem == "" && l.Bound != "") == bound {
			n++
		}
	}
	return n
}

func (p *process) countFaults(s diag.Severity) (n int) {
	for _, f := range p.loop.Faults() {
		if f.Severity == s {
			n++
		}
	}
	return n
}

// unread counts the files whose faults are of no object: what was read of them before is what is served.
func (p *process) unread() float64 {
	v := p.loop.View()
	if v == nil {
		return 0
	}
	files := map[string]bool{}
	for _, f := range v.Input {
		if f.File != "" && f.Object.Kind == "" && f.Severity == diag.Error {
			files[f.File] = true
		}
	}
	return float64(len(files))
}
