package gatehouse_test

import "testing"

// ingressConformance asks what the Kubernetes project's ingress-controller-conformance asks, scenario by scenario: its five features,
// in words and steps of our own. A scenario of theirs with a table of examples is one here too.
func ingressConformance(s *site, t *testing.T) {
	n := 0
	for _, f := range ingressFeatures() {
		n += len(f.scenarios)
		t.Run(f.name, func(t *testing.T) { f.run(s, t) })
	}
	if n != 25 {
		t.Errorf("there are %d scenarios, the suite has 25", n)
	}
}

func ingressFeatures() []feature {
	return []feature{defaultBackend(), hostRules(), ingressClass(), loadBalancing(), pathRules()}
}

const catchAll = `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: main}
spec: {ingressClassName: $NS, defaultBackend: {service: {name: echo-service, port: {number: 80}}}}
`

func defaultBackend() feature {
	var all []step
	for _, x := range []struct{ method, host, path string }{
		{"GET", "my-host", ""},
		{"GET", "my-host", "sub-path"},
		{"POST", "some-host", ""},
		{"PUT", "", "resource"}, // no host of its own: the client writes the address
		{"DELETE", "some-host", "resource"},
		{"PATCH", "my-host", "resource"},
	} {
		// The suite wants a Server field of any value, and its backend sends none: a proxy that adds its own passes. Gatehouse adds
		// none, so here the backend is asked to send one, which must arrive as it is.
		all = append(all, send(x.method, "http://"+x.host+"/"+x.path, "X-Echo-Set-Header: Server: echo"), status(200), servedBy("echo-service"),
			answered("Content-Length", "Content-Type", "Date"), answeredWith("Server", "echo"),
			sees("method", x.method), sees("path", "/"+x.path), sees("protocol", "HTTP/1.1"), sees("User-Agent", "tester/1"))
	}
	return feature{name: "default backend", backends: map[string]int{"echo-service": 1}, given: catchAll,
		scenarios: []scenario{{"an Ingress without rules sends all requests to the default backend", all}}}
}

func hostRules() feature {
	return feature{name: "host rules", backends: map[string]int{"wildcard-foo-com": 1, "foo-bar-com": 1}, tls: "foo.bar.com",
		// The suite asks for foo.bar.com over HTTP too and wants no redirect, which is what hosts with TLS get by default here.
		given: `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: main, annotations: {gatehouse.dev/https-redirect: "false"}}
spec:
  ingressClassName: $NS
  tls: [{hosts: [foo.bar.com], secretName: tls}]
  rules:
  - host: "*.foo.com"
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: wildcard-foo-com, port: {number: 80}}}}]}
  - host: foo.bar.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: foo-bar-com, port: {name: http}}}}]}
`,
		scenarios: []scenario{
			{"a host is served over TLS with its certificate", steps(send("GET", "https://foo.bar.com"),
				proves("foo.bar.com"), status(200), servedBy("foo-bar-com"), sees("host", "foo.bar.com"))},
			{"a host is served over HTTP", steps(send("GET", "http://foo.bar.com"), status(200), servedBy("foo-bar-com"), sees("host", "foo.bar.com"))},
			{"another host of the same domain is not served", steps(send("GET", "http://subdomain.bar.com"), notFound())},
			{"a wildcard covers one label", steps(send("GET", "http://bar.foo.com"), status(200), servedBy("wildcard-foo-com"), sees("host", "bar.foo.com"))},
			{"a wildcard does not cover two labels", steps(send("GET", "http://baz.bar.foo.com"), notFound())},
			{"a wildcard does not cover no label", steps(send("GET", "http://foo.com"), notFound())},
		}}
}

func ingressClass() feature {
	return feature{name: "ingress class", hidden: true, given: `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: main}
spec:
  ingressClassName: some-invalid-class-name
  rules: [{host: ingress-class, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: ingress-class-prefix, port: {number: 80}}}}]}}]
`,
		scenarios: []scenario{{"an Ingress of a class that does not exist is not served", steps(noAddress())}}}
}

