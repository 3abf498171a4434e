package translate_test

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/gatehouse-io/gatehouse/internal/objects"
	"github.com/gatehouse-io/gatehouse/internal/secret"
)

// world draws objects from small pools, so that names meet: what one object names is often there, often not yet, and
// sometimes somebody else's.
type world struct {
	tb   testing.TB
	pair map[string]secret.Value
}

func newWorld(t testing.TB) *world { return &world{t, testPair(t)} }

// base is there at first, so that what is drawn is soon connected.
const base = `apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: c1}
spec: {controllerName: gatehouse.dev/gateway}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: k1, annotations: {ingressclass.kubernetes.io/is-default-class: "true"}}
spec: {controller: gatehouse.dev/ingress}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g1, namespace: n1}
spec: {gatewayClassName: c1, listeners: [{name: l1, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]}
`

// change draws so many upserts and deletes.
func (w *world) change(t *rapid.T, n int) objects.Change {
	var c objects.Change
	have := map[objects.Key]bool{}
	for range n {
		o := w.object(t)
		k := objects.KeyOf(o)
		if have[k] {
			continue
		}
		have[k] = true
		if rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
			c.Deletes = append(c.Deletes, k)
		} else {
			c.Upserts = append(c.Upserts, o)
		}
	}
	return c
}

func pick(t *rapid.T, what string, from ...string) string {
	return rapid.SampledFrom(from).Draw(t, what)
}

// maybe is text, or nothing half of the time.
func maybe(t *rapid.T, what, text string) string {
	if rapid.Bool().Draw(t, what) {
		return text
	}
	return ""
}

// some is one to three drawings, joined.
func some(t *rapid.T, what string, draw func() string) string {
	var out []string
	for range rapid.IntRange(1, 3).Draw(t, what) {
		out = append(out, draw())
	}
	return strings.Join(out, ", ")
}

func (w *world) object(t *rapid.T) objects.Object {
	kinds := []func(*rapid.T) string{gatewayClass, gateway, httpRoute, httpRoute, ingressClass, ingress, ingress, service, service, slice, slice, slice, namespaceObject, grant,
		protection, protection, authPolicy, authPolicy, rateLimit, rateLimit, configMap, clientTraffic, backendTraffic, backendTLS, gatewayParameters, backendObject, secretObject}
	y := rapid.SampledFrom(kinds).Draw(t, "kind")(t)
	o := decodeAll(w.tb, y)[0]
	if s, ok := o.(*objects.Secret); ok {
		switch string(s.Material.Data["tls.crt"].Reveal()) {
		case "PAIR":
			s.Material.Data = w.pair
		case "PENDING":
			s.Material, s.Pending = secret.Material{}, true
		}
	}
	return o
}

func meta(t *rapid.T, ns string, names ...string) string {
	m := "name: " + pick(t, "name", names...)
	if ns != "" {
		m += ", namespace: " + ns
	}
	m += maybe(t, "created", fmt.Sprintf(`, creationTimestamp: "2026-0%d-01T00:00:00Z"`, rapid.IntRange(1, 2).Draw(t, "month")))
	return m + fmt.Sprintf(", generation: %d", rapid.IntRange(1, 2).Draw(t, "generation"))
}

func namespace(t *rapid.T) string { return pick(t, "namespace", "n1", "n2") }
func host(t *rapid.T) string {
	return pick(t, "host", "a.example", "b.example", `"*.example"`, `"*.a.example"`)
}
func servicePort(t *rapid.T) string {
	return pick(t, "port", "number: 80", "number: 81", "name: http", "name: nope")
}

func gatewayClass(t *rapid.T) string {
	return "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {" + meta(t, "", "c1", "c2") + "}\nspec: {controllerName: " +
		pick(t, "controller", "gatehouse.dev/gateway", "gatehouse.dev/gateway", "other/x") +
		maybe(t, "parameters", ", parametersRef: {group: gatehouse.dev, kind: GatewayParameters, namespace: "+namespace(t)+", name: q1}") + "}"
}

