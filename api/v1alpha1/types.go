// Package v1alpha1 holds the Go types of Gatehouse's own kinds (API group gatehouse.dev). The comments on the fields
// are the reference documentation. It promises that a field name, once here, is kept.
package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Group and version of the kinds.
const (
	Group   = "gatehouse.dev"
	Version = "v1alpha1"
)

// LabelOwnerKind is on every Service that Gatehouse makes: the kind of the object that it is for. No route leads to such a Service.
const LabelOwnerKind = "gatehouse.dev/owner-kind"

// TargetRef names an object in the policy's own namespace (or a cluster-wide one) that a policy attaches to.
type TargetRef struct {
	// Group of the target: gateway.networking.k8s.io, networking.k8s.io, gatehouse.dev, or "" for a Service.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	Group string `json:"group"`
	// Kind of the target, for example Gateway, IngressClass, Ingress, HTTPRoute, Service.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Kind string `json:"kind"`
	// Name of the target.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// SectionName narrows the policy to one listener of a Gateway or one named rule of a route.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	SectionName string `json:"sectionName,omitempty"`
}

// Backend is a set of endpoints outside the cluster's Services, by address or DNS name.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=gatehouse,shortName=ghb
// +kubebuilder:printcolumn:name=Accepted,type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name=Reason,type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].reason`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
type Backend struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what the user writes.
	Spec BackendSpec `json:"spec"`
	// Status is what Gatehouse concluded; it is ignored in files.
	Status PolicyStatus `json:"status,omitempty"`
}

// BackendSpec is what a Backend consists of.
type BackendSpec struct {
	// Endpoints that answer alike. At least one.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	// +listType=atomic
	Endpoints []BackendEndpoint `json:"endpoints"`
	// TLS to the endpoints; absent: cleartext.
	TLS *BackendTLS `json:"tls,omitempty"`
}

// BackendEndpoint is one endpoint: exactly one of address and hostname.
//
// +kubebuilder:validation:XValidation:rule="has(self.address) != has(self.hostname)",message="exactly one of address and hostname must be set"
type BackendEndpoint struct {
	// Address is an IPv4 or IPv6 address.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="isIP(self)",message="not an IP address; a DNS name goes into hostname"
	Address string `json:"address,omitempty"`
	// Hostname is a DNS name, resolved again at its TTL.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	Hostname string `json:"hostname,omitempty"`
	// Port of the endpoint, 1 to 65535.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port"`
}

// BackendTLS is how TLS is spoken to a Backend, in the terms of BackendTLSPolicy.
//
// +kubebuilder:validation:XValidation:rule="has(self.wellKnownCACertificates) != (has(self.caCertificateRefs) && size(self.caCertificateRefs) > 0)",message="exactly one of wellKnownCACertificates and caCertificateRefs must be set"
type BackendTLS struct {
	// Hostname is sent as SNI and must be in the certificate.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	Hostname string `json:"hostname"`
	// WellKnownCACertificates: System trusts the machine's roots.
	// +kubebuilder:validation:Enum=System
	WellKnownCACertificates string `json:"wellKnownCACertificates,omitempty"`
	// CACertificateRefs name Secrets or ConfigMaps with the key ca.crt.
	// +kubebuilder:validation:MaxItems=8
	// +listType=atomic
	// +kubebuilder:validation:items:XValidation:rule="self.kind in ['Secret', 'ConfigMap']",message="kind must be Secret or ConfigMap"
	CACertificateRefs []gatewayv1.LocalObjectReference `json:"caCertificateRefs,omitempty"`
	// ClientCertificateRef names a Secret of type kubernetes.io/tls that is shown to the backend.
	// +kubebuilder:validation:XValidation:rule="self.kind == 'Secret'",message="kind must be Secret"
	ClientCertificateRef *gatewayv1.SecretObjectReference `json:"clientCertificateRef,omitempty"`
}

