package manifest

import "maps"

// defaults fills in what an API server computes and no schema can say. What a schema can say stands in the schemas.
func defaults(kind string, fields map[string]any) {
	switch kind {
	case "Namespace":
		meta, _ := fields["metadata"].(map[string]any)
		name, _ := meta["name"].(string)
		if name == "" {
			return
		}
		labels, _ := meta["labels"].(map[string]any)
		if labels = maps.Clone(labels); labels == nil {
			labels = map[string]any{}
		}
		labels["kubernetes.io/metadata.name"] = name
		meta["labels"] = labels
	case "Service":
		spec, _ := fields["spec"].(map[string]any)
		ports, _ := spec["ports"].([]any)
		for _, p := range ports {
			if p, ok := p.(map[string]any); ok && p["targetPort"] == nil && p["port"] != nil {
				p["targetPort"] = p["port"]
			}
		}
	}
}