func gateway(t *rapid.T) string {
	i := 0
	listener := func() string {
		i++
		p := pick(t, "protocol", "HTTP", "HTTP", "HTTPS", "TLS")
		l := fmt.Sprintf("{name: l%d, port: %s, protocol: %s", i, pick(t, "port", "80", "81", "443"), p)
		if p == "HTTPS" {
			l += ", tls: {certificateRefs: [{name: " + pick(t, "secret", "t1", "t2") + maybe(t, "elsewhere", ", namespace: "+namespace(t)) + "}]}"
		}
		l += maybe(t, "hostname", ", hostname: "+host(t))
		return l + maybe(t, "allowed", ", allowedRoutes: {namespaces: "+pick(t, "from", "{from: All}", "{from: Same}",
			"{from: Selector, selector: {matchLabels: {team: x}}}")+"}") + "}"
	}
	return "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {" + meta(t, namespace(t), "g1", "g2") + "}\nspec: {gatewayClassName: " +
		pick(t, "class", "c1", "c2") + ", listeners: [" + some(t, "listeners", listener) + "]" +
		maybe(t, "infrastructure", ", infrastructure: {parametersRef: {group: gatehouse.dev, kind: GatewayParameters, name: q1}}") + "}"
}

func backendRef(t *rapid.T) string {
	if rapid.IntRange(0, 4).Draw(t, "backend kind") == 0 {
		return "{group: gatehouse.dev, kind: Backend, name: " + pick(t, "backend", "b1", "b2") + "}"
	}
	return "{name: " + pick(t, "service", "s1", "s2") + ", port: " + pick(t, "port", "80", "81") +
		maybe(t, "elsewhere", ", namespace: "+namespace(t)) + maybe(t, "weight", ", weight: "+pick(t, "weight", "0", "3")) + "}"
}

func httpRoute(t *rapid.T) string {
	parent := func() string {
		return "{name: " + pick(t, "gateway", "g1", "g2") + ", namespace: " + namespace(t) + maybe(t, "section", ", sectionName: "+pick(t, "section", "l1", "l2")) + "}"
	}
	match := func() string {
		return "{path: {value: " + pick(t, "path", "/", "/a", "/a/b", "relative") + "}" + maybe(t, "method", ", method: "+pick(t, "method", "GET", "POST")) + "}"
	}
	rule := func() string {
		return "{matches: [" + some(t, "matches", match) + "]" + maybe(t, "name", ", name: "+pick(t, "rule", "u1", "u2")) +
			maybe(t, "backends", ", backendRefs: ["+some(t, "refs", func() string { return backendRef(t) })+"]") +
			maybe(t, "filter", ", filters: ["+pick(t, "filter", "{type: RequestMirror}", "{type: RequestMirror, requestMirror: {percent: 5, backendRef: {name: s1, port: 80, namespace: "+namespace(t)+"}}}", "{type: URLRewrite, urlRewrite: {hostname: x.example}}",
				"{type: ExtensionRef, extensionRef: {group: gatehouse.dev, kind: "+guardKind(t)+", name: p1}}")+"]") +
			maybe(t, "retry", ", retry: {codes: [503]}") + maybe(t, "session", ", sessionPersistence: {sessionName: "+pick(t, "session", "s", "s;")+"}") + "}"
	}
	return "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {" + meta(t, namespace(t), "r1", "r2", "r3") + "}\nspec: {parentRefs: [" +
		some(t, "parents", parent) + "]" + maybe(t, "hostnames", ", hostnames: ["+some(t, "hosts", func() string { return host(t) })+"]") +
		", rules: [" + some(t, "rules", rule) + "]}"
}

func ingressClass(t *rapid.T) string {
	return "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {" + meta(t, "", "k1", "k2") +
		maybe(t, "default", `, annotations: {ingressclass.kubernetes.io/is-default-class: "true"}`) + "}\nspec: {controller: " +
		pick(t, "controller", "gatehouse.dev/ingress", "gatehouse.dev/ingress", "other/x") +
		maybe(t, "parameters", ", parameters: {apiGroup: gatehouse.dev, kind: GatewayParameters, scope: Namespace, namespace: "+namespace(t)+", name: q1}") + "}"
}

