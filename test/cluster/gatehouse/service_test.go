package gatehouse_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// services: the Service that each Gateway and IngressClass gets.
func services(s *site, t *testing.T) {
	sc := s.scene(t)
	sc.backends("web")
	for _, x := range []struct {
		name string
		run  func(*scene)
	}{
		{"parameters and infrastructure arrive", serviceParameters},
		{"ports move", servicePorts},
		{"target ports stay", serviceTargets},
		{"hands are mended", serviceMended},
		{"Gateways are apart", serviceApart},
		{"of an IngressClass", serviceOfClass},
		{"without an address", serviceWithoutAddress},
	} {
		t.Run(x.name, func(t *testing.T) { x.run(&scene{s, t, sc.namespace}) })
	}
}

// owned checks which installation a Service belongs to.
func owned(release string) func(*corev1.Service) error {
	return func(s *corev1.Service) error {
		if got := s.Labels["gatehouse.dev/installation"]; got != release {
			return fmt.Errorf("Service %s belongs to installation %q, want %q", s.Name, got, release)
		}
		return nil
	}
}

// httpGateway is a Gateway of the first installation with a listener for each port, and a route to it: its name is also the host.
func httpGateway(name string, ports ...int) string {
	var ls []string
	for _, p := range ports {
		ls = append(ls, fmt.Sprintf("{name: p%d, port: %d, protocol: HTTP}", p, p))
	}
	return fmt.Sprintf("apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: %s}\nspec: {gatewayClassName: gatehouse, listeners: [%s]}\n---",
		name, strings.Join(ls, ", ")) + route(name, name, name+".example", "web")
}

func serviceParameters(s *scene) {
	s.apply(`
apiVersion: gatehouse.dev/v1alpha1
kind: GatewayParameters
metadata: {name: mine}
spec: {infrastructure: {service: {type: NodePort, externalTrafficPolicy: Local, annotations: {example.com/scheme: internal}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: dressed}
spec:
  gatewayClassName: gatehouse
  infrastructure:
    labels: {example.com/team: shop}
    annotations: {example.com/cost: "7"}
    parametersRef: {group: gatehouse.dev, kind: GatewayParameters, name: mine}
  listeners: [{name: http, port: 80, protocol: HTTP}]
`)
	s.service("Gateway", "dressed", func(v *corev1.Service) error {
		if v.Spec.Type != corev1.ServiceTypeNodePort || v.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal ||
			v.Annotations["example.com/scheme"] != "internal" || v.Annotations["example.com/cost"] != "7" || v.Labels["example.com/team"] != "shop" ||
			v.Labels["gateway.networking.k8s.io/gateway-name"] != "dressed" {
			return fmt.Errorf("it is %s, %s, %v, %v", v.Spec.Type, v.Spec.ExternalTrafficPolicy, v.Annotations, v.Labels)
		}
		return nil
	})
	s.gateway("dressed", "Programmed", "True", "")
	// What is taken out again goes from the Service too.
	s.patch("GatewayParameters", "mine", `{"spec": {"infrastructure": {"service": {"type": "ClusterIP", "externalTrafficPolicy": null, "annotations": null}}}}`)
	s.patch("Gateway", "dressed", `{"spec": {"infrastructure": {"labels": null, "annotations": {"example.com/cost": "8"}}}}`)
	s.service("Gateway", "dressed", func(v *corev1.Service) error {
		_, scheme := v.Annotations["example.com/scheme"]
		_, team := v.Labels["example.com/team"]
		if v.Spec.Type != corev1.ServiceTypeClusterIP || v.Spec.ExternalTrafficPolicy != "" || scheme || team || v.Annotations["example.com/cost"] != "8" {
			return fmt.Errorf("it is %s, %s, %v, %v", v.Spec.Type, v.Spec.ExternalTrafficPolicy, v.Annotations, v.Labels)
		}
		return nil
	})
	s.remove("Gateway", "dressed")
	s.noService("Gateway", "dressed")
}

func servicePorts(s *scene) {
	s.apply(httpGateway("mover", 80))
	address := s.address("Gateway", "mover")
	s.serves(request{address: address, host: "mover.example"}, "web")
	s.apply(httpGateway("mover", 8080))
	s.serves(request{address: address, port: 8080, host: "mover.example"}, "web")
	s.service("Gateway", "mover", func(v *corev1.Service) error {
		if len(v.Spec.Ports) != 1 || v.Spec.Ports[0].Port != 8080 {
			return fmt.Errorf("its ports are %v", v.Spec.Ports)
		}
		return nil
	})
	s.closed(request{address: address, port: 80, host: "mover.example"})
	if now := s.address("Gateway", "mover"); now != address {
		s.Errorf("the address changed from %s to %s", address, now)
	}
}

