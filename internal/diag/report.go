package diag

import "slices"

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
	Addresses  []string    `json:"addresses,omitempty"` // wanted, as spec.addresses has them
	Faults     []Fault     `json:"faults,omitempty"`
}

// Report is what one translation concluded, by object. A report is not changed once it is published.
type Report struct {
	Objects map[Ref]*Object
}

// Sorted returns the objects in the order of Ref.Compare.
func (r *Report) Sorted() []*Object {
	if r == nil {
		return nil
	}
	out := make([]*Object, 0, len(r.Objects))
	for _, o := range r.Objects {
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b *Object) int { return a.Ref.Compare(b.Ref) })
	return out
}

// Faults returns the faults of all objects, sorted.
func (r *Report) Faults() []Fault {
	var out []Fault
	for _, o := range r.Sorted() {
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
