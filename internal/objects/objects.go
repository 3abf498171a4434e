// Package objects holds cluster objects in typed maps, whatever source they come from, and gives readers a view
// that records what was read: objects, absences, lists by index. So a unit of translation is redone only when
// something it read has changed. Objects are never changed once they are in a Store. The package reads no file and
// knows no client.
package objects

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// Object is any object with metadata: a pointer to one of the types in Kinds.
type Object interface{ metav1.Object }

// Secret is a core/v1 Secret without a way to print its values.
type Secret struct {
	metav1.ObjectMeta
	Material secret.Material
	// Pending says that only the metadata is known yet: the body has not been fetched.
	Pending bool
	// Problem is why the body cannot be had, "" if it can.
	Problem string
}

// Kind describes one kind of object. Gatehouse reads no two kinds of the same name from different groups.
type Kind struct {
	Group, Version, Name, Plural string
	Cluster                      bool // not namespaced
	Index                        []Index
}

// Index maps an object to the values under which List finds it.
type Index struct {
	Name   string
	Values func(Object) []string
}

// Names of indexes.
const (
	ByNamespace = "namespace" // every namespaced kind
	ByParent    = "parent"    // HTTPRoute -> "Gateway/ns/name" of each parentRef
	ByService   = "service"   // EndpointSlice -> "ns/name" of its Service
	ByTarget    = "target"    // policies -> "Kind/ns/name" of each targetRef
	ByClass     = "class"     // Gateway -> class name; Ingress -> class name or "" for none
)

// Key names one object within its kind.
type Key struct{ Kind, Namespace, Name string }

func (k Key) String() string {
	return diag.Ref{Kind: k.Kind, Namespace: k.Namespace, Name: k.Name}.String()
}

// Kinds lists every kind that Gatehouse reads, by name. It is a function so that nobody can change the table.
func Kinds() []Kind {
	own := func(name, plural string, ix ...Index) Kind {
		return Kind{Group: v1alpha1.Group, Version: v1alpha1.Version, Name: name, Plural: plural, Index: ix}
	}
	target := Index{ByTarget, policyTargets}
	return []Kind{
		{Group: "gateway.networking.k8s.io", Version: "v1", Name: "GatewayClass", Plural: "gatewayclasses", Cluster: true},
		{Group: "gateway.networking.k8s.io", Version: "v1", Name: "Gateway", Plural: "gateways", Index: []Index{{ByClass, gatewayClass}}},
		{Group: "gateway.networking.k8s.io", Version: "v1", Name: "HTTPRoute", Plural: "httproutes", Index: []Index{{ByParent, routeParents}}},
		{Group: "gateway.networking.k8s.io", Version: "v1", Name: "ReferenceGrant", Plural: "referencegrants"},
		{Group: "gateway.networking.k8s.io", Version: "v1", Name: "BackendTLSPolicy", Plural: "backendtlspolicies", Index: []Index{target}},
		{Group: "networking.k8s.io", Version: "v1", Name: "IngressClass", Plural: "ingressclasses", Cluster: true},
		{Group: "networking.k8s.io", Version: "v1", Name: "Ingress", Plural: "ingresses", Index: []Index{{ByClass, ingressClass}}},
		{Version: "v1", Name: "Service", Plural: "services"},
		{Group: "discovery.k8s.io", Version: "v1", Name: "EndpointSlice", Plural: "endpointslices", Index: []Index{{ByService, sliceService}}},
		{Version: "v1", Name: "Secret", Plural: "secrets"},
		{Version: "v1", Name: "ConfigMap", Plural: "configmaps"},
		{Version: "v1", Name: "Namespace", Plural: "namespaces", Cluster: true},
		own("Backend", "backends"),
		own("ProtectionPolicy", "protectionpolicies", target),
		own("AuthPolicy", "authpolicies", target),
		own("RateLimitPolicy", "ratelimitpolicies", target),
		own("ClientTrafficPolicy", "clienttrafficpolicies", target),
		own("BackendTrafficPolicy", "backendtrafficpolicies", target),
		own("GatewayParameters", "gatewayparameters"),
	}
}

