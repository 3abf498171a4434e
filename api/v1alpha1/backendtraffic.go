package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// BackendTrafficPolicy says how requests are spread over endpoints and what happens when one fails. Attached to a Service or Backend
// all of its fields hold; attached to a route or rule timeouts, retry and affinity do, and beat those of the Service. What an
// HTTPRoute says itself (timeouts, retry, sessionPersistence) beats both. Of two for one target the oldest wins.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=gatehouse,shortName=ghbtp
// +kubebuilder:metadata:labels="gateway.networking.k8s.io/policy=Direct"
// +kubebuilder:printcolumn:name=Target-Kind,type=string,JSONPath=`.spec.targetRefs[0].kind`
// +kubebuilder:printcolumn:name=Target,type=string,JSONPath=`.spec.targetRefs[0].name`
// +kubebuilder:printcolumn:name=Accepted,type=string,JSONPath=`.status.ancestors[0].conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name=Reason,type=string,JSONPath=`.status.ancestors[0].conditions[?(@.type=="Accepted")].reason`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
type BackendTrafficPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what the user writes.
	Spec BackendTrafficPolicySpec `json:"spec"`
	// Status is what Gatehouse concluded; it is ignored in files.
	Status PolicyStatus `json:"status,omitempty"`
}

// BackendTrafficPolicySpec is what a BackendTrafficPolicy consists of.
type BackendTrafficPolicySpec struct {
	// TargetRefs name Services (sectionName: one port, by its name), Backends, HTTPRoutes (sectionName: one rule) or Ingresses.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	TargetRefs []TargetRef `json:"targetRefs"`
	// LoadBalancer says how an endpoint is chosen.
	LoadBalancer *LoadBalancer `json:"loadBalancer,omitempty"`
	// Affinity keeps a client on one endpoint.
	Affinity *Affinity `json:"affinity,omitempty"`
	// Timeouts bound how long a backend may take.
	Timeouts *BackendTimeouts `json:"timeouts,omitempty"`
	// Retry says when a request is tried again. Absent: twice, after ConnectFailure and Reset. A method that is not idempotent is tried
	// again only if no byte of the request was sent, and no request of whose body more than 64 KiB has passed.
	Retry *Retry `json:"retry,omitempty"`
	// RetryConstraint bounds how many requests are further tries.
	RetryConstraint *RetryConstraint `json:"retryConstraint,omitempty"`
	// CircuitBreaker bounds what the target gets at once from each process; more is answered 503, circuit_open.
	CircuitBreaker *CircuitBreaker `json:"circuitBreaker,omitempty"`
	// Health says when an endpoint is left out. It holds for every route that uses the endpoint. If no endpoint is healthy, all are used.
	Health *Health `json:"health,omitempty"`
}

// LoadBalancer says how an endpoint is chosen.
//
// +kubebuilder:validation:XValidation:rule="(has(self.algorithm) && self.algorithm == 'ConsistentHash') == has(self.consistentHash)",message="consistentHash goes with algorithm ConsistentHash, and only with it",fieldPath=.consistentHash
type LoadBalancer struct {
	// Algorithm is RoundRobin (default), LeastRequest (of two random endpoints that with fewer requests), or ConsistentHash.
	// +kubebuilder:validation:Enum=RoundRobin;LeastRequest;ConsistentHash
	Algorithm string `json:"algorithm,omitempty"`
	// ConsistentHash is what the hash is made of; with that algorithm only.
	ConsistentHash *ConsistentHash `json:"consistentHash,omitempty"`
	// SlowStart is how long an endpoint that joins others takes to get its full share. Default 0s: none.
	SlowStart *gatewayv1.Duration `json:"slowStart,omitempty"`
}

// ConsistentHash names the part of a request that decides about its endpoint. A request without it is spread by turns.
//
// +kubebuilder:validation:XValidation:rule="(self.type != 'ClientAddress') == has(self.name)",message="name goes with types Header and Cookie, and only with them",fieldPath=.name
type ConsistentHash struct {
	// Type is Header, Cookie or ClientAddress.
	// +kubebuilder:validation:Enum=Header;Cookie;ClientAddress
	Type string `json:"type"`
	// Name of the header or cookie.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$`
	Name string `json:"name,omitempty"`
	// MaxLoadPercent bounds the load of one endpoint: with 125 it gets at most a quarter more than the average of the requests in
	// flight, then the next one on the ring is taken. Absent: no bound.
	// +kubebuilder:validation:Minimum=101
	// +kubebuilder:validation:Maximum=10000
	MaxLoadPercent *int32 `json:"maxLoadPercent,omitempty"`
}

// Affinity keeps a client on one endpoint.
type Affinity struct {
	// Cookie names the endpoint, without telling its address. It survives every change of the other endpoints.
	Cookie *AffinityCookie `json:"cookie,omitempty"`
}

// AffinityCookie is the cookie that carries an affinity.
type AffinityCookie struct {
	// Name of the cookie. Default gh_affinity.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$`
	Name string `json:"name,omitempty"`
	// MaxAge is how long the client keeps it. Absent: until the browser ends.
	MaxAge *gatewayv1.Duration `json:"maxAge,omitempty"`
}

