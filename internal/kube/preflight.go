package kube

import (
	"context"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiversion "k8s.io/apimachinery/pkg/util/version"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// Versions that are known to do.
const (
	oldestKubernetes = "1.31.0" // CRD validation by CEL, EndpointSlice conditions, metadata watches
	gatewayAPI       = "1.6.0"  // the fields that translate reads
	labelName        = "app.kubernetes.io/name"
	bundleVersion    = "gateway.networking.k8s.io/bundle-version"
	channel          = "gateway.networking.k8s.io/channel"
)

// Installation is one Deployment or DaemonSet of Gatehouse in a cluster.
type Installation struct {
	Kind      string // Deployment or DaemonSet
	Namespace string
	Name      string
	Image     string
	Ready     int32
	Wanted    int32
	Args      []string // of the process
	Leader    string   // who holds the lease now, "" nobody
	Renewed   time.Time
}

// Installations finds what the chart installed, by its labels.
func (c *Cluster) Installations(ctx context.Context) ([]Installation, error) {
	client, err := c.client(schema.GroupVersion{Group: appsv1.GroupName, Version: "v1"})
	if err != nil {
		return nil, err
	}
	o := metav1.ListOptions{LabelSelector: labelName + "=gatehouse"}
	var deployments appsv1.DeploymentList
	var daemons appsv1.DaemonSetList
	err = client.Get().Resource("deployments").VersionedParams(&o, c.params).Do(ctx).Into(&deployments)
	if err == nil {
		err = client.Get().Resource("daemonsets").VersionedParams(&o, c.params).Do(ctx).Into(&daemons)
	}
	if err != nil {
		return nil, fmt.Errorf("looking for installations: %w", err)
	}
	var out []Installation
	add := func(kind string, m metav1.ObjectMeta, pod corev1.PodSpec, ready, wanted int32) {
		i := Installation{Kind: kind, Namespace: m.Namespace, Name: m.Name, Ready: ready, Wanted: wanted}
		if len(pod.Containers) > 0 {
			i.Image, i.Args = pod.Containers[0].Image, pod.Containers[0].Args
		}
		out = append(out, i)
	}
	for _, d := range deployments.Items {
		wanted := int32(1)
		if d.Spec.Replicas != nil {
			wanted = *d.Spec.Replicas
		}
		add("Deployment", d.ObjectMeta, d.Spec.Template.Spec, d.Status.ReadyReplicas, wanted)
	}
	for _, d := range daemons.Items {
		add("DaemonSet", d.ObjectMeta, d.Spec.Template.Spec, d.Status.NumberReady, d.Status.DesiredNumberScheduled)
	}
	for n := range out {
		c.lease(ctx, &out[n])
	}
	return out, nil
}

// lease reads who leads an installation. What may not be read stays empty.
func (c *Cluster) lease(ctx context.Context, i *Installation) {
	name, namespace := "gatehouse", i.Namespace
	for _, a := range i.Args {
		if v, ok := strings.CutPrefix(a, "--leader-election-lease="); ok {
			name = v
		}
		if v, ok := strings.CutPrefix(a, "--leader-election-namespace="); ok && v != "" && !strings.Contains(v, "$(") {
			namespace = v
		}
	}
	client, err := c.client(schema.GroupVersion{Group: coordinationv1.GroupName, Version: "v1"})
	if err != nil {
		return
	}
	var l coordinationv1.Lease
	if err := client.Get().Namespace(namespace).Resource("leases").Name(name).Do(ctx).Into(&l); err != nil {
		return
	}
	if l.Spec.HolderIdentity != nil && l.Spec.RenewTime != nil {
		i.Leader, i.Renewed = *l.Spec.HolderIdentity, l.Spec.RenewTime.Time
	}
}

// Preflight says what stands in the way of serving from this cluster, each with what to do: before an installation what it will
// miss, after it what is not as it should be.
func (c *Cluster) Preflight(ctx context.Context) ([]diag.Fault, []Installation, error) {
	info, err := c.discovery.ServerVersion()
	if err != nil {
		return nil, nil, fmt.Errorf("asking the API server for its version: %w", err)
	}
	var out []diag.Fault
	if v, err := apiversion.ParseGeneric(info.GitVersion); err == nil && v.LessThan(apiversion.MustParseGeneric(oldestKubernetes)) {
		out = append(out, diag.Fault{Reason: "OldKubernetes", Message: "the API server is " + info.GitVersion, Hint: "Gatehouse needs Kubernetes " + oldestKubernetes + " or newer"})
	}
	crds, err := c.crds(ctx)
	if err != nil {
		return nil, nil, err
	}
	out = append(out, crds...)
	out = append(out, c.rights(ctx)...)
	installations, err := c.Installations(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, i := range installations {
		out = append(out, i.faults(time.Now())...)
	}
	return out, installations, nil
}

// faults says what is not as it should be with an installation.
func (i *Installation) faults(now time.Time) (out []diag.Fault) {
	ref := diag.Ref{Group: appsv1.GroupName, Kind: i.Kind, Namespace: i.Namespace, Name: i.Name}
	if i.Ready < i.Wanted {
		out = append(out, diag.Fault{Object: ref, Reason: "NotReady", Message: fmt.Sprintf("%d of %d pods are ready", i.Ready, i.Wanted),
			Hint: fmt.Sprintf("kubectl -n %s describe pod -l %s=gatehouse; /readyz of a pod says what it waits for", i.Namespace, labelName)})
	}
	switch {
	case i.Ready == 0:
	case i.Leader == "":
		out = append(out, diag.Fault{Object: ref, Reason: "NoLeader", Message: "nobody holds the lease, so nobody writes status",
			Hint: "the ServiceAccount needs get, create and update on leases in " + i.Namespace})
	case now.Sub(i.Renewed) > 2*leaseDuration:
		out = append(out, diag.Fault{Object: ref, Reason: "NoLeader", Message: fmt.Sprintf("%s has not renewed the lease since %s, so nobody writes status", i.Leader, i.Renewed.UTC().Format(time.RFC3339)),
			Hint: "look into the log of the pods for what keeps them from the API server"})
	}
	return out
}

// crds says which custom resources are missing or older than what is read of them.
func (c *Cluster) crds(ctx context.Context) (out []diag.Fault, err error) {
	for _, k := range objects.Kinds() {
		if k.Group != "gateway.networking.k8s.io" && k.Group != v1alpha1.Group {
			continue
		}
		_, found, err := c.find(k)
		if err != nil {
			return nil, fmt.Errorf("asking what the API server serves: %w", err)
		}
		if !found {
			out = append(out, (&watch{kind: k}).missing())
			continue
		}
		meta, err := c.metadata.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}).
			Get(ctx, k.Plural+"."+k.Group, metav1.GetOptions{})
		if err != nil { // without the right to look there is nothing more to say
			continue
		}
		out = append(out, oldCRD(k, meta.Annotations)...)
	}
	return out, nil
}

