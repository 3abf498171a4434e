package cluster

import (
	"context"
	"encoding/json"
	"net/netip"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// pool hands out the addresses of load balancers. Only the services' proxy uses it.
type pool struct {
	ip6    bool
	next   uint32
	given  map[types.UID][]netip.Addr
	owners map[netip.Addr]types.UID
}

func newPool(ip6 bool) pool {
	return pool{ip6: ip6, next: 1, given: map[types.UID][]netip.Addr{}, owners: map[netip.Addr]types.UID{}}
}

// of is what the Service has been given.
func (p *pool) of(o *corev1.Service) []netip.Addr { return p.given[o.UID] }

func (p *pool) release(uid types.UID) {
	for _, a := range p.given[uid] {
		delete(p.owners, a)
	}
	delete(p.given, uid)
}

// give returns the addresses of a Service, one for each of its families: what it has, what it asks for, or the next free ones.
func (p *pool) give(o *corev1.Service) []netip.Addr {
	var addrs []netip.Addr
	for _, family := range o.Spec.IPFamilies {
		net := poolNet4
		if family == corev1.IPv6Protocol {
			if !p.ip6 {
				continue
			}
			net = poolNet6
		}
		want, _ := netip.ParseAddr(o.Spec.LoadBalancerIP)
		had := p.given[o.UID]
		switch i := indexFamily(had, net); {
		case net.Contains(want) && (p.owners[want] == "" || p.owners[want] == o.UID):
			addrs = append(addrs, want)
		case net.Contains(want):
			// Somebody else has it: it stays pending until that one lets go.
		case i >= 0:
			addrs = append(addrs, had[i])
		default:
			for p.owners[nth(net, p.next)] != "" {
				p.next++
			}
			addrs = append(addrs, nth(net, p.next))
		}
	}
	p.next++
	p.release(o.UID)
	for _, a := range addrs {
		p.owners[a] = o.UID
	}
	p.given[o.UID] = addrs
	return addrs
}

func indexFamily(addrs []netip.Addr, net netip.Prefix) int {
	for i, a := range addrs {
		if net.Contains(a) {
			return i
		}
	}
	return -1
}

// assign gives addresses to the Services that are to have one, takes them from the others, and writes both into their status.
func (s *serviceProxy) assign(ctx context.Context, all []*corev1.Service) {
	seen := map[types.UID]bool{}
	for _, o := range all {
		seen[o.UID] = true
		var want []corev1.LoadBalancerIngress
		if s.isOurs(o) {
			for _, a := range s.pool.give(o) {
				want = append(want, corev1.LoadBalancerIngress{IP: a.String(), IPMode: ptr.To(corev1.LoadBalancerIPModeVIP)})
			}
		} else {
			s.pool.release(o.UID)
			if o.Spec.Type == corev1.ServiceTypeLoadBalancer {
				continue // its status is for whoever has its class
			}
		}
		if sameIngress(o.Status.LoadBalancer.Ingress, want) {
			continue
		}
		patch, err := json.Marshal(map[string]any{
			"metadata": map[string]any{"uid": o.UID},
			"status":   map[string]any{"loadBalancer": map[string]any{"ingress": want}},
		})
		if err != nil {
			continue
		}
		_, err = s.c.node.CoreV1().Services(o.Namespace).Patch(ctx, o.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
		if err != nil && ctx.Err() == nil {
			s.log.Warn("cannot write a service's address", "service", o.Namespace+"/"+o.Name, "err", err)
			poke(s.changed)
		}
	}
	for uid := range s.pool.given {
		if !seen[uid] {
			s.pool.release(uid)
		}
	}
}

func sameIngress(a, b []corev1.LoadBalancerIngress) bool {
	return len(a) == 0 && len(b) == 0 || reflect.DeepEqual(a, b)
}

// isOurs says whether the Service gets an address here.
func (s *serviceProxy) isOurs(o *corev1.Service) bool {
	if o.Spec.Type != corev1.ServiceTypeLoadBalancer || o.DeletionTimestamp != nil {
		return false
	}
	class := o.Spec.LoadBalancerClass
	return class == nil || *class == s.c.options.LoadBalancerClass && *class != ""
}