// ProtectionPolicy guards what it is attached to.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=gatehouse,shortName=ghpp
// +kubebuilder:metadata:labels="gateway.networking.k8s.io/policy=Inherited"
// +kubebuilder:printcolumn:name=Target-Kind,type=string,JSONPath=`.spec.targetRefs[0].kind`
// +kubebuilder:printcolumn:name=Target,type=string,JSONPath=`.spec.targetRefs[0].name`
// +kubebuilder:printcolumn:name=Accepted,type=string,JSONPath=`.status.ancestors[0].conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name=Reason,type=string,JSONPath=`.status.ancestors[0].conditions[?(@.type=="Accepted")].reason`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
type ProtectionPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what the user writes.
	Spec ProtectionPolicySpec `json:"spec"`
	// Status is what Gatehouse concluded; it is ignored in files.
	Status PolicyStatus `json:"status,omitempty"`
}

// ProtectionPolicySpec attaches one bundle, as defaults or as overrides (GEP-713): exactly one of the two.
//
// +kubebuilder:validation:XValidation:rule="has(self.defaults) != has(self.overrides)",message="exactly one of defaults and overrides must be set"
type ProtectionPolicySpec struct {
	// TargetRefs name what the policy is attached to. None: it holds only for the rules that name it in an ExtensionRef filter.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	TargetRefs []TargetRef `json:"targetRefs,omitempty"`
	// Defaults hold where nothing nearer to the route says otherwise.
	Defaults *Protection `json:"defaults,omitempty"`
	// Overrides hold whatever nearer policies say.
	Overrides *Protection `json:"overrides,omitempty"`
}

// Protection is the bundle of a ProtectionPolicy; levels combine per field: cors, maintenance and directResponse as a whole, sizes by
// size, errorPages by status.
type Protection struct {
	// CORS says which origins may read the answers (the Fetch standard's CORS protocol), in the terms of the HTTPRoute
	// filter (GEP-1767).
	CORS *CORS `json:"cors,omitempty"`
	// Sizes bounds bodies.
	Sizes *Sizes `json:"sizes,omitempty"`
	// Maintenance answers every request with 503, reason maintenance, before anything else looks at it.
	Maintenance *Maintenance `json:"maintenance,omitempty"`
	// ErrorPages are the bodies of answers of 400 and more. Of several pages that name a status the first holds, those of a nearer
	// level before those further out. A page changes a body and its Content-Type, never the status or a header such as
	// WWW-Authenticate, Retry-After or Location. At a Gateway or IngressClass it also holds for requests that match no route.
	// Answers with a body that was written for them (maintenance, directResponse), and gRPC, keep theirs.
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	ErrorPages []ErrorPage `json:"errorPages,omitempty"`
	// DirectResponse answers without a backend, after authorisation and limits, as a redirect does. A rule that it reaches needs no
	// backendRefs. Of one that is attached and one in an ExtensionRef, the attached one answers.
	DirectResponse *DirectResponse `json:"directResponse,omitempty"`
}

// Maintenance answers every request with 503, but for clients that are let through.
//
// +kubebuilder:validation:XValidation:rule="has(self.body) == has(self.contentType)",message="body and contentType go together"
type Maintenance struct {
	// RetryAfter is when clients may try again (GEP-2257), as Retry-After in whole seconds. Absent: not said.
	RetryAfter *gatewayv1.Duration `json:"retryAfter,omitempty"`
	// Allow are the clients that get through, as networks. Who a client is says the ClientTrafficPolicy.
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=64
	// +listType=atomic
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self)",message="not a network such as 10.0.0.0/8 or 192.0.2.7/32"
	Allow []string `json:"allow,omitempty"`
	// Body of the answer, at most 64 KiB. Absent: a problem document, or a short page for a client that prefers HTML; an errorPages
	// entry may take its place.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=65536
	Body string `json:"body,omitempty"`
	// ContentType of the body: text/html, text/plain, application/json. A text is UTF-8 unless a charset says otherwise.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	ContentType string `json:"contentType,omitempty"`
	// Mode is Enforce (default); Shadow: count and log what would be refused, and let pass; or Disabled, which also takes away what outer
	// defaults say.
	// +kubebuilder:validation:Enum=Enforce;Shadow;Disabled
	Mode string `json:"mode,omitempty"`
}