// targets are the ports of pods by the ports of a Service.
func targets(v *corev1.Service) map[int32]int32 {
	out := map[int32]int32{}
	for _, p := range v.Spec.Ports {
		out[p.Port] = p.TargetPort.IntVal
	}
	return out
}

// serviceTargets: clients' connections go through target ports, so those in use stay what they are whatever is added beside them, and
// who ever leads.
func serviceTargets(s *scene) {
	s.apply(httpGateway("steady", 80, 81))
	address := s.address("Gateway", "steady")
	was := targets(s.service("Gateway", "steady", nil))
	s.apply(httpGateway("steady", 79, 80, 82), httpGateway("neighbour", 80, 81))
	more := func(v *corev1.Service) error {
		got := targets(v)
		if len(got) != 3 || got[80] != was[80] || got[79] == got[82] || got[79] == 0 {
			return fmt.Errorf("target ports are %v, were %v", got, was)
		}
		return nil
	}
	mine := targets(s.service("Gateway", "steady", more))
	theirs := targets(s.service("Gateway", "neighbour", func(v *corev1.Service) error {
		if len(v.Spec.Ports) != 2 {
			return fmt.Errorf("ports are %v", v.Spec.Ports)
		}
		return nil
	}))
	for _, a := range mine {
		for _, b := range theirs {
			if a == b {
				s.Errorf("two Gateways have target port %d", a)
			}
		}
	}
	s.restart()
	s.serves(request{address: address, port: 82, host: "steady.example"}, "web")
	if got := targets(s.service("Gateway", "steady", nil)); !maps.Equal(got, mine) {
		s.Errorf("after a restart target ports are %v, were %v", got, mine)
	}
}

