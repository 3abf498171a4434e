// Package ir is what the control side tells the data side: listeners, hosts, routes, policy steps, clusters
// and endpoints as plain, deterministic, serialisable data. It names no Kubernetes type and holds no secret:
// secrets stand in it as handles. A value is never changed once it is published; an unchanged part keeps its pointer
// from one version to the next, so that the data side can skip it.
package ir

import (
	"net/netip"
	"time"
)

// Source says which object, and which field of it, a part of the configuration comes from.
type Source struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	Field     string `json:"field,omitempty"` // "spec.rules[0].matches[1]"
}

// Object is the object without the field: "HTTPRoute shop/cart".
func (s Source) Object() string {
	if s.Namespace == "" {
		return s.Kind + " " + s.Name
	}
	return s.Kind + " " + s.Namespace + "/" + s.Name
}

func (s Source) String() string {
	if s.Field == "" {
		return s.Object()
	}
	return s.Object() + " " + s.Field
}

// Config is one version of everything but endpoints and secrets.
type Config struct {
	Listeners []*Listener `json:"listeners"` // sorted by Key
	Hosts     []*Host     `json:"hosts"`     // sorted by Listener, Hostname
	Clusters  []*Cluster  `json:"clusters"`  // sorted by Key
}

// Bind is the address and port of a socket. An invalid Address means every address.
type Bind struct {
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port"`
}

// Protocols of a listener.
const (
	HTTP  = "HTTP"
	HTTPS = "HTTPS"
)

// Listener is one listener of a Gateway, or one of the two (http, https) of an IngressClass.
type Listener struct {
	Key      string  `json:"key"` // "Gateway/shop/public/http", "IngressClass/gatehouse/https"
	Source   Source  `json:"source"`
	Group    string  `json:"group"` // "Gateway/shop/public": listeners of one group and port isolate each other's hostnames
	Port     uint16  `json:"port"`  // seen by clients: matching, Location, X-Forwarded-Port
	Binds    []Bind  `json:"binds"` // only the room listener reads it; all are bound
	Protocol string  `json:"protocol"`
	Hostname string  `json:"hostname,omitempty"` // "" any, "shop.example", "*.example" (one label or more)
	TLS      *TLS    `json:"tls,omitempty"`      // HTTPS only
	Client   *Client `json:"client,omitempty"`   // nil: the defaults
	// Backends are networks that its requests may go to though backends may not lie there in general.
	Backends []netip.Prefix `json:"backends,omitempty"`
	Created  time.Time      `json:"created,omitzero"` // of the object: of two that need one bind the older wins
	Steps    []*Step        `json:"steps,omitempty"`  // for answers to requests that match no route: only their response hooks run
}

// TLS is how a listener terminates TLS.
type TLS struct {
	Certificates []Certificate `json:"certificates"`      // in order of preference
	Default      string        `json:"default,omitempty"` // handle of the certificate for names for which there is no other
}

// Certificate is a handle of a Secret of type kubernetes.io/tls and the names it is wanted for. Without a handle the names want what
// covers them otherwise: another certificate, or the default.
type Certificate struct {
	Handle string   `json:"handle"`
	Hosts  []string `json:"hosts,omitempty"` // empty: it is the listener's own, for all its names; "": names that nothing else covers
	Source Source   `json:"source"`
}

// Client is how a listener treats its clients (ClientTrafficPolicy). Zero fields take the defaults of DefaultClient.
type Client struct {
	Source                Source         `json:"source"`
	Address               string         `json:"address,omitempty"`       // "", "XForwardedFor", "ProxyProtocol", "Header"
	AddressHeader         string         `json:"addressHeader,omitempty"` // for "Header"
	Trusted               []netip.Prefix `json:"trusted,omitempty"`
	EscapedSlashes        string         `json:"escapedSlashes,omitempty"` // "", "Reject", "Keep"
	EmptySegments         string         `json:"emptySegments,omitempty"`  // "", "Merge", "Keep"
	HeaderBytes           int            `json:"headerBytes,omitempty"`
	HeaderCount           int            `json:"headerCount,omitempty"`
	ConnectionsPerAddress int            `json:"connectionsPerAddress,omitempty"` // 0: without end
	RequestLine           int            `json:"requestLine,omitempty"`
	HeaderTimeout         *Duration      `json:"headerTimeout,omitempty"`
	IdleTimeout           *Duration      `json:"idleTimeout,omitempty"`
	StreamIdle            *Duration      `json:"streamIdle,omitempty"`
	TLSMinVersion         string         `json:"tlsMinVersion,omitempty"` // "", "1.2", "1.3"
	HalfClose             string         `json:"halfClose,omitempty"`     // "" (HalfCloseEnd), HalfCloseEnd, HalfCloseWait
}

// What becomes of an exchange whose client says that it sends no more: it ends, or its backend may answer for some seconds more.
const (
	HalfCloseEnd  = "End"
	HalfCloseWait = "Wait"
)

// Duration is a time.Duration that JSON shows as Go's duration text.
type Duration time.Duration

func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads Go's duration text.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// Host is a virtual host: the routes of one listener for one hostname pattern. It is the unit that changes.
type Host struct {
	Listener string   `json:"listener"`           // Key of the listener
	Hostname string   `json:"hostname"`           // "" any, "shop.example", "*.example"
	OneLabel bool     `json:"oneLabel,omitempty"` // the wildcard stands for exactly one label (Ingress), else one or more (Gateway API)
	Routes   []*Route `json:"routes"`             // in match order: the first that matches wins
}

