package translate

import "sigs.k8s.io/gateway-api/pkg/features"

// SupportedFeatures are the names of the Gateway API's features that translate and the data plane have, sorted, as a
// GatewayClass's status.supportedFeatures tells them (GEP-2162). What upstream's conformance tests show is here and nothing else.
func SupportedFeatures() []string {
	return []string{
		string(features.SupportGateway),
		string(features.SupportHTTPRoute),
		string(features.SupportReferenceGrant),
	}
}
