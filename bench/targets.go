//go:build linux

package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// known are the proxies that can be measured.
// Caddy tries its routes in order, so it is measured twice: with the measured route in the middle, as for all others, and with
// that route first.
var known = []string{"gatehouse", "nginx", "haproxy", "caddy", "caddy-first", "reverseproxy", "gatehouse-b"}

// measurements are what can be measured: the CPU of requests, what policies add to it, the memory of idle connections, large bodies, many routes, memory under clients that only
// hold connections.
var measurements = []string{"requests", "policies", "idle", "bodies", "scale", "memory"}

// fields are what every proxy adds to a request, so that all do the same work on heads.
var fields = []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Proto", "X-Real-Ip", "X-Request-Id"}

const (
	// measuredHost is the host of the route that is measured; wrk takes it from the URL, for SNI, too.
	measuredHost = "localhost"
	prefix       = "/api"
	target       = "/api/orders/1234?page=2"
)

// site is what every proxy is told: its ports, the backend, the certificate, and how many routes.
type site struct {
	dir                          string // for the configuration and what the proxy writes
	plain, secure, health, admin int    // ports on 127.0.0.1
	backend                      int
	certFile, keyFile            string
	routes                       int          // hosts
	paths                        int          // of each host, prefix the first; 0: 1
	stream                       bool         // bodies are passed on as they come, whatever is the proxy's default
	first                        bool         // the measured route comes first, not in the middle
	credentials                  *credentials // of every request, with policies; nil: none
}

// hosts lists the hosts of all routes, one route each, the measured one among them.
func (s site) hosts() []string {
	hosts := make([]string, s.routes)
	for i := range hosts {
		hosts[i] = fmt.Sprintf("r%05d.bench.example", i)
	}
	if s.first {
		hosts[0] = measuredHost
	} else {
		hosts[s.routes/2] = measuredHost
	}
	return hosts
}

func (s site) file(name string) string { return filepath.Join(s.dir, name) }

// command writes the configuration of proxy and returns the command line that runs it in the foreground.
func (s site) command(b *bench, proxy string) ([]string, error) {
	switch proxy {
	case "gatehouse", "gatehouse-b", "plain", "plain-b", "key", "key-limit", "jwt", "cel", "cel-loop":
		conf := s.file("config")
		if err := os.MkdirAll(conf, 0o755); err != nil {
			return nil, err
		}
		if s.credentials != nil {
			if err := os.WriteFile(filepath.Join(conf, "policies.yaml"), []byte(s.credentials.yaml(proxy, s)), 0o600); err != nil {
				return nil, err
			}
		}
		text, err := s.gatehouse()
		if err != nil {
			return nil, err
		}
		return []string{b.gatehouse, "run", "-f", conf, "--bind", "127.0.0.1", "--http-port", fmt.Sprint(s.plain),
			"--https-port", fmt.Sprint(s.secure), "--health", fmt.Sprintf("127.0.0.1:%d", s.health),
			"--admin", fmt.Sprintf("127.0.0.1:%d", s.admin), "--access-log", "off",
		}, os.WriteFile(filepath.Join(conf, "routes.yaml"), []byte(text), 0o644)
	case "nginx":
		return []string{"nginx", "-p", s.dir, "-c", s.file("nginx.conf"), "-e", s.file("error.log")},
			os.WriteFile(s.file("nginx.conf"), []byte(s.nginx()), 0o644)
	case "haproxy":
		return s.haproxyCommand()
	case "caddy", "caddy-first":
		order := s
		order.first = proxy == "caddy-first"
		text, err := json.MarshalIndent(order.caddy(), "", " ")
		if err != nil {
			return nil, err
		}
		return []string{"env", "XDG_DATA_HOME=" + s.dir, "XDG_CONFIG_HOME=" + s.dir, b.caddy, "run", "--config", s.file("caddy.json")},
			os.WriteFile(s.file("caddy.json"), text, 0o644)
	case "reverseproxy":
		return []string{b.reverseproxy, "-http", fmt.Sprintf("127.0.0.1:%d", s.plain), "-https", fmt.Sprintf("127.0.0.1:%d", s.secure),
				"-cert", s.certFile, "-key", s.keyFile, "-routes", s.file("routes")},
			os.WriteFile(s.file("routes"), []byte(s.lines()), 0o644)
	}
	return nil, fmt.Errorf("no proxy %q", proxy)
}