// ErrorPage is the body of answers with certain statuses.
type ErrorPage struct {
	// Statuses that the page is for: "404", or "4xx" and "5xx" for all of a class.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:Pattern=`^([45][0-9]{2}|[45]xx)$`
	// +listType=set
	Statuses []string `json:"statuses"`
	// Body of the answer, at most 64 KiB. {status}, {reason} and {requestId} stand for the status, Gatehouse's reason word (nothing in a
	// backend's answer) and the request's id, escaped where contentType is HTML; nothing else is expanded.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=65536
	Body string `json:"body"`
	// ContentType of the body: text/html, text/plain, application/json. A text is UTF-8 unless a charset says otherwise.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	ContentType string `json:"contentType"`
	// Backends has the page take the place of what backends answer with these statuses, too. Default false: only of what Gatehouse
	// answers itself.
	Backends bool `json:"backends,omitempty"`
}

// DirectResponse is an answer without a backend.
//
// +kubebuilder:validation:XValidation:rule="has(self.body) == has(self.contentType)",message="body and contentType go together"
type DirectResponse struct {
	// Status of the answer, 200 to 599. Default 200. One of 400 or more without a body gets a problem document.
	// +kubebuilder:validation:Minimum=200
	// +kubebuilder:validation:Maximum=599
	Status *int32 `json:"status,omitempty"`
	// Body of the answer, at most 64 KiB. Nothing in it is expanded.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=65536
	Body string `json:"body,omitempty"`
	// ContentType of the body: text/html, text/plain, application/json. A text is UTF-8 unless a charset says otherwise.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	ContentType string `json:"contentType,omitempty"`
	// Headers of the answer beside Content-Type and those that frame it.
	// +kubebuilder:validation:MaxItems=32
	// +listType=atomic
	Headers []gatewayv1.HTTPHeader `json:"headers,omitempty"`
}

// CORS says which origins may read the answers. It has the fields of the HTTPRoute filter, but maxAge is a duration.
type CORS struct {
	// AllowOrigins are scheme://host[:port], with one leading wildcard label in the host (https://*.example.com), or "*"
	// alone. Default: none.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=253
	// +kubebuilder:validation:items:Pattern=`(^\*$)|(^(http(s)?):\/\/(((\*\.)?([a-zA-Z0-9\-]+\.)*[a-zA-Z0-9-]+|\*)(:([0-9]{1,5}))?)$)`
	// +listType=set
	// +kubebuilder:validation:XValidation:rule="size(self) == 1 || !('*' in self)",message="'*' stands alone"
	AllowOrigins []string `json:"allowOrigins,omitempty"`
	// AllowMethods are the methods that a preflight allows, or "*" alone. GET, HEAD and POST are always allowed.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=256
	// +kubebuilder:validation:items:Pattern=`^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$`
	// +listType=set
	// +kubebuilder:validation:XValidation:rule="size(self) == 1 || !('*' in self)",message="'*' stands alone"
	AllowMethods []string `json:"allowMethods,omitempty"`
	// AllowHeaders are the request headers that a preflight allows beyond the safelisted ones, or "*" alone.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=256
	// +kubebuilder:validation:items:Pattern=`^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$`
	// +listType=set
	// +kubebuilder:validation:XValidation:rule="size(self) == 1 || !('*' in self)",message="'*' stands alone"
	AllowHeaders []string `json:"allowHeaders,omitempty"`
	// ExposeHeaders are the response headers that scripts may read beyond the safelisted ones, or "*" alone.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=256
	// +kubebuilder:validation:items:Pattern=`^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$`
	// +listType=set
	// +kubebuilder:validation:XValidation:rule="size(self) == 1 || !('*' in self)",message="'*' stands alone"
	ExposeHeaders []string `json:"exposeHeaders,omitempty"`
	// AllowCredentials lets cookies and Authorization go along. Default false.
	AllowCredentials *bool `json:"allowCredentials,omitempty"`
	// MaxAge is how long a browser may keep the answer to a preflight (GEP-2257, whole seconds). Default 5s.
	MaxAge *gatewayv1.Duration `json:"maxAge,omitempty"`
}

