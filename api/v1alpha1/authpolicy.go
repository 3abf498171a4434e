package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// AuthPolicy says who may call what it is attached to.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=gatehouse,shortName=ghap
// +kubebuilder:metadata:labels="gateway.networking.k8s.io/policy=Inherited"
// +kubebuilder:printcolumn:name=Target-Kind,type=string,JSONPath=`.spec.targetRefs[0].kind`
// +kubebuilder:printcolumn:name=Target,type=string,JSONPath=`.spec.targetRefs[0].name`
// +kubebuilder:printcolumn:name=Accepted,type=string,JSONPath=`.status.ancestors[0].conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name=Reason,type=string,JSONPath=`.status.ancestors[0].conditions[?(@.type=="Accepted")].reason`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
type AuthPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what the user writes.
	Spec AuthPolicySpec `json:"spec"`
	// Status is what Gatehouse concluded; it is ignored in files.
	Status PolicyStatus `json:"status,omitempty"`
}

// AuthPolicySpec attaches one bundle, as defaults or as overrides (GEP-713): exactly one of the two.
//
// +kubebuilder:validation:XValidation:rule="has(self.defaults) != has(self.overrides)",message="exactly one of defaults and overrides must be set"
type AuthPolicySpec struct {
	// TargetRefs name what the policy is attached to. None: it holds only for the rules that name it in an ExtensionRef filter.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	TargetRefs []TargetRef `json:"targetRefs,omitempty"`
	// Defaults hold where nothing nearer to the route says otherwise.
	Defaults *Auth `json:"defaults,omitempty"`
	// Overrides hold whatever nearer policies say.
	Overrides *Auth `json:"overrides,omitempty"`
}

// Auth is the bundle of an AuthPolicy. Of several levels' authentication one holds as a whole: that of the outermost overrides, else of
// the innermost defaults. Authorization rules add up: every rule that applies has to pass, whichever level wrote it.
type Auth struct {
	// Authentication says how callers prove who they are. Absent: nobody is asked.
	Authentication *Authentication `json:"authentication,omitempty"`
	// Authorization says what callers may do, once they are known.
	Authorization *Authorization `json:"authorization,omitempty"`
}

// Authentication is a list of methods. What they find out becomes one identity, which authorization, limits, and logs read.
type Authentication struct {
	// Require is AnyOf (default): the first method that accepts decides; or AllOf: every method has to accept, and the identity is
	// that of the first, with what it lacks filled from the others.
	// +kubebuilder:validation:Enum=AnyOf;AllOf
	Require string `json:"require,omitempty"`
	// Methods are tried in this order.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=name
	Methods []AuthenticationMethod `json:"methods"`
	// Mode is Enforce (default); Shadow: decide, count and log, and let everybody pass; or Disabled: ask nobody, which also takes
	// away the authentication that outer defaults ask for.
	// +kubebuilder:validation:Enum=Enforce;Shadow;Disabled
	Mode string `json:"mode,omitempty"`
}

// AuthenticationMethod is one way to prove who one is: exactly one field beside name.
//
// +kubebuilder:validation:XValidation:rule="[has(self.apiKey), has(self.jwt), has(self.introspection), has(self.oidc), has(self.basic), has(self.hmac), has(self.mtls), has(self.external), has(self.anonymous)].filter(x, x).size() == 1",message="exactly one method must be set: apiKey, jwt, introspection, oidc, basic, hmac, mtls, external or anonymous"
type AuthenticationMethod struct {
	// Name of the method, in logs, explanations and identity.method.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
	// APIKey accepts keys that Gatehouse issued, and keys in Secrets.
	APIKey *APIKeyAuth `json:"apiKey,omitempty"`
	// JWT accepts signed tokens (RFC 7519, 8725).
	JWT *JWTAuth `json:"jwt,omitempty"`
	// Introspection asks an authorization server about each token (RFC 7662).
	Introspection *IntrospectionAuth `json:"introspection,omitempty"`
	// OIDC logs people in with a browser (OpenID Connect, authorization code with PKCE).
	OIDC *OIDCAuth `json:"oidc,omitempty"`
	// Basic accepts user names and passwords (RFC 7617).
	Basic *BasicAuth `json:"basic,omitempty"`
	// HMAC accepts requests that are signed with a shared secret (RFC 9421).
	HMAC *HMACAuth `json:"hmac,omitempty"`
	// MTLS accepts client certificates.
	MTLS *MTLSAuth `json:"mtls,omitempty"`
	// External asks an authorization service about each request (Envoy's ext_authz protocol, gRPC or HTTP).
	External *ExternalAuth `json:"external,omitempty"`
	// Anonymous accepts everybody, with an empty identity. Of several methods it stands last.
	Anonymous *AnonymousAuth `json:"anonymous,omitempty"`
}

