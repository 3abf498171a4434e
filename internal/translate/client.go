package translate

import (
	"fmt"
	"math"
	"net/netip"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/policy"
)

// clientOf turns a ClientTrafficPolicy into the IR's terms. With a fault, nothing of it is applied.
func clientOf(o *v1alpha1.ClientTrafficPolicy) (*ir.Client, []diag.Fault) {
	ref := refOf("ClientTrafficPolicy", o.Namespace, o.Name)
	v := newVerdict(ref, o)
	c := &ir.Client{Source: sourceOf(ref, "spec")}
	if a := o.Spec.ClientAddress; a != nil {
		v.clientAddress(c, a)
	}
	if t := o.Spec.TLS; t != nil {
		c.TLSMinVersion = v.enum("spec.tls.minVersion", t.MinVersion, "1.2", "1.3")
		for i, a := range t.ALPN {
			v.enum(fmt.Sprintf("spec.tls.alpn[%d]", i), a, "h2", "http/1.1")
		}
	}
	if h := o.Spec.Path; h != nil {
		c.EscapedSlashes = v.enum("spec.path.escapedSlashes", h.EscapedSlashes, "Reject", "Keep")
		c.EmptySegments = v.enum("spec.path.emptySegments", h.EmptySegments, "Merge", "Keep")
	}
	c.HalfClose = v.enum("spec.halfClose", o.Spec.HalfClose, ir.HalfCloseEnd, ir.HalfCloseWait)
	if l := o.Spec.Limits; l != nil {
		c.HeaderBytes = v.size("spec.limits.headerBytes", l.HeaderBytes)
		c.RequestLine = v.size("spec.limits.requestLineBytes", l.RequestLineBytes)
		c.HeaderCount = v.count("spec.limits.headerCount", l.HeaderCount)
		c.ConnectionsPerAddress = v.count("spec.limits.connectionsPerAddress", l.ConnectionsPerAddress)
		v.count("spec.limits.streams", l.Streams)
	}
	if t := o.Spec.Timeouts; t != nil {
		c.HeaderTimeout = v.duration("spec.timeouts.header", t.Header)
		c.IdleTimeout = v.duration("spec.timeouts.idle", t.Idle)
		c.StreamIdle = v.duration("spec.timeouts.streamIdle", t.StreamIdle)
	}
	v.annotations(o)
	var faults []diag.Fault
	for _, f := range v.Faults {
		if f.Severity == diag.Error {
			faults = append(faults, f)
		}
	}
	return c, faults
}

// notYet warns about fields that are right and have no effect, because the protocol they are about is not served yet.
func (v verdict) notYet(o *v1alpha1.ClientTrafficPolicy) {
	if t := o.Spec.TLS; t != nil {
		for i, a := range t.ALPN {
			if a == "h2" {
				v.warn(fmt.Sprintf("spec.tls.alpn[%d]", i), "", "", "h2 is not offered yet: clients get http/1.1")
			}
		}
	}
	if l := o.Spec.Limits; l != nil && l.Streams != nil {
		v.warn("spec.limits.streams", "", "", "has no effect yet: HTTP/2 is not served")
	}
}

func (v verdict) clientAddress(c *ir.Client, a *v1alpha1.ClientAddress) {
	const path = "spec.clientAddress"
	c.Address = v.enum(path+".source.type", a.Source.Type, "XForwardedFor", "ProxyProtocol", "Header")
	if a.Source.Type == "" {
		v.fault(path+".source.type", invalid, "write XForwardedFor, ProxyProtocol or Header", "is missing")
	}
	c.AddressHeader = strings.ToLower(a.Source.Header)
	if (a.Source.Type == "Header") != (a.Source.Header != "") {
		v.fault(path+".source.header", invalid, "", "goes with type Header, and only with it")
	}
	for i, s := range a.TrustedCIDRs {
		n, err := netip.ParsePrefix(s)
		if err != nil {
			v.fault(fmt.Sprintf("%s.trustedCIDRs[%d]", path, i), invalid, "write 10.0.0.0/8 or 192.0.2.7/32", "%q is not a network", s)
			continue
		}
		c.Trusted = append(c.Trusted, n.Masked())
	}
	if len(a.TrustedCIDRs) == 0 {
		v.fault(path+".trustedCIDRs", invalid, "list the proxies in front of Gatehouse", "nobody is trusted: no client address could be read")
	}
}

// enum returns value if it is empty or one of allowed; else it is a fault.
func (v verdict) enum(path, value string, allowed ...string) string {
	for _, a := range allowed {
		if value == a {
			return value
		}
	}
	if value != "" {
		v.fault(path, invalid, "write "+strings.Join(allowed, " or "), "%q is not supported", value)
	}
	return ""
}

func (v verdict) size(path string, q *resource.Quantity) int {
	if q == nil {
		return 0
	}
	n := q.Value()
	if n <= 0 || n > math.MaxInt32 {
		v.fault(path, invalid, "write 16Ki or 65536", "%s is not a size between 1 and 2Gi", q.String())
		return 0
	}
	return int(n)
}

func (v verdict) count(path string, n *int32) int {
	if n == nil {
		return 0
	}
	if *n <= 0 {
		v.fault(path, invalid, "write 1 or more, or leave it out", "%d is not a positive number", *n)
		return 0
	}
	return int(*n)
}

func (v verdict) duration(path string, d *gatewayv1.Duration) *ir.Duration {
	if d == nil {
		return nil
	}
	t, err := policy.ParseDuration(string(*d))
	if err != nil {
		v.fault(path, invalid, policy.DurationHint, "%v", err)
		return nil
	}
	out := ir.Duration(t)
	return &out
}
