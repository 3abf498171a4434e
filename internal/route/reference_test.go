package route

import (
	"cmp"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/gatehouse-io/gatehouse/internal/exchange"
	"github.com/gatehouse-io/gatehouse/internal/ir"
)

// request is a Query in strings, for the reference matcher and the tests.
type request struct {
	host, path, method, query string
	header                    [][2]string
}

func (r request) to(q *Query) *Query {
	h := &exchange.Header{}
	for _, f := range r.header {
		h.Append([]byte(f[0]), []byte(f[1]))
	}
	q.Host, q.Path, q.Method, q.RawQuery, q.Header = []byte(r.host), []byte(r.path), []byte(r.method), []byte(r.query), h
	return q
}

// reference is the specification as a linear scan: no index, no trie, nothing kept.
func reference(c *ir.Config, group string, port uint16, r request) (l *ir.Listener, h *ir.Host, route *ir.Route) {
	rank := -1
	for _, o := range c.Listeners {
		if o.Group == group && o.Port == port {
			if n := specificity(o.Hostname, false, r.host); n > rank {
				l, rank = o, n
			}
		}
	}
	if l == nil {
		return nil, nil, nil
	}
	var hosts []*ir.Host
	for _, o := range c.Hosts {
		if o.Listener == l.Key && specificity(o.Hostname, o.OneLabel, r.host) >= 0 {
			hosts = append(hosts, o)
		}
	}
	slices.SortStableFunc(hosts, func(a, b *ir.Host) int {
		return cmp.Compare(specificity(b.Hostname, b.OneLabel, r.host), specificity(a.Hostname, a.OneLabel, r.host))
	})
	for _, o := range hosts {
		for _, route := range o.Routes {
			if holds(&route.Match, r) {
				return l, o, route
			}
		}
	}
	if len(hosts) > 0 {
		h = hosts[0]
	}
	return l, h, nil
}

// specificity is greater for a pattern that is more specific, -1 if it does not cover the host.
func specificity(pattern string, oneLabel bool, host string) int {
	switch {
	case pattern == "":
		return 0
	case pattern == host:
		return 1 << 20
	case !strings.HasPrefix(pattern, "*."):
		return -1
	}
	label, ok := strings.CutSuffix(host, pattern[1:])
	if !ok || label == "" {
		return -1
	}
	n := 2 * len(pattern)
	if oneLabel {
		if strings.Contains(label, ".") {
			return -1
		}
		n++
	}
	return n
}

func holds(m *ir.Match, r request) bool {
	if m.Method != "" && m.Method != r.method || !pathHolds(m.Path, r.path) {
		return false
	}
	for _, f := range m.Headers {
		var lines []string
		for _, l := range r.header {
			if strings.EqualFold(l[0], f.Name) {
				lines = append(lines, l[1])
			}
		}
		if lines == nil || !valueHolds(f, strings.Join(lines, ", ")) {
			return false
		}
	}
	for _, f := range m.Query {
		v, ok := parameterOf(r.query, f.Name)
		if !ok || !valueHolds(f, v) {
			return false
		}
	}
	return true
}

func pathHolds(p ir.PathMatch, path string) bool {
	switch p.Kind {
	case ir.PathExact:
		return p.Value == path
	case ir.PathRegex:
		return regexHolds(p.Value, path)
	}
	prefix := strings.TrimSuffix(p.Value, "/")
	return strings.HasPrefix(path, "/") && (path == prefix || strings.HasPrefix(path, prefix+"/"))
}

func valueHolds(f ir.FieldMatch, v string) bool {
	if f.Regex {
		return regexHolds(f.Value, v)
	}
	return f.Value == v
}

func regexHolds(expr, s string) bool {
	re, err := regexp.Compile(expr)
	if err != nil {
		return false
	}
	re.Longest()
	return re.FindString(s) == s && re.MatchString(s) && re.FindStringIndex(s)[0] == 0
}

func parameterOf(raw, name string) (string, bool) {
	for _, p := range strings.Split(raw, "&") {
		k, v, _ := strings.Cut(p, "=")
		k, kerr := url.QueryUnescape(k)
		v, verr := url.QueryUnescape(v)
		if p != "" && kerr == nil && verr == nil && k == name {
			return v, true
		}
	}
	return "", false
}