// gatehouse is one Ingress per route on one Service, with TLS from one Secret.
func (s site) gatehouse() (string, error) {
	cert, err := os.ReadFile(s.certFile)
	if err != nil {
		return "", err
	}
	key, err := os.ReadFile(s.keyFile)
	if err != nil {
		return "", err
	}
	var w strings.Builder
	fmt.Fprintf(&w, `apiVersion: v1
kind: Service
metadata: {name: backend, namespace: bench}
spec:
  ports: [{name: http, port: 80, targetPort: %d}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: backend-1, namespace: bench, labels: {kubernetes.io/service-name: backend}}
addressType: IPv4
endpoints: [{addresses: [127.0.0.1], conditions: {ready: true}}]
ports: [{name: http, port: %d, protocol: TCP}]
---
apiVersion: v1
kind: Secret
metadata: {name: bench, namespace: bench}
type: kubernetes.io/tls
data:
  tls.crt: %s
  tls.key: %s
`, s.backend, s.backend, base64.StdEncoding.EncodeToString(cert), base64.StdEncoding.EncodeToString(key))
	for i, host := range s.hosts() {
		w.WriteString(s.ingress(fmt.Sprintf("route-%d", i), host, s.pathsOf()))
	}
	return w.String(), nil
}

// ingress is one host with its paths.
func (s site) ingress(name, host string, paths []string) string {
	var w strings.Builder
	fmt.Fprintf(&w, `---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: %s, namespace: bench, annotations: {gatehouse.dev/https-redirect: "false"}}
spec:
  tls: [{hosts: [%s], secretName: bench}]
  rules:
  - host: %s
    http:
      paths:
`, name, host, host)
	for _, p := range paths {
		fmt.Fprintf(&w, "      - {path: %s, pathType: Prefix, backend: {service: {name: backend, port: {number: 80}}}}\n", p)
	}
	return w.String()
}

// pathsOf lists the paths of each host.
func (s site) pathsOf() []string {
	paths := make([]string, max(1, s.paths))
	for i := range paths {
		paths[i] = pathOf(i)
	}
	return paths
}

// pathOf is the path of a host's route: the first is the measured one.
func pathOf(i int) string {
	if i == 0 {
		return prefix
	}
	return fmt.Sprintf("/team-%d/service", i)
}

// nginx is one server per route, one upstream, keep-alive both ways, stub_status on. The cipher is the one that Go's TLS picks.
func (s site) nginx() string {
	var w strings.Builder
	stream := ""
	if s.stream {
		stream = "client_max_body_size 0; proxy_request_buffering off; proxy_buffering off;"
	}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // else the worker cannot read the folder
	}
	fmt.Fprintf(&w, `%s
worker_processes 1;
worker_rlimit_nofile 65536;
daemon off;
pid %s;
error_log %s warn;
events { worker_connections 16384; }
http {
  access_log off;
  client_body_temp_path %[4]s/body;
  proxy_temp_path %[4]s/proxy;
  fastcgi_temp_path %[4]s/fastcgi;
  uwsgi_temp_path %[4]s/uwsgi;
  scgi_temp_path %[4]s/scgi;
  keepalive_timeout 90s;
  keepalive_requests 1000000000;
  server_names_hash_max_size 16384;
  server_names_hash_bucket_size 128;
  ssl_certificate %[5]s;
  ssl_certificate_key %[6]s;
  ssl_protocols TLSv1.3;
  ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
  upstream backend {
    server 127.0.0.1:%[7]d;
    keepalive 1024;
    keepalive_requests 1000000000;
  }
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_set_header Host $http_host;
  proxy_set_header X-Forwarded-For $remote_addr;
  proxy_set_header X-Forwarded-Host $http_host;
  proxy_set_header X-Forwarded-Port $server_port;
  proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header X-Real-Ip $remote_addr;
  proxy_set_header X-Request-Id $request_id;
  %[9]s
  server { listen 127.0.0.1:%[8]d; location = /metrics { stub_status; } }
`, user, s.file("nginx.pid"), s.file("error.log"), s.dir, s.certFile, s.keyFile, s.backend, s.health, stream)
	for _, host := range s.hosts() {
		w.WriteString(s.server(host, s.pathsOf()))
	}
	fmt.Fprintf(&w, "  include %s*;\n}\n", s.file("changed.conf")) // it may be missing
	return w.String()
}

// server is one host of nginx with its paths.
func (s site) server(host string, paths []string) string {
	var w strings.Builder
	fmt.Fprintf(&w, "  server { listen 127.0.0.1:%d; listen 127.0.0.1:%d ssl; server_name %s;", s.plain, s.secure, host)
	for _, p := range paths {
		fmt.Fprintf(&w, " location %s { proxy_pass http://backend; }", p)
	}
	w.WriteString(" }\n")
	return w.String()
}

