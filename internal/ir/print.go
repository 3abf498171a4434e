package ir

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// RoutesText is the effective table of a configuration for people: one line for each route, in match order within each
// host, with the headings LISTENER, HOST, MATCH, POLICIES, BACKEND and FROM. It ends with a newline.
func RoutesText(c *Config) string {
	rows := [][]string{{"LISTENER", "HOST", "MATCH", "POLICIES", "BACKEND", "FROM"}}
	listeners := map[string]*Listener{}
	for _, l := range c.Listeners {
		listeners[l.Key] = l
	}
	names := listenerNames(c.Listeners)
	for _, h := range inMatchOrder(c.Hosts) {
		match, several := map[string]string{}, map[string]bool{} // by rule
		for _, r := range h.Routes {
			rule := ruleOf(r.Source)
			if match[rule] == "" {
				match[rule] = r.Source.Field
			}
			several[rule] = several[rule] || match[rule] != r.Source.Field
		}
		for _, r := range h.Routes {
			rows = append(rows, []string{names[h.Listener], hostText(h, listeners[h.Listener]), MatchText(r.Match), stepsText(r), backendsText(r),
				fromText(r.Source, several[ruleOf(r.Source)])})
		}
	}
	return table(rows)
}

// inMatchOrder sorts the hosts of each listener as a request tries them: exact names, then wildcards from the longest,
// then any.
func inMatchOrder(hosts []*Host) []*Host {
	rank := func(h *Host) int {
		switch {
		case h.Hostname == "":
			return 2
		case strings.HasPrefix(h.Hostname, "*."):
			return 1
		}
		return 0
	}
	out := slices.Clone(hosts)
	slices.SortStableFunc(out, func(a, b *Host) int {
		longest := 0
		if rank(a) == 1 {
			longest = cmp.Compare(len(b.Hostname), len(a.Hostname))
		}
		return cmp.Or(cmp.Compare(a.Listener, b.Listener), cmp.Compare(rank(a), rank(b)), longest, cmp.Compare(a.Hostname, b.Hostname))
	})
	return out
}

// listenerNames gives each listener its port, and its group's name too where two groups have the port.
func listenerNames(ls []*Listener) map[string]string {
	groups := map[uint16]map[string]bool{}
	for _, l := range ls {
		if groups[l.Port] == nil {
			groups[l.Port] = map[string]bool{}
		}
		groups[l.Port][l.Group] = true
	}
	out := map[string]string{}
	for _, l := range ls {
		name := ":" + strconv.Itoa(int(l.Port))
		if len(groups[l.Port]) > 1 {
			_, group, _ := strings.Cut(l.Group, "/")
			name = group + name
		}
		out[l.Key] = name
	}
	return out
}

// hostText is the narrower of a host's own pattern and its listener's.
func hostText(h *Host, l *Listener) string {
	name := h.Hostname
	if l != nil && (name == "" || strings.HasPrefix(name, "*.") && strings.HasSuffix(l.Hostname, name[1:])) {
		name = l.Hostname
	}
	if name == "" {
		return "*"
	}
	return name
}

// MatchText is a match for people: "prefix /cart", "GET exact /x header x-env=canary query a~b.*".
func MatchText(m Match) string {
	var b strings.Builder
	if m.Method != "" {
		b.WriteString(m.Method + " ")
	}
	kind, value := m.Path.Kind, m.Path.Value
	if kind == "" {
		kind = PathPrefix
	}
	if value == "" {
		value = "/"
	}
	b.WriteString(kind + " " + value)
	fields := func(what string, fs []FieldMatch) {
		for _, f := range fs {
			op := "="
			if f.Regex {
				op = "~"
			}
			b.WriteString(" " + what + " " + f.Name + op + f.Value)
		}
	}
	fields("header", m.Headers)
	fields("query", m.Query)
	return b.String()
}

// stepsText names the steps of a route: an attached policy by its object, once, a filter or a redirect by its step.
func stepsText(r *Route) string {
	var names []string
	policies := map[string]bool{}
	add := func(steps []*Step) {
		for _, s := range steps {
			n := s.Name
			if src := s.Source(); strings.HasSuffix(src.Kind, "Policy") {
				n = src.Name
				if policies[src.Object()] {
					continue
				}
				policies[src.Object()] = true
			}
			if len(names) == 0 || names[len(names)-1] != n {
				names = append(names, n)
			}
		}
	}
	add(r.Steps)
	for i := range r.Backends {
		add(r.Backends[i].Steps)
	}
	if len(names) == 0 {
		return "-"
	}
	return strings.Join(names, ",")
}

func backendsText(r *Route) string {
	if len(r.Backends) == 0 {
		if r.NoBackend == "" {
			return "-"
		}
		return "500 " + r.NoBackend
	}
	var total uint64
	for _, b := range r.Backends {
		total += uint64(b.Weight)
	}
	var out []string
	for _, b := range r.Backends {
		text := ClusterText(b.Cluster)
		if b.Cluster == "" {
			text = "500 no backend"
		}
		if len(r.Backends) > 1 && total > 0 {
			text += fmt.Sprintf(" %.3g%%", 100*float64(b.Weight)/float64(total))
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

// ClusterText is the key of a cluster for people: "shop/cart:8080" for a port of a Service, "Backend shop/orders"; with " as shop/edge" if
// a Gateway shows a certificate of its own.
func ClusterText(key string) string {
	key, identity, _ := strings.Cut(key, "@")
	if _, name, ok := strings.Cut(identity, "/"); ok {
		identity = " as " + name
	}
	parts := strings.Split(key, "/")
	switch {
	case len(parts) == 4 && parts[0] == "Service":
		return parts[1] + "/" + parts[2] + ":" + parts[3] + identity
	case len(parts) == 3:
		return parts[0] + " " + parts[1] + "/" + parts[2] + identity
	}
	return key + identity
}

// ruleOf names the rule that a match belongs to.
func ruleOf(s Source) string {
	s.Field, _, _ = strings.Cut(s.Field, ".matches[")
	return s.String()
}

// fromText is a source for people: "HTTPRoute shop/cart rule 0", with "match 1" where its rule has several on the host,
// "Ingress shop/web default backend".
func fromText(s Source, several bool) string {
	out := s.Object()
	if s.Field == "spec.defaultBackend" {
		return out + " default backend"
	}
	for _, part := range strings.Split(s.Field, ".") {
		name, index, ok := strings.Cut(part, "[")
		if !ok {
			continue
		}
		switch name {
		case "rules":
			name = "rule"
		case "matches":
			if !several {
				continue
			}
			name = "match"
		case "paths":
			name = "path"
		default:
			continue
		}
		out += " " + name + " " + strings.TrimSuffix(index, "]")
	}
	return out
}

// table lays rows out in columns with two spaces between, without spaces at the ends of lines.
func table(rows [][]string) string {
	width := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, cell := range r {
			width[i] = max(width[i], len(cell))
		}
	}
	var b strings.Builder
	for _, r := range rows {
		line := ""
		for i, cell := range r {
			line += fmt.Sprintf("%-*s  ", width[i], cell)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return b.String()
}
