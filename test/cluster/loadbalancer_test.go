package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

func TestPool(t *testing.T) {
	p := newPool(true)
	service := func(uid types.UID, want string, families ...corev1.IPFamily) *corev1.Service {
		return &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{UID: uid}, Spec: corev1.ServiceSpec{LoadBalancerIP: want, IPFamilies: families},
		}
	}
	tests := []struct {
		s    *corev1.Service
		want string
	}{
		{service("a", "", corev1.IPv4Protocol), "[172.30.0.1]"},
		{service("b", "172.30.0.2", corev1.IPv4Protocol), "[172.30.0.2]"},
		{service("c", "", corev1.IPv4Protocol, corev1.IPv6Protocol), "[172.30.0.3 fd00:172:30::3]"},
		{service("d", "172.30.0.2", corev1.IPv4Protocol), "[]"}, // taken
		{service("a", "", corev1.IPv4Protocol), "[172.30.0.1]"}, // keeps what it has
		{service("a", "172.30.9.9", corev1.IPv4Protocol), "[172.30.9.9]"},
	}
	for _, test := range tests {
		if got := fmt.Sprint(p.give(test.s)); got != test.want {
			t.Errorf("give(%s, %q) = %s, want %s", test.s.UID, test.s.Spec.LoadBalancerIP, got, test.want)
		}
	}
}

func TestImageName(t *testing.T) {
	for ref, want := range map[string]string{
		"web": "web", "web:1": "web", "shop/web@sha256:0": "shop/web", "example.com/shop/web:1": "shop/web", "localhost:5000/web:1": "web",
	} {
		if got := imageName(ref); got != want {
			t.Errorf("imageName(%q) = %q, want %q", ref, got, want)
		}
	}
}

func TestNth(t *testing.T) {
	if got := nth(podNet4, 256+7); got != netip.MustParseAddr("10.244.1.7") {
		t.Errorf("the 263rd pod address is %s", got)
	}
	if got := nth(podNet6, 256); got != netip.MustParseAddr("fd00:10:244::100") {
		t.Errorf("the 256th pod address is %s", got)
	}
}

func TestLoadBalancer(t *testing.T) {
	ctx, c, ns := use(t)
	services := c.Client().CoreV1().Services(ns)
	probePod(ctx, t, c, ns, `containers: [{name: c, image: probe, `+readyAt8080+`}]`)
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeLoadBalancer, LoadBalancerIP: "172.30.200.1", Selector: map[string]string{"app": "p"},
		Ports: []corev1.ServicePort{{Name: "a", Port: 80, TargetPort: intstr.FromInt32(8080)}},
	}}
	other := s.DeepCopy()
	other.Name, other.Spec.LoadBalancerClass = "other", ptr.To("example.com/other")
	for _, o := range []*corev1.Service{s, other} {
		if _, err := services.Create(ctx, o, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	url := serviceURL(ctx, t, c, ns, "s")
	if url != "http://172.30.200.1" {
		t.Errorf("the Service is at %s, not at the address it asked for", url)
	}
	answers := func(url string) error {
		return c.Wait(ctx, url, func(ctx context.Context) error { _, err := get(ctx, url+"/id"); return err })
	}
	refuses := func(url string) error {
		return c.Wait(ctx, url+" to refuse", func(ctx context.Context) error {
			if _, err := get(ctx, url+"/id"); !errors.Is(err, syscall.ECONNREFUSED) {
				return fmt.Errorf("got %w", err)
			}
			return nil
		})
	}
	patch := func(p string) {
		if _, err := services.Patch(ctx, "s", types.MergePatchType, []byte(p), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := answers(url); err != nil {
		t.Fatal(err)
	}
	patch(`{"spec":{"ports":[{"name":"b","port":81,"targetPort":8080}]}}`)
	if err := errors.Join(answers(url+":81"), refuses(url)); err != nil {
		t.Errorf("after a change of ports: %v", err)
	}
	patch(`{"spec":{"selector":{"app":"none"}}}`)
	if err := refuses(url + ":81"); err != nil {
		t.Errorf("without endpoints: %v", err)
	}
	patch(`{"spec":{"type":"ClusterIP","loadBalancerIP":null}}`)
	err := c.Wait(ctx, "the address to go", func(ctx context.Context) error {
		o, err := services.Get(ctx, "s", metav1.GetOptions{})
		if err == nil && len(o.Status.LoadBalancer.Ingress) > 0 {
			err = errors.New("still there")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if o, err := services.Get(ctx, "other", metav1.GetOptions{}); err != nil || len(o.Status.LoadBalancer.Ingress) > 0 {
		t.Errorf("a Service of another class got %v, %v", o.Status.LoadBalancer.Ingress, err)
	}
}
