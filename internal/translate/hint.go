package translate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-io/gatehouse/internal/diag"
	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// didYouMean is a hint naming the one of names that is nearest to what was written, "" if none is near.
func didYouMean(written string, names []string) string {
	if best := diag.Nearest(written, names); best != "" {
		return "did you mean " + best + "?"
	}
	return ""
}

// namesIn lists the names of the objects of a kind in a namespace, for hints.
func namesIn[T objects.Object](v *objects.View, namespace string) []string {
	index := objects.ByNamespace
	if namespace == "" {
		index = ""
	}
	var out []string
	for _, o := range objects.List[T](v, index, namespace) {
		out = append(out, o.GetName())
	}
	slices.Sort(out)
	return out
}

// oneOf is a hint that lists what there is, "" if there is nothing or too much of it.
func oneOf(what string, names []string) string {
	if len(names) == 0 || len(names) > 6 {
		return ""
	}
	return fmt.Sprintf("%s: %s", what, strings.Join(names, ", "))
}

// hintFor is didYouMean, or what there is.
func hintFor(written, what string, names []string) string {
	if h := didYouMean(written, names); h != "" {
		return h
	}
	return oneOf(what, names)
}
