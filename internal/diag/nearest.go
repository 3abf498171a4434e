package diag

import (
	"slices"
	"strings"
)

// Nearest returns the name that was probably meant: the same but for case, else the one at the smallest edit distance, if that is
// small beside the length. Of several equally near the first in the alphabet counts. "": none is near.
func Nearest(word string, names []string) string {
	names = slices.Sorted(slices.Values(names))
	for _, n := range names {
		if strings.EqualFold(n, word) && n != word {
			return n
		}
	}
	best, least := "", max(1, min(3, (len(word)+1)/3))+1
	for _, n := range names {
		if n == word || len(n) > len(word)+3 || len(word) > len(n)+3 {
			continue
		}
		if d := distance(strings.ToLower(word), strings.ToLower(n)); d < least && d < len(n) {
			best, least = n, d
		}
	}
	return best
}

// distance is the number of bytes to insert, remove, replace or swap with their neighbour to make b of a (optimal string
// alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