// BackendTimeouts bound how long a backend may take. "0s" turns one off.
type BackendTimeouts struct {
	// Connect is the time for a connection, TLS included (default 2s).
	Connect *gatewayv1.Duration `json:"connect,omitempty"`
	// FirstByte is the time from the request's end until the response's head (default 60s).
	FirstByte *gatewayv1.Duration `json:"firstByte,omitempty"`
	// Total is the time for the whole exchange, tries and backoff included (default: none).
	Total *gatewayv1.Duration `json:"total,omitempty"`
}

// Retry says when a request is tried again.
type Retry struct {
	// Attempts beside the first; 0: none. Default 2.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10
	Attempts *int32 `json:"attempts,omitempty"`
	// Codes are the statuses of responses to try again on.
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:Minimum=400
	// +kubebuilder:validation:items:Maximum=599
	// +listType=set
	Codes []int32 `json:"codes,omitempty"`
	// Conditions to try again on: ConnectFailure (no connection), Reset (it ended before a response's head), Timeout (no head in time, of
	// firstByte or perTryTimeout). Default: ConnectFailure and Reset.
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:Enum=ConnectFailure;Reset;Timeout
	// +listType=set
	Conditions []string `json:"conditions,omitempty"`
	// Backoff is waited before the first further try, and twice as long before each next one, with up to a quarter more. Absent:
	// none if there is another endpoint, else 25ms.
	Backoff *gatewayv1.Duration `json:"backoff,omitempty"`
	// PerTryTimeout is the time for one try, until its whole response is there. Absent: none.
	PerTryTimeout *gatewayv1.Duration `json:"perTryTimeout,omitempty"`
}

// RetryConstraint bounds how many requests are further tries: those of the budget, or those of the lowest rate, whichever are more (GEP-3388).
type RetryConstraint struct {
	// Budget is a share of all requests. Default 20 percent over 10s.
	Budget *RetryBudget `json:"budget,omitempty"`
	// MinRetryRate is let through in any case. Default 10 in 1s.
	MinRetryRate *RetryRate `json:"minRetryRate,omitempty"`
}

// RetryBudget is a share of all requests over an interval.
type RetryBudget struct {
	// Percent of the requests (default 20).
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	Percent *int32 `json:"percent,omitempty"`
	// Interval over which requests are counted (default 10s).
	Interval *gatewayv1.Duration `json:"interval,omitempty"`
}

// RetryRate is a number of tries in an interval.
type RetryRate struct {
	// Count of tries (default 10).
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000
	Count *int32 `json:"count,omitempty"`
	// Interval of the count (default 1s).
	Interval *gatewayv1.Duration `json:"interval,omitempty"`
}

// CircuitBreaker bounds what a target gets at once from each process.
type CircuitBreaker struct {
	// MaxConnections that are open, those of health checks aside. Where one more is needed, an idle one is closed for it. Absent: no bound.
	// +kubebuilder:validation:Minimum=1
	MaxConnections *int32 `json:"maxConnections,omitempty"`
	// MaxRequests that are in flight. Absent: no bound.
	// +kubebuilder:validation:Minimum=1
	MaxRequests *int32 `json:"maxRequests,omitempty"`
}

// Health says when an endpoint is left out.
type Health struct {
	// Active asks every endpoint at an interval.
	Active *ActiveHealth `json:"active,omitempty"`
	// Passive looks at what becomes of requests. Absent: an endpoint that fails 5 times in a row before it
	// answers is left out for 10s; statuses do not count.
	Passive *PassiveHealth `json:"passive,omitempty"`
}

// ActiveHealth asks every endpoint with a GET request, over TLS where the target has it.
type ActiveHealth struct {
	// Path of the request; it begins with /.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^/[!-~]*$`
	Path string `json:"path"`
	// Host header of the request. Default: the endpoint's address and port.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=261
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9.\-\[\]:]+$`
	Host string `json:"host,omitempty"`
	// Interval between two requests to an endpoint (default 5s, at least 100ms).
	Interval *gatewayv1.Duration `json:"interval,omitempty"`
	// Timeout for the whole response (default 1s).
	Timeout *gatewayv1.Duration `json:"timeout,omitempty"`
	// HealthyThreshold is how many good answers in a row bring an endpoint back (default 2).
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	HealthyThreshold *int32 `json:"healthyThreshold,omitempty"`
	// UnhealthyThreshold is how many failures in a row take an endpoint out (default 3).
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	UnhealthyThreshold *int32 `json:"unhealthyThreshold,omitempty"`
	// Statuses of a good answer. Default: 200 to 399.
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:Minimum=200
	// +kubebuilder:validation:items:Maximum=599
	// +listType=set
	Statuses []int32 `json:"statuses,omitempty"`
}

// PassiveHealth looks at what becomes of requests: no connection, no response's head, or a status.
type PassiveHealth struct {
	// ConsecutiveFailures that take an endpoint out; 0: never (default 5).
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=10000
	ConsecutiveFailures *int32 `json:"consecutiveFailures,omitempty"`
	// Codes are the statuses that count as failures. Default: 500, 502, 503, 504.
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:Minimum=500
	// +kubebuilder:validation:items:Maximum=599
	// +listType=set
	Codes []int32 `json:"codes,omitempty"`
	// EjectFor is how long it is left out, times the number of times that this came one after the other, up to 10 (default 30s).
	EjectFor *gatewayv1.Duration `json:"ejectFor,omitempty"`
	// MaxEjectedPercent of the endpoints may be out at the same time (default 50).
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	MaxEjectedPercent *int32 `json:"maxEjectedPercent,omitempty"`
}