// haproxyCommand writes HAProxy's files: the configuration, the map of hosts, and certificate and key in one file, as it wants them.
func (s site) haproxyCommand() ([]string, error) {
	var pair []byte
	for _, name := range []string{s.certFile, s.keyFile} {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		pair = append(pair, b...)
	}
	var hosts strings.Builder
	for _, h := range s.hosts() {
		fmt.Fprintf(&hosts, "%s\tbackend\n", h)
	}
	return []string{"haproxy", "-db", "-f", s.file("haproxy.cfg")}, errors.Join(
		os.WriteFile(s.file("pair.pem"), pair, 0o600),
		os.WriteFile(s.file("hosts.map"), []byte(hosts.String()), 0o644),
		os.WriteFile(s.file("haproxy.cfg"), []byte(s.haproxy()), 0o644))
}

// haproxy is one thread, a map of hosts (a tree, as HAProxy's manual advises), one pool of backend connections for all clients, the
// exporter of metrics on. Its defaults would give a backend connection to one client alone until that has proven safe.
func (s site) haproxy() string {
	return fmt.Sprintf(`global
  nbthread 1
  maxconn 16384
  no strict-limits
  ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
  ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
  mode http
  timeout connect 2s
  timeout client 90s
  timeout server 60s
  timeout http-request 10s
  timeout http-keep-alive 90s
  http-reuse always
frontend health
  bind 127.0.0.1:%[1]d
  http-request use-service prometheus-exporter if { path /metrics }
frontend clients
  bind 127.0.0.1:%[2]d
  bind 127.0.0.1:%[3]d ssl crt %[4]s alpn http/1.1
  option forwardfor
  http-request set-header X-Forwarded-Host %%[req.hdr(host)]
  http-request set-header X-Forwarded-Port %%[dst_port]
  http-request set-header X-Forwarded-Proto https if { ssl_fc }
  http-request set-header X-Forwarded-Proto http if !{ ssl_fc }
  http-request set-header X-Real-Ip %%[src]
  http-request set-header X-Request-Id %%[uuid()]
  use_backend %%[req.hdr(host),field(1,:),lower,map(%[5]s)] if { path_beg %[6]s }
backend backend
  server backend 127.0.0.1:%[7]d pool-max-conn 1024
`, s.health, s.plain, s.secure, s.file("pair.pem"), s.file("hosts.map"), prefix, s.backend)
}

// caddy is one route per host, metrics on, no admin endpoint, no log, nothing automatic about HTTPS.
func (s site) caddy() any {
	type m = map[string]any
	routes := make([]any, 0, s.routes)
	for _, host := range s.hosts() {
		routes = append(routes, m{
			"match":    []m{{"host": []string{host}, "path": []string{prefix, prefix + "/*"}}},
			"terminal": true,
			"handle": []m{{
				"handler":   "reverse_proxy",
				"upstreams": []m{{"dial": fmt.Sprintf("127.0.0.1:%d", s.backend)}},
				"transport": m{"protocol": "http", "compression": false, "keep_alive": m{"max_idle_conns_per_host": 1024}},
				// Caddy adds X-Forwarded-For, -Host and -Proto by itself.
				"headers": m{"request": m{"set": m{
					"X-Forwarded-Port": []string{"{http.request.local.port}"},
					"X-Real-Ip":        []string{"{http.request.remote.host}"},
					"X-Request-Id":     []string{"{http.request.uuid}"},
				}}},
			}},
		})
	}
	return m{
		"admin":   m{"disabled": true},
		"logging": m{"logs": m{"default": m{"level": "ERROR"}}},
		"apps": m{
			"http": m{"metrics": m{}, "servers": m{
				"plain": m{"listen": []string{fmt.Sprintf("127.0.0.1:%d", s.plain)}, "protocols": []string{"h1"},
					"automatic_https": m{"disable": true}, "routes": routes},
				"secure": m{"listen": []string{fmt.Sprintf("127.0.0.1:%d", s.secure)}, "protocols": []string{"h1"},
					"automatic_https": m{"disable": true}, "routes": routes,
					"tls_connection_policies": []m{{"protocol_min": "tls1.3"}}},
			}},
			"tls": m{"certificates": m{"load_files": []m{{"certificate": s.certFile, "key": s.keyFile}}}},
		},
	}
}

// lines is the route table of reverseproxy.
func (s site) lines() string {
	var w strings.Builder
	for _, host := range s.hosts() {
		fmt.Fprintf(&w, "%s %s http://127.0.0.1:%d\n", host, prefix, s.backend)
	}
	return w.String()
}