// Sizes bounds bodies; a body at the limit passes.
type Sizes struct {
	// RequestBody is the largest request body; a larger one is answered 413.
	// +kubebuilder:validation:XValidation:rule="!quantity(string(self)).isLessThan(quantity('0'))",message="must not be negative"
	RequestBody *resource.Quantity `json:"requestBody,omitempty"`
	// ResponseBody is the largest response body; a larger one is answered 502, or cut off once it has begun.
	// +kubebuilder:validation:XValidation:rule="!quantity(string(self)).isLessThan(quantity('0'))",message="must not be negative"
	ResponseBody *resource.Quantity `json:"responseBody,omitempty"`
	// Mode is Enforce (default); Shadow: count and log what would be refused, and let pass; or Disabled, which also takes away what outer
	// defaults say.
	// +kubebuilder:validation:Enum=Enforce;Shadow;Disabled
	Mode string `json:"mode,omitempty"`
}

// ClientTrafficPolicy says how a listener treats its clients. Of two for one target the oldest wins.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=gatehouse,shortName=ghctp
// +kubebuilder:metadata:labels="gateway.networking.k8s.io/policy=Direct"
// +kubebuilder:printcolumn:name=Target-Kind,type=string,JSONPath=`.spec.targetRefs[0].kind`
// +kubebuilder:printcolumn:name=Target,type=string,JSONPath=`.spec.targetRefs[0].name`
// +kubebuilder:printcolumn:name=Accepted,type=string,JSONPath=`.status.ancestors[0].conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name=Reason,type=string,JSONPath=`.status.ancestors[0].conditions[?(@.type=="Accepted")].reason`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
type ClientTrafficPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what the user writes.
	Spec ClientTrafficPolicySpec `json:"spec"`
	// Status is what Gatehouse concluded; it is ignored in files.
	Status PolicyStatus `json:"status,omitempty"`
}

// ClientTrafficPolicySpec is what a ClientTrafficPolicy consists of.
type ClientTrafficPolicySpec struct {
	// TargetRefs name Gateways (sectionName: one listener) or IngressClasses.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	TargetRefs []TargetRef `json:"targetRefs"`
	// ClientAddress says whom to believe about the client's address. Absent: the peer is the client.
	ClientAddress *ClientAddress `json:"clientAddress,omitempty"`
	// TLS settings of HTTPS listeners.
	TLS *ClientTLS `json:"tls,omitempty"`
	// Path says how odd paths are treated.
	Path *PathHygiene `json:"path,omitempty"`
	// Limits on what a client sends.
	Limits *ClientLimits `json:"limits,omitempty"`
	// Timeouts on clients.
	Timeouts *ClientTimeouts `json:"timeouts,omitempty"`
	// HalfClose says what becomes of an exchange whose client closes its sending side while the backend still works: End (default), the
	// backend's work ends at once, because a program that has ended looks the same; Wait, the backend may answer for five seconds more.
	// Of several listeners on one socket, one that says Wait counts. Upgraded connections end direction by direction in any case.
	// +kubebuilder:validation:Enum=End;Wait
	HalfClose string `json:"halfClose,omitempty"`
}

// ClientAddress says where the client's address is read.
type ClientAddress struct {
	// Source is what carries the client's address when a trusted proxy is the peer.
	Source ClientAddressSource `json:"source"`
	// TrustedCIDRs are the proxies that are believed: the client is the rightmost address that is not in them.
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=64
	// +listType=atomic
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self)",message="not a network such as 10.0.0.0/8 or 192.0.2.7/32"
	TrustedCIDRs []string `json:"trustedCIDRs,omitempty"`
}

// ClientAddressSource is XForwardedFor, ProxyProtocol, or Header with the header's name.
//
// +kubebuilder:validation:XValidation:rule="(self.type == 'Header') == has(self.header)",message="header goes with type Header, and only with it",fieldPath=.header
type ClientAddressSource struct {
	// Type is XForwardedFor, ProxyProtocol (version 1 or 2) or Header.
	// +kubebuilder:validation:Enum=XForwardedFor;ProxyProtocol;Header
	Type string `json:"type"`
	// Header is the name of the header that holds one address; with type Header only.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$`
	Header string `json:"header,omitempty"`
}

// ClientTLS is TLS towards clients.
type ClientTLS struct {
	// MinVersion is "1.2" (default) or "1.3".
	// +kubebuilder:validation:Enum="1.2";"1.3"
	MinVersion string `json:"minVersion,omitempty"`
	// ALPN protocols offered, in order: h2, http/1.1.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:Enum=h2;http/1.1
	// +listType=set
	ALPN []string `json:"alpn,omitempty"`
}

