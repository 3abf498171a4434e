package exchange

import "strings"

// AppendReplaced appends path to dst with the elements of prefix, which it begins with, replaced: ReplacePrefixMatch of the
// Gateway API. A slash at the end of either does not count, and what remains begins with a slash:
//
//	/foo/bar with /foo by /xyz or /xyz/: /xyz/bar
//	/foo/    with /foo by /xyz:          /xyz/
//	/foo     with /foo by "" or /:       /
func AppendReplaced(dst, path []byte, prefix, replacement string) []byte {
	prefix, replacement = strings.TrimSuffix(prefix, "/"), strings.TrimSuffix(replacement, "/")
	rest := path[min(len(prefix), len(path)):]
	start := len(dst)
	dst = append(append(dst, replacement...), rest...)
	if len(dst) == start {
		dst = append(dst, '/')
	}
	return dst
}