func ingress(t *rapid.T) string {
	service := func() string {
		return "{service: {name: " + pick(t, "service", "s1", "s2") + ", port: {" + servicePort(t) + "}}}"
	}
	path := func() string {
		return "{path: " + pick(t, "path", "/", "/a", "/.well-known/acme-challenge/x") + ", pathType: " + pick(t, "type", "Prefix", "Exact") + ", backend: " + service() + "}"
	}
	rule := func() string {
		return "{host: " + host(t) + maybe(t, "http", ", http: {paths: ["+some(t, "paths", path)+"]}") + "}"
	}
	annotation := maybe(t, "annotation", ", annotations: {"+pick(t, "annotation", `gatehouse.dev/https-redirect: "false"`, "kubernetes.io/ingress.class: k1", "gatehouse.dev/x: y")+"}")
	spec := []string{"rules: [" + some(t, "rules", rule) + "]"}
	for _, s := range []string{maybe(t, "class", "ingressClassName: "+pick(t, "class", "k1", "k2", "k3")), maybe(t, "default", "defaultBackend: "+service()),
		maybe(t, "tls", "tls: [{hosts: ["+host(t)+"], secretName: "+pick(t, "secret", "t1", "t2")+"}]")} {
		if s != "" {
			spec = append(spec, s)
		}
	}
	return "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {" + meta(t, namespace(t), "i1", "i2", "i3") + annotation + "}\nspec: {" + strings.Join(spec, ", ") + "}"
}

// The names of the Services that Gateway n1/g1 and IngressClass k1 want.
const (
	exposedGateway = "gh-57ed6bf9f0"
	exposedClass   = "gh-65a3596659"
)

func service(t *rapid.T) string {
	return "apiVersion: v1\nkind: Service\nmetadata: {" + meta(t, namespace(t), "s1", "s2", exposedGateway, exposedClass) + "}\nspec: " +
		pick(t, "spec", "{ports: [{port: 80}]}", "{ports: [{port: 80, targetPort: 10080}, {port: 443, targetPort: 10443}], externalIPs: [192.0.2.1]}", "{ports: [{port: 80, name: http}, {port: 81, name: x}]}", "{type: ExternalName, externalName: e.example}")
}

func slice(t *rapid.T) string {
	return "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {" + meta(t, namespace(t), "e1", "e2") + ", labels: {kubernetes.io/service-name: " +
		pick(t, "service", "s1", "s2") + "}}\naddressType: IPv4\nports: [{port: 8080" + maybe(t, "name", ", name: http") + "}]\nendpoints: [{addresses: [" +
		pick(t, "address", "10.0.0.1", "10.0.0.2") + "]" + maybe(t, "ready", ", conditions: {ready: false}") + "}]"
}

func namespaceObject(t *rapid.T) string {
	return "apiVersion: v1\nkind: Namespace\nmetadata: {name: " + namespace(t) + maybe(t, "labels", ", labels: {team: x}") + "}"
}

func grant(t *rapid.T) string {
	return "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {" + meta(t, namespace(t), "w1", "w2") +
		"}\nspec: {from: [" + pick(t, "from", "{group: gateway.networking.k8s.io, kind: HTTPRoute", "{group: gateway.networking.k8s.io, kind: Gateway", "{group: gatehouse.dev, kind: AuthPolicy") + ", namespace: " + namespace(t) +
		`}], to: [{group: "", kind: ` + pick(t, "to", "Service", "Secret") + maybe(t, "name", ", name: "+pick(t, "name", "s1", "t1")) + "}]}"
}

