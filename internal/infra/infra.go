// Package infra turns what translate wants for a Gateway or an IngressClass into the Kubernetes objects that bring clients to
// it: one Service each. It is pure: it compares what is wanted with what is there and returns what to write and what to remove.
package infra

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
)

// Labels and annotations of a Service that is ours. The first two of the labels say which installation it belongs to: only what
// carries them is ever changed or removed.
const (
	LabelManagedBy      = "app.kubernetes.io/managed-by" // "gatehouse"
	LabelInstallation   = "gatehouse.dev/installation"   // Options.Installation
	LabelOwnerKind      = v1alpha1.LabelOwnerKind
	LabelOwnerNamespace = "gatehouse.dev/owner-namespace"
	LabelOwnerName      = "gatehouse.dev/owner-name"
	LabelGatewayName    = "gateway.networking.k8s.io/gateway-name" // GEP-1762
	annotationApplied   = "gatehouse.dev/applied"                  // a digest of what was written, to see what was taken out since
	managedBy           = "gatehouse"
)

// Target ports lie in this range, below the ports that Linux takes for outgoing connections.
const (
	firstTarget = 20000
	lastTarget  = 31999
	offset      = 10000 // 80 becomes 10080 where that is free, so that people recognise it
)

// Options are what holds for every Service of an installation.
type Options struct {
	Namespace    string            // where the Services lie
	Installation string            // tells the Services of two installations in one namespace apart
	Selector     map[string]string // labels of the pods that serve
}

// Labels are those by which the Services of an installation are found.
func (o *Options) Labels() map[string]string {
	return map[string]string{LabelManagedBy: managedBy, LabelInstallation: o.Installation}
}

// Services compares the Services that objects want with those that are there (have: all with o.Labels()). apply are those
// to create or to change, in full; remove are the names of those whose owner is gone or wants none. Target ports that are
// assigned stay what they are, but for those that somebody else must have written; new ones collide with none in have.
func Services(objects []*diag.Object, have []*corev1.Service, o Options) (apply []*corev1.Service, remove []string) {
	objects = slices.Clone(objects)
	slices.SortFunc(objects, func(a, b *diag.Object) int { return a.Ref.Compare(b.Ref) })
	there, taken, given := map[string]*corev1.Service{}, map[int32]bool{}, map[int32]bool{}
	for _, s := range have {
		there[s.Name] = s
		for _, p := range s.Spec.Ports {
			taken[p.TargetPort.IntVal] = true
		}
	}
	wanted := map[string]bool{}
	for _, obj := range objects {
		if obj.Exposure == nil {
			continue
		}
		wanted[obj.Exposure.Service] = true
		if obj.Exposure.Keep {
			continue
		}
		old := there[obj.Exposure.Service]
		s := service(obj, old, taken, given, o)
		if old == nil || differs(s, old) {
			apply = append(apply, s)
		}
	}
	for name := range there {
		if !wanted[name] {
			remove = append(remove, name)
		}
	}
	slices.Sort(remove)
	return apply, remove
}

// service is the Service that obj wants. given are the target ports of this and the objects before it.
func service(obj *diag.Object, old *corev1.Service, taken, given map[int32]bool, o Options) *corev1.Service {
	e := obj.Exposure
	s := &corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Name: e.Service, Namespace: o.Namespace, Labels: map[string]string{}, Annotations: map[string]string{}}}
	maps.Copy(s.Labels, e.Labels)
	maps.Copy(s.Labels, o.Labels())
	s.Labels[LabelOwnerKind] = obj.Ref.Kind
	s.Labels[LabelOwnerName] = labelValue(obj.Ref.Name)
	if obj.Ref.Namespace != "" {
		s.Labels[LabelOwnerNamespace] = labelValue(obj.Ref.Namespace)
	}
	if obj.Ref.Kind == "Gateway" {
		s.Labels[LabelGatewayName] = labelValue(obj.Ref.Name)
	}
	maps.Copy(s.Annotations, e.Annotations)
	families := corev1.IPFamilyPolicyPreferDualStack
	s.Spec = corev1.ServiceSpec{Type: corev1.ServiceType(e.Type), Selector: o.Selector, IPFamilyPolicy: &families,
		ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicy(e.TrafficPolicy)}
	if e.Type == string(corev1.ServiceTypeLoadBalancer) {
		s.Spec.LoadBalancerIP = e.Address
		if e.Class != "" {
			s.Spec.LoadBalancerClass = &e.Class
		}
	}
	for _, port := range e.Ports {
		target := assigned(old, port)
		if target <= offset || target > lastTarget || given[target] { // none, or none that allocate has given
			target = allocate(port, taken)
		}
		taken[target], given[target] = true, true
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: portName(port), Port: port, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(target)})
	}
	s.Annotations[annotationApplied] = digest(s)
	return s
}

// assigned is the target port that a Service already has for a port, 0 if none.
func assigned(s *corev1.Service, port int32) int32 {
	if s == nil {
		return 0
	}
	for _, p := range s.Spec.Ports {
		if p.Port == port && p.TargetPort.Type == intstr.Int {
			return p.TargetPort.IntVal
		}
	}
	return 0
}

// allocate picks a target port that is not taken. A range that is used up gives 0, which the API server refuses with its reason.
func allocate(port int32, taken map[int32]bool) int32 {
	if like := port + offset; like < firstTarget && !taken[like] {
		return like
	}
	for t := int32(firstTarget); t <= lastTarget; t++ {
		if !taken[t] {
			return t
		}
	}
	return 0
}

func portName(port int32) string {
	switch port {
	case 80:
		return "http"
	case 443:
		return "https"
	}
	return "tcp-" + strconv.Itoa(int(port))
}

// labelValue makes a name fit into a label: one that is longer than 63 bytes ends in a digest of itself.
func labelValue(name string) string {
	if len(name) <= 63 {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return name[:52] + "-" + hex.EncodeToString(sum[:5])
}

func digest(s *corev1.Service) string {
	b, _ := json.Marshal(s) // plain data
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:6])
}

// differs says whether a Service is not as it is wanted, in what is ours to decide.
func differs(want, have *corev1.Service) bool {
	if want.Annotations[annotationApplied] != have.Annotations[annotationApplied] || !subset(want.Labels, have.Labels) ||
		!subset(want.Annotations, have.Annotations) || want.Spec.Type != have.Spec.Type || !maps.Equal(want.Spec.Selector, have.Spec.Selector) ||
		want.Spec.LoadBalancerIP != have.Spec.LoadBalancerIP {
		return true
	}
	if p := want.Spec.ExternalTrafficPolicy; p != "" && p != have.Spec.ExternalTrafficPolicy {
		return true
	}
	return !slices.EqualFunc(sorted(want.Spec.Ports), sorted(have.Spec.Ports), func(a, b corev1.ServicePort) bool {
		return a.Port == b.Port && a.TargetPort == b.TargetPort && cmp.Or(b.Protocol, corev1.ProtocolTCP) == a.Protocol
	})
}

func sorted(ps []corev1.ServicePort) []corev1.ServicePort {
	ps = slices.Clone(ps)
	slices.SortFunc(ps, func(a, b corev1.ServicePort) int { return cmp.Compare(a.Port, b.Port) })
	return ps
}

func subset(a, b map[string]string) bool {
	for k, v := range a {
		if w, ok := b[k]; !ok || w != v {
			return false
		}
	}
	return true
}