// restart replaces the pod of the first installation and waits until the new one leads.
func (s *scene) restart() {
	s.Helper()
	old, err := s.pods(s.Context(), system, "gatehouse")
	s.must(err)
	for _, p := range old {
		s.must(s.Client().CoreV1().Pods(system).Delete(s.Context(), p.Name, metav1.DeleteOptions{}))
	}
	s.eventually("a new pod that leads", func(ctx context.Context) error {
		now, err := s.pods(ctx, system, "gatehouse")
		if err != nil {
			return err
		}
		l, err := s.Client().CoordinationV1().Leases(system).Get(ctx, "gatehouse", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if len(now) != 1 || now[0].UID == old[0].UID || l.Spec.HolderIdentity == nil || *l.Spec.HolderIdentity != now[0].Name {
			return fmt.Errorf("%d pods, the lease has %v", len(now), l.Spec.HolderIdentity)
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(s.Context(), 30*time.Second)
	defer cancel()
	s.must(s.WaitDeployment(ctx, system, "gatehouse"))
}

// serviceMended: who deletes the Service or edits what is Gatehouse's in it sees it put right within seconds.
func serviceMended(s *scene) {
	s.apply(httpGateway("mended", 80))
	s.address("Gateway", "mended")
	was := s.service("Gateway", "mended", nil)
	hand := s.Client().CoreV1().Services(system)
	s.must(hand.Delete(s.Context(), was.Name, metav1.DeleteOptions{}))
	s.within(5*time.Second, "the deleted Service", func(ctx context.Context) error {
		v, err := s.findService(ctx, system, "Gateway", "mended")
		if err == nil && v.UID == was.UID {
			err = errors.New("it is still the old one")
		}
		return err
	})
	s.servesAtStatus("mended")
	was = s.service("Gateway", "mended", nil)
	for what, edit := range map[string]string{
		"target port": `{"spec": {"ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 1}]}}`,
		"port":        `{"spec": {"ports": [{"name": "http", "port": 8888, "protocol": "TCP", "targetPort": 10080}]}}`,
		"number of ports": `{"spec": {"ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 10080},
			{"name": "more", "port": 81, "protocol": "TCP"}]}}`,
		"selector": `{"spec": {"selector": {"app.kubernetes.io/instance": "somebody"}}}`,
		"type":     `{"spec": {"type": "ClusterIP"}}`,
		"label":    `{"metadata": {"labels": {"gateway.networking.k8s.io/gateway-name": null}}}`,
	} {
		s.patchIn(system, "Service", was.Name, edit)
		s.within(5*time.Second, "the Service with another "+what, func(ctx context.Context) error {
			v, err := hand.Get(ctx, was.Name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			got := targets(v)
			if len(got) != 1 || got[80] <= 10000 || got[80] >= 32768 || !maps.Equal(v.Spec.Selector, was.Spec.Selector) || v.Spec.Type != was.Spec.Type ||
				!maps.Equal(v.Labels, was.Labels) {
				return fmt.Errorf("it is %v, %v, %v, %v", v.Spec.Ports, v.Spec.Selector, v.Spec.Type, v.Labels)
			}
			return request{address: s.address("Gateway", "mended"), host: "mended.example"}.answers(ctx, http.StatusOK, "web")
		})
	}
	// What others own stays: a cloud's controller annotates Services.
	s.patchIn(system, "Service", was.Name, `{"metadata": {"annotations": {"example.com/theirs": "1"}, "finalizers": ["example.com/theirs"]}}`)
	s.apply(httpGateway("mended", 80, 81))
	v := s.service("Gateway", "mended", func(v *corev1.Service) error {
		if len(v.Spec.Ports) != 2 {
			return fmt.Errorf("its ports are %v", v.Spec.Ports)
		}
		return nil
	})
	if v.Annotations["example.com/theirs"] != "1" || len(v.Finalizers) == 0 {
		s.Errorf("what others wrote is gone: %v, %v", v.Annotations, v.Finalizers)
	}
	s.patchIn(system, "Service", was.Name, `{"metadata": {"finalizers": null}}`)
	s.servesAtStatus("mended")
}

// servesAtStatus waits until a Gateway serves its host at the address that its status has.
func (s *scene) servesAtStatus(name string) {
	s.Helper()
	s.eventually(name+" to serve", func(ctx context.Context) error {
		o, err := s.of("Gateway").Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		a := addresses(o)
		if len(a) == 0 {
			return errors.New("it has no address")
		}
		return request{address: a[0], host: name + ".example"}.answers(ctx, http.StatusOK, "web")
	})
}

// patchIn is patch in another namespace.
func (s *scene) patchIn(namespace, kind, name, json string) {
	s.Helper()
	there := &scene{s.site, s.T, namespace}
	there.patch(kind, name, json)
}

func serviceApart(s *scene) {
	s.apply(httpGateway("left", 80), httpGateway("right", 80))
	left, right := s.address("Gateway", "left"), s.address("Gateway", "right")
	s.serves(request{address: left, host: "left.example"}, "web")
	s.serves(request{address: right, host: "right.example"}, "web")
	s.refuses(request{address: left, host: "right.example"}, http.StatusNotFound)
	s.refuses(request{address: right, host: "left.example"}, http.StatusNotFound)
}

func serviceOfClass(s *scene) {
	s.apply(`
apiVersion: gatehouse.dev/v1alpha1
kind: GatewayParameters
metadata: {name: class}
spec: {infrastructure: {service: {type: ClusterIP}}}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: $NS-own}
spec:
  controller: gatehouse.dev/ingress
  parameters: {apiGroup: gatehouse.dev, kind: GatewayParameters, scope: Namespace, namespace: $NS, name: class}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: own}
spec: {ingressClassName: $NS-own, defaultBackend: {service: {name: web, port: {number: 80}}}}
`)
	kind := func(want corev1.ServiceType) func(*corev1.Service) error {
		return func(v *corev1.Service) error {
			if v.Spec.Type != want {
				return fmt.Errorf("it is of type %s", v.Spec.Type)
			}
			return nil
		}
	}
	v := s.service("IngressClass", s.namespace+"-own", kind(corev1.ServiceTypeClusterIP))
	address := s.address("Ingress", "own")
	if address != v.Spec.ClusterIP {
		s.Errorf("the Ingress has %s, its Service %s", address, v.Spec.ClusterIP)
	}
	s.serves(request{address: address, host: "any.example"}, "web")
	s.patch("GatewayParameters", "class", `{"spec": {"infrastructure": {"service": {"type": "LoadBalancer"}}}}`)
	s.service("IngressClass", s.namespace+"-own", kind(corev1.ServiceTypeLoadBalancer))
	s.eventually("the new address", func(ctx context.Context) error {
		o, err := s.of("Ingress").Get(ctx, "own", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if a := addresses(o); len(a) == 0 || a[0] == address {
			return fmt.Errorf("it has %v", a)
		}
		return nil
	})
	s.serves(request{address: s.address("Ingress", "own"), host: "any.example"}, "web")
}

func serviceWithoutAddress(s *scene) {
	s.apply(`
apiVersion: gatehouse.dev/v1alpha1
kind: GatewayParameters
metadata: {name: nobody}
spec: {infrastructure: {service: {type: LoadBalancer, loadBalancerClass: example.com/nobody}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: unreached}
spec:
  gatewayClassName: gatehouse
  infrastructure: {parametersRef: {group: gatehouse.dev, kind: GatewayParameters, name: nobody}}
  listeners: [{name: http, port: 80, protocol: HTTP}]
---` + route("unreached", "unreached", "unreached.example", "web"))
	s.gateway("unreached", "Accepted", "True", "")
	s.gateway("unreached", "Programmed", "False/AddressNotAssigned", "infrastructure.service.type")
	s.patch("GatewayParameters", "nobody", `{"spec": {"infrastructure": {"service": {"type": "ClusterIP", "loadBalancerClass": null}}}}`)
	s.gateway("unreached", "Programmed", "True", "")
	s.servesAtStatus("unreached")
}