func targetRef(t *rapid.T) string {
	return pick(t, "target", "{group: gateway.networking.k8s.io, kind: Gateway, name: g1}", "{group: gateway.networking.k8s.io, kind: Gateway, name: g1, sectionName: l1}",
		"{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r1}", "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r1, sectionName: u1}",
		"{group: networking.k8s.io, kind: IngressClass, name: k1}", "{group: networking.k8s.io, kind: IngressClass, name: k1, sectionName: https}",
		"{group: networking.k8s.io, kind: Ingress, name: i1}", `{group: "", kind: Service, name: s1}`, "{group: gatehouse.dev, kind: Backend, name: b1}")
}

func protection(t *rapid.T) string {
	bundle := pick(t, "bundle", `{sizes: {requestBody: 1Mi}}`, `{sizes: {responseBody: 2Mi}, cors: {allowOrigins: ["*"]}}`, `{sizes: {requestBody: "-1"}}`,
		`{errorPages: [{statuses: ["5xx"], body: a, contentType: text/plain}]}`, `{errorPages: [{statuses: ["404"], body: b, contentType: text/plain}], maintenance: {}}`,
		`{directResponse: {status: 204}}`)
	return bundled(t, "ProtectionPolicy", bundle)
}

func guardKind(t *rapid.T) string {
	return pick(t, "guard", "ProtectionPolicy", "AuthPolicy", "RateLimitPolicy")
}

// bundled is a policy of a bundle kind.
func bundled(t *rapid.T, kind, bundle string) string {
	return "apiVersion: gatehouse.dev/v1alpha1\nkind: " + kind + "\nmetadata: {" + meta(t, namespace(t), "p1", "p2") + "}\nspec: {targetRefs: [" +
		some(t, "targets", func() string { return targetRef(t) }) + "]" + maybe(t, "defaults", ", defaults: "+bundle) + maybe(t, "overrides", ", overrides: "+bundle) + "}"
}

func mode(t *rapid.T) string { return pick(t, "mode", "Enforce", "Shadow", "Disabled") }

func authPolicy(t *rapid.T) string {
	n := 0
	method := func() string {
		n++
		return fmt.Sprintf("{name: m%d, ", n) + pick(t, "method", "apiKey: {}", "basic: {secretRef: {name: t1}}", "apiKey: {secretRefs: [{name: t1}, {name: t2}]}",
			"mtls: {caCertificateRefs: [{name: c1}]}", "anonymous: {}, hmac: {secretRef: {name: t1}}",
			"external: {protocol: GRPC, backendRef: "+backendRefOnly(t)+"}", "introspection: {url: 'https://x.example', clientSecretRef: {name: t2}}") + "}"
	}
	rule := func() string {
		return "{mode: " + mode(t) + ", " + pick(t, "rule", "require: {scopes: [a]}", `deny: {cidrs: [10.0.0.0/8]}`, "require: {cel: 'request.path =='}", `when: 'request.method == "GET"', require: {cel: 'identity.subject != ""'}`) + "}"
	}
	return bundled(t, "AuthPolicy", "{"+pick(t, "parts", "authentication: {mode: "+mode(t)+", methods: ["+some(t, "methods", method)+"]}",
		"authorization: {otherwise: "+pick(t, "otherwise", "Allow", "Deny")+", rules: {a: "+rule()+", "+pick(t, "name", "b", "a@0")+": "+rule()+"}}",
		"authentication: {methods: ["+some(t, "methods", method)+"]}, authorization: {rules: {a: "+rule()+"}}")+"}")
}

// backendRefOnly is a reference to a backend without a weight.
func backendRefOnly(t *rapid.T) string {
	return pick(t, "asked", "{name: s1, port: 80}", "{name: s2, port: 81}", "{name: s1, port: 80, namespace: n1}", "{name: s1, port: 80, namespace: n2}", "{group: gatehouse.dev, kind: Backend, name: b1}")
}

func rateLimit(t *rapid.T) string {
	limit := func() string {
		return "{mode: " + mode(t) + ", " + pick(t, "limit", "rates: [{limit: 1, period: 1s}]", "key: [client.address], quota: {limit: 5, window: Day}", "key: [identity.subject], concurrency: 2",
			"count: AuthenticationFailures, rates: [{limit: 1, period: 0s}]") + "}"
	}
	return bundled(t, "RateLimitPolicy", "{limits: {a: "+limit()+", "+pick(t, "name", "b", "c")+": "+limit()+"}}")
}

