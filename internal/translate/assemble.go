package translate

import (
	"cmp"
	"maps"
	"slices"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/objects"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// assemble lays what changed over the last result. It copies pointers only: nothing that did not change is looked into.
func (t *Translator) assemble(news map[topic]any) Result {
	r := t.last
	r.ConfigChanged, r.EndpointsChanged, r.SecretsChanged = false, false, false
	if r.Config == nil {
		r = Result{Config: &ir.Config{Listeners: []*ir.Listener{}, Hosts: []*ir.Host{}, Clusters: []*ir.Cluster{}}, Endpoints: ir.Endpoints{},
			Secrets: secret.Set{}, Report: diag.NewReport(),
			ConfigChanged: true, EndpointsChanged: true, SecretsChanged: true}
	}
	var listeners []change[ir.Listener]
	var hosts []change[ir.Host]
	var clusters []change[ir.Cluster]
	pending := map[objects.Key]bool{}
	for _, k := range r.Pending {
		pending[k] = true
	}
	wasPending := len(pending)
	reports := map[diag.Ref]*diag.Object{}
	var endpoints, secrets, pendingChanged bool
	for tp, v := range news {
		switch tp.kind {
		case listenerSink:
			l, _ := v.(*ir.Listener)
			listeners = append(listeners, change[ir.Listener]{topic: tp, v: l})
		case hostSink:
			h, _ := v.(*ir.Host)
			hosts = append(hosts, change[ir.Host]{topic: tp, v: h})
		case clusterSink:
			c, _ := v.(*ir.Cluster)
			clusters = append(clusters, change[ir.Cluster]{topic: tp, v: c})
		case endpointsSink:
			put(&r.Endpoints, &endpoints, tp.name, v)
		case secretSink:
			put(&r.Secrets, &secrets, tp.name, v)
		case pendingSink:
			ref, _ := parseKey(tp.name)
			k := objects.Key{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name}
			pendingChanged = true
			if v == nil {
				delete(pending, k)
			} else {
				pending[k] = true
			}
		case reportSink:
			o, _ := v.(*diag.Object)
			reports[tp.ref] = o
		}
	}
	if len(reports) > 0 {
		r.Report = r.Report.With(reports)
	}
	if len(listeners)+len(hosts)+len(clusters) > 0 {
		r.ConfigChanged = true
		r.Config = &ir.Config{Listeners: patch(r.Config.Listeners, listeners, listenerTopic),
			Hosts: patch(r.Config.Hosts, hosts, hostTopicOf), Clusters: patch(r.Config.Clusters, clusters, clusterTopicOf)}
	}
	r.EndpointsChanged = r.EndpointsChanged || endpoints
	r.SecretsChanged = r.SecretsChanged || secrets
	if pendingChanged || len(pending) != wasPending {
		r.Pending = slices.SortedFunc(maps.Keys(pending), func(a, b objects.Key) int { return cmp.Compare(a.String(), b.String()) })
	}
	return r
}

// put changes one entry of a published map, of which it makes a copy first unless changed says there is one.
func put[M ~map[string]V, V any](m *M, changed *bool, key string, v any) {
	if !*changed {
		*m, *changed = maps.Clone(*m), true
	}
	if v == nil {
		delete(*m, key)
	} else {
		(*m)[key] = v.(V)
	}
}

// change is one part of the configuration that is new, other than it was, or gone (nil).
type change[T any] struct {
	topic topic
	v     *T
}

func listenerTopic(l *ir.Listener) topic { return topic{name: l.Key} }
func hostTopicOf(h *ir.Host) topic       { return topic{name: h.Listener, host: h.Hostname, one: h.OneLabel} }
func clusterTopicOf(c *ir.Cluster) topic { return topic{name: c.Key} }

func compareTopics(a, b topic) int {
	return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.host, b.host), compareBool(b.one, a.one))
}

// patch returns a copy of list, which is sorted, with the changes made. Without changes it returns list.
func patch[T any](list []*T, changes []change[T], key func(*T) topic) []*T {
	if len(changes) == 0 {
		return list
	}
	slices.SortFunc(changes, func(a, b change[T]) int { return compareTopics(a.topic, b.topic) })
	out := make([]*T, 0, len(list)+len(changes))
	for _, c := range changes {
		i, found := slices.BinarySearchFunc(list, c.topic, func(v *T, t topic) int { return compareTopics(key(v), t) })
		out = append(out, list[:i]...)
		if found {
			i++
		}
		list = list[i:]
		if c.v != nil {
			out = append(out, c.v)
		}
	}
	return append(out, list...)
}