// AnonymousAuth has no settings: write anonymous: {}.
type AnonymousAuth struct{}

// LocalSecretRef names a Secret in the policy's own namespace.
type LocalSecretRef struct {
	// Name of the Secret.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// CredentialSource is a place in a request: exactly one of header, query and cookie.
//
// +kubebuilder:validation:XValidation:rule="[has(self.header), has(self.query), has(self.cookie)].filter(x, x).size() == 1",message="exactly one of header, query and cookie must be set"
// +kubebuilder:validation:XValidation:rule="!has(self.scheme) || has(self.header)",message="scheme goes with header only",fieldPath=.scheme
type CredentialSource struct {
	// Header is the name of a field.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$`
	Header string `json:"header,omitempty"`
	// Scheme is the word that stands before the credential in the field, and is compared without case: Bearer.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$`
	Scheme string `json:"scheme,omitempty"`
	// Query is the name of a query parameter. Query strings end up in logs and histories: prefer a header.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Query string `json:"query,omitempty"`
	// Cookie is the name of a cookie.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$`
	Cookie string `json:"cookie,omitempty"`
}

// APIKeyAuth accepts keys.
type APIKeyAuth struct {
	// From are the places where a key may stand; the first that holds one counts. Default: the header X-API-Key.
	// +kubebuilder:validation:MaxItems=8
	// +listType=atomic
	From []CredentialSource `json:"from,omitempty"`
	// Strip takes the key out of the request before a backend sees it. Default true.
	Strip *bool `json:"strip,omitempty"`
	// SecretRefs name Secrets that hold keys: a name of an application, and as its value the key, or sha256: and the hexadecimal
	// SHA-256 of the key.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	SecretRefs []LocalSecretRef `json:"secretRefs,omitempty"`
	// Issued accepts keys that gatehouse key create made. Default: true without secretRefs, else false.
	Issued *bool `json:"issued,omitempty"`
	// Environments are those whose issued keys are accepted: the word between gh_ and the next _. Default: all.
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:Pattern=`^[a-z0-9]{1,16}$`
	// +listType=set
	Environments []string `json:"environments,omitempty"`
}

// JWTAuth accepts signed tokens in the compact form, of at most 16 KiB. Which algorithms may be used is said by the keys and by algorithms,
// never by a token. Encrypted tokens, and headers with crit, are refused.
type JWTAuth struct {
	// From are the places where a token may stand; the first that holds one counts. Default: the header Authorization with scheme Bearer.
	// +kubebuilder:validation:MaxItems=8
	// +listType=atomic
	From []CredentialSource `json:"from,omitempty"`
	// Strip takes the token out of the request before a backend sees it. Default false: backends often read claims.
	Strip bool `json:"strip,omitempty"`
	// Issuers whose tokens are accepted.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=issuer
	Issuers []JWTIssuer `json:"issuers"`
	// ClaimsToHeaders tells backends claims of the token. The client's own fields of these names are taken away on every route of the listener.
	// +kubebuilder:validation:MaxItems=32
	// +listType=map
	// +listMapKey=header
	ClaimsToHeaders []ClaimToHeader `json:"claimsToHeaders,omitempty"`
	// DPoP asks for a proof that the caller holds the key that the token is bound to (RFC 9449). Tokens may then stand in the header
	// Authorization with scheme DPoP too, whatever from says.
	DPoP *DPoP `json:"dpop,omitempty"`
}

// JWTIssuer is who signs tokens.
type JWTIssuer struct {
	// Issuer has to be the claim iss, character by character.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Issuer string `json:"issuer"`
	// Audiences: one of them has to be in the claim aud. Empty: tokens for any audience are accepted, which lets tokens for other services in.
	// +kubebuilder:validation:MaxItems=32
	// +listType=set
	Audiences []string `json:"audiences,omitempty"`
	// Algorithms that may be used. Default: all that fit the keys, of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512 and EdDSA.
	// HS256, HS384 and HS512 go with jwks.inline only, and not with others.
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:Enum=RS256;RS384;RS512;PS256;PS384;PS512;ES256;ES384;ES512;EdDSA;HS256;HS384;HS512
	// +listType=set
	Algorithms []string `json:"algorithms,omitempty"`
	// JWKS is where the keys are. Default: the jwks_uri that the issuer's discovery document names (OpenID Connect Discovery, RFC 8414).
	// RSA keys of less than 2048 bits, keys of use enc, and two keys of one kid are not used.
	JWKS *JWKS `json:"jwks,omitempty"`
	// Claims says which claims the identity is read from.
	Claims *ClaimNames `json:"claims,omitempty"`
	// Leeway for clocks that differ, on exp and nbf. Default 0s, at most 5m.
	Leeway *gatewayv1.Duration `json:"leeway,omitempty"`
	// Types that the header typ may have: at+jwt. Compared without case and without application/. Default: JWT, at+jwt, or none.
	// +kubebuilder:validation:MaxItems=8
	// +listType=set
	Types []string `json:"types,omitempty"`
	// Expiry is Required (default): a token without exp is refused; or Optional.
	// +kubebuilder:validation:Enum=Required;Optional
	Expiry string `json:"expiry,omitempty"`
}

// JWKS is a set of keys (RFC 7517): exactly one of its fields.
//
// +kubebuilder:validation:XValidation:rule="has(self.url) != has(self.inline)",message="exactly one of url and inline must be set"
type JWKS struct {
	// URL that the keys are fetched from, in the background: when the answer's Cache-Control max-age is over (1m to 24h, 10m without one),
	// and for a kid that is not known, at most twice a minute. The last good keys stay when it fails; while there were never any,
	// answers are 503. https, or http for tests and networks that one trusts.
	// +kubebuilder:validation:Pattern=`^https?://`
	// +kubebuilder:validation:MaxLength=2048
	URL string `json:"url,omitempty"`
	// Inline is the text of the set: {"keys": [...]}, of public keys, or of secrets (oct) where algorithms names HS256, HS384 or HS512.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=65536
	Inline string `json:"inline,omitempty"`
}

// ClaimNames says which claims the parts of an identity are read from. A dot goes down into an object: realm_access.roles.
type ClaimNames struct {
	// Subject of the identity. Default sub.
	// +kubebuilder:validation:MaxLength=256
	Subject string `json:"subject,omitempty"`
	// Application of the identity. Default azp, then client_id.
	// +kubebuilder:validation:MaxLength=256
	Application string `json:"application,omitempty"`
	// Scopes of the identity: a text with spaces, or a list. Default scope, then scp.
	// +kubebuilder:validation:MaxLength=256
	Scopes string `json:"scopes,omitempty"`
}

// ClaimToHeader tells backends one claim.
type ClaimToHeader struct {
	// Claim that is told; a dot goes down into an object. A list is joined by commas; an object is JSON.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Claim string `json:"claim"`
	// Header that it is told in. Names that carry requests (Host, Authorization, Cookie, Content-*, X-Forwarded-*) are refused.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$`
	Header string `json:"header"`
}

// DPoP is the binding of RFC 9449.
type DPoP struct {
	// Require is Bound (default): a token that is bound to a key (cnf.jkt) needs a proof, and is refused as Bearer; or Always: every token
	// has to be bound.
	// +kubebuilder:validation:Enum=Bound;Always
	Require string `json:"require,omitempty"`
	// MaxAge of a proof. Default 60s, from 1s to 5m. A proof is accepted once.
	MaxAge *gatewayv1.Duration `json:"maxAge,omitempty"`
}

// IntrospectionAuth asks an authorization server about tokens.
type IntrospectionAuth struct {
	// From are the places where a token may stand. Default: the header Authorization with scheme Bearer.
	// +kubebuilder:validation:MaxItems=8
	// +listType=atomic
	From []CredentialSource `json:"from,omitempty"`
	// Strip takes the token out of the request before a backend sees it. Default false.
	Strip bool `json:"strip,omitempty"`
	// URL of the introspection endpoint.
	// +kubebuilder:validation:Pattern=`^https?://`
	// +kubebuilder:validation:MaxLength=2048
	URL string `json:"url"`
	// ClientSecretRef names a Secret with the keys client_id and client_secret, sent as Basic.
	ClientSecretRef *LocalSecretRef `json:"clientSecretRef,omitempty"`
	// Audiences: one of them has to be in the answer's aud. Empty: any.
	// +kubebuilder:validation:MaxItems=32
	// +listType=set
	Audiences []string `json:"audiences,omitempty"`
	// Cache is how long an answer is kept, never beyond its exp, and at most 10s if it is that the token is not active. Default 30s, at
	// most 10m; 0s: every request asks.
	Cache *gatewayv1.Duration `json:"cache,omitempty"`
	// Timeout of one question. Default 2s, at most 30s.
	Timeout *gatewayv1.Duration `json:"timeout,omitempty"`
	// Claims says which members of the answer the identity is read from.
	Claims *ClaimNames `json:"claims,omitempty"`
	// ClaimsToHeaders tells backends members of the answer.
	// +kubebuilder:validation:MaxItems=32
	// +listType=map
	// +listMapKey=header
	ClaimsToHeaders []ClaimToHeader `json:"claimsToHeaders,omitempty"`
	// DPoP asks for a proof that the caller holds the key that the token is bound to (RFC 9449). Absent: a token that the answer's
	// cnf.jkt binds to a key is refused.
	DPoP *DPoP `json:"dpop,omitempty"`
}

// OIDCAuth logs people in with a browser. Who opens a page (GET or HEAD that accepts text/html, not a script's request, no Authorization)
// without a good session is sent to the provider; others are answered 401. Sessions are encrypted cookies, which backends do not see: one
// is good for the host, issuer, clientID and scopes that it was made for, and until its tokens expire, which are renewed if the provider
// gives a refresh token. With several policies of other clients or scopes on a host, give each its own cookieName, redirectPath and
// logoutPath.
type OIDCAuth struct {
	// Issuer of the OpenID provider, character by character; its discovery document is read.
	// +kubebuilder:validation:Pattern=`^https?://`
	// +kubebuilder:validation:MaxLength=1024
	Issuer string `json:"issuer"`
	// ClientID that Gatehouse is registered as.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	ClientID string `json:"clientID"`
	// ClientSecretRef names a Secret with the key client_secret, and optionally session_keys: lines of base64 of 32 bytes, of which the
	// first encrypts sessions and all decrypt. At most 16; a line that cannot be read makes all of them unusable, and requests are
	// answered 503. Without session_keys the key is derived from client_secret.
	ClientSecretRef LocalSecretRef `json:"clientSecretRef"`
	// Scopes asked for, beside openid, which always is. Many providers give a refresh token for offline_access alone.
	// +kubebuilder:validation:MaxItems=32
	// +listType=set
	Scopes []string `json:"scopes,omitempty"`
	// RedirectPath is where the provider sends people back to: register https:// and each host with this path there. Default
	// /oauth2/callback. It has to lie on the same routes.
	// +kubebuilder:validation:Pattern=`^/`
	// +kubebuilder:validation:MaxLength=1024
	RedirectPath string `json:"redirectPath,omitempty"`
	// LogoutPath ends the session here and at the provider, which then sends people to the path / of the host: register that there. Who
	// comes from another site is asked first; a script is answered 204, and the provider's session goes on. A copy of the cookies that
	// somebody else has stays good until it expires. Default /logout. It has to lie on the same routes.
	// +kubebuilder:validation:Pattern=`^/`
	// +kubebuilder:validation:MaxLength=1024
	LogoutPath string `json:"logoutPath,omitempty"`
	// SessionLifetime is the longest a session lasts, from the login on, however often tokens are renewed. Default 8h, at least 1m, at
	// most 720h.
	SessionLifetime *gatewayv1.Duration `json:"sessionLifetime,omitempty"`
	// CookieName of the session; over https __Host- is put before it. A long session has several cookies: name.0, name.1 and so on, five
	// at most. Default gh_session.
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]*$`
	CookieName string `json:"cookieName,omitempty"`
	// Claims says which claims of the id token the identity is read from. Of a session that is too large for its cookies, claims that only
	// describe a person (given_name, picture, address and the like) are left out unless they are named here or in claimsToHeaders.
	Claims *ClaimNames `json:"claims,omitempty"`
	// ClaimsToHeaders tells backends claims of the id token.
	// +kubebuilder:validation:MaxItems=32
	// +listType=map
	// +listMapKey=header
	ClaimsToHeaders []ClaimToHeader `json:"claimsToHeaders,omitempty"`
	// ForwardAccessToken puts the access token into Authorization for the backend, in the place of the client's own, which goes also when
	// there is no token. Default false.
	ForwardAccessToken bool `json:"forwardAccessToken,omitempty"`
}

// BasicAuth accepts user names and passwords.
type BasicAuth struct {
	// SecretRef names a Secret whose key auth (or any single key) holds lines user:hash as htpasswd writes them: bcrypt ($2y$) or
	// argon2id ($argon2id$). A user with an older hash, or with one that costs more than bcrypt 14 or argon2id m=65536,t=10,p=4, is
	// refused. bcrypt reads 72 bytes of a password: longer ones are refused.
	SecretRef LocalSecretRef `json:"secretRef"`
	// Realm that clients are told. Default: the name of the method.
	// +kubebuilder:validation:MaxLength=256
	Realm string `json:"realm,omitempty"`
	// Strip takes Authorization out of the request before a backend sees it. Default true.
	Strip *bool `json:"strip,omitempty"`
}

// HMACAuth accepts signed requests (RFC 9421, algorithm hmac-sha256).
type HMACAuth struct {
	// SecretRef names a Secret: a key id, and as its value the shared secret, byte by byte (no line end behind it) and of at least 16
	// bytes. The key id is the subject of the identity.
	SecretRef LocalSecretRef `json:"secretRef"`
	// Components that a signature has to cover. Default: @method, @target-uri, and content-digest if there is a body. What is written
	// here takes the place of all of these; content-digest then too is asked for only if there is a body. Header names are in lower
	// case; parameters are written as in RFC 9421: @query-param;name="id", priority;key="u".
	// +kubebuilder:validation:MaxItems=32
	// +listType=set
	Components []string `json:"components,omitempty"`
	// MaxAge of a signature, by its created parameter, which has to be there. Default 5m, at most 1h. Until then who sees a signed
	// request can send it again, unless its signature has a nonce: then each process of Gatehouse accepts it once.
	MaxAge *gatewayv1.Duration `json:"maxAge,omitempty"`
	// MaxBodyBytes is the largest body whose Content-Digest is checked; a larger one is answered 413. Default 1048576.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=67108864
	MaxBodyBytes *int64 `json:"maxBodyBytes,omitempty"`
}

// MTLSAuth accepts client certificates that lead to an authority. Clients of the listener are asked for one, and may decline: then another
// method may accept them. A connection in clear text has none. The subject of the identity is the certificate's first URI (a SPIFFE ID),
// else DNS name, else email address, else its common name.
type MTLSAuth struct {
	// CACertificateRefs name ConfigMaps or Secrets whose key ca.crt holds the authorities that are trusted.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +listType=atomic
	CACertificateRefs []LocalObjectRef `json:"caCertificateRefs"`
	// SubjectAltNames: one of them has to be in the certificate. Empty: every certificate of these authorities is accepted. The common
	// name is none of them.
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	SubjectAltNames []SubjectAltName `json:"subjectAltNames,omitempty"`
	// CertificateHeader tells backends the certificate, PEM and percent-encoded; in the header Client-Cert it is written as RFC 9440
	// says. Default: not told.
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]*$`
	CertificateHeader string `json:"certificateHeader,omitempty"`
}

