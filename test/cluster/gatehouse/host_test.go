package gatehouse_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gatehouse-io/gatehouse/test/cluster"
)

// Addresses of the node that only tests of exposure Host use (RFC 5737).
const (
	north = "192.0.2.10"
	south = "192.0.2.11"
)

// hostGateway is a Gateway of the class host at one address of the node, with a route to it: its name is also the host.
func hostGateway(name, address string) string {
	return strings.NewReplacer("$name", name, "$address", address).Replace(`
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: $name}
spec:
  gatewayClassName: host
  addresses: [{value: $address}]
  listeners: [{name: http, port: 80, protocol: HTTP}]
---`) + route(name, name, name+".example", "web")
}

// hostRelease is an installation whose pod has the node's network. One pod, because both nodes of the test cluster have one network.
func hostRelease(more ...string) cluster.Release {
	return cluster.Release{Name: "gatehouse-host", Set: append([]string{"replicas=1", "exposure=Host", "drainGrace=0s", "healthPort=9912",
		"admin=127.0.0.1:9911", "controllers.gateway=gatehouse.dev/gateway-host", "controllers.ingress=gatehouse.dev/ingress-host",
		"gatewayClass.name=host", "ingressClass.create=false"}, more...)}
}

// host: that installation binds the addresses that Gateways name.
func host(s *site, t *testing.T) {
	sc := s.scene(t)
	sc.nodeAddress(north)
	sc.nodeAddress(south)
	sc.backends("web")
	sc.install(hostRelease())
	for _, x := range []struct {
		name string
		run  func(*scene)
		low  bool // it binds a low port
	}{
		{"two addresses, one port", hostTwoAddresses, true},
		{"two Gateways, one bind", hostOneBind, true},
		{"no address named", hostNoAddress, false},
		{"without the capability", hostWithoutCapability, false},
	} {
		t.Run(x.name, func(t *testing.T) {
			if x.low {
				needsCapabilities(t)
			}
			x.run(&scene{s, t, sc.namespace})
		})
	}
}

// hostTwoAddresses: two Gateways have port 80 at an address each, and status names just that.
func hostTwoAddresses(s *scene) {
	s.apply(hostGateway("north", north), hostGateway("south", south))
	defer s.remove("Gateway", "north")
	defer s.remove("Gateway", "south")
	for name, address := range map[string]string{"north": north, "south": south} {
		s.serves(request{address: address, host: name + ".example"}, "web")
		s.gateway(name, "Programmed", "True", "")
		o, err := s.of("Gateway").Get(s.Context(), name, metav1.GetOptions{})
		s.must(err)
		if got := addresses(o); len(got) != 1 || got[0] != address {
			s.Errorf("status of %s has addresses %v", name, got)
		}
	}
	s.refuses(request{address: north, host: "south.example"}, 404)
	s.refuses(request{address: south, host: "north.example"}, 404)
	made, err := s.Client().CoreV1().Services(s.namespace).List(s.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/managed-by=gatehouse"})
	s.must(err)
	if len(made.Items) > 0 {
		s.Errorf("exposure Host made Services: %v", made.Items)
	}
}

// hostOneBind: of two Gateways at one address and port the older serves; the younger says who has the port, and has it when that one
// is gone. Names do not decide.
func hostOneBind(s *scene) {
	s.apply(hostGateway("zebra", north))
	s.gateway("zebra", "Programmed", "True", "")
	o, err := s.of("Gateway").Get(s.Context(), "zebra", metav1.GetOptions{})
	s.must(err)
	s.eventually("the next second, which is the grain of ages", func(context.Context) error {
		if age := time.Since(o.GetCreationTimestamp().Time); age < 1100*time.Millisecond {
			return fmt.Errorf("the age is %v", age)
		}
		return nil
	})
	s.apply(hostGateway("ant", north))
	s.gateway("ant", "Programmed", "False", s.namespace+"/zebra")
	s.gateway("zebra", "Programmed", "True", "")
	s.serves(request{address: north, host: "zebra.example"}, "web")
	s.refuses(request{address: north, host: "ant.example"}, 404)
	s.remove("Gateway", "zebra")
	s.gateway("ant", "Programmed", "True", "")
	s.serves(request{address: north, host: "ant.example"}, "web")
	s.refuses(request{address: north, host: "zebra.example"}, 404)
	s.remove("Gateway", "ant")
	s.closed(request{address: north, port: 80, host: "ant.example"})
}

// hostNoAddress: a Gateway that names no address has its port at every address of the node, and status shows the node's own ones.
func hostNoAddress(s *scene) {
	s.apply(strings.Replace(httpGateway("anywhere", 8088), "gatewayClassName: gatehouse", "gatewayClassName: host", 1))
	defer s.remove("Gateway", "anywhere")
	s.gateway("anywhere", "Programmed", "True", "")
	pods, err := s.pods(s.Context(), s.namespace, "gatehouse-host")
	s.must(err)
	node, err := s.Client().CoreV1().Nodes().Get(s.Context(), pods[0].Spec.NodeName, metav1.GetOptions{})
	s.must(err)
	var want []string
	for _, a := range node.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			want = append(want, a.Address)
		}
	}
	o, err := s.of("Gateway").Get(s.Context(), "anywhere", metav1.GetOptions{})
	s.must(err)
	if got := addresses(o); len(want) != 2 || !slices.Equal(got, want) {
		s.Errorf("status has addresses %v, the node has %v", got, want)
	}
	for _, a := range append(want, south) {
		s.serves(request{address: a, port: 8088, host: "anywhere.example"}, "web")
	}
}

// hostWithoutCapability: a process that may not bind port 80 binds 10080 and says so, in its log and in the listener's status.
func hostWithoutCapability(s *scene) {
	r := hostRelease("host.lowPorts=false")
	r.Namespace = s.namespace
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	s.must(s.InstallGatehouse(ctx, r))
	s.apply(hostGateway("low", south))
	defer s.remove("Gateway", "low")
	s.serves(request{address: south, port: 10080, host: "low.example"}, "web")
	s.closed(request{address: south, port: 80, host: "low.example"})
	s.logged(s.namespace, "gatehouse-host", "10080", "port 80", "permission")
	s.gateway("low", "Programmed", "True", "")
	s.eventually("the status to name the port", func(ctx context.Context) error {
		o, err := s.of("Gateway").Get(ctx, "low", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if got := addresses(o); !slices.Equal(got, []string{south}) {
			return fmt.Errorf("it has addresses %v", got)
		}
		listeners, _ := at(o, "status", "listeners").([]any)
		if len(listeners) != 1 {
			return fmt.Errorf("it has listeners %v", listeners)
		}
		return hasCondition(listeners[0].(map[string]any)["conditions"], "Programmed", "True", "10080")
	})
}