// Kinds of path match.
const (
	PathPrefix = "prefix" // by path element
	PathExact  = "exact"
	PathRegex  = "regex" // RE2, anchored at both ends
)

// Match is what a request must look like. All parts must hold.
type Match struct {
	Path    PathMatch    `json:"path"`
	Method  string       `json:"method,omitempty"`
	Headers []FieldMatch `json:"headers,omitempty"` // sorted by name, names in lower case
	Query   []FieldMatch `json:"query,omitempty"`   // sorted by name
}

// PathMatch compares the canonical path. The zero value is the prefix "/".
type PathMatch struct {
	Kind  string `json:"kind"`
	Value string `json:"value"`
}

// FieldMatch compares one header field or one query parameter; of several with the name, headers are joined by
// "," and the first query parameter counts.
type FieldMatch struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	Regex bool   `json:"regex,omitempty"` // RE2, anchored at both ends
}

// Route is one match of one rule of one object.
type Route struct {
	Name     string    `json:"name"` // stable and unique in its host: "HTTPRoute/shop/cart/0/1"
	Source   Source    `json:"source"`
	Match    Match     `json:"match"`
	Created  time.Time `json:"created,omitzero"` // precedence: older wins
	Steps    []*Step   `json:"steps,omitempty"`  // in the order in which they run
	Backends []Backend `json:"backends,omitempty"`
	// NoBackend is why a request that gets past the steps is answered 500, if Backends is empty: "no backendRefs".
	NoBackend string    `json:"noBackend,omitempty"`
	Timeouts  Timeouts  `json:"timeouts,omitzero"`
	Retry     *Retry    `json:"retry,omitempty"`    // nil: the cluster's
	Affinity  *Affinity `json:"affinity,omitempty"` // nil: the cluster's
}

// Timeouts of a route. nil: the cluster's, or the default; 0: off.
type Timeouts struct {
	Request *Duration `json:"request,omitempty"` // the whole exchange, client to client
	Backend *Duration `json:"backend,omitempty"` // one try at a backend, until the whole response is there
	Connect *Duration `json:"connect,omitempty"`
	First   *Duration `json:"firstByte,omitempty"`
}

// Backend is one weighted target of a route.
type Backend struct {
	Cluster string  `json:"cluster,omitempty"` // Key; empty: its share of the requests is answered 500
	Weight  uint32  `json:"weight"`            // 0: never
	Steps   []*Step `json:"steps,omitempty"`
	Source  Source  `json:"source"`
	Invalid string  `json:"invalid,omitempty"` // why Cluster is empty: "no Service shop/wbe"
}

// Step is one policy or filter, lowered: data that only policy/<name> decodes.
type Step struct {
	Name    string            `json:"name"`
	Phase   string            `json:"phase"`
	Target  Source            `json:"target"`            // what it is attached to
	Spec    RawJSON           `json:"spec"`              // merged
	Refs    map[string]string `json:"refs,omitempty"`    // field path in Spec -> handle of a secret, cluster or data blob
	Sources map[string]Source `json:"sources,omitempty"` // field path in Spec, "" for all -> where it was written
}

// Source is where the step as a whole was written.
func (s *Step) Source() Source { return s.Sources[""] }

// RawJSON is JSON text that stays as it is.
type RawJSON []byte

// MarshalJSON returns the text.
func (r RawJSON) MarshalJSON() ([]byte, error) {
	if len(r) == 0 {
		return []byte("null"), nil
	}
	return r, nil
}

// UnmarshalJSON keeps a copy of the text.
func (r *RawJSON) UnmarshalJSON(b []byte) error {
	*r = append((*r)[:0], b...)
	return nil
}

// Cluster is a set of endpoints that answer alike: one port of a Service, or a Backend.
type Cluster struct {
	// Key is "Service/shop/cart/8080" or "Backend/shop/orders"; "@Secret/shop/edge" behind it names the client certificate of the
	// Gateway whose requests these are: connections made with it are never used for others.
	Key      string      `json:"key"`
	Source   Source      `json:"source"`
	Protocol string      `json:"protocol,omitempty"` // "" HTTP/1.1
	TLS      *BackendTLS `json:"tls,omitempty"`
	Traffic  *Traffic    `json:"traffic,omitempty"` // nil: the defaults
}

// BackendTLS is how the edge speaks TLS to a cluster. A chain that does not verify is always refused.
type BackendTLS struct {
	Hostname string   `json:"hostname"`        // SNI, and the name verified if Names and URIs are empty
	Names    []string `json:"names,omitempty"` // DNS names, "*.example" too: of these and URIs one must be in the certificate
	URIs     []string `json:"uris,omitempty"`
	System   bool     `json:"system,omitempty"`   // trust the system's roots
	CAs      []string `json:"cas,omitempty"`      // handles of CA bundles (key ca.crt)
	ClientID string   `json:"clientID,omitempty"` // handle of a client certificate
}

// Endpoint is one address of a cluster.
type Endpoint struct {
	Host string `json:"host"` // IP address, or DNS name to resolve
	Port uint16 `json:"port"`
	Zone string `json:"zone,omitempty"`
	// ForZones are the zones whose edges should prefer this endpoint (EndpointSlice hints); empty: no hint.
	ForZones []string `json:"forZones,omitempty"`
	Serving  bool     `json:"serving"`          // takes new requests when no endpoint is Ready (terminating but serving)
	Ready    bool     `json:"ready"`            // takes new requests
	Weight   uint32   `json:"weight,omitempty"` // 0: 1
}

// Endpoints are the endpoints of every cluster, by its Key. An entry keeps its slice while it does not change.
type Endpoints map[string][]Endpoint