// PathHygiene overrides how odd paths are treated.
type PathHygiene struct {
	// EscapedSlashes (%2F, %5C) are rejected (Reject) or kept as they are (Keep).
	// +kubebuilder:validation:Enum=Reject;Keep
	EscapedSlashes string `json:"escapedSlashes,omitempty"`
	// EmptySegments ("//") are merged (Merge) or kept (Keep).
	// +kubebuilder:validation:Enum=Merge;Keep
	EmptySegments string `json:"emptySegments,omitempty"`
}

// ClientLimits bounds what a client sends; at the limit it passes.
type ClientLimits struct {
	// HeaderBytes is the largest header section; a larger one is answered 431. Default 64Ki.
	// +kubebuilder:validation:XValidation:rule="!quantity(string(self)).isLessThan(quantity('0'))",message="must not be negative"
	HeaderBytes *resource.Quantity `json:"headerBytes,omitempty"`
	// HeaderCount is the largest number of header fields; more are answered 431. Default 128.
	// +kubebuilder:validation:Minimum=1
	HeaderCount *int32 `json:"headerCount,omitempty"`
	// RequestLineBytes is the longest request line; a longer one is answered 414. Default 16Ki.
	// +kubebuilder:validation:XValidation:rule="!quantity(string(self)).isLessThan(quantity('0'))",message="must not be negative"
	RequestLineBytes *resource.Quantity `json:"requestLineBytes,omitempty"`
	// ConnectionsPerAddress is how many connections one client address may have open at a socket; one more is closed with a reset, before
	// TLS. An IPv6 address counts by its /64. It is the address in the PROXY protocol header where there is one. Listeners that share a
	// socket share the strictest limit. Default: no limit. Clients behind one address (NAT, a proxy) share it.
	// +kubebuilder:validation:Minimum=1
	ConnectionsPerAddress *int32 `json:"connectionsPerAddress,omitempty"`
	// Streams is how many streams one HTTP/2 connection may have open. Default 100.
	// +kubebuilder:validation:Minimum=1
	Streams *int32 `json:"streams,omitempty"`
}

// ClientTimeouts bounds how long a client may take. "0s" turns one off.
type ClientTimeouts struct {
	// Header is the time for a request's head (default 10s).
	Header *gatewayv1.Duration `json:"header,omitempty"`
	// Idle is how long a kept connection waits for the next request (default 90s; 620s for a peer in the trustedCIDRs of every listener
	// of the socket, unless its connections begin with a PROXY protocol header).
	Idle *gatewayv1.Duration `json:"idle,omitempty"`
	// StreamIdle ends an upgraded connection on which nothing moves (default off).
	StreamIdle *gatewayv1.Duration `json:"streamIdle,omitempty"`
}

// GatewayParameters configure a GatewayClass, a Gateway or an IngressClass; the nearest wins.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=gatewayparameters,categories=gatehouse,shortName=ghp
// +kubebuilder:printcolumn:name=Exposure,type=string,JSONPath=`.spec.infrastructure.exposure`
// +kubebuilder:printcolumn:name=Service,type=string,JSONPath=`.spec.infrastructure.service.type`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
type GatewayParameters struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what the user writes.
	Spec GatewayParametersSpec `json:"spec"`
	// Status is what Gatehouse concluded; it is ignored in files.
	Status PolicyStatus `json:"status,omitempty"`
}