// oldCRD says that a CRD of the Gateway API lacks fields: what users write in them is dropped by the API server without a word.
func oldCRD(k objects.Kind, annotations map[string]string) []diag.Fault {
	v, err := apiversion.ParseGeneric(annotations[bundleVersion])
	if k.Group == v1alpha1.Group || err != nil || !v.LessThan(apiversion.MustParseGeneric(gatewayAPI)) {
		return nil
	}
	return []diag.Fault{{Severity: diag.Warning, Reason: "OldCRD", Object: diag.Ref{Kind: "CustomResourceDefinition", Name: k.Plural + "." + k.Group},
		Message: fmt.Sprintf("is of Gateway API %s (%s channel): fields that are newer are dropped by the API server", annotations[bundleVersion], annotations[channel]),
		Hint:    "install the CRDs of Gateway API " + gatewayAPI + " or newer"}}
}

// right is one thing that the installer must be allowed to do.
type right struct{ group, resource, verb string }

// rights says which of the rights that an installation takes the user lacks.
func (c *Cluster) rights(ctx context.Context) (out []diag.Fault) {
	client, err := c.client(schema.GroupVersion{Group: authorizationv1.GroupName, Version: "v1"})
	if err != nil {
		return nil
	}
	for _, r := range []right{{"rbac.authorization.k8s.io", "clusterroles", "create"}, {"apiextensions.k8s.io", "customresourcedefinitions", "create"},
		{"gateway.networking.k8s.io", "gatewayclasses", "create"}, {"networking.k8s.io", "ingressclasses", "create"}, {"apps", "deployments", "create"}} {
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authorizationv1.ResourceAttributes{Group: r.group, Resource: r.resource, Verb: r.verb}}}
		var answer authorizationv1.SelfSubjectAccessReview
		if err := client.Post().Resource("selfsubjectaccessreviews").Body(review).Do(ctx).Into(&answer); err != nil || answer.Status.Allowed {
			continue
		}
		out = append(out, diag.Fault{Severity: diag.Warning, Reason: "Forbidden", Message: "you may not " + r.verb + " " + r.resource,
			Hint: "somebody who may has to run the installation"})
	}
	return out
}

// Describe is a line about an installation.
func (i *Installation) Describe(now time.Time) string {
	leader := "no leader"
	if i.Leader != "" {
		leader = fmt.Sprintf("leader %s (renewed %s ago)", i.Leader, now.Sub(i.Renewed).Round(time.Second))
	}
	return fmt.Sprintf("%s %s/%s: %d of %d ready, %s, %s", i.Kind, i.Namespace, i.Name, i.Ready, i.Wanted, i.Image, leader)
}
