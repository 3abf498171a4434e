package v1alpha1

// What controller-gen needs to know about the package (make generate):
// +kubebuilder:object:generate=true
// +groupName=gatehouse.dev

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// AddToScheme makes the kinds and their lists known to s. The error is always nil; callers collect such functions by this type.
func AddToScheme(s *runtime.Scheme) error {
	gv := schema.GroupVersion{Group: Group, Version: Version}
	s.AddKnownTypes(gv,
		&AuthPolicy{}, &AuthPolicyList{},
		&Backend{}, &BackendList{},
		&BackendTrafficPolicy{}, &BackendTrafficPolicyList{},
		&ClientTrafficPolicy{}, &ClientTrafficPolicyList{},
		&GatewayParameters{}, &GatewayParametersList{},
		&ProtectionPolicy{}, &ProtectionPolicyList{},
		&RateLimitPolicy{}, &RateLimitPolicyList{},
	)
	metav1.AddToGroupVersion(s, gv)
	return nil
}

// BackendList is a list of Backends, as the API server answers it.
//
// +kubebuilder:object:root=true
type BackendList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items of the list.
	Items []Backend `json:"items"`
}

// BackendTrafficPolicyList is a list of BackendTrafficPolicies, as the API server answers it.
//
// +kubebuilder:object:root=true
type BackendTrafficPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items of the list.
	Items []BackendTrafficPolicy `json:"items"`
}

// AuthPolicyList is a list of AuthPolicies, as the API server answers it.
//
// +kubebuilder:object:root=true
type AuthPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items of the list.
	Items []AuthPolicy `json:"items"`
}

// RateLimitPolicyList is a list of RateLimitPolicies, as the API server answers it.
//
// +kubebuilder:object:root=true
type RateLimitPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items of the list.
	Items []RateLimitPolicy `json:"items"`
}

// ClientTrafficPolicyList is a list of ClientTrafficPolicies, as the API server answers it.
//
// +kubebuilder:object:root=true
type ClientTrafficPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items of the list.
	Items []ClientTrafficPolicy `json:"items"`
}

// GatewayParametersList is a list of GatewayParameters, as the API server answers it.
//
// +kubebuilder:object:root=true
type GatewayParametersList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items of the list.
	Items []GatewayParameters `json:"items"`
}

// ProtectionPolicyList is a list of ProtectionPolicies, as the API server answers it.
//
// +kubebuilder:object:root=true
type ProtectionPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// Items of the list.
	Items []ProtectionPolicy `json:"items"`
}
