package translate

import (
	"reflect"
	"slices"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// A unit is one piece of translation that is redone as a whole: a Gateway's listeners, one HTTPRoute, one virtual host. It
// reads objects and topics, and what it says it says to topics. It is redone only when something that it read has changed.
type unit struct {
	key    unitKey
	reads  []objects.Read
	topics []topic
	said   []word
	queued bool
	memo   *hostMemo // of a large virtual host
}

// word is one thing said to a topic.
type word struct {
	topic topic
	v     any
}

// unitKey names a unit: what it makes, and for whom.
type unitKey struct {
	kind unitKind
	ref  diag.Ref // the object, if it is about one
	name string   // else a key: of a listener, a cluster, a handle, a target
	host string   // virtual hosts: the hostname
	one  bool     // virtual hosts: the wildcard stands for one label
}

type unitKind uint8

// The kinds of unit, in the order in which they are done: a unit reads only topics that earlier kinds speak to.
const (
	targetUnit       unitKind = iota // what policies say about one target
	pairUnit                         // whether a Secret holds a certificate and its key
	gatewayUnit                      // GatewayClass and Gateway -> listeners
	classUnit                        // IngressClass -> listeners without their certificates
	routeUnit                        // HTTPRoute
	ingressUnit                      // Ingress
	listenersUnit                    // the two listeners of an IngressClass, with the certificates of its Ingresses
	hostUnit                         // virtual host
	clusterUnit                      // Service port or Backend -> cluster
	endpointsUnit                    // cluster -> endpoints
	secretUnit                       // handle -> material
	policyUnit                       // verdict about one policy
	gatewayVerdict                   // verdict about one Gateway, with the routes it has
	gatewayClassUnit                 // verdict about one GatewayClass
	parametersUnit                   // verdict about one GatewayParameters
	backendUnit                      // verdict about one Backend
	reportUnit                       // everything that was said about one object
	unitKinds
)

// topic is a place where units say something for others to read: each unit says at most one thing to a topic. A unit that
// reads a topic is redone when any of what is said there changes.
type topic struct {
	kind topicKind
	ref  diag.Ref
	name string
	host string
	one  bool
}

type topicKind uint8

// The kinds of topic.
const (
	targetTopic      topicKind = iota // name: "Kind/ns/name"; *target
	pairTopic                         // name: handle of a Secret; pairState
	attachTopic                       // ref: Gateway or IngressClass; *attachment
	gatewayTopic                      // ref: Gateway; *gatewayDetail, for its verdict
	classTopic                        // name: of an IngressClass; *classDetail, for its listeners
	certificateTopic                  // name: of an IngressClass; []ir.Certificate
	attachedTopic                     // ref: Gateway; []string, names of listeners, said by each route
	parametersTopic                   // ref: GatewayParameters; bool, said by who names them: whether that is ours
	hostTopic                         // name: listener key; host, one; *fragment
	clusterTopic                      // name: cluster key; clusterRef
	reachTopic                        // ref: Service or Backend; []diag.Ref, Gateways through which a route reaches it
	secretTopic                       // name: handle; true
	effectTopic                       // ref: policy of a bundle kind, name: "Kind/ns/name#section" of a target; effect, said by each route
	reportTopic                       // ref: any object; *diag.Object
	listenerSink                      // name: listener key; *ir.Listener
	hostSink                          // name, host, one; *ir.Host
	clusterSink                       // name: cluster key; *ir.Cluster
	endpointsSink                     // name: cluster key; []ir.Endpoint
	secretSink                        // name: handle; *secret.Material
	pendingSink                       // name: handle; objects.Key
	reportSink                        // ref: any object; *diag.Object
)

// spawns says which unit exists because somebody speaks to a topic.
func (t topic) spawns() (unitKey, bool) {
	switch t.kind {
	case hostTopic:
		return unitKey{kind: hostUnit, name: t.name, host: t.host, one: t.one}, true
	case clusterTopic:
		return unitKey{kind: clusterUnit, name: t.name}, true
	case clusterSink:
		return unitKey{kind: endpointsUnit, name: t.name}, true
	case secretTopic:
		return unitKey{kind: secretUnit, name: t.name}, true
	case classTopic:
		return unitKey{kind: listenersUnit, name: t.name}, true
	case gatewayTopic:
		return unitKey{kind: gatewayVerdict, ref: t.ref}, true
	case reportTopic:
		return unitKey{kind: reportUnit, ref: t.ref}, true
	}
	return unitKey{}, false
}

func (t topic) sink() bool { return t.kind >= listenerSink }

// forum is what was said to one topic, and who reads it.
type forum struct {
	said    map[*unit]any
	readers map[*unit]struct{}
	// changed is what those who spoke since its reader last looked had said before; nil: nobody wants to know.
	changed map[*unit]any
}

// engine holds all units and what they read and said.
type engine struct {
	units   map[unitKey]*unit
	readers map[objects.Read]map[*unit]struct{}
	forums  map[topic]*forum
	queue   [unitKinds][]*unit
	news    map[topic]any // sinks that changed in this run; nil value: gone
}

func newEngine() *engine {
	return &engine{units: map[unitKey]*unit{}, readers: map[objects.Read]map[*unit]struct{}{}, forums: map[topic]*forum{}}
}

// enqueue has a unit redone in this run, and makes it if it is not there.
func (e *engine) enqueue(k unitKey) {
	u := e.units[k]
	if u == nil {
		u = &unit{key: k}
		e.units[k] = u
	}
	e.wake(u)
}

func (e *engine) wake(u *unit) {
	if !u.queued {
		u.queued = true
		e.queue[u.key.kind] = append(e.queue[u.key.kind], u)
	}
}

// touched wakes the readers of a read of the store.
func (e *engine) touched(r objects.Read) {
	for u := range e.readers[r] {
		e.wake(u)
	}
}

// run redoes what is queued, in the order of the kinds.
func (e *engine) run(t *Translator, s *objects.Store) {
	e.news = map[topic]any{}
	p := &pass{t: t, e: e, reads: map[objects.Read]struct{}{}, heard: map[topic]struct{}{}, said: map[topic]any{}, merged: map[mergeKey]mergedLayers{}}
	p.view = s.View(func(r objects.Read) { p.reads[r] = struct{}{} })
	for k := range e.queue {
		for len(e.queue[k]) > 0 {
			todo := e.queue[k]
			e.queue[k] = nil
			for _, u := range todo {
				u.queued = false
				e.redo(p, u)
			}
		}
	}
}

// pass is one doing of one unit: it records what the unit reads and collects what it says. A run has one, used for its units one
// after the other.
type pass struct {
	t     *Translator
	e     *engine
	u     *unit
	view  *objects.View
	reads map[objects.Read]struct{}
	heard map[topic]struct{}
	said  map[topic]any
	// merged are the steps of sets of layers, by what is in them.
	merged map[mergeKey]mergedLayers
	gone   bool // what the unit is about is not there any more
}

func (e *engine) redo(p *pass, u *unit) {
	p.u, p.gone = u, false
	p.forget()
	p.do()
	if p.gone { // what it is about is not there: who would bring it back enqueues it by its key
		p.forget()
	}
	e.subscribe(u, p)
	before := u.said
	u.said = make([]word, 0, len(p.said))
	for _, w := range before {
		v, ok := p.said[w.topic]
		switch {
		case !ok:
			e.say(u, w.topic, nil)
		case same(w.v, v):
			u.said = append(u.said, w)
			delete(p.said, w.topic)
		}
	}
	for tp, v := range p.said {
		u.said = append(u.said, word{tp, v})
		e.say(u, tp, v)
	}
	if p.gone {
		delete(e.units, u.key)
	}
}

// forget empties the maps for the next unit.
func (p *pass) forget() {
	emptied(&p.reads)
	emptied(&p.heard)
	emptied(&p.said)
}

// emptied clears a map, or replaces one that has grown: maps do not shrink, and to clear a large one takes long each time.
func emptied[K comparable, V any](m *map[K]V) {
	if len(*m) > 64 {
		*m = map[K]V{}
	}
	clear(*m)
}

// subscribe replaces what u reads.
func (e *engine) subscribe(u *unit, p *pass) {
	for _, r := range u.reads {
		if _, still := p.reads[r]; !still {
			delete(e.readers[r], u)
			if len(e.readers[r]) == 0 {
				delete(e.readers, r)
			}
		}
	}
	u.reads = u.reads[:0]
	for r := range p.reads {
		u.reads = append(u.reads, r)
		m := e.readers[r]
		if m == nil {
			m = map[*unit]struct{}{}
			e.readers[r] = m
		}
		m[u] = struct{}{}
	}
	for _, tp := range u.topics {
		if _, still := p.heard[tp]; !still {
			f := e.forums[tp]
			delete(f.readers, u)
			e.tidy(tp, f)
		}
	}
	u.topics = u.topics[:0]
	for tp := range p.heard {
		u.topics = append(u.topics, tp)
		f := e.forum(tp)
		if f.readers == nil {
			f.readers = map[*unit]struct{}{}
		}
		f.readers[u] = struct{}{}
	}
}

func (e *engine) forum(tp topic) *forum {
	f := e.forums[tp]
	if f == nil {
		f = &forum{}
		e.forums[tp] = f
	}
	return f
}

func (e *engine) tidy(tp topic, f *forum) {
	if len(f.said) == 0 && len(f.readers) == 0 {
		delete(e.forums, tp)
	}
}

// say puts v where u's word stood in a topic (nil: takes it away) and wakes the readers.
func (e *engine) say(u *unit, tp topic, v any) {
	if k, ok := tp.spawns(); ok {
		e.enqueue(k)
	}
	if tp.sink() {
		e.news[tp] = v
		if tp.kind != clusterSink {
			return
		}
	}
	f := e.forum(tp)
	if _, known := f.changed[u]; !known && f.changed != nil {
		f.changed[u] = f.said[u]
	}
	if v == nil {
		delete(f.said, u)
	} else {
		if f.said == nil {
			f.said = map[*unit]any{}
		}
		f.said[u] = v
	}
	for r := range f.readers {
		e.wake(r)
	}
	e.tidy(tp, f)
}

// same says whether two things said are equal. Two parts that are one pointer cost nothing.
func same(a, b any) bool {
	if x, ok := a.(*ir.Host); ok {
		y, ok := b.(*ir.Host)
		return ok && x.Listener == y.Listener && x.Hostname == y.Hostname && x.OneLabel == y.OneLabel &&
			slices.EqualFunc(x.Routes, y.Routes, func(r, s *ir.Route) bool { return r == s || reflect.DeepEqual(r, s) })
	}
	return reflect.DeepEqual(a, b)
}

// say tells v, which must not be nil, to a topic.
func (p *pass) say(tp topic, v any) { p.said[tp] = v }

// before is what this unit said to a topic the last time, the zero T if nothing.
func before[T any](p *pass, tp topic) T {
	for _, w := range p.u.said {
		if w.topic == tp {
			v, _ := w.v.(T)
			return v
		}
	}
	var none T
	return none
}

// hear returns the one thing said to a topic, the zero T if nothing is.
func hear[T any](p *pass, tp topic) T {
	var v T
	for _, w := range hearAll[T](p, tp) {
		v = w
	}
	return v
}

// hearAll returns everything said to a topic, in no order.
func hearAll[T any](p *pass, tp topic) []T {
	p.heard[tp] = struct{}{}
	f := p.e.forums[tp]
	if f == nil {
		return nil
	}
	out := make([]T, 0, len(f.said))
	for _, v := range f.said {
		out = append(out, v.(T))
	}
	return out
}
