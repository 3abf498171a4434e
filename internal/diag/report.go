package diag

import (
	"iter"
	"maps"
	"slices"
)

// Condition is one status condition, without the time of its last change, which only the writer of status knows.
type Condition struct {
	Type               string `json:"type"`
	Status             bool   `json:"status"`
	Unknown            bool   `json:"unknown,omitempty"` // status Unknown; Status is then false
	Reason             string `json:"reason"`
	Message            string `json:"message,omitempty"`
	ObservedGeneration int64  `json:"observedGeneration,omitempty"`
}

// Parent is what was concluded about a route for one of its parentRefs, or about a policy for one of its ancestors.
type Parent struct {
	Ref         Ref         `json:"ref"`
	SectionName string      `json:"sectionName,omitempty"`
	Port        int32       `json:"port,omitempty"`
	Conditions  []Condition `json:"conditions"`
}

// Listener is what was concluded about one listener of a Gateway.
type Listener struct {
	Name           string      `json:"name"`
	Key            string      `json:"key,omitempty"` // of the ir.Listener it became, empty if none
	AttachedRoutes int32       `json:"attachedRoutes"`
	SupportedKinds []Ref       `json:"supportedKinds"` // group and kind only; empty, not nil, for none
	Conditions     []Condition `json:"conditions"`
}

// Object is everything that was concluded about one object.
type Object struct {
	Ref        Ref         `json:"ref"`
	Generation int64       `json:"generation,omitempty"`
	Conditions []Condition `json:"conditions,omitempty"`
	Parents    []Parent    `json:"parents,omitempty"`
	Listeners  []Listener  `json:"listeners,omitempty"`
	Addresses  []Address   `json:"addresses,omitempty"` // at which clients reach a Gateway, an IngressClass or an Ingress
	Exposure   *Exposure   `json:"exposure,omitempty"`  // the Service that a Gateway or IngressClass wants; nil: none
	Features   []string    `json:"features,omitempty"`  // of a GatewayClass: what it supports, sorted
	Ours       bool        `json:"ours,omitempty"`      // its status is for this installation to write
	Faults     []Fault     `json:"faults,omitempty"`
}

// Address is one address in the terms of a Gateway's status.
type Address struct {
	Type  string `json:"type"` // IPAddress or Hostname
	Value string `json:"value"`
}

// Exposure is the Service through which clients reach the listeners of a Gateway or IngressClass.
type Exposure struct {
	Service       string            `json:"service"`         // its name; it lies in the namespace of the installation
	Keep          bool              `json:"keep,omitempty"`  // what it should be like is not known: leave it as it is, and make none
	Ports         []int32           `json:"ports"`           // that clients use, sorted
	Type          string            `json:"type"`            // LoadBalancer, NodePort, ClusterIP
	Class         string            `json:"class,omitempty"` // loadBalancerClass
	TrafficPolicy string            `json:"externalTrafficPolicy,omitempty"`
	Address       string            `json:"address,omitempty"` // asked for, "" any
	Labels        map[string]string `json:"labels,omitempty"`  // beside those that mark the Service as ours
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// Report is what one translation concluded, by object. It is not changed once it is made: With makes another, and shares
// with it all but what changed. The zero value, and nil, is empty.
type Report struct {
	shards [shards]*shard
}

// shards is how many parts a report has, so that a change copies one of them instead of all.
const shards = 256

type shard map[Ref]*Object

func shardOf(r Ref) uint8 {
	h := uint32(2166136261) // FNV-1a
	for _, s := range [...]string{r.Kind, r.Namespace, r.Name} {
		for i := range len(s) {
			h = (h ^ uint32(s[i])) * 16777619
		}
		h = (h ^ '/') * 16777619
	}
	return uint8(h ^ h>>8 ^ h>>16 ^ h>>24)
}

// NewReport returns a report of objects.
func NewReport(objects ...*Object) *Report {
	changes := make(map[Ref]*Object, len(objects))
	for _, o := range objects {
		changes[o.Ref] = o
	}
	return (*Report)(nil).With(changes)
}

// With returns a report in which changes stand in place of what stood there; nil takes an object out.
func (r *Report) With(changes map[Ref]*Object) *Report {
	out := &Report{}
	if r != nil {
		*out = *r
	}
	var own [shards]bool
	for ref, o := range changes {
		i := shardOf(ref)
		if !own[i] {
			own[i] = true
			copied := make(shard, 1)
			if out.shards[i] != nil {
				copied = maps.Clone(*out.shards[i])
			}
			out.shards[i] = &copied
		}
		if o == nil {
			delete(*out.shards[i], ref)
		} else {
			(*out.shards[i])[ref] = o
		}
	}
	return out
}

// Object returns what was concluded about one object, nil if nothing was.
func (r *Report) Object(ref Ref) *Object {
	if r == nil || r.shards[shardOf(ref)] == nil {
		return nil
	}
	return (*r.shards[shardOf(ref)])[ref]
}

// All ranges over the objects, in no order.
func (r *Report) All() iter.Seq[*Object] {
	return func(yield func(*Object) bool) {
		if r == nil {
			return
		}
		for _, s := range r.shards {
			if s == nil {
				continue
			}
			for _, o := range *s {
				if !yield(o) {
					return
				}
			}
		}
	}
}

// Since ranges over the objects that are not as they were in old, in no order; nil stands for one that is gone. What the
// two reports share costs nothing.
func (r *Report) Since(old *Report) iter.Seq2[Ref, *Object] {
	return func(yield func(Ref, *Object) bool) {
		for i := range shards {
			var was, is shard
			if old != nil && old.shards[i] != nil {
				was = *old.shards[i]
			}
			if r != nil && r.shards[i] != nil {
				is = *r.shards[i]
			}
			if old != nil && r != nil && old.shards[i] == r.shards[i] {
				continue
			}
			for ref, o := range is {
				if was[ref] != o && !yield(ref, o) {
					return
				}
			}
			for ref := range was {
				if is[ref] == nil && !yield(ref, nil) {
					return
				}
			}
		}
	}
}

// Sorted returns the objects in the order of Ref.Compare.
func (r *Report) Sorted() []*Object {
	return slices.SortedFunc(r.All(), func(a, b *Object) int { return a.Ref.Compare(b.Ref) })
}

// Faults returns the faults of all objects, sorted.
func (r *Report) Faults() []Fault {
	var out []Fault
	for o := range r.All() {
		out = append(out, o.Faults...)
	}
	SortFaults(out)
	return out
}

// Find returns the condition of type t, or nil.
func Find(cs []Condition, t string) *Condition {
	for i := range cs {
		if cs[i].Type == t {
			return &cs[i]
		}
	}
	return nil
}
