package policy

// Layer is one spec of those that reach a route, and how it is meant (GEP-713).
type Layer struct {
	Spec      Spec
	Overrides bool // else defaults
}

// Origins say where fields of a merged spec come from, by their path in it: "rules.writers".
type Origins map[string]Origin

// Origin is where a field was written.
type Origin struct {
	Layer int    // its index
	Path  string // in that layer; "": the same as in the merged spec
}

// Strongest is the index of the layer that wins where one has to: of overrides the outermost, else of defaults the innermost.
func Strongest(layers []Layer) int {
	for i := range layers {
		if layers[i].Overrides {
			return i
		}
	}
	return len(layers) - 1
}

// Rising lists the indexes of layers from the weakest to the strongest.
func Rising(layers []Layer) []int {
	out := make([]int, 0, len(layers))
	for i := range layers {
		if !layers[i].Overrides {
			out = append(out, i)
		}
	}
	for i := len(layers) - 1; i >= 0; i-- {
		if layers[i].Overrides {
			out = append(out, i)
		}
	}
	return out
}

// Whole is a Merge that takes the strongest layer as it is.
func Whole(layers []Layer) (Spec, Origins) { return layers[Strongest(layers)].Spec, nil }

// Pairwise makes a Merge of a function that lays a stronger spec over a weaker one.
func Pairwise(merge func(weaker, stronger Spec) Spec) func([]Layer) (Spec, Origins) {
	return func(layers []Layer) (Spec, Origins) {
		var merged Spec
		for _, i := range Rising(layers) {
			if merged == nil {
				merged = layers[i].Spec
			} else {
				merged = merge(merged, layers[i].Spec)
			}
		}
		return merged, nil
	}
}
