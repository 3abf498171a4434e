package translate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-io/gatehouse/internal/objects"
)

// didYouMean is a hint naming the one of names that is nearest to what was written, "" if none is near.
func didYouMean(written string, names []string) string {
	best, least := "", max(1, len(written)/3)+1
	for _, n := range names {
		if d := distance(strings.ToLower(written), strings.ToLower(n)); d < least || d == least && best != "" && n < best {
			best, least = n, d
		}
	}
	if best == "" {
		return ""
	}
	return "did you mean " + best + "?"
}

// distance is the number of characters to insert, delete, replace or swap with their neighbour to turn a into b (optimal
// string alignment).
func distance(a, b string) int {
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
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