// KindOf is the kind name of an object, "" for a type that Gatehouse does not read.
func KindOf(o Object) string {
	switch o.(type) {
	case *gatewayv1.GatewayClass:
		return "GatewayClass"
	case *gatewayv1.Gateway:
		return "Gateway"
	case *gatewayv1.HTTPRoute:
		return "HTTPRoute"
	case *gatewayv1.ReferenceGrant:
		return "ReferenceGrant"
	case *gatewayv1.BackendTLSPolicy:
		return "BackendTLSPolicy"
	case *networkingv1.IngressClass:
		return "IngressClass"
	case *networkingv1.Ingress:
		return "Ingress"
	case *corev1.Service:
		return "Service"
	case *discoveryv1.EndpointSlice:
		return "EndpointSlice"
	case *Secret:
		return "Secret"
	case *corev1.ConfigMap:
		return "ConfigMap"
	case *corev1.Namespace:
		return "Namespace"
	case *v1alpha1.Backend:
		return "Backend"
	case *v1alpha1.ProtectionPolicy:
		return "ProtectionPolicy"
	case *v1alpha1.AuthPolicy:
		return "AuthPolicy"
	case *v1alpha1.RateLimitPolicy:
		return "RateLimitPolicy"
	case *v1alpha1.ClientTrafficPolicy:
		return "ClientTrafficPolicy"
	case *v1alpha1.BackendTrafficPolicy:
		return "BackendTrafficPolicy"
	case *v1alpha1.GatewayParameters:
		return "GatewayParameters"
	}
	return ""
}

// KeyOf names o.
func KeyOf(o Object) Key {
	return Key{KindOf(o), o.GetNamespace(), o.GetName()}
}

// New returns an empty object of a kind other than Secret to decode into, or nil for a kind that is not known.
func New(kind string) Object {
	switch kind {
	case "GatewayClass":
		return &gatewayv1.GatewayClass{}
	case "Gateway":
		return &gatewayv1.Gateway{}
	case "HTTPRoute":
		return &gatewayv1.HTTPRoute{}
	case "ReferenceGrant":
		return &gatewayv1.ReferenceGrant{}
	case "BackendTLSPolicy":
		return &gatewayv1.BackendTLSPolicy{}
	case "IngressClass":
		return &networkingv1.IngressClass{}
	case "Ingress":
		return &networkingv1.Ingress{}
	case "Service":
		return &corev1.Service{}
	case "EndpointSlice":
		return &discoveryv1.EndpointSlice{}
	case "ConfigMap":
		return &corev1.ConfigMap{}
	case "Namespace":
		return &corev1.Namespace{}
	case "Backend":
		return &v1alpha1.Backend{}
	case "ProtectionPolicy":
		return &v1alpha1.ProtectionPolicy{}
	case "AuthPolicy":
		return &v1alpha1.AuthPolicy{}
	case "RateLimitPolicy":
		return &v1alpha1.RateLimitPolicy{}
	case "ClientTrafficPolicy":
		return &v1alpha1.ClientTrafficPolicy{}
	case "BackendTrafficPolicy":
		return &v1alpha1.BackendTrafficPolicy{}
	case "GatewayParameters":
		return &v1alpha1.GatewayParameters{}
	}
	return nil
}

// Change is what one source saw change since its last Change. An object in Upserts replaces the one of its key.
type Change struct {
	Upserts []Object
	Deletes []Key
}

// Read is one thing that was read: one object by key (also when it was absent), or the list of a kind under one
// value of one index (Index "" and Value "": the whole kind).
type Read struct {
	Kind, Index, Value string
	Key                Key // for a read of one object; else zero
}

// Store holds objects by kind and key. It is used by one goroutine at a time.
type Store struct {
	kinds map[string]*table
}

type table struct {
	kind  Kind
	byKey map[Key]Object
	index map[string]map[string]map[Key]Object // index name -> value -> objects
}

// NewStore returns an empty store for all kinds.
func NewStore() *Store {
	s := &Store{kinds: map[string]*table{}}
	for _, k := range Kinds() {
		if !k.Cluster {
			k.Index = append(slices.Clip(k.Index), Index{ByNamespace, func(o Object) []string { return []string{o.GetNamespace()} }})
		}
		t := &table{kind: k, byKey: map[Key]Object{}, index: map[string]map[string]map[Key]Object{}}
		for _, ix := range k.Index {
			t.index[ix.Name] = map[string]map[Key]Object{}
		}
		s.kinds[k.Name] = t
	}
	return s
}