func configMap(t *rapid.T) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {" + meta(t, namespace(t), "c1") + "}\ndata: {ca.crt: " + pick(t, "data", "x", "y") + "}"
}

func clientTraffic(t *rapid.T) string {
	return "apiVersion: gatehouse.dev/v1alpha1\nkind: ClientTrafficPolicy\nmetadata: {" + meta(t, namespace(t), "d1", "d2") + "}\nspec: {targetRefs: [" +
		some(t, "targets", func() string { return targetRef(t) }) + "], path: {escapedSlashes: " + pick(t, "slashes", "Keep", "Reject", "Nope") + "}" +
		maybe(t, "proxied", ", clientAddress: {source: {type: XForwardedFor}, trustedCIDRs: [10.0.0.0/8]}") + "}"
}

func backendTraffic(t *rapid.T) string {
	return "apiVersion: gatehouse.dev/v1alpha1\nkind: BackendTrafficPolicy\nmetadata: {" + meta(t, namespace(t), "f1", "f2") + "}\nspec: {targetRefs: [" +
		some(t, "targets", func() string { return targetRef(t) }) + "]" + maybe(t, "retry", ", retry: {attempts: "+pick(t, "attempts", "1", "99")+"}") +
		maybe(t, "affinity", ", affinity: {cookie: {}}") + maybe(t, "balancer", ", loadBalancer: {algorithm: LeastRequest}") +
		maybe(t, "timeouts", ", timeouts: {connect: "+pick(t, "connect", "1s", "0s")+"}") + "}"
}

func backendTLS(t *rapid.T) string {
	return "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {" + meta(t, namespace(t), "v1", "v2") + "}\nspec: {targetRefs: [" +
		some(t, "targets", func() string {
			return `{group: "", kind: Service, name: ` + pick(t, "service", "s1", "s2") + maybe(t, "section", ", sectionName: "+pick(t, "port", "http", "x")) + "}"
		}) + "], validation: {hostname: x.example, " + pick(t, "trust", "wellKnownCACertificates: System", `caCertificateRefs: [{group: "", kind: ConfigMap, name: c1}]`,
		`caCertificateRefs: [{group: "", kind: Secret, name: t1}]`) + "}}"
}

func gatewayParameters(t *rapid.T) string {
	spec := "httpsRedirect: " + pick(t, "redirect", "true", "false")
	spec += maybe(t, "hsts", ", hsts: {maxAge: "+pick(t, "age", "1h", "never")+"}") + maybe(t, "certificate", ", defaultCertificateRef: {name: "+pick(t, "secret", "t1", "t2")+"}")
	spec += maybe(t, "required", ", requirePolicies: ["+some(t, "kinds", func() string { return guardKind(t) })+"]")
	return "apiVersion: gatehouse.dev/v1alpha1\nkind: GatewayParameters\nmetadata: {" + meta(t, namespace(t), "q1") + "}\nspec: {" + spec + "}"
}

func backendObject(t *rapid.T) string {
	return "apiVersion: gatehouse.dev/v1alpha1\nkind: Backend\nmetadata: {" + meta(t, namespace(t), "b1", "b2") + "}\nspec: {endpoints: [{hostname: " +
		pick(t, "host", "x.example", "y.example") + ", port: 80}]" +
		maybe(t, "tls", `, tls: {hostname: x.example, caCertificateRefs: [{group: "", kind: Secret, name: t1}], clientCertificateRef: {name: t2}}`) + "}"
}

func secretObject(t *rapid.T) string {
	return "apiVersion: v1\nkind: Secret\nmetadata: {" + meta(t, namespace(t), "t1", "t2") + "}\ntype: kubernetes.io/tls\nstringData: {tls.key: k, tls.crt: " +
		pick(t, "pair", "PAIR", "PAIR", "PENDING", "nonsense") + maybe(t, "ca", ", ca.crt: c") + "}"
}
