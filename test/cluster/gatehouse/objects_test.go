package gatehouse_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/gatehouse-io/gatehouse/test/cluster"
)

// resources says where the API has the kinds that tests look at, and which of them have no namespace.
var resources = map[string]struct {
	schema.GroupVersionResource
	global bool
}{
	"GatewayClass":        {schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gatewayclasses"}, true},
	"Gateway":             {schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gateways"}, false},
	"HTTPRoute":           {schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"}, false},
	"GatewayParameters":   {schema.GroupVersionResource{Group: "gatehouse.dev", Version: "v1alpha1", Resource: "gatewayparameters"}, false},
	"ProtectionPolicy":    {schema.GroupVersionResource{Group: "gatehouse.dev", Version: "v1alpha1", Resource: "protectionpolicies"}, false},
	"AuthPolicy":          {schema.GroupVersionResource{Group: "gatehouse.dev", Version: "v1alpha1", Resource: "authpolicies"}, false},
	"RateLimitPolicy":     {schema.GroupVersionResource{Group: "gatehouse.dev", Version: "v1alpha1", Resource: "ratelimitpolicies"}, false},
	"ClientTrafficPolicy": {schema.GroupVersionResource{Group: "gatehouse.dev", Version: "v1alpha1", Resource: "clienttrafficpolicies"}, false},
	"Backend":             {schema.GroupVersionResource{Group: "gatehouse.dev", Version: "v1alpha1", Resource: "backends"}, false},
	"Ingress":             {schema.GroupVersionResource{Group: "networking.k8s.io", Version: "v1", Resource: "ingresses"}, false},
	"IngressClass":        {schema.GroupVersionResource{Group: "networking.k8s.io", Version: "v1", Resource: "ingressclasses"}, true},
	"Service":             {schema.GroupVersionResource{Version: "v1", Resource: "services"}, false},
	"Secret":              {schema.GroupVersionResource{Version: "v1", Resource: "secrets"}, false},
	"Lease":               {schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}, false},
}

// of is the client for a kind, in the test's namespace where it has one.
func (s *scene) of(kind string) dynamic.ResourceInterface {
	r, ok := resources[kind]
	if !ok {
		s.Fatalf("kind %s is not in the list", kind)
	}
	if r.global {
		return s.Dynamic().Resource(r.GroupVersionResource)
	}
	return s.Dynamic().Resource(r.GroupVersionResource).Namespace(s.namespace)
}

// apply applies objects: $NS stands for the test's namespace, which is also that of those that name none. What has no namespace
// goes when the test ends; the rest goes with its namespace.
func (s *scene) apply(yaml ...string) {
	s.Helper()
	for _, y := range yaml {
		all, err := cluster.ParseYAML([]byte(strings.ReplaceAll(y, "$NS", s.namespace)))
		s.must(err)
		for _, o := range all {
			if resources[o.GetKind()].global {
				s.Cleanup(func() {
					_ = s.of(o.GetKind()).Delete(context.Background(), o.GetName(), metav1.DeleteOptions{}) // a test may have done so itself
				})
			} else if o.GetNamespace() == "" {
				o.SetNamespace(s.namespace)
			}
		}
		s.must(s.ApplyObjects(s.Context(), all...))
	}
}

// remove deletes one object.
func (s *scene) remove(kind, name string) {
	s.Helper()
	s.must(s.of(kind).Delete(s.Context(), name, metav1.DeleteOptions{}))
}

// patch is a merge patch of one object.
func (s *scene) patch(kind, name, json string, sub ...string) {
	s.Helper()
	_, err := s.of(kind).Patch(s.Context(), name, types.MergePatchType, []byte(json), metav1.PatchOptions{FieldManager: "tester"}, sub...)
	s.must(err)
}

// conditions are those of a list in an object, type to condition.
func conditions(at any) map[string]metav1.Condition {
	out := map[string]metav1.Condition{}
	list, _ := at.([]any)
	for _, x := range list {
		m, _ := x.(map[string]any)
		var c metav1.Condition
		if runtime.DefaultUnstructuredConverter.FromUnstructured(m, &c) == nil {
			out[c.Type] = c
		}
	}
	return out
}

// hasCondition says what is missing to a condition: status as "True", or "False/Reason", and a part of its message.
func hasCondition(all any, kind, status, message string) error {
	c, ok := conditions(all)[kind]
	want, reason, _ := strings.Cut(status, "/")
	if !ok || string(c.Status) != want || reason != "" && c.Reason != reason || !strings.Contains(c.Message, message) {
		return fmt.Errorf("%s is %s/%s %q, want %s %q", kind, c.Status, c.Reason, c.Message, status, message)
	}
	return nil
}

func at(o *unstructured.Unstructured, path ...string) any {
	v, _, _ := unstructured.NestedFieldNoCopy(o.Object, path...)
	return v
}

// gateway waits until a condition of a Gateway is what it should be.
func (s *scene) gateway(name, kind, status, message string) {
	s.Helper()
	s.eventually("Gateway "+name, func(ctx context.Context) error {
		o, err := s.of("Gateway").Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		return hasCondition(at(o, "status", "conditions"), kind, status, message)
	})
}

// address waits for the first address in the status of a Gateway or Ingress.
func (s *scene) address(kind, name string) (address string) {
	s.Helper()
	s.eventually("an address of "+kind+" "+name, func(ctx context.Context) error {
		o, err := s.of(kind).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		all := addresses(o)
		if len(all) == 0 {
			return fmt.Errorf("status is %v", o.Object["status"])
		}
		address = all[0]
		return nil
	})
	return address
}

// addresses are those in the status of a Gateway or Ingress.
func addresses(o *unstructured.Unstructured) (out []string) {
	list, _ := at(o, "status", "addresses").([]any)
	ingress, _ := at(o, "status", "loadBalancer", "ingress").([]any)
	for _, a := range slices.Concat(list, ingress) {
		m, _ := a.(map[string]any)
		for _, f := range []string{"value", "ip", "hostname"} {
			if v, _ := m[f].(string); v != "" {
				out = append(out, v)
			}
		}
	}
	return out
}

// ownerSelector finds the Services of a Gateway or IngressClass.
func ownerSelector(kind, namespace, name string) string {
	sel := "gatehouse.dev/owner-kind=" + kind + ",gatehouse.dev/owner-name=" + name
	if namespace != "" {
		sel += ",gatehouse.dev/owner-namespace=" + namespace
	}
	return sel
}

// findService is the one Service that an owner has in the namespace of the installation.
func (s *scene) findService(ctx context.Context, system, kind, name string) (*corev1.Service, error) {
	namespace := s.namespace
	if resources[kind].global {
		namespace = ""
	}
	l, err := s.Client().CoreV1().Services(system).List(ctx, metav1.ListOptions{LabelSelector: ownerSelector(kind, namespace, name)})
	if err != nil {
		return nil, err
	}
	if len(l.Items) != 1 {
		return nil, fmt.Errorf("%s %s has %d Services", kind, name, len(l.Items))
	}
	return &l.Items[0], nil
}

// service waits until the Service of an owner is there and check says nothing against it.
func (s *scene) service(kind, name string, check func(*corev1.Service) error) (found *corev1.Service) {
	s.Helper()
	s.eventually("the Service of "+kind+" "+name, func(ctx context.Context) error {
		var err error
		if found, err = s.findService(ctx, system, kind, name); err != nil || check == nil {
			return err
		}
		return check(found)
	})
	return found
}

// noService waits until an owner has no Service.
func (s *scene) noService(kind, name string) {
	s.Helper()
	s.eventually("the end of the Service of "+kind+" "+name, func(ctx context.Context) error {
		l, err := s.Client().CoreV1().Services(system).List(ctx, metav1.ListOptions{LabelSelector: ownerSelector(kind, s.namespace, name)})
		if err == nil && len(l.Items) > 0 {
			err = errors.New(l.Items[0].Name + " is there")
		}
		return err
	})
}