// LocalObjectRef names a ConfigMap or a Secret in the policy's own namespace.
type LocalObjectRef struct {
	// Kind is ConfigMap (default) or Secret.
	// +kubebuilder:validation:Enum=ConfigMap;Secret
	Kind string `json:"kind,omitempty"`
	// Name of the object.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// SubjectAltName is a name in a certificate: exactly one of its fields. A * at the end stands for anything. Case counts in
// the path of a URI and before the @ of an email address, and nowhere else. The * of a URI may not stand in the place of its host.
//
// +kubebuilder:validation:XValidation:rule="[has(self.dns), has(self.uri), has(self.email)].filter(x, x).size() == 1",message="exactly one of dns, uri and email must be set"
type SubjectAltName struct {
	// DNS name.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	DNS string `json:"dns,omitempty"`
	// URI, a SPIFFE ID for example: spiffe://cluster.example/ns/shop/*.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	URI string `json:"uri,omitempty"`
	// Email address.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=320
	Email string `json:"email,omitempty"`
}

// ExternalAuth asks an authorization service, in the terms of the Gateway API's ExternalAuth (GEP-1494).
//
// +kubebuilder:validation:XValidation:rule="!has(self.http) || self.protocol == 'HTTP'",message="http goes with protocol HTTP only",fieldPath=.http
// +kubebuilder:validation:XValidation:rule="!has(self.grpc) || self.protocol == 'GRPC'",message="grpc goes with protocol GRPC only",fieldPath=.grpc
type ExternalAuth struct {
	// Protocol is HTTP or GRPC.
	// +kubebuilder:validation:Enum=HTTP;GRPC
	Protocol string `json:"protocol"`
	// BackendRef names the service.
	BackendRef gatewayv1.BackendObjectReference `json:"backendRef"`
	// HTTP are the settings of protocol HTTP.
	HTTP *ExternalHTTPAuth `json:"http,omitempty"`
	// GRPC are the settings of protocol GRPC.
	GRPC *ExternalGRPCAuth `json:"grpc,omitempty"`
	// ForwardBody sends the body along. Absent: no body is sent.
	ForwardBody *ForwardBody `json:"forwardBody,omitempty"`
	// Timeout of one question. Default 1s, at most 30s.
	Timeout *gatewayv1.Duration `json:"timeout,omitempty"`
	// OnFailure is Deny (default): 503 when the service does not answer, or answers something that is neither yes nor no; or Allow: then
	// such a request passes. A status of 500 and above is an answer: of protocol HTTP it goes to the client.
	// +kubebuilder:validation:Enum=Deny;Allow
	OnFailure string `json:"onFailure,omitempty"`
}

// ExternalHTTPAuth asks with the client's method, path and query; a 200 lets the request pass, any other answer goes to the client, with
// its headers and up to 64 KiB of body.
type ExternalHTTPAuth struct {
	// Path is put before the path of the request, which is the canonical one: /check makes /check/cart/7 of /cart/7.
	// +kubebuilder:validation:MaxLength=1024
	Path string `json:"path,omitempty"`
	// AllowedHeaders of the request that are sent along, beside Host, Method, Path, Content-Length and Authorization.
	// +kubebuilder:validation:MaxItems=64
	// +listType=set
	AllowedHeaders []string `json:"allowedHeaders,omitempty"`
	// AllowedResponseHeaders of a 200 that the backend is told. Empty: none. The client's own fields of these names are taken away on every route of the listener.
	// +kubebuilder:validation:MaxItems=64
	// +listType=set
	AllowedResponseHeaders []string `json:"allowedResponseHeaders,omitempty"`
}

// ExternalGRPCAuth asks envoy.service.auth.v3.Authorization/Check. Of an OK the headers that are set and removed count; changes of the
// query, headers for the client and dynamic metadata are left out.
type ExternalGRPCAuth struct {
	// AllowedHeaders of the request that are sent along. Empty: all.
	// +kubebuilder:validation:MaxItems=64
	// +listType=set
	AllowedHeaders []string `json:"allowedHeaders,omitempty"`
	// AllowedResponseHeaders that the service may have the backend told; others are left out. Empty: none. The client's own fields of
	// these names are taken away on every route of the listener. Names that carry requests (Host, Authorization, Cookie, Content-*,
	// X-Forwarded-*) are refused here, and the service may not have them removed.
	// +kubebuilder:validation:MaxItems=64
	// +listType=set
	AllowedResponseHeaders []string `json:"allowedResponseHeaders,omitempty"`
}

// ForwardBody bounds what of a body is sent to an authorization service.
type ForwardBody struct {
	// MaxSize in bytes; a larger body is answered 413.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1048576
	MaxSize int64 `json:"maxSize"`
}

// Authorization is a set of rules by name. A rule applies when its when is true or absent; every rule that applies has to pass.
type Authorization struct {
	// Otherwise is what holds when no rule applies: Allow (default) or Deny.
	// +kubebuilder:validation:Enum=Allow;Deny
	Otherwise string `json:"otherwise,omitempty"`
	// Rules by name. A rule under defaults is replaced by one of the same name nearer to the route; one under overrides is not.
	// +kubebuilder:validation:MaxProperties=64
	Rules map[string]AuthorizationRule `json:"rules,omitempty"`
}

// AuthorizationRule is one rule: what it requires has to hold, what it denies must not.
//
// +kubebuilder:validation:XValidation:rule="has(self.require) || has(self.deny)",message="at least one of require and deny must be set"
type AuthorizationRule struct {
	// When is a CEL expression that says for which requests the rule applies. One that fails counts as true.
	// +kubebuilder:validation:MaxLength=4096
	When string `json:"when,omitempty"`
	// Require has to hold, every part of it.
	Require *Requirement `json:"require,omitempty"`
	// Deny must not hold: any part of it refuses.
	Deny *Requirement `json:"deny,omitempty"`
	// Mode is Enforce (default), Shadow: decide, count and log, and let pass; or Disabled.
	// +kubebuilder:validation:Enum=Enforce;Shadow;Disabled
	Mode string `json:"mode,omitempty"`
}

// Requirement is a test of a request and its caller.
type Requirement struct {
	// CEL is an expression that is true or false. One that fails counts as not met under require, and as met under deny.
	// +kubebuilder:validation:MaxLength=4096
	CEL string `json:"cel,omitempty"`
	// Scopes: under require all of them have to be the caller's, under deny one is enough.
	// +kubebuilder:validation:MaxItems=64
	// +listType=set
	Scopes []string `json:"scopes,omitempty"`
	// CIDRs: the client's address lies in one of these networks.
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=64
	// +listType=atomic
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self)",message="not a network such as 10.0.0.0/8 or 192.0.2.7/32"
	CIDRs []string `json:"cidrs,omitempty"`
	// Countries: the client's address lies in one of these, as ISO 3166-1 codes of two letters, by the database that run --geoip names.
	// An address that it does not know is in none of them.
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:Pattern=`^[A-Z]{2}$`
	// +listType=set
	Countries []string `json:"countries,omitempty"`
}
