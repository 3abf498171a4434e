package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// RateLimitPolicy says how often what it is attached to may be called.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=gatehouse,shortName=ghrl
// +kubebuilder:metadata:labels="gateway.networking.k8s.io/policy=Inherited"
// +kubebuilder:printcolumn:name=Target-Kind,type=string,JSONPath=`.spec.targetRefs[0].kind`
// +kubebuilder:printcolumn:name=Target,type=string,JSONPath=`.spec.targetRefs[0].name`
// +kubebuilder:printcolumn:name=Accepted,type=string,JSONPath=`.status.ancestors[0].conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name=Reason,type=string,JSONPath=`.status.ancestors[0].conditions[?(@.type=="Accepted")].reason`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
type RateLimitPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what the user writes.
	Spec RateLimitPolicySpec `json:"spec"`
	// Status is what Gatehouse concluded; it is ignored in files.
	Status PolicyStatus `json:"status,omitempty"`
}

// RateLimitPolicySpec attaches one bundle, as defaults or as overrides (GEP-713): exactly one of the two.
//
// +kubebuilder:validation:XValidation:rule="has(self.defaults) != has(self.overrides)",message="exactly one of defaults and overrides must be set"
type RateLimitPolicySpec struct {
	// TargetRefs name what the policy is attached to. None: it holds only for the rules that name it in an ExtensionRef filter.
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	TargetRefs []TargetRef `json:"targetRefs,omitempty"`
	// Defaults hold where nothing nearer to the route says otherwise.
	Defaults *RateLimits `json:"defaults,omitempty"`
	// Overrides hold whatever nearer policies say.
	Overrides *RateLimits `json:"overrides,omitempty"`
}

// RateLimits is the bundle of a RateLimitPolicy. Levels combine by the name of a limit: of two of one name the outermost overrides hold,
// else the innermost defaults. All limits that match a request apply, and the strictest is told to the client.
type RateLimits struct {
	// Limits by name.
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=32
	Limits map[string]RateLimit `json:"limits"`
}

// RateLimit is one limit. Requests that one limit refuses are counted by none. A limit that reads nothing of the caller's identity is
// looked at before authentication.
//
// +kubebuilder:validation:XValidation:rule="(has(self.rates) && size(self.rates) > 0) || has(self.quota) || has(self.concurrency) || self.mode == 'Disabled'",message="at least one of rates, quota and concurrency must be set"
type RateLimit struct {
	// When is a CEL expression that says which requests the limit is for. Absent, or one that fails: all.
	// +kubebuilder:validation:MaxLength=4096
	When string `json:"when,omitempty"`
	// Key are CEL expressions; requests for which all have the same values share the limit. client.address stands for the /64 of an
	// IPv6 address. Empty: all requests share it.
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=4096
	// +listType=atomic
	Key []string `json:"key,omitempty"`
	// Rates that all have to hold.
	// +kubebuilder:validation:MaxItems=8
	// +listType=atomic
	Rates []Rate `json:"rates,omitempty"`
	// Quota is an allowance for a calendar window. It survives restarts.
	Quota *RateQuota `json:"quota,omitempty"`
	// Concurrency is how many requests may be under way at once, in each process.
	// +kubebuilder:validation:Minimum=1
	Concurrency *int64 `json:"concurrency,omitempty"`
	// Cost is a CEL expression: what a request counts, a whole number. Default 1. One that fails counts as 1.
	// +kubebuilder:validation:MaxLength=4096
	Cost string `json:"cost,omitempty"`
	// ResponseCost is a CEL expression over the response too: what it counts beside cost, once the answer is there. It is charged
	// after the fact, so that the next request finds it.
	// +kubebuilder:validation:MaxLength=4096
	ResponseCost string `json:"responseCost,omitempty"`
	// Count is what is counted: Requests (default), or AuthenticationFailures: requests are refused once so many credentials were
	// wrong, and those with a right one count nothing.
	// +kubebuilder:validation:Enum=Requests;AuthenticationFailures
	Count string `json:"count,omitempty"`
	// Scope is Local (default): each process counts for itself; or Shared: all count together in the Redis or Valkey that run --redis names.
	// +kubebuilder:validation:Enum=Local;Shared
	Scope string `json:"scope,omitempty"`
	// Consistency of a Shared limit is Leased (default): processes take tokens ahead, and no request waits; or Strict: every request
	// asks, and waits for the answer.
	// +kubebuilder:validation:Enum=Leased;Strict
	Consistency string `json:"consistency,omitempty"`
	// OnStoreFailure is what holds while the store of a Shared limit does not answer: Local (default): each process counts for itself;
	// Allow; or Deny.
	// +kubebuilder:validation:Enum=Local;Allow;Deny
	OnStoreFailure string `json:"onStoreFailure,omitempty"`
	// Mode is Enforce (default); Shadow: count and log what would be refused, and let pass; or Disabled, which also takes away an
	// outer default of the same name.
	// +kubebuilder:validation:Enum=Enforce;Shadow;Disabled
	Mode string `json:"mode,omitempty"`
}

// Rate is a number of requests in a period (GCRA: they may come at any time, as long as the average holds).
type Rate struct {
	// Limit is how many requests, or units of cost, each period has.
	// +kubebuilder:validation:Minimum=1
	Limit int64 `json:"limit"`
	// Period is a duration of a millisecond or more: 1s, 1m, 24h.
	Period gatewayv1.Duration `json:"period"`
	// Burst is how many may come at once. Default: limit.
	// +kubebuilder:validation:Minimum=1
	Burst *int64 `json:"burst,omitempty"`
}

// RateQuota is an allowance for a calendar window.
type RateQuota struct {
	// Limit is how many requests, or units of cost, each window has.
	// +kubebuilder:validation:Minimum=1
	Limit int64 `json:"limit"`
	// Window is Minute, Hour, Day, Week (from Monday), Month or Year.
	// +kubebuilder:validation:Enum=Minute;Hour;Day;Week;Month;Year
	Window string `json:"window"`
	// TimeZone in which the window begins, a name of the IANA database. Default UTC.
	// +kubebuilder:validation:MaxLength=64
	TimeZone string `json:"timeZone,omitempty"`
}
