package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
)

// serviceProxy stands in for kube-proxy and for a cloud's load balancers: it gives addresses to Services of type LoadBalancer, and
// forwards from the addresses of all Services to their ready endpoints.
//
// Unlike kube-proxy it forwards connections, not packets: endpoints see the node's address as that of the client.
type serviceProxy struct {
	c       *Cluster
	log     *slog.Logger
	factory informers.SharedInformerFactory
	lister  corelisters.ServiceLister
	slices  discoverylisters.EndpointSliceLister
	changed chan struct{}
	pool    pool

	forwarders map[frontend]*forwarder // only run touches it
	running    sync.WaitGroup
}

// frontend is where a Service is reached.
type frontend struct {
	protocol corev1.Protocol
	addr     netip.AddrPort
}

func newServiceProxy(c *Cluster) *serviceProxy {
	s := &serviceProxy{
		c: c, log: c.log, factory: informers.NewSharedInformerFactory(c.node, 0),
		changed: make(chan struct{}, 1), forwarders: map[frontend]*forwarder{}, pool: newPool(c.net.ip6),
	}
	s.lister = s.factory.Core().V1().Services().Lister()
	s.slices = s.factory.Discovery().V1().EndpointSlices().Lister()
	return s
}

// start returns when the Services that there are can be reached. It ends with ctx.
func (s *serviceProxy) start(ctx context.Context) error {
	wake := func(any) { poke(s.changed) }
	handler := cache.ResourceEventHandlerFuncs{AddFunc: wake, UpdateFunc: func(any, any) { poke(s.changed) }, DeleteFunc: wake}
	informers := []cache.SharedIndexInformer{
		s.factory.Core().V1().Services().Informer(), s.factory.Discovery().V1().EndpointSlices().Informer(),
	}
	for _, i := range informers {
		if _, err := i.AddEventHandler(handler); err != nil {
			return fmt.Errorf("watching: %w", err)
		}
	}
	s.factory.Start(ctx.Done())
	for kind, ok := range s.factory.WaitForCacheSync(ctx.Done()) {
		if !ok {
			return fmt.Errorf("the services' proxy did not get the list of %v", kind)
		}
	}
	s.sync(ctx)
	s.running.Go(func() { s.run(ctx) })
	return nil
}

func (s *serviceProxy) wait() {
	s.running.Wait()
	s.factory.Shutdown()
}

func (s *serviceProxy) run(ctx context.Context) {
	for {
		select {
		case <-s.changed:
			s.sync(ctx)
		case <-ctx.Done():
			for _, f := range s.forwarders {
				f.close()
			}
			return
		}
	}
}

// sync brings addresses and forwarders to what the objects say.
func (s *serviceProxy) sync(ctx context.Context) {
	all, err := s.lister.List(everything)
	if err != nil {
		s.log.Error("cannot list services", "err", err)
		return
	}
	s.assign(ctx, all)
	want := map[frontend][]netip.AddrPort{}
	for _, o := range all {
		if o.Spec.Type == corev1.ServiceTypeExternalName {
			continue
		}
		addrs := s.addresses(o)
		for i := range o.Spec.Ports {
			port := &o.Spec.Ports[i]
			for _, a := range addrs {
				f := frontend{port.Protocol, netip.AddrPortFrom(a, uint16(port.Port))}
				want[f] = s.endpoints(o, port, a.Is4())
			}
		}
	}
	for f, to := range want {
		if len(to) == 0 {
			continue
		}
		if have := s.forwarders[f]; have != nil {
			have.set(to)
			continue
		}
		have, err := s.open(f, to)
		if err != nil {
			s.log.Error("cannot open a service's port", "addr", f.addr.String(), "protocol", string(f.protocol), "err", err)
			continue
		}
		s.forwarders[f] = have
	}
	for f, have := range s.forwarders {
		// Without an endpoint nobody listens, so that clients are refused at once, as kube-proxy does.
		if len(want[f]) == 0 {
			have.close()
			delete(s.forwarders, f)
		}
	}
}

// addresses are all that a Service is reached at.
func (s *serviceProxy) addresses(o *corev1.Service) []netip.Addr {
	texts := append([]string(nil), o.Spec.ClusterIPs...)
	texts = append(texts, o.Spec.ExternalIPs...)
	var addrs []netip.Addr
	for _, t := range texts {
		if a, err := netip.ParseAddr(t); err == nil {
			addrs = append(addrs, a)
		}
	}
	return append(addrs, s.pool.of(o)...)
}

// endpoints are those that connections to a port go to: the ready ones, or if there is none those that still serve while they end.
func (s *serviceProxy) endpoints(o *corev1.Service, port *corev1.ServicePort, ip4 bool) []netip.AddrPort {
	list, err := s.slices.EndpointSlices(o.Namespace).List(labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: o.Name}))
	if err != nil {
		return nil
	}
	var ready, serving []netip.AddrPort
	for _, slice := range list {
		if (slice.AddressType == discoveryv1.AddressTypeIPv4) != ip4 {
			continue
		}
		for _, p := range slice.Ports {
			if ptr.Deref(p.Name, "") != port.Name || p.Port == nil || ptr.Deref(p.Protocol, corev1.ProtocolTCP) != port.Protocol {
				continue
			}
			for _, e := range slice.Endpoints {
				a, err := netip.ParseAddr(e.Addresses[0])
				if err != nil {
					continue
				}
				to := netip.AddrPortFrom(a, uint16(*p.Port))
				switch {
				case ptr.Deref(e.Conditions.Ready, true):
					ready = append(ready, to)
				case ptr.Deref(e.Conditions.Serving, false) && ptr.Deref(e.Conditions.Terminating, false):
					serving = append(serving, to)
				}
			}
		}
	}
	if len(ready) > 0 {
		return ready
	}
	return serving
}