// Apply makes a change and returns every Read whose result it may have changed, without repeats.
func (s *Store) Apply(c Change) []Read {
	touched := map[Read]struct{}{}
	for _, k := range c.Deletes {
		if t := s.kinds[k.Kind]; t != nil {
			t.remove(k, touched)
		}
	}
	for _, o := range c.Upserts {
		k := KeyOf(o)
		t := s.kinds[k.Kind]
		if t == nil {
			panic(fmt.Sprintf("objects: %T is not a kind that is read", o))
		}
		t.remove(k, touched)
		t.add(k, o, touched)
	}
	out := make([]Read, 0, len(touched))
	for r := range touched {
		out = append(out, r)
	}
	return out
}

func (t *table) touch(k Key, o Object, touched map[Read]struct{}) {
	touched[Read{Kind: k.Kind, Key: k}] = struct{}{}
	touched[Read{Kind: k.Kind}] = struct{}{}
	for _, ix := range t.kind.Index {
		for _, v := range ix.Values(o) {
			touched[Read{Kind: k.Kind, Index: ix.Name, Value: v}] = struct{}{}
		}
	}
}

func (t *table) remove(k Key, touched map[Read]struct{}) {
	o, ok := t.byKey[k]
	if !ok {
		return
	}
	t.touch(k, o, touched)
	delete(t.byKey, k)
	for _, ix := range t.kind.Index {
		for _, v := range ix.Values(o) {
			m := t.index[ix.Name][v]
			delete(m, k)
			if len(m) == 0 {
				delete(t.index[ix.Name], v)
			}
		}
	}
}

func (t *table) add(k Key, o Object, touched map[Read]struct{}) {
	t.touch(k, o, touched)
	t.byKey[k] = o
	for _, ix := range t.kind.Index {
		for _, v := range ix.Values(o) {
			m := t.index[ix.Name][v]
			if m == nil {
				m = map[Key]Object{}
				t.index[ix.Name][v] = m
			}
			m[k] = o
		}
	}
}

// Len is the number of objects of a kind.
func (s *Store) Len(kind string) int {
	if t := s.kinds[kind]; t != nil {
		return len(t.byKey)
	}
	return 0
}

// Presence is the answer to whether an object is there.
type Presence uint8

// An object is absent, present, or known by metadata only while its body is being fetched.
const (
	Absent Presence = iota
	Present
	Pending
)

// View reads a Store and records what it read. The zero Record records nothing.
type View struct {
	store  *Store
	record func(Read)
}

// View returns a view that calls record for each read; record may be nil.
func (s *Store) View(record func(Read)) *View {
	if record == nil {
		record = func(Read) {}
	}
	return &View{s, record}
}

// Get returns one object of type T, the zero T if it is absent.
func Get[T Object](v *View, namespace, name string) (T, Presence) {
	var zero T
	k := Key{KindOf(zero), namespace, name}
	v.record(Read{Kind: k.Kind, Key: k})
	o, ok := v.store.kinds[k.Kind].byKey[k]
	if !ok {
		return zero, Absent
	}
	if s, ok := o.(*Secret); ok && s.Pending {
		return o.(T), Pending
	}
	return o.(T), Present
}

// List returns the objects of type T under one value of an index, the oldest first, then by namespace and name. Index ""
// lists all.
func List[T Object](v *View, index, value string) []T {
	var zero T
	kind := KindOf(zero)
	t := v.store.kinds[kind]
	m := t.byKey
	if index == "" {
		value = ""
	} else {
		m = t.index[index][value]
	}
	v.record(Read{Kind: kind, Index: index, Value: value})
	out := make([]T, 0, len(m))
	for _, o := range m {
		out = append(out, o.(T))
	}
	slices.SortFunc(out, func(a, b T) int { return Older(a, b) })
	return out
}

// Older orders by creation time (GEP-713's rule: the oldest wins), then namespace and name. An object without a
// creation time, as in a file, counts as older than one with it.
func Older(a, b Object) int {
	return cmp.Or(a.GetCreationTimestamp().Compare(b.GetCreationTimestamp().Time),
		cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
}
