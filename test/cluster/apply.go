package cluster

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/restmapper"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"
)

// fieldManager is the name under which Apply owns fields.
const fieldManager = "gatehouse-test-cluster"

// ParseYAML reads the objects of documents of YAML or JSON; lists are taken apart.
func ParseYAML(docs ...[]byte) ([]*unstructured.Unstructured, error) {
	var all []*unstructured.Unstructured
	for _, doc := range docs {
		r := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(doc)))
		for {
			raw, err := r.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("reading YAML: %w", err)
			}
			var m map[string]any
			if err := yaml.Unmarshal(raw, &m); err != nil {
				return nil, fmt.Errorf("reading YAML: %w in\n%.300s", err, raw)
			}
			if len(m) == 0 {
				continue
			}
			o := &unstructured.Unstructured{Object: m}
			if o.IsList() {
				if err := o.EachListItem(func(item runtime.Object) error {
					all = append(all, item.(*unstructured.Unstructured))
					return nil
				}); err != nil {
					return nil, err
				}
				continue
			}
			all = append(all, o)
		}
	}
	return all, nil
}

// Apply applies the objects of all documents, in their order but CRDs and namespaces first, as `kubectl apply --server-side
// --force-conflicts` does. It returns when the API server serves the kinds of CRDs among them. An object without a namespace goes to
// "default".
func (c *Cluster) Apply(ctx context.Context, docs ...[]byte) error {
	all, err := ParseYAML(docs...)
	if err != nil {
		return err
	}
	return c.ApplyObjects(ctx, all...)
}

// ApplyObjects is Apply for objects.
func (c *Cluster) ApplyObjects(ctx context.Context, all ...*unstructured.Unstructured) error {
	rank := func(o *unstructured.Unstructured) int {
		switch o.GetKind() {
		case "CustomResourceDefinition":
			return 0
		case "Namespace":
			return 1
		default:
			return 2
		}
	}
	var mapper meta.RESTMapper
	for r := range 3 {
		var done []*unstructured.Unstructured
		for _, o := range all {
			if rank(o) != r {
				continue
			}
			var err error
			if mapper == nil {
				if mapper, err = c.mapper(); err != nil {
					return err
				}
			}
			if err := c.applyOne(ctx, mapper, o); err != nil {
				return fmt.Errorf("applying %s %s: %w", o.GetKind(), name(o), err)
			}
			done = append(done, o)
		}
		for _, o := range done {
			var err error
			switch r {
			case 0:
				mapper = nil // there are new kinds
				err = c.waitEstablished(ctx, o.GetName())
			case 1:
				err = c.waitDefaultAccount(ctx, o.GetName())
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func name(o metav1.Object) string {
	if o.GetNamespace() == "" {
		return o.GetName()
	}
	return o.GetNamespace() + "/" + o.GetName()
}

func (c *Cluster) mapper() (meta.RESTMapper, error) {
	groups, err := restmapper.GetAPIGroupResources(c.client.Discovery())
	if err != nil {
		return nil, fmt.Errorf("asking for the kinds of the API: %w", err)
	}
	return restmapper.NewDiscoveryRESTMapper(groups), nil
}

func (c *Cluster) applyOne(ctx context.Context, mapper meta.RESTMapper, o *unstructured.Unstructured) error {
	kind := o.GroupVersionKind()
	m, err := mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return err
	}
	raw, err := o.MarshalJSON()
	if err != nil {
		return err
	}
	namespace := ""
	if m.Scope.Name() == meta.RESTScopeNameNamespace {
		namespace = o.GetNamespace()
		if namespace == "" {
			namespace = "default"
		}
	}
	_, err = c.dynamic.Resource(m.Resource).Namespace(namespace).Patch(ctx, o.GetName(), types.ApplyPatchType, raw,
		metav1.PatchOptions{FieldManager: fieldManager, Force: ptr.To(true)})
	return err
}

// Wait polls until done says so. The error of the last try is in that of Wait.
func (c *Cluster) Wait(ctx context.Context, what string, done func(context.Context) error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := done(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w: %w", what, ctx.Err(), err)
		}
	}
}

func (c *Cluster) waitEstablished(ctx context.Context, name string) error {
	crds := c.dynamic.Resource(schema.GroupVersionResource{
		Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions",
	})
	return c.Wait(ctx, "CRD "+name, func(ctx context.Context) error {
		o, err := crds.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		conditions, _, err := unstructured.NestedSlice(o.Object, "status", "conditions")
		if err != nil {
			return err
		}
		for _, x := range conditions {
			if m, ok := x.(map[string]any); ok && m["type"] == "Established" && m["status"] == "True" {
				return nil
			}
		}
		return errors.New("not established")
	})
}

// waitDefaultAccount waits for what pods of a new namespace need.
func (c *Cluster) waitDefaultAccount(ctx context.Context, namespace string) error {
	return c.Wait(ctx, "the service account of namespace "+namespace, func(ctx context.Context) error {
		if _, err := c.client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{}); err != nil {
			return err
		}
		_, err := c.client.CoreV1().ConfigMaps(namespace).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		return err
	})
}

// WaitDeployment waits until a Deployment's newest pods are all ready and no older ones are left. Its error says how far it got and
// what its pods complain of.
func (c *Cluster) WaitDeployment(ctx context.Context, namespace, name string) error {
	var d *appsv1.Deployment
	err := c.Wait(ctx, "deployment "+namespace+"/"+name, func(ctx context.Context) error {
		var err error
		if d, err = c.client.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		want := ptr.Deref(d.Spec.Replicas, 1)
		s := d.Status
		if s.ObservedGeneration < d.Generation || s.UpdatedReplicas != want || s.Replicas != want || s.AvailableReplicas != want {
			return fmt.Errorf("of %d pods %d are new, %d ready, %d there in all", want, s.UpdatedReplicas, s.ReadyReplicas, s.Replicas)
		}
		return nil
	})
	if err == nil || d == nil {
		return err
	}
	return fmt.Errorf("%w\n%s", err, c.complaints(context.WithoutCancel(ctx), namespace, d.Spec.Selector))
}

// complaints describes the pods of a selector that are not ready.
func (c *Cluster) complaints(ctx context.Context, namespace string, selector *metav1.LabelSelector) string {
	pods, err := c.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(selector)})
	if err != nil {
		return err.Error()
	}
	var out bytes.Buffer
	for i := range pods.Items {
		o := &pods.Items[i]
		if hasCondition(o, corev1.PodReady) {
			continue
		}
		fmt.Fprintf(&out, "pod %s: %s\n", o.Name, o.Status.Phase)
		for _, s := range append(o.Status.InitContainerStatuses, o.Status.ContainerStatuses...) {
			if w := s.State.Waiting; w != nil {
				fmt.Fprintf(&out, "  container %s waits: %s %s\n", s.Name, w.Reason, w.Message)
			}
			if t := s.LastTerminationState.Terminated; t != nil {
				fmt.Fprintf(&out, "  container %s ended with %d: %s\n", s.Name, t.ExitCode, t.Message)
			}
		}
		if logs, err := c.Logs(namespace, o.Name); err == nil && logs != "" {
			fmt.Fprintf(&out, "  logs:\n%s", logs[max(0, len(logs)-2000):])
		}
	}
	events, err := c.client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{})
	if apierrors.IsNotFound(err) || err != nil {
		return out.String()
	}
	for _, e := range events.Items[max(0, len(events.Items)-10):] {
		fmt.Fprintf(&out, "event %s %s: %s: %s\n", e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Reason, e.Message)
	}
	return out.String()
}