func loadBalancing() feature {
	return feature{name: "load balancing", backends: map[string]int{"echo-service": 10}, given: catchAll,
		scenarios: []scenario{{"requests reach every pod of a service", steps(spread(100, 10, "http://load-balancing"))}}}
}

// pathRule is a path of an Ingress as one line of YAML.
func pathRule(kind, path, service string) string {
	return "    - {path: " + path + ", pathType: " + kind + ", backend: {service: {name: " + service + ", port: {number: 80}}}}\n"
}

func pathHost(host string, paths ...string) string {
	out := "  - host: " + host + "\n    http:\n      paths:\n"
	for _, p := range paths {
		out += "  " + p
	}
	return out
}

func pathRules() feature {
	backends := map[string]int{"foo-exact": 1, "foo-prefix": 1, "aaa-slash-bbb-prefix": 1, "aaa-prefix": 1,
		"aaa-slash-bbb-slash-prefix": 1, "foo-slash-exact": 1}
	given := "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: main}\nspec:\n  ingressClassName: $NS\n  rules:\n" +
		pathHost("exact-path-rules", pathRule("Exact", "/foo", "foo-exact")) +
		pathHost("prefix-path-rules", pathRule("Prefix", "/foo", "foo-prefix"), pathRule("Prefix", "/aaa/bbb", "aaa-slash-bbb-prefix"),
			pathRule("Prefix", "/aaa", "aaa-prefix")) +
		pathHost("mixed-path-rules", pathRule("Prefix", "/foo", "foo-prefix"), pathRule("Exact", "/foo", "foo-exact")) +
		pathHost("trailing-slash-path-rules", pathRule("Prefix", "/aaa/bbb/", "aaa-slash-bbb-slash-prefix"), pathRule("Exact", "/foo/", "foo-slash-exact"))
	served := func(name, host, path, service string) scenario {
		return scenario{name, steps(send("GET", "http://"+host+path), status(200), servedBy(service), sees("path", path))}
	}
	unserved := func(name, host, path string) scenario {
		return scenario{name, steps(send("GET", "http://"+host+path), notFound())}
	}
	const exact, prefix, mixed, trailing = "exact-path-rules", "prefix-path-rules", "mixed-path-rules", "trailing-slash-path-rules"
	return feature{name: "path rules", backends: backends, given: given, scenarios: []scenario{
		served("an exact path is served", exact, "/foo", "foo-exact"),
		unserved("an exact path does not match with a slash at the end", exact, "/foo/"),
		unserved("an exact path is sensitive to case", exact, "/FOO"),
		unserved("an exact path matches no other", exact, "/bar"),
		served("a prefix is served", prefix, "/foo", "foo-prefix"),
		served("a prefix matches with a slash at the end", prefix, "/foo/", "foo-prefix"),
		unserved("a prefix is sensitive to case", prefix, "/FOO"),
		served("the longest prefix of several elements is served", prefix, "/aaa/bbb", "aaa-slash-bbb-prefix"),
		served("the longest prefix is served below it", prefix, "/aaa/bbb/ccc", "aaa-slash-bbb-prefix"),
		served("a shorter prefix is served beside a longer one", prefix, "/aaa/ccc", "aaa-prefix"),
		unserved("a prefix matches whole elements only", prefix, "/aaaccc"),
		served("a prefix among others ignores the slash at the end", prefix, "/foo/", "foo-prefix"), // the suite asks this twice
		served("an exact path goes before the same prefix", mixed, "/foo", "foo-exact"),
		served("a prefix that ends in a slash matches without it", trailing, "/aaa/bbb", "aaa-slash-bbb-slash-prefix"),
		served("a prefix that ends in a slash matches with it", trailing, "/aaa/bbb/", "aaa-slash-bbb-slash-prefix"),
		unserved("an exact path that ends in a slash does not match without it", trailing, "/foo"),
	}}
}