// GatewayParametersSpec is what GatewayParameters consist of.
type GatewayParametersSpec struct {
	// Infrastructure says how clients reach the listeners.
	Infrastructure *Infrastructure `json:"infrastructure,omitempty"`
	// DefaultCertificateRef names the certificate for TLS clients whose server name no other certificate covers. A listener that has
	// certificates of its own shows it for names that it covers; for all others the first of its own.
	// +kubebuilder:validation:XValidation:rule="self.kind == 'Secret'",message="kind must be Secret"
	DefaultCertificateRef *gatewayv1.SecretObjectReference `json:"defaultCertificateRef,omitempty"`
	// HTTPSRedirect answers HTTP with a redirect to HTTPS. Default: true for an IngressClass, for hosts with TLS; false
	// for a Gateway.
	HTTPSRedirect *bool `json:"httpsRedirect,omitempty"`
	// HSTS adds Strict-Transport-Security to answers over TLS. Absent: off.
	HSTS *HSTS `json:"hsts,omitempty"`
	// BackendAddresses opens exceptions to the addresses that are refused as backends.
	BackendAddresses *BackendAddresses `json:"backendAddresses,omitempty"`
	// RequirePolicies lists kinds of policy that have to reach every route. A route that none of a kind reaches answers 503
	// policy_missing: also when it arrives before its policy, or the policy is deleted. A policy that only looks on (mode Shadow) or is
	// Disabled does not count, nor does an AuthPolicy whose authentication is in mode Shadow, whatever its rules say. Parameters that are nearer add to the list, and cannot take from it.
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:Enum=AuthPolicy;RateLimitPolicy;ProtectionPolicy
	// +listType=set
	RequirePolicies []string `json:"requirePolicies,omitempty"`
}

// Infrastructure says which pods serve and how clients reach them.
//
// +kubebuilder:validation:XValidation:rule="!has(self.service) || !has(self.exposure) || self.exposure == 'Service'",message="service goes with exposure Service only",fieldPath=.service
type Infrastructure struct {
	// Mode is Shared: the pods of this installation serve. (Default, and the only one yet.)
	// +kubebuilder:validation:Enum=Shared
	Mode string `json:"mode,omitempty"`
	// Exposure is Service (default in a cluster): a Service of its own selects the pods and gives the addresses; or Host (default
	// without one): the listeners' own ports are bound, at spec.addresses of the Gateway or at every address.
	// +kubebuilder:validation:Enum=Service;Host
	Exposure string `json:"exposure,omitempty"`
	// Service is what the Service is like; with exposure Service only.
	Service *ServiceParameters `json:"service,omitempty"`
}

// ServiceParameters are what the Service of a Gateway or IngressClass is like.
//
// +kubebuilder:validation:XValidation:rule="!has(self.loadBalancerClass) || !has(self.type) || self.type == 'LoadBalancer'",message="loadBalancerClass goes with type LoadBalancer only",fieldPath=.loadBalancerClass
// +kubebuilder:validation:XValidation:rule="!has(self.externalTrafficPolicy) || !has(self.type) || self.type != 'ClusterIP'",message="externalTrafficPolicy does not go with type ClusterIP",fieldPath=.externalTrafficPolicy
type ServiceParameters struct {
	// Type is LoadBalancer (default), NodePort or ClusterIP.
	// +kubebuilder:validation:Enum=LoadBalancer;NodePort;ClusterIP
	Type string `json:"type,omitempty"`
	// LoadBalancerClass picks one of several load balancer implementations. It cannot be changed later.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	LoadBalancerClass string `json:"loadBalancerClass,omitempty"`
	// ExternalTrafficPolicy is Cluster (default) or Local: Local keeps the client's address and uses only nodes with a pod.
	// +kubebuilder:validation:Enum=Cluster;Local
	ExternalTrafficPolicy string `json:"externalTrafficPolicy,omitempty"`
	// Annotations of the Service, for load balancers that are configured by them.
	Annotations map[string]string `json:"annotations,omitempty"`
}

// HSTS is RFC 6797's policy.
type HSTS struct {
	// MaxAge is how long browsers remember it.
	MaxAge gatewayv1.Duration `json:"maxAge"`
	// IncludeSubDomains extends it to all subdomains.
	IncludeSubDomains bool `json:"includeSubDomains,omitempty"`
}

// BackendAddresses is a list of networks that backends may lie in though they are refused by default.
type BackendAddresses struct {
	// Allow lists networks (169.254.20.10/32).
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=64
	// +listType=atomic
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self)",message="not a network such as 10.0.0.0/8 or 192.0.2.7/32"
	Allow []string `json:"allow,omitempty"`
}

// PolicyStatus has one entry per ancestor (GEP-713).
type PolicyStatus struct {
	// Ancestors has one entry per Gateway, IngressClass or other object that the policy acts through.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	Ancestors []gatewayv1.PolicyAncestorStatus `json:"ancestors,omitempty"`
	// Conditions of a kind that attaches to nothing, such as Backend.
	// +kubebuilder:validation:MaxItems=8
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
