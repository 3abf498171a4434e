// Package translate turns cluster objects into the IR: Ingress and Gateway API objects, and the policies attached to them, go
// in; listeners, hosts, routes, clusters, endpoints, secrets and a verdict about every object come out. It is pure: it
// starts no goroutine, opens no file or socket, and never asks for the time. It works in units (one Gateway, one route, one
// virtual host ...) that record what they read; a unit is redone only when something that it read has changed, and the result is
// always the one that a translation from scratch would give. One bad object never stops the others.
package translate

import (
	"net/netip"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/gatehouse-io/gatehouse/api/v1alpha1"
	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/ir"
	"github.com/gatehouse-io/gatehouse/internal/objects"
	"github.com/gatehouse-io/gatehouse/internal/policy"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// Options are what a translation is told beside the objects.
type Options struct {
	GatewayController string // GatewayClasses with this controllerName are ours: "gatehouse.dev/gateway"
	IngressController string // IngressClasses with this controller are ours: "gatehouse.dev/ingress"
	HTTPPort          uint16 // where IngressClasses listen for clients, and with exposure Host for the socket
	HTTPSPort         uint16
	BindAddress       netip.Addr    // of every socket that its object gives no address; invalid: every address
	Exposure          string        // of what says nothing of it: ExposureHost ("" too) or ExposureService
	Namespace         string        // of the installation: where its Services lie
	Publish           string        // "namespace/name" of a Service whose addresses are those of everything with exposure Host; "": none
	HostAddresses     []string      // with exposure Host, of everything that has no other
	Loopback          bool          // backends on loopback addresses are in order: the source is files
	Steps             []policy.Step // builtin's list; its order is that of attached steps of one phase and level
}

// Translator keeps the units of one configuration from one Update to the next. It is used by one goroutine at a time.
type Translator struct {
	o       Options
	sites   []refSite
	steps   stepTable
	engine  *engine
	memos   memoRule
	started bool
	last    Result
}

// New returns a Translator that has not seen any object yet.
func New(o Options) *Translator {
	return &Translator{o: o, sites: refSites(), steps: newStepTable(o.Steps), engine: newEngine(), memos: memoRule{256, 16}}
}

// Result is a whole translation. Its parts are not changed once they are returned; a part that did not change is the same
// pointer, slice or map as before, and so is each host, listener, cluster and list of endpoints in it.
type Result struct {
	Config    *ir.Config
	Endpoints ir.Endpoints
	Secrets   secret.Set
	Report    *diag.Report
	// Pending are the Secrets that something needs and whose bodies are not known yet, sorted. No verdict about what needs them
	// is final.
	Pending []objects.Key

	ConfigChanged, EndpointsChanged, SecretsChanged bool
}

// Update translates what changed. touched is what Store.Apply returned; nil, and always at the first call, it stands for
// everything.
func (t *Translator) Update(s *objects.Store, touched []objects.Read) Result {
	if touched == nil || !t.started {
		t.started = true
		t.enqueueAll(s)
	}
	for _, r := range touched {
		t.engine.touched(r)
		t.root(r)
	}
	t.engine.run(t, s)
	t.last = t.assemble(t.engine.news)
	return t.last
}

// roots are the kinds of objects that units are about.
var roots = [...]struct {
	kind string
	unit unitKind
}{
	{"Gateway", gatewayUnit}, {"GatewayClass", gatewayClassUnit}, {"IngressClass", classUnit}, {"HTTPRoute", routeUnit},
	{"Ingress", ingressUnit}, {"ProtectionPolicy", policyUnit}, {"AuthPolicy", policyUnit}, {"RateLimitPolicy", policyUnit}, {"ClientTrafficPolicy", policyUnit},
	{"BackendTrafficPolicy", policyUnit},
	{"BackendTLSPolicy", policyUnit}, {"GatewayParameters", parametersUnit}, {"Backend", backendUnit}, {"Secret", pairUnit},
}

// root enqueues the units that exist because of an object or a target.
func (t *Translator) root(r objects.Read) {
	if r.Index == objects.ByTarget {
		t.engine.enqueue(unitKey{kind: targetUnit, name: r.Value})
		return
	}
	for _, k := range roots {
		if r.Key != (objects.Key{}) && k.kind == r.Kind {
			t.engine.enqueue(unitKey{kind: k.unit, ref: refOf(r.Kind, r.Key.Namespace, r.Key.Name)})
		}
	}
}

// enqueueAll enqueues every unit that there is or should be.
func (t *Translator) enqueueAll(s *objects.Store) {
	for k := range t.engine.units {
		t.engine.enqueue(k)
	}
	v := s.View(nil)
	enqueueRoots[*gatewayv1.Gateway](t, v)
	enqueueRoots[*gatewayv1.GatewayClass](t, v)
	enqueueRoots[*networkingv1.IngressClass](t, v)
	enqueueRoots[*gatewayv1.HTTPRoute](t, v)
	enqueueRoots[*networkingv1.Ingress](t, v)
	enqueueRoots[*v1alpha1.ProtectionPolicy](t, v)
	enqueueRoots[*v1alpha1.AuthPolicy](t, v)
	enqueueRoots[*v1alpha1.RateLimitPolicy](t, v)
	enqueueRoots[*v1alpha1.ClientTrafficPolicy](t, v)
	enqueueRoots[*v1alpha1.BackendTrafficPolicy](t, v)
	enqueueRoots[*gatewayv1.BackendTLSPolicy](t, v)
	enqueueRoots[*v1alpha1.GatewayParameters](t, v)
	enqueueRoots[*v1alpha1.Backend](t, v)
	enqueueRoots[*objects.Secret](t, v)
}

func enqueueRoots[T objects.Object](t *Translator, v *objects.View) {
	for _, o := range objects.List[T](v, "", "") {
		k := objects.KeyOf(o)
		t.root(objects.Read{Kind: k.Kind, Key: k})
		for _, r := range objects.TargetRefs(o) {
			t.engine.enqueue(unitKey{kind: targetUnit, name: objects.TargetName(o.GetNamespace(), r)})
		}
	}
}

// Group is the API group of a kind that Gatehouse reads.
func Group(kind string) string {
	switch kind {
	case "GatewayClass", "Gateway", "HTTPRoute", "ReferenceGrant", "BackendTLSPolicy":
		return "gateway.networking.k8s.io"
	case "IngressClass", "Ingress":
		return "networking.k8s.io"
	case "EndpointSlice":
		return "discovery.k8s.io"
	case "Backend", "ProtectionPolicy", "AuthPolicy", "RateLimitPolicy", "ClientTrafficPolicy", "BackendTrafficPolicy", "GatewayParameters":
		return "gatehouse.dev"
	}
	return ""
}

func refOf(kind, namespace, name string) diag.Ref {
	return diag.Ref{Group: Group(kind), Kind: kind, Namespace: namespace, Name: name}
}

// sourceOf is a field of the object that ref names.
func sourceOf(r diag.Ref, field string) ir.Source {
	return ir.Source{Kind: r.Kind, Namespace: r.Namespace, Name: r.Name, Field: field}
}

// keyOf joins the parts of a key of the IR: "Gateway/shop/public/http", "IngressClass/gatehouse/https".
func keyOf(r diag.Ref, more ...string) string {
	parts := []string{r.Kind}
	if r.Namespace != "" {
		parts = append(parts, r.Namespace)
	}
	return strings.Join(append(append(parts, r.Name), more...), "/")
}

// do does the unit's work.
func (p *pass) do() {
	switch p.u.key.kind {
	case targetUnit:
		p.target()
	case pairUnit:
		p.pair()
	case gatewayUnit:
		p.gateway()
	case classUnit:
		p.ingressClass()
	case routeUnit:
		p.httpRoute()
	case ingressUnit:
		p.ingress()
	case listenersUnit:
		p.classListeners()
	case hostUnit:
		p.host()
	case clusterUnit:
		p.cluster()
	case endpointsUnit:
		p.endpoints()
	case secretUnit:
		p.secret()
	case policyUnit:
		p.policyVerdict()
	case gatewayVerdict:
		p.gatewayVerdict()
	case gatewayClassUnit:
		p.gatewayClass()
	case parametersUnit:
		p.parameters()
	case backendUnit:
		p.backend()
	case reportUnit:
		p.report()
	}
}
